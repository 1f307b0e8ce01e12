/* The vector dialect that kernel templates are written in, for AVX-512, AVX2, NEON and plain C.
 *
 * A `vf` is LANES float32 values, a panel is two of them. Every function works lane by lane, but
 * for vsum, vmax_lanes and vdot, whose order is fixed; products are fused with vfma and never left to the
 * compiler's contraction, so a value does not depend on which loop computed it. Bounds given as
 * "ulp" are asserted by tests/unit/test_simd.c, which compares every function with double libm.
 */
#ifndef MOSS_SIMD_H
#define MOSS_SIMD_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined __AVX512F__ && defined __AVX512DQ__
#define LANES 16
#include <immintrin.h>
#elif defined __AVX2__ && defined __FMA__ && defined __F16C__
#define LANES 8
#include <immintrin.h>
#else
#define LANES 4
#if defined __aarch64__
#include <arm_neon.h>
#endif
#endif

#define KERNEL_INLINE static inline __attribute__((always_inline, unused))
/* Before a loop of constant count whose array must end up in registers. */
#define UNROLL _Pragma("GCC unroll 64")
/* The same where only cores of 64-bit ARM gain. */
#if defined __aarch64__
#define UNROLL_ARM UNROLL
#else
#define UNROLL_ARM
#endif

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef float vf_unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t vi_unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* How a weight matrix is stored: the values of ir/dtype.def. Macros, because compilers warn when
 * an enum of ours is compared with a parameter, which is one of another enum. */
#define WEIGHT_F32 0
#define WEIGHT_BF16 1
#define WEIGHT_F16 2
#define WEIGHT_Q8 3     /* the panels of runtime/dot.h */
#define WEIGHT_Q4 4
#define WEIGHT_BF16_PAIRS 5     /* bf16, k beside each other by twos or fours: rows become bf16 too */
#define WEIGHT_F16_ROWS 6       /* f16, rows become f16 too and sums are */

/* ---- load, store, broadcast ---- */

KERNEL_INLINE vf vload(const float *p /* [LANES] */) { return *(const vf_unaligned *)p; }
KERNEL_INLINE void vstore(float *p /* [LANES] */, vf a) { *(vf_unaligned *)p = a; }
KERNEL_INLINE vf vset(float a) { return a - (vf){ 0 }; }
KERNEL_INLINE vi viset(int32_t a) { return a - (vi){ 0 }; }

