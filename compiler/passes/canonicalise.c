/* canonicalise: one form for what can be written in several ways.
 *
 * mul puts a silu first, add puts the block's parameter (the residual) first, a slice of all columns
 * is its operand, a slice of a slice is one slice. Later passes match only these forms.
 */
#include "pass.h"

static void swap_operands(Op *op)
{
    Value *first = op->operand[0];
    op->operand[0] = op->operand[1];
    op->operand[1] = first;
}

static bool is_param(const Block *block, const Value *value)
{
    return block->n_params && value == block->param[0];
}

static void canonicalise_slice(Block *block, Op *op)
{
    Value *x = op->operand[0];
    if (value_is(x, OP_SLICE)) {
        op_set_int(op, ATTR_BEGIN, op_int(op, ATTR_BEGIN, 0) + op_int(x->def, ATTR_BEGIN, 0));
        op->operand[0] = x = x->def->operand[0];
    }
    if (type_equal(x->type, op->result[0]->type))
        value_replace_uses(block, op->result[0], x);
}

void pass_canonicalise(Module *module)
{
    for (Block *block = module->blocks; block; block = block->next) {
        for (Op *op = block->first; op; op = op->next) {
            if (op->kind == OP_MUL && value_is(op->operand[1], OP_SILU) && !value_is(op->operand[0], OP_SILU))
                swap_operands(op);
            else if (op->kind == OP_ADD && is_param(block, op->operand[1]) && !is_param(block, op->operand[0]))
                swap_operands(op);
            else if (op->kind == OP_SLICE)
                canonicalise_slice(block, op);
        }
    }
}
