/* Plans of a target for several kinds of CPU. */
#ifndef MOSSC_COMPILER_CODES_H
#define MOSSC_COMPILER_CODES_H

#include "plan.h"

/* The plan of a target for several kinds of CPU: its scratch suffices for the code of each. */
Plan *codes_plan(Arena *arena, const Graph *graph, Module *module, TargetId target, const Choices *choices);

#endif
