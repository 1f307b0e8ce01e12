/* config.json -> what the model is -> graph text.
 *
 * Input: the JSON of a Hugging Face folder. Output: an ImportConfig, and the graph as JSON.
 * Absent keys get the defaults of transformers' configuration classes, which are not the same for
 * all models. Invariant: a key that would change the logits in a way the graph cannot express is
 * an error, an unknown key a warning; import_keys.def says which is which.
 */
#include "import_config.h"

#include "graph_fields.h"
#include "import_files.h"

#include <cjson/cJSON.h>

#include <string.h>

enum { MAMBA = 1, LLAMA = 2, MISTRAL = 4, MIXTRAL = 8, ORIGINAL = 16,
       DECODER = LLAMA | MISTRAL | MIXTRAL, ANY = MAMBA | DECODER | ORIGINAL };

typedef enum { RULE_READ, RULE_INERT, RULE_OFF, RULE_NONE, RULE_SILU, RULE_TRUE, RULE_UNIT, RULE_EMPTY } Rule;

static const struct { int models; const char *key; Rule rule; const char *why; } keys[] = {
#define KEY(models, key, rule, why) { models, key, RULE_##rule, why },
#include "import_keys.def"
#undef KEY
};
enum { N_KEYS = sizeof keys / sizeof *keys };

static const struct { const char *name; int model; } models[] = {
    { "llama", LLAMA }, { "mamba", MAMBA }, { "mistral", MISTRAL }, { "mixtral", MIXTRAL },
};
enum { N_MODELS = sizeof models / sizeof *models };

/* Close relatives that people will try, and what keeps them out. */
static const struct { const char *model_type, *why; } strangers[] = {
    { "jamba", "its mamba layers normalise dt, B and C (dt_layernorm, b_layernorm, c_layernorm), the graph's do not" },
    { "falcon_mamba", "its mamba layers normalise dt, B and C, the graph's do not" },
    { "mamba2", "its state decays by one number a head, the graph's by one an element (A_log)" },
    { "bamba", "its mamba layers are those of mamba2" },
    { "qwen2", "its q, k and v projections have biases" },
    { "qwen3", "it normalises queries and keys" },
    { "qwen2_moe", "it has a shared expert beside the routed ones" },
    { "gemma", "its norms multiply by 1 + weight, its activation is gelu and its embedding is scaled" },
    { "gemma2", "its norms multiply by 1 + weight, its activation is gelu and its logits are capped" },
    { "phi3", "its projections are fused and its rotary positions are scaled" },
};

typedef struct {
    Fields fields;
    const JsonValue *root;
    int model;
    const char *where;      /* "a llama config" */
    ImportConfig *out;
} Reader;

/* null is how config.json says that a key has no value. */
static const JsonValue *value_of(const JsonValue *object, const char *key)
{
    const JsonValue *value = field_find(object, key);
    return cJSON_IsNull(value) ? NULL : value;
}

static void refuse(Reader *reader, const JsonValue *value, const char *key, const char *why)
{
    char *text = cJSON_PrintUnformatted(value);
    field_report(&reader->fields, DIAG_IMPORT_FEATURE, value, true, "%s: %.60s cannot be expressed: %s", key,
                 text ? text : "this value", why);
    cJSON_free(text);
}

/* --- keys --- */

static bool rule_holds(Rule rule, const JsonValue *value)
{
    bool number = cJSON_IsNumber(value);
    switch (rule) {
    case RULE_READ: case RULE_INERT: return true;
    case RULE_OFF: return cJSON_IsFalse(value);
    case RULE_NONE: return false;
    case RULE_SILU:
        return cJSON_IsString(value) && (!strcmp(value->valuestring, "silu") || !strcmp(value->valuestring, "swish"));
    case RULE_TRUE: return cJSON_IsTrue(value);
    case RULE_UNIT: return number && value->valuedouble == 1;
    case RULE_EMPTY:
        return (number && value->valuedouble == 0) || ((cJSON_IsArray(value) || cJSON_IsObject(value)) && !value->child);
    }
    BUG("rule %d", (int)rule);
}

