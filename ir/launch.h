/* Launches: what a model compiled for a GPU does, as flat lists of kernels with their arguments.
 *
 * Made by compiler/gpu_plan.c, written by codegen/gpu_file.c in the terms of runtime/gpu_program.h. Kernels and
 * their parameters are those of codegen/gpu/README.md. Invariants (compiler/gpu_check.c): buffers alive at one
 * launch do not overlap; what is read was written by an earlier launch of its list; every offset lies in its space; no
 * block has more threads or shared memory than a device of the target has.
 */
#ifndef MOSSC_IR_LAUNCH_H
#define MOSSC_IR_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
#define LAUNCH_COUNT(id, text) COUNT_##id,
#include "launch.def"
#undef LAUNCH_COUNT
    N_COUNTS
} LaunchCount;

typedef enum {
#define LAUNCH_ARG(id, text) ARG_##id,
#include "launch.def"
#undef LAUNCH_ARG
    N_ARG_KINDS
} LaunchArgKind;

const char *launch_count_text(LaunchCount count);       /* "tokens" */
const char *launch_arg_text(LaunchArgKind kind);

/* A template with its parameters bound; every launch of it has n_threads a block. */
enum { KERNEL_MAX_PARAMS = 24 };
typedef struct { const char *name; double value; } KernelParam;
typedef struct {
    const char *template;
    int n_threads, min_blocks;     /* min_blocks shall fit a multiprocessor; 0: any */
    int n_params;
    KernelParam params[KERNEL_MAX_PARAMS];
} Kernel;

/* Scratch that one list writes and reads: needed from launch `first` to `last` of it. */
typedef struct {
    const char *name;
    int64_t offset, len;
    int first, last;
} LaunchBuffer;

typedef enum { ACCESS_NONE, ACCESS_READ, ACCESS_WRITE, ACCESS_UPDATE } LaunchAccess;
typedef struct {
    LaunchArgKind kind;
    int64_t offset;          /* COUNT: the LaunchCount; INT: the number; SCRATCH: from the buffer's begin */
    int64_t token_offset;    /* STATE: to be multiplied with n_context and added */
    const LaunchBuffer *buffer;    /* SCRATCH */
    LaunchAccess access;
} LaunchArg;

/* ceil(count / divisor) + extra. Of RESIDENT: a block a multiprocessor, but at most extra; 0 if that is less than
 * divisor. */
typedef struct { LaunchCount count; int divisor, extra; } LaunchExtent;

/* As in runtime/gpu_program.h. */
enum {
    LAUNCH_IF_LOGITS = 1, LAUNCH_DEPENDENT = 2, LAUNCH_COOPERATIVE = 4, LAUNCH_IF_ONE = 8, LAUNCH_IF_MORE = 16,
};

typedef struct {
    int kernel;              /* index into kernels */
    int layer;               /* -1: main */
    const char *key;         /* in Choices; NULL: nothing of it is chosen */
    int flags;
    LaunchExtent grid[2];
    int shared_len;
    int first_arg, n_args;
} Launch;

typedef struct { int begin, end; } LaunchList;

/* Of the weights or of scratch: [n_rows][n_columns] with a stride in bytes, read in boxes. */
typedef struct {
    LaunchArgKind base;
    const LaunchBuffer *buffer;    /* SCRATCH */
    int64_t offset, n_rows, n_columns, row_stride;
    int element_len, box_rows, box_columns, swizzle;
} TensorMap;

typedef enum { LIST_PREFILL, LIST_DECODE, LIST_FEED, LIST_DRAW, N_LISTS } ListId;

typedef struct {
    Kernel *kernels;
    Launch *launches;
    LaunchArg *args;
    TensorMap *maps;
    LaunchBuffer **buffers[N_LISTS];
    int n_kernels, n_launches, n_args, n_maps, n_buffers[N_LISTS];
    LaunchList lists[N_LISTS];
    int64_t scratch_len, zeroed_len;
    int act;                 /* of activations: 1 bf16, 2 f16 */
} Launches;

#endif
