/* Whole models in records: choices of a phase that made a model slower are not taken, others stay; a chunk is taken
 * when it is clearly faster.
 */
#include "../../compiler/outfile.h"
#include "../../ir/kernel_key.h"
#include "../../tuner/choices.h"
#include "../../tuner/identity.h"
#include "../../tuner/step.h"

#include <stdlib.h>
#include <string.h>

#include "models.h"

static Arena *arena;
static Diags *diags;
static char folder[64];
static Plan *plan;
static Records *records;
static RecordKey machine = { .device = "d", .toolchain = "c" };     /* features: of the plan's target */

/* Eleven pairs: `point` takes `ratio` of the incumbent's time, and in the last `n_other` of them `other` of it. */
static void add_torn(RecordKey key, const char *point, const char *incumbent, double ratio, double other, int n_other,
                     TrialStatus status)
{
    enum { N = 11 };
    double samples[N], others[N];
    for (int i = 0; i < N; i++) {
        others[i] = 1e-3 * (1 + 0.01 * i);
        samples[i] = (i < N - n_other ? ratio : other) * others[i];
    }
    Trial trial = { .key = key, .point = point, .status = status, .detail = "", .samples = samples, .n_samples = N,
                    .incumbent = incumbent, .incumbent_samples = others, .n_incumbent_samples = N, .max_error = 0.1,
                    .search = "", .unix_ms = 1000 };
    CU_ASSERT_TRUE(records_add(records, diags, &trial));
}

static void add(RecordKey key, const char *point, const char *incumbent, double ratio, TrialStatus status)
{
    add_torn(key, point, incumbent, ratio, ratio, 0, status);
}

static void begin(const char *name)
{
    records = records_open(arena, diags, arena_printf(arena, "%s/%s.db", folder, name), RECORDS_CREATE);
    CU_ASSERT_PTR_NOT_NULL_FATAL(records);
}

/* The heaviest kernel of a phase gets a point that is faster than its default. */
static const Job *add_winner(int phase)
{
    int n, i = 0;
    const Job *jobs = jobs_of_plan(arena, plan, &n);
    while (jobs[i].phase != phase || jobs[i].n_points < 2)
        i++;
    RecordKey key = machine;
    Text best = { 0 }, usual = { 0 };
    const Job *job = &jobs[i];
    const SpacePoint *point = &job->points[memcmp(&job->points[0], &job->initial, sizeof job->initial) ? 0 : 1];
    job_record_key(arena, job, job->tokens[0], &key);
    key.template_hash = identity_template(arena, plan->target, key.kernel);
    space_print(&job->space, point, &best);
    space_print(&job->space, &job->initial, &usual);
    add(key, usual.data, usual.data, 1, TRIAL_OK);
    add(key, best.data, usual.data, 0.8, TRIAL_OK);
    text_free(&best);
    text_free(&usual);
    return job;
}

static Choices *choose(void)
{
    int n_found;
    Choices *choices = choices_new(arena);
    CU_ASSERT_TRUE(choices_fill(records, arena, diags, plan, machine.device, machine.toolchain, choices, &n_found));
    return choices;
}

static Choices *fill(void)
{
    Choices *choices = choose();
    CU_ASSERT_TRUE(step_apply(records, arena, diags, plan, &machine, choices));
    return choices;
}

static RecordKey own_key(const char *what) { return step_key(arena, plan, &machine, what); }

static void test_points(void)
{
    Choices *none = choices_new(arena), *some = choices_new(arena);
    int n;
    const Job *jobs = jobs_of_plan(arena, plan, &n);
    choices_set(some, jobs[0].key, jobs[0].space.param[0]->name, jobs[0].initial.value[0]);
    CU_ASSERT_STRING_EQUAL(step_point(arena, plan, PLAN_PREFILL, none), "choices=0");
    CU_ASSERT_STRING_EQUAL(step_point(arena, plan, PLAN_PREFILL, some), "choices=0");      /* the default by name */
    choices_set(some, jobs[0].key, jobs[0].space.param[0]->name, jobs[0].initial.value[0] + 12);
    CU_ASSERT(strcmp(step_point(arena, plan, PLAN_PREFILL, some), "choices=0") != 0);
    CU_ASSERT_STRING_EQUAL(step_point(arena, plan, PLAN_DECODE, some), "choices=0");
}

