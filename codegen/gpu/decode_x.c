/* Decode: x_proj of all experts, without gates: nothing to choose, so the weights come before the wait. The routing
 * beside it: what the next launch needs of it is ready with the products.
 *
 * Grid: n_experts · ceil(n_out / 8), and with routers one more, which routes; threads: 32 · n_slices.
 */
PARAM(n_in, i) PARAM(n_out, o) PARAM(n_experts, e) PARAM(renormalize, rn) PARAM(weight_dtype, w)
PARAM(act, a) PARAM(n_parts, np) PARAM(n_slices, ks) PARAM(group, g) PARAM(ring, r)

/* gates[row][expert], 0 where not chosen. */
DEVICE void decode_x_route(float *gates, const float *parts /* [n_rows][n_experts][n_parts] */, int n_rows, int top_k)
{
    DecodeRoute *route = shared();
    decode_sum_parts(route->sums, parts, n_rows * n_experts, n_parts);
    barrier();
    decode_select(route, n_rows, n_experts, n_experts, top_k);
    decode_gates(route, n_rows, n_experts, n_experts, renormalize, 0, 1, 0);
    barrier();
    for (int i = thread_x(); i < n_rows * n_experts; i += n_threads())
        gates[i] = route->gates[i % n_experts * DECODE_ROWS + i / n_experts];
}

KERNEL(decode_x)(float *out /* [n_rows][n_experts][n_out] */, float *gates /* [n_rows][n_experts] */,
    const act_t *x /* [n_rows][n_in up to 8] */, const float *parts, const void *weights /* [n_experts][n_out][k] */,
    const float *scales, int32_t n_rows, int32_t top_k)
{
    const int row_len = decode_row_len(n_in, weight_dtype), n_chunks = decode_n_chunks(n_in, weight_dtype);
    const int n_tiles = (n_out + 7) / 8, expert = block_x() / n_tiles, row0 = block_x() % n_tiles * 8;
    const int r = lane() / 8, t = lane() % 4, t_width = weight_dtype == 3 ? 16 : 8, column = row0 + lane() % 8;
    DecodeRoute *route = shared();
    uint8_t *ring_at = (uint8_t *)(route + 1);
    float *sums = (float *)(ring_at + n_slices * ring * group * DECODE_SLOT);
    dependency_pass();
    if (expert == n_experts) {
        dependency_wait();
        decode_x_route(gates, parts, n_rows, top_k);
        return;
    }
    const DecodeSlice slice = decode_slice(n_chunks, n_slices, warp());
    DecodeWeights w = { (const uint8_t *)weights + ((int64_t)expert * n_out + row0 + r) * row_len
        + slice.first * DECODE_CHUNK + lane() % 8 * 16, 4 * row_len, 0, 0, 0, 1,
        { row0 + r < n_out, row0 + r + 4 < n_out }, slice.n, 0, 1, 1, 1,
        ring_at + warp() * ring * group * DECODE_SLOT };
    const DecodeShape shape = { n_in, weight_dtype, act, n_slices, group, decode_n_groups(n_chunks, n_slices, group),
        ring, .early = 1 };
    DecodeCursor at = decode_begin(&w);
    decode_fill_ring(&w, &at, shape);
    const float scale = weight_dtype == 3 && column < n_out ? scales[(int64_t)expert * n_out + column] : 1.0f;
    decode_hold(x);
    dependency_wait();
    const DecodeInput in = { x, (n_in + 7) / 8 * 8, slice.first * 4 * t_width + t * t_width };
    DecodeAhead ahead;
    decode_fetch_input(&ahead, &in, w.n_chunks, n_rows, shape);
    decode_multiply(sums, &w, &at, 1, &in, route, NULL, 0, n_rows, 1, &ahead, shape);
    barrier();
    for (int row = warp(); row < n_rows; row += n_threads() / 32) {
        float sum = 0;
        for (int i = lane() / 8; i < n_slices; i += 4)
            sum += sums[(i * DECODE_ROWS + row) * 8 + lane() % 8];
        sum += shuffle_xor_f(sum, 8);
        sum += shuffle_xor_f(sum, 16);
        if (lane() < 8 && column < n_out)
            out[((int64_t)row * n_experts + expert) * n_out + column] = sum * scale;
    }
}
