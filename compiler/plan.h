/* Planner: a lowered module becomes a Plan; printing it; holding it to a budget. */
#ifndef MOSSC_COMPILER_PLAN_H
#define MOSSC_COMPILER_PLAN_H

#include "../ir/choices.h"
#include "../ir/plan.h"

Plan *plan_module(Arena *arena, const Graph *graph, Module *module, TargetId target);
/* The same with what tuning chose; NULL: nothing. */
Plan *plan_module_chosen(Arena *arena, const Graph *graph, Module *module, TargetId target, const Choices *choices);

/* What the memory of a process follows from; window_len is the part of state_len that is ring buffers. */
typedef struct {
    int64_t weights_len, state_len, window_len, state_token_len, shared_len, private_len, vocab_size;
    int64_t logits_len;      /* of a GPU: its rows of logits; 0 on CPUs, where a row is the caller's */
} MemorySizes;
MemorySizes plan_memory_sizes(const Plan *plan);

/* The memory of a process that runs the plan, all headers counted. `state` is without the ring buffers
 * of attention, which are `window`; private_all is of all threads. */
typedef struct {
    int64_t weights, state, window, shared, private_all, logits, program, total;
} PlanMemory;
PlanMemory memory_of_sizes(const MemorySizes *sizes, int64_t n_context, int n_threads);
PlanMemory plan_memory(const Plan *plan, int64_t n_context, int n_threads);

/* Does the plan fit `max_rss` bytes? Otherwise reports who needs what and returns false. */
bool plan_fits(const Plan *plan, Diags *diags, int64_t max_rss, int64_t n_context, int n_threads);

/* The invariants that ir/plan.h promises. False with the first broken one in `why`. */
bool plan_check(const Plan *plan, Text *why);

/* `--emit plan`: every step of every schedule with its buffers. */
void plan_print(const Plan *plan, Text *out);
/* `--emit dot`: the module as a graph for Graphviz. */
void module_print_dot(const Module *module, Text *out);

/* Cost of one token in `mode`, of one operation or all of a block; in prefill weights are read once a chunk, so weight_bytes is 1/chunk of
 * what the chunk reads. Attention is counted with a full window (n_context tokens without one). */
Cost cost_of_op(const Op *op, int mode, int64_t n_tokens, int64_t n_context);
Cost cost_of_block(const Block *block, int mode, int64_t n_tokens, int64_t n_context);

#endif
