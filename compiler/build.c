/* Builder: Graph -> Module, phase common.
 *
 * Writes every layer as the specification's formulas say (docs/graph.md, section 2), one operation a
 * formula, and leaves all cleverness to the passes. Layers with the same sizes, modes and stored
 * types share a block; "main" embeds, calls the blocks in order and projects to logits.
 * Equation numbers are those of arXiv 2510.26182.
 */
#include "build.h"

#include <stdarg.h>
#include <string.h>

typedef struct {
    Module *module;
    Block *block;
    const Graph *graph;
    const Layer *layer;        /* NULL in main */
    int layer_index;
    const TensorSpec *specs;
    const DType *dtypes;
    int n_specs;
} Builder;

static Dim constant(int64_t n) { return dim_of(n, SYM_ONE); }
static Type matrix(DType dtype, Dim rows, Dim cols) { return type_of(dtype, 2, rows, cols, constant(0)); }

/* ---- emitting ---- */

/* An operation with its operands; attributes may follow before op_finish. */
static Op *start(Builder *b, OpKind kind, int n, ...)
{
    Value *operands[OP_MAX_OPERANDS];
    va_list args;
    va_start(args, n);
    for (int i = 0; i < n; i++)
        operands[i] = va_arg(args, Value *);
    va_end(args);
    return op_insert(b->module, b->block, NULL, kind, n, operands);
}

static Value *finish(Builder *b, Op *op, const char *name) { return op_finish(b->module, b->block, op, name, NULL); }

static int find_spec(const Builder *b, const char *name)
{
    const char *full = b->layer ? arena_printf(b->module->arena, "layers.%d.%s", b->layer_index, name) : name;
    for (int i = 0; i < b->n_specs; i++)
        if (strcmp(b->specs[i].name, full) == 0)
            return i;
    BUG("the graph has no tensor %s", full);
}

/* A checkpoint tensor. A dense layer's matrices lose their expert axis of 1. */
static Value *weight(Builder *b, const char *name)
{
    int i = find_spec(b, name);
    const TensorSpec *spec = &b->specs[i];
    int skip = spec->per_expert && spec->shape[0] == 1;
    Type type = { .dtype = spec->matrix ? b->dtypes[i] : DTYPE_F32, .rank = spec->rank - skip };
    for (int d = 0; d < type.rank; d++)
        type.dim[d] = constant(spec->shape[d + skip]);
    Op *op = start(b, OP_WEIGHT, 0);
    op_set_str(op, ATTR_TENSOR, arena_strdup(b->module->arena, name));
    char *value_name = arena_strdup(b->module->arena, name);
    value_name[strcspn(value_name, ".")] = 0;
    bool bias = strstr(name, ".bias") != NULL;
    return op_finish(b->module, b->block, op,
                     bias ? arena_printf(b->module->arena, "%s_bias", value_name) : value_name, &type);
}

static Value *state(Builder *b, const char *name, Dim rows, int64_t cols)
{
    Type type = matrix(DTYPE_F32, rows, constant(cols));
    Op *op = start(b, OP_STATE, 0);
    op_set_str(op, ATTR_NAME, name);
    return op_finish(b->module, b->block, op, name, &type);
}

static Value *rms_norm(Builder *b, Value *x, const char *tensor, const char *name)
{
    Op *op = start(b, OP_RMS_NORM, 2, x, weight(b, tensor));
    op_set_float(op, ATTR_EPS, b->graph->norm_eps);
    return finish(b, op, name);
}

/* p = softmax(x W^T), the k largest: Eq. (7). Gates are result 1. */
static Value *route(Builder *b, Value *x, const char *router, const char *name, Value **gates)
{
    Op *op = start(b, OP_ROUTE, 2, x, weight(b, router));
    bool same = true;
    for (int m = 1; m < b->graph->n_modes; m++)
        same &= b->layer->top_k[m] == b->layer->top_k[0];
    op_set_ints(op, ATTR_TOP_K, b->layer->top_k, same ? 1 : b->graph->n_modes);
    op_set_int(op, ATTR_RENORMALIZE, b->graph->renormalize);
    Value *experts = finish(b, op, name);
    *gates = op->result[1];
    return experts;
}

