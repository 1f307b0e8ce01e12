/* Conditioning: how far rounding alone can move a model's logits.
 *
 * Input: a reference, tokens and their logits, a unit (float32: 2^-24, half of its last place).
 * Output: max |change| / max |logit| when every element of the embedding is off by up to a unit
 * of itself, all the rest being exact.
 * Some small models with large weights amplify that ten thousand times; no float32 code can be
 * closer to the reference than this, however right it is.
 */
#ifndef MOSSC_TESTS_CONDITION_H
#define MOSSC_TESTS_CONDITION_H

#include "../ref/ref.h"

double condition_measure(Arena *arena, const Ref *ref, int mode, const int32_t *tokens,
                         int n_tokens, const double *logits /* [n_tokens, V] */, double unit);

#endif
