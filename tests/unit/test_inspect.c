/* Inspection: the same numbers from a plan and from the manifest in a file; files that are no artifact,
 * cut off or absurd are refused with a word; the printed forms.
 */
#include "../../codegen/codegen.h"
#include "../../compiler/inspect.h"

#include <string.h>

#include "models.h"

#include <cjson/cJSON.h>

#include <stdlib.h>
#include <unistd.h>

static const char source[] =
    "{\"format\":\"mossnet-graph/1\",\"name\":\"a \\\"b\\\"\\\\\",\"vocab_size\":50,\"d_model\":24,\"experts\":4,\"top_k\":[2,3],"
    "\"layers\":[{\"op\":\"mamba\"},{\"op\":\"attention\",\"heads\":4,\"kv_heads\":2,\"head_dim\":6,\"window\":5},"
    "{\"op\":\"attention\",\"heads\":2},{\"op\":\"mlp\",\"d_ff\":40}]}";

static Plan *plan_of(Arena *arena)
{
    return models_plan(arena, models_read_text(arena, source), DTYPE_BF16, TARGET_X86_64_V3);
}

/* The manifest of the plan, with `from` replaced by `to` once (NULL: as it is). */
static Text manifest(const Plan *plan, const char *from, const char *to)
{
    Text whole = { 0 }, out = { 0 };
    codegen_write_manifest(plan, "moss", &whole);
    const char *at = from ? strstr(whole.data, from) : NULL;
    CU_ASSERT_FATAL(!from || at);
    if (!from)
        return whole;
    text_append(&out, whole.data, (size_t)(at - whole.data));
    text_printf(&out, "%s%s", to, at + strlen(from));
    text_free(&whole);
    return out;
}

/* The path of a new file of these bytes. */
static const char *save(Arena *arena, const char *bytes, size_t len)
{
    char *path = arena_strdup(arena, "/tmp/test_inspect_XXXXXX");
    int file = mkstemp(path);
    CU_ASSERT_FATAL(file >= 0 && write(file, bytes, len) == (ssize_t)len);
    close(file);
    return path;
}

/* As an artifact holds it: the mark turns up elsewhere too, the text ends with a NUL. */
static Text artifact(const Text *json)
{
    static const char before[] = "\177ELF\0\1\2 " MANIFEST_MARK "\0 " MANIFEST_MARK "x", after[] = "\0 rest { }";
    Text out = { 0 };
    text_append(&out, before, sizeof before - 1);
    text_printf(&out, "%s%s", MANIFEST_MARK, json->data);
    text_append(&out, after, sizeof after - 1);
    return out;
}

static bool inspect_bytes(const char *bytes, size_t len, Inspection *out, char **report, Arena *arena)
{
    Diags *diags = diags_new(arena);
    const char *path = save(arena, bytes, len);
    bool good = inspect_artifact(arena, diags, path, MANIFEST_MARK, out);
    unlink(path);
    Text text = { 0 };
    text_append(&text, "", 0);
    diags_print(diags, &text);
    *report = arena_strdup(arena, text.data);
    CU_ASSERT_EQUAL(good, !diags_failed(diags));
    text_free(&text);
    return good;
}

static void check_cost(const Cost *a, const Cost *b)
{
    CU_ASSERT_DOUBLE_EQUAL(a->flops, b->flops, 1);
    CU_ASSERT_DOUBLE_EQUAL(a->weight_bytes, b->weight_bytes, 1);
    CU_ASSERT_DOUBLE_EQUAL(a->state_bytes, b->state_bytes, 1);
}

static void test_same_numbers(void)
{
    Arena *arena = arena_new();
    Plan *plan = plan_of(arena);
    Inspection a = inspect_plan(plan), b;
    Text json = manifest(plan, NULL, NULL), file = artifact(&json);
    char *report;
    CU_ASSERT_TRUE_FATAL(inspect_bytes(file.data, file.len, &b, &report, arena));
    CU_ASSERT_STRING_EQUAL(b.name, "a \"b\"\\");
    CU_ASSERT_STRING_EQUAL(b.target, a.target);
    CU_ASSERT_STRING_EQUAL(b.quant, "bf16");
    CU_ASSERT(a.d_model == b.d_model && a.n_layers == b.n_layers && a.chunk == b.chunk && a.params == b.params);
    CU_ASSERT_EQUAL(a.sizes.vocab_size, b.sizes.vocab_size);
    CU_ASSERT_EQUAL(memory_of_sizes(&a.sizes, 777, 5).total, memory_of_sizes(&b.sizes, 777, 5).total);
    CU_ASSERT_EQUAL_FATAL(a.n_modes, b.n_modes);
    for (int m = 0; m < a.n_modes; m++) {
        CU_ASSERT_EQUAL(a.modes[m].experts_per_token, b.modes[m].experts_per_token);
        CU_ASSERT_EQUAL(a.modes[m].active_params, b.modes[m].active_params);
        check_cost(&a.modes[m].decode, &b.modes[m].decode);
        check_cost(&a.modes[m].prefill, &b.modes[m].prefill);
    }
    text_free(&json);
    text_free(&file);
    arena_free(arena);
}

