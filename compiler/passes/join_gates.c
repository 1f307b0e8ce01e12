/* join-gates: gate and up of an mlp become one product whose columns are theirs in turn.
 *
 * Both read the same rows, and the kernel that has gate and up of a column side by side in its registers
 * ends with silu(gate) * up: swiglu(x · G, x · U) = swiglu_pairs(x · W), row 2j of W from G and 2j + 1 from U.
 */
#include "pass.h"

static bool is_product(const Value *value) { return value_is(value, OP_LINEAR) || value_is(value, OP_EXPERT_LINEAR); }

/* Nothing but the weight is different, and the whole weight is read. */
static bool may_join(const Block *block, const Value *gate, const Value *up)
{
    if (!is_product(gate) || !is_product(up) || gate->def->kind != up->def->kind
        || value_n_uses(block, gate) != 1 || value_n_uses(block, up) != 1)
        return false;
    const Op *a = gate->def, *b = up->def;
    for (int i = 0; i < OP_MAX_OPERANDS; i++) {
        const Value *x = i < a->n_operands ? a->operand[i] : NULL, *y = i < b->n_operands ? b->operand[i] : NULL;
        if (i != 1 && x != y)
            return false;
    }
    return type_equal(a->operand[1]->type, b->operand[1]->type) && !op_attr(a->operand[1]->def, ATTR_ROWS)
        && !op_attr(b->operand[1]->def, ATTR_ROWS);
}

static void join(Module *module, Block *block, Op *swiglu)
{
    Op *gate = swiglu->operand[0]->def, *up = swiglu->operand[1]->def;
    Type type = gate->operand[1]->type;
    type.dim[type.rank - 2].n *= 2;
    Op *weight = op_insert(module, block, swiglu, OP_WEIGHT, 0, NULL);
    op_set_str(weight, ATTR_TENSOR, op_attr(gate->operand[1]->def, ATTR_TENSOR)->str);
    op_set_str(weight, ATTR_PAIR, op_attr(up->operand[1]->def, ATTR_TENSOR)->str);
    Value *operands[OP_MAX_OPERANDS];
    for (int i = 0; i < gate->n_operands; i++)
        operands[i] = gate->operand[i];
    operands[1] = op_finish(module, block, weight, "gate_up_weight", &type);
    Op *product = op_insert(module, block, swiglu, gate->kind, gate->n_operands, operands);
    Value *both = op_finish(module, block, product, "gate_up", NULL);
    Op *end = op_insert(module, block, swiglu, OP_SWIGLU_PAIRS, 1, &both);
    value_take_over(block, op_finish(module, block, end, "h_pairs", NULL), swiglu->result[0]);
    Op *gate_weight = gate->operand[1]->def, *up_weight = up->operand[1]->def;
    op_remove(block, swiglu);
    op_remove(block, up);
    op_remove(block, gate);
    op_remove(block, gate_weight);
    op_remove(block, up_weight);
}

void pass_join_gates(Module *module)
{
    for (Block *block = module->blocks; block; block = block->next)
        for (Op *op = block->first, *next; op; op = next) {
            next = op->next;
            if (op->kind == OP_SWIGLU && may_join(block, op->operand[0], op->operand[1]))
                join(module, block, op);
        }
}
