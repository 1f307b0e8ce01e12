/* Search order: which points of a kernel come first. */
#ifndef MOSSC_TUNER_SEARCH_ORDER_H
#define MOSSC_TUNER_SEARCH_ORDER_H

#include "search.h"

/* Makes s->order. False after reporting. */
bool search_order_points(SearchRun *run, SearchState *s);

#endif
