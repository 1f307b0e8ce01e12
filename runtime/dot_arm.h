/* The register tile of quantised products on 64-bit ARM: rows of activations with one panel of 8 columns.
 *
 * Input: the panel's rows as stored, [8][8] bytes a step of eight k, and activations as dot_arm_pack
 * leaves them. Output: int32 sums [rows][8], exact, of any number of rows. One of three ways, by the CPU:
 * matrix products (i8mm) take two rows and two columns at once; dot products take one row's four bytes
 * from a lane, with four columns that come out of two stored vectors; else eight products of a row and a
 * column are added to those of the next step in 16 bits, where two fit, and then in 32.
 */
#ifndef MOSS_DOT_ARM_H
#define MOSS_DOT_ARM_H

#include "dot.h"

#if defined __aarch64__

enum { DOT_ARM_MOST_ROWS = 14 };

#if defined __ARM_FEATURE_DOTPROD && !defined __ARM_FEATURE_MATMUL_INT8
/* Each step as two groups of four k. */
KERNEL_INLINE void dot_arm_pack(int8_t *tile /* [n_steps][2][rows][4] */, const int8_t *const *from /* [rows] */,
                                const int rows, int n_steps)
{
    dot_pack(tile, from, rows, 2 * n_steps);
}
#else
KERNEL_INLINE void dot_arm_pack(int8_t *tile /* [n_steps][rows][8] */, const int8_t *const *from /* [rows] */,
                                const int rows, int n_steps)
{
    const size_t step_len = 8 * (size_t)rows;
    for (int r = 0; r + 2 <= rows; r += 2) {
        int8_t *to = tile + 8 * r;
        int k = 0;
        for (; k + 2 <= n_steps; k += 2, to += 2 * step_len) {
            const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(from[r] + 8 * k));
            const int64x2_t b = vreinterpretq_s64_s8(vld1q_s8(from[r + 1] + 8 * k));
            vst1q_s8(to, vreinterpretq_s8_s64(vzip1q_s64(a, b)));
            vst1q_s8(to + step_len, vreinterpretq_s8_s64(vzip2q_s64(a, b)));
        }
        if (k < n_steps)
            vst1q_s8(to, vcombine_s8(vld1_s8(from[r] + 8 * k), vld1_s8(from[r + 1] + 8 * k)));
    }
    for (int k = 0; rows % 2 && k < n_steps; k++)
        memcpy(tile + (size_t)k * step_len + 8 * (rows - 1), from[rows - 1] + 8 * k, 8);
}
#endif

