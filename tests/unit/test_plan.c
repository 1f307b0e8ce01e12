/* Plans: the checker on every graph and target, that the checker notices damage, exact sizes by hand,
 * placing under random input, memory totals and --max-rss.
 */
#include "../../compiler/place.h"
#include "../../ir/product.h"

#include <string.h>

#include "models.h"

#include <stdlib.h>

static void check(const Plan *plan, const char *what)
{
    Text why = { 0 };
    bool good = plan_check(plan, &why);
    CU_ASSERT_TRUE(good);
    if (!good)
        printf("%s, %s: %s\n", what, target_info(plan->target)->name, why.data);
    text_free(&why);
}

static void test_every_graph(void)
{
    static const DType stored[] = { DTYPE_BF16, DTYPE_Q8 };
    enum { N_STORED = sizeof stored / sizeof *stored };
    glob_t list = models_list(45);
    for (size_t i = 0; i < list.gl_pathc; i++) {
        Arena *arena = arena_new();
        const Graph *graph = models_read(arena, list.gl_pathv[i]);
        for (int t = 0; t < N_TARGETS; t++)
            if (t != TARGET_HOST)
                for (int q = 0; q < N_STORED; q++)
                    check(models_plan(arena, graph, stored[q], (TargetId)t), list.gl_pathv[i]);
        arena_free(arena);
    }
    globfree(&list);
}

/* ---- damage ---- */

static const char mixed[] =
    "{\"format\":\"mossnet-graph/1\",\"name\":\"mixed\",\"vocab_size\":50,\"d_model\":24,\"experts\":4,\"top_k\":[2,3],"
    "\"layers\":[{\"op\":\"mamba\"},{\"op\":\"attention\",\"heads\":4,\"kv_heads\":2,\"head_dim\":6,\"window\":5},"
    "{\"op\":\"attention\",\"heads\":2},{\"op\":\"mlp\",\"d_ff\":40},{\"op\":\"mamba\"}]}";

static bool notices(const Plan *plan)
{
    Text why = { 0 };
    bool good = plan_check(plan, &why);
    CU_ASSERT_EQUAL(good, why.len == 0);
    text_free(&why);
    return !good;
}

/* Every barrier is needed: without any one of them some thread reads what another writes. */
static void test_missing_barrier(void)
{
    Arena *arena = arena_new();
    Plan *plan = models_plan(arena, models_read_text(arena, mixed), DTYPE_F32, TARGET_X86_64_V3);
    int n_barriers = 0;
    CU_ASSERT_FALSE(notices(plan));
    for (int b = 0; b < plan->n_blocks; b++) {
        for (int phase = 0; phase < N_PLAN_PHASES; phase++) {
            Schedule *s = &plan->blocks[b].schedule[phase];
            for (int i = 0; i < s->n_steps; i++) {
                if (!s->steps[i].barrier)
                    continue;
                s->steps[i].barrier = false;
                s->n_phases--;
                for (int j = i; j < s->n_steps; j++)
                    s->steps[j].phase--;
                CU_ASSERT_TRUE(notices(plan));
                s->steps[i].barrier = true;
                s->n_phases++;
                for (int j = i; j < s->n_steps; j++)
                    s->steps[j].phase++;
                n_barriers++;
            }
        }
    }
    CU_ASSERT(n_barriers > 20);
    CU_ASSERT_FALSE(notices(plan));
    arena_free(arena);
}

/* Try a damage on a number, see it noticed, undo it. */
static void damage(const Plan *plan, int64_t *number, int64_t value)
{
    int64_t old = *number;
    *number = value;
    CU_ASSERT_TRUE(notices(plan));
    *number = old;
}