static bool is_dense(const Builder *b) { return b->layer->n_experts == 1; }

/* One product a pair, or a plain one in a dense layer. */
static Value *product(Builder *b, Value *x, const char *tensor, Value *experts, Value *bias, const char *name)
{
    Value *w = weight(b, tensor);
    Op *op = is_dense(b) ? start(b, OP_LINEAR, 3, x, w, bias)
                         : start(b, OP_EXPERT_LINEAR, 4, x, w, experts, bias);
    return finish(b, op, name);
}

/* Sum over a token's experts of gate * row; a dense layer has nothing to sum. */
static Value *combine(Builder *b, Value *pairs, Value *gates, const char *name)
{
    return is_dense(b) ? pairs : finish(b, start(b, OP_COMBINE, 2, pairs, gates), name);
}

/* MoE(x; W) with its own router. */
static Value *moe(Builder *b, Value *x, const char *tensor, const char *router, const char *name)
{
    Value *gates = NULL;
    Value *experts = is_dense(b) ? NULL : route(b, x, router, name, &gates);
    return combine(b, product(b, x, tensor, experts, NULL, arena_printf(b->module->arena, "%s_pairs", name)), gates, name);
}

static Value *slice(Builder *b, Value *x, int64_t begin, int64_t len, const char *name)
{
    Op *op = start(b, OP_SLICE, 1, x);
    op_set_int(op, ATTR_BEGIN, begin);
    op_set_int(op, ATTR_LEN, len);
    return finish(b, op, name);
}

/* ---- layers: each returns f(RMSNorm(x)) ---- */

static Value *build_mamba(Builder *b, Value *x)
{
    const MambaLayer *m = &b->layer->mamba;
    int64_t c = m->d_inner;
    Value *u = rms_norm(b, x, "norm.weight", "u");
    Value *xz = moe(b, u, "in_proj.weight", "in_router.weight", "xz");
    Value *xi = slice(b, xz, 0, c, "x_in");
    Value *z = slice(b, xz, c, c, "z");

    Value *conv_state = state(b, "conv_state", constant(m->d_conv - 1), c);
    Value *conv = finish(b, start(b, OP_CONV1D, 4, xi, weight(b, "conv1d.weight"), weight(b, "conv1d.bias"),
                                  conv_state), "conv");
    Value *xc = finish(b, start(b, OP_SILU, 1, conv), "xc");

    /* One router for the whole of delta, B and C: Eqs. (11), (12). */
    Value *gates = NULL;
    Value *experts = is_dense(b) ? NULL : route(b, xc, "ssm_router.weight", "ssm", &gates);
    Value *dbc = product(b, xc, "x_proj.weight", experts, NULL, "dbc");
    Value *delta = slice(b, dbc, 0, m->dt_rank, "delta");
    Value *bc_pairs = slice(b, dbc, m->dt_rank, 2 * m->d_state, "bc_pairs");
    Value *bc = combine(b, bc_pairs, gates, "bc");
    Value *dt_pairs = product(b, delta, "dt_proj.weight", experts, weight(b, "dt_proj.bias"), "dt_pairs");
    Value *dt_raw = combine(b, dt_pairs, gates, "dt_raw");
    Value *dt = finish(b, start(b, OP_SOFTPLUS, 1, dt_raw), "dt");

    Value *scan_state = state(b, "scan_state", constant(m->d_state), c);
    Op *scan = start(b, OP_SCAN, 6, dt, xc, bc, weight(b, "A_log"), weight(b, "D"), scan_state);
    op_set_int(scan, ATTR_ZOH, b->graph->discretization == DISCRETIZE_ZOH);
    Value *y = finish(b, scan, "y");
    Value *gate = finish(b, start(b, OP_SILU, 1, z), "z_gate");
    Value *gated = finish(b, start(b, OP_MUL, 2, y, gate), "gated");
    return moe(b, gated, "out_proj.weight", "out_router.weight", "f");
}

static Value *rope(Builder *b, Value *x, Value *table, int64_t heads, const char *name)
{
    if (!table)
        return x;
    Op *op = start(b, OP_ROPE, 2, x, table);
    op_set_int(op, ATTR_HEADS, heads);
    op_set_int(op, ATTR_HEAD_DIM, b->layer->attention.head_dim);
    return finish(b, op, name);
}

