/* The reference of products on a GPU: what a launch of gemm or gemm_h100 was given, and plain loops in double.
 *
 * All rows, and columns spread over the whole width, both ends among them.
 */
#include "gpu_check.h"

#include "../ir/dtype.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ARG_OUT, ARG_IN, ARG_MATRIX, ARG_SCALES, ARG_BIAS, ARG_PLACES, ARG_TOTALS, ARG_EXPERTS, ARG_GATES, ARG_N_TOKENS,
       ARG_K, MOST_COLUMNS = 48 };

typedef struct {
    const BenchSide *side;
    const Launch *launch;
    int n_in, n_out, in_stride, out_stride, n_experts, dtype, act, in_pairs, out_kind, gated, has_bias, epilogue;
    int n_tokens, top_k, n_rows, k_len;      /* n_rows: of out */
    const uint8_t *in, *out, *before;
    const int32_t *slots, *totals, *experts;
    const float *gates, *bias;
    double worst;
    char *where;
    size_t where_len;
} ProductCheck;

static int param(const Kernel *kernel, const char *name, int absent)
{
    for (int i = 0; i < kernel->n_params; i++)
        if (strcmp(kernel->params[i].name, name) == 0)
            return (int)kernel->params[i].value;
    return absent;
}

/* Which 16 bits elements of out are, as act says it; 0: float32. */
static int out_act(int out_kind, int act) { return out_kind == 0 ? act : out_kind == 3 ? 2 : 0; }

static double act_value(uint16_t bits, int act) { return act == 1 ? dtype_bf16_to_f32(bits) : dtype_f16_to_f32(bits); }

/* A copy of device memory; NULL for none. */
static void *copy(ProductCheck *p, CudaPointer from, size_t len, bool *good)
{
    void *to = from ? arena_alloc(p->side->bench->trial, len + 1) : NULL;
    *good = *good && (!from || bench_read(p->side->bench, to, from, len));
    return to;
}

static bool gather(ProductCheck *p, const BenchPass *pass)
{
    const Launches *l = p->side->plan->launches;
    const Kernel *kernel = &l->kernels[p->launch->kernel];
    const LaunchArg *args = &l->args[p->launch->first_arg];
    const struct { const char *name; int *to; } params[] = {
        { "n_in", &p->n_in }, { "n_out", &p->n_out }, { "in_stride", &p->in_stride }, { "out_stride", &p->out_stride },
        { "n_experts", &p->n_experts }, { "act", &p->act }, { "in_pairs", &p->in_pairs }, { "out_kind", &p->out_kind },
        { "gated", &p->gated }, { "has_bias", &p->has_bias }, { "epilogue", &p->epilogue },
    };
    for (size_t i = 0; i < sizeof params / sizeof *params; i++)
        *params[i].to = param(kernel, params[i].name, 0);
    p->dtype = param(kernel, "weight_dtype", p->act);
    p->n_tokens = bench_count(p->side, pass, (LaunchCount)args[ARG_N_TOKENS].offset);
    p->top_k = args[ARG_K].kind == ARG_COUNT ? bench_count(p->side, pass, (LaunchCount)args[ARG_K].offset)
        : (int)args[ARG_K].offset;
    p->n_rows = p->n_tokens * (p->n_experts > 1 ? p->top_k : 1);
    p->k_len = (p->n_in + 63) / 64 * 64;
    const int in_rows = p->in_pairs ? p->n_rows : p->n_tokens;
    const size_t n_pairs = (size_t)p->n_tokens * (size_t)p->top_k;
    bool good = true;
#define ADDRESS(i) bench_address(p->side, p->launch, i)
    p->in = copy(p, ADDRESS(ARG_IN), 2 * (size_t)in_rows * (size_t)p->in_stride, &good);
    p->out = copy(p, ADDRESS(ARG_OUT), gpu_product_out_len(p->side, p->launch, pass), &good);
    p->slots = copy(p, ADDRESS(ARG_PLACES), 4 * (size_t)p->n_experts * (size_t)p->n_tokens, &good);
    p->totals = copy(p, ADDRESS(ARG_TOTALS), 4 * (size_t)p->n_experts, &good);
    p->experts = copy(p, ADDRESS(ARG_EXPERTS), 4 * n_pairs, &good);
    p->gates = copy(p, ADDRESS(ARG_GATES), 4 * n_pairs, &good);
    int n_biases = p->n_experts;
    for (size_t i = 0; p->has_bias > 1 && good && i < n_pairs; i++)
        n_biases = p->experts[i] + 1 > n_biases ? p->experts[i] + 1 : n_biases;
    p->bias = copy(p, ADDRESS(ARG_BIAS), 4 * (size_t)n_biases * (size_t)p->n_out, &good);
    return good;
}

