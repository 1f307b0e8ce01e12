/* Reference: the numerics of MossNet as plain loops in double. This is the specification.
 *
 * Input: a graph, its weights, token ids. Output: logits. One token after another, every state
 * held in the open, nothing vectorised, nothing reordered for speed.
 * Sizes in shape comments: V vocabulary, d model, E experts, c inner, N state, r dt rank, f ff.
 * Invariant: no rounding below double except of the weights, which are float32 (or narrower).
 */
#ifndef MOSSC_TESTS_REF_H
#define MOSSC_TESTS_REF_H

#include "../../compiler/weights.h"
#include "../../ir/graph.h"

#include <stdint.h>

typedef struct Ref Ref;

/* In place of a dtype: matrices stay as the checkpoint stores them. */
#define REF_OWN ((DType)N_DTYPES)

/* Read every weight as float32; the matrices (TensorSpec.matrix) are rounded to `quant` first,
 * because that is what a compiled model stores. The graph must outlive the result. */
Ref *ref_open(Arena *arena, const Graph *graph, const Weights *weights, DType quant);
/* The same, products reading rows rounded to `rows`: DTYPE_F32 not at all, DTYPE_BF16, DTYPE_Q8. */
Ref *ref_open_rounding(Arena *arena, const Graph *graph, const Weights *weights, DType quant, DType rows);

/* The same as a GPU stores them: activations stay wide where q8 is asked for, and dt_proj with experts
 * is float16 then. */
Ref *ref_open_gpu(Arena *arena, const Graph *graph, const Weights *weights, DType quant);

/* The logits after each of n tokens, from an empty past: [n, V]. */
void ref_logits(const Ref *ref, int mode, const int32_t *tokens, int n, double *logits);

/* The same, and how firmly each token was routed: leads[t] is the smallest lead of any router of
 * token t (see RefChoice), 1 without a router. float32 code may route a token with a tiny lead
 * otherwise, and be right; a comparison should choose its tokens by this. */
void ref_logits_leads(const Ref *ref, int mode, const int32_t *tokens, int n,
                      double *logits /* [n, V] */, double *leads /* [n] */);

#endif
