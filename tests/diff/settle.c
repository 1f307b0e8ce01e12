/* Settling: replace the first doubtful token by another until no mode doubts any.
 *
 * Input: a reference, tokens. Output: settled tokens and their logits.
 * Invariant: logits belong to the tokens returned, in every mode.
 */
#include "settle.h"
#include "cases.h"

enum { MOST_REPLACED = 1000 };

/* The first token whose routing is doubtful in `mode`, or n_tokens. */
static int first_doubtful(const Ref *ref, int mode, const int32_t *tokens, int n_tokens,
                          double lead, double *logits, double *leads)
{
    ref_logits_leads(ref, mode, tokens, n_tokens, logits, leads);
    for (int t = 0; t < n_tokens; t++)
        if (!(leads[t] >= lead))
            return t;
    return n_tokens;
}

double **settle_tokens(Arena *arena, const Graph *graph, const Ref *ref, int32_t *tokens,
                       int n_tokens, double lead, uint64_t seed, int *n_replaced)
{
    Stream stream = { seed };
    double **logits = arena_array(arena, double *, (size_t)graph->n_modes);
    double *leads = arena_array(arena, double, (size_t)n_tokens);
    for (int mode = 0; mode < graph->n_modes; mode++)
        logits[mode] = arena_array(arena, double, (size_t)(n_tokens * graph->vocab_size));
    int mode = 0;
    for (*n_replaced = 0; mode < graph->n_modes && *n_replaced < MOST_REPLACED; ) {
        int t = first_doubtful(ref, mode, tokens, n_tokens, lead, logits[mode], leads);
        if (t == n_tokens) {
            mode++;
            continue;
        }
        tokens[t] = stream_below(&stream, (int)graph->vocab_size);
        ++*n_replaced;
        mode = 0;
    }
    return mode == graph->n_modes ? logits : NULL;
}