size_t gpu_product_out_len(const BenchSide *side, const Launch *launch, const BenchPass *pass)
{
    const Launches *l = side->plan->launches;
    const Kernel *kernel = &l->kernels[launch->kernel];
    const LaunchArg *args = &l->args[launch->first_arg];
    int top_k = args[ARG_K].kind == ARG_COUNT ? bench_count(side, pass, COUNT_TOP_K) : (int)args[ARG_K].offset;
    size_t rows = (size_t)bench_count(side, pass, (LaunchCount)args[ARG_N_TOKENS].offset)
        * (size_t)(param(kernel, "n_experts", 1) > 1 ? top_k : 1);
    return rows * (size_t)param(kernel, "out_stride", 0) * (out_act(param(kernel, "out_kind", 0), 1) ? 2 : 4);
}

/* Row `row` of an expert's matrix, times its scale. */
static bool read_weights(ProductCheck *p, int expert, int row, double *to /* [n_in] */)
{
    const size_t size = p->dtype == 3 ? 1 : 2, index = (size_t)expert * (size_t)p->n_out + (size_t)row;
    const CudaPointer base = bench_address(p->side, p->launch, ARG_MATRIX);
    const CudaPointer scales = bench_address(p->side, p->launch, ARG_SCALES);
    bool good = true;
    float scale = 1;
    const uint8_t *bytes = copy(p, base + index * (size_t)p->k_len * size, (size_t)p->k_len * size, &good);
    if (good && p->dtype == 3)
        good = bench_read(p->side->bench, &scale, scales + 4 * index, 4);
    for (int i = 0; i < p->n_in && good; i++) {
        uint16_t bits;
        memcpy(&bits, bytes + 2 * (p->dtype == 3 ? 0 : i), 2);
        to[i] = p->dtype == 3 ? (double)(int8_t)bytes[i] * scale : act_value(bits, p->act);
    }
    return good;
}

/* The bias of column `column` for a row of out. */
static double bias_of(const ProductCheck *p, int expert, int column, int row)
{
    double sum = 0;
    if (p->has_bias == 1)
        return p->bias[(size_t)expert * (size_t)p->n_out + (size_t)column];
    for (int s = 0; p->has_bias && s < p->top_k; s++) {
        const size_t pair = (size_t)(row * p->top_k + s);
        sum += (double)p->gates[pair] * (double)p->bias[(size_t)p->experts[pair] * (size_t)p->n_out + (size_t)column];
    }
    return sum;
}

static double element(const ProductCheck *p, const uint8_t *rows, int row, int column)
{
    const size_t at = (size_t)row * (size_t)p->out_stride + (size_t)column;
    uint16_t bits;
    float value;
    if (out_act(p->out_kind, p->act)) {
        memcpy(&bits, rows + 2 * at, 2);
        return act_value(bits, out_act(p->out_kind, p->act));
    }
    memcpy(&value, rows + 4 * at, 4);
    return value;
}

