/* The register tile of quantised products on 64-bit ARM: rows of activations with one panel of 8 columns.
 *
 * Input: the panel's rows as stored, [8][8] bytes a step of eight k, and activations as dot_arm_pack
 * leaves them. Output: int32 sums [rows][8], exact. Where the CPU multiplies 2 x 8 with 8 x 2 bytes
 * (i8mm), two rows and two columns share an instruction; elsewhere two rows of four columns by four k
 * come out of two stored vectors, and an instruction takes one activation row's four bytes from a lane.
 */
#ifndef MOSS_DOT_ARM_H
#define MOSS_DOT_ARM_H

#include "dot.h"

#if defined __aarch64__

enum { DOT_ARM_MOST_PAIRS = 7 };

#if defined __ARM_FEATURE_MATMUL_INT8
/* Rows by pairs, each step's eight k: [n_steps][rows][8]; rows is even. */
KERNEL_INLINE void dot_arm_pack(int8_t *tile /* [n_steps][rows][8] */, const int8_t *const *from /* [rows] */,
                                const int rows, int n_steps)
{
    for (int r = 0; r < rows; r += 2) {
        int8_t *to = tile + 8 * r;
        int k = 0;
        for (; k + 2 <= n_steps; k += 2) {
            const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(from[r] + 8 * k));
            const int64x2_t b = vreinterpretq_s64_s8(vld1q_s8(from[r + 1] + 8 * k));
            vst1q_s8(to + 8 * rows * (size_t)k, vreinterpretq_s8_s64(vzip1q_s64(a, b)));
            vst1q_s8(to + 8 * rows * (size_t)(k + 1), vreinterpretq_s8_s64(vzip2q_s64(a, b)));
        }
        if (k < n_steps)
            vst1q_s8(to + 8 * rows * (size_t)k, vcombine_s8(vld1_s8(from[r] + 8 * k), vld1_s8(from[r + 1] + 8 * k)));
    }
}

KERNEL_INLINE void dot_arm_tile(const int rows, const int nibbles, int32_t *sums /* [rows][8] */,
                                const int8_t *a /* [n_steps][rows][8] */, const int8_t *b /* [n_steps][8][8] */,
                                const int32_t *start /* [rows] */, int n_steps, const void *weights, size_t ahead, size_t step)
{
    const int pairs = rows / 2;
    int32x4_t sum[DOT_ARM_MOST_PAIRS][4];   /* [row pair][column pair] of [2][2] */
    (void)nibbles;
    UNROLL
    for (int p = 0; p < pairs; p++) {
        const int32x4_t both = vcombine_s32(vdup_n_s32(start[2 * p]), vdup_n_s32(start[2 * p + 1]));
        UNROLL
        for (int j = 0; j < 4; j++)
            sum[p][j] = both;
    }
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
}
#else
/* Each step as two groups of four k: [n_steps][2][rows][4]. */
KERNEL_INLINE void dot_arm_pack(int8_t *tile /* [n_steps][2][rows][4] */, const int8_t *const *from /* [rows] */,
                                const int rows, int n_steps)
{
    dot_pack(tile, from, rows, 2 * n_steps);
}

KERNEL_INLINE void dot_arm_tile(const int rows, const int nibbles, int32_t *sums /* [rows][8] */,
                                const int8_t *a /* [n_steps][2][rows][4] */, const int8_t *b /* [n_steps][8][8] */,
                                const int32_t *start /* [rows] */, int n_steps, const void *weights, size_t ahead, size_t step)
{
    vi lo[2 * DOT_ARM_MOST_PAIRS], hi[2 * DOT_ARM_MOST_PAIRS];      /* columns 0 … 3 and 4 … 7 */
    (void)nibbles;
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
#endif

#endif
#endif
