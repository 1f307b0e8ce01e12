/* What gemm.c and gemm_h100.c share: the list of tiles of all experts, and how a sum becomes an output. */
#ifndef MOSSC_CODEGEN_GPU_GEMM_H
#define MOSSC_CODEGEN_GPU_GEMM_H

typedef struct { int expert, first, n_rows, column; } GemmTile;   /* rows: positions first … in slots */

/* ends [n_experts + 1]: tile rows before each expert; begins: its first position in slots (E = 1: 0, n_tokens). */
DEVICE void gemm_list_tiles(int *ends, int *begins, const int32_t *offsets, int n_tokens, int n_experts, int tile_rows)
{
    int n_tiles = 0;
    for (int e = 0; e < n_experts; e++) {
        const int begin = n_experts == 1 ? 0 : offsets[e], end = n_experts == 1 ? n_tokens : offsets[e + 1];
        ends[e] = n_tiles;
        begins[e] = begin;
        begins[e + 1] = end;
        n_tiles += (end - begin + tile_rows - 1) / tile_rows;
    }
    ends[n_experts] = n_tiles;
}

/* Groups of n_group tile rows run down all columns. */
DEVICE GemmTile gemm_find_tile(int tile, const int *ends, const int *begins, int n_experts, int n_out, int tile_rows,
    int tile_columns, int n_group)
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
    found.first = begins[e] + (row - ends[e]) * tile_rows;
    found.n_rows = min_i(begins[e + 1] - found.first, tile_rows);
    found.column = in_group / group_rows * tile_columns;
    return found;
}

DEVICE float gemm_silu(float x) { return x * reciprocal_fast(1.0f + exp2_fast(-1.44269504f * x)); }

/* max(x, 0) + log(1 + exp(-|x|)), the logarithm by its series where 1 + would round the small term away */
DEVICE float gemm_softplus(float x)
{
    const float small = exp2_fast(-1.44269504f * (x < 0 ? -x : x));
    const float log = small < 0x1p-8f ? small - 0.5f * small * small : 0.69314718f * log2_fast(1.0f + small);
    return max_f(x, 0.0f) + log;
}

/* Two neighbouring columns of a row of scales or biases that starts at `at`, `column` even. */
DEVICE void gemm_load_pair(float pair[2], const float *row, int64_t at, int column, int n_out)
{
    if (n_out % 2 == 0) {
        const uint64_t both = column < n_out ? *(const uint64_t *)(row + at + column) : 0;
        pair[0] = bits_float((uint32_t)both);
        pair[1] = bits_float((uint32_t)(both >> 32));
        return;
    }
    pair[0] = column < n_out ? row[at + column] : 0;
    pair[1] = column + 1 < n_out ? row[at + column + 1] : 0;
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

/* Columns column, column + 1 (of n_columns) of a float32 row, or the first alone; adds: to what is there. */
DEVICE void gemm_store_f32(float *row, int column, const float value[2], int n_values, int n_columns, int adds)
{
    UNROLL for (int i = 0; i < 2; i++)
        if (i < n_values && column + i < n_columns)
            row[column + i] = adds ? row[column + i] + value[i] : value[i];
}

/* A chunk of 8 columns of act from shared memory to its place; the row has n_columns. */
DEVICE void gemm_store_act(act_t *row, int column, const void *chunk, int n_columns)
{
    if (column >= n_columns)
        return;
    if (n_columns % 8 == 0 || column + 8 <= n_columns) {
        store16(row + column, load16(chunk));
        return;
    }
    UNROLL for (int j = 0; j < 7; j++)
        if (column + j < n_columns)
            row[column + j] = ((const act_t *)chunk)[j];
}

#endif
