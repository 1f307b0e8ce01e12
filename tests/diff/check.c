/* One check: compile, run every way there is to run it, compare.
 *
 * The same tokens are processed as one prefill, one at a time, and in chunks, in every mode and
 * with several thread counts. The prefill of each mode on the first thread count is held against
 * the reference within the dtype's tolerance; every other run against that prefill within
 * AGREE_TOLERANCE, and how many of them are the same to the bit is counted. An ill-conditioned
 * model is allowed what rounding alone can do to it, and the line says so.
 * Input: a Check. Output: a verdict. Invariant: a NaN anywhere fails.
 */
#include "check.h"
#include "artifact.h"
#include "condition.h"
#include "process.h"
#include "settle.h"
#include "../../ir/quant.h"
#include "../../ir/target.h"
#include "weights_draw.h"

#include "../../compiler/gpu_accept.h"
#include "../../compiler/graph_read.h"
#include "../../compiler/weights.h"
#include "../../ir/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define AGREE_TOLERANCE 1e-5
/* Rounding at every step adds up to some 2 to 26 times what rounding the embedding alone does
 * (measured with the reference's own loops in float32 on 350 cases); a wider allowance than
 * HOPELESS would let mistakes through. */
#define CONDITION_FACTOR 32
#define HOPELESS 0.05

/* Of rows rounded to 8 bits one value in thousands lies so close to a boundary that float32 rounds it the other way.
 * Units of this size make a few of a token's do so in the reference, more than in float32. */
#define ROW_UNIT 0x1p-20
#define ROW_CONDITION_FACTOR 2
#define ROW_HOPELESS 0.25

/* A GPU rounds every activation to 16 bits, a unit being half of their last place. A logit may be off by 16 units of
 * the largest, or by 4 times what rounding the embedding to such units does (measured: 1 to 3 times); a choice of
 * experts is settled with a lead of 24 units. */
#define GPU_UNITS 16
#define GPU_CONDITION_FACTOR 4
#define GPU_LEAD_UNITS 24
#define GPU_HOPELESS 0.25

/* Lengths that do not divide the prompts' and one that most chunks are rounded to. */
static const int chunks[] = { 2, 3, 7, 64 };

enum { N_CHUNKS = sizeof chunks / sizeof chunks[0], N_SCHEDULES = 2 + N_CHUNKS };

/* The inputs both sides read. */
typedef struct {
    const char *graph_path, *weights_source;
    Graph *graph;
    Weights *weights;
    TargetId target;
    bool gpu;
    DType quant;         /* REF_OWN: the checkpoint's */
    DType row_dtype;     /* what the target rounds rows to that meet matrices of that type: so does the reference */
    bool rounds_rows;    /* the same, or to 8 bits what meets quantised ones */
    double tolerance, agree;     /* against the reference, between runs */
    double lead;         /* of every routing */
    int32_t *tokens;     /* [n_tokens], settled */
    int n_tokens, n_replaced;
    double **expected;   /* [n_modes][n_tokens, V] */
    double rounding[GRAPH_MAX_MODES];   /* what float32 may come to, relative; see condition.h */
} Subject;

typedef struct {
    double error;          /* worst of all modes, relative to the reference */
    double disagreement;   /* worst of all runs, relative to its mode's first prefill */
    int n_runs, n_identical;
} Findings;

/* --- Preparation --- */

static const char *diags_text(Arena *arena, const Diags *diags)
{
    Text text = { 0 };
    diags_print(diags, &text);
    const char *copy = arena_strdup(arena, text.data ? text.data : "no reason given");
    text_free(&text);
    return copy;
}

/* Kernels for GPUs take heads of a multiple of 8: every "head_dim" becomes one. */
static const char *widen_heads(Arena *arena, const char *graph)
{
    static const char key[] = "\"head_dim\": ";
    Text out = { 0 };
    for (const char *at; (at = strstr(graph, key)); ) {
        char *end;
        long dim = strtol(at + strlen(key), &end, 10);
        text_append(&out, graph, (size_t)(at - graph) + strlen(key));
        text_printf(&out, "%ld", (dim + 7) / 8 * 8);
        graph = end;
    }
    text_printf(&out, "%s", graph);
    const char *copy = arena_strdup(arena, out.data);
    text_free(&out);
    return copy;
}

