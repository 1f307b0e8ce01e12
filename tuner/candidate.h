/* Candidates: kernel files written and compiled, several at a time.
 *
 * With the compiler and the flags of an artifact of the same target, as shared objects in a temporary folder.
 */
#ifndef MOSSC_TUNER_CANDIDATE_H
#define MOSSC_TUNER_CANDIDATE_H

#include "jobs.h"
#include "../compiler/toolchain.h"

enum { CANDIDATE_MOST_JOBS = 8 };

typedef struct {
    Arena *arena;
    const char *folder;
    ToolCommand cc;
    TargetId target;
    int n_jobs;                  /* compilers at a time, at most CANDIDATE_MOST_JOBS */
    /* Tests only: what the search renders instead of the template; NULL: the template. */
    const Template *(*alter)(Arena *arena, const Template *template, int ordinal);
} Builder;

typedef struct {
    const char *source, *path;   /* of the shared object */
    bool built;
    const char *words;           /* the end of what the compiler said */
} Candidate;

/* `name` is unique in the folder. */
Candidate candidate_write(const Builder *builder, Diags *diags, const char *name, const Text *source);
/* Compiles those written; a failure is told in the candidate. False only when signals came. */
bool candidates_compile(const Builder *builder, Candidate *candidates, int n);

#endif
