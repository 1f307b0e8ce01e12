/* Step: a whole model, tuned beside untuned.
 *
 * In records a step is a kernel of its own: shape the model, its phase and its tokens; points "chunk=256",
 * "row_split=4", and "choices=N", N a hash of all that was chosen of the phase's kernels, 0 of the defaults.
 */
#include "step.h"

#include "choices.h"
#include "gpu_jobs.h"
#include "gpu_measure.h"
#include "gpu_variants.h"
#include "host_lock.h"
#include "identity.h"
#include "progress.h"
#include "records_rank.h"
#include "step_build.h"
#include "../compiler/interrupt.h"
#include "../ir/kernel_key.h"
#include "../ir/product.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { STEP_TOKENS = 512 };
static const char *const phase_texts[N_PLAN_PHASES] = { "prefill", "decode" };

/* Tokens of a prefill: what fills the machine. */
static int step_tokens(const Plan *plan)
{
    int most = gpu_most_tokens();
    return !plan->launches ? STEP_TOKENS : plan->chunk < most ? plan->chunk : most;
}

/* ---- names ---- */

RecordKey step_key(Arena *arena, const Plan *plan, const RecordKey *machine, const char *what)
{
    RecordKey key = *machine;
    key.kernel = "step";
    key.shape = arena_printf(arena, "model=%016llx %s t%d", (unsigned long long)plan->hash, what,
                             step_tokens(plan));
    key.dtypes = plan->quant;
    key.template_hash = identity_template(arena, plan->target, "step");
    return key;
}

/* 0: all of the phase's kernels take their defaults. */
static uint64_t hash_choices(Arena *arena, const Plan *plan, int phase, const Choices *choices)
{
    int n;
    bool chosen = false;
    uint64_t hash = 0xCBF29CE484222325u;
    const Job *jobs = jobs_of_plan(arena, plan, &n);
    for (int i = 0; i < n; i++) {
        Text text = { 0 };
        text_printf(&text, "%s:", jobs[i].key);
        for (int p = 0; p < jobs[i].space.n; p++) {
            int64_t value = choices_get(choices, jobs[i].key, jobs[i].space.param[p]->name, jobs[i].initial.value[p]);
            chosen |= jobs[i].phase == phase && value != jobs[i].initial.value[p];
            text_printf(&text, " %s=%lld", jobs[i].space.param[p]->name, (long long)value);
        }
        for (const char *c = text.data; jobs[i].phase == phase && *c; c++)
            hash = (hash ^ (uint8_t)*c) * 0x100000001B3u;
        text_free(&text);
    }
    return chosen ? hash >> 12 : 0;
}

const char *step_point(Arena *arena, const Plan *plan, int phase, const Choices *choices)
{
    return arena_printf(arena, "choices=%llu", (unsigned long long)hash_choices(arena, plan, phase, choices));
}

static bool changes_bits(Arena *arena, const Plan *plan, const Choices *choices)
{
    int n;
    const Job *jobs = jobs_of_plan(arena, plan, &n);
    for (int i = 0; i < n; i++) {
        int keys = space_param(&jobs[i].space, "key_block");
        if (keys >= 0 && choices_get(choices, jobs[i].key, "key_block",
                                     jobs[i].initial.value[keys]) != jobs[i].initial.value[keys])
            return true;
    }
    return false;
}

/* ---- what records say ---- */

static void drop_phase(Arena *arena, const Plan *plan, int phase, Choices *choices)
{
    int n;
    const Job *jobs = jobs_of_plan(arena, plan, &n);
    for (int i = 0; i < n; i++)
        if (jobs[i].phase == phase)
            choices_drop(choices, jobs[i].key);
}

/* What comparisons of whole models say of a point: the median over all of their pairs, and whether that, or a failure,
 * speaks against it. */
typedef struct { double ratio; int n_comparisons; bool rejected; } Verdict;

