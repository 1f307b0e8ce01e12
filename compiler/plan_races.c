/* Checker of plans, threads: between two barriers nobody touches what another thread writes.
 *
 * Every schedule is played for 2, 3 and 5 threads. A step becomes rectangles (rows by panels) that a
 * thread reads and writes, as codegen/templates/README.md says of its kernel; two rectangles of different
 * threads in one phase that meet, one of them written, are a race. The planner's own rules are not used.
 */
#include "plan_races.h"

enum { MAX_ACCESSES = 16 };

/* Rows and panels [begin, end) of a value. */
typedef struct { int64_t row, row_end, panel, panel_end; } Region;
typedef struct { const Value *storage; Region region; bool write; bool items; } Access;
typedef struct { Access at[MAX_ACCESSES]; int n; } Accesses;

typedef struct {
    const Checker *check;
    const Step *step;
    int thread, n_threads;
    Accesses *out;
} Player;

enum { EVERY = 1 << 30 };
static const Region all = { 0, EVERY, 0, EVERY };

/* As moss_share of runtime/program.h divides. */
static int64_t share(int64_t n, int thread, int n_threads) { return n * thread / n_threads; }

static Region own_rows(const Player *p)
{
    int64_t n = p->check->phase == PLAN_DECODE ? 1 : p->check->plan->chunk;
    return (Region){ share(n, p->thread, p->n_threads), share(n, p->thread + 1, p->n_threads), 0, EVERY };
}

static Region own_panels(const Player *p)
{
    const Op *op = p->step->op;
    const Value *value = op->n_results ? op->result[0] : op->operand[0];
    int64_t panel = p->check->plan->tiling.panel, n = (value->type.dim[value->type.rank - 1].n + panel - 1) / panel;
    return (Region){ 0, EVERY, share(n, p->thread, p->n_threads), share(n, p->thread + 1, p->n_threads) };
}

static void touch(const Player *p, const Value *value, Region region, bool write)
{
    const Value *storage = check_storage(value);
    bool leaf_weight = storage->def && storage->def->kind == OP_WEIGHT;
    bool caller = storage->buffer->space == SPACE_CALLER && !storage->def;      /* tokens: nobody writes */
    if (leaf_weight || caller || storage->buffer->space == SPACE_PRIVATE)
        return;
    /* A view's rows are others than its storage's. */
    if (value_is(value, OP_LAST_ROWS))
        region = all;
    if (region.row < region.row_end && region.panel < region.panel_end)
        p->out->at[p->out->n++] = (Access){ storage, region, write, p->step->split == SPLIT_ITEMS };
}

static void read_operand(const Player *p, int i, Region region)
{
    const Op *op = p->step->op;
    if (i < op->n_operands && op->operand[i])
        touch(p, op->operand[i], region, false);
}

static void update_operand(const Player *p, int i, Region region)
{
    read_operand(p, i, region);
    touch(p, p->step->op->operand[i], region, true);
}

static void write_results(const Player *p, Region region)
{
    for (int r = 0; r < p->step->op->n_results; r++)
        touch(p, p->step->op->result[r], region, true);
}

/* Region by split: what the thread's part of the result is. */
static Region own_part(const Player *p)
{
    switch (p->step->split) {
    case SPLIT_COLUMNS: return own_panels(p);
    case SPLIT_ROWS: return own_rows(p);
    default: return all;
    }
}

