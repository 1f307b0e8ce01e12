/* The kernels that tuning a graph for a GPU can ask for, by name: for the stand-in driver, which must know them.
 *
 *   gpu_names GRAPH.json TARGET MOST
 *
 * Those of the model as it is, then of the first MOST points of each kernel that are not its default, which are tried
 * first with --order grid; matrices in f16. Last those that measure what the GPU can do. MOSSC_TUNE_TOKENS as for
 * `mossc tune`.
 * Exit code: 0 ok, 1 no such graph or target, 2 usage.
 */
#include "../../codegen/codegen.h"
#include "../../compiler/build.h"
#include "../../compiler/gpu_plan.h"
#include "../../compiler/graph_read.h"
#include "../../compiler/passes/pass.h"
#include "../../ir/kernel_key.h"
#include "../../tuner/gpu_jobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { Arena *arena; Diags *diags; Graph *graph; TargetId target; } Model;

static Plan *plan_with(const Model *m, const Choices *choices)
{
    int n;
    graph_tensors(m->graph, m->arena, &n);
    DType *dtypes = arena_array(m->arena, DType, (size_t)n);
    for (int i = 0; i < n; i++)
        dtypes[i] = DTYPE_F16;
    Module *module = build_module(m->arena, m->graph, dtypes);
    if (!passes_run(module, pass_families(m->target), m->diags, NULL, NULL))
        exit(1);
    return gpu_plan_module_chosen(m->arena, m->graph, module, m->target, choices, 0);
}

static void print_names(const Model *m, const Choices *choices)
{
    const Plan *plan = plan_with(m, choices);
    const char **names = codegen_kernel_names(m->arena, plan);
    for (int i = 0; i < plan->launches->n_kernels; i++)
        puts(names[i]);
}

static void print_point(const Model *m, const Job *job, const SpacePoint *point)
{
    Choices *choices = choices_new(m->arena);
    for (int i = 0; i < job->space.n; i++)
        choices_set(choices, job->key, job->space.param[i]->name, point->value[i]);
    print_names(m, choices);
}

static void print_ceilings(const Model *m)
{
    GpuCeiling ceiling;
    for (int i = 0; i < N_CEILINGS; i++)
        if (codegen_ceiling(m->arena, m->target, (CeilingId)i, &ceiling, NULL))
            puts(ceiling.name);
}

int main(int argc, char **argv)
{
    Arena *arena = arena_new();
    Model m = { .arena = arena, .diags = diags_new(arena) };
    if (argc != 4)
        return fputs("usage: gpu_names GRAPH.json TARGET MOST\n", stderr), 2;
    m.graph = graph_read_file(arena, m.diags, argv[1]);
    if (!m.graph || !target_from_name(argv[2], &m.target))
        return fprintf(stderr, "gpu_names: %s for %s cannot be\n", argv[1], argv[2]), 1;
    const int most = atoi(argv[3]);
    int n;
    const Job *jobs = gpu_jobs_of_plan(arena, plan_with(&m, NULL), &n);
    print_names(&m, NULL);
    for (int i = 0; i < n; i++)
        for (int p = 0, left = most; p < jobs[i].n_points && left > 0; p++)
            if (memcmp(&jobs[i].points[p], &jobs[i].initial, sizeof jobs[i].initial) != 0) {
                print_point(&m, &jobs[i], &jobs[i].points[p]);
                left--;
            }
    print_ceilings(&m);
    arena_free(arena);
    return 0;
}
