/* Matrix product of many rows with the experts that chose them (or one dense matrix), for Hopper: gemm with wgmma.
 *
 * Grid: any number of blocks x, which share the units. Threads: 384. Shared bytes: 1024 + the ring, the larger one of
 * stages * 128 (128 + tile_columns) and (stages + 1) * 128 (64 + tile_columns), + 48 stages + 8 * 2048
 * + 12 * (n_experts + 1). weights: a tensor map of [E n_out][k], boxes of tile_columns rows (128 if that is 256) and
 * 64 columns, 128-byte swizzle; rows (E = 1): one of `in`, [rows there is room for][n_in], boxes of 64 rows and 64
 * columns. Everything else is as in gemm.
 * A unit is a tile of 128 rows x tile_columns, or half of one, 64 rows: what is left of an expert of many rows, if that
 * is not more than 64, and the last round's tiles, where they then fill no more than a round. Halves come last; where
 * that ends sooner they are cut into quarters, 64 rows x 128 columns of 256. These, and halves where there is nothing
 * else, have a ring of more and shorter stages: what is small waits for the way to memory.
 * Warps 0 to 3 fetch pieces of 64 k into a ring of stages: weights by the bulk tensor copy, rows of `in` by their place
 * in slots, 16 bytes a copy. A dense product's rows, which follow one another, are bulk copies too, all by one thread:
 * 5 % faster. Warps 4 to 11 multiply and write; the fetching runs on meanwhile. A stage, rows first and weights last,
 * has two mbarriers: full (its data are there), empty (they have been read). Both groups of four warps multiply 64 rows
 * of a tile; of a smaller unit each takes half of the columns, since copies of rows are what halves wait for.
 * Measured and left out: two blocks of a cluster that share weights, one group lagging behind the other, groups with
 * tiles of their own in turn, units that the fetching warps write while the next one is multiplied, mixed biases added
 * where rows are written.
 */
PARAM(n_in, i) PARAM(n_out, o) PARAM(in_stride, is) PARAM(out_stride, os) PARAM(n_experts, e) PARAM(act, a)
PARAM(in_pairs, ip)      /* in has a row for each 0: token, 1: pair */
PARAM(out_kind, ok)      /* 0 act rows, 1 f32 rows, 2 f32 rows, added to what is there, 3 f16 rows */
PARAM(gated, g)          /* 1: times gates[row of out], after the epilogue */
PARAM(has_bias, hb)      /* 1: the expert's, more: the gated sum of those of the token's, which are of so many */
PARAM(epilogue, ep)      /* 1 silu(even column) * odd column, 2 softplus */
PARAM(tile_columns, tc)  /* 96, 128, 256 */
PARAM(stages, st)        /* 3 to 8 */

enum {
    TILE_ROWS = 128,
    HALF_ROWS = 64,
    PIECE = 64,            /* k of a stage: 128 bytes of a row */
    COPIES = TILE_ROWS * 8 / 128,  /* 16-byte copies of a fetching thread for one piece, at most */
};

/* Bytes of a stage: rows of `in`, then rows of weights. */
DEVICE int gemm_h100_stage_len(int rows, int columns) { return (rows + columns) * 128; }

/* ---- units ---- */

/* Tile rows before each expert [n_experts + 1]: whole ones; those of at most 64 rows. n_rows [n_experts]: its rows. */
typedef struct { int *whole, *thin, *n_rows; } GemmLists;

/* Units of all blocks: `full` tiles, then `small` ones, of small_columns columns: halves, or quarters; of the n_whole
 * tiles of more than 64 rows, those after `full` are halved. own: tiles of this block; left: blocks that have a tile
 * more than others; apart: small units have a ring of their own. */
typedef struct { int full, small, small_columns, apart, n_whole, own, left, n_tokens; } GemmUnits;

