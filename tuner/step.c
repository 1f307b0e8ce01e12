/* Step: a whole model, tuned beside untuned.
 *
 * In records a step is a kernel of its own: shape the model, its phase and its tokens; points "chunk=256", and
 * "choices=N", N a hash of all that was chosen of the phase's kernels, 0 of the defaults.
 */
#include "step.h"

#include "choices.h"
#include "identity.h"
#include "progress.h"
#include "step_run.h"
#include "../compiler/interrupt.h"
#include "../ir/kernel_key.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { STEP_TOKENS = 512 };
static const char *const phase_texts[N_PLAN_PHASES] = { "prefill", "decode" };

/* ---- names ---- */

RecordKey step_key(Arena *arena, const Plan *plan, const RecordKey *machine, const char *what)
{
    RecordKey key = *machine;
    key.kernel = "step";
    key.shape = arena_printf(arena, "model=%016llx %s t%d", (unsigned long long)plan->hash, what, STEP_TOKENS);
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

/* Did more comparisons find it slower, or wrong, than found it not? */
static bool is_rejected(const Trial *trials, int n, const char *point)
{
    int votes = 0;
    for (int i = 0; i < n; i++)
        if (strcmp(trials[i].point, point) == 0 && trials[i].n_samples == trials[i].n_incumbent_samples)
            votes += trials[i].status == TRIAL_OK && !decide_slower(trials[i].samples, trials[i].incumbent_samples,
                                                                    trials[i].n_samples)
                ? -1 : 1;
    return votes > 0;
}

bool step_apply(Records *records, Arena *arena, Diags *diags, const Plan *plan, const RecordKey *machine,
                Choices *choices)
{
    RecordBest best;
    for (int phase = 0; phase < N_PLAN_PHASES; phase++) {
        Trial *trials;
        int n;
        const RecordsFilter filter = { .key = step_key(arena, plan, machine, phase_texts[phase]) };
        const char *point = step_point(arena, plan, phase, choices);
        if (!records_list(records, arena, diags, &filter, &trials, &n))
            return false;
        if (is_rejected(trials, n, point))
            drop_phase(arena, plan, phase, choices);
    }
    const RecordKey key = step_key(arena, plan, machine, "chunk");
    if (!records_best(records, arena, diags, &key, &best))
        return false;
    if (best.point && strncmp(best.point, "chunk=", 6) == 0 && best.speedup >= 1.01)
        choices_set(choices, KERNEL_KEY_MODEL, "chunk", strtoll(best.point + 6, NULL, 10));
    return true;
}

/* ---- building ---- */

/* A library without weights inside, so that both take the file of one. */
static const char *build(Compilation *c, const char *folder, const char *name, const Choices *choices)
{
    Options options = *c->options;
    options.value[OPTION_EMBED] = "no";
    if (!options.value[OPTION_WEIGHTS])
        options.value[OPTION_WEIGHTS] = "random:0";
    Compilation one = { .arena = c->arena, .diags = c->diags, .model = c->model, .options = &options,
                        .choices = choices,
                        .out = arena_printf(c->arena, "%s/%s.so", folder, name) };
    bool ok = driver_compile(&one, "lib");
    if (one.weights)
        weights_close(one.weights);
    return ok ? one.out : NULL;
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
    bool prefill = strcmp(what, "decode") != 0;
    trial.operations = run->plan->prefill_cost[0].flops * STEP_TOKENS;
    trial.bytes = run->plan->prefill_cost[0].weight_bytes * STEP_TOKENS;
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

static void print_result(const SearchRun *run, const StepRequest *request, const Choices *choices,
                         const StepResult *result)
{
    printf("\nthe whole model, %d threads, %d tokens of prefill: tuned over untuned\n", request->n_threads,
           request->n_tokens);
    for (int phase = 0; phase < N_PLAN_PHASES; phase++) {
        const TrialPairs *pairs = phase == PLAN_PREFILL ? &result->prefill : &result->decode;
        bool slower = decide_slower(pairs->candidate, pairs->incumbent, pairs->n);
        print_pair(phase_texts[phase], pairs, !hash_choices(run->arena, run->plan, phase, choices)
                   ? "(nothing was chosen)"
                   : slower ? "slower: its choices are not taken" : "kept");
    }
    for (int i = 0; i < request->n_chunks; i++) {
        const TrialPairs *pairs = &result->chunks[i];
        print_pair(arena_printf(run->arena, "chunk %d", request->chunks[i]), pairs,
                   decide_wins(pairs->candidate, pairs->incumbent, pairs->n) ? "kept"
                       : "(over the tuned model as it is)");
    }
}

static void set_chunks(const SearchRun *run, StepRequest *request)
{
    SearchSpace space;
    if (!space_find(KERNEL_KEY_MODEL, &space))
        return;
    const SpaceParam *chunk = space.param[space_param(&space, "chunk")];
    for (int i = 0; i < chunk->n && request->n_chunks < STEP_MAX_CHUNKS; i++)
        if (chunk->values[i] < run->plan->chunk && chunk->values[i] < request->n_tokens)
            request->chunks[request->n_chunks++] = chunk->values[i];
}

static bool compare(Compilation *c, SearchRun *run, const char *folder, const Choices *choices, bool chosen)
{
    StepRequest request = { .n_tokens = STEP_TOKENS, .vocab_size = (int)run->plan->graph->vocab_size, .same_bits =
                            !changes_bits(run->arena, run->plan, choices) };
    StepResult result;
    long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    request.n_threads = n_cpus < 1 ? 1 : n_cpus > 16 ? 16 : (int)n_cpus;
    set_chunks(run, &request);
    if (run->progress)
        progress_say(run->progress, "building the model, untuned%s", chosen ? " and tuned" : "");
    request.untuned = build(c, folder, "untuned", NULL);
    request.tuned = request.untuned && chosen ? build(c, folder, "tuned", choices) : request.untuned;
    if (!request.tuned)
        return false;
    request.weights = arena_printf(run->arena, "%s.weights", request.untuned);
    if (chosen)
        unlink(arena_printf(run->arena, "%s.weights", request.tuned));      /* the same bytes */
    /* A minute, and what a slow machine needs for all the tokens. */
    request.deadline = 60 + run->plan->prefill_cost[0].flops * STEP_TOKENS * 100 / 2e9;
    step_run(&request, &result);
    if (result.interrupted || interrupt_came())
        return false;
    if (result.status != TRIAL_OK)
        diag_report(run->diags, DIAG_RUN, NULL, "the tuned model: %s: %s", trial_status_text(result.status),
                    result.detail);
    if (!record_all(run, &request, choices, &result))
        return false;
    if (result.status == TRIAL_OK)
        print_result(run, &request, choices, &result);
    return result.status == TRIAL_OK;
}

bool step_compare(Compilation *c, SearchRun *run, const char *folder)
{
    int n_found;
    Choices *choices = choices_new(run->arena);
    if (!choices_fill(run->records, run->arena, run->diags, run->plan, run->key.device, run->key.toolchain, choices,
                      &n_found))
        return false;
    bool chosen = false;
    for (int phase = 0; phase < N_PLAN_PHASES; phase++)
        chosen |= hash_choices(run->arena, run->plan, phase, choices) != 0;
    if (!chosen)
        printf("\nno kernel is faster than its default: a tuned model is the untuned one, but for its chunk\n");
    return compare(c, run, folder, choices, chosen);
}
