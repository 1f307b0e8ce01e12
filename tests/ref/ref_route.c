/* Reference: which experts a token uses, and the sum over them.
 *
 * Input: one token's activations. Output: the k experts of largest probability with their gates.
 * Invariant: of equal probabilities the lower index is chosen; an expert that is not chosen is
 * not read.
 */
#include "ref_layers.h"

/* The largest of p among those not taken; the first of equals. */
static int64_t largest_left(const double *p, const bool *taken, int64_t n_experts)
{
    int64_t best = -1;
    for (int64_t i = 0; i < n_experts; i++)
        if (!taken[i] && (best < 0 || p[i] > p[best]))
            best = i;
    return best;
}

static double smallest_lead(const double *p, const bool *taken, int64_t n_experts)
{
    double lead = 1;
    for (int64_t i = 0; i < n_experts; i++)
        for (int64_t j = 0; j < n_experts; j++)
            if (taken[i] && !taken[j] && p[i] != p[j] && (p[i] - p[j]) / p[i] < lead)
                lead = (p[i] - p[j]) / p[i];
    return lead;
}

RefChoice ref_choose(const double *p, int64_t n_experts, int64_t k, bool renormalize)
{
    RefChoice choice = { .k = k };
    bool taken[GRAPH_MAX_EXPERTS] = { false };
    double sum = 0;
    for (int64_t j = 0; j < k; j++) {
        int64_t i = largest_left(p, taken, n_experts);
        taken[i] = true;
        choice.expert[j] = i;
        choice.gate[j] = p[i];   /* Eq. (7): p_i as it is */
        sum += p[i];
    }
    for (int64_t j = 0; renormalize && j < k; j++)
        choice.gate[j] /= sum;
    choice.lead = smallest_lead(p, taken, n_experts);
    return choice;
}

RefChoice ref_route(const RefRouter *router, int mode, const double *x, RefToken *token)
{
    if (router->n_experts == 1)
        return (RefChoice){ .k = 1, .expert = { 0 }, .gate = { 1 }, .lead = 1 };
    double p[GRAPH_MAX_EXPERTS];
    ref_linear(router->weight, router->n_experts, router->d_in, x, p);
    ref_softmax(p, router->n_experts);
    RefChoice choice = ref_choose(p, router->n_experts, router->top_k[mode], router->renormalize);
    if (choice.lead < token->lead)
        token->lead = choice.lead;
    return choice;
}

void ref_moe(const RefChoice *choice, const double *w, int64_t n_out, int64_t n_in,
             const double *x, double *y, Arena *scratch)
{
    ArenaMark mark = arena_mark(scratch);
    double *own = arena_array(scratch, double, (size_t)n_out);   /* one expert's output */
    for (int64_t o = 0; o < n_out; o++)
        y[o] = 0;
    for (int64_t j = 0; j < choice->k; j++) {
        ref_linear(w + choice->expert[j] * n_out * n_in, n_out, n_in, x, own);
        for (int64_t o = 0; o < n_out; o++)
            y[o] += choice->gate[j] * own[o];
    }
    arena_release(scratch, mark);
}
