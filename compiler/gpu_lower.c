/* Lowering for GPUs: the IR becomes launches, an operation a kernel.
 *
 * Input: a module lowered by the passes for GPUs, its weights and states bound. Output: one launch list. What
 * has no kernel of its own is a way of reading: a slice is columns of rows, a combine the sum over a token's pairs
 * that the next reader makes (gates are in the rows already), an add the end of a product or, after a layer
 * with experts, pairs left to the next norm; groups are made by routers.
 */
#include "gpu_lower.h"

#include "../ir/text.h"

#include <string.h>

/* ---- values ---- */

void gpu_bind_rows(Lowering *l, const Value *value, Rows rows)
{
    if (l->n_bound == GPU_MAX_BOUND)
        BUG("@%s has more than %d values", l->block->name, GPU_MAX_BOUND);
    l->bound[l->n_bound++] = (Bound){ value, rows };
}

static const Rows *find_rows(const Lowering *l, const Value *value)
{
    for (int i = 0; i < l->n_bound; i++)
        if (l->bound[i].value == value)
            return &l->bound[i].rows;
    return NULL;
}

bool gpu_is_bound(const Lowering *l, const Value *value) { return find_rows(l, value) != NULL; }

/* Where column `begin` of a product lies: its parts begin at multiples of 8. */
static int64_t padded_column(const Value *product, int64_t begin)
{
    const Op *op = value_is(product, OP_COMBINE) ? product->def->operand[0]->def : product->def;
    int64_t parts = op->kind == OP_LINEAR || op->kind == OP_EXPERT_LINEAR
                  ? op_int(op->operand[1]->def, ATTR_PARTS, 1) : 1;
    int64_t len = product->type.dim[1].n / parts;
    return parts == 1 ? begin : begin / len * gpu_stride(len) + begin % len;
}

/* How to read a value: its own rows, or those it is a view of. */
Rows gpu_rows_of(const Lowering *l, const Value *value)
{
    const Rows *found = find_rows(l, value);
    if (found)
        return *found;
    Rows rows;
    switch (value->def ? value->def->kind : OP_YIELD) {
    case OP_SLICE:
        rows = gpu_rows_of(l, value->def->operand[0]);
        rows.column += padded_column(value->def->operand[0], op_int(value->def, ATTR_BEGIN, 0));
        return rows;
    case OP_COMBINE:
        rows = gpu_rows_of(l, value->def->operand[0]);
        rows.pairs = true;
        return rows;
    case OP_SWIGLU_PAIRS:
        return gpu_rows_of(l, value->def->operand[0]);
    default:
        BUG("%%%s of @%s has no rows", value->name, l->block->name);
    }
}

/* The operation of that kind that reads `value`; NULL when there is none. */
const Op *gpu_reader(const Lowering *l, const Value *value, OpKind kind)
{
    for (const Op *op = l->block->first; op; op = op->next)
        for (int i = 0; op->kind == kind && i < op->n_operands; i++)
            if (op->operand[i] == value)
                return op;
    return NULL;
}

const Routing *gpu_routing_of(const Lowering *l, const Value *experts)
{
    for (int i = 0; i < l->n_routings; i++)
        if (l->routings[i].experts == experts)
            return &l->routings[i];
    BUG("%%%s of @%s was routed nowhere", experts->name, l->block->name);
}

/* ---- arguments ---- */

void gpu_weight_arg(const Lowering *l, const Value *weight)
{
    gpu_weights(l->g->b, l->weights + weight->buffer->offset);
}

void gpu_state_arg(const Lowering *l, const Value *state)
{
    const Buffer *b = state->buffer;
    bool grows = state->type.dim[0].sym == SYM_C;
    gpu_state(l->g->b, grows ? l->g->plan->state_len : l->state + b->offset,
              grows ? l->state_token + b->token_offset : 0);
}

void gpu_ends_arg(const Lowering *l)
{
    if (l->g->sequences)
        gpu_null(l->g->b);
    else
        gpu_special(l->g->b, ARG_ENDS);
}

LaunchExtent gpu_tiles(const Lowering *l, int rows)
{
    return gpu_extent(l->g->sequences ? COUNT_TOKENS : COUNT_APART, rows, 0);
}

/* A grid of one dimension. */
void gpu_end_line(const Lowering *l, LaunchExtent x, int n_threads, int shared_len, int flags)
{
    gpu_end(l->g->b, x, gpu_fixed(1), n_threads, shared_len, gpu_flags(l->g) | flags);
}

