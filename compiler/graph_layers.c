/* The layers of a graph file: groups expanded, defaults filled in, every size checked.
 *
 * Input: the `layers` array. Output: graph->layers, one Layer a residual layer.
 * Invariant: a group's body is read once and then copied, and the copies are counted before they
 * are made, so nested repeats of any size cost no more than GRAPH_MAX_LAYERS layers.
 */
#include "graph_layers.h"

#include <cjson/cJSON.h>

#include <string.h>

#define N_OF(array) ((int)(sizeof(array) / sizeof(array)[0]))

typedef void LayerRead(GraphReader *reader, const JsonValue *object, Layer *layer);
typedef struct { const char *const *keys; int n_keys; const char *where; LayerRead *read; } Kind;

int64_t graph_auto_top_k(int64_t n_experts)
{
    int64_t k = n_experts / 4;
    return k < 1 ? 1 : k > 2 ? 2 : k;
}

/* --- experts and top_k --- */

/* The layer's own top_k; it holds in every mode. */
static void own_top_k_read(GraphReader *reader, const JsonValue *value, Layer *layer)
{
    Fields *fields = &reader->fields;
    bool automatic = cJSON_IsString(value) && strcmp(value->valuestring, "auto") == 0;
    int64_t k = automatic && layer->n_experts ? graph_auto_top_k(layer->n_experts) : 1;
    if (cJSON_IsArray(value)) {
        field_report(fields, DIAG_GRAPH_TYPE, value, false,
                     "top_k: a layer's own top_k holds in every mode: expected a whole number or "
                     "\"auto\", found an array");
        return;
    }
    if (cJSON_IsString(value) && !automatic) {
        field_report(fields, DIAG_GRAPH_VALUE, value, false,
                     "top_k: expected a whole number or \"auto\", found \"%.60s\"", value->valuestring);
        return;
    }
    if (!automatic && !field_whole(fields, value, "top_k", GRAPH_MAX_SIZE, &k))
        return;
    if (layer->n_experts > 1 && k > layer->n_experts)
        field_report(fields, DIAG_GRAPH_TOP_K, value, false, "top_k is %lld, the layer has %lld experts",
                     (long long)k, (long long)layer->n_experts);
    layer->own_top_k = true;
    for (int mode = 0; mode < GRAPH_MAX_MODES; mode++)
        layer->top_k[mode] = layer->n_experts > 1 ? k : 1;
}

/* The graph's top_k for this layer's experts. */
static void top_k_follow(GraphReader *reader, const JsonValue *own_experts, Layer *layer)
{
    const TopK *top_k = &reader->top_k;
    bool reported = false;
    for (int mode = 0; mode < GRAPH_MAX_MODES; mode++) {
        layer->top_k[mode] = 1;
        if (layer->n_experts <= 1 || mode >= top_k->n_modes)
            continue;
        int64_t k = top_k->automatic ? graph_auto_top_k(layer->n_experts) : top_k->k[mode];
        layer->top_k[mode] = k;
        /* Layers that take the graph's experts too were checked with the graph. */
        if (k > layer->n_experts && own_experts && !reported) {
            field_report(&reader->fields, DIAG_GRAPH_TOP_K, own_experts, false,
                         "the graph's top_k is %lld, this layer has %lld experts", (long long)k,
                         (long long)layer->n_experts);
            if (reader->top_k_at)
                field_note(&reader->fields, reader->top_k_at, "top_k given here");
            reported = true;
        }
    }
}

static void experts_read(GraphReader *reader, const JsonValue *object, Layer *layer)
{
    const JsonValue *own_experts = field_find(object, "experts");
    const JsonValue *own_top_k = field_find(object, "top_k");
    layer->n_experts = reader->n_experts;
    if (!field_size(&reader->fields, object, "experts", GRAPH_MAX_EXPERTS, &layer->n_experts))
        layer->n_experts = 0;
    if (own_top_k)
        own_top_k_read(reader, own_top_k, layer);
    else
        top_k_follow(reader, own_experts, layer);
}

/* --- the three kinds --- */

/* A size made of several: reported when it leaves the range of one dimension. */
static void product_check(GraphReader *reader, const JsonValue *object, const char *what, int64_t size)
{
    if (size > GRAPH_MAX_SIZE)
        field_report(&reader->fields, DIAG_GRAPH_LARGE, object, false, "%s is %lld, at most %lld", what,
                     (long long)size, (long long)GRAPH_MAX_SIZE);
}

