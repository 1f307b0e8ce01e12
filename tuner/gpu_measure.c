/* Search on a GPU: points become requests, and whole models too. */
#include "gpu_measure.h"

#include "gpu_jobs.h"
#include "host_lock.h"
#include "progress.h"
#include "report_parts.h"

#include "../compiler/gpu_plan.h"
#include "../compiler/interrupt.h"
#include "../ir/kernel_key.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { CHECK_TOKENS = 333, FIRST_SECONDS = 300, UNKNOWN_SECONDS = 60, STEP_SECONDS = 120 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static const SpacePoint *point_of(const SearchState *s, int point)
{
    return point < 0 ? &s->job->initial : &s->job->points[point];
}

/* Of the default there is nothing to choose. */
static Choices *choices_of(Arena *arena, const SearchState *s, int point)
{
    Choices *choices = choices_new(arena);
    for (int i = 0; i < s->job->space.n && point >= 0; i++)
        choices_set(choices, s->job->key, s->job->space.param[i]->name, point_of(s, point)->value[i]);
    return choices;
}

static bool have_worker(SearchRun *run)
{
    if (!run->gpu)
        run->gpu = gpu_worker_new(run->plan);
    return run->gpu != NULL;
}

bool gpu_search_build(SearchRun *run, SearchState *s, const int *points, int n)
{
    if (!have_worker(run))
        return true;                     /* told when it is measured */
    Arena *arena = arena_new();
    GpuRequest *request = gpu_worker_request(run->gpu);
    TrialResult result = { .interrupted = false };
    size_t at = 0;
    request->what = GPU_ASK_PREPARE;
    for (int i = 0; i < n && i < GPU_BATCH; i++)
        if (points[i] >= 0 && gpu_write_choices(choices_of(arena, s, points[i]), request->candidate + at,
                                                sizeof request->candidate - at))
            at += strlen(request->candidate + at);
    if (at > 0)
        gpu_worker_ask(run->gpu, FIRST_SECONDS, &result);     /* what fails says so when it is tried */
    arena_free(arena);
    return !result.interrupted && !interrupt_came();
}

static void say_ceilings(SearchRun *run, const GpuCeilings *c)
{
    Text text = { 0 };
    const double rates[] = { c->read, c->mma, c->wgmma };
    static const char *const what[] = { "B/s read", "op/s by mma.sync", "op/s by wgmma" };
    for (int i = 0; i < 3; i++)
        if (rates[i] > 0) {
            text_printf(&text, text.len ? ", " : "");
            report_put_amount(&text, rates[i]);
            text_printf(&text, "%s", what[i]);
        }
    if (run->progress && text.len)
        progress_say(run->progress, "%s, at most: %s", run->key.device, text.data);
    text_free(&text);
}

void gpu_search_ceilings(SearchRun *run, double *operations, double *bytes)
{
    TrialResult result;
    if (!have_worker(run))
        return;
    gpu_worker_request(run->gpu)->what = GPU_ASK_CEILINGS;
    gpu_worker_ask(run->gpu, FIRST_SECONDS, &result);
    const GpuCeilings found = gpu_worker_ceilings(run->gpu);
    *operations = found.wgmma > found.mma ? found.wgmma : found.mma;
    *bytes = found.read;
    say_ceilings(run, &found);
}

static void ask(SearchRun *run, const SearchState *s, int point, int incumbent, double seconds, TrialResult *result)
{
    Arena *arena = arena_new();
    const Job *job = s->job;
    GpuRequest *r = gpu_worker_request(run->gpu);
    snprintf(r->key, sizeof r->key, "%s", job->key);
    r->phase = job->phase;
    r->is_default = point < 0;
    r->same_bits = space_gpu_keeps_bits(&job->space, point_of(s, point), &job->initial);
    r->n_tokens = job->n_tokens < GPU_TRIAL_PASSES ? job->n_tokens : GPU_TRIAL_PASSES;
    memcpy(r->tokens, job->tokens, (size_t)r->n_tokens * sizeof *r->tokens);
    r->check_tokens = gpu_most_tokens() < CHECK_TOKENS ? gpu_most_tokens() : CHECK_TOKENS;
    gpu_write_choices(choices_of(arena, s, point), r->candidate, sizeof r->candidate);
    gpu_write_choices(choices_of(arena, s, incumbent), r->incumbent, sizeof r->incumbent);
    gpu_worker_ask(run->gpu, seconds, result);
    arena_free(arena);
}

/* A candidate may take a few times as long as its default, which came first. */
bool gpu_search_measure(SearchRun *run, SearchState *s, int point, int incumbent, TrialResult *result)
{
    const double begin = now();
    *result = (TrialResult){ .status = TRIAL_RUNNER_FAILED, .max_error = -1, .detail = "no memory" };
    if (!have_worker(run))
        return true;
    ask(run, s, point, incumbent, point < 0 ? FIRST_SECONDS : s->deadline > 0 ? s->deadline : UNKNOWN_SECONDS, result);
    if (point < 0)
        s->deadline = 5 + 4 * (now() - begin);
    return !result->interrupted && !interrupt_came();
}

