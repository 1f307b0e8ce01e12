/* The graph reader: what golden files cannot show.
 *
 * Input: graphs built here and models/. Checks limits, changes of modes, tensor lists and files.
 */
#include "../../compiler/graph_read.h"
#include "unit.h"

#include <stdio.h>
#include <string.h>

#define HEAD "{\"format\":\"mossnet-graph/1\",\"vocab_size\":10,\"d_model\":8,"

typedef struct { Arena *arena; Diags *diags; Graph *graph; } Read;

static Read read_text(const char *text)
{
    Read read = { .arena = arena_new() };
    read.diags = diags_new(read.arena);
    read.graph = graph_read_text(read.arena, read.diags, "t.json", text, strlen(text));
    CU_ASSERT_EQUAL(read.graph == NULL, diags_failed(read.diags));
    return read;
}

static void test_most_layers(void)
{
    Read read = read_text(HEAD "\"layers\":[{\"repeat\":64,\"of\":[{\"repeat\":64,\"of\":[{\"op\":\"mlp\",\"d_ff\":2}]}]}]}");
    CU_ASSERT_PTR_NOT_NULL_FATAL(read.graph);
    CU_ASSERT_EQUAL(read.graph->n_layers, GRAPH_MAX_LAYERS);
    CU_ASSERT_STRING_EQUAL(read.graph->layers[4095].at.pointer, "/layers/0/of/0/of/0");
    CU_ASSERT_EQUAL(read.graph->layers[4095].mlp.d_ff, 2);
    arena_free(read.arena);
}

static void test_too_many_layers_listed(void)
{
    Text text = { 0 };
    text_printf(&text, HEAD "\"layers\":[");
    for (int i = 0; i <= GRAPH_MAX_LAYERS; i++)
        text_printf(&text, "%s{\"op\":\"mlp\",\"d_ff\":2}", i ? "," : "");
    text_printf(&text, "]}");
    Read read = read_text(text.data);
    CU_ASSERT_PTR_NULL(read.graph);
    CU_ASSERT_EQUAL(diags_exit_code(read.diags), 1);
    text_free(&text);
    arena_free(read.arena);
}

static void test_name_from_file(void)
{
    static const struct { const char *file, *name; } rows[] = {
        { "models/tiny.json", "tiny" }, { "tiny", "tiny" }, { "a.b/c.d.json", "c.d" }, { "x/.json", ".json" },
    };
    static const char text[] = HEAD "\"layers\":[{\"op\":\"mamba\"}]}";
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        Arena *arena = arena_new();
        Graph *graph = graph_read_text(arena, diags_new(arena), rows[i].file, text, sizeof text - 1);
        CU_ASSERT_PTR_NOT_NULL_FATAL(graph);
        CU_ASSERT_STRING_EQUAL(graph->name, rows[i].name);
        arena_free(arena);
    }
}

static const char three[] = HEAD "\"experts\":8,\"top_k\":[2,3],\"layers\":[{\"op\":\"mamba\"},"
    "{\"op\":\"mlp\",\"d_ff\":4,\"top_k\":5},{\"op\":\"mlp\",\"d_ff\":4,\"experts\":1},"
    "{\"op\":\"attention\",\"heads\":2},{\"op\":\"mlp\",\"d_ff\":4,\"experts\":4}]}";

static void test_set_modes(void)
{
    Read read = read_text(three);
    CU_ASSERT_PTR_NOT_NULL_FATAL(read.graph);
    CU_ASSERT(graph_set_modes(read.graph, read.diags, (int64_t[]){ 4, 1, 2 }, 3));
    static const int64_t expected[5][3] = { { 4, 1, 2 }, { 5, 5, 5 }, { 1, 1, 1 }, { 1, 1, 1 }, { 4, 1, 2 } };
    CU_ASSERT_EQUAL(read.graph->n_modes, 3);
    CU_ASSERT_EQUAL(read.graph->mode_top_k[0], 4);
    for (int i = 0; i < 5; i++)
        CU_ASSERT_EQUAL(memcmp(read.graph->layers[i].top_k, expected[i], sizeof expected[i]), 0);
    arena_free(read.arena);
}

