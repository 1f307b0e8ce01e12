/* Shape rules: result types of every operation from its operands and attributes.
 *
 * One function an operation, named shape_<ID> as op.def promises. A rule returns false and says in
 * `why` what was found and what was expected. Rows: a Dim with symbol T (prefill) or 1 (decode).
 */
#include "module.h"
#include "quant.h"
#include "text.h"

#define RULE(id) static bool shape_##id(const Op *op, Type *out, Text *why)
#define OPERAND(i) (op->operand[i]->type)

static bool fail(Text *why, const char *what, Type found)
{
    text_printf(why, "%s, found ", what);
    type_print(found, why);
    return false;
}

static bool same(Dim a, Dim b) { return a.n == b.n && a.sym == b.sym; }
static Dim times(Dim dim, int64_t n) { return dim_of(dim.n * n, dim.sym); }
static bool is_constant(Dim dim) { return dim.sym == SYM_ONE; }

static Type matrix(DType dtype, Dim rows, Dim cols)
{
    return type_of(dtype, 2, rows, cols, dim_of(0, SYM_ONE));
}

static Type vector(DType dtype, Dim n)
{
    return type_of(dtype, 1, n, dim_of(0, SYM_ONE), dim_of(0, SYM_ONE));
}

static bool is_activation(Type type) { return type.dtype == DTYPE_F32 && type.rank == 2 && is_constant(type.dim[1]); }

static bool want_activation(Type type, Text *why)
{
    return is_activation(type) || fail(why, "an activation must be f32[rows, columns]", type);
}

/* What a product reads: float32, or int8 rows where the weight is quantised too. */
static bool want_product_input(Type x, Type weight, Text *why)
{
    if (x.dtype == DTYPE_Q8 && x.rank == 2 && is_constant(x.dim[1]))
        return dtype_is_quantised(weight.dtype) || fail(why, "quantised rows meet only quantised weights", weight);
    return want_activation(x, why);
}

static bool want_vector(Type type, Dim n, Text *why)
{
    return (type.dtype == DTYPE_F32 && type.rank == 1 && same(type.dim[0], n))
        || fail(why, "a vector must be f32 and as long as the rows it meets", type);
}

static bool want_same(Type a, Type b, Text *why)
{
    return type_equal(a, b) || fail(why, "both operands must have one type", b);
}

RULE(WEIGHT) { (void)op; (void)out; text_printf(why, "a weight states its own type"); return false; }
RULE(STATE)  { (void)op; (void)out; text_printf(why, "a state states its own type"); return false; }

RULE(EMBED)
{
    Type tokens = OPERAND(0), table = OPERAND(1);
    if (tokens.dtype != DTYPE_I32 || tokens.rank != 1)
        return fail(why, "tokens must be i32[T]", tokens);
    if (table.rank != 2)
        return fail(why, "the table must be [V, d]", table);
    out[0] = matrix(DTYPE_F32, tokens.dim[0], table.dim[1]);
    return true;
}

RULE(RMS_NORM)
{
    out[0] = OPERAND(0);
    return want_activation(OPERAND(0), why) && want_vector(OPERAND(1), OPERAND(0).dim[1], why);
}

/* [T,n] with router [E,n]: experts and gates of the k chosen. */
static bool infer_route(const Op *op, Type x, Type router, Type *experts, Type *gates, Text *why)
{
    if (!want_activation(x, why))
        return false;
    if (router.rank != 2 || !same(router.dim[1], x.dim[1]))
        return fail(why, "the router must be [E, columns of x]", router);
    int64_t k = op_top_k_max(op);
    if (k < 1 || k > router.dim[0].n)
        return fail(why, "top_k must lie in 1..E", router);
    *experts = vector(DTYPE_I32, times(x.dim[0], k));
    *gates = vector(DTYPE_F32, times(x.dim[0], k));
    return true;
}

RULE(ROUTE) { return infer_route(op, OPERAND(0), OPERAND(1), &out[0], &out[1], why); }

RULE(RMS_NORM_ROUTE)
{
    out[0] = OPERAND(0);
    return want_activation(OPERAND(0), why) && want_vector(OPERAND(1), OPERAND(0).dim[1], why)
        && infer_route(op, OPERAND(0), OPERAND(2), &out[1], &out[2], why);
}

RULE(LINEAR)
{
    Type x = OPERAND(0), weight = OPERAND(1);
    if (!want_product_input(x, weight, why))
        return false;
    if (weight.rank != 2 || !same(weight.dim[1], x.dim[1])) {
        text_printf(why, "inner size %lld, weight has ", (long long)x.dim[1].n);
        type_print(weight, why);
        return false;
    }
    out[0] = matrix(DTYPE_F32, x.dim[0], weight.dim[0]);
    if (op->operand[3] && op->operand[4])
        return fail(why, "a product updates a residual or a gate, not both", x);
    return (!op->operand[2] || want_vector(OPERAND(2), weight.dim[0], why))
        && (!op->operand[3] || want_same(out[0], OPERAND(3), why))
        && (!op->operand[4] || want_same(out[0], OPERAND(4), why));
}

