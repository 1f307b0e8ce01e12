/* Import: goldens of transformers, every supported form bit by bit, every refusal.
 *
 * Input: tests/data/import, and folders that hf_folder.c writes. Output: what import_folder makes of
 * them, under a temporary folder.
 * Invariant: a refused import leaves nothing behind; an accepted one computes what its source does.
 */
#include "../../compiler/graph_read.h"
#include "../../compiler/import.h"
#include "../diff/golden.h"
#include "../ref/ref.h"
#include "../support/safetensors_write.h"
#include "hf_folder.h"
#include "unit.h"

#include <dirent.h>
#include <ftw.h>
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define N_OF(array) ((int)(sizeof(array) / sizeof(array)[0]))

/* --- a temporary folder with hf/ in it; out/ is where imports go --- */

typedef struct { Arena *arena; Diags *diags; char top[40]; const char *hf, *out; } Case;

static Case case_new(void)
{
    Case c = { .arena = arena_new(), .top = "/tmp/mossc-import-XXXXXX" };
    c.diags = diags_new(c.arena);
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(c.top));
    c.hf = arena_printf(c.arena, "%s/hf", c.top);
    c.out = arena_printf(c.arena, "%s/out", c.top);
    CU_ASSERT_EQUAL_FATAL(mkdir(c.hf, 0755), 0);
    return c;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *at)
{
    (void)info, (void)kind, (void)at;
    return remove(path);
}

static void case_free(Case *c)
{
    nftw(c->top, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    arena_free(c->arena);
}

static int count_entries(const char *folder)
{
    DIR *dir = opendir(folder);
    int n = 0;
    for (const struct dirent *entry; dir && (entry = readdir(dir));)
        n += entry->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return n;
}

static const char *diags_text(const Case *c)
{
    Text text = { 0 };
    diags_print(c->diags, &text);
    const char *copy = arena_strdup(c->arena, text.data ? text.data : "");
    text_free(&text);
    return copy;
}

static bool import_here(const Case *c)
{
    return import_folder(c->arena, c->diags, c->hf, c->out, false);
}

static bool import_well(const Case *c)
{
    bool good = import_here(c) && !*diags_text(c);
    if (!good)
        printf("%s", diags_text(c));
    return good;
}

/* What is in the output folder, opened. */
typedef struct { Graph *graph; Weights *weights; } Model;

static Model model_open(const Case *c)
{
    Model model = { .graph = graph_read_file(c->arena, c->diags, arena_printf(c->arena, "%s/model.json", c->out)) };
    if (model.graph)
        model.weights = weights_open(c->arena, c->diags, model.graph, arena_printf(c->arena, "%s/model.safetensors", c->out));
    return model;
}

/* --- goldens of transformers --- */

static double golden_error(const Case *c, const char *folder, const Model *model)
{
    int n_tokens;
    const int32_t *tokens = golden_tokens(c->arena, arena_printf(c->arena, "%s/tokens.txt", folder), &n_tokens);
    FILE *file = fopen(arena_printf(c->arena, "%s/logits.f32", folder), "rb");
    if (!tokens || !file)
        return INFINITY;
    size_t n = (size_t)(n_tokens * model->graph->vocab_size);
    float *expected = arena_array(c->arena, float, n + 1);
    double *logits = arena_array(c->arena, double, n), worst = 0, largest = 0;
    size_t found = fread(expected, sizeof *expected, n + 1, file);
    fclose(file);
    ref_logits(ref_open(c->arena, model->graph, model->weights, REF_OWN), 0, tokens, n_tokens, logits);
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs(logits[i] - (double)expected[i]));
        largest = fmax(largest, fabs((double)expected[i]));
    }
    return found == n ? worst / largest : INFINITY;
}

static void check_golden(const char *folder)
{
    Case c = case_new();
    c.hf = folder;
    CU_ASSERT(import_well(&c));
    Model model = model_open(&c);
    CU_ASSERT_PTR_NOT_NULL(model.weights);
    double error = model.weights ? golden_error(&c, folder, &model) : INFINITY;
    CU_ASSERT(error <= 1e-5);
    printf("\n    %s: %.2g of the largest logit", strrchr(folder, '/') + 1, error);
    weights_close(model.weights);
    case_free(&c);
}

static void test_goldens(void)
{
    glob_t list = { 0 };
    CU_ASSERT_EQUAL_FATAL(glob(UNIT_ROOT "/tests/data/import/*/config.json", 0, NULL, &list), 0);
    CU_ASSERT(list.gl_pathc >= 8);
    for (size_t i = 0; i < list.gl_pathc; i++) {
        *strrchr(list.gl_pathv[i], '/') = 0;
        check_golden(list.gl_pathv[i]);
    }
    globfree(&list);
}

