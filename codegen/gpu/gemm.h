/* What gemm.c and gemm_h100.c share: the list of tiles of all experts, and how a sum becomes an output. */
#ifndef MOSSC_CODEGEN_GPU_GEMM_H
#define MOSSC_CODEGEN_GPU_GEMM_H

/* Rows first … of E = 1, else those in slots first …; an expert's slots begin at expert · n_tokens. */
typedef struct { int expert, first, n_rows, column; } GemmTile;

/* By the whole block. ends [n_experts + 1]: tile rows before each expert; n_rows [n_experts]: how many rows it has. */
DEVICE void gemm_list_tiles(int *ends, int *n_rows, const int32_t *totals, int n_tokens, int n_experts, int tile_rows)
{
    for (int e = thread_x(); e < n_experts; e += n_threads())
        n_rows[e] = n_experts > 1 ? totals[e] : n_tokens;
    barrier();
    int n_tiles = 0;
    for (int e = 0; thread_x() == 0 && e <= n_experts; e++) {
        ends[e] = n_tiles;
        if (e < n_experts)
            n_tiles += (n_rows[e] + tile_rows - 1) / tile_rows;
    }
    barrier();
}

/* Groups of n_group tile rows run down all columns. */
DEVICE GemmTile gemm_find_tile(int tile, const int *ends, const int *n_rows, int n_tokens, int n_experts, int n_out,
    int tile_rows, int tile_columns, int n_group)
{
    const int n_columns = (n_out + tile_columns - 1) / tile_columns;
    const int group = tile / (n_group * n_columns), in_group = tile - group * n_group * n_columns;
    const int group_rows = min_i(ends[n_experts] - group * n_group, n_group);
    const int row = group * n_group + in_group % group_rows;
    int e = 0, end = n_experts;
    while (end - e > 1) {                 /* ends[e] <= row < ends[end] */
        const int middle = (e + end) / 2;
        if (ends[middle] <= row)
            e = middle;
        else
            end = middle;
    }
    GemmTile found;
    found.expert = e;
    found.first = e * n_tokens + (row - ends[e]) * tile_rows;
    found.n_rows = min_i(n_rows[e] - (row - ends[e]) * tile_rows, tile_rows);
    found.column = in_group / group_rows * tile_columns;
    return found;
}

DEVICE float gemm_silu(float x) { return x * reciprocal_fast(1.0f + exp2_fast(-1.44269504f * x)); }

/* max(x, 0) + log(1 + u), u = exp(-|x|): the logarithm as u times a polynomial, which is wrong by 1.4e-6 of it at most,
 * for small u too, and takes less time than lg2. */
DEVICE float gemm_softplus(float x)
{
    static const float factors[] = { 0.0141410241f, -0.0664018020f, 0.149223879f, -0.235038608f, 0.331094503f,
                                     -0.499869645f, 0.999998748f };
    const float u = exp2_fast(-1.44269504f * bits_float(float_bits(x) & 0x7fffffffu));
    float ratio = factors[0];
    UNROLL for (int i = 0; i < 6; i++)
        ratio = fma_f(ratio, u, factors[i + 1]);
    return fma_f(u, ratio, max_f(x, 0.0f));
}

/* Two neighbouring columns of a row of scales or biases that starts at `at`, `column` even. whole: both are there. */
DEVICE void gemm_load_pair(float pair[2], const float *row, int64_t at, int column, int n_out, int whole)
{
    if (n_out % 2 == 0) {
        const uint64_t both = whole || column < n_out ? *(const uint64_t *)(row + at + column) : 0;
        pair[0] = bits_float((uint32_t)both);
        pair[1] = bits_float((uint32_t)(both >> 32));
        return;
    }
    pair[0] = column < n_out ? row[at + column] : 0;
    pair[1] = column + 1 < n_out ? row[at + column + 1] : 0;
}

/* ---- mixed biases: [16 rows][8 experts] of gates times [8 experts][8 columns] of biases, by tensor cores ---- */

/* A lane's factors, each the sum of two of 11 bits. */
typedef struct { float high[4], low[4]; } GemmGates;

DEVICE void gemm_split(float x, float *high, float *low)
{
    *high = bits_float(float_bits(x) & 0xffffe000u);
    *low = x - *high;
}

/* Of this lane's two rows and two of the experts first_expert …: those that the rows' tokens chose, else 0. */
DEVICE GemmGates gemm_load_gates(const int rows[2], int first_expert, const int32_t *experts, const float *gates,
    int top_k)
{
    float gate[4] = { 0, 0, 0, 0 };
    GemmGates split;
    for (int s = 0; s < top_k; s++)
        UNROLL for (int half = 0; half < 2; half++) {
            const int64_t pair = (int64_t)rows[half] * top_k + s;
            const int e = experts[pair] - first_expert - (lane() & 3);
            const float own = gates[pair];
            gate[half] = e == 0 ? own : gate[half];
            gate[half + 2] = e == 4 ? own : gate[half + 2];
        }
    UNROLL for (int i = 0; i < 4; i++)
        gemm_split(gate[i], &split.high[i], &split.low[i]);
    return split;
}

