/* Kernel file: headers, the instance, its address and its manifest. */
#include "kernel_file.h"

#include "bundle.h"
#include "c_writer.h"

#include <string.h>

/* What manifests call the C types of kernels' arguments. */
static const struct { const char *c, *type, *dtype; } types[] = {
    { "float *", "pointer", "f32" },   { "const float *", "pointer", "f32" },  { "const void *", "pointer", "u8" },
    { "int8_t *", "pointer", "i8" },   { "const int8_t *", "pointer", "i8" },  { "int32_t *", "pointer", "i32" },
    { "const int32_t *", "pointer", "i32" }, { "int ", "i32", NULL },          { "int64_t ", "i64", NULL },
};

void kernel_file_manifest(const Template *template, const double *values, Text *out)
{
    text_printf(out, "{\"format\": \"mossc-kernel/1\", \"name\": \"");
    template_print_name(template, values, out);
    text_printf(out, "\", \"symbol\": \"%s\", \"result\": \"void\", \"arguments\": [", KERNEL_FILE_FUNCTION);
    const char *at = template->args;
    for (int i = 0; *at != ')'; i++) {
        const char *type, *name;
        if (!(at = template_next_argument(at + 1, &type, &name)))
            BUG("template %s: argument %d is not of the form \"type name\"", template->name, i);
        size_t n = 0, len = (size_t)(name - type);
        while (n < sizeof types / sizeof *types && (strlen(types[n].c) != len || strncmp(types[n].c, type, len) != 0))
            n++;
        if (n == sizeof types / sizeof *types)
            BUG("template %s: argument %d has a type that manifests do not know", template->name, i);
        text_printf(out, "%s{\"name\": \"%.*s\", \"type\": \"%s\"", i ? ", " : "",
                    (int)strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_"), name, types[n].type);
        text_printf(out, types[n].dtype ? ", \"dtype\": \"%s\"}" : "}", types[n].dtype);
    }
    text_printf(out, "]}");
}

#define EXPORTED "__attribute__((visibility(\"default\"))) "

void kernel_file_begin(Text *out)
{
    Bundle bundle = { 0 };
    text_printf(out, "#ifndef _GNU_SOURCE\n#define _GNU_SOURCE\n#endif\n");
    bundle_kernel_headers(&bundle, out);
}

void kernel_file_add(const Template *template, const double *values, const char *suffix, Text *out)
{
    Text manifest = { 0 };
    template_render(template, values, out);
    text_printf(out, EXPORTED "__typeof__(");
    template_print_name(template, values, out);
    text_printf(out, ") *const %s%s = ", KERNEL_FILE_FUNCTION, suffix);
    template_print_name(template, values, out);
    kernel_file_manifest(template, values, &manifest);
    text_printf(out, ";\n" EXPORTED "const char %s%s[] =\n    ", KERNEL_FILE_MANIFEST, suffix);
    text_json_string(out, manifest.data);
    text_printf(out, ";\n");
    text_free(&manifest);
}

void kernel_file_write(const Template *template, const double *values, Text *out)
{
    kernel_file_begin(out);
    kernel_file_add(template, values, "", out);
}

void kernel_file_write_reader(Text *out)
{
    kernel_file_begin(out);
    text_printf(out,
        EXPORTED "void %s(float *out, const void *weights, int n_in, int panel, int dtype)\n{\n"
        "    float line[LANES];\n"
        "    for (int k = 0; k < n_in; k++)\n        for (int c = 0; c < panel; c++) {\n"
        "            const size_t at = (size_t)k * (size_t)panel + (size_t)c;\n"
        "            if (dtype == WEIGHT_Q8 || dtype == WEIGHT_Q4) {\n"
        "                out[at] = dot_weight(weights, c, k, panel, dtype);\n"
        "            } else if (dtype == WEIGHT_BF16_PAIRS) {\n"
        "                const uint32_t bits = (uint32_t)((const uint16_t *)weights)[bf16_index(c, k, panel)] << 16;\n"
        "                memcpy(out + at, &bits, 4);\n"
        "            } else {\n"
        "                vstore(line, vload_weight(weights, at / LANES * LANES, dtype));\n"
        "                out[at] = line[at %% LANES];\n"
        "            }\n        }\n}\n", KERNEL_FILE_READER);
}

const Template *kernel_of_step(Arena *arena, const Plan *plan, const BlockPlan *block, int phase, const Step *step,
                               double values[TEMPLATE_MAX_PARAMS])
{
    Writer w = { .arena = arena, .plan = plan, .block = block, .phase = phase };
    c_write_call(&w, step);
    const Template *template = w.n_names == 1 ? template_parse_name(arena, w.names[0], values) : NULL;
    text_free(&w.kernels);
    text_free(&w.functions);
    return template;
}
