/* group-experts: in prefill the pairs of each router are sorted by expert, once.
 *
 * Every product with that router's choice then reads an expert's weights once for all of its tokens.
 * Decode has one token and reads its few experts directly.
 */
#include "pass.h"

#include <string.h>

/* First slot of the operands (slots, offsets); 0: not a product with experts. */
static int slots_operand(OpKind kind)
{
    return kind == OP_EXPERT_LINEAR ? 4 : kind == OP_EXPERT_LINEAR_COMBINE ? 5 : 0;
}

static Op *group_of(Module *module, Block *block, Op *before, Value *experts, int64_t n_experts)
{
    for (Op *op = block->first; op != before; op = op->next)
        if (op->kind == OP_GROUP && op->operand[0] == experts)
            return op;
    Op *op = op_insert(module, block, before, OP_GROUP, 1, &experts);
    op_set_int(op, ATTR_EXPERTS, n_experts);
    /* ssm_experts -> ssm_slots, ssm_offsets */
    const char *end = strrchr(experts->name, '_');
    op_finish(module, block, op, end ? arena_strndup(module->arena, experts->name, (size_t)(end - experts->name))
                                     : experts->name, NULL);
    return op;
}

void pass_group_experts(Module *module)
{
    for (Block *block = module->blocks; block; block = block->next) {
        for (Op *op = block->first; op && block->phase == PHASE_PREFILL; op = op->next) {
            int slot = slots_operand(op->kind);
            if (!slot)
                continue;
            Op *group = group_of(module, block, op, op->operand[2], op->operand[1]->type.dim[0].n);
            for (int i = op->n_operands; i < slot; i++)
                op->operand[i] = NULL;
            op->operand[slot] = group->result[0];
            op->operand[slot + 1] = group->result[1];
            if (op->n_operands < slot + 2)
                op->n_operands = slot + 2;
        }
    }
}
