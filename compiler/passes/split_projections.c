/* split-projections: a slice of a product becomes a product with those rows of the weight.
 *
 * slice(x W^T) = x (rows of W)^T, also behind the weighted sum over experts, which works column by
 * column. Afterwards no activation is a view into another: every value owns its padded columns, so
 * kernels need no tails and threads that share out columns meet the same ones in the next
 * operation. The whole products left behind are dead.
 */
#include "pass.h"

#include <string.h>

/* The weight restricted to rows [begin, begin + len) of its out axis. */
static Value *weight_rows(Module *module, Block *block, Op *before, Op *weight, int64_t begin, int64_t len,
                          const char *name)
{
    Type type = weight->result[0]->type;
    const Attr *rows = op_attr(weight, ATTR_ROWS);
    int64_t range[2] = { begin + (rows ? rows->ints.at[0] : 0), len };
    type.dim[type.rank - 2] = dim_of(len, SYM_ONE);
    Op *part = op_insert(module, block, before, OP_WEIGHT, 0, NULL);
    op_set_str(part, ATTR_TENSOR, op_attr(weight, ATTR_TENSOR)->str);
    op_set_ints(part, ATTR_ROWS, range, 2);
    return op_finish(module, block, part, name, &type);
}

/* A copy of `product` that computes only some columns; NULL when it has a bias or a residual. */
static Value *product_columns(Module *module, Block *block, Op *before, const Op *product, int64_t begin,
                              int64_t len, const char *name)
{
    Value *operands[OP_MAX_OPERANDS] = { 0 };
    memcpy(operands, product->operand, sizeof operands);
    int plain = product->kind == OP_LINEAR ? 2 : 3;    /* operands before bias and residual */
    for (int i = plain; i < product->n_operands; i++)
        if (operands[i])
            return NULL;
    operands[1] = weight_rows(module, block, before, operands[1]->def, begin, len,
                              arena_printf(module->arena, "%s_weight", name));
    Op *part = op_insert(module, block, before, product->kind, plain, operands);
    return op_finish(module, block, part, name, NULL);
}

static bool is_product(const Value *value) { return value_is(value, OP_LINEAR) || value_is(value, OP_EXPERT_LINEAR); }

static Value *slice_product(Module *module, Block *block, Op *slice)
{
    Value *x = slice->operand[0];
    int64_t begin = op_int(slice, ATTR_BEGIN, 0), len = op_int(slice, ATTR_LEN, 0);
    const char *name = slice->result[0]->name;
    if (is_product(x))
        return product_columns(module, block, slice, x->def, begin, len, name);
    if (!value_is(x, OP_COMBINE) || !is_product(x->def->operand[0]))
        return NULL;
    Value *pairs = product_columns(module, block, slice, x->def->operand[0]->def, begin, len,
                                   arena_printf(module->arena, "%s_pairs", name));
    if (!pairs)
        return NULL;
    Value *operands[] = { pairs, x->def->operand[1] };
    return op_finish(module, block, op_insert(module, block, slice, OP_COMBINE, 2, operands), name, NULL);
}

void pass_split_projections(Module *module)
{
    for (Block *block = module->blocks; block; block = block->next) {
        for (Op *op = block->first, *next; op; op = next) {
            next = op->next;
            Value *part = op->kind == OP_SLICE ? slice_product(module, block, op) : NULL;
            if (part) {
                value_take_over(block, part, op->result[0]);
                op_remove(block, op);
            }
        }
    }
}
