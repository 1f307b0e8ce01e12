/* Search on a GPU: what search_measure.h promises, by a worker that holds the device. */
#ifndef MOSSC_TUNER_GPU_MEASURE_H
#define MOSSC_TUNER_GPU_MEASURE_H

#include "gpu_worker.h"
#include "search.h"
#include "step_run.h"

enum { GPU_LONG_PROMPT = 32768 };       /* that chunks are measured by */

/* Points of a kernel, compiled side by side; false only when a signal came. */
bool gpu_search_build(SearchRun *run, SearchState *s, const int *points, int n);
bool gpu_search_measure(SearchRun *run, SearchState *s, int point, int incumbent, TrialResult *result);
/* What the device can do at most, operations and bytes a second; what could not be measured is 0. */
void gpu_search_ceilings(SearchRun *run, double *operations, double *bytes);
/* Bytes of scratch with a chunk; 0: the planner does not take it, as they would be more than it may have. */
int64_t gpu_chunk_scratch(Arena *arena, const Plan *plan, int chunk);
/* What is measured of whole models, and the memory it takes, for people. */
const char *gpu_step_words(Arena *arena, const Plan *plan, const StepRequest *request);
/* A whole model with choices beside the same without: passes of request->n_tokens of prefill, decoded tokens, and
 * a long prompt in the chunks of request->chunks; chunks for which there is not enough memory are taken out; decoded
 * tokens with each of request->variants. */
void gpu_step_run(const Plan *plan, const Choices *choices, StepRequest *request, StepResult *result);

#endif