static void key_check(Reader *reader, const JsonValue *value)
{
    for (int i = 0; i < N_KEYS; i++) {
        if (!(keys[i].models & reader->model) || strcmp(keys[i].key, value->string) != 0)
            continue;
        if (!cJSON_IsNull(value) && !rule_holds(keys[i].rule, value))
            refuse(reader, value, value->string, keys[i].why);
        return;
    }
    Place at = json_place(reader->fields.json, value, true);
    diag_report(reader->fields.diags, DIAG_IMPORT_KEY, &at, "%.60s is no key of %s that import knows; it is ignored",
                value->string, reader->where);
}

/* --- values --- */

static void size_read(Reader *reader, const JsonValue *object, const char *key, int64_t absent, int64_t *out)
{
    const JsonValue *value = value_of(object, key);
    *out = absent;
    if (value)
        field_whole(&reader->fields, value, key, GRAPH_MAX_SIZE, out);
}

static void size_need(Reader *reader, const char *key, int64_t *out)
{
    *out = 1;
    if (field_get(&reader->fields, reader->root, key, FIELD_REQUIRED, reader->where))
        field_size(&reader->fields, reader->root, key, GRAPH_MAX_SIZE, out);
}

static bool flag_read(Reader *reader, const JsonValue *object, const char *key, bool absent)
{
    bool flag = absent;
    if (value_of(object, key))
        field_bool(&reader->fields, object, key, &flag);
    return flag;
}

/* A number above 0. */
static double number_read(Reader *reader, const JsonValue *object, const char *key, double absent)
{
    double number = absent;
    if (value_of(object, key))
        field_number(&reader->fields, object, key, 0, true, &number);
    return number;
}

/* --- mamba --- */

static int64_t rank_read(Reader *reader, const JsonValue *object, const char *key)
{
    const JsonValue *value = value_of(object, key);
    int64_t rank = (reader->out->d_model + 15) / 16;
    if (value && !(cJSON_IsString(value) && strcmp(value->valuestring, "auto") == 0))
        field_whole(&reader->fields, value, key, GRAPH_MAX_SIZE, &rank);
    return rank;
}

static int64_t expand_read(Reader *reader, const JsonValue *object)
{
    double inner = number_read(reader, object, "expand", 2) * (double)reader->out->d_model;
    return inner >= 1 && inner <= (double)GRAPH_MAX_SIZE ? (int64_t)inner : 1;
}

static void mamba_finish(ImportConfig *out, bool conv_bias)
{
    out->families = IMPORT_MAMBA | (conv_bias ? IMPORT_BIASED : IMPORT_UNBIASED);
    out->n_experts = out->top_k = 1;
}

static void mamba_read(Reader *reader)
{
    ImportConfig *out = reader->out;
    size_need(reader, "hidden_size", &out->d_model);
    size_need(reader, "num_hidden_layers", &out->n_layers);
    out->norm_eps = number_read(reader, reader->root, "layer_norm_epsilon", 1e-5);
    out->tied = flag_read(reader, reader->root, "tie_word_embeddings", true);
    size_read(reader, reader->root, "intermediate_size", expand_read(reader, reader->root), &out->mamba.d_inner);
    size_read(reader, reader->root, "state_size", 16, &out->mamba.d_state);
    size_read(reader, reader->root, "conv_kernel", 4, &out->mamba.d_conv);
    out->mamba.dt_rank = rank_read(reader, reader->root, "time_step_rank");
    mamba_finish(out, flag_read(reader, reader->root, "use_conv_bias", true));
}

