/* Search: batches over the kernels, and what came of their trials. */
#include "search.h"

#include "identity.h"
#include "progress.h"
#include "runner.h"
#include "search_measure.h"
#include "search_order.h"
#include "../compiler/interrupt.h"

#include <string.h>
#include <sys/time.h>
#include <time.h>

enum { MOST_DUE = 32 };      /* batches that wait for a kernel, beside those given back */

static double clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double search_seconds(const SearchRun *run) { return run->spent_before + clock_seconds() - run->begun; }

double search_speedup(const SearchRun *run, int phase)
{
    double time = 0, share = 0;
    for (int i = 0; i < run->n_states; i++)
        if (run->states[i].job->phase == phase) {
            time += run->states[i].job->share * run->states[i].ratio;
            share += run->states[i].job->share;
        }
    return share > 0 && time > 0 ? share / time : 1;
}

int search_trials_to(const SearchRun *run, double part)
{
    double gained = run->n_curve ? run->curve[run->n_curve - 1] - 1 : 0;
    int n = 0;
    while (n < run->n_curve && run->curve[n] - 1 < part * gained)
        n++;
    return gained > 0 ? n + 1 : 0;
}

/* ---- records ---- */

static RecordKey key_of(const SearchRun *run, const Job *job)
{
    RecordKey key = run->key;
    job_record_key(run->arena, job, job->tokens[0], &key);
    key.template_hash = identity_template(run->arena, run->plan->target, key.kernel);
    return key;
}

const char *search_point_text(const SearchRun *run, const SearchState *s, int point)
{
    Text text = { 0 };
    space_print(&s->job->space, point < 0 ? &s->job->initial : &s->job->points[point], &text);
    const char *copy = arena_strdup(run->arena, text.data);
    text_free(&text);
    return copy;
}

/* What this search knew of a point against an incumbent, in an earlier session. A machine that failed said nothing. */
static const Trial *find_old(const SearchRun *run, const RecordKey *key, const char *point, const char *incumbent)
{
    for (int i = 0; i < run->n_old; i++) {
        const Trial *t = &run->old[i];
        if (strcmp(t->key.kernel, key->kernel) == 0 && strcmp(t->key.shape, key->shape) == 0
            && strcmp(t->key.dtypes, key->dtypes) == 0 && strcmp(t->key.template_hash, key->template_hash) == 0
            && strcmp(t->key.toolchain, key->toolchain) == 0 && strcmp(t->point, point) == 0
            && strcmp(t->incumbent, incumbent) == 0 && t->status != TRIAL_RUNNER_FAILED)
            return t;
    }
    return NULL;
}

static const Trial *find_point(const SearchRun *run, const SearchState *s, int point)
{
    return run->n_old ? find_old(run, &s->key, search_point_text(run, s, point), s->incumbent_text) : NULL;
}

/* One trial a token count that was measured; the first says how it ended. */
static bool record(SearchRun *run, const SearchState *s, int point, const TrialResult *result)
{
    Trial trials[TRIAL_MAX_WORKS];
    struct timeval now;
    gettimeofday(&now, NULL);
    int n = 0;
    for (; n == 0 || (n < s->job->n_tokens && n < TRIAL_MAX_WORKS && result->pairs[n].n > 0); n++) {
        const TrialPairs *pairs = &result->pairs[n];
        Trial *trial = &trials[n];
        *trial = (Trial){ .key = s->key, .point = search_point_text(run, s, point),
                          .status = n ? TRIAL_OK : result->status, .detail = n ? "" : result->detail,
                          .samples = pairs->candidate, .n_samples = pairs->n, .incumbent = s->incumbent_text,
                          .incumbent_samples = pairs->incumbent, .n_incumbent_samples = pairs->n,
                          .max_error = result->max_error, .search = run->journal.id, .seed = run->journal.seed,
                          .ordinal = run->journal.next_ordinal++,
                          .unix_ms = (int64_t)now.tv_sec * 1000 + now.tv_usec / 1000 };
        job_record_key(run->arena, s->job, s->job->tokens[n], &trial->key);
        job_cost(s->job, s->job->tokens[n], &trial->operations, &trial->bytes);
    }
    run->journal.seconds = search_seconds(run);
    return records_add_all(run->records, run->diags, trials, n, &run->journal);
}

static void replay(const Trial *old, TrialResult *result)
{
    *result = (TrialResult){ .status = old->status, .max_error = old->max_error };
    TrialPairs *pairs = &result->pairs[0];
    for (; pairs->n < old->n_samples && pairs->n < old->n_incumbent_samples
         && pairs->n < DECIDE_MOST_PAIRS; pairs->n++) {
        pairs->candidate[pairs->n] = old->samples[pairs->n];
        pairs->incumbent[pairs->n] = old->incumbent_samples[pairs->n];
    }
}

