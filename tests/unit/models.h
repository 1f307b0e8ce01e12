/* The repository's graphs, and what the compiler makes of them: shared by the tests of IR and plan. */
#ifndef MOSSC_TESTS_MODELS_H
#define MOSSC_TESTS_MODELS_H

#include "../../compiler/build.h"
#include "../../compiler/gpu_plan.h"
#include "../../compiler/graph_read.h"
#include "../../compiler/passes/pass.h"
#include "../../compiler/plan.h"
#include "unit.h"

#include <glob.h>
#include <stdio.h>

/* Paths of models/ and of the golden logits' graphs; at least `least` of them. */
static inline glob_t models_list(unsigned least)
{
    glob_t list = { 0 };
    glob(UNIT_ROOT "/models/*.json", 0, NULL, &list);
    glob(UNIT_ROOT "/tests/data/golden_logits/*/graph.json", GLOB_APPEND, NULL, &list);
    CU_ASSERT_FATAL(list.gl_pathc >= least);
    return list;
}

/* Before the passes, matrices in `dtype`. */
static inline Module *models_build(Arena *arena, const Graph *graph, DType dtype)
{
    int n;
    graph_tensors(graph, arena, &n);
    DType *dtypes = arena_array(arena, DType, (size_t)n);
    for (int i = 0; i < n; i++)
        dtypes[i] = dtype;
    return build_module(arena, graph, dtypes);
}

static inline Graph *models_read(Arena *arena, const char *path)
{
    Graph *graph = graph_read_file(arena, diags_new(arena), path);
    CU_ASSERT_PTR_NOT_NULL_FATAL(graph);
    return graph;
}

static inline Graph *models_read_text(Arena *arena, const char *text)
{
    Graph *graph = graph_read_text(arena, diags_new(arena), "test.json", text, strlen(text));
    CU_ASSERT_PTR_NOT_NULL_FATAL(graph);
    return graph;
}

static inline Plan *models_plan(Arena *arena, const Graph *graph, DType dtype, TargetId target)
{
    Module *module = models_build(arena, graph, dtype);
    bool gpu = target_sm(target) != 0;
    CU_ASSERT_TRUE_FATAL(passes_run(module, pass_families(target), diags_new(arena), NULL, NULL));
    return (gpu ? gpu_plan_module : plan_module)(arena, graph, module, target);
}

#endif
