/* The product that gemm and gemm_h100 make, in plain loops: inputs, what must come out, and the comparison.
 *
 * Cases say n_tokens, top_k, and which of the experts get pairs: those below `live`, or all.
 */
#ifndef MOSS_TESTS_GPU_CHECK_GEMM_H
#define MOSS_TESTS_GPU_CHECK_GEMM_H

#include "check.h"

typedef struct {
    int n_in, n_out, in_stride, out_stride, n_experts, act, in_pairs, out_kind, gated, has_bias, epilogue;
    int n_tokens, top_k, live, n_rows, n_columns;
    uint16_t *in;
    CheckWeights weights;
    float *bias, *gates;                /* or NULL */
    int32_t *slots, *totals, *experts; /* or NULL */
    void *out;
    double *want;                       /* [n_rows][n_columns] */
} GemmCheck;

/* Pair by pair: experts ascending within a token. */
static void gemm_route(GemmCheck *c)
{
    const int n_routed = c->has_bias > 1 ? c->has_bias : c->live, n_pairs = c->n_tokens * c->top_k;
    c->experts = check_buffer(sizeof(int32_t) * (size_t)n_pairs);
    for (int t = 0; t < c->n_tokens; t++)
        for (int s = 0, least = 0; s < c->top_k; s++) {
            const int expert = least + check_random_below(n_routed - (c->top_k - 1 - s) - least);
            c->experts[t * c->top_k + s] = expert;
            least = expert + 1;
        }
    c->gates = check_random_f32(1, n_pairs, n_pairs);
    if (c->n_experts == 1)
        return;
    c->slots = check_buffer(sizeof(int32_t) * (size_t)c->n_experts * (size_t)c->n_tokens);
    c->totals = check_buffer(sizeof(int32_t) * (size_t)c->n_experts);
    for (int e = 0; e < c->n_experts; e++) {
        int32_t *const own = c->slots + (size_t)e * (size_t)c->n_tokens;
        c->totals[e] = 0;
        for (int p = n_pairs - 1; p >= 0; p--)
            if (c->experts[p] == e)
                own[c->totals[e]++] = p;
    }
    check_freeze(c->slots);
    check_freeze(c->totals);
    check_freeze(c->experts);
}

/* The product of a row and a column, with its bias. */
static double gemm_sum(const GemmCheck *c, int row, int column)
{
    const int expert = c->n_experts > 1 ? c->experts[row] : 0;
    const int from = c->n_experts > 1 && !c->in_pairs ? row / c->top_k : row;
    const uint16_t *in = c->in + (size_t)from * (size_t)c->in_stride;
    const double *weights = c->weights.plain + ((size_t)expert * (size_t)c->n_out + (size_t)column) * (size_t)c->n_in;
    double sum = 0;
    for (int k = 0; k < c->n_in; k++)
        sum += check_act_value(in[k], c->act) * weights[k];
    if (c->has_bias == 1)
        sum += (double)c->bias[expert * c->n_out + column];
    for (int s = 0; c->has_bias > 1 && s < c->top_k; s++) {
        const int pair = row * c->top_k + s;
        sum += (double)c->gates[pair] * (double)c->bias[c->experts[pair] * c->n_out + column];
    }
    return sum;
}

static double gemm_want(const GemmCheck *c, int row, int column)
{
    double value;
    if (c->epilogue == 1) {
        const double gate = gemm_sum(c, row, 2 * column);
        value = gate / (1 + exp(-gate)) * gemm_sum(c, row, 2 * column + 1);
    } else {
        value = gemm_sum(c, row, column);
        if (c->epilogue == 2)
            value = fmax(value, 0) + log1p(exp(-fabs(value)));
    }
    value = c->gated ? value * (double)c->gates[row] : value;
    return c->out_kind == 3 ? fmin(value, 65504) : value;
}

/* The act of rows of 16 bits: f16 with out_kind 3; 0: float32. */
static int gemm_out_act(const GemmCheck *c) { return c->out_kind == 0 ? c->act : c->out_kind == 3 ? 2 : 0; }

/* Plain ones of rows in f16: many are more than that can hold. */
static float *gemm_bias(const GemmCheck *c)
{
    const int count = (c->has_bias > 1 ? c->has_bias : c->n_experts) * c->n_out;
    float *bias = check_buffer(sizeof(float) * (size_t)count);
    for (int i = 0; i < count; i++)
        bias[i] = check_random() * (c->out_kind == 3 && c->has_bias == 1 ? 1e5f : 1);
    check_freeze(bias);
    return bias;
}

static GemmCheck gemm_make(int weight_dtype)
{
    GemmCheck c = { .n_in = check_param("n_in"), .n_out = check_param("n_out"), .in_stride = check_param("in_stride"),
        .out_stride = check_param("out_stride"), .n_experts = check_param("n_experts"), .act = check_param("act"),
        .in_pairs = check_param("in_pairs"), .out_kind = check_param("out_kind"), .gated = check_param("gated"),
        .has_bias = check_param("has_bias"), .epilogue = check_param("epilogue"), .n_tokens = check_param("n_tokens"),
        .top_k = check_param("top_k"), .live = check_param("live") };
    c.n_rows = c.n_experts > 1 ? c.n_tokens * c.top_k : c.n_tokens;
    c.n_columns = c.epilogue == 1 ? c.n_out / 2 : c.n_out;
    c.in = check_random_act(c.n_experts > 1 && c.in_pairs ? c.n_rows : c.n_tokens, c.n_in, c.in_stride, c.act);
    c.weights = check_random_weights(c.n_experts, c.n_out, c.n_in, weight_dtype);
    if (c.has_bias)
        c.bias = gemm_bias(&c);
    if (c.n_experts > 1 || c.gated || c.has_bias > 1)
        gemm_route(&c);
    const size_t element_len = gemm_out_act(&c) ? 2 : 4;
    c.out = check_buffer((size_t)c.n_rows * (size_t)c.out_stride * element_len);
    c.want = check_doubles((size_t)c.n_rows * (size_t)c.n_columns);
    for (int r = 0; r < c.n_rows; r++)
        for (int j = 0; j < c.n_columns; j++) {
            double *want = &c.want[(size_t)r * (size_t)c.n_columns + (size_t)j];
            *want = gemm_want(&c, r, j);
            if (c.out_kind == 2) {
                float *out = (float *)c.out + (size_t)r * (size_t)c.out_stride + j;
                *out = check_random();
                *want += (double)*out;
            }
        }
    return c;
}

static void gemm_compare(const GemmCheck *c)
{
    const size_t element_len = gemm_out_act(c) ? 2 : 4;
    if (gemm_out_act(c))
        check_rows_act("out", c->out, c->want, c->n_rows, c->n_columns, c->out_stride, gemm_out_act(c), 3e-6);
    else
        check_rows_f32("out", c->out, c->want, c->n_rows, c->n_columns, c->out_stride, 3e-6);
    for (int r = 0; r < c->n_rows; r++) {
        const size_t end = (size_t)r * (size_t)c->out_stride + (size_t)c->n_columns;
        check_untouched("padding", (char *)c->out + end * element_len,
            (size_t)(c->out_stride - c->n_columns) * element_len);
    }
}

#endif
