/* Operations of an attention layer for GPUs: rotation, attention, rings. */
#include "gpu_lower.h"

#include "../ir/text.h"

void gpu_lower_rope_table(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    int64_t head_dim = op_int(op, ATTR_HEAD_DIM, 0);
    Rows table = { .buffer = gpu_buffer(g->b, "table", 4 * g->n_rows * head_dim), .stride = head_dim,
                   .element_len = 4 };
    gpu_begin(g->b, "rope_table", l->layer);
    gpu_param(g->b, "head_dim", (double)head_dim);
    gpu_param(g->b, "theta", op_attr(op, ATTR_THETA)->number);
    gpu_param(g->b, "sequences", g->sequences);
    gpu_rows(g, &table, ACCESS_WRITE);
    gpu_special(g->b, ARG_POSITIONS);
    gpu_ends_arg(l);
    gpu_count(g->b, COUNT_SEQUENCES);
    gpu_count(g->b, COUNT_TOKENS);
    gpu_end_line(l, gpu_extent(COUNT_TOKENS, 1, 0), 128, 0, 0);
    gpu_bind_rows(l, op->result[0], table);
}

/* The rotation by the same table whose heads lie behind those of `op`; NULL when there is none. */
static const Op *next_rope(const Lowering *l, const Op *op)
{
    Rows in = gpu_rows_of(l, op->operand[0]);
    for (const Op *next = op->next; next; next = next->next) {
        if (next->kind != OP_ROPE || next->operand[1] != op->operand[1] || !gpu_is_bound(l, next->operand[0]))
            continue;
        Rows rows = gpu_rows_of(l, next->operand[0]);
        if (rows.buffer == in.buffer && rows.column == in.column + gpu_columns(op->result[0]))
            return next;
    }
    return NULL;
}

/* In place: nobody else reads the heads as they were. Neighbours are rotated together. */
void gpu_lower_rope(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    if (gpu_is_bound(l, op->result[0]))
        return;
    Rows rows = gpu_rows_of(l, op->operand[0]), table = gpu_rows_of(l, op->operand[1]);
    int64_t n_heads = 0;
    for (const Op *part = op; part; part = next_rope(l, part)) {
        n_heads += op_int(part, ATTR_HEADS, 0);
        gpu_bind_rows(l, part->result[0], gpu_rows_of(l, part->operand[0]));
    }
    gpu_begin(g->b, "rope", l->layer);
    gpu_param(g->b, "n_heads", (double)n_heads);
    gpu_param(g->b, "head_dim", (double)op_int(op, ATTR_HEAD_DIM, 0));
    gpu_param(g->b, "in_stride", (double)rows.stride);
    gpu_param(g->b, "out_stride", (double)rows.stride);
    gpu_param(g->b, "act", g->act);
    gpu_rows(g, &rows, ACCESS_UPDATE);
    gpu_rows(g, &rows, ACCESS_READ);
    gpu_rows(g, &table, ACCESS_READ);
    gpu_count(g->b, COUNT_TOKENS);
    gpu_end_line(l, gpu_extent(COUNT_TOKENS, 8, 0), 128, 0, 0);
}

/* Which rows, which sequence, how long its rings are. */
static void sequence_args(const Lowering *l)
{
    gpu_special(l->g->b, ARG_POSITIONS);
    gpu_special(l->g->b, ARG_SLOTS);
    gpu_ends_arg(l);
    gpu_special(l->g->b, ARG_STATE_STRIDE);
    gpu_special(l->g->b, ARG_N_CONTEXT);
    gpu_count(l->g->b, COUNT_SEQUENCES);
    gpu_count(l->g->b, COUNT_TOKENS);
}

/* A row is one query head of one token: codegen/gpu/attention.c; for Hopper attention_h100.c, which has no choice of
 * warps. */
typedef struct { int rows, keys, warps, stages; } AttentionTile;

static bool is_hopper(const GpuModel *g) { return g->sm >= 90; }
static const char *kernel_name(const GpuModel *g) { return is_hopper(g) ? "attention_h100" : "attention"; }

static AttentionTile usual_tile(const GpuModel *g, int head_dim)
{
    if (is_hopper(g))
        return (AttentionTile){ .rows = head_dim <= 64 ? 192 : 128, .keys = 128, .stages = head_dim <= 64 ? 3 : 2 };
    return (AttentionTile){ .rows = head_dim <= 64 ? 128 : 64, .keys = 64, .warps = 4, .stages = 2 };
}

static int attention_shared_len(const GpuModel *g, AttentionTile t, int head_dim)
{
    int parts = (head_dim + 63) / 64;
    return is_hopper(g) ? 1024 + 128 * parts * t.rows + 2 * t.stages * (128 * parts * t.keys + 16)
        : (t.rows + 2 * t.stages * t.keys) * ((head_dim + 15) / 16 * 16 + 8) * 2;
}

