/* Decode: final RMSNorm and the head's products; the largest logit of every block's rows.
 *
 * A block makes 8 · tiles logits of each row. Grid: n_out / (8 · tiles); threads: 32 · n_slices · a divisor of tiles.
 * best: per row and block the largest logit and its column, of equal ones the first; -1 where all are NaN.
 */
PARAM(n_in, i) PARAM(n_out, o) PARAM(weight_dtype, w) PARAM(act, a) PARAM(n_parts, np) PARAM(tiles, m)
PARAM(n_slices, ks) PARAM(group, g) PARAM(ring, r) FPARAM(eps, eps)

KERNEL(decode_head)(float *logits /* [n_rows][n_out] */, float *best /* [n_rows][blocks] */,
    int32_t *best_at /* the same */, const float *x, const float *parts, const float *norm,
    const void *weights /* [n_out][k] */, const float *scales, int32_t n_rows)
{
    const int row_len = decode_row_len(n_in, weight_dtype), n_chunks = decode_n_chunks(n_in, weight_dtype);
    const int k_len = (n_in + 63) / 64 * 64, x_stride = k_len + 8, n_warps = n_threads() / 32;
    DecodeRoute *route = shared();
    act_t *xs = (act_t *)(route + 1);
    uint8_t *ring_at = (uint8_t *)(xs + DECODE_ROWS * x_stride);
    float *sums = (float *)(ring_at + n_warps * ring * group * DECODE_SLOT);
    float *scale_at = sums + tiles * n_slices * DECODE_ROWS * 8;

    const int r = lane() / 8, t = lane() % 4, row0 = block_x() * 8 * tiles;
    const DecodeSlice slice = decode_slice(n_chunks, n_slices, warp() % n_slices);
    DecodeWeights w = { (const uint8_t *)weights + (int64_t)(row0 + r) * row_len
        + slice.first * DECODE_CHUNK + lane() % 8 * 16, 4 * row_len, 8 * row_len, 0, 0, tiles,
        { (n_out - row0 - r + 7) / 8, (n_out - row0 - r + 3) / 8 }, slice.n, warp() / n_slices, tiles,
        n_warps / n_slices, 1,
        ring_at + warp() * ring * group * DECODE_SLOT };
    const DecodeShape shape = { k_len, weight_dtype, act, n_slices, group, decode_n_groups(n_chunks, n_slices, group),
        ring,
        .gated = 0 };
    DecodeCursor at = decode_begin(&w);
    decode_fill_ring(&w, &at, shape);
    DecodeColumns columns;
    decode_fetch_norm(&columns, norm, n_in, n_rows);
    if (weight_dtype == 3)
        for (int i = thread_x(); i < 8 * tiles; i += n_threads())
            scale_at[i] = row0 + i < n_out ? scales[row0 + i] : 0.0f;

    decode_await_rows(&columns, x, n_in, n_rows, route->sums, parts, n_rows, n_parts);
    decode_store_norm(xs, x_stride, k_len, &columns, x, norm, route, 1, n_in, eps, n_rows, act);
    barrier();
    const int t_width = weight_dtype == 3 ? 16 : 8;
    const DecodeInput in = { xs, x_stride, slice.first * 4 * t_width + t * t_width };
    decode_multiply(sums, &w, &at, 1, &in, route, weight_dtype == 3 ? scale_at : NULL, 8 * tiles, n_rows, 1, NULL,
        shape);
    barrier();
    const int share = n_rows == 1 ? n_warps : 1;          /* warps of a row */
    for (int row = share > 1 ? 0 : warp(); row < n_rows; row += n_warps) {
        float largest = 0;
        int where = -1;
        for (int i = share > 1 ? thread_x() : lane(); i < 8 * tiles; i += 32 * share) {
            const float value = decode_read_part(sums, i / 8, n_slices, row, i % 8);
            if (row0 + i >= n_out)
                continue;
            logits[(int64_t)row * n_out + row0 + i] = value;
            if (value == value && (where < 0 || value > largest)) {
                largest = value;
                where = row0 + i;
            }
        }
        decode_pick(&largest, &where);
        if (share > 1) {
            if (lane() == 0) {
                route->sums[warp()] = largest;
                route->chosen[warp()] = (uint32_t)where;
            }
            barrier();
            largest = lane() < n_warps ? route->sums[lane()] : 0.0f;
            where = lane() < n_warps ? (int)route->chosen[lane()] : -1;
            decode_pick(&largest, &where);
        }
        if (lane() == 0 && (share == 1 || warp() == 0)) {
            best[(int64_t)row * n_blocks_x() + block_x()] = largest;
            best_at[(int64_t)row * n_blocks_x() + block_x()] = where;
        }
    }
}
