/* Products on GPUs: which kernel, which tiles. The arguments are those of codegen/gpu/README.md. */
#include "gpu_model.h"

/* A tile of outputs, its columns a warp, the ring of pieces: see codegen/gpu/gemm.c. */
typedef struct { int rows, columns, warp_columns, stages; } Tile;

static int tile_threads(Tile t) { return 32 * (t.rows / 64) * (t.columns / t.warp_columns); }

static int tile_shared_len(Tile t, const Product *p)
{
    int weight_len = p->slot->dtype == DTYPE_Q8 ? 1 : 2;
    int staging = 2048 * tile_threads(t) / 32;
    int tables = 4 * (2 * ((int)p->n_experts + 1) + 4 * t.rows);
    return t.stages * 64 * (2 * t.rows + weight_len * t.columns) + staging + tables;
}

/* How many blocks a multiprocessor holds at once: registers for 256 threads with 255 each, and shared memory, of which
 * the driver takes 1 KB a block. */
static int tile_resident(const GpuModel *g, Tile t, const Product *p)
{
    int by_registers = 256 / tile_threads(t), by_shared = (gpu_shared_most(g) + 1024) / (tile_shared_len(t, p) + 1024);
    return by_registers < by_shared ? by_registers : by_shared;
}

/* Eight warps a multiprocessor, in two blocks where it has room for both rings: while one writes its tile the other
 * multiplies. An A100 has not, and takes one block with a tile twice as wide, unless many experts' tables take the room
 * for that. in_proj of 8x200M+, 8192 tokens, as sm_80 on an H200, 2026-11-23: two blocks 344 us, the wide tile 367, one
 * block of four warps 457. */
static Tile usual_tile(const GpuModel *g, const Product *p)
{
    const Tile square = { 128, 128, 64, 3 }, wide = { 128, 256, 64, 3 };
    bool q8 = p->slot->dtype == DTYPE_Q8;
    if (g->n_rows <= 64)
        return (Tile){ 64, 64, 32, 6 };
    if (p->n_out <= 64)
        return (Tile){ 128, 64, 32, 4 };
    if (p->n_out <= 96 && !q8 && p->end != END_SWIGLU)
        return (Tile){ 128, 96, 48, 3 };
    return p->n_out <= 128 || tile_resident(g, square, p) > 1 || tile_resident(g, wide, p) == 0 ? square : wide;
}

/* What tuning chose, unless gemm.c or a multiprocessor cannot have it. */
static Tile choose_tile(const GpuModel *g, const Product *p, const char *key)
{
    Tile usual = usual_tile(g, p), t = usual;
    t.rows = gpu_choice(g, key, "tile_rows", usual.rows);
    t.columns = gpu_choice(g, key, "tile_columns", usual.columns);
    t.warp_columns = gpu_choice(g, key, "warp_columns", usual.warp_columns);
    t.stages = gpu_choice(g, key, "stages", usual.stages);
    bool q8 = p->slot->dtype == DTYPE_Q8, narrow = q8 || p->end == END_SWIGLU;
    bool good = t.rows % 64 == 0 && t.warp_columns % (narrow ? 32 : 16) == 0 && t.warp_columns <= 64
        && t.columns % t.warp_columns == 0 && t.stages >= 3 && t.stages <= 8;
    int n_threads = good ? tile_threads(t) : 0;
    good = good && n_threads <= 256 && t.rows <= n_threads && 8 * t.rows % n_threads == 0
        && (q8 ? 4 : 8) * t.columns % n_threads == 0 && tile_resident(g, t, p) > 0;
    return good ? t : usual;
}

/* Of gemm and gemm_h100: its sizes, and how it reads and writes. */
static const char *product_key(const GpuModel *g, const char *template, const Product *p)
{
    return arena_printf(g->arena, "%s in_pairs=%d out_kind=%d gated=%d has_bias=%d epilogue=%d rows=%s top_k=%lld",
                        gpu_key(g, template, p->n_in, p->n_out, p->n_experts, p->slot->dtype),
                        p->n_experts > 1 && p->in.top_k.most > 0, p->out_kind, p->gated, p->bias_kind, p->end,
                        p->n_tokens == COUNT_LOGITS ? "logits" : g->sequences ? "sequences" : "tokens",
                        (long long)(p->routing ? p->routing->top_k.most : 1));
}

/* What gemm and gemm_h100 have in common. */
static void shape_params(GpuModel *g, const Product *p)
{
    gpu_param(g->b, "n_in", (double)p->n_in);
    gpu_param(g->b, "n_out", (double)p->n_out);
    gpu_param(g->b, "in_stride", (double)p->in.stride);
    gpu_param(g->b, "out_stride", (double)p->out.stride);
    gpu_param(g->b, "n_experts", (double)p->n_experts);
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "in_pairs", p->n_experts > 1 && p->in.top_k.most > 0);
    gpu_param(g->b, "out_kind", p->out_kind == OUT_LOGITS ? OUT_F32 : p->out_kind);
    gpu_param(g->b, "gated", p->gated);
    gpu_param(g->b, "has_bias", p->bias_kind == BIAS_MIXED ? (double)p->routing->n_experts : p->bias_kind);
    gpu_param(g->b, "epilogue", p->end);
}

static void out_and_in(GpuModel *g, const Product *p)
{
    if (p->out_kind == OUT_LOGITS)
        gpu_special(g->b, ARG_LOGITS);
    else
        gpu_rows(g, &p->out, p->out_kind == OUT_ADD ? ACCESS_UPDATE : ACCESS_WRITE);
    gpu_rows(g, &p->in, ACCESS_READ);
}

