/* Builder: a checked Graph becomes a Module of common blocks, one for each distinct layer shape. */
#ifndef MOSSC_COMPILER_BUILD_H
#define MOSSC_COMPILER_BUILD_H

#include "../ir/graph.h"
#include "../ir/module.h"

/* `dtypes`: how each tensor of graph_tensors(graph) is to be stored, in that order. */
Module *build_module(Arena *arena, const Graph *graph, const DType *dtypes);

#endif
