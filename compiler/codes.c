/* Codes: one plan that serves the code for several kinds of CPU.
 *
 * Input: a lowered module and a target that has several codes. Output: its own plan, with scratch for the one that
 * takes most. Invariant: all of them read the same weights and states, because one file and one table serve all.
 */
#include "codes.h"

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

static void check_agree(const Plan *a, const Plan *b)
{
    const Target *from = target_info(a->target), *to = target_info(b->target);
    if (a->hash != b->hash || a->weights_len != b->weights_len || a->state_len != b->state_len
        || a->state_token_len != b->state_token_len || a->chunk != b->chunk || from->dot_offset != to->dot_offset)
        BUG("the plans for %s and %s have other weights, states or chunks", from->name, to->name);
}

Plan *codes_plan(Arena *arena, const Graph *graph, Module *module, TargetId target, const Choices *choices)
{
    TargetId codes[TARGET_MAX_CODES];
    const Plan *plans[TARGET_MAX_CODES];
    int n = target_codes(target, codes);
    for (int i = 0; i < n; i++)
        plans[i] = plan_module_chosen(arena, graph, module, codes[i], choices);
    Plan *plan = plan_module_chosen(arena, graph, module, target, choices);
    for (int i = 0; i < n; i++) {
        check_agree(plan, plans[i]);
        plan->shared_len = max64(plan->shared_len, plans[i]->shared_len);
        plan->private_len = max64(plan->private_len, plans[i]->private_len);
    }
    return plan;
}