static void test_phases(void)
{
    begin("phases");
    const Job *prefill = add_winner(PLAN_PREFILL), *decode = add_winner(PLAN_DECODE);
    Choices *all = choose();
    CU_ASSERT_PTR_NOT_NULL(choices_find(all, prefill->key));
    CU_ASSERT_PTR_NOT_NULL(choices_find(all, decode->key));
    const char *prefill_point = step_point(arena, plan, PLAN_PREFILL, all);
    const char *decode_point = step_point(arena, plan, PLAN_DECODE, all);
    CU_ASSERT_PTR_NOT_NULL(choices_find(fill(), prefill->key));            /* nothing is known of the whole */
    add(own_key("prefill"), prefill_point, "choices=0", 1.05, TRIAL_OK);
    add(own_key("decode"), decode_point, "choices=0", 0.97, TRIAL_OK);
    Choices *left = fill();
    CU_ASSERT_PTR_NULL(choices_find(left, prefill->key));
    CU_ASSERT_PTR_NOT_NULL(choices_find(left, decode->key));
    add(own_key("decode"), decode_point, "choices=0", 1.2, TRIAL_OK);
    add(own_key("decode"), decode_point, "choices=0", 0.98, TRIAL_OK);
    CU_ASSERT_PTR_NOT_NULL(choices_find(fill(), decode->key));             /* the median of all pairs */
    add(own_key("decode"), decode_point, "choices=0", 1, TRIAL_RUNNER_FAILED);
    CU_ASSERT_PTR_NOT_NULL(choices_find(fill(), decode->key));             /* says nothing */
    add(own_key("decode"), decode_point, "choices=0", 1, TRIAL_WRONG);
    CU_ASSERT_PTR_NULL(choices_find(fill(), decode->key));                 /* however fast it was */
    CU_ASSERT_EQUAL(choices_get(left, KERNEL_KEY_MODEL, "chunk", -1), -1);
    records_close(records);
}

/* Pairs on a busy machine: nine of eleven slower. A sign test would leave that to chance; the defaults stay. */
static void test_noise(void)
{
    begin("noise");
    const Job *prefill = add_winner(PLAN_PREFILL), *decode = add_winner(PLAN_DECODE);
    Choices *all = choose();
    add_torn(own_key("decode"), step_point(arena, plan, PLAN_DECODE, all), "choices=0", 1.17, 0.9, 2, TRIAL_OK);
    add_torn(own_key("prefill"), step_point(arena, plan, PLAN_PREFILL, all), "choices=0", 0.97, 1.2, 5, TRIAL_OK);
    Choices *left = fill();
    CU_ASSERT_PTR_NULL(choices_find(left, decode->key));
    CU_ASSERT_PTR_NOT_NULL(choices_find(left, prefill->key));
    records_close(records);
}

static void test_chunk(void)
{
    begin("chunk");
    add(own_key("chunk"), "chunk=512", "chunk=512", 1, TRIAL_OK);
    add(own_key("chunk"), "chunk=128", "chunk=512", 1.1, TRIAL_OK);
    CU_ASSERT_EQUAL(choices_get(fill(), KERNEL_KEY_MODEL, "chunk", -1), -1);
    add(own_key("chunk"), "chunk=256", "chunk=512", 0.9, TRIAL_OK);
    CU_ASSERT_EQUAL(choices_get(fill(), KERNEL_KEY_MODEL, "chunk", -1), 256);
    records_close(records);
}

/* What else is chosen of a whole model: each by its own records. */
static void test_variants(void)
{
    begin("variants");
    add(own_key("row_split"), "row_split=0", "row_split=0", 1, TRIAL_OK);
    add(own_key("row_split"), "row_split=2", "row_split=0", 1.02, TRIAL_OK);
    add(own_key("route_apart"), "route_apart=1", "route_apart=0", 1.02, TRIAL_OK);
    CU_ASSERT_EQUAL(choices_get(fill(), KERNEL_KEY_MODEL, "row_split", -1), -1);
    add(own_key("row_split"), "row_split=4", "row_split=0", 0.9, TRIAL_OK);
    CU_ASSERT_EQUAL(choices_get(fill(), KERNEL_KEY_MODEL, "row_split", -1), 4);
    CU_ASSERT_EQUAL(choices_get(fill(), KERNEL_KEY_MODEL, "route_apart", -1), -1);
    add(own_key("threads"), "threads=0", "threads=0", 1, TRIAL_OK);
    add(own_key("threads"), "threads=1", "threads=0", 0.8, TRIAL_OK);
    CU_ASSERT_EQUAL(choices_get(fill(), KERNEL_KEY_MODEL, "threads", -1), 1);
    CU_ASSERT_EQUAL(choices_get(fill(), KERNEL_KEY_MODEL, "bind", -1), -1);
    CU_ASSERT_EQUAL(choices_get(fill(), KERNEL_KEY_MODEL, "chunk", -1), -1);
    records_close(records);
}

static const UnitTest tests[] = {
    { "points", test_points }, { "phases", test_phases }, { "noise", test_noise }, { "chunk", test_chunk },
    { "variants", test_variants },
};

int main(void)
{
    strcpy(folder, "/tmp/test_step_XXXXXX");
    if (!mkdtemp(folder))
        return 3;
    arena = arena_new();
    diags = diags_new(arena);
    const Graph *graph = graph_read_file(arena, diags, UNIT_ROOT "/docs/example.json");
    Module *module = models_build(arena, graph, DTYPE_BF16);
    if (!passes_run(module, pass_families(TARGET_X86_64_V3), diags, NULL, NULL))
        return 3;
    plan = plan_module(arena, graph, module, TARGET_X86_64_V3);
    machine.features = identity_features(arena, plan->target);
    int code = unit_main("step", tests, sizeof tests / sizeof *tests);
    out_folder_erase(folder);
    arena_free(arena);
    return code;
}
