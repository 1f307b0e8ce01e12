/* Choices in plans, the space they come from, and decisions from samples.
 *
 * Every graph of the repository is planned with points drawn from the space of each of its kernels; the checker of
 * plans must find nothing. Decisions are put to samples whose truth is known.
 */
#include "../../ir/kernel_key.h"
#include "../../tuner/cost.h"
#include "../../tuner/decide.h"
#include "../../tuner/jobs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models.h"

static uint64_t seed = 1;
static uint64_t bits(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed >> 11;
}

static Plan *plan_with(Arena *arena, const Graph *graph, DType dtype, TargetId target, const Choices *choices)
{
    Module *module = models_build(arena, graph, dtype);
    CU_ASSERT_TRUE_FATAL(passes_run(module, pass_families(target), diags_new(arena), NULL, NULL));
    return plan_module_chosen(arena, graph, module, target, choices);
}

static char *print(const Plan *plan)
{
    Text text = { 0 };
    plan_print(plan, &text);
    return text.data;
}

/* No choices, none of this plan's kernels, and the defaults by name are all the same plan. */
static void test_nothing_chosen(void)
{
    Arena *arena = arena_new();
    const Graph *graph = models_read(arena, UNIT_ROOT "/docs/example.json");
    Plan *plan = plan_with(arena, graph, DTYPE_BF16, TARGET_X86_64_V4, NULL);
    Choices *others = choices_new(arena), *defaults = choices_new(arena);
    choices_set(others, "gemm n_in=1", "tile_rows", 4);
    int n;
    const Job *jobs = jobs_of_plan(arena, plan, &n);
    CU_ASSERT(n > 15);
    for (int i = 0; i < n; i++)
        for (int p = 0; p < jobs[i].space.n; p++)
            choices_set(defaults, jobs[i].key, jobs[i].space.param[p]->name, jobs[i].initial.value[p]);
    char *none = print(plan);
    char *of_others = print(plan_with(arena, graph, DTYPE_BF16, TARGET_X86_64_V4, others));
    char *of_defaults = print(plan_with(arena, graph, DTYPE_BF16, TARGET_X86_64_V4, defaults));
    CU_ASSERT_STRING_EQUAL(none, of_others);
    CU_ASSERT_STRING_EQUAL(none, of_defaults);
    free(none), free(of_others), free(of_defaults);
    arena_free(arena);
}

static void check_drawn(const char *path, DType dtype, TargetId target)
{
    Arena *arena = arena_new();
    const Graph *graph = models_read(arena, path);
    Plan *plan = plan_with(arena, graph, dtype, target, NULL);
    Choices *choices = choices_new(arena);
    int n;
    const Job *jobs = jobs_of_plan(arena, plan, &n);
    double shares[N_PLAN_PHASES] = { 0 };
    for (int i = 0; i < n; i++) {
        shares[jobs[i].phase] += jobs[i].share;
        if (jobs[i].n_points == 0)
            continue;
        const SpacePoint *point = &jobs[i].points[bits() % (uint64_t)jobs[i].n_points];
        for (int p = 0; p < jobs[i].space.n; p++)
            choices_set(choices, jobs[i].key, jobs[i].space.param[p]->name, point->value[p]);
        CU_ASSERT(cost_of_point(&jobs[i], point, jobs[i].tokens[0]) >= 0);
    }
    CU_ASSERT(fabs(shares[PLAN_PREFILL] - 1) < 1e-9 && fabs(shares[PLAN_DECODE] - 1) < 1e-9);
    choices_set(choices, KERNEL_KEY_MODEL, "chunk", 64 << bits() % 4);
    choices_set(choices, KERNEL_KEY_MODEL, "row_split", (1 << bits() % 8) - 1);
    choices_set(choices, KERNEL_KEY_MODEL, "route_apart", (int)(bits() % 2));
    Plan *chosen = plan_with(arena, graph, dtype, target, choices);
    Text why = { 0 };
    bool good = plan_check(chosen, &why);
    CU_ASSERT_TRUE(good);
    CU_ASSERT_EQUAL(chosen->hash, plan->hash);      /* the same weights and states */
    if (!good)
        printf("%s, %s: %s\n", path, target_info(target)->name, why.data);
    text_free(&why);
    arena_free(arena);
}

