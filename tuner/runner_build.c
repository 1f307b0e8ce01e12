/* Runner build: the sources that mossc carries for boards, and one program a trial.
 *
 * Input: kernels as objects (candidate.h). Output: a static program, since a board may have any C library or none.
 * What a trial asks for is compiled in: nothing has to be sent to a program that runs.
 */
#include "runner_internal.h"

#include "../codegen/codegen.h"
#include "../codegen/kernel_file.h"
#include "../compiler/outfile.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

extern const EmbeddedFile embedded_board[];      /* tuner/board, and the tuner's files that it includes */
extern const int n_embedded_board;
extern const EmbeddedFile embedded_step[];       /* tuner/board/step, and what that includes of all of mossc */
extern const int n_embedded_step;

enum { MAX_AT_ONCE = 8 };
static const char board_flags[] = "-std=c17 -D_GNU_SOURCE -w -O2 -fno-math-errno";

static const char *file_of(const Runner *r, const char *name)
{
    return arena_printf(r->arena, "%s/%s", r->builder->folder, name);
}

static bool is_source(const char *name) { return strcmp(name + strlen(name) - 2, ".c") == 0; }

/* All lie in one folder here, whatever folders they come from. */
static bool write_file(const Runner *r, Diags *diags, const EmbeddedFile *file)
{
    Text text = { 0 };
    for (const char *line = file->text; *line;) {
        size_t len = strcspn(line, "\n");
        len += line[len] == '\n';
        const char *name = line + 10;
        if (strncmp(line, "#include \"", 10) == 0) {
            for (const char *c = name; *c != '"'; c++)
                name = *c == '/' ? c + 1 : name;
            text_append(&text, line, 10);
            text_append(&text, name, (size_t)(line + len - name));
        } else {
            text_append(&text, line, len);
        }
        line += len;
    }
    bool ok = out_write(diags, file_of(r, file->name), text.data, text.len);
    text_free(&text);
    return ok;
}

static bool write_text(const Runner *r, Diags *diags, const char *name, Text *text)
{
    bool ok = out_write(diags, file_of(r, name), text->data, text->len);
    text_free(text);
    return ok;
}

/* The runtime's answer to what a CPU lacks and which cores are big, and the reader of stored weights. */
static bool write_generated(const Runner *r, Diags *diags)
{
    Text cpu = { 0 }, reader = { 0 };
    Bundle bundle = { 0 };
    text_printf(&cpu, "#define _GNU_SOURCE\n");
    bundle_file(&bundle, "cpu.c", &cpu);
    bundle_file(&bundle, "cores.c", &cpu);
    kernel_file_write_reader(&reader);
    return write_text(r, diags, "board_cpu.c", &cpu) & write_text(r, diags, "board_reader.c", &reader);
}

static ToolCommand compiler(const Runner *r, const char *flags)
{
    ToolCommand command = r->builder->cc;
    if (r->is_android)
        tool_add_words(r->arena, &command, android_compile_flags(&r->android));
    tool_add_words(r->arena, &command, flags);
    return command;
}

/* The reader takes the target's instructions; all else must run on any CPU, to say what that lacks. */
static ToolCommand object_command(Runner *r, const char *name, const char *object)
{
    ToolCommand command = compiler(r, board_flags);
    if (strcmp(name, "board_reader.c") == 0)
        tool_add_words(r->arena, &command, target_info(r->builder->target)->flags);
    tool_add(&command, "-c");
    tool_add(&command, file_of(r, name));
    tool_add(&command, "-o");
    tool_add(&command, object);
    return command;
}

/* Compiles sources of the folder, n_jobs at a time. False after reporting, or when a signal came. */
static bool compile_all(Runner *r, Diags *diags, const char *const *names, int n, RunnerObjects *objects)
{
    ToolCommand commands[MAX_AT_ONCE];
    objects->paths = arena_array(r->arena, const char *, (size_t)n);
    for (int from = 0; from < n; from += r->builder->n_jobs) {
        int count = n - from < r->builder->n_jobs ? n - from : r->builder->n_jobs;
        for (int i = 0; i < count; i++) {
            const char *name = names[from + i];
            objects->paths[from + i] = file_of(r, arena_printf(r->arena, "%.*s.o", (int)strlen(name) - 2, name));
            commands[i] = object_command(r, name, objects->paths[from + i]);
        }
        if (!toolchain_run(r->arena, diags, commands, count))
            return false;
    }
    objects->n = n;
    return true;
}

/* Writes files that mossc carries; names of the sources among them, and how many they are; -1 after reporting. */
static int write_files(const Runner *r, Diags *diags, const EmbeddedFile *files, int n_files, const char **names)
{
    int n = 0;
    for (int i = 0; i < n_files; i++) {
        if (!write_file(r, diags, &files[i]))
            return -1;
        if (is_source(files[i].name))
            names[n++] = files[i].name;
    }
    return n;
}

