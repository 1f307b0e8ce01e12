/* Diagnostics and their helpers: the printed form, the limit, exit codes, texts and arenas. */
#include "../../ir/diag.h"
#include "../../ir/target.h"
#include "unit.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const char source[] = "{\n  \"d_inner\": 512,\n\t\"\xe8\x8b\x94\": 1\n}\n";

static void expect(const Diags *diags, const char *expected)
{
    Text text = { 0 };
    text_append(&text, "", 0);
    diags_print(diags, &text);
    CU_ASSERT_STRING_EQUAL(text.data, expected);
    if (strcmp(text.data, expected) != 0)
        printf("--- found\n%s--- expected\n%s", text.data, expected);
    text_free(&text);
}

static void test_form(void)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    Place at = { "tiny.json", 2, 14, "/layers/3/of/0/d_inner", source };
    diag_report(diags, DIAG_IR_VERIFY, &at, "linear: inner size %d, weight has %d", 512, 768);
    diag_note(diags, &(Place){ "tiny.json", 37, 9, "/layers/3", NULL }, "input made here");
    expect(diags, "tiny.json:2:14: error[ir-verify]: linear: inner size 512, weight has 768\n"
                  "  at /layers/3/of/0/d_inner\n"
                  "    2 |   \"d_inner\": 512,\n"
                  "      |              ^\n"
                  "tiny.json:37:9: note: input made here (/layers/3)\n");
    arena_free(arena);
}

static void test_places(void)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    diag_report(diags, DIAG_USAGE, NULL, "no model");
    diag_note(diags, NULL, "see --help");
    diag_report(diags, DIAG_FILE_READ, &(Place){ .file = "a.json" }, "cannot read");
    diag_report(diags, DIAG_JSON_SYNTAX, &(Place){ "a", 1, 1, "", NULL }, "m");
    diag_report(diags, DIAG_JSON_SYNTAX, &(Place){ "a", 3, 7, NULL, source }, "after a tab and a wide character");
    diag_report(diags, DIAG_JSON_SYNTAX, &(Place){ "a", 2, 99, NULL, source }, "past the end");
    diag_report(diags, DIAG_JSON_SYNTAX, &(Place){ "a", 99, 1, NULL, source }, "no such line");
    expect(diags, "mossc: error[usage]: no model\n"
                  "mossc: note: see --help\n"
                  "a.json: error[file-read]: cannot read\n"
                  "a:1:1: error[json-syntax]: m\n  at (root)\n"
                  "a:3:7: error[json-syntax]: after a tab and a wide character\n"
                  "    3 |  \"\xe8\x8b\x94\": 1\n      |     ^\n"
                  "a:2:99: error[json-syntax]: past the end\n"
                  "    2 |   \"d_inner\": 512,\n      |                  ^\n"
                  "a:99:1: error[json-syntax]: no such line\n");
    arena_free(arena);
}

/* What a file says must not drive the terminal. */
static void test_hostile_text(void)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    diag_report(diags, DIAG_GRAPH_KEY, &(Place){ "a\x1b[2J", 1, 1, "/\x7f\n", "\x1b]0;x\x07\xff\xc2\x9b" },
                "key \"%s\"", "\r\n\x80");
    expect(diags, "a?[2J:1:1: error[graph-key]: key \"???\"\n  at /??\n    1 | ?]0;x????\n      | ^\n");
    arena_free(arena);
}

static void test_limit(void)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    for (int i = 0; i < DIAG_MAX_ERRORS; i++)
        diag_report(diags, DIAG_GRAPH_KEY, NULL, "%d", i);
    CU_ASSERT(!diags_full(diags));
    diag_report(diags, DIAG_FILE_READ, NULL, "lost");
    diag_note(diags, NULL, "lost with it");
    CU_ASSERT(diags_full(diags));
    CU_ASSERT_EQUAL(diags_exit_code(diags), 3);   /* counted though not shown */
    for (int i = 0; i < 1000; i++) {
        diag_report(diags, DIAG_WEIGHTS_RANDOM, NULL, "warning");
        diag_note(diags, NULL, "note");
        diag_report(diags, DIAG_GRAPH_KEY, NULL, "error");
    }
    Text text = { 0 };
    diags_print(diags, &text);
    CU_ASSERT_PTR_NULL(strstr(text.data, "lost"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "mossc: error[graph-key]: 19\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "mossc: too many errors; only the first 20 are shown\n"));
    text_free(&text);
    arena_free(arena);
}

static void test_exit_codes(void)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    CU_ASSERT_EQUAL(diags_exit_code(diags), 0);
    diag_report(diags, DIAG_WEIGHTS_RANDOM, NULL, "only a warning");
    CU_ASSERT_EQUAL(diags_exit_code(diags), 0);
    CU_ASSERT(!diags_failed(diags));
    diag_report(diags, DIAG_GRAPH_KEY, NULL, "user");
    CU_ASSERT_EQUAL(diags_exit_code(diags), 1);
    diag_report(diags, DIAG_TOOLCHAIN, NULL, "environment");
    diag_report(diags, DIAG_USAGE, NULL, "usage");
    CU_ASSERT_EQUAL(diags_exit_code(diags), 3);
    CU_ASSERT_STRING_EQUAL(diag_code(DIAG_GRAPH_TOP_K), "graph-top-k");
    arena_free(arena);
}

