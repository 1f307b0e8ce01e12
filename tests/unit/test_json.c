/* JSON: accepted and refused documents, and the place of every value.
 *
 * Wording and places of most refusals are golden tests (tests/golden/front); here are tables of
 * bare documents, sizes and the mapping from values to places.
 */
#include "../../compiler/json.h"
#include "unit.h"

#include <cjson/cJSON.h>

#include <stdlib.h>
#include <string.h>

static bool accepted(const char *text, size_t len, DiagId *first)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    Json *json = json_parse(arena, diags, "t.json", text, len, JSON_MAX_BYTES);
    CU_ASSERT_EQUAL(json == NULL, diags_failed(diags));
    *first = N_DIAGS;
    if (!json) {
        Text printed = { 0 };
        diags_print(diags, &printed);
        for (int i = 0; i < N_DIAGS; i++) {
            char wanted[64];
            snprintf(wanted, sizeof wanted, "error[%s]", diag_code((DiagId)i));
            if (strstr(printed.data, wanted))
                *first = (DiagId)i;
        }
        text_free(&printed);
    }
    bool good = json != NULL;
    json_free(json);
    arena_free(arena);
    return good;
}

static void test_accepts(void)
{
    static const char *const texts[] = {
        "0", "-0", "-0.0e-0", "1e308", "1E+2", "123456789012345678901234567890", "1e-400", "true", "null",
        "\"\"", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"", "\"\\ud834\\udd1e\"", "\"\xf0\x9d\x84\x9e\x7f\"", "[]", "{}",
        " [ 1 , [ ] , { \"a\" : { } } ] ", "{\"a\":1,\"A\":2,\"\":3}", "[\"a\",\"a\"]", "{\"a\":{\"a\":1}}",
    };
    DiagId id;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        CU_ASSERT(accepted(texts[i], strlen(texts[i]), &id));
        if (id != N_DIAGS)
            printf("refused: %s\n", texts[i]);
    }
}

static void test_refuses(void)
{
    static const struct { const char *text; DiagId id; } rows[] = {
        { "", DIAG_JSON_SYNTAX }, { "01", DIAG_JSON_SYNTAX }, { "-", DIAG_JSON_SYNTAX }, { "1.", DIAG_JSON_SYNTAX },
        { ".1", DIAG_JSON_SYNTAX }, { "1e", DIAG_JSON_SYNTAX }, { "1e+", DIAG_JSON_SYNTAX }, { "+1", DIAG_JSON_SYNTAX },
        { "1e400", DIAG_JSON_NUMBER }, { "-1e309", DIAG_JSON_NUMBER }, { "[1,]", DIAG_JSON_SYNTAX },
        { "[,1]", DIAG_JSON_SYNTAX }, { "[1 2]", DIAG_JSON_SYNTAX }, { "{\"a\"}", DIAG_JSON_SYNTAX },
        { "{\"a\":}", DIAG_JSON_SYNTAX }, { "{1:2}", DIAG_JSON_SYNTAX }, { "{\"a\":1,}", DIAG_JSON_SYNTAX },
        { "[", DIAG_JSON_SYNTAX }, { "{", DIAG_JSON_SYNTAX }, { "\"", DIAG_JSON_SYNTAX }, { "\"\\", DIAG_JSON_SYNTAX },
        { "\"\\u", DIAG_JSON_SYNTAX }, { "\"\\u123", DIAG_JSON_SYNTAX }, { "\"\\ud800\"", DIAG_JSON_UTF8 },
        { "\"\\ud800\\", DIAG_JSON_UTF8 }, { "\"\\ud800\\u", DIAG_JSON_UTF8 }, { "\"\\ud800\\u0041\"", DIAG_JSON_UTF8 },
        { "\"\\u0000\"", DIAG_JSON_SYNTAX }, { "\"\xc3\"", DIAG_JSON_UTF8 }, { "\"\x80\"", DIAG_JSON_UTF8 },
        { "\"\xf5\x80\x80\x80\"", DIAG_JSON_UTF8 }, { "\"\xf0\x80\x80\x80\"", DIAG_JSON_UTF8 }, { "\xe8", DIAG_JSON_SYNTAX },
        { "1 1", DIAG_JSON_SYNTAX }, { "nul", DIAG_JSON_SYNTAX }, { "nullx", DIAG_JSON_SYNTAX }, { "\v1", DIAG_JSON_SYNTAX },
        { "\xc2\xa0" "1", DIAG_JSON_SYNTAX }, { "[1]/**/", DIAG_JSON_SYNTAX }, { "{\"a\":1,\"a\":1}", DIAG_JSON_DUPLICATE },
        { "[{\"b\":{\"\\u0061\":1,\"a\":2}}]", DIAG_JSON_DUPLICATE }, { "{\"\":1,\"\":1}", DIAG_JSON_DUPLICATE },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        DiagId id;
        CU_ASSERT(!accepted(rows[i].text, strlen(rows[i].text), &id));
        CU_ASSERT_EQUAL(id, rows[i].id);
        if (id != rows[i].id)
            printf("%s: %s\n", rows[i].text, id < N_DIAGS ? diag_code(id) : "accepted");
    }
    DiagId id;
    CU_ASSERT(!accepted("1\0", 2, &id));
    CU_ASSERT(!accepted("\"a\0b\"", 5, &id));
}

