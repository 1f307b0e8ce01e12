/* Decode: out_proj, down_proj or o_proj, added to the residual stream; what the next norm and router need of it.
 *
 * A block makes 8 columns of x. Grid: n_out / 8; threads: 32 · n_slices. parts holds the logits of the router
 * (n_experts > 1), with normed those of the layer's input and its sum of squares; with known they are older than
 * the launch before, and the weights are fetched before the wait on it. splits > 0: the input is what
 * decode_attention left; else act rows, by pair with by_pair.
 */
PARAM(n_in, i) PARAM(n_out, o) PARAM(n_experts, e) PARAM(renormalize, rn) PARAM(weight_dtype, w) PARAM(act, a)
PARAM(n_parts, np) PARAM(normed, nm) PARAM(known, kn) PARAM(by_pair, bp) PARAM(splits, as) PARAM(head_dim, h)
PARAM(next_experts, ne) PARAM(n_slices, ks) PARAM(group, g) PARAM(ring, r) FPARAM(eps, eps)

/* Two floats, aligned to both. */
typedef float DecodePair __attribute__((vector_size(8)));

/* n_columns (1 or 2) of a head from its parts `at` on, weighted by their shares. Eight parts at a time. */
DEVICE void decode_out_columns(float *to, const float *sums, const float *peaks, int64_t at, int column,
    const int n_columns,
    int n_used)
{
    float peak = -3.0e38f, share = 0, sum[2] = { 0, 0 };
    for (int s0 = 0; s0 < n_used; s0 += 8) {
        DecodePair own[8], values[8];
        float best = peak;
        UNROLL for (int s = 0; s < 8; s++) {
            const int is = s0 + s < n_used;
            own[s] = is ? *(const DecodePair *)(peaks + 2 * (at + s0 + s)) : (DecodePair){ -3.0e38f, 0 };
            const float *from = sums + (at + s0 + s) * head_dim + column;
            values[s] = !is ? (DecodePair){ 0, 0 } : n_columns == 2 ? *(const DecodePair *)from
                : (DecodePair){ from[0], 0 };
        }
        UNROLL for (int s = 0; s < 8; s++)
            best = max_f(best, own[s][0]);
        const float shrink = exp2_fast(peak - best);
        peak = best;
        share *= shrink;
        sum[0] *= shrink;
        sum[1] *= shrink;
        UNROLL for (int s = 0; s < 8; s++) {
            const float weight = exp2_fast(own[s][0] - best);
            share += weight * own[s][1];
            sum[0] += weight * values[s][0];
            sum[1] += weight * values[s][1];
        }
    }
    UNROLL for (int j = 0; j < n_columns; j++)
        to[j] = sum[j] * reciprocal_fast(share);
}

/* to[row] = the heads' outputs over all positions. */
DEVICE void decode_out_merge(act_t *to, int stride, const float *sums /* [row][head][splits][head_dim] */,
    const float *peaks /* [row][head][splits][2]: maximum, sum of powers */, int n_rows)
{
    const int k_len = (n_in + 63) / 64 * 64, n_used = decode_splits(splits, n_rows), n_heads = n_in / head_dim;
    for (int i = thread_x(); i < n_rows * (k_len / 2); i += n_threads()) {
        const int row = i / (k_len / 2), p = i % (k_len / 2);
        float pair[2] = { 0, 0 };
        if (head_dim % 2 == 0 && 2 * p < n_in)
            decode_out_columns(pair, sums, peaks, ((int64_t)row * n_heads + 2 * p / head_dim) * splits,
                2 * p % head_dim, 2, n_used);
        UNROLL for (int j = 0; j < 2; j++)
            if (head_dim % 2 && 2 * p + j < n_in)
                decode_out_columns(pair + j, sums, peaks, ((int64_t)row * n_heads + (2 * p + j) / head_dim) * splits,
                    (2 * p + j) % head_dim, 1, n_used);
        ((uint32_t *)(to + row * stride))[p] = act_pack(pair[0], pair[1], act);
    }
}