/* What the kernel of the step touches. Products by columns, groups, calls and attention read whole operands. */
static void play_step(const Player *p)
{
    const Op *op = p->step->op;
    Region own = own_part(p);
    bool by_part = op->kind == OP_SWIGLU || op->kind == OP_ROPE || op->kind == OP_RMS_NORM || op->kind == OP_ROUTE
                || op->kind == OP_QUANTIZE
                || op->kind == OP_RMS_NORM_ROUTE || op->kind == OP_EMBED || op->kind == OP_ROPE_TABLE;
    switch (op->kind) {
    case OP_CONV1D:
        read_operand(p, 0, own);
        update_operand(p, 3, own);
        break;
    case OP_SCAN:
        for (int i = 0; i < 7; i++)
            if (i != 5)
                read_operand(p, i, i == 2 ? all : own);
        update_operand(p, 5, own);
        break;
    case OP_RING_WRITE:
        read_operand(p, 0, own);
        read_operand(p, 1, own);
        update_operand(p, 2, own);
        update_operand(p, 3, own);
        break;
    case OP_LINEAR: case OP_EXPERT_LINEAR: case OP_EXPERT_LINEAR_COMBINE: {
        int updated = op->kind == OP_LINEAR ? 3 : op->kind == OP_EXPERT_LINEAR ? 6 : 7;
        for (int i = 0; i < op->n_operands; i++)
            read_operand(p, i, i >= updated || p->step->split == SPLIT_ROWS ? own : all);
        break;
    }
    default:
        for (int i = 0; i < op->n_operands; i++)
            read_operand(p, i, by_part ? own : all);
        break;
    }
    write_results(p, own);
}

/* ---- meeting ---- */

static bool meet(const Access *a, const Access *b)
{
    return a->storage == b->storage && (a->write || b->write) && a->region.row < b->region.row_end
        && b->region.row < a->region.row_end && a->region.panel < b->region.panel_end
        && b->region.panel < a->region.panel_end;
}

/* Two steps of one phase, thread `t` at the first and `u` at the second. */
static bool steps_agree(const Checker *c, int first, int second, int t, int u, int n_threads)
{
    const Step *steps = c->block->schedule[c->phase].steps;
    Accesses a = { 0 }, b = { 0 };
    play_step(&(Player){ c, &steps[first], t, n_threads, &a });
    play_step(&(Player){ c, &steps[second], u, n_threads, &b });
    for (int i = 0; i < a.n; i++) {
        for (int j = 0; j < b.n; j++) {
            /* Items are dealt out; a call is many phases of its own. */
            bool dealt = first == second && (a.at[i].items || steps[first].op->kind == OP_CALL);
            if (dealt || !meet(&a.at[i], &b.at[j]))
                continue;
            text_printf(c->why, "@%s %s: step %d (%s) and step %d (%s) race for %%%s among %d threads", c->block->name,
                        phase_text(c->block->block[c->phase]->phase), first, op_info(steps[first].op->kind).text, second,
                        op_info(steps[second].op->kind).text, a.at[i].storage->name, n_threads);
            return false;
        }
    }
    return true;
}

/* Phases count what the written code waits for: a barrier before the step, or the one a call ends with. */
static bool check_phases(const Checker *c)
{
    const Schedule *s = &c->block->schedule[c->phase];
    int phase = 0;
    for (int i = 0; i < s->n_steps; i++) {
        bool waits = i > 0 && (s->steps[i].barrier || s->steps[i - 1].op->kind == OP_CALL);
        phase += waits;
        if (s->steps[i].phase != phase) {
            text_printf(c->why, "@%s: step %d says phase %d, barriers make it %d", c->block->name, i,
                        s->steps[i].phase, phase);
            return false;
        }
        /* A call's block begins to touch what it is given at once. */
        if (s->steps[i].op->kind == OP_CALL && i > 0 && !waits) {
            text_printf(c->why, "@%s: the call at step %d does not wait", c->block->name, i);
            return false;
        }
    }
    if (s->n_phases != phase + 1)
        text_printf(c->why, "@%s: %d phases, found %d", c->block->name, s->n_phases, phase + 1);
    return s->n_phases == phase + 1;
}

bool check_races(const Checker *c)
{
    static const int teams[] = { 2, 3, 5 };
    const Schedule *s = &c->block->schedule[c->phase];
    if (!check_phases(c))
        return false;
    for (int n = 0; n < 3; n++)
        for (int i = 0; i < s->n_steps; i++)
            for (int j = i; j < s->n_steps && s->steps[j].phase == s->steps[i].phase; j++)
                for (int t = 0; t < teams[n]; t++)
                    for (int u = 0; u < teams[n]; u++)
                        if (t != u && !steps_agree(c, i, j, t, u, teams[n]))
                            return false;
    return true;
}
