/* Inspection: what `mossc inspect` tells of a model, planned from a graph or compiled already. */
#ifndef MOSSC_COMPILER_INSPECT_H
#define MOSSC_COMPILER_INSPECT_H

#include "predict.h"

typedef struct {
    int64_t experts_per_token, active_params;
    Cost decode, prefill;            /* of one token, attention over all of the context not counted */
} InspectionMode;

typedef struct {
    const char *name, *target, *quant;
    int64_t d_model, n_layers, chunk, params;
    MemorySizes sizes;               /* vocab_size is there */
    double context_flops;            /* of one token, for each token of context */
    int n_modes;
    InspectionMode modes[GRAPH_MAX_MODES];
    const Prediction *prediction;    /* NULL: none was asked for */
} Inspection;

Inspection inspect_plan(const Plan *plan);
/* From the manifest inside an artifact, which follows `mark`. False after reporting. */
bool inspect_artifact(Arena *arena, Diags *diags, const char *path, const char *mark, Inspection *out);

/* Parameters, memory, costs a token and what they allow at most; as text or as JSON. */
void inspection_print(const Inspection *inspection, int64_t n_context, int n_threads, bool json, Text *out);

#endif
