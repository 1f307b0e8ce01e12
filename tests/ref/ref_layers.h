/* Reference, inside: weights, state and one-token step of each kind of layer.
 *
 * Every step reads u = RMSNorm(x) of one token and gives f, which the caller adds to x.
 * Weights are [out, in], expert stacks [E, out, in], row-major. Tests build these by hand.
 * Invariant: weights are never written; whatever outlives a token is in a ...State.
 */
#ifndef MOSSC_TESTS_REF_LAYERS_H
#define MOSSC_TESTS_REF_LAYERS_H

#include "ref.h"

/* What one token carries through the layers. */
typedef struct {
    int64_t position;    /* of the token, from 0 */
    double lead;         /* smallest of all routers so far */
    Arena *scratch;
} RefToken;

/* --- ref_math.c --- */

double ref_dot(const double *a /* [n] */, const double *b /* [n] */, int64_t n);
/* y = x . W^T */
void ref_linear(const double *w /* [n_out, n_in] */, int64_t n_out, int64_t n_in,
                const double *x /* [n_in] */, double *y /* [n_out] */);
/* What a product reads: x itself (DTYPE_F32), x rounded to bf16 (DTYPE_BF16), or to int8 with one scale,
 * max|x| / 127 (DTYPE_Q8); ties to even. */
const double *ref_activation(DType rows, const double *x /* [n] */, int64_t n, Arena *scratch);
/* y = x / sqrt(mean(x^2) + eps) * weight */
void ref_rmsnorm(const double *weight /* [n] */, double eps, int64_t n,
                 const double *x /* [n] */, double *y /* [n] */);
void ref_softmax(double *x /* [n], in place */, int64_t n);
double ref_sigmoid(double x);
double ref_silu(double x);
double ref_softplus(double x);

/* --- ref_route.c --- */

typedef struct {
    int64_t n_experts, d_in;
    int64_t top_k[GRAPH_MAX_MODES];
    bool renormalize;
    const double *weight;   /* [E, d_in]; not read when n_experts = 1 */
} RefRouter;

/* The experts of one token, the largest probability first, and their gates g_i. */
typedef struct {
    int64_t k;
    int64_t expert[GRAPH_MAX_EXPERTS];   /* [k] */
    double gate[GRAPH_MAX_EXPERTS];      /* [k] */
    /* Smallest (p_i - p_j) / p_i of a chosen i and a rejected j with p_i != p_j; 1: no such pair.
     * Equal values do not count: between them the index decides, whatever the precision. */
    double lead;
} RefChoice;

/* Choose among given probabilities. */
RefChoice ref_choose(const double *p /* [E] */, int64_t n_experts, int64_t k, bool renormalize);
/* p = softmax(x . W_router^T), then choose; with one expert: that one, gate 1. */
RefChoice ref_route(const RefRouter *router, int mode, const double *x /* [d_in] */,
                    RefToken *token);
/* MoE(x; W) = sum of g_i (x . W_i^T) over the chosen experts. Eq. (7). */
void ref_moe(const RefChoice *choice, const double *w /* [E, n_out, n_in] */,
             int64_t n_out, int64_t n_in, const double *x /* [n_in] */, double *y /* [n_out] */,
             Arena *scratch);

/* --- ref_mamba.c --- */

typedef struct {
    int64_t d_model, d_inner, d_state, d_conv, dt_rank;   /* d, c, N, taps, r */
    Discretization discretization;
    DType rows;                  /* as products read them: ref_activation */
    RefRouter in_router, ssm_router, out_router;          /* on d, c, c */
    const double *in_proj;       /* [E, 2c, d] */
    const double *conv1d;        /* [c, taps] */
    const double *conv1d_bias;   /* [c] */
    const double *x_proj;        /* [E, r+2N, c] */
    const double *dt_proj;       /* [E, c, r] */
    const double *dt_bias;       /* [E, c] */
    const double *A_log;         /* [c, N] */
    const double *D;             /* [c] */
    const double *out_proj;      /* [E, d, c] */
} RefMamba;