static void test_set_modes_refused(void)
{
    static const struct { int64_t top_k[9]; int n_modes, exit_code; } rows[] = {
        { { 5 }, 1, 1 },           /* layer 4 has 4 experts */
        { { 9 }, 1, 1 }, { { 0 }, 1, 2 }, { { -1 }, 1, 2 }, { { 2, 2 }, 2, 2 }, { { 0 }, 0, 2 },
        { { 1, 2, 3, 4, 5, 6, 7, 8, 9 }, 9, 2 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        Read read = read_text(three);
        CU_ASSERT(!graph_set_modes(read.graph, read.diags, rows[i].top_k, rows[i].n_modes));
        CU_ASSERT_EQUAL(diags_exit_code(read.diags), rows[i].exit_code);
        CU_ASSERT_EQUAL(read.graph->n_modes, 2);   /* untouched */
        CU_ASSERT_EQUAL(read.graph->layers[0].top_k[1], 3);
        arena_free(read.arena);
    }
}

static void expect_tensors(const char *text, const char *expected)
{
    Read read = read_text(text);
    CU_ASSERT_PTR_NOT_NULL_FATAL(read.graph);
    int n;
    TensorSpec *specs = graph_tensors(read.graph, read.arena, &n);
    Text found = { 0 };
    int64_t total = 0;
    for (int i = 0; i < n; i++) {
        text_printf(&found, "%s%s", specs[i].name, specs[i].per_expert ? " E" : "");
        for (int axis = 0; axis < specs[i].rank; axis++)
            text_printf(&found, " %lld", (long long)specs[i].shape[axis]);
        text_printf(&found, "%s\n", specs[i].matrix ? " matrix" : "");
        total += tensor_spec_count(&specs[i]);
    }
    CU_ASSERT_STRING_EQUAL(found.data, expected);
    CU_ASSERT_EQUAL(total, graph_total_params(read.graph));
    text_free(&found);
    arena_free(read.arena);
}

static void test_tensors_moe(void)
{
    expect_tensors(HEAD "\"experts\":3,\"top_k\":2,\"layers\":[{\"op\":\"mamba\",\"d_state\":5},"
                   "{\"op\":\"attention\",\"heads\":2,\"kv_heads\":1,\"head_dim\":6},{\"op\":\"mlp\",\"d_ff\":7}]}",
        "embed.weight 10 8 matrix\nnorm_f.weight 8\nlm_head.weight 10 8 matrix\n"
        "layers.0.norm.weight 8\nlayers.0.in_router.weight 3 8\nlayers.0.ssm_router.weight 3 16\n"
        "layers.0.out_router.weight 3 16\nlayers.0.in_proj.weight E 3 32 8 matrix\n"
        "layers.0.conv1d.weight 16 4\nlayers.0.conv1d.bias 16\nlayers.0.x_proj.weight E 3 11 16 matrix\n"
        "layers.0.dt_proj.weight E 3 16 1 matrix\nlayers.0.dt_proj.bias E 3 16\nlayers.0.A_log 16 5\n"
        "layers.0.D 16\nlayers.0.out_proj.weight E 3 8 16 matrix\n"
        "layers.1.norm.weight 8\nlayers.1.q_proj.weight 12 8 matrix\nlayers.1.k_proj.weight 6 8 matrix\n"
        "layers.1.v_proj.weight 6 8 matrix\nlayers.1.o_proj.weight 8 12 matrix\n"
        "layers.2.norm.weight 8\nlayers.2.router.weight 3 8\nlayers.2.gate_proj.weight E 3 7 8 matrix\n"
        "layers.2.up_proj.weight E 3 7 8 matrix\nlayers.2.down_proj.weight E 3 8 7 matrix\n");
}

static void test_tensors_dense(void)
{
    expect_tensors(HEAD "\"tie_embeddings\":true,\"layers\":[{\"op\":\"mlp\",\"d_ff\":7}]}",
        "embed.weight 10 8 matrix\nnorm_f.weight 8\nlayers.0.norm.weight 8\n"
        "layers.0.gate_proj.weight E 1 7 8 matrix\nlayers.0.up_proj.weight E 1 7 8 matrix\n"
        "layers.0.down_proj.weight E 1 8 7 matrix\n");
}

static void test_files(void)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    CU_ASSERT_PTR_NOT_NULL(graph_read_file(arena, diags, UNIT_ROOT "/models/mossnet-8x8m.json"));
    CU_ASSERT_EQUAL(diags_exit_code(diags), 0);
    CU_ASSERT_PTR_NULL(graph_read_file(arena, diags, UNIT_ROOT "/models"));
    CU_ASSERT_EQUAL(diags_exit_code(diags), 3);
    CU_ASSERT_PTR_NULL(graph_read_file(arena, diags, UNIT_ROOT "/models/none.json"));
    CU_ASSERT_PTR_NULL(graph_read_file(arena, diags, ""));
    Text text = { 0 };
    diags_print(diags, &text);
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "none.json: error[file-read]: cannot read the graph: No such file"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "models: error[file-read]: cannot read the graph: Is a directory"));
    text_free(&text);
    arena_free(arena);
}

static void test_auto_top_k(void)
{
    static const struct { int64_t n_experts, k; } rows[] = { { 1, 1 }, { 3, 1 }, { 4, 1 }, { 7, 1 }, { 8, 2 }, { 16, 2 } };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, HEAD "\"experts\":%d,\"top_k\":\"auto\",\"layers\":[{\"op\":\"mamba\"}]}",
                 (int)rows[i].n_experts);
        Read read = read_text(text);
        CU_ASSERT_PTR_NOT_NULL_FATAL(read.graph);
        CU_ASSERT_EQUAL(read.graph->layers[0].top_k[0], rows[i].k);
        CU_ASSERT_EQUAL(read.graph->mode_top_k[0], rows[i].k);
        arena_free(read.arena);
    }
}

static const UnitTest tests[] = {
    { "most layers", test_most_layers },
    { "too many layers listed", test_too_many_layers_listed },
    { "name from file", test_name_from_file },
    { "set modes", test_set_modes },
    { "set modes refused", test_set_modes_refused },
    { "tensors, mixture of experts", test_tensors_moe },
    { "tensors, dense", test_tensors_dense },
    { "files", test_files },
    { "automatic top-k", test_auto_top_k },
};
UNIT_MAIN("graph_read", tests)
