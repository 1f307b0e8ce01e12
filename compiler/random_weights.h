/* Random weights: what random:SEED stands for. Used by weights.c. */
#ifndef MOSSC_COMPILER_RANDOM_WEIGHTS_H
#define MOSSC_COMPILER_RANDOM_WEIGHTS_H

#include "../ir/graph.h"

/* Elements [begin, begin+count) of a tensor of the specification. */
void random_weights_read(uint64_t seed, const TensorSpec *spec, int64_t begin, int64_t count, float *out);

#endif
