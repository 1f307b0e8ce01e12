/* Decode: what comes before the first layer, rows of the embedding and tables of angles, and after the last, logits. */
#include "gpu_decode.h"

void decode_emit_embed(Decoder *d)
{
    GpuModel *g = d->g;
    const BlockPlan *main = g->plan->main;
    const WeightSlot *slot = gpu_try_slot(main, "embed.weight");
    gpu_begin(g->b, "decode_embed", -1);
    gpu_param(g->b, "d_model", (double)g->plan->graph->d_model);
    gpu_param(g->b, "weight_dtype", decode_dtype(g, slot));
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "next_experts", (double)d->after.n_experts);
    gpu_scratch(g->b, d->x, 0, ACCESS_WRITE);
    gpu_scratch(g->b, d->next, 0, ACCESS_WRITE);
    gpu_special(g->b, ARG_TOKENS);
    gpu_weights(g->b, slot->offset);
    decode_scales(g, slot, 0);
    decode_next_args(d);
    gpu_count(g->b, COUNT_TOKENS);
    decode_end(d, gpu_fixed(up(g->plan->graph->d_model, 8)), gpu_fixed(1), 32 * WARPS,
        32 * (d->after.n_experts > 1 ? d->after.n_experts : 0), 0);
}

void decode_emit_table(Decoder *d, const AttentionLayer *a)
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
    decode_end(d, gpu_extent(COUNT_TOKENS, 1, 0), gpu_fixed(1), 128, 0, 0);
}

void decode_emit_head(Decoder *d)
{
    GpuModel *g = d->g;
    const Graph *graph = g->plan->graph;
    const WeightSlot *slot = gpu_try_slot(g->plan->main, graph->tie_embeddings ? "embed.weight" : "lm_head.weight");
    const WeightSlot *norm = gpu_try_slot(g->plan->main, "norm_f.weight");
    int dtype = decode_dtype(g, slot), group = decode_group(graph->d_model, dtype, 1, 4), ring = g->sm >= 90 ? 3 : 2;
    const char *key = gpu_key(g, "decode_head", graph->d_model, graph->vocab_size, 1, slot->dtype);
    int tiles = smaller(larger(up(up(graph->vocab_size, 8), g->sm >= 90 ? 131 : 108), 1), 64);
    tiles = smaller(gpu_choice(g, key, "tiles", tiles), 64);
    int64_t others = ROUTE_LEN + ROWS * row_len(graph->d_model) + tiles * PART_LEN + (dtype == 3 ? tiles * 32 : 0);
    decode_choose_ring(g, key, graph->d_model, dtype, 1, WARPS, others, &group, &ring);
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
    decode_product_params(g, 1, group, ring);
    gpu_param(g->b, "eps", graph->norm_eps);
    gpu_special(g->b, ARG_LOGITS);
    gpu_scratch(g->b, g->best, 0, ACCESS_UPDATE);
    gpu_scratch(g->b, g->best_at, 0, ACCESS_UPDATE);
    gpu_scratch(g->b, d->x, 0, ACCESS_READ);
    gpu_scratch(g->b, d->sums, 0, ACCESS_READ);
    gpu_weights(g->b, norm->offset);
    gpu_weights(g->b, slot->offset);
    decode_scales(g, slot, 0);
    gpu_count(g->b, COUNT_LOGITS);
    decode_end(d, gpu_fixed(blocks), gpu_fixed(1), 32 * WARPS, others + ring_len(WARPS, group, ring), LAUNCH_IF_LOGITS);
}
