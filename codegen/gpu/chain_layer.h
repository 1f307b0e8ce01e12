/* A block of decode_chain: its panels, its shared memory, and what a layer needs of it besides streamed weights.
 *
 * A panel is 16 channels and 8 columns of x. Small numbers of a layer (taps, states, routers, biases, scales) are
 * copied to shared memory while others are waited for in the layer before. Sizes are constants of an instance: set in
 * a Chain they are known to the compiler wherever it goes.
 */
#ifndef MOSSC_CODEGEN_GPU_CHAIN_LAYER_H
#define MOSSC_CODEGEN_GPU_CHAIN_LAYER_H

#include "chain.h"

enum { CHAIN_WARPS = 16, CHAIN_THREADS = 512, CHAIN_OWN = 16, CHAIN_TILES = 4 /* of in_proj, a panel */,
    CHAIN_SLICES = 4 };

/* The tensors of the run's first layer; those of layer i lie i strides further. Scales follow their matrix. */
typedef struct {
    const uint8_t *norm, *in_router, *in, *conv, *conv_bias, *ssm_router, *x, *dt, *dt_bias, *a, *d, *out_router, *out;
    const uint8_t *next_norm, *next_router;            /* of the layer after the run */
    uint8_t *conv_state, *scan_state;                  /* in the sequence's slot */
    int64_t stride, kept_stride;                       /* bytes from layer to layer: weights, states */
} ChainTensors;

typedef struct {
    DecodeRoute *route;
    act_t *xs, *rows;          /* the normalised input; x_c, then y: each warp its slice */
    uint8_t *ring, *x_ring, *dt;   /* a warp's own rings */
    float *norm /* its weights */, *kept /* [panel][a, state][16][d_state] */, *sums, *x_sums;
    float *own_x, *own_z, *own_y /* [panel][16] */, *own_columns /* of x, [panel][8] */;
    float *items /* of two layers */, *xp;
    uint64_t *words;
    ChainTensors of;
    int d_model, n_channels, d_conv, d_state, dt_rank, n_experts, next_experts, weight_dtype, dt_dtype;
    int most, x_most;          /* of a block: panels, 8 columns of x_proj */
    int ring_len, x_ring_len;  /* bytes, of a warp */
    int n_own, n_own_out;      /* panels of the block: of channels, of columns */
    int top_k, n_layers;
} Chain;

/* ---- what follows from the sizes ---- */

DEVICE int chain_routed(const Chain *c) { return c->n_experts > 1 ? c->n_experts : 0; }
DEVICE int chain_q8(const Chain *c) { return c->weight_dtype == 3; }
DEVICE int chain_panels(const Chain *c) { return c->n_channels / CHAIN_OWN; }
DEVICE int chain_out_panels(const Chain *c) { return c->d_model / 8; }
DEVICE int chain_each(const Chain *c) { return c->dt_rank + 2 * c->d_state; }      /* columns of x_proj */
DEVICE int chain_k_len(int n) { return (n + 63) / 64 * 64; }

/* Places in a panel's small numbers (floats) of a layer, in rows of 16. */
DEVICE int chain_at_conv_bias(const Chain *c) { return CHAIN_OWN * c->d_conv; }
DEVICE int chain_at_state(const Chain *c) { return chain_at_conv_bias(c) + CHAIN_OWN; }
DEVICE int chain_at_ssm(const Chain *c) { return chain_at_state(c) + CHAIN_OWN * (c->d_conv - 1); }
DEVICE int chain_at_router(const Chain *c) { return chain_at_ssm(c) + CHAIN_OWN * chain_routed(c); }
DEVICE int chain_at_bias(const Chain *c) { return chain_at_router(c) + CHAIN_OWN * chain_routed(c); }
DEVICE int chain_at_d(const Chain *c) { return chain_at_bias(c) + CHAIN_OWN * c->n_experts; }
DEVICE int chain_at_dt_scales(const Chain *c) { return chain_at_d(c) + CHAIN_OWN; }
DEVICE int chain_own_len(const Chain *c) { return chain_at_dt_scales(c) + (c->dt_dtype == 3 ? CHAIN_OWN : 0); }
/* Behind them, scales: [expert][tile][8] of in_proj, [expert][8] of out_proj. Those of all panels lie together, each 8
 * beside the other panels' 8. */
