/* Folders as transformers would save them.
 *
 * Input: a graph whose layers are those of mamba, llama, mistral or mixtral. Output: config.json
 * and one or several safetensors files with their names and shapes.
 * Invariant: values are hf_value of the graph's tensor, so that an import can be compared bit by bit.
 */
#include "hf_folder.h"

#include "../support/safetensors_write.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

float hf_value(int t, int64_t i)
{
    int64_t hash = (t * 7919 + i * 104729 + 12345) % 241 - 120;
    return (float)(hash ? hash : 1) / 64;
}

static const struct { const char *ours, *theirs; } layer_names[] = {
    { "mamba/norm.weight", "backbone.layers.%d.norm.weight" },
    { "mamba/in_proj.weight", "backbone.layers.%d.mixer.in_proj.weight" },
    { "mamba/conv1d.weight", "backbone.layers.%d.mixer.conv1d.weight" },
    { "mamba/conv1d.bias", "backbone.layers.%d.mixer.conv1d.bias" },
    { "mamba/x_proj.weight", "backbone.layers.%d.mixer.x_proj.weight" },
    { "mamba/dt_proj.weight", "backbone.layers.%d.mixer.dt_proj.weight" },
    { "mamba/dt_proj.bias", "backbone.layers.%d.mixer.dt_proj.bias" },
    { "mamba/A_log", "backbone.layers.%d.mixer.A_log" },
    { "mamba/D", "backbone.layers.%d.mixer.D" },
    { "mamba/out_proj.weight", "backbone.layers.%d.mixer.out_proj.weight" },
    { "attention/norm.weight", "model.layers.%d.input_layernorm.weight" },
    { "attention/q_proj.weight", "model.layers.%d.self_attn.q_proj.weight" },
    { "attention/k_proj.weight", "model.layers.%d.self_attn.k_proj.weight" },
    { "attention/v_proj.weight", "model.layers.%d.self_attn.v_proj.weight" },
    { "attention/o_proj.weight", "model.layers.%d.self_attn.o_proj.weight" },
    { "mlp/norm.weight", "model.layers.%d.post_attention_layernorm.weight" },
    { "mlp/gate_proj.weight", "model.layers.%d.mlp.gate_proj.weight" },
    { "mlp/up_proj.weight", "model.layers.%d.mlp.up_proj.weight" },
    { "mlp/down_proj.weight", "model.layers.%d.mlp.down_proj.weight" },
};

typedef struct {
    HfTensors *out;
    const Graph *graph;
    const HfModel *model;
    const TensorSpec *specs;
    bool mamba;
} Writer;

/* --- data --- */

static void put_value(Text *data, DType dtype, float value)
{
    uint16_t half = dtype == DTYPE_BF16 ? dtype_f32_to_bf16(value) : dtype_f32_to_f16(value);
    text_append(data, dtype == DTYPE_F32 ? (const char *)&value : (const char *)&half, dtype == DTYPE_F32 ? 4 : 2);
}

/* Elements [begin, begin + count) of the graph's tensor t. */
static void put_values(const Writer *w, Text *data, int t, int64_t begin, int64_t count)
{
    for (int64_t i = begin; i < begin + count; i++)
        put_value(data, w->model->dtype, hf_value(t, i));
}

void hf_add(HfTensors *tensors, HfTensor tensor)
{
    char *copy = arena_alloc(tensors->arena, tensor.len + 1);
    memcpy(copy, tensor.data, tensor.len);
    tensor.data = copy;
    tensors->tensors[tensors->n++] = tensor;
}

static void add(const Writer *w, const char *name, Text *data, int rank, int64_t a, int64_t b, int64_t c)
{
    hf_add(w->out, (HfTensor){ name, dtype_info(w->model->dtype)->safetensors, rank, { a, b, c }, data->data, data->len });
    text_free(data);
}

