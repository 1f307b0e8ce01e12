/* Trial: the child's work, and the parent's watch over it.
 *
 * The child writes into memory that both share, a stage at a time, so that what it knew before a crash is
 * there.
 */
#include "trial.h"

#include "runner.h"
#include "watch.h"

#include <math.h>
#include <stdio.h>

/* ---- in the child ---- */

static Work *check_of(void *context, int i) { return ((const TrialRequest *)context)->checks[i]; }
static Work *time_of(void *context, int i) { return ((const TrialRequest *)context)->times[i]; }

static Measurement measurement_of(const TrialRequest *request, KernelCall *candidate, KernelCall *incumbent)
{
    return (Measurement){ .candidate = candidate, .incumbent = incumbent, .n_checks = request->n_checks,
                          .n_times = request->n_times, .check = check_of, .time = time_of, .context = (void *)request,
                          .pack_len = request->pack_len, .block_rows = request->block_rows,
                          .measure_all = request->measure_all,
                          .same_bits = request->same_bits };
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
    const Measurement measurement = measurement_of(request, candidate, incumbent);
    measure_trial(&measurement, result);
}

double trial_check(const TrialRequest *request, char *detail, size_t detail_len)
{
    KernelCall *call = kernel_load(request->path, request->suffix, detail, detail_len);
    const Measurement measurement = measurement_of(request, call, NULL);
    double error = call ? measure_checks(&measurement, detail, detail_len) : INFINITY;
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

static void run_here(const TrialRequest *request, TrialResult *result)
{
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

void trial_run(const TrialRequest *request, TrialResult *result)
{
    *result = (TrialResult){ .status = TRIAL_RUNNER_FAILED, .max_error = -1 };
    if (request->runner)
        runner_trial(request->runner, request, result);
    else
        run_here(request, result);
}