/* graph.json in the check's directory, unless the case brings a file. */
static bool prepare_graph(const Check *check, Arena *arena, Diags *diags, Subject *subject)
{
    const Case *test = check->test;
    subject->graph_path = test->graph_path;
    if (!test->graph_path) {
        subject->graph_path = arena_printf(arena, "%s/graph.json", check->dir);
        const char *text = subject->gpu ? widen_heads(arena, test->graph_text) : test->graph_text;
        if (!file_write(subject->graph_path, text, strlen(text)))
            return false;
    }
    subject->graph = graph_read_file(arena, diags, subject->graph_path);
    return subject->graph != NULL;
}

static bool prepare_weights(const Check *check, Arena *arena, Diags *diags, Subject *subject)
{
    const Case *test = check->test;
    subject->weights_source = test->weights;
    subject->weights = weights_open(arena, diags, subject->graph, test->weights);
    if (!subject->weights || test->draw == DRAW_PLAIN)
        return subject->weights != NULL;
    subject->weights_source = arena_printf(arena, "%s/weights.safetensors", check->dir);
    bool ok = weights_draw(subject->weights, test->draw, test->seed, subject->weights_source);
    weights_close(subject->weights);
    subject->weights = ok ? weights_open(arena, diags, subject->graph, subject->weights_source)
                          : NULL;
    return subject->weights != NULL;
}

/* Half a unit in the last place of what an activation is rounded to, relative. */
static double activation_unit(const Subject *subject)
{
    return !subject->gpu ? 0x1p-24 : subject->quant == DTYPE_BF16 ? 0x1p-9 : 0x1p-12;
}

/* The dtype asked for; with "own" the tolerance is that of the embedding's. */
static bool prepare_quant(const Check *check, Subject *subject)
{
    DType stored = weights_dtype(subject->weights, weights_find(subject->weights, "embed.weight"));
    subject->quant = REF_OWN;
    if (strcmp(check->quant, "own") != 0) {
        if (!dtype_from_text(check->quant, &stored) || stored == DTYPE_I32)
            return false;
        subject->quant = stored;
    }
    subject->row_dtype = stored == target_row_dtype(subject->target) ? stored : DTYPE_F32;
    subject->rounds_rows = !subject->gpu && (subject->row_dtype != DTYPE_F32 || dtype_is_quantised(stored));
    /* A value at a rounding boundary may go the other way, as with int8 rows. */
    subject->tolerance = subject->gpu ? GPU_UNITS * activation_unit(subject)
                       : dtype_info(subject->row_dtype != DTYPE_F32 ? DTYPE_Q8 : stored)->tolerance;
    subject->agree = subject->gpu ? subject->tolerance : AGREE_TOLERANCE;
    subject->lead = subject->gpu ? GPU_LEAD_UNITS * activation_unit(subject)
                  : subject->rounds_rows ? ROUNDED_LEAD : SETTLED_LEAD;
    return true;
}

static const Ref *open_reference(Arena *arena, const Subject *subject)
{
    const Graph *graph = subject->graph;
    return subject->gpu ? ref_open_gpu(arena, graph, subject->weights, subject->quant)
         : subject->row_dtype != DTYPE_F32 ? ref_open_rounding(arena, graph, subject->weights, subject->quant, subject->row_dtype)
         : ref_open(arena, graph, subject->weights, subject->quant);
}

static bool prepare_tokens(const Check *check, Arena *arena, Subject *subject)
{
    const Case *test = check->test;
    if (!test->tokens)
        return false;
    subject->n_tokens = test->n_tokens;
    subject->tokens = arena_array(arena, int32_t, (size_t)test->n_tokens);
    memcpy(subject->tokens, test->tokens, (size_t)test->n_tokens * sizeof *test->tokens);
    const Ref *ref = open_reference(arena, subject);
    subject->expected = settle_tokens(arena, subject->graph, ref, subject->tokens, subject->n_tokens,
                                      subject->lead, test->seed, &subject->n_replaced);
    const double unit = subject->rounds_rows ? ROW_UNIT : 0x1p-24;
    const double factor = subject->gpu ? GPU_CONDITION_FACTOR * activation_unit(subject) / unit
                        : subject->rounds_rows ? ROW_CONDITION_FACTOR : CONDITION_FACTOR;
    for (int mode = 0; subject->expected && mode < subject->graph->n_modes; mode++)
        subject->rounding[mode] = factor
            * condition_measure(arena, ref, mode, subject->tokens, subject->n_tokens,
                                subject->expected[mode], unit);
    return true;
}

