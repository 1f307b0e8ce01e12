/* Planner: schedule and memory of every block, then of the model.
 *
 * Input: a module lowered by all passes. Steps: share each operation out among threads, put barriers
 * where a thread would read what another wrote, give every value a place from its lifetime in phases.
 * Everything is exact at compile time but for state that grows with the caller's context.
 */
#include "plan.h"
#include "place.h"
#include "plan_model.h"
#include "schedule.h"
#include "slots.h"
#include "../ir/kernel_key.h"
#include "../ir/product.h"
#include "../ir/quant.h"
#include "../ir/text.h"

#include <string.h>

enum { MAX_CHUNK = 512, MIN_CHUNK = 64, MAX_SHARED_LEN = 64 << 20, PACK_LEN = 1 << 20, PACK_ROWS = 144,
       MAX_TILE_ROWS = 14, K_UNIT = 16, LINE_LEN = 4 * K_UNIT,      /* runtime/tile.h */
       MAX_STREAMS = 8, MAX_UNROLL = 8, MAX_ROW_SPLIT = 1 << 16,
       MAX_THREADS = 1024 };

/* ---- scratch ---- */

static int64_t max_rows(Dim dim, int chunk) { return dim.sym == SYM_ONE ? dim.n : dim.n * chunk; }

/* Scratch a value takes at the longest chunk: rows padded to whole panels. */
static int64_t value_len(Type t, int chunk, const Tiling *tiling, int64_t *stride)
{
    if (t.dtype == DTYPE_Q8) {
        *stride = quant_activation_stride(t.dim[1].n);
        return align_len(max_rows(t.dim[0], chunk) * *stride);
    }
    *stride = t.rank == 2 ? round_up(t.dim[1].n, tiling->panel) : 1;
    /* One panel more: vectors may read past a row's end. */
    int64_t slack = t.rank == 2 ? tiling->panel : 0;
    return align_len((max_rows(t.dim[0], chunk) * *stride + slack) * dtype_len(t.dtype));
}

/* ---- what each step takes ---- */

typedef struct {
    Arena *arena;
    Plan *plan;
    const Choices *choices;      /* NULL: none */
    int chunk;
} Planner;

/* What was chosen for the kernel of an operation, else `absent`, which is also what a number out of range gives:
 * records may be of other code. */
static int64_t chosen(const Planner *p, const Op *op, Phase phase, const char *name, int64_t low, int64_t high,
                      int64_t absent)
{
    Text key = { 0 };
    bool has_key = p->choices && kernel_key_print(op, phase, &key);
    int64_t value = has_key ? choices_get(p->choices, key.data, name, absent) : absent;
    text_free(&key);
    return value >= low && value <= high ? value : absent;
}

/* Rows that a prefill product packs: at most a megabyte, half of a second-level cache (measured in bench/NOTES.md). */
static int64_t default_block_rows(const Step *step, int chunk, bool quantised, int64_t row_len)
{
    int64_t fit = PACK_LEN / row_len / step->tile_rows * step->tile_rows;
    int64_t most = round_up(quantised || chunk < PACK_ROWS ? chunk : PACK_ROWS, step->tile_rows);
    int64_t least = 4 * step->tile_rows;
    int64_t rows = fit < least ? least : fit;
    return rows > most ? most : rows;
}

/* How a block's rows and weights are walked along k. Tiles of 64-bit ARM take packed rows by lanes, not in
 * lines, and some of them all of k. */
static void choose_k(const Planner *p, Step *step, bool quantised)
{
    bool lanes = target_info(p->plan->target)->family == FAMILY_AARCH64;
    step->pack_lines = (int)chosen(p, step->op, PHASE_PREFILL, "pack_lines", 0, !lanes, 0);
    step->fetch_gap = (int)chosen(p, step->op, PHASE_PREFILL, "fetch_gap", 0, 16, 0);
    step->k_block = quantised || lanes ? 0 : (int)chosen(p, step->op, PHASE_PREFILL, "k_block", 0, 1 << 16, 0);
    if (step->k_block % K_UNIT)
        step->k_block = 0;
    step->widen = product_widens(step->op) ? (int)chosen(p, step->op, PHASE_PREFILL, "widen", 0, 1, 0) : 0;
}

