/* One check: one case, compiled for one target with one storage type, against the reference.
 *
 * Input: a Check. Output: a verdict and one line of words. Writes into check->dir only.
 * Invariant: uses the product as a user would, through its command line and files.
 */
#ifndef MOSSC_TESTS_CHECK_H
#define MOSSC_TESTS_CHECK_H

#include "cases.h"

#include <stdbool.h>

enum { MAX_THREAD_COUNTS = 8 };

typedef enum { VERDICT_PASSED, VERDICT_FAILED, VERDICT_SKIPPED } Verdict;

typedef struct {
    const char *name;        /* target/quant/case */
    const Case *test;
    const char *mossc;       /* the compiler, with arguments if any */
    const char *target;      /* name */
    const char *quant;       /* dtype name, or "own": no --quant */
    const char *runner;      /* program that runs the artifact, with arguments; NULL: itself */
    const char *dir;         /* exists, empty */
    int threads[MAX_THREAD_COUNTS], n_threads;
    bool exact;              /* prefill, steps, chunks and threads must agree to the bit */
} Check;

/* *words lives in the arena: what was found, or what went wrong. */
Verdict check_run(const Check *check, Arena *arena, const char **words);

#endif
