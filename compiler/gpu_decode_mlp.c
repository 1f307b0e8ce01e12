/* Decode: the two launches of an mlp; the first routes by what the launch before left, the second by the same. */
#include "gpu_decode.h"

#include "../ir/text.h"

static void emit_gated(Decoder *d, LaunchBuffer *h)
{
    enum { SLICES = 8, BLOCKS = 128, MOST_TILES = 16 };
    GpuModel *g = d->g;
    int64_t n_in = g->plan->graph->d_model, n_out = d->shape->mlp.d_ff, e = d->shape->n_experts;
    int dtype = decode_dtype(g, decode_slot(d, "gate_proj.weight"));
    int tiles = smaller(larger(up(n_out, 4 * BLOCKS), 1), MOST_TILES);
    int group = decode_group(n_in, dtype, SLICES, 4), ring = 2;
    const char *key = arena_printf(g->arena, "%s top_k=%lld", gpu_key(g, "decode_gated", n_in, n_out, e,
        decode_slot(d, "gate_proj.weight")->dtype), (long long)d->top_k.most);
    tiles = smaller(gpu_choice(g, key, "tiles", tiles), MOST_TILES);
    int64_t others = ROUTE_LEN + ROWS * row_len(n_in) + tiles * SLICES * PART_LEN
        + (dtype == 3 ? e * 8 * tiles * 4 : 0);
    decode_choose_ring(g, key, n_in, dtype, SLICES, WARPS, others, &group, &ring);
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
    decode_product_params(g, SLICES, group, ring);
    gpu_param(g->b, "eps", g->plan->graph->norm_eps);
    gpu_scratch(g->b, h, 0, ACCESS_WRITE);
    gpu_scratch(g->b, d->x, 0, ACCESS_READ);
    gpu_scratch(g->b, d->sums, 0, ACCESS_READ);
    decode_weight(d, "norm.weight");
    decode_matrix(d, "gate_proj.weight");
    decode_rows_and_top_k(d);
    decode_end(d, gpu_fixed(up(n_out, 4 * tiles)), gpu_fixed(1), 32 * WARPS, others + ring_len(WARPS, group, ring), 0);
}

void decode_emit_mlp(Decoder *d)
{
    int64_t d_ff = d->shape->mlp.d_ff;
    LaunchBuffer *h = gpu_buffer(d->g->b, "h", 2 * ROWS * d->top_k.most * gpu_stride(d_ff));
    emit_gated(d, h);
    decode_emit_out(d, &(Out){ .tensor = "down_proj.weight", .n_in = d_ff, .rows = h, .logits = d->sums,
        .by_pair = true, .n_parts = up(d->g->plan->graph->d_model, 8) });
}
