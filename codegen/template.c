/* Templates: reading one file, binding its parameters, printing and parsing instance names.
 *
 * Reading is strict, because a template that is slightly wrong would otherwise show up as a C
 * compiler's message about generated code. The C itself is not parsed: only comments, strings and
 * brackets are followed, to find where the arguments and the body end.
 */
#include "template.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RENDER_WIDTH = 100 };   /* columns of generated code */

/* ---- reading ---- */

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

/* Past a comment, string or character constant that starts at p, or p itself; NULL: it never ends. */
static const char *skip_opaque(const char *p)
{
    if (p[0] == '/' && p[1] == '*') {
        const char *end = strstr(p + 2, "*/");
        return end ? end + 2 : NULL;
    }
    if (*p != '"' && *p != '\'')
        return p;
    const char quote = *p++;
    for (; *p && *p != quote && *p != '\n'; p++)
        if (*p == '\\' && p[1])
            p++;
    return *p == quote ? p + 1 : NULL;
}

static const char *skip_blank(const char *p)
{
    for (;;) {
        const char *next = p + strspn(p, " \t\n");
        if (next[0] == '/' && next[1] == '*')
            next = skip_opaque(next);
        if (!next || next == p)
            return p;
        p = next;
    }
}

/* Past the bracket that closes the one at p, or NULL. */
static const char *skip_brackets(const char *p, char open, char close)
{
    int depth = 0;
    while (*p) {
        const char *next = skip_opaque(p);
        if (!next)
            return NULL;
        if (next != p) {
            p = next;
            continue;
        }
        depth += (*p == open) - (*p == close);
        p++;
        if (depth == 0)
            return p;
    }
    return NULL;
}

/* Reads "name" into *name; NULL when there is none. */
static const char *read_name(Arena *arena, const char *p, const char **name)
{
    size_t len = 0;
    while (is_name_char(p[len]))
        len++;
    if (len == 0 || (p[0] >= '0' && p[0] <= '9'))
        return NULL;
    *name = arena_strndup(arena, p, len);
    return p + len;
}

/* How long the word is that begins a parameter's line at p, 0: none does. */
static size_t read_kind(const char *p, TemplateParam *param)
{
    static const char *const words[] = { "PARAM(", "FPARAM(", "OPTION(" };
    for (int i = 0; i < 3; i++)
        if (strncmp(p, words[i], strlen(words[i])) == 0) {
            *param = (TemplateParam){ .is_float = i == 1, .is_option = i == 2 };
            return strlen(words[i]) - 1;
        }
    return 0;
}

/* "(name, code)" at p. */
static const char *read_param(Arena *arena, const char *p, TemplateParam *param)
{
    if (!(p = read_name(arena, p + 1, &param->name)) || strncmp(p, ", ", 2) != 0)
        return NULL;
    if (!(p = read_name(arena, p + 2, &param->code)) || *p != ')')
        return NULL;
    for (const char *c = param->code; *c; c++)
        if (*c == '_' || (*c >= '0' && *c <= '9'))
            return NULL;              /* a code ends where its value's digits start */
    return p + 1;
}

/* The opening comment's first sentence, on one line. */
static const char *read_summary(Arena *arena, const char *text, const char *end)
{
    const char *p = text + 2 + strspn(text + 2, " *\n");
    const char *stop = p;
    while (stop < end - 2 && !(*stop == '.' && strchr(" \n", stop[1])))
        stop++;
    char *summary = arena_strndup(arena, p, (size_t)(stop - p));
    size_t len = 0;
    for (const char *c = summary; *c; c++) {
        if (*c == '\n')                   /* the next line starts with " * " */
            c += strspn(c, "\n *") - 1, summary[len++] = ' ';
        else
            summary[len++] = *c;
    }
    summary[len] = '\0';
    return summary;
}

/* The line that starts with KERNEL(, at or after p; NULL when there is none. */
static const char *find_kernel(const char *p)
{
    while (p && strncmp(p, "KERNEL(", 7) != 0)
        if ((p = strchr(p, '\n')))
            p++;
    return p;
}