static Verdict judge(Arena *arena, const Trial *trials, int n, const char *point)
{
    Verdict verdict = { .ratio = 1 };
    int n_ratios = 0, room = 0;
    for (int i = 0; i < n; i++)
        room += trials[i].n_samples;
    double *ratios = arena_array(arena, double, (size_t)room + 1);
    for (int i = 0; i < n; i++) {
        const Trial *t = &trials[i];
        if (strcmp(t->point, point) != 0)
            continue;
        verdict.rejected |= t->status == TRIAL_WRONG || t->status == TRIAL_CRASHED || t->status == TRIAL_HUNG;
        verdict.n_comparisons += t->n_samples > 0;
        for (int p = 0; p < t->n_samples && p < t->n_incumbent_samples; p++)
            ratios[n_ratios++] = t->samples[p] / t->incumbent_samples[p];
    }
    verdict.ratio = n_ratios ? rank_median(ratios, n_ratios) : 1;
    verdict.rejected |= decide_slower(verdict.ratio);
    return verdict;
}

static bool judge_phase(Records *records, Arena *arena, Diags *diags, const Plan *plan, const RecordKey *machine,
                        int phase, const Choices *choices, Verdict *verdict)
{
    Trial *trials;
    int n;
    const RecordsFilter filter = { .key = step_key(arena, plan, machine, phase_texts[phase]) };
    if (!records_list(records, arena, diags, &filter, &trials, &n))
        return false;
    *verdict = judge(arena, trials, n, step_point(arena, plan, phase, choices));
    return true;
}

/* What is chosen of whole models. */
static bool model_space(const Plan *plan, SearchSpace *space)
{
    return (plan->launches ? space_find_gpu : space_find)(KERNEL_KEY_MODEL, space);
}

bool step_apply(Records *records, Arena *arena, Diags *diags, const Plan *plan, const RecordKey *machine,
                Choices *choices)
{
    RecordBest best;
    for (int phase = 0; phase < N_PLAN_PHASES; phase++) {
        Verdict verdict;
        if (!judge_phase(records, arena, diags, plan, machine, phase, choices, &verdict))
            return false;
        if (verdict.rejected)
            drop_phase(arena, plan, phase, choices);
    }
    SearchSpace space;
    for (int i = 0; model_space(plan, &space) && i < space.n; i++) {
        const char *name = space.param[i]->name;
        const size_t len = strlen(name);
        const RecordKey key = step_key(arena, plan, machine, name);
        if (!records_best(records, arena, diags, &key, &best))
            return false;
        if (best.point && strncmp(best.point, name, len) == 0 && best.point[len] == '=' && best.speedup >= 1.01)
            choices_set(choices, KERNEL_KEY_MODEL, name, strtoll(best.point + len + 1, NULL, 10));
    }
    return true;
}

/* ---- recording ---- */

static bool record(SearchRun *run, const char *what, const char *point, const char *incumbent, const TrialPairs *pairs,
                   const StepResult *result)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    Trial trial = { .key = step_key(run->arena, run->plan, &run->key, what), .point = point, .status = result->status,
                    .detail = result->detail, .samples = pairs->candidate, .n_samples = pairs->n,
                    .incumbent = incumbent,
                    .incumbent_samples = pairs->incumbent, .n_incumbent_samples = pairs->n,
                    .max_error = result->max_error,
                    .search = run->journal.id, .seed = run->journal.seed, .ordinal = run->journal.next_ordinal,
                    .unix_ms = (int64_t)now.tv_sec * 1000 + now.tv_usec / 1000 };
    const bool prefill = strcmp(what, "decode") != 0 && strcmp(what, "chain") != 0;
    const bool is_long = run->plan->launches && strcmp(what, "chunk") == 0;
    const int n_tokens = is_long ? GPU_LONG_PROMPT : step_tokens(run->plan);
    trial.operations = run->plan->prefill_cost[0].flops * n_tokens;
    trial.bytes = run->plan->prefill_cost[0].weight_bytes * n_tokens;
    if (!prefill) {
        trial.operations = run->plan->decode_cost[0].flops;
        trial.bytes = run->plan->decode_cost[0].weight_bytes + run->plan->decode_cost[0].state_bytes;
    }
    if (!records_add(run->records, run->diags, &trial))
        return false;
    run->journal.next_ordinal = trial.ordinal + 1;
    return true;
}

