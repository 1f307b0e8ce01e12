/* Jobs: what there is to tune in a plan, one a kernel key.
 *
 * Input: the plan of a model for a CPU, as it is without choices. Output: each kernel that has a space, once,
 * with its sizes, the points that can be built, and how much of the model's work it does.
 * Invariant: the same plan gives the same jobs in the same order, the heaviest of each phase first.
 */
#ifndef MOSSC_TUNER_JOBS_H
#define MOSSC_TUNER_JOBS_H

#include "records.h"
#include "workload.h"
#include "../codegen/kernel_file.h"
#include "../codegen/space.h"
#include "../ir/plan.h"

enum { JOB_MAX_TOKENS = 3 };
typedef struct {
    const char *key;             /* in Choices: ir/kernel_key.h */
    const char *shape, *dtypes;  /* of a RecordKey; the token count comes behind the shape */
    const Template *template;
    double values[TEMPLATE_MAX_PARAMS];      /* with the default point */
    SearchSpace space;
    SpaceShape bounds;
    SpacePoint initial;          /* what the planner takes; may lie outside the space */
    SpacePoint *points;
    int n_points;
    int phase;                   /* PLAN_PREFILL, PLAN_DECODE */
    int tokens[JOB_MAX_TOKENS], n_tokens;    /* measured at; the first decides */
    int top_k;                   /* experts a token, of the first mode; 1: dense */
    int64_t n_channels;          /* of a scan */
    int64_t weights_len;         /* bytes of its matrix, all experts; 0: none */
    int n_launches;              /* GPUs: of a pass, and measured together */
    double share;                /* of the work of its phase, 0 to 1 */
} Job;

Job *jobs_of_plan(Arena *arena, const Plan *plan, int *n);
/* While they are gathered: the place of a key among n jobs, n where it is not there; in the end their work becomes
 * shares, and the heaviest of a phase comes first. */
int jobs_find(const Job *jobs, int n, int phase, const char *key);
void jobs_settle(Job *jobs, int n);
/* A parameter as it is without choices. */
double job_param(const Job *job, const char *name, double absent);
/* "bf16" of a key with dtype=bf16, "f32" where it has none. */
const char *job_dtypes(Arena *arena, const char *key);
/* The parameters with those of a point in their place. */
void job_values(const Job *job, const SpacePoint *point, double values[TEMPLATE_MAX_PARAMS]);
/* Bytes of scratch that the kernel with these parameters needs: codegen/templates/README.md. */
int64_t job_scratch(const Job *job, const double *values);
/* What a workload of it needs to know; scratch enough for every point. */
WorkShape job_work_shape(const Job *job);
/* The key of its records at one token count; features, device and the rest are the caller's. */
void job_record_key(Arena *arena, const Job *job, int n_tokens, RecordKey *key);
/* Multiply-adds counted two, and bytes that come from memory, of one call; on GPUs of all launches of a pass. */
void job_cost(const Job *job, int n_tokens, double *operations, double *bytes);

#endif
