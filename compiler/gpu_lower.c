/* Lowering for GPUs: the IR becomes launches, an operation a kernel.
 *
 * Input: a module lowered by the passes for GPUs, its weights and states bound. Output: one launch list. What
 * has no kernel of its own is a way of reading: a slice is columns of rows, a combine the sum over a token's pairs
 * that the next reader makes (gates are in the rows already), an add the end of a product or, after a layer
 * with experts, pairs left to the next norm. Invariant: between launches x is the residual stream less `left`.
 */
#include "gpu_model.h"

#include "../ir/text.h"

#include <string.h>

enum { MAX_BOUND = 64, MAX_ROUTINGS = 8, NORM_ROWS = 16, ROUTE_ROWS = 64,
       COUNTED_ROWS = 16, GROUP_TOKENS = 64 };

typedef struct { const Value *value; Rows rows; } Bound;

/* One block on its way: main, or a layer with its own weights and state. */
typedef struct {
    GpuModel *g;
    const Block *block;
    const BlockPlan *plan;
    int layer;                     /* -1: main */
    TopK top_k;
    int64_t weights, state, state_token;
    Bound bound[MAX_BOUND];
    Routing routings[MAX_ROUTINGS];
    int n_bound, n_routings;
    LaunchBuffer *bc;              /* B and C of every token, after spread */
} Lowering;

/* ---- values ---- */

static void bind_rows(Lowering *l, const Value *value, Rows rows)
{
    if (l->n_bound == MAX_BOUND)
        BUG("@%s has more than %d values", l->block->name, MAX_BOUND);
    l->bound[l->n_bound++] = (Bound){ value, rows };
}

static const Rows *find_rows(const Lowering *l, const Value *value)
{
    for (int i = 0; i < l->n_bound; i++)
        if (l->bound[i].value == value)
            return &l->bound[i].rows;
    return NULL;
}

/* Where column `begin` of a product lies: its parts begin at multiples of 8. */
static int64_t padded_column(const Value *product, int64_t begin)
{
    const Op *op = value_is(product, OP_COMBINE) ? product->def->operand[0]->def : product->def;
    int64_t parts = op->kind == OP_LINEAR || op->kind == OP_EXPERT_LINEAR
                  ? op_int(op->operand[1]->def, ATTR_PARTS, 1) : 1;
    int64_t len = product->type.dim[1].n / parts;
    return parts == 1 ? begin : begin / len * gpu_stride(len) + begin % len;
}

/* How to read a value: its own rows, or those it is a view of. */
static Rows rows_of(const Lowering *l, const Value *value)
{
    const Rows *found = find_rows(l, value);
    if (found)
        return *found;
    Rows rows;
    switch (value->def ? value->def->kind : OP_YIELD) {
    case OP_SLICE:
        rows = rows_of(l, value->def->operand[0]);
        rows.column += padded_column(value->def->operand[0], op_int(value->def, ATTR_BEGIN, 0));
        return rows;
    case OP_COMBINE:
        rows = rows_of(l, value->def->operand[0]);
        rows.pairs = true;
        return rows;
    case OP_SWIGLU_PAIRS:
        return rows_of(l, value->def->operand[0]);
    default:
        BUG("%%%s of @%s has no rows", value->name, l->block->name);
    }
}

/* The operation of that kind that reads `value`; NULL when there is none. */
static const Op *reader(const Lowering *l, const Value *value, OpKind kind)
{
    for (const Op *op = l->block->first; op; op = op->next)
        for (int i = 0; op->kind == kind && i < op->n_operands; i++)
            if (op->operand[i] == value)
                return op;
    return NULL;
}

static const Routing *routing_of(const Lowering *l, const Value *experts)
{
    for (int i = 0; i < l->n_routings; i++)
        if (l->routings[i].experts == experts)
            return &l->routings[i];
    BUG("%%%s of @%s was routed nowhere", experts->name, l->block->name);
}

/* ---- arguments ---- */

static int64_t columns(const Value *value) { return value->type.dim[value->type.rank - 1].n; }

static void weight_arg(const Lowering *l, const Value *weight)
{
    gpu_weights(l->g->b, l->weights + weight->buffer->offset);
}

static void state_arg(const Lowering *l, const Value *state)
{
    const Buffer *b = state->buffer;
    bool grows = state->type.dim[0].sym == SYM_C;
    gpu_state(l->g->b, grows ? l->g->plan->state_len : l->state + b->offset,
              grows ? l->state_token + b->token_offset : 0);
}

