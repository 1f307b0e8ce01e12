/* The decode list: one token of each of up to 16 sequences, a few launches a layer.
 *
 * Input and output as in gpu_lower.c. Kernels are the decode ones of codegen/gpu/README.md: four launches a mamba
 * layer, three an attention, two an mlp; norms and routers ride on the launch before. Their sizes are chosen here.
 * A model that they cannot serve (more than 32 experts, rows too long for shared memory) goes the way of prefill.
 */
#include "gpu_model.h"
#include "plan_model.h"

#include "../ir/text.h"

#include <string.h>

enum {
    ROWS = 16, MAX_EXPERTS = 32, MAX_HEAD_DIM = 256, WARPS = 16, SLOT_LEN = 512, MAX_GROUP = 8,
    ROUTE_LEN = 4 * ROWS * (MAX_EXPERTS + 1) + 4 * MAX_EXPERTS * ROWS + 4 * ROWS,    /* DecodeRoute */
    PART_LEN = 4 * ROWS * 8,           /* sums of one tile and slice */
};

/* What the next layer needs of x: the weights of its norm and first router. */
typedef struct { int64_t norm, router, n_experts; } Next;

typedef struct {
    GpuModel *g;
    const LayerPlan *layer;
    const Layer *shape;
    int index;
    TopK top_k;
    Next own, after;
    LaunchBuffer *x, *sums,
        *next;     /* the residual stream; sums for this layer's norm and router, for the next one's */
    LaunchBuffer *table;
    int flags;             /* of this layer's launches */
} Decoder;

static int up(int64_t n, int64_t m) { return (int)((n + m - 1) / m); }
static int smaller(int a, int b) { return a < b ? a : b; }
static int larger(int a, int b) { return a > b ? a : b; }

/* ---- weights ---- */

static const WeightSlot *try_slot(const BlockPlan *block, const char *tensor)
{
    for (int i = 0; i < block->n_weights; i++)
        if (strcmp(block->weights[i].tensor, tensor) == 0)
            return &block->weights[i];
    return NULL;
}

static const WeightSlot *slot_of(const Decoder *d, const char *tensor)
{
    const WeightSlot *slot = try_slot(d->layer->block, tensor);
    if (!slot)
        BUG("@%s has no %s", d->layer->block->name, tensor);
    return slot;
}

static void weight(const Decoder *d, const char *tensor)
{
    gpu_weights(d->g->b, d->layer->weights_offset + slot_of(d, tensor)->offset);
}

static void weight_or_null(const Decoder *d, const char *tensor, bool is)
{
    if (is)
        weight(d, tensor);
    else
        gpu_null(d->g->b);
}

static void offset_or_null(GpuModel *g, int64_t offset)
{
    if (offset >= 0)
        gpu_weights(g->b, offset);
    else
        gpu_null(g->b);
}

static void scales(GpuModel *g, const WeightSlot *slot, int64_t block_offset)
{
    offset_or_null(g, slot->scales ? block_offset + slot->offset + slot->scales : -1);
}

static void matrix(const Decoder *d, const char *tensor)
{
    weight(d, tensor);
    scales(d->g, slot_of(d, tensor), d->layer->weights_offset);
}

static int dtype_code(const GpuModel *g, const WeightSlot *slot) { return slot->dtype == DTYPE_Q8 ? 3 : g->act; }

static void state(const Decoder *d, const char *name)
{
    for (int i = 0; i < d->layer->block->n_states; i++) {
        const StateSlot *s = &d->layer->block->states[i];
        if (strcmp(s->name, name) != 0)
            continue;
        if (s->n_rows)
            gpu_state(d->g->b, d->layer->state_offset + s->offset, 0);
        else
            gpu_state(d->g->b, d->g->plan->state_len, d->layer->state_token_offset + s->token_offset);
        return;
    }
    BUG("@%s has no state %s", d->layer->block->name, name);
}

/* ---- how a product is shared out ---- */

/* Pairs of chunks of 64 bytes: of a row, of one of n slices of it. */
static int pairs_of(int64_t n_in, int dtype) { return up(up(n_in, 64) * (dtype == 3 ? 1 : 2), 2); }
static int group_of(int64_t n_in, int dtype, int n_slices, int most)
{
    return smaller(2 * up(pairs_of(n_in, dtype), n_slices), most);
}
static int64_t row_len(int64_t n_in) { return 2 * (up(n_in, 64) * 64 + 8); }     /* of the input in shared memory */

static void product_params(GpuModel *g, int n_slices, int group, int ring)
{
    gpu_param(g->b, "n_slices", n_slices);
    gpu_param(g->b, "group", group);
    gpu_param(g->b, "ring", ring);
}

static int ring_len(int n_warps, int group, int ring) { return n_warps * group * ring * SLOT_LEN; }

/* Chunks a step and steps under way, as they were chosen where that fits beside `others` bytes, else as they are. */
static void choose_ring(const GpuModel *g, const char *key, int64_t n_in, int dtype, int n_slices, int n_warps,
                        int64_t others, int *group, int *ring)
{
    enum { MAX_RING = 6 };
    int chunks = gpu_choice(g, key, "group", *group), steps = gpu_choice(g, key, "ring", *ring);
    if (chunks % 2 || chunks > MAX_GROUP || steps > MAX_RING)
        return;
    chunks = group_of(n_in, dtype, n_slices, chunks);
    if (others + ring_len(n_warps, chunks, steps) > gpu_shared_most(g))
        return;
    *group = chunks;
    *ring = steps;
}

