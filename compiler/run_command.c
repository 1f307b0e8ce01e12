/* run, bench, eval: a graph is compiled into a temporary folder first; the options mossc does not take
 * go to the artifact, whose exit code becomes mossc's.
 */
#include "run_command.h"

#include "artifact_options.h"
#include "inspect.h"
#include "interrupt.h"
#include "outfile.h"
#include "../codegen/codegen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of another processor, by the header of an ELF file; NULL: it is not, or no ELF file. */
static const char *foreign_machine(const char *path)
{
    static const struct { int machine; const char *words; } known[] = { { 62, "x86-64" }, { 183, "64-bit ARM" } };
    static const unsigned char magic[] = { 0x7f, 'E', 'L', 'F' };
    unsigned char header[20] = { 0 };
    FILE *file = fopen(path, "rbe");
    size_t n = file ? fread(header, 1, sizeof header, file) : 0;
    if (file)
        fclose(file);
    if (n != sizeof header || memcmp(header, magic, sizeof magic) != 0)
        return NULL;
#if defined __aarch64__
    const int here = 183;
#else
    const int here = 62;
#endif
    const int machine = header[18] | header[19] << 8;
    for (size_t i = 0; i < sizeof known / sizeof *known && machine != here; i++)
        if (known[i].machine == machine)
            return known[i].words;
    return machine == here ? NULL : "another processor";
}

static void report_failure(Compilation *c, const char *program, int status)
{
    const char *machine = status == ENOEXEC ? foreign_machine(program) : NULL;
    Diags *unsaid = diags_new(c->arena);
    Inspection built;
    if (!machine) {
        diag_report(c->diags, DIAG_RUN, NULL, "cannot run %s: %s", program,
                    status == ENOEXEC ? "it is not a program for this machine" : strerror(status));
        return;
    }
    bool ours = inspect_artifact(c->arena, unsaid, program, MANIFEST_MARK, &built);
    diag_report(c->diags, DIAG_RUN, NULL, "cannot run %s: it is for %s%s%s%s, and this machine is not", program,
                machine, ours ? " (target " : "", ours ? built.target : "", ours ? ")" : "");
    if (ours && strcmp(built.target, "android-arm64") == 0)
        diag_note(c->diags, NULL, "on a phone: adb push %s /data/local/tmp, with its .weights if there, and run "
                  "it there with adb shell", program);
    if (strcmp(machine, "64-bit ARM") == 0)
        diag_note(c->diags, NULL, "here: qemu-aarch64 %s (package qemu-user)", program);
}

static int execute(Compilation *c, const char *program, const char *command)
{
    const char *argv[OPTIONS_MAX_REST + 3] = { program, command };
    for (int i = 1; i < c->options->n_rest; i++)
        argv[i + 1] = c->options->rest[i];
    pid_t pid;
    int status = interrupt_spawn(&pid, CHILD_PROGRAM, argv, -1);
    if (status) {
        report_failure(c, program, status);
        return -1;
    }
    status = interrupt_wait(pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* All that would stop the artifact at once: compiling takes a while, and would be in vain. */
static bool can_execute(Compilation *c, const char *command)
{
    Text table = { 0 };
    Bundle bundle = { 0 };
    bundle_file(&bundle, "options.def", &table);
    bool ok = artifact_options_check(c->diags, table.data, command, c->options->rest + 1, c->options->n_rest - 1);
    text_free(&table);
    if (!ok || !driver_choose_target(c))
        return false;
    const char *why = target_lacks_here(c->target);
    if (why)
        diag_report(c->diags, DIAG_RUN, NULL, "this machine cannot run code for %s: %s", target_info(c->target)->name,
                    why);
    return !why;
}

static int run_artifact(Compilation *c, const char *command)
{
    if (c->model[0] == '-')
        diag_report(c->diags, DIAG_USAGE, NULL, "`%s` is not known before MODEL.json or ARTIFACT, which come first", c->model);
    if (c->model[0] == '-' || !options_suit_artifact(c->options, c->diags))
        return -1;
    return execute(c, strchr(c->model, '/') ? c->model : arena_printf(c->arena, "./%s", c->model), command);
}

int run_command(Compilation *c, const char *command)
{
    if (!driver_is_graph(c->model))
        return run_artifact(c, command);
    const char *tmp = getenv("TMPDIR");
    OutFolder folder;
    if (!can_execute(c, command)
        || !out_folder_make(c->arena, c->diags, arena_printf(c->arena, "%s/mossc", tmp && *tmp ? tmp : "/tmp"), &folder))
        return -1;
    /* The name that its messages begin with. */
    c->out = out_folder_file(c->arena, &folder, arena_printf(c->arena, "mossc %s", command));
    int code = -1;
    if (driver_compile(c, "exe")) {
        Text warnings = { 0 };
        diags_print(c->diags, &warnings);
        if (warnings.len)
            write(2, warnings.data, warnings.len);
        text_free(&warnings);
        c->diags = diags_new(c->arena);
        code = execute(c, c->out, command);
    }
    out_folder_remove(&folder);
    return code;
}
