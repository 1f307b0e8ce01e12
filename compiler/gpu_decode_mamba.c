/* Decode: the four launches of a mamba layer.
 *
 * In: x and the parts of the router's logits that the launch before left. Out: the same of the next layer. Sizes follow
 * from the channels, or are chosen.
 */
#include "gpu_decode.h"

#include "../ir/text.h"

/* What the launches leave each other: xh is xc in 16 bits; gates and logits are NULL without routers. */
typedef struct { LaunchBuffer *xh, *xc, *z, *y, *xp, *gates, *ssm_logits, *out_logits; } Channels;

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
    int in = decode_dtype(d->g, decode_slot(d, "in_proj.weight"));
    int x = decode_dtype(d->g, decode_slot(d, "x_proj.weight"));
    MambaShape s = { .tiles = m->d_inner <= 1056 ? 1 : m->d_inner <= 2112 ? 2 : 4,
        .scan_tiles = m->d_inner <= 1056 ? 1 : 2 };
    const char *mode = arena_printf(d->g->arena, "top_k=%lld", (long long)d->top_k.most);
    s.in_key = arena_printf(d->g->arena, "%s %s", gpu_key(d->g, "decode_in", d->g->plan->graph->d_model, m->d_inner,
        d->shape->n_experts, decode_slot(d, "in_proj.weight")->dtype), mode);
    s.x_key = arena_printf(d->g->arena, "%s %s", gpu_key(d->g, "decode_x", m->d_inner, m->dt_rank + 2 * m->d_state,
        d->shape->n_experts, decode_slot(d, "x_proj.weight")->dtype), mode);
    s.scan_key = arena_printf(d->g->arena, "%s %s d_state=%lld", gpu_key(d->g, "decode_scan", m->dt_rank, m->d_inner,
        d->shape->n_experts, decode_slot(d, "dt_proj.weight")->dtype), mode, (long long)m->d_state);
    s.tiles = choose_tiles(d->g, s.in_key, s.tiles, WARPS / 2);
    s.scan_tiles = choose_tiles(d->g, s.scan_key, s.scan_tiles, 4);
    s.slices = WARPS / (2 * s.tiles);
    s.group = decode_group(d->g->plan->graph->d_model, in, s.slices, 4);
    s.ring = d->g->sm >= 90 && in != 3 ? 3 : 2;
    s.x_slices = smaller(larger(up(decode_pairs(m->d_inner, x), MAX_GROUP / 2), 1), WARPS);
    s.x_slices = larger(s.x_slices, smaller(decode_pairs(m->d_inner, x), WARPS / 2));
    s.x_slices = smaller(gpu_choice(d->g, s.x_key, "n_slices", s.x_slices), WARPS);
    s.x_group = decode_group(m->d_inner, x, s.x_slices, MAX_GROUP);
    s.in_blocks = up(m->d_inner, 8 * s.tiles);
    s.scan_blocks = up(m->d_inner, 8 * s.scan_tiles);
    return s;
}

static void emit_in(Decoder *d, const MambaShape *s, const Channels *to)
{
    GpuModel *g = d->g;
    const MambaLayer *m = &d->shape->mamba;
    int64_t n_in = g->plan->graph->d_model, e = d->shape->n_experts, routed = e > 1 ? e : 0;
    int dtype = decode_dtype(g, decode_slot(d, "in_proj.weight")), own = 8 * s->tiles, group = s->group, ring = s->ring;
    int64_t items = own * (m->d_conv + 1) + routed * own + ROWS * own * (m->d_conv - 1);
    int64_t others = ROUTE_LEN + ROWS * row_len(n_in) + 2 * s->tiles * s->slices * PART_LEN + ROWS * own * 4
        + (dtype == 3 ? e * 2 * own * 4 : 0) + items * 4;
    decode_choose_ring(g, s->in_key, n_in, dtype, s->slices, WARPS, others, &group, &ring);
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
    decode_product_params(g, s->slices, group, ring);
    gpu_param(g->b, "eps", g->plan->graph->norm_eps);
    gpu_scratch(g->b, to->xh, 0, ACCESS_WRITE);
    gpu_scratch(g->b, to->xc, 0, ACCESS_WRITE);
    gpu_scratch(g->b, to->z, 0, ACCESS_WRITE);
    gpu_buffer_or_null(g, to->ssm_logits, ACCESS_WRITE);
    gpu_scratch(g->b, d->x, 0, ACCESS_READ);
    gpu_scratch(g->b, d->sums, 0, ACCESS_READ);
    decode_weight(d, "norm.weight");
    decode_matrix(d, "in_proj.weight");
    decode_weight(d, "conv1d.weight");
    decode_weight(d, "conv1d.bias");
    decode_weight_or_null(d, "ssm_router.weight", routed);
    decode_state(d, "conv_state");
    gpu_special(g->b, ARG_SLOTS);
    gpu_special(g->b, ARG_STATE_STRIDE);
    decode_rows_and_top_k(d);
    decode_end(d, gpu_fixed(s->in_blocks), gpu_fixed(1), 32 * WARPS, others + ring_len(WARPS, group, ring), 0);
}

