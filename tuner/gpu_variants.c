/* Variants: plans with a value each, told apart by the launches of their decode lists. */
#include "gpu_variants.h"

#include "../compiler/gpu_plan.h"
#include "../ir/kernel_key.h"
#include "../ir/text.h"

#include <string.h>

/* What one token of a sequence launches: kernels with their parameters, grids. */
static Text decode_list(const Plan *plan)
{
    const Launches *l = plan->launches;
    Text text = { 0 };
    for (int i = l->lists[LIST_DECODE].begin; i < l->lists[LIST_DECODE].end; i++) {
        const Launch *launch = &l->launches[i];
        const Kernel *kernel = &l->kernels[launch->kernel];
        text_printf(&text, "%s %d %d %d:", kernel->template, launch->grid[0].extra, launch->shared_len, launch->flags);
        for (int p = 0; p < kernel->n_params; p++)
            text_printf(&text, " %g", kernel->params[p].value);
        text_printf(&text, "\n");
    }
    return text;
}

static Text list_with(const Plan *plan, const SpaceParam *param, int i)
{
    Arena *arena = arena_new();
    Choices *choices = choices_new(arena);
    if (i > 0)
        choices_set(choices, KERNEL_KEY_MODEL, param->name, param->values[i]);
    Text list = decode_list(gpu_plan_module_chosen(arena, plan->graph, (Module *)plan->module, plan->target, choices, 0));
    arena_free(arena);
    return list;
}

bool gpu_variant_differs(const Plan *plan, const SpaceParam *param, int i)
{
    Text own = list_with(plan, param, i);
    bool differs = true;
    for (int j = 0; j < i && differs; j++) {
        Text other = list_with(plan, param, j);
        differs = strcmp(own.data, other.data) != 0;
        text_free(&other);
    }
    text_free(&own);
    return differs;
}