/* A grid of one dimension. */
static void end_launch(const Lowering *l, LaunchExtent x, int n_threads, int shared_len, int flags)
{
    gpu_end(l->g->b, x, gpu_fixed(1), n_threads, shared_len, gpu_flags(l->g) | flags);
}

/* ---- embedding, norms, routers ---- */

static void lower_embed(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    const WeightSlot *slot = gpu_slot(l->plan, op->operand[1]);
    gpu_begin(g->b, "embed", l->layer);
    gpu_param(g->b, "d_model", (double)columns(op->result[0]));
    gpu_param(g->b, "weight_dtype", slot->dtype == DTYPE_Q8 ? 3 : g->act);
    gpu_param(g->b, "act", g->act);
    gpu_rows(g, &g->x, ACCESS_WRITE);
    gpu_special(g->b, ARG_TOKENS);
    weight_arg(l, op->operand[1]);
    if (slot->scales)
        gpu_weights(g->b, l->weights + slot->offset + slot->scales);
    else
        gpu_null(g->b);
    gpu_count(g->b, COUNT_TOKENS);
    end_launch(l, gpu_extent(COUNT_TOKENS, 1, 0), 128, 0, 0);
    bind_rows(l, op->result[0], g->x);
}

/* One launch of norm_route. */
typedef struct {
    Rows in;                 /* float32: the residual stream, with what is left to add; else activations */
    int64_t n_in;
    Rows left, out;          /* buffer NULL: none */
    const Value *weight, *router;
    Routing *routing;        /* NULL: no router */
    double eps;
    bool renormalize;
    TopK top_k;              /* of the router */
    LaunchCount n_rows;
    int flags;
} Norm;

static void buffer_or_null(GpuModel *g, const LaunchBuffer *buffer, LaunchAccess access)
{
    if (buffer)
        gpu_scratch(g->b, buffer, 0, access);
    else
        gpu_null(g->b);
}

/* See codegen/gpu/norm_route.c. */
static int norm_shared_len(const Norm *n)
{
    enum { ROUTER_MOST = 98304 };
    int64_t n_experts = n->routing ? n->routing->n_experts : 1, router = 4 * n_experts * ((n->n_in + 255) / 256 * 256);
    return (int)((n_experts == 1 || router > ROUTER_MOST ? 0 : router) + (n->weight ? 144 : 320) * n_experts);
}

static void emit_norm(Lowering *l, const Norm *n)
{
    GpuModel *g = l->g;
    const Routing *r = n->routing;
    gpu_begin(g->b, "norm_route", l->layer);
    gpu_param(g->b, "n_in", (double)n->n_in);
    gpu_param(g->b, "in_stride", (double)n->in.stride);
    gpu_param(g->b, "from_act", n->in.element_len == 2);
    gpu_param(g->b, "normalise", n->weight != NULL);
    gpu_param(g->b, "pairs_stride", n->left.buffer ? (double)n->left.stride : 0);
    gpu_param(g->b, "out_stride", (double)(n->out.buffer ? n->out.stride : gpu_stride(n->n_in)));
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "n_experts", r ? (double)r->n_experts : 1);
    gpu_param(g->b, "renormalize", n->renormalize);
    gpu_param(g->b, "eps", n->eps);
    gpu_min_blocks(g->b, n->weight ? 2 : 1);
    gpu_rows(g, &n->in, n->left.buffer ? ACCESS_UPDATE : ACCESS_READ);
    if (n->left.buffer)
        gpu_rows(g, &n->left, ACCESS_READ);
    else
        gpu_null(g->b);
    if (n->weight)
        weight_arg(l, n->weight);
    else
        gpu_null(g->b);
    if (n->router)
        weight_arg(l, n->router);
    else
        gpu_null(g->b);
    buffer_or_null(g, n->out.buffer, ACCESS_WRITE);
    buffer_or_null(g, r ? r->chosen : NULL, ACCESS_WRITE);
    buffer_or_null(g, r ? r->gates : NULL, ACCESS_WRITE);
    buffer_or_null(g, r ? r->counts : NULL, ACCESS_WRITE);
    gpu_count(g->b, n->n_rows);
    gpu_count(g->b, COUNT_TOKENS);
    gpu_top_k(g, n->top_k);
    gpu_top_k(g, n->left.buffer ? n->left.top_k : (TopK){ 1, 1 });
    end_launch(l, gpu_extent(n->n_rows, n->weight ? NORM_ROWS : ROUTE_ROWS, 0), n->weight ? 256 : 512,
               norm_shared_len(n), n->flags);
}

