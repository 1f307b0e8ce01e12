/* GPU kernels as PTX: names, requests that mossc must not make, one text whose bytes are always the same.
 *
 * What aborts is run in a child, and its words are read. Without LLVM only names are tested.
 */
#include "../../codegen/ptx.h"
#include "../../codegen/ptx_compile.h"
#include "unit.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const TemplateBinding embed_512[] = { { "weight_dtype", 1 }, { "d_model", 512 }, { "act", 1 } };
static const TemplateBinding embed_500[] = { { "d_model", 500 }, { "weight_dtype", 3 }, { "act", 2 } };

/* Does `run` abort, and say `words`? */
static bool aborts_with(void (*run)(void), const char *words)
{
    int ends[2];
    char said[2000] = "";
    size_t len = 0;
    if (pipe(ends) != 0)
        return false;
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        run();
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t n; len < sizeof said - 1 && (n = read(ends[0], said + len, sizeof said - 1 - len)) > 0; )
        len += (size_t)n;
    close(ends[0]);
    int status;
    const bool aborted = waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
    if (!aborted || !strstr(said, words))
        fprintf(stderr, "expected to abort with \"%s\", %s with \"%s\"\n", words, aborted ? "did" : "went on", said);
    return aborted && strstr(said, words);
}

static void test_names(void)
{
    Arena *arena = arena_new();
    Ptx *ptx = ptx_open(80);
    const char *name = ptx_instance(ptx, "embed", embed_512, 3, 128, 0);
    CU_ASSERT_STRING_EQUAL(name, "embed_n512_w1_a1");
    CU_ASSERT_PTR_EQUAL(ptx_instance(ptx, "embed", embed_512, 3, 128, 0), name);
    CU_ASSERT_STRING_EQUAL(ptx_instance(ptx, "embed", embed_500, 3, 128, 2), "embed_n500_w3_a2");
    CU_ASSERT_EQUAL_FATAL(ptx_n_kernels(ptx), 2);
    CU_ASSERT_PTR_EQUAL(ptx_kernel_name(ptx, 0), name);
    double values[TEMPLATE_MAX_PARAMS];
    const Template *template = template_parse_name_gpu(arena, name, values);
    CU_ASSERT_PTR_NOT_NULL_FATAL(template);
    CU_ASSERT_STRING_EQUAL(template->name, "embed");
    CU_ASSERT_EQUAL(values[template_param(template, "d_model")], 512);
    CU_ASSERT_PTR_NULL(template_parse_name_gpu(arena, "embed_n512_w1", values));
    for (int n = 1; n <= 600; n++) {
        const TemplateBinding embed[] = { { "weight_dtype", 2 }, { "d_model", n }, { "act", 2 } };
        ptx_instance(ptx, "embed", embed, 3, 128, 0);
    }
    CU_ASSERT_EQUAL(ptx_n_kernels(ptx), 602);
    CU_ASSERT_PTR_EQUAL(ptx_kernel_name(ptx, 0), name);
    CU_ASSERT_STRING_EQUAL(ptx_kernel_name(ptx, 601), "embed_n600_w2_a2");
    ptx_close(ptx);
    arena_free(arena);
}

/* ---- requests that are bugs ---- */

static void ask_unknown(void)
{
    ptx_instance(ptx_open(80), "no_such_kernel", embed_512, 3, 128, 0);
}

static void ask_unbound(void)
{
    ptx_instance(ptx_open(80), "embed", embed_512, 2, 128, 0);
}

static void ask_twice_bound(void)
{
    const TemplateBinding twice[] = { { "d_model", 512 }, { "act", 1 }, { "act", 1 } };
    ptx_instance(ptx_open(80), "embed", twice, 3, 128, 0);
}

static void ask_unknown_param(void)
{
    const TemplateBinding wrong[] = { { "d_model", 512 }, { "weight_dtype", 1 }, { "acts", 1 } };
    ptx_instance(ptx_open(80), "embed", wrong, 3, 128, 0);
}

static void ask_half(void)
{
    const TemplateBinding half[] = { { "d_model", 0.5 }, { "weight_dtype", 1 }, { "act", 1 } };
    ptx_instance(ptx_open(80), "embed", half, 3, 128, 0);
}

