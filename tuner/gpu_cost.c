/* Cost of kernels on a GPU: operations, and bytes that come from memory or go there, of all launches of a pass; and
 * which points come first.
 *
 * From sizes alone: the roofline of records, and shares of trials, are made of it; what is measured decides. What a
 * kernel shares with the one before through the second-level cache counts as if memory held it.
 */
#include "gpu_jobs.h"

#include <math.h>
#include <string.h>

enum { CONTEXT = 1024 };         /* decoded after so many tokens */
typedef struct { double operations, bytes; } Traffic;
typedef struct { const Job *job; double n, k, e; } CostOf;     /* tokens or sequences, experts a token, of how many */

static double get(const CostOf *c, const char *name) { return job_param(c->job, name, 0); }
static double rows(const CostOf *c) { return c->n * c->k; }
static double weight_len(const CostOf *c) { return job_param(c->job, "weight_dtype", 1) == 3 ? 1 : 2; }

/* Experts that somebody chose, when choices are even. */
static double experts_read(const CostOf *c) { return c->k >= c->e ? c->e : c->e * (1 - pow(1 - c->k / c->e, c->n)); }

/* A product of `columns` by each token's experts; `others`: bytes beside the weights. */
static Traffic product(const CostOf *c, double columns, double others)
{
    const double matrix = get(c, "n_in") * columns;
    return (Traffic){ 2 * rows(c) * matrix, experts_read(c) * matrix * weight_len(c) + others };
}

/* ---- prefill ---- */

static Traffic cost_gemm(const CostOf *c)
{
    static const double out_len[] = { 2, 4, 8, 2 };  /* act, float32, float32 added to what is there, f16 */
    const double columns = get(c, "n_out"), in_rows = get(c, "in_pairs") > 0 ? rows(c) : c->n;
    const double written = get(c, "epilogue") == 1 ? columns / 2 : columns;
    return product(c, columns, 2 * in_rows * get(c, "n_in") + out_len[(int)get(c, "out_kind")] * rows(c) * written);
}

/* As compiler/cost.c counts a state's operations; dt, x, z and y in 16 bits, B and C of the token. */
static Traffic cost_scan(const CostOf *c)
{
    const double z = get(c, "z_stride") == 0 ? 0 : get(c, "z_pairs") > 0 ? get(c, "z_pairs") : 1;
    return (Traffic){ 8 * c->n * get(c, "n_channels") * get(c, "d_state"),
                    c->n * (get(c, "n_channels") * (6 + 2 * z) + 8 * get(c, "d_state")) };
}

/* Each token looks back at itself and all before it, or a window of them. */
static Traffic cost_attention(const CostOf *c)
{
    const double window = get(c, "window") > 0 && get(c, "window") < c->n ? get(c, "window") : c->n;
    const double pairs = window * (window + 1) / 2 + (c->n - window) * window;
    return (Traffic){ 4 * pairs * get(c, "n_heads") * get(c, "head_dim"),
                    4 * c->n * (get(c, "n_heads") + get(c, "n_kv_heads")) * get(c, "head_dim") };
}

/* ---- decode: weights, and what states hold ---- */

static Traffic cost_in(const CostOf *c) { return product(c, 2 * get(c, "n_channels"), 0); }
static Traffic cost_gated(const CostOf *c) { return product(c, 2 * get(c, "n_out"), 0); }
static Traffic cost_out(const CostOf *c) { return product(c, get(c, "n_out"), 0); }

/* Of all experts, whoever is chosen. */
static Traffic cost_x(const CostOf *c)
{
    const double matrices = c->e * get(c, "n_in") * get(c, "n_out");
    return (Traffic){ 2 * c->n * matrices, matrices * weight_len(c) };
}

/* dt_proj of all experts, whose gates are mostly 0; states in float32, read and written. */
static Traffic cost_decode_scan(const CostOf *c)
{
    const double channels = get(c, "n_channels"), dt = c->e * get(c, "dt_rank") * channels;
    const double state = channels * get(c, "d_state");
    return (Traffic){ 2 * c->n * dt + 8 * c->n * state, dt * weight_len(c) + 8 * c->n * state + 4 * state };
}

