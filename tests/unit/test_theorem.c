/* Theorem 1 of arXiv 2510.26182 as a test: the mixture of state-space experts is multi-head
 * linear attention.
 *
 * Input: small seeded layers. Left side: the reference's steps 3 and 4, token after token, with B
 * and C mixed by Eqs. (11) and (12). Right side: Eq. (13), a double sum over heads, each head
 * plain causal linear attention, no recurrence. They must agree within 1e-10.
 *
 * How the heads are formed (Eq. 14). A is diagonal, so each channel c is a system of its own with
 * N entries; head (m, n) has for that channel
 *     q_t^m = p_m(x_t) C_t^m * prod_{j<=t} Abar_j       [N]   expert m's query
 *     k_i^n = p_n(x_i) Bbar_i^n / prod_{j<=i} Abar_j    [N]   expert n's key
 *     v_i   = x_i                                       one value shared by all heads
 * with p = 0 for experts that were not chosen. Every query head meets every key head, so k chosen
 * experts give k^2 terms. Delta is mixed over the experts before (Remark 3) and belongs to Abar;
 * Bbar is linear in B for both discretizations, so the theorem holds for both. D x_c is outside.
 */
#include "../ref/ref_layers.h"
#include "unit.h"

#include <math.h>
#include <stdio.h>

enum { T = 7, E = 4, d_inner = 3, d_state = 5, dt_rank = 2, N_ROWS = dt_rank + 2 * d_state };

/* Weights of one layer and its inputs, all that steps 3 and 4 read. */
typedef struct {
    double x_proj[E * N_ROWS * d_inner], dt_proj[E * d_inner * dt_rank], dt_bias[E * d_inner];
    double A_log[d_inner * d_state], router[E * d_inner];
    double x[T * d_inner];   /* x_c of each token */
    RefMamba layer;
} Sample;

/* What one token chose, expert by expert. */
typedef struct {
    double p[E];            /* gates; 0 when not chosen */
    double B[E][d_state], C[E][d_state];
    double delta[d_inner];
} Token;

/* Uniform in [-1, 1); splitmix64. */
static double uniform(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)(int64_t)(z ^ z >> 31) * 0x1p-63;
}

static void fill(double *out, size_t len, double scale, uint64_t *state)
{
    for (size_t i = 0; i < len / sizeof *out; i++)
        out[i] = scale * uniform(state);
}

static void sample_make(Sample *sample, uint64_t seed, Discretization discretization, int top_k)
{
    fill(sample->x_proj, sizeof sample->x_proj, 1, &seed);
    fill(sample->dt_proj, sizeof sample->dt_proj, 1, &seed);
    fill(sample->dt_bias, sizeof sample->dt_bias, 1, &seed);
    fill(sample->A_log, sizeof sample->A_log, 1, &seed);
    fill(sample->router, sizeof sample->router, 2, &seed);
    fill(sample->x, sizeof sample->x, 1, &seed);
    sample->layer = (RefMamba){
        .d_inner = d_inner, .d_state = d_state, .dt_rank = dt_rank,
        .discretization = discretization,
        .ssm_router = { .n_experts = E, .d_in = d_inner, .top_k = { top_k },
                        .weight = sample->router },
        .x_proj = sample->x_proj, .dt_proj = sample->dt_proj, .dt_bias = sample->dt_bias,
        .A_log = sample->A_log,
    };
}

/* The recurrence: y [T, c]. */
static void run_recurrence(const Sample *sample, double *y, Arena *arena)
{
    double s[d_inner * d_state] = { 0 }, delta[d_inner], B[d_state], C[d_state];
    for (int t = 0; t < T; t++) {
        RefToken token = { .position = t, .lead = 1, .scratch = arena };
        const double *x = sample->x + t * d_inner;
        RefChoice choice = ref_route(&sample->layer.ssm_router, 0, x, &token);
        ref_mamba_select(&sample->layer, &choice, x, delta, B, C, arena);
        ref_mamba_scan(&sample->layer, delta, B, C, x, s, y + t * d_inner);
    }
}

/* Each expert's own B and C, and the shared delta, of one token. */
static Token read_token(const Sample *sample, const double *x /* [c] */, Arena *arena)
{
    Token out = { 0 };
    RefToken token = { .lead = 1, .scratch = arena };
    RefChoice choice = ref_route(&sample->layer.ssm_router, 0, x, &token);
    for (int64_t j = 0; j < choice.k; j++)
        out.p[choice.expert[j]] = choice.gate[j];
    for (int i = 0; i < d_inner; i++) {
        double sum = 0;
        for (int m = 0; m < E; m++) {
            double own = sample->dt_bias[m * d_inner + i];
            for (int r = 0; r < dt_rank; r++)
                own += sample->dt_proj[(m * d_inner + i) * dt_rank + r]
                     * ref_dot(sample->x_proj + (m * N_ROWS + r) * d_inner, x, d_inner);
            sum += out.p[m] * own;
        }
        out.delta[i] = log(1 + exp(sum));
    }
    for (int m = 0; m < E; m++)
        for (int n = 0; n < d_state; n++) {
            const double *row = sample->x_proj + (m * N_ROWS + dt_rank + n) * d_inner;
            out.B[m][n] = ref_dot(row, x, d_inner);
            out.C[m][n] = ref_dot(row + d_state * d_inner, x, d_inner);
        }
    return out;
}

