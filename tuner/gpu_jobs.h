/* Jobs of a GPU: launches of a plan, gathered by key. */
#ifndef MOSSC_TUNER_GPU_JOBS_H
#define MOSSC_TUNER_GPU_JOBS_H

#include "jobs.h"

/* Of a plan with launches, as it is without choices; as jobs_of_plan. */
Job *gpu_jobs_of_plan(Arena *arena, const Plan *plan, int *n);
/* The longest prefill that is measured. */
int gpu_most_tokens(void);

/* gpu_cost.c: of all launches of a pass; 0: unknown. */
void gpu_job_cost(const Job *job, int n_tokens, double *operations, double *bytes);
/* Which point to try first: the least. Without a unit. */
double gpu_cost_of_point(const Job *job, const SpacePoint *point, int n_tokens);

#endif
