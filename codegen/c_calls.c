/* Kernel calls: which template an operation becomes, with which parameters and arguments.
 *
 * One function an operation. Parameters and arguments follow codegen/templates/README.md; sizes come
 * from types, strides from buffers, tiles from the plan: nothing is decided here but the template.
 */
#include "c_writer.h"
#include "template.h"
#include "../ir/product.h"

#include <string.h>

typedef TemplateBinding Binding;

/* The instance's name; its text is rendered the first time. */
static const char *instance(Writer *w, const char *name, const Binding *bindings, int n)
{
    const Template *template = template_find(w->arena, name);
    double values[TEMPLATE_MAX_PARAMS] = { 0 };
    template_bind(template, bindings, n, values);
    Text text = { 0 };
    template_print_name(template, values, &text);
    const char *found = NULL;
    for (int i = 0; i < w->n_names && !found; i++)
        if (strcmp(w->names[i], text.data) == 0)
            found = w->names[i];
    if (!found) {
        if (w->n_names == w->max_names)
            w->names = arena_grow(w->arena, w->names, sizeof *w->names, &w->max_names);
        found = w->names[w->n_names++] = arena_strdup(w->arena, text.data);
        template_render(template, values, &w->kernels);
        text_printf(&w->kernels, "\n");
    }
    text_free(&text);
    return found;
}
#define INSTANCE(w, template, ...) \
    instance((w), (template), (Binding[]){ __VA_ARGS__ }, \
             (int)(sizeof((Binding[]){ __VA_ARGS__ }) / sizeof(Binding)))

/* ---- sizes and names ---- */

static double cols(const Value *value) { return (double)value->type.dim[value->type.rank - 1].n; }
static double stride(const Value *value) { return (double)value->buffer->stride; }
static const Value *operand(const Op *op, int i) { return i < op->n_operands ? op->operand[i] : NULL; }

/* A call updates the residual stream in place: its result is its operand's variable. */
const char *c_value(const Value *value)
{
    while (value_is(value, OP_CALL))
        value = value->def->operand[0];
    return value ? value->name : "NULL";
}

const char *c_rows(Writer *w, Dim dim)
{
    if (dim.sym == SYM_R)
        return "n_logits";
    const char *tokens = dim.sym == SYM_T ? "n_tokens" : "1";
    if (dim.n == 1)
        return tokens;
    return dim.sym == SYM_T ? arena_printf(w->arena, "%s * top_k", tokens) : "top_k";
}

static int n_panels(const Writer *w, double n) { return ((int)n + w->plan->tiling.panel - 1) / w->plan->tiling.panel; }

/* "begin, end" of the caller's part of `n` columns. */
static const char *panels(Writer *w, double n)
{
    return arena_printf(w->arena, "panels_%d.begin, panels_%d.end", n_panels(w, n), n_panels(w, n));
}

static const char *row_range(Writer *w, const Step *step, Dim rows)
{
    if (step->split == SPLIT_ALL)
        return arena_printf(w->arena, "0, %s", c_rows(w, rows));
    if (rows.sym == SYM_R)
        return "logit_rows.begin, logit_rows.end";
    return rows.n == 1 ? "rows.begin, rows.end" : "rows.begin * top_k, rows.end * top_k";   /* pairs of its tokens */
}

static const char *scratch(Writer *w, const Step *step, const char *type)
{
    return arena_printf(w->arena, "(%s *)(own + %lld)", type, (long long)step->scratch_offset);
}

#define CALL(w, ...) (text_printf(&(w)->functions, "%s", (w)->in_sequence ? "    " : ""), \
                      text_printf(&(w)->functions, __VA_ARGS__))

/* ---- sequences ---- */

void c_declare_state(Writer *w, const Value *value)
{
    const Buffer *b = value->buffer;
    bool grows = value->type.dim[0].sym == SYM_C;
    CALL(w, "    float *const %s = (float *)(run->states[%s] + %s + ", value->name, w->in_sequence ? "s" : "0",
         grows ? "rings" : "state");
    if (grows)
        text_printf(&w->functions, "run->n_context * %lld);   /* [n_context]", (long long)b->token_offset);
    else
        text_printf(&w->functions, "%lld);   /* [%lld]", (long long)b->offset, (long long)value->type.dim[0].n);
    text_printf(&w->functions, "[%lld] */\n", (long long)b->stride);
}

