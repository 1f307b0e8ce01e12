/* Candidates: one compiler process each. */
#include "candidate.h"

#include "../compiler/interrupt.h"
#include "../compiler/outfile.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

Candidate candidate_write(const Builder *b, Diags *diags, const char *name, const Text *source)
{
    Candidate candidate = { .source = arena_printf(b->arena, "%s/%s.c", b->folder, name),
                            .path = arena_printf(b->arena, "%s/%s.so", b->folder, name), .words = "" };
    candidate.built = out_write(diags, candidate.source, source->data, source->len);
    return candidate;
}

static ToolCommand compile_command(const Builder *b, const Candidate *candidate)
{
    ToolCommand command = b->cc;
    tool_add_words(b->arena, &command,
                   "-std=c17 -D_GNU_SOURCE -fvisibility=hidden -ffp-contract=fast -fno-math-errno -w -O2 -fPIC "
                                       "-shared");
    tool_add_words(b->arena, &command, target_info(b->target)->flags);
    tool_add(&command, candidate->source);
    tool_add(&command, "-o");
    tool_add(&command, candidate->path);
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

/* Up to n_jobs of them, side by side. */
static void compile_some(const Builder *b, Candidate *candidates, int n)
{
    pid_t pids[CANDIDATE_MOST_JOBS];
    int logs[CANDIDATE_MOST_JOBS];
    for (int i = 0; i < n; i++) {
        const ToolCommand command = compile_command(b, &candidates[i]);
        logs[i] = memfd_create("log", MFD_CLOEXEC);
        pids[i] = -1;
        if (!candidates[i].built || logs[i] < 0 || interrupt_spawn(&pids[i], CHILD_TOOL, command.args, logs[i]) != 0) {
            candidates[i].words = candidates[i].built ? "the compiler cannot be started"
                : "its source cannot be written";
            candidates[i].built = false;
            pids[i] = -1;
        }
    }
    for (int i = 0; i < n; i++) {
        int status = pids[i] > 0 ? interrupt_wait(pids[i]) : 0;
        if (pids[i] > 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
            candidates[i].built = false;
            candidates[i].words = last_words(b, logs[i]);
        }
        if (logs[i] >= 0)
            close(logs[i]);
        unlink(candidates[i].source);
    }
}

bool candidates_compile(const Builder *b, Candidate *candidates, int n)
{
    for (int i = 0; i < n && !interrupt_came(); i += b->n_jobs)
        compile_some(b, candidates + i, n - i < b->n_jobs ? n - i : b->n_jobs);
    return !interrupt_came();
}
