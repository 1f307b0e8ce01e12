/* The pass list, from pass.def, and the loop over it. */
#include "pass.h"
#include "../../ir/text.h"

#include <string.h>

const Pass passes[] = {
#define PASS(id, name, families, summary) { name, summary, PASS_##families, pass_##id },
#include "pass.def"
#undef PASS
};
const int n_passes = sizeof passes / sizeof *passes;

static void dump_if(const Module *module, const char *wanted, const char *name, Text *dump)
{
    if (wanted && strcmp(wanted, name) == 0)
        module_print(module, dump);
}

PassFamilies pass_families(TargetId target)
{
    if (target_info(target)->family == FAMILY_GPU)
        return PASS_GPU;
    switch (target_row_dtype(target)) {
    case DTYPE_BF16: return PASS_CPU | PASS_BF16;
    case DTYPE_F16: return PASS_CPU | PASS_F16;
    default: return PASS_CPU;
    }
}

void pass_lay_weights(Module *module, const char *(*layout_for)(const Op *op, int i))
{
    for (Block *block = module->blocks; block; block = block->next)
        for (Op *op = block->first; op; op = op->next)
            for (int i = 0; i < op->n_operands; i++) {
                if (!value_is(op->operand[i], OP_WEIGHT))
                    continue;
                Op *weight = op->operand[i]->def;
                const char *layout = layout_for(op, i);
                const Attr *given = op_attr(weight, ATTR_LAYOUT);
                if (given && strcmp(given->str, layout) != 0)
                    BUG("%s is wanted in two layouts", op_attr(weight, ATTR_TENSOR)->str);
                op_set_str(weight, ATTR_LAYOUT, layout);
            }
}

bool passes_run(Module *module, PassFamilies families, Diags *diags, const char *dump_after, Text *dump)
{
    if (!module_verify(module, diags))
        return false;
    dump_if(module, dump_after, "build", dump);
    for (int i = 0; i < n_passes; i++) {
        if (!(passes[i].families & families))
            continue;
        passes[i].run(module);
        if (!module_verify(module, diags)) {
            diag_note(diags, NULL, "after pass %s", passes[i].name);
            return false;
        }
        dump_if(module, dump_after, passes[i].name, dump);
    }
    return true;
}

bool pass_run_one(Module *module, const char *name)
{
    for (int i = 0; i < n_passes; i++) {
        if (strcmp(passes[i].name, name) == 0) {
            passes[i].run(module);
            return true;
        }
    }
    return false;
}
