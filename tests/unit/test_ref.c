/* The reference itself: cases small enough for pencil and paper.
 *
 * Input: layers built by hand. Checks each rule of docs/graph.md, section 2, alone: routing and
 * ties, dense layers, convolution taps, discretization, windows, rotary positions, tied heads.
 * Whole models are checked in test_golden_logits.c.
 * Invariant: every comparison is written so that a NaN fails it.
 */
#include "../ref/ref_layers.h"
#include "unit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool near(double found, double expected, double tolerance)
{
    bool ok = fabs(found - expected) <= tolerance;
    if (!ok)
        printf("found %.17g, expected %.17g\n", found, expected);
    return ok;
}

static bool all_near(const double *found, const double *expected, int64_t n, double tolerance)
{
    bool ok = true;
    for (int64_t i = 0; i < n; i++)
        ok = near(found[i], expected[i], tolerance) && ok;
    return ok;
}

/* Uniform in [-1, 1); splitmix64. */
static double uniform(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)(int64_t)(z ^ z >> 31) * 0x1p-63;
}

static double *random_array(Arena *arena, int64_t n, uint64_t seed)
{
    double *out = arena_array(arena, double, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        out[i] = uniform(&seed);
    return out;
}

static RefToken token_at(int64_t position, Arena *arena)
{
    return (RefToken){ .position = position, .lead = 1, .scratch = arena };
}

/* --- Scalars --- */

static void test_scalars(void)
{
    CU_ASSERT(near(ref_silu(0), 0, 0));
    CU_ASSERT(near(ref_silu(1), 0.7310585786300049, 1e-15));
    CU_ASSERT(near(ref_silu(-1), -0.2689414213699951, 1e-15));
    CU_ASSERT(near(ref_silu(-1000), 0, 0));
    CU_ASSERT(near(ref_softplus(0), 0.6931471805599453, 1e-15));
    CU_ASSERT(near(ref_softplus(1000), 1000, 0));
    CU_ASSERT(near(ref_softplus(-50) / exp(-50), 1, 1e-14));
    CU_ASSERT(near(ref_softplus(-1000), 0, 0));
}

static void test_rmsnorm(void)
{
    double y[2];
    /* mean square of (3, 4) is 12.5; with eps 3.5 the divisor is 4 */
    ref_rmsnorm((double[]){ 1, 2 }, 3.5, 2, (double[]){ 3, 4 }, y);
    CU_ASSERT(all_near(y, (double[]){ 0.75, 2 }, 2, 1e-15));
}

static void test_softmax_is_shifted(void)
{
    double p[3] = { 1000, 1000, 1000 + log(2) };
    ref_softmax(p, 3);
    CU_ASSERT(all_near(p, (double[]){ 0.25, 0.25, 0.5 }, 3, 1e-13));
}

/* --- Routing --- */

static void test_choose_largest(void)
{
    const double p[] = { 0.1, 0.4, 0.2, 0.3 };
    RefChoice choice = ref_choose(p, 4, 2, false);
    CU_ASSERT_EQUAL(choice.expert[0], 1);
    CU_ASSERT_EQUAL(choice.expert[1], 3);
    CU_ASSERT(all_near(choice.gate, (double[]){ 0.4, 0.3 }, 2, 0));   /* p as they are, Eq. (7) */
    CU_ASSERT(near(choice.lead, (0.3 - 0.2) / 0.3, 1e-15));
}

static void test_ties_take_lower_index(void)
{
    const double p[] = { 0.1, 0.3, 0.3, 0.3 };
    RefChoice choice = ref_choose(p, 4, 2, false);
    CU_ASSERT_EQUAL(choice.expert[0], 1);
    CU_ASSERT_EQUAL(choice.expert[1], 2);
    CU_ASSERT(near(choice.lead, (0.3 - 0.1) / 0.3, 1e-15));   /* the tie itself is firm */
    const double even[] = { 0.25, 0.25, 0.25, 0.25 };
    choice = ref_choose(even, 4, 3, false);
    for (int i = 0; i < 3; i++)
        CU_ASSERT_EQUAL(choice.expert[i], i);
    CU_ASSERT(near(choice.lead, 1, 0));
}

static void test_choose_renormalizes(void)
{
    const double p[] = { 0.1, 0.4, 0.2, 0.3 };
    RefChoice choice = ref_choose(p, 4, 2, true);
    CU_ASSERT(all_near(choice.gate, (double[]){ 4.0 / 7, 3.0 / 7 }, 2, 1e-15));
    choice = ref_choose(p, 4, 1, true);
    CU_ASSERT(near(choice.gate[0], 1, 0));
    choice = ref_choose(p, 4, 4, true);
    CU_ASSERT(near(choice.gate[0] + choice.gate[1] + choice.gate[2] + choice.gate[3], 1, 1e-15));
}

static void test_route_by_hand(void)
{
    Arena *arena = arena_new();
    /* scores of x = (1, 1): 0, log 3 + log 2, log 3 -> p = 1/10, 6/10, 3/10 */
    const double weight[] = { 0, 0, log(3), log(2), log(3), 0 };
    RefRouter router = { .n_experts = 3, .d_in = 2, .top_k = { 1, 2 }, .weight = weight };
    RefToken token = token_at(0, arena);
    RefChoice choice = ref_route(&router, 1, (double[]){ 1, 1 }, &token);
    CU_ASSERT_EQUAL(choice.k, 2);
    CU_ASSERT_EQUAL(choice.expert[0], 1);
    CU_ASSERT_EQUAL(choice.expert[1], 2);
    CU_ASSERT(all_near(choice.gate, (double[]){ 0.6, 0.3 }, 2, 1e-15));
    CU_ASSERT(near(token.lead, 2.0 / 3, 1e-14));
    CU_ASSERT_EQUAL(ref_route(&router, 0, (double[]){ 1, 1 }, &token).k, 1);   /* mode 0 */
    arena_free(arena);
}

/* MoE(x; W): with x = 2 and W_i = i + 1, gates 0.4 (expert 1) and 0.3 (expert 3). */
static void test_moe_by_hand(void)
{
    Arena *arena = arena_new();
    RefChoice choice = ref_choose((double[]){ 0.1, 0.4, 0.2, 0.3 }, 4, 2, false);
    const double w[] = { 1, 2, NAN, 4 };   /* expert 2 is not chosen and not read */
    double y;
    ref_moe(&choice, w, 1, 1, (double[]){ 2 }, &y, arena);
    CU_ASSERT(near(y, 0.4 * 4 + 0.3 * 8, 1e-15));
    arena_free(arena);
}

/* --- Layers built at random, for properties that hold whatever the weights --- */

enum { MODEL = 4, FF = 5, INNER = 6, STATE = 3, TAPS = 3, RANK = 2, MAX_E = 4, STEPS = 5 };

static RefRouter make_router(Arena *arena, int n_experts, int top_k, int d_in, uint64_t seed)
{
    return (RefRouter){ .n_experts = n_experts, .d_in = d_in, .top_k = { top_k },
                        .weight = random_array(arena, MAX_E * d_in, seed) };
}

static RefMlp make_mlp(Arena *arena, int n_experts, int top_k)
{
    return (RefMlp){
        .d_model = MODEL, .d_ff = FF,
        .router = make_router(arena, n_experts, top_k, MODEL, 1),
        .gate_proj = random_array(arena, MAX_E * FF * MODEL, 2),
        .up_proj = random_array(arena, MAX_E * FF * MODEL, 3),
        .down_proj = random_array(arena, MAX_E * MODEL * FF, 4),
    };
}

static RefMamba make_mamba(Arena *arena, int n_experts, int top_k)
{
    return (RefMamba){
        .d_model = MODEL, .d_inner = INNER, .d_state = STATE, .d_conv = TAPS, .dt_rank = RANK,
        .in_router = make_router(arena, n_experts, top_k, MODEL, 11),
        .ssm_router = make_router(arena, n_experts, top_k, INNER, 12),
        .out_router = make_router(arena, n_experts, top_k, INNER, 13),
        .in_proj = random_array(arena, MAX_E * 2 * INNER * MODEL, 14),
        .conv1d = random_array(arena, INNER * TAPS, 15),
        .conv1d_bias = random_array(arena, INNER, 16),
        .x_proj = random_array(arena, MAX_E * (RANK + 2 * STATE) * INNER, 17),
        .dt_proj = random_array(arena, MAX_E * INNER * RANK, 18),
        .dt_bias = random_array(arena, MAX_E * INNER, 19),
        .A_log = random_array(arena, INNER * STATE, 20),
        .D = random_array(arena, INNER, 21),
        .out_proj = random_array(arena, MAX_E * MODEL * INNER, 22),
    };
}

/* f of STEPS seeded tokens: [STEPS, MODEL]. */
static double *run_mamba(const RefMamba *layer, Arena *arena)
{
    const double *u = random_array(arena, STEPS * MODEL, 30);
    double *f = arena_array(arena, double, STEPS * MODEL);
    RefMambaState state = ref_mamba_start(layer, arena);
    for (int t = 0; t < STEPS; t++) {
        RefToken token = token_at(t, arena);
        ref_mamba_step(layer, 0, &state, u + t * MODEL, f + t * MODEL, &token);
    }
    return f;
}

static double *run_mlp(const RefMlp *layer, Arena *arena)
{
    const double *u = random_array(arena, MODEL, 31);
    double *f = arena_array(arena, double, MODEL);
    RefToken token = token_at(0, arena);
    ref_mlp_step(layer, 0, u, f, &token);
    return f;
}

/* --- Experts --- */

static void test_mlp_by_hand(void)
{
    Arena *arena = arena_new();
    const double gate[] = { 1, 0 }, up[] = { 0, 3 }, down[] = { 1, -2 };
    RefMlp layer = { .d_model = 2, .d_ff = 1, .router = { .n_experts = 1 },
                     .gate_proj = gate, .up_proj = up, .down_proj = down };
    double f[2];
    RefToken token = token_at(0, arena);
    ref_mlp_step(&layer, 0, (double[]){ 1, 2 }, f, &token);
    double hidden = 0.7310585786300049 * 6;   /* silu(1) * (3 * 2) */
    CU_ASSERT(all_near(f, (double[]){ hidden, -2 * hidden }, 2, 1e-14));
    arena_free(arena);
}

/* With a router of zeros every expert has the same probability: 0 and 1 win, 2 and 3 never. */
static void test_idle_expert_changes_nothing(void)
{
    Arena *arena = arena_new();
    RefMlp mlp = make_mlp(arena, 4, 2);
    RefMamba mamba = make_mamba(arena, 4, 2);
    mlp.router.weight = mamba.in_router.weight = mamba.ssm_router.weight =
        mamba.out_router.weight = arena_array(arena, double, MAX_E * INNER);
    double *mlp_before = run_mlp(&mlp, arena), *mamba_before = run_mamba(&mamba, arena);
    double *down = random_array(arena, MAX_E * MODEL * FF, 4);
    double *out = random_array(arena, MAX_E * MODEL * INNER, 22);
    double *x_proj = random_array(arena, MAX_E * (RANK + 2 * STATE) * INNER, 17);
    down[2 * MODEL * FF] = out[3 * MODEL * INNER] = NAN;
    x_proj[2 * (RANK + 2 * STATE) * INNER] = NAN;
    mlp.down_proj = down;
    mamba.out_proj = out;
    mamba.x_proj = x_proj;
    CU_ASSERT(all_near(run_mlp(&mlp, arena), mlp_before, MODEL, 0));
    CU_ASSERT(all_near(run_mamba(&mamba, arena), mamba_before, STEPS * MODEL, 0));
    arena_free(arena);
}

/* k = E = 2 identical experts with gates that sum to 1 are one dense layer. */
static void test_equal_experts_are_dense(void)
{
    Arena *arena = arena_new();
    RefMamba dense = make_mamba(arena, 1, 1), mixed = make_mamba(arena, 2, 2);
    const double **stacks[] = { &mixed.in_proj, &mixed.x_proj, &mixed.dt_proj, &mixed.dt_bias,
                                &mixed.out_proj };
    const int64_t lens[] = { 2 * INNER * MODEL, (RANK + 2 * STATE) * INNER, INNER * RANK, INNER,
                             MODEL * INNER };
    for (int i = 0; i < 5; i++) {
        double *copy = arena_array(arena, double, (size_t)(2 * lens[i]));
        memcpy(copy, *stacks[i], (size_t)lens[i] * sizeof *copy);
        memcpy(copy + lens[i], *stacks[i], (size_t)lens[i] * sizeof *copy);
        *stacks[i] = copy;
    }
    CU_ASSERT(all_near(run_mamba(&mixed, arena), run_mamba(&dense, arena), STEPS * MODEL, 1e-13));
    arena_free(arena);
}

/* experts = 1 needs no router and has gate 1, whatever renormalize says. */
static void test_dense_ignores_router(void)
{
    Arena *arena = arena_new();
    RefMlp layer = make_mlp(arena, 1, 1);
    double *before = run_mlp(&layer, arena);
    layer.router.weight = NULL;
    layer.router.renormalize = true;
    CU_ASSERT(all_near(run_mlp(&layer, arena), before, MODEL, 0));
    arena_free(arena);
}

/* Renormalised gates are the plain ones over their sum, so f is too. */
static void test_renormalized_layer(void)
{
    Arena *arena = arena_new();
    RefMlp layer = make_mlp(arena, 4, 2);
    double *plain = run_mlp(&layer, arena), scaled[MODEL];
    RefToken token = token_at(0, arena);
    RefChoice choice = ref_route(&layer.router, 0, random_array(arena, MODEL, 31), &token);
    for (int i = 0; i < MODEL; i++)
        scaled[i] = plain[i] / (choice.gate[0] + choice.gate[1]);
    layer.router.renormalize = true;
    CU_ASSERT(all_near(run_mlp(&layer, arena), scaled, MODEL, 1e-14));
    arena_free(arena);
}

/* --- Mamba --- */

/* One channel, one state, experts 1; in_proj sends u to x' and to z. Every number by hand. */
static void test_mamba_by_hand(void)
{
    Arena *arena = arena_new();
    const double in_proj[] = { 1, 2 }, conv[] = { 0.5, 1 }, bias[] = { 0.25 };
    const double x_proj[] = { 0.5, 2, 3 }, dt_proj[] = { 2 }, dt_bias[] = { -1 };
    const double A_log[] = { 0 }, D[] = { 0.5 }, out_proj[] = { 4 };
    RefMamba layer = {
        .d_model = 1, .d_inner = 1, .d_state = 1, .d_conv = 2, .dt_rank = 1,
        .in_router = { .n_experts = 1 }, .ssm_router = { .n_experts = 1 },
        .out_router = { .n_experts = 1 },
        .in_proj = in_proj, .conv1d = conv, .conv1d_bias = bias, .x_proj = x_proj,
        .dt_proj = dt_proj, .dt_bias = dt_bias, .A_log = A_log, .D = D, .out_proj = out_proj,
    };
    const double u[] = { 1, 3 };
    double s = 0, before = 0;
    RefMambaState state = ref_mamba_start(&layer, arena);
    for (int t = 0; t < 2; t++) {
        double conv_in = 0.25 + 0.5 * before + u[t];          /* tap 1 is the current token */
        double x = conv_in / (1 + exp(-conv_in));
        double delta = log(1 + exp(2 * (0.5 * x) - 1)), B = 2 * x, C = 3 * x;
        s = exp(-delta) * s + delta * B * x;                  /* A = -exp(0) */
        double z = 2 * u[t], y = (C * s + 0.5 * x) * (z / (1 + exp(-z))), f;
        RefToken token = token_at(t, arena);
        ref_mamba_step(&layer, 0, &state, &u[t], &f, &token);
        CU_ASSERT(near(f, 4 * y, 1e-12));
        before = u[t];
    }
    arena_free(arena);
}

/* With d_conv 1 a token's x_c comes from that token alone: no taps are carried over. */
static void test_one_tap(void)
{
    Arena *arena = arena_new();
    RefMamba layer = make_mamba(arena, 1, 1);
    layer.d_conv = 1;
    layer.x_proj = arena_array(arena, double, (RANK + 2 * STATE) * INNER);   /* B = C = 0 */
    const double *u = random_array(arena, MODEL, 40);
    double first[MODEL], second[MODEL];
    RefMambaState state = ref_mamba_start(&layer, arena);
    RefToken token = token_at(0, arena);
    ref_mamba_step(&layer, 0, &state, u, first, &token);
    ref_mamba_step(&layer, 0, &state, u, second, &token);
    CU_ASSERT(all_near(first, second, MODEL, 0));
    arena_free(arena);
}

/* softplus is applied to the mixed sum: two experts with biases 2 and -2, gates 1/2 each. */
static void test_delta_is_mixed_before_softplus(void)
{
    Arena *arena = arena_new();
    const double dt_bias[] = { 2, -2 };
    double zeros[6] = { 0 }, delta, B, C;
    RefMamba layer = { .d_inner = 1, .d_state = 1, .dt_rank = 1, .x_proj = zeros,
                       .dt_proj = zeros, .dt_bias = dt_bias };
    RefChoice choice = ref_choose((double[]){ 0.5, 0.5 }, 2, 2, false);
    ref_mamba_select(&layer, &choice, (double[]){ 1 }, &delta, &B, &C, arena);
    CU_ASSERT(near(delta, log(2), 1e-15));
    choice = ref_choose((double[]){ 0.5, 0.5 }, 2, 1, false);   /* gate 1/2 scales the bias, too */
    ref_mamba_select(&layer, &choice, (double[]){ 1 }, &delta, &B, &C, arena);
    CU_ASSERT(near(delta, log(1 + exp(1)), 1e-15));
    arena_free(arena);
}

static void test_zoh_by_hand(void)
{
    /* Eq. (6) with delta = 1/2, A = -2: (-1)^-1 (e^-1 - 1) / 2 = (1 - 1/e) / 2 */
    CU_ASSERT(near(ref_mamba_gain(DISCRETIZE_ZOH, 0.5, -2), (1 - exp(-1)) / 2, 1e-15));
    CU_ASSERT(near(ref_mamba_gain(DISCRETIZE_EULER, 0.5, -2), 0.5, 0));
    CU_ASSERT(near(ref_mamba_decay(0.5, -2), exp(-1), 1e-15));
}

/* zoh / euler -> 1 as delta -> 0, the difference falling with delta; equal where A vanishes. */
static void test_zoh_tends_to_euler(void)
{
    for (double delta = 1e-1; delta > 1e-12; delta /= 10) {
        double ratio = ref_mamba_gain(DISCRETIZE_ZOH, delta, -3) / delta;
        CU_ASSERT(near(ratio, 1, 1.5 * delta + 1e-15));   /* 1 - 3 delta / 2 + ... */
        CU_ASSERT(ratio <= 1);
    }
    CU_ASSERT(near(ref_mamba_gain(DISCRETIZE_ZOH, 0.5, -0.0), 0.5, 0));
    CU_ASSERT(near(ref_mamba_gain(DISCRETIZE_ZOH, 0, -1), 0, 0));
}

/* --- Attention --- */

enum { HD = 4, KV = 2, HEADS = 4, LENGTH = 6 };

static RefAttention make_attention(Arena *arena, int64_t window, double theta)
{
    return (RefAttention){
        .d_model = MODEL, .n_heads = HEADS, .n_kv_heads = KV, .head_dim = HD,
        .window = window, .rope_theta = theta,
        .q_proj = random_array(arena, HEADS * HD * MODEL, 50),
        .k_proj = random_array(arena, KV * HD * MODEL, 51),
        .v_proj = random_array(arena, KV * HD * MODEL, 52),
        .o_proj = random_array(arena, MODEL * HEADS * HD, 53),
    };
}

/* f of LENGTH tokens [LENGTH, MODEL], at positions from `position`; token i is inputs[i]. */
static double *run_attention(const RefAttention *layer, const double *u, int64_t position,
                             Arena *arena)
{
    double *f = arena_array(arena, double, LENGTH * MODEL);
    RefAttentionState state = ref_attention_start(layer, position + LENGTH, arena);
    for (int t = 0; t < LENGTH; t++) {
        RefToken token = token_at(position + t, arena);
        ref_attention_step(layer, &state, u + t * MODEL, f + t * MODEL, &token);
    }
    return f;
}

/* One head of one number: p = softmax(q k_j), by hand for the second token. */
static void test_attention_by_hand(void)
{
    Arena *arena = arena_new();
    const double q[] = { 1 }, k[] = { log(2) }, v[] = { 10 }, o[] = { 0.5 };
    RefAttention layer = { .d_model = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 1,
                           .q_proj = q, .k_proj = k, .v_proj = v, .o_proj = o };
    RefAttentionState state = ref_attention_start(&layer, 2, arena);
    RefToken token = token_at(0, arena);
    double f;
    ref_attention_step(&layer, &state, (double[]){ 2 }, &f, &token);
    CU_ASSERT(near(f, 10, 1e-14));   /* itself alone: 0.5 * 10 * 2 */
    token.position = 1;
    ref_attention_step(&layer, &state, (double[]){ 1 }, &f, &token);
    /* scores 2 log 2 and log 2 -> p = 2/3, 1/3; values 20 and 10 */
    CU_ASSERT(near(f, 0.5 * (2 * 20.0 + 10) / 3, 1e-14));
    arena_free(arena);
}

/* The scale is 1 / sqrt(head_dim): 4 equal entries of score 1 each give 4 / 2. */
static void test_attention_scale(void)
{
    Arena *arena = arena_new();
    const double ones[] = { 1, 1, 1, 1 }, v[] = { 1, 0, 0, 0 }, o[] = { 1, 0, 0, 0 };
    RefAttention layer = { .d_model = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 4,
                           .q_proj = ones, .k_proj = ones, .v_proj = v, .o_proj = o };
    RefAttentionState state = ref_attention_start(&layer, 2, arena);
    RefToken token = token_at(0, arena);
    double f;
    ref_attention_step(&layer, &state, (double[]){ 0 }, &f, &token);
    token.position = 1;
    ref_attention_step(&layer, &state, (double[]){ 1 }, &f, &token);
    CU_ASSERT(near(f, exp(2) / (exp(2) + 1), 1e-14));
    arena_free(arena);
}

/* Query heads 0 and 1 read key head 0, heads 2 and 3 key head 1. */
static void test_grouped_queries(void)
{
    Arena *arena = arena_new();
    RefAttention layer = make_attention(arena, 0, 10000);
    const double *u = random_array(arena, LENGTH * MODEL, 54);
    double *before = run_attention(&layer, u, 0, arena);
    double *o = random_array(arena, MODEL * HEADS * HD, 53);
    double *v = random_array(arena, KV * HD * MODEL, 52);
    for (int i = 0; i < MODEL; i++)
        for (int j = 2 * HD; j < HEADS * HD; j++)
            o[i * HEADS * HD + j] = 0;   /* only heads 0 and 1 are heard */
    layer.o_proj = o;
    double *lower = run_attention(&layer, u, 0, arena);
    for (int i = HD * MODEL; i < KV * HD * MODEL; i++)
        v[i] = NAN;                      /* key head 1's values */
    layer.v_proj = v;
    double *poisoned = run_attention(&layer, u, 0, arena);
    CU_ASSERT(isnan(poisoned[0]));       /* 0 * NaN: heads 2 and 3 do read it */
    for (int i = HD * MODEL; i < KV * HD * MODEL; i++)
        v[i] = 100;
    CU_ASSERT(all_near(run_attention(&layer, u, 0, arena), lower, LENGTH * MODEL, 1e-12));
    CU_ASSERT(!(fabs(before[0] - lower[0]) <= 1e-6));
    arena_free(arena);
}

/* Window 1: softmax over one score is 1, so f = o_proj of the token's own values. */
static void test_window_of_one(void)
{
    Arena *arena = arena_new();
    RefAttention layer = make_attention(arena, 1, 10000);
    const double *u = random_array(arena, LENGTH * MODEL, 54);
    double *f = run_attention(&layer, u, 0, arena);
    for (int t = 0; t < LENGTH; t++) {
        double v[KV * HD], y[HEADS * HD], own[MODEL];
        ref_linear(layer.v_proj, KV * HD, MODEL, u + t * MODEL, v);
        for (int h = 0; h < HEADS; h++)
            memcpy(y + h * HD, v + h / (HEADS / KV) * HD, HD * sizeof *y);
        ref_linear(layer.o_proj, MODEL, HEADS * HD, y, own);
        CU_ASSERT(all_near(f + t * MODEL, own, MODEL, 1e-14));
    }
    arena_free(arena);
}

/* Window 3 sees tokens t-2 .. t: changing token 0 is felt until token 2 and no longer. A window
 * as long as the text is no window. */
static void test_window_reach(void)
{
    Arena *arena = arena_new();
    RefAttention windowed = make_attention(arena, 3, 10000);
    RefAttention longest = make_attention(arena, LENGTH, 10000);
    RefAttention all = make_attention(arena, 0, 10000);
    double *u = random_array(arena, LENGTH * MODEL, 54);
    double *before = run_attention(&windowed, u, 0, arena);
    double *unlimited = run_attention(&all, u, 0, arena);
    CU_ASSERT(all_near(run_attention(&longest, u, 0, arena), unlimited, LENGTH * MODEL, 0));
    CU_ASSERT(!(fabs(before[3 * MODEL] - unlimited[3 * MODEL]) <= 1e-9));
    u[0] += 1;
    double *after = run_attention(&windowed, u, 0, arena);
    for (int t = 0; t < 3; t++)
        CU_ASSERT(!(fabs(after[t * MODEL] - before[t * MODEL]) <= 1e-9));
    CU_ASSERT(all_near(after + 3 * MODEL, before + 3 * MODEL, (LENGTH - 3) * MODEL, 0));
    arena_free(arena);
}

/* By hand: head_dim 4, theta 100: pairs (0,2) and (1,3) turn by p and p / 10. */
static void test_rope_by_hand(void)
{
    double x[] = { 1, 1, 0, 2 };
    ref_rope(100, 3, 4, x);
    const double expected[] = { cos(3), cos(0.3) - 2 * sin(0.3), sin(3), 2 * cos(0.3) + sin(0.3) };
    CU_ASSERT(all_near(x, expected, 4, 1e-15));
    double still[] = { 1, 2, 3 };
    ref_rope(0, 7, 3, still);
    CU_ASSERT(all_near(still, (double[]){ 1, 2, 3 }, 3, 0));
}

/* Scores depend on the distance alone: a whole text shifted by 5 positions gives the same f.
 * The state's first five rows stay zero and must lie outside of the window. */
static void test_rope_is_relative(void)
{
    double q[] = { 0.3, -1, 2, 0.7 }, k[] = { 1, 0.5, -0.2, 3 };
    double q2[4], k2[4];
    memcpy(q2, q, sizeof q);
    memcpy(k2, k, sizeof k);
    ref_rope(10000, 9, 4, q);
    ref_rope(10000, 2, 4, k);
    ref_rope(10000, 1009, 4, q2);
    ref_rope(10000, 1002, 4, k2);
    CU_ASSERT(near(ref_dot(q, k, 4), ref_dot(q2, k2, 4), 1e-12));

    Arena *arena = arena_new();
    RefAttention layer = make_attention(arena, 2, 500);
    const double *u = random_array(arena, LENGTH * MODEL, 54);
    double *f = run_attention(&layer, u, 0, arena), *shifted = run_attention(&layer, u, 5, arena);
    CU_ASSERT(all_near(shifted + MODEL, f + MODEL, (LENGTH - 1) * MODEL, 1e-12));
    layer.rope_theta = 0;
    double *unrotated = run_attention(&layer, u, 0, arena);
    CU_ASSERT(!(fabs(unrotated[MODEL] - f[MODEL]) <= 1e-9));
    arena_free(arena);
}

/* --- Whole models --- */

/* No layers: logits = RMSNorm(embed[token]) . head^T. */
static void test_tied_and_untied_heads(void)
{
    const double embed[] = { 3, 4, 1, 0, 0, 2 }, norm[] = { 1, 2 }, head[] = { 1, 1, 0, 1, -1, 0 };
    Ref ref = { .vocab_size = 3, .d_model = 2, .norm_eps = 3.5, .embed = embed, .norm_f = norm,
                .lm_head = embed };
    double logits[3];
    ref_logits(&ref, 0, (int32_t[]){ 0 }, 1, logits);   /* normed: (0.75, 2) */
    CU_ASSERT(all_near(logits, (double[]){ 10.25, 0.75, 4 }, 3, 1e-14));
    ref.lm_head = head;
    ref_logits(&ref, 0, (int32_t[]){ 0 }, 1, logits);
    CU_ASSERT(all_near(logits, (double[]){ 2.75, 2, -0.75 }, 3, 1e-14));
}

/* A model of all three kinds of layers, top_k 1 in mode 0 and 2 in mode 1. */
static Ref make_model(Arena *arena)
{
    RefLayer *layers = arena_array(arena, RefLayer, 3);
    layers[0] = (RefLayer){ .kind = LAYER_MAMBA, .mamba = make_mamba(arena, 4, 1) };
    layers[1] = (RefLayer){ .kind = LAYER_ATTENTION, .attention = make_attention(arena, 2, 100) };
    layers[2] = (RefLayer){ .kind = LAYER_MLP, .mlp = make_mlp(arena, 4, 1) };
    layers[0].mamba.in_router.top_k[1] = layers[0].mamba.ssm_router.top_k[1] =
        layers[0].mamba.out_router.top_k[1] = layers[2].mlp.router.top_k[1] = 2;
    for (int i = 0; i < 3; i++)
        layers[i].norm = random_array(arena, MODEL, 60 + (uint64_t)i);
    return (Ref){
        .vocab_size = 9, .d_model = MODEL, .norm_eps = 1e-5,
        .embed = random_array(arena, 9 * MODEL, 63), .norm_f = random_array(arena, MODEL, 64),
        .lm_head = random_array(arena, 9 * MODEL, 65), .n_layers = 3, .layers = layers,
    };
}

/* Later tokens do not reach back, and one call leaves nothing behind for the next. */
static void test_logits_are_causal(void)
{
    Arena *arena = arena_new();
    Ref ref = make_model(arena);
    const int32_t tokens[] = { 3, 8, 0, 3, 5, 1 }, other[] = { 3, 8, 0, 3, 7, 2 };
    double a[6 * 9], b[6 * 9];
    ref_logits(&ref, 0, tokens, 6, a);
    ref_logits(&ref, 0, other, 6, b);
    CU_ASSERT(all_near(b, a, 4 * 9, 0));
    CU_ASSERT(!(fabs(a[4 * 9] - b[4 * 9]) <= 1e-9));
    ref_logits(&ref, 0, tokens, 4, b);
    CU_ASSERT(all_near(b, a, 4 * 9, 0));
    CU_ASSERT(!(fabs(a[0] - a[3 * 9]) <= 1e-9));   /* token 3 again, after others */
    arena_free(arena);
}

static void test_modes_differ(void)
{
    Arena *arena = arena_new();
    Ref ref = make_model(arena);
    const int32_t tokens[] = { 3, 8 };
    double one[2 * 9], two[2 * 9], leads[2];
    ref_logits(&ref, 0, tokens, 2, one);
    ref_logits_leads(&ref, 1, tokens, 2, two, leads);
    CU_ASSERT(!(fabs(one[0] - two[0]) <= 1e-9));
    CU_ASSERT(leads[0] > 0 && leads[0] < 1 && leads[1] > 0 && leads[1] < 1);
    arena_free(arena);
}

/* Zero layers of weight add nothing: x stays the embedding. */
static void test_residual_stream(void)
{
    Arena *arena = arena_new();
    Ref ref = make_model(arena);
    ref.layers[0].mamba.out_proj = arena_array(arena, double, MAX_E * MODEL * INNER);
    ref.layers[1].attention.o_proj = arena_array(arena, double, MODEL * HEADS * HD);
    ref.layers[2].mlp.down_proj = arena_array(arena, double, MAX_E * MODEL * FF);
    double with[9], without[9];
    ref_logits(&ref, 0, (int32_t[]){ 4 }, 1, with);
    ref.n_layers = 0;
    ref_logits(&ref, 0, (int32_t[]){ 4 }, 1, without);
    CU_ASSERT(all_near(with, without, 9, 0));
    arena_free(arena);
}

static const UnitTest tests[] = {
    { "silu and softplus", test_scalars },
    { "rmsnorm", test_rmsnorm },
    { "softmax does not overflow", test_softmax_is_shifted },
    { "the k largest are chosen", test_choose_largest },
    { "ties go to the lower index", test_ties_take_lower_index },
    { "renormalize divides by the sum", test_choose_renormalizes },
    { "router by hand", test_route_by_hand },
    { "mixture by hand", test_moe_by_hand },
    { "mlp by hand", test_mlp_by_hand },
    { "an expert nobody chose changes nothing", test_idle_expert_changes_nothing },
    { "equal experts are a dense layer", test_equal_experts_are_dense },
    { "a dense layer has no router", test_dense_ignores_router },
    { "a renormalized layer", test_renormalized_layer },
    { "mamba by hand", test_mamba_by_hand },
    { "one convolution tap", test_one_tap },
    { "delta is mixed before softplus", test_delta_is_mixed_before_softplus },
    { "zoh by hand", test_zoh_by_hand },
    { "zoh tends to euler", test_zoh_tends_to_euler },
    { "attention by hand", test_attention_by_hand },
    { "attention is scaled", test_attention_scale },
    { "query heads share key heads", test_grouped_queries },
    { "a window of one sees itself", test_window_of_one },
    { "a window's reach", test_window_reach },
    { "rope by hand", test_rope_by_hand },
    { "rope is relative", test_rope_is_relative },
    { "tied and untied heads", test_tied_and_untied_heads },
    { "logits are causal", test_logits_are_causal },
    { "modes differ", test_modes_differ },
    { "residual stream", test_residual_stream },
};

UNIT_MAIN("reference", tests)
