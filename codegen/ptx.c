/* GPU kernels as PTX: who was asked for, and one text of all of them.
 *
 * An instance is named at once and compiled in ptx_finish, by as many threads as there are
 * processors. LLVM's header and its declaration of shared memory come once; comments are dropped.
 */
#include "ptx.h"
#include "ptx_compile.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_WORKERS = 16 };

static const char shared_line[] = ".extern .shared .align 128 .b8 shared_memory[];";

struct Ptx {
    Arena *arena;
    int sm, n_kernels, max_kernels;
    PtxKernel *kernels;
    atomic_int next;                /* the first kernel no worker has taken */
};

Ptx *ptx_open(int sm)
{
    if (sm != 80 && sm != 90)
        BUG("no GPU target of sm_%d", sm);
    Arena *arena = arena_new();
    Ptx *ptx = arena_one(arena, Ptx);
    ptx->arena = arena;
    ptx->sm = sm;
    return ptx;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

const char *ptx_instance(Ptx *ptx, const char *name, const TemplateBinding *bindings, int n, int n_threads,
    int min_blocks)
{
    PtxKernel kernel = { .sm = ptx->sm, .n_threads = n_threads, .min_blocks = min_blocks };
    kernel.template = template_find_gpu(ptx->arena, name);
    if (!kernel.template)
        BUG("no GPU template %s", name);
    if (ends_with(name, "_h100") && ptx->sm != 90)
        BUG("template %s is not for sm_%d", name, ptx->sm);
    if (n_threads < 1 || n_threads > 1024)
        BUG("template %s cannot have %d threads", name, n_threads);
    template_bind(kernel.template, bindings, n, kernel.values);
    Text text = { 0 };
    template_print_name(kernel.template, kernel.values, &text);
    kernel.name = arena_strdup(ptx->arena, text.data);
    text_free(&text);
    for (int i = 0; i < ptx->n_kernels; i++) {
        const PtxKernel *other = &ptx->kernels[i];
        if (strcmp(other->name, kernel.name) != 0)
            continue;
        if (other->n_threads != n_threads || other->min_blocks != min_blocks)
            BUG("%s has %d threads, and %d as well", kernel.name, other->n_threads, n_threads);
        return other->name;
    }
    if (ptx->n_kernels == ptx->max_kernels)
        ptx->kernels = arena_grow(ptx->arena, ptx->kernels, sizeof *ptx->kernels, &ptx->max_kernels);
    ptx->kernels[ptx->n_kernels++] = kernel;
    return kernel.name;
}

int ptx_n_kernels(const Ptx *ptx)
{
    return ptx->n_kernels;
}

const char *ptx_kernel_name(const Ptx *ptx, int i)
{
    return ptx->kernels[i].name;
}

/* ---- compiling ---- */

static void *work(void *context)
{
    Ptx *ptx = context;
    for (int i; (i = atomic_fetch_add(&ptx->next, 1)) < ptx->n_kernels; )
        ptx_compile(&ptx->kernels[i]);
    return NULL;
}

static void compile_all(Ptx *ptx)
{
    pthread_t workers[MAX_WORKERS];
    const long n_processors = sysconf(_SC_NPROCESSORS_ONLN);
    int n_workers = 0;
    ptx_compile_init();
    atomic_store(&ptx->next, 0);
    while (n_workers < MAX_WORKERS && n_workers + 1 < n_processors && n_workers + 1 < ptx->n_kernels &&
           pthread_create(&workers[n_workers], NULL, work, ptx) == 0)
        n_workers++;
    work(ptx);
    for (int i = 0; i < n_workers; i++)
        pthread_join(workers[i], NULL);
}

/* ---- one text ---- */

/* The line [line, end) without its comment and the blanks before it. */
static size_t bare_len(const char *line, size_t len)
{
    for (size_t i = 0; i + 1 < len; i++)
        if (line[i] == '/' && line[i + 1] == '/')
            len = i;
    while (len > 0 && (line[len - 1] == ' ' || line[len - 1] == '\t'))
        len--;
    return len;
}

/* A kernel's text: from after the header on, or its header alone. */
static void write_lines(const PtxKernel *kernel, bool header, Text *out)
{
    bool in_header = true;
    for (const char *line = kernel->ptx.data, *end; *line; line = end + 1) {
        if (!(end = strchr(line, '\n')))
            BUG("%s: its last line does not end", kernel->name);
        const size_t len = bare_len(line, (size_t)(end - line));
        const bool is_shared = len == strlen(shared_line) && memcmp(line, shared_line, len) == 0;
        if (len > 0 && in_header == header && !is_shared) {
            text_append(out, line, len);
            text_append(out, "\n", 1);
        }
        in_header = in_header && strncmp(line, ".address_size", 13) != 0;
    }
}

void ptx_finish(Ptx *ptx, Text *out, Text *warnings)
{
    if (ptx->n_kernels == 0)
        BUG("no kernel was asked for");
    compile_all(ptx);
    write_lines(&ptx->kernels[0], true, out);
    text_printf(out, "%s\n", shared_line);
    for (int i = 0; i < ptx->n_kernels; i++) {
        text_printf(out, "\n");
        write_lines(&ptx->kernels[i], false, out);
        if (warnings && ptx->kernels[i].warnings.data)
            text_printf(warnings, "%s", ptx->kernels[i].warnings.data);
    }
}

void ptx_close(Ptx *ptx)
{
    for (int i = 0; i < ptx->n_kernels; i++) {
        text_free(&ptx->kernels[i].ptx);
        text_free(&ptx->kernels[i].warnings);
    }
    arena_free(ptx->arena);
}
