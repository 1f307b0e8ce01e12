/* Routing of tokens to experts, for kernel templates: probabilities, choice, grouping.
 *
 * p = softmax(x · W_routerᵀ); the top_k largest are chosen, equal values to the lower index, and
 * kept in ascending expert index, because every sum over experts runs in that order. A pair is one
 * (token, chosen expert): index p = t * top_k + s. Whatever the logits are, NaN included, top_k
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
