/* Rows of activations are routed: softmax over experts, the k largest, and every pair's place among its expert's.
 *
 * Grid: any number of blocks of 512 threads, which share the rows, by eights; a step is 16 rows. Logits are products of
 * tensor cores: rows are exact there, the router's float32 are two factors of 11 bits each. A warp has every sixteenth
 * 128 columns; of 32 columns the lane 4 g + q has 8 q to 8 q + 7 of rows g, g + 8 and of expert g, which are k = q and
 * q + 4 of four steps. Factors of up to 8 experts and 2048 columns stay in registers; rows come by asynchronous copies,
 * `stages` pieces of 2048 columns under way. Shared: 65536 stages + 16384 + 192 E bytes, for E > 256 96 E.
 */
PARAM(n_in, i) PARAM(in_stride, is) PARAM(act, a) PARAM(n_experts, e) PARAM(renormalize, rn) PARAM(stages, st)

enum {
    ROUTE_ROWS = 16, ROUTE_WARPS = 16, ROUTE_UNIT = 8,      /* UNIT: what rows are shared out by */
    ROUTE_CHUNKS = 4, ROUTE_COLUMNS = 32 * ROUTE_CHUNKS,    /* of a piece, a warp's */
    ROUTE_BATCH = 8,                                        /* experts whose logits are made at a time */
    ROUTE_PIECE_LEN = ROUTE_ROWS * ROUTE_COLUMNS * 2,       /* bytes, of a warp */
};

/* Pieces of a row. */
DEVICE int route_pieces(void) { return (n_in + ROUTE_WARPS * ROUTE_COLUMNS - 1) / (ROUTE_WARPS * ROUTE_COLUMNS); }
DEVICE bool route_is_held(void) { return n_experts <= ROUTE_BATCH && route_pieces() == 1; }
/* Rows whose experts are chosen together. */
DEVICE int route_chosen(void) { return n_experts > 256 ? ROUTE_ROWS : 2 * ROUTE_ROWS; }
/* The first of this warp's columns in a piece. */
DEVICE int route_column(int piece) { return (piece * ROUTE_WARPS + warp()) * ROUTE_COLUMNS; }

/* ---- the router ---- */

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

/* A lane's part of a piece. */
DEVICE void route_load_piece(float w[][8], const float *router, int first_expert, int piece)
{
    UNROLL
    for (int j = 0; j < ROUTE_CHUNKS; j++)
        route_load_router(w[j], router, first_expert + lane() / 4, route_column(piece) + j * 32 + lane() % 4 * 8);
}

/* ---- rows ---- */

/* What is asked for next: a piece of a step's rows, again for every batch of experts. */
typedef struct { int row, end, batch, piece, slot; } RouteFetch;

/* 16 bytes of a row of the ring: those of odd rows lie 64 bytes away, so that no two lanes read from the same bank. */
DEVICE uint8_t *route_place(uint8_t *ring, int slot, int row, int unit)
{
    return ring + slot * ROUTE_PIECE_LEN + row * ROUTE_COLUMNS * 2 + (unit ^ row % 2 * 4) * 16;
}

/* Asks for the next piece, zeros for rows and columns that are not there; past the last one, for nothing. */
DEVICE void route_fetch(uint8_t *ring, const act_t *in, RouteFetch *next)
{
    if (next->row < next->end) {
        const int unit = lane() % 16, column = route_column(next->piece) + unit * 8;
        const int n_columns = n_in % (ROUTE_WARPS * ROUTE_COLUMNS) == 0 ? 8 : max_i(min_i(n_in - column, 8), 0);
        const int at = lane() / 16, left = next->end - next->row - at;
        const act_t *const from = in + (int64_t)(next->row + at) * in_stride + column;
        UNROLL
        for (int i = 0; i < ROUTE_ROWS; i += 2)
            copy_async16(route_place(ring, next->slot, at + i, unit), from + i * in_stride,
                         i < left ? 2 * n_columns : 0);
        next->slot = next->slot + 1 == stages ? 0 : next->slot + 1;
        if (++next->piece == route_pieces()) {
            next->piece = 0;
            next->batch += ROUTE_BATCH;
        }
        if (next->batch >= n_experts) {
            next->batch = 0;
            next->row += ROUTE_ROWS;
        }
    }
    copy_commit();
}

/* sums += the rows of a piece · this lane's part of the router, w. */
DEVICE void route_multiply(float sums[4], uint8_t *ring, int slot, float w[][8])
{
    UNROLL
    for (int j = 0; j < ROUTE_CHUNKS; j++) {
        const int unit = j * 4 + lane() % 4;
        const u32x4 upper = load16(route_place(ring, slot, lane() / 4, unit));
        const u32x4 lower = load16(route_place(ring, slot, lane() / 4 + 8, unit));
        UNROLL
        for (int step = 0; step < 4; step++) {
            const float a[4] = { act_lo(upper[step], act), act_lo(lower[step], act),
                                 act_hi(upper[step], act), act_hi(lower[step], act) };
            float high[2], low[2];
            UNROLL
            for (int i = 0; i < 2; i++) {
                high[i] = bits_float(float_bits(w[j][step * 2 + i]) & 0xffffe000u);
                low[i] = bits_float(float_bits(w[j][step * 2 + i] - high[i]) + 0x1000u);
            }
            mma_16x8x8(sums, a, high, sums);
            mma_16x8x8(sums, a, low, sums);
        }
    }
}

