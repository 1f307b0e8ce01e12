/* device-layouts: how weights, keys and values lie in a GPU's memory.
 *
 * Matrices keep their rows, padded to whole tiles; dt_proj with experts has its experts side by side, so
 * that one product adds them up; A_log becomes the decay the scan multiplies with. The rest stays as in the
 * checkpoint. Keys and values are kept in the 16 bits of activations.
 */
#include "pass.h"
#include "../../ir/text.h"

#include <string.h>

/* Does a slice of x_proj's result, still by pair, go into this product? Then it is dt_proj's. */
static bool is_joined(const Op *op) { return op->kind == OP_EXPERT_LINEAR && value_is(op->operand[0], OP_SLICE); }

static const char *layout_for(const Op *op, int i)
{
    switch (op->kind) {
    case OP_EMBED:
        return "device";
    case OP_LINEAR: case OP_EXPERT_LINEAR:
        return i != 1 ? "rows" : op_attr(op->operand[1]->def, ATTR_PAIR) ? "device_pairs"
             : is_joined(op) ? "device_joined" : "device";
    case OP_SCAN:
        return i == 3 ? "device_decay" : "rows";
    default:
        return "rows";
    }
}

/* x' is the first half of in_proj's result, z the second: both must begin at a multiple of 8. */
static void split_in_parts(const Op *conv)
{
    const Value *x = conv->operand[0];
    x = value_is(x, OP_SLICE) ? x->def->operand[0] : NULL;
    x = x && value_is(x, OP_COMBINE) ? x->def->operand[0] : x;
    if (x && (value_is(x, OP_LINEAR) || value_is(x, OP_EXPERT_LINEAR)))
        op_set_int(x->def->operand[1]->def, ATTR_PARTS, 2);
}

/* bf16 where matrices are, else f16. */
static DType activation_type(const Module *module)
{
    for (const Block *block = module->blocks; block; block = block->next)
        for (const Op *op = block->first; op; op = op->next)
            if (op->kind == OP_WEIGHT && op->result[0]->type.dtype == DTYPE_BF16)
                return DTYPE_BF16;
    return DTYPE_F16;
}

void pass_device_layouts(Module *module)
{
    DType act = activation_type(module);
    pass_lay_weights(module, layout_for);
    for (Block *block = module->blocks; block; block = block->next) {
        for (Op *op = block->first; op; op = op->next) {
            if (op->kind == OP_CONV1D)
                split_in_parts(op);
            if (op->kind == OP_ATTENTION)
                op->operand[3]->type.dtype = op->operand[4]->type.dtype = act;
        }
    }
}