static void expect_double(double value, const char *expected)
{
    Text text = { 0 };
    text_double(&text, value);
    CU_ASSERT_STRING_EQUAL(text.data, expected);
    if (isfinite(value))
        CU_ASSERT_EQUAL(strtod(text.data, NULL), value);
    text_free(&text);
}

static void test_text_double(void)
{
    expect_double(0, "0");
    expect_double(-0.0, "-0");
    expect_double(1e-5, "1e-05");
    expect_double(10000, "10000");
    expect_double(500000, "500000");
    expect_double(0.1, "0.1");
    expect_double(0.1 + 0.2, "0.30000000000000004");
    expect_double(1234.5, "1234.5");
    expect_double(-1e15, "-1000000000000000");
    expect_double(1e300, "1e+300");
    expect_double(0x1p53, "9007199254740992");
    expect_double(DBL_MAX, "1.7976931348623157e+308");
    expect_double(DBL_TRUE_MIN, "5e-324");
    expect_double(INFINITY, "inf");
    expect_double(-INFINITY, "-inf");
    expect_double(NAN, "nan");
}

static void test_text_grow(void)
{
    Text text = { 0 };
    for (int i = 0; i < 10000; i++)
        text_printf(&text, "%d,", i % 10);
    CU_ASSERT_EQUAL(text.len, 20000);
    CU_ASSERT_EQUAL(strlen(text.data), 20000);
    text_free(&text);
    CU_ASSERT_PTR_NULL(text.data);
}

static bool all_zero(const unsigned char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i])
            return false;
    return true;
}

static void test_arena(void)
{
    Arena *arena = arena_new();
    ArenaMark empty = arena_mark(arena);
    int n_bad = 0;
    for (size_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < 300; i++) {
            size_t len = i * i % 5000 + (i % 100 == 0 ? 1 << 20 : 0);
            ArenaMark mark = arena_mark(arena);
            unsigned char *memory = arena_alloc(arena, len);
            n_bad += (uintptr_t)memory % 16 != 0 || !all_zero(memory, len);
            memset(memory, 0xaa, len);
            if (i % 3)
                arena_release(arena, mark);
        }
        arena_release(arena, empty);
    }
    CU_ASSERT_EQUAL(n_bad, 0);
    CU_ASSERT_STRING_EQUAL(arena_printf(arena, "%s-%d", "layer", 3), "layer-3");
    CU_ASSERT_STRING_EQUAL(arena_strndup(arena, "abcdef", 3), "abc");
    CU_ASSERT_PTR_NOT_NULL(arena_array(arena, int, 0));
    arena_free(arena);
}

static void test_targets(void)
{
    TargetId id;
    for (int i = 0; i < N_TARGETS; i++) {
        CU_ASSERT(target_from_name(target_info((TargetId)i)->name, &id));
        CU_ASSERT_EQUAL((int)id, i);
    }
    CU_ASSERT(!target_from_name("vax", &id));
    TargetId best = target_resolve(TARGET_HOST);
    CU_ASSERT_NOT_EQUAL(best, TARGET_HOST);
    CU_ASSERT_EQUAL(target_resolve(best), best);
    CU_ASSERT_EQUAL(target_runs_here(TARGET_HOST), target_runs_here(best));
#if defined __x86_64__
    CU_ASSERT(!target_runs_here(TARGET_ARM_NEON));
    CU_ASSERT(!target_runs_here(TARGET_X86_64_V4) || target_runs_here(TARGET_X86_64_V3));
    CU_ASSERT(!target_runs_here(TARGET_X86_64_AVXVNNI) || target_runs_here(TARGET_X86_64_V3));
    /* Twice the vector beats half of one with int8 products. */
    CU_ASSERT(!target_runs_here(TARGET_X86_64_V4) || best == TARGET_X86_64_V4 || best == TARGET_X86_64_VNNI);
#endif
}

static const UnitTest tests[] = {
    { "printed form", test_form },
    { "places", test_places },
    { "hostile text", test_hostile_text },
    { "limit", test_limit },
    { "exit codes", test_exit_codes },
    { "shortest doubles", test_text_double },
    { "text grows", test_text_grow },
    { "arena", test_arena },
    { "targets", test_targets },
};
UNIT_MAIN("diag", tests)
