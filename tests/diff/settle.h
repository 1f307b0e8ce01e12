/* Settling: choose tokens on which routing is beyond doubt.
 *
 * Input: a reference and tokens. Output: the tokens, some replaced, such that at every router the
 * last expert chosen leads the first one rejected by `lead` of its probability.
 * float32 code may route a closer pair the other way without being wrong, and then everything
 * after differs. Exact ties are no doubt and stay: the lower index wins in any precision.
 */
#ifndef MOSSC_TESTS_SETTLE_H
#define MOSSC_TESTS_SETTLE_H

#include "../ref/ref.h"

#define SETTLED_LEAD 1e-4      /* enough for float32 */
/* Rows that meet some matrices are rounded to 8 bits: a value halfway may go either way, and with it a router
 * whose lead is small beside a step of 1/127. */
#define ROUNDED_LEAD 5e-3

/* The expected logits of every mode [n_modes][n_tokens, V], for the tokens as settled; NULL when
 * no tokens were found. *n_replaced counts the replacements. */
double **settle_tokens(Arena *arena, const Graph *graph, const Ref *ref, int32_t *tokens,
                       int n_tokens, double lead, uint64_t seed, int *n_replaced);

#endif
