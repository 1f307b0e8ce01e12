/* Front end: the text of a graph file becomes a checked Graph, or diagnostics. */
#ifndef MOSSC_COMPILER_GRAPH_READ_H
#define MOSSC_COMPILER_GRAPH_READ_H

#include "../ir/graph.h"

/* NULL after reporting (up to DIAG_MAX_ERRORS problems of one file at once). */
Graph *graph_read_file(Arena *arena, Diags *diags, const char *path);
Graph *graph_read_text(Arena *arena, Diags *diags, const char *file, const char *text, size_t len);

/* Replace the modes by the command line's --experts-per-token list: the layers that follow the
 * graph's top_k get new per-mode values; a layer's own top_k stays. False after reporting. */
bool graph_set_modes(Graph *graph, Diags *diags, const int64_t *top_k, int n_modes);

#endif