/* The default against itself, so that it is known which point that is. */
static bool record_default(SearchRun *run, const char *what, const char *point, const TrialPairs *pairs,
                           const StepResult *result)
{
    TrialPairs same = *pairs;
    memcpy(same.candidate, pairs->incumbent, sizeof same.candidate);
    return record(run, what, point, point, &same, result);
}

static bool record_all(SearchRun *run, const StepRequest *request, const Choices *choices, const StepResult *result)
{
    for (int phase = 0; phase < N_PLAN_PHASES; phase++) {
        const TrialPairs *pairs = phase == PLAN_PREFILL ? &result->prefill : &result->decode;
        uint64_t hash = hash_choices(run->arena, run->plan, phase, choices);
        const char *point = step_point(run->arena, run->plan, phase, choices);
        if ((result->status == TRIAL_OK && !record_default(run, phase_texts[phase], "choices=0", pairs, result))
            || (hash && !record(run, phase_texts[phase], point, "choices=0", pairs, result)))
            return false;
    }
    const char *whole = arena_printf(run->arena, "chunk=%d", run->plan->chunk);
    for (int i = 0; i < request->n_variants && result->status == TRIAL_OK; i++) {
        const StepVariant *v = &request->variants[i];
        const char *usual = arena_printf(run->arena, "%s=0", v->name);
        if (result->variants[i].n == 0)
            continue;
        const bool first = i == 0 || strcmp(v->name, request->variants[i - 1].name) != 0;
        if ((first && !record_default(run, v->name, usual, &result->variants[i], result))
            || !record(run, v->name, arena_printf(run->arena, "%s=%d", v->name, v->value), usual, &result->variants[i],
                       result))
            return false;
    }
    for (int i = 0; i < request->n_chunks && result->status == TRIAL_OK; i++)
        if ((i == 0 && !record_default(run, "chunk", whole, &result->chunks[i], result))
            || !record(run, "chunk", arena_printf(run->arena, "chunk=%d", request->chunks[i]), whole,
                       &result->chunks[i], result))
            return false;
    return records_search_save(run->records, run->diags, &run->journal);
}

/* ---- the whole ---- */

static void print_pair(const char *what, const TrialPairs *pairs, const char *says)
{
    printf("%-16s %8.3fx  %s\n", what, pairs->n ? 1 / decide_ratio(pairs->candidate, pairs->incumbent, pairs->n) : 1,
           says);
}

static const char *words_of(Arena *arena, const Verdict *verdict)
{
    const char *words = verdict->rejected ? "slower: its choices are not taken" : "kept";
    return verdict->n_comparisons < 2 ? words
         : arena_printf(arena, "%s, by the %.3fx of %d comparisons", words, 1 / verdict->ratio, verdict->n_comparisons);
}

static bool print_result(const SearchRun *run, const Choices *choices, const StepRequest *request,
                         const StepResult *result)
{
    const char *where = request->n_threads ? arena_printf(run->arena, "%d threads, ", request->n_threads) : "";
    printf("\nthe whole model, %s%d tokens of prefill: tuned over untuned\n", where, request->n_tokens);
    for (int phase = 0; phase < N_PLAN_PHASES; phase++) {
        Verdict verdict;
        if (!judge_phase(run->records, run->arena, run->diags, run->plan, &run->key, phase, choices, &verdict))
            return false;
        print_pair(phase_texts[phase], phase == PLAN_PREFILL ? &result->prefill : &result->decode,
                   hash_choices(run->arena, run->plan, phase, choices) ? words_of(run->arena, &verdict)
                                                                       : "(nothing was chosen)");
    }
    for (int i = 0; i < request->n_chunks; i++) {
        const TrialPairs *pairs = &result->chunks[i];
        const char *says = decide_wins(pairs->candidate, pairs->incumbent, pairs->n) ? "kept"
            : "(over the tuned model as it is)";
        if (run->plan->launches)
            says = arena_printf(run->arena, "%s, %.0f MB of scratch instead of %.0f", says,
                                (double)gpu_chunk_scratch(run->arena, run->plan, request->chunks[i]) / 1e6,
                                (double)run->plan->shared_len / 1e6);
        print_pair(arena_printf(run->arena, "chunk %d", request->chunks[i]), pairs, says);
    }
    for (int i = 0; i < request->n_variants; i++) {
        const TrialPairs *pairs = &result->variants[i];
        print_pair(arena_printf(run->arena, "%s %d", request->variants[i].name, request->variants[i].value), pairs,
                   decide_wins(pairs->candidate, pairs->incumbent, pairs->n) ? "kept"
                       : "(over the tuned model as it is)");
    }
    return true;
}