DEVICE int chain_at_out_scales(const Chain *c)
{
    return chain_own_len(c) + (chain_q8(c) ? 8 * CHAIN_TILES * c->n_experts : 0);
}
DEVICE int chain_panel_len(const Chain *c) { return chain_at_out_scales(c) + (chain_q8(c) ? 8 * c->n_experts : 0); }
DEVICE int chain_place_of(const Chain *c, int q, int i)        /* of item i of the block's panel q */
{
    const int scale = i - chain_own_len(c);
    return scale < 0 ? q * chain_own_len(c) + i
        : c->most * chain_own_len(c) + scale / 8 * 8 * c->most + 8 * q + scale % 8;
}
/* Behind those of all panels: scales of the block's tiles of x_proj; what x's columns are to the next router. */
DEVICE int chain_at_x_scales(const Chain *c) { return c->most * chain_panel_len(c); }
DEVICE int chain_at_leave(const Chain *c) { return chain_at_x_scales(c) + (chain_q8(c) ? 8 * c->x_most : 0); }
DEVICE int chain_leave_len(const Chain *c)                     /* of a panel */
{
    return 8 * max_i(chain_routed(c), c->next_experts > 1 ? c->next_experts : 0);
}
DEVICE int chain_n_items(const Chain *c) { return chain_at_leave(c) + c->most * chain_leave_len(c); }

/* Words that blocks exchange. */
DEVICE int chain_at_y(const Chain *c) { return c->n_channels / 2; }
DEVICE int chain_at_x(const Chain *c) { return chain_at_y(c) + c->n_channels / 2; }
DEVICE int chain_at_ssm_parts(const Chain *c) { return chain_at_x(c) + c->d_model; }
DEVICE int chain_at_out_parts(const Chain *c) { return chain_at_ssm_parts(c) + chain_routed(c) * chain_panels(c); }
DEVICE int chain_at_sums(const Chain *c) { return chain_at_out_parts(c) + chain_routed(c) * chain_panels(c); }
DEVICE int chain_at_xp(const Chain *c) { return chain_at_sums(c) + (chain_routed(c) + 1) * chain_out_panels(c); }
DEVICE int chain_xp_stride(const Chain *c) { return (chain_each(c) + 1) / 2 * 2; }

/* ---- where things are ---- */

DEVICE void chain_place(Chain *c)
{
    uint8_t *at = shared();
    c->route = (DecodeRoute *)at;
    at += sizeof(DecodeRoute);
    c->xs = (act_t *)at;
    at += 2 * (chain_k_len(c->d_model) + 8);
    c->rows = (act_t *)at;
    at += 2 * (chain_k_len(c->n_channels) + 8);
    c->ring = at + warp() * c->ring_len;
    at += CHAIN_WARPS * c->ring_len;
    c->x_ring = at + warp() * c->x_ring_len;
    at += CHAIN_WARPS * c->x_ring_len;
    c->dt = at;
    at += c->most * CHAIN_OWN * decode_row_len(c->n_experts * c->dt_rank, c->dt_dtype);
    c->norm = (float *)at;
    c->kept = c->norm + chain_k_len(c->d_model);
    c->sums = c->kept + c->most * 2 * CHAIN_WARPS * c->d_state;
    c->x_sums = c->sums + c->most * CHAIN_WARPS * 8;
    c->own_x = c->x_sums + c->x_most * CHAIN_WARPS * 8;
    c->own_z = c->own_x + c->most * CHAIN_OWN;
    c->own_y = c->own_z + c->most * CHAIN_OWN;
    c->own_columns = c->own_y + c->most * CHAIN_OWN;
    c->items = c->own_columns + c->most * 8;
    c->xp = c->items + 2 * chain_n_items(c);
}

/* The block's panel q; how many of the first n_panels it has. */
DEVICE int chain_panel(int q) { return block_x() + q * n_blocks_x(); }
DEVICE int chain_n_own(const Chain *c, int n_panels)
{
    int n = 0;
    UNROLL for (int q = 0; q < c->most; q++)
        n += chain_panel(q) < n_panels;
    return chain_anew(n);
}
/* The first row of the block's tile i of x_proj. Such tiles come first to blocks that have few panels. */
DEVICE int chain_x_row(int i) { return 8 * (n_blocks_x() - 1 - chain_anew(block_x()) + i * n_blocks_x()); }
/* How many tiles' row r the block has. */
DEVICE int chain_x_count(const Chain *c, int r)
{
    int n = 0;
    UNROLL for (int i = 0; i < c->x_most; i++)
        n += chain_x_row(i) + r < c->n_experts * chain_each(c);
    return n;
}

