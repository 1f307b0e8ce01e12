/* A run of mamba layers of one sequence: one launch of decode_chain.
 *
 * Input: a model on its way into the decode list, and layers of one shape that follow one another. Output: the launch,
 * which only calls of one sequence take (LAUNCH_IF_ONE), of as many blocks as there are panels or as the device holds
 * at once; where these are too few the launches of gpu_decode.c run. Layers' weights and states must lie at equal
 * distances. The model's choice `chain` says whether: 0 where that pays, 1 never, 2 always.
 */
#include "gpu_model.h"
#include "plan_model.h"

#include "../ir/kernel_key.h"
#include "../ir/text.h"

#include <string.h>

enum {
    OWN = 16, WARPS = 16, ROWS = 16, SLOT_LEN = 512, PART_LEN = 4 * 8 /* of a tile and slice */, THREADS = 512,
    MAX_EXPERTS = 32, MAX_STATE = 32, MAX_MODEL = 2048, MAX_PANELS = 2 /* of a block */,
    MAX_PARTS = 256 /* of a sum that a warp adds up: chain.h */,
    H100_BLOCKS = 132,                       /* multiprocessors */
    CHAIN_USUAL = 0, CHAIN_NEVER = 1, CHAIN_ALWAYS = 2,      /* choices */
    ROUTE_LEN = 4 * ROWS * (MAX_EXPERTS + 1) + 4 * MAX_EXPERTS * ROWS + 4 * ROWS,    /* DecodeRoute */
};

typedef struct {
    const LayerPlan *layer;
    const MambaLayer *m;
    int64_t d, e, routed, next_experts;
    int64_t panels, out_panels;              /* of 16 channels, of 8 columns of x */
    int dtype, dt_dtype, group, ring, out_group, out_ring, x_group, x_steps;
    int most, x_most, least_blocks;          /* of a block: panels, 8 columns of x_proj; what blocks these two need */
} Chain;

