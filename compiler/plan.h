/* Planner: a lowered module becomes a Plan; printing it; holding it to a budget. */
#ifndef MOSSC_COMPILER_PLAN_H
#define MOSSC_COMPILER_PLAN_H

#include "../ir/plan.h"

Plan *plan_module(Arena *arena, const Graph *graph, Module *module, TargetId target);

/* The memory of a process that runs the plan. */
typedef struct {
    int64_t weights, state, window, shared, private_all, logits, program, total;
} PlanMemory;
PlanMemory plan_memory(const Plan *plan, int64_t n_context, int n_threads);

/* Does the plan fit `max_rss` bytes? Otherwise reports who needs what and returns false. */
bool plan_fits(const Plan *plan, Diags *diags, int64_t max_rss, int64_t n_context, int n_threads);

/* `--emit plan`: every step of every schedule with its buffers. */
void plan_print(const Plan *plan, Text *out);
/* `--emit dot`: the module as a graph for Graphviz. */
void module_print_dot(const Module *module, Text *out);
/* `inspect`: memory, operations and bytes a token. */
void plan_inspect(const Plan *plan, int64_t n_context, int n_threads, bool json, Text *out);

/* Cost of one token in `mode`; in prefill weights are read once a chunk, so weight_bytes is 1/chunk of
 * what the chunk reads. Attention is counted with a full window (n_context tokens without one). */
Cost cost_of_block(const Block *block, int mode, int64_t n_tokens, int64_t n_context);

#endif
