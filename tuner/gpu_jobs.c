/* Jobs of a GPU: which kernels have a space, how much of a pass each does, and which points come first.
 *
 * Shares and the order of points come from sizes alone; what is measured decides. MOSSC_TUNE_TOKENS limits the tokens
 * of a measured prefill, for machines that only pretend to be a GPU.
 */
#include "gpu_jobs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_JOBS = 128, MOST_TOKENS = 8192 };

static double get(const Job *job, const char *name, double absent)
{
    for (int i = 0; i < job->template->n_params; i++)
        if (strcmp(job->template->params[i].name, name) == 0)
            return job->values[i];
    return absent;
}

static bool is_kernel(const Job *job, const char *name) { return strcmp(job->template->name, name) == 0; }
static bool is_gemm(const Job *job) { return strncmp(job->template->name, "gemm", 4) == 0; }
static bool is_attention(const Job *job) { return is_kernel(job, "attention"); }

/* ---- work ---- */

/* Bytes of a matrix that a decoded token reads, once for all sequences. */
static double decode_bytes(const Job *job)
{
    const double e = get(job, "n_experts", 1), size = get(job, "weight_dtype", 1) == 3 ? 1 : 2;
    const double used = e > job->top_k ? job->top_k : e, n_in = get(job, "n_in", 0);
    const double channels = get(job, "n_channels", 0);
    if (is_kernel(job, "decode_in"))
        return size * 2 * channels * n_in * used;
    if (is_kernel(job, "decode_scan"))
        return size * e * get(job, "dt_rank", 0) * channels + 8 * channels * get(job, "d_state", 0);
    if (is_kernel(job, "decode_qkv"))
        return size * n_in * (get(job, "n_heads", 0) + 2 * get(job, "n_kv_heads", 0)) * get(job, "head_dim", 0);
    if (is_kernel(job, "decode_attention"))
        return 4 * get(job, "n_kv_heads", 0) * get(job, "head_dim", 0) * (get(job, "window", 0) > 0
                                                                           ? get(job, "window", 0) : 1024);
    return size * get(job, "n_out", 0) * n_in
        * (is_kernel(job, "decode_x") ? e : is_kernel(job, "decode_gated") ? 2 * used : used);
}

/* Keys that a token of a prompt of n tokens sees, in the mean. */
static double keys_seen(const Job *job, double n)
{
    const double window = get(job, "window", 0);
    return window > 0 && window < n ? window * (1 - window / (2 * n)) : n / 2;
}

void gpu_job_cost(const Job *job, int n_tokens, double *operations, double *bytes)
{
    const double e = get(job, "n_experts", 1), pairs = n_tokens * (e > 1 ? (double)job->top_k : 1);
    if (job->phase == PLAN_DECODE) {
        *bytes = decode_bytes(job);
        *operations = *bytes * n_tokens;
    } else if (is_gemm(job)) {
        *operations = 2 * pairs * get(job, "n_in", 0) * get(job, "n_out", 0);
        *bytes = 2 * (pairs * (get(job, "n_in", 0) + get(job, "n_out", 0)) + e * get(job, "n_in", 0)
                      * get(job, "n_out", 0));
    } else if (is_attention(job)) {
        *operations = 4 * get(job, "n_heads", 0) * get(job, "head_dim", 0) * n_tokens * keys_seen(job, n_tokens);
        *bytes = 4 * (get(job, "n_heads", 0) + get(job, "n_kv_heads", 0)) * get(job, "head_dim", 0) * n_tokens;
    } else {
        *operations = 8.0 * n_tokens * get(job, "n_channels", 0) * get(job, "d_state", 0);
        *bytes = 12.0 * n_tokens * get(job, "n_channels", 0);
    }
}

/* Seconds of one launch on a large GPU, to share out trials. */
static double seconds_of(const Job *job, int n_tokens)
{
    double operations, bytes;
    gpu_job_cost(job, n_tokens, &operations, &bytes);
    const double rate = is_gemm(job) ? 6e14 : is_attention(job) ? 3e14 : 2.4e13;
    return job->phase == PLAN_DECODE ? 2e-6 + bytes / 4e12 : operations / rate + bytes / 4e12;
}

/* ---- the order of points ---- */

static double value_of(const Job *job, const SpacePoint *point, const char *name)
{
    int i = space_param(&job->space, name);
    return i >= 0 ? point->value[i] : get(job, name, 1);
}

/* Tiles of a product come in rounds of the device's multiprocessors; larger ones reuse more, few stages wait more. */
static double gemm_cost(const Job *job, const SpacePoint *point, int n_tokens)
{
    const double e = get(job, "n_experts", 1), pairs = n_tokens * (e > 1 ? (double)job->top_k : 1);
    const double rows = is_kernel(job, "gemm_h100") ? 128 : value_of(job, point, "tile_rows");
    const double columns = value_of(job, point, "tile_columns"), slots = is_kernel(job, "gemm_h100") ? 132 : 264;
    const double n_tiles = e * ceil(pairs / e / rows) * ceil(get(job, "n_out", 0) / columns);
    const double rounds = ceil(n_tiles / slots), step = rows * columns + 40 * (rows + columns);
    return rounds * step * (1 + 0.3 / value_of(job, point, "stages"));
}