static void emit_x(Decoder *d, const MambaShape *s, const Channels *c)
{
    GpuModel *g = d->g;
    const MambaLayer *m = &d->shape->mamba;
    int dtype = decode_dtype(g, decode_slot(d, "x_proj.weight"));
    int64_t e = d->shape->n_experts, steps = up(2 * up(decode_pairs(m->d_inner, dtype), s->x_slices), s->x_group);
    int n_out = (int)(m->dt_rank + 2 * m->d_state), ring = smaller((int)steps, 2);
    gpu_begin(g->b, "decode_x", d->index);
    gpu_keyed(g->b, s->x_key);
    gpu_min_blocks(g->b, 2);
    gpu_param(g->b, "n_in", (double)m->d_inner);
    gpu_param(g->b, "n_out", n_out);
    gpu_param(g->b, "n_experts", (double)e);
    gpu_param(g->b, "renormalize", g->plan->graph->renormalize);
    gpu_param(g->b, "weight_dtype", dtype);
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "n_parts", s->in_blocks);
    decode_product_params(g, s->x_slices, s->x_group, ring);
    gpu_scratch(g->b, c->xp, 0, ACCESS_WRITE);
    gpu_buffer_or_null(g, c->gates, ACCESS_WRITE);
    gpu_scratch(g->b, c->xh, 0, ACCESS_READ);
    gpu_buffer_or_null(g, c->ssm_logits, ACCESS_READ);
    decode_matrix(d, "x_proj.weight");
    decode_rows_and_top_k(d);
    decode_end(d, gpu_fixed((int)e * up(n_out, 8) + (e > 1)), gpu_fixed(1), 32 * s->x_slices,
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
    gpu_param(g->b, "weight_dtype", decode_dtype(g, decode_slot(d, "dt_proj.weight")));
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "tiles", s->scan_tiles);
    gpu_param(g->b, "n_slices", SLICES);
    gpu_scratch(g->b, c->y, 0, ACCESS_WRITE);
    gpu_buffer_or_null(g, c->out_logits, ACCESS_WRITE);
    gpu_scratch(g->b, c->xp, 0, ACCESS_READ);
    gpu_buffer_or_null(g, c->gates, ACCESS_READ);
    gpu_scratch(g->b, c->xc, 0, ACCESS_READ);
    gpu_scratch(g->b, c->z, 0, ACCESS_READ);
    decode_matrix(d, "dt_proj.weight");
    decode_weight(d, "dt_proj.bias");
    decode_weight(d, "A_log");
    decode_weight(d, "D");
    decode_weight_or_null(d, "out_router.weight", routed);
    decode_state(d, "scan_state");
    gpu_special(g->b, ARG_SLOTS);
    gpu_special(g->b, ARG_STATE_STRIDE);
    gpu_count(g->b, COUNT_TOKENS);
    decode_end(d, gpu_fixed(s->scan_blocks), gpu_fixed(1), 32 * s->scan_tiles * SLICES, ROWS * row_len(e * m->dt_rank)
        + ROWS * 2 * m->d_state * 4 + s->scan_tiles * SLICES * PART_LEN + ROWS * own * 4 + ROWS * e * 4
        + (routed + e) * own * 4, 0);
}

void decode_emit_mamba(Decoder *d)
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
    decode_emit_out(d, &(Out){ .tensor = "out_proj.weight", .n_in = m->d_inner, .rows = c.y, .logits = c.out_logits,
        .n_parts = s.scan_blocks });
}
