/* pair-bf16: bf16 matrices of a target that multiplies bf16 lie with two k beside each other.
 *
 * A step of its products is two k. Other types keep their panels.
 */
#include "pass.h"

#include <string.h>

void pass_pair_bf16(Module *module)
{
    for (Block *block = module->blocks; block; block = block->next)
        for (Op *op = block->first; op; op = op->next) {
            const Attr *layout = op->kind == OP_WEIGHT ? op_attr(op, ATTR_LAYOUT) : NULL;
            if (layout && strcmp(layout->str, "panel") == 0 && op->result[0]->type.dtype == DTYPE_BF16)
                op_set_str(op, ATTR_LAYOUT, "panel_pairs");
        }
}
