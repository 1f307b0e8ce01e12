/* specialise: every common block becomes two, prefill of T tokens and decode of one.
 *
 * From here on the two phases are lowered and planned on their own; they share weights and state.
 */
#include "pass.h"

static void keep_specialised(Module *module)
{
    Block **at = &module->blocks;
    while (*at) {
        if ((*at)->phase == PHASE_COMMON)
            *at = (*at)->next;
        else
            at = &(*at)->next;
    }
}

void pass_specialise(Module *module)
{
    Phase phases[] = { PHASE_PREFILL, PHASE_DECODE };
    for (int i = 0; i < 2; i++) {
        for (Block *block = module->blocks; block; block = block->next)
            if (block->phase == PHASE_COMMON)
                block_clone(module, block, phases[i], phases[i] == PHASE_DECODE);
    }
    keep_specialised(module);
}