static Routing *new_routing(Lowering *l, const Value *experts, const Value *router)
{
    GpuModel *g = l->g;
    if (l->n_routings == MAX_ROUTINGS)
        BUG("@%s has more than %d routers", l->block->name, MAX_ROUTINGS);
    Routing *r = &l->routings[l->n_routings++];
    int64_t n_experts = router->type.dim[0].n, pairs = gpu_most_pairs(g, l->top_k);
    *r = (Routing){ .experts = experts, .n_experts = n_experts, .top_k = l->top_k };
    r->chosen = gpu_buffer(g->b, "experts", 4 * pairs);
    r->gates = gpu_buffer(g->b, "gates", 4 * pairs);
    r->counts = gpu_buffer(g->b, "counts", 4 * ((g->n_rows + COUNTED_ROWS - 1) / COUNTED_ROWS) * n_experts);
    return r;
}

/* rms_norm and rms_norm_route, of the residual stream. */
static void lower_norm(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    bool routed = op->kind == OP_RMS_NORM_ROUTE;
    bool last = value_is(op->operand[0], OP_LAST_ROWS);
    Norm n = { .in = g->x, .n_in = columns(op->result[0]), .left = g->left, .weight = op->operand[1],
               .eps = op_attr(op, ATTR_EPS)->number, .top_k = routed ? l->top_k : (TopK){ 1, 1 },
               .n_rows = last ? COUNT_LOGITS : COUNT_TOKENS, .flags = last ? LAUNCH_IF_LOGITS : 0 };
    n.out = gpu_new_rows(g, op->result[0]->name, n.n_in, 2);
    if (routed) {
        n.router = op->operand[2];
        n.renormalize = op_int(op, ATTR_RENORMALIZE, 0);
        n.routing = new_routing(l, op->result[1], op->operand[2]);
    }
    emit_norm(l, &n);
    g->left = (Rows){ 0 };
    bind_rows(l, op->result[0], n.out);
}

static void lower_route(Lowering *l, const Op *op)
{
    Routing *r = new_routing(l, op->result[0], op->operand[1]);
    emit_norm(l, &(Norm){ .in = rows_of(l, op->operand[0]), .n_in = columns(op->operand[0]), .router = op->operand[1],
                          .routing = r, .renormalize = op_int(op, ATTR_RENORMALIZE, 0), .top_k = l->top_k,
                          .n_rows = COUNT_TOKENS });
}

static void lower_group(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    Routing *r = (Routing *)routing_of(l, op->operand[0]);
    r->slots = gpu_buffer(g->b, "slots", 4 * gpu_most_pairs(g, l->top_k));
    r->offsets = gpu_buffer(g->b, "offsets", 4 * (r->n_experts + 1));
    gpu_begin(g->b, "group", l->layer);
    gpu_param(g->b, "n_experts", (double)r->n_experts);
    gpu_scratch(g->b, r->slots, 0, ACCESS_WRITE);
    gpu_scratch(g->b, r->offsets, 0, ACCESS_WRITE);
    gpu_scratch(g->b, r->chosen, 0, ACCESS_READ);
    gpu_scratch(g->b, r->counts, 0, ACCESS_READ);
    gpu_count(g->b, COUNT_TOKENS);
    gpu_top_k(g, r->top_k);
    end_launch(l, gpu_extent(COUNT_TOKENS, GROUP_TOKENS, 0), 128, 8 * (int)r->n_experts, 0);
}

/* ---- products ---- */

/* Is `value` x_proj's: does a product read a slice of it? */
static bool is_dbc(const Lowering *l, const Value *value)
{
    for (const Op *op = l->block->first; op; op = op->next)
        if ((op->kind == OP_LINEAR || op->kind == OP_EXPERT_LINEAR) && value_is(op->operand[0], OP_SLICE)
            && op->operand[0]->def->operand[0] == value)
            return true;
    return false;
}

static Product new_product(const Lowering *l, const Op *op)
{
    const Value *weight = op->operand[1];
    const WeightSlot *slot = gpu_slot(l->plan, weight);
    bool experts = op->kind == OP_EXPERT_LINEAR;
    return (Product){ .layer = l->layer, .n_in = slot->n_in, .n_out = slot->stored_rows,
                      .n_experts = experts ? slot->n_experts : 1, .slot = slot, .weights_offset = l->weights,
                      .routing = experts ? routing_of(l, op->operand[2]) : NULL, .n_tokens = COUNT_TOKENS };
}