/* Products with experts: [T or kT, in] x [E, out, in] -> [kT, out] for the pairs in `experts`. */
static bool infer_pairs(Type x, Type weight, Type pairs, const Value *bias, Type *out, Text *why)
{
    if (!want_product_input(x, weight, why))
        return false;
    if (weight.rank != 3 || !same(weight.dim[2], x.dim[1])) {
        text_printf(why, "inner size %lld, weight has ", (long long)x.dim[1].n);
        type_print(weight, why);
        return false;
    }
    if (pairs.rank != 1 || pairs.dtype != DTYPE_I32 || x.dim[0].sym != pairs.dim[0].sym
        || pairs.dim[0].n % x.dim[0].n)
        return fail(why, "the experts must be i32[k * tokens]", pairs);
    if (bias && (bias->type.rank != 2 || !same(bias->type.dim[0], weight.dim[0])
                 || !same(bias->type.dim[1], weight.dim[1])))
        return fail(why, "the bias must be [E, out]", bias->type);
    *out = matrix(DTYPE_F32, pairs.dim[0], weight.dim[1]);
    return true;
}

RULE(EXPERT_LINEAR)
{
    return infer_pairs(OPERAND(0), OPERAND(1), OPERAND(2), op->operand[3], &out[0], why)
        && (!op->operand[6] || want_same(out[0], OPERAND(6), why));
}

static bool infer_combine(Type pairs, Type gates, Type *out, Text *why)
{
    /* Gates know the pairs; tokens are what the pairs' symbol counts. */
    if (gates.rank != 1 || gates.dtype != DTYPE_F32 || !same(gates.dim[0], pairs.dim[0]))
        return fail(why, "the gates must be f32, one a pair", gates);
    *out = matrix(DTYPE_F32, dim_of(1, gates.dim[0].sym), pairs.dim[1]);
    return true;
}

RULE(COMBINE)
{
    return want_activation(OPERAND(0), why) && infer_combine(OPERAND(0), OPERAND(1), &out[0], why);
}

RULE(EXPERT_LINEAR_COMBINE)
{
    Type pairs;
    if (!infer_pairs(OPERAND(0), OPERAND(1), OPERAND(2), op->operand[4], &pairs, why)
        || !infer_combine(pairs, OPERAND(3), &out[0], why))
        return false;
    return !op->operand[7] || want_same(out[0], OPERAND(7), why);
}

RULE(GROUP)
{
    Type pairs = OPERAND(0);
    if (pairs.rank != 1 || pairs.dtype != DTYPE_I32)
        return fail(why, "the experts must be i32[k * tokens]", pairs);
    out[0] = pairs;
    out[1] = vector(DTYPE_I32, dim_of(op_int(op, ATTR_EXPERTS, 1) + 1, SYM_ONE));
    return true;
}

RULE(QUANTIZE)
{
    out[0] = OPERAND(0);
    out[0].dtype = DTYPE_Q8;
    return want_activation(OPERAND(0), why);
}

RULE(SLICE)
{
    Type x = OPERAND(0);
    int64_t begin = op_int(op, ATTR_BEGIN, 0), len = op_int(op, ATTR_LEN, 0);
    if (!want_activation(x, why))
        return false;
    if (begin < 0 || len < 1 || begin > x.dim[1].n - len)
        return fail(why, "the slice must lie inside the columns", x);
    out[0] = matrix(x.dtype, x.dim[0], dim_of(len, SYM_ONE));
    return true;
}

RULE(CONV1D)
{
    Type x = OPERAND(0), weight = OPERAND(1), state = OPERAND(3);
    out[0] = x;
    if (!want_activation(x, why) || !want_vector(OPERAND(2), x.dim[1], why))
        return false;
    if (weight.rank != 2 || !same(weight.dim[0], x.dim[1]))
        return fail(why, "the filter must be [columns of x, taps]", weight);
    if (state.rank != 2 || state.dim[0].n != weight.dim[1].n - 1 || !same(state.dim[1], x.dim[1]))
        return fail(why, "the state must be [taps - 1, columns of x]", state);
    return true;
}

#define POINTWISE(id) RULE(id) { out[0] = OPERAND(0); return want_activation(OPERAND(0), why); }
POINTWISE(SOFTPLUS)
POINTWISE(SILU)
#define POINTWISE2(id) RULE(id) \
    { out[0] = OPERAND(0); return want_activation(OPERAND(0), why) && want_same(OPERAND(0), OPERAND(1), why); }
POINTWISE2(MUL)
POINTWISE2(ADD)
POINTWISE2(SWIGLU)

RULE(SWIGLU_PAIRS)
{
    Type x = OPERAND(0);
    if (!want_activation(x, why))
        return false;
    if (x.dim[1].n % 2)
        return fail(why, "gate and up need an even number of columns", x);
    out[0] = matrix(DTYPE_F32, x.dim[0], dim_of(x.dim[1].n / 2, SYM_ONE));
    return true;
}

