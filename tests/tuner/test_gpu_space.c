/* The space of kernels for GPUs: every point that is given out is one the planner takes as it is and the device can
 * have, so that no trial is spent on a refusal; and what makes no sense changes nothing.
 *
 * Over all graphs of the repository, both targets, f16 and q8: all points of all kernels.
 */
#include "../../tuner/gpu_jobs.h"
#include "../../tuner/gpu_variants.h"
#include "models.h"

#include "../../compiler/driver.h"
#include "../../compiler/gpu_accept.h"
#include "../../ir/kernel_key.h"

enum { SHARED_MOST_80 = 163 << 10, SHARED_MOST_90 = 227 << 10 };

typedef struct { Arena *arena; const Plan *base; const char *name; int n_points, n_refused; } Model;

static Plan *plan_with(const Model *m, const Choices *choices)
{
    return gpu_plan_module_chosen(m->arena, m->base->graph, (Module *)m->base->module, m->base->target, choices,
                                  0);
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

/* Choices of one point of each of n jobs: kernels are chosen apart, so that one plan tells of all of them. */
static const Plan *plan_points(const Model *m, const Job *jobs, int n, int point)
{
    Choices *choices = choices_new(m->arena);
    for (int i = 0; i < n; i++)
        for (int p = 0; p < jobs[i].space.n && point < jobs[i].n_points; p++)
            choices_set(choices, jobs[i].key, jobs[i].space.param[p]->name, jobs[i].points[point].value[p]);
    return plan_with(m, choices);
}

static void tell(Model *m, const Job *job, int point, const char *what)
{
    Text text = { 0 };
    space_print(&job->space, &job->points[point], &text);
    printf("%s for %s, %s, %s: %s\n", m->name, target_info(m->base->target)->name, job->key, text.data, what);
    m->n_refused++;
    text_free(&text);
}

/* Which of them alone makes a plan that breaks an invariant? */
static void find_broken(Model *m, const Job *jobs, int n, int point, const char *words)
{
    printf("%s for %s: %s\n", m->name, target_info(m->base->target)->name, words);
    m->n_refused++;
    for (int i = 0; i < n; i++) {
        Text why = { 0 };
        if (point < jobs[i].n_points && !gpu_check(plan_points(m, &jobs[i], 1, point), &why))
            tell(m, &jobs[i], point, why.data);
        text_free(&why);
    }
}

static void check_points(Model *m, const Job *jobs, int n, int point)
{
    Text why = { 0 };
    const Plan *plan = plan_points(m, jobs, n, point);
    for (int i = 0; i < n; i++)
        if (point < jobs[i].n_points) {
            m->n_points++;
            if (!takes(plan, &jobs[i], &jobs[i].points[point]))
                tell(m, &jobs[i], point, "the planner does not take it");
        }
    if (!gpu_check(plan, &why))
        find_broken(m, jobs, n, point, why.data);
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
        choices_set(choices, KERNEL_KEY_MODEL, "chain", values[v]);
        const Plan *plan = plan_with(m, choices);
        Text why = { 0 };
        CU_ASSERT(gpu_check(plan, &why));
        CU_ASSERT_EQUAL(plan->chunk, m->base->chunk);
        if (v < 2)
            CU_ASSERT(same_launches(plan, m->base));
        text_free(&why);
    }
}

/* Every form of a model's decode. */
static void check_chains(const Model *m)
{
    SearchSpace space;
    CU_ASSERT_TRUE_FATAL(space_find_gpu(KERNEL_KEY_MODEL, &space));
    const SpaceParam *chain = space.param[space_param(&space, "chain")];
    int n_others = 0;
    for (int i = 0; i < chain->n; i++) {
        Choices *choices = choices_new(m->arena);
        choices_set(choices, KERNEL_KEY_MODEL, "chain", chain->values[i]);
        const Plan *plan = plan_with(m, choices);
        Text why = { 0 };
        CU_ASSERT(gpu_check(plan, &why));
        for (int l = 0; l < plan->launches->n_launches; l++)
            CU_ASSERT(plan->launches->launches[l].shared_len
                <= (target_sm(plan->target) >= 90 ? SHARED_MOST_90 : SHARED_MOST_80));
        n_others += i > 0 && gpu_variant_differs(m->base, chain, i);
        text_free(&why);
    }
    CU_ASSERT(n_others < chain->n);
}

