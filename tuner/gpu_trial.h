/* Trials on a GPU: a kernel at one point beside another, checked and timed in place; whole models beside each other.
 *
 * Runs in the child that holds the device. A product's, a scan's or an attention's time in prefill is the sum of its
 * launches in a pass over the model, between events. In decode, where launches overlap, it is what a token takes less
 * what it takes without them.
 */
#ifndef MOSSC_TUNER_GPU_TRIAL_H
#define MOSSC_TUNER_GPU_TRIAL_H

#include "gpu_bench.h"
#include "trial.h"

enum { GPU_TRIAL_PASSES = 3 };

typedef struct {
    const char *key;
    int phase;                   /* PLAN_PREFILL, PLAN_DECODE */
    const Plan *candidate, *incumbent;
    bool is_default;             /* both are: checked against the references alone */
    bool same_bits;              /* as the default's */
    int tokens[GPU_TRIAL_PASSES], n_tokens;
    int check_tokens;            /* of the longest checked pass */
} GpuTrial;

/* False: the device is lost, and the child should end. */
bool gpu_trial(GpuBench *bench, BenchSide *base, const GpuTrial *trial, TrialResult *result);

/* Whole passes of both, in turn: a prompt of so many tokens, in each one's chunks, or (0) a decoded token. */
typedef struct { const Plan *candidate, *incumbent; int tokens; } GpuStep;
bool gpu_step(GpuBench *bench, const GpuStep *step, TrialResult *result);

#endif