static Value *build_attention(Builder *b, Value *x, Value *table)
{
    const AttentionLayer *a = &b->layer->attention;
    Value *u = rms_norm(b, x, "norm.weight", "u");
    Value *q = finish(b, start(b, OP_LINEAR, 2, u, weight(b, "q_proj.weight")), "q");
    Value *k = finish(b, start(b, OP_LINEAR, 2, u, weight(b, "k_proj.weight")), "k");
    Value *v = finish(b, start(b, OP_LINEAR, 2, u, weight(b, "v_proj.weight")), "v");
    q = rope(b, q, table, a->n_heads, "q_rot");
    k = rope(b, k, table, a->n_kv_heads, "k_rot");

    Dim rows = a->window ? constant(a->window) : dim_of(1, SYM_C);
    Value *ring_k = state(b, "ring_k", rows, a->n_kv_heads * a->head_dim);
    Value *ring_v = state(b, "ring_v", rows, a->n_kv_heads * a->head_dim);
    Op *attend = start(b, OP_ATTENTION, 5, q, k, v, ring_k, ring_v);
    op_set_int(attend, ATTR_HEADS, a->n_heads);
    op_set_int(attend, ATTR_KV_HEADS, a->n_kv_heads);
    op_set_int(attend, ATTR_HEAD_DIM, a->head_dim);
    op_set_int(attend, ATTR_WINDOW, a->window);
    Value *y = finish(b, attend, "y");
    Op *write = start(b, OP_RING_WRITE, 4, k, v, ring_k, ring_v);
    op_set_int(write, ATTR_WINDOW, a->window);
    op_finish(b->module, b->block, write, "", NULL);
    return finish(b, start(b, OP_LINEAR, 2, y, weight(b, "o_proj.weight")), "f");
}

/* E_i(u) = (silu(u gate_i^T) * (u up_i^T)) down_i^T */
static Value *build_mlp(Builder *b, Value *x)
{
    Value *gates = NULL;
    Value *u = rms_norm(b, x, "norm.weight", "u");
    Value *experts = is_dense(b) ? NULL : route(b, u, "router.weight", "mlp", &gates);
    Value *gate = product(b, u, "gate_proj.weight", experts, NULL, "gate");
    Value *up = product(b, u, "up_proj.weight", experts, NULL, "up");
    Value *act = finish(b, start(b, OP_SILU, 1, gate), "act");
    Value *h = finish(b, start(b, OP_MUL, 2, act, up), "h");
    return combine(b, product(b, h, "down_proj.weight", experts, NULL, "f_pairs"), gates, "f");
}

/* ---- blocks ---- */

static bool same_shape(const Builder *b, const Layer *p, int i, const Layer *q, int j)
{
    if (p->kind != q->kind || p->n_experts != q->n_experts
        || memcmp(p->top_k, q->top_k, (size_t)b->graph->n_modes * sizeof *p->top_k) != 0)
        return false;
    switch (p->kind) {
    case LAYER_MAMBA:
        if (memcmp(&p->mamba, &q->mamba, sizeof p->mamba) != 0)
            return false;
        break;
    case LAYER_ATTENTION:
        if (memcmp(&p->attention, &q->attention, sizeof p->attention) != 0)
            return false;
        break;
    case LAYER_MLP:
        if (p->mlp.d_ff != q->mlp.d_ff)
            return false;
        break;
    default:
        BUG("layer kind %d", (int)p->kind);
    }
    /* Same tensors in the same order: compare how they are stored. */
    int a = 0, c = 0;
    while (b->specs[a].layer != i)
        a++;
    while (b->specs[c].layer != j)
        c++;
    for (; a < b->n_specs && b->specs[a].layer == i; a++, c++)
        if (b->dtypes[a] != b->dtypes[c])
            return false;
    return true;
}

static bool needs_table(const Layer *layer) { return layer->kind == LAYER_ATTENTION && layer->attention.rope_theta > 0; }

