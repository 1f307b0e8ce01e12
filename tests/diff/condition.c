/* Conditioning: run the reference again with a slightly wrong embedding.
 *
 * Input: a reference and its logits. Output: the relative change, worst of a few tries.
 * Invariant: the reference itself is not touched; a tied head stays exact.
 */
#include "condition.h"
#include "cases.h"

#include "../ref/ref_layers.h"

#include <math.h>

/* Changes of many values tell the same whatever they are; of few, only many tries find the worst. */
enum { MIN_TRIES = 3, MAX_TRIES = 32, CHANGED_VALUES = 4096 };

static double change_of_try(Arena *arena, const Ref *ref, int mode, const int32_t *tokens,
                            int n_tokens, const double *logits, double unit, Stream *stream)
{
    int64_t n_embed = ref->vocab_size * ref->d_model, n = n_tokens * ref->vocab_size;
    double *embed = arena_array(arena, double, (size_t)n_embed);   /* [V, d] */
    double *moved = arena_array(arena, double, (size_t)n);         /* [n_tokens, V] */
    Ref inexact = *ref;
    for (int64_t i = 0; i < n_embed; i++)
        embed[i] = ref->embed[i] * (1 + unit * stream_uniform(stream));
    inexact.embed = embed;
    ref_logits(&inexact, mode, tokens, n_tokens, moved);
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs(moved[i] - logits[i]));
        largest = fmax(largest, fabs(logits[i]));
    }
    return worst / largest;
}

double condition_measure(Arena *arena, const Ref *ref, int mode, const int32_t *tokens,
                         int n_tokens, const double *logits, double unit)
{
    Stream stream = { 1 };
    ArenaMark mark = arena_mark(arena);
    const int64_t n_values = n_tokens * ref->d_model;
    double worst = 0;
    for (int i = 0; i < MIN_TRIES || (i < MAX_TRIES && i * n_values < CHANGED_VALUES); i++)
        worst = fmax(worst, change_of_try(arena, ref, mode, tokens, n_tokens, logits, unit, &stream));
    arena_release(arena, mark);
    return worst;
}
