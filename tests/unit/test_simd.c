/* The vector dialect: every function against scalar C and double libm, bounds asserted.
 *
 * Built for whatever instruction set the compiler's flags name; tests/kernels runs the same error
 * bounds for every target.
 */
#include "simd_errors.h"
#include "../../ir/dtype.h"
#include "unit.h"

static float lane(vf a, int i)
{
    float out[LANES];
    vstore(out, a);
    return out[i];
}

static void test_transcendental(void)
{
    for (int f = 0; f < N_SIMD_FUNCTIONS; f++) {
        float at = 0;
        const double worst = simd_worst(&simd_functions[f], 2003, &at);
        if (!(worst <= simd_functions[f].bound))
            fprintf(stderr, "%s: %.2f ulp at %.9g, bound %g\n", simd_functions[f].name, worst, at, simd_functions[f].bound);
        CU_ASSERT(worst <= simd_functions[f].bound);
    }
}

static void test_special_values(void)
{
    CU_ASSERT_EQUAL(lane(vexp2(vset(-INFINITY)), 0), 0);
    CU_ASSERT_EQUAL(lane(vexp2(vset(INFINITY)), 0), INFINITY);
    CU_ASSERT_EQUAL(lane(vexp2(vset(-1e30f)), 0), 0);
    CU_ASSERT_EQUAL(lane(vexp2(vset(1e30f)), 0), INFINITY);
    CU_ASSERT_EQUAL(lane(vexp2(vset(-149)), 0), 0x1p-149f);
    CU_ASSERT_EQUAL(lane(vexp2(vset(7)), 0), 128);
    CU_ASSERT_EQUAL(lane(vexp(vset(0)), 0), 1);
    CU_ASSERT_EQUAL(lane(vexp2m1(vset(0)), 0), 0);
    CU_ASSERT_EQUAL(lane(vsoftplus(vset(100)), 0), 100);
    CU_ASSERT_EQUAL(lane(vsoftplus(vset(-INFINITY)), 0), 0);
    for (int f = 0; f < N_SIMD_FUNCTIONS; f++) {
        float x[LANES], y[LANES];
        for (int i = 0; i < LANES; i++)
            x[i] = i % 2 ? 1 : NAN;
        simd_functions[f].call(y, x);
        for (int i = 0; i < LANES; i++)
            CU_ASSERT(i % 2 ? isfinite(y[i]) : isnan(y[i]));
    }
}

static void test_parts(void)
{
    float from[LANES + 1], to[LANES + 1];
    for (int i = 0; i <= LANES; i++)
        from[i] = (float)(i + 1);
    for (int n = 0; n <= LANES; n++) {
        const vf a = vload_part(from, n);
        for (int i = 0; i <= LANES; i++)
            to[i] = -1;
        vstore_part(to, a, n);
        for (int i = 0; i < LANES; i++) {
            CU_ASSERT_EQUAL(lane(a, i), i < n ? from[i] : 0);
            CU_ASSERT_EQUAL(to[i], i < n ? from[i] : -1);
        }
        CU_ASSERT_EQUAL(to[LANES], -1);
    }
}

static void test_arithmetic(void)
{
    const float values[] = { 0, -0.0f, 1, -1.5f, 0x1p-149f, 3e38f, -INFINITY, 0x1.fffffep0f };
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) {
            const float a = values[i], b = values[j];
            const vf va = vset(a), vb = vbroadcast(&b);
            CU_ASSERT_EQUAL(lane(vmax(va, vb), 0), a > b ? a : b);
            CU_ASSERT_EQUAL(lane(vmin(va, vb), 0), a < b ? a : b);
            CU_ASSERT_EQUAL(lane(vselect(va < vb, va, vb), LANES - 1), a < b ? a : b);
            CU_ASSERT_EQUAL(lane(vabs(va), 0), fabsf(a));
            if (isfinite(a) && isfinite(b))
                CU_ASSERT_EQUAL(lane(vfma(va, vb, vset(0x1p-30f)), 1), fmaf(a, b, 0x1p-30f));
        }
    CU_ASSERT(isnan(lane(vmax(vset(1), vset(NAN)), 0)));
    CU_ASSERT(isnan(lane(vmin(vset(1), vset(NAN)), 0)));
    for (int i = -9; i <= 9; i++)
        CU_ASSERT_EQUAL(lane(vround(vset((float)i / 2)), 0), nearbyintf((float)i / 2));
    CU_ASSERT_EQUAL(viota()[LANES - 1], LANES - 1);
    CU_ASSERT_EQUAL(viset(5)[0], 5);
}

