/* Routing of tokens to experts, for kernel templates: probabilities, choice, grouping.
 *
 * p = softmax(x · W_routerᵀ); the top_k largest are chosen, equal values to the lower index, and
 * kept in ascending expert index, because every sum over experts runs in that order. One token after
 * the other, or LANES at once, a lane each, with the same bits. A pair is one (token, chosen expert):
 * index p = t * top_k + s. Whatever the logits are, NaN included, top_k
 * distinct experts in [0, n_experts) come out.
 */
#ifndef MOSS_ROUTE_H
#define MOSS_ROUTE_H

#include "simd.h"

/* RMSNorm of one row, to [n] = from / sqrt(mean(from^2) + eps) * weight; to may be from, and all three
 * are readable to whole vectors. What a router reads, and every layer. */
KERNEL_INLINE void norm_row(float *to, const float *from, const float *weight, int n, float eps)
{
    const float mean = vdot(from, from, n) / n;
    const vf scale = vset(1 / sqrtf(mean + eps));
    for (int i = 0; i < n; i += LANES)
        vstore(to + i, vload(from + i) * scale * vload(weight + i));
}

/* Logits to probabilities in place; [n_experts] rounded up to LANES, what lies between is junk. */
KERNEL_INLINE void route_softmax(float *p, int n_experts)
{
    float top = p[0], sum = 0;
    for (int e = 1; e < n_experts; e++)
        top = p[e] > top ? p[e] : top;
    for (int e = 0; e < n_experts; e += LANES)
        vstore(p + e, vexp(vload(p + e) - top));
    for (int e = 0; e < n_experts; e++)
        sum += p[e];
    for (int e = 0; e < n_experts; e++)
        p[e] /= sum;
}

/* The top_k largest of p [n_experts] into experts and gates [top_k], ascending by expert.
 * left [n_experts] is scratch; gates are p itself, or p over the chosen ones' sum. */
KERNEL_INLINE void route_choose(int32_t *experts, float *gates, const float *p, float *left,
                                int n_experts, int top_k, int renormalize)
{
    for (int e = 0; e < n_experts; e++)
        left[e] = p[e] >= 0 ? p[e] : 0;               /* a NaN loses to any probability */
    for (int s = 0; s < top_k; s++) {
        int best = 0;
        for (int e = 1; e < n_experts; e++)
            best = left[e] > left[best] ? e : best;
        left[best] = -1;
    }
    float sum = 0;
    for (int e = 0, s = 0; e < n_experts && s < top_k; e++) {
        if (left[e] >= 0)
            continue;
        experts[s] = e;
        gates[s++] = p[e];
        sum += p[e];
    }
    for (int s = 0; renormalize && s < top_k; s++)
        gates[s] /= sum;
}

/* One token: x [n_in], router [n_experts][n_in]; scratch [2 * (n_experts + LANES)]. */
KERNEL_INLINE void route_token(int32_t *experts /* [top_k] */, float *gates /* [top_k] */,
                               const float *x, const float *router, float *scratch, int n_in,
                               int n_experts, int top_k, int renormalize)
{
    float *p = scratch, *left = scratch + n_experts + LANES;
    for (int e = 0; e < n_experts; e++)
        p[e] = vdot(x, router + (size_t)e * (size_t)n_in, n_in);
    vstore(p + n_experts, vset(0));
    route_softmax(p, n_experts);
    route_choose(experts, gates, p, left, n_experts, top_k, renormalize);
}

/* ---- LANES tokens at once: arrays are [n_experts][LANES] ---- */

/* Experts whose products with a row are made together; tokens from which on lanes are worth it. */
enum { ROUTE_GROUP = 8, ROUTE_LEAST_ROWS = LANES / 2 };

/* As route_softmax. */
KERNEL_INLINE void route_softmax_lanes(float *p, int n_experts)
{
    vf top = vload(p), sum = vset(0);
    for (int e = 1; e < n_experts; e++) {
        const vf x = vload(p + e * LANES);
        top = vselect(x > top, x, top);
    }
    for (int e = 0; e < n_experts; e++) {
        const vf x = vexp(vload(p + e * LANES) - top);
        vstore(p + e * LANES, x);
        sum += x;
    }
    for (int e = 0; e < n_experts; e++)
        vstore(p + e * LANES, vload(p + e * LANES) / sum);
}