/* ---- embedding ---- */

static void lower_embed(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    const WeightSlot *slot = gpu_slot(l->plan, op->operand[1]);
    gpu_begin(g->b, "embed", l->layer);
    gpu_param(g->b, "d_model", (double)gpu_columns(op->result[0]));
    gpu_param(g->b, "weight_dtype", slot->dtype == DTYPE_Q8 ? 3 : g->act);
    gpu_param(g->b, "act", g->act);
    gpu_rows(g, &g->x, ACCESS_WRITE);
    gpu_special(g->b, ARG_TOKENS);
    gpu_weight_arg(l, op->operand[1]);
    if (slot->scales)
        gpu_weights(g->b, l->weights + slot->offset + slot->scales);
    else
        gpu_null(g->b);
    gpu_buffer_or_null(g, g->totals, ACCESS_WRITE);
    gpu_int(g->b, gpu_count_totals(g->plan));
    gpu_count(g->b, COUNT_TOKENS);
    gpu_end_line(l, gpu_extent(COUNT_TOKENS, 1, 0), 128, 0, 0);
    gpu_bind_rows(l, op->result[0], g->x);
}

/* ---- products ---- */

Product gpu_new_product(const Lowering *l, const Op *op)
{
    const Value *weight = op->operand[1];
    const WeightSlot *slot = gpu_slot(l->plan, weight);
    bool experts = op->kind == OP_EXPERT_LINEAR;
    return (Product){ .layer = l->layer, .n_in = slot->n_in, .n_out = slot->stored_rows,
                      .n_experts = experts ? slot->n_experts : 1, .slot = slot, .weights_offset = l->weights,
                      .routing = experts ? gpu_routing_of(l, op->operand[2]) : NULL, .n_tokens = COUNT_TOKENS };
}

/* Does it leave rows of tokens and nothing more? */
static bool is_plain(const Lowering *l, const Op *op)
{
    const Value *result = op->result[0];
    return op->kind == OP_LINEAR && gpu_slot(l->plan, op->operand[1])->scales == 0 && gpu_columns(result) % 8 == 0
        && gpu_slot(l->plan, op->operand[1])->stored_rows == gpu_columns(result)
        && !gpu_reader(l, result, OP_ADD) && !gpu_reader(l, result, OP_SWIGLU_PAIRS)
        && !value_is(op->operand[0], OP_SLICE) && !gpu_is_dbc(l, result) && l->block->last->operand[0] != result;
}

/* The product after `op` that reads the same rows and whose weights follow op's: its columns can follow op's, too. */
static const Op *next_product(const Lowering *l, const Op *op)
{
    const WeightSlot *slot = gpu_slot(l->plan, op->operand[1]);
    for (const Op *next = op->next; next && is_plain(l, op); next = next->next)
        if (next->kind == OP_LINEAR && next->operand[0] == op->operand[0] && is_plain(l, next)
            && next->operand[1]->buffer->offset == slot->offset + slot->len)
            return next;
    return NULL;
}

/* Products of the same rows as one. False: `op` stands alone. */
static bool lower_joined(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    Product p = gpu_new_product(l, op);
    if (!next_product(l, op))
        return false;
    p.n_out = 0;
    for (const Op *part = op; part; part = next_product(l, part))
        p.n_out += gpu_columns(part->result[0]);
    p.in = gpu_rows_of(l, op->operand[0]);
    p.out = gpu_new_rows(g, op->result[0]->name, p.n_out, 2);
    gpu_product(g, &p);
    Rows rows = p.out;
    for (const Op *part = op; part; part = next_product(l, part)) {
        gpu_bind_rows(l, part->result[0], rows);
        rows.column += gpu_columns(part->result[0]);
    }
    return true;
}