/* --- every form, bit by bit --- */

#define GRAPH(rest) "{\"format\":\"mossnet-graph/1\",\"name\":\"hf\",\"vocab_size\":16,\"d_model\":8," rest "}"
#define MAMBA_LAYER "{\"op\":\"mamba\",\"d_inner\":12,\"d_state\":3,\"d_conv\":2,\"dt_rank\":5}"
#define SIZES "\"vocab_size\":16,\"hidden_size\":8,\"num_hidden_layers\":2,"
#define HEADS SIZES "\"intermediate_size\":10,\"num_attention_heads\":2,\"num_key_value_heads\":1,"

static const char mamba_config[] = "{\"model_type\":\"mamba\"," SIZES "\"intermediate_size\":12,\"state_size\":3,"
    "\"conv_kernel\":2,\"time_step_rank\":5,\"layer_norm_epsilon\":0.001,\"use_bias\":false,\"hidden_act\":\"silu\"}";
#define MAMBA_GRAPH(eps) GRAPH("\"norm_eps\":" eps ",\"tie_embeddings\":true,\"layers\":[" MAMBA_LAYER "," MAMBA_LAYER "]")
static const char mamba_graph[] = MAMBA_GRAPH("0.001");
static const char llama_config[] = "{\"model_type\":\"llama\"," HEADS "\"rms_norm_eps\":1e-5}";
static const char mixtral_config[] = "{\"model_type\":\"mixtral\"," HEADS "\"num_local_experts\":3,\"num_experts_per_tok\":2,"
    "\"sliding_window\":5,\"rope_theta\":100.0,\"tie_word_embeddings\":true}";
static const char mixtral_graph[] = GRAPH("\"norm_eps\":1e-5,\"tie_embeddings\":true,\"experts\":3,\"top_k\":2,\"renormalize\":true,"
    "\"layers\":[{\"repeat\":2,\"of\":[{\"op\":\"attention\",\"heads\":2,\"kv_heads\":1,\"window\":5,\"rope_theta\":100},"
    "{\"op\":\"mlp\",\"d_ff\":10}]}]");
#define DECODER_GRAPH(eps, attention) GRAPH("\"norm_eps\":" eps ",\"layers\":[{\"repeat\":2,\"of\":[{\"op\":\"attention\"," \
    attention "},{\"op\":\"mlp\",\"d_ff\":10}]}]")

static const struct { const char *name, *graph; HfModel model; } forms[] = {
    { "mamba", mamba_graph, { mamba_config, HF_SPLIT, 1, .dtype = DTYPE_F32, .head_too = true } },
    { "mamba, defaults", GRAPH("\"tie_embeddings\":true,\"layers\":[{\"repeat\":2,\"of\":[{\"op\":\"mamba\"}]}]"),
      { "{\"model_type\":\"mamba\"," SIZES "\"time_step_rank\":\"auto\",\"expand\":2}", HF_SPLIT, 1, .dtype = DTYPE_BF16 } },
    { "mamba, untied", GRAPH("\"layers\":[{\"repeat\":2,\"of\":[{\"op\":\"mamba\",\"d_inner\":24}]}]"),
      { "{\"model_type\":\"mamba\"," SIZES "\"expand\":3,\"tie_word_embeddings\":false}", HF_SPLIT, 3, .dtype = DTYPE_F16 } },
    { "state-spaces", MAMBA_GRAPH("1e-5"),
      { "{\"d_model\":8,\"n_layer\":2,\"vocab_size\":13,\"rms_norm\":true,\"residual_in_fp32\":true,\"fused_add_norm\":true,"
        "\"pad_vocab_size_multiple\":8,\"attn_layer_idx\":[],\"attn_cfg\":{},\"d_intermediate\":0,\"tie_embeddings\":true,"
        "\"ssm_cfg\":{\"layer\":\"Mamba1\",\"expand\":1.5,\"d_state\":3,\"d_conv\":2,\"dt_rank\":5}}",
        HF_SPLIT, 1, .dtype = DTYPE_F32, .original = true, .head_too = true } },
    { "llama", DECODER_GRAPH("1e-5", "\"heads\":2,\"kv_heads\":1"), { llama_config, HF_SPLIT, 1, .dtype = DTYPE_F32, .inv_freq = true } },
    { "llama, heads of their own size, rope_parameters", DECODER_GRAPH("1e-6", "\"heads\":2,\"head_dim\":6,\"rope_theta\":77"),
      { "{\"model_type\":\"llama\"," SIZES "\"intermediate_size\":10,\"num_attention_heads\":2,\"num_key_value_heads\":null,"
        "\"head_dim\":6,\"rope_parameters\":{\"rope_theta\":77.0,\"rope_type\":\"default\"},\"hidden_act\":\"swish\"}",
        HF_SPLIT, 2, .dtype = DTYPE_BF16 } },
    { "mistral, window by default", DECODER_GRAPH("1e-6", "\"heads\":2,\"kv_heads\":1,\"window\":4096"),
      { "{\"model_type\":\"mistral\"," HEADS "\"rope_scaling\":null}", HF_SPLIT, 1, .dtype = DTYPE_F32 } },
    { "mistral, no window", DECODER_GRAPH("1e-6", "\"heads\":2,\"kv_heads\":1"),
      { "{\"model_type\":\"mistral\"," HEADS "\"sliding_window\":null,\"head_dim\":null}", HF_SPLIT, 1, .dtype = DTYPE_F32 } },
    { "mixtral", mixtral_graph, { mixtral_config, HF_SPLIT, 1, .dtype = DTYPE_F32 } },
    { "mixtral, fused, shards", mixtral_graph, { mixtral_config, HF_FUSED, 4, .dtype = DTYPE_F16 } },
    { "mixtral, fused", mixtral_graph, { mixtral_config, HF_FUSED, 1, .dtype = DTYPE_BF16 } },
    { "mixtral, split, shards", mixtral_graph, { mixtral_config, HF_SPLIT, 5, .dtype = DTYPE_BF16 } },
};