/* The whole of tensor t, its leading axis dropped when that is the expert axis of a dense one. */
static void add_whole(const Writer *w, const char *name, int t)
{
    const TensorSpec *spec = &w->specs[t];
    Text data = { 0 };
    put_values(w, &data, t, 0, tensor_spec_count(spec));
    int64_t shape[4] = { 0 };
    memcpy(shape, spec->shape + spec->per_expert, (size_t)(spec->rank - spec->per_expert) * sizeof *shape);
    if (strstr(name, "conv1d.weight"))
        add(w, name, &data, 3, shape[0], 1, shape[1]);
    else
        add(w, name, &data, spec->rank - spec->per_expert, shape[0], shape[1], shape[2]);
}

/* --- experts --- */

static void add_split(const Writer *w, int t, int layer, const char *which)
{
    const TensorSpec *spec = &w->specs[t];
    int64_t each = spec->shape[1] * spec->shape[2];
    for (int64_t e = 0; e < spec->shape[0]; e++) {
        Text data = { 0 };
        put_values(w, &data, t, e * each, each);
        add(w, arena_printf(w->out->arena, "model.layers.%d.block_sparse_moe.experts.%d.%s.weight", layer, (int)e, which),
            &data, 2, spec->shape[1], spec->shape[2], 0);
    }
}

/* [E, 2f, d]: of each expert gate, then up. up_proj is the tensor after gate_proj. */
static void add_gate_up(const Writer *w, int gate, int layer)
{
    const TensorSpec *spec = &w->specs[gate];
    int64_t each = spec->shape[1] * spec->shape[2];
    Text data = { 0 };
    for (int64_t e = 0; e < spec->shape[0]; e++) {
        put_values(w, &data, gate, e * each, each);
        put_values(w, &data, gate + 1, e * each, each);
    }
    add(w, arena_printf(w->out->arena, "model.layers.%d.mlp.experts.gate_up_proj", layer), &data, 3, spec->shape[0],
        2 * spec->shape[1], spec->shape[2]);
}

/* False when it is no tensor of routed experts. */
static bool add_expert_tensor(const Writer *w, int t, int layer, const char *suffix)
{
    bool fused = w->model->experts == HF_FUSED;
    bool gate = strcmp(suffix, "gate_proj.weight") == 0, up = strcmp(suffix, "up_proj.weight") == 0;
    bool down = strcmp(suffix, "down_proj.weight") == 0, router = strcmp(suffix, "router.weight") == 0;
    Text data = { 0 };
    if (router) {
        put_values(w, &data, t, 0, tensor_spec_count(&w->specs[t]));
        add(w, arena_printf(w->out->arena, "model.layers.%d.%s.gate.weight", layer, fused ? "mlp" : "block_sparse_moe"), &data,
            2, w->specs[t].shape[0], w->specs[t].shape[1], 0);
    } else if (fused && down) {
        put_values(w, &data, t, 0, tensor_spec_count(&w->specs[t]));
        add(w, arena_printf(w->out->arena, "model.layers.%d.mlp.experts.down_proj", layer), &data, 3, w->specs[t].shape[0],
            w->specs[t].shape[1], w->specs[t].shape[2]);
    } else if (fused && gate) {
        add_gate_up(w, t, layer);
    } else if (!fused && (gate || up || down)) {
        add_split(w, t, layer, gate ? "w1" : up ? "w3" : "w2");
    }
    return gate || up || down || router;
}

/* --- all tensors --- */

static void add_layer_tensor(const Writer *w, int t)
{
    int index = w->specs[t].layer, layer = w->mamba ? index : index / 2;
    const Layer *of = &w->graph->layers[index];
    const char *suffix = strchr(w->specs[t].name + strlen("layers."), '.') + 1;
    if (of->n_experts > 1 && add_expert_tensor(w, t, layer, suffix))
        return;
    if (w->model->no_conv_bias && strcmp(suffix, "conv1d.bias") == 0)
        return;
    const char *ours = arena_printf(w->out->arena, "%s/%s", layer_kind_text(of->kind), suffix);
    for (size_t i = 0; i < sizeof layer_names / sizeof *layer_names; i++)
        if (strcmp(layer_names[i].ours, ours) == 0) {
            char name[128];
            const char *at = strstr(layer_names[i].theirs, "%d");
            snprintf(name, sizeof name, "%.*s%d%s", (int)(at - layer_names[i].theirs), layer_names[i].theirs, layer, at + 2);
            add_whole(w, arena_strdup(w->out->arena, name), t);
        }
}

