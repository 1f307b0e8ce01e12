/* Random weights on a GPU, slot by slot: numbers of the sizes that trained weights have, zeros where rows are padded.
 *
 * A slot longer than the block of random rows repeats it, at a number of rows that no expert's rows divide.
 */
#include "gpu_bench.h"

#include "../ir/dtype.h"

#include <math.h>
#include <string.h>

enum { BLOCK_LEN = 8 << 20 };

typedef struct { GpuBench *bench; uint8_t *block; uint64_t random; } Filler;

static float next(Filler *f)
{
    f->random ^= f->random << 13, f->random ^= f->random >> 7, f->random ^= f->random << 17;
    return (float)(f->random >> 40) * 0x1p-23f - 1;
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), n = strlen(end);
    return len >= n && strcmp(text + len - n, end) == 0;
}

/* Lowest and highest of a vector's numbers, and of a matrix's of n_in columns. */
static void range_of(const WeightSlot *slot, double *low, double *high)
{
    static const struct { const char *end; double low, high; } rows[] = {
        { "A_log", -16, -1 }, { ".D", 0.5, 1.5 }, { "dt_proj.bias", -5, -2 }, { "norm.weight", 0.5, 1.5 },
        { "norm_f.weight", 0.5, 1.5 }, { "conv1d.weight", -0.5, 0.5 }, { "conv1d.bias", -0.1, 0.1 },
        { "embed.weight", -1, 1 }, { "bias", -0.1, 0.1 },
    };
    *high = sqrt(3.0 / (double)(slot->n_in > 1 ? slot->n_in : slot->n_out));
    *low = -*high;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (ends_with(slot->tensor, rows[i].end) || strcmp(slot->tensor, rows[i].end + 1) == 0) {
            *low = rows[i].low;
            *high = rows[i].high;
            return;
        }
}

static bool upload(Filler *f, int64_t offset, int64_t len, int64_t block_len)
{
    GpuBench *b = f->bench;
    for (int64_t at = 0; at < len; at += block_len) {
        const size_t n = (size_t)(len - at < block_len ? len - at : block_len);
        if (!cuda_check(&b->cuda, b->cuda.copy_to_device(b->weights + (CudaPointer)(offset + at), f->block, n,
                                                         b->cuda.stream), "cannot copy weights", b->why, sizeof b->why))
            return false;
    }
    return bench_wait(b);      /* the block is filled anew */
}

static bool fill_floats(Filler *f, int64_t offset, int64_t len, double low, double high)
{
    const int64_t n = len < BLOCK_LEN - 4 * 1021 ? len / 4 : BLOCK_LEN / 4 - 1021;
    float *to = (float *)(void *)f->block;
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)(low + (high - low) * 0.5 * (1 + (double)next(f)));
    return upload(f, offset, len / 4 * 4, 4 * n);
}

static void fill_row(Filler *f, uint8_t *row, const WeightSlot *slot, int64_t n_columns, double high)
{
    for (int64_t i = 0; i < n_columns; i++) {
        const float x = next(f) * (float)high;
        const uint16_t bits = slot->dtype == DTYPE_BF16 ? dtype_f32_to_bf16(x) : dtype_f32_to_f16(x);
        if (slot->dtype == DTYPE_Q8)
            row[i] = (uint8_t)(int8_t)lrintf(x / (float)high * 127);
        else
            memcpy(row + 2 * i, &bits, 2);
    }
}

static bool fill_matrix(Filler *f, const WeightSlot *slot, int64_t offset, double high)
{
    const bool joined = strcmp(slot->layout, "device_joined") == 0;
    const int64_t row_len = slot->row_stride * dtype_len(slot->dtype);
    const int64_t n_rows = joined ? slot->n_out : slot->n_experts * slot->stored_rows;
    int64_t block_rows = BLOCK_LEN / row_len;
    block_rows = block_rows > 1 ? (block_rows - 1) | 1 : 1;
    block_rows = block_rows < n_rows ? block_rows : n_rows;
    memset(f->block, 0, (size_t)(block_rows * row_len));
    for (int64_t r = 0; r < block_rows; r++)
        fill_row(f, f->block + r * row_len, slot, joined ? slot->n_experts * slot->n_in : slot->n_in, high);
    return upload(f, offset, n_rows * row_len, block_rows * row_len)
        && (!slot->scales || fill_floats(f, offset + slot->scales, 4 * n_rows, high / 127, 2 * high / 127));
}

static bool fill_block(Filler *f, const BlockPlan *block, int64_t offset)
{
    for (int i = 0; i < block->n_weights; i++) {
        const WeightSlot *slot = &block->weights[i];
        double low, high;
        range_of(slot, &low, &high);
        const bool good = slot->dtype == DTYPE_F32 ? fill_floats(f, offset + slot->offset, slot->len, low, high)
            : fill_matrix(f, slot, offset + slot->offset, high);
        if (!good)
            return false;
    }
    return true;
}

bool bench_fill_weights(GpuBench *b)
{
    const Plan *plan = b->base;
    Filler f = { .bench = b, .block = arena_alloc(b->arena, BLOCK_LEN), .random = 0x2545F4914F6CDD1Du };
    bool good = fill_block(&f, plan->main, 0);
    for (int i = 0; i < plan->n_layers && good; i++)
        good = fill_block(&f, plan->layers[i].block, plan->layers[i].weights_offset);
    return good;
}