static void test_across_lanes(void)
{
    float x[4 * LANES + 3], tree[LANES];
    for (int i = 0; i < 4 * LANES + 3; i++)
        x[i] = 1 / (float)(i + 3);
    for (int i = 0; i < LANES; i++)
        tree[i] = x[i];
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            tree[i] += tree[i + width];
    CU_ASSERT_EQUAL(vsum(vload(x)), tree[0]);
    for (int top = 0; top < LANES; top++) {
        float y[LANES];
        memcpy(y, x, sizeof y);
        y[top] = 7;
        CU_ASSERT_EQUAL(vmax_lanes(vload(y)), 7);
    }
    for (int n = 0; n <= 4 * LANES + 3; n++) {
        double want = 0;
        for (int i = 0; i < n; i++)
            want += (double)x[i] * x[i];
        CU_ASSERT(fabs(vdot(x, x, n) - want) <= 1e-6);
    }
    vf square[LANES];
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < LANES; j++)
            square[i][j] = (float)(i * 100 + j);
    vtranspose(square);
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < LANES; j++)
            CU_ASSERT_EQUAL(lane(square[i], j), (float)(j * 100 + i));
}

/* Every bf16 and f16 pattern, scalar and vector, as ir/dtype.h reads it. */
static void test_weights(void)
{
    CU_ASSERT_EQUAL(WEIGHT_F32, DTYPE_F32);
    CU_ASSERT_EQUAL(WEIGHT_BF16, DTYPE_BF16);
    CU_ASSERT_EQUAL(WEIGHT_F16, DTYPE_F16);
    int n_bad = 0;
    for (uint32_t bits = 0; bits < 65536; bits += LANES) {
        uint16_t stored[LANES];
        float single[LANES];
        for (int i = 0; i < LANES; i++) {
            stored[i] = (uint16_t)(bits + (uint32_t)i);
            single[i] = (float)i - 1.5f;
        }
        const vf bf16 = vload_weight(stored, 0, WEIGHT_BF16), f16 = vload_weight(stored, 0, WEIGHT_F16);
        for (int i = 0; i < LANES; i++) {
            const float want_bf16 = dtype_bf16_to_f32(stored[i]), want_f16 = dtype_f16_to_f32(stored[i]);
            n_bad += isnan(want_bf16) ? !isnan(lane(bf16, i)) : lane(bf16, i) != want_bf16 || load_weight(stored, (size_t)i, WEIGHT_BF16) != want_bf16;
            n_bad += isnan(want_f16) ? !isnan(lane(f16, i)) : lane(f16, i) != want_f16 || load_weight(stored, (size_t)i, WEIGHT_F16) != want_f16;
            n_bad += load_weight(single, (size_t)i, WEIGHT_F32) != single[i] || lane(vload_weight(single, 0, WEIGHT_F32), i) != single[i];
        }
    }
    CU_ASSERT_EQUAL(n_bad, 0);
    CU_ASSERT_EQUAL(weight_len(WEIGHT_F32), 4);
    CU_ASSERT_EQUAL(weight_len(WEIGHT_BF16), 2);
}

static const UnitTest tests[] = {
    { "exp2, exp, exp2m1, softplus, sigmoid, silu", test_transcendental },
    { "their special values", test_special_values },
    { "partial vectors", test_parts },
    { "arithmetic", test_arithmetic },
    { "sums, maxima, dot, transpose", test_across_lanes },
    { "weights", test_weights },
};
UNIT_MAIN("simd", tests)
