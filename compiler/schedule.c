/* Schedule: each operation is shared out among threads, and a barrier stands where a thread would
 * read what another wrote, or overwrite what another may still read.
 *
 * Input: a lowered block. Output: its steps. A phase is what runs between two barriers. Invariant,
 * played through by compiler/plan_races.c: no thread depends on another within a phase.
 */
#include "schedule.h"

#include "../ir/product.h"
#include "../ir/text.h"

enum { SMALL_MATRIX_LEN = 256 << 10 };     /* of a second-level cache (measured in bench/NOTES.md) */

static const char *const split_rows[] = { "columns", "rows", "items", "all" };
const char *split_text(Split split) { return split_rows[split]; }

typedef struct { int64_t row_split, panel; } Sharing;

/* Bytes of an expert's matrix. */
static int64_t matrix_len(const Op *op)
{
    const Type w = product_of(op).weight->type;
    return w.dim[w.rank - 2].n * w.dim[w.rank - 1].n * dtype_info(w.dtype)->bits / 8;
}

/* Threads that share columns all pack all rows; those that share rows all read all weights, which costs nothing only
 * where a cache keeps them. One panel is one thread's work if it is not shared by rows. The head's rows are few. */
static bool takes_rows(const Op *op, Phase phase, Sharing sharing)
{
    const Type y = op->result[0]->type;
    const int64_t n_panels = (y.dim[1].n + sharing.panel - 1) / sharing.panel;
    if (phase != PHASE_PREFILL || y.dim[0].sym == SYM_R)
        return false;
    return sharing.row_split ? n_panels <= sharing.row_split : n_panels == 1 || matrix_len(op) <= SMALL_MATRIX_LEN;
}

static Split split_of(const Op *op, Phase phase, Sharing sharing)
{
    switch (op->kind) {
    case OP_EMBED:
        return SPLIT_ROWS;
    case OP_QUANTIZE: case OP_RMS_NORM: case OP_ROUTE: case OP_RMS_NORM_ROUTE: case OP_ROPE: case OP_ROPE_TABLE:
        /* Of one token: cheaper to compute everywhere than to wait for. */
        return phase == PHASE_DECODE ? SPLIT_ALL : SPLIT_ROWS;
    case OP_GROUP:
        return SPLIT_ALL;
    case OP_ATTENTION:
        return SPLIT_ITEMS;
    case OP_LINEAR: case OP_EXPERT_LINEAR: case OP_EXPERT_LINEAR_COMBINE:
        return takes_rows(op, phase, sharing) ? SPLIT_ROWS : SPLIT_COLUMNS;
    case OP_CONV1D: case OP_SCAN: case OP_SWIGLU: case OP_RING_WRITE:
        return SPLIT_COLUMNS;
    default:
        BUG("%s is not lowered", op_info(op->kind).text);
    }
}

/* Does an operation split by columns read operand `i` only in its own columns? */
static bool reads_own_columns(const Op *op, int i)
{
    switch (op->kind) {
    case OP_CONV1D: return i == 0;
    case OP_SCAN: return i != 2;
    case OP_SWIGLU: return true;
    case OP_RING_WRITE: return i < 2;
    case OP_LINEAR: return i == 3 || i == 4;
    case OP_EXPERT_LINEAR: return i == 6;
    case OP_EXPERT_LINEAR_COMBINE: return i == 7;
    default: return false;
    }
}

/* Columns an operation shares out: of its result, or of what it stores. */
static int64_t split_columns(const Op *op)
{
    const Value *value = op->n_results ? op->result[0] : op->operand[0];
    return value->type.dim[value->type.rank - 1].n;
}

Step *schedule_find(const Schedule *s, const Op *op)
{
    for (int i = 0; i < s->n_steps; i++)
        if (s->steps[i].op == op)
            return &s->steps[i];
    return NULL;
}

bool op_updates(const Op *op, const Value **x)
{
    int slot = op->kind == OP_LINEAR ? 3 + (op->n_operands > 4) : op->kind == OP_EXPERT_LINEAR ? 6
             : op->kind == OP_EXPERT_LINEAR_COMBINE ? 7 : -1;
    *x = slot >= 0 && slot < op->n_operands ? op->operand[slot] : NULL;
    return *x != NULL;
}

/* The value whose bytes these are: what is updated in place, rows of another, or itself. */
const Value *value_storage(const Value *value)
{
    const Value *x;
    while (value->def) {
        if (value->def->kind == OP_LAST_ROWS || value->def->kind == OP_CALL)
            value = value->def->operand[0];
        else if (op_updates(value->def, &x))
            value = x;
        else
            break;
    }
    return value;
}

/* In the phase of `def`, may `op` read operand `i` without waiting? */
static bool reads_own_part(const Step *def, const Op *op, Split split, int i)
{
    if (def->split == SPLIT_ALL)
        return true;
    if (def->split == SPLIT_COLUMNS && split == SPLIT_COLUMNS)
        return reads_own_columns(op, i) && split_columns(def->op) == split_columns(op);
    /* Rows of a call are the same rows everywhere; rows of last_rows are not. */
    return def->split == SPLIT_ROWS && split == SPLIT_ROWS && !value_is(op->operand[i], OP_LAST_ROWS);
}

/* Must the threads meet before `op`, given the steps of phase `phase` so far? */
static bool needs_barrier(const Schedule *s, int phase, const Op *op, Split split)
{
    for (int i = 0; i < op->n_operands; i++) {
        const Value *value = op->operand[i] ? value_storage(op->operand[i]) : NULL;
        const Step *def = value && value->def ? schedule_find(s, value->def) : NULL;
        if (def && def->phase == phase && !reads_own_part(def, op, split, i))
            return true;
    }
    /* Writes into what others may still be reading: the residual stream, a ring. */
    const Value *x;
    bool update = op_updates(op, &x), ring = op->kind == OP_RING_WRITE;
    for (int j = 0; j < s->n_steps && (update || ring); j++) {
        const Step *step = &s->steps[j];
        for (int i = 0; step->phase == phase && i < step->op->n_operands; i++)
            if ((update && step->op->operand[i] == x)
                || (ring && (step->op->operand[i] == op->operand[2])))
                return true;
    }
    return false;
}

static bool is_step(const Op *op)
{
    return op->kind != OP_WEIGHT && op->kind != OP_STATE && op->kind != OP_LAST_ROWS && op->kind != OP_YIELD;
}

/* Calls are whole blocks: they begin and end with all threads together. */
void schedule_block(Arena *arena, const Block *block, int64_t row_split, int64_t panel, Schedule *s)
{
    const Sharing sharing = { row_split, panel };
    int n = 0, phase = 0;
    for (const Op *op = block->first; op; op = op->next)
        n += is_step(op);
    s->steps = arena_array(arena, Step, (size_t)n);
    bool after_call = false;
    for (const Op *op = block->first; op; op = op->next) {
        if (!is_step(op))
            continue;
        bool call = op->kind == OP_CALL;
        Split split = call ? SPLIT_ALL : split_of(op, block->phase, sharing);
        bool barrier = s->n_steps && (call ? !after_call : !after_call && needs_barrier(s, phase, op, split));
        phase += barrier || after_call;
        s->steps[s->n_steps++] = (Step){ .op = op, .split = split, .barrier = barrier, .phase = phase,
                                         .scratch_offset = -1 };
        after_call = call;
    }
    s->n_phases = phase + 1;
}
