/* gpu_cases: the instances that a file of cases or a text of PTX names, as C, as PTX, as a list.
 *
 * Input: a file of lines "template param=value … | key=value …" ('#' starts a comment), or a text with
 * ".entry NAME(", whose names are read back by the templates' grammar; a line may be such a name too. Invariant: an
 * instance that comes twice is rendered once. Exit code: 0 ok, 1 the file is wrong, 2 usage, 3 the environment.
 */
#include "../../codegen/ptx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "gpu_cases list FILE         lines \"line instance template key=value …\", what check.c reads; threads= in each\n"
    "gpu_cases c FILE FOLDER     FOLDER/INSTANCE.c for every instance, its name on stdout\n"
    "gpu_cases ptx FILE SM       one PTX with all of them; \"threads=N\" after '|' is the launch bound (256)\n";

enum { MAX_WORDS = 64, HOST_SM = 90 };

typedef struct {
    int line;
    const char *name;                          /* of the instance */
    const char *settings;                      /* "key=value …", of both sides of the '|', and threads= */
    const Template *template;
    double values[TEMPLATE_MAX_PARAMS];
    int n_threads;
} Case;

typedef struct { Arena *arena; const char *path; Case *cases; int n, max; } Cases;

static const char *read_file(Arena *arena, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(3);
    }
    const size_t len = (size_t)ftell(file);
    char *text = arena_alloc(arena, len + 1);
    rewind(file);
    if (fread(text, 1, len, file) != len) {
        perror(path);
        exit(3);
    }
    fclose(file);
    return text;
}

static _Noreturn void refuse(const Cases *of, int line, const char *what, const char *word)
{
    fprintf(stderr, "%s:%d: %s \"%s\"\n", of->path, line, what, word);
    exit(1);
}

static Case *add(Cases *of)
{
    if (of->n == of->max) {
        Case *more = arena_array(of->arena, Case, 2 * (size_t)of->max + 64);
        if (of->n)
            memcpy(more, of->cases, sizeof(Case) * (size_t)of->n);
        of->cases = more;
        of->max = 2 * of->max + 64;
    }
    return &of->cases[of->n++];
}

static const char *instance_name(Arena *arena, const Template *template, const double *values)
{
    Text name = { 0 };
    template_print_name(template, values, &name);
    const char *copy = arena_strdup(arena, name.data);
    text_free(&name);
    return copy;
}

/* "template param=value … | key=value …", or an instance's name */
static void add_line(Cases *of, int line, const char *text)
{
    char *words = arena_strdup(of->arena, text), *save = NULL, *bar = strchr(words, '|');
    const char *extra = bar ? bar + 1 : "";
    if (bar)
        *bar = '\0';
    const char *threads = strstr(extra, " threads="), *params = strchr(words, ' ') ? strchr(words, ' ') + 1 : "";
    const int n_threads = threads ? atoi(threads + strlen(" threads=")) : 256;
    const char *settings = arena_printf(of->arena, threads ? "%s %s" : "%s %s threads=%d", params, extra, n_threads);
    const char *name = strtok_r(words, " \t", &save);
    if (!name)
        return;
    Case *new = add(of);
    *new = (Case){ .line = line, .name = name, .settings = settings, .n_threads = n_threads };
    if ((new->template = template_parse_name_gpu(of->arena, name, new->values)))
        return;
    if (!(new->template = template_find_gpu(of->arena, name)))
        refuse(of, line, "there is no template", name);
    TemplateBinding bindings[MAX_WORDS];
    int n = 0;
    for (char *word; (word = strtok_r(NULL, " \t", &save)); n++) {
        char *equals = strchr(word, '=');
        if (!equals || n == MAX_WORDS)
            refuse(of, line, "expected param=value at", word);
        *equals = '\0';
        bool known = false;
        for (int i = 0; i < new->template->n_params; i++)
            known |= strcmp(new->template->params[i].name, word) == 0;
        if (!known)
            refuse(of, line, "the template has no parameter", word);
        bindings[n] = (TemplateBinding){ word, strtod(equals + 1, NULL) };
    }
    n = template_add_options(new->template, bindings, n);
    if (n != new->template->n_params)
        refuse(of, line, "some parameters are missing:", text);
    template_bind(new->template, bindings, n, new->values);
    new->name = instance_name(of->arena, new->template, new->values);
}

