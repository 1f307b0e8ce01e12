/* Measure: a candidate checked, then timed beside its incumbent; the part of a trial that needs no compiler.
 *
 * Input: kernels that can be called and workloads, one at a time. Output: how it ended, with the pairs of samples.
 * Uses the C library only: it is also built into the programs that run candidates on boards.
 */
#ifndef MOSSC_TUNER_MEASURE_H
#define MOSSC_TUNER_MEASURE_H

#include "decide.h"
#include "kernel_call.h"
#include "status.h"

enum { TRIAL_MAX_WORKS = 6, TRIAL_DETAIL_LEN = 240 };

typedef struct { double candidate[DECIDE_MOST_PAIRS], incumbent[DECIDE_MOST_PAIRS]; int n; } TrialPairs;

typedef struct {
    TrialStatus status;
    char detail[TRIAL_DETAIL_LEN];
    double max_error;                    /* negative: not checked */
    TrialPairs pairs[TRIAL_MAX_WORKS];   /* by workload that is timed */
    bool interrupted;                    /* a signal came: there is no result */
} TrialResult;

typedef struct {
    KernelCall *candidate, *incumbent;   /* incumbent NULL: only check */
    int n_checks, n_times;
    /* Workload i, good until the next is asked for; NULL: no memory for it. */
    Work *(*check)(void *context, int i);
    Work *(*time)(void *context, int i);
    void *context;
    int64_t pack_len;                    /* bytes of scratch that the candidate has */
    int block_rows;                      /* of one dense matrix: calls of whole blocks are checked, too; 0: no blocks */
    bool measure_all;                    /* every token count, whoever is faster */
    bool same_bits;                      /* must give the bits that work_keep_bits kept */
} Measurement;

/* The result as it is known so far, at any time: a candidate may crash. */
void measure_trial(const Measurement *m, TrialResult *result);
/* The checks alone: the worst error in units of what is allowed; which element, in `detail`. */
double measure_checks(const Measurement *m, char *detail, size_t len);

#endif
