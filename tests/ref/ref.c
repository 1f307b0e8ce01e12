/* Reference: the whole model. Reads the weights; runs tokens through the residual stream.
 *
 * Input: Graph, Weights, token ids. Output: logits [n, V].
 * Every layer is x <- x + f(RMSNorm(x)); then a final RMSNorm and the head.
 * Invariant: a token's logits depend on it and on the tokens before it, in order, and on nothing
 * else.
 */
#include "ref_layers.h"

#include "../../compiler/gpu_accept.h"
#include "../../ir/quant.h"
#include "../../ir/text.h"

/* --- Weights --- */

typedef struct {
    Arena *arena;
    const Graph *graph;
    const Weights *weights;
    DType quant;   /* of matrices; REF_OWN: as stored */
    DType rows;    /* that meet them: see ref_activation */
    int layer;     /* -1: the tensors outside the layers */
    bool gpu;      /* see ref_open_gpu */
} Reader;

static float rounded(float value, DType quant)
{
    switch (quant) {
    case DTYPE_BF16: return dtype_bf16_to_f32(dtype_f32_to_bf16(value));
    case DTYPE_F16: return dtype_f16_to_f32(dtype_f32_to_f16(value));
    case DTYPE_F32:
    case REF_OWN: return value;
    case DTYPE_Q8:
    case DTYPE_Q4:
    case DTYPE_I32: break;
    }
    BUG("weights are never stored as dtype %d", (int)quant);
}

/* Every row [n] to what its scale and q mean. */
static void quantise_rows(DType quant, int64_t n_rows, int64_t n, double *rows, Arena *arena)
{
    ArenaMark mark = arena_mark(arena);
    float *row = arena_array(arena, float, (size_t)n);
    int8_t *q = arena_array(arena, int8_t, (size_t)n);
    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t i = 0; i < n; i++)
            row[i] = (float)rows[r * n + i];
        double scale = (double)quant_row(quant, row, n, q);
        for (int64_t i = 0; i < n; i++)
            rows[r * n + i] = scale * q[i];
    }
    arena_release(arena, mark);
}

/* A whole tensor, widened. `name` without the layer's prefix. */
static const double *read_tensor(const Reader *reader, const char *name)
{
    if (reader->layer >= 0)
        name = arena_printf(reader->arena, "layers.%d.%s", reader->layer, name);
    int tensor = weights_find(reader->weights, name);
    if (tensor < 0)
        BUG("no tensor %s", name);
    const TensorSpec *spec = weights_spec(reader->weights, tensor);
    int64_t count = tensor_spec_count(spec);
    double *out = arena_array(reader->arena, double, (size_t)count);
    DType stored = reader->gpu ? gpu_dtype(spec, reader->quant) : reader->quant;
    bool quantised = spec->matrix && dtype_is_quantised(stored);
    DType quant = spec->matrix && !quantised ? stored : REF_OWN;
    for (int64_t i = 0; i < count; i++) {
        float value;
        weights_read(reader->weights, tensor, i, 1, &value);
        out[i] = (double)rounded(value, quant);
    }
    /* q4 keeps the embedding and the head in q8. */
    if (quantised)
        quantise_rows(spec->layer < 0 ? DTYPE_Q8 : stored, count / spec->shape[spec->rank - 1],
                      spec->shape[spec->rank - 1], out, reader->arena);
    return out;
}

static RefRouter read_router(const Reader *reader, const char *name, int64_t d_in)
{
    const Layer *layer = &reader->graph->layers[reader->layer];
    RefRouter router = { .n_experts = layer->n_experts, .d_in = d_in,
                         .renormalize = reader->graph->renormalize };
    for (int mode = 0; mode < reader->graph->n_modes; mode++)
        router.top_k[mode] = layer->top_k[mode];
    if (layer->n_experts > 1)
        router.weight = read_tensor(reader, name);
    return router;
}