static bool suits_attention(AttentionTile t, int head_dim)
{
    int dim = (head_dim + 15) / 16 * 16;
    return (t.keys == 32 || t.keys == 64 || t.keys == 128) && (t.warps == 4 || t.warps == 8)
        && (t.rows == 16 * t.warps || t.rows == 32 * t.warps) && t.keys * dim % (256 * t.warps) == 0
        && t.rows / (16 * t.warps) * (t.keys + dim) <= 256;
}

static bool suits_attention_h100(AttentionTile t, int head_dim)
{
    return (t.rows == 128 || (t.rows == 192 && head_dim <= 64)) && (t.keys == 64 || t.keys == 128);
}

/* What tuning chose, unless the kernel or a multiprocessor cannot have it. */
static AttentionTile choose_tile(const GpuModel *g, int head_dim, const char *key)
{
    AttentionTile usual = usual_tile(g, head_dim);
    AttentionTile t = { .rows = gpu_choice(g, key, "tile_rows", usual.rows),
                        .keys = gpu_choice(g, key, "tile_keys", usual.keys),
                        .warps = gpu_choice(g, key, "warps", usual.warps),
                        .stages = gpu_choice(g, key, "stages", usual.stages) };
    bool good = is_hopper(g) ? suits_attention_h100(t, head_dim) : suits_attention(t, head_dim);
    good = good && t.stages >= 2 && t.stages <= 4 && attention_shared_len(g, t, head_dim) <= gpu_shared_most(g);
    return good ? t : usual;
}

static const char *attention_key(const GpuModel *g, const Op *op)
{
    return arena_printf(g->arena, "%s n_heads=%lld n_kv_heads=%lld head_dim=%lld window=%lld act=%d", kernel_name(g),
                        (long long)op_int(op, ATTR_HEADS, 0), (long long)op_int(op, ATTR_KV_HEADS, 1),
                        (long long)op_int(op, ATTR_HEAD_DIM, 0), (long long)op_int(op, ATTR_WINDOW, 0), g->act);
}

/* Hopper's blocks stay and take tile after tile. */
static void end_attention(const Lowering *l, const Op *op, AttentionTile t)
{
    const GpuModel *g = l->g;
    int head_dim = (int)op_int(op, ATTR_HEAD_DIM, 0), n_kv = (int)op_int(op, ATTR_KV_HEADS, 1);
    int group = (int)op_int(op, ATTR_HEADS, 0) / n_kv, heads = group < t.rows ? group : t.rows;
    int shared_len = attention_shared_len(g, t, head_dim);
    if (is_hopper(g))
        gpu_end(g->b, gpu_extent(COUNT_PROCESSORS, 1, 0), gpu_fixed(1), 128 + 2 * t.rows, shared_len, gpu_flags(g));
    else
        gpu_end(g->b, gpu_tiles(l, t.rows / heads), gpu_fixed(n_kv * ((group + heads - 1) / heads)), 32 * t.warps,
                shared_len, gpu_flags(g));
}

void gpu_lower_attention(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    Rows q = gpu_rows_of(l, op->operand[0]), k = gpu_rows_of(l, op->operand[1]), v = gpu_rows_of(l, op->operand[2]);
    Rows out = gpu_new_rows(g, op->result[0]->name, gpu_columns(op->result[0]), 2);
    if (k.stride != v.stride)
        BUG("@%s: keys and values of different strides", l->block->name);
    const char *key = attention_key(g, op);
    AttentionTile tile = choose_tile(g, (int)op_int(op, ATTR_HEAD_DIM, 0), key);
    gpu_begin(g->b, kernel_name(g), l->layer);
    gpu_keyed(g->b, key);
    gpu_param(g->b, "n_heads", (double)op_int(op, ATTR_HEADS, 0));
    gpu_param(g->b, "n_kv_heads", (double)op_int(op, ATTR_KV_HEADS, 0));
    gpu_param(g->b, "head_dim", (double)op_int(op, ATTR_HEAD_DIM, 0));
    gpu_param(g->b, "q_stride", (double)q.stride);
    gpu_param(g->b, "new_stride", (double)k.stride);
    gpu_param(g->b, "kv_stride", (double)gpu_columns(op->operand[3]));
    gpu_param(g->b, "out_stride", (double)out.stride);
    gpu_param(g->b, "window", (double)op_int(op, ATTR_WINDOW, 0));
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "tile_rows", tile.rows);
    gpu_param(g->b, "tile_keys", tile.keys);
    if (is_hopper(g))
        gpu_min_blocks(g->b, 1);
    else
        gpu_param(g->b, "warps", tile.warps);
    gpu_param(g->b, "stages", tile.stages);
    gpu_rows(g, &out, ACCESS_WRITE);
    gpu_rows(g, &q, ACCESS_READ);
    gpu_rows(g, &k, ACCESS_READ);
    gpu_rows(g, &v, ACCESS_READ);
    gpu_state_arg(l, op->operand[3]);
    gpu_state_arg(l, op->operand[4]);
    sequence_args(l);
    end_attention(l, op, tile);
    gpu_bind_rows(l, op->result[0], out);
}

