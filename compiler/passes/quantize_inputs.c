/* quantize-inputs: products with quantised weights read int8 rows.
 *
 * Each float32 value that such a product reads is quantised once, right after its definition, for
 * all products that read it. Routers, the scan, attention and everything else go on reading the
 * float32 value. See ir/quant.h for what a quantised row is.
 */
#include "pass.h"
#include "../../ir/quant.h"

static bool is_product(const Op *op)
{
    return op->kind == OP_LINEAR || op->kind == OP_EXPERT_LINEAR || op->kind == OP_EXPERT_LINEAR_COMBINE;
}

static bool wants_quantised(const Op *op)
{
    return is_product(op) && dtype_is_quantised(op->operand[1]->type.dtype)
        && !dtype_is_quantised(op->operand[0]->type.dtype);
}

/* The quantised form of `x`, made once; a parameter is quantised where the block begins. */
static Value *quantised(Module *module, Block *block, Value *x)
{
    for (const Op *op = block->first; op; op = op->next)
        if (op->kind == OP_QUANTIZE && op->operand[0] == x)
            return op->result[0];
    Op *op = op_insert(module, block, x->def ? x->def->next : block->first, OP_QUANTIZE, 1, &x);
    return op_finish(module, block, op, arena_printf(module->arena, "%s_q8", x->name), NULL);
}

void pass_quantize_inputs(Module *module)
{
    for (Block *block = module->blocks; block; block = block->next)
        for (Op *op = block->first; op; op = op->next)
            if (wants_quantised(op))
                op->operand[0] = quantised(module, block, op->operand[0]);
}
