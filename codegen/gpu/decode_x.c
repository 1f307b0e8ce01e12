/* Decode: x_proj of the chosen experts, by expert, without gates, in n_splits parts of the columns.
 *
 * Grid: x ceil(n_out / 8) · n_splits,
     a tile and a part of the columns each; y: the active experts are dealt out to these.
 * parts holds the logits of x's router (n_experts > 1).
 */
PARAM(n_in, i) PARAM(n_out, o) PARAM(n_experts, e) PARAM(weight_dtype, w) PARAM(act, a) PARAM(n_parts, np)
PARAM(n_splits, sp) PARAM(n_slices, ks) PARAM(group, g) PARAM(ring, r)

KERNEL(decode_x)(float *out /* [n_rows][n_experts][n_splits][n_out] */, const float *x /* [n_rows][n_in] */,
    const float *parts, const void *weights /* [n_experts][n_out][k] */, const float *scales, int32_t n_rows,
    int32_t top_k)
{
    const int row_len = decode_row_len(n_in, weight_dtype), all_chunks = decode_n_chunks(n_in, weight_dtype);
    const int width = weight_dtype == 3 ? 64 : 32,
        t_width = weight_dtype == 3 ? 16 : 8;     /* columns: of a chunk, a lane */
    const int k_part = (all_chunks + 2 * n_splits - 1) / (2 * n_splits) * 2 * width, x_stride = k_part + 8,
        n_warps = n_threads() / 32;
    DecodeRoute *route = shared();
    act_t *xs = (act_t *)(route + 1);
    uint8_t *ring_at = (uint8_t *)(xs + DECODE_ROWS * x_stride);
    float *sums = (float *)(ring_at + n_warps * ring * group * DECODE_SLOT);

    const int r = lane() / 8, t = lane() % 4, split = block_x() % n_splits, row0 = block_x() / n_splits * 8;
    const DecodeSlice part = decode_slice(all_chunks, n_splits, split);
    const int per = (k_part / width + 2 * n_slices - 1) / (2 * n_slices) * 2,
        first = warp() * per;       /* chunks of this warp */
    DecodeWeights w = { (const uint8_t *)weights + (int64_t)(row0 + r) * row_len
        + (part.first + first) * DECODE_CHUNK + lane() % 8 * 16, 4 * row_len, 0, 0, (int64_t)n_out * row_len, 1,
        { row0 + r < n_out, row0 + r + 4 < n_out }, min_i(per, max_i(part.n - first, 0)), 0, 1, 1, 1,
        ring_at + warp() * ring * group * DECODE_SLOT };
    const DecodeShape shape = { k_part, weight_dtype, act, n_slices, group, (per + group - 1) / group, ring,
        .gated = 0 };
    if (n_experts > 1)
        decode_expect_experts(&w, n_experts);

    decode_hold(x);
    decode_hold(parts);
    dependency_wait();
    dependency_launch();
    float ahead[DECODE_AHEAD][2];                /* of rows, the thread's first pair of columns */
    const int k_first = part.first * width + 2 * thread_x();
    UNROLL for (int row = 0; row < DECODE_AHEAD; row++)
        UNROLL for (int i = 0; i < 2; i++)
            ahead[row][i] = row < n_rows && k_first + i < n_in ? x[(int64_t)row * n_in + k_first + i] : 0.0f;
    uint32_t mine = 1;
    if (n_experts > 1) {
        decode_sum_parts(route->sums, parts, n_rows * n_experts, n_parts);
        barrier();
        uint32_t active = decode_select(route, n_rows, n_experts, n_experts, top_k);
        mine = 0;
        for (int i = 0; active; i++, active &= active - 1)
            if (i % n_blocks_y() == block_y())
                mine |= active & -active;
    }
    w.experts = mine;
    DecodeCursor at = decode_begin(&w);
    decode_fill_ring(&w, &at, shape);
    UNROLL for (int row = 0; row < DECODE_AHEAD; row++)
        if (row < n_rows && 2 * thread_x() < k_part)
            ((uint32_t *)(xs + row * x_stride))[thread_x()] = act_pack(ahead[row][0], ahead[row][1], act);
    for (int row = 0; row < n_rows; row++)
        for (int p = thread_x() + (row < DECODE_AHEAD ? n_threads() : 0); 2 * p < k_part; p += n_threads()) {
            const int k = part.first * width + 2 * p;
            const float *from = x + (int64_t)row * n_in + k;
            ((uint32_t *)(xs + row * x_stride))[p] = act_pack(k < n_in ? from[0] : 0.0f, k + 1 < n_in ? from[1] : 0.0f,
                act);
        }
    const DecodeInput in = { xs, x_stride, first * width + t * t_width };
    for (; mine; mine &= mine - 1) {
        const int expert = __builtin_ctz(mine), column = row0 + thread_x() % 8;
        const float scale = weight_dtype == 3 && column < n_out ? scales[(int64_t)expert * n_out + column] : 1.0f;
        barrier();
        decode_multiply(sums, &w, &at, mine & -mine, &in, route, NULL, 0, n_rows, top_k, shape);
        barrier();
        for (int i = thread_x(); i < 8 * n_rows; i += n_threads()) {
            const int row = i / 8;
            const float value = decode_read_part(sums, 0, n_slices, row, i % 8) * scale;
            if (column < n_out && (n_experts == 1 || route->chosen[row] >> expert & 1))
                out[(((int64_t)row * n_experts + expert) * n_splits + split) * n_out + column] = value;
        }
    }
}
