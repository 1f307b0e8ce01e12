/* Matrix product of many rows with the experts that chose them (or one dense matrix), for Hopper: gemm with wgmma.
 *
 * Grid: any number of blocks x; each takes every n_blocks_x-th tile of `rows` x tile_columns outputs. rows: 128, or 64
 * with form 1 and 256 columns. Threads: 384. Shared bytes: 1024 + stages * (128 (rows + tile_columns) + 16) + 8 * 2048
 * + 8 * (n_experts + 2), and 16 with form 1. weights: a tensor map of [E n_out][k], boxes of tile_columns rows (128 if
 * that is 256) and 64 columns, 128-byte swizzle. Where the tiles that are left for the last round are at most half as
 * many as blocks, they are halved. Everything else is as in gemm.
 * Warps 0 to 3 fetch pieces of 64 k into a ring of stages: rows of `in` by their place in slots, 16 bytes a copy,
 * weights by the bulk tensor copy. Warps 4 to 11 multiply and write; the fetching runs on meanwhile. A stage has two
 * mbarriers: full (its data are there), empty (they have been read). Form 0: both groups of four warps multiply 64
 * rows of a tile. Form 1: each has every second tile of the block, and writes while the other multiplies; so the end
 * of a tile costs nothing, but the second cache delivers 4/3 of the bytes (5/3 with 64 rows).
 * Measured and left out: two blocks of a cluster that share weights, one group lagging behind the other, mixed biases
 * added where rows are written.
 */
PARAM(n_in, i) PARAM(n_out, o) PARAM(in_stride, is) PARAM(out_stride, os) PARAM(n_experts, e) PARAM(act, a)
PARAM(in_pairs, ip)      /* in has a row for each 0: token, 1: pair */
PARAM(out_kind, ok)      /* 0 act rows, 1 f32 rows, 2 f32 rows, added to what is there */
PARAM(gated, g)          /* 1: times gates[row of out], after the epilogue */
PARAM(has_bias, hb)      /* 1: the expert's, more: the gated sum of those of the token's, which are of so many */
PARAM(epilogue, ep)      /* 1 silu(even column) * odd column, 2 softplus */
PARAM(tile_columns, tc)  /* 96, 128, 256 */
PARAM(stages, st)        /* 3 to 8 */
OPTION(form, f)          /* 0: two groups share a tile, 1: each has tiles of its own, in turn */

enum {
    TILE_ROWS = 128,
    PIECE = 64,            /* k of a stage: 128 bytes of a row */
    COPIES = TILE_ROWS * 8 / 128,  /* 16-byte copies of a fetching thread for one piece, at most */
};

/* Bytes of a stage, whose first rows * 128 are rows of `in`. */
DEVICE int gemm_h100_stage_len(int rows) { return rows * 128 + tile_columns * 128; }

/* Chunk `chunk` (16 bytes) of a row of a matrix for wgmma. */
DEVICE int gemm_h100_place(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }

/* Work of a block: `full` tiles, then halves of tiles, `all` together. */
typedef struct { int full, all, n_tokens; } GemmUnits;

DEVICE int gemm_h100_half(void) { return tile_columns == 256 ? 128 : tile_columns; }

DEVICE GemmUnits gemm_h100_units(int n_tiles, int n_tokens)
{
    const int left = n_tiles % n_blocks_x(), halves = tile_columns == 256 && 2 * left <= n_blocks_x();
    return (GemmUnits){ halves ? n_tiles - left : n_tiles, halves ? n_tiles + left : n_tiles, n_tokens };
}

DEVICE GemmTile gemm_h100_tile(int rows, int unit, GemmUnits units, const int *ends, const int *n_rows)
{
    const int half = max_i(unit - units.full, 0), t = min_i(unit, units.full) + half / 2;
    GemmTile tile = gemm_find_tile(t, ends, n_rows, units.n_tokens, n_experts, n_out, rows, tile_columns,
        2048 / rows);
    tile.column += half % 2 * gemm_h100_half();
    return tile;
}

/* What a fetching thread copies of a tile: rows of `in` (-1: none, zeros), and the first row of weights. */
typedef struct { int rows[COPIES], weight_row; } GemmFetch;

DEVICE void gemm_h100_open(GemmFetch *fetch, int rows, int unit, GemmUnits units, const int32_t *slots, const int *ends,
    const int *n_rows, int top_k)
{
    const GemmTile tile = gemm_h100_tile(rows, unit, units, ends, n_rows);
    UNROLL for (int i = 0; i < rows / 16; i++) {
        const int row = (thread_x() >> 3) + i * 16, at = tile.first + row;
        const int pair = row >= tile.n_rows ? -1 : n_experts == 1 ? at : slots[at];
        fetch->rows[i] = pair < 0 || n_experts == 1 || in_pairs ? pair : pair / top_k;
    }
    fetch->weight_row = tile.expert * n_out + tile.column;
}

