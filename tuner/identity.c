/* Identity: this machine, a target, a C compiler and this mossc's templates, as text. */
#include "identity.h"

#include "digest.h"
#include "gpu_device.h"
#include "../codegen/codegen.h"
#include "../compiler/interrupt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HASH_DIGITS = 16 };

static bool is_gpu(TargetId target) { return target_info(target)->family == FAMILY_GPU; }

const char *identity_features(Arena *arena, TargetId target)
{
    const Target *info = target_info(target);
    return arena_printf(arena, "%s: %s", info->name, info->features);
}

static void read_all(const char *path, Text *out)
{
    char bytes[4096];
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    for (size_t n; (n = fread(bytes, 1, sizeof bytes, file)) > 0;)
        text_append(out, bytes, n);
    fclose(file);
}

/* "name : value" of a line, if it is that of `name`; blanks inside the value become one, ends are cut. */
static bool field(Arena *arena, const char *line, const char *name, const char **value)
{
    size_t len = strlen(name);
    if (strncmp(line, name, len) != 0 || line[len + strspn(line + len, " \t")] != ':')
        return false;
    const char *from = strchr(line, ':') + 1;
    char *out = arena_alloc(arena, strcspn(from, "\n") + 1), *to = out;
    for (from += strspn(from, " \t"); *from && *from != '\n'; from++)
        if ((unsigned char)*from > ' ')
            *to++ = *from;
        else if (to > out && to[-1] != ' ')
            *to++ = ' ';
    if (to > out && to[-1] == ' ')
        *--to = 0;
    *value = out;
    return true;
}

/* x86: the name and the numbers that tell processors of one name apart. ARM: the parts, each once, with how many. */
const char *identity_device_of_cpuinfo(Arena *arena, const char *cpuinfo)
{
    enum { MOST = 16 };
    const char *name = NULL, *family = "", *model = "", *stepping = "", *implementer = "", *parts[MOST] = { 0 };
    int n_cpus = 0, n_parts = 0, count[MOST] = { 0 };
    for (const char *line = cpuinfo; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        const char *part, *ignored;
        if (field(arena, line, "processor", &ignored))
            n_cpus++;
        if (field(arena, line, "model name", &name) || field(arena, line, "cpu family", &family)
            || field(arena, line, "model", &model) || field(arena, line, "stepping", &stepping)
            || field(arena, line, "CPU implementer", &implementer) || !field(arena, line, "CPU part", &part))
            continue;
        part = arena_printf(arena, "%s:%s", implementer, part);
        int i = 0;
        while (i < n_parts && strcmp(parts[i], part) != 0)
            i++;
        if (i < MOST) {
            parts[i] = part;
            count[i]++;
            n_parts += i == n_parts;
        }
    }
    Text text = { 0 };
    if (n_parts) {
        text_printf(&text, "ARM");
        for (int i = 0; i < n_parts; i++)
            text_printf(&text, " %dx%s", count[i], parts[i]);
    } else {
        text_printf(&text, "%s (%s-%s-%s), %d cpu%s", name ? name : "unknown CPU", family, model, stepping, n_cpus,
                    n_cpus == 1 ? "" : "s");
    }
    const char *device = arena_strdup(arena, text.data);
    text_free(&text);
    return device;
}

const char *identity_device(Arena *arena, TargetId target)
{
    if (is_gpu(target)) {
        const char *device = gpu_device_text(arena);
        return device ? device : "unknown GPU";
    }
    Text text = { 0 };
    read_all("/proc/cpuinfo", &text);
    const char *device = identity_device_of_cpuinfo(arena, text.data ? text.data : "");
    text_free(&text);
    return device;
}

/* gcc begins the line with the name it was called by, cc or gcc. */
static const char *without_name(Arena *arena, const char *line)
{
    const char *version = strchr(line, ' ');
    return version && version[1] == '(' ? arena_printf(arena, "gcc%s", version) : line;
}

/* The first line a compiler says to --version, "unknown" when it says nothing. */
static const char *version_line(Arena *arena, const char *const *cc, int n)
{
    const char **argv = arena_array(arena, const char *, (size_t)n + 2);
    for (int i = 0; i < n; i++)
        argv[i] = cc[i];
    argv[n] = "--version";
    char *line = arena_alloc(arena, 256);
    int log = memfd_create("version", MFD_CLOEXEC);
    pid_t pid;
    if (log >= 0 && interrupt_spawn(&pid, CHILD_TOOL, argv, log) == 0) {
        interrupt_wait(pid);
        ssize_t len = pread(log, line, 255, 0);
        line[len > 0 ? strcspn(line, "\n") : 0] = 0;
    }
    if (log >= 0)
        close(log);
    return *line ? without_name(arena, line) : "unknown";
}

const char *identity_toolchain(Arena *arena, TargetId target, const char *const *cc, int n)
{
    if (is_gpu(target))
        return "mossc PTX, LLVM 19";
    const char *toolchain = version_line(arena, cc, n);
    for (int i = 1; i < n; i++)
        toolchain = arena_printf(arena, "%s %s", toolchain, cc[i]);
    return toolchain;
}

const char *identity_template(Arena *arena, TargetId target, const char *kernel)
{
    Text text = { 0 };
    Bundle bundle = { 0 };
    Digest digest;
    char *hash = arena_alloc(arena, HASH_DIGITS + 1);
    bool all = strcmp(kernel, "step") == 0 || strcmp(kernel, "model") == 0;
    if (bundle_template(&bundle, is_gpu(target), all ? NULL : kernel, &text)) {
        digest_begin(&digest);
        digest_bytes(&digest, text.data, text.len);
        digest_end(&digest, hash, HASH_DIGITS);
    }
    text_free(&text);
    return hash;
}
