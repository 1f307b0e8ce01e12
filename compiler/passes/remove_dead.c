/* remove-dead: operations without effect whose results nobody uses go, from the last to the first. */
#include "pass.h"

static bool is_dead(const Block *block, const Op *op)
{
    if (!(op_info(op->kind).flags & OP_FLAG_PURE))
        return false;
    for (int r = 0; r < op->n_results; r++)
        if (value_n_uses(block, op->result[r]))
            return false;
    return true;
}

void pass_remove_dead(Module *module)
{
    for (Block *block = module->blocks; block; block = block->next) {
        for (Op *op = block->last, *prev; op; op = prev) {
            prev = op->prev;
            if (is_dead(block, op))
                op_remove(block, op);
        }
    }
}
