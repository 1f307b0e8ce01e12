/* The reference against the golden logits: two independent readings of docs/graph.md, section 2.
 *
 * Input: tests/data/golden_logits, whose logits come from the PyTorch model in models/shakespeare,
 * computed in float64 and stored as float32. Every folder, every mode: max |diff| <= 1e-6 max |logit|.
 * Invariant: a folder that cannot be read fails; no folder at all fails.
 */
#include "../../compiler/graph_read.h"
#include "../diff/golden.h"
#include "../ref/ref.h"
#include "unit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define FOLDERS UNIT_ROOT "/tests/data/golden_logits"

typedef struct {
    Arena *arena;
    const char *dir;         /* of one folder */
    const Graph *graph;
    const Ref *ref;
    const int32_t *tokens;   /* [n_tokens] */
    int n_tokens;
} Golden;

static void print_diags(const Diags *diags)
{
    Text text = { 0 };
    diags_print(diags, &text);
    if (text.data)
        fputs(text.data, stdout);
    text_free(&text);
}

static bool golden_open(Golden *golden, const char *name, Weights **weights)
{
    Arena *arena = golden->arena;
    Diags *diags = diags_new(arena);
    golden->dir = arena_printf(arena, FOLDERS "/%s", name);
    golden->tokens = golden_tokens(arena, arena_printf(arena, "%s/tokens.txt", golden->dir),
                                   &golden->n_tokens);
    golden->graph = graph_read_file(arena, diags, arena_printf(arena, "%s/graph.json", golden->dir));
    const char *source = arena_printf(arena, "%s/weights.safetensors", golden->dir);
    *weights = golden->graph ? weights_open(arena, diags, golden->graph, source) : NULL;
    if (*weights)
        golden->ref = ref_open(arena, golden->graph, *weights, REF_OWN);
    else
        print_diags(diags);
    return *weights && golden->tokens;
}

/* logits_k<K>.f32: [n_tokens, V], or NULL when it is not there or not of that length. */
static float *read_logits(const Golden *golden, int64_t top_k)
{
    size_t n = (size_t)(golden->n_tokens * golden->graph->vocab_size);
    float *out = arena_array(golden->arena, float, n + 1);
    FILE *file = fopen(arena_printf(golden->arena, "%s/logits_k%d.f32", golden->dir, (int)top_k),
                       "rb");
    if (!file)
        return NULL;
    size_t found = fread(out, sizeof *out, n + 1, file);
    fclose(file);
    return found == n ? out : NULL;
}

/* max |found - expected| / max |expected|; infinite if any of them is not a number. */
static double relative_error(const double *found, const float *expected, size_t n)
{
    double largest = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        double difference = fabs(found[i] - (double)expected[i]);
        if (!isfinite(difference))
            return INFINITY;
        worst = fmax(worst, difference);
        largest = fmax(largest, fabs((double)expected[i]));
    }
    return worst / largest;
}

static void check_mode(const Golden *golden, const char *name, int mode)
{
    int64_t top_k = golden->graph->mode_top_k[mode];
    size_t n = (size_t)(golden->n_tokens * golden->graph->vocab_size);
    const float *expected = read_logits(golden, top_k);
    CU_ASSERT_PTR_NOT_NULL(expected);
    if (!expected) {
        printf("%s: no logits for %d experts\n", name, (int)top_k);
        return;
    }
    double *logits = arena_array(golden->arena, double, n);
    ref_logits(golden->ref, mode, golden->tokens, golden->n_tokens, logits);
    double error = relative_error(logits, expected, n);
    CU_ASSERT(error <= 1e-6);
    if (!(error <= 1e-6))
        printf("%s, %d experts: relative error %g\n", name, (int)top_k, error);
}

static void check_folder(const char *name)
{
    Golden golden = { .arena = arena_new() };
    Weights *weights = NULL;
    bool opened = golden_open(&golden, name, &weights);
    CU_ASSERT(opened);
    if (!opened)
        printf("%s: cannot be opened\n", name);
    for (int mode = 0; opened && mode < golden.graph->n_modes; mode++)
        check_mode(&golden, name, mode);
    if (weights)
        weights_close(weights);
    arena_free(golden.arena);
}

