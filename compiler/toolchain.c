/* Toolchain: find a C compiler for a target, run commands side by side, keep their words. */
#include "toolchain.h"

#include "interrupt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

void tool_add(ToolCommand *command, const char *argument)
{
    if (command->n == TOOLCHAIN_MAX_ARGS - 1)
        BUG("a command of more than %d arguments", TOOLCHAIN_MAX_ARGS);
    command->args[command->n++] = argument;
}

void tool_add_words(Arena *arena, ToolCommand *command, const char *words)
{
    for (const char *at = words + strspn(words, " "); *at; at += strspn(at, " ")) {
        size_t len = strcspn(at, " ");
        tool_add(command, arena_strndup(arena, at, len));
        at += len;
    }
}

bool toolchain_has(Arena *arena, const char *program)
{
    if (strchr(program, '/'))
        return access(program, X_OK) == 0;
    const char *path = getenv("PATH");
    for (const char *at = path ? path : ""; *at;) {
        size_t len = strcspn(at, ":");
        if (access(arena_printf(arena, "%.*s/%s", (int)len, at, program), X_OK) == 0)
            return true;
        at += len + (at[len] == ':');
    }
    return false;
}

static Family host_family(void)
{
#if defined __aarch64__
    return FAMILY_AARCH64;
#else
    return FAMILY_X86;
#endif
}

bool toolchain_find(Arena *arena, Diags *diags, TargetId target, const char *wanted, ToolCommand *cc)
{
    static const char *const native[] = { "cc", "gcc", "clang", "clang-19", NULL };
    static const char *const to_aarch64[] = { "aarch64-linux-gnu-gcc", "clang-19 --target=aarch64-linux-gnu",
                                              "clang --target=aarch64-linux-gnu", NULL };
    static const char *const to_x86[] = { "x86_64-linux-gnu-gcc", "clang-19 --target=x86_64-linux-gnu",
                                          "clang --target=x86_64-linux-gnu", NULL };
    Family family = target_info(target)->family;
    const char *const *names = family == host_family() ? native : family == FAMILY_AARCH64 ? to_aarch64 : to_x86;
    const char *const only[] = { wanted, NULL };
    if (wanted)
        names = only;
    for (; *names; names++) {
        *cc = (ToolCommand){ 0 };
        tool_add_words(arena, cc, *names);
        if (cc->n && toolchain_has(arena, cc->args[0]))
            return true;
    }
    if (wanted)
        diag_report(diags, DIAG_TOOLCHAIN, NULL, "`%s` (--cc) is not a program", wanted);
    else
        diag_report(diags, DIAG_TOOLCHAIN, NULL, "no C compiler for %s found: install %s, or name one with --cc",
                    target_info(target)->name, family == host_family() ? "gcc" : "gcc-aarch64-linux-gnu");
    return false;
}

/* What a tool says goes to memory: the disk may be what it complains about. */
static bool start(Diags *diags, const ToolCommand *command, pid_t *pid, int *log)
{
    *log = memfd_create("log", MFD_CLOEXEC);
    int status = *log < 0 ? errno : interrupt_spawn(pid, CHILD_TOOL, command->args, *log);
    if (status) {
        diag_report(diags, DIAG_TOOLCHAIN, NULL, "cannot run %s: %s", command->args[0], strerror(status));
        close(*log);
    }
    return !status;
}

/* The end of what it said, a line a note. */
static void note_words(Arena *arena, Diags *diags, int log)
{
    enum { MOST = 4000 };
    char *text = arena_alloc(arena, MOST + 1), *rest = NULL;
    off_t len = lseek(log, 0, SEEK_END);
    ssize_t n = pread(log, text, MOST, len > MOST ? len - MOST : 0);
    text[n > 0 ? n : 0] = 0;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        diag_note(diags, NULL, "%s", line);
}

bool toolchain_run(Arena *arena, Diags *diags, const ToolCommand *commands, int n)
{
    enum { MOST = 8 };
    pid_t pids[MOST];
    int logs[MOST], started = 0;
    while (started < n && started < MOST && start(diags, &commands[started], &pids[started], &logs[started]))
        started++;
    bool ok = started == n;
    for (int i = 0; i < started; i++) {
        int status = interrupt_wait(pids[i]);
        bool failed = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
        if (failed && ok) {
            diag_report(diags, DIAG_TOOLCHAIN, NULL, "%s failed%s", commands[i].args[0],
                        WIFSIGNALED(status) ? ": a signal ended it" : "");
            note_words(arena, diags, logs[i]);
        }
        ok = ok && !failed;
        close(logs[i]);
    }
    interrupt_check();      /* before they are reported: failed because they were told to end */
    return ok;
}
