/* The product under test, as a user has it: compile a graph, run the executable, read its logits.
 *
 * Input: paths and options. Output: logits. What the programs print goes to logs in `dir`.
 */
#ifndef MOSSC_TESTS_ARTIFACT_H
#define MOSSC_TESTS_ARTIFACT_H

#include "check.h"

#include <stddef.h>
#include <stdint.h>

/* How an artifact is asked to process its tokens. */
typedef struct {
    bool step;
    int chunk;       /* 0: no --chunk */
    int n_threads;   /* 0: no --threads */
    int top_k;       /* --experts-per-token; 0: not given, so the default mode */
} Schedule;

/* "--step -t 2 --experts-per-token 3" */
const char *schedule_text(Arena *arena, const Schedule *schedule);

/* True, and the executable is at artifact_path; or *words says what went wrong. */
bool artifact_compile(const Check *check, Arena *arena, const char *graph, const char *weights,
                      const char **words);
/* Logits [n_tokens, V], n values in all; NULL, and *words says what went wrong. */
float *artifact_run(const Check *check, Arena *arena, const Schedule *schedule,
                    const int32_t *tokens, int n_tokens, size_t n, const char **words);
/* The likeliest token after a prompt, which asks for the logits of its last token alone; -1 when the
 * program prints none. It must not print text: another vocabulary than bytes. */
int artifact_next(const Check *check, Arena *arena, const Schedule *schedule, const int32_t *tokens,
                  int n_tokens, const char **words);

#endif
