/* config.json of a Hugging Face folder: what it says of the model, and the graph that is. */
#ifndef MOSSC_COMPILER_IMPORT_CONFIG_H
#define MOSSC_COMPILER_IMPORT_CONFIG_H

#include "../ir/graph.h"

/* Features of a model that decide which rows of import.def apply. */
enum {
    IMPORT_MAMBA = 1, IMPORT_BIASED = 2, IMPORT_UNBIASED = 4,       /* the convolution's bias */
    IMPORT_DECODER = 8, IMPORT_DENSE = 16, IMPORT_EXPERTS = 32, IMPORT_SINGLE = 64,
    IMPORT_TIED = 128, IMPORT_UNTIED = 256
};

typedef struct {
    const char *model_type;     /* "llama"; "state-spaces" for the original Mamba's config.json */
    int families;
    int64_t n_layers;           /* theirs; one of a decoder is two of the graph's */
    int64_t vocab_size, d_model;
    double norm_eps;
    bool tied;
    int64_t n_experts, top_k;
    MambaLayer mamba;           /* of model_type mamba; the two others of the rest */
    AttentionLayer attention;
    MlpLayer mlp;
} ImportConfig;

/* False after reporting: also what a graph cannot express. */
bool import_config_read(Arena *arena, Diags *diags, const char *path, ImportConfig *out);
/* The graph as JSON, laid out as a person would. `name` is any text. */
void import_config_print(const ImportConfig *config, const char *name, Text *out);

#endif