/* sum and sizes of a row of `in` with a row of weights. */
static double product(const ProductCheck *p, int in_row, const double *weights, double *size)
{
    double sum = 0;
    *size = 0;
    for (int i = 0; i < p->n_in; i++) {
        uint16_t bits;
        memcpy(&bits, p->in + 2 * ((size_t)in_row * (size_t)p->in_stride + (size_t)i), 2);
        const double term = act_value(bits, p->act) * weights[i];
        sum += term;
        *size += fabs(term);
    }
    return sum;
}

static void compare(ProductCheck *p, int row, int column, double want, double size, double extra)
{
    static const double ulps[] = { 0x1p-23, 0x1p-8, 0x1p-11 };
    const int act = out_act(p->out_kind, p->act);
    const double got = element(p, p->out, row, column), ulp = ulps[act];
    const double allowed = 0x1p-24 * (16 * sqrt(p->n_in) + 16) * size + (ulp + extra) * fabs(want) + 1e-30
        + (act == 2 ? 0x1p-25 : 0);
    const double error = fabs(got - want) / allowed;
    if (error <= p->worst)
        return;
    p->worst = error == error ? error : INFINITY;
    snprintf(p->where, p->where_len, "%d tokens, row %d, column %d: %.9g, expected %.9g", p->n_tokens, row, column, got,
             want);
}

/* A column of out for all rows of one expert. */
static bool check_column(ProductCheck *p, int expert, int column, double *even, double *odd)
{
    const bool swiglu = p->epilogue == 1, dense = p->n_experts == 1;
    const int n_rows = dense ? p->n_tokens : p->totals[expert];
    if (n_rows == 0)
        return true;
    if (!read_weights(p, expert, swiglu ? 2 * column : column, even)
        || (swiglu && !read_weights(p, expert, 2 * column + 1, odd)))
        return false;
    for (int i = 0; i < n_rows; i++) {
        const int row = dense ? i : p->slots[(size_t)expert * (size_t)p->n_tokens + (size_t)i];
        const int in_row = dense || p->in_pairs ? row : row / p->top_k;
        double size, bias = bias_of(p, expert, column, row), value = product(p, in_row, even, &size);
        value += bias;
        size += fabs(bias);
        if (swiglu) {
            double other_size;
            const double other = product(p, in_row, odd, &other_size);
            const double silu = value / (1 + exp(-value));
            size = 1.1 * size * fabs(other) + fabs(silu) * other_size;
            value = silu * other;
        } else if (p->epilogue == 2) {
            value = value > 20 ? value : log1p(exp(value));
        }
        if (p->gated) {
            value *= (double)p->gates[row];
            size *= fabs((double)p->gates[row]);
        }
        if (p->out_kind == 2) {
            const double there = element(p, p->before, row, column);
            value += there;
            size += fabs(there);
        }
        compare(p, row, column, value, size, p->epilogue ? 0x1p-18 : 0);
    }
    return true;
}

bool gpu_product_check(const BenchSide *side, const BenchPass *pass, const Launch *launch, const void *before,
                       double *worst, char *where, size_t where_len)
{
    ProductCheck p = { .side = side, .launch = launch, .before = before, .where = where, .where_len = where_len };
    if (!gather(&p, pass))
        return false;
    const int n_columns = p.epilogue == 1 ? p.n_out / 2 : p.n_out;
    const int n_checked = n_columns < MOST_COLUMNS ? n_columns : MOST_COLUMNS;
    double *weights = arena_array(side->bench->trial, double, 2 * (size_t)p.n_in);
    for (int e = 0; e < p.n_experts; e++)
        for (int i = 0; i < n_checked; i++) {
            int column = n_checked > 1 ? (int)((int64_t)i * (n_columns - 1) / (n_checked - 1)) : 0;
            if (!check_column(&p, e, column, weights, weights + p.n_in))
                return false;
        }
    *worst = p.worst;
    return true;
}

bool gpu_is_product(const BenchSide *side, const Launch *launch)
{
    return strncmp(side->plan->launches->kernels[launch->kernel].template, "gemm", 4) == 0;
}
