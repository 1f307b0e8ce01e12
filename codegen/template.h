/* Templates: kernels in a small C dialect, rendered with their parameters bound to constants.
 *
 * A template file is an opening comment, PARAM(name, code) and FPARAM(name, code) lines, and one
 * function KERNEL(NAME)(args) { body } in plain C of runtime/simd.h and runtime/route.h. An
 * instance is named NAME_<code><value>_<code><value>…, in the order of the parameters; a float's
 * '.' is written d, '-' m, '+' p, as in rms_norm_i64_s64_eps1em05. Invariant:
 * template_parse_name is the inverse of template_print_name.
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
} TemplateParam;

typedef struct {
    const char *name;      /* "gemm" */
    const char *summary;   /* first sentence of the opening comment */
    const char *args;      /* "(float *out, …)", with its comments */
    const char *body;      /* "{ … }\n" */
    int n_params;
    TemplateParam params[TEMPLATE_MAX_PARAMS];
} Template;

/* The template in codegen/templates/NAME.c; an unknown or malformed one is a bug of mossc. */
const Template *template_find(Arena *arena, const char *name);
/* One file's text, checked. Returns NULL with *problem set when it is malformed. */
const Template *template_parse(Arena *arena, const EmbeddedFile *file, const char **problem);
/* Every embedded template is well-formed and no instance name could be read two ways, or BUG. */
void template_check_all(void);

/* Index of a parameter in `params` and in `values`; an unknown name is a bug. */
int template_param(const Template *template, const char *name);

/* values [n_params]: whole numbers of int range for PARAM, finite ones for FPARAM, else BUG. */
void template_render(const Template *template, const double *values, Text *out);
void template_print_name(const Template *template, const double *values, Text *out);
/* Read an instance name back into values [TEMPLATE_MAX_PARAMS]; NULL when it is not one. */
const Template *template_parse_name(Arena *arena, const char *name, double *values);

#endif
