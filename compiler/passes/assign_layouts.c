/* assign-layouts: how the packer stores each weight, decided by who reads it.
 *
 * Matrices of products (and the embedding, so that a tied head shares its bytes) go into panels; what
 * is read channel by channel is padded to whole panels, transposed where channels must be the
 * contiguous axis; A_log becomes the decay the scan multiplies with. The rest stays in rows.
 */
#include "pass.h"

/* The layout operand `i` of `op` wants. */
static const char *layout_for(const Op *op, int i)
{
    switch (op->kind) {
    case OP_EMBED:
        return "panel";
    case OP_LINEAR:
        return i == 1 ? "panel" : "vector";
    case OP_EXPERT_LINEAR:
    case OP_EXPERT_LINEAR_COMBINE:
        return i == 1 ? "panel" : "vector";
    case OP_CONV1D:
        return i == 1 ? "taps" : "vector";
    case OP_SCAN:
        return i == 3 ? "decay" : "vector";
    case OP_RMS_NORM:
    case OP_RMS_NORM_ROUTE:
        return i == 1 ? "vector" : "rows";
    default:
        return "rows";
    }
}

void pass_assign_layouts(Module *module) { pass_lay_weights(module, layout_for); }