/* x_proj's rows become gate-weighted columns of joined dt_proj, and the token's B and C. */
static Rows emit_spread(Lowering *l, const Value *dbc, int64_t dt_rank, const Routing *r)
{
    GpuModel *g = l->g;
    Rows in = rows_of(l, dbc);
    int64_t n_experts = r ? r->n_experts : 1, d_state = (columns(dbc) - dt_rank) / 2;
    Rows out = gpu_new_rows(g, "spread", n_experts * dt_rank, 2);
    l->bc = gpu_buffer(g->b, "bc", 4 * g->n_rows * 2 * d_state);
    gpu_begin(g->b, "spread", l->layer);
    gpu_param(g->b, "dt_rank", (double)dt_rank);
    gpu_param(g->b, "d_state", (double)d_state);
    gpu_param(g->b, "n_experts", (double)n_experts);
    gpu_param(g->b, "in_stride", (double)in.stride);
    gpu_param(g->b, "out_stride", (double)out.stride);
    gpu_param(g->b, "act", g->act);
    gpu_rows(g, &out, ACCESS_WRITE);
    gpu_scratch(g->b, l->bc, 0, ACCESS_WRITE);
    gpu_rows(g, &in, ACCESS_READ);
    buffer_or_null(g, r ? r->chosen : NULL, ACCESS_READ);
    buffer_or_null(g, r ? r->gates : NULL, ACCESS_READ);
    gpu_count(g->b, COUNT_TOKENS);
    gpu_top_k(g, r ? r->top_k : (TopK){ 1, 1 });
    end_launch(l, gpu_extent(COUNT_TOKENS, 8, 0), 256, 0, 0);
    return out;
}

/* dt_proj: of one expert, or of all at once, their biases mixed by the gates. */
static void lower_dt(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    Product p = new_product(l, op);
    const Routing *r = p.routing;
    int bias = op->kind == OP_LINEAR ? 2 : 3;
    const Value *result = op->result[0];
    const Op *sum = reader(l, result, OP_COMBINE);
    const Value *dt = sum ? sum->result[0] : result;
    const Op *scan = reader(l, dt, OP_SCAN);
    if (!scan || op->n_operands <= bias || !op->operand[bias])
        BUG("@%s: dt_proj without a bias or a scan", l->block->name);
    p.in = emit_spread(l, op->operand[0]->def->operand[0], p.n_in, r);
    p.n_in *= r ? r->n_experts : 1;
    p.n_out = p.slot->n_out;
    p.n_experts = 1;
    p.out = gpu_new_rows(g, "dt", p.n_out, 4);
    p.out_kind = OUT_F32;
    p.bias_kind = r ? BIAS_MIXED : BIAS_PLAIN;
    p.bias_offset = l->weights + op->operand[bias]->buffer->offset;
    p.end = op_int(scan, ATTR_SOFTPLUS, 0) ? END_SOFTPLUS : END_NONE;
    gpu_product(g, &p);
    bind_rows(l, dt, p.out);
}

/* How a product ends follows from who reads it. */
static void lower_product(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    const Value *result = op->result[0];
    if (value_is(op->operand[0], OP_SLICE) && is_dbc(l, op->operand[0]->def->operand[0])) {
        lower_dt(l, op);
        return;
    }
    Product p = new_product(l, op);
    const Op *add = reader(l, result, OP_ADD);
    p.in = rows_of(l, op->operand[0]);
    TopK top_k = p.routing ? p.routing->top_k : (TopK){ 1, 1 };
    if (add && !p.routing && l->block->n_params && add->operand[0] == l->block->param[0]) {
        p.out = g->x;
        p.out_kind = OUT_ADD;
    } else if (l->block->last->operand[0] == result) {
        p.out = (Rows){ .stride = p.n_out };
        p.out_kind = OUT_LOGITS;
        p.n_tokens = COUNT_LOGITS;
        p.flags = LAUNCH_IF_LOGITS;
    } else if (is_dbc(l, result)) {
        p.out = p.routing ? gpu_new_pairs(g, result->name, p.n_out, 4, top_k)
                          : gpu_new_rows(g, result->name, p.n_out, 4);
        p.out_kind = OUT_F32;
    } else {
        p.end = reader(l, result, OP_SWIGLU_PAIRS) ? END_SWIGLU : END_NONE;
        p.gated = reader(l, result, OP_COMBINE) != NULL;
        int64_t n = p.end == END_SWIGLU ? p.n_out / 2 : p.n_out;
        p.out = p.routing ? gpu_new_pairs(g, result->name, n, 2, top_k) : gpu_new_rows(g, result->name, n, 2);
    }
    gpu_product(g, &p);
    if (p.out.buffer && p.out_kind != OUT_ADD)
        bind_rows(l, result, p.out);
}

/* ---- mamba ---- */

