/* Front end: a graph file becomes a checked Graph (docs/graph.md, section 1).
 *
 * Input: JSON text. Output: a Graph with defaults filled in and groups expanded, or diagnostics.
 * Invariant: a Graph is handed out only when nothing was reported; what is wrong in one place is
 * left at 0 meanwhile, so that one mistake is not reported again wherever it is used.
 */
#include "graph_read.h"
#include "graph_layers.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_OF(array) ((int)(sizeof(array) / sizeof(array)[0]))
#define GRAPH_FORMAT "mossnet-graph/1"
enum { MAX_NAME_LEN = 200 };

static const char *const graph_keys[] = {
    "format", "name", "vocab_size", "d_model", "norm_eps", "tie_embeddings", "experts", "top_k",
    "renormalize", "discretization", "layers",
};

/* Another format may mean anything by its keys: nothing else is read then. */
static bool format_read(Fields *fields, const JsonValue *root)
{
    const JsonValue *value = field_get(fields, root, "format", FIELD_REQUIRED, "a graph");
    if (!value)
        return true;
    if (!cJSON_IsString(value))
        field_report(fields, DIAG_GRAPH_TYPE, value, false, "format: expected \"%s\", found %s", GRAPH_FORMAT,
                     field_type(value));
    else if (strcmp(value->valuestring, GRAPH_FORMAT) != 0)
        field_report(fields, DIAG_GRAPH_FORMAT, value, false, "format \"%.60s\", only \"%s\" is known",
                     value->valuestring, GRAPH_FORMAT);
    else
        return true;
    return false;
}

/* The file's name without folder and extension. */
static const char *name_of_file(Arena *arena, const char *file)
{
    const char *slash = strrchr(file, '/'), *base = slash ? slash + 1 : file;
    const char *dot = strrchr(base, '.');
    return dot && dot > base ? arena_strndup(arena, base, (size_t)(dot - base)) : arena_strdup(arena, base);
}

static void name_read(Fields *fields, const JsonValue *root, const char *file, Graph *graph)
{
    const JsonValue *value = field_find(root, "name");
    graph->name = name_of_file(fields->arena, file);
    if (!value)
        return;
    if (!cJSON_IsString(value)) {
        field_report(fields, DIAG_GRAPH_TYPE, value, false, "name: expected a string, found %s",
                     field_type(value));
        return;
    }
    const char *name = value->valuestring;
    if (!*name || strlen(name) > MAX_NAME_LEN)
        field_report(fields, DIAG_GRAPH_VALUE, value, false, "name: %zu bytes, expected 1 to %d", strlen(name),
                     MAX_NAME_LEN);
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            field_report(fields, DIAG_GRAPH_VALUE, value, false, "name: a control character");
            break;
        }
    graph->name = arena_strdup(fields->arena, name);
}

static bool mode_read(Fields *fields, const JsonValue *value, TopK *top_k)
{
    int64_t k;
    if (!field_whole(fields, value, "top_k", GRAPH_MAX_SIZE, &k))
        return false;
    for (int i = 0; i < top_k->n_modes; i++)
        if (top_k->k[i] == k) {
            field_report(fields, DIAG_GRAPH_TOP_K, value, false, "top_k: mode %lld is given twice", (long long)k);
            return false;
        }
    top_k->k[top_k->n_modes++] = k;
    return true;
}

static bool modes_read(Fields *fields, const JsonValue *list, TopK *top_k)
{
    int n = cJSON_GetArraySize(list);
    if (n < 1 || n > GRAPH_MAX_MODES) {
        field_report(fields, DIAG_GRAPH_TOP_K, list, false, "top_k: %d modes, expected 1 to %d", n,
                     GRAPH_MAX_MODES);
        return false;
    }
    bool good = true;
    for (const cJSON *item = list->child; item; item = item->next)
        good &= mode_read(fields, item, top_k);
    return good;
}

