/* Graph: a MossNet model as its JSON file says, checked and with every default filled in.
 *
 * Input of the compiler proper. Repeat groups are expanded: layers[i] is the i-th residual layer.
 * Invariant: whatever reads a Graph may trust every size to be positive and every product of
 * sizes it needs to fit in int64 (the front end checked). Format: docs/graph.md.
 */
#ifndef MOSSC_IR_GRAPH_H
#define MOSSC_IR_GRAPH_H

#include "arena.h"
#include "diag.h"
#include "dtype.h"

#include <stdint.h>

/* Sizes stay far enough below 2^63 that bytes and FLOPs of a model fit in int64 too. */
#define GRAPH_MAX_PARAMS ((int64_t)1 << 52)
#define GRAPH_MAX_SIZE INT64_C(2147483647)   /* of one dimension */
enum { GRAPH_MAX_MODES = 8, GRAPH_MAX_LAYERS = 4096, GRAPH_MAX_EXPERTS = 1024 };

typedef enum { LAYER_MAMBA, LAYER_ATTENTION, LAYER_MLP, N_LAYER_KINDS } LayerKind;
typedef enum { DISCRETIZE_EULER, DISCRETIZE_ZOH } Discretization;

typedef struct { int64_t d_inner, d_state, d_conv, dt_rank; } MambaLayer;
typedef struct {
    int64_t n_heads, n_kv_heads, head_dim;
    int64_t window;       /* tokens attended to, the current one included; 0 = all */
    double rope_theta;    /* 0 = no rotation */
} AttentionLayer;
typedef struct { int64_t d_ff; } MlpLayer;

typedef struct {
    LayerKind kind;
    Place at;                          /* of the layer object in the JSON */
    int64_t n_experts;                 /* 1 = dense: no router, top_k is {1} in every mode */
    int64_t top_k[GRAPH_MAX_MODES];    /* per mode, 1..n_experts */
    bool own_top_k;                    /* the layer names its top_k: the same in every mode */
    union { MambaLayer mamba; AttentionLayer attention; MlpLayer mlp; };
} Layer;

typedef struct {
    const char *name;
    int64_t vocab_size, d_model;
    double norm_eps;
    bool tie_embeddings, renormalize;
    Discretization discretization;
    int n_modes;                       /* >= 1; the first is the default */
    int64_t mode_top_k[GRAPH_MAX_MODES];   /* what the user calls each mode: --experts-per-token */
    int n_layers;
    Layer *layers;
} Graph;

const char *layer_kind_text(LayerKind kind);   /* "mamba" */

/* One tensor of the checkpoint (docs/graph.md, section 3). Shapes are [out, in]. */
typedef struct {
    const char *name;         /* "layers.3.in_proj.weight" */
    int rank;
    int64_t shape[3];
    int layer;                /* index, or -1 for embed, norm_f, lm_head */
    bool per_expert;          /* leading axis is the expert axis and only top-k of it is active */
    bool matrix;              /* one of those --quant applies to */
} TensorSpec;

/* Every tensor the graph's checkpoint must hold, in the order of the specification. */
TensorSpec *graph_tensors(const Graph *graph, Arena *arena, int *n_tensors);
int64_t tensor_spec_count(const TensorSpec *spec);    /* elements */
/* Of those, the ones a token uses in `mode`: top-k of the experts, else all. */
int64_t tensor_spec_active(const Graph *graph, const TensorSpec *spec, int mode);
/* False when the elements of some tensor, or of all together, pass GRAPH_MAX_PARAMS. */
bool graph_params_fit(const Graph *graph);

/* Exact parameter counts: all of them, and those one token uses in `mode` (the embedding whole). */
int64_t graph_total_params(const Graph *graph);
int64_t graph_active_params(const Graph *graph, int mode);

#endif
