/* The layers of a graph file. Used by graph_read.c only. */
#ifndef MOSSC_COMPILER_GRAPH_LAYERS_H
#define MOSSC_COMPILER_GRAPH_LAYERS_H

#include "../ir/graph.h"
#include "graph_fields.h"

/* top_k as written: "auto", or one number a mode. */
typedef struct { bool automatic; int n_modes; int64_t k[GRAPH_MAX_MODES]; } TopK;

typedef struct {
    Fields fields;
    Graph *graph;             /* its sizes are 0 where the file's were wrong and reported */
    int64_t n_experts;        /* of layers that do not say; 0: wrong and reported */
    TopK top_k;               /* of layers that do not say; n_modes 0: wrong and reported */
    const JsonValue *top_k_at;   /* NULL: the default */
    bool full;                /* GRAPH_MAX_LAYERS was passed and reported */
} GraphReader;

/* The paper's C.4 rule. */
int64_t graph_auto_top_k(int64_t n_experts);
/* Read and expand `list` into graph->layers, which has room for GRAPH_MAX_LAYERS. */
void graph_read_layers(GraphReader *reader, const JsonValue *list);

#endif