RULE(SCAN)
{
    Type dt = OPERAND(0), bc = OPERAND(2), a_log = OPERAND(3), state = OPERAND(5);
    Dim c = dt.dim[1];
    out[0] = dt;
    if (!want_activation(dt, why) || !want_same(dt, OPERAND(1), why) || !want_activation(bc, why)
        || !want_vector(OPERAND(4), c, why))
        return false;
    if (a_log.rank != 2 || !same(a_log.dim[0], c))
        return fail(why, "A_log must be [columns of x, d_state]", a_log);
    if (!same(bc.dim[0], dt.dim[0]) || bc.dim[1].n != 2 * a_log.dim[1].n)
        return fail(why, "B and C must be [rows, 2 * d_state]", bc);
    if (state.rank != 2 || !same(state.dim[0], a_log.dim[1]) || !same(state.dim[1], c))
        return fail(why, "the state must be [d_state, columns of x]", state);
    return !op->operand[6] || want_same(dt, OPERAND(6), why);
}

RULE(ROPE_TABLE)
{
    Type tokens = OPERAND(0);
    int64_t n = op_int(op, ATTR_HEAD_DIM, 0);
    if (tokens.rank != 1 || n < 2 || n % 2)
        return fail(why, "rotation needs tokens [T] and an even head_dim", tokens);
    out[0] = matrix(DTYPE_F32, tokens.dim[0], dim_of(n, SYM_ONE));
    return true;
}

RULE(ROPE)
{
    Type x = OPERAND(0), table = OPERAND(1);
    int64_t n = op_int(op, ATTR_HEAD_DIM, 0);
    out[0] = x;
    if (!want_activation(x, why))
        return false;
    if (x.dim[1].n != n * op_int(op, ATTR_HEADS, 0))
        return fail(why, "the columns must be heads * head_dim", x);
    return (table.rank == 2 && table.dim[1].n == n && same(table.dim[0], x.dim[0]))
        || fail(why, "the table must be [rows, head_dim]", table);
}

static bool want_rings(const Op *op, int k, int ring, Text *why)
{
    for (int i = 0; i < 2; i++) {
        if (!want_activation(OPERAND(k + i), why) || !want_same(OPERAND(k), OPERAND(k + i), why))
            return false;
        Type type = OPERAND(ring + i);
        int64_t window = op_int(op, ATTR_WINDOW, 0);
        Dim rows = window ? dim_of(window, SYM_ONE) : dim_of(1, SYM_C);
        if (type.rank != 2 || !same(type.dim[0], rows) || !same(type.dim[1], OPERAND(k).dim[1]))
            return fail(why, "a ring must be [window, columns of k]", type);
    }
    return true;
}

RULE(ATTENTION)
{
    Type q = OPERAND(0);
    int64_t n = op_int(op, ATTR_HEAD_DIM, 0);
    out[0] = q;
    if (!want_activation(q, why) || !want_rings(op, 1, 3, why))
        return false;
    if (q.dim[1].n != n * op_int(op, ATTR_HEADS, 0))
        return fail(why, "the columns of q must be heads * head_dim", q);
    return OPERAND(1).dim[1].n == n * op_int(op, ATTR_KV_HEADS, 0)
        || fail(why, "the columns of k must be kv_heads * head_dim", OPERAND(1));
}

RULE(RING_WRITE) { (void)out; return want_rings(op, 0, 2, why); }

RULE(LAST_ROWS)
{
    Type x = OPERAND(0);
    /* Of one token there is one row to want. */
    out[0] = matrix(x.dtype, dim_of(1, x.dim[0].sym == SYM_T ? SYM_R : SYM_ONE), x.dim[1]);
    return want_activation(x, why);
}

RULE(CALL) { out[0] = OPERAND(0); return want_activation(OPERAND(0), why); }
RULE(YIELD) { (void)out; return want_activation(OPERAND(0), why); }

bool op_infer(const Op *op, Type *results, Text *why)
{
    static bool (*const rules[N_OPS])(const Op *, Type *, Text *) = {
#define OP(id, ...) [OP_##id] = shape_##id,
#include "op.def"
#undef OP
    };
    OpInfo info = op_info(op->kind);
    if (op->n_operands < info.min_operands || op->n_operands > info.max_operands) {
        text_printf(why, "%s takes %d to %d operands (%s), found %d", info.text, info.min_operands,
                    info.max_operands, info.operands, op->n_operands);
        return false;
    }
    for (int i = 0; i < op->n_operands; i++) {
        if (!op->operand[i] && i < info.min_operands) {
            text_printf(why, "%s: operand %d of (%s) must not be none", info.text, i + 1, info.operands);
            return false;
        }
    }
    /* Rules look at optional operands by index: give them all. */
    Op full = *op;
    for (int i = op->n_operands; i < OP_MAX_OPERANDS; i++)
        full.operand[i] = NULL;
    return rules[op->kind](&full, results, why);
}