static RefMamba read_mamba(const Reader *reader, const MambaLayer *sizes)
{
    int64_t d = reader->graph->d_model, c = sizes->d_inner;
    return (RefMamba){
        .d_model = d, .d_inner = c, .d_state = sizes->d_state, .d_conv = sizes->d_conv,
        .dt_rank = sizes->dt_rank, .discretization = reader->graph->discretization,
        .rows = reader->rows,
        .in_router = read_router(reader, "in_router.weight", d),
        .ssm_router = read_router(reader, "ssm_router.weight", c),
        .out_router = read_router(reader, "out_router.weight", c),
        .in_proj = read_tensor(reader, "in_proj.weight"),
        .conv1d = read_tensor(reader, "conv1d.weight"),
        .conv1d_bias = read_tensor(reader, "conv1d.bias"),
        .x_proj = read_tensor(reader, "x_proj.weight"),
        .dt_proj = read_tensor(reader, "dt_proj.weight"),
        .dt_bias = read_tensor(reader, "dt_proj.bias"),
        .A_log = read_tensor(reader, "A_log"),
        .D = read_tensor(reader, "D"),
        .out_proj = read_tensor(reader, "out_proj.weight"),
    };
}

static RefAttention read_attention(const Reader *reader, const AttentionLayer *sizes)
{
    return (RefAttention){
        .rows = reader->rows,
        .d_model = reader->graph->d_model, .n_heads = sizes->n_heads,
        .n_kv_heads = sizes->n_kv_heads, .head_dim = sizes->head_dim,
        .window = sizes->window, .rope_theta = sizes->rope_theta,
        .q_proj = read_tensor(reader, "q_proj.weight"),
        .k_proj = read_tensor(reader, "k_proj.weight"),
        .v_proj = read_tensor(reader, "v_proj.weight"),
        .o_proj = read_tensor(reader, "o_proj.weight"),
    };
}

static RefMlp read_mlp(const Reader *reader, const MlpLayer *sizes)
{
    return (RefMlp){
        .rows = reader->rows,
        .d_model = reader->graph->d_model, .d_ff = sizes->d_ff,
        .router = read_router(reader, "router.weight", reader->graph->d_model),
        .gate_proj = read_tensor(reader, "gate_proj.weight"),
        .up_proj = read_tensor(reader, "up_proj.weight"),
        .down_proj = read_tensor(reader, "down_proj.weight"),
    };
}

static RefLayer read_layer(const Reader *reader)
{
    const Layer *layer = &reader->graph->layers[reader->layer];
    RefLayer out = { .kind = layer->kind, .norm = read_tensor(reader, "norm.weight") };
    switch (layer->kind) {
    case LAYER_MAMBA: out.mamba = read_mamba(reader, &layer->mamba); return out;
    case LAYER_ATTENTION: out.attention = read_attention(reader, &layer->attention); return out;
    case LAYER_MLP: out.mlp = read_mlp(reader, &layer->mlp); return out;
    case N_LAYER_KINDS: break;
    }
    BUG("layer kind %d", (int)layer->kind);
}

static Ref *open_reader(Reader reader)
{
    Arena *arena = reader.arena;
    const Graph *graph = reader.graph;
    Ref *ref = arena_one(arena, Ref);
    ref->vocab_size = graph->vocab_size;
    ref->d_model = graph->d_model;
    ref->norm_eps = graph->norm_eps;
    ref->rows = reader.rows;
    ref->embed = read_tensor(&reader, "embed.weight");
    ref->norm_f = read_tensor(&reader, "norm_f.weight");
    ref->lm_head = graph->tie_embeddings ? ref->embed : read_tensor(&reader, "lm_head.weight");
    ref->n_layers = graph->n_layers;
    ref->layers = arena_array(arena, RefLayer, (size_t)graph->n_layers);
    for (reader.layer = 0; reader.layer < graph->n_layers; reader.layer++)
        ref->layers[reader.layer] = read_layer(&reader);
    return ref;
}

Ref *ref_open(Arena *arena, const Graph *graph, const Weights *weights, DType quant)
{
    return ref_open_rounding(arena, graph, weights, quant, dtype_is_quantised(quant) ? DTYPE_Q8 : DTYPE_F32);
}