static void test_moved_buffer(void)
{
    Arena *arena = arena_new();
    Plan *plan = models_plan(arena, models_read_text(arena, mixed), DTYPE_F32, TARGET_X86_64_V4);
    for (int b = 0; b < plan->n_blocks; b++) {
        const Schedule *s = &plan->blocks[b].schedule[PLAN_PREFILL];
        for (int i = 0; i < s->n_steps; i++) {
            if (!s->steps[i].op->n_results || s->steps[i].op->kind == OP_CALL)
                continue;
            Buffer *buffer = (Buffer *)s->steps[i].op->result[0]->buffer;
            if (buffer->space != SPACE_SHARED)
                continue;
            damage(plan, &buffer->offset, buffer->offset + 4);
            damage(plan, &buffer->offset, s->shared_len);
            damage(plan, &buffer->offset, -64);
            damage(plan, &buffer->len, 64);
            damage(plan, &buffer->stride, 0);
        }
    }
    arena_free(arena);
}

/* A result put where one of the step's operands lies. */
static void test_overlap(void)
{
    Arena *arena = arena_new();
    Plan *plan = models_plan(arena, models_read_text(arena, mixed), DTYPE_F32, TARGET_ARM_NEON);
    int n = 0;
    for (int b = 0; b < plan->n_blocks; b++) {
        const Schedule *s = &plan->blocks[b].schedule[PLAN_PREFILL];
        for (int i = 0; i < s->n_steps; i++) {
            const Op *op = s->steps[i].op;
            Buffer *out = op->n_results ? (Buffer *)op->result[0]->buffer : NULL;
            const Buffer *in = op->n_operands && op->operand[0] ? op->operand[0]->buffer : NULL;
            if (!out || !in || out->space != SPACE_SHARED || in->space != SPACE_SHARED || out == in)
                continue;
            damage(plan, &out->offset, in->offset);
            n++;
        }
    }
    CU_ASSERT(n > 5);
    arena_free(arena);
}

static void test_moved_slots(void)
{
    Arena *arena = arena_new();
    Plan *plan = models_plan(arena, models_read_text(arena, mixed), DTYPE_F32, TARGET_X86_64_V3);
    BlockPlan *mamba = (BlockPlan *)plan->layers[0].block, *full = (BlockPlan *)plan->layers[2].block;
    damage(plan, &mamba->weights[1].offset, 0);
    damage(plan, &mamba->weights[1].len, 4);
    damage(plan, &mamba->states[1].offset, 0);
    damage(plan, &mamba->states[0].len, 4);
    damage(plan, &full->states[1].token_offset, 0);
    damage(plan, &plan->layers[4].weights_offset, plan->layers[0].weights_offset);
    damage(plan, &plan->layers[4].state_offset, plan->layers[0].state_offset);
    damage(plan, &plan->layers[2].state_token_offset, 64);
    damage(plan, &plan->weights_len, plan->weights_len - 64);
    damage(plan, &plan->state_len, plan->state_len - 64);
    damage(plan, &plan->shared_len, plan->shared_len - 64);
    damage(plan, &plan->private_len, plan->private_len - 32);
    damage(plan, &plan->block_shared_offset[PLAN_PREFILL], plan->main->schedule[PLAN_PREFILL].shared_len);
    damage(plan, &plan->block_private_offset[PLAN_DECODE], 8);
    arena_free(arena);
}

/* ---- by hand ---- */

