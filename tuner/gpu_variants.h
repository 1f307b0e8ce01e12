/* Variants of a whole model for a GPU: what is chosen of no single kernel, but of a list of launches. */
#ifndef MOSSC_TUNER_GPU_VARIANTS_H
#define MOSSC_TUNER_GPU_VARIANTS_H

#include "../codegen/space.h"
#include "../ir/plan.h"

/* Does value i of the model's parameter make another decode list than the plan's own, and than values 1 to i - 1? */
bool gpu_variant_differs(const Plan *plan, const SpaceParam *param, int i);

#endif
