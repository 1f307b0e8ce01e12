/* Templates: reading, the grammar of instance names, rendering.
 *
 * The embedded templates themselves are the main input; malformed files are written here, one for
 * each rule, with the words the check must use.
 */
#include "../../codegen/template.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

static const double numbers[] = { 0, 1, -1, 7, 1024, 50304, 2147483647, -2147483647 };
static const double floats[] = { 0, 1, -1, 1e-5, 10000, 500000.5, 0.1, 1e300, -2.5e-300, 1.0 / 3, 5e-324 };
enum { N_NUMBERS = sizeof numbers / sizeof *numbers, N_FLOATS = sizeof floats / sizeof *floats };

static void test_embedded(void)
{
    static const char *const names[] = { "gemm", "gemv", "rms_norm", "route", "rms_norm_route", "group", "embed",
        "conv1d", "scan", "swiglu", "rope_table", "rope", "attention", "ring_write" };
    Arena *arena = arena_new();
    template_check_all();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const Template *template = template_find(arena, names[i]);
        CU_ASSERT_STRING_EQUAL(template->name, names[i]);
        CU_ASSERT(template->n_params > 0 && *template->summary && !strchr(template->summary, '\n'));
        CU_ASSERT(template->args[0] == '(' && template->body[0] == '{');
    }
    const Template *rms = template_find(arena, "rms_norm");
    CU_ASSERT_EQUAL(rms->n_params, 3);
    CU_ASSERT_STRING_EQUAL(rms->params[0].name, "n_in");
    CU_ASSERT_STRING_EQUAL(rms->params[0].code, "i");
    CU_ASSERT(!rms->params[0].is_float && rms->params[2].is_float);
    CU_ASSERT_EQUAL(template_param(rms, "eps"), 2);
    arena_free(arena);
}

/* Every template with many values: the name is an identifier and reads back to the same values. */
static void test_round_trip(void)
{
    Arena *arena = arena_new();
    for (int t = 0; t < n_embedded_templates; t++) {
        const char *problem = NULL;
        const Template *template = template_parse(arena, &embedded_templates[t], &problem);
        CU_ASSERT_PTR_NOT_NULL_FATAL(template);
        for (int round = 0; round < 88; round++) {
            double values[TEMPLATE_MAX_PARAMS], back[TEMPLATE_MAX_PARAMS];
            for (int i = 0; i < template->n_params; i++)
                values[i] = template->params[i].is_float ? floats[(round + i) % N_FLOATS] : numbers[(round + 3 * i) % N_NUMBERS];
            Text name = { 0 };
            template_print_name(template, values, &name);
            CU_ASSERT_EQUAL(strspn(name.data, "abcdefghijklmnopqrstuvwxyz0123456789_"), name.len);
            const Template *found = template_parse_name(arena, name.data, back);
            CU_ASSERT_PTR_NOT_NULL_FATAL(found);
            CU_ASSERT_STRING_EQUAL(found->name, template->name);
            for (int i = 0; i < template->n_params; i++)
                CU_ASSERT_EQUAL(values[i], back[i]);
            text_free(&name);
        }
    }
    arena_free(arena);
}

static void test_not_names(void)
{
    static const char *const texts[] = { "", "rms_norm", "rms_norm_", "rms_norm_i64", "rms_norm_i64_s64_eps1e-05",
        "rms_norm_i064_s64_eps1em05", "rms_norm_i64_s64_eps1em5", "rms_norm_i64_s64_eps1em05_", "rms_norm_i64_s64_eps1em05x",
        "rms_norm_s64_i64_eps1em05", "rms_norm_i1d5_s64_eps1em05", "rms_norm_i_s64_eps1em05", "rms_norm_i64_s64_eps",
        "rms_norm_i99999999999_s64_eps1em05", "nothing_i64", "group_e1e1", "group_em0", "group_ep1" };
    Arena *arena = arena_new();
    double values[TEMPLATE_MAX_PARAMS];
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (template_parse_name(arena, texts[i], values))
            fprintf(stderr, "\"%s\" was read as a name\n", texts[i]);
        CU_ASSERT_PTR_NULL(template_parse_name(arena, texts[i], values));
    }
    CU_ASSERT_PTR_NOT_NULL(template_parse_name(arena, "rms_norm_i64_s64_eps1em05", values));
    CU_ASSERT_EQUAL(values[2], 1e-5);
    arena_free(arena);
}

static void test_render(void)
{
    static const char text[] = "/* Adds a constant. More words. */\nPARAM(n_in, i)   /* length */\nFPARAM(bias, b)\n\n"
                               "KERNEL(add)(\n    float *x)   /* [n_in] ) */\n{\n    for (int i = 0; i < n_in; i++)   /* } */\n"
                               "        x[i] += (float)bias;\n}\n";
    static const char want[] = "/* add: Adds a constant. */\nstatic void add_i12_bm0d5(\n    float *x)\n{\n    enum { n_in = 12 };\n"
                               "    static const double bias = -0.5;\n    for (int i = 0; i < n_in; i++)   /* } */\n"
                               "        x[i] += (float)bias;\n}\n\n";
    Arena *arena = arena_new();
    const EmbeddedFile file = { "add.c", text, sizeof text - 1 };
    const char *problem = NULL;
    const Template *template = template_parse(arena, &file, &problem);
    CU_ASSERT_PTR_NOT_NULL_FATAL(template);
    CU_ASSERT_STRING_EQUAL(template->summary, "Adds a constant");
    Text out = { 0 };
    template_render(template, (const double[]){ 12, -0.5 }, &out);
    if (strcmp(out.data, want) != 0)
        fprintf(stderr, "rendered:\n%s", out.data);
    CU_ASSERT_STRING_EQUAL(out.data, want);
    text_free(&out);
    arena_free(arena);
}

