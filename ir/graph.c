/* Graph: the tensors a model's checkpoint holds and how many parameters they are.
 *
 * Input: a Graph. Output: TensorSpecs in the order of docs/graph.md, section 3, and counts.
 * Invariant: the table below is the only place that knows tensor names and shapes; the reader of
 * weights, the random weights and the parameter counts all go through it.
 */
#include "graph.h"
#include "text.h"


/* Sizes a shape is made of, in the letters of the specification. */
typedef enum {
    DIM_NONE, DIM_VOCAB, DIM_MODEL, DIM_EXPERTS, DIM_INNER, DIM_INNER_TWICE, DIM_CONV, DIM_RANK,
    DIM_STATE, DIM_RANK_STATES, DIM_QUERY, DIM_KEY, DIM_FF
} Dim;

enum { ROW_EXPERT = 1, ROW_MATRIX = 2, ROW_ROUTER = 4, ROW_HEAD = 8 };

typedef struct { const char *name; Dim shape[3]; int flags; } Row;

static const Row model_rows[] = {
    { "embed.weight",   { DIM_VOCAB, DIM_MODEL }, ROW_MATRIX },
    { "norm_f.weight",  { DIM_MODEL }, 0 },
    { "lm_head.weight", { DIM_VOCAB, DIM_MODEL }, ROW_MATRIX | ROW_HEAD },
    { 0 }
};
static const Row mamba_rows[] = {
    { "norm.weight",       { DIM_MODEL }, 0 },
    { "in_router.weight",  { DIM_EXPERTS, DIM_MODEL }, ROW_ROUTER },
    { "ssm_router.weight", { DIM_EXPERTS, DIM_INNER }, ROW_ROUTER },
    { "out_router.weight", { DIM_EXPERTS, DIM_INNER }, ROW_ROUTER },
    { "in_proj.weight",    { DIM_EXPERTS, DIM_INNER_TWICE, DIM_MODEL }, ROW_EXPERT | ROW_MATRIX },
    { "conv1d.weight",     { DIM_INNER, DIM_CONV }, 0 },
    { "conv1d.bias",       { DIM_INNER }, 0 },
    { "x_proj.weight",     { DIM_EXPERTS, DIM_RANK_STATES, DIM_INNER }, ROW_EXPERT | ROW_MATRIX },
    { "dt_proj.weight",    { DIM_EXPERTS, DIM_INNER, DIM_RANK }, ROW_EXPERT | ROW_MATRIX },
    { "dt_proj.bias",      { DIM_EXPERTS, DIM_INNER }, ROW_EXPERT },
    { "A_log",             { DIM_INNER, DIM_STATE }, 0 },
    { "D",                 { DIM_INNER }, 0 },
    { "out_proj.weight",   { DIM_EXPERTS, DIM_MODEL, DIM_INNER }, ROW_EXPERT | ROW_MATRIX },
    { 0 }
};
static const Row attention_rows[] = {
    { "norm.weight",   { DIM_MODEL }, 0 },
    { "q_proj.weight", { DIM_QUERY, DIM_MODEL }, ROW_MATRIX },
    { "k_proj.weight", { DIM_KEY, DIM_MODEL }, ROW_MATRIX },
    { "v_proj.weight", { DIM_KEY, DIM_MODEL }, ROW_MATRIX },
    { "o_proj.weight", { DIM_MODEL, DIM_QUERY }, ROW_MATRIX },
    { 0 }
};
static const Row mlp_rows[] = {
    { "norm.weight",      { DIM_MODEL }, 0 },
    { "router.weight",    { DIM_EXPERTS, DIM_MODEL }, ROW_ROUTER },
    { "gate_proj.weight", { DIM_EXPERTS, DIM_FF, DIM_MODEL }, ROW_EXPERT | ROW_MATRIX },
    { "up_proj.weight",   { DIM_EXPERTS, DIM_FF, DIM_MODEL }, ROW_EXPERT | ROW_MATRIX },
    { "down_proj.weight", { DIM_EXPERTS, DIM_MODEL, DIM_FF }, ROW_EXPERT | ROW_MATRIX },
    { 0 }
};
static const Row *const layer_rows[N_LAYER_KINDS] = {
    [LAYER_MAMBA] = mamba_rows, [LAYER_ATTENTION] = attention_rows, [LAYER_MLP] = mlp_rows,
};

const char *layer_kind_text(LayerKind kind)
{
    static const char *const texts[N_LAYER_KINDS] = {
        [LAYER_MAMBA] = "mamba", [LAYER_ATTENTION] = "attention", [LAYER_MLP] = "mlp",
    };
    if ((unsigned)kind >= N_LAYER_KINDS)
        BUG("layer kind %d", (int)kind);
    return texts[kind];
}

