/* What GPUs take, and how they store it. */
#ifndef MOSSC_COMPILER_GPU_ACCEPT_H
#define MOSSC_COMPILER_GPU_ACCEPT_H

#include "../ir/graph.h"
#include "../ir/target.h"

/* Can the graph run on this target, with matrices stored so (`dtypes`, one a tensor; NULL: any)? False after
 * reporting. */
bool gpu_accepts(const Graph *graph, const DType *dtypes, TargetId target, Diags *diags);

/* How a GPU stores a tensor when `quant` was asked for. */
DType gpu_dtype(const TensorSpec *spec, DType quant);

/* Shared memory of a block of the kernel route (see there), which of all kernels needs most for experts. */
static inline int gpu_route_shared_len(int stages, int64_t n_experts)
{
    return 65536 * stages + 16384 + (n_experts > 256 ? 96 : 192) * (int)n_experts;
}

#endif