static int64_t product_scratch(const Planner *p, Step *step, Phase phase)
{
    const Tiling *t = &p->plan->tiling;
    const Op *op = step->op;
    const Value *x = op->operand[0];
    bool quantised = x->type.dtype == DTYPE_Q8;
    int64_t row_len = packed_row_len(quantised, x->type.dim[1].n);
    if (phase != PHASE_PREFILL) {
        step->prefetch_rows = (int)chosen(p, op, phase, "prefetch_rows", 0, 4096, t->prefetch_rows);
        step->streams = (int)chosen(p, op, phase, "streams", 1, MAX_STREAMS, t->streams);
        step->unroll = (int)chosen(p, op, phase, "unroll", 1, MAX_UNROLL, 1);
        return 0;
    }
    step->tile_rows = (int)chosen(p, op, phase, "tile_rows", 2, MAX_TILE_ROWS, t->tile_rows);
    step->tail_rows = (int)chosen(p, op, phase, "tail_rows", 1, step->tile_rows - 1,
                                  step->tile_rows == t->tile_rows ? t->tail_rows : 1);
    if (step->tile_rows % step->tail_rows)
        step->tail_rows = 1;
    step->block_rows = chosen(p, op, phase, "block_rows", step->tile_rows, MAX_CHUNK,
                              default_block_rows(step, p->chunk, quantised, row_len));
    step->block_rows = round_up(step->block_rows, step->tile_rows);
    choose_k(p, step, quantised);
    return align_len((step->block_rows + t->panel) * (step->pack_lines ? round_up(row_len, LINE_LEN) : row_len));
}

/* Keys are walked alike in both phases, or the results would not be the same to the bit. */
static int64_t attention_scratch(const Planner *p, Step *step, Phase phase)
{
    const Tiling *t = &p->plan->tiling;
    const Op *op = step->op;
    int64_t group = op_int(op, ATTR_HEADS, 1) / op_int(op, ATTR_KV_HEADS, 1);
    bool decode = phase == PHASE_DECODE;
    step->key_block = (int)chosen(p, op, phase, "key_block", t->panel, 1024, t->key_block);
    if (step->key_block % t->panel)
        step->key_block = t->key_block;
    step->token_block = decode ? 1 : (int)chosen(p, op, phase, "token_block", 1, MAX_CHUNK, t->token_block);
    step->tile_rows = (int)chosen(p, op, phase, decode ? "decode_tile_rows" : "tile_rows", 1, MAX_TILE_ROWS,
                                  decode && group < t->tile_rows ? group : t->tile_rows);
    return align_len(attention_scratch_len(t, step, group, op_int(op, ATTR_HEAD_DIM, 1)) * 4);
}

/* Settles what can be chosen of a step; private bytes its kernel needs to pack its inputs. */
static int64_t kernel_scratch(const Planner *p, Step *step, Phase phase)
{
    if (step->op->kind == OP_SCAN)
        step->token_block = (int)chosen(p, step->op, phase, "token_block", 1, 64, p->plan->tiling.scan_block);
    if (phase == PHASE_PREFILL && (step->op->kind == OP_ROUTE || step->op->kind == OP_RMS_NORM_ROUTE))
        step->by_lanes = chosen(p, step->op, phase, "by_lanes", 0, 1, 1) == 1;
    return op_is_product(step->op) ? product_scratch(p, step, phase)
         : step->op->kind == OP_ATTENTION ? attention_scratch(p, step, phase) : 0;
}

/* The last step that reads a value, or that defines it. */
static int last_use(const Schedule *s, const Value *value)
{
    int last = (int)(schedule_find(s, value->def) - s->steps);
    for (int j = last; j < s->n_steps; j++)
        for (int i = 0; i < s->steps[j].op->n_operands; i++)
            if (s->steps[j].op->operand[i] && value_storage(s->steps[j].op->operand[i]) == value)
                last = j;
    return last;
}

