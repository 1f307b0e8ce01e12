/* What all lowering for GPUs says: rows in scratch, experts per token, slots of weights. */
#include "gpu_model.h"

#include "../ir/text.h"

#include <string.h>

TopK gpu_layer_top_k(const Plan *plan, const Layer *layer)
{
    const Graph *graph = plan->graph;
    TopK out = { .fixed = layer->top_k[0], .most = layer->top_k[0] };
    bool own = false, modes = true;      /* modes: it is what the user calls the mode */
    for (int m = 0; m < graph->n_modes; m++) {
        own |= layer->top_k[m] != layer->top_k[0];
        modes &= layer->top_k[m] == graph->mode_top_k[m];
        out.most = layer->top_k[m] > out.most ? layer->top_k[m] : out.most;
    }
    if (own && !modes)
        BUG("a layer's experts per token are neither fixed nor the mode's");
    out.fixed = modes && graph->n_modes > 1 ? 0 : out.fixed;
    return out;
}

void gpu_top_k(GpuModel *g, TopK top_k)
{
    if (top_k.fixed)
        gpu_int(g->b, top_k.fixed);
    else
        gpu_count(g->b, COUNT_TOP_K);
}

int64_t gpu_most_pairs(const GpuModel *g, TopK top_k) { return g->n_rows * top_k.most; }

void gpu_rows(GpuModel *g, const Rows *rows, LaunchAccess access)
{
    gpu_scratch(g->b, rows->buffer, rows->column * rows->element_len, access);
}

void gpu_buffer_or_null(GpuModel *g, const LaunchBuffer *buffer, LaunchAccess access)
{
    if (buffer)
        gpu_scratch(g->b, buffer, 0, access);
    else
        gpu_null(g->b);
}

void gpu_weights_or_null(GpuModel *g, int64_t offset)
{
    if (offset >= 0)
        gpu_weights(g->b, offset);
    else
        gpu_null(g->b);
}

static Rows new_rows(GpuModel *g, const char *name, int64_t n_rows, int64_t n_columns, int element_len)
{
    int64_t stride = gpu_stride(n_columns);
    return (Rows){ .buffer = gpu_buffer(g->b, name, n_rows * stride * element_len), .stride = stride,
                   .element_len = element_len };
}

Rows gpu_new_rows(GpuModel *g, const char *name, int64_t n_columns, int element_len)
{
    return new_rows(g, name, g->n_rows, n_columns, element_len);
}

Rows gpu_new_pairs(GpuModel *g, const char *name, int64_t n_columns, int element_len, TopK top_k)
{
    Rows rows = new_rows(g, name, gpu_most_pairs(g, top_k), n_columns, element_len);
    rows.top_k = top_k;
    return rows;
}

const char *gpu_key(const GpuModel *g, const char *template, int64_t n_in, int64_t n_out, int64_t n_experts,
                    DType dtype)
{
    return arena_printf(g->arena, "%s n_in=%lld n_out=%lld n_experts=%lld dtype=%s act=%d", template, (long long)n_in,
                        (long long)n_out, (long long)n_experts, dtype_info(dtype)->text, g->act);
}

int gpu_choice(const GpuModel *g, const char *key, const char *name, int absent)
{
    int64_t value = choices_get(g->choices, key, name, absent);
    return value > 0 && value <= 1 << 20 ? (int)value : absent;
}

int gpu_flags(const GpuModel *g) { return g->sm >= 90 ? LAUNCH_DEPENDENT : 0; }

const WeightSlot *gpu_slot(const BlockPlan *block, const Value *weight)
{
    for (int i = 0; i < block->n_weights; i++)
        if (block->weights[i].offset == weight->buffer->offset)
            return &block->weights[i];
    BUG("weight %s has no slot", weight->name);
}
