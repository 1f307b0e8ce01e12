/* Weights: a checkpoint as named tensors that can be read in pieces as float32.
 *
 * Two sources: a safetensors file, mapped read-only, checked against the graph; and random:SEED,
 * whose every element is a function of (seed, tensor name, index) alone, the same on every
 * machine. Reading is thread-safe. Values are not checked for finiteness here: the packer, which
 * reads each once, does (weights_value_error reports it).
 */
#ifndef MOSSC_COMPILER_WEIGHTS_H
#define MOSSC_COMPILER_WEIGHTS_H

#include "../ir/graph.h"

typedef struct Weights Weights;

/* `source` is a path or "random:SEED" (SEED decimal, 64 bits). Opens, checks the header and that
 * each of the graph's tensors is there with its shape and an accepted dtype, and nothing else.
 * NULL after reporting. */
Weights *weights_open(Arena *arena, Diags *diags, const Graph *graph, const char *source);
void weights_close(Weights *weights);

int weights_count(const Weights *weights);
const TensorSpec *weights_spec(const Weights *weights, int tensor);
int weights_find(const Weights *weights, const char *name);        /* -1: none */
/* Stored element type; random weights say BF16 for matrices and F32 for the rest. */
DType weights_dtype(const Weights *weights, int tensor);
/* Elements [begin, begin+count) in row-major order, converted to float32. */
void weights_read(const Weights *weights, int tensor, int64_t begin, int64_t count, float *out);
/* Report a non-finite element of a tensor. */
void weights_value_error(const Weights *weights, Diags *diags, int tensor, int64_t index, float value);

#endif
