/* What routers must choose, in plain loops, and where they must place the pairs. */
#ifndef MOSS_TESTS_GPU_CHECK_ROUTING_H
#define MOSS_TESTS_GPU_CHECK_ROUTING_H

#include "check.h"

typedef struct {
    int n_in, n_experts, top_k, renormalize, n_tokens;
    float *router;                          /* [E][n_in] */
    int32_t *experts, *slots, *totals;      /* what the kernel leaves */
    float *gates;
    int32_t *want_experts;
    double *want_gates, *scratch;
} CheckRoute;

/* ties: expert 1 is expert 0 again. Totals begin at 0, as the list's first launch leaves them. */
static CheckRoute route_make(int n_in, int n_tokens)
{
    CheckRoute r = { .n_in = n_in, .n_experts = check_param("n_experts"), .top_k = check_param("top_k"),
        .renormalize = check_param("renormalize"), .n_tokens = n_tokens };
    const int ties = check_param("ties");
    const size_t n_pairs = (size_t)(n_tokens * r.top_k), n_experts = (size_t)r.n_experts;
    r.router = check_buffer(4 * n_experts * (size_t)n_in);
    for (int i = 0; i < r.n_experts * n_in; i++)
        r.router[i] = ties && i / n_in == 1 ? r.router[i - n_in] : 4 / sqrtf((float)n_in) * check_random();
    check_freeze(r.router);
    check_early(r.router);
    r.experts = check_buffer(4 * n_pairs);
    r.gates = check_buffer(4 * n_pairs);
    r.slots = check_buffer(4 * n_experts * (size_t)n_tokens);
    r.totals = check_buffer(4 * n_experts);
    memset(r.totals, 0, 4 * n_experts);
    r.want_experts = check_buffer(4 * n_pairs);
    r.want_gates = check_doubles(n_pairs);
    r.scratch = check_doubles(n_experts);
    return r;
}

/* The choice for u [n_in]: plain selection of the largest, the lower index of equal ones. */
static void route_want(CheckRoute *r, const double *u, int token)
{
    const int n = r->n_experts;
    double *p = r->scratch, largest = -INFINITY, sum = 0, chosen = 0;
    for (int e = 0; e < n; e++) {
        p[e] = 0;
        for (int i = 0; i < r->n_in; i++)
            p[e] += u[i] * (double)r->router[e * r->n_in + i];
        largest = fmax(largest, p[e]);
    }
    for (int e = 0; e < n; e++)
        sum += p[e] = exp(p[e] - largest);
    bool *taken = calloc((size_t)n, sizeof(bool));
    for (int s = 0; s < r->top_k; s++) {
        int best = -1;
        for (int e = 0; e < n; e++)
            if (!taken[e] && (best < 0 || p[e] > p[best]))
                best = e;
        taken[best] = true;
        chosen += p[best];
    }
    for (int e = 0, s = 0; e < n; e++)
        if (taken[e]) {
            r->want_experts[token * r->top_k + s] = e;
            r->want_gates[token * r->top_k + s++] = p[e] / (r->renormalize ? chosen : sum);
        }
    free(taken);
}

/* Every pair once, at its expert; within an expert in any order. */
static void route_compare_slots(const CheckRoute *r)
{
    const int n_pairs = r->n_tokens * r->top_k;
    int n_all = 0;
    bool *seen = calloc((size_t)n_pairs, sizeof(bool));
    for (int e = 0; e < r->n_experts; e++) {
        if (r->totals[e] < 0 || r->totals[e] > r->n_tokens) {
            check_fail("totals: expert %d has %d pairs of %d tokens", e, r->totals[e], r->n_tokens);
            break;
        }
        n_all += r->totals[e];
        for (int i = 0; i < r->totals[e]; i++) {
            const int pair = r->slots[e * r->n_tokens + i];
            if (pair < 0 || pair >= n_pairs || r->want_experts[pair] != e || seen[pair]) {
                check_fail("slots: expert %d has pair %d in slot %d", e, pair, i);
                free(seen);
                return;
            }
            seen[pair] = true;
        }
        check_untouched("slots behind", r->slots + e * r->n_tokens + r->totals[e],
            sizeof *r->slots * (size_t)(r->n_tokens - r->totals[e]));
    }
    if (n_all != n_pairs)
        check_fail("totals: %d pairs of %d", n_all, n_pairs);
    free(seen);
}

static void route_compare(const CheckRoute *r)
{
    check_ints("experts", r->experts, r->want_experts, (size_t)(r->n_tokens * r->top_k));
    check_rows_f32("gates", r->gates, r->want_gates, r->n_tokens, r->top_k, r->top_k, 0x1p-14);
    route_compare_slots(r);
}

#endif
