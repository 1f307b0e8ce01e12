/* Passes: each a function from module to module, run in the order of pass.def. */
#ifndef MOSSC_COMPILER_PASS_H
#define MOSSC_COMPILER_PASS_H

#include "../../ir/module.h"

#define PASS(id, ...) void pass_##id(Module *module);
#include "pass.def"
#undef PASS

typedef struct { const char *name, *summary; void (*run)(Module *); } Pass;
extern const Pass passes[];
extern const int n_passes;

/* Run them all, verifying after each. `dump_after` is a pass's name, "build" for before the first, or
 * NULL; the module's text at that point is appended to `dump`. False after reporting. */
bool passes_run(Module *module, Diags *diags, const char *dump_after, Text *dump);
/* Run the named pass alone (tests). False if there is none. */
bool pass_run_one(Module *module, const char *name);

#endif
