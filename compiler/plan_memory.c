/* Memory of a process that runs a plan, and holding it to --max-rss.
 *
 * Input: a Plan (or the sizes an artifact's manifest tells), tokens of context and threads. Output:
 * bytes of every part. All of it is exact but for `program`: code, stacks and the C library.
 * Invariant: sums saturate at INT64_MAX instead of wrapping, so that a huge context is still refused.
 */
#include "plan.h"
#include "slots.h"

#include <string.h>

enum {
    WEIGHTS_HEADER_LEN = 4096,       /* page before the packed weights */
    STATE_HEADER_LEN = 64,
    PROGRAM_LEN = 2560 << 10,        /* code, stacks, libc: 2.0 to 2.3 MB measured with 1 to 8 threads, x86-64, glibc */
    ALIGN_LEN = 64,
};

static int64_t add(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static int64_t times(int64_t a, int64_t b)
{
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

static int64_t align(int64_t len) { return add(len, ALIGN_LEN - 1) / ALIGN_LEN * ALIGN_LEN; }

MemorySizes plan_memory_sizes(const Plan *plan)
{
    return (MemorySizes){ .weights_len = plan->weights_len, .state_len = plan->state_len,
                          .window_len = plan->window_len, .state_token_len = plan->state_token_len,
                          .shared_len = plan->shared_len, .private_len = plan->private_len,
                          .vocab_size = plan->graph->vocab_size, .logits_len = plan->logits_len };
}

PlanMemory memory_of_sizes(const MemorySizes *sizes, int64_t n_context, int n_threads)
{
    int64_t rings = add(sizes->window_len, times(sizes->state_token_len, n_context));
    PlanMemory m = {
        .weights = add(WEIGHTS_HEADER_LEN, sizes->weights_len),
        .state = STATE_HEADER_LEN + sizes->state_len - sizes->window_len,
        .shared = sizes->shared_len,
        .private_all = times(sizes->private_len, n_threads),
        /* One row of logits and the sampler's two. */
        .logits = add(align(4 * sizes->vocab_size), align(8 * sizes->vocab_size)),
        .program = PROGRAM_LEN,
    };
    if (sizes->logits_len) {         /* what is counted is the device's: no sampler, no code */
        m.logits = sizes->logits_len;
        m.program = 0;
    }
    m.window = rings > INT64_MAX - ALIGN_LEN ? INT64_MAX : align(rings);
    const int64_t parts[] = { m.weights, m.state, m.window, m.shared, m.private_all, m.logits, m.program };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        m.total = add(m.total, parts[i]);
    return m;
}

PlanMemory plan_memory(const Plan *plan, int64_t n_context, int n_threads)
{
    MemorySizes sizes = plan_memory_sizes(plan);
    return memory_of_sizes(&sizes, n_context, n_threads);
}

/* ---- the budget ---- */

static double mb(int64_t len) { return (double)len / 1e6; }

static void note_part(Diags *diags, const char *part, int64_t len)
{
    diag_note(diags, NULL, "%-34s %15lld bytes %12.2f MB", part, (long long)len, mb(len));
}

static void note_weights(const Plan *plan, Diags *diags, Arena *scratch)
{
    int64_t len[N_LAYER_KINDS] = { 0 };
    int n[N_LAYER_KINDS] = { 0 };
    for (int i = 0; i < plan->n_layers; i++) {
        LayerKind kind = plan->graph->layers[i].kind;
        len[kind] += plan->layers[i].block->weights_len;
        n[kind]++;
    }
    for (int kind = 0; kind < N_LAYER_KINDS; kind++)
        if (n[kind])
            note_part(diags, arena_printf(scratch, "weights of %d %s layer%s", n[kind],
                                          layer_kind_text((LayerKind)kind), n[kind] == 1 ? "" : "s"), len[kind]);
    note_part(diags, "weights: embedding, norm, head", plan->main->weights_len + WEIGHTS_HEADER_LEN);
}

static void note_parts(const Plan *plan, Diags *diags, const PlanMemory *m, int64_t n_context, int n_threads)
{
    Arena *scratch = arena_new();
    note_weights(plan, diags, scratch);
    note_part(diags, "state", m->state);
    note_part(diags, arena_printf(scratch, "keys and values, context %lld", (long long)n_context), m->window);
    note_part(diags, "scratch, shared", m->shared);
    note_part(diags, arena_printf(scratch, "scratch of %d thread%s", n_threads, n_threads == 1 ? "" : "s"),
              m->private_all);
    note_part(diags, "logits and sampler", m->logits);
    note_part(diags, "program (an estimate)", m->program);
    note_part(diags, "total", m->total);
    arena_free(scratch);
}

/* What the matrices of the whole model would take with `bits` an element, less what they take. */
static int64_t change_of_quant(const Plan *plan, int bits)
{
    int64_t change = 0;
    for (int i = -1; i < plan->n_layers; i++) {
        const BlockPlan *block = i < 0 ? plan->main : plan->layers[i].block;
        for (int w = 0; w < block->n_weights; w++) {
            const WeightSlot *slot = &block->weights[w];
            if (slot_is_matrix(slot))
                change += slot->len * bits / dtype_info(slot->dtype)->bits - slot->len;
        }
    }
    return change;
}

static void hint_quant(const Plan *plan, Diags *diags, int64_t total, int64_t max_rss)
{
    int64_t last = 0;
    for (int d = 0; d < N_DTYPES; d++) {
        int64_t change = d == DTYPE_I32 ? 0 : change_of_quant(plan, dtype_info((DType)d)->bits);
        if (change >= 0 || change == last)
            continue;
        last = change;
        diag_note(diags, NULL, "--quant %s would need %.2f MB%s", dtype_info((DType)d)->text, mb(total + change),
                  total + change <= max_rss ? ", which fits" : ", still too much");
    }
}

static void hint_context(const MemorySizes *sizes, Diags *diags, int64_t max_rss, int n_threads)
{
    int64_t left = max_rss - memory_of_sizes(sizes, 0, n_threads).total;
    if (sizes->state_token_len && left > sizes->state_token_len)
        diag_note(diags, NULL, "a context of %lld tokens would fit", (long long)(left / sizes->state_token_len));
}

static void hint_threads(const MemorySizes *sizes, Diags *diags, int64_t max_rss, int64_t n_context, int n_threads)
{
    int n = n_threads;
    while (n > 0 && memory_of_sizes(sizes, n_context, n).total > max_rss)
        n--;
    if (n > 0)
        diag_note(diags, NULL, "%d thread%s would fit", n, n == 1 ? "" : "s");
}

bool plan_fits(const Plan *plan, Diags *diags, int64_t max_rss, int64_t n_context, int n_threads)
{
    MemorySizes sizes = plan_memory_sizes(plan);
    PlanMemory m = memory_of_sizes(&sizes, n_context, n_threads);
    if (m.total <= max_rss)
        return true;
    diag_report(diags, DIAG_MEMORY_BUDGET, NULL,
                "%s needs %lld bytes (%.2f MB), --max-rss allows %lld (%.2f MB): %.2f MB too much",
                plan->graph->name, (long long)m.total, mb(m.total), (long long)max_rss, mb(max_rss),
                mb(m.total - max_rss));
    note_parts(plan, diags, &m, n_context, n_threads);
    hint_quant(plan, diags, m.total, max_rss);
    hint_context(&sizes, diags, max_rss, n_threads);
    hint_threads(&sizes, diags, max_rss, n_context, n_threads);
    return false;
}
