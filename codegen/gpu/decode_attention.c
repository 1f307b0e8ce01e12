/* Decode: one token's attention over the rings, which hold its own keys and values too, in parts of the positions.
 *
 * Grid: x n_kv_heads · ceil(n_heads / n_kv_heads / 16) · splits, y rows; whole warps, each with tiles of 16
 * positions of its own. Left behind: sums [row][head][splits][head_dim] weighted by powers of 2 relative to the
 * part's maximum, and peaks: that maximum and the sum of the powers. Positions before the current one are fetched
 * before the wait on decode_qkv.
 */
PARAM(n_heads, nh) PARAM(n_kv_heads, kv) PARAM(head_dim, h) PARAM(window, wi) PARAM(splits, as) PARAM(act, a)

enum { DECODE_TILE = 16, DECODE_HEAD_MAX = 256 };

/* Keys or values of the tile's rows [from, to), zero from n_left on. row: the ring's row of the first, which wraps. */
DEVICE void decode_attention_copy(act_t *to /* shared [16][stride] */, int stride, const act_t *ring, int64_t row,
    int64_t n_ring, int from, int until, int n_left)
{
    const int n_pieces = (head_dim + 7) / 8;
    for (int i = from * n_pieces + lane(); i < until * n_pieces; i += 32) {
        const int at = i / n_pieces, piece = i % n_pieces;
        const int64_t ring_row = row + at < n_ring ? row + at : row + at - n_ring;
        const act_t *source = ring + ring_row * (n_kv_heads * head_dim) + piece * 8;
        act_t *place = to + at * stride + piece * 8;
        if (head_dim % 8 == 0)
            copy_async16(place, source, at < n_left ? 16 : 0);
        else
            for (int j = 0; j < 8; j++)
                place[j] = at < n_left && piece * 8 + j < head_dim ? source[j] : 0;
    }
}

/* 8 elements of a head of q, zeros beyond it. */
DEVICE u32x4 decode_attention_q(const act_t *head, int k)
{
    if (head_dim % 8 == 0)
        return k < head_dim ? load16(head + k) : (u32x4){ 0, 0, 0, 0 };
    u32x4 value = { 0, 0, 0, 0 };
    UNROLL for (int i = 0; i < 8; i++)
        if (k + i < head_dim)
            value[i / 2] |= (uint32_t)head[k + i] << 16 * (i % 2);
    return value;
}

