/* The program of the stand-in GPU: its tables, the model by its definition, and its five kernels; see fake_gpu.h.
 * The driver that runs them is fake_driver.c. */
#define moss_program_data fake_declared_const   /* as program.h does; tests change it */
#include "fake_driver.h"
#undef moss_program_data

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FAKE_HASH = 0x5EED, FAKE_FIXED_LEN = 16, FAKE_SCRATCH_LEN = 4096, FAKE_ZEROED_LEN = 64 };

/* ---- the model ---- */

enum { KERNEL_CLEAR, KERNEL_FOLD, KERNEL_LOGITS, KERNEL_ARGMAX, KERNEL_DRAW, N_KERNELS };
static const char *const kernel_names[N_KERNELS] = { "clear", "fold", "logits", "argmax", "draw" };

#define ONE { MOSS_GPU_ONE, 1, 0 }
static const moss_gpu_arg args[] = {
    { MOSS_GPU_ARG_SCRATCH, 0, 0 }, { MOSS_GPU_ARG_NULL, 0, 0 }, { MOSS_GPU_ARG_TENSOR_MAP, 0, 0 },
    /* fold, at 3 */
    { MOSS_GPU_ARG_STATE, 0, 0 }, { MOSS_GPU_ARG_STATE, 0, 16 }, { MOSS_GPU_ARG_STATE_STRIDE, 0, 0 },
    { MOSS_GPU_ARG_SLOTS, 0, 0 }, { MOSS_GPU_ARG_POSITIONS, 0, 0 }, { MOSS_GPU_ARG_TOKENS, 0, 0 },
    { MOSS_GPU_ARG_WEIGHTS, 0, 1 }, { MOSS_GPU_ARG_SCRATCH, 0, 64 }, { MOSS_GPU_ARG_COUNT, 0, MOSS_GPU_TOKENS },
    { MOSS_GPU_ARG_COUNT, 0, MOSS_GPU_SEQUENCES }, { MOSS_GPU_ARG_COUNT, 0, MOSS_GPU_TOP_K },
    { MOSS_GPU_ARG_N_CONTEXT, 0, 0 }, { MOSS_GPU_ARG_ENDS, 0, 0 },
    /* logits, at 16 */
    { MOSS_GPU_ARG_LOGITS, 0, 0 }, { MOSS_GPU_ARG_SCRATCH, 0, 64 }, { MOSS_GPU_ARG_COUNT, 0, MOSS_GPU_TOKENS },
    { MOSS_GPU_ARG_COUNT, 0, MOSS_GPU_LOGITS }, { MOSS_GPU_ARG_INT, 0, FAKE_VOCAB },
    { MOSS_GPU_ARG_ENDS, 0, 0 }, { MOSS_GPU_ARG_COUNT, 0, MOSS_GPU_SEQUENCES },
    /* argmax, at 23 */
    { MOSS_GPU_ARG_TOKENS, 0, 0 }, { MOSS_GPU_ARG_HISTORY, 0, 0 }, { MOSS_GPU_ARG_POSITIONS, 0, 0 },
    { MOSS_GPU_ARG_LOGITS, 0, 0 },
    /* draw, at 27 */
    { MOSS_GPU_ARG_TOKENS, 0, 0 }, { MOSS_GPU_ARG_HISTORY, 0, 0 }, { MOSS_GPU_ARG_POSITIONS, 0, 0 },
    { MOSS_GPU_ARG_LOGITS, 0, 0 }, { MOSS_GPU_ARG_SAMPLERS, 0, 0 },
};

static const moss_gpu_launch launches[FAKE_TABLE_LAUNCHES] = {
    { KERNEL_CLEAR, MOSS_GPU_DEPENDENT, { { MOSS_GPU_PROCESSORS, 1, 1 }, ONE }, 32, 0, 0, 3 },   /* on nothing */
    { KERNEL_FOLD, MOSS_GPU_DEPENDENT, { { MOSS_GPU_PAIRS, 3, 0 }, { MOSS_GPU_APART, 4, 1 } }, 64, 60000, 3, 13 },
    { KERNEL_LOGITS, MOSS_GPU_IF_LOGITS | MOSS_GPU_DEPENDENT, { { MOSS_GPU_LOGITS, 1, 0 }, ONE }, 128, 100, 16, 7 },
    { KERNEL_CLEAR, MOSS_GPU_COOPERATIVE, { ONE, ONE }, 32, 0, 0, 3 },
    { KERNEL_FOLD, MOSS_GPU_DEPENDENT, { { MOSS_GPU_SEQUENCES, 1, 0 }, ONE }, 64, 0, 3, 13 },
    { KERNEL_LOGITS, MOSS_GPU_IF_LOGITS, { { MOSS_GPU_LOGITS, 1, 0 }, ONE }, 128, 100, 16, 7 },
    { KERNEL_ARGMAX, MOSS_GPU_DEPENDENT, { { MOSS_GPU_SEQUENCES, 1, 0 }, ONE }, 256, 0, 23, 4 },
    { KERNEL_DRAW, MOSS_GPU_DEPENDENT, { { MOSS_GPU_SEQUENCES, 1, 0 }, ONE }, 256, 0, 27, 5 },
};