bool runner_build_objects(Runner *r, Diags *diags)
{
    const char **names = arena_array(r->arena, const char *, (size_t)n_embedded_board + 2);
    int n = write_generated(r, diags) ? write_files(r, diags, embedded_board, n_embedded_board, names) : -1;
    if (n < 0)
        return false;
    names[n++] = "board_cpu.c";
    names[n++] = "board_reader.c";
    return compile_all(r, diags, names, n, &r->objects);
}

bool runner_build_step_objects(Runner *r, Diags *diags)
{
    const char **names = arena_array(r->arena, const char *, (size_t)n_embedded_step);
    int n = write_files(r, diags, embedded_step, n_embedded_step, names);
    return n >= 0 && compile_all(r, diags, names, n, &r->step_objects);
}

/* ---- a trial as C ---- */

static void print_shape(const WorkShape *s, Text *out)
{
#define INT(name) text_printf(out, ", ." #name " = %d", s->name)
    text_printf(out, "{ .kernel = \"%s\"", s->kernel);
    INT(n_in); INT(n_out); INT(in_stride); INT(out_stride); INT(n_experts); INT(weight_dtype); INT(in_pairs);
    INT(out_pairs); INT(has_bias); INT(accumulate); INT(n_heads); INT(n_kv_heads); INT(head_dim); INT(head_stride);
    INT(q_stride); INT(kv_stride); INT(window); INT(d_state); INT(z_stride); INT(bc_stride); INT(zoh); INT(panel);
    INT(top_k); INT(renormalize);
#undef INT
    text_printf(out, ", .eps = %.17g, .weights_len = %lldLL, .pack_len = %lldLL }", s->eps, (long long)s->weights_len,
                (long long)s->pack_len);
}

void runner_print_spec(const WorkSpec *spec, Text *out)
{
    text_printf(out, "{ .shape = ");
    print_shape(&spec->shape, out);
    text_printf(out, ", .kind = %d, .n_tokens = %d, .seed = %lluULL, .far = %lldLL, .position = %lldLL }",
                (int)spec->kind, spec->n_tokens, (unsigned long long)spec->seed, (long long)spec->far,
                (long long)spec->position);
}

static void print_specs(const char *name, Work *const *works, int n, Text *out)
{
    text_printf(out, "    .n_%s = %d, .%s = {\n", name, n, name);
    for (int i = 0; i < n; i++) {
        text_printf(out, "        ");
        runner_print_spec(work_spec(works[i]), out);
        text_printf(out, ",\n");
    }
    text_printf(out, "    },\n");
}

