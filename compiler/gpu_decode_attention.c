/* Decode: the launches of an attention layer: queries, keys and values; attention over parts of the positions; the
 * projection that adds those parts up.
 */
#include "gpu_decode.h"

#include "../ir/text.h"

static const char *attention_key(const Decoder *d)
{
    const AttentionLayer *a = &d->shape->attention;
    return arena_printf(d->g->arena, "decode_attention n_heads=%lld n_kv_heads=%lld head_dim=%lld window=%lld act=%d",
                        (long long)a->n_heads, (long long)a->n_kv_heads, (long long)a->head_dim, (long long)a->window,
                        d->g->act);
}

int decode_attention_splits(const Decoder *d)
{
    int usual = d->shape->attention.window && d->shape->attention.window <= 4096 ? 8 : 32;
    int splits = gpu_choice(d->g, attention_key(d), "splits", usual);
    return splits >= 4 && splits <= 32 && splits % 4 == 0 ? splits : usual;
}

static int attention_warps(const AttentionLayer *a) { return a->head_dim <= 64 ? 16 : a->head_dim <= 128 ? 8 : 4; }

static void emit_qkv(Decoder *d, const Attended *to)
{
    enum { SLICES = 8 };
    GpuModel *g = d->g;
    const AttentionLayer *a = &d->shape->attention;
    int64_t n_in = g->plan->graph->d_model;
    int dtype = decode_dtype(g, decode_slot(d, "q_proj.weight")), group = decode_group(n_in, dtype, SLICES, 4);
    int ring = smaller(up(2 * up(decode_pairs(n_in, dtype), SLICES), group), 3);
    const char *key = arena_printf(g->arena, "%s head_dim=%lld rope=%d", gpu_key(g, "decode_qkv", n_in,
        (a->n_heads + 2 * a->n_kv_heads) * a->head_dim, 1, decode_slot(d, "q_proj.weight")->dtype),
        (long long)a->head_dim, a->rope_theta != 0);
    int64_t others = ROUTE_LEN + ROWS * row_len(n_in) + SLICES * PART_LEN + 32;
    decode_choose_ring(g, key, n_in, dtype, SLICES, SLICES, others, &group, &ring);
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
    decode_product_params(g, SLICES, group, ring);
    gpu_param(g->b, "eps", g->plan->graph->norm_eps);
    gpu_scratch(g->b, to->q, 0, ACCESS_WRITE);
    decode_state(d, "ring_k");
    decode_state(d, "ring_v");
    gpu_scratch(g->b, d->x, 0, ACCESS_READ);
    gpu_scratch(g->b, d->sums, 0, ACCESS_READ);
    decode_weight(d, "norm.weight");
    decode_weight(d, "q_proj.weight");
    decode_weight(d, "k_proj.weight");
    decode_weight(d, "v_proj.weight");
    decode_scales(g, decode_slot(d, "q_proj.weight"), d->layer->weights_offset);
    decode_scales(g, decode_slot(d, "k_proj.weight"), d->layer->weights_offset);
    decode_scales(g, decode_slot(d, "v_proj.weight"), d->layer->weights_offset);
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
    decode_end(d, gpu_fixed((int)(a->n_heads + 2 * a->n_kv_heads) * per_head), gpu_fixed(1), 32 * SLICES,
        others + ring_len(SLICES, group, ring), 0);
}

static void emit_attention(Decoder *d, const Attended *to)
{
    GpuModel *g = d->g;
    const AttentionLayer *a = &d->shape->attention;
    int splits = decode_attention_splits(d), warps = attention_warps(a), padded = up(a->head_dim, 32) * 32;
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
    decode_state(d, "ring_k");
    decode_state(d, "ring_v");
    gpu_special(g->b, ARG_POSITIONS);
    gpu_special(g->b, ARG_SLOTS);
    gpu_special(g->b, ARG_STATE_STRIDE);
    gpu_special(g->b, ARG_N_CONTEXT);
    gpu_count(g->b, COUNT_TOKENS);
    decode_end(d, gpu_fixed((int)a->n_kv_heads * up(a->n_heads / a->n_kv_heads, 16) * splits),
        gpu_extent(COUNT_TOKENS, 1, 0), 32 * warps, larger(staged, 4 * warps * most * (padded + 2)), 0);
}

void decode_emit_attention(Decoder *d)
{
    GpuModel *g = d->g;
    const AttentionLayer *a = &d->shape->attention;
    int64_t columns = a->n_heads * a->head_dim, parts = ROWS * a->n_heads * decode_attention_splits(d);
    Attended attended = { gpu_buffer(g->b, "q", 2 * ROWS * gpu_stride(columns)),
                          gpu_buffer(g->b, "sums", 4 * parts * a->head_dim), gpu_buffer(g->b, "peaks", 8 * parts) };
    emit_qkv(d, &attended);
    emit_attention(d, &attended);
    decode_emit_out(d, &(Out){ .tensor = "o_proj.weight", .n_in = columns, .attended = &attended, .n_parts = 1 });
}
