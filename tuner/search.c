/* Search: rounds over the kernels, a batch of candidates each. */
#include "search.h"

#include "cost.h"
#include "identity.h"
#include "progress.h"
#include "search_work.h"
#include "../compiler/interrupt.h"

#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char *const order_texts[N_ORDERS] = { "model", "random", "grid" };
const char *search_order_text(SearchOrder order) { return order_texts[order]; }

bool search_order_from_text(const char *text, SearchOrder *order)
{
    for (int i = 0; i < N_ORDERS; i++)
        if (strcmp(text, order_texts[i]) == 0)
            return *order = (SearchOrder)i, true;
    return false;
}

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

/* ---- the order of points ---- */

static RecordKey key_of(const SearchRun *run, const Job *job, int n_tokens)
{
    RecordKey key = run->key;
    job_record_key(run->arena, job, n_tokens, &key);
    key.template_hash = identity_template(run->arena, run->plan->target, key.kernel);
    return key;
}

typedef struct { double cost; int index; } CostedPoint;

static int by_cost(const void *a, const void *b)
{
    const CostedPoint *x = a, *y = b;
    return x->cost != y->cost ? (x->cost > y->cost) - (x->cost < y->cost) : x->index - y->index;
}

static uint64_t next_random(uint64_t *state)
{
    *state += 0x9E3779B97F4A7C15u;
    uint64_t z = *state;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static uint64_t hash_text(const char *text)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 0x100000001B3u;
    return hash;
}

/* Points that other devices liked, brought to the front. Never taken untested: they are only tried early. */
static bool move_hints(SearchRun *run, SearchState *s)
{
    const char **hints;
    int n;
    const RecordKey key = key_of(run, s->job, s->job->tokens[0]);
    if (!records_hints(run->records, run->arena, run->diags, &key, &hints, &n))
        return false;
    int front = 0;
    for (int h = 0; h < n; h++) {
        SpacePoint point;
        if (!space_read(&s->job->space, hints[h], &point))
            continue;
        for (int i = front; i < s->job->n_points; i++)
            if (memcmp(&s->job->points[s->order[i]], &point, sizeof point) == 0) {
                int found = s->order[i];
                memmove(s->order + front + 1, s->order + front, (size_t)(i - front) * sizeof *s->order);
                s->order[front++] = found;
                break;
            }
    }
    return true;
}

static bool order_points(SearchRun *run, SearchState *s)
{
    const Job *job = s->job;
    uint64_t random = hash_text(job->key) ^ (uint64_t)run->journal.seed * 0x9E3779B97F4A7C15u;
    CostedPoint *costed = arena_array(run->arena, CostedPoint, (size_t)job->n_points + 1);
    s->order = arena_array(run->arena, int, (size_t)job->n_points + 1);
    for (int i = 0; i < job->n_points; i++)
        costed[i] = (CostedPoint){ run->order == ORDER_MODEL ? cost_of_point(job, &job->points[i], job->tokens[0])
                                 : run->order == ORDER_RANDOM ? (double)(next_random(&random) >> 11) : i, i };
    qsort(costed, (size_t)job->n_points, sizeof *costed, by_cost);
    for (int i = 0; i < job->n_points; i++)
        s->order[i] = costed[i].index;
    return run->order != ORDER_MODEL || move_hints(run, s);
}

/* ---- records ---- */

static const char *point_text(const SearchRun *run, const Job *job, const SpacePoint *point)
{
    Text text = { 0 };
    space_print(&job->space, point, &text);
    const char *copy = arena_strdup(run->arena, text.data);
    text_free(&text);
    return copy;
}

/* What this search knew of a point against an incumbent, in an earlier session. */
static const Trial *find_old(const SearchRun *run, const RecordKey *key, const char *point, const char *incumbent)
{
    for (int i = 0; i < run->n_old; i++) {
        const Trial *t = &run->old[i];
        if (strcmp(t->key.kernel, key->kernel) == 0 && strcmp(t->key.shape, key->shape) == 0
            && strcmp(t->key.dtypes, key->dtypes) == 0 && strcmp(t->key.template_hash, key->template_hash) == 0
            && strcmp(t->key.toolchain, key->toolchain) == 0 && strcmp(t->point, point) == 0
            && strcmp(t->incumbent, incumbent) == 0)
            return t;
    }
    return NULL;
}

