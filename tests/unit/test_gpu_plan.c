/* Plans for GPUs: the checker on every graph, that the checker notices damage, that every kernel named is a
 * template with those parameters and arguments, where weights and states lie, memory of the large model.
 */
#include "../../codegen/template.h"
#include "../../compiler/gpu_accept.h"
#include "../../ir/kernel_key.h"
#include "models.h"

#include <stdlib.h>
#include <string.h>

static const TargetId targets[] = { TARGET_A100, TARGET_H100 };
static const DType dtypes[] = { DTYPE_BF16, DTYPE_F16, DTYPE_Q8 };

static bool holds(const Plan *plan, const char *what)
{
    Text why = { 0 };
    bool good = plan_check(plan, &why);
    if (!good && what)
        printf("%s: %s\n", what, why.data);
    CU_ASSERT_EQUAL(good, why.len == 0);
    text_free(&why);
    return good;
}

/* ---- kernels against their templates ---- */

enum { MAX_TEMPLATES = 64, MAX_ARGS = 32 };

/* A template and the types of its arguments. */
typedef struct { const Template *template; const char *type[MAX_ARGS]; int n; } Signature;
typedef struct { Arena *arena; Signature at[MAX_TEMPLATES]; int n; } Signatures;

/* Each argument's declaration, name and all, without comments. */
static void read_arguments(Arena *arena, Signature *signature)
{
    char *text = arena_strdup(arena, signature->template->args), *rest = NULL, *to = text;
    for (const char *at = signature->template->args; *at; ) {
        const char *end = strncmp(at, "/*", 2) == 0 ? strstr(at, "*/") : NULL;
        if (end)
            at = end + 2;
        else
            *to++ = *at++;
    }
    *to = 0;
    for (char *type = strtok_r(text, "(,)", &rest); type; type = strtok_r(NULL, "(,)", &rest))
        if (type[strspn(type, " \n")])
            signature->type[signature->n++] = type;
}

/* Read once: templates are long. */
static const Signature *find_signature(Signatures *all, const char *name)
{
    for (int i = 0; i < all->n; i++)
        if (strcmp(all->at[i].template->name, name) == 0)
            return &all->at[i];
    Signature *signature = &all->at[all->n++];
    signature->template = template_find_gpu(all->arena, name);
    CU_ASSERT_PTR_NOT_NULL_FATAL(signature->template);
    read_arguments(all->arena, signature);
    return signature;
}

/* Does what a launch passes fit the type? */
static bool fits(const LaunchArg *arg, const char *declaration)
{
    bool pointer = strchr(declaration, '*') != NULL, wide = strstr(declaration, "int64_t") != NULL;
    switch (arg->kind) {
    case ARG_COUNT: case ARG_INT: return !pointer && strstr(declaration, "int32_t") != NULL;
    case ARG_N_CONTEXT: case ARG_STATE_STRIDE: return !pointer && wide;
    case ARG_TENSOR_MAP: return strstr(declaration, "tensor_map") != NULL;
    case ARG_POSITIONS: return pointer && wide;
    case ARG_TOKENS: case ARG_SLOTS: case ARG_ENDS: case ARG_HISTORY:
        return pointer && strstr(declaration, "int32_t") != NULL;
    default: return pointer;
    }
}

static void check_launch(Signatures *all, const Launches *l, const Launch *launch)
{
    const Kernel *kernel = &l->kernels[launch->kernel];
    const Signature *signature = find_signature(all, kernel->template);
    const Template *t = signature->template;
    CU_ASSERT_EQUAL(t->n_params, kernel->n_params);
    for (int i = 0; i < t->n_params; i++) {
        int found = 0;
        for (int j = 0; j < kernel->n_params; j++)
            found += strcmp(kernel->params[j].name, t->params[i].name) == 0;
        CU_ASSERT_EQUAL(found, 1);
    }
    CU_ASSERT_EQUAL_FATAL(signature->n, launch->n_args);
    for (int i = 0; i < launch->n_args; i++) {
        const LaunchArg *arg = &l->args[launch->first_arg + i];
        CU_ASSERT_TRUE(fits(arg, signature->type[i]));
        if (!fits(arg, signature->type[i]))
            printf("%s: %s for%s\n", t->name, launch_arg_text(arg->kind), signature->type[i]);
    }
}

