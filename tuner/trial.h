/* Trial: one candidate, checked and measured in a process of its own.
 *
 * Input: shared objects of a candidate and of its incumbent, and workloads. Output: how it ended, with the
 * pairs of samples. Whatever a candidate does (hang, crash, write where it must not, wrong results) is a
 * status, and the caller goes on.
 */
#ifndef MOSSC_TUNER_TRIAL_H
#define MOSSC_TUNER_TRIAL_H

#include "decide.h"
#include "records.h"
#include "workload.h"

enum { TRIAL_MAX_WORKS = 4, TRIAL_DETAIL_LEN = 240 };

typedef struct {
    const char *path, *suffix;           /* of the candidate; "" for the suffix */
    const char *incumbent;               /* NULL: only check */
    Work *checks[TRIAL_MAX_WORKS], *times[TRIAL_MAX_WORKS];      /* the first of `times` decides */
    int n_checks, n_times;
    int64_t pack_len;                    /* bytes of scratch that the candidate has */
    bool measure_all;                    /* every token count, whoever is faster */
    bool same_bits;                      /* must give the bits that work_keep_bits kept */
    double deadline;                     /* seconds */
} TrialRequest;

typedef struct { double candidate[DECIDE_MOST_PAIRS], incumbent[DECIDE_MOST_PAIRS]; int n; } TrialPairs;

typedef struct {
    TrialStatus status;
    char detail[TRIAL_DETAIL_LEN];
    double max_error;                    /* negative: not checked */
    TrialPairs pairs[TRIAL_MAX_WORKS];   /* by `times` */
    bool interrupted;                    /* a signal came: there is no result */
} TrialResult;

void trial_run(const TrialRequest *request, TrialResult *result);
/* The checks alone, in this process: for candidates that are known to be harmless. */
double trial_check(const TrialRequest *request, char *detail, size_t detail_len);

#endif
