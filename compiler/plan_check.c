/* Checker of plans, memory: the invariants of ir/plan.h, derived again without the planner's help.
 *
 * Input: a Plan. Output: true, or the first broken promise in words. Lives are counted in steps from
 * who reads what: a buffer may be overwritten only when no thread can still need what it holds; all
 * offsets are multiples of 64 and inside their totals. Threads: compiler/plan_races.c.
 */
#include "gpu_plan.h"
#include "plan_races.h"
#include "../ir/product.h"
#include "../ir/quant.h"

#include <string.h>

enum { ALIGN_LEN = 64, MAX_LIVE = 1024 };

static bool fail(const Checker *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(const Checker *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    Arena *scratch = arena_new();
    if (c->block)
        text_printf(c->why, "@%s %s: ", c->block->name, phase_text(c->block->block[c->phase]->phase));
    text_printf(c->why, "%s", arena_vprintf(scratch, format, args));
    arena_free(scratch);
    va_end(args);
    return false;
}

/* ---- values and their storage ---- */

static const Value *accumulated_into(const Op *op)
{
    if (op->kind == OP_LINEAR)
        return op->n_operands > 3 ? op->operand[op->n_operands - 1] : NULL;
    if (op->kind == OP_EXPERT_LINEAR)
        return op->n_operands > 6 ? op->operand[6] : NULL;
    return op->kind == OP_EXPERT_LINEAR_COMBINE && op->n_operands > 7 ? op->operand[7] : NULL;
}

const Value *check_storage(const Value *value)
{
    for (;;) {
        const Op *op = value->def;
        if (op && (op->kind == OP_LAST_ROWS || op->kind == OP_CALL))
            value = op->operand[0];
        else if (op && accumulated_into(op))
            value = accumulated_into(op);
        else
            return value;
    }
}

static const Schedule *schedule_of(const Checker *c) { return &c->block->schedule[c->phase]; }

/* ---- what lies in scratch, and how long it is needed ---- */

/* Bytes [begin, end), needed from step `first` on to step `last`; what is shared, longer (see lasts). */
typedef struct { const char *name; int64_t begin, end; int first, last; bool shared; } Live;
typedef struct { Live at[MAX_LIVE]; int n; } Lives;

static bool reads(const Op *op, const Value *value)
{
    for (int i = 0; i < op->n_operands; i++)
        if (op->operand[i] && check_storage(op->operand[i]) == value)
            return true;
    return false;
}

static int last_reader(const Schedule *s, const Value *value, int def)
{
    for (int i = s->n_steps - 1; i > def; i--)
        if (reads(s->steps[i].op, value))
            return i;
    return def;
}

/* A slow thread may still be at any step of the phase: what is shared is needed from the first step of
 * the phase that writes it to the last step of the phase that reads it last. */
static void widen(const Schedule *s, Live *live)
{
    while (live->first > 0 && s->steps[live->first - 1].phase == s->steps[live->first].phase)
        live->first--;
    while (live->last + 1 < s->n_steps && s->steps[live->last + 1].phase == s->steps[live->last].phase)
        live->last++;
}

static void add_live(const Checker *c, Lives *lives, Live live)
{
    if (live.shared)
        widen(schedule_of(c), &live);
    if (lives->n == MAX_LIVE)
        BUG("more than %d buffers", MAX_LIVE);
    lives->at[lives->n++] = live;
}

/* Rows a value has at the longest chunk. */
static int64_t most_rows(const Checker *c, Type t)
{
    return t.dim[0].sym == SYM_ONE ? t.dim[0].n : t.dim[0].n * c->plan->chunk;
}

static bool check_value(const Checker *c, Lives *lives, int step, const Value *value)
{
    const Buffer *b = value->buffer;
    const Schedule *s = schedule_of(c);
    if (!b)
        return fail(c, "%%%s has no place", value->name);
    if (b->space != SPACE_SHARED && b->space != SPACE_PRIVATE)
        return true;
    if (check_storage(value) != value)     /* the storage's own life covers it */
        return value->buffer == check_storage(value)->buffer || fail(c, "%%%s is not where it is updated", value->name);
    if (b->space == SPACE_PRIVATE && s->steps[step].split != SPLIT_ALL)
        return fail(c, "%%%s is private but not every thread computes all of it", value->name);
    bool rank2 = value->type.rank == 2;
    int64_t columns = rank2 ? value->type.dim[1].n : 1;
    if (b->stride < columns || (rank2 && b->stride % c->plan->tiling.panel))
        return fail(c, "%%%s: a stride of %lld for %lld columns", value->name, (long long)b->stride, (long long)columns);
    if (b->len < most_rows(c, value->type) * b->stride * dtype_len(value->type.dtype))
        return fail(c, "%%%s: %lld bytes are too few", value->name, (long long)b->len);
    add_live(c, lives, (Live){ value->name, b->offset, b->offset + b->len, step, last_reader(s, value, step),
                               b->space == SPACE_SHARED });
    return true;
}

/* Bytes the kernel of a step packs into, from codegen/templates/README.md. */
static int64_t pack_len(const Checker *c, const Step *step)
{
    const Tiling *t = &c->plan->tiling;
    const Op *op = step->op;
    if (op->kind == OP_ATTENTION) {
        int64_t dim = op_int(op, ATTR_HEAD_DIM, 0), group = op_int(op, ATTR_HEADS, 0) / op_int(op, ATTR_KV_HEADS, 1);
        int64_t rows = step->token_block * group, stride = dim;
        while (rows % step->tile_rows)
            rows++;
        while (stride % t->panel)
            stride++;
        return 4 * (rows * (dim + step->key_block + stride + t->panel + 2) + (2 * step->key_block + 1) * stride);
    }
    if (!op_is_product(op) || c->phase == PLAN_DECODE)
        return 0;
    Type x = op->operand[0]->type;
    int64_t row_len = packed_row_len(x.dtype == DTYPE_Q8, x.dim[1].n);
    if (step->pack_lines)
        row_len = (row_len + 63) / 64 * 64;
    return (step->block_rows + t->panel) * row_len;
}

static bool check_pack(const Checker *c, Lives *lives, int index)
{
    const Step *step = &schedule_of(c)->steps[index];
    int64_t len = pack_len(c, step);
    if (len == 0)
        return true;
    if (step->op->kind != OP_ATTENTION
        && (step->block_rows < 1 || step->block_rows % step->tile_rows))
        return fail(c, "step %d packs %lld rows, not whole tiles", index, (long long)step->block_rows);
    if (step->scratch_offset < 0)
        return fail(c, "step %d has nowhere to pack", index);
    add_live(c, lives, (Live){ "(pack)", step->scratch_offset, step->scratch_offset + len, index, index, false });
    return true;
}

/* The blocks' own scratch: used by every call of main. */
static void add_inner(const Checker *c, Lives *lives)
{
    const Schedule *s = schedule_of(c);
    for (int shared = 0; shared < 2; shared++) {
        int64_t len = 0, at = shared ? c->plan->block_shared_offset[c->phase] : c->plan->block_private_offset[c->phase];
        for (int b = 0; b < c->plan->n_blocks - 1; b++) {
            const Schedule *inner = &c->plan->blocks[b].schedule[c->phase];
            int64_t own = shared ? inner->shared_len : inner->private_len;
            len = own > len ? own : len;
        }
        for (int i = 0; i < s->n_steps; i++)
            if (s->steps[i].op->kind == OP_CALL && len)
                add_live(c, lives, (Live){ "(blocks)", at, at + len, i, i, shared });
    }
}

static bool check_lives(const Checker *c, const Lives *lives)
{
    const Schedule *s = schedule_of(c);
    for (int i = 0; i < lives->n; i++) {
        const Live *a = &lives->at[i];
        int64_t len = a->shared ? s->shared_len : s->private_len;
        if (a->begin < 0 || a->begin % ALIGN_LEN || a->end > len)
            return fail(c, "%s at %lld to %lld of %lld", a->name, (long long)a->begin, (long long)a->end, (long long)len);
        for (int j = 0; j < i; j++) {
            const Live *b = &lives->at[j];
            bool same = a->shared == b->shared && a->first <= b->last && b->first <= a->last;
            /* Blocks run one after another in the same place. */
            bool both_inner = a->name[0] == '(' && strcmp(a->name, b->name) == 0 && a->begin == b->begin;
            if (same && !both_inner && a->begin < b->end && b->begin < a->end)
                return fail(c, "%s and %s overlap in %s scratch", a->name, b->name, a->shared ? "shared" : "private");
        }
    }
    return true;
}

static bool check_scratch(const Checker *c)
{
    const Schedule *s = schedule_of(c);
    Arena *scratch = arena_new();
    Lives *lives = arena_one(scratch, Lives);
    bool good = true;
    for (int i = 0; i < s->n_steps && good; i++) {
        for (int r = 0; r < s->steps[i].op->n_results && good; r++)
            good = check_value(c, lives, i, s->steps[i].op->result[r]);
        good = good && check_pack(c, lives, i);
    }
    if (good && c->block == c->plan->main)
        add_inner(c, lives);
    good = good && check_lives(c, lives);
    arena_free(scratch);
    return good;
}

/* ---- slots of weights and state ---- */

typedef struct { const char *name; int64_t begin, end; } Slot;

/* Aligned, inside [0, len), none over another. */
static bool check_slots(const Checker *c, const char *what, const Slot *slots, int n, int64_t len)
{
    for (int i = 0; i < n; i++) {
        if (slots[i].begin < 0 || slots[i].begin % ALIGN_LEN || slots[i].end > len)
            return fail(c, "%s %s at %lld to %lld of %lld", what, slots[i].name, (long long)slots[i].begin,
                        (long long)slots[i].end, (long long)len);
        for (int j = 0; j < i; j++)
            if (slots[i].begin < slots[j].end && slots[j].begin < slots[i].end)
                return fail(c, "%s %s and %s overlap", what, slots[i].name, slots[j].name);
    }
    return true;
}

static bool check_weights(const Checker *c, Arena *scratch)
{
    const BlockPlan *b = c->block;
    Slot *slots = arena_array(scratch, Slot, (size_t)b->n_weights + 1);
    for (int i = 0; i < b->n_weights; i++) {
        const WeightSlot *w = &b->weights[i];
        slots[i] = (Slot){ w->tensor, w->offset, w->offset + w->len };
        if (w->len < w->n_experts * w->n_out * w->n_in * dtype_info(w->dtype)->bits / 8)
            return fail(c, "weight %s: %lld bytes are too few", w->tensor, (long long)w->len);
    }
    if (!check_slots(c, "weight", slots, b->n_weights, b->weights_len))
        return false;
    for (const Op *op = b->block[c->phase]->first; op; op = op->next) {
        bool found = op->kind != OP_WEIGHT;
        for (int i = 0; i < b->n_weights && !found; i++)
            found = strcmp(b->weights[i].tensor, op_attr(op, ATTR_TENSOR)->str) == 0
                 && b->weights[i].offset == op->result[0]->buffer->offset
                 && b->weights[i].row_begin == (op_attr(op, ATTR_ROWS) ? op_attr(op, ATTR_ROWS)->ints.at[0] : 0);
        if (!found)
            return fail(c, "weight %%%s has no slot", op->result[0]->name);
    }
    return true;
}

static bool check_states(const Checker *c, Arena *scratch)
{
    const BlockPlan *b = c->block;
    Slot *fixed = arena_array(scratch, Slot, (size_t)b->n_states + 1);
    int64_t token_len = 0;
    int n_fixed = 0;
    for (int i = 0; i < b->n_states; i++) {
        const StateSlot *s = &b->states[i];
        if (s->stride < s->n_cols || s->len < s->n_rows * s->stride * dtype_len(s->dtype))
            return fail(c, "state %s: %lld bytes are too few", s->name, (long long)s->len);
        if (s->n_rows)
            fixed[n_fixed++] = (Slot){ s->name, s->offset, s->offset + s->len };
        else if (s->token_offset != token_len || s->token_len < s->stride * dtype_len(s->dtype))
            return fail(c, "state %s: offset a token %lld, expected %lld", s->name, (long long)s->token_offset,
                        (long long)token_len);
        token_len += s->token_len;
    }
    if (token_len != b->state_token_len)
        return fail(c, "states take %lld bytes a token, not %lld", (long long)token_len, (long long)b->state_token_len);
    return check_slots(c, "state", fixed, n_fixed, b->state_len);
}

/* ---- the model ---- */

static bool check_layers(const Checker *c, Arena *scratch)
{
    const Plan *p = c->plan;
    Slot *weights = arena_array(scratch, Slot, (size_t)p->n_layers + 1);
    Slot *states = arena_array(scratch, Slot, (size_t)p->n_layers + 1);
    int64_t token_len = p->main->state_token_len;
    weights[p->n_layers] = (Slot){ "main", 0, p->main->weights_len };
    states[p->n_layers] = (Slot){ "main", 0, p->main->state_len };
    for (int i = 0; i < p->n_layers; i++) {
        const LayerPlan *l = &p->layers[i];
        weights[i] = (Slot){ l->block->name, l->weights_offset, l->weights_offset + l->block->weights_len };
        states[i] = (Slot){ l->block->name, l->state_offset, l->state_offset + l->block->state_len };
        if (l->state_token_offset != token_len)
            return fail(c, "layer %d: rings at %lld a token, expected %lld", i, (long long)l->state_token_offset,
                        (long long)token_len);
        token_len += l->block->state_token_len;
    }
    return (token_len == p->state_token_len || fail(c, "the layers' rings are not the state's"))
        && check_slots(c, "weights of layer", weights, p->n_layers + 1, p->weights_len)
        && check_slots(c, "state of layer", states, p->n_layers + 1, p->state_len);
}

static bool check_totals(const Checker *c)
{
    const Plan *p = c->plan;
    if (p->shared_len % ALIGN_LEN || p->private_len % ALIGN_LEN)
        return fail(c, "scratch of %lld and %lld bytes is not aligned", (long long)p->shared_len, (long long)p->private_len);
    for (int phase = 0; phase < N_PLAN_PHASES; phase++)
        if (p->main->schedule[phase].shared_len > p->shared_len || p->main->schedule[phase].private_len > p->private_len)
            return fail(c, "main needs more scratch than the plan has");
    return true;
}

bool plan_check(const Plan *plan, Text *why)
{
    Checker c = { .plan = plan, .why = why };
    Arena *scratch = arena_new();
    bool good = check_totals(&c) && check_layers(&c, scratch);
    for (int b = 0; b < plan->n_blocks && good; b++) {
        c.block = &plan->blocks[b];
        for (c.phase = 0; c.phase < N_PLAN_PHASES && good; c.phase++)
            good = check_weights(&c, scratch) && check_states(&c, scratch)
                && (plan->launches || (check_scratch(&c) && check_races(&c)));
    }
    arena_free(scratch);
    return good && (!plan->launches || gpu_check(plan, why));
}
