/* Targets for several kinds of CPU: what their codes are, and that one plan serves all of them. */
#include "../../compiler/codes.h"

#include "models.h"

#include <string.h>

static void test_codes(void)
{
    TargetId codes[TARGET_MAX_CODES];
    CU_ASSERT_EQUAL(target_codes(TARGET_X86_64_V4, codes), 1);
    CU_ASSERT_EQUAL(codes[0], TARGET_X86_64_V4);
    CU_ASSERT_FALSE(target_has_codes(TARGET_ARM_I8MM));
    CU_ASSERT_EQUAL_FATAL(target_codes(TARGET_ANDROID_ARM64, codes), 3);
    CU_ASSERT_EQUAL(codes[0], TARGET_ARM_NEON);
    /* Each asks for all that the one before asks for, and more: the last that runs is the best. */
    for (int i = 1; i < 3; i++) {
        const char *less = target_info(codes[i - 1])->features, *more = target_info(codes[i])->features;
        CU_ASSERT(strlen(more) > strlen(less) && strncmp(more, less, strlen(less)) == 0);
    }
}

static void check_plan(Arena *arena, const Graph *graph, DType dtype)
{
    TargetId codes[TARGET_MAX_CODES];
    Module *module = models_build(arena, graph, dtype);
    CU_ASSERT_TRUE_FATAL(passes_run(module, pass_families(TARGET_ANDROID_ARM64), diags_new(arena), NULL, NULL));
    const Plan *plan = codes_plan(arena, graph, module, TARGET_ANDROID_ARM64, NULL);
    CU_ASSERT_EQUAL(plan->target, TARGET_ANDROID_ARM64);
    for (int i = 0; i < target_codes(plan->target, codes); i++) {
        const Plan *code = models_plan(arena, graph, dtype, codes[i]);
        CU_ASSERT_EQUAL(code->hash, plan->hash);
        CU_ASSERT_EQUAL(code->weights_len, plan->weights_len);
        CU_ASSERT_EQUAL(code->state_len, plan->state_len);
        CU_ASSERT(code->shared_len <= plan->shared_len && code->private_len <= plan->private_len);
    }
}

static void test_every_graph(void)
{
    glob_t list = models_list(45);
    for (size_t i = 0; i < list.gl_pathc; i++) {
        Arena *arena = arena_new();
        const Graph *graph = models_read(arena, list.gl_pathv[i]);
        check_plan(arena, graph, DTYPE_BF16);
        check_plan(arena, graph, DTYPE_Q8);
        arena_free(arena);
    }
    globfree(&list);
}

static const UnitTest tests[] = {
    { "codes of a target", test_codes },
    { "one plan for all of them, every graph", test_every_graph },
};
UNIT_MAIN("codes", tests)
