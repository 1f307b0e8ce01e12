/* Artifacts: from a plan to files a user can run or link.
 *
 * Generated sources and packed weights go into a temporary folder beside OUT; the C compiler builds
 * model and runtime side by side; finished files are renamed into place, OUT last. Whatever happens,
 * the folder goes (unless --keep).
 */
#include "android.h"
#include "checks.h"
#include "driver.h"
#include "interrupt.h"
#include "outfile.h"
#include "plan.h"
#include "toolchain.h"
#include "../codegen/codegen.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { EMBED_MOST = 128 << 20, MAX_UNITS = TARGET_MAX_CODES + 3 };

/* A source that becomes an object. */
typedef struct { const char *source, *object, *flags; } Unit;

typedef struct {
    Compilation *c;
    const char *kind;
    OutFolder folder;
    bool embed, replaces;    /* replaces: a manifest.json of another model */
    WeightSums sums;
    ToolCommand cc;
    bool is_android;
    AndroidTools android;
    Unit units[MAX_UNITS];
    int n_units;
} Build;

static bool is_kind(const Build *b, const char *kind) { return strcmp(b->kind, kind) == 0; }
static bool is_gpu(const Build *b) { return target_info(b->c->target)->family == FAMILY_GPU; }
static const char *file(const Build *b, const char *name) { return out_folder_file(b->c->arena, &b->folder, name); }

bool artifact_is_kind(const char *kind)
{
    static const char *const kinds[] = { "exe", "lib", "obj", "static", "c" };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kind, kinds[i]) == 0)
            return true;
    return false;
}

/* ---- weights ---- */

static int source_find(void *context, const char *tensor) { return weights_find(context, tensor); }
static void source_read(void *context, int tensor, int64_t begin, int64_t count, float *out)
{
    interrupt_check();      /* packing is what takes long before the tools run */
    weights_read(context, tensor, begin, count, out);
}
static int64_t source_out_rows(void *context, int tensor)
{
    const TensorSpec *spec = weights_spec(context, tensor);
    return spec->rank < 2 ? spec->shape[0] : spec->shape[spec->rank - 2];
}

static void show_progress(void *context, int64_t done, int64_t total)
{
    (void)context;
    enum { WIDTH = 32 };
    int filled = (int)(WIDTH * done / (total ? total : 1));
    fprintf(stderr, "\rpacking weights [%.*s%*s] %3d %%", filled, "################################", WIDTH - filled,
            "", (int)(100 * done / (total ? total : 1)));
    if (done >= total)
        fprintf(stderr, "\r%60s\r", "");
}

static bool write_weights(Build *b)
{
    Compilation *c = b->c;
    int64_t len = pack_len(c->plan);
    const char *path = file(b, "weights");
    if (c->is_packed) {
        b->sums = (WeightSums){ c->packed_sum, c->values_sum };
        return true;
    }
    uint8_t *data = out_map(c->diags, path, len);
    if (!data)
        return false;
    BadValue bad;
    TensorSource source = { c->weights, source_find, source_out_rows, source_read,
                            isatty(2) && len > EMBED_MOST ? show_progress : NULL };
    b->sums = pack_weights(c->plan, &source, (int)sysconf(_SC_NPROCESSORS_ONLN), data, &bad);
    c->packed_sum = b->sums.packed;
    c->values_sum = b->sums.values;
    if (bad.found)
        weights_value_error(c->weights, c->diags, bad.tensor, bad.index, bad.value);
    return out_unmap(c->diags, path, data, len) && !bad.found;
}

/* ---- sources ---- */

static bool write_source(Build *b, const char *name, Text *text)
{
    const char *prefix = b->c->options->value[OPTION_PREFIX];
    if (prefix)
        bundle_rename(text, prefix);
    bool ok = out_write(b->c->diags, file(b, name), text->data, text->len);
    text_free(text);
    return ok;
}