static const Template *parse(Arena *arena, const EmbeddedFile *file, bool may_help, const char **problem)
{
#define REJECT(...) return *problem = arena_printf(arena, __VA_ARGS__), NULL
    Template *template = arena_one(arena, Template);
    const char *p = file->text;
    if (strlen(p) != file->len)
        REJECT("its text holds a NUL byte");
    if (strncmp(p, "/* ", 3) != 0 || !skip_opaque(p))
        REJECT("it must open with a comment");
    template->summary = read_summary(arena, p, skip_opaque(p));
    TemplateParam kind;
    for (size_t len; (len = read_kind(p = skip_blank(p), &kind)); ) {
        if (template->n_params == TEMPLATE_MAX_PARAMS)
            REJECT("more than %d parameters", TEMPLATE_MAX_PARAMS);
        TemplateParam *param = &template->params[template->n_params];
        *param = kind;
        const char *next = read_param(arena, p + len, param);
        if (!next || (param->is_option && template->n_params == 0))
            REJECT("parameter %d is not PARAM(name, code)", template->n_params);
        for (int i = 0; i < template->n_params; i++)
            if (!strcmp(template->params[i].name, param->name) || !strcmp(template->params[i].code, param->code))
                REJECT("parameter %s (%s) comes twice", param->name, param->code);
        template->n_params++;
        p = next;
    }
    if (template->n_params == 0)
        REJECT("it has no PARAM line");
    template->helpers = "";
    const char *kernel = may_help ? find_kernel(p) : p;
    if (kernel && kernel != p)
        template->helpers = arena_strndup(arena, p, (size_t)(kernel - p));
    p = kernel ? kernel : p;
    if (strncmp(p, "KERNEL(", 7) != 0)
        REJECT("expected PARAM or KERNEL at \"%.20s\"", p);
    if (!(p = read_name(arena, p + 7, &template->name)) || strncmp(p, ")(", 2) != 0)
        REJECT("expected KERNEL(name)(arguments)");
    const size_t name_len = strlen(template->name);
    if (strncmp(file->name, template->name, name_len) != 0 || strcmp(file->name + name_len, ".c") != 0)
        REJECT("kernel %s is in file %s", template->name, file->name);
    const char *args = p + 1;
    if (!(p = skip_brackets(args, '(', ')')))
        REJECT("its argument list does not end");
    template->args = arena_strndup(arena, args, (size_t)(p - args));
    const char *body = skip_blank(p);
    if (*body != '{' || !(p = skip_brackets(body, '{', '}')))
        REJECT("its body does not end");
    template->body = arena_strndup(arena, body, (size_t)(p - body));
    if (*skip_blank(p))
        REJECT("something follows the kernel: \"%.20s\"", skip_blank(p));
    for (const char *line = file->text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (line[strspn(line, " \t")] == '#')
            REJECT("it uses the preprocessor: \"%.20s\"", line);
    return template;
#undef REJECT
}

const Template *template_parse(Arena *arena, const EmbeddedFile *file, const char **problem)
{
    return parse(arena, file, false, problem);
}

const Template *template_parse_gpu(Arena *arena, const EmbeddedFile *file, const char **problem)
{
    return parse(arena, file, true, problem);
}

/* ---- the embedded files ---- */

typedef struct { const EmbeddedFile *files; const int *n_files; bool may_help; } Set;

static const Set cpu_set = { embedded_templates, &n_embedded_templates, false };
static const Set gpu_set = { embedded_gpu_templates, &n_embedded_gpu_templates, true };

static const Template *read_embedded(Arena *arena, const Set *set, int i)
{
    const char *problem = NULL;
    const Template *template = parse(arena, &set->files[i], set->may_help, &problem);
    if (!template)
        BUG("template %s: %s", set->files[i].name, problem);
    return template;
}

static const Template *find(Arena *arena, const Set *set, const char *name)
{
    const size_t len = strlen(name);
    for (int i = 0; i < *set->n_files; i++)
        if (strncmp(set->files[i].name, name, len) == 0 && strcmp(set->files[i].name + len, ".c") == 0)
            return read_embedded(arena, set, i);
    return NULL;
}

const Template *template_find(Arena *arena, const char *name)
{
    const Template *template = find(arena, &cpu_set, name);
    if (!template)
        BUG("no template %s", name);
    return template;
}

const Template *template_find_gpu(Arena *arena, const char *name)
{
    return find(arena, &gpu_set, name);
}

int template_param(const Template *template, const char *name)
{
    for (int i = 0; i < template->n_params; i++)
        if (strcmp(template->params[i].name, name) == 0)
            return i;
    BUG("template %s has no parameter %s", template->name, name);
}

int template_add_options(const Template *template, TemplateBinding *bindings, int n)
{
    for (int i = 0; i < template->n_params; i++) {
        int at = 0;
        while (at < n && strcmp(bindings[at].name, template->params[i].name) != 0)
            at++;
        if (at == n && template->params[i].is_option && n < TEMPLATE_MAX_PARAMS)
            bindings[n++] = (TemplateBinding){ template->params[i].name, 0 };
    }
    return n;
}

void template_bind(const Template *template, const TemplateBinding *bindings, int n, double *values)
{
    bool bound[TEMPLATE_MAX_PARAMS] = { false };
    if (n != template->n_params)
        BUG("template %s has %d parameters, %d bound", template->name, template->n_params, n);
    for (int i = 0; i < n; i++) {
        const int param = template_param(template, bindings[i].name);
        if (bound[param])
            BUG("template %s: parameter %s is bound twice", template->name, bindings[i].name);
        bound[param] = true;
        values[param] = bindings[i].value;
    }
}

/* "_<code><value>" at p? */
static bool begins_value(const char *p, const char *code)
{
    const size_t len = strlen(code);
    return *p == '_' && strncmp(p + 1, code, len) == 0 && p[1 + len] && strchr("m0123456789", p[1 + len]);
}

/* Does some instance name of `template` start like the name of another template? */
static bool name_hides(const Template *template, const char *other)
{
    const size_t len = strlen(template->name);
    return strncmp(other, template->name, len) == 0 && begins_value(other + len, template->params[0].code);
}

static void check_set(const Set *set)
{
    Arena *arena = arena_new();
    for (int i = 0; i < *set->n_files; i++) {
        const Template *template = read_embedded(arena, set, i);
        for (int j = 0; j < *set->n_files; j++)
            if (name_hides(template, set->files[j].name))
                BUG("instances of %s read like template %s", template->name, set->files[j].name);
    }
    arena_free(arena);
}

void template_check_all(void)
{
    check_set(&cpu_set);
    check_set(&gpu_set);
}

/* ---- instance names ---- */

static void print_value(const TemplateParam *param, double value, Text *out)
{
    if (param->is_float ? !isfinite(value) : !(value == floor(value) && fabs(value) <= INT_MAX))
        BUG("parameter %s cannot be %g", param->name, value);
    if (param->is_float)
        text_double(out, value);
    else
        text_printf(out, "%d", (int)value);
}

/* The same value as part of an identifier: '.' is d, '-' m, '+' p. */
static void print_name_value(const TemplateParam *param, double value, Text *out)
{
    size_t start = out->len;
    print_value(param, value, out);
    for (char *c = out->data + start; *c; c++)
        *c = *c == '.' ? 'd' : *c == '-' ? 'm' : *c == '+' ? 'p' : *c;
}

void template_print_name(const Template *template, const double *values, Text *out)
{
    text_printf(out, "%s", template->name);
    for (int i = 0; i < template->n_params; i++) {
        if (template->params[i].is_option && values[i] == 0)
            continue;
        text_printf(out, "_%s", template->params[i].code);
        print_name_value(&template->params[i], values[i], out);
    }
}

/* Only the very text that print_name gives is one. */
bool template_read_name(const Template *template, const char *name, double *values)
{
    const char *p = name + strlen(template->name);
    for (int i = 0; i < template->n_params; i++) {
        const size_t code_len = strlen(template->params[i].code);
        char digits[40];
        size_t len = 0;
        if (template->params[i].is_option && !begins_value(p, template->params[i].code)) {
            values[i] = 0;
            continue;
        }
        if (*p != '_' || strncmp(p + 1, template->params[i].code, code_len) != 0)
            return false;
        for (p += 1 + code_len; *p && *p != '_'; p++) {
            if (len == sizeof digits - 1 || !strchr("0123456789demp", *p))
                return false;
            digits[len++] = (char)(*p == 'd' ? '.' : *p == 'm' ? '-' : *p == 'p' ? '+' : *p);
        }
        digits[len] = '\0';
        char *end;
        values[i] = strtod(digits, &end);
        if (len == 0 || *end || !isfinite(values[i]) ||
            (!template->params[i].is_float && (values[i] != floor(values[i]) || fabs(values[i]) > INT_MAX)))
            return false;
    }
    Text canonical = { 0 };
    template_print_name(template, values, &canonical);
    const bool same = *p == '\0' && strcmp(canonical.data, name) == 0;
    text_free(&canonical);
    return same;
}

static const Template *parse_name(Arena *arena, const Set *set, const char *name, double *values)
{
    for (int i = 0; i < *set->n_files; i++) {
        const size_t len = strlen(set->files[i].name) - 2;     /* without ".c" */
        if (strncmp(name, set->files[i].name, len) != 0 || name[len] != '_')
            continue;
        const Template *template = read_embedded(arena, set, i);
        if (template_read_name(template, name, values))
            return template;
    }
    return NULL;
}

const Template *template_parse_name(Arena *arena, const char *name, double *values)
{
    return parse_name(arena, &cpu_set, name, values);
}

const Template *template_parse_name_gpu(Arena *arena, const char *name, double *values)
{
    return parse_name(arena, &gpu_set, name, values);
}

/* ---- rendering ---- */

/* Lines "enum { name = value, … };" of the whole numbers, after `indent` spaces. */
static void render_enum(const Template *template, const double *values, int indent, Text *out)
{
    size_t line = out->len;
    text_printf(out, "%*senum { ", indent, "");
    for (int i = 0, n = 0; i < template->n_params; i++) {
        const TemplateParam *param = &template->params[i];
        if (param->is_float)
            continue;
        if (n++ > 0)
            text_printf(out, ", ");
        if (out->len - line > RENDER_WIDTH - 30) {
            out->data[--out->len] = '\0';
            text_printf(out, "\n");
            line = out->len;
            text_printf(out, "%*s", indent + 7, "");
        }
        text_printf(out, "%s = ", param->name);
        print_value(param, values[i], out);
    }
    text_printf(out, " };\n");
}

static void render_floats(const Template *template, const double *values, const char *type, Text *out)
{
    for (int i = 0; i < template->n_params; i++) {
        if (!template->params[i].is_float)
            continue;
        text_printf(out, "%s %s = ", type, template->params[i].name);
        print_value(&template->params[i], values[i], out);
        text_printf(out, ";\n");
    }
}

void template_render(const Template *template, const double *values, Text *out)
{
    text_printf(out, "/* %s: %s. */\nstatic void ", template->name, template->summary);
    template_print_name(template, values, out);
    text_printf(out, "%s\n{\n", template->args);

    render_enum(template, values, 4, out);
    render_floats(template, values, "    static const double", out);
    text_printf(out, "%s\n\n", template->body + 2);    /* after "{\n" */
}

const char *template_next_argument(const char *p, const char **type, const char **name)
{
    const char *word = NULL;
    p = skip_blank(p);
    *type = p;
    while (*p != ',' && *p != ')') {
        const char *next = p + 1;
        if (is_name_char(*p)) {
            word = p;
            next = p + strspn(p, "abcdefghijklmnopqrstuvwxyz0123456789_");
        } else if (!strchr(" *\n", *p)) {
            return NULL;
        }
        p = skip_blank(next);
    }
    *name = word;
    return word && word > *type ? p : NULL;
}

void template_render_host(const Template *template, const double *values, int sm, Text *out)
{
    Text name = { 0 };
    template_print_name(template, values, &name);
    text_printf(out, "/* %s: %s. */\n#include \"dialect.h\"\n\nenum { sm = %d };\n", template->name,
        template->summary, sm);
    render_enum(template, values, 0, out);
    render_floats(template, values, "static const float", out);
    text_printf(out, "\n%sKERNEL(%s)%s\n%s\n\n", template->helpers, name.data, template->args, template->body);
    Text lens = { 0 };
    text_printf(out, "__attribute__((visibility(\"default\"))) void %s_call(void *const *args)\n{\n    %s(", name.data,
        name.data);
    const char *p = template->args;
    for (int i = 0; *p != ')'; i++) {
        const char *type, *word;
        if (!(p = template_next_argument(p + 1, &type, &word)))
            BUG("template %s: argument %d is not of the form \"type name\"", template->name, i);
        text_printf(out, "%s*(%.*s*)args[%d]", i ? ",\n        " : "", (int)(word - type), type, i);
        text_printf(&lens, "sizeof(%.*s), ", (int)(word - type), type);
    }
    text_printf(out, ");\n}\n__attribute__((visibility(\"default\"))) const int %s_arg_lens[] = { %s0 };\n", name.data,
        lens.data);
    text_free(&lens);
    text_free(&name);
}
