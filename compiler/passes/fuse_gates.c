/* fuse-gates: swiglu(gate, x · W) becomes the product's own end.
 *
 * The product writes silu(gate) * result over the gate, so the second factor is never written and the
 * gate is read where the result appears. Only for a gate that is ready before the product and read by nobody else.
 */
#include "pass.h"

/* The operand that takes the gate; 0: not such a product. */
static int gate_operand(OpKind kind)
{
    return kind == OP_LINEAR ? 4 : kind == OP_EXPERT_LINEAR ? 6 : 0;
}

static bool is_before(const Op *first, const Op *second)
{
    while (first && first != second)
        first = first->next;
    return first != NULL;
}

/* A product that writes a value of its own, not over another. */
static bool is_plain_product(const Op *op)
{
    int slot = op ? gate_operand(op->kind) : 0;
    bool residual = slot && op->kind == OP_LINEAR && op->n_operands > 3 && op->operand[3];
    return slot && op->n_operands <= slot && !residual;
}

static bool may_fuse(const Block *block, const Op *swiglu)
{
    const Value *gate = swiglu->operand[0], *factor = swiglu->operand[1];
    return value_n_uses(block, gate) == 1 && value_n_uses(block, factor) == 1 && is_plain_product(gate->def)
        && is_plain_product(factor->def) && is_before(gate->def, factor->def);
}

static void fuse(Block *block, Op *swiglu)
{
    Op *product = swiglu->operand[1]->def;
    int slot = gate_operand(product->kind);
    for (int i = product->n_operands; i < slot; i++)
        product->operand[i] = NULL;
    product->operand[slot] = swiglu->operand[0];
    product->n_operands = slot + 1;
    value_take_over(block, product->result[0], swiglu->result[0]);
    op_remove(block, swiglu);
}

void pass_fuse_gates(Module *module)
{
    for (Block *block = module->blocks; block; block = block->next)
        for (Op *op = block->first, *next; op; op = next) {
            next = op->next;
            if (op->kind == OP_SWIGLU && may_fuse(block, op))
                fuse(block, op);
        }
}