DEVICE float *chain_items(const Chain *c, int layer) { return c->items + layer % 2 * chain_n_items(c); }
DEVICE const float *chain_own_items(const Chain *c, int layer, int q)
{
    return chain_items(c, layer) + q * chain_own_len(c);
}
/* Scales of the block's tiles of a product, from item i of its first panel on; NULL: the weights have none. */
DEVICE const float *chain_own_scales(const Chain *c, int layer, int i)
{
    return chain_q8(c) ? chain_items(c, layer) + chain_place_of(c, 0, i) : NULL;
}
DEVICE const float *chain_floats(const Chain *c, const uint8_t *first, int layer)
{
    return (const float *)(first + layer * c->of.stride);
}
DEVICE float *chain_kept(const Chain *c, uint8_t *first, int layer)
{
    return (float *)(first + layer * c->of.kept_stride);
}
/* Of a matrix with so many rows. */
DEVICE const float *chain_scales(const Chain *c, const uint8_t *first, int n_rows, const int n_in, int layer)
{
    const int64_t len = (int64_t)n_rows * decode_row_len(n_in, 3);
    return chain_floats(c, first + (len + 255) / 256 * 256, layer);
}

/* Experts of the router after a layer, 0: none. */
DEVICE int chain_n_next(const Chain *c, int layer)
{
    return layer + 1 < c->n_layers ? chain_routed(c) : c->next_experts > 1 ? c->next_experts : 0;
}

/* Where items i to i + 3 of a panel of a layer come from; a and the state of its channels follow them. */
DEVICE const float *chain_item(const Chain *c, int layer, int panel, int i)
{
    const int c0 = panel * CHAIN_OWN, column0 = min_i(panel * 8, c->d_model - 8);
    if (i < chain_at_conv_bias(c))
        return chain_floats(c, c->of.conv, layer) + c0 * c->d_conv + i;
    if (i < chain_at_state(c))
        return chain_floats(c, c->of.conv_bias, layer) + c0 + i - chain_at_conv_bias(c);
    if (i < chain_at_d(c)) {             /* rows of all channels: the state, two routers and the bias */
        const int j = i < chain_at_ssm(c) ? i - chain_at_state(c) : i < chain_at_router(c) ? i - chain_at_ssm(c)
            : i < chain_at_bias(c) ? i - chain_at_router(c) : i - chain_at_bias(c);
        const float *from = i < chain_at_ssm(c) ? chain_kept(c, c->of.conv_state, layer)
            : chain_floats(c, i < chain_at_router(c) ? c->of.ssm_router : i < chain_at_bias(c) ? c->of.out_router
            : c->of.dt_bias, layer);
        return from + j / CHAIN_OWN * c->n_channels + c0 + j % CHAIN_OWN;
    }
    if (i < chain_at_dt_scales(c))
        return chain_floats(c, c->of.d, layer) + c0 + i - chain_at_d(c);
    if (i < chain_own_len(c)) {
        const int j = i - chain_at_dt_scales(c);
        return chain_scales(c, c->of.dt, c->n_channels, c->n_experts * c->dt_rank, layer) + c0 + j;
    }
    if (i < chain_at_out_scales(c)) {    /* tiles: two of x', two of z */
        const int j = i - chain_own_len(c);
        const float *scales = chain_scales(c, c->of.in, 2 * c->n_experts * c->n_channels, c->d_model, layer);
        return scales + j / CHAIN_OWN * c->n_channels + c0 + j % CHAIN_OWN;
    }
    if (i < chain_panel_len(c)) {
        const int j = i - chain_at_out_scales(c);
        const float *scales = chain_scales(c, c->of.out, c->n_experts * c->d_model, c->n_channels, layer);
        return scales + j / 8 * c->d_model + column0 + j % 8;
    }
    const int j = i - chain_panel_len(c), len = CHAIN_OWN * c->d_state;
    return (j < len ? chain_floats(c, c->of.a, layer) : chain_kept(c, c->of.scan_state, layer)) + c0 * c->d_state
        + (j < len ? j : j - len);
}