static Graph *graph_of(const Case *c, const char *text)
{
    Graph *graph = graph_read_text(c->arena, c->diags, "expected.json", text, strlen(text));
    CU_ASSERT_PTR_NOT_NULL_FATAL(graph);
    return graph;
}

static Text read_file(const char *path)
{
    Text text = { 0 };
    char buffer[4096];
    FILE *file = fopen(path, "rb");
    CU_ASSERT_PTR_NOT_NULL(file);
    for (size_t n; file && (n = fread(buffer, 1, sizeof buffer, file)) > 0;)
        text_append(&text, buffer, n);
    if (file)
        fclose(file);
    return text;
}

/* Both graphs give the same logits on the same weights; so every size and number agrees. */
static bool logits_equal(const Case *c, const Model *found, const Graph *expected, const Weights *weights)
{
    static const int32_t tokens[] = { 3, 15, 0, 7, 7, 2, 9, 1 };
    enum { N = 8 * 16 };
    double a[N], b[N];
    ref_logits(ref_open(c->arena, found->graph, found->weights, REF_OWN), 0, tokens, 8, a);
    ref_logits(ref_open(c->arena, expected, weights, REF_OWN), 0, tokens, 8, b);
    return memcmp(a, b, sizeof a) == 0 && isfinite(a[N - 1]);
}

/* The file that import should write is the one the tests' own writer makes of the same graph. */
static void check_form(int i)
{
    Case c = case_new();
    const Graph *graph = graph_of(&c, forms[i].graph);
    HfTensors tensors = hf_tensors(c.arena, graph, &forms[i].model);
    CU_ASSERT(hf_write(&tensors, &forms[i].model, c.hf));
    CU_ASSERT(import_well(&c));
    Text expected = { 0 };
    safetensors_put_graph(&expected, graph, forms[i].model.dtype, hf_value);
    const char *path = arena_printf(c.arena, "%s/expected.safetensors", c.top);
    CU_ASSERT(safetensors_save(path, &expected));
    Text found = read_file(arena_printf(c.arena, "%s/model.safetensors", c.out));
    bool same = found.len == expected.len && memcmp(found.data, expected.data, found.len) == 0;
    Model model = model_open(&c);
    Weights *weights = weights_open(c.arena, c.diags, graph, path);
    CU_ASSERT_PTR_NOT_NULL_FATAL(model.weights);
    CU_ASSERT_PTR_NOT_NULL_FATAL(weights);
    bool equal = logits_equal(&c, &model, graph, weights);
    if (!same || !equal)
        printf("%s: %s\n", forms[i].name, same ? "other logits" : "other bytes");
    CU_ASSERT(same && equal);
    CU_ASSERT_EQUAL(model.graph->n_layers, graph->n_layers);
    CU_ASSERT_STRING_EQUAL(model.graph->name, "hf");
    weights_close(model.weights);
    weights_close(weights);
    text_free(&expected);
    text_free(&found);
    case_free(&c);
}

static void test_forms(void)
{
    for (int i = 0; i < N_OF(forms); i++)
        check_form(i);
}