static void test_every_graph(void)
{
    static const DType dtypes[] = { DTYPE_BF16, DTYPE_F16, DTYPE_F32 };
    glob_t list = models_list(45);
    int n = 0;
    for (size_t i = 0; i < list.gl_pathc; i++)
        for (int t = 0; t < N_TARGETS; t++)
            if (t != TARGET_HOST && target_info((TargetId)t)->family != FAMILY_GPU && !target_has_codes((TargetId)t))
                check_drawn(list.gl_pathv[i], dtypes[n++ % 3], (TargetId)t);
    globfree(&list);
}

/* What records may hold of other code must not break a plan. */
static void test_senseless_choices(void)
{
    static const int64_t values[] = { -1, 0, 1, 3, 7, 15, 1000, 1 << 30 };
    Arena *arena = arena_new();
    const Graph *graph = models_read(arena, UNIT_ROOT "/models/mixtral-8x8m.json");
    Plan *plan = plan_with(arena, graph, DTYPE_BF16, TARGET_X86_64_V3, NULL);
    int n;
    const Job *jobs = jobs_of_plan(arena, plan, &n);
    for (int round = 0; round < 20; round++) {
        Choices *choices = choices_new(arena);
        for (int i = 0; i < n; i++)
            for (int p = 0; p < jobs[i].space.n; p++)
                choices_set(choices, jobs[i].key, jobs[i].space.param[p]->name, values[bits() % 8]);
        choices_set(choices, KERNEL_KEY_MODEL, "chunk", values[bits() % 8]);
        choices_set(choices, KERNEL_KEY_MODEL, "row_split", values[bits() % 8]);
        Text why = { 0 };
        CU_ASSERT_TRUE(plan_check(plan_with(arena, graph, DTYPE_BF16, TARGET_X86_64_V3, choices), &why));
        text_free(&why);
    }
    arena_free(arena);
}

/* ---- the table of choices ---- */

static void test_table(void)
{
    Arena *arena = arena_new();
    Choices *choices = choices_new(arena);
    CU_ASSERT_EQUAL(choices_get(NULL, "a", "x", 5), 5);
    for (int i = 0; i < 100; i++)
        choices_set(choices, arena_printf(arena, "key %d", i), "x", i);
    choices_set(choices, "key 7", "x", 70);
    choices_set(choices, "key 7", "y", 71);
    CU_ASSERT_EQUAL(choices_get(choices, "key 7", "x", 0), 70);
    CU_ASSERT_EQUAL(choices_get(choices, "key 7", "y", 0), 71);
    CU_ASSERT_EQUAL(choices_get(choices, "key 7", "z", -3), -3);
    Choices *copy = choices_copy(arena, choices);
    choices_drop(choices, "key 7");
    CU_ASSERT_EQUAL(choices_get(choices, "key 7", "x", 0), 0);
    CU_ASSERT_EQUAL(choices_get(choices, "key 8", "x", 0), 8);
    CU_ASSERT_EQUAL(choices_get(choices, "key 99", "x", 0), 99);
    CU_ASSERT_EQUAL(choices_get(copy, "key 7", "y", 0), 71);
    CU_ASSERT_EQUAL(copy->n, 100);
    arena_free(arena);
}

/* ---- the space ---- */