static void check_launches(Signatures *all, const Plan *plan)
{
    for (int i = 0; i < plan->launches->n_launches; i++)
        check_launch(all, plan->launches, &plan->launches->launches[i]);
}

static void test_every_graph(void)
{
    glob_t list = models_list(45);
    Signatures all = { .arena = arena_new() };
    int n = 0;
    for (size_t i = 0; i < list.gl_pathc; i++) {
        for (int t = 0; t < 2; t++) {
            for (int d = 0; d < 3; d++) {
                Arena *arena = arena_new();
                const Plan *plan = models_plan(arena, models_read(arena, list.gl_pathv[i]), dtypes[d], targets[t]);
                CU_ASSERT_TRUE(holds(plan, list.gl_pathv[i]));
                check_launches(&all, plan);
                CU_ASSERT(plan->launches->scratch_len <= 600 << 20);
                n++;
                arena_free(arena);
            }
        }
    }
    CU_ASSERT(n >= 270);
    arena_free(all.arena);
    globfree(&list);
}

/* ---- damage ---- */

static const char mixed[] =
    "{\"format\":\"mossnet-graph/1\",\"name\":\"mixed\",\"vocab_size\":50,\"d_model\":24,\"experts\":4,\"top_k\":[2,3],"
    "\"layers\":[{\"op\":\"mamba\",\"d_inner\":20},{\"op\":\"attention\",\"heads\":4,\"kv_heads\":2,\"head_dim\":8,"
    "\"window\":5},{\"op\":\"attention\",\"heads\":3},{\"op\":\"mlp\",\"d_ff\":40},"
    "{\"op\":\"mamba\",\"experts\":5,\"top_k\":3}]}";

/* A plan whose launches may be changed. */
static Launches *mixed_launches(Arena *arena, Plan **plan)
{
    *plan = models_plan(arena, models_read_text(arena, mixed), DTYPE_BF16, TARGET_A100);
    return (Launches *)(*plan)->launches;
}

/* Every buffer moved onto another that is alive with it must be noticed. */
static void test_overlaps(void)
{
    Arena *arena = arena_new();
    Plan *plan;
    Launches *l = mixed_launches(arena, &plan);
    int n = 0;
    CU_ASSERT_TRUE(holds(plan, "mixed"));
    for (int i = 0; i < l->n_buffers[LIST_PREFILL]; i++) {
        for (int j = 0; j < i; j++) {
            LaunchBuffer *a = l->buffers[LIST_PREFILL][i], *b = l->buffers[LIST_PREFILL][j];
            if (a->first > b->last || b->first > a->last)
                continue;
            int64_t offset = a->offset;
            a->offset = b->offset;
            CU_ASSERT_FALSE(holds(plan, NULL));
            a->offset = offset;
            n++;
        }
    }
    CU_ASSERT(n > 200);
    CU_ASSERT_TRUE(holds(plan, "mixed"));
    arena_free(arena);
}

/* Whatever is read first by somebody else than who wrote it, and whatever leaves its space. */
static void test_damaged_arguments(void)
{
    Arena *arena = arena_new();
    Plan *plan;
    Launches *l = mixed_launches(arena, &plan);
    for (int i = 0; i < l->n_args; i++) {
        LaunchArg *arg = &l->args[i], kept = *arg;
        if (arg->kind == ARG_WEIGHTS)
            arg->offset = plan->weights_len;
        else if (arg->kind == ARG_STATE)
            arg->offset = plan->state_len + 64;
        else if (arg->kind == ARG_SCRATCH)
            arg->offset = arg->buffer->len;
        else
            continue;
        CU_ASSERT_FALSE(holds(plan, NULL));
        *arg = kept;
        if (arg->kind == ARG_SCRATCH && arg->access == ACCESS_WRITE) {
            arg->access = ACCESS_READ;
            CU_ASSERT_FALSE(holds(plan, NULL));
        }
        *arg = kept;
    }
    CU_ASSERT_TRUE(holds(plan, "mixed"));
    arena_free(arena);
}