/* On a GPU longer ones too, as far as there is scratch for them. */
static bool is_worth_a_try(Arena *arena, const Plan *plan, const StepRequest *request, int chunk)
{
    if (!plan->launches)
        return chunk < plan->chunk && chunk < request->n_tokens;
    return chunk != plan->chunk && request->n_tokens == plan->chunk && gpu_chunk_scratch(arena, plan, chunk) > 0;
}

static void set_chunks(Arena *arena, const Plan *plan, StepRequest *request)
{
    SearchSpace space;
    if (!model_space(plan, &space))
        return;
    const SpaceParam *chunk = space.param[space_param(&space, "chunk")];
    for (int i = 0; i < chunk->n && request->n_chunks < STEP_MAX_CHUNKS; i++)
        if (is_worth_a_try(arena, plan, request, chunk->values[i]))
            request->chunks[request->n_chunks++] = chunk->values[i];
}

/* Is a product shared out by rows as the plan is (0), or where products of at most so many panels are? */
static bool takes_rows(const Plan *plan, const Step *step, int row_split)
{
    return row_split ? step->op->result[0]->type.dim[1].n <= row_split * plan->tiling.panel : step->split == SPLIT_ROWS;
}

/* Does a value of a model's parameter make steps of prefill, or threads, other than `other`, another value, does? */
static bool changes(const Plan *plan, const char *name, int other, int value, int n_threads)
{
    bool differs = false;
    if (strcmp(name, "threads") == 0 || strcmp(name, "bind") == 0)
        return *name == 't' ? value < n_threads : n_threads > 1;
    for (int b = 0; b < plan->n_blocks; b++)
        for (int i = 0; i < plan->blocks[b].schedule[PLAN_PREFILL].n_steps; i++) {
            const Step *step = &plan->blocks[b].schedule[PLAN_PREFILL].steps[i];
            differs |= strcmp(name, "row_split") != 0 ? step->op->kind == OP_RMS_NORM_ROUTE
                     : op_is_product(step->op) && step->op->result[0]->type.dim[0].sym != SYM_R
                           && takes_rows(plan, step, other) != takes_rows(plan, step, value);
        }
    return differs;
}

/* Values of a model's parameters that change its plan; the first of each is the default. */
static void set_variants(const Plan *plan, StepRequest *request)
{
    SearchSpace space;
    for (int p = 0; model_space(plan, &space) && p < space.n; p++)
        for (int i = 1; i < space.param[p]->n && strcmp(space.param[p]->name, "chunk") != 0; i++) {
            const int *values = space.param[p]->values, n_threads = request->n_threads;
            StepVariant variant = { .value = values[i] };
            snprintf(variant.name, sizeof variant.name, "%s", space.param[p]->name);
            if (request->n_variants < STEP_MAX_VARIANTS
                && (plan->launches ? gpu_variant_differs(plan, space.param[p], i)
                    : changes(plan, variant.name, values[0], values[i], n_threads)
                          && changes(plan, variant.name, values[i - 1], values[i], n_threads)))
                request->variants[request->n_variants++] = variant;
        }
}

static bool is_chosen(Arena *arena, const Plan *plan, const Choices *choices)
{
    for (int phase = 0; phase < N_PLAN_PHASES; phase++)
        if (hash_choices(arena, plan, phase, choices))
            return true;
    return false;
}