static Traffic cost_qkv(const CostOf *c)
{
    return product(c, (get(c, "n_heads") + 2 * get(c, "n_kv_heads")) * get(c, "head_dim"), 0);
}

static Traffic cost_decode_attention(const CostOf *c)
{
    const double window = get(c, "window"), keys = window > 0 && window < CONTEXT ? window : CONTEXT;
    return (Traffic){ 4 * c->n * keys * get(c, "n_heads") * get(c, "head_dim"),
                    4 * c->n * keys * get(c, "n_kv_heads") * get(c, "head_dim") };
}

static const struct { const char *kernel; Traffic (*cost)(const CostOf *c); } costs[] = {
    { "gemm", cost_gemm }, { "gemm_h100", cost_gemm }, { "scan", cost_scan }, { "attention", cost_attention },
    { "attention_h100", cost_attention },
    { "decode_in", cost_in }, { "decode_x", cost_x }, { "decode_scan", cost_decode_scan }, { "decode_out", cost_out },
    { "decode_gated", cost_gated }, { "decode_head", cost_out }, { "decode_qkv", cost_qkv },
    { "decode_attention", cost_decode_attention },
};

/* Of the last token alone, though all go through the layers before. */
static bool is_of_logits(const Job *job) { return strstr(job->key, "rows=logits") != NULL; }

void gpu_job_cost(const Job *job, int n_tokens, double *operations, double *bytes)
{
    const double e = job_param(job, "n_experts", 1);
    const CostOf of = { job, is_of_logits(job) ? 1 : n_tokens, e > job->top_k ? job->top_k : e, e };
    Traffic one = { 0 };
    for (size_t i = 0; i < sizeof costs / sizeof *costs; i++)
        if (strcmp(costs[i].kernel, job->template->name) == 0)
            one = costs[i].cost(&of);
    *operations = one.operations * job->n_launches;
    *bytes = one.bytes * job->n_launches;
}

/* ---- the order of points ---- */

static bool is_kernel(const Job *job, const char *name) { return strcmp(job->template->name, name) == 0; }

static double value_of(const Job *job, const SpacePoint *point, const char *name)
{
    int i = space_param(&job->space, name);
    return i >= 0 ? point->value[i] : job_param(job, name, 1);
}

/* Tiles of a product come in rounds of the device's multiprocessors; larger ones reuse more, few stages wait more. */
static double gemm_cost(const Job *job, const SpacePoint *point, int n_tokens)
{
    const double e = job_param(job, "n_experts", 1), pairs = n_tokens * (e > 1 ? (double)job->top_k : 1);
    const double tile = is_kernel(job, "gemm_h100") ? 128 : value_of(job, point, "tile_rows");
    const double columns = value_of(job, point, "tile_columns"), slots = is_kernel(job, "gemm_h100") ? 132 : 264;
    const double n_tiles = e * ceil(pairs / e / tile) * ceil(job_param(job, "n_out", 0) / columns);
    const double rounds = ceil(n_tiles / slots), step = tile * columns + 40 * (tile + columns);
    return rounds * step * (1 + 0.3 / value_of(job, point, "stages"));
}

/* Bytes on their way to a multiprocessor: enough to cover the memory's latency, no more. */
static double decode_cost(const Job *job, const SpacePoint *point)
{
    const double warps = job->bounds.gpu->n_threads / 32;
    const double way = warps * value_of(job, point, "group") * value_of(job, point, "ring") * 512;
    double cost = fabs(log2(way / 65536));
    for (int i = 0; i < job->space.n; i++)
        cost += 0.7 * fabs(log2((point->value[i] + 0.01) / (job->initial.value[i] + 0.01)));
    return cost;
}

double gpu_cost_of_point(const Job *job, const SpacePoint *point, int n_tokens)
{
    return strncmp(job->template->name, "gemm", 4) == 0 ? gemm_cost(job, point, n_tokens) : decode_cost(job, point);
}