/* Warps 0 to 3: every piece of every tile, in order. The next tile's rows are looked up before they are needed. */
DEVICE void gemm_h100_fetch(int rows, char *ring, char *full, char *empty, const char *in, const tensor_map *weights,
    const int32_t *slots, const int *ends, const int *n_rows, GemmUnits units, int top_k)
{
    const int stage_len = gemm_h100_stage_len(rows), n_pieces = (n_in + PIECE - 1) / PIECE;
    const int half = gemm_h100_half();
    const int row = thread_x() >> 3, chunk = thread_x() & 7;
    int stage = 0, parity = 1;
    GemmFetch fetch, next;
    if (block_x() < units.all)
        gemm_h100_open(&next, rows, block_x(), units, slots, ends, n_rows, top_k);
    for (int u = block_x(); u < units.all; u += n_blocks_x()) {
        const int n_copies = u < units.full ? tile_columns / half : 1;
        fetch = next;
        for (int k = 0; k < n_pieces; k++) {
            mbarrier_wait(empty + stage * 8, parity);
            char *const to = ring + stage * stage_len;
            if (thread_x() == 0) {
                mbarrier_expect(full + stage * 8, n_copies * half * 128);
                for (int i = 0; i < n_copies; i++)
                    tensor_copy(to + rows * 128 + i * half * 128, weights, k * PIECE, fetch.weight_row + i * half,
                        full + stage * 8);
            }
            const int n_bytes = n_in % PIECE == 0 ? 16 : max_i(0, min_i(16, (n_in - k * PIECE - chunk * 8) * 2));
            const char *const from = in + (k * PIECE + chunk * 8) * 2;
            char *const a_to = to + gemm_h100_place(row, chunk);
            UNROLL for (int i = 0; i < rows / 16; i++)
                copy_async16(a_to + i * 16 * 128, from + (int64_t)max_i(fetch.rows[i], 0) * (in_stride * 2),
                    fetch.rows[i] < 0 ? 0 : n_bytes);
            mbarrier_arrive_copied(full + stage * 8);
            parity ^= stage == stages - 1;
            stage = stage == stages - 1 ? 0 : stage + 1;
            if (k == 0 && u + n_blocks_x() < units.all)
                gemm_h100_open(&next, rows, u + n_blocks_x(), units, slots, ends, n_rows, top_k);
        }
    }
}

/* Biases to a thread's sums: rows to_row[0], to_row[1] of out, columns from `column` on. */
DEVICE void gemm_h100_add_bias(float *sums, int n_columns, const int to_row[2], int expert, int column,
    const float *bias, const int32_t *experts, const float *gates, int top_k)
{
    if (has_bias == 1)
        UNROLL for (int n = 0; n < n_columns / 8; n++) {
            float add[2];
            gemm_load_pair(add, bias, (int64_t)expert * n_out, column + n * 8 + (lane() & 3) * 2, n_out,
                n_out % n_columns == 0);
            UNROLL for (int i = 0; i < 4; i++)
                sums[n * 4 + i] += add[i & 1];
        }
    for (int e = 0; has_bias > 1 && e < has_bias; e += 8) {
        const GemmGates mixed = gemm_load_gates(to_row, e, experts, gates, top_k);
        UNROLL for (int n = 0; n < n_columns / 8; n += 16)
            gemm_add_mixed(sums + n * 4, min_i(n_columns / 8 - n, 16), &mixed, bias, e, has_bias, column + n * 8,
                n_out);
    }
}

/* A slice of a warp's 16 rows from staging to out. */
DEVICE void gemm_h100_write_slice(void *out, char *staging, int row, int n_rows, int column, int n_slice)
{
    const int shrink = epilogue == 1 ? 2 : 1, chunk_columns = out_kind == 0 ? 8 : 4;
    const int n_chunks = gemm_slice(out_kind, epilogue) / shrink / chunk_columns;      /* of a row */
    if (out_kind == 2) {
        UNROLL for (int r = 0; r < 16; r++) {
            const int to_row = shuffle_i(row, r);
            if (r < n_rows && lane() * shrink < n_slice)
                gemm_add_staged(out, to_row, column / shrink, staging, r, n_out / shrink, out_stride, epilogue);
        }
        return;
    }
    UNROLL for (int i = 0; i < 16 * n_chunks / 32; i++) {
        const int r = (i * 32 + lane()) / n_chunks, chunk = (i * 32 + lane()) % n_chunks;
        const int to_row = shuffle_i(row, r);
        if (r < n_rows && chunk * chunk_columns * shrink < n_slice)
            gemm_write_chunk(out, to_row, column / shrink + chunk * chunk_columns,
                gemm_staged(staging, r, chunk, out_kind, epilogue), n_out / shrink, out_stride, out_kind);
    }
}