/* A layer's window and a norm's epsilon tell only beyond what eight tokens show. */
static void test_graph_text(void)
{
    Case c = case_new();
    HfModel model = { mixtral_config, HF_SPLIT, 1, .dtype = DTYPE_F32 };
    HfTensors tensors = hf_tensors(c.arena, graph_of(&c, mixtral_graph), &model);
    CU_ASSERT(hf_write(&tensors, &model, c.hf));
    CU_ASSERT(import_well(&c));
    Text text = read_file(arena_printf(c.arena, "%s/model.json", c.out));
    CU_ASSERT_STRING_EQUAL(text.data,
        "{ \"format\": \"mossnet-graph/1\", \"name\": \"hf\",\n"
        "  \"vocab_size\": 16, \"d_model\": 8, \"norm_eps\": 1e-05, \"tie_embeddings\": true,\n"
        "  \"experts\": 3, \"top_k\": 2, \"renormalize\": true,\n"
        "  \"layers\": [\n"
        "    { \"repeat\": 2, \"of\": [\n"
        "      { \"op\": \"attention\", \"heads\": 2, \"kv_heads\": 1, \"window\": 5, \"rope_theta\": 100 },\n"
        "      { \"op\": \"mlp\", \"d_ff\": 10 } ] }\n"
        "  ] }\n");
    text_free(&text);
    case_free(&c);
}

/* Without the convolution's bias: zeros in float32, the rest as it was. */
static void test_no_conv_bias(void)
{
    Case c = case_new();
    const Graph *graph = graph_of(&c, mamba_graph);
    char *config = arena_strdup(c.arena, mamba_config);
    memcpy(strstr(config, "\"use_bias\":false"), "\"use_conv_bias\":", 16);
    config = arena_printf(c.arena, "%.*sfalse%s", (int)(strstr(config, "\"use_conv_bias\":") + 16 - config), config,
                          strstr(config, ",\"hidden_act\""));
    HfModel model = { config, HF_SPLIT, 1, .dtype = DTYPE_BF16, .no_conv_bias = true };
    HfTensors tensors = hf_tensors(c.arena, graph, &model);
    CU_ASSERT(hf_write(&tensors, &model, c.hf));
    CU_ASSERT(import_well(&c));
    Model found = model_open(&c);
    CU_ASSERT_PTR_NOT_NULL_FATAL(found.weights);
    int bias = weights_find(found.weights, "layers.1.conv1d.bias");
    float values[12];
    weights_read(found.weights, bias, 0, 12, values);
    for (int i = 0; i < 12; i++)
        CU_ASSERT_EQUAL(values[i], 0);
    CU_ASSERT_EQUAL(weights_dtype(found.weights, bias), DTYPE_F32);
    CU_ASSERT_EQUAL(weights_dtype(found.weights, 0), DTYPE_BF16);
    weights_close(found.weights);
    case_free(&c);
}

/* One expert has a router in theirs and none in ours. */
static void test_single_expert(void)
{
    Case c = case_new();
    const char *config = "{\"model_type\":\"mixtral\"," HEADS "\"num_local_experts\":1,\"num_experts_per_tok\":1}";
    HfModel model = { config, HF_SPLIT, 1, .dtype = DTYPE_F32 };
    HfTensors tensors = { c.arena, arena_array(c.arena, HfTensor, 256), 0 };
    HfTensors dense = hf_tensors(c.arena, graph_of(&c, DECODER_GRAPH("1e-5", "\"heads\":2,\"kv_heads\":1")), &model);
    static const struct { const char *dense, *moe; } names[] = { { "gate_proj", "w1" }, { "up_proj", "w3" }, { "down_proj", "w2" } };
    for (int i = 0; i < dense.n; i++) {
        HfTensor tensor = dense.tensors[i];
        for (int j = 0; j < 3; j++)
            if (strstr(tensor.name, names[j].dense))
                tensor.name = arena_printf(c.arena, "%.*sblock_sparse_moe.experts.0.%s.weight",
                                           (int)(strstr(tensor.name, "mlp.") - tensor.name), tensor.name, names[j].moe);
        hf_add(&tensors, tensor);
    }
    for (int layer = 0; layer < 2; layer++)
        hf_add(&tensors, (HfTensor){ arena_printf(c.arena, "model.layers.%d.block_sparse_moe.gate.weight", layer), "F32", 2,
                                     { 1, 8 }, (char[32]){ 0 }, 32 });
    CU_ASSERT(hf_write(&tensors, &model, c.hf));
    CU_ASSERT(import_well(&c));
    Model found = model_open(&c);
    CU_ASSERT_PTR_NOT_NULL(found.weights);
    weights_close(found.weights);
    case_free(&c);
}

/* --- refusals of config.json --- */