/* A launch that a device of the target would refuse: `damaged` must be noticed, and nothing once it is gone. */
static void expect_refused(const Plan *plan, Launch *launch, Launch damaged, const char *words)
{
    const Launch kept = *launch;
    Text why = { 0 };
    *launch = damaged;
    CU_ASSERT_FALSE(plan_check(plan, &why));
    CU_ASSERT_PTR_NOT_NULL(strstr(why.data, words));
    *launch = kept;
    text_free(&why);
}

static void damage_block(const Plan *plan, Kernel *kernel, Launch *launch, int shared_most)
{
    Launch damaged = *launch, kept = *launch;
    const int n_threads = kernel->n_threads;
    damaged.shared_len = shared_most;
    *launch = damaged;
    CU_ASSERT_TRUE(holds(plan, "all shared memory there is"));
    *launch = kept;
    damaged.shared_len++;
    expect_refused(plan, launch, damaged, "of shared memory");
    damaged = kept;
    damaged.grid[1] = (LaunchExtent){ COUNT_ONE, 1, 65535 };
    expect_refused(plan, launch, damaged, "rows of blocks");
    kernel->n_threads = 1056;
    expect_refused(plan, launch, kept, "threads");
    kernel->n_threads = n_threads;
    if (!(kept.flags & LAUNCH_COOPERATIVE))
        return;
    damaged = kept;
    damaged.grid[1].extra = 1;
    expect_refused(plan, launch, damaged, "may not all be there");
    damaged = kept;
    damaged.grid[0] = (LaunchExtent){ COUNT_ONE, 1, 15 };
    expect_refused(plan, launch, damaged, "may not all be there");
}

static void test_damaged_launches(void)
{
    static const int shared_most[] = { 163 << 10, 227 << 10 };
    for (int t = 0; t < 2; t++) {
        Arena *arena = arena_new();
        const Graph *graph = models_read(arena, UNIT_ROOT "/models/mossnet-8x8m.json");
        Plan *plan = models_plan(arena, graph, DTYPE_F16, targets[t]);
        Launches *l = (Launches *)plan->launches;
        int n_cooperative = 0;
        for (int i = 0; i < l->n_launches; i++) {
            damage_block(plan, &l->kernels[l->launches[i].kernel], &l->launches[i], shared_most[t]);
            n_cooperative += (l->launches[i].flags & LAUNCH_COOPERATIVE) != 0;
        }
        CU_ASSERT(n_cooperative > 0);
        CU_ASSERT_TRUE(holds(plan, "mossnet-8x8m"));
        arena_free(arena);
    }
}

/* Lists of tiles grow with experts and need the room of other things; what has no room at all is refused in words. */
static void test_many_experts(void)
{
    static const int experts[] = { 100, 127, 128, 200, 252, 253, 512, 885, 886, 1024 };
    for (size_t i = 0; i < sizeof experts / sizeof *experts; i++) {
        for (int t = 0; t < 2; t++) {
            Arena *arena = arena_new();
            char text[400];
            snprintf(text, sizeof text,
                "{\"format\":\"mossnet-graph/1\",\"name\":\"many\",\"vocab_size\":50,\"d_model\":256,\"experts\":%d,"
                "\"top_k\":2,\"layers\":[{\"op\":\"mamba\"},{\"op\":\"mlp\",\"d_ff\":512}]}", experts[i]);
            const Graph *graph = models_read_text(arena, text);
            Diags *diags = diags_new(arena);
            const bool fits = gpu_accepts(graph, NULL, targets[t], diags);
            CU_ASSERT_EQUAL(fits, targets[t] == TARGET_H100 || experts[i] <= 885);
            for (int d = 0; d < 3 && fits; d++) {
                const Plan *plan = models_plan(arena, graph, dtypes[d], targets[t]);
                CU_ASSERT_TRUE(holds(plan, text));
            }
            arena_free(arena);
        }
    }
}