static int64_t up(int64_t n, int64_t m) { return (n + m - 1) / m; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int smaller(int64_t a, int64_t b) { return (int)(a < b ? a : b); }
static int64_t even(int64_t n) { return 2 * up(n, 2); }

static const StateSlot *state_slot(const BlockPlan *block, const char *name)
{
    for (int i = 0; i < block->n_states; i++)
        if (strcmp(block->states[i].name, name) == 0)
            return &block->states[i];
    BUG("@%s has no state %s", block->name, name);
}

/* ---- sizes ---- */

static int dtype_of(const GpuModel *g, const Chain *c, const char *tensor)
{
    return gpu_try_slot(c->layer->block, tensor)->dtype == DTYPE_Q8 ? 3 : g->act;
}

/* Chunks of 64 bytes, in pairs, that one of n slices of a row has. */
static int64_t slice_chunks(int64_t n_in, int dtype, int n_slices)
{
    return 2 * up(up(n_in, 64) * (dtype == 3 ? 1 : 2), 2 * n_slices);
}

/* Small numbers of a layer. */
static int64_t n_items(const Chain *c)
{
    int64_t panel = OWN * (2 * c->m->d_conv + 2 * c->routed + c->e + 1 + (c->dt_dtype == 3))
        + 8 * larger(c->routed, c->next_experts > 1 ? c->next_experts : 0) + (c->dtype == 3 ? 8 * 5 * c->e : 0);
    return c->most * panel + (c->dtype == 3 ? 8 * c->x_most : 0);
}

static int64_t row_len(int64_t n_in) { return 2 * (64 * up(n_in, 64) + 8); }

/* As chain_place of the kernel divides it. */
static int64_t shared_len(const Chain *c)
{
    int64_t rings = larger(c->group * c->ring, c->out_group * c->out_ring) + c->x_most * c->x_steps * c->x_group;
    int64_t floats = 64 * up(c->d, 64) + c->most * (2 * WARPS * c->m->d_state + 3 * OWN + 8)
        + c->e * even(c->m->dt_rank + 2 * c->m->d_state) + 2 * n_items(c);
    return ROUTE_LEN + row_len(c->d) + row_len(c->m->d_inner) + WARPS * SLOT_LEN * rings
        + c->most * OWN * 64 * up(c->e * c->m->dt_rank, 64) * (c->dt_dtype == 3 ? 1 : 2)
        + (c->most + c->x_most) * WARPS * PART_LEN + 4 * floats;
}

static Chain chain_of(const GpuModel *g, int first, int64_t next_experts)
{
    const Layer *l = &g->plan->graph->layers[first];
    Chain c = { .layer = &g->plan->layers[first], .m = &l->mamba, .d = g->plan->graph->d_model, .e = l->n_experts,
                .routed = l->n_experts > 1 ? l->n_experts : 0, .next_experts = next_experts };
    int64_t x_tiles = up(c.e * (c.m->dt_rank + 2 * c.m->d_state), 8);
    c.dtype = dtype_of(g, &c, "in_proj.weight");
    c.dt_dtype = dtype_of(g, &c, "dt_proj.weight");
    c.panels = larger(c.m->d_inner / OWN, 1);
    c.out_panels = c.d / 8;
    c.group = smaller(slice_chunks(c.d, c.dtype, 4), 4);
    c.ring = g->sm >= 90 && c.dtype != 3 ? 3 : 2;
    c.out_group = smaller(slice_chunks(c.m->d_inner, c.dtype, WARPS), 4);
    c.out_ring = 2;
    c.x_group = smaller(slice_chunks(c.m->d_inner, c.dtype, WARPS), 8);
    c.x_steps = (int)up(slice_chunks(c.m->d_inner, c.dtype, WARPS), c.x_group);
    c.x_most = (int)up(x_tiles, c.panels);
    c.most = MAX_PANELS;
    while (c.most > 1 && shared_len(&c) > gpu_shared_most(g))
        c.most--;
    c.least_blocks = (int)larger(up(c.panels, c.most), up(x_tiles, c.x_most));
    return c;
}

static int64_t n_words(const Chain *c)
{
    return c->m->d_inner + c->d + 2 * c->routed * c->panels + (c->routed + 1) * c->out_panels
        + c->e * even(c->m->dt_rank + 2 * c->m->d_state);
}

/* ---- what the kernel can serve ---- */

/* Scales where it looks for them: at the next multiple of 256 bytes behind the matrix. */
static bool good_scales(const Chain *c, const char *tensor, int64_t n_rows, int64_t n_in)
{
    const WeightSlot *slot = gpu_try_slot(c->layer->block, tensor);
    return slot->dtype != DTYPE_Q8 || slot->scales == 256 * up(n_rows * 64 * up(n_in, 64), 256);
}

static bool serves(const GpuModel *g, const Chain *c)
{
    const MambaLayer *m = c->m;
    int64_t each = m->dt_rank + 2 * m->d_state;
    return c->d % 16 == 0 && c->d <= MAX_MODEL && m->d_inner % (2 * OWN) == 0 && c->panels >= c->out_panels
        && (c->routed == 0 || c->panels <= MAX_PARTS)
        && 8 * c->x_most <= THREADS && m->dt_rank % 2 == 0 && m->d_state <= MAX_STATE && c->e <= MAX_EXPERTS
        && shared_len(c) <= gpu_shared_most(g)
        && dtype_of(g, c, "x_proj.weight") == c->dtype && dtype_of(g, c, "out_proj.weight") == c->dtype
        && good_scales(c, "in_proj.weight", 2 * c->e * m->d_inner, c->d)
        && good_scales(c, "x_proj.weight", c->e * each, m->d_inner)
        && good_scales(c, "dt_proj.weight", m->d_inner, c->e * m->dt_rank)
        && good_scales(c, "out_proj.weight", c->e * c->d, m->d_inner);
}

static int64_t stride(const GpuModel *g, int layer)
{
    return g->plan->layers[layer + 1].weights_offset - g->plan->layers[layer].weights_offset;
}
static int64_t kept_stride(const GpuModel *g, int layer)
{
    return g->plan->layers[layer + 1].state_offset - g->plan->layers[layer].state_offset;
}

/* The layer after `layer` is like it, and as far from it as the second of the run is from the first. */
static bool goes_on(const GpuModel *g, int first, int layer)
{
    const LayerPlan *layers = g->plan->layers;
    return layer + 1 < g->plan->graph->n_layers && layers[layer + 1].block == layers[first].block
        && stride(g, layer) == stride(g, first) && kept_stride(g, layer) == kept_stride(g, first)
        && stride(g, layer) % 16 == 0 && kept_stride(g, layer) % 16 == 0 && stride(g, layer) / 16 <= INT32_MAX;
}

/* Of more panels than the larger device has multiprocessors nothing is known. */
static bool pays(const GpuModel *g, const Chain *c)
{
    const int chosen = gpu_choice(g, KERNEL_KEY_MODEL, "chain", CHAIN_USUAL);
    if (chosen == CHAIN_NEVER || chosen == CHAIN_ALWAYS)
        return chosen == CHAIN_ALWAYS;
    return c->panels <= H100_BLOCKS;
}

int gpu_chain_len(const GpuModel *g, int first)
{
    int n = 1;
    if (g->plan->graph->layers[first].kind != LAYER_MAMBA)
        return 0;
    Chain c = chain_of(g, first, MAX_EXPERTS);           /* enough, whatever comes after */
    if (!pays(g, &c) || !serves(g, &c))
        return 0;
    while (goes_on(g, first, first + n - 1))
        n++;
    return n;
}

/* ---- the launch ---- */

static void weight(GpuModel *g, const Chain *c, const char *tensor)
{
    const WeightSlot *slot = gpu_try_slot(c->layer->block, tensor);
    gpu_weights_or_null(g, slot ? c->layer->weights_offset + slot->offset : -1);
}

static void params(GpuModel *g, const Chain *c)
{
    gpu_param(g->b, "d_model", (double)c->d);
    gpu_param(g->b, "n_channels", (double)c->m->d_inner);
    gpu_param(g->b, "d_conv", (double)c->m->d_conv);
    gpu_param(g->b, "d_state", (double)c->m->d_state);
    gpu_param(g->b, "dt_rank", (double)c->m->dt_rank);
    gpu_param(g->b, "n_experts", (double)c->e);
    gpu_param(g->b, "renormalize", g->plan->graph->renormalize);
    gpu_param(g->b, "zoh", g->plan->graph->discretization == DISCRETIZE_ZOH);
    gpu_param(g->b, "weight_dtype", c->dtype);
    gpu_param(g->b, "dt_dtype", c->dt_dtype);
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "next_experts", (double)c->next_experts);
    gpu_param(g->b, "group", c->group);
    gpu_param(g->b, "ring", c->ring);
    gpu_param(g->b, "out_group", c->out_group);
    gpu_param(g->b, "out_ring", c->out_ring);
    gpu_param(g->b, "x_group", c->x_group);
    gpu_param(g->b, "most", c->most);
    gpu_param(g->b, "x_most", c->x_most);
    gpu_param(g->b, "eps", g->plan->graph->norm_eps);
}