static void test_space_text(void)
{
    static const char *const wrong[] = { "", "key_block=64", "key_block=64 tile_rows=4",
        "tile_rows=4 key_block=64 token_block=12", "key_block=64 tile_rows=4 token_block=12 ",
        "key_block= tile_rows=4 token_block=12", "key_block=64 tile_rows=4 token_block=-2",
        "key_block=64  tile_rows=4 token_block=12", "key_block=99999999999 tile_rows=4 token_block=12" };
    SearchSpace space;
    SpacePoint point, again;
    Arena *arena = arena_new();
    CU_ASSERT_TRUE_FATAL(space_find("gemm", &space));
    CU_ASSERT_EQUAL(space.n, 7);
    const SpaceShape shape = { .target = TARGET_X86_64_V4, .n_in = 512, .n_out = 512, .row_len = 2048, .chunk = 512,
                               .l2_len = 2 << 20 };
    SpacePoint *points;
    int n = space_points(arena, &space, &shape, &points);
    CU_ASSERT(n > 50);
    for (int i = 0; i < n; i++) {
        Text text = { 0 };
        space_print(&space, &points[i], &text);
        CU_ASSERT_TRUE(space_read(&space, text.data, &again));
        CU_ASSERT_EQUAL(memcmp(&again, &points[i], sizeof again), 0);
        text_free(&text);
    }
    CU_ASSERT_TRUE_FATAL(space_find("attention", &space));
    CU_ASSERT_TRUE(space_read(&space, "key_block=64 tile_rows=4 token_block=12", &point));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CU_ASSERT_FALSE(space_read(&space, wrong[i], &point));
    CU_ASSERT_FALSE(space_find("conv1d", &space));
    arena_free(arena);
}

/* Registers, tails that divide, and a cache that holds what is packed. */
static void test_space_rules(void)
{
    Arena *arena = arena_new();
    SearchSpace space;
    SpacePoint *points;
    space_find("gemm", &space);
    int tile = space_param(&space, "tile_rows"), tail = space_param(&space, "tail_rows");
    int block = space_param(&space, "block_rows");
    for (int wide = 0; wide < 2; wide++) {
        const SpaceShape shape = { .target = wide ? TARGET_X86_64_V4 : TARGET_X86_64_V3, .n_in = 2048, .row_len = 8192,
                                   .chunk = 256,
                                   .l2_len = 1 << 20 };
        int n = space_points(arena, &space, &shape, &points), most = 0;
        CU_ASSERT(n > 5);
        for (int i = 0; i < n; i++) {
            const int *v = points[i].value;
            CU_ASSERT(v[tile] % v[tail] == 0 && v[tail] < v[tile]);
            CU_ASSERT(v[block] <= 256 && (v[block] + 8) * 8192 <= 1 << 20);
            most = v[tile] > most ? v[tile] : most;
        }
        CU_ASSERT_EQUAL(most, wide ? 14 : 6);
    }
    arena_free(arena);
}

/* Do all points of `kernel` have at most `most` of a parameter, and does one have just that? */
static bool most_is(const char *kernel, const char *name, TargetId target, const SpaceShape *bounds, int most)
{
    Arena *arena = arena_new();
    SearchSpace space;
    SpaceShape shape = *bounds;
    SpacePoint *points;
    int found = -1;
    shape.target = target;
    CU_ASSERT_TRUE_FATAL(space_find(kernel, &space));
    const int n = space_points(arena, &space, &shape, &points), param = space_param(&space, name);
    for (int i = 0; i < n; i++)
        found = points[i].value[param] > found ? points[i].value[param] : found;
    arena_free(arena);
    return found == most;
}

/* Lines are for x86 alone; blocks of k are shorter than k and fit the first cache; only narrow weights are widened;
 * streams fit registers and columns. */