/* In the config of `model`, `from` becomes `to`; NULL: `to` is the whole text. */
static const struct { const char *config, *from, *to, *code, *words; } refusals[] = {
    { mamba_config, "\"use_bias\":false", "\"use_bias\":true", "import-feature", "use_bias: true cannot be expressed: in_proj" },
    { mamba_config, "\"silu\"", "\"gelu\"", "import-feature", "hidden_act: \"gelu\" cannot be expressed" },
    { mamba_config, "\"state_size\":3", "\"state_size\":0", "graph-range", "state_size: 0 is too small" },
    { mamba_config, "\"time_step_rank\":5", "\"time_step_rank\":\"all\"", "graph-type", "time_step_rank" },
    { mamba_config, "\"vocab_size\":16,", "", "graph-missing", "a mamba config needs \"vocab_size\"" },
    { mamba_config, "\"mamba\"", "\"mamba2\"", "import-feature", "its state decays by one number a head" },
    { mamba_config, "\"mamba\"", "\"jamba\"", "import-feature", "dt_layernorm, b_layernorm, c_layernorm" },
    { mamba_config, "\"mamba\"", "\"falcon_mamba\"", "import-feature", "normalise dt, B and C" },
    { mamba_config, "\"mamba\"", "\"gpt2\"", "import-feature", "found \"gpt2\"" },
    { mamba_config, "\"mamba\"", "7", "import-feature", "expected \"llama\", \"mamba\"" },
    { mamba_config, "\"model_type\":\"mamba\",", "", "graph-missing", "config.json needs \"model_type\"" },
    { NULL, NULL, "[1]", "graph-type", "expected an object, found an array" },
    { NULL, NULL, "{\"d_model\":8", "json-syntax", "" },
    { NULL, NULL, "{\"d_model\":8,\"n_layer\":2,\"vocab_size\":16,\"rms_norm\":false}", "import-feature", "every norm" },
    { NULL, NULL, "{\"d_model\":8,\"n_layer\":2,\"vocab_size\":16,\"ssm_cfg\":{\"layer\":\"Mamba2\"}}", "import-feature", "Mamba1" },
    { NULL, NULL, "{\"d_model\":8,\"n_layer\":2,\"vocab_size\":16,\"ssm_cfg\":{\"bias\":true}}", "import-feature", "no bias" },
    { NULL, NULL, "{\"d_model\":8,\"n_layer\":2,\"vocab_size\":16,\"ssm_cfg\":{\"ngroups\":2}}", "graph-key", "ngroups" },
    { NULL, NULL, "{\"d_model\":8,\"n_layer\":2,\"vocab_size\":16,\"ssm_cfg\":[]}", "graph-type", "ssm_cfg" },
    { NULL, NULL, "{\"d_model\":8,\"n_layer\":2,\"vocab_size\":16,\"attn_layer_idx\":[1]}", "import-feature", "attention layers" },
    { NULL, NULL, "{\"d_model\":8,\"n_layer\":2,\"vocab_size\":16,\"d_intermediate\":64}", "import-feature", "mlp layers" },
    { llama_config, "\"rms_norm_eps\":1e-5", "\"attention_bias\":true", "import-feature", "attention_bias: true cannot be expressed" },
    { llama_config, "\"rms_norm_eps\":1e-5", "\"mlp_bias\":true", "import-feature", "mlp_bias: true" },
    { llama_config, "\"rms_norm_eps\":1e-5", "\"hidden_act\":\"relu\"", "import-feature", "hidden_act" },
    { llama_config, "\"rms_norm_eps\":1e-5", "\"sliding_window\":4", "import-feature", "attends to all tokens" },
    { llama_config, "\"rms_norm_eps\":1e-5", "\"layer_types\":[\"full_attention\"]", "import-feature", "layer_types" },
    { llama_config, "\"rms_norm_eps\":1e-5", "\"quantization_config\":{\"bits\":4}", "import-feature", "quantization_config" },
    { llama_config, "\"rms_norm_eps\":1e-5", "\"auto_map\":{\"AutoModel\":\"a.B\"}", "import-feature", "code of its own" },
    { llama_config, "\"rms_norm_eps\":1e-5", "\"partial_rotary_factor\":0.5", "import-feature", "whole heads" },
    { llama_config, "\"rms_norm_eps\":1e-5", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}", "import-feature",
      "rope_scaling: {\"type\":\"linear\",\"factor\":2} cannot be expressed: rotary positions" },
    { llama_config, "\"rms_norm_eps\":1e-5", "\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":5e5}", "import-feature",
      "rope_parameters: {\"rope_type\":\"llama3\"" },
    { llama_config, "\"rms_norm_eps\":1e-5", "\"rope_parameters\":7", "graph-type", "expected an object" },
    { llama_config, "\"rms_norm_eps\":1e-5", "\"rope_theta\":0", "graph-range", "rope_theta" },
    { llama_config, "\"rms_norm_eps\":1e-5", "\"rms_norm_eps\":-1", "graph-range", "rms_norm_eps" },
    { llama_config, "\"num_attention_heads\":2", "\"num_attention_heads\":3", "graph-heads", "not a multiple of 3" },
    { llama_config, "\"num_key_value_heads\":1", "\"num_key_value_heads\":5", "graph-heads", "not a multiple of 5 key heads" },
    { llama_config, "\"num_hidden_layers\":2", "\"num_hidden_layers\":5000", "graph-large", "made from" },
    { mixtral_config, "\"num_experts_per_tok\":2", "\"num_experts_per_tok\":4", "graph-top-k", "num_local_experts 3" },
};

