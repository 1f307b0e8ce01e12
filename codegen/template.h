/* Templates: kernels in a small C dialect, rendered with their parameters bound to constants.
 *
 * A template file is an opening comment, PARAM(name, code), FPARAM and OPTION lines, and one
 * function KERNEL(NAME)(args) { body } in plain C of runtime/simd.h and runtime/route.h. An
 * instance is named NAME_<code><value>_<code><value>…, in the order of the parameters; a float's
 * '.' is written d, '-' m, '+' p, as in rms_norm_i64_s64_eps1em05; an OPTION of 0 is left out.
 * Templates of GPU kernels (codegen/gpu) have the same form and names; helpers may stand before
 * their KERNEL, and their C is that of codegen/gpu/dialect.h. Invariant: template_parse_name is
 * the inverse of template_print_name.
 */
#ifndef MOSSC_CODEGEN_TEMPLATE_H
#define MOSSC_CODEGEN_TEMPLATE_H

#include "embedded.h"
#include "../ir/arena.h"
#include "../ir/text.h"

#include <stdbool.h>

enum { TEMPLATE_MAX_PARAMS = 24 };

typedef struct {
    const char *name;   /* "n_in" */
    const char *code;   /* "i" */
    bool is_float;      /* FPARAM: a double in the kernel; otherwise an int */
    bool is_option;     /* OPTION: not in the name when it is 0 */
} TemplateParam;

typedef struct {
    const char *name;      /* "gemm" */
    const char *summary;   /* first sentence of the opening comment */
    const char *helpers;   /* what stands before KERNEL, "" for a CPU's */
    const char *args;      /* "(float *out, …)", with its comments */
    const char *body;      /* "{ … }\n" */
    int n_params;
    TemplateParam params[TEMPLATE_MAX_PARAMS];
} Template;

typedef struct { const char *name; double value; } TemplateBinding;

/* The template in codegen/templates/NAME.c; an unknown or malformed one is a bug of mossc. */
const Template *template_find(Arena *arena, const char *name);
/* The one in codegen/gpu/NAME.c; NULL when there is none. */
const Template *template_find_gpu(Arena *arena, const char *name);
/* One file's text, checked. Returns NULL with *problem set when it is malformed. */
const Template *template_parse(Arena *arena, const EmbeddedFile *file, const char **problem);
const Template *template_parse_gpu(Arena *arena, const EmbeddedFile *file, const char **problem);
/* Every embedded template is well-formed and no instance name could be read two ways, or BUG. */
void template_check_all(void);

/* Index of a parameter in `params` and in `values`; an unknown name is a bug. */
int template_param(const Template *template, const char *name);
/* bindings [TEMPLATE_MAX_PARAMS], n of them: appends 0 for options that are missing. Returns how many there are now. */
int template_add_options(const Template *template, TemplateBinding *bindings, int n);
/* values [TEMPLATE_MAX_PARAMS] from bindings in any order: every parameter once, or BUG. */
void template_bind(const Template *template, const TemplateBinding *bindings, int n, double *values);

/* values [n_params]: whole numbers of int range for PARAM, finite ones for FPARAM, else BUG. */
void template_render(const Template *template, const double *values, Text *out);
/* A GPU template as a C file of its own: INSTANCE, and for launchers INSTANCE_call(void *const *args) and
 * int INSTANCE_arg_lens[], bytes of each argument, 0 at the end. */
void template_render_host(const Template *template, const double *values, int sm, Text *out);
/* Past one argument of `args`, after its '(' or ',', to its ',' or ')'; [*type, *name) is its type. NULL: it is not
 * "type name". */
const char *template_next_argument(const char *p, const char **type, const char **name);
void template_print_name(const Template *template, const double *values, Text *out);
/* Read an instance name back into values [TEMPLATE_MAX_PARAMS]; false, NULL: it is not one. */
bool template_read_name(const Template *template, const char *name, double *values);
const Template *template_parse_name(Arena *arena, const char *name, double *values);
const Template *template_parse_name_gpu(Arena *arena, const char *name, double *values);

#endif
