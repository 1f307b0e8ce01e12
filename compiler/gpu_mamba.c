/* Operations of a mamba layer for GPUs: convolution, spread and dt_proj, scan. */
#include "gpu_lower.h"

#include "../ir/text.h"

/* Is `value` x_proj's: does a product read a slice of it? */
bool gpu_is_dbc(const Lowering *l, const Value *value)
{
    for (const Op *op = l->block->first; op; op = op->next)
        if ((op->kind == OP_LINEAR || op->kind == OP_EXPERT_LINEAR) && value_is(op->operand[0], OP_SLICE)
            && op->operand[0]->def->operand[0] == value)
            return true;
    return false;
}

/* x_proj's rows become gate-weighted columns of joined dt_proj, and the token's B and C. */
static Rows emit_spread(Lowering *l, const Value *dbc, int64_t dt_rank, const Routing *r)
{
    GpuModel *g = l->g;
    Rows in = gpu_rows_of(l, dbc);
    int64_t n_experts = r ? r->n_experts : 1, d_state = (gpu_columns(dbc) - dt_rank) / 2;
    Rows out = gpu_new_rows(g, "spread", n_experts * dt_rank, 2);
    l->bc = gpu_buffer(g->b, "bc", 4 * g->n_rows * 2 * d_state);
    gpu_begin(g->b, "spread", l->layer);
    gpu_param(g->b, "dt_rank", (double)dt_rank);
    gpu_param(g->b, "d_state", (double)d_state);
    gpu_param(g->b, "n_experts", (double)n_experts);
    gpu_param(g->b, "in_stride", (double)in.stride);
    gpu_param(g->b, "out_stride", (double)out.stride);
    gpu_param(g->b, "act", g->act);
    gpu_rows(g, &out, ACCESS_WRITE);
    gpu_scratch(g->b, l->bc, 0, ACCESS_WRITE);
    gpu_rows(g, &in, ACCESS_READ);
    gpu_buffer_or_null(g, r ? r->chosen : NULL, ACCESS_READ);
    gpu_buffer_or_null(g, r ? r->gates : NULL, ACCESS_READ);
    gpu_count(g->b, COUNT_TOKENS);
    gpu_top_k(g, r ? r->top_k : (TopK){ 1, 1 });
    gpu_end_line(l, gpu_extent(COUNT_TOKENS, 8, 0), 256, 0, 0);
    return out;
}

/* dt_proj: of one expert, or of all at once, their biases mixed by the gates. */
void gpu_lower_dt(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    Product p = gpu_new_product(l, op);
    const Routing *r = p.routing;
    int bias = op->kind == OP_LINEAR ? 2 : 3;
    const Value *result = op->result[0];
    const Op *sum = gpu_reader(l, result, OP_COMBINE);
    const Value *dt = sum ? sum->result[0] : result;
    const Op *scan = gpu_reader(l, dt, OP_SCAN);
    if (!scan || op->n_operands <= bias || !op->operand[bias])
        BUG("@%s: dt_proj without a bias or a scan", l->block->name);
    p.in = emit_spread(l, op->operand[0]->def->operand[0], p.n_in, r);
    p.n_in *= r ? r->n_experts : 1;
    p.n_out = p.slot->n_out;
    p.n_experts = 1;
    p.out = gpu_new_rows(g, "dt", p.n_out, 2);
    p.out_kind = OUT_F16;
    p.bias_kind = r ? BIAS_MIXED : BIAS_PLAIN;
    p.bias_offset = l->weights + op->operand[bias]->buffer->offset;
    p.end = op_int(scan, ATTR_SOFTPLUS, 0) ? END_SOFTPLUS : END_NONE;
    gpu_product(g, &p);
    gpu_bind_rows(l, dt, p.out);
}