/* By the whole block. Where experts have few rows, nothing is thin: its weights would be fetched once more, later. */
DEVICE void gemm_h100_list(GemmLists lists, const int32_t *totals, int n_tokens, int top_k)
{
    const int few = n_experts > 1 && (int64_t)n_tokens * top_k < (int64_t)n_experts * 2 * TILE_ROWS;
    for (int e = thread_x(); e < n_experts; e += n_threads())
        lists.n_rows[e] = n_experts > 1 ? totals[e] : n_tokens;
    barrier();
    int n_whole = 0, n_thin = 0;
    for (int e = 0; thread_x() == 0 && e <= n_experts; e++) {
        lists.whole[e] = n_whole;
        lists.thin[e] = n_thin;
        const int n = e < n_experts ? (lists.n_rows[e] + HALF_ROWS - 1) / HALF_ROWS : 0;
        n_whole += few ? (n + 1) / 2 : n / 2;
        n_thin += few ? 0 : n % 2;
    }
    barrier();
}

DEVICE GemmUnits gemm_h100_units(GemmLists lists, int n_tokens)
{
    const int n_columns = (n_out + tile_columns - 1) / tile_columns;
    const int n_whole = lists.whole[n_experts] * n_columns, n_thin = lists.thin[n_experts] * n_columns;
    const int n = n_blocks_x(), last = n_whole % n, halved = n_thin + 2 * last <= n ? last : 0, left = last - halved;
    /* Quarters where they fill a round at most and halves would do no better; after tiles, whose ring must be empty
     * before the other one begins, only if a unit is long enough. */
    const int full = n_whole - halved, halves = n_thin + 2 * halved, n_free = left > 0 ? n - left : 0;
    const int is_cut = tile_columns == 256 && halves > 2 * n_free && 2 * (halves - n_free) <= n
        && (full == 0 || n_in >= 2048);
    return (GemmUnits){ full, halves << is_cut, tile_columns >> is_cut, full == 0 || is_cut, n_whole,
                        n_whole / n + (block_x() < left), left, n_tokens };
}

/* This block's i-th unit, or -1. Blocks without a tile in the last round of tiles get two small ones before all
 * others. */
DEVICE int gemm_h100_unit(GemmUnits units, int i)
{
    const int n = n_blocks_x(), left = units.left, after = i - units.own;
    if (after < 0)
        return block_x() + i * n;
    int small = block_x() - left + after * (n - left);
    if (block_x() < left)
        small = 2 * (n - left) + block_x() + after * n;
    else if (after > 1)
        small = 2 * (n - left) + block_x() + (after - 2) * n;
    return small < units.small ? units.full + small : -1;
}

/* Its rows (none: not a unit after all) and columns. */
DEVICE GemmTile gemm_h100_tile(int unit, GemmUnits units, GemmLists lists)
{
    const int small = unit - units.full, is_cut = units.small_columns < tile_columns, half = small >> is_cut;
    const int thin = half - 2 * (units.n_whole - units.full);
    const int t = half < 0 ? unit : thin < 0 ? units.full + half / 2 : thin;
    GemmTile tile = gemm_find_tile(t, thin < 0 ? lists.whole : lists.thin, lists.n_rows, units.n_tokens, n_experts,
        n_out, TILE_ROWS, tile_columns, 2048 / TILE_ROWS);
    if (half >= 0) {
        const int whole = lists.whole[tile.expert + 1] - lists.whole[tile.expert];
        const int skip = thin < 0 ? half % 2 * HALF_ROWS : whole * TILE_ROWS;
        tile.n_rows = min_i((thin < 0 ? tile.n_rows : lists.n_rows[tile.expert]) - skip, HALF_ROWS);
        tile.first += skip;
        if (is_cut)
            tile.column += small % 2 * units.small_columns;
        if (tile.column >= n_out)
            tile.n_rows = 0;
    }
    return tile;
}

/* This block's next unit, after *i others, and its tile; or -1. */
DEVICE int gemm_h100_next(GemmTile *tile, int *i, GemmUnits units, GemmLists lists)
{
    for (;;) {
        const int unit = gemm_h100_unit(units, (*i)++);
        if (unit < 0)
            return -1;
        *tile = gemm_h100_tile(unit, units, lists);
        if (tile->n_rows > 0)
            return unit;
    }
}

/* ---- rings of stages ---- */

/* Of a block's tiles, then of its small units if they are apart, in the same memory, each with its own mbarriers:
 * `full` of the tiles' stages and of twice as many others, then `empty` of the same. */
typedef struct { char *base, *full, *empty; int n_stages, stage_len; } GemmRing;

