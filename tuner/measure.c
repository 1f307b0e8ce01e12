/* Measure: checks, then samples of candidate and incumbent in turn. */
#include "measure.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const double sample_seconds = 1.5e-3;       /* a sample is as many calls as take so long */

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

static bool end(TrialResult *result, TrialStatus status, const char *detail)
{
    result->status = status;
    snprintf(result->detail, sizeof result->detail, "%s", detail);
    return false;
}

static bool no_memory(TrialResult *result) { return end(result, TRIAL_RUNNER_FAILED, "no memory for a workload"); }

/* Bytes that make no pointer and no ordinary number, where the kernel's frame will lie: what it reads there without
 * having written it shows. */
__attribute__((noinline)) static void poison_stack(void)
{
    char room[192 << 10];
    memset(room, 0xFF, sizeof room);
    __asm__ volatile("" : : "r"(room) : "memory");
}

static double check_once(const Measurement *m, Work *work, char *where, size_t len)
{
    if (!kernel_bind(m->candidate, work, where, len))
        return INFINITY;
    work_reset(work);
    poison_stack();
    kernel_run(m->candidate, 0);
    return work_error(work, m->same_bits, where, len);
}

static double check_part(const Measurement *m, Work *work, int n, char *where, size_t len)
{
    const int n_tokens = work_tokens(work);
    if (n < 1 || n >= n_tokens || !work_set_tokens(work, n))
        return 0;
    double error = check_once(m, work, where, len);
    work_set_tokens(work, n_tokens);
    return error;
}

/* Fewer tokens of the same: as many as fill its blocks, where none may be begun in vain; and once every number, so that
 * every rest that a tile can leave is there. */
static double check_parts(const Measurement *m, Work *work, char *where, size_t len)
{
    enum { MOST = 40 };
    const int n_tokens = work_tokens(work);
    double worst = check_part(m, work, m->block_rows ? n_tokens / m->block_rows * m->block_rows : 0, where, len);
    for (int n = 1; n_tokens > MOST / 2 && n_tokens <= MOST && n < n_tokens && worst <= 1; n++) {
        const double error = check_part(m, work, n, where, len);
        worst = error > worst ? error : worst;
    }
    return worst;
}

double measure_checks(const Measurement *m, char *detail, size_t len)
{
    double worst = 0;
    char where[TRIAL_DETAIL_LEN];
    detail[0] = '\0';
    for (int i = 0; i < m->n_checks; i++) {
        Work *work = m->check(m->context, i);
        if (!work)
            return NAN;
        work_set_scratch(work, m->pack_len);
        for (int parts = 0; parts < 2; parts++) {
            double error = (parts ? check_parts : check_once)(m, work, where, sizeof where);
            if (!(error <= worst)) {
                worst = error;
                snprintf(detail, len, "%s", where);
            }
        }
    }
    return worst;
}

/* One token count; false when nothing more is to be measured, with the status that says why. */
static bool measure_one(const Measurement *m, int i, TrialResult *result)
{
    char words[TRIAL_DETAIL_LEN];
    TrialPairs *pairs = &result->pairs[i];
    Work *work = m->time(m->context, i);
    if (!work)
        return no_memory(result);
    if (!kernel_bind(m->candidate, work, words, sizeof words) || !kernel_bind(m->incumbent, work, words, sizeof words))
        return false;
    measure(m->candidate, m->incumbent, work, i == 0 && !m->measure_all, pairs);
    if (m->measure_all)
        return true;
    if (i == 0 && !decide_wins(pairs->candidate, pairs->incumbent, pairs->n))
        return end(result, decide_hopeless(pairs->candidate, pairs->incumbent, pairs->n) ? TRIAL_STOPPED
                   : TRIAL_OK, "");
    if (i > 0 && decide_harms(pairs->candidate, pairs->incumbent, pairs->n)) {
        snprintf(words, sizeof words, "slower at %d tokens", work_tokens(work));
        return end(result, TRIAL_STOPPED, words);
    }
    return true;
}

void measure_trial(const Measurement *m, TrialResult *result)
{
    char words[TRIAL_DETAIL_LEN];
    double error = measure_checks(m, words, sizeof words);
    if (error != error) {
        no_memory(result);
        return;
    }
    result->max_error = error;
    if (!(error <= 1)) {
        end(result, TRIAL_WRONG, words);
        return;
    }
    for (int i = 0; i < m->n_times && m->incumbent; i++)
        if (!measure_one(m, i, result))
            return;
    end(result, TRIAL_OK, "");
}