/* As route_choose; row s of p becomes the gates of the s-th chosen expert, of `left` its index. */
KERNEL_INLINE void route_choose_lanes(float *p, float *left, int n_experts, int top_k, int renormalize)
{
    for (int e = 0; e < n_experts; e++) {
        const vf x = vload(p + e * LANES);
        vstore(left + e * LANES, vselect(x >= 0, x, vset(0)));
    }
    for (int s = 0; s < top_k; s++) {
        vf most = vload(left), best = vset(0);
        for (int e = 1; e < n_experts; e++) {
            const vf x = vload(left + e * LANES);
            const vi more = x > most;
            most = vselect(more, x, most);
            best = vselect(more, (vf)viset(e), best);
        }
        for (int e = 0; e < n_experts; e++)
            vstore(left + e * LANES, vselect((vi)best == viset(e), vset(-1), vload(left + e * LANES)));
    }
    /* Rows s <= e have been read when e is; one that is not yet a lane's s-th is written again. */
    vi n = { 0 };
    vf sum = vset(0);
    for (int e = 0; e < n_experts; e++) {
        const vi chosen = vload(left + e * LANES) < 0;
        const vf gate = vload(p + e * LANES);
        for (int s = 0; s < top_k && s <= e; s++) {
            const vi here = chosen & (n == viset(s));
            vstore(p + s * LANES, vselect(here, gate, vload(p + s * LANES)));
            vstore(left + s * LANES, vselect(here, (vf)viset(e), vload(left + s * LANES)));
        }
        sum = vselect(chosen, sum + gate, sum);
        n -= chosen;
    }
    for (int s = 0; renormalize && s < top_k; s++)
        vstore(p + s * LANES, vload(p + s * LANES) / sum);
}

/* Tokens 0 to n_rows - 1, at most LANES, as route_token; x [n_rows][stride], scratch [2 * n_experts * LANES]. */
KERNEL_INLINE void route_lanes(int32_t *experts /* [n_rows][top_k] */, float *gates /* [n_rows][top_k] */,
                               const float *x, const float *router, float *scratch, size_t stride, int n_rows, int n_in,
                               int n_experts, int top_k, int renormalize)
{
    float *p = scratch, *left = scratch + n_experts * LANES;
    vf parts[ROUTE_GROUP * LANES] = { { 0 } };
    for (int first = 0; first < n_experts; first += ROUTE_GROUP) {
        const int n = n_experts - first < ROUTE_GROUP ? n_experts - first : ROUTE_GROUP;
        for (int r = 0; r < n_rows; r++)      /* a row stays in the first cache for a group's experts */
            for (int e = 0; e < n; e++)
                parts[e * LANES + r] = vdot_parts(x + r * stride, router + (size_t)(first + e) * (size_t)n_in, n_in);
        for (int e = 0; e < n; e++)
            vstore(p + (first + e) * LANES, vsum_each(parts + e * LANES));
    }
    route_softmax_lanes(p, n_experts);
    route_choose_lanes(p, left, n_experts, top_k, renormalize);
    for (int r = 0; r < n_rows; r++)
        for (int s = 0; s < top_k; s++) {
            gates[r * top_k + s] = p[s * LANES + r];
            memcpy(&experts[r * top_k + s], &left[s * LANES + r], sizeof *experts);
        }
}

/* Pairs by expert, a stable counting sort: those of expert e are slots[offsets[e] … offsets[e+1]). */
KERNEL_INLINE void route_group(int32_t *slots /* [n_pairs] */, int32_t *offsets /* [n_experts + 1] */,
                               const int32_t *experts /* [n_pairs] */, int n_pairs, int n_experts)
{
    for (int e = 0; e <= n_experts; e++)
        offsets[e] = 0;
    for (int p = 0; p < n_pairs; p++)
        offsets[experts[p] + 1]++;
    for (int e = 0; e < n_experts; e++)
        offsets[e + 1] += offsets[e];
    for (int p = 0; p < n_pairs; p++)
        slots[offsets[experts[p]]++] = p;
    for (int e = n_experts; e > 0; e--)               /* each start moved on to the next one's */
        offsets[e] = offsets[e - 1];
    offsets[0] = 0;
}

#endif