static void lower_conv1d(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    Rows in = rows_of(l, op->operand[0]), out = gpu_new_rows(g, op->result[0]->name, columns(op->result[0]), 2);
    gpu_begin(g->b, "conv1d", l->layer);
    gpu_param(g->b, "n_channels", (double)columns(op->result[0]));
    gpu_param(g->b, "d_conv", (double)columns(op->operand[1]));
    gpu_param(g->b, "in_stride", (double)in.stride);
    gpu_param(g->b, "in_pairs", in.pairs);
    gpu_param(g->b, "out_stride", (double)out.stride);
    gpu_param(g->b, "silu", (double)op_int(op, ATTR_SILU, 0));
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "sequences", g->sequences);
    gpu_rows(g, &out, ACCESS_WRITE);
    gpu_rows(g, &in, ACCESS_READ);
    weight_arg(l, op->operand[1]);
    weight_arg(l, op->operand[2]);
    state_arg(l, op->operand[3]);
    gpu_special(g->b, ARG_SLOTS);
    gpu_special(g->b, ARG_STATE_STRIDE);
    gpu_count(g->b, COUNT_TOKENS);
    gpu_top_k(g, in.pairs ? in.top_k : (TopK){ 1, 1 });
    gpu_end(g->b, gpu_fixed((int)(columns(op->result[0]) + 511) / 512),
            gpu_extent(COUNT_TOKENS, g->sequences ? 1 : 16, 0), 64, 0, gpu_flags(g));
    bind_rows(l, op->result[0], out);
}

/* Channels of a block whose state stays in registers, and tiles in flight; 0: token by token, the state in memory. */
typedef struct { int channels, stages, n_threads, shared_len; } ScanBlock;

/* See codegen/gpu/scan.c. */
static ScanBlock scan_shape(int d_state, int z_rows, int channels, int stages)
{
    int parts = (d_state + 7) / 8, bc_row = 2 * d_state + (d_state % 2 ? 0 : (40 - 2 * d_state % 32) % 32);
    int tile = 32 * (4 * channels + 2 * channels * (z_rows + 1) + 4 * bc_row);
    return (ScanBlock){ channels, stages, 32 * (channels / 8 * parts + channels / 2),
                        stages * tile + 2880 * channels + 512 * parts * (channels + 4) };
}

static ScanBlock scan_block(const Lowering *l, const char *key, int64_t d_state, int64_t z_rows)
{
    enum { SHARED_MOST = 160 << 10, THREADS_MOST = 1024, STATE_MOST = 64, PAIRS_MOST = 16 };
    bool held = !l->g->sequences && d_state <= STATE_MOST && z_rows <= PAIRS_MOST;
    int chosen = gpu_choice(l->g, key, "block_channels", 0), stages_chosen = gpu_choice(l->g, key, "stages", 6);
    ScanBlock wanted = scan_shape((int)d_state, (int)z_rows, chosen, stages_chosen);
    if (held && (chosen == 8 || chosen == 16) && stages_chosen % 2 == 0 && stages_chosen >= 6 && stages_chosen <= 10
        && wanted.shared_len <= gpu_shared_most(l->g) && wanted.n_threads <= THREADS_MOST)
        return wanted;
    for (int channels = 16; channels >= 8 && held; channels /= 2)
        for (int stages = 10; stages >= 6; stages -= 2) {
            ScanBlock block = scan_shape((int)d_state, (int)z_rows, channels, stages);
            if (block.shared_len <= SHARED_MOST && block.n_threads <= THREADS_MOST)
                return block;
        }
    return (ScanBlock){ 0, 0, 256, 0 };
}