static const char *replaced(const Case *c, const char *text, const char *from, const char *to)
{
    const char *at = from ? strstr(text, from) : NULL;
    CU_ASSERT(!from || at);
    return at ? arena_printf(c->arena, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) : to;
}

/* Nothing but hf/ is there after a failure that says this. */
static void expect_refused(const Case *c, const char *code, const char *words)
{
    bool refused = !import_here(c) && diags_failed(c->diags);
    const char *said = diags_text(c);
    bool told = strstr(said, arena_printf(c->arena, "error[%s]", code)) && strstr(said, words);
    if (!refused || !told)
        printf("\nexpected %s, %s; said: %s", code, words, said);
    CU_ASSERT(refused && told);
    CU_ASSERT_EQUAL(count_entries(c->top), 1);
}

static void test_config_refusals(void)
{
    for (int i = 0; i < N_OF(refusals); i++) {
        Case c = case_new();
        HfModel model = { replaced(&c, refusals[i].config, refusals[i].from, refusals[i].to), HF_SPLIT, 1, .dtype = DTYPE_F32 };
        HfTensors none = { c.arena, NULL, 0 };
        CU_ASSERT(hf_write(&none, &model, c.hf));
        expect_refused(&c, refusals[i].code, refusals[i].words);
        case_free(&c);
    }
}

/* An unknown key is a warning, and the import goes on. */
static void test_unknown_key(void)
{
    Case c = case_new();
    HfModel model = { replaced(&c, mamba_config, "\"use_bias\"", "\"logit_scale\":2,\"use_bias\""), HF_SPLIT, 1, .dtype = DTYPE_F32 };
    HfTensors tensors = hf_tensors(c.arena, graph_of(&c, mamba_graph), &model);
    CU_ASSERT(hf_write(&tensors, &model, c.hf));
    CU_ASSERT(import_here(&c));
    CU_ASSERT(!diags_failed(c.diags));
    CU_ASSERT_PTR_NOT_NULL(strstr(diags_text(&c), "warning[import-key]: logit_scale is no key of a mamba config"));
    case_free(&c);
}

/* --- refusals of tensors --- */

typedef struct { Case c; HfTensors tensors; HfModel model; } Spoiled;

static Spoiled spoiled_new(const char *config, const char *graph, HfExperts experts, int n_shards)
{
    Spoiled s = { .c = case_new(), .model = { config, experts, n_shards, .dtype = DTYPE_F32 } };
    s.tensors = hf_tensors(s.c.arena, graph_of(&s.c, graph), &s.model);
    return s;
}

static void spoiled_check(Spoiled *s, const char *code, const char *words)
{
    CU_ASSERT(hf_write(&s->tensors, &s->model, s->c.hf));
    expect_refused(&s->c, code, words);
    case_free(&s->c);
}

static void test_missing(void)
{
    Spoiled s = spoiled_new(mamba_config, mamba_graph, HF_SPLIT, 1);
    hf_remove(&s.tensors, "backbone.layers.1.mixer.A_log");
    spoiled_check(&s, "weights-missing", "backbone.layers.1.mixer.A_log is missing, needed for layers.1.A_log [12,3]");
    s = spoiled_new(mamba_config, mamba_graph, HF_SPLIT, 2);
    hf_remove(&s.tensors, "backbone.embeddings.weight");
    spoiled_check(&s, "weights-missing", "backbone.embeddings.weight or backbone.embedding.weight is missing, needed for embed.weight");
    s = spoiled_new(mixtral_config, mixtral_graph, HF_SPLIT, 1);
    hf_remove(&s.tensors, "model.layers.1.block_sparse_moe.experts.2.w3.weight");
    spoiled_check(&s, "weights-missing", "experts.2.w3.weight is missing, needed for expert 2 of layers.3.up_proj.weight");
    s = spoiled_new(llama_config, DECODER_GRAPH("1e-5", "\"heads\":2,\"kv_heads\":1"), HF_SPLIT, 1);
    hf_remove(&s.tensors, "lm_head.weight");
    spoiled_check(&s, "weights-missing", "lm_head.weight is missing, needed for lm_head.weight [16,8]");
}