/* ---- decisions ---- */

/* One point of the curve; what it holds grows by doubling. */
static void draw(SearchRun *run)
{
    if ((run->n_curve & (run->n_curve - 1)) == 0) {
        double *curve = arena_array(run->arena, double, (size_t)run->n_curve * 2 + 2);
        if (run->n_curve)
            memcpy(curve, run->curve, (size_t)run->n_curve * sizeof *curve);
        run->curve = curve;
    }
    run->curve[run->n_curve++] = search_speedup(run, PLAN_PREFILL);
}

bool search_wins(const TrialResult *result)
{
    const TrialPairs *pairs = &result->pairs[0];
    return result->status == TRIAL_OK && decide_wins(pairs->candidate, pairs->incumbent, pairs->n);
}

static void take_win(SearchRun *run, SearchState *s, int point, const TrialResult *result)
{
    s->ratio *= decide_ratio(result->pairs[0].candidate, result->pairs[0].incumbent, result->pairs[0].n);
    s->incumbent = point;
    s->incumbent_text = search_point_text(run, s, point);
    s->n_wins++;
    if (run->progress)
        progress_say(run->progress, "%s: %s, %.3fx", s->job->key, s->incumbent_text, 1 / s->ratio);
}

/* The default says whether anything can be tried: it came first, against itself. */
static void decide(SearchRun *run, SearchState *s, int point, const TrialResult *result)
{
    s->n_trials++;
    run->n_trials++;
    s->n_stopped += result->status == TRIAL_STOPPED;
    s->n_failed += result->status != TRIAL_OK && result->status != TRIAL_STOPPED;
    if (point < 0)
        s->broken = result->status != TRIAL_OK;
    else if (search_wins(result))
        take_win(run, s, point, result);
    draw(run);
}

static void tell_failure(SearchRun *run, const SearchState *s, int point, const TrialResult *result)
{
    if (run->progress && result->status != TRIAL_OK && result->status != TRIAL_STOPPED)
        progress_say(run->progress, "%s: %s: %s: %s", s->job->key, search_point_text(run, s, point),
                     trial_status_text(result->status), result->detail);
}

/* ---- batches ---- */

static bool time_left(const SearchRun *run)
{
    return run->most_seconds <= 0 || search_seconds(run) < run->most_seconds;
}

/* The kernel with most to gain a trial: its share of the work over its trials. Prefill gains more than decode. */
static SearchState *next_state(SearchRun *run)
{
    SearchState *best = NULL;
    double most = 0;
    for (int i = 0; i < run->n_states; i++) {
        SearchState *s = &run->states[i];
        double gain = (s->job->phase == PLAN_PREFILL ? 3 : 1) * s->job->share / (s->n_allotted + 1.0);
        if (!s->broken && s->next < s->job->n_points && gain > most) {
            most = gain;
            best = s;
        }
    }
    return best;
}

static bool is_default(const SearchState *s, int point)
{
    for (int i = 0; i < s->job->space.n; i++)
        if (s->job->points[point].value[i] != s->job->initial.value[i])
            return false;
    return true;
}

/* Made in the order in which one machine would go through them, whoever is free: so the kernels share a budget of
 * trials alike, however many measure. */
static bool make_batch(SearchRun *run, SearchBatch *batch)
{
    SearchState *s = run->most_trials && run->n_allotted >= run->most_trials ? NULL : next_state(run);
    *batch = (SearchBatch){ .state = s };
    if (!s)
        return false;
    if (s->n_allotted == 0)
        batch->points[batch->n++] = SEARCH_DEFAULT;
    const int most = SEARCH_BATCH - 1 + batch->n;
    for (; batch->n < most && s->next < s->job->n_points; s->next++) {
        batch->points[batch->n] = s->order[s->next];
        batch->n += !is_default(s, s->order[s->next]);
    }
    if (run->most_trials && run->most_trials - run->n_allotted < batch->n)
        batch->n = (int)(run->most_trials - run->n_allotted);
    s->n_allotted += batch->n;
    run->n_allotted += batch->n;
    return true;
}

static void remove_due(SearchRun *run, int i)
{
    memmove(run->due + i, run->due + i + 1, (size_t)(--run->n_due - i) * sizeof *run->due);
}

static bool begin_batch(const SearchBatch *batch) { return batch->state->busy = true; }