static void add_model_tensor(const Writer *w, int t)
{
    const char *name = w->specs[t].name;
    const char *embed = w->model->original ? "backbone.embedding.weight" : "backbone.embeddings.weight";
    if (strcmp(name, "lm_head.weight") == 0)
        add_whole(w, "lm_head.weight", t);
    else if (strcmp(name, "norm_f.weight") == 0)
        add_whole(w, w->mamba ? "backbone.norm_f.weight" : "model.norm.weight", t);
    else
        add_whole(w, w->mamba ? embed : "model.embed_tokens.weight", t);
    if (w->model->head_too && strcmp(name, "embed.weight") == 0)
        add_whole(w, "lm_head.weight", t);
}

HfTensors hf_tensors(Arena *arena, const Graph *graph, const HfModel *model)
{
    HfTensors out = { arena, arena_array(arena, HfTensor, 4096), 0 };
    int n;
    Writer w = { &out, graph, model, graph_tensors(graph, arena, &n), graph->layers[0].kind == LAYER_MAMBA };
    for (int t = 0; t < n; t++)
        if (w.specs[t].layer < 0)
            add_model_tensor(&w, t);
        else
            add_layer_tensor(&w, t);
    if (model->inv_freq)
        hf_add(&out, (HfTensor){ "model.layers.0.self_attn.rotary_emb.inv_freq", "F32", 1, { 2 }, "\0\0\0\0\0\0\0", 8 });
    return out;
}

HfTensor *hf_find(HfTensors *tensors, const char *name)
{
    for (int i = 0; i < tensors->n; i++)
        if (strcmp(tensors->tensors[i].name, name) == 0)
            return &tensors->tensors[i];
    return NULL;
}

void hf_remove(HfTensors *tensors, const char *name)
{
    HfTensor *tensor = hf_find(tensors, name);
    if (tensor)
        *tensor = tensors->tensors[--tensors->n];
}

/* --- files --- */

static bool save(const char *folder, const char *name, Text *bytes)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    bool good = safetensors_save(path, bytes);
    text_free(bytes);
    return good;
}

/* The last tensors first: a reader may not count on an order. */
static bool save_shard(const HfTensors *tensors, const char *folder, const char *name, int shard, int n_shards)
{
    Text header = { 0 }, data = { 0 }, bytes = { 0 };
    text_printf(&header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = tensors->n - 1; i >= 0; i--) {
        const HfTensor *t = &tensors->tensors[i];
        if (i % n_shards != shard)
            continue;
        text_printf(&header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, t->dtype);
        for (int axis = 0; axis < t->rank; axis++)
            text_printf(&header, "%s%" PRId64, axis ? "," : "", t->shape[axis]);
        text_printf(&header, "],\"data_offsets\":[%zu,%zu]}", data.len, data.len + t->len);
        text_append(&data, t->data, t->len);
    }
    text_printf(&header, "}");
    safetensors_put(&bytes, header.data, data.data ? data.data : "", data.len);
    text_free(&header);
    text_free(&data);
    return save(folder, name, &bytes);
}

static bool save_shards(const HfTensors *tensors, const char *folder, int n_shards)
{
    Text index = { 0 };
    char name[64];
    bool good = true;
    text_printf(&index, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (int i = 0; i < tensors->n; i++)
        text_printf(&index, "%s\"%s\":\"model-%05d-of-%05d.safetensors\"", i ? "," : "", tensors->tensors[i].name,
                    i % n_shards + 1, n_shards);
    text_printf(&index, "}}");
    for (int shard = 0; shard < n_shards; shard++) {
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", shard + 1, n_shards);
        good = save_shard(tensors, folder, name, shard, n_shards) && good;
    }
    return save(folder, "model.safetensors.index.json", &index) && good;
}

bool hf_write(const HfTensors *tensors, const HfModel *model, const char *folder)
{
    Text config = { 0 };
    text_printf(&config, "%s", model->config);
    bool good = save(folder, "config.json", &config);
    if (model->n_shards > 1)
        return save_shards(tensors, folder, model->n_shards) && good;
    return save_shard(tensors, folder, "model.safetensors", 0, 1) && good;
}