static Block *build_block(Builder *b, const char *name)
{
    Builder inner = *b;
    inner.block = module_add_block(b->module, name, PHASE_COMMON);
    Value *x = block_add_param(b->module, inner.block, "x",
                               matrix(DTYPE_F32, dim_of(1, SYM_T), constant(b->graph->d_model)));
    Value *table = !needs_table(b->layer) ? NULL
        : block_add_param(b->module, inner.block, "table",
                          matrix(DTYPE_F32, dim_of(1, SYM_T), constant(b->layer->attention.head_dim)));
    Value *f = b->layer->kind == LAYER_MAMBA ? build_mamba(&inner, x)
             : b->layer->kind == LAYER_MLP ? build_mlp(&inner, x)
             : build_attention(&inner, x, table);
    Value *y = finish(&inner, start(&inner, OP_ADD, 2, x, f), "x_out");
    op_finish(b->module, inner.block, start(&inner, OP_YIELD, 1, y), "", NULL);
    return inner.block;
}

/* The table for a head size and theta, made once in main. */
static Value *rope_table(Builder *b, Value *tokens, const AttentionLayer *a)
{
    for (Op *op = b->block->first; op; op = op->next)
        if (op->kind == OP_ROPE_TABLE && op_int(op, ATTR_HEAD_DIM, 0) == a->head_dim
            && op_attr(op, ATTR_THETA)->number == a->rope_theta)
            return op->result[0];
    Op *op = start(b, OP_ROPE_TABLE, 1, tokens);
    op_set_int(op, ATTR_HEAD_DIM, a->head_dim);
    op_set_float(op, ATTR_THETA, a->rope_theta);
    return finish(b, op, "table");
}

static Block *block_for_layer(Builder *b, Block **blocks, int *n_of_kind, int i)
{
    const Layer *layer = &b->graph->layers[i];
    for (int j = 0; j < i; j++)
        if (same_shape(b, layer, i, &b->graph->layers[j], j))
            return blocks[j];
    Builder at = *b;
    at.layer = layer;
    at.layer_index = i;
    return build_block(&at, arena_printf(b->module->arena, "%s%d", layer_kind_text(layer->kind),
                                         n_of_kind[layer->kind]++));
}

static void build_main(Builder *b, Block *const *blocks)
{
    const Graph *graph = b->graph;
    b->block = module_add_block(b->module, "main", PHASE_COMMON);
    Value *tokens = block_add_param(b->module, b->block, "tokens",
                                    type_of(DTYPE_I32, 1, dim_of(1, SYM_T), constant(0), constant(0)));
    Value *embed = weight(b, "embed.weight");
    Value *x = finish(b, start(b, OP_EMBED, 2, tokens, embed), "x");
    for (int i = 0; i < graph->n_layers; i++) {
        const Layer *layer = &graph->layers[i];
        Op *call = needs_table(layer)
            ? start(b, OP_CALL, 2, x, rope_table(b, tokens, &layer->attention))
            : start(b, OP_CALL, 1, x);
        op_set_str(call, ATTR_BLOCK, blocks[i]->name);
        op_set_int(call, ATTR_LAYER, i);
        x = finish(b, call, "x");
    }
    Value *last = finish(b, start(b, OP_LAST_ROWS, 1, x), "last");
    Value *u = rms_norm(b, last, "norm_f.weight", "u");
    Value *head = graph->tie_embeddings ? embed : weight(b, "lm_head.weight");
    Value *logits = finish(b, start(b, OP_LINEAR, 2, u, head), "logits");
    op_finish(b->module, b->block, start(b, OP_YIELD, 1, logits), "", NULL);
}

Module *build_module(Arena *arena, const Graph *graph, const DType *dtypes)
{
    Builder b = { .module = module_new(arena, graph->name), .graph = graph, .dtypes = dtypes };
    b.module->vocab_size = graph->vocab_size;
    b.module->n_modes = graph->n_modes;
    memcpy(b.module->mode_top_k, graph->mode_top_k, sizeof b.module->mode_top_k);
    b.specs = graph_tensors(graph, arena, &b.n_specs);
    Block **blocks = arena_array(arena, Block *, (size_t)graph->n_layers);
    int n_of_kind[N_LAYER_KINDS] = { 0 };
    for (int i = 0; i < graph->n_layers; i++)
        blocks[i] = block_for_layer(&b, blocks, n_of_kind, i);
    build_main(&b, blocks);
    return b.module;
}
