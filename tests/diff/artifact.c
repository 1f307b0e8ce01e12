/* The product under test: its two command lines.
 *
 * Input: a Check. Output: files in check->dir: model (the executable), logits.f32 and logs.
 * Invariant: logits of an earlier run are gone before the next starts.
 */
#include "artifact.h"
#include "process.h"

#include "../../ir/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COMPILE_SECONDS = 300, RUN_SECONDS = 120, EXCERPT = 300 };

const char *schedule_text(Arena *arena, const Schedule *schedule)
{
    Text text = { 0 };
    text_printf(&text, "%s", schedule->step ? "--step" : "prefill");
    if (schedule->chunk)
        text_printf(&text, " --chunk %d", schedule->chunk);
    if (schedule->n_threads)
        text_printf(&text, " -t %d", schedule->n_threads);
    if (schedule->top_k)
        text_printf(&text, " --experts-per-token %d", schedule->top_k);
    const char *copy = arena_strdup(arena, text.data);
    text_free(&text);
    return copy;
}

/* What a failed program said, on one line. */
static const char *failure(Arena *arena, const char *what, int code, const char *log_path)
{
    size_t len = 0;
    char *log = file_read(arena, log_path, &len);
    if (len > EXCERPT)
        log[EXCERPT] = 0;
    for (char *c = log; c && *c; c++)
        if (*c == '\n')
            *c = ' ';
    const char *how = code > PROCESS_SIGNALLED ? "signal" : "exit code";
    return arena_printf(arena, "%s: %s %d: %s", what, how,
                        code > PROCESS_SIGNALLED ? code - PROCESS_SIGNALLED : code,
                        log ? log : "(no log)");
}

bool artifact_compile(const Check *check, Arena *arena, const char *graph, const char *weights,
                      const char **words)
{
    Args args = { 0 };
    const char *log = arena_printf(arena, "%s/compile.log", check->dir);
    args_split(&args, arena, check->mossc);
    args_add(&args, "compile");
    args_add(&args, graph);
    args_add(&args, "--weights");
    args_add(&args, weights);
    args_add(&args, "--target");
    args_add(&args, check->target);
    if (strcmp(check->quant, "own") != 0) {
        args_add(&args, "--quant");
        args_add(&args, check->quant);
    }
    args_add(&args, "--emit");
    args_add(&args, "exe");
    args_add(&args, "-o");
    args_add(&args, arena_printf(arena, "%s/model", check->dir));
    int code = process_run(&args, log, COMPILE_SECONDS);
    if (code != 0)
        *words = failure(arena, "compile", code, log);
    return code == 0;
}

static const char *tokens_text(Arena *arena, const int32_t *tokens, int n_tokens)
{
    Text text = { 0 };
    for (int t = 0; t < n_tokens; t++)
        text_printf(&text, t ? ",%d" : "%d", (int)tokens[t]);
    const char *copy = arena_strdup(arena, text.data);
    text_free(&text);
    return copy;
}

static void add_number(Args *args, Arena *arena, const char *option, int value)
{
    if (!value)
        return;
    args_add(args, option);
    args_add(args, arena_printf(arena, "%d", value));
}

/* The bytes of a logits file, if there are exactly n floats. Both machines are little-endian. */
static float *read_logits(Arena *arena, const char *path, size_t n, const char **words)
{
    size_t len = 0;
    char *bytes = file_read(arena, path, &len);
    if (bytes && len == n * sizeof(float))
        return (float *)(void *)bytes;
    *words = arena_printf(arena, "logits: %zu bytes, expected %zu", len, n * sizeof(float));
    return NULL;
}

/* Runs the artifact on tokens, with what `more` says besides. False, and *words says why. */
static bool run_tokens(const Check *check, Arena *arena, const Schedule *schedule, const int32_t *tokens,
                       int n_tokens, const char *const *more, const char *log, const char **words)
{
    Args args = { 0 };
    if (check->runner)
        args_split(&args, arena, check->runner);
    args_add(&args, arena_printf(arena, "%s/model", check->dir));
    args_add(&args, "--tokens");
    args_add(&args, tokens_text(arena, tokens, n_tokens));
    for (; *more; more++)
        args_add(&args, *more);
    add_number(&args, arena, "--experts-per-token", schedule->top_k);
    add_number(&args, arena, "-t", schedule->n_threads);
    add_number(&args, arena, "--chunk", schedule->chunk);
    if (schedule->step)
        args_add(&args, "--step");
    int code = process_run(&args, log, RUN_SECONDS);
    if (code != 0)
        *words = failure(arena, "run", code, log);
    return code == 0;
}

float *artifact_run(const Check *check, Arena *arena, const Schedule *schedule,
                    const int32_t *tokens, int n_tokens, size_t n, const char **words)
{
    const char *log = arena_printf(arena, "%s/run.log", check->dir);
    const char *out = arena_printf(arena, "%s/logits.f32", check->dir);
    const char *const more[] = { "--logits", out, NULL };
    unlink(out);
    if (!run_tokens(check, arena, schedule, tokens, n_tokens, more, log, words))
        return NULL;
    return read_logits(arena, out, n, words);
}

int artifact_next(const Check *check, Arena *arena, const Schedule *schedule, const int32_t *tokens,
                  int n_tokens, const char **words)
{
    static const char *const more[] = { "-n", "1", "--temp", "0", NULL };
    const char *log = arena_printf(arena, "%s/next.log", check->dir);
    size_t len;
    unlink(log);
    if (!run_tokens(check, arena, schedule, tokens, n_tokens, more, log, words))
        return -1;
    /* The id stands alone on its line, among the summary's. */
    for (const char *line = file_read(arena, log, &len); line && *line; line = strchr(line, '\n'), line += line != NULL) {
        char *end;
        long id = strtol(line, &end, 10);
        if (end != line && end[strspn(end, " ")] == '\n')
            return (int)id;
    }
    *words = "no token printed";
    return -1;
}