/* Bytes on their way to a multiprocessor: enough to cover the memory's latency, no more. */
static double decode_cost(const Job *job, const SpacePoint *point)
{
    const double warps = job->bounds.gpu->n_threads / 32;
    const double way = warps * value_of(job, point, "group") * value_of(job, point, "ring") * 512;
    double cost = fabs(log2(way / 65536));
    for (int i = 0; i < job->space.n; i++)
        cost += 0.7 * fabs(log2((double)point->value[i] / job->initial.value[i]));
    return cost;
}

double gpu_cost_of_point(const Job *job, const SpacePoint *point, int n_tokens)
{
    return is_gemm(job) ? gemm_cost(job, point, n_tokens) : decode_cost(job, point);
}

/* ---- gathering ---- */

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

static bool describe(Arena *arena, const Plan *plan, int phase, const Launch *launch, Job *job)
{
    const Kernel *kernel = &plan->launches->kernels[launch->kernel];
    TemplateBinding bindings[KERNEL_MAX_PARAMS];
    *job = (Job){ .key = launch->key, .phase = phase, .top_k = number_of_key(launch->key, "top_k=", 1) };
    if (!space_find_gpu(kernel->template, &job->space) || (int)job->space.phase != phase)
        return false;
    const char *dtype = strstr(job->key, "dtype=");
    job->shape = strchr(job->key, ' ') + 1;
    job->dtypes = dtype ? arena_strndup(arena, dtype + 6, strcspn(dtype + 6, " ")) : "f32";
    job->template = template_find_gpu(arena, kernel->template);
    for (int i = 0; i < kernel->n_params; i++)
        bindings[i] = (TemplateBinding){ kernel->params[i].name, kernel->params[i].value };
    template_bind(job->template, bindings, kernel->n_params, job->values);
    double *values = arena_array(arena, double, TEMPLATE_MAX_PARAMS);
    memcpy(values, job->values, sizeof job->values);
    GpuShape *gpu = arena_one(arena, GpuShape);
    *gpu = (GpuShape){ target_sm(plan->target), kernel->n_threads, launch->shared_len, job->template, values };
    job->bounds = (SpaceShape){ .target = plan->target, .chunk = plan->chunk, .gpu = gpu };
    for (int i = 0; i < job->space.n; i++)
        job->initial.value[i] = (int)get(job, job->space.param[i]->name, 0);
    job->n_points = space_points(arena, &job->space, &job->bounds, &job->points);
    job->weights_len = (int64_t)(2 * get(job, "n_experts", 1) * get(job, "n_in", 0) * get(job, "n_out", 0));
    set_tokens(job, plan, launch);
    return true;
}

static int by_share(const void *a, const void *b)
{
    const Job *x = a, *y = b;
    if (x->phase != y->phase)
        return x->phase - y->phase;
    return x->share != y->share ? (x->share < y->share) - (x->share > y->share) : strcmp(x->key, y->key);
}

static void add_launch(Arena *arena, const Plan *plan, int phase, const Launch *launch, Job *jobs, int *n)
{
    int i = 0;
    while (i < *n && (jobs[i].phase != phase || strcmp(jobs[i].key, launch->key) != 0))
        i++;
    if (i == MAX_JOBS)
        BUG("more than %d kernels to tune", MAX_JOBS);
    if (i == *n && !describe(arena, plan, phase, launch, &jobs[i]))
        return;
    *n += i == *n;
    const bool of_logits = strstr(launch->key, "rows=logits") != NULL;      /* of the last token alone */
    jobs[i].share += seconds_of(&jobs[i], of_logits ? 1 : jobs[i].tokens[0]);
}

Job *gpu_jobs_of_plan(Arena *arena, const Plan *plan, int *n)
{
    static const ListId lists[N_PLAN_PHASES] = { [PLAN_PREFILL] = LIST_PREFILL, [PLAN_DECODE] = LIST_DECODE };
    const Launches *l = plan->launches;
    Job *jobs = arena_array(arena, Job, MAX_JOBS + 1);
    double total[N_PLAN_PHASES] = { 0 };
    *n = 0;
    for (int phase = 0; phase < N_PLAN_PHASES; phase++)
        for (int i = l->lists[lists[phase]].begin; i < l->lists[lists[phase]].end; i++)
            if (l->launches[i].key)
                add_launch(arena, plan, phase, &l->launches[i], jobs, n);
    for (int i = 0; i < *n; i++)
        total[jobs[i].phase] += jobs[i].share;
    for (int i = 0; i < *n; i++)
        jobs[i].share /= total[jobs[i].phase] > 0 ? total[jobs[i].phase] : 1;
    qsort(jobs, (size_t)*n, sizeof *jobs, by_share);
    return jobs;
}
