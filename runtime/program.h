/* The ABI between generated code and the runtime.
 *
 * Generated code defines one moss_program and two forward functions for each kind of CPU it is for; the
 * runtime opens the weights, owns threads and state, chooses and calls them. This is the only runtime
 * header the compiler's code generator may include. Change anything here: raise MOSS_ABI.
 */
#ifndef MOSS_PROGRAM_H
#define MOSS_PROGRAM_H

#include "gpu_program.h"

#include <stddef.h>
#include <stdint.h>

enum {
    MOSS_ABI = 6,
    MOSS_MAX_MODES = 8,
    MOSS_ALIGN = 64,                 /* of every buffer and of every packed tensor, bytes */
    MOSS_WEIGHTS_HEADER_LEN = 4096,  /* data starts here, page-aligned */
};
#define MOSS_WEIGHTS_MAGIC "MOSSWTS1"

/* First bytes of a weights file (and of embedded weights); the rest of the header is zero. */
typedef struct {
    char magic[8];
    uint32_t abi, reserved;
    uint64_t model_hash;      /* of the graph, quantisation and packing: must equal the program's */
    uint64_t data_len;        /* bytes that follow the header */
    uint64_t checksum;        /* moss_checksum of them */
    char name[64];            /* the model's, for messages; NUL-terminated */
} moss_weights_header;

typedef struct moss_barrier moss_barrier;

/* One pass over up to `chunk` tokens; the same for every thread. Buffers are MOSS_ALIGN-aligned. */
typedef struct {
    const uint8_t *weights;       /* packed data, after the header */
    uint8_t *const *states;       /* [n_sequences], each after its state's header */
    const int64_t *positions;     /* [n_sequences]: tokens each state has seen before this call */
    uint8_t *shared;              /* shared_len bytes of scratch */
    uint8_t *private_scratch;     /* private_len bytes for each thread, thread 0's first */
    const int32_t *tokens;        /* [n_tokens], each in [0, vocab_size) */
    float *logits;                /* [n_logits, vocab_size], of the last n_logits tokens */
    int32_t n_tokens, n_logits;   /* 1..chunk, 0..n_tokens */
    int32_t n_sequences;          /* 1; or n_tokens, then each token goes on in a state of its own */
    int32_t mode, n_threads;
    int64_t n_context;            /* key rows kept by attention layers without a window */
    moss_barrier *barrier;
} moss_run;

/* Executed by every thread of the team, thread in [0, n_threads). */
typedef void moss_forward_fn(const moss_run *run, int thread);

/* All threads of the team meet here; memory written before is seen after. */
void moss_barrier_wait(moss_barrier *barrier);

/* What of n equal pieces is thread t's: contiguous, the same for every operation with n pieces. */
typedef struct { int begin, end; } moss_range;
static inline moss_range moss_share(int n, int thread, int n_threads)
{
    moss_range range = { (int)((int64_t)n * thread / n_threads), (int)((int64_t)n * (thread + 1) / n_threads) };
    return range;
}

/* The model for one kind of CPU. Weights, states and scratch are the same for all of a program's. */
typedef struct {
    const char *name, *features;          /* "arm-dotprod", and what such a CPU must have: cpu.c */
    moss_forward_fn *prefill;             /* any n_tokens and n_sequences */
    moss_forward_fn *decode;              /* n_tokens = n_sequences = 1 */
} moss_code;