/* The text may end anywhere: nothing past `len` is read (run under ASan). */
static void test_every_prefix(void)
{
    static const char text[] = "{\"a\\u00e9\\ud834\\udd1e\xf0\x9d\x84\x9e\": [1.5e-3, true, null, {\"b\": \"\\n\"}]}";
    for (size_t len = 0; len < sizeof text - 1; len++) {
        char *copy = malloc(len + 1);
        memcpy(copy, text, len);
        char *exact = realloc(copy, len ? len : 1);
        DiagId id;
        CU_ASSERT(!accepted(exact, len, &id));
        free(exact);
    }
    DiagId id;
    CU_ASSERT(accepted(text, sizeof text - 1, &id));
}

static void test_nesting(void)
{
    char text[2 * JSON_MAX_NESTING + 4];
    DiagId id;
    for (int depth = JSON_MAX_NESTING - 1; depth <= JSON_MAX_NESTING + 1; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        CU_ASSERT_EQUAL(accepted(text, 2 * (size_t)depth, &id), depth <= JSON_MAX_NESTING);
    }
    CU_ASSERT_EQUAL(id, DIAG_JSON_NESTING);
}

static void test_size(void)
{
    size_t len = JSON_MAX_BYTES;
    char *text = malloc(len + 1);
    DiagId id;
    memset(text, ' ', len + 1);
    text[0] = '1';
    CU_ASSERT(accepted(text, len, &id));
    CU_ASSERT(!accepted(text, len + 1, &id));
    CU_ASSERT_EQUAL(id, DIAG_JSON_SIZE);
    free(text);
}

/* Many equal keys must not cost the square of their number. */
static void test_many_duplicates(void)
{
    Text text = { 0 };
    text_append(&text, "{", 1);
    for (int i = 0; i < 100000; i++)
        text_printf(&text, "%s\"k\":0", i ? "," : "");
    text_append(&text, "}", 1);
    DiagId id;
    CU_ASSERT(!accepted(text.data, text.len, &id));
    CU_ASSERT_EQUAL(id, DIAG_JSON_DUPLICATE);
    text_free(&text);
}

static void expect_place(const Json *json, const JsonValue *value, bool key, int line, int col, const char *pointer)
{
    Place at = json_place(json, value, key);
    CU_ASSERT_EQUAL(at.line, line);
    CU_ASSERT_EQUAL(at.col, col);
    CU_ASSERT_STRING_EQUAL(at.pointer, pointer);
    CU_ASSERT_STRING_EQUAL(at.file, "t.json");
}

static void test_places(void)
{
    static const char text[] = "\n { \"a\": [10, {\"x/y~\": true}],\n\"\\u0062\" : null }";
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    Json *json = json_parse(arena, diags, "t.json", text, sizeof text - 1, JSON_MAX_BYTES);
    CU_ASSERT_PTR_NOT_NULL_FATAL(json);
    const JsonValue *root = json_root(json);
    const cJSON *a = cJSON_GetObjectItemCaseSensitive(root, "a"), *b = cJSON_GetObjectItemCaseSensitive(root, "b");
    expect_place(json, root, false, 2, 2, "");
    expect_place(json, root, true, 2, 2, "");
    expect_place(json, a, false, 2, 9, "/a");
    expect_place(json, a, true, 2, 4, "/a");
    expect_place(json, a->child, false, 2, 10, "/a/0");
    expect_place(json, a->child, true, 2, 10, "/a/0");
    expect_place(json, a->child->next->child, true, 2, 15, "/a/1/x~1y~0");
    expect_place(json, b, true, 3, 1, "/b");
    expect_place(json, b, false, 3, 12, "/b");
    Place at = json_place(json, b, false);
    json_free(json);
    CU_ASSERT_STRING_EQUAL(at.pointer, "/b");   /* places outlive the tree */
    CU_ASSERT_STRING_EQUAL(at.text, text);
    arena_free(arena);
}

static const UnitTest tests[] = {
    { "accepts", test_accepts },
    { "refuses", test_refuses },
    { "every prefix", test_every_prefix },
    { "nesting", test_nesting },
    { "size", test_size },
    { "many duplicates", test_many_duplicates },
    { "places", test_places },
};
UNIT_MAIN("json", tests)
