/* gpu_render: one instance of a GPU template, as PTX or as the C of the host rendering, for developers.
 *
 * Input: the template's name, the architecture, a value for every parameter. Output on stdout.
 * Exit code: 0 ok, 2 usage (the template's parameters are then listed).
 */
#include "../../codegen/ptx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char help[] =
    "gpu_render ptx|c|name NAME SM PARAM=VALUE... [threads=N] [blocks=N]\n"
    "  prints the instance of codegen/gpu/NAME.c for SM (80: a100, 90: h100) with all its parameters bound:\n"
    "    ptx    as PTX; threads a block (256) and least blocks a multiprocessor (0: any) are launch bounds;\n"
    "           warnings of LLVM and the time taken go to stderr\n"
    "    c      as C for the host, one file (it includes dialect.h, which includes emulate.h)\n"
    "    name   the instance's name only\n"
    "gpu_render list        all templates with their parameters\n"
    "  gpu_render ptx embed 80 d_model=512 weight_dtype=1 act=1 threads=128 >k.ptx && ptxas -arch=sm_80 -v k.ptx\n"
    "  the target is sm_80 for 80 and sm_90a for 90; `PARAM` may also be the code used in instance names\n";

typedef struct {
    const Template *template;
    int sm, n_threads, min_blocks, n_bindings;
    TemplateBinding bindings[TEMPLATE_MAX_PARAMS];
} Request;

static void print_params(const Template *template, FILE *out)
{
    fprintf(out, "%s", template->name);
    for (int i = 0; i < template->n_params; i++)
        fprintf(out, " %s(%s%s)", template->params[i].name, template->params[i].code,
            template->params[i].is_float ? ", float" : template->params[i].is_option ? ", may be missing: 0" : "");
    fprintf(out, "\n");
}

static int list(Arena *arena)
{
    for (int i = 0; i < n_embedded_gpu_templates; i++) {
        const char *problem = NULL;
        const Template *template = template_parse_gpu(arena, &embedded_gpu_templates[i], &problem);
        if (template)
            print_params(template, stdout);
        else
            printf("%s: %s\n", embedded_gpu_templates[i].name, problem);
    }
    return 0;
}

static bool add_binding(Request *request, const char *name, size_t len, double value)
{
    for (int i = 0; i < request->template->n_params; i++) {
        const TemplateParam *param = &request->template->params[i];
        const bool is_name = strlen(param->name) == len && memcmp(param->name, name, len) == 0;
        const bool is_code = strlen(param->code) == len && memcmp(param->code, name, len) == 0;
        if (!is_name && !is_code)
            continue;
        for (int j = 0; j < request->n_bindings; j++)
            if (request->bindings[j].name == param->name)
                return false;
        request->bindings[request->n_bindings++] = (TemplateBinding){ param->name, value };
        return true;
    }
    return false;
}

static bool read_setting(Request *request, const char *text)
{
    const char *equals = strchr(text, '=');
    if (!equals)
        return false;
    char *end;
    const double value = strtod(equals + 1, &end);
    const size_t len = (size_t)(equals - text);
    if (end == equals + 1 || *end)
        return false;
    if (len == 7 && memcmp(text, "threads", 7) == 0)
        return request->n_threads = (int)value, true;
    if (len == 6 && memcmp(text, "blocks", 6) == 0)
        return request->min_blocks = (int)value, true;
    return add_binding(request, text, len, value);
}

/* False, with a line on stderr, when something is wrong. */
static bool read_request(Arena *arena, int n, char **words, Request *request)
{
    request->n_threads = 256;
    if (!(request->template = template_find_gpu(arena, words[0])))
        return fprintf(stderr, "gpu_render: no template %s; see gpu_render list\n", words[0]), false;
    request->sm = atoi(words[1]);
    if (request->sm != 80 && request->sm != 90)
        return fprintf(stderr, "gpu_render: the architecture is 80 or 90, not %s\n", words[1]), false;
    for (int i = 2; i < n; i++)
        if (!read_setting(request, words[i]))
            return fprintf(stderr, "gpu_render: cannot take %s\n", words[i]), false;
    request->n_bindings = template_add_options(request->template, request->bindings, request->n_bindings);
    if (request->n_bindings == request->template->n_params)
        return true;
    fprintf(stderr, "gpu_render: %d parameters given, needed are: ", request->n_bindings);
    return print_params(request->template, stderr), false;
}

static void write_ptx(const Request *request, Text *out)
{
    Text warnings = { 0 };
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    Ptx *ptx = ptx_open(request->sm);
    ptx_instance(ptx, request->template->name, request->bindings, request->n_bindings, request->n_threads,
        request->min_blocks);
    ptx_finish(ptx, out, &warnings);
    ptx_close(ptx);
    clock_gettime(CLOCK_MONOTONIC, &end);
    fprintf(stderr, "%s%.0f ms\n", warnings.data ? warnings.data : "",
        (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) * 1e-6);
    text_free(&warnings);
}

int main(int argc, char **argv)
{
    Arena *arena = arena_new();
    Request request = { 0 };
    Text out = { 0 };
    if (argc == 2 && strcmp(argv[1], "list") == 0)
        return list(arena);
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(help, stdout), 0;
    if (argc < 4)
        return fputs(help, stderr), 2;
    if (!read_request(arena, argc - 2, argv + 2, &request))
        return 2;
    double values[TEMPLATE_MAX_PARAMS];
    template_bind(request.template, request.bindings, request.n_bindings, values);
    if (strcmp(argv[1], "ptx") == 0 && !ptx_available())
        return fputs("gpu_render: built without LLVM 19: no PTX\n", stderr), 2;
    if (strcmp(argv[1], "ptx") == 0)
        write_ptx(&request, &out);
    else if (strcmp(argv[1], "c") == 0)
        template_render_host(request.template, values, request.sm, &out);
    else if (strcmp(argv[1], "name") == 0)
        template_print_name(request.template, values, &out), text_printf(&out, "\n");
    else
        return fputs(help, stderr), 2;
    fputs(out.data, stdout);
    text_free(&out);
    arena_free(arena);
    return 0;
}
