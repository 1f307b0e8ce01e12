/* Processes and files of the differential test: run a program, wait, read what it left.
 *
 * Input: argument lists. Output: exit codes. Everything a program prints goes to a log file.
 * Invariant: no shell in between, so nothing needs quoting.
 */
#ifndef MOSSC_TESTS_PROCESS_H
#define MOSSC_TESTS_PROCESS_H

#include "../../ir/arena.h"

#include <stdbool.h>

enum { ARGS_MAX = 32, PROCESS_SIGNALLED = 128 };

/* Arguments of one program, NULL-terminated once full. */
typedef struct { const char *argv[ARGS_MAX + 1]; int n; } Args;

void args_add(Args *args, const char *arg);
void args_split(Args *args, Arena *arena, const char *words);   /* at blanks */

/* The exit code, or PROCESS_SIGNALLED + the signal that ended it (SIGALRM after `seconds`). */
int process_run(const Args *args, const char *log_path, unsigned seconds);

bool file_write(const char *path, const void *bytes, size_t len);
/* NULL when it cannot be read; NUL-terminated besides. */
char *file_read(Arena *arena, const char *path, size_t *len);
/* Remove a directory and what is in it. */
void tree_remove(const char *path);

#endif
