/* Planner for GPUs: a lowered module becomes launch lists with all of their memory. */
#ifndef MOSSC_COMPILER_GPU_PLAN_H
#define MOSSC_COMPILER_GPU_PLAN_H

#include "../ir/choices.h"
#include "../ir/plan.h"

/* `module`: lowered by the passes for GPUs, matrices of one 16-bit type or q8. */
Plan *gpu_plan_module(Arena *arena, const Graph *graph, Module *module, TargetId target);
/* With what tuning chose of its kernels; NULL: nothing. Slots of weights and states do not depend on it. max_scratch:
 * bytes that launches may share, to which the chunk is cut; 0: what is usual, and of a chunk that was chosen 4 GB. */
Plan *gpu_plan_module_chosen(Arena *arena, const Graph *graph, Module *module, TargetId target,
                             const Choices *choices, int64_t max_scratch);

/* The invariants that ir/launch.h promises. False with the first broken one in `why`. */
bool gpu_check(const Plan *plan, Text *why);

/* The part of `--emit plan` that is launches. */
void gpu_print(const Plan *plan, Text *out);

#endif