static void end(const Decoder *d, LaunchExtent x, LaunchExtent y, int n_threads, int64_t shared_len, int flags)
{
    gpu_end(d->g->b, x, y, n_threads, (int)shared_len, gpu_flags(d->g) | d->flags | flags);
}

static void rows_and_top_k(const Decoder *d)
{
    gpu_count(d->g->b, COUNT_TOKENS);
    gpu_top_k(d->g, d->top_k);
}

static void scratch_or_null(GpuModel *g, const LaunchBuffer *buffer, LaunchAccess access)
{
    if (buffer)
        gpu_scratch(g->b, buffer, 0, access);
    else
        gpu_null(g->b);
}

static void next_args(const Decoder *d)
{
    offset_or_null(d->g, d->after.norm);
    offset_or_null(d->g, d->after.router);
}

/* ---- what the launches of a layer leave each other ---- */

/* xh is xc in 16 bits; gates and logits are NULL without routers. */
typedef struct { LaunchBuffer *xh, *xc, *z, *y, *xp, *gates, *ssm_logits, *out_logits; } Channels;
typedef struct { LaunchBuffer *q, *sums, *peaks; } Attended;
typedef struct {
    const char *tensor;
    int64_t n_in;
    const LaunchBuffer *rows;
    const Attended *attended;          /* in the place of rows; NULL: none */
    const LaunchBuffer *logits;        /* of the router, in n_parts parts */
    int n_parts;
    bool by_pair;                      /* rows are; the router is the layer's first */
} Out;

static const char *attention_key(const Decoder *d)
{
    const AttentionLayer *a = &d->shape->attention;
    return arena_printf(d->g->arena, "decode_attention n_heads=%lld n_kv_heads=%lld head_dim=%lld window=%lld act=%d",
                        (long long)a->n_heads, (long long)a->n_kv_heads, (long long)a->head_dim, (long long)a->window,
                        d->g->act);
}

static int attention_splits(const Decoder *d)
{
    int usual = d->shape->attention.window && d->shape->attention.window <= 4096 ? 8 : 32;
    int splits = gpu_choice(d->g, attention_key(d), "splits", usual);
    return splits >= 4 && splits <= 32 && splits % 4 == 0 ? splits : usual;
}

/* The projection that ends a layer. Its input: rows, of tokens or by pair, or what attention left. */
static void emit_out(Decoder *d, const Out *o)
{
    GpuModel *g = d->g;
    const WeightSlot *slot = slot_of(d, o->tensor);
    int64_t n_out = g->plan->graph->d_model, e = slot->n_experts, n_next = d->after.n_experts > 1 ? d->after.n_experts
        : 0;
    bool routed = e > 1, by_pair = routed && o->by_pair;
    int dtype = dtype_code(g, slot), group = group_of(o->n_in, dtype, WARPS, by_pair ? 8 : 4);
    int ring = smaller(up(2 * up(pairs_of(o->n_in, dtype), WARPS), group) * (routed ? 2 : 1), 2);
    const AttentionLayer *a = &d->shape->attention;
    const char *key = arena_printf(g->arena, "%s by_pair=%d attended=%d next_experts=%lld top_k=%lld",
                                   gpu_key(g, "decode_out", o->n_in, n_out, e, slot->dtype), by_pair,
                                   o->attended != NULL, (long long)d->after.n_experts, (long long)d->top_k.most);
    int64_t others = ROUTE_LEN + WARPS * PART_LEN + 8 * n_next * 4 + (dtype == 3 ? e * 32 : 0)
        + (o->attended ? ROWS * row_len(o->n_in) : 0);
    choose_ring(g, key, o->n_in, dtype, WARPS, WARPS, others, &group, &ring);
    gpu_begin(g->b, "decode_out", d->index);
    gpu_keyed(g->b, key);
    gpu_min_blocks(g->b, 1);
    gpu_param(g->b, "n_in", (double)o->n_in);
    gpu_param(g->b, "n_out", (double)n_out);
    gpu_param(g->b, "n_experts", (double)e);
    gpu_param(g->b, "renormalize", g->plan->graph->renormalize);
    gpu_param(g->b, "weight_dtype", dtype);
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "n_parts", o->n_parts);
    gpu_param(g->b, "normed", by_pair);
    gpu_param(g->b, "known", by_pair);
    gpu_param(g->b, "by_pair", by_pair);
    gpu_param(g->b, "splits", o->attended ? attention_splits(d) : 0);
    gpu_param(g->b, "head_dim", o->attended ? (double)a->head_dim : 1);
    gpu_param(g->b, "next_experts", (double)d->after.n_experts);
    product_params(g, WARPS, group, ring);
    gpu_param(g->b, "eps", g->plan->graph->norm_eps);
    gpu_scratch(g->b, d->x, 0, ACCESS_UPDATE);
    gpu_scratch(g->b, d->next, 0, ACCESS_WRITE);
    gpu_scratch(g->b, o->attended ? o->attended->sums : o->rows, 0, ACCESS_READ);
    scratch_or_null(g, o->attended ? o->attended->peaks : NULL, ACCESS_READ);
    scratch_or_null(g, routed ? o->logits : NULL, ACCESS_READ);
    matrix(d, o->tensor);
    next_args(d);
    rows_and_top_k(d);
    end(d, gpu_fixed(up(n_out, 8)), gpu_fixed(1), 32 * WARPS, others + ring_len(WARPS, group, ring), 0);
}

