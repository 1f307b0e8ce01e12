/* The register tile of products: rows x 2 vectors of sums over k, each one chain from its start.
 *
 * Every gemm of a program calls the same tiles, whatever its sizes, so that they are unrolled and
 * compiled once and not once a shape: half of a small model's compile time otherwise. A tile that is
 * not called costs nothing. No state, no allocation.
 */
#ifndef MOSS_TILE_H
#define MOSS_TILE_H

#include "dot.h"
#include "bf16_arm.h"
#include "dot_arm.h"
#include "f16_arm.h"
#include "simd.h"

enum { TILE_MOST_ROWS = 14 };

/* Rows of the next tile when `left` > 0 are left of a block: the whole height, or that of one of two
 * smaller tiles, a step less and a step. */
KERNEL_INLINE int tile_height(int left, const int tile_rows, const int tail_rows)
{
    return left > tile_rows - tail_rows ? tile_rows : left > tail_rows ? tile_rows - tail_rows : tail_rows;
}

/* sums [rows][2 LANES] = start [2 LANES] (NULL: zeros) + Σ_k a [n_steps][rows] b [n_steps][2 LANES]; with `pairs`,
 * a constant, an element is two bf16 and a step two k, on 64-bit ARM twice that. Meanwhile `step` bytes a step are
 * fetched from `ahead` on. */
KERNEL_INLINE void tile_body(const int rows, const int pairs, float *sums, const float *a, const float *b, const float *start,
                             int n_steps, const void *weights, size_t ahead, size_t step)
{
#if defined __aarch64__
    if (pairs) {
        bf16_arm_tile(rows, sums, (const int8_t *)a, (const int8_t *)b, start, n_steps, weights, ahead, step);
        return;
    }
#endif
    const vf start_lo = start ? vload(start) : vset(0), start_hi = start ? vload(start + LANES) : vset(0);
    /* Of constant length: the compiler keeps no array of parameter length in registers. */
    vf lo[TILE_MOST_ROWS], hi[TILE_MOST_ROWS];
    UNROLL
    for (int r = 0; r < rows; r++)
        lo[r] = start_lo, hi[r] = start_hi;
    for (int k = 0; k < n_steps; k++, a += rows, b += 2 * LANES, ahead += step) {
        if (pairs)
            prefetch_l2(weights, ahead);
        else
            prefetch(weights, ahead);
        const vf b_lo = vload(b), b_hi = vload(b + LANES);
        UNROLL
        for (int r = 0; r < rows; r++) {
#if defined __aarch64__
            lo[r] = vfma_lane(lo[r], b_lo, a, r, rows);
            hi[r] = vfma_lane(hi[r], b_hi, a, r, rows);
#else
            const vf x = pairs ? (vf)vbroadcast4((const int8_t *)(a + r)) : vbroadcast(a + r);
            lo[r] = pairs ? vdot_bf16(lo[r], (vi)b_lo, (vi)x) : vfma(x, b_lo, lo[r]);
            hi[r] = pairs ? vdot_bf16(hi[r], (vi)b_hi, (vi)x) : vfma(x, b_hi, hi[r]);
#endif
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        vstore(sums + r * 2 * LANES, lo[r]);
        vstore(sums + r * 2 * LANES + LANES, hi[r]);
    }
}

#define TILE(n)                                                                                             \
    static __attribute__((noinline, unused)) void tile_##n(float *sums, const float *a, const float *b,     \
                                                           const float *start, int n_steps, const void *weights, \
                                                           size_t ahead, size_t step)                       \
    {                                                                                                       \
        tile_body(n, 0, sums, a, b, start, n_steps, weights, ahead, step);                                  \
    }                                                                                                       \
    static __attribute__((noinline, unused)) void bf16_tile_##n(float *sums, const float *a, const float *b, \
                                                                const float *start, int n_steps,            \
                                                                const void *weights, size_t ahead, size_t step) \
    {                                                                                                       \
        tile_body(n, 1, sums, a, b, start, n_steps, weights, ahead, step);                                  \
    }                                                                                                       \
    static __attribute__((noinline, unused)) void f16_tile_##n(float *sums, const float *a, const float *b, int n_in, \
                                                               const void *weights, size_t ahead, size_t step) \
    {                                                                                                       \
        f16_arm_tile(n, sums, a, b, n_in, weights, ahead, step);                                            \
    }
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
#undef TILE

/* The tile of a constant number of rows, 1 to 14, with weights stored as `dtype`; f16 sums have no start. */
KERNEL_INLINE void product_tile(const int rows, const int dtype, float *sums, const float *a, const float *b,
                                const float *start, int n_in, const void *weights, size_t ahead, size_t step)
{
    const int n_steps = k_steps(n_in, dtype);
#define TILE(n)                                                                \
    case n:                                                                    \
        if (dtype == WEIGHT_BF16_PAIRS)                                        \
            bf16_tile_##n(sums, a, b, start, n_steps, weights, ahead, step);   \
        else if (dtype == WEIGHT_F16_ROWS)                                     \
            f16_tile_##n(sums, a, b, n_in, weights, ahead, step);              \
        else                                                                   \
            tile_##n(sums, a, b, start, n_steps, weights, ahead, step);        \
        break;
    switch (rows) {
        TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
    default: __builtin_unreachable();
    }
#undef TILE
}