/* The graph's top_k: a number, a list of modes or "auto". */
static bool top_k_read(Fields *fields, const JsonValue *value, TopK *top_k)
{
    if (!value) {
        *top_k = (TopK){ .n_modes = 1, .k = { 1 } };
        return true;
    }
    if (cJSON_IsString(value)) {
        top_k->automatic = strcmp(value->valuestring, "auto") == 0;
        top_k->n_modes = 1;
        if (!top_k->automatic)
            field_report(fields, DIAG_GRAPH_VALUE, value, false,
                         "top_k: expected a whole number, an array of them or \"auto\", found \"%.60s\"",
                         value->valuestring);
        return top_k->automatic;
    }
    if (cJSON_IsArray(value))
        return modes_read(fields, value, top_k);
    return mode_read(fields, value, top_k);
}

static void experts_read(GraphReader *reader, const JsonValue *root)
{
    Fields *fields = &reader->fields;
    const JsonValue *value = field_find(root, "top_k");
    reader->n_experts = 1;
    if (!field_size(fields, root, "experts", GRAPH_MAX_EXPERTS, &reader->n_experts))
        reader->n_experts = 0;
    reader->top_k_at = value;
    if (!top_k_read(fields, value, &reader->top_k)) {
        reader->top_k = (TopK){ 0 };
        return;
    }
    if (reader->n_experts <= 1 || reader->top_k.automatic)
        return;
    for (int i = 0; i < reader->top_k.n_modes; i++)
        if (reader->top_k.k[i] > reader->n_experts)
            field_report(fields, DIAG_GRAPH_TOP_K, cJSON_IsArray(value) ? cJSON_GetArrayItem(value, i) : value,
                         false, "top_k is %lld, the graph has %lld experts", (long long)reader->top_k.k[i],
                         (long long)reader->n_experts);
}

static void discretization_read(Fields *fields, const JsonValue *root, Graph *graph)
{
    static const char *const choices[] = { [DISCRETIZE_EULER] = "euler", [DISCRETIZE_ZOH] = "zoh" };
    const JsonValue *value = field_find(root, "discretization");
    int choice = DISCRETIZE_EULER;
    if (value)
        field_choice(fields, value, "discretization", choices, N_OF(choices), &choice);
    graph->discretization = (Discretization)choice;
}

static void sizes_read(Fields *fields, const JsonValue *root, Graph *graph)
{
    field_get(fields, root, "vocab_size", FIELD_REQUIRED, "a graph");
    field_size(fields, root, "vocab_size", GRAPH_MAX_SIZE, &graph->vocab_size);
    field_get(fields, root, "d_model", FIELD_REQUIRED, "a graph");
    field_size(fields, root, "d_model", GRAPH_MAX_SIZE, &graph->d_model);
    graph->norm_eps = 1e-5;
    field_number(fields, root, "norm_eps", 0, true, &graph->norm_eps);
    field_bool(fields, root, "tie_embeddings", &graph->tie_embeddings);
    field_bool(fields, root, "renormalize", &graph->renormalize);
}

/* A mode is called by its number; "auto" by what the first layer that follows it makes of it. */
static void modes_name(const GraphReader *reader)
{
    Graph *graph = reader->graph;
    graph->n_modes = reader->top_k.n_modes;
    memcpy(graph->mode_top_k, reader->top_k.k, sizeof graph->mode_top_k);
    if (!reader->top_k.automatic)
        return;
    graph->mode_top_k[0] = 1;
    for (int i = graph->n_layers - 1; i >= 0; i--)
        if (graph->layers[i].n_experts > 1 && !graph->layers[i].own_top_k)
            graph->mode_top_k[0] = graph->layers[i].top_k[0];
}

static void root_read(GraphReader *reader, const JsonValue *root, const char *file)
{
    Fields *fields = &reader->fields;
    if (!cJSON_IsObject(root)) {
        field_report(fields, DIAG_GRAPH_TYPE, root, false, "expected a graph, an object, found %s",
                     field_type(root));
        return;
    }
    if (!format_read(fields, root))
        return;
    field_known_keys(fields, root, "a graph", graph_keys, N_OF(graph_keys));
    name_read(fields, root, file, reader->graph);
    sizes_read(fields, root, reader->graph);
    discretization_read(fields, root, reader->graph);
    experts_read(reader, root);
    const JsonValue *layers = field_get(fields, root, "layers", FIELD_REQUIRED, "a graph");
    if (!layers)
        return;
    graph_read_layers(reader, layers);
    modes_name(reader);
    if (!fields->failed && !graph_params_fit(reader->graph))
        field_report(fields, DIAG_GRAPH_LARGE, root, false, "the graph has more than %lld parameters",
                     (long long)GRAPH_MAX_PARAMS);
}