static bool build_variants(StepBuild *builds, const Choices *choices, StepRequest *request)
{
    Arena *arena = builds->c->arena;
    for (int i = 0; i < request->n_variants; i++) {
        const StepVariant *v = &request->variants[i];
        if (!step_variant_is_built(v))
            continue;
        Choices *with = choices_copy(arena, choices);
        choices_set(with, KERNEL_KEY_MODEL, v->name, v->value);
        if (!step_build(builds, arena_printf(arena, "%s-%d", v->name, v->value), with))
            return false;
    }
    return true;
}

bool step_choose(const SearchRun *run, Choices *choices)
{
    int n_found;
    return choices_fill(run->records, run->arena, run->diags, run->plan, run->key.device, run->key.toolchain, choices,
                        &n_found);
}

static int count_threads(const Runner *runner)
{
    const long n_cpus = runner ? runner_threads(runner) : sysconf(_SC_NPROCESSORS_ONLN);
    return n_cpus < 1 ? 1 : n_cpus > 16 ? 16 : (int)n_cpus;
}

/* All builds of a request. False after reporting, or when a signal came. */
static bool build_all(StepBuild *builds, const Choices *choices, bool chosen, StepRequest *request)
{
    HostLock lock = host_lock(HOST_BUILDS);
    request->untuned = step_build(builds, "untuned", NULL);
    request->tuned = request->untuned && chosen ? step_build(builds, "tuned", choices) : request->untuned;
    const bool built = request->tuned && build_variants(builds, choices, request);
    host_unlock(&lock);
    return built;
}

bool step_measure(Compilation *c, const Plan *plan, const char *folder, Runner *runner, const Choices *choices,
                  StepRequest *request, StepResult *result)
{
    const bool chosen = is_chosen(c->arena, plan, choices);
    *request = (StepRequest){ .n_tokens = step_tokens(plan), .vocab_size = (int)plan->graph->vocab_size,
                              .same_bits = !changes_bits(c->arena, plan, choices) };
    request->n_threads = count_threads(runner);
    set_chunks(c->arena, plan, request);
    set_variants(plan, request);
    if (plan->launches) {
        request->n_threads = 0;
        fprintf(stderr, "%s\n", gpu_step_words(c->arena, plan, request));
        gpu_step_run(plan, choices, request, result);
        return !result->interrupted && !interrupt_came();
    }
    StepBuild builds = step_build_begin(c, folder, runner);
    if (!build_all(&builds, choices, chosen, request))
        return false;
    request->folder = folder;
    request->weights = arena_printf(c->arena, "%s.weights", request->untuned);
    /* A minute, and what a slow machine needs for all the tokens. */
    request->deadline = 60 + plan->prefill_cost[0].flops * STEP_TOKENS * (160 + 30 * request->n_variants) / 2e9;
    if (runner) {
        runner_compare(runner, c->diags, plan, request, builds.models, builds.n_models, result);
    } else {
        HostLock lock = host_lock(HOST_MEASURES);
        step_run(request, result);
        host_unlock(&lock);
    }
    return !result->interrupted && !interrupt_came();
}

bool step_store(SearchRun *run, const Choices *choices, const StepRequest *request, const StepResult *result)
{
    if (result->status != TRIAL_OK)
        diag_report(run->diags, DIAG_RUN, NULL, "the tuned model: %s: %s", trial_status_text(result->status),
                    result->detail);
    return record_all(run, request, choices, result) && result->status == TRIAL_OK
        && print_result(run, choices, request, result);
}

bool step_compare(Compilation *c, SearchRun *run, const char *folder)
{
    StepRequest request;
    StepResult result;
    Choices *choices = choices_new(run->arena);
    if (!step_choose(run, choices))
        return false;
    if (!is_chosen(run->arena, run->plan, choices))
        printf("\nno kernel is faster than its default: a tuned model is the untuned one, but for its chunk\n");
    if (run->progress && !run->plan->launches)
        progress_say(run->progress, "building and measuring the whole model");
    return step_measure(c, run->plan, folder, run->builder.runner, choices, &request, &result)
        && step_store(run, choices, &request, &result);
}