/* 0, 1, 2, … */
KERNEL_INLINE vi viota(void)
{
#if LANES == 16
    return (vi){ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
#elif LANES == 8
    return (vi){ 0, 1, 2, 3, 4, 5, 6, 7 };
#else
    return (vi){ 0, 1, 2, 3 };
#endif
}

/* The first n lanes of memory, 0 <= n <= LANES; the others are zero. */
KERNEL_INLINE vf vload_part(const float *p /* [n] */, int n)
{
#if LANES == 16
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
    vf a = { 0 };
    memcpy(&a, p, (size_t)n * sizeof *p);
    return a;
#endif
}

KERNEL_INLINE void vstore_part(float *p /* [n] */, vf a, int n)
{
#if LANES == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
#else
    memcpy(p, &a, (size_t)n * sizeof *p);
#endif
}

/* Columns i … of a row of n columns, i a multiple of LANES: whole but for the last, short vector.
 * n is constant; so is the length of a partial access, or it would become a call of memcpy. */
KERNEL_INLINE vf vload_row(const float *row /* [n] */, int i, int n)
{
    return n % LANES == 0 || i + LANES <= n ? vload(row + i) : vload_part(row + i, n % LANES);
}

KERNEL_INLINE void vstore_row(float *row /* [n] */, int i, int n, vf a)
{
    if (n % LANES == 0 || i + LANES <= n)
        vstore(row + i, a);
    else
        vstore_part(row + i, a, n % LANES);
}

/* One value in every lane; kept in a register, so that several products share the one load. */
KERNEL_INLINE vf vbroadcast(const float *p)
{
    vf a = vset(*p);
#if LANES == 16 && !defined __clang__
    __asm__("" : "+v"(a));   /* gcc would fold the load into each product that uses it */
#endif
    return a;
}

/* ---- arithmetic ---- */

/* a * b + c, rounded once. */
KERNEL_INLINE vf vfma(vf a, vf b, vf c)
{
#if LANES == 16
    return _mm512_fmadd_ps(a, b, c);
#elif LANES == 8
    return _mm256_fmadd_ps(a, b, c);
#elif defined __aarch64__
    return vfmaq_f32(c, a, b);
#else
    vf r;
    for (int i = 0; i < LANES; i++)
        r[i] = fmaf(a[i], b[i], c[i]);
    return r;
#endif
}

#if defined __aarch64__
/* sum + x * values[i]; i and n are constant. Four values are one load where there are four: a product
 * takes a lane. */
KERNEL_INLINE vf vfma_lane(vf sum, vf x, const float *values /* [n] */, const int i, const int n)
{
    if (i / 4 * 4 + 4 > n)
        return vfmaq_n_f32(sum, x, values[i]);
    const vf four = vload(values + i / 4 * 4);
    switch (i % 4) {
    case 0: return vfmaq_laneq_f32(sum, x, four, 0);
    case 1: return vfmaq_laneq_f32(sum, x, four, 1);
    case 2: return vfmaq_laneq_f32(sum, x, four, 2);
    default: return vfmaq_laneq_f32(sum, x, four, 3);
    }
}
#endif

KERNEL_INLINE vf vselect(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
KERNEL_INLINE vf vabs(vf a) { return (vf)((vi)a & 0x7FFFFFFF); }

/* A NaN in `b` comes through; one in `a` may be lost. */
KERNEL_INLINE vf vmax(vf a, vf b)
{
#if LANES == 16
    return _mm512_max_ps(a, b);
#elif LANES == 8
    return _mm256_max_ps(a, b);
#elif defined __aarch64__
    return vmaxq_f32(a, b);
#else
    return vselect(a > b, a, b);
#endif
}

KERNEL_INLINE vf vmin(vf a, vf b)
{
#if LANES == 16
    return _mm512_min_ps(a, b);
#elif LANES == 8
    return _mm256_min_ps(a, b);
#elif defined __aarch64__
    return vminq_f32(a, b);
#else
    return vselect(a < b, a, b);
#endif
}

/* To the nearest integer, ties to even; |a| < 2^22. */
KERNEL_INLINE vf vround(vf a)
{
#if LANES == 16
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif LANES == 8
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    vf magic = vset(0x1.8p23f), shifted = a + magic;
#if defined __aarch64__
    __asm__("" : "+w"(shifted));   /* or a compiler told to reassociate would drop the pair */
#else
    __asm__("" : "+m"(shifted));
#endif
    return shifted - magic;
#endif
}

/* ---- weights ---- */

/* Bytes of one weight. */
KERNEL_INLINE size_t weight_len(int dtype) { return dtype == WEIGHT_F32 ? 4 : 2; }

/* The cache line at `base` + `len` bytes, which may lie outside the array, is wanted soon. */
KERNEL_INLINE void prefetch(const void *base, size_t len)
{
    __builtin_prefetch((const void *)((uintptr_t)base + len));
}

/* The same, into the second level: what is used next must not lose its place in the first. */
KERNEL_INLINE void prefetch_l2(const void *base, size_t len)
{
    __builtin_prefetch((const void *)((uintptr_t)base + len), 0, 2);
}

KERNEL_INLINE float weight_from_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, magnitude = bits & 0x7FFF;
    uint32_t word = magnitude << 13;
    float value;
    if (magnitude >= 0x7C00) {                        /* infinity, NaN */
        word += 0x70000000;
    } else {
        memcpy(&value, &word, sizeof value);
        value *= 0x1p112f;                            /* exponent bias 15 to 127, denormals too */
        memcpy(&word, &value, sizeof word);
    }
    word |= sign;
    memcpy(&value, &word, sizeof value);
    return value;
}

/* Weight `index` of an array stored as `dtype`, a constant. */
KERNEL_INLINE float load_weight(const void *base, size_t index, int dtype)
{
    if (dtype == WEIGHT_F32)
        return ((const float *)base)[index];
    uint16_t bits = ((const uint16_t *)base)[index];
    if (dtype == WEIGHT_F16 || dtype == WEIGHT_F16_ROWS)
        return weight_from_f16(bits);
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

/* Weights index … index + LANES - 1 of an array stored as `dtype`, a constant. */
KERNEL_INLINE vf vload_weight(const void *base, size_t index, int dtype)
{
    if (dtype == WEIGHT_F32)
        return vload((const float *)base + index);
    const uint16_t *p = (const uint16_t *)base + index;
#if LANES == 16
    __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)p);
    if (dtype == WEIGHT_F16 || dtype == WEIGHT_F16_ROWS)
        return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
#elif LANES == 8
    __m128i half = _mm_loadu_si128((const __m128i *)(const void *)p);
    if (dtype == WEIGHT_F16 || dtype == WEIGHT_F16_ROWS)
        return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
#elif defined __aarch64__
    uint16x4_t half = vld1_u16(p);
    if (dtype == WEIGHT_F16 || dtype == WEIGHT_F16_ROWS)
        return vcvt_f32_f16(vreinterpret_f16_u16(half));
    return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
#else
    vf a;
    for (int i = 0; i < LANES; i++)
        a[i] = load_weight(p, (size_t)i, dtype);
    return a;
#endif
}