static double worst_rounding(const Subject *subject)
{
    double worst = 0;
    for (int mode = 0; mode < subject->graph->n_modes; mode++)
        worst = fmax(worst, subject->rounding[mode]);
    return worst;
}

static Verdict prepare(const Check *check, Arena *arena, Subject *subject, const char **words)
{
    Diags *diags = diags_new(arena);
    subject->gpu = target_from_name(check->target, &subject->target) && target_sm(subject->target);
    if (!prepare_graph(check, arena, diags, subject)
        || !prepare_weights(check, arena, diags, subject)) {
        *words = arena_printf(arena, "cannot prepare: %s", diags_text(arena, diags));
        return VERDICT_FAILED;
    }
    if (subject->gpu && !gpu_accepts(subject->graph, NULL, subject->target, diags)) {
        *words = "this target does not take the graph";
        return VERDICT_SKIPPED;
    }
    if (!prepare_quant(check, subject) || !prepare_tokens(check, arena, subject)) {
        *words = "cannot prepare: no such dtype, or no tokens";
        return VERDICT_FAILED;
    }
    if (!subject->expected)
        *words = "no tokens found that every router is sure of";
    else if (!(worst_rounding(subject) <= (subject->gpu ? GPU_HOPELESS : subject->rounds_rows ? ROW_HOPELESS : HOPELESS)))
        *words = "so ill-conditioned that rounding is all there is";
    else
        return VERDICT_PASSED;
    return VERDICT_SKIPPED;
}

/* --- Comparison --- */

/* max |a - b| / max |b|; infinite when a value is not finite. */
static double distance_to_reference(const float *a, const double *b, size_t n)
{
    double worst = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        double difference = fabs((double)a[i] - b[i]);
        if (!isfinite(difference))
            return INFINITY;
        worst = fmax(worst, difference);
        largest = fmax(largest, fabs(b[i]));
    }
    return largest > 0 ? worst / largest : INFINITY;
}

static double distance_of_runs(const float *a, const float *b, size_t n)
{
    double worst = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        if (!isfinite(difference))
            return INFINITY;
        worst = fmax(worst, difference);
        largest = fmax(largest, fabs((double)b[i]));
    }
    return largest > 0 ? worst / largest : INFINITY;
}

/* --- Running --- */

/* Schedule 0 is the prefill, 1 the steps, then the chunks; false: a chunk holds all tokens. */
static bool schedule_make(int which, int n_tokens, Schedule *out)
{
    *out = (Schedule){ .step = which == 1, .chunk = which < 2 ? 0 : chunks[which - 2] };
    return out->chunk < n_tokens;
}

static size_t logits_count(const Subject *subject)
{
    return (size_t)(subject->n_tokens * subject->graph->vocab_size);
}

/* The prompt again, asking for its last logits alone: its pieces must not end early for that. */
static bool run_next(const Check *check, Arena *arena, const Subject *subject,
                     const Schedule *schedule, const float *first, const char **words)
{
    int vocab = (int)subject->graph->vocab_size, best = 0;
    const float *last = first + logits_count(subject) - (size_t)vocab;
    if (vocab == 256)
        return true;
    for (int i = 1; i < vocab; i++)
        best = last[i] > last[best] ? i : best;
    int next = artifact_next(check, arena, schedule, subject->tokens, subject->n_tokens, words);
    if (next >= 0 && next != best)
        *words = arena_printf(arena, "the likeliest token is %d, by the logits %d", next, best);
    return next == best;
}

