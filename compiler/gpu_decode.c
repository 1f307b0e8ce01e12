/* The decode list: one token of each of up to 16 sequences, a few launches a layer.
 *
 * Input and output as in gpu_lower.c. Kernels are the decode ones of codegen/gpu/README.md: four launches a mamba
 * layer, three an attention, two an mlp; norms and routers ride on the launch before. A run of mamba layers of one
 * sequence may be a single launch (gpu_chain.c). A model that these kernels cannot serve (more than 32 experts, rows
 * too long for shared memory) goes the way of prefill.
 */
#include "gpu_decode.h"

/* Norm and first router of a layer; after the last, the final norm. */
static Next next_of(const GpuModel *g, int index)
{
    const Plan *plan = g->plan;
    if (index == plan->graph->n_layers)
        return (Next){ gpu_try_slot(plan->main, "norm_f.weight")->offset, -1, 1 };
    const LayerPlan *layer = &plan->layers[index];
    const Layer *shape = &plan->graph->layers[index];
    const char *router = shape->kind == LAYER_MAMBA ? "in_router.weight" : "router.weight";
    Next next = { layer->weights_offset + gpu_try_slot(layer->block, "norm.weight")->offset, -1, 1 };
    if (shape->kind != LAYER_ATTENTION && shape->n_experts > 1) {
        next.router = layer->weights_offset + gpu_try_slot(layer->block, router)->offset;
        next.n_experts = shape->n_experts;
    }
    return next;
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
    case LAYER_MAMBA: decode_emit_mamba(d); break;
    case LAYER_ATTENTION: decode_emit_attention(d); break;
    default: decode_emit_mlp(d);
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
            decode_emit_table(d, &layer->attention);
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
    decode_emit_embed(&d);
    for (int i = 0, n; i < graph->n_layers; i += n) {
        d.table = tables[i];
        n = emit_run(&d, i);
    }
    d.sums = d.next;
    decode_emit_head(&d);
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
    DType q = gpu_try_slot(block, "q_proj.weight")->dtype;
    return q == gpu_try_slot(block, "k_proj.weight")->dtype && q == gpu_try_slot(block, "v_proj.weight")->dtype
        && ROWS * row_len(l->attention.n_heads * l->attention.head_dim) <= most;
}

/* Rows of 16 sequences lie in shared memory beside rings and sums. */
static bool serves(const GpuModel *g)
{
    int64_t most = gpu_shared_most(g) - (112 << 10);
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