/* sums: 16 rows of n_tiles times 8 columns from `column` on; all biases are asked for before the first is used. */
DEVICE void gemm_add_mixed(float *sums, int n_tiles, const GemmGates *gates, const float *bias, int first_expert,
    int n_experts, int column, int n_out)
{
    float fetched[16][2], high[16][2], low[16][2];         /* of at most 16 tiles */
    UNROLL for (int n = 0; n < n_tiles; n++)
        UNROLL for (int i = 0; i < 2; i++) {
            const int e = first_expert + (lane() & 3) + 4 * i, own = column + n * 8 + lane() / 4;
            fetched[n][i] = e < n_experts && own < n_out ? bias[(int64_t)e * n_out + own] : 0;
        }
    UNROLL for (int n = 0; n < n_tiles; n++)
        UNROLL for (int i = 0; i < 2; i++)
            gemm_split(fetched[n][i], &high[n][i], &low[n][i]);
    UNROLL for (int n = 0; n < n_tiles; n++)
        mma_16x8x8(sums + n * 4, gates->high, low[n], sums + n * 4);
    UNROLL for (int n = 0; n < n_tiles; n++)
        mma_16x8x8(sums + n * 4, gates->low, high[n], sums + n * 4);
    UNROLL for (int n = 0; n < n_tiles; n++)
        mma_16x8x8(sums + n * 4, gates->high, high[n], sums + n * 4);
}

/* Two columns to what is written, epilogue 1: to the first. */
DEVICE void gemm_finish(float value[2], float gate, int epilogue, int gated)
{
    if (epilogue == 1)
        value[0] = gemm_silu(value[0]) * value[1];
    UNROLL for (int i = 0; i < 2; i++) {
        if (epilogue == 2)
            value[i] = gemm_softplus(value[i]);
        if (gated)
            value[i] *= gate;
    }
}

/* Bytes of an element of out. */
DEVICE int gemm_out_len(int out_kind) { return out_kind == 0 || out_kind == 3 ? 2 : 4; }

/* A warp writes 16 rows at a time, by slices: so many columns of sums give 128 bytes of out or less. Of 64 columns
 * softplus would need more registers than there are. */
DEVICE int gemm_slice(int out_kind, int epilogue)
{
    return epilogue == 2 || (gemm_out_len(out_kind) == 4 && epilogue != 1) ? 32 : 64;
}

/* Where chunk `chunk` (16 bytes) of a row of a slice is staged, such that neither its writers nor its readers meet. */
DEVICE char *gemm_staged(char *staging, int row, int chunk, int out_kind, int epilogue)
{
    const bool is_f32 = gemm_out_len(out_kind) == 4 && epilogue != 1;
    const int turn = is_f32 ? row * 2 : epilogue == 2 ? row * 4 + (row >> 1 & 3) : row;
    return staging + row * 128 + ((chunk ^ (turn & 7)) << 4);
}

/* Two outputs in 16 bits. With out_kind 3 none is more than f16 can hold; NaN stays NaN. */
DEVICE uint32_t gemm_pack(float lo, float hi, int out_kind, int act)
{
    return out_kind == 3 ? half_pack_finite(lo, hi) : act_pack(lo, hi, act);
}

/* Two columns of sums, finished; `column` of the slice, even. */
DEVICE void gemm_stage(char *staging, int row, int column, const float value[2], int out_kind, int epilogue, int act)
{
    const int out_len = gemm_out_len(out_kind), to = (epilogue == 1 ? column / 2 : column) * out_len;
    char *const at = gemm_staged(staging, row, to / 16, out_kind, epilogue) + to % 16;
    if (out_len == 2 && epilogue == 1)
        *(act_t *)at = (act_t)gemm_pack(value[0], 0, out_kind, act);
    else if (out_len == 2)
        *(uint32_t *)at = gemm_pack(value[0], value[1], out_kind, act);
    else if (epilogue == 1)
        *(float *)at = value[0];
    else
        *(uint64_t *)at = (uint64_t)float_bits(value[1]) << 32 | float_bits(value[0]);
}

/* A chunk from its stage to columns column … of a row of out. */
DEVICE void gemm_write_act(act_t *row, int column, const char *staged, int n_columns)
{
    if (n_columns % 8 == 0 || column + 8 <= n_columns) {
        store16(row + column, load16(staged));
        return;
    }
    UNROLL for (int j = 0; j < 7; j++)
        if (column + j < n_columns)
            row[column + j] = ((const act_t *)staged)[j];
}
DEVICE void gemm_write_f32(float *row, int column, const char *staged, int n_columns, int out_stride)
{
    if (out_stride % 4 == 0 && (n_columns % 4 == 0 || column + 4 <= n_columns)) {
        store16(row + column, load16(staged));
        return;
    }
    UNROLL for (int j = 0; j < 4; j++)
        if (column + j < n_columns)
            row[column + j] = ((const float *)staged)[j];
}
/* n_columns: those of out. */
DEVICE void gemm_write_chunk(void *out, int64_t row, int column, const char *staged, int n_columns, int out_stride,
    int out_kind)
{
    if (column >= n_columns)
        return;
    if (gemm_out_len(out_kind) == 2)
        gemm_write_act((act_t *)out + row * out_stride, column, staged, n_columns);
    else
        gemm_write_f32((float *)out + row * out_stride, column, staged, n_columns, out_stride);
}

/* Adds without waiting for what is there; nobody else adds to it now. */
#ifdef __NVPTX__
DEVICE void gemm_add(float *global, float value)
{
    __asm__ volatile("red.global.add.f32 [%0], %1;" :: "l"(global), "f"(value) : "memory");
}
#else
DEVICE void gemm_add(float *global, float value) { *global += value; }
#endif

/* Each lane its column of a staged row of 32 float32 to row `to_row` of out, at column …; n_columns: those of out. */
DEVICE void gemm_add_staged(void *out, int64_t to_row, int column, char *staging, int row, int n_columns,
    int out_stride, int epilogue)
{
    const float *const staged = (const float *)gemm_staged(staging, row, lane() / 4, 2, epilogue) + lane() % 4;
    if (column + lane() < n_columns)
        gemm_add((float *)out + to_row * out_stride + column + lane(), *staged);
}

#endif
