/* Trials on a GPU, one kernel after another, on the stand-in driver: what is right is found right, what is wrong is
 * caught where it stands, and whatever a kernel does, the next trial goes on.
 *
 *   test_gpu_trial GRAPH.json TARGET right N         the default and the first N other points of every kernel
 *   test_gpu_trial GRAPH.json TARGET faults STATUS [KERNEL...]    a point of each (none: of the first) must end so, the
 *                                                    default not
 *   test_gpu_trial GRAPH.json TARGET chain STATUS N  a decoded token with `chain` N beside launches of their own must
 *                                                    end so
 *
 * The environment says where the driver's kernels are. No time is looked at. Exit code: 0 ok, 1 not, 2 usage.
 */
#include "../../compiler/build.h"
#include "../../compiler/gpu_plan.h"
#include "../../compiler/graph_read.h"
#include "../../compiler/passes/pass.h"
#include "../../ir/kernel_key.h"
#include "../../tuner/gpu_jobs.h"
#include "../../tuner/gpu_worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int n_failed;

static Plan *plan_of(Arena *arena, const char *path, const char *target_name)
{
    int n;
    TargetId target;
    Diags *diags = diags_new(arena);
    Graph *graph = graph_read_file(arena, diags, path);
    if (!graph || !target_from_name(target_name, &target))
        return NULL;
    graph_tensors(graph, arena, &n);
    DType *dtypes = arena_array(arena, DType, (size_t)n);
    for (int i = 0; i < n; i++)
        dtypes[i] = DTYPE_F16;
    Module *module = build_module(arena, graph, dtypes);
    return passes_run(module, pass_families(target), diags, NULL, NULL) ? gpu_plan_module(arena, graph, module, target)
        : NULL;
}

/* A check without timing; point NULL: the default. */
static TrialResult ask(GpuWorker *worker, const Job *job, const SpacePoint *point, double seconds)
{
    Arena *arena = arena_new();
    TrialResult result;
    GpuRequest *r = gpu_worker_request(worker);
    Choices *choices = choices_new(arena);
    for (int i = 0; i < job->space.n && point; i++)
        choices_set(choices, job->key, job->space.param[i]->name, point->value[i]);
    snprintf(r->key, sizeof r->key, "%s", job->key);
    r->phase = job->phase;
    r->is_default = !point;
    r->same_bits = !point || space_gpu_keeps_bits(&job->space, point, &job->initial);
    r->check_tokens = gpu_most_tokens();
    gpu_write_choices(choices, r->candidate, sizeof r->candidate);
    gpu_write_choices(NULL, r->incumbent, sizeof r->incumbent);
    gpu_worker_ask(worker, seconds, &result);
    arena_free(arena);
    return result;
}

static void expect(const Job *job, const SpacePoint *point, const TrialResult *result, TrialStatus status)
{
    Text text = { 0 };
    space_print(&job->space, point ? point : &job->initial, &text);
    const bool good = result->status == status;
    printf("%s %-16s %-34s %-13s %9.3g %s\n", good ? "ok  " : "FAIL", job->template->name, text.data,
           trial_status_text(result->status), result->max_error, good && status == TRIAL_OK ? "" : result->detail);
    n_failed += !good;
    text_free(&text);
}

static const SpacePoint *other_point(const Job *job, int index)
{
    for (int i = 0; i < job->n_points; i++)
        if (memcmp(&job->points[i], &job->initial, sizeof job->initial) != 0 && index-- == 0)
            return &job->points[i];
    return NULL;
}

/* A point outside the space is not built, and says so. */
static void expect_refused(GpuWorker *worker, const Job *job)
{
    SpacePoint point = job->initial;
    point.value[space_param(&job->space, "stages")] = 40;
    TrialResult result = ask(worker, job, &point, 60);
    expect(job, &point, &result, TRIAL_BUILD_FAILED);
}

static void test_right(GpuWorker *worker, const Job *jobs, int n, int n_points)
{
    for (int i = 0; i < n; i++)
        for (int p = -1; p < n_points; p++) {
            const SpacePoint *point = p < 0 ? NULL : other_point(&jobs[i], p);
            if (p >= 0 && !point)
                break;
            TrialResult result = ask(worker, &jobs[i], point, 300);
            expect(&jobs[i], point, &result, TRIAL_OK);
        }
    expect_refused(worker, &jobs[0]);
}

static void test_faults(GpuWorker *worker, const Job *job, TrialStatus status)
{
    TrialResult result = ask(worker, job, NULL, 300);
    expect(job, NULL, &result, TRIAL_OK);
    result = ask(worker, job, other_point(job, 0), 10);
    expect(job, other_point(job, 0), &result, status);
    result = ask(worker, job, NULL, 300);      /* the device is there again */
    expect(job, NULL, &result, TRIAL_OK);
}

static void test_faults_of(GpuWorker *worker, const Job *jobs, int n, const char *kernel, TrialStatus status)
{
    for (int i = 0; i < n; i++)
        if (strcmp(jobs[i].template->name, kernel) == 0 && other_point(&jobs[i], 0)) {
            test_faults(worker, &jobs[i], status);
            return;
        }
    printf("FAIL %s has no point but the default\n", kernel);
    n_failed++;
}

/* Which launches a token is made of: as an artifact would. */
static void test_chain(GpuWorker *worker, TrialStatus status, int chain)
{
    Arena *arena = arena_new();
    TrialResult result;
    Choices *one = choices_new(arena), *other = choices_new(arena);
    choices_set(one, KERNEL_KEY_MODEL, "chain", chain);
    choices_set(other, KERNEL_KEY_MODEL, "chain", 1);
    GpuRequest *r = gpu_worker_request(worker);
    r->what = GPU_ASK_STEP;
    r->n_tokens = 1;
    gpu_write_choices(one, r->candidate, sizeof r->candidate);
    gpu_write_choices(other, r->incumbent, sizeof r->incumbent);
    gpu_worker_ask(worker, 300, &result);
    const bool good = result.status == status && (status != TRIAL_OK || result.pairs[0].n > 0);
    printf("%s chain=%d %s %9.3g %s\n", good ? "ok  " : "FAIL", chain, trial_status_text(result.status),
           result.max_error, result.detail);
    n_failed += !good;
    arena_free(arena);
}

int main(int argc, char **argv)
{
    TrialStatus status = TRIAL_OK;
    if (argc < 4 || (strcmp(argv[3], "right") != 0 && (argc < 5 || !trial_status_from_text(argv[4], &status))))
        return fputs("usage: test_gpu_trial GRAPH.json TARGET right N | faults STATUS [KERNEL...] | chain STATUS N\n",
                     stderr), 2;
    Arena *arena = arena_new();
    const Plan *plan = plan_of(arena, argv[1], argv[2]);
    if (!plan)
        return fprintf(stderr, "%s for %s has no plan\n", argv[1], argv[2]), 1;
    int n;
    const Job *jobs = gpu_jobs_of_plan(arena, plan, &n);
    GpuWorker *worker = gpu_worker_new(plan);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(argv[3], "chain") == 0)
        test_chain(worker, status, argc > 5 ? atoi(argv[5]) : 0);
    else if (status == TRIAL_OK)
        test_right(worker, jobs, n, argc > 4 ? atoi(argv[4]) : 1);
    else if (argc == 5)
        test_faults(worker, &jobs[0], status);
    for (int i = 5; i < argc && strcmp(argv[3], "faults") == 0; i++)
        test_faults_of(worker, jobs, n, argv[i], status);
    gpu_worker_free(worker);
    arena_free(arena);
    return n_failed > 0;
}