/* ---- mamba ---- */

/* Sizes that follow from the channels: enough blocks for the multiprocessors, as many warps as share a block well. */
typedef struct {
    const char *in_key, *x_key, *scan_key;
    int tiles, slices, group, ring, x_slices, x_group, in_blocks, scan_tiles, scan_blocks;
} MambaShape;

/* 1, 2, 4, ... of `most`, else as usual. */
static int choose_tiles(const GpuModel *g, const char *key, int usual, int most)
{
    int tiles = gpu_choice(g, key, "tiles", usual);
    return tiles <= most && most % tiles == 0 ? tiles : usual;
}

static MambaShape mamba_shape(const Decoder *d)
{
    const MambaLayer *m = &d->shape->mamba;
    int in = dtype_code(d->g, slot_of(d, "in_proj.weight")), x = dtype_code(d->g, slot_of(d, "x_proj.weight"));
    MambaShape s = { .tiles = m->d_inner <= 1056 ? 1 : m->d_inner <= 2112 ? 2 : 4,
        .scan_tiles = m->d_inner <= 1056 ? 1 : 2 };
    const char *mode = arena_printf(d->g->arena, "top_k=%lld", (long long)d->top_k.most);
    s.in_key = arena_printf(d->g->arena, "%s %s", gpu_key(d->g, "decode_in", d->g->plan->graph->d_model, m->d_inner,
        d->shape->n_experts, slot_of(d, "in_proj.weight")->dtype), mode);
    s.x_key = arena_printf(d->g->arena, "%s %s", gpu_key(d->g, "decode_x", m->d_inner, m->dt_rank + 2 * m->d_state,
        d->shape->n_experts, slot_of(d, "x_proj.weight")->dtype), mode);
    s.scan_key = arena_printf(d->g->arena, "%s %s d_state=%lld", gpu_key(d->g, "decode_scan", m->dt_rank, m->d_inner,
        d->shape->n_experts, slot_of(d, "dt_proj.weight")->dtype), mode, (long long)m->d_state);
    s.tiles = choose_tiles(d->g, s.in_key, s.tiles, WARPS / 2);
    s.scan_tiles = choose_tiles(d->g, s.scan_key, s.scan_tiles, 4);
    s.slices = WARPS / (2 * s.tiles);
    s.group = group_of(d->g->plan->graph->d_model, in, s.slices, 4);
    s.ring = d->g->sm >= 90 && in != 3 ? 3 : 2;
    s.x_slices = smaller(larger(up(pairs_of(m->d_inner, x), MAX_GROUP / 2), 1), WARPS);
    s.x_slices = larger(s.x_slices, smaller(pairs_of(m->d_inner, x), WARPS / 2));
    s.x_slices = smaller(gpu_choice(d->g, s.x_key, "n_slices", s.x_slices), WARPS);
    s.x_group = group_of(m->d_inner, x, s.x_slices, MAX_GROUP);
    s.in_blocks = up(m->d_inner, 8 * s.tiles);
    s.scan_blocks = up(m->d_inner, 8 * s.scan_tiles);
    return s;
}

static void emit_in(Decoder *d, const MambaShape *s, const Channels *to)
{
    GpuModel *g = d->g;
    const MambaLayer *m = &d->shape->mamba;
    int64_t n_in = g->plan->graph->d_model, e = d->shape->n_experts, routed = e > 1 ? e : 0;
    int dtype = dtype_code(g, slot_of(d, "in_proj.weight")), own = 8 * s->tiles, group = s->group, ring = s->ring;
    int64_t items = own * (m->d_conv + 1) + routed * own + ROWS * own * (m->d_conv - 1);
    int64_t others = ROUTE_LEN + ROWS * row_len(n_in) + 2 * s->tiles * s->slices * PART_LEN + ROWS * own * 4
        + (dtype == 3 ? e * 2 * own * 4 : 0) + items * 4;
    choose_ring(g, s->in_key, n_in, dtype, s->slices, WARPS, others, &group, &ring);
    gpu_begin(g->b, "decode_in", d->index);
    gpu_keyed(g->b, s->in_key);
    gpu_min_blocks(g->b, 1);
    gpu_param(g->b, "n_in", (double)n_in);
    gpu_param(g->b, "n_channels", (double)m->d_inner);
    gpu_param(g->b, "d_conv", (double)m->d_conv);
    gpu_param(g->b, "n_experts", (double)e);
    gpu_param(g->b, "renormalize", g->plan->graph->renormalize);
    gpu_param(g->b, "weight_dtype", dtype);
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "n_parts", up(n_in, 8));
    gpu_param(g->b, "tiles", s->tiles);
    product_params(g, s->slices, group, ring);
    gpu_param(g->b, "eps", g->plan->graph->norm_eps);
    gpu_scratch(g->b, to->xh, 0, ACCESS_WRITE);
    gpu_scratch(g->b, to->xc, 0, ACCESS_WRITE);
    gpu_scratch(g->b, to->z, 0, ACCESS_WRITE);
    scratch_or_null(g, to->ssm_logits, ACCESS_WRITE);
    gpu_scratch(g->b, d->x, 0, ACCESS_READ);
    gpu_scratch(g->b, d->sums, 0, ACCESS_READ);
    weight(d, "norm.weight");
    matrix(d, "in_proj.weight");
    weight(d, "conv1d.weight");
    weight(d, "conv1d.bias");
    weight_or_null(d, "ssm_router.weight", routed);
    state(d, "conv_state");
    gpu_special(g->b, ARG_SLOTS);
    gpu_special(g->b, ARG_STATE_STRIDE);
    rows_and_top_k(d);
    end(d, gpu_fixed(s->in_blocks), gpu_fixed(1), 32 * WARPS, others + ring_len(WARPS, group, ring), 0);
}

