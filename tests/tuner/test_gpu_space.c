/* The space of kernels for GPUs: every point that is given out is one the planner takes and the device can have, and
 * what makes no sense changes nothing.
 *
 * Over graphs of the repository, both targets, f16 and q8: all points.
 */
#include "../../tuner/gpu_jobs.h"
#include "models.h"

#include "../../ir/kernel_key.h"

enum { SHARED_MOST_80 = 163 << 10, SHARED_MOST_90 = 227 << 10 };

typedef struct { Arena *arena; const Plan *base; const char *name; int n_points, n_refused; } Model;

static Plan *plan_with(const Model *m, const Choices *choices)
{
    return gpu_plan_module_chosen(m->arena, m->base->graph, (Module *)m->base->module, m->base->target, choices);
}

static const Launch *launch_of(const Plan *plan, const char *key)
{
    for (int i = 0; i < plan->launches->n_launches; i++)
        if (plan->launches->launches[i].key && strcmp(plan->launches->launches[i].key, key) == 0)
            return &plan->launches->launches[i];
    return NULL;
}

static bool takes(const Plan *plan, const Job *job, const SpacePoint *point)
{
    const Launch *launch = launch_of(plan, job->key);
    CU_ASSERT_PTR_NOT_NULL_FATAL(launch);
    const Kernel *kernel = &plan->launches->kernels[launch->kernel];
    CU_ASSERT(launch->shared_len <= (target_sm(plan->target) >= 90 ? SHARED_MOST_90 : SHARED_MOST_80));
    CU_ASSERT(kernel->n_threads >= 32 && kernel->n_threads <= 1024);
    for (int i = 0; i < job->space.n; i++)
        for (int k = 0; k < kernel->n_params; k++)
            if (strcmp(kernel->params[k].name, job->space.param[i]->name) == 0
                && kernel->params[k].value != (double)point->value[i])
                return false;
    return true;
}

static void check_point(Model *m, const Job *job, const SpacePoint *point)
{
    Text why = { 0 };
    Choices *choices = choices_new(m->arena);
    for (int i = 0; i < job->space.n; i++)
        choices_set(choices, job->key, job->space.param[i]->name, point->value[i]);
    const Plan *plan = plan_with(m, choices);
    /* How much a scan's block needs is the planner's secret: it may refuse one, and the trial says so. */
    const bool taken = takes(plan, job, point);
    m->n_points++;
    if (!taken && strcmp(job->template->name, "scan") != 0) {
        space_print(&job->space, point, &why);
        printf("%s, %s: not taken: %s\n", m->name, job->key, why.data);
        m->n_refused++;
        text_free(&why);
        why = (Text){ 0 };
    }
    if (!gpu_check(plan, &why)) {
        printf("%s, %s: %s\n", m->name, job->key, why.data);
        m->n_refused++;
    }
    text_free(&why);
}

static bool same_launches(const Plan *a, const Plan *b)
{
    const Launches *x = a->launches, *y = b->launches;
    bool same = x->n_kernels == y->n_kernels && x->n_launches == y->n_launches && x->scratch_len == y->scratch_len;
    for (int i = 0; i < x->n_kernels && same; i++)
        for (int p = 0; p < x->kernels[i].n_params; p++)
            same = same && x->kernels[i].params[p].value == y->kernels[i].params[p].value;
    for (int i = 0; i < x->n_launches && same; i++)
        same = x->launches[i].shared_len == y->launches[i].shared_len;
    return same;
}

/* Numbers that no kernel can have, of every kernel at once. */
static void check_nonsense(const Model *m, const Job *jobs, int n)
{
    static const int64_t values[] = { -4, 0, 7777777, INT64_MAX };
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        Choices *choices = choices_new(m->arena);
        for (int i = 0; i < n; i++)
            for (int p = 0; p < jobs[i].space.n; p++)
                choices_set(choices, jobs[i].key, jobs[i].space.param[p]->name, values[v]);
        choices_set(choices, KERNEL_KEY_MODEL, "chunk", values[v]);
        const Plan *plan = plan_with(m, choices);
        Text why = { 0 };
        CU_ASSERT(gpu_check(plan, &why));
        CU_ASSERT_EQUAL(plan->chunk, m->base->chunk);
        if (v < 2)
            CU_ASSERT(same_launches(plan, m->base));
        text_free(&why);
    }
}

static void check_model(const char *name, TargetId target, DType dtype)
{
    Arena *arena = arena_new();
    char path[256];
    snprintf(path, sizeof path, UNIT_ROOT "/%s", name);
    Model m = { .arena = arena, .name = name };
    m.base = models_plan(arena, models_read(arena, path), dtype, target);
    int n;
    const Job *jobs = gpu_jobs_of_plan(arena, m.base, &n);
    double share[N_PLAN_PHASES] = { 0 };
    CU_ASSERT(n > 4);
    for (int i = 0; i < n; i++) {
        share[jobs[i].phase] += jobs[i].share;
        CU_ASSERT(takes(m.base, &jobs[i], &jobs[i].initial));
        for (int p = 0; p < jobs[i].n_points; p++)
            check_point(&m, &jobs[i], &jobs[i].points[p]);
    }
    CU_ASSERT_DOUBLE_EQUAL(share[PLAN_PREFILL], 1, 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(share[PLAN_DECODE], 1, 1e-9);
    CU_ASSERT_EQUAL(m.n_refused, 0);
    CU_ASSERT(m.n_points > 10);
    check_nonsense(&m, jobs, n);
    arena_free(arena);
}

static void test_mossnet(void)
{
    check_model("models/mossnet-8x8m.json", TARGET_H100, DTYPE_F16);
    check_model("models/mossnet-8x8m.json", TARGET_A100, DTYPE_F16);
}
static void test_q8(void) { check_model("models/mossnet-8x66m.json", TARGET_H100, DTYPE_Q8); }
static void test_mamba(void) { check_model("models/mamba-20m.json", TARGET_A100, DTYPE_F16); }
static void test_llama(void) { check_model("models/llama-20m.json", TARGET_H100, DTYPE_F16); }
static void test_large(void) { check_model("models/mossnet-8x200m+.json", TARGET_H100, DTYPE_F16); }
static void test_example(void) { check_model("docs/example.json", TARGET_H100, DTYPE_F16); }

static const UnitTest tests[] = {
    { "mossnet", test_mossnet }, { "q8", test_q8 }, { "mamba", test_mamba }, { "llama", test_llama },
    { "large", test_large }, { "example", test_example },
};
UNIT_MAIN("gpu_space", tests)
