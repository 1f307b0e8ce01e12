/* Trial: one candidate, checked and measured where it cannot harm.
 *
 * Input: a candidate and its incumbent, compiled, and workloads. Output: how it ended, with the pairs of samples.
 * Whatever a candidate does (hang, crash, write where it must not, wrong results) is a status, and the caller goes on.
 * Invariant: nothing but trial_run knows where a candidate runs: in a process of its own here, or on a board.
 */
#ifndef MOSSC_TUNER_TRIAL_H
#define MOSSC_TUNER_TRIAL_H

#include "measure.h"
#include "records.h"

typedef struct Runner Runner;            /* runner.h: a board that is reached by a command */

typedef struct {
    Runner *runner;                      /* NULL: this machine */
    const char *path, *suffix;           /* of the candidate: a shared object, for a runner an object; suffix "" */
    const char *incumbent;               /* NULL: only check */
    const char *original;                /* for a runner: the default, whose bits are kept before the candidate runs */
    Work *checks[TRIAL_MAX_WORKS], *times[TRIAL_MAX_WORKS];      /* the first of `times` decides */
    int n_checks, n_times;
    int64_t pack_len, original_pack_len; /* bytes of scratch that the candidate has, and the default */
    int block_rows;                      /* of one dense matrix (search_block_rows); 0: no blocks */
    bool measure_all;                    /* every token count, whoever is faster */
    bool same_bits;                      /* must give the bits that were kept of the default */
    double deadline;                     /* seconds */
} TrialRequest;

void trial_run(const TrialRequest *request, TrialResult *result);
/* The checks alone, in this process: for candidates that are known to be harmless. */
double trial_check(const TrialRequest *request, char *detail, size_t detail_len);

#endif