static void emit_x(Decoder *d, const MambaShape *s, const Channels *c)
{
    GpuModel *g = d->g;
    const MambaLayer *m = &d->shape->mamba;
    int64_t e = d->shape->n_experts, steps = up(2 * up(pairs_of(m->d_inner, dtype_code(g, slot_of(d, "x_proj.weight"))),
        s->x_slices), s->x_group);
    int n_out = (int)(m->dt_rank + 2 * m->d_state), ring = smaller((int)steps, 2);
    gpu_begin(g->b, "decode_x", d->index);
    gpu_keyed(g->b, s->x_key);
    gpu_min_blocks(g->b, 2);
    gpu_param(g->b, "n_in", (double)m->d_inner);
    gpu_param(g->b, "n_out", n_out);
    gpu_param(g->b, "n_experts", (double)e);
    gpu_param(g->b, "renormalize", g->plan->graph->renormalize);
    gpu_param(g->b, "weight_dtype", dtype_code(g, slot_of(d, "x_proj.weight")));
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "n_parts", s->in_blocks);
    product_params(g, s->x_slices, s->x_group, ring);
    gpu_scratch(g->b, c->xp, 0, ACCESS_WRITE);
    scratch_or_null(g, c->gates, ACCESS_WRITE);
    gpu_scratch(g->b, c->xh, 0, ACCESS_READ);
    scratch_or_null(g, c->ssm_logits, ACCESS_READ);
    matrix(d, "x_proj.weight");
    rows_and_top_k(d);
    end(d, gpu_fixed((int)e * up(n_out, 8) + (e > 1)), gpu_fixed(1), 32 * s->x_slices,
        ROUTE_LEN + ring_len(s->x_slices, s->x_group, ring) + s->x_slices * PART_LEN, 0);
}

static void emit_scan(Decoder *d, const MambaShape *s, const Channels *c)
{
    enum { SLICES = 8 };
    GpuModel *g = d->g;
    const MambaLayer *m = &d->shape->mamba;
    int64_t e = d->shape->n_experts, routed = e > 1 ? e : 0, own = 8 * s->scan_tiles;
    gpu_begin(g->b, "decode_scan", d->index);
    gpu_keyed(g->b, s->scan_key);
    gpu_min_blocks(g->b, 1);
    gpu_param(g->b, "n_channels", (double)m->d_inner);
    gpu_param(g->b, "d_state", (double)m->d_state);
    gpu_param(g->b, "dt_rank", (double)m->dt_rank);
    gpu_param(g->b, "n_experts", (double)e);
    gpu_param(g->b, "zoh", g->plan->graph->discretization == DISCRETIZE_ZOH);
    gpu_param(g->b, "weight_dtype", dtype_code(g, slot_of(d, "dt_proj.weight")));
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "tiles", s->scan_tiles);
    gpu_param(g->b, "n_slices", SLICES);
    gpu_scratch(g->b, c->y, 0, ACCESS_WRITE);
    scratch_or_null(g, c->out_logits, ACCESS_WRITE);
    gpu_scratch(g->b, c->xp, 0, ACCESS_READ);
    scratch_or_null(g, c->gates, ACCESS_READ);
    gpu_scratch(g->b, c->xc, 0, ACCESS_READ);
    gpu_scratch(g->b, c->z, 0, ACCESS_READ);
    matrix(d, "dt_proj.weight");
    weight(d, "dt_proj.bias");
    weight(d, "A_log");
    weight(d, "D");
    weight_or_null(d, "out_router.weight", routed);
    state(d, "scan_state");
    gpu_special(g->b, ARG_SLOTS);
    gpu_special(g->b, ARG_STATE_STRIDE);
    gpu_count(g->b, COUNT_TOKENS);
    end(d, gpu_fixed(s->scan_blocks), gpu_fixed(1), 32 * s->scan_tiles * SLICES, ROWS * row_len(e * m->dt_rank)
        + ROWS * 2 * m->d_state * 4 + s->scan_tiles * SLICES * PART_LEN + ROWS * own * 4 + ROWS * e * 4
        + (routed + e) * own * 4, 0);
}