DEVICE GemmRing gemm_h100_ring(char *base, char *barriers, const GemmUnits *units, int small)
{
    if (!small || !units->apart)
        return (GemmRing){ base, barriers, barriers + 3 * stages * 8, stages,
                           gemm_h100_stage_len(TILE_ROWS, tile_columns) };
    return (GemmRing){ base, barriers + stages * 8, barriers + 4 * stages * 8,
                       units->small_columns < tile_columns ? 2 * stages : stages + 1,
                       gemm_h100_stage_len(HALF_ROWS, units->small_columns) };
}

/* ---- fetching ---- */

/* What the fetching threads read: pointers, and the lists that a unit is looked up in. */
typedef struct {
    char *ring, *barriers;
    const char *in;
    const tensor_map *rows, *weights;
    const int32_t *slots;
    GemmLists lists;
    GemmUnits units;
    int top_k;
} GemmSource;

/* What a fetching thread copies of a unit: rows of slots (-1: none) or from row `first` of a dense `in` on, and from
 * weight_row on. */
typedef struct { int unit, rows[COPIES], first, weight_row; } GemmFetch;

DEVICE void gemm_h100_open(GemmFetch *fetch, int *i_unit, const GemmSource *s)
{
    GemmTile tile;
    fetch->unit = gemm_h100_next(&tile, i_unit, s->units, s->lists);
    if (fetch->unit < 0)
        return;
    UNROLL for (int i = 0; i < COPIES && n_experts > 1; i++) {
        const int row = (thread_x() >> 3) + i * 16;
        fetch->rows[i] = row >= tile.n_rows ? -1 : s->slots[tile.first + row];
    }
    fetch->first = tile.first;
    fetch->weight_row = tile.expert * n_out + tile.column;
}

/* By one thread, a piece: the weights, last in the stage, and the rows of a dense product. */
DEVICE void gemm_h100_fetch_boxes(char *stage, char *full, const GemmRing *ring, const GemmSource *s,
    const GemmFetch *fetch, int k)
{
    const int small = fetch->unit >= s->units.full, columns = small ? s->units.small_columns : tile_columns;
    const int n_rows = small ? HALF_ROWS : TILE_ROWS;
    char *const to = stage + ring->stage_len - columns * 128;
    mbarrier_expect(full, (columns + (n_experts == 1 ? n_rows : 0)) * 128);
    tensor_copy(to, s->weights, k * PIECE, fetch->weight_row, full);
    if (tile_columns == 256 && columns == 256)
        tensor_copy(to + 128 * 128, s->weights, k * PIECE, fetch->weight_row + 128, full);
    for (int row = 0; n_experts == 1 && row < n_rows; row += HALF_ROWS)
        tensor_copy(stage + row * 128, s->rows, k * PIECE, fetch->first + row, full);
}

/* By every fetching thread, a piece: some of the rows. */
DEVICE void gemm_h100_fetch_rows(char *stage, const GemmSource *s, const GemmFetch *fetch, int k)
{
    const int chunk = thread_x() & 7;
    const int n_bytes = n_in % PIECE == 0 ? 16 : max_i(0, min_i(16, (n_in - k * PIECE - chunk * 8) * 2));
    const char *const from = s->in + (k * PIECE + chunk * 8) * 2;
    char *const to = stage + wgmma_place(thread_x() >> 3, chunk);
    UNROLL for (int i = 0; i < COPIES; i++)
        if (fetch->rows[i] >= 0)
            copy_async16(to + i * 16 * 128, from + (int64_t)fetch->rows[i] * (in_stride * 2), n_bytes);
}

/* Every piece of the units of a ring, in order; then, if there are others, until all was read. The next unit's rows are
 * looked up before they are needed. */