KERNEL(decode_attention)(float *sums, float *peaks, const act_t *q /* [n_rows][n_heads · head_dim up to 8] */,
    const uint8_t *ring_k /* [rows][n_kv_heads · head_dim] */, const uint8_t *ring_v, const int64_t *positions,
    const int32_t *slots, int64_t state_stride, int64_t n_context, int32_t n_rows)
{
    enum { max_chunks = DECODE_HEAD_MAX / 32 };
    const int padded = (head_dim + 31) / 32 * 32, n_chunks = padded / 32, stride = padded + 8;
    const int per_kv = n_heads / n_kv_heads, n_groups = (per_kv + 15) / 16, most = min_i(per_kv, 16);
    const int g = lane() / 4, t = lane() % 4, n_warps = n_threads() / 32, row = block_y();
    const int split = block_x() % splits, group = block_x() / splits % n_groups,
        kv_head = block_x() / splits / n_groups;
    const int head0 = kv_head * per_kv + group * 16, n_own = min_i(per_kv - group * 16, 16);
    act_t *keys = (act_t *)shared() + warp() * 2 * DECODE_TILE * stride, *values = keys + DECODE_TILE * stride;

    const int n_used = decode_splits(splits, n_rows);
    if (split >= n_used)
        return;
    const int64_t position = positions[row], n_ring = window ? window : n_context;
    const int n_seen = (int)(position + 1 < n_ring ? position + 1 : n_ring);
    const int per_split = ((n_seen + n_used - 1) / n_used + DECODE_TILE - 1) / DECODE_TILE * DECODE_TILE;
    const int begin = split * per_split, end = min_i(begin + per_split, n_seen);       /* the last one is n_seen - 1 */
    const int64_t row0 = (position + 1 - n_seen) % n_ring;
    const act_t *from_k = (const act_t *)(ring_k + slots[row] * state_stride) + kv_head * head_dim;
    const act_t *from_v = (const act_t *)(ring_v + slots[row] * state_stride) + kv_head * head_dim;
    for (int i = lane(); i < 2 * DECODE_TILE * stride / 2; i += 32)                     /* columns beyond the head */
        if (i % (stride / 2) * 2 >= head_dim / 8 * 8)
            ((uint32_t *)keys)[i] = 0;
    warp_sync();

    u32x4 q_lo[max_chunks], q_hi[max_chunks];
    float out[DECODE_HEAD_MAX / 8][4], peak[2] = { -3.0e38f, -3.0e38f }, share[2] = { 0, 0 };
    UNROLL for (int i = 0; i < padded / 8; i++)
        UNROLL for (int j = 0; j < 4; j++)
            out[i][j] = 0;
    int waits = 1;
    for (int at = begin + warp() * DECODE_TILE; at < end || waits; at += n_warps * DECODE_TILE) {
        const int n_left = min_i(end - at, DECODE_TILE), n_old = at + n_left == n_seen ? n_left - 1 : DECODE_TILE;
        const int64_t ring_row = row0 + at < n_ring ? row0 + at : row0 + at - n_ring;
        if (at < end) {
            decode_attention_copy(keys, stride, from_k, ring_row, n_ring, 0, n_old, n_left);
            decode_attention_copy(values, stride, from_v, ring_row, n_ring, 0, n_old, n_left);
        }
        if (waits) {
            dependency_wait();
            dependency_launch();
            const int q_stride = (n_heads * head_dim + 7) / 8 * 8;
            const act_t *heads = q + (int64_t)row * q_stride + head0 * head_dim;
            UNROLL for (int c = 0; c < n_chunks; c++) {
                q_lo[c] = g < n_own ? decode_attention_q(heads + g * head_dim, 32 * c + 8 * t) : (u32x4){ 0, 0, 0, 0 };
                q_hi[c] = g + 8 < n_own ? decode_attention_q(heads + (g + 8) * head_dim, 32 * c + 8 * t) : (u32x4){ 0,
                    0, 0, 0 };
            }
            waits = 0;
        }
        if (at >= end)
            break;
        decode_attention_copy(keys, stride, from_k, ring_row, n_ring, n_old, DECODE_TILE, n_left);
        decode_attention_copy(values, stride, from_v, ring_row, n_ring, n_old, DECODE_TILE, n_left);
        copy_commit();
        copy_wait(0);
        warp_sync();
        float score[2][4] = { { 0, 0, 0, 0 }, { 0, 0, 0, 0 } };
        UNROLL for (int j = 0; j < 2; j++) {
            UNROLL for (int c = 0; c < n_chunks; c++)
                decode_mma(score[j], load16(keys + (8 * j + g) * stride + 32 * c + 8 * t), q_lo + c, q_hi + c, act,
                    act);
            UNROLL for (int i = 0; i < 4; i++)
                score[j][i] = 8 * j + 2 * t + i % 2 < n_left ?
                    score[j][i] * (1.44269504f * rsqrt_fast((float)head_dim)) : -3.0e38f;
        }
        UNROLL for (int i = 0; i < 2; i++) {         /* heads g and g + 8 */
            float best = max_f(peak[i], max_f(max_f(score[0][2 * i], score[0][2 * i + 1]), max_f(score[1][2 * i],
                score[1][2 * i + 1])));
            best = max_f(best, shuffle_xor_f(best, 1));
            best = max_f(best, shuffle_xor_f(best, 2));
            const float shrink = exp2_fast(peak[i] - best);
            peak[i] = best;
            share[i] *= shrink;
            UNROLL for (int j = 0; j < 2; j++)
                UNROLL for (int m = 2 * i; m < 2 * i + 2; m++) {
                    score[j][m] = exp2_fast(score[j][m] - best);
                    share[i] += score[j][m];
                }
            UNROLL for (int d = 0; d < padded / 8; d++) {
                out[d][2 * i] *= shrink;
                out[d][2 * i + 1] *= shrink;
            }
        }
        const uint32_t power[4] = { act_pack(score[0][0], score[0][1], act), act_pack(score[0][2], score[0][3], act),
            act_pack(score[1][0], score[1][1], act), act_pack(score[1][2], score[1][3], act) };
        UNROLL for (int d = 0; d < padded / 16; d++) {
            uint32_t v[4];
            matrix_load4_transposed(v, values + (lane() / 8 % 2 * 8 + lane() % 8) * stride + 16 * d + lane() / 16 * 8);
            mma_16x8x16(out[2 * d], power, v, act);
            mma_16x8x16(out[2 * d + 1], power, v + 2, act);
        }
        warp_sync();
    }
    UNROLL for (int i = 0; i < 2; i++) {
        share[i] += shuffle_xor_f(share[i], 1);
        share[i] += shuffle_xor_f(share[i], 2);
    }

    barrier();                       /* keys and values are used up: their place holds the warps' parts */
    float *warp_peak = shared(), *warp_share = warp_peak + n_warps * most, *warp_sum = warp_share + n_warps * most;
    UNROLL for (int i = 0; i < 2; i++)
        if (g + 8 * i < n_own) {
            const int at = warp() * most + g + 8 * i;
            if (t == 0) {
                warp_peak[at] = peak[i];
                warp_share[at] = share[i];
            }
            UNROLL for (int d = 0; d < padded / 8; d++)
                UNROLL for (int j = 0; j < 2; j++)
                    warp_sum[at * padded + 8 * d + 2 * t + j] = out[d][2 * i + j];
        }
    barrier();
    for (int i = thread_x(); i < n_own * head_dim; i += n_threads()) {
        const int head = i / head_dim, d = i % head_dim;
        const int64_t at = ((int64_t)row * n_heads + head0 + head) * splits + split;
        float best = -3.0e38f, total = 0, sum = 0;
        for (int w = 0; w < n_warps; w++)
            best = max_f(best, warp_peak[w * most + head]);
        for (int w = 0; w < n_warps; w++) {
            const float weight = exp2_fast(warp_peak[w * most + head] - best);
            total += weight * warp_share[w * most + head];
            sum += weight * warp_sum[(w * most + head) * padded + d];
        }
        sums[at * head_dim + d] = sum;
        if (d == 0) {
            peaks[2 * at] = best;
            peaks[2 * at + 1] = total;
        }
    }
}
