/* Jobs of a GPU: which kernels have a space, how often a pass launches them, and how much of it each does.
 *
 * MOSSC_TUNE_TOKENS limits the tokens of a measured prefill, for machines that only pretend to be a GPU.
 */
#include "gpu_jobs.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_JOBS = 128, MOST_TOKENS = 8192 };

static int number_of_key(const char *key, const char *name, int absent)
{
    const char *at = strstr(key, name);
    return at ? atoi(at + strlen(name)) : absent;
}

int gpu_most_tokens(void)
{
    const char *limit = getenv("MOSSC_TUNE_TOKENS");
    return limit && atoi(limit) > 0 ? atoi(limit) : MOST_TOKENS;
}

/* What only calls of several sequences launch is measured with four. */
static void set_tokens(Job *job, const Plan *plan, const Launch *launch)
{
    const int most = gpu_most_tokens(), decode[] = { 1, 4 }, prefill[] = { MOST_TOKENS, 2048, 512 };
    const int first = (launch->flags & LAUNCH_IF_MORE) && most == MOST_TOKENS;
    for (int i = first; i < 2 && job->phase == PLAN_DECODE; i++)
        if (i == 0 || most == MOST_TOKENS)
            job->tokens[job->n_tokens++] = decode[i];
    for (int i = 0; i < JOB_MAX_TOKENS && job->phase == PLAN_PREFILL; i++) {
        int n = prefill[i] < plan->chunk ? prefill[i] : plan->chunk;
        n = n < most ? n : most;
        if (job->n_tokens == 0 || n < job->tokens[job->n_tokens - 1])
            job->tokens[job->n_tokens++] = n;
    }
}

static void bind_values(Arena *arena, const Kernel *kernel, Job *job)
{
    TemplateBinding bindings[KERNEL_MAX_PARAMS];
    job->template = template_find_gpu(arena, kernel->template);
    for (int i = 0; i < kernel->n_params; i++)
        bindings[i] = (TemplateBinding){ kernel->params[i].name, kernel->params[i].value };
    template_bind(job->template, bindings, kernel->n_params, job->values);
}

static SpaceShape bounds_of(Arena *arena, const Plan *plan, const Launch *launch, const Job *job)
{
    double *values = arena_array(arena, double, TEMPLATE_MAX_PARAMS);
    GpuShape *gpu = arena_one(arena, GpuShape);
    memcpy(values, job->values, sizeof job->values);
    *gpu = (GpuShape){ target_sm(plan->target), plan->launches->kernels[launch->kernel].n_threads, launch->shared_len,
                       job->template, values };
    return (SpaceShape){ .target = plan->target, .chunk = plan->chunk, .gpu = gpu };
}

static bool describe(Arena *arena, const Plan *plan, int phase, const Launch *launch, Job *job)
{
    const Kernel *kernel = &plan->launches->kernels[launch->kernel];
    *job = (Job){ .key = launch->key, .phase = phase, .top_k = number_of_key(launch->key, "top_k=", 1),
                  .shape = strchr(launch->key, ' ') + 1, .dtypes = job_dtypes(arena, launch->key) };
    if (!space_find_gpu(kernel->template, &job->space) || (int)job->space.phase != phase)
        return false;
    /* Measured in the first mode, which may choose fewer than the key tells of. */
    if (job->top_k > plan->graph->mode_top_k[0])
        job->top_k = (int)plan->graph->mode_top_k[0];
    bind_values(arena, kernel, job);
    job->bounds = bounds_of(arena, plan, launch, job);
    for (int i = 0; i < job->space.n; i++)
        job->initial.value[i] = (int)job_param(job, job->space.param[i]->name, 0);
    job->n_points = space_points(arena, &job->space, &job->bounds, &job->points);
    job->weights_len = (int64_t)(2 * job_param(job, "n_experts", 1) * job_param(job, "n_in", 0)
                                 * job_param(job, "n_out", 0));
    set_tokens(job, plan, launch);
    return true;
}

/* Seconds of a pass on a large GPU, to share out trials. */
static double seconds_of(const Job *job)
{
    double operations, bytes;
    gpu_job_cost(job, job->tokens[0], &operations, &bytes);
    const char *kernel = job->template->name;
    const double rate = strncmp(kernel, "gemm", 4) == 0 ? 6e14 : strncmp(kernel, "attention", 9) == 0 ? 3e14 : 2.4e13;
    return job->phase == PLAN_DECODE ? 2e-6 * job->n_launches + bytes / 4e12 : operations / rate + bytes / 4e12;
}

static void add_launch(Arena *arena, const Plan *plan, int phase, const Launch *launch, Job *jobs, int *n)
{
    const int i = jobs_find(jobs, *n, phase, launch->key);
    if (i == MAX_JOBS)
        BUG("more than %d kernels to tune", MAX_JOBS);
    if (i == *n && !describe(arena, plan, phase, launch, &jobs[i]))
        return;
    *n += i == *n;
    jobs[i].n_launches++;
}

Job *gpu_jobs_of_plan(Arena *arena, const Plan *plan, int *n)
{
    static const ListId lists[N_PLAN_PHASES] = { [PLAN_PREFILL] = LIST_PREFILL, [PLAN_DECODE] = LIST_DECODE };
    const Launches *l = plan->launches;
    Job *jobs = arena_array(arena, Job, MAX_JOBS + 1);
    *n = 0;
    for (int phase = 0; phase < N_PLAN_PHASES; phase++)
        for (int i = l->lists[lists[phase]].begin; i < l->lists[lists[phase]].end; i++)
            if (l->launches[i].key)
                add_launch(arena, plan, phase, &l->launches[i], jobs, n);
    for (int i = 0; i < *n; i++)
        jobs[i].share = seconds_of(&jobs[i]);
    jobs_settle(jobs, *n);
    return jobs;
}
