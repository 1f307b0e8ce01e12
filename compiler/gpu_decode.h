/* What the files of the decode list share: where a layer stands, its weights as arguments, how products are divided.
 *
 * gpu_decode.c walks the layers; gpu_decode_mamba.c, gpu_decode_attention.c and gpu_decode_mlp.c have the launches of a
 * layer each, gpu_decode_out.c the one that ends it, gpu_decode_ends.c those before and after all layers,
 * gpu_decode_args.c what all of them say. Kernels: codegen/gpu/README.md.
 */
#ifndef MOSSC_COMPILER_GPU_DECODE_H
#define MOSSC_COMPILER_GPU_DECODE_H

#include "gpu_model.h"
#include "plan_model.h"

enum {
    ROWS = 16, MAX_EXPERTS = 32, WARPS = 16, SLOT_LEN = 512, MAX_GROUP = 8,
    ROUTE_LEN = 4 * ROWS * (MAX_EXPERTS + 1) + 4 * MAX_EXPERTS * ROWS + 4 * ROWS,    /* DecodeRoute */
    PART_LEN = 4 * ROWS * 8,           /* sums of one tile and slice */
};

/* What the next layer needs of x: the weights of its norm and first router. */
typedef struct { int64_t norm, router, n_experts; } Next;

typedef struct {
    GpuModel *g;
    const LayerPlan *layer;
    const Layer *shape;
    int index;
    TopK top_k;
    Next own, after;
    LaunchBuffer *x, *sums,
        *next;     /* the residual stream; sums for this layer's norm and router, for the next one's */
    LaunchBuffer *table;
    int flags;             /* of this layer's launches */
} Decoder;

static inline int up(int64_t n, int64_t m) { return (int)((n + m - 1) / m); }
static inline int smaller(int a, int b) { return a < b ? a : b; }
static inline int larger(int a, int b) { return a > b ? a : b; }

/* ---- arguments ---- */

const WeightSlot *decode_slot(const Decoder *d, const char *tensor);         /* of the layer, which has it */
int decode_dtype(const GpuModel *g, const WeightSlot *slot);                 /* as kernels count them */
void decode_weight(const Decoder *d, const char *tensor);
void decode_weight_or_null(const Decoder *d, const char *tensor, bool is);
void decode_scales(GpuModel *g, const WeightSlot *slot, int64_t block_offset);
void decode_matrix(const Decoder *d, const char *tensor);                    /* weights, scales */
void decode_state(const Decoder *d, const char *name);
void decode_rows_and_top_k(const Decoder *d);
void decode_next_args(const Decoder *d);
void decode_end(const Decoder *d, LaunchExtent x, LaunchExtent y, int n_threads, int64_t shared_len, int flags);

/* ---- how a product is shared out ---- */

/* Pairs of chunks of 64 bytes of a row; chunks of a step, of one of n slices of it. */
int decode_pairs(int64_t n_in, int dtype);
int decode_group(int64_t n_in, int dtype, int n_slices, int most);
/* Bytes of shared memory: of a row of input, of the rings of so many warps. */
static inline int64_t row_len(int64_t n_in) { return 2 * (up(n_in, 64) * 64 + 8); }
static inline int ring_len(int n_warps, int group, int ring) { return n_warps * group * ring * SLOT_LEN; }
void decode_product_params(GpuModel *g, int n_slices, int group, int ring);
/* Chunks a step and steps under way, as they were chosen where that fits beside `others` bytes, else as they are. */
void decode_choose_ring(const GpuModel *g, const char *key, int64_t n_in, int dtype, int n_slices, int n_warps,
                        int64_t others, int *group, int *ring);

/* ---- launches ---- */

/* What attention leaves: queries, sums of parts of the positions and their peaks. */
typedef struct { LaunchBuffer *q, *sums, *peaks; } Attended;
typedef struct {
    const char *tensor;
    int64_t n_in;
    const LaunchBuffer *rows;
    const Attended *attended;          /* in the place of rows; NULL: none */
    const LaunchBuffer *logits;        /* of the router, in n_parts parts */
    int n_parts;
    bool by_pair;                      /* rows are; the router is the layer's first */
} Out;

/* The projection that ends a layer. Its input: rows, of tokens or by pair, or what attention left. */
void decode_emit_out(Decoder *d, const Out *out);
int decode_attention_splits(const Decoder *d);
void decode_emit_mamba(Decoder *d);
void decode_emit_attention(Decoder *d);
void decode_emit_mlp(Decoder *d);
void decode_emit_embed(Decoder *d);
void decode_emit_table(Decoder *d, const AttentionLayer *a);
void decode_emit_head(Decoder *d);

#endif