/* Where results go that are not scratch: the residual stream, the caller's logits, views. */
static const Buffer *fixed_place(const Planner *p, const Block *block, const Op *op)
{
    const Value *x;
    if (op->kind == OP_CALL || op_updates(op, &x))
        return op->operand[op->kind == OP_CALL ? 0 : op->n_operands - 1]->buffer;
    if (op->kind == OP_LAST_ROWS)
        return buffer_new(p->arena, (Buffer){ .space = SPACE_VIEW, .stride = op->operand[0]->buffer->stride });
    bool logits = block->last->operand[0] == op->result[0] && strcmp(block->name, "main") == 0;
    return logits ? buffer_new(p->arena, (Buffer){ .space = SPACE_CALLER, .stride = op->result[0]->type.dim[1].n })
                  : NULL;
}

/* Give every result of the block a place; `inner` is scratch that its calls need. */
static void place_values(const Planner *p, const Block *block, Schedule *s, PlacedItem inner[2])
{
    int n = 0, max = 2;
    for (int i = 0; i < s->n_steps; i++)
        max += 1 + s->steps[i].op->n_results;
    PlacedItem *shared = arena_array(p->arena, PlacedItem, (size_t)max);
    PlacedItem *private = arena_array(p->arena, PlacedItem, (size_t)max);
    int n_private = 0;
    bool main = strcmp(block->name, "main") == 0;
    if (main) {
        shared[n++] = inner[0];
        private[n_private++] = inner[1];
    }
    for (const Op *op = block->first; op; op = op->next) {
        Step *step = schedule_find(s, op);
        for (int r = 0; r < op->n_results; r++) {
            Value *value = op->result[r];
            int64_t stride, len = value_len(value->type, p->chunk, &p->plan->tiling, &stride);
            if (value->buffer)
                continue;
            if ((value->buffer = fixed_place(p, block, op)))
                continue;
            bool own = step->split == SPLIT_ALL;
            PlacedItem *item = own ? &private[n_private++] : &shared[n++];
            int last = last_use(s, value);
            /* A thread's own scratch lives from step to step; what all share, from barrier to barrier. */
            *item = own ? (PlacedItem){ .len = len, .first = (int)(step - s->steps), .last = last }
                        : (PlacedItem){ .len = len, .first = step->phase, .last = s->steps[last].phase };
            Buffer *buffer = arena_one(p->arena, Buffer);
            *buffer = (Buffer){ .space = own ? SPACE_PRIVATE : SPACE_SHARED, .len = len, .stride = stride };
            item->offset = &buffer->offset;
            value->buffer = buffer;
        }
        int64_t scratch = step ? kernel_scratch(p, step, block->phase) : 0;
        if (scratch)
            private[n_private++] = (PlacedItem){ .len = scratch, .first = (int)(step - s->steps),
                                                 .last = (int)(step - s->steps), .offset = &step->scratch_offset };
    }
    s->shared_len = place_items(shared, n);
    s->private_len = place_items(private, n_private);
}

static void bind_params(Planner *p, const Block *block)
{
    bool main = strcmp(block->name, "main") == 0;
    for (int i = 0; i < block->n_params; i++) {
        Value *value = block->param[i];
        int64_t stride;
        value_len(value->type, p->chunk, &p->plan->tiling, &stride);
        value->buffer = buffer_new(p->arena, (Buffer){
            .space = main ? SPACE_CALLER : i == 0 ? SPACE_RESIDUAL : SPACE_PARAM, .stride = stride });
    }
}

/* The blocks' scratch is needed from the first call to the last: phases of what is shared, steps of the rest. */
static void set_inner_life(const Schedule *s, PlacedItem inner[2])
{
    int first = s->n_steps, last = -1;
    for (int i = 0; i < s->n_steps; i++)
        if (s->steps[i].op->kind == OP_CALL) {
            first = first < i ? first : i;
            last = i;
        }
    inner[0].first = last < 0 ? 0 : s->steps[first].phase;
    inner[0].last = last < 0 ? 0 : s->steps[last].phase;
    inner[1].first = last < 0 ? 0 : first;
    inner[1].last = last < 0 ? 0 : last;
}