/* Keys of models before: a kernel of the same key is the same. */
typedef struct { Arena *arena; const char **keys; int n, max; } Seen;

static bool is_new(Seen *seen, TargetId target, const Job *job)
{
    const char *key = arena_printf(seen->arena, "%s %s", target_info(target)->name, job->key);
    for (int i = 0; i < seen->n; i++)
        if (strcmp(seen->keys[i], key) == 0)
            return false;
    CU_ASSERT_FATAL(seen->n < seen->max);
    seen->keys[seen->n++] = key;
    return true;
}

static Seen seen_new(Arena *arena)
{
    enum { MOST = 8192 };
    return (Seen){ arena, arena_array(arena, const char *, MOST), 0, MOST };
}

static void check_shares(const Job *jobs, int n)
{
    double share[N_PLAN_PHASES] = { 0 };
    for (int i = 0; i < n; i++)
        share[jobs[i].phase] += jobs[i].share;
    CU_ASSERT_DOUBLE_EQUAL(share[PLAN_PREFILL], 1, 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(share[PLAN_DECODE], 1, 1e-9);
}

/* All kernels together do about what the plan says of a token, but for attention in prompts, whose contexts differ. What
 * has no space is small. */
static void check_costs(const Plan *plan, const Job *jobs, int n)
{
    double operations[N_PLAN_PHASES] = { 0 }, bytes[N_PLAN_PHASES] = { 0 };
    for (int i = 0; i < n; i++) {
        double of_job, bytes_of_job;
        const int tokens = jobs[i].phase == PLAN_DECODE ? 1 : plan->chunk;
        gpu_job_cost(&jobs[i], tokens, &of_job, &bytes_of_job);
        CU_ASSERT(of_job > 0 && bytes_of_job > 0);
        if (strncmp(jobs[i].template->name, "attention", 9) == 0)
            continue;
        operations[jobs[i].phase] += of_job / tokens;
        bytes[jobs[i].phase] += bytes_of_job / tokens;
    }
    const Cost *prefill = &plan->prefill_cost[0], *decode = &plan->decode_cost[0];
    CU_ASSERT(operations[PLAN_PREFILL] > 0.6 * prefill->flops && operations[PLAN_PREFILL] < 1.1 * prefill->flops);
    CU_ASSERT(bytes[PLAN_PREFILL] > prefill->weight_bytes);
    CU_ASSERT(operations[PLAN_DECODE] > 0.9 * decode->flops && operations[PLAN_DECODE] < 1.3 * decode->flops);
    const double read = decode->weight_bytes + decode->state_bytes;
    CU_ASSERT(bytes[PLAN_DECODE] > 0.75 * read && bytes[PLAN_DECODE] < 1.3 * read);
}

static int check_model(Seen *seen, const char *name, TargetId target, DType dtype)
{
    Arena *arena = arena_new();
    Model m = { .arena = arena, .name = name };
    m.base = models_plan(arena, models_read(arena, name), dtype, target);
    int n, n_new = 0, most = 0;
    Job *jobs = gpu_jobs_of_plan(arena, m.base, &n);
    CU_ASSERT(n > 4);
    check_shares(jobs, n);
    if (strstr(name, "/models/"))                /* other graphs are too small for it */
        check_costs(m.base, jobs, n);
    check_nonsense(&m, jobs, n);
    for (int i = 0; i < n; i++) {
        CU_ASSERT(takes(m.base, &jobs[i], &jobs[i].initial));
        if (is_new(seen, target, &jobs[i])) {
            jobs[n_new++] = jobs[i];
            most = jobs[i].n_points > most ? jobs[i].n_points : most;
        }
    }
    for (int point = 0; point < most; point++)
        check_points(&m, jobs, n_new, point);
    CU_ASSERT_EQUAL(m.n_refused, 0);
    check_chains(&m);
    arena_free(arena);
    return m.n_points;
}

/* All that are in models/, and those of the golden logits, whose sizes are odd. */
static void check_all(TargetId target, DType dtype)
{
    Arena *arena = arena_new();
    Seen seen = seen_new(arena);
    int n_points = 0;
    glob_t list = models_list(10);
    for (size_t i = 0; i < list.gl_pathc; i++) {
        const Graph *graph = models_read(arena, list.gl_pathv[i]);
        if (gpu_accepts(graph, NULL, target, diags_new(arena)))
            n_points += check_model(&seen, list.gl_pathv[i], target, dtype);
    }
    printf("%d points of %d kernels ", n_points, seen.n);
    CU_ASSERT(n_points > 1000);
    globfree(&list);
    arena_free(arena);
}

static void test_h100(void) { check_all(TARGET_H100, DTYPE_F16); }
static void test_h100_q8(void) { check_all(TARGET_H100, DTYPE_Q8); }
static void test_a100(void) { check_all(TARGET_A100, DTYPE_F16); }
static void test_a100_q8(void) { check_all(TARGET_A100, DTYPE_Q8); }

/* Memory that a user allows cuts the chunk, whether it was chosen or not. */
static void test_scratch(void)
{
    Arena *arena = arena_new();
    const char *path = UNIT_ROOT "/models/mossnet-8x8m.json";
    Model m = { .arena = arena, .name = path };
    m.base = models_plan(arena, models_read(arena, path), DTYPE_F16, TARGET_H100);
    Choices *choices = choices_new(arena);
    choices_set(choices, KERNEL_KEY_MODEL, "chunk", 32768);
    const Plan *chosen = plan_with(&m, choices);
    CU_ASSERT_EQUAL(chosen->chunk, 32768);
    const int64_t allowed[] = { chosen->shared_len, chosen->shared_len - 1, m.base->shared_len / 2 };
    const int chunk[] = { 32768, 16384, 4096 };
    for (int i = 0; i < 3; i++) {
        const Plan *cut = gpu_plan_module_chosen(arena, m.base->graph, (Module *)m.base->module, TARGET_H100,
                                                 i < 2 ? choices : NULL, allowed[i]);
        CU_ASSERT(cut->shared_len <= allowed[i]);
        CU_ASSERT(cut->chunk <= chunk[i] && cut->chunk >= chunk[i] / 2);
        CU_ASSERT_EQUAL(cut->max_scratch, allowed[i]);
    }
    arena_free(arena);
}

static const Choices *choose_long(Compilation *c)
{
    Choices *choices = choices_new(c->arena);
    choices_set(choices, KERNEL_KEY_MODEL, "chunk", 32768);
    return choices;
}

/* What `compile --tuning` says when tuning chose 32768 tokens at a time; NULL: it does not come to a plan. */
static const char *words_of_driver(Arena *arena, const char *max_scratch, const Plan **plan)
{
    Text text = { 0 };
    Options options = { .value = { [OPTION_TARGET] = "h100", [OPTION_QUANT] = "f16", [OPTION_TUNING] = "tune.db",
                                   [OPTION_MAX_SCRATCH] = max_scratch } };
    Compilation c = { .arena = arena, .diags = diags_new(arena), .model = UNIT_ROOT "/models/mossnet-8x8m.json",
                      .options = &options, .choose = choose_long };
    const bool planned = driver_plan(&c, false);
    diags_print(c.diags, &text);
    const char *words = planned ? arena_strdup(arena, text.data ? text.data : "") : NULL;
    *plan = c.plan;
    text_free(&text);
    return words;
}

/* Memory does not grow in silence. */
static void test_warning(void)
{
    Arena *arena = arena_new();
    const Plan *plan;
    const char *words = words_of_driver(arena, NULL, &plan);
    CU_ASSERT_PTR_NOT_NULL_FATAL(words);
    CU_ASSERT(strstr(words, "warning[tuning-memory]") != NULL && strstr(words, "32768 tokens") != NULL);
    CU_ASSERT_EQUAL(plan->chunk, 32768);
    const long long len = (long long)plan->shared_len;
    words = words_of_driver(arena, arena_printf(arena, "%lld", len), &plan);
    CU_ASSERT_PTR_NOT_NULL_FATAL(words);
    CU_ASSERT_STRING_EQUAL(words, "");
    CU_ASSERT_EQUAL(plan->chunk, 32768);
    words = words_of_driver(arena, arena_printf(arena, "%lld", len - 1), &plan);
    CU_ASSERT_PTR_NOT_NULL_FATAL(words);
    CU_ASSERT_STRING_EQUAL(words, "");
    CU_ASSERT_EQUAL(plan->chunk, 16384);
    arena_free(arena);
}

static const UnitTest tests[] = {
    { "h100", test_h100 }, { "h100, q8", test_h100_q8 }, { "a100", test_a100 }, { "a100, q8", test_a100_q8 },
    { "scratch", test_scratch }, { "warning", test_warning },
};
UNIT_MAIN("gpu_space", tests)
