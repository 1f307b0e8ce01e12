/* Search, measured: what is done on the machine whose speed is asked for. Knows no records. */
#ifndef MOSSC_TUNER_SEARCH_MEASURE_H
#define MOSSC_TUNER_SEARCH_MEASURE_H

#include "search.h"

/* Compiles some points of a kernel side by side. A candidate that does not compile says so; false after reporting that
 * the default does not, or when a signal came. */
bool search_build(SearchRun *run, SearchState *s, const int *points, int n);
/* Checks a point and measures it beside the incumbent, alone on this machine; the default beside itself. False after
 * reporting, or when a signal came. */
bool search_measure(SearchRun *run, SearchState *s, int point, int incumbent, TrialResult *result);
/* Lets workloads go; lets go of what all kernels share. */
void search_measure_end(SearchState *s);
void search_measure_free(SearchRun *run);

#endif
