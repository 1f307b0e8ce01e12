/* group: the order of a stable sort, exactly. Expert 1 of more than 2 stays empty when top_k allows. */
#include "check.h"

static int draw_expert(int at_least, int n_experts, int n_after, bool skips)
{
    const int e = at_least + check_random_below(n_experts - at_least - n_after);
    return skips && e == 1 ? 2 : e;
}

static void check_group(void)
{
    const int n_experts = check_param("n_experts"), n_tokens = check_param("n_tokens"), top_k = check_param("top_k");
    const int n_pairs = n_tokens * top_k, n_blocks = (n_tokens + 63) / 64, n_runs = (n_tokens + 15) / 16;
    const bool skips = n_experts > 2 && top_k == 1;
    int32_t *experts = check_buffer(4 * (size_t)n_pairs), *counts = check_buffer(4 * (size_t)(n_runs * n_experts));
    int32_t *slots = check_buffer(4 * (size_t)n_pairs), *offsets = check_buffer(4 * (size_t)(n_experts + 1));
    int32_t *want = check_buffer(4 * (size_t)n_pairs), *want_offsets = check_buffer(4 * (size_t)(n_experts + 1));
    memset(counts, 0, 4 * (size_t)(n_runs * n_experts));
    for (int t = 0; t < n_tokens; t++)
        for (int s = 0, e = -1; s < top_k; s++) {
            e = draw_expert(e + 1, n_experts, top_k - 1 - s, skips);
            experts[t * top_k + s] = e;
            counts[t / 16 * n_experts + e]++;
        }
    int n = 0;
    for (int e = 0; e < n_experts; e++) {
        want_offsets[e] = n;
        for (int p = 0; p < n_pairs; p++)
            if (experts[p] == e)
                want[n++] = p;
    }
    want_offsets[n_experts] = n;
    check_freeze(experts);
    check_freeze(counts);
    CHECK_LAUNCH(n_blocks + 1, 1, 128, 8 * n_experts, slots, offsets, experts, counts, n_tokens, top_k);
    check_ints("slots", slots, want, (size_t)n_pairs);
    check_ints("offsets", offsets, want_offsets, (size_t)n_experts + 1);
}

GPU_CHECKS({ "group", check_group })
