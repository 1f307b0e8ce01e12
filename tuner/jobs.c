/* Jobs: steps of a plan, gathered by key. */
#include "jobs.h"

#include "gpu_jobs.h"

#include "../ir/kernel_key.h"
#include "../ir/product.h"
#include "../ir/quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of a scan: float operations a state, and a channel's softplus and gate; of a router what an expert's share of softmax
 * and choice takes as long as. */
enum { MAX_JOBS = 256, SCAN_OPERATIONS = 20, SCAN_ENDS = 40, ROUTE_ENDS = 2000 };

double job_param(const Job *job, const char *name, double absent)
{
    for (int i = 0; i < job->template->n_params; i++)
        if (strcmp(job->template->params[i].name, name) == 0)
            return job->values[i];
    return absent;
}

static double parameter(const Job *job, const char *name) { return job->values[template_param(job->template, name)]; }
static bool is_attention(const Job *job) { return strcmp(job->template->name, "attention") == 0; }
static bool is_router(const Job *job) { return job_param(job, "by_lanes", -1) >= 0; }
static bool is_scan(const Job *job) { return strcmp(job->template->name, "scan") == 0; }

void job_values(const Job *job, const SpacePoint *point, double values[TEMPLATE_MAX_PARAMS])
{
    memcpy(values, job->values, sizeof job->values);
    for (int i = 0; i < job->space.n; i++)
        values[template_param(job->template, job->space.param[i]->name)] = point->value[i];
    /* As the planner does: whole tiles. */
    if (space_param(&job->space, "block_rows") >= 0) {
        double *rows = &values[template_param(job->template, "block_rows")];
        int tile = (int)values[template_param(job->template, "tile_rows")];
        *rows = ((int)*rows + tile - 1) / tile * tile;
    }
}

int64_t job_scratch(const Job *job, const double *values)
{
#define GET(name) ((int64_t)values[template_param(job->template, name)])
    if (is_scan(job) || is_router(job))
        return 0;
    int64_t panel = GET("panel");
    if (is_attention(job)) {
        int64_t group = GET("n_heads") / GET("n_kv_heads"), tile = GET("tile_rows"), stride = GET("head_stride");
        int64_t keys = GET("key_block");
        int64_t rows = (GET("token_block") * group + tile - 1) / tile * tile;
        return 4 * (rows * (GET("head_dim") + keys + stride + panel + 2) + (2 * keys + 1) * stride);
    }
    if (job->phase == PLAN_DECODE)
        return 0;
    const int64_t len = job->bounds.row_len;
    return (GET("block_rows") + panel) * (GET("pack_lines") ? (len + 63) / 64 * 64 : len);
#undef GET
}