static void test_extra(void)
{
    static const char zeros[512];
    Spoiled s = spoiled_new(llama_config, DECODER_GRAPH("1e-5", "\"heads\":2,\"kv_heads\":1"), HF_SPLIT, 3);
    hf_add(&s.tensors, (HfTensor){ "model.layers.0.self_attn.q_proj.bias", "F32", 1, { 8 }, zeros, 32 });
    spoiled_check(&s, "weights-extra", "model.layers.0.self_attn.q_proj.bias: F32[8] has no place in the graph");
    s = spoiled_new(mamba_config, mamba_graph, HF_SPLIT, 1);
    hf_add(&s.tensors, (HfTensor){ "lm_head.weight", "F32", 2, { 16, 8 }, zeros, 512 });
    spoiled_check(&s, "weights-extra", "lm_head.weight differs from what becomes embed.weight, but config.json says");
    s = spoiled_new(mixtral_config, mixtral_graph, HF_FUSED, 1);
    hf_add(&s.tensors, (HfTensor){ "model.layers.0.block_sparse_moe.gate.weight", "F32", 2, { 3, 8 }, zeros, 96 });
    spoiled_check(&s, "weights-extra", "model.layers.0.mlp.gate.weight: F32[3,8] has no place");
    s = spoiled_new(mixtral_config, mixtral_graph, HF_SPLIT, 1);
    hf_add(&s.tensors, (HfTensor){ "model.layers.0.block_sparse_moe.experts.3.w1.weight", "F32", 2, { 10, 8 }, zeros, 320 });
    spoiled_check(&s, "weights-extra", "experts.3.w1.weight: F32[10,8] has no place");
}

static void test_misshapen(void)
{
    Spoiled s = spoiled_new(mixtral_config, mixtral_graph, HF_FUSED, 1);
    HfTensor *tensor = hf_find(&s.tensors, "model.layers.0.mlp.experts.gate_up_proj");
    CU_ASSERT_PTR_NOT_NULL_FATAL(tensor);
    tensor->shape[1] = 8, tensor->shape[2] = 20;
    spoiled_check(&s, "weights-shape", "gate_up_proj: found shape [3,8,20], expected [3,20,8] for layers.1.gate_proj.weight");
    s = spoiled_new(mamba_config, mamba_graph, HF_SPLIT, 1);
    tensor = hf_find(&s.tensors, "backbone.layers.0.mixer.conv1d.weight");
    CU_ASSERT_PTR_NOT_NULL_FATAL(tensor);
    tensor->rank = 2, tensor->shape[1] = 2;
    spoiled_check(&s, "weights-shape", "conv1d.weight: found shape [12,2], expected [12,1,2] for layers.0.conv1d.weight");
}

static void test_dtypes(void)
{
    static const char zeros[512];
    Spoiled s = spoiled_new(mamba_config, mamba_graph, HF_SPLIT, 1);
    HfTensor *tensor = hf_find(&s.tensors, "backbone.layers.0.mixer.D");
    CU_ASSERT_PTR_NOT_NULL_FATAL(tensor);
    *tensor = (HfTensor){ tensor->name, "F64", 1, { 12 }, zeros, 96 };
    spoiled_check(&s, "weights-dtype", "mixer.D: found dtype F64, expected F32, F16 or BF16 for layers.0.D");
    s = spoiled_new(mixtral_config, mixtral_graph, HF_SPLIT, 1);
    tensor = hf_find(&s.tensors, "model.layers.0.block_sparse_moe.experts.1.w2.weight");
    CU_ASSERT_PTR_NOT_NULL_FATAL(tensor);
    *tensor = (HfTensor){ tensor->name, "BF16", 2, { 8, 10 }, zeros, 160 };
    spoiled_check(&s, "weights-dtype", "experts.1.w2.weight: found dtype BF16, the experts before it have F32; layers.1.down_proj.weight");
}

/* Types may differ between tensors: each keeps its own. */
static void test_mixed_dtypes(void)
{
    static const char zeros[512];
    Spoiled s = spoiled_new(mamba_config, mamba_graph, HF_SPLIT, 1);
    HfTensor *tensor = hf_find(&s.tensors, "backbone.layers.0.mixer.in_proj.weight");
    CU_ASSERT_PTR_NOT_NULL_FATAL(tensor);
    *tensor = (HfTensor){ tensor->name, "BF16", 2, { 24, 8 }, zeros, 384 };
    CU_ASSERT(hf_write(&s.tensors, &s.model, s.c.hf));
    CU_ASSERT(import_well(&s.c));
    Model model = model_open(&s.c);
    CU_ASSERT_PTR_NOT_NULL_FATAL(model.weights);
    CU_ASSERT_EQUAL(weights_dtype(model.weights, weights_find(model.weights, "layers.0.in_proj.weight")), DTYPE_BF16);
    CU_ASSERT_EQUAL(weights_dtype(model.weights, weights_find(model.weights, "layers.1.in_proj.weight")), DTYPE_F32);
    weights_close(model.weights);
    case_free(&s.c);
}

