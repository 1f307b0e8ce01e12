/* Decode: the projection that ends a layer, of any kind, with norm and router of the next one. */
#include "gpu_decode.h"

#include "../ir/text.h"

void decode_emit_out(Decoder *d, const Out *o)
{
    GpuModel *g = d->g;
    const WeightSlot *slot = decode_slot(d, o->tensor);
    int64_t n_out = g->plan->graph->d_model, e = slot->n_experts, n_next = d->after.n_experts > 1 ? d->after.n_experts
        : 0;
    bool routed = e > 1, by_pair = routed && o->by_pair;
    int dtype = decode_dtype(g, slot), group = decode_group(o->n_in, dtype, WARPS, by_pair ? 8 : 4);
    int ring = smaller(up(2 * up(decode_pairs(o->n_in, dtype), WARPS), group) * (routed ? 2 : 1), 2);
    const AttentionLayer *a = &d->shape->attention;
    const char *key = arena_printf(g->arena, "%s by_pair=%d attended=%d next_experts=%lld top_k=%lld",
                                   gpu_key(g, "decode_out", o->n_in, n_out, e, slot->dtype), by_pair,
                                   o->attended != NULL, (long long)d->after.n_experts, (long long)d->top_k.most);
    int64_t others = ROUTE_LEN + WARPS * PART_LEN + 8 * n_next * 4 + (dtype == 3 ? e * 32 : 0)
        + (o->attended ? ROWS * row_len(o->n_in) : 0);
    decode_choose_ring(g, key, o->n_in, dtype, WARPS, WARPS, others, &group, &ring);
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
    gpu_param(g->b, "splits", o->attended ? decode_attention_splits(d) : 0);
    gpu_param(g->b, "head_dim", o->attended ? (double)a->head_dim : 1);
    gpu_param(g->b, "next_experts", (double)d->after.n_experts);
    decode_product_params(g, WARPS, group, ring);
    gpu_param(g->b, "eps", g->plan->graph->norm_eps);
    gpu_scratch(g->b, d->x, 0, ACCESS_UPDATE);
    gpu_scratch(g->b, d->next, 0, ACCESS_WRITE);
    gpu_scratch(g->b, o->attended ? o->attended->sums : o->rows, 0, ACCESS_READ);
    gpu_buffer_or_null(g, o->attended ? o->attended->peaks : NULL, ACCESS_READ);
    gpu_buffer_or_null(g, routed ? o->logits : NULL, ACCESS_READ);
    decode_matrix(d, o->tensor);
    decode_next_args(d);
    decode_rows_and_top_k(d);
    decode_end(d, gpu_fixed(up(n_out, 8)), gpu_fixed(1), 32 * WARPS, others + ring_len(WARPS, group, ring), 0);
}
