/* Errors of the vector functions against double libm, in units in the last place.
 *
 * Shared by test_simd.c (built for the build machine's default instruction set) and by
 * tests/kernels/check.c (built for every target): the bounds that runtime/simd.h states.
 */
#ifndef MOSSC_TESTS_SIMD_ERRORS_H
#define MOSSC_TESTS_SIMD_ERRORS_H

#include "../../runtime/simd.h"

#include <float.h>
#include <stdio.h>

static inline double simd_ref_exp2m1(double x) { return expm1(x * 0.69314718055994530942); }
static inline double simd_ref_softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }
static inline double simd_ref_sigmoid(double x) { return x > 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }
static inline double simd_ref_silu(double x) { return x * simd_ref_sigmoid(x); }

static void simd_call_exp2(float *y, const float *x) { vstore(y, vexp2(vload(x))); }
static void simd_call_exp2_decay(float *y, const float *x) { vstore(y, vexp2_decay(vload(x))); }
#if defined __aarch64__
static void simd_call_tame_decay(float *y, const float *x) { vstore(y, simd_decay(vload(x), vset(1), simd_decay_addends, 1)); }
#endif
static void simd_call_exp(float *y, const float *x) { vstore(y, vexp(vload(x))); }
static void simd_call_exp2m1(float *y, const float *x) { vstore(y, vexp2m1(vload(x))); }
static void simd_call_softplus(float *y, const float *x) { vstore(y, vsoftplus(vload(x))); }
static void simd_call_sigmoid(float *y, const float *x) { vstore(y, vsigmoid(vload(x))); }
static void simd_call_silu(float *y, const float *x) { vstore(y, vsilu(vload(x))); }

typedef struct {
    const char *name;
    void (*call)(float *y, const float *x);   /* [LANES] each */
    double (*reference)(double);
    double bound;                             /* ulp */
} SimdFunction;

static const SimdFunction simd_functions[] = {
    { "vexp2", simd_call_exp2, exp2, 2 },
    { "vexp2_decay", simd_call_exp2_decay, exp2, 2 },
#if defined __aarch64__
    { "simd_decay, tame", simd_call_tame_decay, exp2, 2 },
#endif
    { "vexp", simd_call_exp, exp, 2 },
    { "vexp2m1", simd_call_exp2m1, simd_ref_exp2m1, 3 },
    { "vsoftplus", simd_call_softplus, simd_ref_softplus, 4 },
    { "vsigmoid", simd_call_sigmoid, simd_ref_sigmoid, 4 },
    { "vsilu", simd_call_silu, simd_ref_silu, 5 },
};
enum { N_SIMD_FUNCTIONS = sizeof simd_functions / sizeof *simd_functions };

/* Of y, which should be `want`; infinite when one is finite (beyond overflow's edge) or NaN. */
static inline double simd_ulp(float y, double want)
{
    if (isnan(want))
        return isnan(y) ? 0 : INFINITY;
    if (isinf(y) || fabs(want) > FLT_MAX)              /* an ulp of slack at the edge of overflow */
        return fabs(want) >= FLT_MAX * (1 - 3e-7) && (double)y * want > 0 && fabs((double)y) >= FLT_MAX * (1 - 3e-7) ? 0 : INFINITY;
    int exponent;
    frexp(want, &exponent);
    return fabs((double)y - want) / ldexp(1, exponent - 24 > -149 ? exponent - 24 : -149);
}

/* The worst over every `step`-th bit pattern, and every pattern near 0, 1, the ends and integers. */
static inline double simd_worst(const SimdFunction *function, uint32_t step, float *at)
{
    static const float centres[] = { 0, 1, -1, 0.5f, -0.5f, 126, 127, 128, -126, -149, -150, -151, 88.72f, 89, -87.3f, -103.3f, -104, 17, -17 };
    double worst = 0;
    float x[LANES], y[LANES];
    const uint64_t n_even = ((uint64_t)1 << 32) / step, n_near = sizeof centres / sizeof *centres * 4096;
    for (uint64_t i = 0; i < n_even + n_near; i += LANES) {
        for (uint64_t j = i; j < i + LANES; j++) {
            uint32_t bits = (uint32_t)(j * step);
            if (j >= n_even) {
                memcpy(&bits, &centres[(j - n_even) / 4096 % (sizeof centres / sizeof *centres)], 4);
                bits += (uint32_t)((j - n_even) % 4096) - 2048;
            }
            memcpy(&x[j - i], &bits, 4);
        }
        function->call(y, x);
        for (int j = 0; j < LANES; j++) {
            const double want = function->reference((double)x[j]);
            double ulp = simd_ulp(y[j], want);
            if (function->reference == simd_ref_silu && x[j] < -87)    /* e^x is denormal: absolute */
                ulp = isinf(x[j]) || fabs((double)y[j] - want) <= 0x1p-142 ? 0 : INFINITY;
            if (function->call == simd_call_exp2_decay && (x[j] > 0 || x[j] < -126))
                ulp = x[j] > 0 || (y[j] >= 0 && y[j] <= 0x1.01p-126f) ? 0 : INFINITY;
#if defined __aarch64__
            if (function->call == simd_call_tame_decay && !(x[j] <= 0 && x[j] >= -125))
                ulp = 0;
#endif
            if (!(ulp <= worst)) {
                worst = ulp;
                *at = x[j];
            }
        }
    }
    return worst;
}

#endif