/* ssm_cfg holds arguments of the layer's constructor, in the repository's own words. */
static void original_layer_read(Reader *reader, const JsonValue *cfg)
{
    static const char *const known[] = { "layer", "d_state", "d_conv", "expand", "dt_rank", "conv_bias", "bias" };
    const JsonValue *layer = value_of(cfg, "layer"), *bias = value_of(cfg, "bias");
    ImportConfig *out = reader->out;
    if (layer && !(cJSON_IsString(layer) && strcmp(layer->valuestring, "Mamba1") == 0))
        refuse(reader, layer, "ssm_cfg/layer", "the graph's layer is Mamba1");
    if (bias && !cJSON_IsFalse(bias))
        refuse(reader, bias, "ssm_cfg/bias", "in_proj and out_proj of a mamba layer have no bias");
    if (cfg)
        field_known_keys(&reader->fields, cfg, "ssm_cfg", known, sizeof known / sizeof *known);
    out->mamba.d_inner = expand_read(reader, cfg);
    size_read(reader, cfg, "d_state", 16, &out->mamba.d_state);
    size_read(reader, cfg, "d_conv", 4, &out->mamba.d_conv);
    out->mamba.dt_rank = rank_read(reader, cfg, "dt_rank");
    mamba_finish(out, flag_read(reader, cfg, "conv_bias", true));
}

static void original_read(Reader *reader)
{
    ImportConfig *out = reader->out;
    const JsonValue *cfg = value_of(reader->root, "ssm_cfg");
    int64_t multiple;
    size_need(reader, "d_model", &out->d_model);
    size_need(reader, "n_layer", &out->n_layers);
    size_read(reader, reader->root, "pad_vocab_size_multiple", 8, &multiple);
    out->vocab_size += (multiple - out->vocab_size % multiple) % multiple;
    out->norm_eps = 1e-5;
    out->tied = flag_read(reader, reader->root, "tie_embeddings", true);
    if (cfg && !cJSON_IsObject(cfg))
        field_report(&reader->fields, DIAG_GRAPH_TYPE, cfg, false, "ssm_cfg: expected an object, found %s", field_type(cfg));
    else
        original_layer_read(reader, cfg);
}

/* --- llama, mistral, mixtral --- */

/* Only what leaves positions as they are: "default", under its old and new key. */
static bool rope_plain(const JsonValue *item)
{
    bool type = strcmp(item->string, "rope_type") == 0 || strcmp(item->string, "type") == 0;
    if (type)
        return cJSON_IsString(item) && strcmp(item->valuestring, "default") == 0;
    return cJSON_IsNull(item) || (strcmp(item->string, "partial_rotary_factor") == 0 && rule_holds(RULE_UNIT, item));
}

/* rope_scaling, or rope_parameters as it is called since transformers 5. */
static void rope_read(Reader *reader, const char *key, double *theta)
{
    const JsonValue *rope = value_of(reader->root, key);
    if (rope && !cJSON_IsObject(rope)) {
        field_report(&reader->fields, DIAG_GRAPH_TYPE, rope, false, "%s: expected an object, found %s", key, field_type(rope));
        return;
    }
    for (const cJSON *item = rope ? rope->child : NULL; item; item = item->next) {
        if (strcmp(item->string, "rope_theta") == 0) {
            *theta = number_read(reader, rope, "rope_theta", *theta);
        } else if (!rope_plain(item)) {
            refuse(reader, rope, key, "rotary positions of the graph are not scaled");
            return;
        }
    }
}

static void heads_read(Reader *reader)
{
    AttentionLayer *attention = &reader->out->attention;
    int64_t d = reader->out->d_model;
    size_need(reader, "num_attention_heads", &attention->n_heads);
    bool grouped = reader->model != LLAMA && !field_find(reader->root, "num_key_value_heads");
    size_read(reader, reader->root, "num_key_value_heads", grouped ? 8 : attention->n_heads, &attention->n_kv_heads);
    size_read(reader, reader->root, "head_dim", d / attention->n_heads, &attention->head_dim);
    const JsonValue *heads = field_find(reader->root, "num_attention_heads");
    if (!reader->fields.failed && !value_of(reader->root, "head_dim") && d % attention->n_heads)
        field_report(&reader->fields, DIAG_GRAPH_HEADS, heads, false,
                     "num_attention_heads: hidden_size is %lld, not a multiple of %lld", (long long)d,
                     (long long)attention->n_heads);
    if (!reader->fields.failed && attention->n_heads % attention->n_kv_heads)
        field_report(&reader->fields, DIAG_GRAPH_HEADS, heads, false,
                     "num_attention_heads: %lld heads are not a multiple of %lld key heads",
                     (long long)attention->n_heads, (long long)attention->n_kv_heads);
}