/* One dense mamba layer: d 8, c 16, N 4, taps 4, r 1; AVX2, so panels of 16 floats. */
static void test_by_hand(void)
{
    Arena *arena = arena_new();
    const Graph *graph = models_read_text(arena,
        "{\"format\":\"mossnet-graph/1\",\"name\":\"hand\",\"vocab_size\":20,\"d_model\":8,\"tie_embeddings\":true,"
        "\"layers\":[{\"op\":\"mamba\",\"d_state\":4,\"dt_rank\":1}]}");
    const Plan *plan = models_plan(arena, graph, DTYPE_BF16, TARGET_X86_64_V3);
    const BlockPlan *block = plan->layers[0].block;
    CU_ASSERT_EQUAL(plan->tiling.panel, 16);
    CU_ASSERT_STRING_EQUAL(plan->quant, "bf16");
    CU_ASSERT_EQUAL(plan->chunk, 512);
    /* Main: embedding of 20 rows in 2 panels of 16, [8], bf16; the final norm of 8 in a panel of 16. */
    CU_ASSERT_EQUAL(plan->main->weights_len, 2 * 16 * 8 * 2 + 16 * 4);
    /* norm 64; in_proj halves 16 x 8 each; filter 4 x 16, its bias; x_proj of 1 and of 8 rows, a panel each,
     * 16 in; dt_proj 16 x 1 and bias; A [4][16]; D; out_proj of 8 rows in a panel, 16 in. bf16 but vectors. */
    CU_ASSERT_EQUAL(block->weights_len, 64 + 2 * 256 + 256 + 64 + 2 * 512 + 64 + 64 + 256 + 64 + 512);
    CU_ASSERT_EQUAL(plan->weights_len, plan->main->weights_len + block->weights_len);
    CU_ASSERT_EQUAL(plan->layers[0].weights_offset, plan->main->weights_len);
    /* Three past tokens of 16 channels; 4 states of 16 channels. */
    CU_ASSERT_EQUAL(block->state_len, 3 * 16 * 4 + 4 * 16 * 4);
    CU_ASSERT_EQUAL(plan->state_len, block->state_len);
    CU_ASSERT_EQUAL(plan->state_token_len, 0);
    /* Rows of 8 take a panel of 16; behind the last one lies one panel more, as vectors may read past it. */
    const Value *x = plan->main->schedule[PLAN_DECODE].steps[0].op->result[0];
    CU_ASSERT_EQUAL(x->buffer->len, (16 + 16) * 4);
    CU_ASSERT_EQUAL(x->buffer->stride, 16);
    const Value *prefill_x = plan->main->schedule[PLAN_PREFILL].steps[0].op->result[0];
    CU_ASSERT_EQUAL(prefill_x->buffer->len, (512 * 16 + 16) * 4);
    PlanMemory m = plan_memory(plan, 1000, 3);
    CU_ASSERT_EQUAL(m.weights, 4096 + plan->weights_len);
    CU_ASSERT_EQUAL(m.state, 64 + 448);
    CU_ASSERT_EQUAL(m.window, 0);
    CU_ASSERT_EQUAL(m.logits, 128 + 192);       /* 80 and 160 bytes to whole cache lines */
    CU_ASSERT_EQUAL(m.private_all, 3 * plan->private_len);
    arena_free(arena);
}

static void test_shared_blocks(void)
{
    Arena *arena = arena_new();
    const Plan *plan = models_plan(arena, models_read(arena, UNIT_ROOT "/models/mossnet-8x200m+.json"), DTYPE_BF16,
                                   TARGET_X86_64_V3);
    CU_ASSERT_EQUAL(plan->n_blocks, 4);
    CU_ASSERT_STRING_EQUAL(plan->blocks[0].name, "mamba0");
    CU_ASSERT_STRING_EQUAL(plan->blocks[1].name, "attention0");
    CU_ASSERT_STRING_EQUAL(plan->blocks[2].name, "mlp0");
    CU_ASSERT_STRING_EQUAL(plan->blocks[3].name, "main");
    CU_ASSERT_PTR_EQUAL(plan->main, &plan->blocks[3]);
    for (int i = 0; i < plan->n_layers; i++)
        CU_ASSERT_PTR_EQUAL(plan->layers[i].block, &plan->blocks[i % 6 < 4 ? 0 : i % 6 - 3]);
    /* Packed bf16 weights: two bytes a parameter and what stays float32, padding below one percent. */
    double params = (double)graph_total_params(plan->graph);
    CU_ASSERT((double)plan->weights_len > 2 * params && (double)plan->weights_len < 2.01 * params);
    arena_free(arena);
}

/* Products of a block that are shared out by rows; *n: all of them. */
static int products_by_rows(const BlockPlan *block, int phase, int *n)
{
    int by_rows = 0;
    *n = 0;
    for (int i = 0; i < block->schedule[phase].n_steps; i++)
        if (op_is_product(block->schedule[phase].steps[i].op)) {
            by_rows += block->schedule[phase].steps[i].split == SPLIT_ROWS;
            ++*n;
        }
    return by_rows;
}

