/* The register tile of bf16 products on 64-bit ARM: rows rounded to bf16 with one panel of 8 columns.
 *
 * Input: the panel as stored, [8][4] a step of four k, and rows as dot_arm_pack leaves them, eight bytes a step.
 * Output: float32 sums [rows][8]. The instruction takes two rows and two columns at once; an element's chain is the
 * same with any other row beside it, so of an odd row there are two, and gemv's is not another.
 */
#ifndef MOSS_BF16_ARM_H
#define MOSS_BF16_ARM_H

#include "dot.h"

#if defined __aarch64__

enum { BF16_ARM_MOST_ROWS = 14 };

KERNEL_INLINE void bf16_arm_tile(const int rows, float *sums /* [rows][8] */,
                                 const int8_t *a /* [n_steps][rows][4] bf16 */,
                                 const int8_t *b /* [n_steps][8][4] bf16 */, const float *start /* [8] or NULL */,
                                 int n_steps, const void *weights, size_t ahead, size_t step)
{
    const int pairs = (rows + 1) / 2, whole = rows / 2;
    vf sum[BF16_ARM_MOST_ROWS / 2][4];          /* [row pair][column pair] of [2][2] */
    UNROLL
    for (int i = 0; i < 4 * pairs; i++)
        sum[i / 4][i % 4] = start ? vstep_begin(start, i % 4, WEIGHT_BF16_PAIRS) : vset(0);
    for (int k = 0; k < n_steps; k++, a += 8 * rows, b += 64, ahead += step) {
        prefetch_l2(weights, ahead);
        vi w[4];
        UNROLL
        for (int j = 0; j < 4; j++)
            w[j] = viload(b + 16 * j);
        UNROLL
        for (int p = 0; p < pairs; p++) {
            const vi x = p < whole ? viload(a + 16 * p) : vbroadcast_group(a + 16 * p);
            UNROLL
            for (int j = 0; j < 4; j++)
                sum[p][j] = vdot_bf16(sum[p][j], w[j], x);
        }
    }
    UNROLL
    for (int p = 0; p < pairs; p++) {
        UNROLL
        for (int j = 0; j < 2; j++) {
            const float64x2_t x = (float64x2_t)sum[p][2 * j], y = (float64x2_t)sum[p][2 * j + 1];
            vstore(sums + 16 * p + 4 * j, (vf)vzip1q_f64(x, y));
            if (p < whole)
                vstore(sums + 16 * p + 8 + 4 * j, (vf)vzip2q_f64(x, y));
        }
    }
}

#endif
#endif