bool search_take(SearchRun *run, SearchBatch *batch)
{
    for (int i = 0; i < run->n_due && !run->over; i++)
        if (!run->due[i].state->busy) {
            *batch = run->due[i];
            remove_due(run, i);
            return begin_batch(batch);
        }
    while (!run->over && run->n_due < MOST_DUE && make_batch(run, batch)) {
        if (!batch->state->busy)
            return begin_batch(batch);
        run->due[run->n_due++] = *batch;
    }
    return false;
}

bool search_advance(SearchRun *run, SearchBatch *batch)
{
    SearchState *s = batch->state;
    for (; batch->next < batch->n && !s->broken; batch->next++) {
        TrialResult result;
        const int point = batch->points[batch->next];
        const Trial *old = find_point(run, s, point);
        if (!old)
            return time_left(run);
        replay(old, &result);
        run->n_replayed++;
        batch->known = true;
        decide(run, s, point, &result);
    }
    return false;
}

int search_unknown(const SearchRun *run, const SearchBatch *batch, int points[SEARCH_BATCH])
{
    int n = 0;
    for (int i = batch->next; i < batch->n; i++)
        if (!find_point(run, batch->state, batch->points[i]))
            points[n++] = batch->points[i];
    return n;
}

bool search_settle(SearchRun *run, SearchBatch *batch, const TrialResult *result)
{
    SearchState *s = batch->state;
    const int point = batch->points[batch->next];
    if (!record(run, s, point, result))
        return false;
    tell_failure(run, s, point, result);
    decide(run, s, point, result);
    batch->next++;
    batch->n_lost = 0;
    if (run->progress)
        progress_show(run->progress, run, s);
    return !runner_lost(run->builder.runner, run->diags);
}

/* When the time is over, what earlier sessions measured is still gone through: it costs none. */
void search_end_batch(SearchRun *run, const SearchBatch *batch)
{
    SearchState *s = batch->state;
    s->busy = false;
    if (batch->next < batch->n && s->broken)
        run->n_allotted -= batch->n - batch->next;      /* for other kernels */
    if (!batch->known && !time_left(run))
        run->over = true;
}

/* Before all others; a kernel has one batch under way at most, so there is room. */
void search_give_back(SearchRun *run, const SearchBatch *batch)
{
    memmove(run->due + 1, run->due, (size_t)run->n_due++ * sizeof *run->due);
    run->due[0] = *batch;
    batch->state->busy = false;
}

/* ---- the whole ---- */

bool search_begin(SearchRun *run, const Job *jobs, int n_jobs, const double *const *costs)
{
    RecordsFilter filter = { .search = run->journal.id };
    run->begun = clock_seconds();
    run->spent_before = run->journal.seconds;
    if (!records_list(run->records, run->arena, run->diags, &filter, &run->old, &run->n_old))
        return false;
    if (!jobs)
        jobs = jobs_of_plan(run->arena, run->plan, &n_jobs);
    run->n_states = n_jobs;
    run->states = arena_array(run->arena, SearchState, (size_t)n_jobs + 1);
    run->due = arena_array(run->arena, SearchBatch, (size_t)n_jobs + MOST_DUE);
    for (int i = 0; i < n_jobs; i++) {
        SearchState *s = &run->states[i];
        *s = (SearchState){ .job = &jobs[i], .key = key_of(run, &jobs[i]), .ratio = 1, .incumbent = SEARCH_DEFAULT,
                            .costs = costs ? costs[i] : NULL };
        s->incumbent_text = search_point_text(run, s, SEARCH_DEFAULT);
        if (!search_order_points(run, s))
            return false;
    }
    return true;
}

bool search_end(SearchRun *run, bool done)
{
    run->interrupted = interrupt_came();
    run->journal.seconds = search_seconds(run);
    run->journal.finished = done;
    if (run->progress)
        progress_end(run->progress);
    return records_search_save(run->records, run->diags, &run->journal) && (done || run->interrupted)
        && !diags_failed(run->diags);
}

static bool run_batch(SearchRun *run, SearchBatch *batch)
{
    TrialResult result;
    int points[SEARCH_BATCH];
    bool ok = true, built = false;
    while (ok && search_advance(run, batch)) {
        if (!built)
            ok = search_build(run, batch->state, points, search_unknown(run, batch, points));
        built = true;
        ok = ok && search_measure(run, batch->state, batch->points[batch->next], batch->state->incumbent, &result)
            && search_settle(run, batch, &result);
    }
    search_measure_end(batch->state);
    search_end_batch(run, batch);
    return ok;
}

bool search_run(SearchRun *run)
{
    SearchBatch batch;
    if (!search_begin(run, NULL, 0, NULL))
        return false;
    bool ok = true;
    while (ok && search_take(run, &batch))
        ok = run_batch(run, &batch);
    return search_end(run, ok);
}