/* Logits of a step's rows and a batch's experts: each warp's part, added up. */
DEVICE void route_add_up(float *logits /* [ROWS][E] */, float *parts /* [WARPS][ROWS][BATCH] */, const float sums[4],
    int first_expert)
{
    UNROLL
    for (int i = 0; i < 4; i++) {
        const int row = i / 2 * 8 + lane() / 4, e = lane() % 4 * 2 + i % 2;
        parts[(warp() * ROUTE_ROWS + row) * ROUTE_BATCH + e] = sums[i];
    }
    barrier();
    const int row = thread_x() / ROUTE_BATCH, e = thread_x() % ROUTE_BATCH;
    if (row >= ROUTE_ROWS || first_expert + e >= n_experts)
        return;
    float sum = 0;
    UNROLL
    for (int i = 0; i < ROUTE_WARPS; i++)
        sum += parts[(i * ROUTE_ROWS + row) * ROUTE_BATCH + e];
    logits[row * n_experts + first_expert + e] = sum;
}

/* By the whole block: the choices of n rows from `row` on, and the places of their pairs. */
DEVICE void route_choose(int32_t *experts, float *gates, int32_t *slots, int32_t *totals,
    const float *logits /* [chosen()][E] */, uint16_t *chosen /* [E][chosen()] */, int row, int n, int n_tokens,
    int top_k)
{
    const int at_once = 32 / routing_lanes(n_experts);
    for (int i = thread_x(); i < n_experts * route_chosen(); i += n_threads())
        chosen[i] = 0;
    barrier();
    for (int first = warp() * at_once; first < n; first += ROUTE_WARPS * at_once) {
        const int r = first + lane() / routing_lanes(n_experts), real = min_i(r, n - 1);
        const int64_t at = (int64_t)(row + real) * top_k;
        routing_choose(experts + at, gates + at, chosen + real, logits + real * n_experts, 1, r < n, n_experts, top_k,
                       renormalize, route_chosen());
    }
    barrier();
    routing_place(slots, totals, chosen, n_experts, route_chosen(), row, n_tokens, top_k);
}

KERNEL(route)(const act_t *in /* [n_tokens][in_stride] */, const float *restrict router /* [E][n_in] */,
    int32_t *experts, float *gates /* both [n_tokens][top_k] */, int32_t *slots /* [E][n_tokens] */,
    int32_t *totals /* [E] */, int32_t n_tokens, int32_t top_k)
{
    const int64_t n_units = (n_tokens + ROUTE_UNIT - 1) / ROUTE_UNIT;
    const int begin = (int)(n_units * block_x() / n_blocks_x()) * ROUTE_UNIT;
    const int end = min_i((int)(n_units * (block_x() + 1) / n_blocks_x()) * ROUTE_UNIT, n_tokens);
    uint8_t *const ring = (uint8_t *)shared() + warp() * stages * ROUTE_PIECE_LEN;
    float *const parts = (float *)((uint8_t *)shared() + ROUTE_WARPS * stages * ROUTE_PIECE_LEN);
    float *const logits = parts + 2 * ROUTE_WARPS * ROUTE_ROWS * ROUTE_BATCH;      /* parts: of two batches in turn */
    uint16_t *const chosen = (uint16_t *)(logits + route_chosen() * n_experts);
    RouteFetch next = { begin, end, 0, 0, 0 };
    float w[ROUTE_CHUNKS][8];
    if (begin >= end)
        return;
    if (route_is_held())
        route_load_piece(w, router, 0, 0);
    dependency_wait();
    dependency_launch();
    for (int i = 0; i < stages; i++)
        route_fetch(ring, in, &next);
    for (int row = begin, step = 0, slot = 0, turn = 0; row < end; row += ROUTE_ROWS, step++) {
        const int at = step % (route_chosen() / ROUTE_ROWS) * ROUTE_ROWS, n_done = at + min_i(end - row, ROUTE_ROWS);
        for (int e = 0; e < n_experts; e += ROUTE_BATCH, turn ^= 1) {
            float sums[4] = { 0 };
            for (int piece = 0; piece < route_pieces(); piece++) {
                if (!route_is_held())
                    route_load_piece(w, router, e, piece);
                copy_wait(stages - 1);
                warp_sync();
                route_multiply(sums, ring, slot, w);
                warp_sync();
                route_fetch(ring, in, &next);
                slot = slot + 1 == stages ? 0 : slot + 1;
            }
            route_add_up(logits + at * n_experts, parts + turn * ROUTE_WARPS * ROUTE_ROWS * ROUTE_BATCH, sums, e);
        }
        if (n_done == route_chosen() || row + ROUTE_ROWS >= end)
            route_choose(experts, gates, slots, totals, logits, chosen, row - at, n_done, n_tokens, top_k);
    }
}