DEVICE void gemm_h100_fetch_units(const GemmSource *s, GemmFetch *next, int *i_unit, const int small)
{
    const GemmRing ring = gemm_h100_ring(s->ring, s->barriers, &s->units, small);
    const int n_pieces = (n_in + PIECE - 1) / PIECE;
    RingPlace at = { 0, 1 };
    while (next->unit >= 0 && (small || !s->units.apart || next->unit < s->units.full)) {
        GemmFetch fetch = *next;
        UNROLL for (int i = 0; i < COPIES && n_experts > 1 && !in_pairs; i++)
            fetch.rows[i] = fetch.rows[i] < 0 ? -1 : fetch.rows[i] / s->top_k;
        for (int k = 0; k < n_pieces; k++) {
            char *const stage = ring.base + at.slot * ring.stage_len, *const full = ring.full + at.slot * 8;
            mbarrier_wait(ring.empty + at.slot * 8, at.parity);
            if (thread_x() == 0)
                gemm_h100_fetch_boxes(stage, full, &ring, s, &fetch, k);
            if (n_experts > 1) {
                gemm_h100_fetch_rows(stage, s, &fetch, k);
                mbarrier_arrive_copied(full);
            }
            at = ring_after(at, ring.n_stages);
            if (k == 0)
                gemm_h100_open(next, i_unit, s);
        }
    }
    for (int i = 0; i < ring.n_stages && next->unit >= 0; i++) {
        mbarrier_wait(ring.empty + at.slot * 8, at.parity);
        at = ring_after(at, ring.n_stages);
    }
}

/* Warps 0 to 3; a dense product's first thread alone. */
DEVICE void gemm_h100_fetch(const GemmSource *s)
{
    int i_unit = 0;
    GemmFetch next;
    gemm_h100_open(&next, &i_unit, s);
    gemm_h100_fetch_units(s, &next, &i_unit, 0);
    gemm_h100_fetch_units(s, &next, &i_unit, 1);
}

/* ---- what comes after the sums ---- */

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
    const int shrink = epilogue == 1 ? 2 : 1, chunk_columns = 16 / gemm_out_len(out_kind);
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

/* ---- multiplying ---- */

/* A unit for a multiplying thread: row, gate: of out, for row (lane & 15) of its warp. */
typedef struct { int unit, expert, column, n_rows, row; float gate; } GemmTake;

/* What the multiplying threads read: pointers, and the lists that a unit is looked up in. */
typedef struct {
    char *ring, *barriers, *staging;
    void *out;
    const float *bias, *gates;
    const int32_t *slots, *experts;
    GemmLists lists;
    GemmUnits units;
    int top_k;
} GemmMultiply;

DEVICE GemmTake gemm_h100_take(const GemmMultiply *m, int *i_unit)
{
    GemmTile tile;
    const int unit = gemm_h100_next(&tile, i_unit, m->units, m->lists);
    if (unit < 0)
        return (GemmTake){ .unit = -1 };
    const int small = unit >= m->units.full, warp_row = (small ? warp() & 3 : warp() - 4) * 16;
    const int at = tile.first + min_i(warp_row + (lane() & 15), tile.n_rows - 1);
    GemmTake take;
    take.unit = unit;
    take.expert = tile.expert;
    take.column = tile.column + (small ? (warp() / 4 - 1) * (m->units.small_columns / 2) : 0);
    take.n_rows = tile.n_rows - warp_row;                /* of this warp, maybe more than 16 or less than 1 */
    take.row = n_experts == 1 ? at : m->slots[at];
    take.gate = gated ? m->gates[take.row] : 1;
    return take;
}

/* The sums of n_columns: those of a tile, or half of a smaller unit's. The next unit is looked up meanwhile. */
DEVICE void gemm_h100_sum(const GemmMultiply *m, float *sums, int n_columns, RingPlace *at, GemmTake *next,
    int *i_unit)
{
    const int n_pieces = (n_in + PIECE - 1) / PIECE, group = warp() / 4 - 1, small = n_columns < tile_columns;
    const GemmRing ring = gemm_h100_ring(m->ring, m->barriers, &m->units, small);
    const uint64_t a = wgmma_matrix(ring.base + (small ? 0 : group * HALF_ROWS * 128));
    const uint64_t b = wgmma_matrix(ring.base + ring.stage_len - (small ? 2 - group : 1) * n_columns * 128);
    int before = -1;
    for (int k = 0; k < n_pieces; k++) {
        mbarrier_wait(ring.full + at->slot * 8, at->parity);
        if (n_experts > 1)
            proxy_fence();
        const uint64_t ahead = (uint64_t)(at->slot * (ring.stage_len >> 4));
        wgmma_begin();
        wgmma_piece(sums, n_columns, a + ahead, b + ahead, k > 0, act);
        wgmma_commit();
        if (k == min_i(1, n_pieces - 1))
            *next = gemm_h100_take(m, i_unit);
        wgmma_wait_before();
        if (before >= 0 && thread_x() % 128 == 0)
            mbarrier_arrive(ring.empty + before * 8);
        before = at->slot;
        *at = ring_after(*at, ring.n_stages);
    }
    wgmma_wait(sums, n_columns);
    if (thread_x() % 128 == 0)
        mbarrier_arrive(ring.empty + before * 8);
}