#if defined __ARM_FEATURE_MATMUL_INT8
KERNEL_INLINE void dot_arm_tile(const int rows, int32_t *sums /* [rows][8] */, const int8_t *a /* [n_steps][rows][8] */,
                                const int8_t *b /* [n_steps][8][8] */, const int32_t *start /* [rows] */, int n_steps,
                                const void *weights, size_t ahead, size_t step)
{
    const int pairs = rows / 2, odd = rows % 2;
    int32x4_t sum[DOT_ARM_MOST_ROWS / 2][4];    /* [row pair][column pair] of [2][2] */
    vi last[4];                                 /* of an odd row */
    UNROLL
    for (int p = 0; p < pairs; p++) {
        const int32x4_t both = vcombine_s32(vdup_n_s32(start[2 * p]), vdup_n_s32(start[2 * p + 1]));
        UNROLL
        for (int j = 0; j < 4; j++)
            sum[p][j] = both;
    }
    UNROLL
    for (int j = 0; j < 4 * odd; j++)
        last[j] = vdot_begin(start[rows - 1]);
    for (int k = 0; k < n_steps; k++, a += 8 * rows, b += 64, ahead += step) {
        prefetch_l2(weights, ahead);
        int8x16_t w[4];
        UNROLL
        for (int j = 0; j < 4; j++)
            w[j] = vld1q_s8(b + 16 * j);
        UNROLL
        for (int p = 0; p < pairs; p++) {
            const int8x16_t x = vld1q_s8(a + 16 * p);
            UNROLL
            for (int j = 0; j < 4; j++)
                sum[p][j] = vmmlaq_s32(sum[p][j], x, w[j]);
        }
        UNROLL
        for (int j = 0; j < 4 * odd; j++)
            last[j] = vdot4(last[j], (vi)w[j], vbroadcast_group(a + 8 * (rows - 1)));
    }
    UNROLL
    for (int p = 0; p < pairs; p++) {
        UNROLL
        for (int j = 0; j < 4; j += 2) {
            const int64x2_t x = vreinterpretq_s64_s32(sum[p][j]), y = vreinterpretq_s64_s32(sum[p][j + 1]);
            vst1q_s32(sums + 16 * p + 2 * j, vreinterpretq_s32_s64(vzip1q_s64(x, y)));
            vst1q_s32(sums + 16 * p + 8 + 2 * j, vreinterpretq_s32_s64(vzip2q_s64(x, y)));
        }
    }
    UNROLL
    for (int j = 0; j < 2 * odd; j++)
        vistore(sums + 8 * (rows - 1) + 4 * j, vdot_end(last, j));
}
#elif defined __ARM_FEATURE_DOTPROD
KERNEL_INLINE void dot_arm_tile(const int rows, int32_t *sums /* [rows][8] */,
                                const int8_t *a /* [n_steps][2][rows][4] */, const int8_t *b /* [n_steps][8][8] */,
                                const int32_t *start /* [rows] */, int n_steps, const void *weights, size_t ahead, size_t step)
{
    vi lo[DOT_ARM_MOST_ROWS], hi[DOT_ARM_MOST_ROWS];      /* columns 0 … 3 and 4 … 7 */
    UNROLL
    for (int r = 0; r < rows; r++)
        lo[r] = hi[r] = viset(start[r]);
    for (int k = 0; k < n_steps; k++, a += 8 * rows, b += 64, ahead += step) {
        prefetch_l2(weights, ahead);
        const int32x4_t w0 = viload(b), w1 = viload(b + 16), w2 = viload(b + 32), w3 = viload(b + 48);
        const vi first_lo = vuzp1q_s32(w0, w1), first_hi = vuzp1q_s32(w2, w3);
        const vi second_lo = vuzp2q_s32(w0, w1), second_hi = vuzp2q_s32(w2, w3);
        UNROLL
        for (int r = 0; r < rows; r++) {
            lo[r] = vdot4_row(lo[r], first_lo, a, r, rows);
            hi[r] = vdot4_row(hi[r], first_hi, a, r, rows);
        }
        UNROLL
        for (int r = 0; r < rows; r++) {
            lo[r] = vdot4_row(lo[r], second_lo, a + 4 * rows, r, rows);
            hi[r] = vdot4_row(hi[r], second_hi, a + 4 * rows, r, rows);
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        vistore(sums + r * 8, lo[r]);
        vistore(sums + r * 8 + 4, hi[r]);
    }
}
#else
/* One or two rows of a tile of `rows`: their sums are 16 vectors, each of one column. */
KERNEL_INLINE void dot_arm_rows(const int n, const int rows, int32_t *sums /* [n][8] */,
                                const int8_t *a /* [n_steps][rows][8] */, const int8_t *b /* [n_steps][8][8] */,
                                const int32_t *start /* [n] */, int n_steps, const void *weights, size_t ahead, size_t step)
{
    int32x4_t sum[2][8];
    UNROLL
    for (int i = 0; i < 16; i++)
        sum[i / 8][i % 8] = vdupq_n_s32(0);
    int k = 0;
    for (; k + 2 <= n_steps; k += 2, b += 128, ahead += 2 * step) {
        prefetch_l2(weights, ahead);
        int8x16_t x[2][2];
        UNROLL
        for (int r = 0; r < n; r++) {
            x[r][0] = (int8x16_t)vbroadcast_group(a + ((size_t)k * (size_t)rows + (size_t)r) * 8);
            x[r][1] = (int8x16_t)vbroadcast_group(a + ((size_t)(k + 1) * (size_t)rows + (size_t)r) * 8);
        }
        UNROLL
        for (int j = 0; j < 4; j++) {
            const int8x16_t v = vld1q_s8(b + 16 * j), w = vld1q_s8(b + 64 + 16 * j);
            UNROLL
            for (int r = 0; r < n; r++) {
                const int16x8_t first = vmull_s8(vget_low_s8(v), vget_low_s8(x[r][0]));
                const int16x8_t even = vmlal_s8(first, vget_low_s8(w), vget_low_s8(x[r][1]));
                const int16x8_t odd = vmlal_high_s8(vmull_high_s8(v, x[r][0]), w, x[r][1]);
                sum[r][2 * j] = vpadalq_s16(sum[r][2 * j], even);
                sum[r][2 * j + 1] = vpadalq_s16(sum[r][2 * j + 1], odd);
            }
        }
    }
    if (k < n_steps) {
        UNROLL
        for (int i = 0; i < 4 * n; i++) {
            const int8x16_t w = vld1q_s8(b + 16 * (i % 4));
            const int8x8_t x = vld1_s8(a + ((size_t)k * (size_t)rows + (size_t)(i / 4)) * 8);
            sum[i / 4][2 * (i % 4)] = vpadalq_s16(sum[i / 4][2 * (i % 4)], vmull_s8(vget_low_s8(w), x));
            sum[i / 4][2 * (i % 4) + 1] = vpadalq_s16(sum[i / 4][2 * (i % 4) + 1], vmull_s8(vget_high_s8(w), x));
        }
    }
    UNROLL
    for (int i = 0; i < 2 * n; i++) {
        const int32x4_t *of = &sum[i / 2][i % 2 * 4];
        const int32x4_t four = vpaddq_s32(vpaddq_s32(of[0], of[1]), vpaddq_s32(of[2], of[3]));
        vst1q_s32(sums + 4 * i, vaddq_s32(four, vdupq_n_s32(start[i / 2])));
    }
}

KERNEL_INLINE void dot_arm_tile(const int rows, int32_t *sums /* [rows][8] */, const int8_t *a /* [n_steps][rows][8] */,
                                const int8_t *b /* [n_steps][8][8] */, const int32_t *start /* [rows] */, int n_steps,
                                const void *weights, size_t ahead, size_t step)
{
    const size_t share = step / (size_t)((rows + 1) / 2);
    for (int r = 0; r + 2 <= rows; r += 2, ahead += share * (size_t)n_steps)
        dot_arm_rows(2, rows, sums + 8 * r, a + 8 * r, b, start + r, n_steps, weights, ahead, share);
    if (rows % 2)
        dot_arm_rows(1, rows, sums + 8 * (rows - 1), a + 8 * (rows - 1), b, start + rows - 1, n_steps, weights, ahead,
                     share);
}
#endif

#endif
#endif