static const moss_gpu_tensor_map maps[] = {
    { MOSS_GPU_ARG_WEIGHTS, 2, 256, 100, 64, 128, 8, 64, 128 },
};

static const moss_gpu_program good_tables = {
    .sm = 90, .ptx = "the kernels", .ptx_len = 11, .kernels = kernel_names, .n_kernels = N_KERNELS,
    .launches = launches, .args = args, .tensor_maps = maps,
    .n_launches = FAKE_TABLE_LAUNCHES, .n_args = 32, .n_tensor_maps = 1,
    .prefill = { 0, 3 }, .decode = { 3, 6 }, .feed = { 6, 7 }, .draw = { 7, 8 },
    .scratch_len = FAKE_SCRATCH_LEN, .zeroed_len = FAKE_ZEROED_LEN,
};
static moss_gpu_program tables;

moss_program moss_program_data = {
    .abi = MOSS_ABI, .name = "fake", .target = "h100", .features = "", .quant = "f32", .manifest = "{}",
    .vocab_size = FAKE_VOCAB, .n_modes = 2, .mode_top_k = { 2, 3 }, .chunk = FAKE_CHUNK, .model_hash = FAKE_HASH,
    .state_hash = FAKE_HASH,
    .weights_len = FAKE_DATA_LEN, .state_fixed_len = FAKE_FIXED_LEN, .gpu = &tables,
};

moss_program *fake_program(void) { return &moss_program_data; }
moss_gpu_program *fake_tables(void) { return &tables; }

void fake_program_reset(void)
{
    tables = good_tables;
    fake_full_attention(false);
    moss_program_data.embedded_weights = fake_weights();
}

void fake_full_attention(bool on)
{
    moss_program_data.full_attention = on;
    moss_program_data.state_token_len = on ? FAKE_TOKEN_LEN : 0;
}

static uint64_t fake_mix(uint64_t x)
{
    x *= 0x9E3779B97F4A7C15u;
    return x ^ x >> 29;
}

static uint64_t fake_fold(uint64_t hash, int64_t seen, int32_t token, int32_t top_k, const uint8_t *weights)
{
    return fake_mix(hash + (uint64_t)top_k * (1u + weights[token * 31457]) + (uint64_t)seen);
}

static void fake_logits(uint64_t hash, float *logits)
{
    for (int32_t v = 0; v < FAKE_VOCAB; v++)
        logits[v] = (float)(fake_mix(hash + (uint64_t)v) >> 54) / 64;     /* few values: there are ties */
}

void fake_step(uint64_t *hash, int64_t seen, int32_t token, int32_t top_k, float *logits)
{
    *hash = fake_fold(*hash, seen, token, top_k, fake_weights() + MOSS_WEIGHTS_HEADER_LEN + 1);
    fake_logits(*hash, logits);
}

uint8_t *fake_weights(void)
{
    static _Alignas(4096) uint8_t block[FAKE_FILE_LEN];
    if (moss_program_data.weights_checksum)
        return block;
    moss_weights_header header = { .magic = MOSS_WEIGHTS_MAGIC, .abi = MOSS_ABI, .model_hash = FAKE_HASH,
                                   .data_len = FAKE_DATA_LEN, .name = "fake" };
    for (size_t i = 0; i < FAKE_DATA_LEN; i++)
        block[MOSS_WEIGHTS_HEADER_LEN + i] = (uint8_t)(i * 7 + i / 256 + i / 65536);
    header.checksum = moss_checksum(block + MOSS_WEIGHTS_HEADER_LEN, FAKE_DATA_LEN);
    memcpy(block, &header, sizeof header);
    moss_program_data.weights_checksum = header.checksum;
    return block;
}

/* ---- kernels ---- */

static void *pointer(const FakeKernel *kernel, int i, size_t len)
{
    void *at = (void *)(uintptr_t)kernel->values[i];
    if (!fake_memory_has(at, len, false)) {
        fprintf(stderr, "kernel %s, argument %d: not memory of the device\n", kernel_names[kernel->kernel], i);
        abort();
    }
    return at;
}
static int32_t number(const FakeKernel *kernel, int i) { return (int32_t)kernel->values[i]; }

/* The barrier's memory was cleared once and by nobody else; the map is that of the table. */
static void run_clear(const FakeKernel *kernel)
{
    const uint8_t *barrier = pointer(kernel, 0, FAKE_ZEROED_LEN);
    for (int i = 0; i < FAKE_ZEROED_LEN; i++)
        if (barrier[i] != 0 || kernel->values[1] != 0 || (uint8_t)kernel->values[2] != 0xAB)
            abort();
}