/* The sums, bias, what comes after it, and out. */
DEVICE void gemm_h100_finish(const GemmMultiply *m, float *sums, int n_columns, const GemmTake *take)
{
    if (take->n_rows <= 0 || take->column >= n_out)
        return;
    const int to_row[2] = { shuffle_i(take->row, lane() / 4), shuffle_i(take->row, lane() / 4 + 8) };
    gemm_h100_add_bias(sums, n_columns, to_row, take->expert, take->column, m->bias, m->experts, m->gates, m->top_k);
    gemm_h100_write(m->out, sums, n_columns, m->staging, take->row, take->gate, take->n_rows, take->column);
}

/* Warps 4 to 11. */
DEVICE void gemm_h100_multiply(const GemmMultiply *m)
{
    float sums[128];
    UNROLL for (int i = 0; i < tile_columns / 2; i++)
        sums[i] = 0;
    RingPlace at = { 0, 0 };
    int i_unit = 0;
    GemmTake take, next = gemm_h100_take(m, &i_unit);
    while (next.unit >= 0 && next.unit < m->units.full) {
        take = next;
        gemm_h100_sum(m, sums, tile_columns, &at, &next, &i_unit);
        gemm_h100_finish(m, sums, tile_columns, &take);
    }
    if (m->units.apart)
        at = (RingPlace){ 0, 0 };
    while (next.unit >= 0 && m->units.small_columns == tile_columns) {
        take = next;
        gemm_h100_sum(m, sums, tile_columns / 2, &at, &next, &i_unit);
        gemm_h100_finish(m, sums, tile_columns / 2, &take);
    }
    while (next.unit >= 0 && tile_columns == 256) {
        take = next;
        gemm_h100_sum(m, sums, tile_columns / 4, &at, &next, &i_unit);
        gemm_h100_finish(m, sums, tile_columns / 4, &take);
    }
}

KERNEL(gemm_h100)(void *restrict out, const act_t *restrict in, tensor_map weights, const float *restrict scales,
    const float *restrict bias, const int32_t *restrict slots, const int32_t *restrict totals,
    const int32_t *restrict experts, const float *restrict gates, int32_t n_tokens, int32_t top_k, tensor_map rows)
{
    char *const ring = (char *)shared() + (-shared_address(shared()) & 1023u);
    const int ring_len = max_i(stages * gemm_h100_stage_len(TILE_ROWS, tile_columns),
        (stages + 1) * gemm_h100_stage_len(HALF_ROWS, tile_columns));
    char *const staging = ring + ring_len + (warp() - 4) * 2048;
    char *const barriers = ring + ring_len + 8 * 2048;
    int *const list = (int *)(barriers + 6 * stages * 8);
    const GemmLists lists = { list, list + n_experts + 1, list + 2 * (n_experts + 1) };
    (void)scales;

    if (thread_x() == 0) {
        for (int i = 0; i < 3 * stages; i++) {
            mbarrier_init(barriers + i * 8, n_experts > 1 ? 128 + 1 : 1);
            mbarrier_init(barriers + (3 * stages + i) * 8, 2);
        }
        mbarrier_init_done();
    }
    dependency_wait();
    dependency_launch();
    gemm_h100_list(lists, totals, n_tokens, top_k);
    const GemmUnits units = gemm_h100_units(lists, n_tokens);
    if (warp() < 4) {
        registers_give();
        const GemmSource source = { ring, barriers, (const char *)in, &rows, &weights, slots, lists, units, top_k };
        if (n_experts > 1 || thread_x() == 0)
            gemm_h100_fetch(&source);
    } else {
        registers_take();
        const GemmMultiply multiply = { ring, barriers, staging, out, bias, gates, slots, experts, lists, units,
                                        top_k };
        gemm_h100_multiply(&multiply);
    }
}