/* What a column of x is to the next router, the thread's of all that the block has; 0: none. */
DEVICE float chain_leave_item(const Chain *c, int layer)
{
    const int last = layer + 1 == c->n_layers, n_next = chain_n_next(c, layer), len = max_i(chain_leave_len(c), 1);
    const int q = chain_anew(thread_x()) / len, i = chain_anew(thread_x()) % len;
    const int column0 = (chain_anew(block_x()) + q * n_blocks_x()) * 8;
    const float *router = last ? (const float *)c->of.next_router : chain_floats(c, c->of.in_router, layer + 1);
    const float *norm = last ? (const float *)c->of.next_norm : chain_floats(c, c->of.norm, layer + 1);
    return q < c->most && column0 < c->d_model && i < 8 * n_next
        ? decode_leave_item(i, router, norm, n_next, c->d_model, column0) : 0.0f;
}
DEVICE void chain_keep_leave(const Chain *c, float item, int layer)
{
    if (thread_x() < c->most * chain_leave_len(c))
        chain_items(c, layer)[chain_at_leave(c) + thread_x()] = item;
}

/* Begins to copy the small numbers of a layer, as one group. Returns the thread's chain_leave_item. */
DEVICE float chain_fetch(const Chain *c, int layer)
{
    const int thread = chain_anew(thread_x()), block = chain_anew(block_x()), n = c->n_own;
    const int len = chain_panel_len(c) + 2 * CHAIN_OWN * c->d_state;
    float *items = chain_items(c, layer);
    const float leave = chain_leave_item(c, layer), *norm = chain_floats(c, c->of.norm, layer);
    for (int i = 4 * thread; i < n * len; i += 4 * CHAIN_THREADS) {
        const int q = i / len, j = i - q * len;
        copy_async16(j < chain_panel_len(c) ? items + chain_place_of(c, q, j)
            : c->kept + q * 2 * CHAIN_OWN * c->d_state + j - chain_panel_len(c),
            chain_item(c, layer, block + q * n_blocks_x(), j), 16);
    }
    const int k = 4 * ((thread + CHAIN_THREADS / 2) % CHAIN_THREADS);        /* by other warps */
    if (k < chain_k_len(c->d_model))
        copy_async16(c->norm + k, norm + min_i(k, c->d_model - 4), k < c->d_model ? 16 : 0);
    if (chain_q8(c) && thread < 2 * chain_x_count(c, 0)) {
        const int row = chain_x_row(thread / 2) + thread % 2 * 4, n_rows = c->n_experts * chain_each(c);
        copy_async16(items + chain_at_x_scales(c) + 4 * thread,
            chain_scales(c, c->of.x, n_rows, c->n_channels, layer) + min_i(row, n_rows - 1) / 4 * 4,
            4 * max_i(min_i(n_rows - row, 4), 0));
    }
    copy_commit();
    return leave;
}

/* Where a lane's a (i 0) or state (1) of panel q is kept. */
DEVICE float *chain_kept_at(const Chain *c, int q, int i)
{
    return c->kept + ((2 * q + i) * CHAIN_OWN + warp()) * c->d_state + lane();
}

/* ---- results of a panel ---- */

/* By a warp: column lane % 8 of a product of 16 slices. */
DEVICE float chain_fold(const float *parts /* [16][8] */)
{
    float sum = 0;
    UNROLL for (int s = 0; s < CHAIN_WARPS / 4; s++)
        sum += parts[32 * s + lane()];
    sum += shuffle_xor_f(sum, 8);
    return sum + shuffle_xor_f(sum, 16);
}

/* By a warp, to all: a panel's part of the logits of 8 experts from n0 on, four lanes each. */
DEVICE void chain_tell_logits(const Chain *c, uint64_t *parts, const float *own /* [16] */,
    const float *router /* [n_experts][16] */, int n0, int panel, uint32_t turn)
{
    const int n = n0 + lane() / 4, t = lane() % 4;
    float logit = 0;
    if (n < c->n_experts)
        UNROLL for (int j = 0; j < CHAIN_OWN / 4; j++)
            logit += own[4 * j + t] * router[n * CHAIN_OWN + 4 * j + t];
    logit += shuffle_xor_f(logit, 1);
    logit += shuffle_xor_f(logit, 2);
    if (n < c->n_experts && t == 0)
        chain_tell(parts + n * chain_panels(c) + panel, float_bits(logit), turn);
}

#endif