/* A prefill's tokens may be one of each of several sequences: what has state runs sequence by sequence. */
static void open_sequences(Writer *w, const Op *op)
{
    if (w->phase == PLAN_DECODE)
        return;
    CALL(w, "    for (int s = 0; s < run->n_sequences; s++) {\n");
    w->in_sequence = true;
    CALL(w, "    const size_t row = (size_t)s * length;\n");
    for (int i = 0; i < op->n_operands; i++)
        if (value_is(op->operand[i], OP_STATE))
            c_declare_state(w, op->operand[i]);
}

static void close_sequences(Writer *w)
{
    if (w->in_sequence) {
        w->in_sequence = false;
        CALL(w, "    }\n");
    }
}

/* Rows of a value at the sequence the code is in, and how many. */
static const char *sequence_rows(Writer *w, const Value *value)
{
    return !w->in_sequence || !value ? c_value(value)
         : arena_printf(w->arena, "%s + row * %lld", c_value(value), (long long)value->buffer->stride);
}
static const char *sequence_len(const Writer *w) { return w->in_sequence ? "length" : "1"; }
static const char *sequence(const Writer *w) { return w->in_sequence ? "s" : "0"; }

/* ---- products ---- */

static void call_product(Writer *w, const Step *step)
{
    const Op *op = step->op;
    const Product p = product_of(op);
    const Value *y = op->result[0];
    const Tiling *t = &w->plan->tiling;
    bool quantised = p.x->type.dtype == DTYPE_Q8;
    const char *top_k = p.experts ? "top_k" : "1";
    const char *range = step->split == SPLIT_ROWS ? arena_printf(w->arena, "0, %d", n_panels(w, cols(y)))
                                                  : panels(w, cols(y));
    const Binding n_in = { "n_in", cols(p.x) }, n_out = { "n_out", cols(y) },
                  in_stride = { "in_stride", stride(p.x) }, out_stride = { "out_stride", stride(y) },
                  experts = { "n_experts", p.n_experts }, dtype = { "weight_dtype", product_weight_code(p.weight) },
                  in_pairs = { "in_pairs", p.in_pairs }, out_pairs = { "out_pairs", p.out_pairs },
                  bias = { "has_bias", p.bias != NULL }, accumulate = { "accumulate", p.accumulate },
                  panel = { "panel", t->panel };
    if (w->phase == PLAN_DECODE) {
        const char *f = INSTANCE(w, quantised ? "gemv_q" : "gemv", n_in, n_out, in_stride, out_stride, experts, dtype, in_pairs,
                                 out_pairs, bias, accumulate, panel, { "prefetch_rows", step->prefetch_rows },
                                 { "streams", step->streams }, { "unroll", step->unroll });
        CALL(w, "    %s(%s, %s, %s, %s, %s, %s, %s, %s);\n", f, c_value(y), c_value(p.x), c_value(p.weight),
             c_value(p.bias), c_value(p.experts), c_value(p.gates), top_k, range);
        return;
    }
    const Binding tile_rows = { "tile_rows", step->tile_rows }, tail_rows = { "tail_rows", step->tail_rows },
                  block_rows = { "block_rows", (double)step->block_rows },
                  pack_lines = { "pack_lines", step->pack_lines },
                  fetch_gap = { "fetch_gap", step->fetch_gap }, k_block = { "k_block", step->k_block },
                  widen = { "widen", step->widen };
    const char *f = quantised
        ? INSTANCE(w, "gemm_q", n_in, n_out, in_stride, out_stride, experts, dtype, in_pairs, out_pairs, bias,
                   accumulate, tile_rows, tail_rows, panel, block_rows, pack_lines, fetch_gap)
        : INSTANCE(w, "gemm", n_in, n_out, in_stride, out_stride, experts, dtype, in_pairs, out_pairs, bias, accumulate,
                   tile_rows, tail_rows, panel, block_rows, pack_lines, k_block, fetch_gap, widen);
    /* The product sees tokens, whose rows are the result's unless those are pairs. */
    const char *tokens = step->split == SPLIT_ROWS ? "rows.begin, rows.end"
                       : arena_printf(w->arena, "0, %s", p.experts ? "n_tokens" : c_rows(w, y->type.dim[0]));
    CALL(w, "    %s(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);\n", f, c_value(y), c_value(p.x),
         c_value(p.weight), c_value(p.bias), c_value(p.slots), c_value(p.offsets), c_value(p.gates), tokens, top_k,
         scratch(w, step, quantised ? "int8_t" : "float"), range);
}