static void lower_scan(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    const Value *gate = op->n_operands > 6 ? op->operand[6] : NULL;
    Rows dt = rows_of(l, op->operand[0]), x = rows_of(l, op->operand[1]);
    Rows z = gate ? rows_of(l, gate) : (Rows){ 0 };
    Rows y = gpu_new_rows(g, op->result[0]->name, columns(op->result[0]), 2);
    const char *key = arena_printf(g->arena, "%s z_pairs=%lld zoh=%d", gpu_key(g, "scan", columns(op->operand[3]),
        columns(op->result[0]), 1, DTYPE_F32), z.pairs ? (long long)z.top_k.most : 0ll, (int)op_int(op, ATTR_ZOH, 0));
    gpu_begin(g->b, "scan", l->layer);
    gpu_keyed(g->b, g->sequences ? NULL : key);
    gpu_param(g->b, "n_channels", (double)columns(op->result[0]));
    gpu_param(g->b, "d_state", (double)columns(op->operand[3]));
    gpu_param(g->b, "dt_stride", (double)dt.stride);
    gpu_param(g->b, "x_stride", (double)x.stride);
    gpu_param(g->b, "z_stride", (double)z.stride);
    gpu_param(g->b, "z_pairs", z.pairs ? (double)z.top_k.most : 0);
    gpu_param(g->b, "y_stride", (double)y.stride);
    gpu_param(g->b, "zoh", (double)op_int(op, ATTR_ZOH, 0));
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "sequences", g->sequences);
    ScanBlock block = scan_block(l, key, columns(op->operand[3]), z.pairs ? z.top_k.most : 1);
    gpu_param(g->b, "block_channels", block.channels);
    gpu_param(g->b, "stages", block.stages);
    gpu_rows(g, &y, ACCESS_WRITE);
    gpu_rows(g, &dt, ACCESS_READ);
    gpu_rows(g, &x, ACCESS_READ);
    gpu_scratch(g->b, l->bc, 0, ACCESS_READ);
    if (gate)
        gpu_rows(g, &z, ACCESS_READ);
    else
        gpu_null(g->b);
    weight_arg(l, op->operand[3]);
    weight_arg(l, op->operand[4]);
    state_arg(l, op->operand[5]);
    gpu_special(g->b, ARG_SLOTS);
    gpu_special(g->b, ARG_STATE_STRIDE);
    gpu_count(g->b, COUNT_TOKENS);
    gpu_top_k(g, z.pairs ? z.top_k : (TopK){ 1, 1 });
    int per_block = block.channels ? block.channels : 32;
    gpu_end(g->b, gpu_fixed((int)(columns(op->result[0]) + per_block - 1) / per_block),
            g->sequences ? gpu_extent(COUNT_TOKENS, 1, 0) : gpu_fixed(1), block.n_threads, block.shared_len,
            gpu_flags(g));
    bind_rows(l, op->result[0], y);
}

/* ---- attention ---- */

static void lower_rope_table(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    int64_t head_dim = op_int(op, ATTR_HEAD_DIM, 0);
    Rows table = { .buffer = gpu_buffer(g->b, "table", 4 * g->n_rows * head_dim), .stride = head_dim,
                   .element_len = 4 };
    gpu_begin(g->b, "rope_table", l->layer);
    gpu_param(g->b, "head_dim", (double)head_dim);
    gpu_param(g->b, "theta", op_attr(op, ATTR_THETA)->number);
    gpu_param(g->b, "sequences", g->sequences);
    gpu_rows(g, &table, ACCESS_WRITE);
    gpu_special(g->b, ARG_POSITIONS);
    gpu_count(g->b, COUNT_TOKENS);
    end_launch(l, gpu_extent(COUNT_TOKENS, 1, 0), 128, 0, 0);
    bind_rows(l, op->result[0], table);
}

static void lower_rope(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    Rows in = rows_of(l, op->operand[0]), table = rows_of(l, op->operand[1]);
    Rows out = gpu_new_rows(g, op->result[0]->name, columns(op->result[0]), 2);
    gpu_begin(g->b, "rope", l->layer);
    gpu_param(g->b, "n_heads", (double)op_int(op, ATTR_HEADS, 0));
    gpu_param(g->b, "head_dim", (double)op_int(op, ATTR_HEAD_DIM, 0));
    gpu_param(g->b, "in_stride", (double)in.stride);
    gpu_param(g->b, "out_stride", (double)out.stride);
    gpu_param(g->b, "act", g->act);
    gpu_rows(g, &out, ACCESS_WRITE);
    gpu_rows(g, &in, ACCESS_READ);
    gpu_rows(g, &table, ACCESS_READ);
    gpu_count(g->b, COUNT_TOKENS);
    end_launch(l, gpu_extent(COUNT_TOKENS, 8, 0), 128, 0, 0);
    bind_rows(l, op->result[0], out);
}

/* Which rows, which sequence, how long its rings are. */
static void sequence_args(const Lowering *l)
{
    gpu_special(l->g->b, ARG_POSITIONS);
    gpu_special(l->g->b, ARG_SLOTS);
    gpu_special(l->g->b, ARG_STATE_STRIDE);
    gpu_special(l->g->b, ARG_N_CONTEXT);
    gpu_count(l->g->b, COUNT_TOKENS);
}

/* See codegen/gpu/attention.c: a row is one query head of one token. */
static void end_attention(const Lowering *l, const Op *op)
{
    int head_dim = (int)op_int(op, ATTR_HEAD_DIM, 0), n_kv = (int)op_int(op, ATTR_KV_HEADS, 1);
    int group = (int)op_int(op, ATTR_HEADS, 0) / n_kv, rows = head_dim <= 64 ? 128 : 64;
    int heads = group < rows ? group : rows;
    int shared_len = (rows + 256) * ((head_dim + 15) / 16 * 16 + 8) * 2;
    gpu_end(l->g->b, gpu_extent(COUNT_TOKENS, rows / heads, 0), gpu_fixed(n_kv * ((group + heads - 1) / heads)), 128,
            shared_len, gpu_flags(l->g));
}