/* Small matrices by rows, in prefill; of large ones those of one panel alone: of x_proj what B and C come from. */
static void test_row_split(void)
{
    Arena *arena = arena_new();
    int n;
    const Plan *small = models_plan(arena, models_read(arena, UNIT_ROOT "/models/mossnet-8x8m.json"), DTYPE_BF16,
                                    TARGET_X86_64_V4);
    const Plan *large = models_plan(arena, models_read(arena, UNIT_ROOT "/models/mamba-370m.json"), DTYPE_F32,
                                    TARGET_X86_64_V4);
    CU_ASSERT_EQUAL(products_by_rows(&small->blocks[0], PLAN_PREFILL, &n), n);
    CU_ASSERT_EQUAL(products_by_rows(small->main, PLAN_PREFILL, &n), 0);      /* the head */
    CU_ASSERT_EQUAL(n, 1);
    CU_ASSERT_EQUAL(products_by_rows(&small->blocks[0], PLAN_DECODE, &n), 0);
    CU_ASSERT_EQUAL(products_by_rows(&large->blocks[0], PLAN_PREFILL, &n), 1);
    CU_ASSERT(n >= 5);
    arena_free(arena);
}

/* ---- placing ---- */

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

static void place_once(uint64_t *seed)
{
    enum { MAX_N = 40 };
    PlacedItem items[MAX_N];
    int64_t offsets[MAX_N], sum = 0, longest = 0;
    int n = 1 + (int)(next_random(seed) % MAX_N);
    for (int i = 0; i < n; i++) {
        int first = (int)(next_random(seed) % 12);
        items[i] = (PlacedItem){ 64 * (int64_t)(next_random(seed) % 30), first,
                                 first + (int)(next_random(seed) % 5), &offsets[i] };
        sum += items[i].len;
        longest = items[i].len > longest ? items[i].len : longest;
        offsets[i] = -1;
    }
    int64_t len = place_items(items, n), end = 0;
    for (int i = 0; i < n; i++) {
        int64_t a = *items[i].offset;
        CU_ASSERT(a >= 0 && a % 64 == 0 && a + items[i].len <= len);
        end = a + items[i].len > end ? a + items[i].len : end;
        for (int j = 0; j < i; j++) {
            int64_t b = *items[j].offset;
            bool together = items[i].first <= items[j].last && items[j].first <= items[i].last;
            CU_ASSERT(!together || a + items[i].len <= b || b + items[j].len <= a);
        }
    }
    /* No more than all side by side, no less than what is alive at once. */
    CU_ASSERT(len <= sum && len >= longest && len == end);
    for (int phase = 0; phase < 17; phase++) {
        int64_t alive = 0;
        for (int i = 0; i < n; i++)
            alive += items[i].first <= phase && phase <= items[i].last ? items[i].len : 0;
        CU_ASSERT(alive <= len);
    }
}

static void test_place(void)
{
    uint64_t seed = 7;
    for (int i = 0; i < 2000; i++)
        place_once(&seed);
    /* One after another in time: one place. */
    int64_t offsets[3];
    PlacedItem items[] = { { 64, 0, 1, &offsets[0] }, { 128, 2, 3, &offsets[1] }, { 192, 4, 4, &offsets[2] } };
    CU_ASSERT_EQUAL(place_items(items, 0), 0);
    CU_ASSERT_EQUAL(place_items(items, 3), 192);
    CU_ASSERT(offsets[0] == 0 && offsets[1] == 0 && offsets[2] == 0);
}

/* ---- memory ---- */