static void window_read(Reader *reader)
{
    bool silent = !field_find(reader->root, "sliding_window");
    if (reader->model != LLAMA)
        size_read(reader, reader->root, "sliding_window", reader->model == MISTRAL && silent ? 4096 : 0,
                  &reader->out->attention.window);
}

static void experts_read(Reader *reader)
{
    ImportConfig *out = reader->out;
    out->n_experts = out->top_k = 1;
    out->families = IMPORT_DECODER | (reader->model == MIXTRAL ? IMPORT_EXPERTS : IMPORT_DENSE);
    if (reader->model != MIXTRAL)
        return;
    size_read(reader, reader->root, "num_local_experts", 8, &out->n_experts);
    size_read(reader, reader->root, "num_experts_per_tok", 2, &out->top_k);
    if (out->n_experts == 1)
        out->families |= IMPORT_SINGLE;
    const JsonValue *top_k = field_find(reader->root, "num_experts_per_tok");
    if (out->top_k > out->n_experts)
        field_report(&reader->fields, DIAG_GRAPH_TOP_K, top_k ? top_k : reader->root, false,
                     "num_experts_per_tok is %lld, num_local_experts %lld", (long long)out->top_k,
                     (long long)out->n_experts);
}

static void decoder_read(Reader *reader)
{
    ImportConfig *out = reader->out;
    size_need(reader, "hidden_size", &out->d_model);
    size_need(reader, "num_hidden_layers", &out->n_layers);
    size_need(reader, "intermediate_size", &out->mlp.d_ff);
    out->norm_eps = number_read(reader, reader->root, "rms_norm_eps", reader->model == MIXTRAL ? 1e-5 : 1e-6);
    out->tied = flag_read(reader, reader->root, "tie_word_embeddings", false);
    double theta = number_read(reader, reader->root, "rope_theta", reader->model == MIXTRAL ? 1e6 : 1e4);
    rope_read(reader, "rope_parameters", &theta);
    rope_read(reader, "rope_scaling", &theta);
    out->attention.rope_theta = theta;
    heads_read(reader);
    window_read(reader);
    experts_read(reader);
}

/* --- all of it --- */

static void model_type_refuse(Reader *reader, const JsonValue *value)
{
    const char *why = NULL;
    for (size_t i = 0; cJSON_IsString(value) && i < sizeof strangers / sizeof *strangers; i++)
        if (strcmp(strangers[i].model_type, value->valuestring) == 0)
            why = strangers[i].why;
    if (why)
        refuse(reader, value, "model_type", why);
    else if (value)
        field_report(&reader->fields, DIAG_IMPORT_FEATURE, value, false,
                     "model_type: expected \"llama\", \"mamba\", \"mistral\" or \"mixtral\"%s%.60s%s",
                     cJSON_IsString(value) ? ", found \"" : "", cJSON_IsString(value) ? value->valuestring : "",
                     cJSON_IsString(value) ? "\"" : "");
    else
        field_get(&reader->fields, reader->root, "model_type", FIELD_REQUIRED, "config.json");
}

static bool model_find(Reader *reader)
{
    const JsonValue *value = field_find(reader->root, "model_type");
    if (!value && field_find(reader->root, "d_model") && field_find(reader->root, "n_layer")) {
        reader->model = ORIGINAL;
        reader->out->model_type = "state-spaces";
    }
    for (int i = 0; cJSON_IsString(value) && i < N_MODELS; i++)
        if (strcmp(models[i].name, value->valuestring) == 0) {
            reader->model = models[i].model;
            reader->out->model_type = models[i].name;
        }
    if (!reader->model)
        model_type_refuse(reader, value);
    else
        reader->where = arena_printf(reader->fields.arena, "a %s config", reader->out->model_type);
    return reader->model != 0;
}

