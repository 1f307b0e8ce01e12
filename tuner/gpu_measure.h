/* Search on a GPU: what search_measure.h promises, by a worker that holds the device. */
#ifndef MOSSC_TUNER_GPU_MEASURE_H
#define MOSSC_TUNER_GPU_MEASURE_H

#include "gpu_worker.h"
#include "search.h"
#include "step_run.h"

/* Points of a kernel, compiled side by side; false only when a signal came. */
bool gpu_search_build(SearchRun *run, SearchState *s, const int *points, int n);
bool gpu_search_measure(SearchRun *run, SearchState *s, int point, int incumbent, TrialResult *result);
/* A whole model with choices beside the same without: passes of request->n_tokens of prefill, decoded tokens, and
 * a long prompt in the chunks of request->chunks; chunks for which there is not enough memory are taken out. */
void gpu_step_run(const Plan *plan, const Choices *choices, StepRequest *request, StepResult *result);

#endif