/* ---- what is where ---- */

static const WeightSlot *find_slot(const Plan *plan, int layer, const char *tensor)
{
    const BlockPlan *block = plan->layers[layer].block;
    for (int i = 0; i < block->n_weights; i++)
        if (strcmp(block->weights[i].tensor, tensor) == 0)
            return &block->weights[i];
    CU_FAIL_FATAL("no slot");
    return NULL;
}

static void test_layouts(void)
{
    Arena *arena = arena_new();
    const Graph *graph = models_read_text(arena, mixed);
    const Plan *plan = models_plan(arena, graph, DTYPE_F16, TARGET_H100);
    const WeightSlot *in = find_slot(plan, 0, "in_proj.weight"), *dt = find_slot(plan, 0, "dt_proj.weight");
    const WeightSlot *gate = find_slot(plan, 3, "gate_proj.weight"), *down = find_slot(plan, 3, "down_proj.weight");
    CU_ASSERT_EQUAL(in->stored_rows, 48);            /* 2 parts of 20, each padded to 24 */
    CU_ASSERT_EQUAL(in->row_stride, 64);
    CU_ASSERT_EQUAL(in->len, 4 * 48 * 64 * 2);
    CU_ASSERT_STRING_EQUAL(dt->layout, "device_joined");
    CU_ASSERT_EQUAL(dt->len, 20 * 64 * 2);           /* 4 experts of rank 2 side by side */
    CU_ASSERT_STRING_EQUAL(gate->pair, "up_proj.weight");
    CU_ASSERT_EQUAL(gate->n_out, 80);
    CU_ASSERT_EQUAL(down->scales, 0);
    plan = models_plan(arena, graph, DTYPE_Q8, TARGET_A100);
    down = find_slot(plan, 3, "down_proj.weight");
    CU_ASSERT_EQUAL(down->scales, 4 * 24 * 64);
    CU_ASSERT_EQUAL(down->len, 4 * 24 * 64 + 4 * 4 * 24);
    arena_free(arena);
}

/* Rings are 16 bits; those without a window grow with the context and stay aligned. */
static void test_states(void)
{
    Arena *arena = arena_new();
    const Plan *plan = models_plan(arena, models_read_text(arena, mixed), DTYPE_BF16, TARGET_A100);
    const BlockPlan *window = plan->layers[1].block, *whole = plan->layers[2].block;
    CU_ASSERT_EQUAL(window->states[0].len, 5 * 16 * 2);
    CU_ASSERT_EQUAL(whole->states[0].token_len, 3 * 8 * 2);
    CU_ASSERT_EQUAL(plan->state_token_len, 2 * 3 * 8 * 2);
    CU_ASSERT_EQUAL(plan->state_token_len % 16, 0);
    arena_free(arena);
}

/* A layer's experts a token: the mode's, or its own; grids never too small. */
static void test_top_k(void)
{
    Arena *arena = arena_new();
    Plan *plan;
    const Launches *l = mixed_launches(arena, &plan);
    int of_mode = 0, own = 0;
    for (int i = 0; i < l->n_launches; i++) {
        const Launch *launch = &l->launches[i];
        const char *template = l->kernels[launch->kernel].template;
        const bool norm = strcmp(template, "norm_route") == 0;
        if (!norm && strcmp(template, "route") != 0 && strcmp(template, "decode_in") != 0
            && strcmp(template, "decode_gated") != 0)
            continue;
        const LaunchArg *k = &l->args[launch->first_arg + launch->n_args - (norm ? 2 : 1)];
        of_mode += launch->layer < 4 && k->kind == ARG_COUNT && k->offset == COUNT_TOP_K;
        own += launch->layer == 4 && k->kind == ARG_INT && k->offset == 3;
    }
    CU_ASSERT_EQUAL(of_mode, 4 + 2);
    CU_ASSERT_EQUAL(own, 3 + 1);
    arena_free(arena);
}