static void test_every_folder(void)
{
    Arena *arena = arena_new();
    const char **names;
    int n = golden_list(arena, FOLDERS, &names);
    CU_ASSERT(n > 0);
    for (int i = 0; i < n; i++)
        check_folder(names[i]);
    arena_free(arena);
}

/* --- Rounding of matrices: `quant` touches them and nothing else --- */

static const char tiny_graph[] =
    "{ \"format\": \"mossnet-graph/1\", \"name\": \"tiny\", \"vocab_size\": 11, \"d_model\": 6,"
    "  \"tie_embeddings\": %s, \"layers\": [ { \"op\": \"mamba\" }, { \"op\": \"mlp\", \"d_ff\": 5 } ] }";

typedef struct { Graph *graph; Weights *weights; } Tiny;

static Tiny tiny_open(Arena *arena, const char *tied)
{
    Diags *diags = diags_new(arena);
    const char *text = arena_printf(arena, tiny_graph, tied);
    Tiny tiny = { .graph = graph_read_text(arena, diags, "tiny.json", text, strlen(text)) };
    if (tiny.graph)
        tiny.weights = weights_open(arena, diags, tiny.graph, "random:5");
    print_diags(diags);
    return tiny;
}

static double quant_difference(const Tiny *tiny, DType a, DType b, Arena *arena)
{
    const int32_t tokens[] = { 3, 10, 3 };
    double first[3 * 11], second[3 * 11], worst = 0;
    ref_logits(ref_open(arena, tiny->graph, tiny->weights, a), 0, tokens, 3, first);
    ref_logits(ref_open(arena, tiny->graph, tiny->weights, b), 0, tokens, 3, second);
    for (int i = 0; i < 3 * 11; i++)
        worst = fmax(worst, fabs(first[i] - second[i]));
    return worst;
}

/* Random matrices are BF16 already: storing them so changes nothing, and f16 has more bits. */
static void test_quant_rounds_matrices(void)
{
    Arena *arena = arena_new();
    Tiny tiny = tiny_open(arena, "false");
    CU_ASSERT_PTR_NOT_NULL_FATAL(tiny.weights);
    CU_ASSERT(quant_difference(&tiny, REF_OWN, DTYPE_F32, arena) == 0);
    CU_ASSERT(quant_difference(&tiny, REF_OWN, DTYPE_BF16, arena) == 0);
    CU_ASSERT(quant_difference(&tiny, REF_OWN, DTYPE_F16, arena) <= 1e-3);
    weights_close(tiny.weights);
    arena_free(arena);
}

/* A tied head is the embedding itself, so it is rounded with it and needs no tensor of its own. */
static void test_tied_graph(void)
{
    Arena *arena = arena_new();
    Tiny tied = tiny_open(arena, "true"), untied = tiny_open(arena, "false");
    CU_ASSERT_PTR_NOT_NULL_FATAL(tied.weights);
    CU_ASSERT_PTR_NOT_NULL_FATAL(untied.weights);
    CU_ASSERT(weights_find(tied.weights, "lm_head.weight") < 0);
    CU_ASSERT(weights_find(untied.weights, "lm_head.weight") >= 0);
    double a[11], b[11], worst = 0;
    ref_logits(ref_open(arena, tied.graph, tied.weights, REF_OWN), 0, (int32_t[]){ 3 }, 1, a);
    ref_logits(ref_open(arena, untied.graph, untied.weights, REF_OWN), 0, (int32_t[]){ 3 }, 1, b);
    for (int i = 0; i < 11; i++)
        worst = fmax(worst, fabs(a[i] - b[i]));
    CU_ASSERT(worst > 0);
    weights_close(tied.weights);
    weights_close(untied.weights);
    arena_free(arena);
}

static const UnitTest tests[] = {
    { "every folder, every mode", test_every_folder },
    { "quant rounds matrices", test_quant_rounds_matrices },
    { "tied and untied graphs", test_tied_graph },
};

UNIT_MAIN("golden logits", tests)
