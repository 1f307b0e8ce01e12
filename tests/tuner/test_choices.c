/* Choices from records: the same records give the same plan in whatever order they were stored; those of another
 * device, C compiler or template version give none; a machine is known by its description; its ceilings
 * are measured.
 */
#include "records_make.h"

#include "../../tuner/ceilings.h"
#include "../../tuner/choices.h"
#include "../../tuner/identity.h"
#include "../../tuner/jobs.h"
#include "../../tuner/records_merge.h"
#include "../unit/models.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];
static Arena *arena;
static Diags *diags;
static const TargetId target = TARGET_X86_64_V3;

static Records *fresh(const char *name)
{
    const char *path = arena_printf(arena, "%s/%s", folder, name);
    unlink(path);
    Records *records = records_open(arena, diags, path, RECORDS_CREATE);
    CU_ASSERT_PTR_NOT_NULL_FATAL(records);
    return records;
}

static Module *module_of(const Graph *graph)
{
    Module *module = models_build(arena, graph, DTYPE_BF16);
    CU_ASSERT_TRUE_FATAL(passes_run(module, pass_families(target), diags, NULL, NULL));
    return module;
}

/* Three points a kernel, the default first; `device` and the hash as told. */
static void add_records(Records *records, const Plan *plan, const char *device, const char *toolchain, const char *hash)
{
    int n_jobs;
    uint64_t state = 3;
    const Job *jobs = jobs_of_plan(arena, plan, &n_jobs);
    CU_ASSERT_FATAL(n_jobs > 10);
    for (int i = 0; i < n_jobs; i++)
        for (int p = 0; p < 3; p++) {
            Text point = { 0 };
            const SpacePoint *drawn = &jobs[i].points[make_draw(&state, (uint64_t)jobs[i].n_points)];
            space_print(&jobs[i].space, p ? drawn : &jobs[i].initial, &point);
            Text first = { 0 };
            space_print(&jobs[i].space, &jobs[i].initial, &first);
            double sample = p ? 0.5 + (double)make_draw(&state, 400) / 1000 : 1, one = 1;
            Trial trial = { .point = point.data, .incumbent = first.data, .samples = &sample, .n_samples = 1,
                            .ordinal = p,
                            .incumbent_samples = &one, .n_incumbent_samples = 1, .max_error = -1 };
            job_record_key(arena, &jobs[i], jobs[i].tokens[0], &trial.key);
            trial.key.features = identity_features(arena, target);
            trial.key.device = device;
            trial.key.toolchain = toolchain;
            trial.key.template_hash = hash ? hash : identity_template(arena, target, trial.key.kernel);
            CU_ASSERT_TRUE(records_add(records, diags, &trial));
            text_free(&point);
            text_free(&first);
        }
}

static const char *plan_with(Records *records, const Graph *graph, const char *device, const char *toolchain,
                             int *n_found)
{
    Module *module = module_of(graph);
    Choices *choices = choices_new(arena);
    Text text = { 0 };
    const Plan *plan = plan_module(arena, graph, module, target);
    CU_ASSERT_TRUE(choices_fill(records, arena, diags, plan, device, toolchain, choices, n_found));
    plan_print(plan_module_chosen(arena, graph, module, target, choices), &text);
    const char *printed = arena_strdup(arena, text.data);
    text_free(&text);
    return printed;
}

static void test_plans(void)
{
    const Graph *graph = models_read(arena, UNIT_ROOT "/docs/example.json");
    const Plan *plan = plan_module(arena, graph, module_of(graph), target);
    int n_jobs, n_found;
    jobs_of_plan(arena, plan, &n_jobs);
    Records *mine = fresh("mine"), *other = fresh("other"), *both = fresh("both"), *turned = fresh("turned");
    add_records(mine, plan, "cpu", "gcc", NULL);
    add_records(other, plan, "another cpu", "gcc", NULL);
    add_records(other, plan, "cpu", "clang", NULL);
    add_records(other, plan, "cpu", "gcc", "stale");
    CU_ASSERT_TRUE(records_merge(both, arena, diags, mine) && records_merge(both, arena, diags, other));
    CU_ASSERT_TRUE(records_merge(turned, arena, diags, other) && records_merge(turned, arena, diags, mine));

    const char *chosen = plan_with(mine, graph, "cpu", "gcc", &n_found);
    CU_ASSERT_EQUAL(n_found, n_jobs);
    CU_ASSERT_STRING_EQUAL(plan_with(mine, graph, "cpu", "gcc", &n_found), chosen);
    CU_ASSERT_STRING_EQUAL(plan_with(both, graph, "cpu", "gcc", &n_found), chosen);
    CU_ASSERT_STRING_EQUAL(plan_with(turned, graph, "cpu", "gcc", &n_found), chosen);

    const char *usual = plan_with(mine, graph, "no such cpu", "gcc", &n_found);
    CU_ASSERT_EQUAL(n_found, 0);
    CU_ASSERT_STRING_NOT_EQUAL(usual, chosen);
    Text text = { 0 };
    plan_print(plan, &text);
    CU_ASSERT_STRING_EQUAL(text.data, usual);
    text_free(&text);
    CU_ASSERT_EQUAL(diags_exit_code(diags), 0);
    Records *const opened[] = { mine, other, both, turned };
    for (int i = 0; i < 4; i++)
        records_close(opened[i]);
}

