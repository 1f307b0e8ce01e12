/* Candidates: kernel files written and compiled, several at a time.
 *
 * With the compiler and the flags of an artifact of the same target, in a temporary folder: as shared objects, or for a
 * runner as objects, which it links into programs of its own.
 */
#ifndef MOSSC_TUNER_CANDIDATE_H
#define MOSSC_TUNER_CANDIDATE_H

#include "jobs.h"
#include "../compiler/android.h"

enum { CANDIDATE_MOST_JOBS = 8 };

typedef struct {
    Arena *arena;
    const char *folder;
    ToolCommand cc;
    AndroidTools android;        /* of the target android-arm64 */
    TargetId target;
    struct Runner *runner;       /* runner.h: where they run; NULL: here */
    int n_jobs;                  /* compilers at a time, at most CANDIDATE_MOST_JOBS */
    /* Tests only: what the search renders instead of the template; NULL: the template. */
    const Template *(*alter)(Arena *arena, const Template *template, int ordinal);
} Builder;

typedef struct {
    const char *source, *path;   /* of what it becomes */
    bool built;
    bool guarded;                /* compiled so that it stops where it leaves an array */
    const char *words;           /* the end of what the compiler said */
} Candidate;

/* The compiler of artifacts for a target to builder->cc: `wanted` (--cc) or the first found. False after reporting. */
bool candidate_find_compiler(Builder *builder, Diags *diags, const char *wanted);
/* `name` is unique in the folder. */
Candidate candidate_write(const Builder *builder, Diags *diags, const char *name, const Text *source);
/* Compiles those written; a failure is told in the candidate. False only when signals came. */
bool candidates_compile(const Builder *builder, Candidate *candidates, int n);
/* What ends the names that a runner's object exports (codegen/kernel_file.h), behind a '_'. */
const char *candidate_symbol(Arena *arena, const char *path);
/* Another command of the same tools; false with the end of what it said, and when a signal came. */
bool candidate_tool(const Builder *builder, const ToolCommand *command, const char **words);

#endif