typedef struct {
    double *taps;   /* [taps, c]: x' of the last tokens, the current one last; zeros before */
    double *s;      /* [c, N] */
} RefMambaState;

/* Step 3: the token's own parameters, mixed over the chosen experts. Eqs. (11), (12). */
void ref_mamba_select(const RefMamba *layer, const RefChoice *choice, const double *x_c /* [c] */,
                      double *delta /* [c] */, double *B /* [N] */, double *C /* [N] */,
                      Arena *scratch);
/* The discrete parameters of one entry: Abar = exp(delta A); Bbar = gain * B, with gain = delta
 * (euler) or (delta A)^-1 (exp(delta A) - 1) delta (zoh, Eq. 6). A <= 0. */
double ref_mamba_decay(double delta, double A);
double ref_mamba_gain(Discretization discretization, double delta, double A);
/* Step 4 without D: s_t = Abar s_{t-1} + Bbar x_t, y_t = C s_t. Eqs. (3) and (4). */
void ref_mamba_scan(const RefMamba *layer, const double *delta /* [c] */, const double *B /* [N] */,
                    const double *C /* [N] */, const double *x_c /* [c] */,
                    double *s /* [c, N], in place */, double *y /* [c] */);
RefMambaState ref_mamba_start(const RefMamba *layer, Arena *arena);
void ref_mamba_step(const RefMamba *layer, int mode, RefMambaState *state,
                    const double *u /* [d] */, double *f /* [d] */, RefToken *token);

/* --- ref_attention.c --- */

typedef struct {
    int64_t d_model, n_heads, n_kv_heads, head_dim;   /* d, h, kv, hd */
    int64_t window;          /* tokens attended to, the current one included; 0 = all */
    double rope_theta;       /* 0 = no rotation */
    DType rows;              /* as RefMamba's */
    const double *q_proj;    /* [h*hd, d] */
    const double *k_proj;    /* [kv*hd, d] */
    const double *v_proj;    /* [kv*hd, d] */
    const double *o_proj;    /* [d, h*hd] */
} RefAttention;

/* All keys (rotated) and values since the first token; the window is only in who looks at them. */
typedef struct {
    double *keys;     /* [n_tokens, kv, hd] */
    double *values;   /* [n_tokens, kv, hd] */
} RefAttentionState;

/* Rotary position, halves rotated: the pair (x[i], x[i + hd/2]) turns by
 * position * theta^(-2i / hd). */
void ref_rope(double theta, int64_t position, int64_t head_dim, double *x /* [hd], in place */);
RefAttentionState ref_attention_start(const RefAttention *layer, int64_t n_tokens, Arena *arena);
void ref_attention_step(const RefAttention *layer, RefAttentionState *state,
                        const double *u /* [d] */, double *f /* [d] */, RefToken *token);

/* --- ref_mlp.c --- */

typedef struct {
    int64_t d_model, d_ff;     /* d, f */
    DType rows;                /* as RefMamba's */
    RefRouter router;          /* on d */
    const double *gate_proj;   /* [E, f, d] */
    const double *up_proj;     /* [E, f, d] */
    const double *down_proj;   /* [E, d, f] */
} RefMlp;

void ref_mlp_step(const RefMlp *layer, int mode, const double *u /* [d] */, double *f /* [d] */,
                  RefToken *token);

/* --- ref.c --- */

typedef struct {
    LayerKind kind;
    const double *norm;   /* [d] */
    union { RefMamba mamba; RefAttention attention; RefMlp mlp; };
} RefLayer;

struct Ref {
    int64_t vocab_size, d_model;
    double norm_eps;
    DType rows;              /* as RefMamba's */
    const double *embed;     /* [V, d] */
    const double *norm_f;    /* [d] */
    const double *lm_head;   /* [V, d]; embed itself when tied */
    int n_layers;
    RefLayer *layers;
};

#endif
