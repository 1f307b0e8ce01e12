/* Matrix product of many rows with the experts that chose them (or one dense matrix), on tensor cores.
 *
 * Grid: any number of blocks (x, y), which take tiles of tile_rows x tile_columns outputs in turn. Threads: 32 *
 * tile_rows / 64 * tile_columns / warp_columns. Shared bytes: stages * 64 * (2 tile_rows + weight bytes * tile_columns)
 * + 2048 a warp + 4 * (2 (n_experts + 1) + 4 tile_rows).
 * The list of tiles comes from totals: a tile has one expert, and groups of 16 tile rows run down all columns, so
 * that both factors stay in the L2 cache. They stream through a ring of `stages` pieces of 64 k, on past the ends of
 * tiles: while one is written the next is on its way. Rows beyond the ends are zero, columns repeat the last one;
 * neither is written. k beyond n_in is zero. Sums are float32, 16 k at a time, ascending.
 */
PARAM(n_in, i) PARAM(n_out, o) PARAM(in_stride, is) PARAM(out_stride, os) PARAM(n_experts, e) PARAM(weight_dtype, w)
PARAM(act, a)
PARAM(in_pairs, ip)      /* in has a row for each 0: token, 1: pair */
PARAM(out_kind, ok)      /* 0 act rows, 1 f32 rows, 2 f32 rows, added to what is there, 3 f16 rows */
PARAM(gated, g)          /* 1: times gates[row of out], after the epilogue */
PARAM(has_bias, hb)      /* 1: the expert's, more: the gated sum of those of the token's, which are of so many */
PARAM(epilogue, ep)      /* 1 silu(even column) * odd column, 2 softplus */
PARAM(tile_rows, tr)     /* a multiple of 64, at most the threads; they divide 8 tile_rows and 8 (q8: 4) tile_columns */
PARAM(tile_columns, tc)  /* a multiple of warp_columns */
PARAM(warp_columns, wc)  /* 16, 32, 48, 64; with q8 and epilogue 1: 32, 64 */
PARAM(stages, st)        /* 3 to 8 */

enum {
    PIECE = 64,          /* k of a stage */
    MAX_COLUMNS = 8,     /* 8-column tiles of a warp */
    STAGING_LEN = 2048,  /* of a warp, for what it writes */
};

/* Where chunk `chunk` (16 bytes) of a row lies: rows of 128 bytes, chunks such that 8 rows at one chunk meet no bank
 * twice. With q8, 4 rows at two neighbouring chunks. */
DEVICE int gemm_swizzle(int row, int chunk)
{
    return row * 128 + ((chunk ^ (weight_dtype == 3 ? row * 2 & 7 : row & 7)) << 4);
}
/* The same for rows of 64 bytes, those of q8 weights. */
DEVICE int gemm_swizzle_s8(int row, int chunk) { return row * 64 + ((chunk ^ (row >> 1 & 3)) << 4); }

/* gate * the expert's bias to two times 16 rows; the arrays are of this thread's four rows. */
DEVICE void gemm_add_four(float sums[][MAX_COLUMNS][4], const int expert_of[4], const float gate[4], const float *bias,
    int column)
{
    UNROLL for (int n = 0; n < warp_columns / 8; n++)
        UNROLL for (int r = 0; r < 4; r++) {
            float add[2];
            gemm_load_pair(add, bias, (int64_t)expert_of[r] * n_out, column + n * 8, n_out, n_out % tile_columns == 0);
            UNROLL for (int i = 0; i < 2; i++)
                sums[r / 2][n][r % 2 * 2 + i] = fma_f(gate[r], add[i], sums[r / 2][n][r % 2 * 2 + i]);
        }
}