Ref *ref_open_rounding(Arena *arena, const Graph *graph, const Weights *weights, DType quant, DType rows)
{
    return open_reader((Reader){ arena, graph, weights, quant, rows, -1, false });
}

Ref *ref_open_gpu(Arena *arena, const Graph *graph, const Weights *weights, DType quant)
{
    return open_reader((Reader){ arena, graph, weights, quant, DTYPE_F32, -1, true });
}

/* --- Running --- */

/* What one layer remembers of the tokens before. An MLP remembers nothing. */
typedef union { RefMambaState mamba; RefAttentionState attention; } LayerState;

static LayerState *start_layers(const Ref *ref, int n_tokens, Arena *arena)
{
    LayerState *states = arena_array(arena, LayerState, (size_t)ref->n_layers);
    for (int i = 0; i < ref->n_layers; i++) {
        const RefLayer *layer = &ref->layers[i];
        if (layer->kind == LAYER_MAMBA)
            states[i].mamba = ref_mamba_start(&layer->mamba, arena);
        else if (layer->kind == LAYER_ATTENTION)
            states[i].attention = ref_attention_start(&layer->attention, n_tokens, arena);
    }
    return states;
}

static void step_layer(const RefLayer *layer, int mode, LayerState *state,
                       const double *u /* [d] */, double *f /* [d] */, RefToken *token)
{
    switch (layer->kind) {
    case LAYER_MAMBA: ref_mamba_step(&layer->mamba, mode, &state->mamba, u, f, token); return;
    case LAYER_ATTENTION:
        ref_attention_step(&layer->attention, &state->attention, u, f, token);
        return;
    case LAYER_MLP: ref_mlp_step(&layer->mlp, mode, u, f, token); return;
    case N_LAYER_KINDS: break;
    }
    BUG("layer kind %d", (int)layer->kind);
}

/* One token through all layers: logits [V], and the states move on. */
static void step_token(const Ref *ref, int mode, LayerState *states, int32_t id, double *logits,
                       RefToken *token)
{
    ArenaMark mark = arena_mark(token->scratch);
    int64_t d = ref->d_model;
    double *x = arena_array(token->scratch, double, (size_t)d);   /* residual stream [d] */
    double *u = arena_array(token->scratch, double, (size_t)d);   /* RMSNorm(x) [d] */
    double *f = arena_array(token->scratch, double, (size_t)d);   /* f(u) [d] */
    for (int64_t i = 0; i < d; i++)
        x[i] = ref->embed[id * d + i];
    for (int layer = 0; layer < ref->n_layers; layer++) {
        ref_rmsnorm(ref->layers[layer].norm, ref->norm_eps, d, x, u);
        step_layer(&ref->layers[layer], mode, &states[layer], u, f, token);
        for (int64_t i = 0; i < d; i++)
            x[i] += f[i];
    }
    ref_rmsnorm(ref->norm_f, ref->norm_eps, d, x, u);
    ref_linear(ref->lm_head, ref->vocab_size, d, ref_activation(ref->rows, u, d, token->scratch), logits);
    arena_release(token->scratch, mark);
}

void ref_logits_leads(const Ref *ref, int mode, const int32_t *tokens, int n, double *logits,
                      double *leads)
{
    Arena *scratch = arena_new();
    LayerState *states = start_layers(ref, n, scratch);
    for (int t = 0; t < n; t++) {
        RefToken token = { .position = t, .lead = 1, .scratch = scratch };
        if (tokens[t] < 0 || tokens[t] >= ref->vocab_size)
            BUG("token %d of %d is outside the vocabulary", (int)tokens[t], t);
        step_token(ref, mode, states, tokens[t], logits + t * ref->vocab_size, &token);
        leads[t] = token.lead;
    }
    arena_free(scratch);
}

void ref_logits(const Ref *ref, int mode, const int32_t *tokens, int n, double *logits)
{
    Arena *arena = arena_new();
    double *leads = arena_array(arena, double, (size_t)n);
    ref_logits_leads(ref, mode, tokens, n, logits, leads);
    arena_free(arena);
}