static void check_refused(const char *bytes, size_t len, const char *expected)
{
    Arena *arena = arena_new();
    Inspection out;
    char *report;
    CU_ASSERT_FALSE(inspect_bytes(bytes, len, &out, &report, arena));
    bool good = strstr(report, expected) != NULL && strstr(report, "error[artifact-format]: ") != NULL;
    CU_ASSERT_TRUE(good);
    if (!good)
        printf("expected: %s\nfound: %s\n", expected, report);
    arena_free(arena);
}

static void test_no_artifact(void)
{
    static const char plain[] = "#!/bin/sh\necho mossc\n";
    static const char cut[] = "xx" MANIFEST_MARK "{\"name\": \"", mark[] = MANIFEST_MARK;
    check_refused("", 0, "the file is empty");
    check_refused(plain, sizeof plain - 1, "there is no manifest in it");
    check_refused(mark, sizeof mark - 1, "there is no manifest in it");
    check_refused(mark, sizeof mark - 2, "there is no manifest in it");
    check_refused(cut, sizeof cut - 1, "the file is truncated");
    check_refused(cut, sizeof cut, "it is not JSON");
}

static const struct { const char *from, *to, *expected; } wrong[] = {
    { "\"chunk\": 512", "\"chunk\": 0", "\"chunk\" must be a number from 1 to 2^52" },
    { "\"chunk\": 512", "\"chunk\": 1.5", "\"chunk\" must be a whole number" },
    { "\"chunk\": 512", "\"chunk\": \"512\"", "\"chunk\" must be a number" },
    { "\"chunk\": 512", "\"chunk\": null", "\"chunk\" must be a number" },
    { "\"chunk\": 512", "\"chunk\": -1", "\"chunk\" must be a number" },
    { "\"chunk\": 512", "\"chunk\": 1e300", "\"chunk\" must be a number" },
    { "\"chunk\": 512, ", "", "has no \"chunk\"" },
    { "\"weights\": ", "\"weights\": 99999999999999", "\"weights\" must be a number" },
    { "\"memory\"", "\"memories\"", "has no \"memory\"" },
    { "\"name\": ", "\"nane\": ", "has no \"name\"" },
    { "\"target\": \"x86-64-v3\"", "\"target\": 3", "\"target\" must be a string" },
    { "\"modes\": [", "\"modes\": [], \"more\": [", "\"modes\" must be a list of 1 to 8" },
    { "\"modes\": [", "\"modes\": 7, \"more\": [", "\"modes\" must be a list of 1 to 8" },
    { "\"modes\": [", "\"modes\": [1, 2, 3, 4, 5, 6, 7, 8, 9], \"more\": [", "\"modes\" must be a list of 1 to 8" },
    { "\"modes\": [", "\"modes\": [5, ", "has no \"experts_per_token\"" },
    { "{\"flops\": ", "{\"flops\": -", "\"flops\" must be a number from 0" },
    { "\"decode\": {", "\"decode\": 3, \"more\": {", "has no \"flops\"" },
    { "\"memory\": {", "\"memory\": {\"weights\": 1, ", "it is not JSON" },      /* a key twice */
};

static void test_wrong_manifest(void)
{
    Arena *arena = arena_new();
    const Plan *plan = plan_of(arena);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        Text json = manifest(plan, wrong[i].from, wrong[i].to), file = artifact(&json);
        check_refused(file.data, file.len, wrong[i].expected);
        text_free(&json);
        text_free(&file);
    }
    arena_free(arena);
}