/* A warp's 16 rows (of them n_rows real) of n_columns to out; row, gate: of lane l, those of row l & 15. */
DEVICE void gemm_h100_write(void *out, const float *sums, int n_columns, char *staging, int row, float gate, int n_rows,
    int column)
{
    const int g = lane() / 4, slice = gemm_slice(out_kind, epilogue), n_slices = (n_columns + slice - 1) / slice;
    const float gate_of[2] = { shuffle_f(gate, g), shuffle_f(gate, g + 8) };
    UNROLL for (int i = 0; i < n_slices; i++) {
        const int n_slice = min_i(n_columns - i * slice, slice);
        UNROLL for (int half = 0; half < 2; half++)
            UNROLL for (int n = 0; n < n_slice / 8; n++) {
                const float *sum = sums + (i * (slice / 8) + n) * 4 + half * 2;
                float value[2] = { sum[0], sum[1] };
                gemm_finish(value, gate_of[half], epilogue, gated);
                gemm_stage(staging, half * 8 + g, n * 8 + (lane() & 3) * 2, value, out_kind, epilogue, act);
            }
        warp_sync();
        gemm_h100_write_slice(out, staging, row, n_rows, column + i * slice, n_slice);
        warp_sync();
    }
}

/* A tile for a multiplying thread: row, gate: of out, for row (lane & 15) of its warp. */
typedef struct { int expert, column, n_rows, row; float gate; } GemmTake;

/* A lane's row of its warp's 16; twice: lanes 16 to 31 have those 64 rows further. */
DEVICE int gemm_h100_lane_row(int twice) { return twice ? (lane() & 15) + (lane() & 16) * 4 : lane() & 15; }

DEVICE GemmTake gemm_h100_take(int rows, int in_turn, int unit, GemmUnits units, const int32_t *slots,
    const float *gates, const int *ends, const int *n_rows)
{
    const int warp_row = (in_turn ? warp() & 3 : warp() - 4) * 16;
    const GemmTile tile = gemm_h100_tile(rows, unit, units, ends, n_rows);
    const int at = tile.first + min_i(warp_row + gemm_h100_lane_row(in_turn && rows == 128), tile.n_rows - 1);
    GemmTake take;
    take.expert = tile.expert;
    take.column = tile.column;
    take.n_rows = tile.n_rows - warp_row;                /* of this warp, maybe more than 16 or less than 1 */
    take.row = n_experts == 1 ? at : slots[at];
    take.gate = gated ? gates[take.row] : 1;
    return take;
}

/* What the multiplying threads read: pointers, and the lists that a unit is looked up in. */
typedef struct {
    char *ring, *full, *empty, *staging;
    void *out;
    const float *bias, *gates;
    const int32_t *slots, *experts;
    const int *ends, *n_rows;
    GemmUnits units;
    int top_k;
} GemmMultiply;

typedef struct { int stage, parity; } GemmStage;

/* The sums of a warp's 16 rows, bias, what comes after it, and out. */
DEVICE void gemm_h100_finish(const GemmMultiply *m, float *sums, int n_columns, const GemmTake *take, int row,
    float gate, int n_rows)
{
    const int to_row[2] = { shuffle_i(row, lane() / 4), shuffle_i(row, lane() / 4 + 8) };
    gemm_h100_add_bias(sums, n_columns, to_row, take->expert, take->column, m->bias, m->experts, m->gates, m->top_k);
    gemm_h100_write(m->out, sums, n_columns, m->staging, row, gate, n_rows, take->column);
}

