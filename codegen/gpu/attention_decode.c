/* Attention of one token of each sequence, with what comes before and after it: rotation, and the rings' new row.
 *
 * A block takes a sequence, up to 4 query heads of one kv head, and one of n_splits pieces of the keys they see. Lanes
 * side by side hold 8 elements each of a key; groups of lanes, then warps, then pieces are merged, each with
 * its largest score, sum of weights and weighted sum of values, in one order. Whoever of a sequence's blocks
 * ends last merges the pieces. The piece with the token's own key writes the rings: no block of this call reads it
 * there.
 *
 * Grid: sequences; n_kv_heads · B · n_splits with B = ceil(n_heads / n_kv_heads / 4). Threads: 256. Shared: 19456
 * bytes. partial, float32 [sequences][n_kv_heads · B][n_splits][4][head_dim + 2], and arrivals, zero between
 * calls, [sequences][n_kv_heads · B], are null with one piece. table: as rope_table makes it for the positions; null
 * without rotates. With window 0 positions are below n_context.
 */
PARAM(n_heads, n) PARAM(n_kv_heads, kv) PARAM(head_dim, h) PARAM(q_stride, qs) PARAM(new_stride, ns)
PARAM(kv_stride, ks) PARAM(out_stride, os) PARAM(window, w) PARAM(n_splits, sp) PARAM(rotates, r) PARAM(act, a)

enum { WARPS = 8, HEADS = 4, BATCH = 4, MAX_DIM = 128, PART = HEADS * (MAX_DIM + 2) };

/* x [head_dim] rotated and rounded, times scale, as float32. */
DEVICE void rotate_query(float *to, const act_t *x, const float *table, float scale, int begin, int step)
{
    const int half = head_dim / 2;
    for (int i = begin; i < head_dim; i += step) {
        float value = act_float(x[i], act);
        if (rotates) {
            const float other = act_float(x[i < half ? i + half : i - half], act);
            const float c = table[i % half], s = table[half + i % half];
            value = act_float(float_act(fma_f(value, c, i < half ? -(other * s) : other * s), act), act);
        }
        to[i] = value * scale;
    }
}

/* Pieces merged: element i of head `head`, of n parts [HEADS][head_dim + 2] that lie `stride` apart. */
DEVICE float merge(const float *parts, int n, int stride, int head, int i, float *top, float *total)
{
    const float *from = parts + head * (head_dim + 2);
    float most = -1e30f, weights = 0.0f, sum = 0.0f;
    for (int j = 0; j < n; j++)
        most = max_f(most, from[j * stride + head_dim]);
    for (int j = 0; j < n; j++) {
        const float shrink = exp2_fast(from[j * stride + head_dim] - most);
        weights = fma_f(from[j * stride + head_dim + 1], shrink, weights);
        sum = fma_f(from[j * stride + i], shrink, sum);
    }
    *top = most;
    *total = weights;
    return sum;
}