static void lower_attention(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    Rows q = rows_of(l, op->operand[0]), k = rows_of(l, op->operand[1]), v = rows_of(l, op->operand[2]);
    Rows out = gpu_new_rows(g, op->result[0]->name, columns(op->result[0]), 2);
    if (k.stride != v.stride)
        BUG("@%s: keys and values of different strides", l->block->name);
    gpu_begin(g->b, "attention", l->layer);
    gpu_param(g->b, "n_heads", (double)op_int(op, ATTR_HEADS, 0));
    gpu_param(g->b, "n_kv_heads", (double)op_int(op, ATTR_KV_HEADS, 0));
    gpu_param(g->b, "head_dim", (double)op_int(op, ATTR_HEAD_DIM, 0));
    gpu_param(g->b, "q_stride", (double)q.stride);
    gpu_param(g->b, "kv_stride", (double)k.stride);
    gpu_param(g->b, "out_stride", (double)out.stride);
    gpu_param(g->b, "window", (double)op_int(op, ATTR_WINDOW, 0));
    gpu_param(g->b, "act", g->act);
    gpu_rows(g, &out, ACCESS_WRITE);
    gpu_rows(g, &q, ACCESS_READ);
    gpu_rows(g, &k, ACCESS_READ);
    gpu_rows(g, &v, ACCESS_READ);
    state_arg(l, op->operand[3]);
    state_arg(l, op->operand[4]);
    sequence_args(l);
    end_attention(l, op);
    bind_rows(l, op->result[0], out);
}

/* One token of every sequence: rotation, attention and the rings' new row in one launch. */
static void lower_attention_decode(Lowering *l, const Op *op)
{
    enum { BLOCK_HEADS = 4, MAX_SPLITS = 16, SPLIT_KEYS = 256 };
    GpuModel *g = l->g;
    int64_t n_heads = op_int(op, ATTR_HEADS, 0), n_kv = op_int(op, ATTR_KV_HEADS, 1);
    int64_t window = op_int(op, ATTR_WINDOW, 0), head_dim = op_int(op, ATTR_HEAD_DIM, 0);
    int64_t tiles = n_kv * ((n_heads / n_kv + BLOCK_HEADS - 1) / BLOCK_HEADS);
    int64_t n_splits = window ? (window + SPLIT_KEYS - 1) / SPLIT_KEYS : MAX_SPLITS;
    n_splits = n_splits > MAX_SPLITS ? MAX_SPLITS : n_splits;
    const Op *rope = value_is(op->operand[0], OP_ROPE) ? op->operand[0]->def : NULL;
    Rows q = rows_of(l, rope ? rope->operand[0] : op->operand[0]), v = rows_of(l, op->operand[2]);
    Rows k = rows_of(l, rope ? op->operand[1]->def->operand[0] : op->operand[1]);
    Rows out = gpu_new_rows(g, op->result[0]->name, columns(op->result[0]), 2);
    gpu_begin(g->b, "attention_decode", l->layer);
    gpu_param(g->b, "n_heads", (double)n_heads);
    gpu_param(g->b, "n_kv_heads", (double)n_kv);
    gpu_param(g->b, "head_dim", (double)head_dim);
    gpu_param(g->b, "q_stride", (double)q.stride);
    gpu_param(g->b, "new_stride", (double)k.stride);
    gpu_param(g->b, "kv_stride", (double)columns(op->operand[3]));
    gpu_param(g->b, "out_stride", (double)out.stride);
    gpu_param(g->b, "window", (double)window);
    gpu_param(g->b, "n_splits", (double)n_splits);
    gpu_param(g->b, "rotates", rope != NULL);
    gpu_param(g->b, "act", g->act);
    gpu_rows(g, &out, ACCESS_WRITE);
    gpu_rows(g, &q, ACCESS_READ);
    gpu_rows(g, &k, ACCESS_READ);
    gpu_rows(g, &v, ACCESS_READ);
    state_arg(l, op->operand[3]);
    state_arg(l, op->operand[4]);
    buffer_or_null(g, rope ? rows_of(l, rope->operand[1]).buffer : NULL, ACCESS_READ);
    gpu_special(g->b, ARG_POSITIONS);
    gpu_special(g->b, ARG_SLOTS);
    gpu_special(g->b, ARG_STATE_STRIDE);
    gpu_special(g->b, ARG_N_CONTEXT);
    int64_t partial_len = 4 * g->n_rows * tiles * n_splits * BLOCK_HEADS * (head_dim + 2);
    buffer_or_null(g, n_splits > 1 ? gpu_buffer(g->b, "partial", partial_len) : NULL, ACCESS_WRITE);
    buffer_or_null(g, n_splits > 1 ? gpu_zeroed(g->b, "arrivals", 4 * g->n_rows * tiles) : NULL, ACCESS_UPDATE);
    gpu_count(g->b, COUNT_TOKENS);
    gpu_end(g->b, gpu_extent(COUNT_TOKENS, 1, 0), gpu_fixed((int)(tiles * n_splits)), 256, 19456, gpu_flags(g));
    bind_rows(l, op->result[0], out);
}