/* A warp's sums [4][MAX_COLUMNS][4]: scales of q8, then biases. rows: its 64 rows of out, of them n_rows real. */
DEVICE void gemm_add_bias(float sums[][MAX_COLUMNS][4], const int32_t *rows, int n_rows, int expert, int column,
    const float *scales, const float *bias, const int32_t *experts, const float *gates, int top_k)
{
    column += (lane() & 3) * 2;
    if (weight_dtype == 3 || has_bias == 1)
        UNROLL for (int n = 0; n < warp_columns / 8; n++) {
            float scale[2] = { 1, 1 }, add[2] = { 0, 0 };
            if (weight_dtype == 3)
                gemm_load_pair(scale, scales, (int64_t)expert * n_out, column + n * 8, n_out,
                    n_out % tile_columns == 0);
            if (has_bias == 1)
                gemm_load_pair(add, bias, (int64_t)expert * n_out, column + n * 8, n_out, n_out % tile_columns == 0);
            UNROLL for (int m = 0; m < 4; m++)
                UNROLL for (int i = 0; i < 4; i++)
                    sums[m][n][i] = fma_f(sums[m][n][i], scale[i & 1], add[i & 1]);
        }
    for (int i = 0; has_bias > 1 && i < 2 * top_k; i++) {
        int expert_of[4];                 /* of half of this thread's rows: registers are short */
        float gate[4];
        UNROLL for (int r = 0; r < 4; r++) {
            const int row = rows[min_i(i % 2 * 32 + r * 8 + lane() / 4, n_rows - 1)];
            const int64_t pair = (int64_t)row * top_k + i / 2;
            expert_of[r] = experts[pair];
            gate[r] = gates[pair];
        }
        if (i % 2 == 0)
            gemm_add_four(sums, expert_of, gate, bias, column);
        else
            gemm_add_four(sums + 2, expert_of, gate, bias, column);
    }
}

/* The fetching side of a block: where it is, and what this thread copies. */
typedef struct {
    const char *a, *b;       /* in; this thread's first row of the tile's weights */
    char *ring;
    int tile, k, stage;      /* next piece: k of tile, into stage */
    int n_tokens;
    int row;                 /* of in, for copy (lane & 7) of 8 lanes that share their rows; -1: none, zeros */
    int edge;                /* how many rows of weights follow *b */
} GemmFetch;

/* The block's next tile: what this thread will copy of it. */
DEVICE void gemm_open_tile(GemmFetch *fetch, const int *ends, const int *n_rows, const void *weights,
    const int32_t *slots, int top_k)
{
    const int n_block = tile_rows / 64 * (tile_columns / warp_columns) * 32, weight_len = weight_dtype == 3 ? 1 : 2;
    const int64_t row_len = (n_in + PIECE - 1) / PIECE * PIECE * weight_len;
    const GemmTile tile = gemm_find_tile(fetch->tile, ends, n_rows, fetch->n_tokens, n_experts, n_out, tile_rows,
        tile_columns, 16);
    const int row = (thread_x() >> 3) + (lane() & 7) * (n_block / 8), at = tile.first + row;
    const int pair = row >= tile.n_rows ? -1 : n_experts == 1 ? at : slots[at];
    fetch->row = pair < 0 || n_experts == 1 || in_pairs ? pair : pair / top_k;
    const int column = tile.column + thread_x() / (4 * weight_len), chunk = thread_x() % (4 * weight_len);
    fetch->edge = n_out - 1 - column;
    fetch->b = (const char *)weights + ((int64_t)tile.expert * n_out + column) * row_len + chunk * 16;
}