KERNEL(attention_decode)(act_t *out /* [n_tokens][out_stride] */, const act_t *q /* [n_tokens][q_stride] */,
    const act_t *k /* [n_tokens][new_stride] */, const act_t *v /* the same */,
    uint8_t *ring_k /* slot 0's act_t [rows][kv_stride] */, uint8_t *ring_v /* the same */,
    const float *table /* [n_tokens][head_dim] */, const int64_t *positions, const int32_t *slots, int64_t state_stride,
    int64_t n_context, float *partial, uint32_t *arrivals, int32_t n_tokens)
{
    const int group = n_heads / n_kv_heads, n_own = group < HEADS ? group : HEADS, tiles = (group + n_own - 1) / n_own;
    const int chunks = head_dim / 8, lanes = chunks <= 1 ? 1 : chunks <= 2 ? 2 : chunks <= 4 ? 4 : chunks <= 8 ? 8 : 16;
    const int sequence = block_x(), split = block_y() % n_splits, tile = block_y() / n_splits;   /* of all kv heads */
    const int kv_head = tile / tiles, first_head = tile % tiles * n_own;
    float *queries = shared();                              /* [HEADS][MAX_DIM] */
    float *parts = queries + HEADS * MAX_DIM;               /* [WARPS][PART] */
    float *new_key_wide = parts + WARPS * PART;             /* [MAX_DIM] */
    act_t *new_key = (act_t *)(new_key_wide + MAX_DIM);     /* [MAX_DIM] */
    uint32_t *arrived = (uint32_t *)parts;

    dependency_wait();
    dependency_launch();
    if (sequence >= n_tokens)
        return;
    const int64_t position = positions[sequence], rows = window > 0 ? (int64_t)window : n_context;
    const int64_t first = window > 0 && position >= window ? position - window + 1 : 0;
    const int64_t per_split = (position - first) / n_splits + 1;
    const int64_t begin = first + split * per_split;
    const int64_t end = begin + per_split < position + 1 ? begin + per_split : position + 1;
    act_t *old_k = (act_t *)(ring_k + slots[sequence] * state_stride) + kv_head * head_dim;
    act_t *old_v = (act_t *)(ring_v + slots[sequence] * state_stride) + kv_head * head_dim;
    const act_t *new_v = v + (int64_t)sequence * new_stride + kv_head * head_dim;
    const float scale = 1.44269504f * rsqrt_fast((float)head_dim);

    table += (int64_t)sequence * head_dim;
    for (int head = 0; head < n_own; head++)
        if (first_head + head < group)
            rotate_query(queries + head * MAX_DIM,
                q + (int64_t)sequence * q_stride + (kv_head * group + first_head + head) * head_dim, table, scale,
                thread_x(), WARPS * 32);
    rotate_query(new_key_wide, k + (int64_t)sequence * new_stride + kv_head * head_dim, table, 1.0f, thread_x(),
        WARPS * 32);
    barrier();
    for (int i = thread_x(); i < head_dim; i += WARPS * 32) {
        new_key[i] = float_act(new_key_wide[i], act);
        if (begin <= position && position < end && tile % tiles == 0) {
            old_k[position % rows * kv_stride + i] = new_key[i];
            old_v[position % rows * kv_stride + i] = new_v[i];
        }
    }
    barrier();

    const int chunk = lane() % lanes * 8;
    float query[HEADS][8], sum[HEADS][8], top[HEADS], total[HEADS];
    UNROLL
    for (int head = 0; head < n_own; head++) {
        UNROLL
        for (int i = 0; i < 8; i++) {
            query[head][i] = first_head + head < group && chunk < head_dim ? queries[head * MAX_DIM + chunk + i] : 0.0f;
            sum[head][i] = 0.0f;
        }
        top[head] = -1e30f;             /* finite: the difference to -infinity is no NaN */
        total[head] = 0.0f;
    }
    const int n_groups = 32 / lanes, step = n_groups * BATCH;
    for (int64_t base = begin + warp() * step; base < end; base += WARPS * step) {
        u32x4 key[BATCH], value[BATCH];
        float score[HEADS][BATCH];
        UNROLL
        for (int b = 0; b < BATCH; b++) {
            const int64_t at = base + b * n_groups + lane() / lanes;
            const bool is_known = at < end && chunk < head_dim;
            const int64_t row = window > 0 ? (int64_t)((uint64_t)at % (uint32_t)window) : at;
            key[b] = value[b] = (u32x4){ 0, 0, 0, 0 };
            if (is_known) {
                key[b] = load16(at < position ? old_k + row * kv_stride + chunk : new_key + chunk);
                value[b] = load16(at < position ? old_v + row * kv_stride + chunk : new_v + chunk);
            }
        }
        UNROLL
        for (int b = 0; b < BATCH; b++)
            UNROLL
            for (int head = 0; head < n_own; head++) {
                float dot = 0.0f;
                UNROLL
                for (int i = 0; i < 4; i++) {
                    dot = fma_f(act_lo(key[b][i], act), query[head][2 * i], dot);
                    dot = fma_f(act_hi(key[b][i], act), query[head][2 * i + 1], dot);
                }
                UNROLL
                for (int mask = 1; mask < lanes; mask *= 2)
                    dot += shuffle_xor_f(dot, mask);
                score[head][b] = base + b * n_groups + lane() / lanes < end ? dot : -INFINITY;
            }
        UNROLL
        for (int head = 0; head < n_own; head++) {
            float most = top[head];
            UNROLL
            for (int b = 0; b < BATCH; b++)
                most = max_f(most, score[head][b]);
            const float shrink = exp2_fast(top[head] - most);
            top[head] = most;
            total[head] *= shrink;
            UNROLL
            for (int i = 0; i < 8; i++)
                sum[head][i] *= shrink;
            UNROLL
            for (int b = 0; b < BATCH; b++) {
                const float p = exp2_fast(score[head][b] - most);
                total[head] += p;
                UNROLL
                for (int i = 0; i < 4; i++) {
                    sum[head][2 * i] = fma_f(p, act_lo(value[b][i], act), sum[head][2 * i]);
                    sum[head][2 * i + 1] = fma_f(p, act_hi(value[b][i], act), sum[head][2 * i + 1]);
                }
            }
        }
    }

    /* The warp's groups of lanes, then its part for the block. */
    UNROLL
    for (int head = 0; head < n_own; head++) {
        UNROLL
        for (int mask = lanes; mask < 32; mask *= 2) {
            const float most = max_f(top[head], shuffle_xor_f(top[head], mask)), shrink = exp2_fast(top[head] - most);
            top[head] = most;
            total[head] *= shrink;
            total[head] += shuffle_xor_f(total[head], mask);
            UNROLL
            for (int i = 0; i < 8; i++) {
                sum[head][i] *= shrink;
                sum[head][i] += shuffle_xor_f(sum[head][i], mask);
            }
        }
        float *to = parts + warp() * PART + head * (head_dim + 2);
        if (lane() < lanes && chunk < head_dim)
            UNROLL
            for (int i = 0; i < 8; i++)
                to[chunk + i] = sum[head][i];
        if (lane() == 0) {
            to[head_dim] = top[head];
            to[head_dim + 1] = total[head];
        }
    }
    barrier();

    const float *merged = parts;
    int n_parts = WARPS, stride = PART;
    if (n_splits > 1) {
        const int64_t all_tiles = n_kv_heads * tiles, piece_len = HEADS * (head_dim + 2);
        float *pieces = partial + (sequence * all_tiles + tile) * n_splits * piece_len;
        for (int i = thread_x(); i < n_own * head_dim; i += WARPS * 32) {
            const int head = i / head_dim, column = i % head_dim;
            float *to = pieces + split * piece_len + head * (head_dim + 2), most, weights;
            to[column] = merge(parts, WARPS, PART, head, column, &most, &weights);
            if (column == 0) {
                to[head_dim] = most;
                to[head_dim + 1] = weights;
            }
        }
        barrier();
        if (thread_x() == 0) {
            uint32_t *counter = arrivals + sequence * all_tiles + tile;
            *arrived = add_acquire_release(counter, 1);
            if (*arrived == (uint32_t)n_splits - 1)
                *counter = 0;
        }
        barrier();
        if (*arrived != (uint32_t)n_splits - 1)
            return;
        merged = pieces;
        n_parts = n_splits;
        stride = (int)piece_len;
    }
    for (int i = thread_x(); i < n_own * head_dim; i += WARPS * 32) {
        const int head = first_head + i / head_dim;
        float most, weights;
        const float x = merge(merged, n_parts, stride, i / head_dim, i % head_dim, &most, &weights);
        if (head < group)
            out[(int64_t)sequence * out_stride + (kv_head * group + head) * head_dim + i % head_dim]
                = float_act(x * reciprocal_fast(weights), act);
    }
}
