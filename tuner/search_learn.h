/* Learned order: what the records of other kernels on this machine say of a kernel's points. */
#ifndef MOSSC_TUNER_SEARCH_LEARN_H
#define MOSSC_TUNER_SEARCH_LEARN_H

#include "search.h"

/* Adds to `costs` ([n_points], logarithms of what the cost model says) what was learned; they keep a part of their
 * weight. Where the records are too few they stay as they are. False after reporting. */
bool search_learn(SearchRun *run, const SearchState *s, double *costs);

#endif