/* ---- whole models ---- */

static bool pass(GpuWorker *worker, const Choices *candidate, const Choices *incumbent, int n_tokens, int chunk,
                 TrialPairs *pairs, StepResult *result)
{
    TrialResult one;
    GpuRequest *r = gpu_worker_request(worker);
    r->what = GPU_ASK_STEP;
    r->n_tokens = 1;
    r->tokens[0] = n_tokens;
    r->chunk = chunk;
    if (!gpu_write_choices(candidate, r->candidate, sizeof r->candidate)
        || !gpu_write_choices(incumbent, r->incumbent, sizeof r->incumbent))
        return false;
    gpu_worker_ask(worker, STEP_SECONDS, &one);
    result->status = one.status;
    result->interrupted = one.interrupted;
    snprintf(result->detail, sizeof result->detail, "%s", one.detail);
    *pairs = one.pairs[0];
    if (one.status == TRIAL_OK && one.max_error > result->max_error)
        result->max_error = one.max_error;
    return one.status == TRIAL_OK && !one.interrupted;
}

int64_t gpu_chunk_scratch(Arena *arena, const Plan *plan, int chunk)
{
    Choices *choices = choices_new(arena);
    choices_set(choices, KERNEL_KEY_MODEL, "chunk", chunk);
    const Plan *with = gpu_plan_module_chosen(arena, plan->graph, (Module *)plan->module, plan->target, choices,
                                              plan->max_scratch);
    return with->chunk == chunk ? with->shared_len : 0;
}

const char *gpu_step_words(Arena *arena, const Plan *plan, const StepRequest *request)
{
    Text text = { 0 };
    text_printf(&text, "measuring the whole model: %d tokens of prefill, decode", request->n_tokens);
    if (request->n_chunks)
        text_printf(&text, "; prompts of %d tokens, %d at a time (%.0f MB of scratch), or", GPU_LONG_PROMPT,
                    plan->chunk, (double)plan->shared_len / 1e6);
    for (int i = 0; i < request->n_chunks; i++)
        text_printf(&text, "%s %d (%.0f MB)", i ? "," : "", request->chunks[i],
                    (double)gpu_chunk_scratch(arena, plan, request->chunks[i]) / 1e6);
    const char *words = arena_strdup(arena, text.data);
    text_free(&text);
    return words;
}

/* Other chunks, for a prompt longer than any. Those for which there is not enough memory, and those that give other
 * logits, are left out. */
static bool pass_chunks(GpuWorker *worker, const Choices *choices, StepRequest *request, StepResult *result)
{
    Arena *arena = arena_new();
    int n = 0;
    bool good = true;
    for (int i = 0; i < request->n_chunks && good; i++) {
        Choices *with = choices_copy(arena, choices);
        choices_set(with, KERNEL_KEY_MODEL, "chunk", request->chunks[i]);
        good = pass(worker, with, choices, GPU_LONG_PROMPT, request->chunks[i], &result->chunks[n], result);
        if (good)
            request->chunks[n++] = request->chunks[i];
        good = good || result->status == TRIAL_BUILD_FAILED || result->status == TRIAL_WRONG;
    }
    request->n_chunks = n;
    if (good) {
        result->status = TRIAL_OK;
        result->detail[0] = '\0';
    }
    arena_free(arena);
    return good;
}

/* Decoded tokens with one thing more chosen of the whole model. What cannot be, or is wrong, is left out. */
static bool pass_variants(GpuWorker *worker, const Choices *choices, const StepRequest *request, StepResult *result)
{
    Arena *arena = arena_new();
    bool good = true;
    for (int i = 0; i < request->n_variants && good; i++) {
        const StepVariant *v = &request->variants[i];
        Choices *with = choices_copy(arena, choices);
        choices_set(with, KERNEL_KEY_MODEL, v->name, v->value);
        if (!pass(worker, with, choices, 0, 0, &result->variants[i], result)) {
            result->variants[i].n = 0;
            good = !result->interrupted && result->status != TRIAL_RUNNER_FAILED;
        }
    }
    if (good) {
        result->status = TRIAL_OK;
        result->detail[0] = '\0';
    }
    arena_free(arena);
    return good;
}

void gpu_step_run(const Plan *plan, const Choices *choices, StepRequest *request, StepResult *result)
{
    GpuWorker *worker = gpu_worker_new(plan);
    const int n = request->n_tokens;
    *result = (StepResult){ .status = TRIAL_RUNNER_FAILED, .max_error = -1 };
    snprintf(result->detail, sizeof result->detail, "no memory");
    HostLock lock = host_lock(HOST_MEASURES_GPU);
    if (worker && pass(worker, choices, NULL, n, 0, &result->prefill, result)
        && pass(worker, choices, NULL, 0, 0, &result->decode, result)
        && pass_chunks(worker, choices, request, result))
        pass_variants(worker, choices, request, result);
    gpu_worker_free(worker);
    host_unlock(&lock);
}
