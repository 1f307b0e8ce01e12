/* The ABI between a compiled model for a GPU and the runtime: kernels and lists of launches, as data.
 *
 * Prefill runs up to `chunk` tokens of up to MOSS_GPU_MAX_SEQUENCES, sequence after sequence, decode one
 * token of each. Every address is base + offset: nothing here changes from run to run.
 * docs/gpu.md says what the buffers hold.
 */
#ifndef MOSS_GPU_PROGRAM_H
#define MOSS_GPU_PROGRAM_H

#include <stdint.h>

enum {
    MOSS_GPU_MAX_SEQUENCES = 16, MOSS_GPU_MAX_ARGS = 32,
    MOSS_GPU_SAMPLER_LEN = 48, /* bytes of a moss_sampler */
    MOSS_GPU_HISTORY = 1024,  /* steps that the device can take before the host reads its tokens */
};

/* Run-time counts that grids and arguments are made of. */
typedef enum {
    MOSS_GPU_ONE,
    MOSS_GPU_TOKENS,          /* of the call: of the piece, or one for each sequence */
    MOSS_GPU_PAIRS,           /* tokens * top_k */
    MOSS_GPU_SEQUENCES,
    MOSS_GPU_LOGITS,          /* rows whose logits are wanted: the last of the piece, or all */
    MOSS_GPU_TOP_K,
    MOSS_GPU_PROCESSORS,      /* multiprocessors of the device */
    MOSS_GPU_APART,           /* tokens; a grid of tiles that no two sequences share has n_sequences - 1 more */
    MOSS_GPU_RESIDENT,        /* blocks that are at the device at once: see moss_gpu_extent */
} moss_gpu_count;

typedef enum {
    MOSS_GPU_ARG_NULL,        /* a null pointer */
    MOSS_GPU_ARG_WEIGHTS,     /* pointer: weights + offset */
    MOSS_GPU_ARG_STATE,       /* pointer: slot 0 + offset + token_offset * n_context */
    MOSS_GPU_ARG_SCRATCH,     /* pointer: scratch + offset */
    MOSS_GPU_ARG_TOKENS,      /* pointer: int32 [tokens] */
    MOSS_GPU_ARG_POSITIONS,   /* pointer: int64 [sequences], tokens seen before this call */
    MOSS_GPU_ARG_SLOTS,       /* pointer: int32 [sequences], where each one's state lies */
    MOSS_GPU_ARG_ENDS,        /* pointer: int32 [sequences], tokens of the call up to the end of each one's */
    MOSS_GPU_ARG_LOGITS,      /* pointer: float [rows of logits][vocab_size] */
    MOSS_GPU_ARG_COUNT,       /* int32: the moss_gpu_count in offset */
    MOSS_GPU_ARG_INT,         /* int32: offset */
    MOSS_GPU_ARG_N_CONTEXT,   /* int64: rows of the rings of layers without a window */
    MOSS_GPU_ARG_STATE_STRIDE,/* int64: bytes from slot to slot */
    MOSS_GPU_ARG_HISTORY,     /* pointer: int32 [MOSS_GPU_HISTORY][MOSS_GPU_MAX_SEQUENCES]: see feed */
    MOSS_GPU_ARG_TENSOR_MAP,  /* a 128-byte CUtensorMap by value: tensor_maps[offset] */
    MOSS_GPU_ARG_SAMPLERS,    /* pointer: moss_sampler [sequences]: see draw */
} moss_gpu_arg_kind;

typedef struct { int32_t kind; int32_t token_offset; int64_t offset; } moss_gpu_arg;

/* ceil(count / divisor) + extra. Of MOSS_GPU_RESIDENT: a block a multiprocessor, but at most extra; 0, such a launch
 * cannot be, if that is less than divisor. */
typedef struct { int32_t count, divisor, extra; } moss_gpu_extent;

enum {
    MOSS_GPU_IF_LOGITS = 1,     /* only when logits are wanted */
    MOSS_GPU_DEPENDENT = 2,     /* may start before its predecessor ends: waits by itself */
    MOSS_GPU_COOPERATIVE = 4,   /* all blocks resident at once */
    MOSS_GPU_IF_ONE = 8,        /* decode: only for one sequence, where the device can hold such launches; */
    MOSS_GPU_IF_MORE = 16,      /* only where those are not taken */
};

typedef struct {
    int32_t kernel;             /* index into kernels */
    int32_t flags;
    moss_gpu_extent grid[2];    /* x, y */
    int32_t n_threads, shared_len;
    int32_t first_arg, n_args;  /* in args */
} moss_gpu_launch;

typedef struct { int32_t begin, end; } moss_gpu_list;   /* of launches */

/* A 2-D map for the bulk tensor copy: [rows][columns] of 16-bit (or 8-bit) elements at base + offset. */
typedef struct {
    int32_t base;               /* MOSS_GPU_ARG_WEIGHTS or MOSS_GPU_ARG_SCRATCH */
    int32_t element_len;        /* bytes */
    int64_t offset, n_rows, n_columns, row_stride;   /* stride in bytes */
    int32_t box_rows, box_columns;
    int32_t swizzle;            /* bytes of a swizzled row: 0, 32, 64, 128 */
} moss_gpu_tensor_map;

typedef struct {
    int32_t sm;                 /* least compute capability: 80, 90 */
    const char *ptx;            /* NUL-terminated */
    uint64_t ptx_len;
    const char *const *kernels; /* names in ptx */
    int32_t n_kernels;
    const moss_gpu_launch *launches;
    const moss_gpu_arg *args;
    const moss_gpu_tensor_map *tensor_maps;
    int32_t n_launches, n_args, n_tensor_maps;
    moss_gpu_list prefill, decode;
    /* After a decode with logits: the largest logit's token of every sequence (the first of equals, never
     * NaN) goes into tokens and into history[position % rows][sequence], and positions grow by 1, so that
     * decode can run again without the host. Empty: the host chooses every token. */
    moss_gpu_list feed;
    moss_gpu_list draw;         /* the same in feed's place, as moss_sample chooses; samplers go on, too */
    uint64_t scratch_len;       /* bytes, enough for both */
    uint64_t zeroed_len;        /* its first bytes, set to zero once (barriers) */
} moss_gpu_program;

#endif