static int64_t dim_size(Dim dim, const Graph *graph, const Layer *layer)
{
    switch (dim) {
    case DIM_NONE: break;
    case DIM_VOCAB: return graph->vocab_size;
    case DIM_MODEL: return graph->d_model;
    case DIM_EXPERTS: return layer->n_experts;
    case DIM_INNER: return layer->mamba.d_inner;
    case DIM_INNER_TWICE: return 2 * layer->mamba.d_inner;
    case DIM_CONV: return layer->mamba.d_conv;
    case DIM_RANK: return layer->mamba.dt_rank;
    case DIM_STATE: return layer->mamba.d_state;
    case DIM_RANK_STATES: return layer->mamba.dt_rank + 2 * layer->mamba.d_state;
    case DIM_QUERY: return layer->attention.n_heads * layer->attention.head_dim;
    case DIM_KEY: return layer->attention.n_kv_heads * layer->attention.head_dim;
    case DIM_FF: return layer->mlp.d_ff;
    }
    BUG("dimension %d", (int)dim);
}

static bool row_present(const Row *row, const Graph *graph, const Layer *layer)
{
    if (row->flags & ROW_ROUTER)
        return layer->n_experts > 1;
    return !(row->flags & ROW_HEAD) || !graph->tie_embeddings;
}

/* The shape and flags of one row; the name is left to the caller. */
static TensorSpec row_spec(const Row *row, const Graph *graph, int index)
{
    const Layer *layer = index < 0 ? NULL : &graph->layers[index];
    TensorSpec spec = { .name = row->name, .layer = index };
    while (spec.rank < 3 && row->shape[spec.rank] != DIM_NONE) {
        spec.shape[spec.rank] = dim_size(row->shape[spec.rank], graph, layer);
        spec.rank++;
    }
    spec.per_expert = row->flags & ROW_EXPERT;
    spec.matrix = row->flags & ROW_MATRIX;
    return spec;
}

static const Row *rows_of(const Graph *graph, int index)
{
    return index < 0 ? model_rows : layer_rows[graph->layers[index].kind];
}

static int tensors_add(const Graph *graph, int index, Arena *arena, TensorSpec *out)
{
    const Layer *layer = index < 0 ? NULL : &graph->layers[index];
    int n = 0;
    for (const Row *row = rows_of(graph, index); row->name; row++) {
        if (!row_present(row, graph, layer))
            continue;
        out[n] = row_spec(row, graph, index);
        if (index >= 0)
            out[n].name = arena_printf(arena, "layers.%d.%s", index, row->name);
        n++;
    }
    return n;
}

TensorSpec *graph_tensors(const Graph *graph, Arena *arena, int *n_tensors)
{
    enum { MOST = sizeof mamba_rows / sizeof mamba_rows[0] };
    TensorSpec *specs = arena_array(arena, TensorSpec, ((size_t)graph->n_layers + 1) * MOST);
    int n = 0;
    for (int index = -1; index < graph->n_layers; index++)
        n += tensors_add(graph, index, arena, specs + n);
    *n_tensors = n;
    return specs;
}

static bool spec_count(const TensorSpec *spec, int64_t *count)
{
    *count = 1;
    for (int i = 0; i < spec->rank; i++)
        if (__builtin_mul_overflow(*count, spec->shape[i], count) || *count > GRAPH_MAX_PARAMS)
            return false;
    return true;
}

int64_t tensor_spec_count(const TensorSpec *spec)
{
    int64_t count;
    if (!spec_count(spec, &count))
        BUG("%s is larger than the front end lets pass", spec->name);
    return count;
}

int64_t tensor_spec_active(const Graph *graph, const TensorSpec *spec, int mode)
{
    int64_t count = tensor_spec_count(spec);
    if (!spec->per_expert)
        return count;
    const Layer *layer = &graph->layers[spec->layer];
    return count / layer->n_experts * layer->top_k[mode];
}

/* Sum over all tensors without naming them, so that nothing is allocated. mode < 0: all experts. */
static bool params_sum(const Graph *graph, int mode, int64_t *sum)
{
    *sum = 0;
    for (int index = -1; index < graph->n_layers; index++)
        for (const Row *row = rows_of(graph, index); row->name; row++) {
            if (!row_present(row, graph, index < 0 ? NULL : &graph->layers[index]))
                continue;
            TensorSpec spec = row_spec(row, graph, index);
            int64_t count;
            if (!spec_count(&spec, &count))
                return false;
            *sum += mode < 0 ? count : tensor_spec_active(graph, &spec, mode);
            if (*sum > GRAPH_MAX_PARAMS)
                return false;
        }
    return true;
}

bool graph_params_fit(const Graph *graph)
{
    int64_t sum;
    return params_sum(graph, -1, &sum);
}

int64_t graph_total_params(const Graph *graph)
{
    int64_t sum;
    if (!params_sum(graph, -1, &sum))
        BUG("%s is larger than the front end lets pass", graph->name);
    return sum;
}

int64_t graph_active_params(const Graph *graph, int mode)
{
    int64_t sum;
    if (mode < 0 || mode >= graph->n_modes || !params_sum(graph, mode, &sum))
        BUG("no mode %d in %s", mode, graph->name);
    return sum;
}