static void test_memory(void)
{
    Arena *arena = arena_new();
    const Plan *plan = models_plan(arena, models_read_text(arena, mixed), DTYPE_F32, TARGET_X86_64_V3);
    PlanMemory m = plan_memory(plan, 100, 4), more = plan_memory(plan, 164, 4);
    CU_ASSERT_EQUAL(m.total, m.weights + m.state + m.window + m.shared + m.private_all + m.logits + m.program);
    /* A window of 5 rows of 2 heads of 6, padded to 16 floats, keys and values; 100 rows of 24 in 32 floats. */
    CU_ASSERT_EQUAL(m.window, 2 * 5 * 16 * 4 + 100 * 2 * 32 * 4);
    CU_ASSERT_EQUAL(more.window - m.window, 64 * 2 * 32 * 4);
    CU_ASSERT_EQUAL(more.total - m.total, more.window - m.window);
    CU_ASSERT_EQUAL(m.state, 64 + 2 * plan->layers[0].block->state_len);
    CU_ASSERT_EQUAL(m.state + m.window, 64 + plan->state_len + 100 * plan->state_token_len);
    CU_ASSERT_EQUAL(plan_memory(plan, INT64_MAX, 4).total, INT64_MAX);
    CU_ASSERT_EQUAL(plan_memory(plan, INT64_MAX / plan->state_token_len, 1000).total, INT64_MAX);
    arena_free(arena);
}

static const char *report(Arena *arena, const Plan *plan, int64_t max_rss, bool fits)
{
    Diags *diags = diags_new(arena);
    Text text = { 0 };
    CU_ASSERT_EQUAL(plan_fits(plan, diags, max_rss, 1000, 4), fits);
    CU_ASSERT_EQUAL(diags_exit_code(diags), fits ? 0 : 1);
    diags_print(diags, &text);
    const char *copy = arena_strdup(arena, text.data ? text.data : "");
    text_free(&text);
    return copy;
}

static void test_budget(void)
{
    Arena *arena = arena_new();
    const Plan *plan = models_plan(arena, models_read_text(arena, mixed), DTYPE_F32, TARGET_X86_64_V3);
    int64_t total = plan_memory(plan, 1000, 4).total;
    CU_ASSERT_STRING_EQUAL(report(arena, plan, total, true), "");
    const char *text = report(arena, plan, total - 1, false);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "error[memory-budget]: mixed needs "));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "weights of 2 mamba layers "));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "weights of 1 mlp layer "));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "--quant bf16 would need "));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, ", which fits\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "a context of 999 tokens would fit"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "3 threads would fit"));
    text = report(arena, plan, 1000, false);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "still too much"));
    CU_ASSERT_PTR_NULL(strstr(text, "would fit"));
    arena_free(arena);
}

/* ---- printing ---- */

static void test_print(void)
{
    Arena *arena = arena_new();
    const Plan *plan = models_plan(arena, models_read_text(arena, mixed), DTYPE_F32, TARGET_X86_64_V3);
    Text text = { 0 };
    plan_print(plan, &text);
    int n_found = 0, n_barriers = 0;
    for (const char *at = text.data; (at = strstr(at, "---- barrier\n")); at++)
        n_found++;
    for (int b = 0; b < plan->n_blocks; b++)
        for (int phase = 0; phase < N_PLAN_PHASES; phase++)
            for (int i = 0; i < plan->blocks[b].schedule[phase].n_steps; i++)
                n_barriers += plan->blocks[b].schedule[phase].steps[i].barrier;
    CU_ASSERT_EQUAL(n_found, n_barriers);
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "block @mamba0: weights "));
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "  ring_k                        n_context "));
    for (const char *at = text.data; *at; at++)
        CU_ASSERT_FATAL(*at == '\n' || (*at >= ' ' && *at < 127));
    text_free(&text);
    arena_free(arena);
}

static const UnitTest tests[] = {
    { "every graph, every target", test_every_graph },
    { "a missing barrier is noticed", test_missing_barrier },
    { "a moved buffer is noticed", test_moved_buffer },
    { "an overlap is noticed", test_overlap },
    { "moved slots are noticed", test_moved_slots },
    { "sizes by hand", test_by_hand },
    { "layers of one shape share a block", test_shared_blocks },
    { "small products by rows", test_row_split },
    { "placing, random", test_place },
    { "memory totals", test_memory },
    { "memory budget", test_budget },
    { "printed plan", test_print },
};
UNIT_MAIN("plan", tests)
