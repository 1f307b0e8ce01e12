/* `mossc params`: total and active parameters of every mode. */
#ifndef MOSSC_COMPILER_PARAMS_H
#define MOSSC_COMPILER_PARAMS_H

#include "../ir/graph.h"
#include "../ir/text.h"

/* A table for people, or with `json` exact counts for tools. */
void params_print(const Graph *graph, bool json, Text *out);

#endif
