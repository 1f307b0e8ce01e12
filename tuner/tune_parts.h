/* `mossc tune`, its parts: what one process does for itself, and rank 0 and the workers of mpirun each for theirs. */
#ifndef MOSSC_TUNER_TUNE_PARTS_H
#define MOSSC_TUNER_TUNE_PARTS_H

#include "search.h"
#include "../compiler/driver.h"
#include "../compiler/outfile.h"

typedef struct {
    Compilation *c;
    const char *db;
    const char *runner;          /* NULL: this machine measures */
    int64_t trials, seconds, seed, jobs, runner_timeout;
    SearchOrder order;
} TuneOptions;

/* Each false after reporting. */
bool tune_read_options(Compilation *c, TuneOptions *o);
/* Can this machine measure the target? */
bool tune_check_target(Compilation *c);
/* Compiler and key of this machine. */
bool tune_identify(Compilation *c, SearchRun *run);
/* The journal of the search that run->key and the options are, in run->records. */
bool tune_open_search(const TuneOptions *o, SearchRun *run);
/* A folder for candidates. */
bool tune_make_folder(Compilation *c, OutFolder *folder);
void tune_set_builder(const TuneOptions *o, const OutFolder *folder, SearchRun *run);
void tune_measure_ceilings(SearchRun *run, double *operations, double *bytes);
/* What was found. */
bool tune_print(const SearchRun *run);

#endif
