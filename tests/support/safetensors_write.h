/* Writes small safetensors files for tests: good ones, and bad ones by giving the header itself. */
#ifndef MOSSC_TESTS_SAFETENSORS_WRITE_H
#define MOSSC_TESTS_SAFETENSORS_WRITE_H

#include "../../compiler/safetensors_write.h"
#include "../../ir/graph.h"
#include "../../ir/text.h"

/* `header` and then `data`, with the length before them. */
void safetensors_put(Text *out, const char *header, const void *data, size_t len);
/* Every tensor of the graph in the order of the specification, all of one dtype. Element `i` of
 * tensor `t` is value(t, i), rounded to the dtype. */
void safetensors_put_graph(Text *out, const Graph *graph, DType dtype, float (*value)(int tensor, int64_t i));
/* False with errno set. */
bool safetensors_save(const char *path, const Text *bytes);

#endif
