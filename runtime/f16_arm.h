/* Products that are summed in float16, on 64-bit ARM: rows rounded to f16 with panels of 8 columns, eight sums a vector.
 *
 * Input: panels as stored, [n_in][8] f16, and rows as f16_row leaves them, scaled to elements of at most 1.
 * Output: float32 sums of the scaled rows, [rows][8]. Of each 64 k those with even index are one chain of fused products
 * in f16, those with odd index another; their sum is added in float32. Tile and stream do the same operations, so an
 * element does not depend on which it was. Weights are at most 512: 64 products of a weight with at most 1 fit f16.
 */
#ifndef MOSS_F16_ARM_H
#define MOSS_F16_ARM_H

#include "dot.h"

#if defined __aarch64__ && defined __ARM_FEATURE_FP16_VECTOR_ARITHMETIC

enum { F16_ARM_MOST_ROWS = 14, F16_ARM_MOST_PANELS = 8, F16_BLOCK = 64 };

/* A row as f16, scaled by a power of two so that its largest element is between 1/2 and 1; zeros fill its last step.
 * Returns what undoes the scale. NaN and infinities stay. */
KERNEL_INLINE float f16_row(uint16_t *to /* [n rounded up to 2] */, const float *from /* [n] */, int n)
{
    vi most = { 0 };
    for (int i = 0; i < n; i += LANES)
        most = vimax(most, (vi)vload_row(from, i, n) & INT32_MAX);
    const int32_t exponent = vmaxvq_s32(most) >> 23, e = exponent < 1 ? 1 : exponent > 252 ? 252 : exponent;
    const int32_t down = (253 - e) << 23, up = (e + 1) << 23;
    float factor, inverse;
    memcpy(&factor, &down, sizeof factor);
    memcpy(&inverse, &up, sizeof inverse);
    for (int i = 0; i < n; i += LANES) {
        const float16x4_t half = vcvt_f16_f32(vload_row(from, i, n) * factor);
        const int left = n + n % 2 - i;
        memcpy(to + i, &half, left < LANES ? (size_t)left * 2 : sizeof half);
    }
    return inverse;
}

/* sum + weights * eight[i]; i is constant. */
KERNEL_INLINE float16x8_t f16_lane(float16x8_t sum, float16x8_t weights, float16x8_t eight, const int i)
{
#define LANE(n) __asm__("fmla %0.8h, %1.8h, %2.h[" #n "]" : "+w"(sum) : "w"(weights), "x"(eight))
    switch (i) {                                      /* by hand: gcc 12 would copy each lane into a register first */
    case 0: LANE(0); break;
    case 1: LANE(1); break;
    case 2: LANE(2); break;
    case 3: LANE(3); break;
    case 4: LANE(4); break;
    case 5: LANE(5); break;
    case 6: LANE(6); break;
    default: LANE(7);
    }
#undef LANE
    return sum;
}

/* The same with element i of `values`, which has n; both are constant. */
KERNEL_INLINE float16x8_t f16_step(float16x8_t sum, float16x8_t weights, const float16_t *values /* [n] */, const int i,
                                   const int n)
{
    if (i / 8 * 8 + 8 > n)
        return vfmaq_n_f16(sum, weights, values[i]);
    return f16_lane(sum, weights, vld1q_f16(values + i / 8 * 8), i % 8);
}

KERNEL_INLINE void f16_arm_tile(const int rows, float *sums /* [rows][8] */,
                                const float *packed /* [(n_in + 1) / 2][rows][2] f16 */,
                                const float *panel /* [n_in][8] f16 */, int n_in, const void *weights, size_t ahead,
                                size_t step)
{
    const float16_t *a = (const float16_t *)packed, *b = (const float16_t *)panel;
    for (int i = 0; i < 2 * rows; i++)
        vstore(sums + 4 * i, vset(0));
    for (int left = n_in; left > 0; left -= F16_BLOCK) {
        const int n = left < F16_BLOCK ? left : F16_BLOCK;
        float16x8_t even[F16_ARM_MOST_ROWS], odd[F16_ARM_MOST_ROWS];
        UNROLL
        for (int r = 0; r < rows; r++)
            even[r] = odd[r] = vdupq_n_f16(0);
        for (int k = 0; k < n / 2; k++, a += 2 * rows, b += 16, ahead += step) {
            prefetch_l2(weights, ahead);
            const float16x8_t first = vld1q_f16(b), second = vld1q_f16(b + 8);
            UNROLL
            for (int r = 0; r < rows; r++) {
                even[r] = f16_step(even[r], first, a, 2 * r, 2 * rows);
                odd[r] = f16_step(odd[r], second, a, 2 * r + 1, 2 * rows);
            }
        }
        UNROLL
        for (int r = 0; r < rows; r++) {
            if (n % 2)
                even[r] = vfmaq_n_f16(even[r], vld1q_f16(b), a[2 * r]);
            const float16x8_t both = vaddq_f16(even[r], odd[r]);
            vstore(sums + 8 * r, vload(sums + 8 * r) + vcvt_f32_f16(vget_low_f16(both)));
            vstore(sums + 8 * r + 4, vload(sums + 8 * r + 4) + vcvt_high_f32_f16(both));
        }
    }
}

