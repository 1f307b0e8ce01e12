/* Pairs grouped by expert, for gemm: a stable counting sort, on one thread. */
PARAM(n_experts, e)

KERNEL(group)(
    int32_t *slots,           /* [n_pairs]: pair indices by expert */
    int32_t *offsets,         /* [n_experts + 1] into slots */
    const int32_t *experts,   /* [n_pairs] */
    int n_pairs)
{
    route_group(slots, offsets, experts, n_pairs, n_experts);
}
