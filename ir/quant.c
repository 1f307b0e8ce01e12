/* Quantised rows: scales and rounding. Ties round to even; the search is a fixed grid, so the same
 * weights give the same bytes everywhere. */
#include "quant.h"

#include <math.h>

bool dtype_is_quantised(DType dtype) { return dtype == DTYPE_Q8 || dtype == DTYPE_Q4; }

static int8_t round_to(float value, float scale, int low, int high)
{
    float q = rintf(value / scale);
    return (int8_t)(q < low ? low : q > high ? high : q);
}

/* The element of largest magnitude, with its sign. */
static float largest(const float *weights, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        if (fabsf(weights[i]) > fabsf(most))
            most = weights[i];
    return most;
}

static double squared_error(const float *weights, int64_t n, float scale)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double error = (double)weights[i] - (double)scale * round_to(weights[i], scale, -8, 7);
        sum += error * error;
    }
    return sum;
}

/* -8 or 7 reaches the largest element, give or take a factor: clipping it a little pays. */
static float search_scale(const float *weights, int64_t n, float most)
{
    float best = most / -8;
    double least = INFINITY;
    for (int step = 0; step < 10; step++) {
        float factor = 0.79f + 0.03f * (float)step;
        const float candidates[] = { most / -8 * factor, most / 7 * factor };
        for (int i = 0; i < 2; i++) {
            double error = squared_error(weights, n, candidates[i]);
            if (error < least) {
                least = error;
                best = candidates[i];
            }
        }
    }
    return best;
}

float quant_row(DType dtype, const float *weights, int64_t n, int8_t *q)
{
    float most = largest(weights, n);
    bool four = dtype == DTYPE_Q4;
    float scale = four ? search_scale(weights, n, most) : fabsf(most) / 127;
    /* Zero, or so small that its reciprocal overflows. */
    if (!(fabsf(scale) >= 1e-37f))
        scale = 0;
    for (int64_t i = 0; i < n; i++)
        q[i] = scale == 0 ? 0 : round_to(weights[i], scale, four ? -8 : -127, four ? 7 : 127);
    return scale;
}

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

int64_t panel_len(DType dtype, int64_t n_in, int64_t panel, int64_t group)
{
    switch (dtype) {
    case DTYPE_Q8: return panel * (4 + round_up(n_in, group));
    case DTYPE_Q4: return panel * (4 + round_up(n_in, 2 * group) / 2);
    default: return panel * n_in * dtype_len(dtype);
    }
}

int64_t quant_activation_stride(int64_t n) { return round_up(n, 64) + 64; }

int64_t packed_row_len(bool quantised, int64_t n_in)
{
    return quantised ? (n_in + 7) / 8 * 8 : n_in > 1 ? 4 * n_in : 8;
}
