/* Planner for GPUs: slots of weights and state, the four lists, the longest chunk that scratch allows.
 *
 * Everything is exact at compile time but for rings that grow with the caller's context. A model's lists are flat:
 * every layer's launches with its own offsets.
 */
#include "gpu_plan.h"
#include "gpu_model.h"
#include "plan_model.h"
#include "slots.h"
#include "../ir/kernel_key.h"

#include <string.h>

enum {
    MAX_CHUNK = 8192, MOST_CHOSEN = 32768, MIN_CHUNK = 256, MAX_SEQUENCES = 16, MAX_SCRATCH_LEN = 600 << 20,
    FEED_HISTORY = 1024,
};

/* Both phases of a block share its slots. */
static void bind_block(Arena *arena, BlockPlan *block)
{
    for (int phase = 0; phase < N_PLAN_PHASES; phase++)
        for (const Op *op = block->block[phase]->first; op; op = op->next) {
            if (op->kind == OP_WEIGHT)
                bind_weight(arena, block, op, 0, 0);
            else if (op->kind == OP_STATE)
                bind_state(arena, block, op, 0);
        }
}

static int activation_code(const Plan *plan)
{
    for (int b = 0; b < plan->n_blocks; b++)
        for (int i = 0; i < plan->blocks[b].n_weights; i++)
            if (plan->blocks[b].weights[i].dtype == DTYPE_BF16)
                return 1;
    return 2;
}

/* After decode: the likeliest token of every sequence becomes its next. */
static void feed(GpuModel *g)
{
    if (g->best) {
        gpu_share(g->b, g->best);
        gpu_share(g->b, g->best_at);
        gpu_begin(g->b, "decode_feed", -1);
        gpu_param(g->b, "n_parts", g->n_best);
        gpu_param(g->b, "history", FEED_HISTORY);
        gpu_special(g->b, ARG_TOKENS);
        gpu_special(g->b, ARG_HISTORY);
        gpu_special(g->b, ARG_POSITIONS);
        gpu_scratch(g->b, g->best, 0, ACCESS_READ);
        gpu_scratch(g->b, g->best_at, 0, ACCESS_READ);
        gpu_count(g->b, COUNT_SEQUENCES);
        gpu_end(g->b, gpu_extent(COUNT_SEQUENCES, 1, 0), gpu_fixed(1), 32, 0, gpu_flags(g));
        return;
    }
    gpu_begin(g->b, "argmax", -1);
    gpu_param(g->b, "vocab_size", (double)g->plan->graph->vocab_size);
    gpu_special(g->b, ARG_TOKENS);
    gpu_special(g->b, ARG_HISTORY);
    gpu_special(g->b, ARG_POSITIONS);
    gpu_special(g->b, ARG_LOGITS);
    gpu_end(g->b, gpu_extent(COUNT_SEQUENCES, 1, 0), gpu_fixed(1), 256, 64, gpu_flags(g));
}

/* The same in its place, drawn by samplers. */
static void draw(GpuModel *g)
{
    const int64_t vocab_size = g->plan->graph->vocab_size;
    LaunchBuffer *weights = gpu_buffer(g->b, "sample weights", 2 * MAX_SEQUENCES * vocab_size * 4);
    const LaunchExtent sequences = gpu_extent(COUNT_SEQUENCES, 1, 0);
    gpu_begin(g->b, "sample_weigh", -1);
    gpu_param(g->b, "vocab_size", (double)vocab_size);
    gpu_scratch(g->b, weights, 0, ACCESS_WRITE);
    gpu_special(g->b, ARG_LOGITS);
    gpu_special(g->b, ARG_SAMPLERS);
    gpu_end(g->b, gpu_fixed((int)((vocab_size + 1023) / 1024)), sequences, 256, 32, gpu_flags(g));
    gpu_begin(g->b, "sample_draw", -1);
    gpu_param(g->b, "vocab_size", (double)vocab_size);
    gpu_special(g->b, ARG_TOKENS);
    gpu_special(g->b, ARG_HISTORY);
    gpu_special(g->b, ARG_POSITIONS);
    gpu_special(g->b, ARG_SAMPLERS);
    gpu_special(g->b, ARG_LOGITS);
    gpu_scratch(g->b, weights, 0, ACCESS_READ);
    gpu_end(g->b, sequences, gpu_fixed(1), 1024, 17408, gpu_flags(g));
}

static Launches *make_lists(Arena *arena, const Plan *plan, const Choices *choices)
{
    GpuModel g = { .arena = arena, .plan = plan, .choices = choices, .b = gpu_builder_new(arena),
                   .sm = target_sm(plan->target),
                   .act = activation_code(plan), .n_rows = plan->chunk };
    gpu_list(g.b, LIST_PREFILL);
    gpu_lower(&g);
    g.n_rows = MAX_SEQUENCES;
    g.sequences = true;
    gpu_list(g.b, LIST_DECODE);
    gpu_decode(&g);
    gpu_list(g.b, LIST_FEED);
    feed(&g);
    gpu_list(g.b, LIST_DRAW);
    draw(&g);
    gpu_place(g.b);
    Launches *launches = gpu_launches(g.b);
    launches->act = g.act;
    return launches;
}

/* As runtime/program.h divides a context's memory. */
static int64_t logits_len(const Plan *plan)
{
    int64_t row_len = 4 * plan->graph->vocab_size, rows = ((int64_t)64 << 20) / row_len;
    rows = rows > plan->chunk ? plan->chunk : rows;
    return row_len * (rows < MAX_SEQUENCES ? MAX_SEQUENCES : rows);
}

Plan *gpu_plan_module(Arena *arena, const Graph *graph, Module *module, TargetId target)
{
    return gpu_plan_module_chosen(arena, graph, module, target, NULL, 0);
}

Plan *gpu_plan_module_chosen(Arena *arena, const Graph *graph, Module *module, TargetId target, const Choices *choices,
                             int64_t max_scratch)
{
    const int64_t chosen = choices_get(choices, KERNEL_KEY_MODEL, "chunk", 0);
    const bool is_chosen = chosen >= MIN_CHUNK && chosen <= MOST_CHOSEN;
    Plan *plan = plan_new(arena, graph, module, target);
    for (int i = 0; i < plan->n_blocks; i++)
        bind_block(arena, &plan->blocks[i]);
    plan_bind_layers(arena, plan);
    /* A chunk that was chosen had its memory where it was measured. */
    const int64_t usual_len = is_chosen ? (int64_t)4 << 30 : MAX_SCRATCH_LEN;
    const int64_t most_len = max_scratch ? max_scratch : usual_len;
    plan->max_scratch = max_scratch;
    for (plan->chunk = is_chosen ? (int)chosen : MAX_CHUNK;; plan->chunk /= 2) {
        plan->launches = make_lists(arena, plan, choices);
        if (plan->launches->scratch_len <= most_len || plan->chunk <= MIN_CHUNK)
            break;
    }
    plan->shared_len = plan->launches->scratch_len;
    plan->logits_len = logits_len(plan);
    plan_finish(plan);
    return plan;
}