/* ---- the other operations ---- */

static void call_embed(Writer *w, const Step *step)
{
    const Value *x = step->op->result[0], *table = step->op->operand[1];
    const char *f = INSTANCE(w, "embed", { "d_model", cols(x) }, { "stride", stride(x) },
                             { "weight_dtype", product_weight_code(table) }, { "panel", w->plan->tiling.panel });
    CALL(w, "    %s(%s, run->tokens, %s, %s);\n", f, c_value(x), c_value(table), row_range(w, step, x->type.dim[0]));
}

static void call_rms_norm(Writer *w, const Step *step)
{
    const Op *op = step->op;
    const Value *x = op->operand[0], *u = op->result[0];
    const char *f = INSTANCE(w, "rms_norm", { "n_in", cols(x) }, { "stride", stride(x) },
                             { "eps", op_attr(op, ATTR_EPS)->number });
    CALL(w, "    %s(%s, %s, %s, %s);\n", f, c_value(u), c_value(x), c_value(op->operand[1]),
         row_range(w, step, x->type.dim[0]));
}

static void call_route(Writer *w, const Step *step)
{
    const Op *op = step->op;
    const Value *x = op->operand[0];
    const char *f = INSTANCE(w, "route", { "n_in", cols(x) }, { "stride", stride(x) },
                             { "n_experts", (double)op->operand[1]->type.dim[0].n },
                             { "renormalize", (double)op_int(op, ATTR_RENORMALIZE, 0) },
                             { "by_lanes", step->by_lanes });
    CALL(w, "    %s(%s, %s, %s, %s, top_k, %s);\n", f, c_value(op->result[0]), c_value(op->result[1]), c_value(x),
         c_value(op->operand[1]), row_range(w, step, x->type.dim[0]));
}

/* Norm and router of an operation that is both, one after the other. */
static void call_norm_then_route(Writer *w, const Step *step)
{
    const Op *op = step->op;
    const Value *x = op->operand[0], *u = op->result[0];
    const char *rows = row_range(w, step, x->type.dim[0]);
    const char *norm = INSTANCE(w, "rms_norm", { "n_in", cols(x) }, { "stride", stride(x) },
                                { "eps", op_attr(op, ATTR_EPS)->number });
    const char *route = INSTANCE(w, "route", { "n_in", cols(u) }, { "stride", stride(u) },
                                 { "n_experts", (double)op->operand[2]->type.dim[0].n },
                                 { "renormalize", (double)op_int(op, ATTR_RENORMALIZE, 0) },
                                 { "by_lanes", step->by_lanes });
    CALL(w, "    %s(%s, %s, %s, %s);\n", norm, c_value(u), c_value(x), c_value(op->operand[1]), rows);
    CALL(w, "    %s(%s, %s, %s, %s, top_k, %s);\n", route, c_value(op->result[1]), c_value(op->result[2]), c_value(u),
         c_value(op->operand[2]), rows);
}

static void call_rms_norm_route(Writer *w, const Step *step)
{
    const Op *op = step->op;
    const Value *x = op->operand[0];
    if (w->plan->route_apart && w->phase == PLAN_PREFILL) {
        call_norm_then_route(w, step);
        return;
    }
    const char *f = INSTANCE(w, "rms_norm_route", { "n_in", cols(x) }, { "stride", stride(x) },
                             { "eps", op_attr(op, ATTR_EPS)->number },
                             { "n_experts", (double)op->operand[2]->type.dim[0].n },
                             { "renormalize", (double)op_int(op, ATTR_RENORMALIZE, 0) },
                             { "by_lanes", step->by_lanes });
    CALL(w, "    %s(%s, %s, %s, %s, %s, %s, top_k, %s);\n", f, c_value(op->result[0]), c_value(op->result[1]),
         c_value(op->result[2]), c_value(x), c_value(op->operand[1]), c_value(op->operand[2]),
         row_range(w, step, x->type.dim[0]));
}