static Plan *plan_with_chain(Arena *arena, const Graph *graph, DType dtype, TargetId target, int chain)
{
    Plan *plan = models_plan(arena, graph, dtype, target);
    Choices *choices = choices_new(arena);
    choices_set(choices, KERNEL_KEY_MODEL, "chain", chain);
    return gpu_plan_module_chosen(arena, graph, (Module *)plan->module, target, choices, 0);
}

/* The grid of the launches for a run of mamba layers, 0: there are none; that they fit the device. */
static LaunchExtent chain_blocks(const Plan *plan)
{
    const Launches *l = plan->launches;
    LaunchExtent blocks = { COUNT_ONE, 0, 0 };
    for (int i = l->lists[LIST_DECODE].begin; i < l->lists[LIST_DECODE].end; i++) {
        const Launch *launch = &l->launches[i];
        if (strcmp(l->kernels[launch->kernel].template, "decode_chain") != 0)
            continue;
        blocks = launch->grid[0];
        CU_ASSERT_EQUAL(blocks.count, COUNT_RESIDENT);
        CU_ASSERT(launch->shared_len <= (target_sm(plan->target) >= 90 ? 227 : 163) << 10);
    }
    CU_ASSERT_TRUE(holds(plan, "a chain"));
    return blocks;
}

