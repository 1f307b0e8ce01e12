/* Step run: two builds of a model, measured in turn in a process of its own. Also built into the programs that boards
 * run: there libraries are what is linked in. */
#ifndef MOSSC_TUNER_STEP_RUN_H
#define MOSSC_TUNER_STEP_RUN_H

#include "measure.h"

enum { STEP_MAX_CHUNKS = 4, STEP_MAX_VARIANTS = 12, STEP_DECODED = 24 };

/* The tuned model with one thing more chosen of the whole of it: `threads` and `bind` with its own library, else
 * NAME-VALUE.so of the request's folder. */
typedef struct { char name[16]; int value; } StepVariant;
bool step_variant_is_built(const StepVariant *variant);

typedef struct {
    const char *untuned, *tuned;         /* libraries */
    const char *weights;                 /* of both */
    int n_tokens, n_threads, vocab_size;
    int chunks[STEP_MAX_CHUNKS], n_chunks;   /* shorter than compiled, tried with the tuned one */
    const char *folder;
    StepVariant variants[STEP_MAX_VARIANTS];
    int n_variants;
    bool same_bits;                      /* must both give the same logits? */
    double deadline;
} StepRequest;

typedef struct {
    TrialStatus status;
    char detail[TRIAL_DETAIL_LEN];
    double max_error;                    /* of the tuned one's logits, in units of what is allowed */
    uint64_t bits;                       /* of the untuned one's logits */
    TrialPairs prefill, decode;          /* candidate: tuned, incumbent: untuned */
    TrialPairs chunks[STEP_MAX_CHUNKS];  /* candidate: with that chunk, incumbent: without */
    TrialPairs variants[STEP_MAX_VARIANTS];  /* candidate: that one, incumbent: the tuned one */
    bool interrupted;
} StepResult;

void step_run(const StepRequest *request, StepResult *result);

#endif
