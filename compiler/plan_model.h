/* Plan of a model: what the planners for CPUs and for GPUs share. */
#ifndef MOSSC_COMPILER_PLAN_MODEL_H
#define MOSSC_COMPILER_PLAN_MODEL_H

#include "../ir/plan.h"

/* A plan with the module's blocks in it, nothing in them placed yet. */
Plan *plan_new(Arena *arena, const Graph *graph, Module *module, TargetId target);
BlockPlan *plan_find_block(Plan *plan, const char *name);
/* Where each layer's weights and state begin: main's first, then the layers in order. */
void plan_bind_layers(Arena *arena, Plan *plan);
/* Storage type, costs and hash, once all else is known. */
void plan_finish(Plan *plan);

#endif