/* An option is in the name only when it is not 0, wherever it stands, and may be missing from bindings. */
static void test_options(void)
{
    static const char text[] = "/* Adds. */\nPARAM(n_in, i)\nOPTION(form, f)\nPARAM(few, fo)\nOPTION(mode, mo)\n"
                               "KERNEL(add)(float *x)\n{\n    x[form] += mode;\n}\n";
    static const struct { double values[4]; const char *name; } cases[] = {
        { { 3, 0, 4, 0 }, "add_i3_fo4" }, { { 3, 2, 4, 0 }, "add_i3_f2_fo4" }, { { 3, 0, 4, 1 }, "add_i3_fo4_mo1" },
        { { 3, -1, 4, 7 }, "add_i3_fm1_fo4_mo7" },
    };
    Arena *arena = arena_new();
    const EmbeddedFile file = { "add.c", text, sizeof text - 1 };
    const char *problem = NULL;
    const Template *template = template_parse(arena, &file, &problem);
    CU_ASSERT_PTR_NOT_NULL_FATAL(template);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Text name = { 0 };
        double back[TEMPLATE_MAX_PARAMS];
        template_print_name(template, cases[i].values, &name);
        CU_ASSERT_STRING_EQUAL(name.data, cases[i].name);
        CU_ASSERT_FATAL(template_read_name(template, cases[i].name, back));
        for (int p = 0; p < 4; p++)
            CU_ASSERT_EQUAL(back[p], cases[i].values[p]);
        text_free(&name);
    }
    double values[TEMPLATE_MAX_PARAMS];
    CU_ASSERT(!template_read_name(template, "add_i3_f0_fo4", values) && !template_read_name(template, "add_i3", values));
    TemplateBinding bindings[TEMPLATE_MAX_PARAMS] = { { "mode", 5 }, { "few", 1 }, { "n_in", 2 } };
    CU_ASSERT_EQUAL(template_add_options(template, bindings, 3), 4);
    CU_ASSERT(strcmp(bindings[3].name, "form") == 0 && bindings[3].value == 0);
    arena_free(arena);
}

static void test_malformed(void)
{
#define HEAD "/* A kernel. */\n"
#define BODY "KERNEL(k)(float *x)\n{\n    x[0] = n;\n}\n"
    static const struct { const char *text, *problem; } cases[] = {
        { "PARAM(n, n)\n" BODY, "open with a comment" },
        { "/* never closed\n", "open with a comment" },
        { HEAD BODY, "no PARAM" },
        { HEAD "PARAM(n)\n" BODY, "parameter 0" },
        { HEAD "PARAM(n,n)\n" BODY, "parameter 0" },
        { HEAD "PARAM(n, n1)\n" BODY, "parameter 0" },
        { HEAD "OPTION(n, n)\n" BODY, "parameter 0" },
        { HEAD "PARAM(n, n_a)\n" BODY, "parameter 0" },
        { HEAD "PARAM(N, n)\n" BODY, "parameter 0" },
        { HEAD "PARAM(n, n)\nPARAM(n, m)\n" BODY, "twice" },
        { HEAD "PARAM(n, n)\nFPARAM(m, n)\n" BODY, "twice" },
        { HEAD "PARAM(n, n)\nint x;\n" BODY, "expected PARAM or KERNEL" },
        { HEAD "PARAM(n, n)\n", "expected PARAM or KERNEL" },
        { HEAD "PARAM(n, n)\nKERNEL(k, x)\n", "expected KERNEL" },
        { HEAD "PARAM(n, n)\nKERNEL(other)(float *x)\n{\n}\n", "in file k.c" },
        { HEAD "PARAM(n, n)\nKERNEL(k)(float *x\n{\n}\n", "argument list" },
        { HEAD "PARAM(n, n)\nKERNEL(k)(float *x);\n", "body" },
        { HEAD "PARAM(n, n)\nKERNEL(k)(float *x)\n{\n    /* } */\n", "body" },
        { HEAD "PARAM(n, n)\n" BODY "int y;\n", "follows the kernel" },
        { HEAD "PARAM(n, n)\n" BODY BODY, "follows the kernel" },
        { HEAD "PARAM(n, n)\nKERNEL(k)(float *x)\n{\n#if 1\n    x[0] = n;\n  #endif\n}\n", "preprocessor" },
    };
    Arena *arena = arena_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const EmbeddedFile file = { "k.c", cases[i].text, strlen(cases[i].text) };
        const char *problem = "";
        CU_ASSERT_PTR_NULL(template_parse(arena, &file, &problem));
        if (!strstr(problem, cases[i].problem))
            fprintf(stderr, "case %zu: \"%s\", expected \"%s\"\n", i, problem, cases[i].problem);
        CU_ASSERT(strstr(problem, cases[i].problem) != NULL);
    }
    const EmbeddedFile good = { "k.c", HEAD "PARAM(n, n)\n" BODY, strlen(HEAD "PARAM(n, n)\n" BODY) };
    const char *problem = NULL;
    CU_ASSERT_PTR_NOT_NULL(template_parse(arena, &good, &problem));
    const EmbeddedFile nul = { "k.c", HEAD "PARAM(n, n)\n" BODY, strlen(HEAD "PARAM(n, n)\n" BODY) + 1 };
    CU_ASSERT_PTR_NULL(template_parse(arena, &nul, &problem));
    arena_free(arena);
}

static const UnitTest tests[] = {
    { "embedded templates", test_embedded },
    { "names round trip", test_round_trip },
    { "texts that are not names", test_not_names },
    { "options", test_options },
    { "rendering", test_render },
    { "malformed templates", test_malformed },
};
UNIT_MAIN("template", tests)