/* If there is one: start the copies of a piece and step on. */
DEVICE void gemm_fetch_piece(GemmFetch *fetch, bool is_there)
{
    const int n_block = tile_rows / 64 * (tile_columns / warp_columns) * 32, weight_len = weight_dtype == 3 ? 1 : 2;
    const int stage_len = (tile_rows * 2 + tile_columns * weight_len) * PIECE, n_pieces = (n_in + PIECE - 1) / PIECE;
    const int row_len = n_pieces * PIECE * weight_len;                /* of weights */
    const int b_step = n_block / (4 * weight_len);
    const int row = thread_x() >> 3, chunk = thread_x() & 7;
    const int b_row = thread_x() / (4 * weight_len), b_chunk = thread_x() % (4 * weight_len);
    const int n_bytes = n_in % PIECE == 0 ? 16 : max_i(0, min_i(16, (n_in - fetch->k * PIECE - chunk * 8) * 2));

    int rows[8];                          /* outside of the branch, which then needs no jump */
    UNROLL for (int i = 0; i < tile_rows * 8 / n_block; i++)
        rows[i] = shuffle_i(fetch->row, (lane() & 24) + i);
    if (!is_there)
        return;

    char *const a_to = fetch->ring + fetch->stage * stage_len + gemm_swizzle(row, chunk);
    const char *const a_from = fetch->a + (fetch->k * PIECE + chunk * 8) * 2;
    UNROLL for (int i = 0; i < tile_rows * 8 / n_block; i++)
        copy_async16(a_to + i * (n_block / 8) * 128, a_from + (int64_t)max_i(rows[i], 0) * (in_stride * 2),
            rows[i] < 0 ? 0 : n_bytes);

    char *const b_to = fetch->ring + fetch->stage * stage_len + tile_rows * PIECE * 2 +
                       (weight_dtype == 3 ? gemm_swizzle_s8(b_row, b_chunk) : gemm_swizzle(b_row, b_chunk));
    const char *const b_from = fetch->b + fetch->k * (PIECE * weight_len);
    UNROLL for (int i = 0; i < tile_columns / b_step; i++) {
        const int ahead = n_out % tile_columns == 0 ? i * b_step : min_i(i * b_step, fetch->edge);
        copy_async16(b_to + i * b_step * PIECE * weight_len, b_from + (int64_t)ahead * row_len, 16);
    }
    fetch->stage = fetch->stage == stages - 1 ? 0 : fetch->stage + 1;
    if (++fetch->k == n_pieces) {
        fetch->k = 0;
        fetch->tile += n_blocks_x() * n_blocks_y();
    }
}

/* Rows first_row + 16 m … of a stage's A at k = 16 step. */
DEVICE void gemm_load_a(uint32_t a[][4], const char *stage, int first_row, int step)
{
    if (weight_dtype == 3) {              /* k as act_from_s8 hands it out: 4 in a row to a thread */
        const int row = first_row + lane() / 4, quad = lane() & 3;
        const char *from = stage + gemm_swizzle(row, step * 2 + quad / 2) + (quad & 1) * 8;
        UNROLL for (int m = 0; m < 4; m++)
            UNROLL for (int half = 0; half < 2; half++) {
                const uint64_t both = *(const uint64_t *)(from + (m * 16 + half * 8) * 128);
                a[m][half] = (uint32_t)both;
                a[m][half + 2] = (uint32_t)(both >> 32);
            }
    } else {
        const char *from = stage + gemm_swizzle(first_row + (lane() & 15), step * 2 + lane() / 16);
        UNROLL for (int m = 0; m < 4; m++)
            matrix_load4(a[m], from + m * 16 * 128);
    }
}

/* Columns first_column + 8 n … of a stage's B at k = 16 step; q8: still as bytes, in the first word. */
DEVICE void gemm_load_b(uint32_t b[][2], const char *stage, int first_column, int step)
{
    if (weight_dtype == 3) {
        const char *from = stage + gemm_swizzle_s8(first_column + lane(), step);
        UNROLL for (int n = 0; n < warp_columns / 32; n++) {
            uint32_t bytes[4];
            matrix_load4(bytes, from + n * 32 * PIECE);
            UNROLL for (int i = 0; i < 4; i++)
                b[n * 4 + i][0] = bytes[i];
        }
    } else {
        const int column = first_column + (lane() & 7) + lane() / 16 * 8, chunk = step * 2 + (lane() >> 3 & 1);
        const char *from = stage + gemm_swizzle(column, chunk);
        UNROLL for (int n = 0; n < warp_columns / 16; n++) {
            uint32_t two[4];
            matrix_load4(two, from + n * 16 * 128);
            UNROLL for (int i = 0; i < 4; i++)
                b[n * 2 + i / 2][i & 1] = two[i];
        }
    }
}

