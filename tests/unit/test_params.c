/* Parameter counts: every graph in models/ against tests/data/params.tsv, and the printed forms.
 *
 * Input: the table's columns file, top_k (or -), total, active. Exact equality: the figures are
 * the specification.
 */
#include "../../compiler/graph_read.h"
#include "../../compiler/params.h"
#include "unit.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { char file[128], top_k[16]; long long total, active; } Row;

static Graph *graph_of(Arena *arena, const char *file)
{
    Graph *graph = graph_read_file(arena, diags_new(arena), arena_printf(arena, UNIT_ROOT "/models/%s", file));
    CU_ASSERT_PTR_NOT_NULL_FATAL(graph);
    return graph;
}

static void check_row(const Row *row)
{
    Arena *arena = arena_new();
    Graph *graph = graph_of(arena, row->file);
    int mode = 0;
    while (row->top_k[0] != '-' && mode + 1 < graph->n_modes && graph->mode_top_k[mode] != atoll(row->top_k))
        mode++;
    CU_ASSERT_EQUAL(graph_total_params(graph), row->total);
    CU_ASSERT_EQUAL(graph_active_params(graph, mode), row->active);
    if (row->top_k[0] != '-')
        CU_ASSERT_EQUAL(graph->mode_top_k[mode], atoll(row->top_k));
    if (graph_total_params(graph) != row->total || graph_active_params(graph, mode) != row->active)
        printf("%s: found %lld, %lld\n", row->file, (long long)graph_total_params(graph),
               (long long)graph_active_params(graph, mode));
    arena_free(arena);
}

static void test_table(void)
{
    FILE *file = fopen(UNIT_ROOT "/tests/data/params.tsv", "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    char line[1024];
    int n_rows = 0;
    while (fgets(line, sizeof line, file)) {
        Row row;
        if (line[0] == '#' || line[0] == '\n')
            continue;
        CU_ASSERT_EQUAL(sscanf(line, "%127[^\t]\t%15[^\t]\t%lld\t%lld", row.file, row.top_k, &row.total, &row.active), 4);
        check_row(&row);
        n_rows++;
    }
    fclose(file);
    CU_ASSERT(n_rows >= 33);
}

static void test_printed_table(void)
{
    Arena *arena = arena_new();
    Text text = { 0 };
    params_print(graph_of(arena, "mossnet-8x200m+.json"), false, &text);
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "top-2                 1554.8 M      477.1 M\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "top-3                 1554.8 M      656.8 M\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "mamba          20     1061.1 M      266.6 M      399.0 M\n"));
    text_free(&text);
    params_print(graph_of(arena, "mossnet-8x8m.json"), false, &text);
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "19.67 M       9.92 M"));
    text_free(&text);
    arena_free(arena);
}

static double number_at(const cJSON *object, const char *key)
{
    return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

/* The groups add up to the totals, in every mode. */
static void test_printed_json(void)
{
    Arena *arena = arena_new();
    Text text = { 0 };
    params_print(graph_of(arena, "mossnet-8x200m+.json"), true, &text);
    cJSON *root = cJSON_Parse(text.data), *group;
    CU_ASSERT_PTR_NOT_NULL_FATAL(root);
    double total = 0, active[2] = { 0 };
    cJSON_ArrayForEach(group, cJSON_GetObjectItemCaseSensitive(root, "groups")) {
        total += number_at(group, "total");
        for (int mode = 0; mode < 2; mode++)
            active[mode] += cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(group, "active"), mode)->valuedouble;
    }
    CU_ASSERT_EQUAL(number_at(root, "total"), 1554799616);
    CU_ASSERT_EQUAL(total, 1554799616);
    CU_ASSERT_EQUAL(active[0], 477142016);
    CU_ASSERT_EQUAL(active[1], 656751616);
    const cJSON *mode = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(root, "modes"), 1);
    CU_ASSERT_EQUAL(number_at(mode, "top_k"), 3);
    CU_ASSERT_EQUAL(number_at(mode, "active"), 656751616);
    cJSON_Delete(root);
    text_free(&text);
    arena_free(arena);
}

static void test_name_is_quoted(void)
{
    static const char source[] = "{\"format\":\"mossnet-graph/1\",\"name\":\"a\\\"b\\\\\",\"vocab_size\":1,\"d_model\":1,"
                                 "\"layers\":[{\"op\":\"mamba\"}]}";
    Arena *arena = arena_new();
    Graph *graph = graph_read_text(arena, diags_new(arena), "t", source, sizeof source - 1);
    CU_ASSERT_PTR_NOT_NULL_FATAL(graph);
    Text text = { 0 };
    params_print(graph, true, &text);
    cJSON *root = cJSON_Parse(text.data);
    CU_ASSERT_PTR_NOT_NULL_FATAL(root);
    CU_ASSERT_STRING_EQUAL(cJSON_GetObjectItemCaseSensitive(root, "name")->valuestring, "a\"b\\");
    cJSON_Delete(root);
    text_free(&text);
    arena_free(arena);
}

static const UnitTest tests[] = {
    { "every model's counts", test_table },
    { "printed table", test_printed_table },
    { "printed JSON", test_printed_json },
    { "the name is quoted", test_name_is_quoted },
};
UNIT_MAIN("params", tests)
