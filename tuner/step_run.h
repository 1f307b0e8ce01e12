/* Step run: two builds of a model, measured in turn in a process of its own. */
#ifndef MOSSC_TUNER_STEP_RUN_H
#define MOSSC_TUNER_STEP_RUN_H

#include "trial.h"

enum { STEP_MAX_CHUNKS = 4, STEP_DECODED = 24 };

typedef struct {
    const char *untuned, *tuned;         /* libraries */
    const char *weights;                 /* of both */
    int n_tokens, n_threads, vocab_size;
    int chunks[STEP_MAX_CHUNKS], n_chunks;   /* shorter than compiled, tried with the tuned one */
    bool same_bits;                      /* must both give the same logits? */
    double deadline;
} StepRequest;

typedef struct {
    TrialStatus status;
    char detail[TRIAL_DETAIL_LEN];
    double max_error;                    /* of the tuned one's logits, in units of what is allowed */
    TrialPairs prefill, decode;          /* candidate: tuned, incumbent: untuned */
    TrialPairs chunks[STEP_MAX_CHUNKS];  /* candidate: with that chunk, incumbent: without */
    bool interrupted;
} StepResult;

void step_run(const StepRequest *request, StepResult *result);

#endif