KERNEL(decode_out)(float *x /* [n_rows][n_out] */, float *next /* [n_rows][next_experts + 1][blocks] */,
    const void *in, const float *peaks, const float *parts, const void *weights /* [n_experts][n_out][k] */,
    const float *scales, const float *next_norm, const float *next_router, int32_t n_rows, int32_t top_k)
{
    const int row_len = decode_row_len(n_in, weight_dtype), n_chunks = decode_n_chunks(n_in, weight_dtype);
    const int k_len = (n_in + 63) / 64 * 64, x_stride = k_len + 8, n_next = next_experts > 1 ? next_experts : 0;
    const int n_sums = n_experts + (normed != 0), n_items = 8 * n_next, n_scales = n_experts * 8;
    DecodeRoute *route = shared();
    uint8_t *ring_at = (uint8_t *)(route + 1);
    float *sums = (float *)(ring_at + n_slices * ring * group * DECODE_SLOT);
    float *items = sums + n_slices * DECODE_ROWS * 8;
    float *scale_at = items + n_items;
    act_t *xs = (act_t *)(scale_at + (weight_dtype == 3 ? n_scales : 0));

    const int r = lane() / 8, t = lane() % 4, column0 = block_x() * 8, column = column0 + lane() % 8;
    const DecodeSlice slice = decode_slice(n_chunks, n_slices, warp());
    DecodeWeights w = { (const uint8_t *)weights + (int64_t)(column0 + r) * row_len
        + slice.first * DECODE_CHUNK + lane() % 8 * 16, 4 * row_len, 0, 0, (int64_t)n_out * row_len, 1,
        { column0 + r < n_out, column0 + r + 4 < n_out }, slice.n, 0, 1, 1, 1,
        ring_at + warp() * ring * group * DECODE_SLOT };
    const DecodeShape shape = { splits ? k_len : n_in, weight_dtype, act, n_slices, group,
        decode_n_groups(n_chunks, n_slices, group), ring, .gated = n_experts > 1, .by_pair = by_pair,
            .early = !splits };
    DecodeCursor at = decode_begin(&w);
    if (n_experts == 1)
        decode_fill_ring(&w, &at, shape);
    else if (!known)
        decode_expect_experts(&w, n_experts);
    float old = warp() < n_rows && column < n_out ? x[(int64_t)warp() * n_out + column] : 0.0f;
    const float ahead = thread_x() < n_items ?
        decode_leave_item(thread_x(), next_router, next_norm, n_next, n_out, column0) : 0.0f;
    decode_hold(in);
    decode_hold(parts);
    if (n_experts == 1 || !known) {
        dependency_wait();
        dependency_launch();
    }
    const int t_width = weight_dtype == 3 ? 16 : 8;
    const DecodeInput input = { splits ? xs : in, splits ? x_stride : (n_in + 7) / 8 * 8,
        slice.first * 4 * t_width + t * t_width };
    DecodeAhead ahead_in;
    if (n_experts == 1)
        decode_fetch_input(&ahead_in, &input, w.n_chunks, n_rows, shape);
    if (n_experts > 1) {
        decode_sum_parts(route->sums, parts, n_rows * n_sums, n_parts);
        if (!known)
            decode_fetch_input(&ahead_in, &input, w.n_chunks, n_rows, shape);
        barrier();
        w.experts = decode_select(route, n_rows, n_sums, n_experts, top_k);
        at = decode_begin(&w);
    }
    if (weight_dtype == 3)
        for (int i = thread_x(); i < n_scales; i += n_threads())
            if (w.experts >> i / 8 & 1)
                scale_at[i] = column0 + i % 8 < n_out ? scales[(int64_t)(i / 8) * n_out + column0 + i % 8] : 0.0f;
    if (n_experts > 1) {
        decode_fill_ring(&w, &at, shape);
        decode_gates(route, n_rows, n_sums, n_experts, renormalize, normed, n_out, eps);
    }
    if (thread_x() < n_items)
        items[thread_x()] = ahead;
    for (int i = thread_x() + n_threads(); i < n_items; i += n_threads())
        items[i] = decode_leave_item(i, next_router, next_norm, n_next, n_out, column0);
    if (n_experts > 1 && known) {
        dependency_wait();
        dependency_launch();
    }
    if (n_experts > 1 && known)
        decode_fetch_input(&ahead_in, &input, w.n_chunks, n_rows, shape);
    if (splits)
        decode_out_merge(xs, x_stride, in, peaks, n_rows);
    barrier();

    decode_multiply(sums, &w, &at, w.experts, &input, route, weight_dtype == 3 ? scale_at : NULL, 8, n_rows, top_k,
        &ahead_in, shape);
    barrier();
    for (int row = warp(); row < n_rows; row += n_threads() / 32) {
        float sum = 0;
        if (row != warp() && column < n_out)             /* all lanes, before the first of them may write */
            old = x[(int64_t)row * n_out + column];
        for (int i = lane() / 8; i < n_slices; i += 4)
            sum += sums[(i * DECODE_ROWS + row) * 8 + lane() % 8];
        sum += shuffle_xor_f(sum, 8);
        sum += shuffle_xor_f(sum, 16);
        sum = column < n_out ? sum + old : 0.0f;
        if (lane() < 8 && column < n_out)
            x[(int64_t)row * n_out + column] = sum;
        decode_leave(next, items, sum, row, n_next, n_blocks_x(), block_x());
    }
}
