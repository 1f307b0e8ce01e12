/* Passes: each a function from module to module, run in the order of pass.def. */
#ifndef MOSSC_COMPILER_PASS_H
#define MOSSC_COMPILER_PASS_H

#include "../../ir/module.h"
#include "../../ir/target.h"

#define PASS(id, ...) void pass_##id(Module *module);
#include "pass.def"
#undef PASS

typedef enum { PASS_CPU = 1, PASS_GPU = 2, PASS_BF16 = 4, PASS_F16 = 8, PASS_ALL = PASS_CPU | PASS_GPU } PassFamilies;
typedef struct { const char *name, *summary; PassFamilies families; void (*run)(Module *); } Pass;
extern const Pass passes[];
extern const int n_passes;

/* The families that a target belongs to. */
PassFamilies pass_families(TargetId target);
/* How the packer stores each weight: `layout_for` says what operand `i` of `op` wants; two wishes are a bug. */
void pass_lay_weights(Module *module, const char *(*layout_for)(const Op *op, int i));
/* Run all that are for one of `families`, verifying after each. `dump_after` is a pass's name,
 * "build" for before the first, or NULL; the module's text at that point is appended to `dump`. False after
 * reporting. */
bool passes_run(Module *module, PassFamilies families, Diags *diags, const char *dump_after, Text *dump);
/* Run the named pass alone (tests). False if there is none. */
bool pass_run_one(Module *module, const char *name);

#endif