static void emit_mamba(Decoder *d)
{
    GpuModel *g = d->g;
    const MambaLayer *m = &d->shape->mamba;
    MambaShape s = mamba_shape(d);
    int64_t e = d->shape->n_experts, routed = e > 1 ? e : 0;
    Channels c = { .xh = gpu_buffer(g->b, "xh", 2 * ROWS * gpu_stride(m->d_inner)),
                   .xc = gpu_buffer(g->b, "xc", 4 * ROWS * m->d_inner),
                   .z = gpu_buffer(g->b, "z", 4 * ROWS * m->d_inner),
                   .gates = routed ? gpu_buffer(g->b, "gates", 4 * ROWS * e) : NULL,
                   .y = gpu_buffer(g->b, "y", 2 * ROWS * gpu_stride(m->d_inner)),
                   .xp = gpu_buffer(g->b, "xp", 4 * ROWS * e * (m->dt_rank + 2 * m->d_state)),
                   .ssm_logits = routed ? gpu_buffer(g->b, "ssm_logits", 4 * ROWS * e * s.in_blocks) : NULL,
                   .out_logits = routed ? gpu_buffer(g->b, "out_logits", 4 * ROWS * e * s.scan_blocks) : NULL };
    emit_in(d, &s, &c);
    emit_x(d, &s, &c);
    emit_scan(d, &s, &c);
    emit_out(d, &(Out){ .tensor = "out_proj.weight", .n_in = m->d_inner, .rows = c.y, .logits = c.out_logits,
        .n_parts = s.scan_blocks });
}

/* ---- attention ---- */

static int attention_warps(const AttentionLayer *a) { return a->head_dim <= 64 ? 16 : a->head_dim <= 128 ? 8 : 4; }

static void emit_qkv(Decoder *d, const Attended *to)
{
    enum { SLICES = 8 };
    GpuModel *g = d->g;
    const AttentionLayer *a = &d->shape->attention;
    int64_t n_in = g->plan->graph->d_model;
    int dtype = dtype_code(g, slot_of(d, "q_proj.weight")), group = group_of(n_in, dtype, SLICES, 4);
    int ring = smaller(up(2 * up(pairs_of(n_in, dtype), SLICES), group), 3);
    const char *key = arena_printf(g->arena, "%s head_dim=%lld rope=%d", gpu_key(g, "decode_qkv", n_in,
        (a->n_heads + 2 * a->n_kv_heads) * a->head_dim, 1, slot_of(d, "q_proj.weight")->dtype),
        (long long)a->head_dim, a->rope_theta != 0);
    int64_t others = ROUTE_LEN + ROWS * row_len(n_in) + SLICES * PART_LEN + 32;
    choose_ring(g, key, n_in, dtype, SLICES, SLICES, others, &group, &ring);
    gpu_begin(g->b, "decode_qkv", d->index);
    gpu_keyed(g->b, key);
    gpu_min_blocks(g->b, 1);
    gpu_param(g->b, "n_in", (double)n_in);
    gpu_param(g->b, "n_heads", (double)a->n_heads);
    gpu_param(g->b, "n_kv_heads", (double)a->n_kv_heads);
    gpu_param(g->b, "head_dim", (double)a->head_dim);
    gpu_param(g->b, "rope", a->rope_theta != 0);
    gpu_param(g->b, "window", (double)a->window);
    gpu_param(g->b, "weight_dtype", dtype);
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "n_parts", up(n_in, 8));
    product_params(g, SLICES, group, ring);
    gpu_param(g->b, "eps", g->plan->graph->norm_eps);
    gpu_scratch(g->b, to->q, 0, ACCESS_WRITE);
    state(d, "ring_k");
    state(d, "ring_v");
    gpu_scratch(g->b, d->x, 0, ACCESS_READ);
    gpu_scratch(g->b, d->sums, 0, ACCESS_READ);
    weight(d, "norm.weight");
    weight(d, "q_proj.weight");
    weight(d, "k_proj.weight");
    weight(d, "v_proj.weight");
    scales(g, slot_of(d, "q_proj.weight"), d->layer->weights_offset);
    scales(g, slot_of(d, "k_proj.weight"), d->layer->weights_offset);
    scales(g, slot_of(d, "v_proj.weight"), d->layer->weights_offset);
    if (a->rope_theta != 0)
        gpu_scratch(g->b, d->table, 0, ACCESS_READ);
    else
        gpu_null(g->b);
    gpu_special(g->b, ARG_POSITIONS);
    gpu_special(g->b, ARG_SLOTS);
    gpu_special(g->b, ARG_STATE_STRIDE);
    gpu_special(g->b, ARG_N_CONTEXT);
    gpu_count(g->b, COUNT_TOKENS);
    int per_head = a->rope_theta != 0 ? up(a->head_dim / 2, 4) : up(a->head_dim, 8);
    end(d, gpu_fixed((int)(a->n_heads + 2 * a->n_kv_heads) * per_head), gpu_fixed(1), 32 * SLICES,
        others + ring_len(SLICES, group, ring), 0);
}