static void add_unit(Build *b, const char *name, const char *flags)
{
    Arena *arena = b->c->arena;
    int len = (int)(strrchr(name, '.') - name);
    b->units[b->n_units++] = (Unit){ name, arena_printf(arena, "%.*s.o", len, name), flags };
}

/* Kernels are vectorised and unrolled by hand: -O3 measured the same and takes a third longer. */
static const char *code_flags(const Build *b, TargetId target)
{
    /* Of code for several CPUs most kernels are alike: one copy serves all if they are not inlined where called. */
    return arena_printf(b->c->arena, "-O2 %s%s", target_has_codes(b->c->target) ? "-fno-inline-functions " : "",
                        target_info(target)->flags);
}

/* A file for each kind of CPU, and the table that lists them. All plans use one module, so each is written at once. */
static bool write_codes(Build *b)
{
    const Compilation *c = b->c;
    TargetId codes[TARGET_MAX_CODES];
    int n = target_codes(c->target, codes);
    for (int i = 0; i < n; i++) {
        Text text = { 0 };
        Bundle bundle = { 0 };
        const Plan *plan = plan_module_chosen(c->arena, c->graph, c->module, codes[i], c->choices);
        bundle_kernel_headers(&bundle, &text);
        codegen_write_code(c->arena, plan, &text);
        if (b->android.bionic)
            bundle_bionic(&text);
        add_unit(b, arena_printf(c->arena, "%s.c", target_info(codes[i])->name), code_flags(b, codes[i]));
        if (!write_source(b, b->units[b->n_units - 1].source, &text))
            return false;
    }
    Text text = { 0 };
    Bundle bundle = { 0 };
    bundle_file(&bundle, "program.h", &text);
    codegen_write_program(c->arena, c->plan, b->sums, b->embed, &text);
    add_unit(b, "model.c", "-O2");
    return write_source(b, "model.c", &text);
}

static bool write_model(Build *b)
{
    if (target_has_codes(b->c->target))
        return write_codes(b);
    Text text = { 0 };
    Bundle bundle = { 0 };
    /* One file that compiles alone, or the model's part beside the runtime's. */
    if (is_kind(b, "c")) {
        const char *flags = target_info(b->c->target)->flags;
        text_printf(&text, "/* Made by mossc. As mossc itself compiles it:\n"
                           " *   cc -std=c17 -O2 %s -ffp-contract=fast -fno-math-errno -c, then link with -pthread -lm\n"
                           " */\n#ifndef _GNU_SOURCE\n#define _GNU_SOURCE\n#endif\n", flags);
        bundle_library(&bundle, is_gpu(b), &text);
    }
    if (is_gpu(b))
        bundle_file(&bundle, "program.h", &text);
    else
        bundle_kernel_headers(&bundle, &text);
    (is_gpu(b) ? codegen_write_gpu_model : codegen_write_model)(b->c->arena, b->c->plan, b->sums, b->embed, &text);
    add_unit(b, "model.c", code_flags(b, b->c->target));
    return write_source(b, "model.c", &text);
}

static bool write_runtime(Build *b)
{
    Text text = { 0 };
    Bundle bundle = { 0 };
    bundle_library(&bundle, is_gpu(b), &text);
    if (is_kind(b, "exe"))
        bundle_command_line(&bundle, &text);
    if (b->android.bionic)
        bundle_bionic(&text);
    /* It runs before the CPU is known to have the target's features: baseline code. */
    add_unit(b, "runtime.c", "-O2");
    return write_source(b, "runtime.c", &text);
}

