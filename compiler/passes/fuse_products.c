/* fuse-products: product + weighted sum over experts + residual in one operation.
 *
 * The pairs' rows are never written: the kernel adds gate * row to the token's row, experts in
 * ascending order. The residual is taken in only when the sum is the layer's result, where it may be
 * updated in place.
 */
#include "pass.h"

static bool used_once(const Block *block, const Value *value) { return value_n_uses(block, value) == 1; }

static void replace(Block *block, Op *op, Value *with)
{
    value_take_over(block, with, op->result[0]);
    op_remove(block, op);
}

/* combine(expert_linear(x, w, experts, bias), gates) */
static void fuse_combine(Module *module, Block *block, Op *combine)
{
    Value *pairs = combine->operand[0];
    if (!value_is(pairs, OP_EXPERT_LINEAR) || !used_once(block, pairs))
        return;
    const Op *product = pairs->def;
    Value *bias = product->n_operands > 3 ? product->operand[3] : NULL;
    Value *operands[] = { product->operand[0], product->operand[1], product->operand[2],
                          combine->operand[1], bias };
    Op *op = op_insert(module, block, combine, OP_EXPERT_LINEAR_COMBINE, bias ? 5 : 4, operands);
    replace(block, combine, op_finish(module, block, op, combine->result[0]->name, NULL));
}

/* May x = add's first operand be overwritten by `product`? When the sum is what the layer gives back and
 * nothing but the add reads x from there on. */
static bool may_update(const Block *block, const Op *product, const Op *add)
{
    if (!block->n_params || add->operand[0] != block->param[0] || block->last->operand[0] != add->result[0]
        || !used_once(block, add->result[0]))
        return false;
    for (const Op *op = product->next; op; op = op->next)
        for (int i = 0; i < op->n_operands; i++)
            if (op != add && op->operand[i] == block->param[0])
                return false;
    return true;
}

/* add(x, product): x becomes the product's last operand. */
static void fuse_residual(Block *block, Op *add)
{
    Value *y = add->operand[1];
    int slot = value_is(y, OP_LINEAR) ? 3 : value_is(y, OP_EXPERT_LINEAR_COMBINE) ? 7 : 0;
    if (!slot || !used_once(block, y) || !may_update(block, y->def, add))
        return;
    Op *product = y->def;
    if (slot < product->n_operands && product->operand[slot])
        return;
    for (int i = product->n_operands; i < slot; i++)
        product->operand[i] = NULL;
    product->operand[slot] = add->operand[0];
    product->n_operands = slot + 1;
    replace(block, add, y);
}

void pass_fuse_products(Module *module)
{
    for (Block *block = module->blocks; block; block = block->next) {
        for (Op *op = block->first, *next; op; op = next) {
            next = op->next;
            if (op->kind == OP_COMBINE)
                fuse_combine(module, block, op);
            else if (op->kind == OP_ADD)
                fuse_residual(block, op);
        }
    }
}