/* A unit of n_columns; the next one is looked up meanwhile. */
DEVICE void gemm_h100_unit(const GemmMultiply *m, float *sums, int n_columns, GemmStage *at, GemmTake take,
    GemmTake *next, int next_unit)
{
    const int stage_len = gemm_h100_stage_len(TILE_ROWS), n_pieces = (n_in + PIECE - 1) / PIECE;
    const uint64_t a = wgmma_matrix(m->ring + (warp() / 4 - 1) * 64 * 128), b = wgmma_matrix(m->ring + TILE_ROWS * 128);
    int before = -1;
    for (int k = 0; k < n_pieces; k++) {
        mbarrier_wait(m->full + at->stage * 8, at->parity);
        proxy_fence();
        const uint64_t ahead = (uint64_t)(at->stage * (stage_len >> 4));
        wgmma_begin();
        wgmma_piece(sums, n_columns, a + ahead, b + ahead, k > 0, act);
        wgmma_commit();
        if (k == 0 && next_unit < m->units.all)
            *next = gemm_h100_take(TILE_ROWS, false, next_unit, m->units, m->slots, m->gates, m->ends, m->n_rows);
        wgmma_wait_before();
        if (before >= 0 && thread_x() % 128 == 0)
            mbarrier_arrive(m->empty + before * 8);
        before = at->stage;
        at->parity ^= at->stage == stages - 1;
        at->stage = at->stage == stages - 1 ? 0 : at->stage + 1;
    }
    wgmma_wait(sums, n_columns);
    if (thread_x() % 128 == 0)
        mbarrier_arrive(m->empty + before * 8);
    if (take.n_rows <= 0)
        return;
    gemm_h100_finish(m, sums, n_columns, &take, take.row, take.gate, take.n_rows);
}

/* Warps 4 to 11: 64 rows of each unit a warpgroup. */
DEVICE void gemm_h100_multiply(const GemmMultiply *m)
{
    float sums[128];
    UNROLL for (int i = 0; i < tile_columns / 2; i++)
        sums[i] = 0;
    GemmStage at = { 0, 0 };
    GemmTake take, next;
    int u = block_x();
    if (u < m->units.all)
        next = gemm_h100_take(TILE_ROWS, false, u, m->units, m->slots, m->gates, m->ends, m->n_rows);
    for (; u < m->units.full; u += n_blocks_x()) {
        take = next;
        gemm_h100_unit(m, sums, tile_columns, &at, take, &next, u + n_blocks_x());
    }
    for (; tile_columns == 256 && u < m->units.all; u += n_blocks_x()) {
        take = next;
        gemm_h100_unit(m, sums, gemm_h100_half(), &at, take, &next, u + n_blocks_x());
    }
}

/* ---- form 1: a group's tiles are its own; while one group writes, the other multiplies ---- */

/* A group's sums are 64 x 256 or 128 x 128 at most. */
DEVICE int gemm_h100_turn_rows(void) { return tile_columns == 256 ? 64 : 128; }

/* Past the pieces of a unit. */
DEVICE void gemm_h100_skip(GemmStage *at)
{
    const int n_pieces = (n_in + PIECE - 1) / PIECE, stage = at->stage + n_pieces % stages;
    at->parity ^= (n_pieces / stages + (stage >= stages)) & 1;
    at->stage = stage >= stages ? stage - stages : stage;
}

/* The sums of a unit. A group begins when the other one has seen its last piece arrive: before that, a stage's parity
 * could be that of a round ago. From there on its products queue up behind the other's. */
DEVICE void gemm_h100_sum_in_turn(const GemmMultiply *m, float *sums, int n_columns, GemmStage *at, int turn)
{
    const int rows = gemm_h100_turn_rows(), stage_len = gemm_h100_stage_len(rows), group = warp() / 4 - 1;
    const int n_pieces = (n_in + PIECE - 1) / PIECE;
    const uint64_t a = wgmma_matrix(m->ring), b = wgmma_matrix(m->ring + rows * 128);
    char *const turns = m->empty + stages * 8;
    int before = -1;
    mbarrier_wait(turns + group * 8, turn);
    for (int k = 0; k < n_pieces; k++) {
        mbarrier_wait(m->full + at->stage * 8, at->parity);
        proxy_fence();
        const uint64_t ahead = (uint64_t)(at->stage * (stage_len >> 4));
        wgmma_begin();
        UNROLL for (int i = 0; i < rows / 64; i++)
            wgmma_piece(sums + i * n_columns / 2, n_columns, a + ahead + i * 512, b + ahead, k > 0, act);
        wgmma_commit();
        wgmma_wait_before();
        if (before >= 0 && lane() == 0)
            mbarrier_arrive(m->empty + before * 8);
        before = at->stage;
        at->parity ^= at->stage == stages - 1;
        at->stage = at->stage == stages - 1 ? 0 : at->stage + 1;
    }
    mbarrier_arrive(turns + (1 - group) * 8);
    UNROLL for (int i = 0; i < rows / 64; i++)
        wgmma_wait(sums + i * n_columns / 2, n_columns);
    if (lane() == 0)
        mbarrier_arrive(m->empty + before * 8);
}

