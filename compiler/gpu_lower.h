/* Lowering of one block: what the files of the generic lists share.
 *
 * gpu_lower.c walks a block and lowers what has one small kernel; gpu_norm.c has norms and routers, gpu_mamba.c and
 * gpu_attention.c the layers' own operations. Invariant: between launches x is the residual stream less `left`.
 */
#ifndef MOSSC_COMPILER_GPU_LOWER_H
#define MOSSC_COMPILER_GPU_LOWER_H

#include "gpu_model.h"

enum { GPU_MAX_BOUND = 64, GPU_MAX_ROUTINGS = 8 };

typedef struct { const Value *value; Rows rows; } Bound;

/* One block on its way: main, or a layer with its own weights and state. */
typedef struct {
    GpuModel *g;
    const Block *block;
    const BlockPlan *plan;
    int layer;                     /* -1: main */
    TopK top_k;
    int64_t weights, state, state_token;
    Bound bound[GPU_MAX_BOUND];
    Routing routings[GPU_MAX_ROUTINGS];
    int n_bound, n_routings;
    LaunchBuffer *bc;              /* B and C of every token, after spread */
} Lowering;

/* ---- gpu_lower.c ---- */

void gpu_bind_rows(Lowering *l, const Value *value, Rows rows);
bool gpu_is_bound(const Lowering *l, const Value *value);
/* How to read a value: its own rows, or those it is a view of. */
Rows gpu_rows_of(const Lowering *l, const Value *value);
/* The operation of that kind that reads `value`; NULL when there is none. */
const Op *gpu_reader(const Lowering *l, const Value *value, OpKind kind);
const Routing *gpu_routing_of(const Lowering *l, const Value *experts);
/* The product of a linear or expert_linear, its rows still open. */
Product gpu_new_product(const Lowering *l, const Op *op);

/* Arguments of the launch being said. */
void gpu_weight_arg(const Lowering *l, const Value *weight);
void gpu_state_arg(const Lowering *l, const Value *state);
/* Where the rows of each sequence end; null where every row is a sequence. */
void gpu_ends_arg(const Lowering *l);
/* A grid of one dimension. */
void gpu_end_line(const Lowering *l, LaunchExtent x, int n_threads, int shared_len, int flags);
/* Tiles of so many rows of one sequence. */
LaunchExtent gpu_tiles(const Lowering *l, int rows);

static inline int64_t gpu_columns(const Value *value) { return value->type.dim[value->type.rank - 1].n; }

/* ---- gpu_norm.c ---- */

/* How many counters the routers of all layers have: of each expert one. */
int64_t gpu_count_totals(const Plan *plan);
void gpu_lower_norm(Lowering *l, const Op *op);
void gpu_lower_route(Lowering *l, const Op *op);

/* ---- gpu_mamba.c ---- */

/* Is `value` x_proj's: does a product read a slice of it? */
bool gpu_is_dbc(const Lowering *l, const Value *value);
void gpu_lower_dt(Lowering *l, const Op *op);
void gpu_lower_conv1d(Lowering *l, const Op *op);
void gpu_lower_scan(Lowering *l, const Op *op);

/* ---- gpu_attention.c ---- */

void gpu_lower_rope_table(Lowering *l, const Op *op);
void gpu_lower_rope(Lowering *l, const Op *op);
void gpu_lower_attention(Lowering *l, const Op *op);
void gpu_lower_attention_decode(Lowering *l, const Op *op);
void gpu_lower_ring_write(Lowering *l, const Op *op);

#endif