/* One token of every sequence: rotation, attention and the rings' new row in one launch. */
void gpu_lower_attention_decode(Lowering *l, const Op *op)
{
    enum { BLOCK_HEADS = 4, MAX_SPLITS = 16, SPLIT_KEYS = 256 };
    GpuModel *g = l->g;
    int64_t n_heads = op_int(op, ATTR_HEADS, 0), n_kv = op_int(op, ATTR_KV_HEADS, 1);
    int64_t window = op_int(op, ATTR_WINDOW, 0), head_dim = op_int(op, ATTR_HEAD_DIM, 0);
    int64_t tiles = n_kv * ((n_heads / n_kv + BLOCK_HEADS - 1) / BLOCK_HEADS);
    int64_t n_splits = window ? (window + SPLIT_KEYS - 1) / SPLIT_KEYS : MAX_SPLITS;
    n_splits = n_splits > MAX_SPLITS ? MAX_SPLITS : n_splits;
    const Op *rope = value_is(op->operand[0], OP_ROPE) ? op->operand[0]->def : NULL;
    Rows q = gpu_rows_of(l, rope ? rope->operand[0] : op->operand[0]), v = gpu_rows_of(l, op->operand[2]);
    Rows k = gpu_rows_of(l, rope ? op->operand[1]->def->operand[0] : op->operand[1]);
    Rows out = gpu_new_rows(g, op->result[0]->name, gpu_columns(op->result[0]), 2);
    gpu_begin(g->b, "attention_decode", l->layer);
    gpu_param(g->b, "n_heads", (double)n_heads);
    gpu_param(g->b, "n_kv_heads", (double)n_kv);
    gpu_param(g->b, "head_dim", (double)head_dim);
    gpu_param(g->b, "q_stride", (double)q.stride);
    gpu_param(g->b, "new_stride", (double)k.stride);
    gpu_param(g->b, "kv_stride", (double)gpu_columns(op->operand[3]));
    gpu_param(g->b, "out_stride", (double)out.stride);
    gpu_param(g->b, "window", (double)window);
    gpu_param(g->b, "n_splits", (double)n_splits);
    gpu_param(g->b, "rotates", rope != NULL);
    gpu_param(g->b, "act", g->act);
    gpu_rows(g, &out, ACCESS_WRITE);
    gpu_rows(g, &q, ACCESS_READ);
    gpu_rows(g, &k, ACCESS_READ);
    gpu_rows(g, &v, ACCESS_READ);
    gpu_state_arg(l, op->operand[3]);
    gpu_state_arg(l, op->operand[4]);
    gpu_buffer_or_null(g, rope ? gpu_rows_of(l, rope->operand[1]).buffer : NULL, ACCESS_READ);
    gpu_special(g->b, ARG_POSITIONS);
    gpu_special(g->b, ARG_SLOTS);
    gpu_special(g->b, ARG_STATE_STRIDE);
    gpu_special(g->b, ARG_N_CONTEXT);
    int64_t partial_len = 4 * g->n_rows * tiles * n_splits * BLOCK_HEADS * (head_dim + 2);
    gpu_buffer_or_null(g, n_splits > 1 ? gpu_buffer(g->b, "partial", partial_len) : NULL, ACCESS_WRITE);
    gpu_buffer_or_null(g, n_splits > 1 ? gpu_zeroed(g->b, "arrivals", 4 * g->n_rows * tiles) : NULL, ACCESS_UPDATE);
    gpu_count(g->b, COUNT_TOKENS);
    gpu_end(g->b, gpu_extent(COUNT_TOKENS, 1, 0), gpu_fixed((int)(tiles * n_splits)), 256, 19456, gpu_flags(g));
    gpu_bind_rows(l, op->result[0], out);
}

void gpu_lower_ring_write(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    Rows k = gpu_rows_of(l, op->operand[0]), v = gpu_rows_of(l, op->operand[1]);
    gpu_begin(g->b, "ring_write", l->layer);
    gpu_param(g->b, "n_columns", (double)gpu_columns(op->operand[0]));
    gpu_param(g->b, "new_stride", (double)k.stride);
    gpu_param(g->b, "kv_stride", (double)gpu_columns(op->operand[2]));
    gpu_param(g->b, "window", (double)op_int(op, ATTR_WINDOW, 0));
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "sequences", g->sequences);
    gpu_state_arg(l, op->operand[2]);
    gpu_state_arg(l, op->operand[3]);
    gpu_rows(g, &k, ACCESS_READ);
    gpu_rows(g, &v, ACCESS_READ);
    sequence_args(l);
    gpu_end_line(l, gpu_extent(COUNT_TOKENS, 8, 0), 128, 0, 0);
}