/* As many blocks as panels of 16 channels; with two panels a block no fewer than x_proj and shared memory allow. */
static void test_chain_blocks(void)
{
    static const struct { const char *model; DType dtype; TargetId target; int chosen, least, most; } cases[] = {
        { "mossnet-8x200m+", DTYPE_F16, TARGET_A100, 0, 96, 128 },
        { "mossnet-8x200m+", DTYPE_F16, TARGET_A100, 1, 0, 0 },
        { "mossnet-8x200m+", DTYPE_F16, TARGET_A100, 2, 96, 128 },
        { "mossnet-8x200m+", DTYPE_Q8, TARGET_A100, 0, 96, 128 },
        { "mossnet-8x200m+", DTYPE_F16, TARGET_H100, 0, 96, 128 },
        { "mossnet-8x200m+", DTYPE_F16, TARGET_H100, 1, 0, 0 },
        { "mossnet-8x200m+", DTYPE_F16, TARGET_H100, 2, 96, 128 },
        { "mossnet-8x200m+", DTYPE_F16, TARGET_H100, 128, 96, 128 },   /* no choice: as 0 */
        { "mossnet-8x200m+", DTYPE_Q8, TARGET_H100, 0, 96, 128 },
        { "mossnet-8x200m+", DTYPE_Q8, TARGET_H100, 1, 0, 0 },
        { "mamba-500m", DTYPE_F16, TARGET_A100, 0, 64, 128 },
        { "mamba-500m", DTYPE_F16, TARGET_H100, 0, 64, 128 },
        { "mossnet-8x8m", DTYPE_F16, TARGET_A100, 0, 14, 16 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Arena *arena = arena_new();
        char path[256];
        snprintf(path, sizeof path, UNIT_ROOT "/models/%s.json", cases[i].model);
        const Graph *graph = models_read(arena, path);
        const Plan *plan = plan_with_chain(arena, graph, cases[i].dtype, cases[i].target, cases[i].chosen);
        const LaunchExtent blocks = chain_blocks(plan);
        const bool good = blocks.divisor == cases[i].least && blocks.extra == cases[i].most;
        CU_ASSERT(good);
        if (!good)
            printf("%s, chain=%d: %d..%d blocks, expected %d..%d\n", cases[i].model, cases[i].chosen, blocks.divisor,
                   blocks.extra, cases[i].least, cases[i].most);
        arena_free(arena);
    }
}

/* A warp of the kernel adds up 256 parts of a sum at most: with routers, no more panels than that. */
static void test_chain_panels(void)
{
    static const struct { int d_inner, experts, least, most; } cases[] = {
        { 4096, 2, 128, 256 }, { 4224, 2, 0, 0 }, { 4224, 1, 132, 264 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Arena *arena = arena_new();
        char text[400];
        snprintf(text, sizeof text,
            "{\"format\":\"mossnet-graph/1\",\"name\":\"wide\",\"vocab_size\":50,\"d_model\":256,\"experts\":%d,"
            "\"top_k\":1,\"layers\":[{\"op\":\"mamba\",\"d_inner\":%d},{\"op\":\"mamba\",\"d_inner\":%d}]}",
            cases[i].experts, cases[i].d_inner, cases[i].d_inner);
        const Plan *plan = plan_with_chain(arena, models_read_text(arena, text), DTYPE_F16, TARGET_H100, 2);
        const LaunchExtent blocks = chain_blocks(plan);
        CU_ASSERT_EQUAL(blocks.divisor, cases[i].least);
        CU_ASSERT_EQUAL(blocks.extra, cases[i].most);
        arena_free(arena);
    }
}

/* Mamba layers that follow one another are one launch for one sequence, and the usual ones for more. */
static void test_chain(void)
{
    Arena *arena = arena_new();
    const Graph *graph = models_read(arena, UNIT_ROOT "/models/mossnet-8x200m+.json");
    const Plan *plan = models_plan(arena, graph, DTYPE_F16, TARGET_A100);
    const Launches *l = plan->launches;
    int chains = 0, others = 0;
    for (int i = l->lists[LIST_DECODE].begin; i < l->lists[LIST_DECODE].end; i++) {
        const Launch *launch = &l->launches[i];
        const bool is = strcmp(l->kernels[launch->kernel].template, "decode_chain") == 0;
        const bool mamba = launch->layer >= 0 && graph->layers[launch->layer].kind == LAYER_MAMBA;
        chains += is;
        others += mamba && !is;
        CU_ASSERT_EQUAL((launch->flags & LAUNCH_IF_ONE) != 0, is);
        CU_ASSERT_EQUAL((launch->flags & LAUNCH_COOPERATIVE) != 0, is);
        CU_ASSERT_EQUAL((launch->flags & LAUNCH_IF_MORE) != 0, mamba && !is);
    }
    CU_ASSERT_EQUAL(chains, 5);
    CU_ASSERT_EQUAL(others, 80);
    arena_free(arena);
}

/* Weights, scratch and a state of 32768 tokens: what the project promises for one H100. */
static void test_memory(void)
{
    Arena *arena = arena_new();
    const Graph *graph = models_read(arena, UNIT_ROOT "/models/mossnet-8x200m+.json");
    const Plan *plan = models_plan(arena, graph, DTYPE_F16, TARGET_H100);
    CU_ASSERT_EQUAL(plan->chunk, 8192);
    CU_ASSERT(plan->weights_len < INT64_C(3120000000));
    CU_ASSERT(plan->weights_len + plan->launches->scratch_len + plan->state_len + (64 << 20) < INT64_C(3900000000));
    arena_free(arena);
}

static const UnitTest tests[] = {
    { "every graph on every target", test_every_graph },
    { "overlapping buffers", test_overlaps },
    { "damaged arguments", test_damaged_arguments },
    { "damaged launches", test_damaged_launches },
    { "many experts", test_many_experts },
    { "layouts", test_layouts },
    { "states", test_states },
    { "experts per token", test_top_k },
    { "layers of one sequence in one launch", test_chain },
    { "blocks of that launch", test_chain_blocks },
    { "panels of that launch", test_chain_panels },
    { "memory", test_memory },
};

int main(void) { return unit_main("gpu_plan", tests, sizeof tests / sizeof *tests); }