/* A slice of 16 rows (of them n_rows real) from staging to out; column: of sums. */
DEVICE void gemm_write_slice(void *out, char *staging, const int32_t *rows, int n_rows, int column, int n_slice)
{
    const int shrink = epilogue == 1 ? 2 : 1, chunk_columns = 16 / gemm_out_len(out_kind);
    const int n_chunks = gemm_slice(out_kind, epilogue) / shrink / chunk_columns;      /* of a row */
    if (out_kind == 2) {
        UNROLL for (int row = 0; row < 16; row++)
            if (row < n_rows && lane() * shrink < n_slice)
                gemm_add_staged(out, rows[row], column / shrink, staging, row, n_out / shrink, out_stride, epilogue);
        return;
    }
    UNROLL for (int i = 0; i < 16 * n_chunks / 32; i++) {
        const int row = (i * 32 + lane()) / n_chunks, chunk = (i * 32 + lane()) % n_chunks;
        if (row < n_rows && chunk * chunk_columns * shrink < n_slice)
            gemm_write_chunk(out, rows[row], column / shrink + chunk * chunk_columns,
                gemm_staged(staging, row, chunk, out_kind, epilogue), n_out / shrink, out_stride, out_kind);
    }
}

/* A warp's 64 rows (of them n_rows real) to out; rows: where they belong, gates: theirs. */
DEVICE void gemm_write(void *out, float sums[][MAX_COLUMNS][4], char *staging, const int32_t *rows, const float *gates,
    int n_rows, int column)
{
    const int slice = gemm_slice(out_kind, epilogue), n_slices = (warp_columns + slice - 1) / slice;
    UNROLL for (int m = 0; m < 4; m++)
        UNROLL for (int i = 0; i < n_slices; i++) {
            const int n_slice = min_i(warp_columns - i * slice, slice);
            UNROLL for (int half = 0; half < 2; half++) {
                const int row = half * 8 + lane() / 4;
                const float gate = gated ? gates[m * 16 + row] : 1;
                UNROLL for (int n = 0; n < n_slice / 8; n++) {
                    float *const value = sums[m][i * (slice / 8) + n] + half * 2;
                    gemm_finish(value, gate, epilogue, gated);
                    gemm_stage(staging, row, n * 8 + (lane() & 3) * 2, value, out_kind, epilogue, act);
                }
            }
            warp_sync();
            gemm_write_slice(out, staging, rows + m * 16, n_rows - m * 16, column + i * slice, n_slice);
            warp_sync();
        }
}

