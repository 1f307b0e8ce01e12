/* What routers end with: the choice of experts from logits in shared memory, and the pairs' places by expert.
 *
 * A block has rows of tokens. Its pairs get places behind those of blocks that came before, by a counter of each
 * expert; within an expert pairs lie in any order, which no result depends on. `chosen` [E][rows of the block] says
 * which of a row's experts e is: 0, none, else 1 + its place among them. Everything is uniform in a warp.
 */
#ifndef MOSSC_CODEGEN_GPU_ROUTING_H
#define MOSSC_CODEGEN_GPU_ROUTING_H

/* Lanes that share a row, so that a warp does several rows at once. */
DEVICE int routing_lanes(int n_experts) { return n_experts <= 8 ? 8 : n_experts <= 16 ? 16 : 32; }

/* Sums, or maxima, over groups of so many lanes. */
DEVICE float routing_sum(float x, int lanes)
{
    UNROLL
    for (int i = 1; i < lanes; i *= 2)
        x += shuffle_xor_f(x, i);
    return x;
}

DEVICE float routing_max(float x, int lanes)
{
    UNROLL
    for (int i = 1; i < lanes; i *= 2)
        x = max_f(x, shuffle_xor_f(x, i));
    return x;
}

/* The share of an expert before division by the sum of all. */
DEVICE float routing_share(float logit, float scale, float largest)
{
    return exp2_fast((logit * scale - largest) * 1.44269504f);
}

/* Whether fewer than top_k experts come before e. Logits, not shares, which may be 0 together. */
DEVICE bool routing_is_chosen(const float *logits, int e, int n_experts, int top_k)
{
    const float own = logits[e];
    int n_before = 0;
    for (int other = 0; other < n_experts; other++)
        n_before += logits[other] > own || (logits[other] == own && other < e);
    return n_before < top_k;
}

/* Writes the choice of a row for each routing_lanes() lanes; a row that is not real has logits all the same, which lack
 * `scale`. chosen: the row's place, block_rows from expert to expert. With NaNs some k experts are chosen. */
DEVICE void routing_choose(int32_t *experts, float *gates, uint16_t *chosen, const float *logits, float scale,
    bool is_real, int n_experts, int top_k, int renormalize, int block_rows)
{
    const int lanes = routing_lanes(n_experts), first_lane = lane() & -lanes, own = lane() - first_lane;
    float largest = -3.4e38f, sum = 0;
    for (int e = own; e < n_experts; e += lanes)
        largest = max_f(largest, logits[e] * scale);
    largest = routing_max(largest, lanes);
    for (int e = own; e < n_experts; e += lanes)
        if (!renormalize || routing_is_chosen(logits, e, n_experts, top_k))
            sum += routing_share(logits[e], scale, largest);
    const float over_sum = 1 / routing_sum(sum, lanes);
    int n_chosen = 0;
    for (int first = 0; first < n_experts; first += lanes) {
        const int e = first + own;
        const bool is_chosen = e < n_experts && routing_is_chosen(logits, e, n_experts, top_k);
        const uint32_t all = ballot(is_chosen) >> first_lane & (0xffffffffu >> (32 - lanes));
        const int at = n_chosen + count_ones(all & ((1u << own) - 1));
        if (is_real && is_chosen && at < top_k) {
            experts[at] = e;
            gates[at] = routing_share(logits[e], scale, largest) * over_sum;
            chosen[e * block_rows] = (uint16_t)(1 + at);
        }
        n_chosen += count_ones(all);
    }
}

/* By the whole block, after a barrier: pairs of its rows, the first of which is row `first_row` of n_rows, to slots
 * [E][n_rows]; totals [E] grow by as many. block_rows: a power of two. */
DEVICE void routing_place(int32_t *slots, int32_t *totals, const uint16_t *chosen, int n_experts, int block_rows,
    int first_row, int n_rows, int top_k)
{
    const int lanes = min_i(block_rows, 32), first_lane = lane() & -lanes;
    for (int first = warp() * 32; first < n_experts * block_rows; first += n_threads()) {
        const int i = first + lane(), e = i / block_rows, row = i % block_rows;
        const int which = e < n_experts ? chosen[i] : 0;
        const uint32_t all = ballot(which > 0) >> first_lane & (0xffffffffu >> (32 - lanes));
        int to = 0;
        if (lane() == first_lane && all)
            to = add_counter(totals + e, count_ones(all));
        to = shuffle_i(to, first_lane) + count_ones(all & ((1u << (lane() - first_lane)) - 1));
        if (which > 0 && to < n_rows)          /* a launch timed again and again finds totals of the last */
            slots[(int64_t)e * n_rows + to] = (first_row + row) * top_k + which - 1;
    }
}

#endif