/* One trial a token count that was measured; the first says how it ended. */
static bool record(SearchRun *run, SearchState *s, const char *point, const TrialResult *result)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    for (int i = 0; i < s->n_times || i == 0; i++) {
        const TrialPairs *pairs = &result->pairs[i];
        if (i > 0 && pairs->n == 0)
            break;
        Trial trial = { .key = key_of(run, s->job, s->job->tokens[i]), .point = point,
                        .status = i ? TRIAL_OK : result->status,
                        .detail = i ? "" : result->detail, .samples = pairs->candidate, .n_samples = pairs->n,
                        .incumbent = s->incumbent_text, .incumbent_samples = pairs->incumbent,
                        .n_incumbent_samples = pairs->n,
                        .max_error = result->max_error, .search = run->journal.id, .seed = run->journal.seed,
                        .ordinal = run->journal.next_ordinal,
                        .unix_ms = (int64_t)now.tv_sec * 1000 + now.tv_usec / 1000 };
        job_cost(s->job, s->job->tokens[i], &trial.operations, &trial.bytes);
        if (!records_add(run->records, run->diags, &trial))
            return false;
        run->journal.next_ordinal = trial.ordinal + 1;
    }
    run->journal.seconds = search_seconds(run);
    return records_search_save(run->records, run->diags, &run->journal);
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

/* ---- candidates ---- */

static Candidate write_point(SearchRun *run, const SearchState *s, const SpacePoint *point, int ordinal)
{
    Text source = { 0 };
    double values[TEMPLATE_MAX_PARAMS];
    const Template *template = s->job->template;
    if (run->builder.alter && ordinal >= 0)
        template = run->builder.alter(run->arena, template, ordinal);
    job_values(s->job, point, values);
    kernel_file_write(template, values, &source);
    Candidate candidate = candidate_write(&run->builder, run->diags,
                                          arena_printf(run->arena, "%d_%d", (int)(s - run->states), ordinal), &source);
    text_free(&source);
    return candidate;
}

/* Builds a point that is not for trial; `ordinal` is below 0. NULL after reporting, or when a signal came. */
static const char *build_one(SearchRun *run, SearchState *s, const SpacePoint *point, int ordinal)
{
    Candidate candidate = write_point(run, s, point, ordinal);
    if (!candidates_compile(&run->builder, &candidate, 1))
        return NULL;
    if (!candidate.built)
        diag_report(run->diags, DIAG_TOOLCHAIN, NULL, "%s fails on %s as it is without tuning: %s",
                    run->builder.cc.args[0],
                    s->job->key, candidate.words);
    return candidate.built ? candidate.path : NULL;
}

/* The default and the incumbent as shared objects; a search that goes on may have neither. */
static bool build_known(SearchRun *run, SearchState *s)
{
    if (!s->default_path)
        s->default_path = build_one(run, s, &s->job->initial, -1);
    if (s->default_path && !s->incumbent_path)
        s->incumbent_path = s->n_wins ? build_one(run, s, &s->incumbent, -1 - s->n_wins) : s->default_path;
    return s->incumbent_path != NULL;
}

/* Points whose results must equal the default's to the bit: all, but where keys are walked in other blocks. */
static bool same_bits(const SearchState *s, const SpacePoint *point)
{
    int keys = space_param(&s->job->space, "key_block");
    return keys < 0 || point->value[keys] == s->job->initial.value[keys];
}