/* How a product ends follows from who reads it. */
static void lower_product(Lowering *l, const Op *op)
{
    if (find_rows(l, op->result[0]) || lower_joined(l, op))
        return;
    GpuModel *g = l->g;
    const Value *result = op->result[0];
    if (value_is(op->operand[0], OP_SLICE) && gpu_is_dbc(l, op->operand[0]->def->operand[0])) {
        gpu_lower_dt(l, op);
        return;
    }
    Product p = gpu_new_product(l, op);
    const Op *add = gpu_reader(l, result, OP_ADD);
    p.in = gpu_rows_of(l, op->operand[0]);
    TopK top_k = p.routing ? p.routing->top_k : (TopK){ 1, 1 };
    if (add && !p.routing && l->block->n_params && add->operand[0] == l->block->param[0]) {
        p.out = g->x;
        p.out_kind = OUT_ADD;
    } else if (l->block->last->operand[0] == result) {
        p.out = (Rows){ .stride = p.n_out };
        p.out_kind = OUT_LOGITS;
        p.n_tokens = COUNT_LOGITS;
        p.flags = LAUNCH_IF_LOGITS;
    } else if (gpu_is_dbc(l, result)) {
        p.out = p.routing ? gpu_new_pairs(g, result->name, p.n_out, 4, top_k)
                          : gpu_new_rows(g, result->name, p.n_out, 4);
        p.out_kind = OUT_F32;
    } else {
        p.end = gpu_reader(l, result, OP_SWIGLU_PAIRS) ? END_SWIGLU : END_NONE;
        p.gated = gpu_reader(l, result, OP_COMBINE) != NULL;
        int64_t n = p.end == END_SWIGLU ? p.n_out / 2 : p.n_out;
        p.out = p.routing ? gpu_new_pairs(g, result->name, n, 2, top_k) : gpu_new_rows(g, result->name, n, 2);
    }
    gpu_product(g, &p);
    if (p.out.buffer && p.out_kind != OUT_ADD)
        gpu_bind_rows(l, result, p.out);
}

/* ---- blocks ---- */

static void lower_block(Lowering *l);

static void lower_call(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    int index = (int)op_int(op, ATTR_LAYER, 0);
    const LayerPlan *layer = &g->plan->layers[index];
    Lowering inner = { .g = g, .block = layer->block->block[PLAN_PREFILL], .plan = layer->block, .layer = index,
                       .top_k = gpu_layer_top_k(g->plan, &g->plan->graph->layers[index]),
                       .weights = layer->weights_offset, .state = layer->state_offset,
                       .state_token = layer->state_token_offset };
    gpu_bind_rows(&inner, inner.block->param[0], g->x);
    if (op->n_operands > 1)
        gpu_bind_rows(&inner, inner.block->param[1], gpu_rows_of(l, op->operand[1]));
    lower_block(&inner);
    const Value *result = inner.block->last->operand[0];
    const Value *added = value_is(result, OP_ADD) ? result->def->operand[1] : NULL;
    if (added && value_is(added, OP_COMBINE))
        g->left = gpu_rows_of(&inner, added);
}

static void lower_op(Lowering *l, const Op *op)
{
    switch (op->kind) {
    case OP_WEIGHT: case OP_STATE: case OP_SLICE: case OP_COMBINE: case OP_ADD: case OP_SWIGLU_PAIRS:
    case OP_LAST_ROWS: case OP_GROUP: case OP_YIELD:
        break;
    case OP_EMBED: lower_embed(l, op); break;
    case OP_RMS_NORM: case OP_RMS_NORM_ROUTE: gpu_lower_norm(l, op); break;
    case OP_ROUTE: gpu_lower_route(l, op); break;
    case OP_LINEAR: case OP_EXPERT_LINEAR: lower_product(l, op); break;
    case OP_CONV1D: gpu_lower_conv1d(l, op); break;
    case OP_SCAN: gpu_lower_scan(l, op); break;
    case OP_ROPE_TABLE: gpu_lower_rope_table(l, op); break;
    case OP_ROPE: if (!l->g->sequences) gpu_lower_rope(l, op); break;
    case OP_ATTENTION: (l->g->sequences ? gpu_lower_attention_decode : gpu_lower_attention)(l, op); break;
    case OP_RING_WRITE: if (!l->g->sequences) gpu_lower_ring_write(l, op); break;
    case OP_CALL: lower_call(l, op); break;
    default: BUG("%s has no kernel for GPUs", op_info(op->kind).text);
    }
}

static void lower_block(Lowering *l)
{
    for (const Op *op = l->block->first; op; op = op->next)
        lower_op(l, op);
}

void gpu_lower(GpuModel *g)
{
    const BlockPlan *main = g->plan->main;
    Lowering l = { .g = g, .block = main->block[PLAN_PREFILL], .plan = main, .layer = -1, .top_k = { 1, 1 } };
    g->x = gpu_new_rows(g, "x", g->plan->graph->d_model, 4);
    g->left = (Rows){ 0 };
    g->n_totals = 0;
    int64_t n_totals = gpu_count_totals(g->plan);
    g->totals = n_totals ? gpu_buffer(g->b, "totals", 4 * n_totals) : NULL;
    lower_block(&l);
}
