/* Candidates: one compiler process each. */
#include "candidate.h"

#include "runner.h"
#include "../codegen/kernel_file.h"
#include "../compiler/interrupt.h"
#include "../compiler/outfile.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

bool candidate_find_compiler(Builder *b, Diags *diags, const char *wanted)
{
    if (b->target == TARGET_ANDROID_ARM64)
        return android_find(b->arena, diags, b->target, "exe", wanted, &b->android, &b->cc);
    return toolchain_find(b->arena, diags, b->target, wanted, &b->cc);
}

Candidate candidate_write(const Builder *b, Diags *diags, const char *name, const Text *source)
{
    Candidate candidate = { .source = arena_printf(b->arena, "%s/%s.c", b->folder, name),
                            .path = arena_printf(b->arena, "%s/%s.%s", b->folder, name,
                                                                     b->runner ? "o" : "so"), .words = "" };
    candidate.built = out_write(diags, candidate.source, source->data, source->len);
    return candidate;
}

const char *candidate_symbol(Arena *arena, const char *path)
{
    const char *name = strrchr(path, '/') + 1;
    char *symbol = arena_strndup(arena, name, strcspn(name, "."));
    for (char *c = symbol; *c; c++)
        *c = *c == '-' ? 'm' : *c;
    return symbol;
}

/* Several are linked into one program, so each has names of its own. */
static void add_for_runner(const Builder *b, const Candidate *candidate, ToolCommand *command)
{
    const char *symbol = candidate_symbol(b->arena, candidate->path);
    if (b->target == TARGET_ANDROID_ARM64)
        tool_add_words(b->arena, command, android_compile_flags(&b->android));
    if (target_has_codes(b->target))
        tool_add(command, "-fno-inline-functions");      /* as artifacts of several codes are compiled */
    tool_add(command, "-c");
    tool_add(command, arena_printf(b->arena, "-D" KERNEL_FILE_FUNCTION "=" KERNEL_FILE_FUNCTION "_%s", symbol));
    tool_add(command, arena_printf(b->arena, "-D" KERNEL_FILE_MANIFEST "=" KERNEL_FILE_MANIFEST "_%s", symbol));
}

static ToolCommand compile_command(const Builder *b, const Candidate *candidate)
{
    ToolCommand command = b->cc;
    tool_add_words(b->arena, &command,
                   "-std=c17 -D_GNU_SOURCE -fvisibility=hidden -ffp-contract=fast -fno-math-errno -w -O2");
    if (b->runner)
        add_for_runner(b, candidate, &command);
    else
        tool_add_words(b->arena, &command, "-fPIC -shared");
    if (candidate->guarded)
        tool_add_words(b->arena, &command, "-fsanitize=bounds -fsanitize-undefined-trap-on-error");
    tool_add_words(b->arena, &command, target_info(b->runner ? runner_code(b->runner) : b->target)->flags);
    tool_add(&command, candidate->source);
    tool_add(&command, "-o");
    tool_add(&command, candidate->path);
    if (!b->runner)
        tool_add(&command, "-lm");
    return command;
}

static const char *last_words(const Builder *b, int log)
{
    char text[600];
    off_t len = lseek(log, 0, SEEK_END);
    ssize_t n = pread(log, text, sizeof text - 1, len > (off_t)sizeof text - 1 ? len - ((off_t)sizeof text - 1) : 0);
    text[n > 0 ? n : 0] = '\0';
    for (char *c = text; *c; c++)
        *c = (unsigned char)*c < 0x20 ? ' ' : *c;
    return arena_strdup(b->arena, text);
}

typedef struct { pid_t pid; int log; } Tool;

static bool start(const ToolCommand *command, Tool *tool)
{
    ToolCommand ended = *command;
    ended.args[ended.n] = NULL;
    *tool = (Tool){ .pid = -1, .log = memfd_create("log", MFD_CLOEXEC) };
    if (tool->log >= 0 && interrupt_spawn(&tool->pid, CHILD_TOOL, ended.args, tool->log) == 0)
        return true;
    tool->pid = -1;
    return false;
}

/* Waits for one that was started; false, with its words, when it failed or was not. */
static bool end(const Builder *b, const Tool *tool, const char **words)
{
    int status = tool->pid > 0 ? interrupt_wait(tool->pid) : -1;
    bool ok = tool->pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!ok)
        *words = tool->pid > 0 ? last_words(b, tool->log) : "the compiler cannot be started";
    if (tool->log >= 0)
        close(tool->log);
    return ok;
}

bool candidate_tool(const Builder *b, const ToolCommand *command, const char **words)
{
    Tool tool;
    start(command, &tool);
    return end(b, &tool, words) && !interrupt_came();
}

/* Up to n_jobs of them, side by side. */
static void compile_some(const Builder *b, Candidate *candidates, int n)
{
    Tool tools[CANDIDATE_MOST_JOBS];
    for (int i = 0; i < n; i++) {
        const ToolCommand command = compile_command(b, &candidates[i]);
        if (candidates[i].built)
            start(&command, &tools[i]);
    }
    for (int i = 0; i < n; i++) {
        if (!candidates[i].built)
            candidates[i].words = "its source cannot be written";
        else
            candidates[i].built = end(b, &tools[i], &candidates[i].words);
        unlink(candidates[i].source);
    }
}

bool candidates_compile(const Builder *b, Candidate *candidates, int n)
{
    for (int i = 0; i < n && !interrupt_came(); i += b->n_jobs)
        compile_some(b, candidates + i, n - i < b->n_jobs ? n - i : b->n_jobs);
    return !interrupt_came();
}
