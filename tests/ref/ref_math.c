/* Reference: the scalar functions and the one linear map everything else is made of.
 *
 * Input and output: doubles. Invariant: sums run from the first element to the last.
 */
#include "ref_layers.h"

#include <math.h>

double ref_dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

void ref_linear(const double *w, int64_t n_out, int64_t n_in, const double *x, double *y)
{
    for (int64_t o = 0; o < n_out; o++)
        y[o] = ref_dot(w + o * n_in, x, n_in);
}

const double *ref_activation(DType rows, const double *x, int64_t n, Arena *scratch)
{
    if (rows == DTYPE_F32)
        return x;
    double *rounded = arena_array(scratch, double, (size_t)n), most = 0;
    for (int64_t i = 0; i < n && rows == DTYPE_BF16; i++)
        rounded[i] = (double)dtype_bf16_to_f32(dtype_f32_to_bf16((float)x[i]));
    for (int64_t i = 0; i < n && rows == DTYPE_F16; i++)
        rounded[i] = (double)dtype_f16_to_f32(dtype_f32_to_f16((float)x[i]));
    if (rows == DTYPE_BF16 || rows == DTYPE_F16)
        return rounded;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, fabs(x[i]));
    double scale = most / 127;
    for (int64_t i = 0; i < n; i++)
        rounded[i] = scale > 0 ? scale * nearbyint(x[i] / scale) : 0;
    return rounded;
}

void ref_rmsnorm(const double *weight, double eps, int64_t n, const double *x, double *y)
{
    double scale = 1 / sqrt(ref_dot(x, x, n) / (double)n + eps);
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * scale * weight[i];
}

void ref_softmax(double *x, int64_t n)
{
    double largest = x[0], sum = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > largest)
            largest = x[i];
    for (int64_t i = 0; i < n; i++) {
        x[i] = exp(x[i] - largest);
        sum += x[i];
    }
    for (int64_t i = 0; i < n; i++)
        x[i] /= sum;
}

double ref_sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

double ref_silu(double x)
{
    return x * ref_sigmoid(x);
}

/* log(1 + exp(x)), written so that neither end overflows or cancels. */
double ref_softplus(double x)
{
    return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
}