KERNEL(gemm)(void *restrict out, const act_t *restrict in, const void *restrict weights, const float *restrict scales,
    const float *restrict bias, const int32_t *restrict slots, const int32_t *restrict totals,
    const int32_t *restrict experts, const float *restrict gates, int32_t n_tokens, int32_t top_k)
{
    const int weight_len = weight_dtype == 3 ? 1 : 2, n_pieces = (n_in + PIECE - 1) / PIECE;
    const int stage_len = (tile_rows * 2 + tile_columns * weight_len) * PIECE;
    const int warps_across = tile_columns / warp_columns, n_warps = tile_rows / 64 * warps_across;
    const int warp_row = warp() / warps_across * 64, warp_column = warp() % warps_across * warp_columns;

    char *const ring = shared();                /* stages of A [tile_rows][64], B [tile_columns][64] */
    char *const staging = ring + stages * stage_len + warp() * STAGING_LEN;
    int *const ends = (int *)(ring + stages * stage_len + n_warps * STAGING_LEN), *const n_rows = ends + n_experts + 1;
    int32_t *row_table = n_rows + n_experts + 1;                                         /* two of [tile_rows] */
    float *gate_table = (float *)(row_table + 2 * tile_rows);                            /* two of [tile_rows] */
    int table = 0;                                                                       /* 0 or tile_rows */

    dependency_wait();
    dependency_launch();
    gemm_list_tiles(ends, n_rows, totals, n_tokens, n_experts, tile_rows);
    const int n_tiles = ends[n_experts] * ((n_out + tile_columns - 1) / tile_columns);
    int tile_at = block_y() * n_blocks_x() + block_x();
    if (tile_at >= n_tiles)
        return;
    const int n_blocks = n_blocks_x() * n_blocks_y(), n_steps = ((n_tiles - 1 - tile_at) / n_blocks + 1) * n_pieces;

    GemmFetch fetch = { .a = (const char *)in, .ring = ring, .tile = tile_at, .n_tokens = n_tokens };
    UNROLL for (int i = 0; i < stages - 1; i++) {
        if (i < n_steps && fetch.k == 0)
            gemm_open_tile(&fetch, ends, n_rows, weights, slots, top_k);
        gemm_fetch_piece(&fetch, i < n_steps);
        copy_commit();
    }
    copy_wait(stages - 2);
    barrier();

    float sums[4][MAX_COLUMNS][4];
    uint32_t a[2][4][4], b[2][MAX_COLUMNS][2], wide[MAX_COLUMNS][2];
    UNROLL for (int i = 0; i < 4 * warp_columns / 2; i++)
        sums[i / (warp_columns / 2)][i / 4 % (warp_columns / 8)][i & 3] = 0;
    gemm_load_a(a[0], ring, warp_row, 0);
    gemm_load_b(b[0], ring + tile_rows * 128, warp_column, 0);

    int stage = 0, k = 0;
    for (int left = n_steps; left > 0; left--) {
        const bool fetches = left >= stages, is_last = k == n_pieces - 1;
        GemmTile tile = { 0, 0, 0, 0 };   /* of the last piece only: no register keeps it */
        int out_row = 0;
        if (fetches && fetch.k == 0)
            gemm_open_tile(&fetch, ends, n_rows, weights, slots, top_k);
        if (is_last) {
            tile = gemm_find_tile(tile_at, ends, n_rows, n_tokens, n_experts, n_out, tile_rows, tile_columns, 16);
            if (thread_x() < tile.n_rows)
                out_row = n_experts == 1 ? tile.first + thread_x() : slots[tile.first + thread_x()];
        }
        UNROLL for (int step = 0; step < 4; step++) {
            if (step == 3) {
                if (is_last && thread_x() < tile.n_rows) {
                    row_table[table + thread_x()] = out_row;
                    if (gated)
                        gate_table[table + thread_x()] = gates[out_row];
                }
                copy_wait(stages - 2);
                barrier();
                stage = stage == stages - 1 ? 0 : stage + 1;
            }
            const char *from = ring + stage * stage_len;
            gemm_load_a(a[(step + 1) & 1], from, warp_row, (step + 1) & 3);
            gemm_load_b(b[(step + 1) & 1], from + tile_rows * 128, warp_column, (step + 1) & 3);
            if (step == 1) {              /* after the loads that the next products wait for */
                gemm_fetch_piece(&fetch, fetches);
                copy_commit();
            }
            uint32_t (*const now)[2] = weight_dtype == 3 ? wide : b[step & 1];
            UNROLL for (int n = 0; weight_dtype == 3 && n < warp_columns / 8; n++)
                act_from_s8(wide[n], b[step & 1][n][0], act);
            UNROLL for (int m = 0; m < 4; m++)
                UNROLL for (int n = 0; n < warp_columns / 8; n++)
                    mma_16x8x16(sums[m][n], a[step & 1][m], now[n], act);
        }
        k = is_last ? 0 : k + 1;
        if (!is_last)
            continue;

        const int column = tile.column + warp_column;
        const int32_t *rows = row_table + table + warp_row;
        if (tile.n_rows > warp_row) {
            gemm_add_bias(sums, rows, tile.n_rows - warp_row, tile.expert, column, scales, bias, experts, gates, top_k);
            gemm_write(out, sums, staging, rows, gate_table + table + warp_row, tile.n_rows - warp_row, column);
        }
        UNROLL for (int i = 0; i < 4 * warp_columns / 2; i++)
            sums[i / (warp_columns / 2)][i / 4 % (warp_columns / 8)][i & 3] = 0;
        tile_at += n_blocks;
        table ^= tile_rows;
    }
}