static void mamba_read(GraphReader *reader, const JsonValue *object, Layer *layer)
{
    Fields *fields = &reader->fields;
    int64_t d_model = reader->graph->d_model;
    MambaLayer *mamba = &layer->mamba;
    *mamba = (MambaLayer){ .d_inner = 2 * d_model, .d_state = 16, .d_conv = 4,
                           .dt_rank = (d_model + 15) / 16 };
    experts_read(reader, object, layer);
    bool good = field_size(fields, object, "d_inner", GRAPH_MAX_SIZE, &mamba->d_inner);
    good &= field_size(fields, object, "d_state", GRAPH_MAX_SIZE, &mamba->d_state);
    good &= field_size(fields, object, "d_conv", GRAPH_MAX_SIZE, &mamba->d_conv);
    good &= field_size(fields, object, "dt_rank", GRAPH_MAX_SIZE, &mamba->dt_rank);
    if (!good)
        return;
    product_check(reader, object, "2 d_inner (the rows of in_proj)", 2 * mamba->d_inner);
    product_check(reader, object, "dt_rank + 2 d_state (the rows of x_proj)",
                  mamba->dt_rank + 2 * mamba->d_state);
}

/* head_dim from d_model, where the layer does not say. */
static bool head_dim_default(GraphReader *reader, const JsonValue *object, AttentionLayer *attention)
{
    int64_t d_model = reader->graph->d_model;
    if (field_find(object, "head_dim"))
        return true;
    if (d_model == 0)
        return false;   /* reported where it stands */
    if (d_model % attention->n_heads != 0) {
        field_report(&reader->fields, DIAG_GRAPH_HEADS, field_find(object, "heads"), false,
                     "d_model %lld is not divisible by %lld heads; give \"head_dim\"", (long long)d_model,
                     (long long)attention->n_heads);
        return false;
    }
    attention->head_dim = d_model / attention->n_heads;
    return true;
}

static void heads_check(GraphReader *reader, const JsonValue *object, AttentionLayer *attention)
{
    Fields *fields = &reader->fields;
    if (attention->n_heads % attention->n_kv_heads != 0)
        field_report(fields, DIAG_GRAPH_HEADS, field_find(object, "kv_heads"), false,
                     "%lld heads are not divisible by %lld kv_heads", (long long)attention->n_heads,
                     (long long)attention->n_kv_heads);
    if (!head_dim_default(reader, object, attention))
        return;
    if (attention->rope_theta != 0 && attention->head_dim % 2 != 0) {
        const JsonValue *at = field_find(object, "head_dim");
        field_report(fields, DIAG_GRAPH_HEADS, at ? at : field_find(object, "heads"), false,
                     "head_dim is %lld; rotary position needs an even one (or \"rope_theta\": 0)",
                     (long long)attention->head_dim);
    }
    product_check(reader, object, "heads * head_dim (the rows of q_proj)",
                  attention->n_heads * attention->head_dim);
}

static void attention_read(GraphReader *reader, const JsonValue *object, Layer *layer)
{
    Fields *fields = &reader->fields;
    AttentionLayer *attention = &layer->attention;
    *attention = (AttentionLayer){ .rope_theta = 10000 };
    layer->n_experts = 1;
    for (int mode = 0; mode < GRAPH_MAX_MODES; mode++)
        layer->top_k[mode] = 1;

    bool good = field_get(fields, object, "heads", FIELD_REQUIRED, "an attention layer");
    good &= field_size(fields, object, "heads", GRAPH_MAX_SIZE, &attention->n_heads);
    attention->n_kv_heads = attention->n_heads;
    good &= field_size(fields, object, "kv_heads", GRAPH_MAX_SIZE, &attention->n_kv_heads);
    good &= field_size(fields, object, "head_dim", GRAPH_MAX_SIZE, &attention->head_dim);
    const JsonValue *window = field_find(object, "window");
    if (window && !cJSON_IsNull(window))
        good &= field_whole(fields, window, "window", GRAPH_MAX_SIZE, &attention->window);
    good &= field_number(fields, object, "rope_theta", 0, false, &attention->rope_theta);
    if (good)
        heads_check(reader, object, attention);
}

static void mlp_read(GraphReader *reader, const JsonValue *object, Layer *layer)
{
    experts_read(reader, object, layer);
    field_get(&reader->fields, object, "d_ff", FIELD_REQUIRED, "an mlp layer");
    field_size(&reader->fields, object, "d_ff", GRAPH_MAX_SIZE, &layer->mlp.d_ff);
}

