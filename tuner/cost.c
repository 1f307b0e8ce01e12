/* Cost model: tiles, packing, widening and cache misses counted. */
#include "cost.h"

#include "gpu_jobs.h"

#include <math.h>
#include <string.h>

enum { L1_LEN = 32 << 10 };

static double get(const double *values, const Job *job, const char *name)
{
    return values[template_param(job->template, name)];
}

/* Two products and two loads a cycle; a tile of h rows has 2 h products, h + 2 loads and what ends a step; waiting for
 * weights hides less behind fewer products. */
static double tile_step(double rows)
{
    double products = rows, loads = (rows + 2) / 2, issue = (3 * rows + 6) / 6;
    double busiest = products > loads ? products : loads;
    /* Few chains do not hide the latency of four cycles. */
    double latency = 4;
    busiest = busiest > issue ? busiest : issue;
    return (busiest > latency ? busiest : latency) + 0.7;
}

/* Cycles of all tiles of `rows` rows, a step of k each. */
static double rows_step(double rows, double tile, double tail)
{
    double cycles = 0;
    while (rows > 0) {
        double height = rows > tile - tail ? tile : rows > tail ? tile - tail : tail;
        cycles += tile_step(height);
        rows -= height;
    }
    return cycles;
}

/* Cycles that a vector of weights takes before it is multiplied. What is widened apart goes through the caches on its
 * own, where a panel outgrows the first; in the first tile that hides behind products. */
static double read_step(const Job *job, const double *v, double panel_len)
{
    const double dtype = get(v, job, "weight_dtype");
    if (dtype == 0 || dtype == 3 || dtype == 5)
        return 0.5;
    if (dtype == 4)
        return 1.5;
    return get(v, job, "widen") ? 1 : panel_len > L1_LEN ? 4.5 : 1.5;
}

static double cost_gemm(const Job *job, const double *v, int n_tokens)
{
    const double n_in = get(v, job, "n_in"), panel = get(v, job, "panel"), n_experts = get(v, job, "n_experts");
    const double n_panels = ceil(get(v, job, "n_out") / panel), block = get(v, job, "block_rows");
    const double tile = get(v, job, "tile_rows");
    const double tail = get(v, job, "tail_rows"), dtype = get(v, job, "weight_dtype"), lanes = panel / 2;
    const bool quantised = dtype == 3 || dtype == 4;
    const double pairs = (double)n_tokens * job->top_k, used = n_experts < pairs ? n_experts : pairs;
    const double steps = quantised ? n_in / 4 : n_in;
    const double l2 = job->bounds.l2_len > 0 ? (double)job->bounds.l2_len : 1 << 20;
    const double rows = (double)n_tokens * job->top_k / used, lines = get(v, job, "pack_lines");
    const double k_block = quantised ? 0 : get(v, job, "k_block"), depth = k_block > 0 ? k_block : n_in;
    const double passes = ceil(n_in / depth), panel_len = depth * panel * (quantised ? 1 : 4);
    double cycles = 0;
    for (double left = rows; left > 0; left -= block) {
        const double n = left < block ? left : block;
        cycles += n_panels * steps * rows_step(n, tile, tail);
        /* A panel that outgrows the first cache comes from the second for every tile; sums of passes are kept. */
        cycles += panel_len > L1_LEN ? n_panels * ceil(n / tile) * n_in * panel * (quantised ? 1 : 4) / 1024 : 0;
        cycles += (passes - 1) * n_panels * (n * 3 + ceil(n / tile) * 20);
        /* Lines of all of a tile's rows are wanted at once, every few steps. */
        cycles += lines * n_panels * ceil(n / tile) * steps * 0.15;
        /* Weights are read, and widened where they are narrow, once a block; results are written once. */
        cycles += n_panels * n_in * panel / lanes * read_step(job, v, panel_len);
        cycles += n * n_in * (quantised ? 0.1 : 0.4) * (lines ? 0.2 : 1);
        cycles += n * n_panels * 6 + ceil(n / tile) * n_panels * 12;
        /* Packed rows that outgrow a third of the second-level cache come from behind it, in part. */
        const double len = n * (double)job->bounds.row_len;
        cycles += len > l2 / 3 ? n_panels * (len - l2 / 3) / 32 : 0;
    }
    /* How far ahead a machine likes its weights is not known: what suits most comes first. So does the least of blocks
     * that are all longer than an expert's rows. */
    const double unused = block > rows + tile ? 0.01 * (block / (rows + tile)) : 0;
    return used * cycles * (1 + 0.004 * get(v, job, "fetch_gap") + unused);
}

/* Nothing is known of how far ahead a machine likes it, nor how many streams: near what suits most. */
static double cost_gemv(const Job *job, const double *v)
{
    const double rounds = log2(get(v, job, "unroll"));
    return fabs(log2((get(v, job, "prefetch_rows") + 1) / 17)) + 1.5 * fabs(log2(get(v, job, "streams") / 4))
        + 0.5 * rounds;
}

/* Chains of a softplus take some 50 cycles that a block's other tokens fill; what is prepared leaves registers. */
static double cost_scan(const Job *job, const double *v)
{
    const double block = get(v, job, "token_block");
    return (double)job->n_channels * (50 / block + 0.3 * block);
}

/* What a row alone takes for softmax and choice is mostly waiting; lanes share it. */
static double cost_router(const Job *job, const double *v, int n_tokens)
{
    const double lanes = target_info(job->bounds.target)->lanes, products = get(v, job, "n_in") / lanes + 10;
    const double rows = get(v, job, "by_lanes") ? ceil(n_tokens / lanes) * 30 : n_tokens * 50.0;
    return get(v, job, "n_experts") * (n_tokens * products + rows);
}

static double cost_attention(const Job *job, const double *v, int n_tokens)
{
    const double group = get(v, job, "n_heads") / get(v, job, "n_kv_heads"), tokens = get(v, job, "token_block");
    const double keys = get(v, job, "key_block"), tile = get(v, job, "tile_rows"), panel = get(v, job, "panel");
    const double dim = get(v, job, "head_dim"), context = 256 + n_tokens / 2.0;
    const double rows = tokens * group, items = ceil(n_tokens / tokens) * get(v, job, "n_kv_heads");
    /* A block more is touched in part at each end. */
    const double blocks = (context + tokens + keys) / keys;
    const double products = ceil(rows / tile) * tile_step(tile) * (dim * keys / panel + keys * ceil(dim / panel));
    const double softmax = rows * keys / (panel / 2) * 12, packing = 2 * keys * dim / (panel / 2) * 3;
    return items * blocks * (products + softmax + packing);
}

double cost_of_point(const Job *job, const SpacePoint *point, int n_tokens)
{
    double values[TEMPLATE_MAX_PARAMS];
    if (job->bounds.gpu)
        return gpu_cost_of_point(job, point, n_tokens);
    job_values(job, point, values);
    if (strncmp(job->template->name, "gemv", 4) == 0)
        return cost_gemv(job, values);
    if (strcmp(job->template->name, "scan") == 0)
        return cost_scan(job, values);
    if (space_param(&job->space, "by_lanes") >= 0)
        return cost_router(job, values, n_tokens);
    return strcmp(job->template->name, "attention") == 0 ? cost_attention(job, values, n_tokens)
                                                         : cost_gemm(job, values, n_tokens);
}
