/* Pairs by expert, for grouped products: a stable counting sort from counts made while routing.
 *
 * Grid: 64 tokens a block; 128 threads. counts [run][E] says how many pairs of each expert a run of 16 tokens
 * has. A warp places the pairs of every fourth expert: behind all pairs of lower experts and those of its own
 * in lower runs. Shared: 8 E bytes.
 */
PARAM(n_experts, e)

DEVICE int group_sum(int value)
{
    UNROLL
    for (int i = 0; i < 5; i++)
        value += shuffle_xor_i(value, 1 << i);
    return value;
}

/* Lane's share of expert e's pairs: all, and those in runs below `own`. */
DEVICE void group_count(int *all, int *lower, const int32_t *counts, int e, int n_runs, int own)
{
    enum { ahead = 16 };                           /* loads under way at a time */
    for (int first = 0; first < n_runs; first += 32 * ahead) {
        int count[ahead];
        UNROLL
        for (int i = 0; i < ahead; i++) {
            const int run = first + i * 32 + lane();
            count[i] = run < n_runs ? counts[(int64_t)run * n_experts + e] : 0;
        }
        UNROLL
        for (int i = 0; i < ahead; i++) {
            *all += count[i];
            *lower += first + i * 32 + lane() < own ? count[i] : 0;
        }
    }
}

KERNEL(group)(int32_t *slots /* [pairs] */, int32_t *offsets /* [E + 1] */, const int32_t *experts /* [pairs] */,
    const int32_t *counts, int32_t n_tokens, int32_t top_k)
{
    enum { tokens_a_block = 64, tokens_a_run = 16, n_warps = 4 };
    int32_t *const totals = shared(), *const lowers = totals + n_experts;     /* [E] each */
    dependency_wait();
    dependency_launch();
    const int n_runs = (n_tokens + tokens_a_run - 1) / tokens_a_run, own = block_x();
    for (int e = warp(); e < n_experts; e += n_warps) {
        int all = 0, lower = 0;
        group_count(&all, &lower, counts, e, n_runs, own * (tokens_a_block / tokens_a_run));
        all = group_sum(all);
        lower = group_sum(lower);
        if (lane() == 0) {
            totals[e] = all;
            lowers[e] = lower;
        }
    }
    barrier();
    if (own * tokens_a_block >= n_tokens)
        return;
    const int begin = own * tokens_a_block * top_k;
    const int end = min_i(own * tokens_a_block + tokens_a_block, n_tokens) * top_k;
    int offset = 0;                               /* pairs of experts below e */
    for (int e = 0; e < n_experts; e++) {
        if (own == 0 && thread_x() == 0)
            offsets[e] = offset;
        if (e % n_warps == warp()) {
            int to = offset + lowers[e];
            for (int first = begin; first < end; first += 32) {
                const int pair = first + lane(), is_here = pair < end && experts[pair] == e;
                const uint32_t here = ballot(is_here);
                if (is_here)
                    slots[to + count_ones(here & ((1u << lane()) - 1))] = pair;
                to += count_ones(here);
            }
        }
        offset += totals[e];
    }
    if (own == 0 && thread_x() == 0)
        offsets[n_experts] = offset;
}