static void root_read(Reader *reader)
{
    if (!cJSON_IsObject(reader->root)) {
        field_report(&reader->fields, DIAG_GRAPH_TYPE, reader->root, false, "expected an object, found %s",
                     field_type(reader->root));
        return;
    }
    if (!model_find(reader))
        return;
    for (const cJSON *item = reader->root->child; item && !diags_full(reader->fields.diags); item = item->next)
        key_check(reader, item);
    size_need(reader, "vocab_size", &reader->out->vocab_size);
    if (reader->model == MAMBA)
        mamba_read(reader);
    else if (reader->model == ORIGINAL)
        original_read(reader);
    else
        decoder_read(reader);
    reader->out->families |= reader->out->tied ? IMPORT_TIED : IMPORT_UNTIED;
}

bool import_config_read(Arena *arena, Diags *diags, const char *path, ImportConfig *out)
{
    *out = (ImportConfig){ 0 };
    Json *json = import_read_json(arena, diags, path);
    if (!json)
        return false;
    Reader reader = { .fields = { arena, diags, json, false }, .root = json_root(json), .out = out };
    root_read(&reader);
    json_free(json);
    return !reader.fields.failed;
}

/* --- printing --- */

static void print_number(Text *out, const char *key, double value)
{
    text_printf(out, ", \"%s\": ", key);
    text_double(out, value);
}

static void print_mamba(const ImportConfig *config, Text *out)
{
    const MambaLayer *mamba = &config->mamba;
    text_printf(out, "{ \"op\": \"mamba\", \"d_inner\": %lld, \"d_state\": %lld, \"d_conv\": %lld, \"dt_rank\": %lld }",
                (long long)mamba->d_inner, (long long)mamba->d_state, (long long)mamba->d_conv, (long long)mamba->dt_rank);
}

static void print_decoder(const ImportConfig *config, Text *out)
{
    const AttentionLayer *attention = &config->attention;
    text_printf(out, "\n      { \"op\": \"attention\", \"heads\": %lld, \"kv_heads\": %lld", (long long)attention->n_heads,
                (long long)attention->n_kv_heads);
    if (attention->head_dim * attention->n_heads != config->d_model)
        text_printf(out, ", \"head_dim\": %lld", (long long)attention->head_dim);
    if (attention->window)
        text_printf(out, ", \"window\": %lld", (long long)attention->window);
    print_number(out, "rope_theta", attention->rope_theta);
    text_printf(out, " },\n      { \"op\": \"mlp\", \"d_ff\": %lld }", (long long)config->mlp.d_ff);
}

void import_config_print(const ImportConfig *config, const char *name, Text *out)
{
    text_printf(out, "{ \"format\": \"mossnet-graph/1\", \"name\": ");
    text_json_string(out, name);
    text_printf(out, ",\n  \"vocab_size\": %lld, \"d_model\": %lld", (long long)config->vocab_size,
                (long long)config->d_model);
    print_number(out, "norm_eps", config->norm_eps);
    text_printf(out, ", \"tie_embeddings\": %s,\n", config->tied ? "true" : "false");
    if (config->n_experts > 1)
        text_printf(out, "  \"experts\": %lld, \"top_k\": %lld, \"renormalize\": true,\n", (long long)config->n_experts,
                    (long long)config->top_k);
    text_printf(out, "  \"layers\": [\n    { \"repeat\": %lld, \"of\": [", (long long)config->n_layers);
    text_append(out, " ", config->families & IMPORT_MAMBA ? 1 : 0);
    if (config->families & IMPORT_MAMBA)
        print_mamba(config, out);
    else
        print_decoder(config, out);
    text_printf(out, " ] }\n  ] }\n");
}