void gpu_chain(GpuModel *g, const ChainRun *run)
{
    static const char *const tensors[] = { "norm.weight", "in_router.weight", "in_proj.weight", "conv1d.weight",
        "conv1d.bias", "ssm_router.weight", "x_proj.weight", "dt_proj.weight", "dt_proj.bias", "A_log", "D",
        "out_router.weight", "out_proj.weight" };
    static const char *const states[] = { "conv_state", "scan_state" };
    Chain c = chain_of(g, run->first, run->next_experts);
    LaunchBuffer *words = gpu_zeroed(g->b, "words", 8 * n_words(&c)), *turns = gpu_zeroed(g->b, "turns", 4 * c.panels);
    gpu_begin(g->b, "decode_chain", run->first);
    gpu_min_blocks(g->b, 1);
    params(g, &c);
    gpu_scratch(g->b, run->x, 0, ACCESS_UPDATE);
    gpu_scratch(g->b, run->next, 0, ACCESS_WRITE);
    gpu_scratch(g->b, run->parts, 0, ACCESS_READ);
    gpu_scratch(g->b, words, 0, ACCESS_UPDATE);
    gpu_scratch(g->b, turns, 0, ACCESS_UPDATE);
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        weight(g, &c, tensors[i]);
    gpu_weights_or_null(g, run->next_norm);
    gpu_weights_or_null(g, run->next_router);
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        gpu_state(g->b, c.layer->state_offset + state_slot(c.layer->block, states[i])->offset, 0);
    gpu_special(g->b, ARG_SLOTS);
    gpu_special(g->b, ARG_STATE_STRIDE);
    gpu_int(g->b, run->n > 1 ? stride(g, run->first) / 16 : 0);
    gpu_int(g->b, run->n > 1 ? kept_stride(g, run->first) / 16 : 0);
    gpu_int(g->b, run->n);
    gpu_top_k(g, gpu_layer_top_k(g->plan, &g->plan->graph->layers[run->first]));
    gpu_end(g->b, gpu_resident(c.least_blocks, (int)c.panels), gpu_fixed(1), THREADS, (int)shared_len(&c),
            gpu_flags(g) | LAUNCH_COOPERATIVE | LAUNCH_IF_ONE);
}
