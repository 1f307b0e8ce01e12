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

#endif
