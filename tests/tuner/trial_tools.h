/* What tests of single trials stand on: a small model of every kernel, a compiler, requests. */
#ifndef MOSSC_TESTS_TRIAL_TOOLS_H
#define MOSSC_TESTS_TRIAL_TOOLS_H

#include "../../compiler/driver.h"
#include "../../tuner/search_work.h"

/* What every test needs; also used where CUnit does not run. */
#define NEED(fact) trial_need((fact), #fact, __FILE__, __LINE__)
void trial_need(bool fact, const char *text, const char *file, int line);

/* For all of a program: its memory, and a folder for what is built, which trial_tools_end erases. */
extern Arena *trial_arena;
extern char trial_folder[64];
void trial_tools_begin(void);
void trial_tools_end(void);

/* A search that is not run: for its workloads and its compiler. */
SearchRun trial_run_of(DType dtype);
Candidate trial_compile(const SearchRun *run, const Text *source);
/* The same, so that it stops where it leaves an array. */
Candidate trial_compile_guarded(const SearchRun *run, const Text *source);
/* The checks alone, of a kernel in `candidate` whose symbols end so. */
TrialRequest trial_request(const SearchState *state, const Candidate *candidate, const char *suffix,
                           const double *values);

#endif
