/* Cost rules: operations and bytes of one token, one function an operation.
 *
 * Named cost_<ID> as op.def promises. A multiply-add counts two. Weight bytes are what must be read
 * from memory: in decode the chosen experts, in prefill every expert once a chunk. State bytes are
 * the model's state, read and written. Activations stay in cache and do not count.
 */
#include "plan.h"
#include "../ir/text.h"

typedef struct { const Op *op; int mode; int64_t n_tokens, n_context; } CostOf;

#define RULE(id) static Cost cost_##id(const CostOf *c)
#define FREE(id) RULE(id) { (void)c; return (Cost){ 0 }; }

static double columns(const Value *value) { return (double)value->type.dim[value->type.rank - 1].n; }

static double count(const Value *value)
{
    double n = 1;
    for (int i = 0; i < value->type.rank; i++)
        n *= (double)value->type.dim[i].n;
    return n;
}

static double row_bytes(const Value *value) { return columns(value) * dtype_len(value->type.dtype); }
static double bytes(const Value *value) { return count(value) * dtype_info(value->type.dtype)->bits / 8; }

/* flops a token and the bytes of the weight operand, read once for all tokens of the call. */
static Cost per_call(const CostOf *c, double flops, double weight_bytes)
{
    return (Cost){ flops, weight_bytes / (double)c->n_tokens, 0 };
}

/* What ends a product that has a gate: silu and a multiplication. */
static double gate_flops(const CostOf *c, int gate)
{
    return gate < c->op->n_operands && c->op->operand[gate] ? 5 * columns(c->op->result[0]) : 0;
}

/* Experts per token of the routing behind `experts`, in this mode. */
static double top_k(const CostOf *c, const Value *experts)
{
    const Attr *attr = op_attr(experts->def, ATTR_TOP_K);
    return (double)attr->ints.at[attr->ints.n > c->mode ? c->mode : 0];
}

static Cost pointwise(const CostOf *c, double flops) { return (Cost){ flops * columns(c->op->result[0]), 0, 0 }; }

FREE(WEIGHT)
FREE(STATE)
FREE(CALL)
FREE(YIELD)
FREE(LAST_ROWS)
FREE(SLICE)
FREE(GROUP)
RULE(EMBED) { return (Cost){ 0, columns(c->op->result[0]) * dtype_info(c->op->operand[1]->type.dtype)->bits / 8, 0 }; }
RULE(RMS_NORM) { return per_call(c, 4 * columns(c->op->result[0]), bytes(c->op->operand[1])); }
RULE(ROUTE) { return per_call(c, 2 * count(c->op->operand[1]), bytes(c->op->operand[1])); }
RULE(RMS_NORM_ROUTE)
{
    const Value *router = c->op->operand[2];
    return per_call(c, 4 * columns(c->op->result[0]) + 2 * count(router), bytes(router) + bytes(c->op->operand[1]));
}
RULE(LINEAR)
{
    /* In prefill one row of logits is wanted, not one a token. */
    double rows = c->op->result[0]->type.dim[0].sym == SYM_R ? 1 / (double)c->n_tokens : 1;
    return per_call(c, 2 * count(c->op->operand[1]) * rows + gate_flops(c, 4), bytes(c->op->operand[1]));
}

static Cost expert_product(const CostOf *c, int bias)
{
    const Value *weight = c->op->operand[1];
    double n_experts = (double)weight->type.dim[0].n, k = top_k(c, c->op->operand[2]);
    double read = k * (double)c->n_tokens < n_experts ? k * (double)c->n_tokens : n_experts;
    double len = bytes(weight) + (c->op->n_operands > bias && c->op->operand[bias] ? bytes(c->op->operand[bias]) : 0);
    return per_call(c, 2 * count(weight) / n_experts * k, len * read / n_experts);
}
RULE(EXPERT_LINEAR)
{
    Cost cost = expert_product(c, 3);
    cost.flops += gate_flops(c, 6);
    return cost;
}
RULE(EXPERT_LINEAR_COMBINE) { return expert_product(c, 4); }
RULE(COMBINE) { return pointwise(c, 2 * top_k(c, c->op->operand[1])); }
RULE(CONV1D)
{
    Cost cost = per_call(c, 2 * count(c->op->operand[1]), bytes(c->op->operand[1]) + bytes(c->op->operand[2]));
    cost.state_bytes = 2 * bytes(c->op->operand[3]) / (double)c->n_tokens;
    return cost;
}
RULE(SCAN)
{
    /* Per state element: the decay's product and exp2, state update, output: about 7 and an exp. */
    Cost cost = per_call(c, 8 * count(c->op->operand[3]), bytes(c->op->operand[3]) + bytes(c->op->operand[4]));
    cost.state_bytes = 2 * bytes(c->op->operand[5]) / (double)c->n_tokens;
    return cost;
}
RULE(SOFTPLUS) { return pointwise(c, 4); }
RULE(SILU) { return pointwise(c, 4); }
RULE(MUL) { return pointwise(c, 1); }
RULE(ADD) { return pointwise(c, 1); }
RULE(QUANTIZE) { return pointwise(c, 3); }
RULE(SWIGLU) { return pointwise(c, 5); }
RULE(SWIGLU_PAIRS) { return pointwise(c, 5); }
RULE(ROPE_TABLE) { return pointwise(c, 1); }
RULE(ROPE) { return pointwise(c, 3); }
RULE(ATTENTION)
{
    double window = (double)op_int(c->op, ATTR_WINDOW, 0);
    double n = window ? window : (double)c->n_context;
    Cost cost = { 4 * n * columns(c->op->operand[0]), 0, 0 };
    cost.state_bytes = n * 2 * row_bytes(c->op->operand[3]) / (double)c->n_tokens;
    return cost;
}
RULE(RING_WRITE) { return (Cost){ 0, 0, 2 * row_bytes(c->op->operand[2]) }; }

Cost cost_of_op(const Op *op, int mode, int64_t n_tokens, int64_t n_context)
{
    static Cost (*const rules[N_OPS])(const CostOf *) = {
#define OP(id, ...) [OP_##id] = cost_##id,
#include "../ir/op.def"
#undef OP
    };
    return rules[op->kind](&(CostOf){ op, mode, n_tokens, n_context });
}

Cost cost_of_block(const Block *block, int mode, int64_t n_tokens, int64_t n_context)
{
    Cost total = { 0 };
    for (const Op *op = block->first; op; op = op->next) {
        Cost cost = cost_of_op(op, mode, n_tokens, n_context);
        total.flops += cost.flops;
        total.weight_bytes += cost.weight_bytes;
        total.state_bytes += cost.state_bytes;
    }
    return total;
}