/* A unit of n_columns, looked up and written while the other group multiplies. */
DEVICE void gemm_h100_unit_in_turn(const GemmMultiply *m, float *sums, int n_columns, GemmStage *at, int unit, int turn)
{
    const int rows = gemm_h100_turn_rows();
    const GemmTake take = gemm_h100_take(rows, true, unit, m->units, m->slots, m->gates, m->ends, m->n_rows);
    gemm_h100_sum_in_turn(m, sums, n_columns, at, turn);
    gemm_h100_skip(at);
    UNROLL for (int i = 0; i < rows / 64; i++) {
        const int from = (lane() & 15) + i * 16, row = shuffle_i(take.row, from);
        const float gate = shuffle_f(take.gate, from);
        if (take.n_rows > i * 64)
            gemm_h100_finish(m, sums + i * n_columns / 2, n_columns, &take, row, gate, take.n_rows - i * 64);
    }
}

/* Warps 4 to 7 take a block's units 0, 2, 4 …, warps 8 to 11 the others. */
DEVICE void gemm_h100_multiply_in_turn(const GemmMultiply *m)
{
    const int group = warp() / 4 - 1, step = 2 * n_blocks_x();
    float sums[128];
    UNROLL for (int i = 0; i < 128; i++)
        sums[i] = 0;
    GemmStage at = { 0, 0 };
    int u = block_x() + group * n_blocks_x(), turn = 1 - group;       /* nobody is before the first unit */
    if (group == 1)
        gemm_h100_skip(&at);
    for (; u < m->units.full; u += step, turn ^= 1)
        gemm_h100_unit_in_turn(m, sums, tile_columns, &at, u, turn);
    for (; tile_columns == 256 && u < m->units.all; u += step, turn ^= 1)
        gemm_h100_unit_in_turn(m, sums, gemm_h100_half(), &at, u, turn);
}

/* The kernel, with tiles of so many rows. in_turn: form 1; a stage is empty when each warp of its group says so. */
DEVICE void gemm_h100_run(int rows, int in_turn, void *out, const char *in, const tensor_map *weights,
    const float *bias, const int32_t *slots, const int32_t *totals, const int32_t *experts, const float *gates,
    int n_tokens, int top_k)
{
    const int stage_len = gemm_h100_stage_len(rows);
    char *const ring = (char *)shared() + (-shared_address(shared()) & 1023u);
    char *const staging = ring + stages * stage_len + (warp() - 4) * 2048;
    char *const full = ring + stages * stage_len + 8 * 2048, *const empty = full + stages * 8;
    int *const ends = (int *)(empty + stages * 8 + (in_turn ? 2 * 8 : 0)), *const n_rows = ends + n_experts + 1;

    if (thread_x() == 0) {
        for (int i = 0; i < stages; i++) {
            mbarrier_init(full + i * 8, 128 + 1);
            mbarrier_init(empty + i * 8, in_turn ? 4 : 2);
        }
        for (int i = 0; in_turn && i < 2; i++)
            mbarrier_init(empty + (stages + i) * 8, 128);
        mbarrier_init_done();
    }
    dependency_wait();
    dependency_launch();
    gemm_list_tiles(ends, n_rows, totals, n_tokens, n_experts, rows);
    const GemmUnits units = gemm_h100_units(ends[n_experts] * ((n_out + tile_columns - 1) / tile_columns), n_tokens);
    if (warp() < 4) {
        registers_give();
        gemm_h100_fetch(rows, ring, full, empty, in, weights, slots, ends, n_rows, units, top_k);
    } else {
        registers_take();
        const GemmMultiply multiply = { ring, full, empty, staging, out, bias, gates, slots, experts, ends, n_rows,
                                        units, top_k };
        if (!in_turn)
            gemm_h100_multiply(&multiply);
        else
            gemm_h100_multiply_in_turn(&multiply);
    }
}

KERNEL(gemm_h100)(void *restrict out, const act_t *restrict in, tensor_map weights, const float *restrict scales,
    const float *restrict bias, const int32_t *restrict slots, const int32_t *restrict totals,
    const int32_t *restrict experts, const float *restrict gates, int32_t n_tokens, int32_t top_k)
{
    (void)scales;
    if (form == 0)           /* first, as functions are in the order of their use, and PTX depends on it */
        gemm_h100_run(TILE_ROWS, false, out, (const char *)in, &weights, bias, slots, totals, experts, gates, n_tokens,
            top_k);
    else
        gemm_h100_run(gemm_h100_turn_rows(), true, out, (const char *)in, &weights, bias, slots, totals, experts,
            gates, n_tokens, top_k);
}