void gpu_lower_conv1d(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    enum { RESIDENT = 8 };          /* blocks of a multiprocessor, with few taps */
    int columns = (int)(gpu_columns(op->result[0]) + 511) / 512, taps = (int)gpu_columns(op->operand[1]);
    Rows in = gpu_rows_of(l, op->operand[0]), out = gpu_new_rows(g, op->result[0]->name, gpu_columns(op->result[0]), 2);
    gpu_begin(g->b, "conv1d", l->layer);
    gpu_param(g->b, "n_channels", (double)gpu_columns(op->result[0]));
    gpu_param(g->b, "d_conv", taps);
    gpu_param(g->b, "in_stride", (double)in.stride);
    gpu_param(g->b, "in_pairs", in.pairs);
    gpu_param(g->b, "out_stride", (double)out.stride);
    gpu_param(g->b, "silu", (double)op_int(op, ATTR_SILU, 0));
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "sequences", g->sequences);
    gpu_rows(g, &out, ACCESS_WRITE);
    gpu_rows(g, &in, ACCESS_READ);
    gpu_weight_arg(l, op->operand[1]);
    gpu_weight_arg(l, op->operand[2]);
    gpu_state_arg(l, op->operand[3]);
    gpu_special(g->b, ARG_SLOTS);
    gpu_ends_arg(l);
    gpu_special(g->b, ARG_STATE_STRIDE);
    gpu_count(g->b, COUNT_SEQUENCES);
    gpu_count(g->b, COUNT_TOKENS);
    gpu_top_k(g, in.pairs ? in.top_k : (TopK){ 1, 1 });
    gpu_min_blocks(g->b, taps <= 4 ? RESIDENT : 1);
    gpu_end(g->b, g->sequences ? gpu_fixed(columns) : gpu_extent(COUNT_PROCESSORS, 1, 0),
            g->sequences ? gpu_extent(COUNT_TOKENS, 1, 0) : gpu_fixed(RESIDENT), 64, in.pairs ? 8192 : 4096,
            gpu_flags(g));
    gpu_bind_rows(l, op->result[0], out);
}

/* A block of codegen/gpu/scan.c whose state stays in registers; channels 0: token by token, the state in memory. */
typedef struct { int channels, stages, tile, n_threads, shared_len; } ScanBlock;
typedef struct { int d_state, z_rows, zoh; } ScanOf;

static ScanBlock scan_shape(const ScanOf *of, int channels, int stages, int tile)
{
    int steps = (of->d_state * channels + 31) / 32, bc = 8 * (tile + 4) * steps * 32 / channels;
    int parts = 128 * (tile + 2), longer = bc < parts ? parts : bc;
    int own = 2 * tile * channels * (of->z_rows + 3) + 2 * longer + 264 * steps;
    return (ScanBlock){ channels, stages, tile, 32 * stages, stages * own + 4 * channels };
}

/* A lane holds three numbers a token and what a step takes; a quarter of a multiprocessor's registers are there. */
static bool scan_registers_fit(const ScanOf *of, int stages, int tile)
{
    enum { REGISTERS = 16384, OF_STEP = 64, OF_ZOH = 100 };
    return (stages + 3) / 4 * 32 * (3 * tile + (of->zoh ? OF_ZOH : OF_STEP)) <= REGISTERS;
}

/* Is what was chosen a kernel? The rules are those of codegen/gpu_space.c. */
static bool scan_chosen(const Lowering *l, const char *key, const ScanOf *of, ScanBlock usual, ScanBlock *block)
{
    int channels = gpu_choice(l->g, key, "block_channels", usual.channels);
    int stages = gpu_choice(l->g, key, "stages", usual.stages), tile = gpu_choice(l->g, key, "tile_tokens", usual.tile);
    if ((channels != 8 && channels != 16) || stages % 2 != 0 || stages < 6)
        return false;
    if ((tile != 16 && tile != 24 && tile != 32) || tile * channels % 128 != 0)
        return false;
    *block = scan_shape(of, channels, stages, tile);
    return scan_registers_fit(of, stages, tile) && block->shared_len <= gpu_shared_most(l->g);
}

/* Blocks of 16 channels, where there are then enough of them for a GPU's multiprocessors: tiles of 24 tokens, or of 16
 * where memory or registers do not suffice. Blocks of 8: tiles of 32. */
static ScanBlock scan_usual(const Lowering *l, const ScanOf *of, int64_t n_channels)
{
    enum { FEW_CHANNELS = 1024 };
    static const struct { int channels, stages, tile; } usual[] = {
        { 16, 12, 24 }, { 16, 12, 16 }, { 16, 10, 16 }, { 16, 8, 16 }, { 16, 6, 16 }, { 16, 4, 16 },
        { 8, 8, 32 }, { 8, 8, 16 }, { 8, 6, 16 }, { 8, 4, 16 },
    };
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        ScanBlock block = scan_shape(of, usual[i].channels, usual[i].stages, usual[i].tile);
        if ((n_channels > FEW_CHANNELS || block.channels == 8) && scan_registers_fit(of, block.stages, block.tile)
            && block.shared_len <= gpu_shared_most(l->g))
            return block;
    }
    return (ScanBlock){ .n_threads = 256 };
}

