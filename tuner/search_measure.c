/* Search, measured: candidates built, checked and timed.
 *
 * The checks compare with plain loops and, once the default was found right, with its bits.
 */
#include "search_measure.h"

#include "gpu_measure.h"
#include "host_lock.h"
#include "search_work.h"
#include "../compiler/interrupt.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const SpacePoint *point_of(const SearchState *s, int point)
{
    return point < 0 ? &s->job->initial : &s->job->points[point];
}

static Candidate write_point(SearchRun *run, const SearchState *s, int point, bool guarded)
{
    Text source = { 0 };
    double values[TEMPLATE_MAX_PARAMS];
    const Template *template = s->job->template;
    if (run->builder.alter && point >= 0)
        template = run->builder.alter(run->arena, template, point);
    job_values(s->job, point_of(s, point), values);
    kernel_file_write(template, values, &source);
    const char *name = arena_printf(run->arena, "%d_%d%s", (int)(s - run->states), point, guarded ? "_guarded" : "");
    Candidate candidate = candidate_write(&run->builder, run->diags, name, &source);
    candidate.guarded = guarded;
    text_free(&source);
    return candidate;
}

static bool is_there(const SearchState *s, int point)
{
    return point < 0 ? s->default_path != NULL : s->built[point].path != NULL;
}

static bool keep_default(SearchRun *run, SearchState *s, const Candidate *candidate)
{
    if (candidate->built)
        s->default_path = candidate->path;
    else
        diag_report(run->diags, DIAG_TOOLCHAIN, NULL, "%s fails on %s as it is without tuning: %s",
                    run->builder.cc.args[0], s->job->key, candidate->words);
    return candidate->built;
}

static bool build_new(SearchRun *run, SearchState *s, const int *points, int n)
{
    Candidate candidates[SEARCH_BATCH];
    int from[SEARCH_BATCH], n_new = 0;
    if (!s->built)
        s->built = arena_array(run->arena, Candidate, (size_t)s->job->n_points + 1);
    for (int i = 0; i < n; i++)
        if (!is_there(s, points[i])) {
            from[n_new] = points[i];
            candidates[n_new++] = write_point(run, s, points[i], false);
        }
    HostLock lock = n_new ? host_lock(HOST_BUILDS) : (HostLock){ -1 };
    bool ok = candidates_compile(&run->builder, candidates, n_new);
    host_unlock(&lock);
    for (int i = 0; i < n_new && ok; i++)
        if (from[i] >= 0)
            s->built[from[i]] = candidates[i];
        else
            ok = keep_default(run, s, &candidates[i]);
    return ok;
}

bool search_build(SearchRun *run, SearchState *s, const int *points, int n)
{
    if (!run->plan->launches)
        return build_new(run, s, points, n);
    HostLock lock = host_lock(HOST_BUILDS);
    bool ok = gpu_search_build(run, s, points, n);
    host_unlock(&lock);
    return ok;
}

/* Points whose results must equal the default's to the bit: all, but where keys are walked in other blocks. */
static bool same_bits(const SearchState *s, const SpacePoint *point)
{
    int keys = space_param(&s->job->space, "key_block");
    return keys < 0 || point->value[keys] == s->job->initial.value[keys];
}

/* Without an incumbent only a check, by the reference alone: who compiled it otherwise may round otherwise. */
static void run_trial(Runner *runner, const SearchState *s, int point, const char *path, const char *incumbent,
                      TrialResult *result)
{
    double values[TEMPLATE_MAX_PARAMS];
    job_values(s->job, point_of(s, point), values);
    TrialRequest request = { .runner = runner, .original = s->default_path,
                             .original_pack_len = job_scratch(s->job, s->job->values), .path = path, .suffix = "",
                             .incumbent = incumbent, .n_checks = s->n_checks, .n_times = s->n_times,
                             .pack_len = job_scratch(s->job, values),
                             .block_rows = search_block_rows(s->job, values),
                             .same_bits = incumbent && s->has_bits && same_bits(s, point_of(s, point)),
                             .measure_all = point < 0,
                             .deadline = s->deadline };
    memcpy(request.checks, s->checks, sizeof s->checks);
    memcpy(request.times, s->times, sizeof s->times);
    /* A runner's machine is another one, and has one trial at a time by itself. */
    HostLock lock = runner ? (HostLock){ -1 } : host_lock(HOST_MEASURES);
    trial_run(&request, result);
    host_unlock(&lock);
}

