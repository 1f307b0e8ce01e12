/* Trial: the child's work, and the parent's watch over it.
 *
 * The child writes into memory that both share, a stage at a time, so that what it knew before a crash is
 * there.
 */
#include "trial.h"

#include "kernel_call.h"
#include "watch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const double sample_seconds = 1.5e-3;       /* a sample is as many calls as take so long */

/* ---- in the child ---- */

/* Of this thread alone: what else a shared machine does counts less. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double run_sample(KernelCall *call, Work *work, int n_calls, int *next)
{
    work_reset(work);
    double begin = now();
    for (int i = 0; i < n_calls; i++) {
        kernel_run(call, *next);
        *next = *next + 1 < work_copies(work) ? *next + 1 : 0;
    }
    return (now() - begin) / n_calls;
}

/* Pairs until it is known who is faster; which of the two comes first changes from pair to pair. */
static void measure(KernelCall *candidate, KernelCall *incumbent, Work *work, bool decides, TrialPairs *pairs)
{
    int next = 0;      /* both go through the copies together: neither finds what the other has just read */
    run_sample(candidate, work, 1, &next);
    double once = run_sample(incumbent, work, 1, &next);
    double more = run_sample(incumbent, work, 1, &next);
    once = more < once ? more : once;
    int n_calls = once > 0 && once < sample_seconds ? (int)ceil(sample_seconds / once) : 1;
    n_calls = n_calls > 4096 ? 4096 : n_calls;
    for (int n = 0; n < DECIDE_MOST_PAIRS; n++) {
        if (n % 2)
            pairs->incumbent[n] = run_sample(incumbent, work, n_calls, &next);
        pairs->candidate[n] = run_sample(candidate, work, n_calls, &next);
        if (n % 2 == 0)
            pairs->incumbent[n] = run_sample(incumbent, work, n_calls, &next);
        pairs->n = n + 1;
        if (decides ? decide_hopeless(pairs->candidate, pairs->incumbent, n + 1)
                          || decide_done(pairs->candidate, pairs->incumbent, n + 1)
                    : n + 1 >= DECIDE_LEAST_PAIRS)
            break;
    }
}

static double check(KernelCall *call, const TrialRequest *request, char *detail, size_t len)
{
    double worst = 0;
    char where[TRIAL_DETAIL_LEN];
    detail[0] = '\0';
    for (int i = 0; i < request->n_checks; i++) {
        work_set_scratch(request->checks[i], request->pack_len);
        if (!kernel_bind(call, request->checks[i], detail, len))
            return INFINITY;
        work_reset(request->checks[i]);
        kernel_run(call, 0);
        double error = work_error(request->checks[i], request->same_bits, where, sizeof where);
        if (!(error <= worst)) {
            worst = error;
            snprintf(detail, len, "%s", where);
        }
    }
    return worst;
}

static void child(const TrialRequest *request, TrialResult *result)
{
    char words[TRIAL_DETAIL_LEN];
    KernelCall *candidate = kernel_load(request->path, request->suffix, words, sizeof words);
    KernelCall *incumbent = request->incumbent && candidate ? kernel_load(request->incumbent, "", words, sizeof words)
        : NULL;
    if (!candidate || (request->incumbent && !incumbent)) {
        result->status = TRIAL_BUILD_FAILED;
        snprintf(result->detail, sizeof result->detail, "%s", words);
        return;
    }
    double error = check(candidate, request, words, sizeof words);
    result->max_error = error;
    if (!(error <= 1)) {
        result->status = TRIAL_WRONG;
        snprintf(result->detail, sizeof result->detail, "%s", words);
        return;
    }
    for (int i = 0; i < request->n_times && incumbent; i++) {
        TrialPairs *pairs = &result->pairs[i];
        if (!kernel_bind(candidate, request->times[i], words, sizeof words)
            || !kernel_bind(incumbent, request->times[i], words, sizeof words))
            return;
        measure(candidate, incumbent, request->times[i], i == 0 && !request->measure_all, pairs);
        if (request->measure_all)
            continue;
        if (i == 0 && !decide_wins(pairs->candidate, pairs->incumbent, pairs->n)) {
            if (decide_hopeless(pairs->candidate, pairs->incumbent, pairs->n))
                result->status = TRIAL_STOPPED;
            else
                result->status = TRIAL_OK;
            return;
        }
        if (i > 0 && decide_harms(pairs->candidate, pairs->incumbent, pairs->n)) {
            result->status = TRIAL_STOPPED;
            snprintf(result->detail, sizeof result->detail, "slower at %d tokens", work_tokens(request->times[i]));
            return;
        }
    }
    result->status = TRIAL_OK;
}

double trial_check(const TrialRequest *request, char *detail, size_t detail_len)
{
    KernelCall *call = kernel_load(request->path, request->suffix, detail, detail_len);
    double error = call ? check(call, request, detail, detail_len) : INFINITY;
    kernel_free(call);
    return error;
}

/* ---- in the parent ---- */

typedef struct { const TrialRequest *request; TrialResult *shared; } ChildWork;

static void run_child(void *context)
{
    const ChildWork *work = context;
    child(work->request, work->shared);
}

void trial_run(const TrialRequest *request, TrialResult *result)
{
    *result = (TrialResult){ .status = TRIAL_RUNNER_FAILED, .max_error = -1 };
    TrialResult *shared = watch_memory(sizeof *shared);
    if (!shared) {
        snprintf(result->detail, sizeof result->detail, "no memory for a candidate");
        return;
    }
    *shared = (TrialResult){ .status = TRIAL_CRASHED, .max_error = -1 };
    snprintf(shared->detail, sizeof shared->detail, "it ended before it was measured");
    ChildWork work = { request, shared };
    Watched end = watch_run(run_child, &work, request->deadline);
    *result = *shared;
    result->interrupted = end.interrupted;
    if (end.status != TRIAL_OK) {
        result->status = end.status;
        snprintf(result->detail, sizeof result->detail, "%s", end.detail);
    }
    watch_release(shared, sizeof *shared);
}