static void run_fold(const FakeKernel *kernel)
{
    const int32_t n_tokens = number(kernel, 8), n_sequences = number(kernel, 9), top_k = number(kernel, 10);
    const int64_t stride = (int64_t)kernel->values[2], n_context = (int64_t)kernel->values[11];
    const int32_t *slots = pointer(kernel, 3, (size_t)n_sequences * 4);
    const int64_t *positions = pointer(kernel, 4, (size_t)n_sequences * 8);
    const int32_t *tokens = pointer(kernel, 5, (size_t)n_tokens * 4);
    const uint8_t *weights = pointer(kernel, 6, FAKE_DATA_LEN - 1);
    uint64_t *hashes = pointer(kernel, 7, (size_t)n_tokens * 8);
    const int32_t *ends = pointer(kernel, 12, (size_t)n_sequences * 4);
    if (ends[n_sequences - 1] != n_tokens || (int32_t)kernel->config.grid[1] > 1 + (n_tokens + 3) / 4 + n_sequences - 1)
        abort();
    for (int32_t i = 0, s = 0; i < n_tokens; i++) {
        s += i == ends[s];
        const int64_t seen = positions[s] + i - (s ? ends[s - 1] : 0);
        FakeKernel at = { .values = { kernel->values[0] + (uint64_t)(slots[s] * stride),
                                  kernel->values[1] + (uint64_t)(slots[s] * stride) } };
        uint64_t *state = pointer(&at, 0, FAKE_FIXED_LEN);
        if ((int64_t)state[1] != seen)
            abort();
        if (moss_program_data.full_attention) {
            if (seen >= n_context)
                abort();
            uint64_t *ring = pointer(&at, 1, (size_t)n_context * 8);
            ring[seen] = state[0];
            for (int64_t t = 0; t < seen; t++)       /* what is remembered must be what was */
                state[0] += ring[t] == 0xCDCDCDCDCDCDCDCD;
        }
        state[0] = hashes[i] = fake_fold(state[0], seen, tokens[i], top_k, weights);
        state[1]++;
    }
}

static void run_logits(const FakeKernel *kernel)
{
    const int32_t n_tokens = number(kernel, 2), n_logits = number(kernel, 3), vocab_size = number(kernel, 4);
    float *logits = pointer(kernel, 0, (size_t)n_logits * (size_t)vocab_size * 4);
    const uint64_t *hashes = pointer(kernel, 1, (size_t)n_tokens * 8);
    const int32_t n_sequences = number(kernel, 6), *ends = pointer(kernel, 5, (size_t)n_sequences * 4);
    for (int32_t i = 0; i < n_logits; i++)
        fake_logits(hashes[n_sequences > 1 ? ends[i] - 1 : n_tokens - n_logits + i],
                    logits + (ptrdiff_t)i * vocab_size);
}

static void run_argmax(const FakeKernel *kernel)
{
    const int32_t n = (int32_t)kernel->config.grid[0];
    int32_t *tokens = pointer(kernel, 0, (size_t)n * 4);
    int32_t *history = pointer(kernel, 1, MOSS_GPU_HISTORY * MOSS_GPU_MAX_SEQUENCES * 4);
    int64_t *positions = pointer(kernel, 2, (size_t)n * 8);
    const float *logits = pointer(kernel, 3, (size_t)n * FAKE_VOCAB * 4);
    for (int32_t i = 0; i < n; i++, logits += FAKE_VOCAB) {
        int32_t best = 0;
        for (int32_t v = 1; v < FAKE_VOCAB; v++)
            best = logits[v] > logits[best] ? v : best;
        tokens[i] = history[positions[i] % MOSS_GPU_HISTORY * MOSS_GPU_MAX_SEQUENCES + i] = best;
        positions[i]++;
    }
}

static void run_draw(const FakeKernel *kernel)
{
    static float scratch[2 * FAKE_VOCAB];
    const int32_t n = (int32_t)kernel->config.grid[0];
    int32_t *tokens = pointer(kernel, 0, (size_t)n * 4);
    int32_t *history = pointer(kernel, 1, MOSS_GPU_HISTORY * MOSS_GPU_MAX_SEQUENCES * 4);
    int64_t *positions = pointer(kernel, 2, (size_t)n * 8);
    const float *logits = pointer(kernel, 3, (size_t)n * FAKE_VOCAB * 4);
    moss_sampler *samplers = pointer(kernel, 4, (size_t)n * sizeof *samplers);
    for (int32_t i = 0; i < n; i++, logits += FAKE_VOCAB) {
        tokens[i] = moss_sample(&samplers[i], logits, scratch);
        history[positions[i]++ % MOSS_GPU_HISTORY * MOSS_GPU_MAX_SEQUENCES + i] = tokens[i];
    }
}

void fake_kernel_run(const FakeKernel *kernel)
{
    static void (*const run[N_KERNELS])(const FakeKernel *) = { run_clear, run_fold, run_logits, run_argmax, run_draw };
    run[kernel->kernel](kernel);
}

int fake_kernel_find(const char *name)
{
    for (int i = 0; i < N_KERNELS; i++)
        if (strcmp(kernel_names[i], name) == 0)
            return i;
    return -1;
}

const char *fake_kernel_name(int kernel) { return kernel_names[kernel]; }

int fake_kernel_n_args(int kernel)
{
    static const int n_args[N_KERNELS] = { 3, 13, 7, 4, 5 };
    return n_args[kernel];
}

int fake_kernel_shared_len(int kernel) { return kernel == KERNEL_FOLD ? 60000 : 100; }