/* Bbar_i^n: Eq. (6), or its first order. */
static double discrete_B(const Sample *sample, double delta, double A, double B)
{
    return sample->layer.discretization == DISCRETIZE_EULER
         ? delta * B : 1 / (delta * A) * (exp(delta * A) - 1) * delta * B;
}

/* prod_{j<=t} Abar_j of channel c: [T, N]. */
static void cumulate_decay(const Sample *sample, const Token *tokens, int channel,
                           double decay[T][d_state])
{
    for (int n = 0; n < d_state; n++) {
        double A = -exp(sample->A_log[channel * d_state + n]), product = 1;
        for (int t = 0; t < T; t++) {
            product *= exp(tokens[t].delta[channel] * A);
            decay[t][n] = product;
        }
    }
}

/* Attention_{m,n} of channel c after token t: sum_{i<=t} (q_t^m . k_i^n) v_i. */
static double head_output(const Sample *sample, const Token *tokens, int channel, int t,
                          int query_expert, int key_expert, double decay[T][d_state])
{
    double sum = 0;
    for (int i = 0; i <= t; i++) {
        double q[d_state], k[d_state];
        for (int n = 0; n < d_state; n++) {
            double A = -exp(sample->A_log[channel * d_state + n]);
            double B_bar = discrete_B(sample, tokens[i].delta[channel], A,
                                      tokens[i].B[key_expert][n]);
            q[n] = tokens[t].p[query_expert] * tokens[t].C[query_expert][n] * decay[t][n];
            k[n] = tokens[i].p[key_expert] / decay[i][n] * B_bar;
        }
        sum += ref_dot(q, k, d_state) * sample->x[i * d_inner + channel];
    }
    return sum;
}

/* Eq. (13): y [T, c]. */
static void run_heads(const Sample *sample, double *y, Arena *arena)
{
    Token tokens[T];
    double decay[T][d_state];
    for (int t = 0; t < T; t++)
        tokens[t] = read_token(sample, sample->x + t * d_inner, arena);
    for (int channel = 0; channel < d_inner; channel++) {
        cumulate_decay(sample, tokens, channel, decay);
        for (int t = 0; t < T; t++) {
            double sum = 0;
            for (int m = 0; m < E; m++)
                for (int n = 0; n < E; n++)
                    sum += head_output(sample, tokens, channel, t, m, n, decay);
            y[t * d_inner + channel] = sum;
        }
    }
}

static double largest_difference(uint64_t seed, Discretization discretization, int top_k)
{
    Arena *arena = arena_new();
    Sample *sample = arena_one(arena, Sample);
    double recurrence[T * d_inner], heads[T * d_inner], worst = 0;
    sample_make(sample, seed, discretization, top_k);
    run_recurrence(sample, recurrence, arena);
    run_heads(sample, heads, arena);
    for (int i = 0; i < T * d_inner; i++) {
        double difference = fabs(recurrence[i] - heads[i]);
        worst = isnan(difference) ? INFINITY : fmax(worst, difference);
    }
    arena_free(arena);
    return worst;
}

static void check_theorem(Discretization discretization)
{
    for (int top_k = 1; top_k <= E; top_k++)
        for (uint64_t seed = 0; seed < 20; seed++) {
            double difference = largest_difference(seed, discretization, top_k);
            if (!(difference <= 1e-10))
                printf("top_k %d, seed %d: %g\n", top_k, (int)seed, difference);
            CU_ASSERT(difference <= 1e-10);
        }
}

static void test_euler(void)
{
    check_theorem(DISCRETIZE_EULER);
}

static void test_zoh(void)
{
    check_theorem(DISCRETIZE_ZOH);
}

/* The two sides are not equal because both are nothing: the outputs have size. */
static void test_not_vacuous(void)
{
    Arena *arena = arena_new();
    Sample *sample = arena_one(arena, Sample);
    double y[T * d_inner];
    sample_make(sample, 1, DISCRETIZE_EULER, 2);
    run_recurrence(sample, y, arena);
    double largest = 0;
    for (int i = 0; i < T * d_inner; i++)
        largest = fmax(largest, fabs(y[i]));
    CU_ASSERT(largest > 0.1);
    arena_free(arena);
}

static const UnitTest tests[] = {
    { "euler: recurrence equals heads", test_euler },
    { "zoh: recurrence equals heads", test_zoh },
    { "outputs are not zero", test_not_vacuous },
};

UNIT_MAIN("theorem 1", tests)