/* What Android's library is linked with: its version script, and stand-ins for the C library. */
static bool write_android(Build *b)
{
    const char *prefix = b->c->options->value[OPTION_PREFIX];
    Text exports = { 0 }, libc = { 0 }, libm = { 0 };
    codegen_write_exports(prefix ? prefix : "moss", &exports);
    bundle_bionic_library(false, &libc);
    bundle_bionic_library(true, &libm);
    bool ok = out_write(b->c->diags, file(b, "exports.map"), exports.data, exports.len)
        && out_write(b->c->diags, file(b, "libc.S"), libc.data, libc.len)
        && out_write(b->c->diags, file(b, "libm.S"), libm.data, libm.len);
    text_free(&exports), text_free(&libc), text_free(&libm);
    return ok;
}

static bool write_embedding(Build *b)
{
    Text text = { 0 };
    text_printf(&text, "    .section .rodata\n    .balign 4096\n    .globl moss_embedded_weights\n"
                       "    .hidden moss_embedded_weights\nmoss_embedded_weights:\n    .incbin \"weights\"\n"
                       "    .section .note.GNU-stack,\"\",%%progbits\n");
    add_unit(b, "weights.S", "");
    return write_source(b, "weights.S", &text);
}

/* OUT with another ending: lib.so -> lib.h */
static const char *header_path(const Compilation *c)
{
    const char *slash = strrchr(c->out, '/'), *dot = strrchr(c->out, '.');
    int len = dot && (!slash || dot > slash) ? (int)(dot - c->out) : (int)strlen(c->out);
    return arena_printf(c->arena, "%.*s.h", len, c->out);
}

static const char *manifest_path(const Compilation *c)
{
    const char *slash = strrchr(c->out, '/');
    return arena_printf(c->arena, "%.*smanifest.json", slash ? (int)(slash - c->out) + 1 : 0, c->out);
}

/* Does the file begin otherwise? A manifest's first three lines are its format and the model's name. */
static bool is_other_manifest(Arena *arena, const char *path, const char *manifest)
{
    size_t len = 0;
    for (int line = 0; line < 3; line++)
        len += strcspn(manifest + len, "\n") + 1;
    char *found = arena_alloc(arena, len);
    FILE *stream = fopen(path, "rbe");
    if (!stream)
        return false;
    size_t n = fread(found, 1, len, stream);
    fclose(stream);
    return n != len || memcmp(found, manifest, len) != 0;
}

static bool write_companions(Build *b)
{
    Text header = { 0 }, manifest = { 0 };
    Bundle bundle = { 0 };
    const char *prefix = b->c->options->value[OPTION_PREFIX];
    bundle_file(&bundle, "moss.h", &header);
    codegen_write_manifest(b->c->plan, prefix ? prefix : "moss", &manifest);
    b->replaces = is_other_manifest(b->c->arena, manifest_path(b->c), manifest.data);
    bool ok = out_write(b->c->diags, file(b, "manifest.json"), manifest.data, manifest.len);
    text_free(&manifest);
    return write_source(b, "header.h", &header) && ok;
}

/* ---- compiling ---- */

static ToolCommand compile_command(Build *b, const Unit *unit)
{
    Arena *arena = b->c->arena;
    ToolCommand command = b->cc;
    tool_add_words(arena, &command, "-std=c17 -D_GNU_SOURCE -fvisibility=hidden -Wall -Wextra -ffp-contract=fast "
                                    "-fno-math-errno");
    if (!is_kind(b, "exe"))
        tool_add(&command, "-fPIC");
    if (b->is_android)
        tool_add_words(arena, &command, android_compile_flags(&b->android));
    tool_add_words(arena, &command, unit->flags);
    tool_add(&command, arena_printf(arena, "-Wa,-I%s", b->folder.path));      /* where an .incbin looks */
    tool_add_words(arena, &command, "-c");
    tool_add(&command, file(b, unit->source));
    tool_add(&command, "-o");
    tool_add(&command, file(b, unit->object));
    return command;
}