/* A template's arguments, as kernel_file.c has them in manifests: names, and the member of a WorkValue of each. */
static void print_kernel(const Template *template, const char *symbol, Text *out)
{
    Text names = { 0 }, values = { 0 };
    const char *at = template->args;
    for (int i = 0; *at != ')'; i++) {
        const char *type, *name;
        if (!(at = template_next_argument(at + 1, &type, &name)))
            BUG("template %s: argument %d is not of the form \"type name\"", template->name, i);
        const char *member = memchr(type, '*', (size_t)(name - type)) ? "pointer"
                           : strncmp(type, "int64_t", 7) == 0 ? "i64" : "i32";
        text_printf(&names, "\"%.*s\", ", (int)strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_"), name);
        text_printf(&values, "%sv[%d].%s", i ? ", " : "", i, member);
    }
    text_printf(out, "extern void (*const moss_kernel_%s)%s;\n", symbol, template->args);
    text_printf(out, "static void run_%s(const WorkValue *v) { moss_kernel_%s(%s); }\n", symbol, symbol, values.data);
    text_printf(out, "static const char *const names_%s[] = { %s};\n", symbol, names.data);
    text_printf(out, "static const BoardKernel kernel_%s =\n    { names_%s, sizeof names_%s / sizeof *names_%s, run_%s };"
                "\n\n", symbol, symbol, symbol, symbol, symbol);
    text_free(&names);
    text_free(&values);
}

void runner_print_features(const Runner *r, bool all, Text *out)
{
    TargetId codes[TARGET_MAX_CODES] = { r->code };
    int n = all ? target_codes(r->builder->target, codes) : 1;
    text_printf(out, "    .n_features = %d, .features = { ", n);
    for (int i = 0; i < n; i++)
        text_printf(out, "\"%s\", ", target_info(codes[i])->features);
    text_printf(out, "},\n");
}

enum { MAX_KERNELS = 3 };
typedef struct { const char *field, *path, *symbol; } LinkedKernel;

/* Each object once, also where candidate, incumbent and default are one. */
static int list_kernels(const Runner *r, const TrialRequest *request, LinkedKernel kernels[MAX_KERNELS])
{
    const LinkedKernel all[] = { { "candidate", request->path, NULL }, { "incumbent", request->incumbent, NULL },
                                 { "original", request->original, NULL } };
    int n = 0;
    for (int i = 0; i < MAX_KERNELS; i++)
        if (all[i].path) {
            kernels[n] = all[i];
            kernels[n++].symbol = candidate_symbol(r->arena, all[i].path);
        }
    return n;
}

static bool is_first(const LinkedKernel *kernels, int i)
{
    for (int j = 0; j < i; j++)
        if (strcmp(kernels[j].path, kernels[i].path) == 0)
            return false;
    return true;
}

static void print_trial(const Runner *r, const TrialRequest *request, bool reference, const LinkedKernel *kernels,
                        int n, const char *nonce, Text *out)
{
    text_printf(out, "#include \"board.h\"\n\n");
    const char *kernel = request ? work_spec(request->checks[0])->shape.kernel : NULL;
    for (int i = 0; i < n; i++)
        if (is_first(kernels, i))
            print_kernel(template_find(r->arena, kernel), kernels[i].symbol, out);
    text_printf(out, "const BoardTrial board_trial = {\n    .nonce = \"%s\",\n", nonce);
    runner_print_features(r, !request, out);
    for (int i = 0; i < n; i++)
        text_printf(out, "    .%s = &kernel_%s,\n", kernels[i].field, kernels[i].symbol);
    if (request) {
        print_specs("checks", request->checks, request->n_checks, out);
        print_specs("times", request->times, request->n_times, out);
        text_printf(out, "    .pack_len = %lldLL, .original_pack_len = %lldLL, .block_rows = %d, .measure_all = %d, "
                    ".same_bits = %d, .reference = %d,\n    .deadline = %.17g,\n", (long long)request->pack_len,
                    (long long)request->original_pack_len, request->block_rows, request->measure_all,
                    request->same_bits, reference, request->deadline * r->slow);
    }
    text_printf(out, "};\n");
}

/* ---- linking ---- */

static void add_objects(const RunnerObjects *objects, ToolCommand *command)
{
    for (int i = 0; i < objects->n; i++)
        tool_add(command, objects->paths[i]);
}

static ToolCommand link_command(const Runner *r, const char *source, const RunnerObjects *others, const char *output)
{
    ToolCommand command = compiler(r, board_flags);
    tool_add(&command, arena_printf(r->arena, "-I%s", r->builder->folder));
    if (r->is_android)
        android_link_begin(r->arena, &r->android, "exe", r->builder->folder, output, &command);
    else
        tool_add_words(r->arena, &command, "-static -s");
    tool_add(&command, "-o");
    tool_add(&command, output);
    tool_add(&command, source);
    add_objects(&r->objects, &command);
    add_objects(others, &command);
    if (r->is_android)
        android_link_end(r->arena, &r->android, "exe", r->builder->folder, &command);
    else
        tool_add_words(r->arena, &command, "-pthread -lm");
    return command;
}

RunnerProgram runner_begin_program(Runner *r)
{
    const char *path = file_of(r, arena_printf(r->arena, "board_trial%d", r->n_programs++));
    /* With the folder's random name: nothing else on a board is called so. */
    return (RunnerProgram){ path, arena_printf(r->arena, "%s-%d", strrchr(r->builder->folder, '/') + 1,
                                               r->n_programs) };
}

bool runner_link_program(Runner *r, const RunnerProgram *program, Text *source, const RunnerObjects *others,
                         char *why, size_t why_len)
{
    const char *written = arena_printf(r->arena, "%s.c", program->path);
    const ToolCommand command = link_command(r, written, others, program->path);
    const char *words = "its source cannot be written";
    bool ok = out_write(diags_new(r->arena), written, source->data, source->len)
        && candidate_tool(r->builder, &command, &words);
    text_free(source);
    unlink(written);
    if (!ok)
        snprintf(why, why_len, "%s", words);
    return ok;
}

bool runner_build_program(Runner *r, const TrialRequest *request, bool reference, RunnerProgram *program,
                          char *why, size_t why_len)
{
    Text source = { 0 };
    LinkedKernel kernels[MAX_KERNELS];
    const char *paths[MAX_KERNELS];
    RunnerObjects others = { paths, 0 };
    const int n = request ? list_kernels(r, request, kernels) : 0;
    for (int i = 0; i < n; i++)
        if (is_first(kernels, i))
            paths[others.n++] = kernels[i].path;
    *program = runner_begin_program(r);
    print_trial(r, request, reference, kernels, n, program->nonce, &source);
    return runner_link_program(r, program, &source, &others, why, why_len);
}
