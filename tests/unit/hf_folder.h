/* Folders as transformers would save them, written by the tests of import themselves.
 *
 * The names here are spelled anew, not taken from import.def: two readings of the same convention.
 */
#ifndef MOSSC_TESTS_HF_FOLDER_H
#define MOSSC_TESTS_HF_FOLDER_H

#include "../../ir/graph.h"

typedef enum { HF_SPLIT, HF_FUSED } HfExperts;      /* w1, w2, w3 of each expert, or stacked */

typedef struct {
    const char *config;         /* text of config.json */
    HfExperts experts;
    int n_shards;               /* 1: model.safetensors; more: with an index */
    DType dtype;
    bool original;              /* backbone.embedding instead of backbone.embeddings */
    bool no_conv_bias;          /* left out */
    bool head_too;              /* write lm_head.weight though it is tied */
    bool inv_freq;              /* the buffer that old versions saved */
} HfModel;

/* One tensor of such a folder, for tests that want to spoil it before it is written. */
typedef struct {
    const char *name, *dtype;
    int rank;
    int64_t shape[4];
    const char *data;
    size_t len;
} HfTensor;

typedef struct { Arena *arena; HfTensor *tensors; int n; } HfTensors;

/* Element i of tensor `t` of the graph (graph_tensors' order): exact in every dtype, never 0. */
float hf_value(int t, int64_t i);

HfTensors hf_tensors(Arena *arena, const Graph *graph, const HfModel *model);
HfTensor *hf_find(HfTensors *tensors, const char *name);        /* NULL: none */
void hf_remove(HfTensors *tensors, const char *name);
void hf_add(HfTensors *tensors, HfTensor tensor);
/* config.json and the tensors into a folder that is there. False when a file cannot be written. */
bool hf_write(const HfTensors *tensors, const HfModel *model, const char *folder);

#endif