static void lower_ring_write(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    Rows k = rows_of(l, op->operand[0]), v = rows_of(l, op->operand[1]);
    gpu_begin(g->b, "ring_write", l->layer);
    gpu_param(g->b, "n_columns", (double)columns(op->operand[0]));
    gpu_param(g->b, "kv_stride", (double)k.stride);
    gpu_param(g->b, "window", (double)op_int(op, ATTR_WINDOW, 0));
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "sequences", g->sequences);
    state_arg(l, op->operand[2]);
    state_arg(l, op->operand[3]);
    gpu_rows(g, &k, ACCESS_READ);
    gpu_rows(g, &v, ACCESS_READ);
    sequence_args(l);
    end_launch(l, gpu_extent(COUNT_TOKENS, 8, 0), 128, 0, 0);
}

/* ---- blocks ---- */

static void lower_block(Lowering *l);

static void lower_call(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    int index = (int)op_int(op, ATTR_LAYER, 0);
    const LayerPlan *layer = &g->plan->layers[index];
    Lowering inner = { .g = g, .block = layer->block->block[PLAN_PREFILL], .plan = layer->block, .layer = index,
                       .top_k = gpu_layer_top_k(g->plan, &g->plan->graph->layers[index]),
                       .weights = layer->weights_offset, .state = layer->state_offset,
                       .state_token = layer->state_token_offset };
    bind_rows(&inner, inner.block->param[0], g->x);
    if (op->n_operands > 1)
        bind_rows(&inner, inner.block->param[1], rows_of(l, op->operand[1]));
    lower_block(&inner);
    const Value *result = inner.block->last->operand[0];
    const Value *added = value_is(result, OP_ADD) ? result->def->operand[1] : NULL;
    if (added && value_is(added, OP_COMBINE))
        g->left = rows_of(&inner, added);
}

static void lower_op(Lowering *l, const Op *op)
{
    switch (op->kind) {
    case OP_WEIGHT: case OP_STATE: case OP_SLICE: case OP_COMBINE: case OP_ADD: case OP_SWIGLU_PAIRS:
    case OP_LAST_ROWS: case OP_YIELD:
        break;
    case OP_EMBED: lower_embed(l, op); break;
    case OP_RMS_NORM: case OP_RMS_NORM_ROUTE: lower_norm(l, op); break;
    case OP_ROUTE: lower_route(l, op); break;
    case OP_GROUP: lower_group(l, op); break;
    case OP_LINEAR: case OP_EXPERT_LINEAR: lower_product(l, op); break;
    case OP_CONV1D: lower_conv1d(l, op); break;
    case OP_SCAN: lower_scan(l, op); break;
    case OP_ROPE_TABLE: lower_rope_table(l, op); break;
    case OP_ROPE: if (!l->g->sequences) lower_rope(l, op); break;
    case OP_ATTENTION: (l->g->sequences ? lower_attention_decode : lower_attention)(l, op); break;
    case OP_RING_WRITE: if (!l->g->sequences) lower_ring_write(l, op); break;
    case OP_CALL: lower_call(l, op); break;
    default: BUG("%s has no kernel for GPUs", op_info(op->kind).text);
    }
}

static void lower_block(Lowering *l)
{
    for (const Op *op = l->block->first; op; op = op->next)
        lower_op(l, op);
}

void gpu_lower(GpuModel *g)
{
    const BlockPlan *main = g->plan->main;
    Lowering l = { .g = g, .block = main->block[PLAN_PREFILL], .plan = main, .layer = -1, .top_k = { 1, 1 } };
    g->x = gpu_new_rows(g, "x", g->plan->graph->d_model, 4);
    g->left = (Rows){ 0 };
    lower_block(&l);
}
