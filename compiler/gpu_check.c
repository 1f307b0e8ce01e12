/* Checker of launch lists: the invariants of ir/launch.h, derived again from what the launches say.
 *
 * Input: a Plan. Output: true, or the first broken promise in words. A buffer's life is counted anew from the
 * arguments that name it; what the planner noted is not trusted.
 */
#include "gpu_plan.h"

#include <stdarg.h>
#include <string.h>

enum { ALIGN_LEN = 16, BUFFER_ALIGN_LEN = 256, MOST_THREADS = 1024, MOST_GRID_Y = 65535 };

typedef struct {
    const Plan *plan;
    const Launches *l;
    Text *why;
    int list, launch;      /* where it looks, for messages */
} Check;

static const char *const list_names[N_LISTS] = { "prefill", "decode", "feed", "draw" };

static bool fail(const Check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(const Check *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    Arena *scratch = arena_new();
    text_printf(c->why, "%s, launch %d: %s", list_names[c->list], c->launch, arena_vprintf(scratch, format, args));
    arena_free(scratch);
    va_end(args);
    return false;
}

static bool inside(const Check *c, const char *what, int64_t offset, int64_t len)
{
    return (offset >= 0 && offset < len && offset % ALIGN_LEN == 0)
        || fail(c, "offset %lld of %s, which has %lld bytes", (long long)offset, what, (long long)len);
}

static bool check_state(const Check *c, const LaunchArg *arg)
{
    const Plan *p = c->plan;
    if (arg->token_offset < 0 || arg->token_offset > INT32_MAX)
        return fail(c, "a state's offset a token is %lld", (long long)arg->token_offset);
    /* What grows with the context begins behind the fixed part. */
    if (arg->offset == p->state_len)
        return arg->token_offset < p->state_token_len || fail(c, "a ring behind the last");
    return (arg->token_offset == 0 || fail(c, "a fixed state that grows with the context"))
        && inside(c, "a state", arg->offset, p->state_len);
}

static bool check_arg(const Check *c, const LaunchArg *arg)
{
    switch (arg->kind) {
    case ARG_WEIGHTS: return inside(c, "the weights", arg->offset, c->plan->weights_len);
    case ARG_STATE: return check_state(c, arg);
    case ARG_SCRATCH: return inside(c, arg->buffer->name, arg->offset, arg->buffer->len);
    case ARG_COUNT: return (arg->offset >= 0 && arg->offset < N_COUNTS) || fail(c, "no such count");
    case ARG_INT: return (arg->offset >= INT32_MIN && arg->offset <= INT32_MAX) || fail(c, "a number too large");
    case ARG_TENSOR_MAP: return (arg->offset >= 0 && arg->offset < c->l->n_maps) || fail(c, "no such tensor map");
    default: return true;
    }
}

/* What a device of the target would refuse. Blocks that wait for each other are one a multiprocessor, for which shared
 * memory and (min_blocks) registers must do. */
static bool check_block(const Check *c, const Launch *launch)
{
    const Kernel *kernel = &c->l->kernels[launch->kernel];
    const LaunchExtent *y = &launch->grid[1];
    const int shared_most = sm_shared_most(target_sm(c->plan->target));
    if (kernel->n_threads < 32 || kernel->n_threads > MOST_THREADS || kernel->n_threads % 32)
        return fail(c, "%s has %d threads", kernel->template, kernel->n_threads);
    if (launch->shared_len < 0 || launch->shared_len > shared_most)
        return fail(c, "%s needs %d bytes of shared memory of %d", kernel->template, launch->shared_len, shared_most);
    if (y->count == COUNT_ONE && (1 + y->divisor - 1) / y->divisor + y->extra > MOST_GRID_Y)
        return fail(c, "%s has %d rows of blocks", kernel->template, y->extra + 1);
    return !(launch->flags & LAUNCH_COOPERATIVE)
        || (launch->grid[0].count == COUNT_RESIDENT && y->count == COUNT_ONE && y->extra == 0 && kernel->min_blocks > 0)
        || fail(c, "%s: blocks that wait, and may not all be there", kernel->template);
}

static bool check_launch(const Check *c, const Launch *launch)
{
    if (launch->kernel < 0 || launch->kernel >= c->l->n_kernels || launch->first_arg < 0
        || launch->first_arg + launch->n_args > c->l->n_args)
        return fail(c, "no such kernel or arguments");
    for (int d = 0; d < 2; d++)
        if (launch->grid[d].divisor < 1 || launch->grid[d].extra < 0)
            return fail(c, "a grid of no extent");
    if (launch->grid[0].count == COUNT_RESIDENT
        && (launch->grid[0].divisor > launch->grid[0].extra || !(launch->flags & LAUNCH_COOPERATIVE)))
        return fail(c, "blocks that cannot all be there");
    if (!check_block(c, launch))
        return false;
    for (int i = 0; i < launch->n_args; i++)
        if (!check_arg(c, &c->l->args[launch->first_arg + i]))
            return false;
    return true;
}

/* ---- lives ---- */

typedef struct { int first, last; bool written; } Life;

/* Where a buffer is named; reading it before anything wrote it is an error. */
static bool find_lives(Check *c, Life *lives)
{
    LaunchList list = c->l->lists[c->list];
    for (int i = 0; i < c->l->n_buffers[c->list]; i++)
        lives[i] = (Life){ -1, -1, c->l->buffers[c->list][i]->offset < c->l->zeroed_len };
    for (int at = list.begin; at < list.end; at++) {
        const Launch *launch = &c->l->launches[at];
        c->launch = at - list.begin;
        for (int i = 0; i < launch->n_args; i++) {
            const LaunchArg *arg = &c->l->args[launch->first_arg + i];
            int b = 0;
            while (arg->buffer && b < c->l->n_buffers[c->list] && c->l->buffers[c->list][b] != arg->buffer)
                b++;
            if (!arg->buffer)
                continue;
            if (b == c->l->n_buffers[c->list])
                return fail(c, "%s is another list's", arg->buffer->name);
            lives[b].first = lives[b].first < 0 ? c->launch : lives[b].first;
            lives[b].last = c->launch;
            if (arg->access != ACCESS_WRITE && !lives[b].written)
                return fail(c, "%s is read before anything wrote it", arg->buffer->name);
            lives[b].written |= arg->access == ACCESS_WRITE;
        }
    }
    return true;
}

static bool overlap(const LaunchBuffer *a, const LaunchBuffer *b)
{
    return a->offset < b->offset + b->len && b->offset < a->offset + a->len;
}

static bool check_buffers(Check *c)
{
    int n = c->l->n_buffers[c->list];
    LaunchBuffer **buffers = c->l->buffers[c->list];
    Arena *scratch = arena_new();
    Life *lives = arena_array(scratch, Life, (size_t)n + 1);
    bool good = find_lives(c, lives);
    for (int i = 0; i < n && good; i++) {
        if (buffers[i]->offset < 0 || buffers[i]->offset % BUFFER_ALIGN_LEN
            || buffers[i]->offset + buffers[i]->len > c->l->scratch_len)
            good = fail(c, "%s lies outside of scratch", buffers[i]->name);
        for (int j = 0; j < i && good; j++)
            if (lives[i].first <= lives[j].last && lives[j].first <= lives[i].last && overlap(buffers[i], buffers[j]))
                good = fail(c, "%s and %s overlap", buffers[i]->name, buffers[j]->name);
    }
    arena_free(scratch);
    return good;
}

bool gpu_check(const Plan *plan, Text *why)
{
    Check c = { .plan = plan, .l = plan->launches, .why = why };
    for (c.list = 0; c.list < N_LISTS; c.list++) {
        LaunchList list = c.l->lists[c.list];
        for (int at = list.begin; at < list.end; at++) {
            c.launch = at - list.begin;
            if (!check_launch(&c, &c.l->launches[at]))
                return false;
        }
        if (!check_buffers(&c))
            return false;
    }
    return true;
}
