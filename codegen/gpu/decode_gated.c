/* Decode: RMSNorm, router, gate and up of the chosen experts, silu(gate) · up, an act row for each pair.
 *
 * Weights are interleaved (layout device_pairs). Grid: x ceil(n_out / (4 · tiles)), y: the active experts are dealt
 * out to these; threads: 32 · n_slices · a divisor of tiles. parts holds the logits (n_experts > 1) and the sum of
 * squares.
 */
PARAM(n_in, i) PARAM(n_out, o) PARAM(n_experts, e) PARAM(weight_dtype, w) PARAM(act, a) PARAM(n_parts, np)
PARAM(tiles, m) PARAM(n_slices, ks) PARAM(group, g) PARAM(ring, r) FPARAM(eps, eps)

KERNEL(decode_gated)(act_t *out /* [n_rows · top_k][n_out up to 8] */, const float *x, const float *parts,
    const float *norm, const void *weights /* [n_experts][2 n_out][k] */, const float *scales, int32_t n_rows,
    int32_t top_k)
{
    const int row_len = decode_row_len(n_in, weight_dtype), n_chunks = decode_n_chunks(n_in, weight_dtype);
    const int k_len = (n_in + 63) / 64 * 64, x_stride = k_len + 8, n_warps = n_threads() / 32;
    const int n_sums = (n_experts > 1 ? n_experts : 0) + 1, n_scales = 8 * tiles, out_stride = (n_out + 7) / 8 * 8;
    DecodeRoute *route = shared();
    act_t *xs = (act_t *)(route + 1);
    uint8_t *ring_at = (uint8_t *)(xs + DECODE_ROWS * x_stride);
    float *sums = (float *)(ring_at + n_warps * ring * group * DECODE_SLOT);
    float *scale_at = sums + tiles * n_slices * DECODE_ROWS * 8;

    const int r = lane() / 8, t = lane() % 4, row0 = block_x() * 8 * tiles;      /* of the weights */
    const DecodeSlice slice = decode_slice(n_chunks, n_slices, warp() % n_slices);
    DecodeWeights w = { (const uint8_t *)weights + (int64_t)(row0 + r) * row_len
        + slice.first * DECODE_CHUNK + lane() % 8 * 16, 4 * row_len, 8 * row_len, 0, (int64_t)2 * n_out * row_len,
            tiles,
        { (2 * n_out - row0 - r + 7) / 8, (2 * n_out - row0 - r + 3) / 8 }, slice.n,
        warp() / n_slices, tiles, n_warps / n_slices, 1,
        ring_at + warp() * ring * group * DECODE_SLOT };
    const DecodeShape shape = { k_len, weight_dtype, act, n_slices, group, decode_n_groups(n_chunks, n_slices, group),
        ring,
        .experts_outer = 1 };
    DecodeCursor at = decode_begin(&w);
    if (n_experts == 1)
        decode_fill_ring(&w, &at, shape);
    else
        decode_expect_experts(&w, n_experts);
    DecodeColumns columns;
    decode_fetch_norm(&columns, norm, n_in, n_rows);

    decode_await_rows(&columns, x, n_in, n_rows, route->sums, parts, n_rows * n_sums, n_parts);
    if (n_experts > 1) {
        uint32_t active = decode_select(route, n_rows, n_sums, n_experts, top_k);
        w.experts = 0;
        for (int i = 0; active; i++, active &= active - 1)
            if (i % n_blocks_y() == block_y())
                w.experts |= active & -active;
        at = decode_begin(&w);
    }
    if (weight_dtype == 3)
        for (int i = thread_x(); i < n_experts * n_scales; i += n_threads()) {
            const int e = i / n_scales, row = row0 + i % n_scales;
            if (w.experts >> e & 1)
                scale_at[i] = row < 2 * n_out ? scales[(int64_t)e * 2 * n_out + row] : 0.0f;
        }
    if (n_experts > 1)
        decode_fill_ring(&w, &at, shape);
    decode_store_norm(xs, x_stride, k_len, &columns, x, norm, route, n_sums, n_in, eps, n_rows, act);
    const int t_width = weight_dtype == 3 ? 16 : 8;
    const DecodeInput in = { xs, x_stride, slice.first * 4 * t_width + t * t_width };
    for (uint32_t left = w.experts; left; left &= left - 1) {
        const uint32_t bit = left & -left;
        barrier();
        decode_multiply(sums, &w, &at, bit, &in, route, weight_dtype == 3 ? scale_at : NULL, n_scales, n_rows, top_k,
            NULL, shape);
        barrier();
        for (int i = thread_x(); i < n_rows * 4 * tiles; i += n_threads()) {
            const int row = i / (4 * tiles), j = i % (4 * tiles), column = row0 / 2 + j;
            const uint32_t chosen = n_experts > 1 ? route->chosen[decode_chosen_at(row, n_rows)] : 1;
            if (column >= n_out || !(chosen & bit))
                continue;
            const float gate = decode_read_part(sums, j / 4, n_slices, row, j % 4 * 2);
            const float up = decode_read_part(sums, j / 4, n_slices, row, j % 4 * 2 + 1);
            const int pair = n_experts > 1 ? row * top_k + count_ones(chosen & (bit - 1)) : row;
            out[(int64_t)pair * out_stride + column] = float_act(decode_silu(gate) * up, act);
        }
    }
}
