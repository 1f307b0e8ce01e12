/* A model on its way into launch lists: what all the lowering of one list shares.
 *
 * gpu_lower.c turns the IR into launches an operation at a time (prefill, and decode where nothing better is
 * there); gpu_decode.c is the place for decode; gpu_gemm.c chooses products' kernels. All say their launches
 * through gpu_build.h.
 */
#ifndef MOSSC_COMPILER_GPU_MODEL_H
#define MOSSC_COMPILER_GPU_MODEL_H

#include "gpu_build.h"
#include "../ir/choices.h"
#include "../ir/plan.h"

/* Experts per token: the same in every mode, or (fixed 0) the mode's own, known at run time. */
typedef struct { int64_t fixed, most; } TopK;

/* Rows in scratch: of tokens, or of pairs whose sum is meant. Columns and strides count elements. */
typedef struct {
    LaunchBuffer *buffer;
    int64_t column, stride;
    int element_len;
    bool pairs;
    TopK top_k;              /* of pairs */
} Rows;

typedef struct {
    Arena *arena;
    const Plan *plan;
    const Choices *choices;  /* NULL: none */
    GpuBuilder *b;
    int sm;                  /* 80, 90 */
    int act;                 /* 1 bf16, 2 f16 */
    int64_t n_rows;          /* most tokens of one call */
    bool sequences;          /* every token is another sequence's: decode */
    Rows x;                  /* the residual stream, float32 */
    Rows left;               /* pairs the layer before left to be added to it; buffer NULL: none */
    LaunchBuffer *totals;    /* pairs of every expert of every router; n_totals: of the routers so far */
    int64_t n_totals;
    LaunchBuffer *best, *best_at;      /* decode's largest logits, n_best a row, for feed; NULL: it reads all logits */
    int n_best;
} GpuModel;

/* What a router chose. */
typedef struct {
    const Value *experts;
    LaunchBuffer *chosen, *gates, *slots, *totals;
    int64_t n_experts, first_total;
    TopK top_k;
} Routing;

/* A product, dense (routing NULL) or by pair: the arguments of codegen/gpu/README.md. */
typedef enum { OUT_ACT, OUT_F32, OUT_ADD, OUT_F16, OUT_LOGITS } OutKind;
typedef enum { END_NONE, END_SWIGLU, END_SOFTPLUS } ProductEnd;
typedef enum { BIAS_NONE, BIAS_PLAIN, BIAS_MIXED } BiasKind;
typedef struct {
    int layer;
    Rows in, out;
    OutKind out_kind;
    int64_t n_in, n_out, n_experts;
    const WeightSlot *slot;
    int64_t weights_offset;  /* of the block's weights, to be added to the slot's */
    const Routing *routing;  /* of pairs; BIAS_MIXED: of tokens */
    bool gated;
    BiasKind bias_kind;
    int64_t bias_offset;     /* in the weights */
    ProductEnd end;
    LaunchCount n_tokens;    /* TOKENS, LOGITS */
    int flags;
} Product;
void gpu_product(GpuModel *g, const Product *product);

/* The list the builder is at, an operation a kernel. */
void gpu_lower(GpuModel *g);
/* The decode list. */
void gpu_decode(GpuModel *g);

/* A run of mamba layers for one sequence (gpu_chain.c): how many from `first` on, 0: none; its launch. next: of the
 * layer after it, offsets in the weights, -1: none. */
typedef struct {
    int first, n;
    LaunchBuffer *x, *parts, *next;
    int64_t next_norm, next_router, next_experts;
} ChainRun;
int gpu_chain_len(const GpuModel *g, int first);
void gpu_chain(GpuModel *g, const ChainRun *run);

/* What was chosen of a kernel, or `absent`. Its key: the template, then what fixes its work, as text. */
const char *gpu_key(const GpuModel *g, const char *template, int64_t n_in, int64_t n_out, int64_t n_experts,
                    DType dtype);
int gpu_choice(const GpuModel *g, const char *key, const char *name, int absent);
static inline int gpu_shared_most(const GpuModel *g) { return sm_shared_most(g->sm); }

/* ---- small things all of them say ---- */

static inline int64_t gpu_stride(int64_t n_columns) { return (n_columns + 7) / 8 * 8; }
void gpu_top_k(GpuModel *g, TopK top_k);          /* the argument */
TopK gpu_layer_top_k(const Plan *plan, const Layer *layer);
int64_t gpu_most_pairs(const GpuModel *g, TopK top_k);
void gpu_rows(GpuModel *g, const Rows *rows, LaunchAccess access);
/* Arguments that may be there: buffer NULL, offset negative: they are not. */
void gpu_buffer_or_null(GpuModel *g, const LaunchBuffer *buffer, LaunchAccess access);
void gpu_weights_or_null(GpuModel *g, int64_t offset);
/* New rows in scratch: of tokens, or of pairs. */
Rows gpu_new_rows(GpuModel *g, const char *name, int64_t n_columns, int element_len);
Rows gpu_new_pairs(GpuModel *g, const char *name, int64_t n_columns, int element_len, TopK top_k);
/* Of all launches of kernels that wait for those before by themselves. */
int gpu_flags(const GpuModel *g);
const WeightSlot *gpu_slot(const BlockPlan *block, const Value *weight);
const WeightSlot *gpu_try_slot(const BlockPlan *block, const char *tensor);      /* NULL: the block has none */

#endif
