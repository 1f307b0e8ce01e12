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

bool passes_run(Module *module, PassFamilies family, Diags *diags, const char *dump_after, Text *dump)
{
    if (!module_verify(module, diags))
        return false;
    dump_if(module, dump_after, "build", dump);
    for (int i = 0; i < n_passes; i++) {
        if (!(passes[i].families & family))
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
