/* The learned order: what records of other shapes say comes first, and nothing that would change while a search goes
 * on. */
#include "../../compiler/outfile.h"
#include "../../tuner/identity.h"
#include "../../tuner/search_order.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models.h"

static Arena *arena;
static char folder[64];
static const Plan *plan;

/* A machine that likes short tiles: time grows with their rows, whatever the cost model says. */
static double time_of(const Job *job, const SpacePoint *point)
{
    return 1e-3 * pow(1 + point->value[space_param(&job->space, "tile_rows")], 0.3);
}

static void add(SearchRun *run, const SearchState *s, int point, const char *shape, const char *search, int64_t when)
{
    double samples[DECIDE_LEAST_PAIRS], others[DECIDE_LEAST_PAIRS];
    for (int i = 0; i < DECIDE_LEAST_PAIRS; i++) {
        samples[i] = time_of(s->job, &s->job->points[point]) * (1 + 0.001 * i);
        others[i] = time_of(s->job, &s->job->initial) * (1 + 0.001 * i);
    }
    Trial trial = { .key = s->key, .point = search_point_text(run, s, point), .status = TRIAL_OK, .detail = "",
                    .samples = samples, .n_samples = DECIDE_LEAST_PAIRS, .incumbent = s->incumbent_text,
                    .incumbent_samples = others, .n_incumbent_samples = DECIDE_LEAST_PAIRS, .search = search,
                    .unix_ms = when };
    trial.key.shape = shape;
    CU_ASSERT_TRUE(records_add(run->records, run->diags, &trial));
}

static SearchRun begin(const char *db, SearchOrder order)
{
    SearchRun run = { .arena = arena, .diags = diags_new(arena), .plan = plan, .order = order,
                      .key = { .features = identity_features(arena, plan->target), .device = "d", .toolchain = "c" } };
    run.records = records_open(arena, run.diags, arena_printf(arena, "%s/%s.db", folder, db), RECORDS_CREATE);
    CU_ASSERT_PTR_NOT_NULL_FATAL(run.records);
    run.journal = (Search){ .command = search_order_text(order), .model = "m", .device = "d", .features = "f" };
    CU_ASSERT_TRUE(records_search_open(run.records, run.diags, &run.journal));
    CU_ASSERT_TRUE_FATAL(search_begin(&run, NULL, 0, NULL));
    return run;
}

static SearchState *gemm_of(SearchRun *run)
{
    for (int i = 0; i < run->n_states; i++)
        if (strcmp(run->states[i].key.kernel, "gemm") == 0 && run->states[i].job->n_points > 40)
            return &run->states[i];
    CU_FAIL_FATAL("no gemm with points to choose from");
    return NULL;
}

static bool same_order(const SearchState *a, const SearchState *b)
{
    return memcmp(a->order, b->order, (size_t)a->job->n_points * sizeof *a->order) == 0;
}

/* Rows of tiles of the first points, on average. */
static double first_tiles(const SearchState *s)
{
    enum { FIRST = 10 };
    double sum = 0;
    for (int i = 0; i < FIRST; i++)
        sum += s->job->points[s->order[i]].value[space_param(&s->job->space, "tile_rows")];
    return sum / FIRST;
}

static void test_learned(void)
{
    SearchRun model = begin("learned", ORDER_MODEL), few = begin("learned", ORDER_LEARNED);
    SearchState *by_model = gemm_of(&model), *s = gemm_of(&few);
    CU_ASSERT_TRUE(same_order(s, by_model));                       /* no records: the model's */
    const int step = s->job->n_points / 16;
    for (int i = 0; i < 32; i++)
        add(&few, s, i % 16 * step, i < 16 ? "shape 1" : "shape 2", "", 1000);
    SearchRun two = begin("learned", ORDER_LEARNED);
    CU_ASSERT_TRUE(same_order(gemm_of(&two), by_model));           /* two shapes: too few */
    for (int i = 0; i < 8; i++)
        add(&few, s, i * step, "shape 3", "", 1000);
    SearchRun three = begin("learned", ORDER_LEARNED);
    CU_ASSERT(first_tiles(gemm_of(&three)) < first_tiles(by_model) - 2);
    /* What this search measured, and what came since, leaves its order as it was. */
    add(&three, s, 3, "shape 4", three.journal.id, 2000);
    for (int i = 0; i < 40; i++)
        add(&three, s, i, "shape 5", "", 3000);
    SearchRun on = begin("learned", ORDER_LEARNED);
    CU_ASSERT_TRUE(same_order(gemm_of(&on), gemm_of(&three)));
    SearchRun *const runs[] = { &model, &few, &two, &three, &on };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        records_close(runs[i]->records);
}

static const UnitTest tests[] = { { "learned", test_learned } };

int main(void)
{
    strcpy(folder, "/tmp/test_learn_XXXXXX");
    if (!mkdtemp(folder))
        return 3;
    arena = arena_new();
    const Graph *graph = graph_read_file(arena, diags_new(arena), UNIT_ROOT "/docs/example.json");
    Module *module = graph ? models_build(arena, graph, DTYPE_BF16) : NULL;
    if (!module || !passes_run(module, pass_families(TARGET_X86_64_V4), diags_new(arena), NULL, NULL))
        return 3;
    plan = plan_module(arena, graph, module, TARGET_X86_64_V4);
    int code = unit_main("learn", tests, sizeof tests / sizeof *tests);
    out_folder_erase(folder);
    arena_free(arena);
    return code;
}
