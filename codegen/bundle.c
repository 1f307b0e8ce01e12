/* Bundle: the runtime's sources, embedded in mossc, written into what it compiles.
 *
 * So an artifact needs no installed runtime, and --emit c gives one file that compiles alone.
 */
#include "bundle.h"
#include "embedded.h"

#include <ctype.h>
#include <string.h>

/* In this order; headers come with whoever includes them. */
static const char *const cpu_library_files[] = {
    "moss.h", "error.c", "cpu.c", "cores.c", "threads.c", "model.c", "cpu_model.c", "state.c", "eval_check.c", "eval.c",
    "sampler.c", "generate.c",
};
static const char *const gpu_library_files[] = {
    "moss.h", "error.c", "cores.c", "model.c", "state.c", "eval_check.c", "sampler.c", "generate.c", "gpu_driver.c", "gpu_device.c",
    "gpu_upload.c", "gpu_model.c", "gpu_slots.c", "gpu_launch.c", "gpu_context.c", "gpu_eval.c",
};
static const char *const command_line_files[] = {
    "args.c", "machine.c", "tokens.c", "output.c", "session.c", "run.c", "bench.c", "evaltext.c", "info.c", "main.c",
};
static const char *const kernel_headers[] = { "program.h", "simd.h", "route.h", "scan.h", "tile.h" };

static int find_file(const char *name, size_t len)
{
    for (int i = 0; i < n_embedded_runtime; i++)
        if (strlen(embedded_runtime[i].name) == len && memcmp(embedded_runtime[i].name, name, len) == 0)
            return i;
    return -1;
}

/* The file a line `#include "name"` wants, or -1. */
static int included_file(const char *line)
{
    while (*line == ' ')
        line++;
    if (strncmp(line, "#include \"", 10) != 0)
        return -1;
    const char *name = line + 10;
    return find_file(name, strcspn(name, "\"\n"));
}

static void append_file(Bundle *bundle, int file, Text *out)
{
    const char *name = embedded_runtime[file].name;
    bool table = strstr(name, ".def") != NULL;
    if (bundle->included[file] && !table)
        return;
    bundle->included[file] = true;
    for (const char *line = embedded_runtime[file].text; *line;) {
        size_t len = strcspn(line, "\n");
        int inner = included_file(line);
        if (inner >= 0)
            append_file(bundle, inner, out);
        else
            text_append(out, line, len + (line[len] == '\n'));
        line += len + (line[len] == '\n');
    }
}

void bundle_file(Bundle *bundle, const char *name, Text *out)
{
    int file = find_file(name, strlen(name));
    if (file < 0 || n_embedded_runtime > BUNDLE_MAX_FILES)
        BUG("runtime file %s is not embedded", name);
    append_file(bundle, file, out);
}

#define APPEND_ALL(files) \
    for (size_t i = 0; i < sizeof(files) / sizeof *(files); i++) bundle_file(bundle, (files)[i], out)

void bundle_kernel_headers(Bundle *bundle, Text *out) { APPEND_ALL(kernel_headers); }
void bundle_library(Bundle *bundle, bool gpu, Text *out)
{
    if (gpu) {
        APPEND_ALL(gpu_library_files);
    } else {
        APPEND_ALL(cpu_library_files);
    }
}

void bundle_command_line(Bundle *bundle, Text *out) { APPEND_ALL(command_line_files); }

static bool append_named(const EmbeddedFile *files, int n, const char *name, Text *out)
{
    bool found = false;
    for (int i = 0; i < n; i++) {
        const char *dot = strrchr(files[i].name, '.');
        size_t len = (size_t)(dot - files[i].name);
        if (name && (strlen(name) != len || memcmp(files[i].name, name, len) != 0))
            continue;
        text_append(out, files[i].text, files[i].len);
        found = true;
    }
    return found;
}

bool bundle_template(Bundle *bundle, bool gpu, const char *name, Text *out)
{
    if (!gpu) {
        bundle_kernel_headers(bundle, out);
        return append_named(embedded_templates, n_embedded_templates, name, out);
    }
    append_named(embedded_gpu_headers, n_embedded_gpu_headers, NULL, out);
    return append_named(embedded_gpu_templates, n_embedded_gpu_templates, name, out);
}

/* Does the line include a header that bionic.h stands for? */
static bool is_bionic_header(const char *line)
{
    static const char *const headers[] = {
        "errno.h", "fcntl.h", "inttypes.h", "math.h", "pthread.h", "sched.h", "signal.h", "stdio.h", "stdlib.h",
        "string.h", "sys/auxv.h", "sys/mman.h", "sys/stat.h", "sys/syscall.h", "time.h", "unistd.h",
    };
    if (strncmp(line, "#include <", 10) != 0)
        return false;
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        size_t len = strlen(headers[i]);
        if (strncmp(line + 10, headers[i], len) == 0 && line[10 + len] == '>')
            return true;
    }
    return false;
}

void bundle_bionic(Text *text)
{
    Text whole = { 0 };
    Bundle bundle = { 0 };
    bundle_file(&bundle, "bionic.h", &whole);
    for (const char *line = text->data; *line;) {
        size_t len = strcspn(line, "\n");
        len += line[len] == '\n';
        if (!is_bionic_header(line))
            text_append(&whole, line, len);
        line += len;
    }
    text_free(text);
    *text = whole;
}

void bundle_bionic_library(bool libm, Text *out)
{
    static const char symbol[] = "(name) .globl name; .type name, %function; name:";
    Bundle bundle = { 0 };
    text_printf(out, "#define LIBC%s\n#define LIBM%s\n    .text\n", libm ? "(name)" : symbol, libm ? symbol : "(name)");
    bundle_file(&bundle, "bionic.def", out);
    text_printf(out, "    ret\n    .section .note.GNU-stack,\"\",%%progbits\n");
}

static bool is_identifier(char c) { return isalnum((unsigned char)c) || c == '_'; }

void bundle_rename(Text *text, const char *prefix)
{
    Text renamed = { 0 };
    const char *at = text->data;
    for (const char *c = text->data; *c; c++) {
        bool start = c == text->data || !is_identifier(c[-1]);
        bool lower = start && strncmp(c, "moss_", 5) == 0, upper = start && strncmp(c, "MOSS_", 5) == 0;
        if (!lower && !upper)
            continue;
        text_append(&renamed, at, (size_t)(c - at));
        for (const char *p = prefix; *p; p++) {
            char letter = (char)(upper ? toupper((unsigned char)*p) : *p);
            text_append(&renamed, &letter, 1);
        }
        at = c + 4;    /* the underscore stays */
    }
    text_append(&renamed, at, strlen(at));
    text_free(text);
    *text = renamed;
}