static void emit_attention(Decoder *d, const Attended *to)
{
    GpuModel *g = d->g;
    const AttentionLayer *a = &d->shape->attention;
    int splits = attention_splits(d), warps = attention_warps(a), padded = up(a->head_dim, 32) * 32;
    int most = smaller((int)(a->n_heads / a->n_kv_heads), 16), staged = warps * 2 * 16 * (padded + 8) * 2;
    gpu_begin(g->b, "decode_attention", d->index);
    gpu_keyed(g->b, attention_key(d));
    gpu_param(g->b, "n_heads", (double)a->n_heads);
    gpu_param(g->b, "n_kv_heads", (double)a->n_kv_heads);
    gpu_param(g->b, "head_dim", (double)a->head_dim);
    gpu_param(g->b, "window", (double)a->window);
    gpu_param(g->b, "splits", splits);
    gpu_param(g->b, "act", g->act);
    gpu_scratch(g->b, to->sums, 0, ACCESS_WRITE);
    gpu_scratch(g->b, to->peaks, 0, ACCESS_WRITE);
    gpu_scratch(g->b, to->q, 0, ACCESS_READ);
    state(d, "ring_k");
    state(d, "ring_v");
    gpu_special(g->b, ARG_POSITIONS);
    gpu_special(g->b, ARG_SLOTS);
    gpu_special(g->b, ARG_STATE_STRIDE);
    gpu_special(g->b, ARG_N_CONTEXT);
    gpu_count(g->b, COUNT_TOKENS);
    end(d, gpu_fixed((int)a->n_kv_heads * up(a->n_heads / a->n_kv_heads, 16) * splits), gpu_extent(COUNT_TOKENS, 1, 0),
        32 * warps,
        larger(staged, 4 * warps * most * (padded + 2)), 0);
}

/* ---- mlp ---- */

static void emit_gated(Decoder *d, LaunchBuffer *h)
{
    enum { SLICES = 8, BLOCKS = 128, MOST_TILES = 16 };
    GpuModel *g = d->g;
    int64_t n_in = g->plan->graph->d_model, n_out = d->shape->mlp.d_ff, e = d->shape->n_experts;
    int dtype = dtype_code(g, slot_of(d, "gate_proj.weight")), tiles = smaller(larger(up(n_out, 4 * BLOCKS), 1), MOST_TILES);
    int group = group_of(n_in, dtype, SLICES, 4), ring = 2;
    const char *key = arena_printf(g->arena, "%s top_k=%lld", gpu_key(g, "decode_gated", n_in, n_out, e,
        slot_of(d, "gate_proj.weight")->dtype), (long long)d->top_k.most);
    tiles = smaller(gpu_choice(g, key, "tiles", tiles), MOST_TILES);
    int64_t others = ROUTE_LEN + ROWS * row_len(n_in) + tiles * SLICES * PART_LEN
        + (dtype == 3 ? e * 8 * tiles * 4 : 0);
    choose_ring(g, key, n_in, dtype, SLICES, WARPS, others, &group, &ring);
    gpu_begin(g->b, "decode_gated", d->index);
    gpu_keyed(g->b, key);
    gpu_min_blocks(g->b, 1);
    gpu_param(g->b, "n_in", (double)n_in);
    gpu_param(g->b, "n_out", (double)n_out);
    gpu_param(g->b, "n_experts", (double)e);
    gpu_param(g->b, "weight_dtype", dtype);
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "n_parts", up(n_in, 8));
    gpu_param(g->b, "tiles", tiles);
    product_params(g, SLICES, group, ring);
    gpu_param(g->b, "eps", g->plan->graph->norm_eps);
    gpu_scratch(g->b, h, 0, ACCESS_WRITE);
    gpu_scratch(g->b, d->x, 0, ACCESS_READ);
    gpu_scratch(g->b, d->sums, 0, ACCESS_READ);
    weight(d, "norm.weight");
    matrix(d, "gate_proj.weight");
    rows_and_top_k(d);
    end(d, gpu_fixed(up(n_out, 4 * tiles)), gpu_fixed(1), 32 * WARPS, others + ring_len(WARPS, group, ring), 0);
}

/* ---- both ends ---- */

static void emit_embed(Decoder *d)
{
    GpuModel *g = d->g;
    const BlockPlan *main = g->plan->main;
    const WeightSlot *slot = try_slot(main, "embed.weight");
    gpu_begin(g->b, "decode_embed", -1);
    gpu_param(g->b, "d_model", (double)g->plan->graph->d_model);
    gpu_param(g->b, "weight_dtype", dtype_code(g, slot));
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "next_experts", (double)d->after.n_experts);
    gpu_scratch(g->b, d->x, 0, ACCESS_WRITE);
    gpu_scratch(g->b, d->next, 0, ACCESS_WRITE);
    gpu_special(g->b, ARG_TOKENS);
    gpu_weights(g->b, slot->offset);
    scales(g, slot, 0);
    next_args(d);
    gpu_count(g->b, COUNT_TOKENS);
    end(d, gpu_fixed(up(g->plan->graph->d_model, 8)), gpu_fixed(1), 32 * WARPS,
        32 * (d->after.n_experts > 1 ? d->after.n_experts : 0), 0);
}

