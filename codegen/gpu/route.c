/* Rows of activations are routed: softmax over experts, the k largest, and every pair's place among its expert's.
 *
 * Grid: 32 rows a block; 256 threads. Logits are products of tensor cores: rows are exact there, the router's float32
 * are two factors of 11 bits each. A warp has every eighth 128 columns; of 32 columns the lane 4 g + q has 8 q to
 * 8 q + 7 of rows g, g + 8 … and of expert g, which are k = q and q + 4 of four steps. The router is fetched before the
 * rows are there, as far as its first eight experts and 1024 columns go. Shared: 8192 + 192 E bytes.
 */
PARAM(n_in, i) PARAM(in_stride, is) PARAM(act, a) PARAM(n_experts, e) PARAM(renormalize, rn)

enum { ROUTE_ROWS = 32, ROUTE_WARPS = 8, ROUTE_CHUNKS = 4, ROUTE_BATCH = 32 * ROUTE_CHUNKS };

/* Eight columns from `column` on of expert e; zeros where there is none. */
DEVICE void route_load_router(float w[8], const float *router, int e, int column)
{
    const float *const from = router + (int64_t)e * n_in + column;
    if (n_in % 4 == 0) {
        UNROLL
        for (int half = 0; half < 2; half++) {
            const bool is_there = e < n_experts && column + half * 4 < n_in;
            const u32x4 quad = is_there ? load16(from + half * 4) : (u32x4){ 0, 0, 0, 0 };
            UNROLL
            for (int c = 0; c < 4; c++)
                w[half * 4 + c] = bits_float(quad[c]);
        }
        return;
    }
    UNROLL
    for (int c = 0; c < 8; c++)
        w[c] = e < n_experts && column + c < n_in ? from[c] : 0;
}

DEVICE void route_load_batch(float w[][8], const float *router, int first_expert, int first_column)
{
    UNROLL
    for (int j = 0; j < ROUTE_CHUNKS; j++)
        route_load_router(w[j], router, first_expert + lane() / 4, first_column + j * 32 + lane() % 4 * 8);
}

/* Two columns of a row, `column` even: what lies beyond n_in is not to be trusted. */
DEVICE void route_unpack(float pair[2], uint32_t both, int column)
{
    pair[0] = n_in % 8 == 0 || column < n_in ? act_lo(both, act) : 0;
    pair[1] = n_in % 8 == 0 || column + 1 < n_in ? act_hi(both, act) : 0;
}

/* sums[m] += 16 rows · two columns of each lane's router, w. */
DEVICE void route_multiply(float sums[2][4], u32x4 rows[][4], float w[][8], int first_column)
{
    UNROLL
    for (int j = 0; j < ROUTE_CHUNKS; j++)
        UNROLL
        for (int step = 0; step < 4; step++) {
            const int column = first_column + j * 32 + lane() % 4 * 8 + step * 2;
            float high[2], low[2];
            UNROLL
            for (int i = 0; i < 2; i++) {
                high[i] = bits_float(float_bits(w[j][step * 2 + i]) & 0xffffe000u);
                low[i] = bits_float(float_bits(w[j][step * 2 + i] - high[i]) + 0x1000u);
            }
            UNROLL
            for (int m = 0; m < 2; m++) {
                float upper[2], lower[2];
                route_unpack(upper, rows[j][2 * m][step], column);
                route_unpack(lower, rows[j][2 * m + 1][step], column);
                const float a[4] = { upper[0], lower[0], upper[1], lower[1] };
                mma_16x8x8(sums[m], a, high, sums[m]);
                mma_16x8x8(sums[m], a, low, sums[m]);
            }
        }
}

/* rows[chunk][i]: this lane's eight columns of row lane() / 4 + 8 i of the block, of which n_rows are real. */
DEVICE void route_load_rows(u32x4 rows[][4], const act_t *in, int first_column, int n_rows)
{
    UNROLL
    for (int j = 0; j < ROUTE_CHUNKS; j++)
        UNROLL
        for (int i = 0; i < 4; i++) {
            const int row = lane() / 4 + 8 * i, column = first_column + j * 32 + lane() % 4 * 8;
            const bool is_there = row < n_rows && column < n_in;
            rows[j][i] = is_there ? load16(in + (int64_t)row * in_stride + column) : (u32x4){ 0, 0, 0, 0 };
        }
}

/* Logits of eight experts of the block's rows: each warp's part, added up. */
DEVICE void route_add_up(float *logits /* [ROWS][E] */, float *parts /* [WARPS][ROWS][8] */, float sums[2][4],
    int first_expert)
{
    UNROLL
    for (int m = 0; m < 2; m++)
        UNROLL
        for (int i = 0; i < 4; i++) {
            const int row = m * 16 + i / 2 * 8 + lane() / 4, e = lane() % 4 * 2 + i % 2;
            parts[(warp() * ROUTE_ROWS + row) * 8 + e] = sums[m][i];
        }
    barrier();
    const int row = thread_x() / 8, e = thread_x() % 8;
    float sum = 0;
    UNROLL
    for (int i = 0; i < ROUTE_WARPS; i++)
        sum += parts[(i * ROUTE_ROWS + row) * 8 + e];
    if (first_expert + e < n_experts)
        logits[row * n_experts + first_expert + e] = sum;
    barrier();
}

KERNEL(route)(const act_t *in /* [n_tokens][in_stride] */, const float *restrict router /* [E][n_in] */,
    int32_t *experts, float *gates /* both [n_tokens][top_k] */, int32_t *slots /* [E][n_tokens] */,
    int32_t *totals /* [E] */, int32_t n_tokens, int32_t top_k)
{
    float *const parts = shared(), *const logits = parts + ROUTE_WARPS * ROUTE_ROWS * 8;
    uint16_t *const chosen = (uint16_t *)(logits + ROUTE_ROWS * n_experts);                     /* [E][ROWS] */
    const int first_row = block_x() * ROUTE_ROWS, n_rows = min_i(n_tokens - first_row, ROUTE_ROWS);
    float w[ROUTE_CHUNKS][8];
    route_load_batch(w, router, 0, warp() * ROUTE_BATCH);
    for (int i = thread_x(); i < n_experts * ROUTE_ROWS; i += n_threads())
        chosen[i] = 0;
    dependency_wait();
    dependency_launch();
    in += (int64_t)first_row * in_stride;
    for (int e = 0; e < n_experts; e += 8) {
        float sums[2][4] = { { 0 } };
        for (int column = warp() * ROUTE_BATCH; column < n_in; column += ROUTE_WARPS * ROUTE_BATCH) {
            u32x4 rows[ROUTE_CHUNKS][4];
            route_load_rows(rows, in, column, n_rows);
            if (e > 0 || column >= ROUTE_WARPS * ROUTE_BATCH)
                route_load_batch(w, router, e, column);
            route_multiply(sums, rows, w, column);
        }
        route_add_up(logits, parts, sums, e);
    }
    const int lanes = routing_lanes(n_experts), at_once = 32 / lanes, warp_rows = ROUTE_ROWS / ROUTE_WARPS;
    UNROLL
    for (int i = 0; i < warp_rows; i += at_once) {
        const int row = warp() * warp_rows + i + lane() / lanes;
        const int64_t at = (int64_t)(first_row + row) * top_k;
        routing_choose(experts + at, gates + at, chosen + row, logits + row * n_experts, 1, row < n_rows, n_experts,
            top_k, renormalize, ROUTE_ROWS);
    }
    barrier();
    routing_place(slots, totals, chosen, n_experts, ROUTE_ROWS, first_row, n_tokens, top_k);
}