/* One more run of a mode, against that mode's first. */
static bool run_again(const Check *check, Arena *arena, const Subject *subject, int mode,
                      const Schedule *schedule, const float *first, Findings *findings,
                      const char **words)
{
    size_t n = logits_count(subject);
    ArenaMark mark = arena_mark(arena);
    float *logits = artifact_run(check, arena, schedule, subject->tokens, subject->n_tokens, n,
                                 words);
    if (!logits) {
        *words = arena_printf(arena, "%s: %s", schedule_text(arena, schedule), *words);
        return false;
    }
    double distance = distance_of_runs(logits, first, n);
    findings->n_runs++;
    findings->n_identical += memcmp(logits, first, n * sizeof *first) == 0;
    findings->disagreement = fmax(findings->disagreement, distance);
    arena_release(arena, mark);
    double allowed = check->exact ? 0 : fmax(subject->agree, subject->rounding[mode]);
    bool ok = distance <= allowed;
    if (!ok)
        *words = arena_printf(arena, "%s differs from prefill by %.2g, allowed %.0e",
                              schedule_text(arena, schedule), distance, allowed);
    /* Where runs may differ in a last bit, the likeliest token may be another. */
    if (ok && check->exact && !run_next(check, arena, subject, schedule, first, words)) {
        *words = arena_printf(arena, "%s: %s", schedule_text(arena, schedule), *words);
        return false;
    }
    return ok;
}

/* Every schedule with every thread count in the default mode; in the others every schedule, the
 * thread counts taking turns. */
static bool run_schedules(const Check *check, Arena *arena, const Subject *subject, int mode,
                          const float *first, Findings *findings, const char **words)
{
    int top_k = (int)subject->graph->mode_top_k[mode];
    for (int which = 0; which < N_SCHEDULES; which++)
        for (int i = 0; i < check->n_threads; i++) {
            Schedule schedule;
            if ((which == 0 && i == 0) || !schedule_make(which, subject->n_tokens, &schedule)
                || (mode > 0 && i != (which + mode) % check->n_threads))
                continue;
            schedule.n_threads = check->threads[i];
            schedule.top_k = top_k;
            if (!run_again(check, arena, subject, mode, &schedule, first, findings, words))
                return false;
        }
    Schedule plain = { .n_threads = check->threads[0] };   /* no option: the default mode */
    return mode > 0
        || run_again(check, arena, subject, mode, &plain, first, findings, words);
}

static bool run_mode(const Check *check, Arena *arena, const Subject *subject, int mode,
                     Findings *findings, const char **words)
{
    size_t n = logits_count(subject);
    Schedule prefill = { .n_threads = check->threads[0],
                         .top_k = (int)subject->graph->mode_top_k[mode] };
    float *first = artifact_run(check, arena, &prefill, subject->tokens, subject->n_tokens, n,
                                words);
    if (!first) {
        *words = arena_printf(arena, "%s: %s", schedule_text(arena, &prefill), *words);
        return false;
    }
    double error = distance_to_reference(first, subject->expected[mode], n);
    double allowed = fmax(subject->tolerance, subject->rounding[mode]);
    findings->error = fmax(findings->error, error);
    if (!(error <= allowed)) {
        *words = arena_printf(arena, "%s: error %.2g, allowed %.0e", schedule_text(arena, &prefill),
                              error, allowed);
        return false;
    }
    return run_schedules(check, arena, subject, mode, first, findings, words);
}

static const char *summary(Arena *arena, const Subject *subject, const Findings *findings)
{
    Text text = { 0 };
    text_printf(&text, "error %.1e, runs differ by %.1e, identical %d/%d, tokens %d",
                findings->error, findings->disagreement, findings->n_identical, findings->n_runs,
                subject->n_tokens);
    if (subject->n_replaced)
        text_printf(&text, " (%d replaced)", subject->n_replaced);
    if (worst_rounding(subject) > subject->tolerance)
        text_printf(&text, ", ILL-CONDITIONED: %.0e allowed", worst_rounding(subject));
    text_printf(&text, ", modes");
    for (int mode = 0; mode < subject->graph->n_modes; mode++)
        text_printf(&text, " %d", (int)subject->graph->mode_top_k[mode]);
    const char *copy = arena_strdup(arena, text.data);
    text_free(&text);
    return copy;
}

Verdict check_run(const Check *check, Arena *arena, const char **words)
{
    Subject subject = { 0 };
    Findings findings = { 0 };
    Verdict verdict = prepare(check, arena, &subject, words);
    if (subject.weights)
        weights_close(subject.weights);
    if (verdict != VERDICT_PASSED)
        return verdict;
    if (!artifact_compile(check, arena, subject.graph_path, subject.weights_source, words))
        return VERDICT_FAILED;
    for (int mode = 0; mode < subject.graph->n_modes; mode++)
        if (!run_mode(check, arena, &subject, mode, &findings, words))
            return VERDICT_FAILED;
    *words = summary(arena, &subject, &findings);
    return VERDICT_PASSED;
}