static const char *const mamba_keys[] = { "op", "experts", "top_k", "d_inner", "d_state", "d_conv", "dt_rank" };
static const char *const attention_keys[] = { "op", "heads", "kv_heads", "head_dim", "window", "rope_theta" };
static const char *const mlp_keys[] = { "op", "experts", "top_k", "d_ff" };
static const char *const group_keys[] = { "repeat", "of" };
static const Kind kinds[N_LAYER_KINDS] = {
    [LAYER_MAMBA] = { mamba_keys, N_OF(mamba_keys), "a mamba layer", mamba_read },
    [LAYER_ATTENTION] = { attention_keys, N_OF(attention_keys), "an attention layer", attention_read },
    [LAYER_MLP] = { mlp_keys, N_OF(mlp_keys), "an mlp layer", mlp_read },
};

/* --- layers and groups --- */

/* Make room for `count` more layers, or report once that there is none. */
static bool layers_fit(GraphReader *reader, const JsonValue *at, int64_t count)
{
    if (reader->full)
        return false;
    if (count <= GRAPH_MAX_LAYERS - reader->graph->n_layers)
        return true;
    reader->full = true;
    field_report(&reader->fields, DIAG_GRAPH_LARGE, at, false,
                 "the graph has more than %d layers once its groups are expanded", GRAPH_MAX_LAYERS);
    return false;
}

static void layer_read(GraphReader *reader, const JsonValue *object, const JsonValue *op)
{
    const char *names[N_LAYER_KINDS];
    for (int i = 0; i < N_LAYER_KINDS; i++)
        names[i] = layer_kind_text((LayerKind)i);
    int kind;
    if (!field_choice(&reader->fields, op, "op", names, N_LAYER_KINDS, &kind))
        return;
    Layer layer = { .kind = (LayerKind)kind, .at = json_place(reader->fields.json, object, false) };
    field_known_keys(&reader->fields, object, kinds[kind].where, kinds[kind].keys, kinds[kind].n_keys);
    kinds[kind].read(reader, object, &layer);
    if (layers_fit(reader, object, 1))
        reader->graph->layers[reader->graph->n_layers++] = layer;
}

static void group_read(GraphReader *reader, const JsonValue *object)
{
    Fields *fields = &reader->fields;
    Graph *graph = reader->graph;
    int64_t repeat = 1;
    field_known_keys(fields, object, "a group", group_keys, N_OF(group_keys));
    const JsonValue *count = field_get(fields, object, "repeat", FIELD_REQUIRED, "a group");
    const JsonValue *body = field_get(fields, object, "of", FIELD_REQUIRED, "a group");
    if (count)
        field_whole(fields, count, "repeat", GRAPH_MAX_SIZE, &repeat);
    if (!body)
        return;
    int begin = graph->n_layers;
    graph_read_layers(reader, body);
    int n = graph->n_layers - begin;
    if (n == 0 || !layers_fit(reader, count ? count : object, (repeat - 1) * n))
        return;
    for (int64_t copy = 1; copy < repeat; copy++) {
        memcpy(&graph->layers[graph->n_layers], &graph->layers[begin], (size_t)n * sizeof *graph->layers);
        graph->n_layers += n;
    }
}

static void item_read(GraphReader *reader, const JsonValue *item)
{
    if (!cJSON_IsObject(item)) {
        field_report(&reader->fields, DIAG_GRAPH_TYPE, item, false,
                     "expected a layer or a group, an object, found %s", field_type(item));
        return;
    }
    const JsonValue *op = field_find(item, "op");
    if (op)
        layer_read(reader, item, op);
    else if (field_find(item, "repeat") || field_find(item, "of"))
        group_read(reader, item);
    else
        field_report(&reader->fields, DIAG_GRAPH_MISSING, item, false,
                     "a layer needs \"op\", a group needs \"repeat\" and \"of\"");
}

void graph_read_layers(GraphReader *reader, const JsonValue *list)
{
    if (!cJSON_IsArray(list)) {
        field_report(&reader->fields, DIAG_GRAPH_TYPE, list, false, "%s: expected an array of layers, found %s",
                     list->string, field_type(list));
        return;
    }
    if (!list->child)
        field_report(&reader->fields, DIAG_GRAPH_EMPTY, list, false, "%s: expected at least one layer, found none", list->string);
    for (const cJSON *item = list->child; item && !diags_full(reader->fields.diags); item = item->next)
        item_read(reader, item);
}