static void call_quantize(Writer *w, const Step *step)
{
    const Value *x = step->op->operand[0], *q = step->op->result[0];
    const char *f = INSTANCE(w, "quantize", { "n_in", cols(x) }, { "in_stride", stride(x) }, { "out_stride", stride(q) });
    CALL(w, "    %s(%s, %s, %s);\n", f, c_value(q), c_value(x), row_range(w, step, x->type.dim[0]));
}

static void call_group(Writer *w, const Step *step)
{
    const Op *op = step->op;
    const char *f = INSTANCE(w, "group", { "n_experts", (double)op_int(op, ATTR_EXPERTS, 1) });
    CALL(w, "    %s(%s, %s, %s, %s);\n", f, c_value(op->result[0]), c_value(op->result[1]), c_value(op->operand[0]),
         c_rows(w, op->operand[0]->type.dim[0]));
}

static void call_conv1d(Writer *w, const Step *step)
{
    const Op *op = step->op;
    const Value *x = op->operand[0], *y = op->result[0];
    const char *f = INSTANCE(w, "conv1d", { "n_channels", cols(x) }, { "d_conv", cols(op->operand[1]) },
                             { "in_stride", stride(x) }, { "stride", stride(y) },
                             { "silu", (double)op_int(op, ATTR_SILU, 0) }, { "panel", w->plan->tiling.panel });
    open_sequences(w, op);
    CALL(w, "    %s(%s, %s, %s, %s, %s, %s, %s);\n", f, sequence_rows(w, y), sequence_rows(w, x), c_value(op->operand[1]),
         c_value(op->operand[2]), c_value(op->operand[3]), sequence_len(w), panels(w, cols(y)));
    close_sequences(w);
}

static void call_scan(Writer *w, const Step *step)
{
    const Op *op = step->op;
    const Value *dt = op->operand[0], *bc = op->operand[2], *a = op->operand[3], *z = operand(op, 6);
    if (!z || !op_int(op, ATTR_SOFTPLUS, 0))
        BUG("a scan without its softplus and gate has no kernel");
    const char *f = INSTANCE(w, "scan", { "d_state", cols(a) }, { "stride", stride(dt) }, { "z_stride", stride(z) },
                             { "bc_stride", stride(bc) }, { "zoh", (double)op_int(op, ATTR_ZOH, 0) },
                             { "token_block", step->token_block }, { "panel", w->plan->tiling.panel });
    open_sequences(w, op);
    CALL(w, "    %s(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s);\n", f, sequence_rows(w, op->result[0]), sequence_rows(w, dt),
         sequence_rows(w, op->operand[1]), sequence_rows(w, bc), sequence_rows(w, z), c_value(a), c_value(op->operand[4]),
         c_value(op->operand[5]), sequence_len(w), panels(w, cols(dt)));
    close_sequences(w);
}

static void call_swiglu(Writer *w, const Step *step)
{
    const Op *op = step->op;
    const Value *y = op->result[0];
    const char *f = INSTANCE(w, "swiglu", { "stride", stride(y) }, { "panel", w->plan->tiling.panel });
    CALL(w, "    %s(%s, %s, %s, %s, %s);\n", f, c_value(y), c_value(op->operand[0]), c_value(op->operand[1]),
         c_rows(w, y->type.dim[0]), panels(w, cols(y)));
}

static void call_rope_table(Writer *w, const Step *step)
{
    const Op *op = step->op;
    const char *f = INSTANCE(w, "rope_table", { "head_dim", (double)op_int(op, ATTR_HEAD_DIM, 0) },
                             { "theta", op_attr(op, ATTR_THETA)->number });
    const Value *table = op->result[0];
    if (w->phase == PLAN_DECODE) {
        CALL(w, "    %s(%s, run->positions[0], 0, 1);\n", f, c_value(table));
        return;
    }
    /* Rows of one sequence follow each other; of several, each is a sequence's only one. */
    CALL(w, "    for (int s = 0; s < run->n_sequences; s++)\n");
    CALL(w, "        %s(%s + (size_t)s * length * %lld, run->positions[s], rows.begin > s * length ? rows.begin - s * length : 0,\n"
            "            rows.end < (s + 1) * length ? rows.end - s * length : length);\n", f, c_value(table),
         (long long)op_int(op, ATTR_HEAD_DIM, 0));
}

