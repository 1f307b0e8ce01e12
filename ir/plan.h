/* Plan: the schedule and the memory of a compiled model, all of it known before code is written.
 *
 * Input of the code writers, the packer and `inspect`. Offsets and lengths are bytes unless they say
 * floats. A phase is what runs between two barriers. Invariants (checked by plan_check in
 * compiler/plan.c): buffers alive in one phase do not overlap; a value another thread wrote is read
 * only after a barrier.
 */
#ifndef MOSSC_IR_PLAN_H
#define MOSSC_IR_PLAN_H

#include "graph.h"
#include "launch.h"
#include "module.h"
#include "target.h"

/* SHARED and PRIVATE are scratch, one for all threads and one a thread. RESIDUAL is the residual
 * stream a block is given and updates in place; PARAM its other parameters; CALLER the caller's
 * tokens and logits; VIEW rows of another value (last_rows). */
typedef enum {
    SPACE_SHARED, SPACE_PRIVATE, SPACE_WEIGHTS, SPACE_STATE, SPACE_RESIDUAL, SPACE_PARAM, SPACE_CALLER,
    SPACE_VIEW
} Space;

struct Buffer {
    Space space;
    int64_t offset;        /* SHARED, PRIVATE: in the scratch; WEIGHTS, STATE: in the block's part */
    int64_t token_offset;  /* STATE: to be multiplied with n_context and added */
    int64_t len;           /* at the longest chunk; STATE: of the fixed part */
    int64_t stride;        /* elements from row to row */
};

/* How an operation is shared out. COLUMNS: whole panels of the result; ROWS: tokens; ITEMS: (kv head,
 * block of tokens), round robin; ALL: every thread computes all of it, into PRIVATE. */
typedef enum { SPLIT_COLUMNS, SPLIT_ROWS, SPLIT_ITEMS, SPLIT_ALL } Split;
const char *split_text(Split split);

typedef struct {
    const Op *op;
    Split split;
    bool barrier;              /* wait for the other threads before this step */
    int phase;                 /* counts barriers */
    int64_t scratch_offset;    /* PRIVATE, of a kernel that packs; -1: needs none */
    int64_t block_rows;        /* products in prefill: rows packed at once */
    int tile_rows, tail_rows;  /* rows of a register tile; products in prefill: of the last tiles of a block */
    int pack_lines, k_block, fetch_gap;    /* products in prefill: layout of packed rows, steps of k at once (0: all),
                                            * panels between the used and the fetched one */
    int widen;                 /* products in prefill: 1: the first tile of a block widens narrow weights */
    bool by_lanes;             /* routers in prefill: rows at once, a lane each */
    int prefetch_rows;         /* products in decode: weight rows of a panel fetched ahead */
    int streams, unroll;       /* products in decode: panels at once, steps of k in a round of the loop */
    int token_block, key_block;    /* attention: tokens of an item, keys walked at once; scan: tokens prepared */
} Step;

typedef struct {
    Step *steps;
    int n_steps, n_phases;
    int64_t shared_len, private_len;       /* of this block alone */
} Schedule;

typedef struct {
    const char *tensor;        /* inside a block without "layers.N." */
    int64_t row_begin;         /* of the out axis, when only some rows are stored */
    const char *layout;
    DType dtype;
    int64_t n_experts, n_out, n_in;      /* n_experts 1 and n_in 1 where an axis is not there */
    int64_t offset, len;
    /* Layouts device...: */
    const char *pair;          /* device_pairs: the tensor with the odd rows; n_out counts both */
    int64_t n_parts;           /* of the out rows, each padded to 8 */
    int64_t stored_rows, row_stride;     /* of an expert; in elements */
    int64_t scales;            /* q8: where they begin, from offset; else 0 */
} WeightSlot;

typedef struct {
    const char *name;
    DType dtype;
    int64_t n_rows, n_cols, stride;      /* n_rows 0: n_context rows */
    int64_t offset, token_offset;
    int64_t len, token_len;
} StateSlot;

enum { PLAN_PREFILL, PLAN_DECODE, N_PLAN_PHASES };

typedef struct {
    const char *name;
    const Block *block[N_PLAN_PHASES];
    Schedule schedule[N_PLAN_PHASES];
    int n_weights, n_states;
    WeightSlot *weights;
    StateSlot *states;
    int64_t weights_len, state_len, state_token_len;
} BlockPlan;

typedef struct {
    const BlockPlan *block;
    int64_t weights_offset, state_offset, state_token_offset;   /* what the call binds */
} LayerPlan;

/* What steps take unless something else was chosen for them. */
typedef struct {
    int panel;                 /* columns padded and shared out together: two vectors */
    int tile_rows, tail_rows;  /* activation rows of one product tile, and of the last tiles of a block */
    int key_block, token_block;    /* attention, token_block in prefill */
    int prefetch_rows, streams;    /* decode: weight rows of a panel fetched ahead, panels at once */
    int scan_block;            /* tokens of a scan prepared at once */
} Tiling;

/* Of one token, a mode's: multiply-adds count two. */
typedef struct { double flops, weight_bytes, state_bytes; } Cost;

typedef struct {
    const Module *module;
    const Graph *graph;
    TargetId target;
    const char *quant;             /* "bf16", or "mixed" */
    Tiling tiling;
    int chunk;                     /* longest prefill piece */
    int64_t max_scratch;           /* GPUs: bytes of scratch that it was cut to; 0: as usual */
    int row_split;                 /* products of prefill with at most so many panels are shared out by rows; 0: those
                                    * that are small or have one panel */
    int threads;                   /* that the artifact takes at most where it is not told; 0: all */
    bool bind;                     /* then each thread has a processor of its own */
    bool route_apart;              /* prefill: rows are routed when all of a thread's are normed */
    int n_blocks, n_layers;
    BlockPlan *blocks;
    BlockPlan *main;               /* also in blocks, the last */
    LayerPlan *layers;
    int64_t weights_len;           /* packed data, without the header */
    int64_t state_len, state_token_len;
    int64_t window_len;            /* part of state_len that is rings of keys and values */
    int64_t shared_len, private_len;
    int64_t logits_len;            /* GPUs: rows of logits on the device; else 0 */
    /* Where blocks' own scratch begins. */
    int64_t block_shared_offset[N_PLAN_PHASES], block_private_offset[N_PLAN_PHASES];
    double context_flops;          /* of a decoded token, for each token of context without a window */
    Cost decode_cost[GRAPH_MAX_MODES], prefill_cost[GRAPH_MAX_MODES];
    const Launches *launches;      /* for GPUs: instead of schedules; else NULL */
    uint64_t hash;                 /* of all that fixes the meaning of packed weights */
    uint64_t state_hash;           /* of a state: equal for all CPU targets whose panels divide the channels */
} Plan;

#endif