/* The activations of a tile as it reads them: int8, or bf16 by groups of as many bytes. */
KERNEL_INLINE void dot_tile_pack(int8_t *tile /* [n_groups][rows][DOT_GROUP] */, const int8_t *const *from /* [rows] */,
                                 const int rows, int n_groups)
{
#if DOT_GROUP == 8
    dot_arm_pack(tile, from, rows, n_groups);
#else
    dot_pack(tile, from, rows, n_groups);
#endif
}

/* sums [rows][2 LANES] = start [rows] + Σ_k a [n_groups][rows][DOT_GROUP] b [n_groups][2 LANES][DOT_GROUP],
 * DOT_GROUP k a group; meanwhile `step` bytes a group are fetched from `ahead` on. */
KERNEL_INLINE void dot_tile_body(const int rows, const int by_pairs, int32_t *sums, const int8_t *a, const int8_t *b,
                                 const int32_t *start, int n_groups, const void *weights, size_t ahead, size_t step)
{
#if DOT_GROUP == 8
    (void)by_pairs;
    dot_arm_tile(rows, sums, a, b, start, n_groups, weights, ahead, step);
#else
    vi lo[TILE_MOST_ROWS], hi[TILE_MOST_ROWS];
    UNROLL
    for (int r = 0; r < rows; r++)
        lo[r] = hi[r] = viset(start[r]);
    for (int g = 0; by_pairs && g < n_groups; g += 2, a += 8 * rows, b += 16 * LANES, ahead += 2 * step) {
        prefetch_l2(weights, ahead);
        prefetch_l2(weights, ahead + step);
        const vi b_lo = viload(b), b_hi = viload(b + 4 * LANES), c_lo = viload(b + 8 * LANES), c_hi = viload(b + 12 * LANES);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const vi x = vbroadcast4(a + 4 * r), y = vbroadcast4(a + 4 * (rows + r));
            lo[r] = vdot4_twice(lo[r], b_lo, c_lo, x, y);
            hi[r] = vdot4_twice(hi[r], b_hi, c_hi, x, y);
        }
    }
    for (int g = 0; !by_pairs && g < n_groups; g++, a += 4 * rows, b += 8 * LANES, ahead += step) {
        prefetch_l2(weights, ahead);          /* a step of few rows is two lines */
        prefetch_l2(weights, ahead + step / 2);
        const vi b_lo = viload(b), b_hi = viload(b + 4 * LANES);
        UNROLL
        for (int r = 0; r < rows; r++) {
            lo[r] = vdot4_row(lo[r], b_lo, a, r, rows);
            hi[r] = vdot4_row(hi[r], b_hi, a, r, rows);
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        vistore(sums + r * 2 * LANES, lo[r]);
        vistore(sums + r * 2 * LANES + LANES, hi[r]);
    }
#endif
}

#define TILE(n)                                                                                             \
    static __attribute__((noinline, unused)) void dot_tile_##n(int32_t *sums, const int8_t *a, const int8_t *b, \
                                                               const int32_t *start, int n_groups,          \
                                                               const void *weights, size_t ahead, size_t step) \
    {                                                                                                       \
        dot_tile_body(n, 0, sums, a, b, start, n_groups, weights, ahead, step);                             \
    }                                                                                                       \
    static __attribute__((noinline, unused)) void pair_tile_##n(int32_t *sums, const int8_t *a, const int8_t *b, \
                                                                const int32_t *start, int n_groups,         \
                                                                const void *weights, size_t ahead, size_t step) \
    {                                                                                                       \
        dot_tile_body(n, 1, sums, a, b, start, n_groups, weights, ahead, step);                             \
    }
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
#undef TILE

/* The same of a constant number of rows, 1 to 14; nibbles, a constant too, come in an even number of groups. */
KERNEL_INLINE void dot_tile(const int rows, const int nibbles, int32_t *sums, const int8_t *a, const int8_t *b,
                            const int32_t *start, int n_groups, const void *weights, size_t ahead, size_t step)
{
#define TILE(n)                                                                       \
    case n:                                                                           \
        if (DOT_BY_PAIRS && nibbles)                                                  \
            pair_tile_##n(sums, a, b, start, n_groups, weights, ahead, step);         \
        else                                                                          \
            dot_tile_##n(sums, a, b, start, n_groups, weights, ahead, step);          \
        break;
    switch (rows) {
        TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
    default: __builtin_unreachable();
    }
#undef TILE
}

#endif