static void ask_other_threads(void)
{
    Ptx *ptx = ptx_open(80);
    ptx_instance(ptx, "embed", embed_512, 3, 128, 0);
    ptx_instance(ptx, "embed", embed_512, 3, 256, 0);
}

static void ask_other_architecture(void)
{
    ptx_open(75);
}

static void test_bugs(void)
{
    CU_ASSERT(aborts_with(ask_unknown, "no GPU template no_such_kernel"));
    CU_ASSERT(aborts_with(ask_unbound, "embed has 3 parameters, 2 bound"));
    CU_ASSERT(aborts_with(ask_twice_bound, "act is bound twice"));
    CU_ASSERT(aborts_with(ask_unknown_param, "no parameter acts"));
    CU_ASSERT(aborts_with(ask_half, "d_model cannot be 0.5"));
    CU_ASSERT(aborts_with(ask_other_threads, "embed_n512_w1_a1 has 128 threads, and 256 as well"));
    CU_ASSERT(aborts_with(ask_other_architecture, "no GPU target of sm_75"));
}

/* ---- compiled ---- */

/* The kernel's last parameter is forgotten, which ptx_instance would not let through. */
static void compile_unbound(void)
{
    Arena *arena = arena_new();
    Template template = *template_find_gpu(arena, "embed");
    template.n_params--;
    PtxKernel kernel = { .name = "embed_n512_w1", .template = &template, .values = { 512, 1 }, .sm = 80,
        .n_threads = 128 };
    ptx_compile_init();
    ptx_compile(&kernel);
}

static void test_unbound(void)
{
    if (ptx_available())
        CU_ASSERT(aborts_with(compile_unbound, "act is not bound"));
}

/* Every template file is there as bitcode too. */
static void test_bitcode(void)
{
    CU_ASSERT_EQUAL(n_embedded_gpu_bitcode, ptx_available() ? n_embedded_gpu_templates : 0);
}

static void write_two(int sm, Text *out)
{
    Ptx *ptx = ptx_open(sm);
    ptx_instance(ptx, "embed", embed_512, 3, 128, 0);
    ptx_instance(ptx, "embed", embed_500, 3, 96, 2);
    ptx_finish(ptx, out, NULL);
    ptx_close(ptx);
}

static int count(const char *text, const char *word)
{
    int n = 0;
    for (const char *p = text; (p = strstr(p, word)); p++)
        n++;
    return n;
}

static void test_text(void)
{
    if (!ptx_available())
        return;
    Text first = { 0 }, again = { 0 }, hopper = { 0 };
    write_two(80, &first);
    write_two(80, &again);
    write_two(90, &hopper);
    CU_ASSERT_STRING_EQUAL(first.data, again.data);
    CU_ASSERT_EQUAL(count(first.data, ".version"), 1);
    CU_ASSERT_EQUAL(count(first.data, ".target sm_80"), 1);
    CU_ASSERT_EQUAL(count(first.data, ".extern"), 1);
    CU_ASSERT_EQUAL(count(first.data, ".visible .entry embed_n512_w1_a1("), 1);
    CU_ASSERT_EQUAL(count(first.data, ".visible .entry embed_n500_w3_a2("), 1);
    CU_ASSERT_EQUAL(count(first.data, ".maxntid 128"), 1);
    CU_ASSERT_EQUAL(count(first.data, ".maxntid 96"), 1);
    CU_ASSERT_EQUAL(count(first.data, ".minnctapersm 2"), 1);
    CU_ASSERT_EQUAL(count(first.data, "griddepcontrol"), 0);
    CU_ASSERT_EQUAL(count(first.data, "//"), 0);
    CU_ASSERT_EQUAL(count(hopper.data, ".target sm_90a"), 1);
    CU_ASSERT_EQUAL(count(hopper.data, "griddepcontrol.wait"), 2);
    text_free(&first);
    text_free(&again);
    text_free(&hopper);
}

static const UnitTest tests[] = {
    { "names of instances", test_names },
    { "requests that are bugs", test_bugs },
    { "bitcode of every template", test_bitcode },
    { "a parameter left unbound", test_unbound },
    { "one text, always the same", test_text },
};

UNIT_MAIN("ptx", tests)