/* The incumbent won once; a machine that has not built it, or does not any more, builds it again. */
static bool make_ready(SearchRun *run, SearchState *s, int point, int incumbent)
{
    const int wanted[] = { SEARCH_DEFAULT, incumbent, point };
    const int n = incumbent == point ? 2 : 3, from = incumbent < 0 ? 1 : 0;
    if (!search_build(run, s, wanted + from, n - from))
        return false;
    if (incumbent >= 0 && !s->built[incumbent].built) {
        diag_report(run->diags, DIAG_TOOLCHAIN, NULL, "%s fails on %s, which it has compiled before: %s",
                    run->builder.cc.args[0], s->job->key, s->built[incumbent].words);
        return false;
    }
    if (s->n_checks > 0 && (point < 0 || s->has_bits))
        return true;
    HostLock lock = host_lock(HOST_BUILDS);
    bool ok = search_work_make(run, s) && (point < 0 || search_work_keep_bits(run, s));
    host_unlock(&lock);
    return ok;
}

static bool measure_gpu(SearchRun *run, SearchState *s, int point, int incumbent, TrialResult *result)
{
    HostLock lock = host_lock(HOST_MEASURES_GPU);
    bool ok = gpu_search_measure(run, s, point, incumbent, result);
    host_unlock(&lock);
    return ok;
}

/* A winner once more, so compiled that it stops where it leaves an array: what it read there may not have mattered in
 * any check. A compiler that cannot do that is taken at its word. */
static void check_bounds(SearchRun *run, SearchState *s, int point, TrialResult *result)
{
    Candidate guarded = write_point(run, s, point, true);
    TrialResult checked;
    HostLock lock = host_lock(HOST_BUILDS);
    const bool ok = candidates_compile(&run->builder, &guarded, 1);
    host_unlock(&lock);
    if (!ok || !guarded.built)
        return;
    run_trial(NULL, s, point, guarded.path, NULL, &checked);
    unlink(guarded.path);
    if (checked.status != TRIAL_OK) {
        result->status = checked.status;
        snprintf(result->detail, sizeof result->detail, "%s%.200s", checked.status == TRIAL_CRASHED
                 ? "with array bounds checked: " : "", checked.detail);
    }
    result->interrupted |= checked.interrupted;
}

bool search_measure(SearchRun *run, SearchState *s, int point, int incumbent, TrialResult *result)
{
    if (run->plan->launches)
        return measure_gpu(run, s, point, incumbent, result);
    if (!make_ready(run, s, point, incumbent) || interrupt_came())
        return false;
    const Candidate itself = { .path = s->default_path, .built = true, .words = "" };
    const Candidate *candidate = point < 0 ? &itself : &s->built[point];
    *result = (TrialResult){ .status = TRIAL_BUILD_FAILED, .max_error = -1 };
    if (candidate->built)
        run_trial(run->builder.runner, s, point, candidate->path,
                  incumbent < 0 ? s->default_path : s->built[incumbent].path, result);
    else
        strncpy(result->detail, candidate->words, sizeof result->detail - 1);
    if (point >= 0 && !run->builder.runner && search_wins(result))
        check_bounds(run, s, point, result);
    /* What was not kept is not needed again. */
    if (point >= 0 && !search_wins(result)) {
        unlink(candidate->path);
        s->built[point].path = NULL;
    }
    return !result->interrupted && !interrupt_came();
}

void search_measure_end(SearchState *s) { search_work_drop(s); }

void search_measure_free(SearchRun *run)
{
    gpu_worker_free(run->gpu);
    run->gpu = NULL;
}
