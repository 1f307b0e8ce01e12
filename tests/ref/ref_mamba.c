/* Reference: the mixture of state-space experts, one token at a time.
 *
 * Input: u [d] and the state after the tokens before. Output: f [d] and the state after this one.
 * The steps are numbered as in docs/graph.md; equations as in arXiv 2510.26182.
 * Invariant: three routers, each choosing anew: on u, on x_c and on y.
 */
#include "ref_layers.h"

#include <math.h>

RefMambaState ref_mamba_start(const RefMamba *layer, Arena *arena)
{
    return (RefMambaState){
        .taps = arena_array(arena, double, (size_t)(layer->d_conv * layer->d_inner)),
        .s = arena_array(arena, double, (size_t)(layer->d_inner * layer->d_state)),
    };
}

/* Step 2: x_c = silu(conv1d(x') + bias); tap d_conv - 1 multiplies the current token. */
static void convolve(const RefMamba *layer, RefMambaState *state, const double *x /* [c] */,
                     double *x_c /* [c] */)
{
    int64_t c = layer->d_inner, n = layer->d_conv;
    for (int64_t j = 0; j + 1 < n; j++)
        for (int64_t i = 0; i < c; i++)
            state->taps[j * c + i] = state->taps[(j + 1) * c + i];
    for (int64_t i = 0; i < c; i++)
        state->taps[(n - 1) * c + i] = x[i];
    for (int64_t i = 0; i < c; i++) {
        double sum = layer->conv1d_bias[i];
        for (int64_t j = 0; j < n; j++)
            sum += layer->conv1d[i * n + j] * state->taps[j * c + i];
        x_c[i] = ref_silu(sum);
    }
}

/* Delta_i = delta_i . dt_proj_i^T + dt_bias_i of one expert, added to delta with its gate. */
static void add_delta(const RefMamba *layer, int64_t expert, double gate,
                      const double *rank /* [r], delta_i */, double *delta /* [c] */)
{
    int64_t c = layer->d_inner, r = layer->dt_rank;
    for (int64_t i = 0; i < c; i++) {
        int64_t row = expert * c + i;
        delta[i] += gate * (ref_dot(layer->dt_proj + row * r, rank, r) + layer->dt_bias[row]);
    }
}

void ref_mamba_select(const RefMamba *layer, const RefChoice *choice, const double *x_c,
                      double *delta, double *B, double *C, Arena *scratch)
{
    ArenaMark mark = arena_mark(scratch);
    int64_t c = layer->d_inner, N = layer->d_state, r = layer->dt_rank, rows = r + 2 * N;
    double *own = arena_array(scratch, double, (size_t)rows);   /* [delta_i (r), B_i, C_i (N)] */
    const double *read = ref_activation(layer->rows, x_c, c, scratch);
    for (int64_t i = 0; i < c; i++)
        delta[i] = 0;
    for (int64_t n = 0; n < N; n++)
        B[n] = C[n] = 0;
    for (int64_t j = 0; j < choice->k; j++) {
        int64_t expert = choice->expert[j];
        double gate = choice->gate[j];
        ref_linear(layer->x_proj + expert * rows * c, rows, c, read, own);
        add_delta(layer, expert, gate, ref_activation(layer->rows, own, r, scratch), delta);
        for (int64_t n = 0; n < N; n++) {
            B[n] += gate * own[r + n];       /* Eq. (11) */
            C[n] += gate * own[r + N + n];   /* Eq. (12) */
        }
    }
    for (int64_t i = 0; i < c; i++)
        delta[i] = ref_softplus(delta[i]);   /* of the mixed sum, not of each expert */
    arena_release(scratch, mark);
}

double ref_mamba_decay(double delta, double A)
{
    return exp(delta * A);   /* Eq. (5) */
}

double ref_mamba_gain(Discretization discretization, double delta, double A)
{
    if (discretization == DISCRETIZE_EULER || delta * A == 0)   /* the limit of zoh, too */
        return delta;
    return expm1(delta * A) / A;   /* Eq. (6): (delta A)^-1 (exp(delta A) - 1) delta */
}

void ref_mamba_scan(const RefMamba *layer, const double *delta, const double *B, const double *C,
                    const double *x_c, double *s, double *y)
{
    int64_t N = layer->d_state;
    for (int64_t i = 0; i < layer->d_inner; i++) {
        y[i] = 0;
        for (int64_t n = 0; n < N; n++) {
            double A = -exp(layer->A_log[i * N + n]);
            double B_bar = ref_mamba_gain(layer->discretization, delta[i], A) * B[n];
            double *state = &s[i * N + n];
            *state = ref_mamba_decay(delta[i], A) * *state + B_bar * x_c[i];   /* Eq. (3) */
            y[i] += C[n] * *state;                                             /* Eq. (4) */
        }
    }
}

/* Steps 3 and 4: y = scan + D x_c, with parameters of the token's own choosing. */
static void state_space(const RefMamba *layer, int mode, RefMambaState *state,
                        const double *x_c /* [c] */, double *y /* [c] */, RefToken *token)
{
    double *delta = arena_array(token->scratch, double, (size_t)layer->d_inner);   /* [c] */
    double *B = arena_array(token->scratch, double, (size_t)layer->d_state);       /* [N] */
    double *C = arena_array(token->scratch, double, (size_t)layer->d_state);       /* [N] */
    RefChoice choice = ref_route(&layer->ssm_router, mode, x_c, token);
    ref_mamba_select(layer, &choice, x_c, delta, B, C, token->scratch);
    ref_mamba_scan(layer, delta, B, C, x_c, state->s, y);
    for (int64_t i = 0; i < layer->d_inner; i++)
        y[i] += layer->D[i] * x_c[i];
}

void ref_mamba_step(const RefMamba *layer, int mode, RefMambaState *state, const double *u,
                    double *f, RefToken *token)
{
    ArenaMark mark = arena_mark(token->scratch);
    int64_t d = layer->d_model, c = layer->d_inner;
    double *xz = arena_array(token->scratch, double, (size_t)(2 * c));   /* [x' (c), z (c)] */
    double *x_c = arena_array(token->scratch, double, (size_t)c);        /* [c] */
    double *y = arena_array(token->scratch, double, (size_t)c);          /* [c] */
    RefChoice in = ref_route(&layer->in_router, mode, u, token);
    ref_moe(&in, layer->in_proj, 2 * c, d, ref_activation(layer->rows, u, d, token->scratch), xz,
            token->scratch);                                                /* step 1: I and G */
    convolve(layer, state, xz, x_c);                                     /* step 2 */
    state_space(layer, mode, state, x_c, y, token);                      /* steps 3 and 4 */
    for (int64_t i = 0; i < c; i++)
        y[i] *= ref_silu(xz[c + i]);
    RefChoice out = ref_route(&layer->out_router, mode, y, token);
    ref_moe(&out, layer->out_proj, d, c, ref_activation(layer->rows, y, c, token->scratch), f,
            token->scratch);                                                /* step 5: O */
    arena_release(token->scratch, mark);
}