/* A file cut off anywhere is refused until the manifest's end is there. */
static void test_truncated(void)
{
    Arena *arena = arena_new();
    Text json = manifest(plan_of(arena), NULL, NULL), file = artifact(&json);
    size_t end = file.len - sizeof "\0 rest { }" + 1;
    for (size_t len = 1; len <= end; len += 13)
        check_refused(file.data, len, "");
    check_refused(file.data, end, "the file is truncated");
    text_free(&json);
    text_free(&file);
    arena_free(arena);
}

static void test_unreadable(void)
{
    Arena *arena = arena_new();
    static const char *const paths[] = { "/nonexistent/artifact", "/tmp" };
    for (int i = 0; i < 2; i++) {
        Diags *diags = diags_new(arena);
        Inspection out;
        CU_ASSERT_FALSE(inspect_artifact(arena, diags, paths[i], MANIFEST_MARK, &out));
        CU_ASSERT_EQUAL(diags_exit_code(diags), 3);
    }
    arena_free(arena);
}

/* ---- printed ---- */

static double number_at(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    CU_ASSERT_TRUE(cJSON_IsNumber(value));
    return cJSON_GetNumberValue(value);
}

static void test_json(void)
{
    Arena *arena = arena_new();
    Plan *plan = plan_of(arena);
    Inspection in = inspect_plan(plan);
    Text text = { 0 };
    inspection_print(&in, 1000, 3, true, &text);
    cJSON *root = cJSON_Parse(text.data), *part;
    CU_ASSERT_PTR_NOT_NULL_FATAL(root);
    const cJSON *memory = cJSON_GetObjectItemCaseSensitive(root, "memory");
    double sum = 0;
    cJSON_ArrayForEach(part, memory)
        sum += part->valuedouble;
    CU_ASSERT_EQUAL(sum, 2 * number_at(memory, "total"));
    CU_ASSERT_EQUAL(number_at(memory, "total"), (double)plan_memory(plan, 1000, 3).total);
    CU_ASSERT_EQUAL(number_at(memory, "private"), 3 * (double)plan->private_len);
    CU_ASSERT_STRING_EQUAL(cJSON_GetObjectItemCaseSensitive(root, "name")->valuestring, "a \"b\"\\");
    const cJSON *mode = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(root, "modes"), 1);
    const cJSON *decode = cJSON_GetObjectItemCaseSensitive(mode, "decode");
    CU_ASSERT_EQUAL(number_at(mode, "experts_per_token"), 3);
    /* The layer without a window reads 1000 keys and values of 24 in 32 floats, and multiplies with
     * both 24 times each. */
    CU_ASSERT_EQUAL(number_at(decode, "state_bytes"), plan->decode_cost[1].state_bytes + 1000 * 2 * 32 * 4);
    CU_ASSERT_EQUAL(number_at(decode, "flops"), plan->decode_cost[1].flops + 1000 * 4 * 24);
    const cJSON *bound = cJSON_GetArrayItem(
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(root, "roofline"), "decode"), 0);
    double bytes = number_at(decode, "weight_bytes") + number_at(decode, "state_bytes");
    CU_ASSERT_DOUBLE_EQUAL(cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(bound, "tokens_per_second"), 1)->valuedouble,
                           number_at(bound, "bytes_per_second") / bytes, 0.01);
    cJSON_Delete(root);
    text_free(&text);
    arena_free(arena);
}

/* The figures of the paper's largest model that its page quotes. */
static void test_text(void)
{
    Arena *arena = arena_new();
    const Graph *graph = models_read(arena, UNIT_ROOT "/models/mossnet-8x200m+.json");
    Inspection in = inspect_plan(models_plan(arena, graph, DTYPE_F16, TARGET_X86_64_V3));
    Text text = { 0 };
    inspection_print(&in, 4096, 4, false, &text);
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "total                          1554799616            1554.80 M\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "active, top-3                   656751616             656.75 M\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "memory, context 4096, 4 threads\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "1700 GB/s"));
    /* 0.85 GB a token: some 2,000 a second at 1.7 TB/s. */
    CU_ASSERT_DOUBLE_EQUAL(in.modes[0].decode.weight_bytes, 0.855e9, 0.005e9);
    text_free(&text);
    arena_free(arena);
}

static const UnitTest tests[] = {
    { "a plan and its manifest agree", test_same_numbers },
    { "no artifact", test_no_artifact },
    { "wrong manifests", test_wrong_manifest },
    { "cut off anywhere", test_truncated },
    { "unreadable files", test_unreadable },
    { "JSON", test_json },
    { "text", test_text },
};
UNIT_MAIN("inspect", tests)