WorkShape job_work_shape(const Job *job)
{
    WorkShape s = { .n_experts = 1, .top_k = job->top_k, .weights_len = job->weights_len,
                    .pack_len = job_scratch(job, job->values) };
    const struct { const char *name; int *to; } fields[] = {
        { "out_stride", &s.out_stride }, { "panel", &s.panel }, { "renormalize", &s.renormalize },
        { "n_in", &s.n_in }, { "n_out", &s.n_out }, { "in_stride", &s.in_stride }, { "n_experts", &s.n_experts },
        { "weight_dtype", &s.weight_dtype }, { "in_pairs", &s.in_pairs }, { "out_pairs", &s.out_pairs },
        { "has_bias", &s.has_bias }, { "accumulate", &s.accumulate },
        { "n_heads", &s.n_heads }, { "n_kv_heads", &s.n_kv_heads }, { "head_dim", &s.head_dim },
        { "head_stride", &s.head_stride }, { "q_stride", &s.q_stride }, { "kv_stride", &s.kv_stride },
        { "window", &s.window },
        { "d_state", &s.d_state }, { "stride", &s.out_stride }, { "z_stride", &s.z_stride },
        { "bc_stride", &s.bc_stride }, { "zoh", &s.zoh },
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        *fields[i].to = (int)job_param(job, fields[i].name, *fields[i].to);
    if (is_scan(job))
        s.n_out = (int)job->n_channels;
    s.eps = job_param(job, "eps", 0);
    snprintf(s.kernel, sizeof s.kernel, "%s", job->template->name);
    for (int i = 0; i < job->n_points; i++) {
        double values[TEMPLATE_MAX_PARAMS];
        job_values(job, &job->points[i], values);
        int64_t len = job_scratch(job, values);
        s.pack_len = len > s.pack_len ? len : s.pack_len;
    }
    s.pack_len = (s.pack_len + 63) / 64 * 64;
    return s;
}

void job_record_key(Arena *arena, const Job *job, int n_tokens, RecordKey *key)
{
    key->kernel = job->template->name;
    key->shape = arena_printf(arena, "%s t%d", job->shape, n_tokens);
    key->dtypes = job->dtypes;
}

void job_cost(const Job *job, int n_tokens, double *operations, double *bytes)
{
    if (job->bounds.gpu) {
        gpu_job_cost(job, n_tokens, operations, bytes);
        return;
    }
    if (is_attention(job)) {
        double window = parameter(job, "window"), keys = window > 0 && window < 512 ? window : 512;
        *operations = 4 * n_tokens * parameter(job, "n_heads") * parameter(job, "head_dim") * keys;
        *bytes = 8 * keys * parameter(job, "n_kv_heads") * parameter(job, "head_dim");
        return;
    }
    if (is_scan(job)) {
        const double channels = (double)job->n_channels, d_state = parameter(job, "d_state");
        *operations = n_tokens * channels * (SCAN_OPERATIONS * d_state + SCAN_ENDS);
        *bytes = 4 * n_tokens * channels * 4;
        return;
    }
    double n_experts = parameter(job, "n_experts"), pairs = (double)n_tokens * job->top_k;
    if (is_router(job)) {
        *operations = n_tokens * n_experts * (2 * parameter(job, "n_in") + ROUTE_ENDS);
        *bytes = 4 * n_tokens * parameter(job, "n_in");
        return;
    }
    *operations = 2 * pairs * parameter(job, "n_in") * parameter(job, "n_out");
    *bytes = (double)job->weights_len / n_experts * (pairs < n_experts ? pairs : n_experts);
}

/* ---- gathering ---- */

/* The key without its kernel and types: "n_in=64 n_out=128 ..." stays, the record has the rest on its own. */
static const char *shape_of_key(Arena *arena, const char *key)
{
    Text text = { 0 };
    const char *at = strchr(key, ' ') + 1;
    while (*at) {
        size_t len = strcspn(at, " ");
        if (strncmp(at, "dtype=", 6) != 0)
            text_printf(&text, "%s%.*s", text.len ? " " : "", (int)len, at);
        at += len + (at[len] == ' ');
    }
    char *shape = arena_strdup(arena, text.data);
    text_free(&text);
    return shape;
}

const char *job_dtypes(Arena *arena, const char *key)
{
    const char *at = strstr(key, " dtype=");
    return at ? arena_strndup(arena, at + 7, strcspn(at + 7, " ")) : "f32";
}

static SpaceShape bounds_of(const Plan *plan, const Job *job)
{
    long l2_len = sysconf(_SC_LEVEL2_CACHE_SIZE);
    SpaceShape shape = { .target = plan->target, .chunk = plan->chunk, .l2_len = l2_len > 0 ? l2_len : 0 };
    if (is_attention(job)) {
        shape.group = (int64_t)(parameter(job, "n_heads") / parameter(job, "n_kv_heads"));
        shape.head_dim = (int64_t)parameter(job, "head_dim");
        return shape;
    }
    if (is_scan(job) || is_router(job))
        return shape;
    shape.n_in = (int64_t)parameter(job, "n_in");
    shape.n_out = (int64_t)parameter(job, "n_out");
    shape.row_len = packed_row_len(strstr(job->template->name, "_q"), shape.n_in);
    shape.widened = parameter(job, "weight_dtype") == 1 || parameter(job, "weight_dtype") == 2;
    return shape;
}

static void set_tokens(Job *job)
{
    static const int prefill[] = { 512, 64, 4 };
    if (job->phase == PLAN_DECODE) {
        job->tokens[job->n_tokens++] = 1;
        return;
    }
    for (int i = 0; i < JOB_MAX_TOKENS; i++)
        job->tokens[job->n_tokens++] = i == 0 && job->bounds.chunk < prefill[0] ? (int)job->bounds.chunk : prefill[i];
}

static bool describe(Arena *arena, const Plan *plan, const BlockPlan *block, int phase, const Step *step,
                     const char *key, Job *job)
{
    *job = (Job){ .key = key, .phase = phase, .top_k = 1, .shape = shape_of_key(arena, key),
                  .dtypes = job_dtypes(arena, key) };
    job->template = kernel_of_step(arena, plan, block, phase, step, job->values);
    if (!job->template || !space_find(job->template->name, &job->space) || (int)job->space.phase != phase)
        return false;
    const Op *router = is_router(job) ? step->op : NULL;
    if (op_is_product(step->op)) {
        const Product p = product_of(step->op);
        job->weights_len = p.weight->buffer->len;
        router = p.experts ? p.experts->def : NULL;
    }
    const Attr *top_k = router ? op_attr(router, ATTR_TOP_K) : NULL;
    job->top_k = top_k ? (int)top_k->ints.at[0] : 1;
    if (step->op->kind == OP_SCAN)
        job->n_channels = step->op->operand[0]->type.dim[1].n;
    for (int i = 0; i < job->space.n; i++)
        job->initial.value[i] = (int)parameter(job, job->space.param[i]->name);
    job->bounds = bounds_of(plan, job);
    job->n_points = space_points(arena, &job->space, &job->bounds, &job->points);
    set_tokens(job);
    return true;
}

/* How often a pass over the model runs the block. */
static int times_called(const Plan *plan, const BlockPlan *block)
{
    int n = block == plan->main;
    for (int i = 0; i < plan->n_layers; i++)
        n += plan->layers[i].block == block;
    return n;
}

static int by_share(const void *a, const void *b)
{
    const Job *x = a, *y = b;
    if (x->phase != y->phase)
        return x->phase - y->phase;
    return x->share != y->share ? (x->share < y->share) - (x->share > y->share) : strcmp(x->key, y->key);
}

int jobs_find(const Job *jobs, int n, int phase, const char *key)
{
    int i = 0;
    while (i < n && (jobs[i].phase != phase || strcmp(jobs[i].key, key) != 0))
        i++;
    return i;
}

void jobs_settle(Job *jobs, int n)
{
    double total[N_PLAN_PHASES] = { 0 };
    for (int i = 0; i < n; i++)
        total[jobs[i].phase] += jobs[i].share;
    for (int i = 0; i < n; i++)
        jobs[i].share /= total[jobs[i].phase] > 0 ? total[jobs[i].phase] : 1;
    qsort(jobs, (size_t)n, sizeof *jobs, by_share);
}

static void add_step(Arena *arena, const Plan *plan, const BlockPlan *block, int phase, const Step *step, Job *jobs,
                     int *n)
{
    Text key = { 0 };
    if (kernel_key_print(step->op, phase == PLAN_DECODE ? PHASE_DECODE : PHASE_PREFILL, &key)) {
        const int i = jobs_find(jobs, *n, phase, key.data);
        if (i == MAX_JOBS)
            BUG("more than %d kernels to tune", MAX_JOBS);
        if (i < *n || describe(arena, plan, block, phase, step, arena_strdup(arena, key.data), &jobs[i])) {
            double operations, bytes;
            *n += i == *n;
            job_cost(&jobs[i], jobs[i].tokens[0], &operations, &bytes);
            jobs[i].share += times_called(plan, block) * (phase == PLAN_DECODE ? bytes : operations);
        }
    }
    text_free(&key);
}

Job *jobs_of_plan(Arena *arena, const Plan *plan, int *n)
{
    if (plan->launches)
        return gpu_jobs_of_plan(arena, plan, n);
    Job *jobs = arena_array(arena, Job, MAX_JOBS);
    *n = 0;
    for (int phase = 0; phase < N_PLAN_PHASES; phase++)
        for (int b = 0; b < plan->n_blocks; b++)
            for (int i = 0; i < plan->blocks[b].schedule[phase].n_steps; i++)
                add_step(arena, plan, &plan->blocks[b], phase, &plan->blocks[b].schedule[phase].steps[i], jobs, n);
    jobs_settle(jobs, *n);
    return jobs;
}