static void call_rope(Writer *w, const Step *step)
{
    const Op *op = step->op;
    const Value *x = op->operand[0], *y = op->result[0];
    const char *f = INSTANCE(w, "rope", { "n_heads", (double)op_int(op, ATTR_HEADS, 0) },
                             { "head_dim", (double)op_int(op, ATTR_HEAD_DIM, 0) }, { "in_stride", stride(x) },
                             { "out_stride", stride(y) });
    CALL(w, "    %s(%s, %s, %s, %s);\n", f, c_value(y), c_value(x), c_value(op->operand[1]),
         row_range(w, step, x->type.dim[0]));
}

static void call_attention(Writer *w, const Step *step)
{
    const Op *op = step->op;
    const Value *q = op->operand[0], *k = op->operand[1], *y = op->result[0];
    const Tiling *t = &w->plan->tiling;
    int64_t head_dim = op_int(op, ATTR_HEAD_DIM, 1);
    int64_t head_stride = (head_dim + t->panel - 1) / t->panel * t->panel;
    const char *f = INSTANCE(w, "attention", { "n_heads", (double)op_int(op, ATTR_HEADS, 1) },
                             { "n_kv_heads", (double)op_int(op, ATTR_KV_HEADS, 1) },
                             { "head_dim", (double)head_dim }, { "head_stride", (double)head_stride },
                             { "q_stride", stride(q) }, { "kv_stride", stride(k) }, { "out_stride", stride(y) },
                             { "window", (double)op_int(op, ATTR_WINDOW, 0) }, { "token_block", step->token_block },
                             { "key_block", step->key_block }, { "tile_rows", step->tile_rows }, { "panel", t->panel });
    /* Items are dealt round robin, from another thread on for each sequence. */
    open_sequences(w, op);
    CALL(w, "    %s(%s, %s, %s, %s, %s, %s, run->positions[%s], run->n_context, %s, %s, %s, run->n_threads);\n", f,
         sequence_rows(w, y), sequence_rows(w, q), sequence_rows(w, k), sequence_rows(w, op->operand[2]),
         c_value(op->operand[3]), c_value(op->operand[4]), sequence(w), sequence_len(w), scratch(w, step, "float"),
         w->in_sequence ? "(thread + s) % run->n_threads" : "thread");
    close_sequences(w);
}

static void call_ring_write(Writer *w, const Step *step)
{
    const Op *op = step->op;
    const Value *k = op->operand[0];
    const char *f = INSTANCE(w, "ring_write", { "kv_stride", stride(k) }, { "n_columns", cols(k) },
                             { "window", (double)op_int(op, ATTR_WINDOW, 0) }, { "panel", w->plan->tiling.panel });
    open_sequences(w, op);
    CALL(w, "    %s(%s, %s, %s, %s, run->positions[%s], run->n_context, %s, %s);\n", f, c_value(op->operand[2]),
         c_value(op->operand[3]), sequence_rows(w, k), sequence_rows(w, op->operand[1]), sequence(w), sequence_len(w),
         panels(w, cols(k)));
    close_sequences(w);
}

void c_write_call(Writer *w, const Step *step)
{
    switch (step->op->kind) {
    case OP_EMBED:          call_embed(w, step); break;
    case OP_RMS_NORM:       call_rms_norm(w, step); break;
    case OP_ROUTE:          call_route(w, step); break;
    case OP_RMS_NORM_ROUTE: call_rms_norm_route(w, step); break;
    case OP_QUANTIZE:       call_quantize(w, step); break;
    case OP_GROUP:          call_group(w, step); break;
    case OP_LINEAR: case OP_EXPERT_LINEAR: case OP_EXPERT_LINEAR_COMBINE: call_product(w, step); break;
    case OP_CONV1D:         call_conv1d(w, step); break;
    case OP_SCAN:           call_scan(w, step); break;
    case OP_SWIGLU:         call_swiglu(w, step); break;
    case OP_ROPE_TABLE:     call_rope_table(w, step); break;
    case OP_ROPE:           call_rope(w, step); break;
    case OP_ATTENTION:      call_attention(w, step); break;
    case OP_RING_WRITE:     call_ring_write(w, step); break;
    default: BUG("%s has no kernel", op_info(step->op->kind).text);
    }
}