static void test_space_lines(void)
{
    const SpaceShape wide = { .n_in = 2048, .n_out = 2048, .row_len = 8192, .chunk = 512, .l2_len = 2 << 20 };
    const SpaceShape narrow = { .n_in = 192, .n_out = 64, .row_len = 768, .chunk = 512, .l2_len = 2 << 20 };
    const SpaceShape bf16 = { .n_in = 192, .n_out = 64, .row_len = 768, .widened = true, .chunk = 512,
                              .l2_len = 2 << 20 };
    CU_ASSERT_TRUE(most_is("gemm", "widen", TARGET_X86_64_V4, &narrow, 0));
    CU_ASSERT_TRUE(most_is("gemm", "widen", TARGET_X86_64_V4, &bf16, 1));
    CU_ASSERT_TRUE(most_is("gemm", "widen", TARGET_ARM_NEON, &bf16, 1));
    CU_ASSERT_TRUE(most_is("route", "by_lanes", TARGET_X86_64_V4, &wide, 1));
    CU_ASSERT_TRUE(most_is("gemm", "pack_lines", TARGET_X86_64_V3, &wide, 1));
    CU_ASSERT_TRUE(most_is("gemm_q", "pack_lines", TARGET_X86_64_VNNI, &wide, 1));
    CU_ASSERT_TRUE(most_is("gemm", "pack_lines", TARGET_ARM_NEON, &wide, 0));
    CU_ASSERT_TRUE(most_is("gemm_q", "pack_lines", TARGET_ARM_DOTPROD, &wide, 0));
    CU_ASSERT_TRUE(most_is("gemm", "k_block", TARGET_X86_64_V4, &wide, 512));
    CU_ASSERT_TRUE(most_is("gemm", "k_block", TARGET_X86_64_V3, &wide, 1024));
    CU_ASSERT_TRUE(most_is("gemm", "k_block", TARGET_X86_64_V3, &narrow, 128));
    CU_ASSERT_TRUE(most_is("gemm", "k_block", TARGET_ARM_BF16, &wide, 0));
    CU_ASSERT_TRUE(most_is("gemv", "streams", TARGET_X86_64_V4, &wide, 8));
    CU_ASSERT_TRUE(most_is("gemv_q", "streams", TARGET_X86_64_V3, &wide, 6));
    CU_ASSERT_TRUE(most_is("gemv_q", "streams", TARGET_ARM_NEON, &wide, 6));
    CU_ASSERT_TRUE(most_is("gemv", "streams", TARGET_X86_64_V4, &narrow, 2));
}

/* ---- decisions ---- */

static double noise(double by) { return 1 + by * ((double)(bits() & 0xFFFFF) / 0x100000 - 0.5); }

/* As trials are: pair after pair, until it is known. Machine that drifts by half, samples that are off by `by`. */
static int wins(double speed, double by)
{
    int n_wins = 0;
    for (int trial = 0; trial < 1000; trial++) {
        double candidate[DECIDE_MOST_PAIRS], incumbent[DECIDE_MOST_PAIRS];
        int n = 0;
        while (n < DECIDE_MOST_PAIRS) {
            double drift = 1 + 0.5 * sin(n + trial);
            candidate[n] = drift / speed * noise(by);
            incumbent[n] = drift * noise(by);
            n++;
            if (decide_hopeless(candidate, incumbent, n) || decide_done(candidate, incumbent, n))
                break;
        }
        n_wins += decide_wins(candidate, incumbent, n);
    }
    return n_wins;
}

static void test_decisions(void)
{
    CU_ASSERT(wins(1, 0.02) <= 20);
    CU_ASSERT(wins(1, 0.2) <= 60);
    CU_ASSERT_EQUAL(wins(0.95, 0.05), 0);
    CU_ASSERT(wins(1.05, 0.02) >= 980);
    CU_ASSERT(wins(1.1, 0.1) >= 800);
    double same[DECIDE_MOST_PAIRS], slow[DECIDE_MOST_PAIRS];
    for (int i = 0; i < DECIDE_MOST_PAIRS; i++) {
        same[i] = 1 + i * 1e-3;
        slow[i] = 1.1 * same[i];
    }
    CU_ASSERT_TRUE(decide_harms(slow, same, 9));
    CU_ASSERT_FALSE(decide_harms(same, slow, 9));
    CU_ASSERT_TRUE(decide_slower(1.005));
    CU_ASSERT_FALSE(decide_slower(1.004));
    CU_ASSERT_TRUE(decide_slower_settled(slow, same, 9));
    CU_ASSERT_TRUE(decide_slower_settled(same, slow, 9));
    CU_ASSERT_FALSE(decide_slower_settled(slow, same, 5));
    CU_ASSERT_TRUE(decide_slower_settled(same, same, 9));
    CU_ASSERT_FALSE(decide_wins(same, slow, 5));      /* too few */
    CU_ASSERT_EQUAL(decide_ratio(same, slow, 0), 1);
}

static const UnitTest tests[] = {
    { "nothing chosen", test_nothing_chosen }, { "every graph", test_every_graph },
    { "senseless choices", test_senseless_choices }, { "table", test_table }, { "space, text", test_space_text },
    { "space, rules", test_space_rules }, { "space, lines", test_space_lines }, { "decisions", test_decisions },
};
UNIT_MAIN("space", tests)