static void emit_table(Decoder *d, const AttentionLayer *a)
{
    GpuModel *g = d->g;
    d->table = gpu_buffer(g->b, "table", 4 * ROWS * a->head_dim);
    gpu_begin(g->b, "rope_table", d->index);
    gpu_param(g->b, "head_dim", (double)a->head_dim);
    gpu_param(g->b, "theta", a->rope_theta);
    gpu_param(g->b, "sequences", 1);
    gpu_scratch(g->b, d->table, 0, ACCESS_WRITE);
    gpu_special(g->b, ARG_POSITIONS);
    gpu_null(g->b);
    gpu_count(g->b, COUNT_SEQUENCES);
    gpu_count(g->b, COUNT_TOKENS);
    end(d, gpu_extent(COUNT_TOKENS, 1, 0), gpu_fixed(1), 128, 0, 0);
}

static void emit_head(Decoder *d)
{
    GpuModel *g = d->g;
    const Graph *graph = g->plan->graph;
    const WeightSlot *slot = try_slot(g->plan->main, graph->tie_embeddings ? "embed.weight" : "lm_head.weight");
    const WeightSlot *norm = try_slot(g->plan->main, "norm_f.weight");
    int dtype = dtype_code(g, slot), group = group_of(graph->d_model, dtype, 1, 4), ring = g->sm >= 90 ? 3 : 2;
    const char *key = gpu_key(g, "decode_head", graph->d_model, graph->vocab_size, 1, slot->dtype);
    int tiles = smaller(larger(up(up(graph->vocab_size, 8), g->sm >= 90 ? 131 : 108), 1), 64);
    tiles = smaller(gpu_choice(g, key, "tiles", tiles), 64);
    int64_t others = ROUTE_LEN + ROWS * row_len(graph->d_model) + tiles * PART_LEN + (dtype == 3 ? tiles * 32 : 0);
    choose_ring(g, key, graph->d_model, dtype, 1, WARPS, others, &group, &ring);
    int blocks = up(graph->vocab_size, 8 * tiles);
    g->n_best = blocks;
    g->best = gpu_zeroed(g->b, "best", 4 * ROWS * blocks);
    g->best_at = gpu_zeroed(g->b, "best_at", 4 * ROWS * blocks);
    gpu_begin(g->b, "decode_head", -1);
    gpu_keyed(g->b, key);
    gpu_min_blocks(g->b, 1);
    gpu_param(g->b, "n_in", (double)graph->d_model);
    gpu_param(g->b, "n_out", (double)graph->vocab_size);
    gpu_param(g->b, "weight_dtype", dtype);
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "n_parts", up(graph->d_model, 8));
    gpu_param(g->b, "tiles", tiles);
    product_params(g, 1, group, ring);
    gpu_param(g->b, "eps", graph->norm_eps);
    gpu_special(g->b, ARG_LOGITS);
    gpu_scratch(g->b, g->best, 0, ACCESS_UPDATE);
    gpu_scratch(g->b, g->best_at, 0, ACCESS_UPDATE);
    gpu_scratch(g->b, d->x, 0, ACCESS_READ);
    gpu_scratch(g->b, d->sums, 0, ACCESS_READ);
    gpu_weights(g->b, norm->offset);
    gpu_weights(g->b, slot->offset);
    scales(g, slot, 0);
    gpu_count(g->b, COUNT_LOGITS);
    end(d, gpu_fixed(blocks), gpu_fixed(1), 32 * WARPS, others + ring_len(WARPS, group, ring), LAUNCH_IF_LOGITS);
}

/* ---- the list ---- */

/* Norm and first router of a layer; after the last, the final norm. */
static Next next_of(const GpuModel *g, int index)
{
    const Plan *plan = g->plan;
    if (index == plan->graph->n_layers)
        return (Next){ try_slot(plan->main, "norm_f.weight")->offset, -1, 1 };
    const LayerPlan *layer = &plan->layers[index];
    const Layer *shape = &plan->graph->layers[index];
    const char *router = shape->kind == LAYER_MAMBA ? "in_router.weight" : "router.weight";
    Next next = { layer->weights_offset + try_slot(layer->block, "norm.weight")->offset, -1, 1 };
    if (shape->kind != LAYER_ATTENTION && shape->n_experts > 1) {
        next.router = layer->weights_offset + try_slot(layer->block, router)->offset;
        next.n_experts = shape->n_experts;
    }
    return next;
}

static void emit_attention_layer(Decoder *d)
{
    GpuModel *g = d->g;
    const AttentionLayer *a = &d->shape->attention;
    int64_t columns = a->n_heads * a->head_dim, parts = ROWS * a->n_heads * attention_splits(d);
    Attended attended = { gpu_buffer(g->b, "q", 2 * ROWS * gpu_stride(columns)),
                          gpu_buffer(g->b, "sums", 4 * parts * a->head_dim), gpu_buffer(g->b, "peaks", 8 * parts) };
    emit_qkv(d, &attended);
    emit_attention(d, &attended);
    emit_out(d, &(Out){ .tensor = "o_proj.weight", .n_in = columns, .attended = &attended, .n_parts = 1 });
}