static void test_identity(void)
{
    CU_ASSERT_STRING_EQUAL(identity_device_of_cpuinfo(arena, "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: "
                                                      "25\n" "model\t\t: 17\nmodel name\t: AMD EPYC   9B14 96-Core "
                                                      "\nstepping\t: 1\n\nprocessor\t: 1\n"),
                           "AMD EPYC 9B14 96-Core (25-17-1), 2 cpus");
    CU_ASSERT_STRING_EQUAL(identity_device_of_cpuinfo(arena, "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: "
                                                      "0xd05\n\n" "processor\t: 1\nCPU implementer\t: 0x41\nCPU "
                                                      "part\t: 0xd05\n\nprocessor : 2\n"
                                                      "CPU implementer : 0x41\nCPU part : 0xd0b\n"),
                           "ARM 2x0x41:0xd05 1x0x41:0xd0b");
    CU_ASSERT_STRING_EQUAL(identity_device_of_cpuinfo(arena, ""), "unknown CPU (--), 0 cpus");
    const char *gemm = identity_template(arena, target, "gemm");
    CU_ASSERT_EQUAL(strlen(gemm), 16);
    CU_ASSERT_STRING_EQUAL(gemm, identity_template(arena, TARGET_ARM_NEON, "gemm"));
    CU_ASSERT_STRING_NOT_EQUAL(gemm, identity_template(arena, target, "gemv"));
    CU_ASSERT_STRING_NOT_EQUAL(gemm, identity_template(arena, TARGET_H100, "gemm"));
    CU_ASSERT_STRING_EQUAL(identity_template(arena, target, "gem"), "");
    CU_ASSERT_STRING_EQUAL(identity_template(arena, target, "gemm.c"), "");
    CU_ASSERT_EQUAL(strlen(identity_template(arena, target, "step")), 16);
    const char *none = identity_toolchain(arena, target, (const char *const[]){ "true", "-O3" }, 2);
    CU_ASSERT_STRING_EQUAL(none, "unknown -O3");
}

/* Ceilings of a target that runs here are those of some machine; a compiler that fails gives none. */
static void test_ceilings(void)
{
    char place[] = "/tmp/mossc-ceilings-XXXXXX";
    double operations, bytes, more, same_bytes;
    Builder builder = { .arena = arena, .folder = mkdtemp(place), .target = target_resolve(TARGET_HOST), .n_jobs = 1 };
    CU_ASSERT_PTR_NOT_NULL_FATAL(builder.folder);
    if (!target_runs_here(builder.target) || !toolchain_find(arena, diags, builder.target, NULL, &builder.cc)) {
        puts("SKIPPED: ceilings: no compiler for a target of this machine");
    } else {
        ceilings_measure(&builder, diags, false, &operations, &bytes);
        CU_ASSERT(operations > 1e8 && operations < 1e13);
        CU_ASSERT(bytes > 1e7 && bytes < 1e13);
        ceilings_measure(&builder, diags, true, &more, &same_bytes);
        CU_ASSERT(more > operations / 2);
    }
    builder.cc = (ToolCommand){ .args = { "false" }, .n = 1 };
    ceilings_measure(&builder, diags, false, &operations, &bytes);
    CU_ASSERT(operations == 0 && bytes == 0);
    CU_ASSERT_EQUAL(system(arena_printf(arena, "rm -r %s", builder.folder)), 0);
}

static const UnitTest tests[] = { { "plans", test_plans }, { "identity", test_identity }, { "ceilings", test_ceilings } };

int main(void)
{
    arena = arena_new();
    diags = diags_new(arena);
    snprintf(folder, sizeof folder, "%s/mossc-choices-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(folder))
        return 3;
    int code = unit_main("choices from records", tests, (int)(sizeof tests / sizeof *tests));
    if (system(arena_printf(arena, "rm -r %s", folder)) != 0)
        code = 3;
    arena_free(arena);
    return code;
}
