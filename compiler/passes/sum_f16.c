/* sum-f16: f16 matrices of a target that sums products in f16 are marked by their layout.
 *
 * They lie as before; their rows are rounded to f16, and the packer bounds their elements. Other types keep their panels.
 */
#include "pass.h"

#include <string.h>

void pass_sum_f16(Module *module)
{
    for (Block *block = module->blocks; block; block = block->next)
        for (Op *op = block->first; op; op = op->next) {
            const Attr *layout = op->kind == OP_WEIGHT ? op_attr(op, ATTR_LAYOUT) : NULL;
            if (layout && strcmp(layout->str, "panel") == 0 && op->result[0]->type.dtype == DTYPE_F16)
                op_set_str(op, ATTR_LAYOUT, "panel_f16");
        }
}