/* ---- across lanes ---- */

#if LANES == 16
#define SIMD_HALF_8(a) __builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)
#define SIMD_HALF_4(a) __builtin_shufflevector(a, a, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)
#define SIMD_HALF_2(a) __builtin_shufflevector(a, a, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)
#define SIMD_HALF_1(a) __builtin_shufflevector(a, a, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)
#define SIMD_ZIP_LO(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define SIMD_ZIP_HI(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif LANES == 8
#define SIMD_HALF_4(a) __builtin_shufflevector(a, a, 4, 5, 6, 7, 0, 1, 2, 3)
#define SIMD_HALF_2(a) __builtin_shufflevector(a, a, 2, 3, 0, 1, 6, 7, 4, 5)
#define SIMD_HALF_1(a) __builtin_shufflevector(a, a, 1, 0, 3, 2, 5, 4, 7, 6)
#define SIMD_ZIP_LO(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define SIMD_ZIP_HI(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define SIMD_HALF_2(a) __builtin_shufflevector(a, a, 2, 3, 0, 1)
#define SIMD_HALF_1(a) __builtin_shufflevector(a, a, 1, 0, 3, 2)
#define SIMD_ZIP_LO(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define SIMD_ZIP_HI(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

/* Sum of the lanes, by halves: lane i takes lane i + LANES/2, then + LANES/4, … */
KERNEL_INLINE float vsum(vf a)
{
#if LANES == 16
    a += SIMD_HALF_8(a);
#endif
#if LANES >= 8
    a += SIMD_HALF_4(a);
#endif
    a += SIMD_HALF_2(a);
    a += SIMD_HALF_1(a);
    return a[0];
}

KERNEL_INLINE float vmax_lanes(vf a)
{
#if LANES == 16
    a = vmax(SIMD_HALF_8(a), a);
#endif
#if LANES >= 8
    a = vmax(SIMD_HALF_4(a), a);
#endif
    a = vmax(SIMD_HALF_2(a), a);
    a = vmax(SIMD_HALF_1(a), a);
    return a[0];
}

/* Row i of the square becomes its column i: log2(LANES) perfect shuffles. */
KERNEL_INLINE void vtranspose(vf rows[LANES])
{
    UNROLL
    for (int width = 1; width < LANES; width *= 2) {
        vf next[LANES];
        UNROLL
        for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = SIMD_ZIP_LO(rows[i], rows[i + LANES / 2]);
            next[2 * i + 1] = SIMD_ZIP_HI(rows[i], rows[i + LANES / 2]);
        }
        UNROLL
        for (int i = 0; i < LANES; i++)
            rows[i] = next[i];
    }
}

/* Σ x[i] * y[i] but for the sum over lanes: four chains of vectors, then the short last vector. */
KERNEL_INLINE vf vdot_parts(const float *x /* [n] */, const float *y /* [n] */, int n)
{
    vf sum[4] = { { 0 }, { 0 }, { 0 }, { 0 } };
    int i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        UNROLL
        for (int j = 0; j < 4; j++)
            sum[j] = vfma(vload(x + i + j * LANES), vload(y + i + j * LANES), sum[j]);
    }
    for (; i + LANES <= n; i += LANES)
        sum[0] = vfma(vload(x + i), vload(y + i), sum[0]);
    if (i < n)
        sum[1] = vfma(vload_part(x + i, n % LANES), vload_part(y + i, n % LANES), sum[1]);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Σ x[i] * y[i]: four chains, then the lanes by halves. */
KERNEL_INLINE float vdot(const float *x /* [n] */, const float *y /* [n] */, int n) { return vsum(vdot_parts(x, y, n)); }

/* The vsum of each of LANES vectors, to the bit, in its lane; they are lost. */
KERNEL_INLINE vf vsum_each(vf parts[LANES])
{
    vtranspose(parts);
    UNROLL
    for (int half = LANES / 2; half > 0; half /= 2) {
        UNROLL
        for (int i = 0; i < half; i++)
            parts[i] += parts[i + half];
    }
    return parts[0];
}

/* ---- transcendental functions ---- */

/* 2^n for integers n as floats; -126 <= n <= 127. */
KERNEL_INLINE vf vpow2_int(vf n)
{
    return (vf)((__builtin_convertvector(n, vi) + 127) << 23);
}

/* p * 2^n, rounded once even where it is denormal; -252 <= n <= 254, n an integer. */
KERNEL_INLINE vf vscale2(vf p, vf n)
{
#if LANES == 16
    return _mm512_scalef_ps(p, n);
#else
    vi whole = __builtin_convertvector(n, vi), half = whole >> 1;
    return p * (vf)((half + 127) << 23) * (vf)((whole - half + 127) << 23);
#endif
}