/* libc.so or libm.so, by its assembly: names without code. */
static ToolCommand stand_in_command(Build *b, const char *name, const char *source)
{
    ToolCommand command = b->cc;
    tool_add_words(b->c->arena, &command, "-shared -nostdlib -fuse-ld=lld -Xlinker -soname -Xlinker");
    tool_add(&command, name);
    tool_add(&command, file(b, source));
    tool_add(&command, "-o");
    tool_add(&command, file(b, name));
    return command;
}

static bool compile_objects(Build *b)
{
    ToolCommand commands[MAX_UNITS + 2];
    int n = 0;
    for (; n < b->n_units; n++)
        commands[n] = compile_command(b, &b->units[n]);
    if (b->android.bionic && is_kind(b, "lib")) {
        commands[n++] = stand_in_command(b, "libc.so", "libc.S");
        commands[n++] = stand_in_command(b, "libm.so", "libm.S");
    }
    return toolchain_run(b->c->arena, b->c->diags, commands, n);
}

static const char *link_words(const Build *b)
{
    if (is_kind(b, "lib"))
        return "-shared -Wl,--build-id=sha1";
    if (is_kind(b, "obj"))
        return b->is_android && !b->android.given ? "-r -nostdlib -fuse-ld=lld" : "-r -nostdlib";
    return "";
}

static bool link_objects(Build *b, const char *output)
{
    Arena *arena = b->c->arena;
    ToolCommand command = b->cc;
    bool libraries = is_kind(b, "exe") || is_kind(b, "lib");
    if (is_kind(b, "static")) {
        command = (ToolCommand){ { "ar", "rcsD" }, 2 };
    } else {
        if (b->is_android && libraries)
            android_link_begin(arena, &b->android, b->kind, b->folder.path, b->c->out, &command);
        else
            tool_add_words(arena, &command, link_words(b));
        tool_add(&command, "-o");
    }
    tool_add(&command, output);
    for (int i = 0; i < b->n_units; i++)
        tool_add(&command, file(b, b->units[i].object));
    if (b->is_android && libraries)
        android_link_end(arena, &b->android, b->kind, b->folder.path, &command);
    else if (libraries)
        tool_add_words(arena, &command, is_gpu(b) ? "-pthread -lm -ldl" : "-pthread -lm");
    return toolchain_run(arena, b->c->diags, &command, 1);
}

/* ---- publishing ---- */

static const char *weights_path(const Compilation *c) { return arena_printf(c->arena, "%s.weights", c->out); }

static bool publish_companions(Build *b)
{
    Diags *diags = b->c->diags;
    const char *manifest = manifest_path(b->c);
    if (!out_publish(diags, file(b, "header.h"), header_path(b->c))
        || !out_publish(diags, file(b, "manifest.json"), manifest))
        return false;
    if (b->replaces)
        diag_report(diags, DIAG_MANIFEST_REPLACED, NULL, "%s was another model's and is now of %s: a folder has one; the "
                    "library holds its own, too", manifest, b->c->graph->name);
    return true;
}

static bool publish(Build *b, const char *output)
{
    Diags *diags = b->c->diags;
    const char *weights = weights_path(b->c);
    if (!b->embed && !b->c->is_packed && !out_publish(diags, file(b, "weights"), weights))
        return false;
    if ((!is_kind(b, "exe") && !publish_companions(b)) || !out_publish(diags, output, b->c->out))
        return false;
    if (b->embed)
        unlink(weights);      /* of an earlier build: it would only mislead */
    return true;
}

/* ---- checks ---- */

/* Its first letter; 0 after reporting. */
static char embed_wanted(const Build *b)
{
    const char *wanted = b->c->options->value[OPTION_EMBED];
    if (!wanted)
        wanted = "auto";
    if (strcmp(wanted, "auto") != 0 && strcmp(wanted, "no") != 0 && strcmp(wanted, "yes") != 0)
        diag_report(b->c->diags, DIAG_USAGE, NULL, "`--embed %s`: expected yes, no or auto", wanted);
    else if (*wanted == 'y' && is_kind(b, "c"))
        diag_report(b->c->diags, DIAG_USAGE, NULL, "`--embed yes`: C source cannot hold the weights; they lie beside it");
    else
        return *wanted;
    return 0;
}