static void add_lines(Cases *of, const char *text)
{
    for (int line = 1; *text; line++) {
        const size_t len = strcspn(text, "\n");
        char *copy = arena_strndup(of->arena, text, len);
        copy[strcspn(copy, "#")] = '\0';
        add_line(of, line, copy);
        text += len + (text[len] == '\n');
    }
}

static void add_entries(Cases *of, const char *text)
{
    for (const char *p = text; (p = strstr(p, ".entry ")); ) {
        p += strlen(".entry ");
        Case *new = add(of);
        *new = (Case){ .name = arena_strndup(of->arena, p, strcspn(p, "( \t\n")), .settings = "" };
        if (!(new->template = template_parse_name_gpu(of->arena, new->name, new->values)))
            refuse(of, 1, "no instance of a template:", new->name);
    }
}

static bool came_before(const Cases *of, int i)
{
    for (int j = 0; j < i; j++)
        if (strcmp(of->cases[j].name, of->cases[i].name) == 0)
            return true;
    return false;
}

/* The launch bound of an instance is the largest of its cases. */
static int bound_of(const Cases *of, const char *name)
{
    int bound = 0;
    for (int i = 0; i < of->n; i++)
        if (strcmp(of->cases[i].name, name) == 0 && of->cases[i].n_threads > bound)
            bound = of->cases[i].n_threads;
    return bound;
}

/* Files that would not change stay as they are, so that they need not be compiled again. */
static void write_c(const Cases *of, const char *folder)
{
    for (int i = 0; i < of->n; i++) {
        if (came_before(of, i))
            continue;
        Text text = { 0 };
        template_render_host(of->cases[i].template, of->cases[i].values, HOST_SM, &text);
        const char *path = arena_printf(of->arena, "%s/%s.c", folder, of->cases[i].name);
        FILE *file = fopen(path, "w");
        if (!file || fwrite(text.data, 1, text.len, file) != text.len || fclose(file) != 0) {
            perror(path);
            exit(3);
        }
        printf("%s\n", of->cases[i].name);
        text_free(&text);
    }
}

static void write_ptx(const Cases *of, int sm)
{
    Ptx *ptx = ptx_open(sm);
    for (int i = 0; i < of->n; i++) {
        const Case *one = &of->cases[i];
        TemplateBinding bindings[TEMPLATE_MAX_PARAMS];
        for (int p = 0; p < one->template->n_params; p++)
            bindings[p] = (TemplateBinding){ one->template->params[p].name, one->values[p] };
        if (!came_before(of, i))
            ptx_instance(ptx, one->template->name, bindings, one->template->n_params, bound_of(of, one->name), 0);
    }
    Text out = { 0 }, warnings = { 0 };
    ptx_finish(ptx, &out, &warnings);
    fprintf(stderr, "%s", warnings.data ? warnings.data : "");
    fputs(out.data, stdout);
    text_free(&out);
    text_free(&warnings);
    ptx_close(ptx);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return fputs(help, stderr), 2;
    Cases of = { .arena = arena_new(), .path = argv[2] };
    const char *text = read_file(of.arena, argv[2]);
    if (strstr(text, ".entry "))
        add_entries(&of, text);
    else
        add_lines(&of, text);
    if (argc == 3 && strcmp(argv[1], "list") == 0) {
        for (int i = 0; i < of.n; i++)
            printf("%d %s %s %s\n", of.cases[i].line, of.cases[i].name, of.cases[i].template->name,
                   of.cases[i].settings);
    } else if (argc == 4 && strcmp(argv[1], "c") == 0) {
        write_c(&of, argv[3]);
    } else if (argc == 4 && strcmp(argv[1], "ptx") == 0 && ptx_available()) {
        write_ptx(&of, atoi(argv[3]));
    } else {
        return fputs(help, stderr), 2;
    }
    arena_free(of.arena);
    return 0;
}
