/* Workloads of a kernel under search: made when first needed, dropped when the search turns to another. */
#ifndef MOSSC_TUNER_SEARCH_WORK_H
#define MOSSC_TUNER_SEARCH_WORK_H

#include "search.h"

/* Checks with the reference's results, and what is timed. False after reporting, or when a signal came. */
bool search_work_make(SearchRun *run, SearchState *state);
/* From now on checks compare with the bits of the default at default_path, which was found right. False after
 * reporting. */
bool search_work_keep_bits(SearchRun *run, SearchState *state);
/* Rows of a block of a kernel with these parameters, if all its rows are one matrix's; else 0. */
int search_block_rows(const Job *job, const double *values);
void search_work_drop(SearchState *state);
/* Seconds that are enough for the slowest right candidate, on a machine that others use, too. */
double search_work_deadline(const Job *job);

#endif