/* What follows the weights. */
static void other_args(GpuModel *g, const Product *p)
{
    const Routing *r = p->routing;
    bool grouped = p->n_experts > 1, mixed = p->bias_kind == BIAS_MIXED;
    gpu_weights_or_null(g, p->slot->scales ? p->weights_offset + p->slot->offset + p->slot->scales : -1);
    gpu_weights_or_null(g, p->bias_kind != BIAS_NONE ? p->bias_offset : -1);
    const LaunchBuffer *buffers[] = { grouped ? r->slots : NULL, grouped ? r->totals : NULL,
                                      grouped || mixed ? r->chosen : NULL, p->gated || mixed ? r->gates : NULL };
    for (int i = 0; i < 4; i++) {
        if (buffers[i])
            gpu_scratch(g->b, buffers[i], i == 1 ? 4 * r->first_total : 0, ACCESS_READ);
        else
            gpu_null(g->b);
    }
    gpu_count(g->b, p->n_tokens);
    gpu_top_k(g, r ? r->top_k : (TopK){ 1, 1 });
}

static void multiply(GpuModel *g, const Product *p)
{
    const char *key = product_key(g, "gemm", p);
    Tile tile = choose_tile(g, p, key);
    gpu_begin(g->b, "gemm", p->layer);
    gpu_keyed(g->b, key);
    shape_params(g, p);
    gpu_param(g->b, "weight_dtype", p->slot->dtype == DTYPE_Q8 ? 3 : g->act);
    gpu_param(g->b, "tile_rows", tile.rows);
    gpu_param(g->b, "tile_columns", tile.columns);
    gpu_param(g->b, "warp_columns", tile.warp_columns);
    gpu_param(g->b, "stages", tile.stages);
    gpu_min_blocks(g->b, tile_resident(g, tile, p));
    out_and_in(g, p);
    gpu_weights(g->b, p->weights_offset + p->slot->offset);
    other_args(g, p);
    gpu_end(g->b, gpu_extent(COUNT_PROCESSORS, 1, 0), gpu_fixed(tile_resident(g, tile, p)), tile_threads(tile),
            tile_shared_len(tile, p), gpu_flags(g) | p->flags);
}

/* ---- Hopper's: codegen/gpu/gemm_h100.c ---- */

enum { H100_PIECE = 64, H100_HALF = 64, H100_THREADS = 384, H100_RING_MOST = 212000 };

typedef struct { int columns, stages; } H100Tile;

static bool suits_h100(const GpuModel *g, const Product *p)
{
    return g->sm >= 90 && p->slot->dtype != DTYPE_Q8 && g->n_rows > 64;
}

/* Of tiles of 128 rows, or of a stage more of 64; two mbarriers a stage, those of small units twice as many. */
static int h100_ring_len(int columns, int stages)
{
    int tiles = stages * (128 + columns), halves = (stages + 1) * (64 + columns);
    return 2 * H100_PIECE * (tiles > halves ? tiles : halves) + 48 * stages;
}

/* What a block has besides its ring: alignment, staging of eight warps, the list of tiles. */
static int h100_others_len(const Product *p) { return 1024 + 8 * 2048 + 12 * ((int)p->n_experts + 1); }

static H100Tile h100_tile(const GpuModel *g, const Product *p, const char *key)
{
    int usual = p->n_out <= 96 ? 96 : p->n_out <= 128 ? 128 : 256, columns = gpu_choice(g, key, "tile_columns", usual);
    H100Tile t = { .columns = columns == 96 || columns == 128 || columns == 256 ? columns : usual };
    int most = 7, room = gpu_shared_most(g) - h100_others_len(p);
    while (h100_ring_len(t.columns, most) > (room < H100_RING_MOST ? room : H100_RING_MOST))
        most--;
    t.stages = gpu_choice(g, key, "stages", most);
    t.stages = t.stages < 3 || t.stages > most ? most : t.stages;
    return t;
}

/* Of `in`: as many rows as its buffer has. */
static void rows_map(GpuModel *g, const Product *p)
{
    const Rows *in = &p->in;
    gpu_tensor_map(g->b, &(TensorMap){
        .base = ARG_SCRATCH, .buffer = in->buffer, .offset = in->column * in->element_len,
        .n_rows = in->buffer->len / (in->stride * in->element_len), .n_columns = p->n_in,
        .row_stride = in->stride * in->element_len, .element_len = in->element_len, .box_rows = H100_HALF,
        .box_columns = H100_PIECE, .swizzle = 128 });
}

static void multiply_h100(GpuModel *g, const Product *p)
{
    const char *key = product_key(g, "gemm_h100", p);
    H100Tile tile = h100_tile(g, p, key);
    gpu_begin(g->b, "gemm_h100", p->layer);
    gpu_keyed(g->b, key);
    shape_params(g, p);
    gpu_param(g->b, "tile_columns", tile.columns);
    gpu_param(g->b, "stages", tile.stages);
    gpu_min_blocks(g->b, 1);
    out_and_in(g, p);
    gpu_tensor_map(g->b, &(TensorMap){
        .base = ARG_WEIGHTS, .offset = p->weights_offset + p->slot->offset, .n_rows = p->n_experts * p->n_out,
        .n_columns = p->slot->row_stride, .row_stride = 2 * p->slot->row_stride, .element_len = 2,
        .box_rows = tile.columns == 256 ? 128 : tile.columns,
        .box_columns = H100_PIECE, .swizzle = 128 });
    other_args(g, p);
    rows_map(g, p);
    gpu_end(g->b, gpu_extent(COUNT_PROCESSORS, 1, 0), gpu_fixed(1), H100_THREADS,
            h100_others_len(p) + h100_ring_len(tile.columns, tile.stages),
            gpu_flags(g) | p->flags);
}

void gpu_product(GpuModel *g, const Product *p) { (suits_h100(g, p) ? multiply_h100 : multiply)(g, p); }