static ScanBlock scan_block(const Lowering *l, const char *key, int64_t n_channels, const ScanOf *of)
{
    enum { STATE_MOST = 64, PAIRS_MOST = 16 };
    if (l->g->sequences || of->d_state > STATE_MOST || of->z_rows > PAIRS_MOST)
        return (ScanBlock){ .n_threads = 256 };
    ScanBlock usual = scan_usual(l, of, n_channels), chosen;
    return scan_chosen(l, key, of, usual, &chosen) ? chosen : usual;
}

void gpu_lower_scan(Lowering *l, const Op *op)
{
    GpuModel *g = l->g;
    const Value *gate = op->n_operands > 6 ? op->operand[6] : NULL;
    Rows dt = gpu_rows_of(l, op->operand[0]), x = gpu_rows_of(l, op->operand[1]);
    Rows z = gate ? gpu_rows_of(l, gate) : (Rows){ 0 };
    Rows y = gpu_new_rows(g, op->result[0]->name, gpu_columns(op->result[0]), 2);
    const char *key = gpu_key(g, "scan", gpu_columns(op->operand[3]), gpu_columns(op->result[0]), 1, DTYPE_F32);
    key = arena_printf(g->arena, "%s z_pairs=%lld zoh=%d", key, z.pairs ? (long long)z.top_k.most : 0ll,
                       (int)op_int(op, ATTR_ZOH, 0));
    const ScanOf of = { (int)gpu_columns(op->operand[3]), z.pairs ? z.top_k.most : 1, (int)op_int(op, ATTR_ZOH, 0) };
    ScanBlock block = scan_block(l, key, gpu_columns(op->result[0]), &of);
    gpu_begin(g->b, "scan", l->layer);
    gpu_keyed(g->b, g->sequences ? NULL : key);
    gpu_min_blocks(g->b, block.channels ? 1 : 0);      /* else the assembler may want two, with too few registers */
    gpu_param(g->b, "n_channels", (double)gpu_columns(op->result[0]));
    gpu_param(g->b, "d_state", (double)gpu_columns(op->operand[3]));
    gpu_param(g->b, "dt_stride", (double)dt.stride);
    gpu_param(g->b, "x_stride", (double)x.stride);
    gpu_param(g->b, "z_stride", (double)z.stride);
    gpu_param(g->b, "z_pairs", z.pairs ? (double)z.top_k.most : 0);
    gpu_param(g->b, "y_stride", (double)y.stride);
    gpu_param(g->b, "zoh", (double)op_int(op, ATTR_ZOH, 0));
    gpu_param(g->b, "act", g->act);
    gpu_param(g->b, "sequences", g->sequences);
    gpu_param(g->b, "block_channels", block.channels);
    gpu_param(g->b, "stages", block.stages);
    gpu_param(g->b, "tile_tokens", block.tile);
    gpu_rows(g, &y, ACCESS_WRITE);
    gpu_rows(g, &dt, ACCESS_READ);
    gpu_rows(g, &x, ACCESS_READ);
    gpu_scratch(g->b, l->bc, 0, ACCESS_READ);
    if (gate)
        gpu_rows(g, &z, ACCESS_READ);
    else
        gpu_null(g->b);
    gpu_weight_arg(l, op->operand[3]);
    gpu_weight_arg(l, op->operand[4]);
    gpu_state_arg(l, op->operand[5]);
    gpu_special(g->b, ARG_SLOTS);
    gpu_ends_arg(l);
    gpu_special(g->b, ARG_STATE_STRIDE);
    gpu_count(g->b, COUNT_TOKENS);
    gpu_top_k(g, z.pairs ? z.top_k : (TopK){ 1, 1 });
    int per_block = block.channels ? block.channels : 32;
    gpu_end(g->b, gpu_fixed((int)(gpu_columns(op->result[0]) + per_block - 1) / per_block),
            gpu_extent(COUNT_SEQUENCES, 1, 0), block.n_threads, block.shared_len, gpu_flags(g));
    gpu_bind_rows(l, op->result[0], y);
}