/* The linked-in weights of a library are read-only data of the app: only if asked for. */
static bool embeds(const Build *b, char wanted)
{
    bool small = b->c->plan->weights_len <= EMBED_MOST && !is_kind(b, "c");
    return wanted == 'y' || (wanted == 'a' && small && (!b->is_android || is_kind(b, "exe")));
}

/* C source for several kinds of CPU would need several compilations. */
static bool check_source(const Build *b)
{
    if (!is_kind(b, "c") || !target_has_codes(b->c->target))
        return true;
    diag_report(b->c->diags, DIAG_USAGE, NULL, "`--emit c` for target %s: one C file is compiled for one kind of CPU: "
                "take arm-neon, arm-dotprod or arm-i8mm", target_info(b->c->target)->name);
    return false;
}

static bool find_tools(Build *b)
{
    Compilation *c = b->c;
    const char *cc = c->options->value[OPTION_CC];
    b->is_android = c->target == TARGET_ANDROID_ARM64;
    if (is_kind(b, "c"))
        return true;
    const char *android_kind = c->linked_in ? "exe" : b->kind;
    return b->is_android ? android_find(c->arena, c->diags, c->target, android_kind, cc, &b->android, &b->cc)
                         : toolchain_find(c->arena, c->diags, c->target, cc, &b->cc);
}

static bool check_companion(const Compilation *c, const char *what, const char *path)
{
    if (strcmp(path, c->out) == 0)
        diag_report(c->diags, DIAG_USAGE, NULL, "`-o %s` is the name that %s will have: choose another ending", c->out, what);
    return strcmp(path, c->out) != 0 && driver_check_output(c, path);
}

static bool check_places(const Build *b)
{
    const Compilation *c = b->c;
    if (strcmp(c->out, "-") == 0 || !*c->out) {
        diag_report(c->diags, DIAG_USAGE, NULL, "`-o %s`: --emit %s needs a file; only ptx, ir, plan and dot go to standard output",
                    c->out, b->kind);
        return false;
    }
    return driver_check_output(c, c->out) && driver_check_output(c, weights_path(c))
        && (is_kind(b, "exe") || (check_companion(c, "its header", header_path(c))
                                  && check_companion(c, "its manifest", manifest_path(c))))
        && out_may_replace(c->diags, c->out);
}

bool artifact_check(Compilation *c, const char *kind)
{
    Build b = { .c = c, .kind = kind };
    return embed_wanted(&b) && check_prefix(c->diags, c->options->value[OPTION_PREFIX]) && check_places(&b)
        && check_source(&b) && find_tools(&b);
}

/* ---- the whole ---- */

static bool build(Build *b)
{
    const char *output = file(b, is_kind(b, "c") ? "model.c" : "out");
    if (!write_weights(b) || !write_model(b) || (!is_kind(b, "exe") && !write_companions(b)))
        return false;
    if (!is_kind(b, "c") && (!write_runtime(b) || (b->embed && !write_embedding(b))
                             || (b->is_android && !write_android(b)) || !compile_objects(b) || !link_objects(b, output)))
        return false;
    return publish(b, output);
}

bool artifact_write(Compilation *c, const char *kind)
{
    Build b = { .c = c, .kind = kind };
    char wanted = embed_wanted(&b);
    if (!find_tools(&b) || !out_folder_make(c->arena, c->diags, c->out, &b.folder))
        return false;
    b.embed = embeds(&b, wanted);
    bool ok = build(&b);
    if (c->options->value[OPTION_KEEP]) {
        interrupt_unguard();
        fprintf(stderr, "sources kept in %s\n", b.folder.path);
    } else {
        out_folder_remove(&b.folder);
    }
    return ok;
}