/* The weights of one k of `width` panels. */
KERNEL_INLINE void f16_load(vi w[F16_ARM_MOST_PANELS], const int width, const uint8_t *at, size_t panel_len)
{
    UNROLL
    for (int p = 0; p < width; p++)
        w[p] = viload(at + (size_t)p * panel_len);
    if (width == 4)
        vhold(w);
}

/* Eight k of a row, or the last ones, with `width` panels; part: of even and of odd k. */
KERNEL_INLINE void f16_stream_eight(float16x8_t part[2][F16_ARM_MOST_PANELS], const int width, const uint8_t *at,
                                    size_t panel_len, const float16_t *x /* [8] */)
{
    const float16x8_t eight = vld1q_f16(x);
    UNROLL
    for (int i = 0; i < 8; i++) {
        vi w[F16_ARM_MOST_PANELS];
        f16_load(w, width, at + (size_t)i * 16, panel_len);
        UNROLL
        for (int p = 0; p < width; p++)
            part[i % 2][p] = f16_lane(part[i % 2][p], (float16x8_t)w[p], eight, i);
    }
}

KERNEL_INLINE void f16_stream_last(float16x8_t part[2][F16_ARM_MOST_PANELS], const int width, const uint8_t *at,
                                   size_t panel_len, const float16_t *x /* [n] */, int n)
{
    UNROLL
    for (int i = 0; i < 7; i++) {
        vi w[F16_ARM_MOST_PANELS];
        if (i >= n)
            break;
        f16_load(w, width, at + (size_t)i * 16, panel_len);
        UNROLL
        for (int p = 0; p < width; p++)
            part[i % 2][p] = vfmaq_n_f16(part[i % 2][p], (float16x8_t)w[p], x[i]);
    }
}

/* One row with `width` panels, each a stream of its own, which cores fetch themselves: only the next panels'
 * beginnings are asked for. */
KERNEL_INLINE void f16_arm_stream(vf *sum /* [2 width] */, const int width, const void *weights, size_t at,
                                  size_t panel_len,
                                  const uint16_t *rounded /* [n_in] f16 */, int n_in, const int prefetch_rows)
{
    const float16_t *x = (const float16_t *)rounded;
    for (int row = 0; row < prefetch_rows; row += 4) {
        UNROLL
        for (int p = 0; p < width; p++)
            prefetch_l2(weights, at + (size_t)(width + p) * panel_len + (size_t)row * 16);
    }
    UNROLL
    for (int j = 0; j < 2 * width; j++)
        sum[j] = vset(0);
    for (int begin = 0; begin < n_in; begin += F16_BLOCK) {
        const int end = n_in - begin < F16_BLOCK ? n_in : begin + F16_BLOCK;
        float16x8_t part[2][F16_ARM_MOST_PANELS];
        UNROLL
        for (int p = 0; p < width; p++)
            part[0][p] = part[1][p] = vdupq_n_f16(0);
        const uint8_t *row = (const uint8_t *)weights + at + (size_t)begin * 16;
        int k = begin;
        for (; k + 8 <= end; k += 8, row += 128)
            f16_stream_eight(part, width, row, panel_len, x + k);
        if (n_in % 8 && k < end)
            f16_stream_last(part, width, row, panel_len, x + k, end - k);
        UNROLL
        for (int p = 0; p < width; p++) {
            const float16x8_t both = vaddq_f16(part[0][p], part[1][p]);
            sum[2 * p] += vcvt_f32_f16(vget_low_f16(both));
            sum[2 * p + 1] += vcvt_high_f32_f16(both);
        }
    }
}

#else
KERNEL_INLINE float f16_row(uint16_t *to, const float *from, int n) { (void)to, (void)from, (void)n; return 1; }
KERNEL_INLINE void f16_arm_tile(const int rows, float *sums, const float *packed, const float *panel, int n_in,
                                const void *weights, size_t ahead, size_t step)
{
    (void)rows, (void)sums, (void)packed, (void)panel, (void)n_in, (void)weights, (void)ahead, (void)step;
}
KERNEL_INLINE void f16_arm_stream(vf *sum, const int width, const void *weights, size_t at, size_t panel_len,
                                  const uint16_t *rounded, int n_in, const int prefetch_rows)
{
    (void)sum, (void)width, (void)weights, (void)at, (void)panel_len, (void)rounded, (void)n_in, (void)prefetch_rows;
}
#endif

#endif
