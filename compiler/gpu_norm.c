/* Norms and routers for GPUs: codegen/gpu/norm_route.c and route.c.
 *
 * A router leaves what it chose, and every pair's place among its expert's: nothing else groups pairs. What it counts
 * lies in one buffer for all routers of a list, which the list's first launch sets to zero.
 */
#include "gpu_accept.h"
#include "gpu_lower.h"

#include "../ir/text.h"

enum { NORM_ROWS = 2, NORM_WARPS = 12, ROUTE_THREADS = 512, ROUTE_MOST_STAGES = 3 };

/* ---- what routers leave ---- */

/* The router among op's operands; NULL when op routes nothing. */
static const Value *router_of(const Op *op)
{
    return op->kind == OP_RMS_NORM_ROUTE ? op->operand[2] : op->kind == OP_ROUTE ? op->operand[1] : NULL;
}

/* So that every router's counters are aligned as arguments are. */
static int64_t counters(int64_t n_experts) { return (n_experts + 3) / 4 * 4; }

int64_t gpu_count_totals(const Plan *plan)
{
    int64_t n = 0;
    for (int i = 0; i < plan->n_layers; i++)
        for (const Op *op = plan->layers[i].block->block[PLAN_PREFILL]->first; op; op = op->next)
            n += router_of(op) ? counters(router_of(op)->type.dim[0].n) : 0;
    return n;
}

static Routing *new_routing(Lowering *l, const Op *op, const Value *experts)
{
    GpuModel *g = l->g;
    if (l->n_routings == GPU_MAX_ROUTINGS)
        BUG("@%s has more than %d routers", l->block->name, GPU_MAX_ROUTINGS);
    Routing *r = &l->routings[l->n_routings++];
    int64_t n_experts = router_of(op)->type.dim[0].n, pairs = gpu_most_pairs(g, l->top_k);
    *r = (Routing){ .experts = experts, .n_experts = n_experts, .top_k = l->top_k, .totals = g->totals,
                    .first_total = g->n_totals };
    g->n_totals += counters(n_experts);
    r->chosen = gpu_buffer(g->b, "experts", 4 * pairs);
    r->gates = gpu_buffer(g->b, "gates", 4 * pairs);
    r->slots = gpu_buffer(g->b, "slots", 4 * n_experts * g->n_rows);
    return r;
}

static void routing_args(GpuModel *g, const Routing *r)
{
    gpu_buffer_or_null(g, r ? r->chosen : NULL, ACCESS_WRITE);
    gpu_buffer_or_null(g, r ? r->gates : NULL, ACCESS_WRITE);
    gpu_buffer_or_null(g, r ? r->slots : NULL, ACCESS_WRITE);
    if (r)
        gpu_scratch(g->b, r->totals, 4 * r->first_total, ACCESS_UPDATE);
    else
        gpu_null(g->b);
}

/* ---- rms_norm and rms_norm_route, of the residual stream ---- */

/* See codegen/gpu/norm_route.c. */
static int norm_warps(int64_t n_in)
{
    int64_t chunks = (n_in + 255) / 256, passes = (chunks + NORM_WARPS - 1) / NORM_WARPS;
    return (int)((chunks + passes - 1) / passes);
}

static int norm_shared_len(int warps, int64_t n_experts)
{
    int routed = 128 * warps + (n_experts > 256 ? 12 : 96) * (int)n_experts;
    return 9232 * warps + 64 + (n_experts > 1 ? routed : 0);
}

void gpu_lower_norm(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    bool routed = op->kind == OP_RMS_NORM_ROUTE, last = value_is(op->operand[0], OP_LAST_ROWS);
    LaunchCount n_rows = last ? COUNT_LOGITS : COUNT_TOKENS;
    int64_t n_in = gpu_columns(op->result[0]);
    int warps = norm_warps(n_in), resident = (routed ? NORM_WARPS : 16) / warps;    /* blocks of a multiprocessor */
    Rows out = gpu_new_rows(g, op->result[0]->name, n_in, 2);
    const Routing *r = routed ? new_routing(l, op, op->result[1]) : NULL;
    gpu_begin(g->b, "norm_route", l->layer);
    gpu_param(g->b, "n_in", (double)n_in);
    gpu_param(g->b, "in_stride", (double)g->x.stride);
    gpu_param(g->b, "pairs_stride", g->left.buffer ? (double)g->left.stride : 0);
    gpu_param(g->b, "out_stride", (double)out.stride);
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "n_experts", r ? (double)r->n_experts : 1);
    gpu_param(g->b, "renormalize", routed ? (double)op_int(op, ATTR_RENORMALIZE, 0) : 0);
    gpu_param(g->b, "last", last && !g->sequences);
    gpu_param(g->b, "eps", op_attr(op, ATTR_EPS)->number);
    gpu_min_blocks(g->b, resident);
    gpu_rows(g, &g->x, g->left.buffer ? ACCESS_UPDATE : ACCESS_READ);
    if (g->left.buffer)
        gpu_rows(g, &g->left, ACCESS_READ);
    else
        gpu_null(g->b);
    gpu_weight_arg(l, op->operand[1]);
    if (routed)
        gpu_weight_arg(l, op->operand[2]);
    else
        gpu_null(g->b);
    gpu_rows(g, &out, ACCESS_WRITE);
    routing_args(g, r);
    gpu_ends_arg(l);
    gpu_count(g->b, COUNT_SEQUENCES);
    gpu_count(g->b, n_rows);
    gpu_count(g->b, COUNT_TOKENS);
    gpu_top_k(g, r ? r->top_k : (TopK){ 1, 1 });
    gpu_top_k(g, g->left.buffer ? g->left.top_k : (TopK){ 1, 1 });
    gpu_end(g->b, last ? gpu_extent(n_rows, NORM_ROWS, 0) : gpu_extent(COUNT_PROCESSORS, 1, 0),
            gpu_fixed(last ? 1 : resident), 32 * warps, norm_shared_len(warps, r ? r->n_experts : 1),
            gpu_flags(g) | (last ? LAUNCH_IF_LOGITS : 0));
    g->left = (Rows){ 0 };
    gpu_bind_rows(l, op->result[0], out);
}

/* ---- route, of activations ---- */

void gpu_lower_route(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    Rows in = gpu_rows_of(l, op->operand[0]);
    if (in.element_len != 2 || in.pairs)
        BUG("@%s routes rows that are no activations of tokens", l->block->name);
    const Routing *r = new_routing(l, op, op->result[0]);
    int stages = ROUTE_MOST_STAGES;
    while (stages > 1 && gpu_route_shared_len(stages, r->n_experts) > gpu_shared_most(g))
        stages--;
    gpu_begin(g->b, "route", l->layer);
    gpu_param(g->b, "n_in", (double)gpu_columns(op->operand[0]));
    gpu_param(g->b, "in_stride", (double)in.stride);
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "n_experts", (double)r->n_experts);
    gpu_param(g->b, "renormalize", (double)op_int(op, ATTR_RENORMALIZE, 0));
    gpu_param(g->b, "stages", stages);
    gpu_rows(g, &in, ACCESS_READ);
    gpu_weight_arg(l, op->operand[1]);
    routing_args(g, r);
    gpu_count(g->b, COUNT_TOKENS);
    gpu_top_k(g, r->top_k);
    gpu_end_line(l, gpu_extent(COUNT_PROCESSORS, 1, 0), ROUTE_THREADS, gpu_route_shared_len(stages, r->n_experts), 0);
}
