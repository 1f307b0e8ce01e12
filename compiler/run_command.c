/* run, bench, eval: a graph is compiled into a temporary folder first; the options mossc does not take
 * go to the artifact, whose exit code becomes mossc's.
 */
#include "run_command.h"

#include "interrupt.h"
#include "outfile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int execute(Compilation *c, const char *program, const char *command)
{
    const char *argv[OPTIONS_MAX_REST + 3] = { program, command };
    for (int i = 1; i < c->options->n_rest; i++)
        argv[i + 1] = c->options->rest[i];
    pid_t pid;
    int status = interrupt_spawn(&pid, CHILD_PROGRAM, argv, -1);
    if (status) {
        diag_report(c->diags, DIAG_RUN, NULL, "cannot run %s: %s", program,
                    status == ENOEXEC ? "it is not a program for this machine" : strerror(status));
        return -1;
    }
    status = interrupt_wait(pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool is_graph(const char *path)
{
    size_t len = strlen(path);
    return len > 5 && strcmp(path + len - 5, ".json") == 0;
}

int run_command(Compilation *c, const char *command)
{
    if (!is_graph(c->model)) {
        const char *path = strchr(c->model, '/') ? c->model : arena_printf(c->arena, "./%s", c->model);
        return execute(c, path, command);
    }
    const char *tmp = getenv("TMPDIR");
    OutFolder folder;
    if (!out_folder_make(c->arena, c->diags, arena_printf(c->arena, "%s/mossc", tmp && *tmp ? tmp : "/tmp"), &folder))
        return -1;
    c->out = out_folder_file(c->arena, &folder, "model");
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