static void run_trial(const SearchState *s, const SpacePoint *point, const Candidate *candidate, TrialResult *result)
{
    double values[TEMPLATE_MAX_PARAMS];
    job_values(s->job, point, values);
    TrialRequest request = { .path = candidate->path, .suffix = "", .incumbent = s->incumbent_path,
                             .n_checks = s->n_checks,
                             .n_times = s->n_times, .pack_len = job_scratch(s->job, values),
                             .same_bits = s->has_bits && same_bits(s, point),
                             .measure_all = s->n_trials == 0, .deadline = s->deadline };
    memcpy(request.checks, s->checks, sizeof s->checks);
    memcpy(request.times, s->times, sizeof s->times);
    if (!candidate->built) {
        *result = (TrialResult){ .status = TRIAL_BUILD_FAILED, .max_error = -1 };
        strncpy(result->detail, candidate->words, sizeof result->detail - 1);
        return;
    }
    trial_run(&request, result);
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

static void count(SearchRun *run, SearchState *s, const TrialResult *result)
{
    s->n_trials++;
    run->n_trials++;
    s->n_stopped += result->status == TRIAL_STOPPED;
    s->n_failed += result->status != TRIAL_OK && result->status != TRIAL_STOPPED;
}

static void decide(SearchRun *run, SearchState *s, const SpacePoint *point, const char *text, const char *path,
                   const TrialResult *result)
{
    const TrialPairs *pairs = &result->pairs[0];
    count(run, s, result);
    if (result->status != TRIAL_OK || !decide_wins(pairs->candidate, pairs->incumbent, pairs->n))
        return;
    s->ratio *= decide_ratio(pairs->candidate, pairs->incumbent, pairs->n);
    s->incumbent = *point;
    s->incumbent_text = text;
    s->incumbent_path = path;
    s->n_wins++;
    if (run->progress)
        progress_say(run->progress, "%s: %s, %.3fx", s->job->key, text, 1 / s->ratio);
}

static void tell_failure(SearchRun *run, const SearchState *s, const char *text, const TrialResult *result)
{
    if (run->progress && result->status != TRIAL_OK && result->status != TRIAL_STOPPED)
        progress_say(run->progress, "%s: %s: %s: %s", s->job->key, text, trial_status_text(result->status),
                     result->detail);
}

/* One point: from the records of an earlier session, or measured and recorded. */
static bool try_point(SearchRun *run, SearchState *s, const SpacePoint *point, Candidate *candidate, int ordinal)
{
    TrialResult result;
    const char *text = point_text(run, s->job, point);
    const RecordKey key = key_of(run, s->job, s->job->tokens[0]);
    const Trial *old = find_old(run, &key, text, s->incumbent_text);
    const char *path = NULL;
    if (old) {
        replay(old, &result);
        run->n_replayed++;
    } else {
        if (!candidate->path) {
            *candidate = write_point(run, s, point, ordinal);
            candidates_compile(&run->builder, candidate, 1);
        }
        if (interrupt_came() || !build_known(run, s) || !search_work_make(run, s) || !search_work_keep_bits(run, s))
            return false;
        run_trial(s, point, candidate, &result);
        if (result.interrupted || interrupt_came() || !record(run, s, text, &result))
            return false;
        tell_failure(run, s, text, &result);
    }
    path = candidate->path && candidate->built ? candidate->path : NULL;
    decide(run, s, point, text, path, &result);
    draw(run);
    /* What was not kept is not needed again. */
    if (path && path != s->incumbent_path)
        unlink(path);
    return true;
}

/* ---- rounds ---- */

static bool trials_left(const SearchRun *run) { return !run->most_trials || run->n_trials < run->most_trials; }
static bool time_left(const SearchRun *run)
{
    return run->most_seconds <= 0 || search_seconds(run) < run->most_seconds;
}

/* The default against itself: whether it is right, how fast, and how noisy the machine is. */
static bool try_default(SearchRun *run, SearchState *s)
{
    TrialResult result;
    s->incumbent = s->job->initial;
    s->incumbent_text = point_text(run, s->job, &s->incumbent);
    const RecordKey key = key_of(run, s->job, s->job->tokens[0]);
    const Trial *old = find_old(run, &key, s->incumbent_text, s->incumbent_text);
    s->ratio = 1;
    if (old) {
        replay(old, &result);
        run->n_replayed++;
    } else {
        if (!build_known(run, s) || !search_work_make(run, s))
            return false;
        const Candidate itself = { .path = s->incumbent_path, .built = true };
        run_trial(s, &s->incumbent, &itself, &result);
        if (result.interrupted || interrupt_came())
            return false;
        if (!record(run, s, s->incumbent_text, &result))
            return false;
        tell_failure(run, s, s->incumbent_text, &result);
    }
    count(run, s, &result);
    draw(run);
    s->broken = result.status != TRIAL_OK;
    return true;
}

/* The kernel with most to gain a trial: its share of the work over its trials. Prefill gains more than decode. */
static SearchState *next_state(SearchRun *run)
{
    SearchState *best = NULL;
    double most = 0;
    for (int i = 0; i < run->n_states; i++) {
        SearchState *s = &run->states[i];
        double gain = (s->job->phase == PLAN_PREFILL ? 3 : 1) * s->job->share / (s->n_trials + 1.0);
        if (!s->broken && s->next < s->job->n_points && gain > most) {
            most = gain;
            best = s;
        }
    }
    return best;
}

enum { BATCH = 8 };

static bool is_default(const SearchState *s, const SpacePoint *point)
{
    for (int i = 0; i < s->job->space.n; i++)
        if (point->value[i] != s->job->initial.value[i])
            return false;
    return true;
}

typedef struct { SpacePoint point; Candidate candidate; int ordinal; bool known; } BatchPoint;

/* The next points of a kernel; those that must be measured are compiled, side by side. */
static bool take_batch(SearchRun *run, SearchState *s, BatchPoint *batch, int *n)
{
    Candidate build[BATCH];
    int from[BATCH], n_build = 0;
    const RecordKey key = key_of(run, s->job, s->job->tokens[0]);
    for (*n = 0; *n < BATCH && s->next < s->job->n_points; s->next++) {
        BatchPoint *p = &batch[*n];
        *p = (BatchPoint){ .point = s->job->points[s->order[s->next]], .ordinal = s->next };
        p->known = find_old(run, &key, point_text(run, s->job, &p->point), s->incumbent_text) != NULL;
        *n += !is_default(s, &p->point);
    }
    if (run->most_trials && run->most_trials - run->n_trials < *n)
        *n = (int)(run->most_trials - run->n_trials);
    for (int i = 0; i < *n && time_left(run); i++)
        if (!batch[i].known) {
            from[n_build] = i;
            build[n_build++] = write_point(run, s, &batch[i].point, batch[i].ordinal);
        }
    bool ok = candidates_compile(&run->builder, build, n_build);
    for (int i = 0; i < n_build; i++)
        batch[from[i]].candidate = build[i];
    return ok;
}

/* Measured one by one. What earlier sessions measured costs no time, and is gone through when none is left. */
static bool run_batch(SearchRun *run, SearchState *s)
{
    BatchPoint batch[BATCH];
    int n;
    if (!take_batch(run, s, batch, &n))
        return false;
    for (int i = 0; i < n && (batch[i].known || time_left(run)); i++) {
        if (!try_point(run, s, &batch[i].point, &batch[i].candidate, batch[i].ordinal))
            return false;
        if (run->progress)
            progress_show(run->progress, run, s);
    }
    return true;
}

static bool load_old(SearchRun *run)
{
    RecordsFilter filter = { .search = run->journal.id };
    return records_list(run->records, run->arena, run->diags, &filter, &run->old, &run->n_old);
}

static bool make_states(SearchRun *run)
{
    const Job *jobs = jobs_of_plan(run->arena, run->plan, &run->n_states);
    run->states = arena_array(run->arena, SearchState, (size_t)run->n_states + 1);
    for (int i = 0; i < run->n_states; i++) {
        run->states[i] = (SearchState){ .job = &jobs[i], .ratio = 1 };
        if (!order_points(run, &run->states[i]))
            return false;
    }
    return true;
}

/* Everything that may end a search: true when it is only the budget. */
static bool run_rounds(SearchRun *run)
{
    SearchState *s;
    while (trials_left(run) && (s = next_state(run))) {
        const int n_replayed = run->n_replayed;
        bool ok = (s->n_trials > 0 || try_default(run, s)) && (s->broken || run_batch(run, s));
        search_work_drop(s);
        if (!ok)
            return false;
        if (!time_left(run) && run->n_replayed == n_replayed)
            break;
    }
    return true;
}

bool search_run(SearchRun *run)
{
    run->begun = clock_seconds();
    run->spent_before = run->journal.seconds;
    if (!make_states(run) || !load_old(run))
        return false;
    bool done = run_rounds(run);
    run->interrupted = interrupt_came();
    run->journal.seconds = search_seconds(run);
    run->journal.finished = done;
    if (run->progress)
        progress_end(run->progress);
    return records_search_save(run->records, run->diags, &run->journal) && (done || run->interrupted)
        && !diags_failed(run->diags);
}
