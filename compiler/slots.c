/* Slots of weights and state: exact lengths from types and layouts, offsets in order of first use.
 *
 * Both phases of a block share slots, so that prefill and decode read the same bytes.
 */
#include "slots.h"
#include "../ir/quant.h"

#include <string.h>

bool slot_is_matrix(const WeightSlot *slot)
{
    return strncmp(slot->layout, "panel", 5) == 0
        || (strncmp(slot->layout, "device", 6) == 0 && strcmp(slot->layout, "device_decay") != 0);
}

/* Rows as a GPU reads them: [E][stored_rows][k], then the scales of q8. See docs/gpu.md, section 2. */
static void device_slot(WeightSlot *slot, const Op *op)
{
    Type t = op->result[0]->type;
    const Attr *pair = op_attr(op, ATTR_PAIR);
    bool joined = strcmp(slot->layout, "device_joined") == 0;
    slot->n_experts = t.rank == 3 ? t.dim[0].n : 1;
    slot->n_out = t.dim[t.rank - 2].n;
    slot->n_in = t.dim[t.rank - 1].n;
    slot->pair = pair ? pair->str : NULL;
    slot->n_parts = op_int(op, ATTR_PARTS, 1);
    slot->stored_rows = slot->n_parts == 1 ? slot->n_out : slot->n_parts * round_up(slot->n_out / slot->n_parts, 8);
    slot->row_stride = round_up(joined ? slot->n_experts * slot->n_in : slot->n_in, 64);
    int64_t n_rows = joined ? slot->n_out : slot->n_experts * slot->stored_rows;
    slot->len = n_rows * slot->row_stride * dtype_len(slot->dtype);
    if (dtype_is_quantised(slot->dtype)) {
        slot->scales = round_up(slot->len, DEVICE_ALIGN);
        slot->len = slot->scales + 4 * n_rows;
    }
}

static WeightSlot weight_slot(const Op *op, int panel, int group, int64_t offset)
{
    Type t = op->result[0]->type;
    const Attr *rows = op_attr(op, ATTR_ROWS), *layout = op_attr(op, ATTR_LAYOUT);
    WeightSlot slot = { .tensor = op_attr(op, ATTR_TENSOR)->str, .layout = layout ? layout->str : "rows",
                        .dtype = t.dtype, .row_begin = rows ? rows->ints.at[0] : 0,
                        .n_experts = 1, .n_in = 1, .offset = offset };
    int64_t size = dtype_len(t.dtype);
    if (strncmp(slot.layout, "device", 6) == 0 && slot_is_matrix(&slot)) {
        device_slot(&slot, op);
    } else if (strcmp(slot.layout, "vector") == 0) {          /* [n] or [E, n] */
        slot.n_experts = t.rank == 2 ? t.dim[0].n : 1;
        slot.n_out = t.dim[t.rank - 1].n;
        slot.len = slot.n_experts * round_up(slot.n_out, panel) * size;
    } else if (slot_is_matrix(&slot)) {                /* panel, panel_pairs: [out, in] or [E, out, in] */
        slot.n_experts = t.rank == 3 ? t.dim[0].n : 1;
        slot.n_out = t.dim[t.rank - 2].n;
        slot.n_in = t.dim[t.rank - 1].n;
        slot.len = slot.n_experts * (round_up(slot.n_out, panel) / panel) 
                 * panel_len(t.dtype, strcmp(slot.layout, "panel_pairs") == 0 ? round_up(slot.n_in, group / 2) : slot.n_in,
                             panel, group);
    } else {
        slot.n_out = t.dim[0].n;
        slot.n_in = t.rank == 2 ? t.dim[1].n : 1;
        bool whole = strcmp(slot.layout, "rows") == 0 || strcmp(slot.layout, "device_decay") == 0;
        slot.len = whole ? slot.n_out * slot.n_in * size
                 : round_up(slot.n_out, panel) * slot.n_in * size;      /* taps, decay: transposed */
    }
    return slot;
}

static bool same_slot(const WeightSlot *a, const WeightSlot *b)
{
    return strcmp(a->tensor, b->tensor) == 0 && a->row_begin == b->row_begin && a->n_out == b->n_out;
}

const Buffer *buffer_new(Arena *arena, Buffer buffer)
{
    Buffer *copy = arena_one(arena, Buffer);
    *copy = buffer;
    return copy;
}

/* The slot of a weight, shared by both phases of the block. */
void bind_weight(Arena *arena, BlockPlan *plan, const Op *op, int panel, int group)
{
    WeightSlot slot = weight_slot(op, panel, group, plan->weights_len);
    int i = 0;
    while (i < plan->n_weights && !same_slot(&plan->weights[i], &slot))
        i++;
    if (i == plan->n_weights) {
        plan->weights[plan->n_weights++] = slot;
        plan->weights_len = round_up(slot.offset + slot.len, panel ? PLAN_ALIGN : DEVICE_ALIGN);
    }
    op->result[0]->buffer = buffer_new(arena, (Buffer){ .space = SPACE_WEIGHTS, .offset = plan->weights[i].offset,
                                                        .len = plan->weights[i].len });
}

void bind_state(Arena *arena, BlockPlan *plan, const Op *op, int panel)
{
    Type t = op->result[0]->type;
    StateSlot slot = { .name = op_attr(op, ATTR_NAME)->str, .n_rows = t.dim[0].n, .n_cols = t.dim[1].n,
                       .dtype = t.dtype,
                       .stride = round_up(t.dim[1].n, panel ? panel : 1), .offset = plan->state_len,
                       .token_offset = plan->state_token_len };
    int64_t row_len = slot.stride * dtype_len(t.dtype);
    if (t.dim[0].sym == SYM_C) {
        slot.n_rows = 0;
        slot.token_len = round_up(row_len, panel ? 4 : 16);      /* a GPU reads 16 bytes at once */
    } else {
        slot.len = slot.n_rows * row_len;
    }
    int i = 0;
    while (i < plan->n_states && strcmp(plan->states[i].name, slot.name) != 0)
        i++;
    if (i == plan->n_states) {
        plan->states[plan->n_states++] = slot;
        plan->state_len = align_len(plan->state_len + slot.len);
        plan->state_token_len += slot.token_len;
    }
    const StateSlot *s = &plan->states[i];
    op->result[0]->buffer = buffer_new(arena, (Buffer){ .space = SPACE_STATE, .offset = s->offset,
                                                        .token_offset = s->token_offset, .len = s->len,
                                                        .stride = s->stride });
}
