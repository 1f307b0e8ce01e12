/* Product: operands of linear, expert_linear and expert_linear_combine by their role. */
#include "product.h"

#include "text.h"

#include <string.h>

bool op_is_product(const Op *op)
{
    return op->kind == OP_LINEAR || op->kind == OP_EXPERT_LINEAR || op->kind == OP_EXPERT_LINEAR_COMBINE;
}

static const Value *operand(const Op *op, int i) { return i < op->n_operands ? op->operand[i] : NULL; }

static bool is_pairs(const Op *op, const Value *x)
{
    /* Rows of x are pairs when there are as many as chosen experts, and more than one a token. */
    const Value *experts = op->operand[2];
    return x->type.dim[0].n == experts->type.dim[0].n && x->type.dim[0].n > 1;
}

Product product_of(const Op *op)
{
    Product p = { .x = op->operand[0], .weight = op->operand[1], .n_experts = 1 };
    if (op->kind == OP_LINEAR) {
        p.bias = operand(op, 2);
        p.accumulate = operand(op, 4) ? 2 : operand(op, 3) ? 1 : 0;
        return p;
    }
    bool combine = op->kind == OP_EXPERT_LINEAR_COMBINE;
    p.n_experts = (int)p.weight->type.dim[0].n;
    p.experts = op->operand[2];
    p.gates = combine ? op->operand[3] : NULL;
    p.bias = operand(op, 3 + combine);
    p.slots = operand(op, 4 + combine);
    p.offsets = operand(op, 5 + combine);
    p.accumulate = combine ? operand(op, 7) != NULL : operand(op, 6) ? 2 : 0;
    p.in_pairs = is_pairs(op, p.x);
    p.out_pairs = !combine;
    return p;
}

bool product_widens(const Op *op)
{
    const int code = product_weight_code(product_of(op).weight);
    return code == 1 || code == 2;
}

int product_weight_code(const Value *weight)
{
    switch (weight->type.dtype) {
    case DTYPE_F32: return 0;
    case DTYPE_BF16: return strcmp(op_attr(weight->def, ATTR_LAYOUT)->str, "panel_pairs") == 0 ? 5 : 1;
    case DTYPE_F16: return strcmp(op_attr(weight->def, ATTR_LAYOUT)->str, "panel_f16") == 0 ? 6 : 2;
    case DTYPE_Q8: return 3;
    case DTYPE_Q4: return 4;
    default: BUG("no kernel reads %s weights", dtype_info(weight->type.dtype)->text);
    }
}