static void emit_mlp(Decoder *d)
{
    int64_t d_ff = d->shape->mlp.d_ff;
    LaunchBuffer *h = gpu_buffer(d->g->b, "h", 2 * ROWS * d->top_k.most * gpu_stride(d_ff));
    emit_gated(d, h);
    emit_out(d, &(Out){ .tensor = "down_proj.weight", .n_in = d_ff, .rows = h, .logits = d->sums, .by_pair = true,
                        .n_parts = up(d->g->plan->graph->d_model, 8) });
}

static LaunchBuffer *new_sums(const GpuModel *g, int64_t n_experts)
{
    return gpu_buffer(g->b, "logits", 4 * ROWS * (n_experts + 1) * up(g->plan->graph->d_model, 8));
}

static void emit_layer(Decoder *d, int index)
{
    const Graph *graph = d->g->plan->graph;
    d->index = index;
    d->layer = &d->g->plan->layers[index];
    d->shape = &graph->layers[index];
    d->top_k = gpu_layer_top_k(d->g->plan, d->shape);
    d->after = next_of(d->g, index + 1);
    d->sums = d->next;
    d->next = new_sums(d->g, d->after.n_experts);
    switch (d->shape->kind) {
    case LAYER_MAMBA: emit_mamba(d); break;
    case LAYER_ATTENTION: emit_attention_layer(d); break;
    default: emit_mlp(d);
    }
}

/* A table of angles for every pair of head size and theta; layers of one pair share it. */
static void emit_tables(Decoder *d, LaunchBuffer **tables)
{
    const Graph *graph = d->g->plan->graph;
    for (int i = 0; i < graph->n_layers; i++) {
        const Layer *layer = &graph->layers[i];
        if (layer->kind != LAYER_ATTENTION || layer->attention.rope_theta == 0)
            continue;
        for (int j = 0; j < i && !tables[i]; j++)
            if (tables[j] && graph->layers[j].attention.head_dim == layer->attention.head_dim
                && graph->layers[j].attention.rope_theta == layer->attention.rope_theta)
                tables[i] = tables[j];
        if (!tables[i])
            emit_table(d, &layer->attention);
        tables[i] = tables[i] ? tables[i] : d->table;
    }
}

/* A layer, or several that one launch does for one sequence. Returns how many. */
static int emit_run(Decoder *d, int first)
{
    ChainRun run = { .first = first, .n = gpu_chain_len(d->g, first), .x = d->x, .parts = d->next };
    d->flags = run.n ? LAUNCH_IF_MORE : 0;
    for (int i = first; i < first + (run.n ? run.n : 1); i++)
        emit_layer(d, i);
    d->flags = 0;
    if (!run.n)
        return 1;
    run.next = d->next;
    run.next_norm = d->after.norm;
    run.next_router = d->after.router;
    run.next_experts = d->after.n_experts;
    gpu_chain(d->g, &run);
    return run.n;
}

static void emit_list(GpuModel *g)
{
    const Graph *graph = g->plan->graph;
    Decoder d = { .g = g, .index = -1, .top_k = { 1, 1 } };
    d.x = gpu_buffer(g->b, "x", 4 * ROWS * graph->d_model);
    LaunchBuffer **tables = arena_array(g->arena, LaunchBuffer *, (size_t)graph->n_layers + 1);
    d.after = next_of(g, 0);
    d.next = new_sums(g, d.after.n_experts);
    emit_tables(&d, tables);         /* first: a layer reads them before it waits for the launch before */
    d.index = -1;
    emit_embed(&d);
    for (int i = 0, n; i < graph->n_layers; i += n) {
        d.table = tables[i];
        n = emit_run(&d, i);
    }
    d.sums = d.next;
    emit_head(&d);
}

/* ---- what these kernels can serve ---- */

static bool serves_layer(const GpuModel *g, int index, int64_t most)
{
    const BlockPlan *block = g->plan->layers[index].block;
    const Layer *l = &g->plan->graph->layers[index];
    if (l->n_experts > MAX_EXPERTS)
        return false;
    if (l->kind == LAYER_MAMBA)
        return ROWS * (row_len(l->n_experts * l->mamba.dt_rank)
            + 8 * l->mamba.d_state + 16 * 4 * l->mamba.d_conv) <= most;
    if (l->kind != LAYER_ATTENTION)
        return true;
    DType q = try_slot(block, "q_proj.weight")->dtype;
    return q == try_slot(block, "k_proj.weight")->dtype && q == try_slot(block, "v_proj.weight")->dtype
        && l->attention.head_dim <= MAX_HEAD_DIM
            && ROWS * row_len(l->attention.n_heads * l->attention.head_dim) <= most;
}

/* Rows of 16 sequences lie in shared memory beside rings and sums. */
static bool serves(const GpuModel *g)
{
    int64_t most = (g->sm >= 90 ? 227 << 10 : 163 << 10) - (112 << 10);
    bool good = ROWS * row_len(g->plan->graph->d_model) <= most;
    for (int i = 0; i < g->plan->graph->n_layers; i++)
        good = good && serves_layer(g, i, most);
    return good;
}

void gpu_decode(GpuModel *g)
{
    if (serves(g))
        emit_list(g);
    else
        gpu_lower(g);
}