typedef struct {
    uint32_t abi;
    const char *name, *target, *features, *quant;
    const char *manifest;                 /* JSON: exported functions, memory plan, costs */
    int32_t vocab_size, n_modes, mode_top_k[MOSS_MAX_MODES], chunk;
    int32_t full_attention;               /* 1: some layer attends to all n_context tokens */
    uint64_t model_hash, weights_len, weights_checksum;   /* len without the header */
    uint64_t state_hash, weights_values;  /* of a state's layout, of the weights' values whatever theirs; 0: not known */
    const uint8_t *embedded_weights;      /* header and data; NULL: a file beside the program */
    uint64_t state_fixed_len, state_token_len;   /* bytes: fixed + n_context * token */
    uint64_t shared_len, private_len;     /* multiples of MOSS_ALIGN */
    uint64_t token_flops[MOSS_MAX_MODES], token_bytes[MOSS_MAX_MODES];   /* of one decoded token */
    const moss_code *const *codes;        /* [n_codes], from the least to the most demanding */
    int32_t n_codes;                      /* 0 for a GPU */
    int32_t threads, bind;                /* if the caller does not say: at most so many (0: any); 1: each has a processor */
    const moss_gpu_program *gpu;          /* NULL: for CPUs */
} moss_program;

/* Device memory of one context, offsets of its parts: scratch; a call's positions, slots, samplers and tokens; the
 * history of self-fed steps; logits. `most` is the longest call in tokens, `rows` in rows of logits: 64 MB of
 * them, so that a large vocabulary does not outweigh the model. */
typedef struct { uint64_t call, history, logits, end; int32_t most, rows; } moss_gpu_layout;

__attribute__((unused)) static inline moss_gpu_layout moss_gpu_plan(const moss_program *program)
{
    const uint64_t align = 255, call_len = MOSS_GPU_MAX_SEQUENCES
        * (sizeof(int64_t) + 2 * sizeof(int32_t) + MOSS_GPU_SAMPLER_LEN);
    moss_gpu_layout layout = { .most = program->chunk };
    if (layout.most < MOSS_GPU_MAX_SEQUENCES)
        layout.most = MOSS_GPU_MAX_SEQUENCES;
    const int64_t rows = ((int64_t)64 << 20) / ((int64_t)sizeof(float) * program->vocab_size);
    layout.rows = rows < MOSS_GPU_MAX_SEQUENCES ? MOSS_GPU_MAX_SEQUENCES
                : rows < layout.most ? (int32_t)rows : layout.most;
    layout.call = (program->gpu->scratch_len + align) & ~align;
    layout.history = (layout.call + call_len + (uint64_t)layout.most * sizeof(int32_t) + align) & ~align;
    layout.logits = layout.history + MOSS_GPU_HISTORY * MOSS_GPU_MAX_SEQUENCES * sizeof(int32_t);
    layout.end = layout.logits + (uint64_t)layout.rows * (uint64_t)program->vocab_size * sizeof(float);
    return layout;
}

/* Bytes from slot to slot on the device; never 0. */
__attribute__((unused)) static inline uint64_t moss_gpu_state_stride(const moss_program *program, int64_t n_context)
{
    const uint64_t len = program->state_fixed_len + (uint64_t)n_context * program->state_token_len;
    return len ? (len + 255) & ~(uint64_t)255 : 256;
}

/* Defined by the generated code. */
extern const moss_program moss_program_data;

/* 64-bit checksum of `len` bytes at an 8-byte aligned address: four independent multiply-rotate
 * lanes (so it runs at memory speed), folded with the length. Not cryptographic: it finds
 * truncation and corruption. */
static inline uint64_t moss_checksum(const uint8_t *data, uint64_t len)
{
    const uint64_t k = 0x9E3779B97F4A7C15u;
    uint64_t lane[4] = { 1, 2, 3, 4 };
    uint64_t i = 0;
    for (; i + 32 <= len; i += 32) {
        const uint64_t *word = (const uint64_t *)(const void *)(data + i);
        for (int j = 0; j < 4; j++) {
            lane[j] = (lane[j] ^ word[j]) * k;
            lane[j] ^= lane[j] >> 29;
        }
    }
    for (; i < len; i++)
        lane[i & 3] = ((lane[i & 3] ^ data[i]) * k) ^ (lane[i & 3] >> 31);
    uint64_t sum = len * k;
    for (int j = 0; j < 4; j++) {
        sum = (sum ^ lane[j]) * k;
        sum ^= sum >> 32;
    }
    return sum;
}

#endif
