/* Trial: the child's work, and the parent's watch over it.
 *
 * The child writes into memory that both share, a stage at a time, so that what it knew before a crash is
 * there. Its end closes a pipe, which is what the parent waits for.
 */
#include "trial.h"

#include "kernel_call.h"
#include "../compiler/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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
    int next = 0, others = 0;
    run_sample(candidate, work, 1, &next);
    double once = run_sample(incumbent, work, 1, &others);
    double more = run_sample(incumbent, work, 1, &others);
    once = more < once ? more : once;
    int n_calls = once > 0 && once < sample_seconds ? (int)ceil(sample_seconds / once) : 1;
    n_calls = n_calls > 4096 ? 4096 : n_calls;
    for (int n = 0; n < DECIDE_MOST_PAIRS; n++) {
        if (n % 2)
            pairs->incumbent[n] = run_sample(incumbent, work, n_calls, &others);
        pairs->candidate[n] = run_sample(candidate, work, n_calls, &next);
        if (n % 2 == 0)
            pairs->incumbent[n] = run_sample(incumbent, work, n_calls, &others);
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
    KernelCall *incumbent = request->incumbent && candidate ? kernel_load(request->incumbent, "", words, sizeof words) : NULL;
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
        measure(candidate, incumbent, request->times[i], i == 0, pairs);
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

static void run_child(const TrialRequest *request, TrialResult *shared, int pipe_end)
{
    const struct rlimit none = { 0, 0 };
    prctl(PR_SET_PDEATHSIG, SIGKILL);        /* mossc killed: nothing stays behind */
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGINT, SIG_IGN);                 /* a terminal's Ctrl-C is mossc's, which ends this process */
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    child(request, shared);
    close(pipe_end);
    _exit(0);
}

/* Until the child's end of the pipe closes: true; false when time or patience is over. */
static bool wait_for_end(int pipe_end, double seconds, bool *interrupted)
{
    struct pollfd end = { .fd = pipe_end, .events = POLLIN };
    double left = seconds;
    while (left > 0 && !(*interrupted = interrupt_came())) {
        struct timespec begin, after;
        clock_gettime(CLOCK_MONOTONIC, &begin);
        int n = poll(&end, 1, (int)(left < 0.2 ? left * 1000 + 1 : 200));
        if (n > 0)
            return true;
        clock_gettime(CLOCK_MONOTONIC, &after);
        left -= (double)(after.tv_sec - begin.tv_sec) + 1e-9 * (double)(after.tv_nsec - begin.tv_nsec);
    }
    return false;
}

static void set_end(TrialResult *result, int status, bool in_time, double deadline)
{
    if (!in_time) {
        result->status = TRIAL_HUNG;
        snprintf(result->detail, sizeof result->detail, "it did not end within %.0f s", deadline);
    } else if (WIFSIGNALED(status)) {
        result->status = TRIAL_CRASHED;
        snprintf(result->detail, sizeof result->detail, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else if (WEXITSTATUS(status) != 0) {
        result->status = TRIAL_CRASHED;
        snprintf(result->detail, sizeof result->detail, "it ended the process with %d", WEXITSTATUS(status));
    }
}

static void fail(TrialResult *result, const char *what)
{
    result->status = TRIAL_RUNNER_FAILED;
    snprintf(result->detail, sizeof result->detail, "%s: %s", what, strerror(errno));
}

void trial_run(const TrialRequest *request, TrialResult *result)
{
    int ends[2];
    *result = (TrialResult){ .status = TRIAL_CRASHED, .max_error = -1 };
    TrialResult *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || pipe2(ends, O_CLOEXEC) != 0) {
        fail(result, "no memory or pipe for a candidate");
        return;
    }
    *shared = *result;
    snprintf(shared->detail, sizeof shared->detail, "it ended before it was measured");
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        run_child(request, shared, ends[1]);
    }
    close(ends[1]);
    if (pid < 0) {
        fail(result, "no process for a candidate");
    } else {
        int status = 0;
        bool interrupted, in_time = wait_for_end(ends[0], request->deadline, &interrupted);
        if (!in_time)
            kill(pid, SIGKILL);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            continue;
        *result = *shared;
        set_end(result, status, in_time, request->deadline);
        result->interrupted = interrupted;
    }
    close(ends[0]);
    munmap(shared, sizeof *shared);
}