Graph *graph_read_text(Arena *arena, Diags *diags, const char *file, const char *text, size_t len)
{
    Json *json = json_parse(arena, diags, file, text, len, JSON_MAX_BYTES);
    if (!json)
        return NULL;
    GraphReader reader = { .fields = { arena, diags, json, false }, .graph = arena_one(arena, Graph) };
    reader.graph->layers = arena_array(arena, Layer, GRAPH_MAX_LAYERS);
    root_read(&reader, json_root(json), file);
    json_free(json);
    return reader.fields.failed ? NULL : reader.graph;
}

/* Whole file in memory of malloc, or NULL with errno; one byte past `max` shows that it is longer. */
static char *file_slurp(const char *path, size_t max, size_t *len)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    char *bytes = malloc(max + 1);
    *len = bytes ? fread(bytes, 1, max + 1, file) : 0;
    int error = !bytes ? ENOMEM : ferror(file) ? errno : 0;
    fclose(file);
    if (error) {
        free(bytes);
        errno = error;
        return NULL;
    }
    return bytes;
}

Graph *graph_read_file(Arena *arena, Diags *diags, const char *path)
{
    size_t len;
    char *bytes = file_slurp(path, JSON_MAX_BYTES, &len);
    if (!bytes) {
        diag_report(diags, DIAG_FILE_READ, &(Place){ .file = arena_strdup(arena, path) },
                    "cannot read the graph: %s", strerror(errno));
        return NULL;
    }
    Graph *graph = graph_read_text(arena, diags, path, bytes, len);
    const char *end = strrchr(path, '.');
    if (!graph && !(end && strcmp(end, ".json") == 0))
        diag_note(diags, NULL, "`%s` was read as a graph, which is a JSON file%s", path,
                  end && strcmp(end, ".safetensors") == 0 ? "; a checkpoint is given by --weights" : "");
    free(bytes);
    return graph;
}

static bool modes_valid(Diags *diags, const int64_t *top_k, int n_modes)
{
    if (n_modes < 1 || n_modes > GRAPH_MAX_MODES) {
        diag_report(diags, DIAG_USAGE, NULL, "%d values of experts per token, expected 1 to %d", n_modes,
                    GRAPH_MAX_MODES);
        return false;
    }
    for (int i = 0; i < n_modes; i++) {
        bool twice = false;
        for (int j = 0; j < i; j++)
            twice |= top_k[j] == top_k[i];
        if (top_k[i] >= 1 && !twice)
            continue;
        diag_report(diags, DIAG_USAGE, NULL, "experts per token: %lld is %s", (long long)top_k[i],
                    twice ? "given twice" : "too small, at least 1");
        return false;
    }
    return true;
}

bool graph_set_modes(Graph *graph, Diags *diags, const int64_t *top_k, int n_modes)
{
    if (!modes_valid(diags, top_k, n_modes))
        return false;
    for (int mode = 0; mode < n_modes; mode++)
        for (int i = 0; i < graph->n_layers; i++) {
            const Layer *layer = &graph->layers[i];
            if (layer->own_top_k || layer->n_experts == 1 || top_k[mode] <= layer->n_experts)
                continue;
            diag_report(diags, DIAG_GRAPH_TOP_K, &layer->at, "%lld experts per token were asked for, "
                        "layer %d has %lld experts", (long long)top_k[mode], i, (long long)layer->n_experts);
            return false;
        }
    graph->n_modes = n_modes;
    memcpy(graph->mode_top_k, top_k, (size_t)n_modes * sizeof *top_k);
    for (int i = 0; i < graph->n_layers; i++)
        for (int mode = 0; mode < n_modes; mode++) {
            Layer *layer = &graph->layers[i];
            if (!layer->own_top_k)
                layer->top_k[mode] = layer->n_experts == 1 ? 1 : top_k[mode];
        }
    return true;
}
