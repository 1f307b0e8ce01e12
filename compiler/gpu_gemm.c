/* Products on GPUs: which kernel, which tiles. The arguments are those of codegen/gpu/README.md. */
#include "gpu_model.h"

/* A tile of outputs, its columns a warp, the ring of pieces: see codegen/gpu/gemm.c. Measured on an H200, 2026-11-22:
 * 128 x 128 with two blocks a multiprocessor is within 3 % of the best tile in every shape of 8x200M+. */
typedef struct { int rows, columns, warp_columns, stages; } Tile;

static Tile choose_tile(const GpuModel *g, const Product *p)
{
    bool q8 = p->slot->dtype == DTYPE_Q8;
    if (g->n_rows <= 64)
        return (Tile){ 64, 64, 32, 6 };
    if (p->n_out <= 64)
        return (Tile){ 128, 64, 32, 4 };
    if (p->n_out <= 96 && !q8 && p->end != END_SWIGLU)
        return (Tile){ 128, 96, 48, 3 };
    return (Tile){ 128, 128, 64, 3 };
}

static int tile_threads(Tile t) { return 32 * (t.rows / 64) * (t.columns / t.warp_columns); }

static int tile_shared_len(Tile t, const Product *p)
{
    int weight_len = p->slot->dtype == DTYPE_Q8 ? 1 : 2;
    int staging = p->out_kind == OUT_ACT ? 2048 * tile_threads(t) / 32 : 0;
    return t.stages * 64 * (2 * t.rows + weight_len * t.columns) + staging + 4 * (2 * ((int)p->n_experts + 1) + 4 * t.rows);
}

/* Blocks take tiles in turn: two for each multiprocessor of the device the target is named after. */
static LaunchExtent tile_blocks(const GpuModel *g) { return gpu_extent(COUNT_PROCESSORS, 1, g->sm >= 90 ? 132 : 108); }

static void params(GpuModel *g, const Product *p, Tile tile)
{
    bool grouped = p->n_experts > 1;
    gpu_begin(g->b, "gemm", p->layer);
    gpu_param(g->b, "n_in", (double)p->n_in);
    gpu_param(g->b, "n_out", (double)p->n_out);
    gpu_param(g->b, "in_stride", (double)p->in.stride);
    gpu_param(g->b, "out_stride", (double)p->out.stride);
    gpu_param(g->b, "n_experts", (double)p->n_experts);
    gpu_param(g->b, "weight_dtype", p->slot->dtype == DTYPE_Q8 ? 3 : g->act);
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "in_pairs", grouped && p->in.top_k.most > 0);
    gpu_param(g->b, "out_kind", p->out_kind == OUT_ACT ? 0 : p->out_kind == OUT_ADD ? 2 : 1);
    gpu_param(g->b, "gated", p->gated);
    gpu_param(g->b, "has_bias", p->bias_kind);
    gpu_param(g->b, "epilogue", p->end);
    gpu_param(g->b, "tile_rows", tile.rows);
    gpu_param(g->b, "tile_columns", tile.columns);
    gpu_param(g->b, "warp_columns", tile.warp_columns);
    gpu_param(g->b, "stages", tile.stages);
    gpu_min_blocks(g->b, 2);
}

static void args(GpuModel *g, const Product *p)
{
    const Routing *r = p->routing;
    bool grouped = p->n_experts > 1, mixed = p->bias_kind == BIAS_MIXED;
    int64_t weights = p->weights_offset + p->slot->offset;
    if (p->out_kind == OUT_LOGITS)
        gpu_special(g->b, ARG_LOGITS);
    else
        gpu_rows(g, &p->out, p->out_kind == OUT_ADD ? ACCESS_UPDATE : ACCESS_WRITE);
    gpu_rows(g, &p->in, ACCESS_READ);
    gpu_weights(g->b, weights);
    if (p->slot->scales)
        gpu_weights(g->b, weights + p->slot->scales);
    else
        gpu_null(g->b);
    if (p->bias_kind)
        gpu_weights(g->b, p->bias_offset);
    else
        gpu_null(g->b);
    const LaunchBuffer *buffers[] = { grouped ? r->slots : NULL, grouped ? r->offsets : NULL,
                                      grouped || mixed ? r->chosen : NULL, p->gated || mixed ? r->gates : NULL };
    for (int i = 0; i < 4; i++) {
        if (buffers[i])
            gpu_scratch(g->b, buffers[i], 0, ACCESS_READ);
        else
            gpu_null(g->b);
    }
    gpu_count(g->b, p->n_tokens);
    gpu_top_k(g, r ? r->top_k : (TopK){ 1, 1 });
}

void gpu_product(GpuModel *g, const Product *p)
{
    Tile tile = choose_tile(g, p);
    params(g, p, tile);
    args(g, p);
    gpu_end(g->b, tile_blocks(g), gpu_extent(COUNT_ONE, 1, 0), tile_threads(tile), tile_shared_len(tile, p),
            gpu_flags(g) | p->flags);
}