/* --- files and folders --- */

static void put_file(const Case *c, const char *name, const char *text)
{
    Text bytes = { 0 };
    text_printf(&bytes, "%s", text);
    CU_ASSERT(safetensors_save(arena_printf(c->arena, "%s/%s", c->hf, name), &bytes));
    text_free(&bytes);
}

static void test_index(void)
{
    static const struct { const char *text, *code, *words; } bad[] = {
        { "{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "weights-format", "expected the name of a file of this folder" },
        { "{\"weight_map\":{\"a\":1}}", "weights-format", "expected the name of a file" },
        { "{\"weight_map\":[]}", "weights-format", "\"weight_map\"" },
        { "{}", "weights-format", "\"weight_map\"" },
        { "{\"weight_map\":{\"a\":\"not-there.safetensors\"}}", "file-read", "not-there.safetensors" },
        { "{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\"}}", "weights-missing", "a is not in model-00001" },
        { "{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\"}}", "weights-extra", "is not in the index" },
        { "{\"weight_map\":", "json-syntax", "" },
    };
    for (int i = 0; i < N_OF(bad); i++) {
        Spoiled s = spoiled_new(mamba_config, mamba_graph, HF_SPLIT, 2);
        CU_ASSERT(hf_write(&s.tensors, &s.model, s.c.hf));
        put_file(&s.c, "model.safetensors.index.json", bad[i].text);
        expect_refused(&s.c, bad[i].code, bad[i].words);
        case_free(&s.c);
    }
}

/* The same tensors in two shards: which count would be a guess. */
static void test_twice(void)
{
    Spoiled s = spoiled_new(mamba_config, mamba_graph, HF_SPLIT, 2);
    CU_ASSERT(hf_write(&s.tensors, &s.model, s.c.hf));
    Text first = read_file(arena_printf(s.c.arena, "%s/model-00001-of-00002.safetensors", s.c.hf));
    CU_ASSERT(safetensors_save(arena_printf(s.c.arena, "%s/model-00002-of-00002.safetensors", s.c.hf), &first));
    text_free(&first);
    expect_refused(&s.c, "weights-extra", "-of-00002.safetensors already");
    case_free(&s.c);
}

static void test_files(void)
{
    Case c = case_new();
    expect_refused(&c, "file-read", "config.json");
    put_file(&c, "config.json", mamba_config);
    expect_refused(&c, "file-read", "neither this file nor model.safetensors.index.json");
    put_file(&c, "pytorch_model.bin", "x");
    expect_refused(&c, "file-read", "convert it with save_pretrained");
    put_file(&c, "model.safetensors", "x");
    expect_refused(&c, "weights-format", "too few for a safetensors file");
    case_free(&c);
}

static void test_output_folder(void)
{
    Spoiled s = spoiled_new(mamba_config, mamba_graph, HF_SPLIT, 1);
    CU_ASSERT(hf_write(&s.tensors, &s.model, s.c.hf));
    const char *out = s.c.out;
    s.c.out = arena_printf(s.c.arena, "%s/.//", s.c.hf);
    expect_refused(&s.c, "usage", "is the folder that is imported");
    CU_ASSERT_EQUAL(count_entries(s.c.hf), 2);
    s.c.out = arena_printf(s.c.arena, "%s/config.json", s.c.hf);
    expect_refused(&s.c, "file-write", "expected a folder");
    s.c.out = arena_printf(s.c.arena, "%s/no/out", s.c.top);
    expect_refused(&s.c, "file-write", "temporary folder");
    s.c.diags = diags_new(s.c.arena);
    s.c.out = arena_printf(s.c.arena, "%s//", out);
    CU_ASSERT(import_well(&s.c));
    CU_ASSERT(import_well(&s.c));       /* again, over the first */
    CU_ASSERT_EQUAL(count_entries(out), 2);
    CU_ASSERT_EQUAL(count_entries(s.c.top), 2);
    case_free(&s.c);
}

static const UnitTest tests[] = {
    { "goldens of transformers", test_goldens },
    { "every form, bit by bit", test_forms },
    { "text of the graph", test_graph_text },
    { "no bias of the convolution", test_no_conv_bias },
    { "a single expert", test_single_expert },
    { "refused configs", test_config_refusals },
    { "an unknown key", test_unknown_key },
    { "missing tensors", test_missing },
    { "extra tensors", test_extra },
    { "misshapen tensors", test_misshapen },
    { "types of elements", test_dtypes },
    { "mixed types", test_mixed_dtypes },
    { "bad indexes", test_index },
    { "a tensor twice", test_twice },
    { "files that are missing", test_files },
    { "where it goes", test_output_folder },
};

UNIT_MAIN("import", tests)