/* (2^f - 1) / f for |f| <= 1/2, relative error 1.1e-8 before rounding. */
KERNEL_INLINE vf vexp2m1_poly(vf f)
{
    vf q = vset(0.0001540351967f);
    q = vfma(q, f, vset(0.001339073563f));
    q = vfma(q, f, vset(0.009618237478f));
    q = vfma(q, f, vset(0.05550357433f));
    q = vfma(q, f, vset(0.2402264979f));
    return vfma(q, f, vset(0.6931471879f));
}

/* e^x, 2 ulp everywhere, with the same ends as vexp2. */
KERNEL_INLINE vf vexp(vf x)
{
    x = vmin(vset(89), vmax(vset(-104), x));
    vf n = vround(x * 1.44269504f);
    vf r = vfma(n, vset(-0.693359375f), x);           /* ln 2 in two parts, the first exact */
    r = vfma(n, vset(2.12194440e-4f), r);
    vf q = vset(0.001381449627f);
    q = vfma(q, r, vset(0.008368780278f));
    q = vfma(q, r, vset(0.04166839378f));
    q = vfma(q, r, vset(0.1666652011f));
    q = vfma(q, r, vset(0.4999999341f));
    return vscale2(vfma(q, r * r, r) + 1, n);
}

/* 2^x - 1 without the cancellation near 0: 3 ulp everywhere. */
KERNEL_INLINE vf vexp2m1(vf x)
{
    x = vmin(vset(128), vmax(vset(-100), x));
    vf n = vround(x), f = x - n;
    vf half = vpow2_int(n - 1), p = vexp2m1_poly(f) * f;
    return 2 * vfma(half, p, half - 0.5f);
}

#if defined __aarch64__
#include "simd_arm.h"
#else
/* 2^x, 2 ulp everywhere: 0 below -150, infinity from 128, denormals between, NaN for NaN. */
KERNEL_INLINE vf vexp2(vf x)
{
#if LANES == 16
    /* reduce: x - floor(x), 0 for infinities; scalef: times 2^floor(x). No clamping needed. */
    vf f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    vf q = vset(0.0002161293979f);
    q = vfma(q, f, vset(0.001246783886f));
    q = vfma(q, f, vset(0.009675452432f));
    q = vfma(q, f, vset(0.05548528017f));
    q = vfma(q, f, vset(0.2402293057f));
    q = vfma(q, f, vset(0.6931470444f));
    return _mm512_scalef_ps(vfma(q, f, vset(1)), x);
#else
    x = vmin(vset(129), vmax(vset(-151), x));
    vf n = vround(x), f = x - n;
    return vscale2(vfma(vexp2m1_poly(f), f, vset(1)), n);
#endif
}

/* 2^x for x <= 0, as a scan needs it: vexp2, but 0 wherever vexp2 would be denormal (x < -126.5). */
KERNEL_INLINE vf vexp2_decay(vf x)
{
#if LANES == 16
    return vexp2(x);                                  /* no dearer there, denormals included */
#else
    x = vmax(vset(-127), x);
    vf magic = vset(0x1.8p23f + 127), shifted = x + magic;    /* its low bits are round(x) + 127 */
    vf f = x - (shifted - magic);
    return vfma(vexp2m1_poly(f), f, vset(1)) * (vf)((vi)shifted << 23);
#endif
}

/* log(1 + e^x) = max(x, 0) + 2 atanh(e / (2 + e)) with e = e^-|x|: 4 ulp everywhere, so also
 * relative to the tiny values of very negative x. */
KERNEL_INLINE vf vsoftplus(vf x)
{
    vf e = vexp(-vabs(x));
    vf w = (e + e) / (e + 2), z = w * w * 0.25f;
    vf q = vset(0.1401222833f);
    q = vfma(q, z, vset(0.1399957045f));
    q = vfma(q, z, vset(0.2001084957f));
    q = vfma(q, z, vset(0.3333320656f));
    return vmax(vset(0), x) + vfma(w * z, q, w);
}

/* 1 / (1 + e^-x), 4 ulp everywhere. */
KERNEL_INLINE vf vsigmoid(vf x)
{
    vf e = vexp(-vabs(x));
    return vselect(x < 0, e, vset(1)) / (e + 1);
}

#endif

/* x / (1 + e^-x), 5 ulp for x >= -87; below, where it is under 1e-36, within 2^-142. NaN for -infinity. */
KERNEL_INLINE vf vsilu(vf x)
{
    return x * vsigmoid(x);
}

/* What a product leaves behind, by its parameter `accumulate`: gate * value + there, or, with 2, a
 * gated linear unit: silu(there) * value. */
KERNEL_INLINE vf product_end(const int accumulate, vf gate, vf value, vf there)
{
    return accumulate == 2 ? vsilu(there) * value : vfma(gate, value, there);
}

#endif
