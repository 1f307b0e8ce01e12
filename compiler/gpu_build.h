/* Building launch lists: kernels, launches, arguments, and scratch whose life follows from who names it.
 *
 * A launch is said in order: gpu_begin, its parameters, its arguments in the order of the kernel's page
 * (codegen/gpu/README.md), gpu_end. Instances that are equal become one kernel. A buffer lives from the first
 * launch of its list that names it to the last; gpu_place gives all of them their offsets.
 */
#ifndef MOSSC_COMPILER_GPU_BUILD_H
#define MOSSC_COMPILER_GPU_BUILD_H

#include "../ir/arena.h"
#include "../ir/launch.h"

typedef struct GpuBuilder GpuBuilder;

GpuBuilder *gpu_builder_new(Arena *arena);
/* The launches so far: complete after gpu_place. */
Launches *gpu_launches(GpuBuilder *b);

/* Launches that follow belong to `list`. Lists are filled one after another. */
void gpu_list(GpuBuilder *b, ListId list);
/* Scratch of the current list: name for messages, bytes. */
LaunchBuffer *gpu_buffer(GpuBuilder *b, const char *name, int64_t len);
/* The same, placed first, zeroed once, for the whole life of the program (counters of barriers). */
LaunchBuffer *gpu_zeroed(GpuBuilder *b, const char *name, int64_t len);
/* A zeroed buffer of another list, for the current one, too. */
void gpu_share(GpuBuilder *b, LaunchBuffer *buffer);

void gpu_begin(GpuBuilder *b, const char *template, int layer);
/* Of the launch that was begun: what Choices know its kernel by. */
void gpu_keyed(GpuBuilder *b, const char *key);
void gpu_param(GpuBuilder *b, const char *name, double value);
void gpu_min_blocks(GpuBuilder *b, int n);       /* so many blocks shall fit a multiprocessor */
void gpu_null(GpuBuilder *b);
void gpu_special(GpuBuilder *b, LaunchArgKind kind);          /* TOKENS, SLOTS, N_CONTEXT, ... */
void gpu_count(GpuBuilder *b, LaunchCount count);
void gpu_int(GpuBuilder *b, int64_t value);
void gpu_weights(GpuBuilder *b, int64_t offset);
void gpu_state(GpuBuilder *b, int64_t offset, int64_t token_offset);
void gpu_scratch(GpuBuilder *b, const LaunchBuffer *buffer, int64_t offset, LaunchAccess access);
void gpu_tensor_map(GpuBuilder *b, const TensorMap *map);
void gpu_end(GpuBuilder *b, LaunchExtent x, LaunchExtent y, int n_threads, int shared_len, int flags);

static inline LaunchExtent gpu_extent(LaunchCount count, int divisor, int extra)
{
    return (LaunchExtent){ count, divisor, extra };
}

static inline LaunchExtent gpu_fixed(int n) { return (LaunchExtent){ COUNT_ONE, 1, n - 1 }; }
static inline LaunchExtent gpu_resident(int least, int most) { return (LaunchExtent){ COUNT_RESIDENT, least, most }; }

/* Offsets for all buffers of all lists; the length of scratch. */
void gpu_place(GpuBuilder *b);

#endif