/* `inner`: scratch the blocks need, given when planning main. */
static void plan_block(Planner *p, BlockPlan *plan, PlacedItem inner[2])
{
    for (int phase = 0; phase < N_PLAN_PHASES; phase++) {
        inner[0].offset = &p->plan->block_shared_offset[phase];
        inner[1].offset = &p->plan->block_private_offset[phase];
        const Block *block = plan->block[phase];
        plan->schedule[phase] = (Schedule){ 0 };
        bind_params(p, block);
        for (const Op *op = block->first; op; op = op->next) {
            for (int r = 0; r < op->n_results; r++)
                op->result[r]->buffer = NULL;
            if (op->kind == OP_WEIGHT)
                bind_weight(p->arena, plan, op, p->plan->tiling.panel, target_dot_group(p->plan->target));
            else if (op->kind == OP_STATE)
                bind_state(p->arena, plan, op, p->plan->tiling.panel);
        }
        Schedule *s = &plan->schedule[phase];
        schedule_block(p->arena, block, p->plan->row_split, p->plan->tiling.panel, s);
        set_inner_life(s, inner);
        place_values(p, block, s, inner);
    }
}

/* ---- the model ---- */

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

static void plan_blocks(Planner *p)
{
    Plan *plan = p->plan;
    PlacedItem inner[2] = { 0 };
    plan->shared_len = plan->private_len = 0;
    for (int i = 0; i < plan->n_blocks; i++) {
        BlockPlan *block = &plan->blocks[i];
        block->n_weights = block->n_states = 0;
        block->weights_len = block->state_len = block->state_token_len = 0;
        plan_block(p, block, inner);
        for (int phase = 0; phase < N_PLAN_PHASES && block != plan->main; phase++) {
            inner[0].len = max64(inner[0].len, block->schedule[phase].shared_len);
            inner[1].len = max64(inner[1].len, block->schedule[phase].private_len);
        }
    }
    for (int phase = 0; phase < N_PLAN_PHASES; phase++) {
        plan->shared_len = max64(plan->shared_len, plan->main->schedule[phase].shared_len);
        plan->private_len = max64(plan->private_len, plan->main->schedule[phase].private_len);
    }
}

Plan *plan_module_chosen(Arena *arena, const Graph *graph, Module *module, TargetId target, const Choices *choices)
{
    const Target *info = target_info(target);
    Plan *plan = plan_new(arena, graph, module, target);
    plan->tiling = (Tiling){ .panel = 2 * info->lanes, .tile_rows = info->tile_rows, .tail_rows = info->tail_rows,
                             .key_block = 64, .token_block = 48, .prefetch_rows = 16, .streams = 4, .scan_block = 8 };
    const int64_t longest = choices_get(choices, KERNEL_KEY_MODEL, "chunk", MAX_CHUNK);
    const int64_t row_split = choices_get(choices, KERNEL_KEY_MODEL, "row_split", 0);
    plan->row_split = row_split >= 0 && row_split <= MAX_ROW_SPLIT ? (int)row_split : 0;
    const int64_t threads = choices_get(choices, KERNEL_KEY_MODEL, "threads", 0);
    plan->threads = threads > 0 && threads <= MAX_THREADS ? (int)threads : 0;
    plan->bind = choices_get(choices, KERNEL_KEY_MODEL, "bind", 0) == 1;
    plan->route_apart = choices_get(choices, KERNEL_KEY_MODEL, "route_apart", 0) == 1;
    Planner p = { arena, plan, choices, longest >= MIN_CHUNK && longest <= MAX_CHUNK ? (int)longest : MAX_CHUNK };
    /* The longest chunk whose scratch is still small beside the weights of a model that needs it. */
    for (;; p.chunk /= 2) {
        plan->chunk = p.chunk;
        plan_blocks(&p);
        if (plan->shared_len <= MAX_SHARED_LEN || p.chunk <= MIN_CHUNK)
            break;
    }
    plan_bind_layers(arena, plan);
    plan_finish(plan);
    return plan;
}

Plan *plan_module(Arena *arena, const Graph *graph, Module *module, TargetId target)
{
    return plan_module_chosen(arena, graph, module, target, NULL);
}
