/* Plan of a model, what all targets have in common: its blocks, where each layer's weights and state begin,
 * what a token costs, the hash of all that fixes the meaning of packed weights and states.
 *
 * Input: a lowered module; for plan_bind_layers and plan_finish also the slots of every block.
 */
#include "plan_model.h"
#include "plan.h"
#include "slots.h"
#include "../ir/text.h"

#include <string.h>

BlockPlan *plan_find_block(Plan *plan, const char *name)
{
    for (int i = 0; i < plan->n_blocks; i++)
        if (strcmp(plan->blocks[i].name, name) == 0)
            return &plan->blocks[i];
    BUG("no block %s", name);
}

static void collect_blocks(Arena *arena, Plan *plan, const Module *module)
{
    int n = 0;
    for (const Block *block = module->blocks; block; block = block->next)
        n += block->phase == PHASE_DECODE;
    plan->blocks = arena_array(arena, BlockPlan, (size_t)n);
    for (const Block *block = module->blocks; block; block = block->next) {
        if (block->phase != PHASE_DECODE)
            continue;
        BlockPlan *b = &plan->blocks[plan->n_blocks++];
        int max = 0;
        for (const Op *op = block->first; op; op = op->next)
            max++;
        *b = (BlockPlan){ .name = block->name, .weights = arena_array(arena, WeightSlot, (size_t)max),
                          .states = arena_array(arena, StateSlot, (size_t)max) };
        b->block[PLAN_DECODE] = block;
        b->block[PLAN_PREFILL] = module_find_block(module, block->name, PHASE_PREFILL);
    }
    plan->main = &plan->blocks[plan->n_blocks - 1];
}

/* Bytes of a block's rings that do not grow with the context. */
static int64_t block_window_len(const BlockPlan *block)
{
    int64_t len = 0;
    for (const Op *op = block->block[PLAN_DECODE]->first; op; op = op->next)
        for (int i = 3; op->kind == OP_ATTENTION && i < 5; i++)
            len += align_len(op->operand[i]->buffer->len);
    return len;
}

void plan_bind_layers(Arena *arena, Plan *plan)
{
    plan->n_layers = plan->graph->n_layers;
    plan->layers = arena_array(arena, LayerPlan, (size_t)plan->n_layers);
    plan->weights_len = plan->main->weights_len;
    for (const Op *op = plan->main->block[PLAN_DECODE]->first; op; op = op->next) {
        if (op->kind != OP_CALL)
            continue;
        const BlockPlan *block = plan_find_block(plan, op_attr(op, ATTR_BLOCK)->str);
        plan->layers[op_int(op, ATTR_LAYER, 0)] = (LayerPlan){
            block, plan->weights_len, plan->state_len, plan->state_token_len };
        plan->weights_len += block->weights_len;
        plan->state_len += block->state_len;
        plan->state_token_len += block->state_token_len;
        plan->window_len += block_window_len(block);
    }
}

static void count_costs(Plan *plan)
{
    for (int i = 0; i < plan->n_layers; i++) {
        const Block *block = plan->layers[i].block->block[PLAN_DECODE];
        plan->context_flops += cost_of_block(block, 0, 1, 1).flops - cost_of_block(block, 0, 1, 0).flops;
    }
    for (int mode = 0; mode < plan->graph->n_modes; mode++) {
        for (int phase = 0; phase < N_PLAN_PHASES; phase++) {
            Cost total = cost_of_block(plan->main->block[phase], mode, phase == PLAN_DECODE ? 1 : plan->chunk, 0);
            for (int i = 0; i < plan->n_layers; i++) {
                Cost c = cost_of_block(plan->layers[i].block->block[phase], mode,
                                       phase == PLAN_DECODE ? 1 : plan->chunk, 0);
                total.flops += c.flops;
                total.weight_bytes += c.weight_bytes;
                total.state_bytes += c.state_bytes;
            }
            *(phase == PLAN_DECODE ? &plan->decode_cost[mode] : &plan->prefill_cost[mode]) = total;
        }
    }
}

static uint64_t hash_bytes(uint64_t hash, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (uint8_t)bytes[i]) * 0x100000001B3u;
    return hash;
}

/* What the matrices are stored in; q8 and q4 keep a few in a wider type. */
static const char *quant_text(const Plan *plan)
{
    bool has[N_DTYPES] = { false };
    int n = 0;
    for (int b = 0; b < plan->n_blocks; b++)
        for (int i = 0; i < plan->blocks[b].n_weights; i++)
            if (slot_is_matrix(&plan->blocks[b].weights[i]))
                has[plan->blocks[b].weights[i].dtype] = true;
    if (has[DTYPE_Q4] || has[DTYPE_Q8])
        return dtype_info(has[DTYPE_Q4] ? DTYPE_Q4 : DTYPE_Q8)->text;
    const char *text = dtype_info(DTYPE_F32)->text;
    for (int d = 0; d < N_DTYPES; d++) {
        n += has[d];
        text = has[d] ? dtype_info((DType)d)->text : text;
    }
    return n > 1 ? "mixed" : text;
}

Plan *plan_new(Arena *arena, const Graph *graph, Module *module, TargetId target)
{
    Plan *plan = arena_one(arena, Plan);
    *plan = (Plan){ .module = module, .graph = graph, .target = target };
    collect_blocks(arena, plan, module);
    return plan;
}

/* Where a state's values lie: what one target writes, another may go on with if this is the same. */
static void print_states(const Plan *plan, Text *out)
{
    text_printf(out, "%s\n", plan->quant);
    for (int i = 0; i < plan->n_layers; i++) {
        const LayerPlan *layer = &plan->layers[i];
        text_printf(out, "layer %lld %lld\n", (long long)layer->state_offset, (long long)layer->state_token_offset);
        for (int j = 0; j < layer->block->n_states; j++) {
            const StateSlot *s = &layer->block->states[j];
            text_printf(out, "%s %s %lld %lld %lld %lld %lld\n", s->name, dtype_info(s->dtype)->text,
                        (long long)s->n_rows, (long long)s->n_cols, (long long)s->stride, (long long)s->offset,
                        (long long)s->token_offset);
        }
    }
}

void plan_finish(Plan *plan)
{
    plan->quant = quant_text(plan);
    count_costs(plan);
    Text text = { 0 };
    module_print(plan->module, &text);
    print_states(plan, &text);
    plan->state_hash = hash_bytes(0xCBF29CE484222325u, text.data, text.len);
    text_printf(&text, "panel %d\n", plan->tiling.panel);
    plan->hash = hash_bytes(0xCBF29CE484222325u, text.data, text.len);
    text_free(&text);
}
