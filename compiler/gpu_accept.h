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

/* Shared memory of a block of the kernel route, which of all kernels grows most with experts. */
static inline int gpu_route_shared_len(int64_t n_experts) { return 8192 + 192 * (int)n_experts; }

#endif
