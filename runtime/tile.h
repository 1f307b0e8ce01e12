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
#define TILE_EACH(of) of(1) of(2) of(3) of(4) of(5) of(6) of(7) of(8) of(9) of(10) of(11) of(12) of(13) of(14)

/* The tile of n rows as a function of its own, by one kind's body: sums and start are `sum`s, a and b `factor`s. */
#define TILE_FUNCTION(name, n, body, sum, factor, pairs, lines)                                                       \
    static __attribute__((noinline, unused)) void name##_##n(sum *sums, const factor *a, const factor *b,             \
                                                             const sum *start, int n_steps, const void *weights,      \
                                                             size_t ahead, size_t step)                               \
    {                                                                                                                 \
        body(n, pairs, lines, TILE_ARGUMENTS);                                                                        \
    }
#define TILE_ARGUMENTS sums, a, b, start, n_steps, weights, ahead, step

/* Rows of the next tile when `left` > 0 are left of a block: the whole height, or that of one of two
 * smaller tiles, a step less and a step. */
KERNEL_INLINE int tile_height(int left, const int tile_rows, const int tail_rows)
{
    return left > tile_rows - tail_rows ? tile_rows : left > tail_rows ? tile_rows - tail_rows : tail_rows;
}

/* Where in `slots` an expert's pairs from `pair` on begin: they ascend. */
KERNEL_INLINE int slots_before(const int32_t *slots, const int32_t *offsets /* [2]: the expert's, its end */, int pair)
{
    int low = offsets[0], high = offsets[1];
    while (low < high) {
        const int middle = (low + high) / 2;
        if (slots[middle] < pair)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Elements of a row that lie together in packed rows: [n_steps][rows], or, in lines, [n_steps / 16][rows][16]. */
enum { TILE_LINE = 16 };

/* Packed elements of a row of n_steps. */
KERNEL_INLINE int tile_row_len(int n_steps, const int lines)
{
    return lines ? (n_steps + TILE_LINE - 1) / TILE_LINE * TILE_LINE : n_steps;
}

/* Rows of words of four bytes in lines: each line of a row is copied as it is. */
KERNEL_INLINE void tile_pack_lines(int8_t *tile /* [n_words / 16][rows][16][4] */, const int8_t *const *from /* [rows] */,
                                   int rows, int n_words)
{
    const size_t line_len = 4 * TILE_LINE;
    for (int r = 0; r < rows; r++) {
        int8_t *to = tile + (size_t)r * line_len;
        const int8_t *words = from[r];
        int left = n_words;
        for (; left >= TILE_LINE; left -= TILE_LINE, to += (size_t)rows * line_len, words += line_len)
            memcpy(to, words, line_len);
        if (left > 0)
            memcpy(to, words, (size_t)left * 4);
    }
}

/* sums [rows][2 LANES] = start [2 LANES] (NULL: zeros; sums: what is there) + Σ_k a [n_steps][rows] b [n_steps][2 LANES].
 * With `pairs`, a constant, an element is two bf16 and a step two k, on 64-bit ARM twice that; with `lines`, another,
 * `a` is in lines. `b` is of `dtype`, a constant; what is narrower than float32 is left widened in `wide` for the tiles
 * that follow. Meanwhile `step` bytes a step are fetched from `ahead` on. 64-bit ARM's pairs know no lines and begin
 * at `start` only. */
KERNEL_INLINE void tile_steps(const int rows, const int pairs, const int lines, const int dtype, float *sums,
                              const float *a, const float *b, const float *start, int n_steps, const void *weights,
                              size_t ahead, size_t step, float *wide)
{
#if defined __aarch64__
    if (pairs) {
        bf16_arm_tile(rows, sums, (const int8_t *)a, (const int8_t *)b, start, n_steps, weights, ahead, step);
        return;
    }
#endif
    const int apart = lines ? TILE_LINE : 1, on = lines ? 1 : rows;      /* elements to the next row and step */
    const int widens = dtype == WEIGHT_BF16 || dtype == WEIGHT_F16;
    const int resumes = start == sums;
    const vf start_lo = start ? vload(start) : vset(0), start_hi = start ? vload(start + LANES) : vset(0);
    /* Of constant length: the compiler keeps no array of parameter length in registers. */
    vf lo[TILE_MOST_ROWS], hi[TILE_MOST_ROWS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        lo[r] = resumes ? vload(sums + r * 2 * LANES) : start_lo;
        hi[r] = resumes ? vload(sums + r * 2 * LANES + LANES) : start_hi;
    }
    for (int k = 0; k < n_steps; a += lines ? (rows - 1) * TILE_LINE : 0) {
        const int end = lines && n_steps - k > TILE_LINE ? k + TILE_LINE : n_steps;
        for (; k < end; k++, a += on, b += widens ? LANES : 2 * LANES, ahead += step) {
            if (pairs)
                prefetch_l2(weights, ahead);
            else
                prefetch(weights, ahead);
            const vf b_lo = vload_weight(b, 0, dtype), b_hi = vload_weight(b, LANES, dtype);
            if (widens) {
                vstore(wide, b_lo);
                vstore(wide + LANES, b_hi);
                wide += 2 * LANES;
            }
            UNROLL
            for (int r = 0; r < rows; r++) {
#if defined __aarch64__
                if (!lines) {
                    lo[r] = vfma_lane(lo[r], b_lo, a, r, rows);
                    hi[r] = vfma_lane(hi[r], b_hi, a, r, rows);
                    continue;
                }
#endif
                const float *at = a + r * apart;
                const vf x = pairs ? (vf)vbroadcast4((const int8_t *)at) : vbroadcast(at);
                lo[r] = pairs ? vdot_bf16(lo[r], (vi)b_lo, (vi)x) : vfma(x, b_lo, lo[r]);
                hi[r] = pairs ? vdot_bf16(hi[r], (vi)b_hi, (vi)x) : vfma(x, b_hi, hi[r]);
            }
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        vstore(sums + r * 2 * LANES, lo[r]);
        vstore(sums + r * 2 * LANES + LANES, hi[r]);
    }
}

/* Without anything to widen. */
KERNEL_INLINE void tile_body(const int rows, const int pairs, const int lines, float *sums, const float *a, const float *b,
                             const float *start, int n_steps, const void *weights, size_t ahead, size_t step)
{
    tile_steps(rows, pairs, lines, WEIGHT_F32, TILE_ARGUMENTS, NULL);
}

#define WIDENING_TILE(name, n, dtype, lines)                                                                          \
    static __attribute__((noinline, unused)) void name##_##n(float *sums, const float *a, const float *b,             \
                                                             const float *start, int n_steps, const void *weights,    \
                                                             size_t ahead, size_t step, float *wide)                  \
    {                                                                                                                 \
        tile_steps(n, 0, lines, dtype, TILE_ARGUMENTS, wide);                                                         \
    }
#define TILES(n)                                                                                                      \
    TILE_FUNCTION(tile, n, tile_body, float, float, 0, 0)                                                             \
    TILE_FUNCTION(bf16_tile, n, tile_body, float, float, 1, 0)                                                        \
    TILE_FUNCTION(line_tile, n, tile_body, float, float, 0, 1)                                                        \
    TILE_FUNCTION(bf16_line_tile, n, tile_body, float, float, 1, 1)                                                   \
    WIDENING_TILE(tile_of_bf16, n, WEIGHT_BF16, 0)                                                                    \
    WIDENING_TILE(line_tile_of_bf16, n, WEIGHT_BF16, 1)                                                               \
    WIDENING_TILE(tile_of_f16, n, WEIGHT_F16, 0)                                                                      \
    WIDENING_TILE(line_tile_of_f16, n, WEIGHT_F16, 1)                                                                 \
    static __attribute__((noinline, unused)) void f16_tile_##n(float *sums, const float *a, const float *b, int n_in, \
                                                               const void *weights, size_t ahead, size_t step)        \
    {                                                                                                                 \
        f16_arm_tile(n, sums, a, b, n_in, weights, ahead, step);                                                      \
    }
TILE_EACH(TILES)
#undef TILES
#undef WIDENING_TILE

/* The tile of a constant number of rows, 1 to 14, with weights stored as `dtype`: n steps of k, or, where sums are f16,
 * n values, and no start. What is narrower than float32 comes as float32, or, with `wide`, as it is stored, and is left
 * there as float32. */
KERNEL_INLINE void product_tile(const int rows, const int dtype, const int lines, float *wide, float *sums,
                                const float *a, const float *b, const float *start, int n_steps, const void *weights,
                                size_t ahead, size_t step)
{
#define TILE(n)                                                                           \
    case n:                                                                               \
        if (dtype == WEIGHT_BF16_PAIRS)                                                   \
            lines ? bf16_line_tile_##n(TILE_ARGUMENTS) : bf16_tile_##n(TILE_ARGUMENTS);   \
        else if (dtype == WEIGHT_F16_ROWS)                                                \
            f16_tile_##n(sums, a, b, n_steps, weights, ahead, step);                      \
        else if (wide && dtype == WEIGHT_BF16)                                            \
            lines ? line_tile_of_bf16_##n(TILE_ARGUMENTS, wide) : tile_of_bf16_##n(TILE_ARGUMENTS, wide); \
        else if (wide)                                                                    \
            lines ? line_tile_of_f16_##n(TILE_ARGUMENTS, wide) : tile_of_f16_##n(TILE_ARGUMENTS, wide); \
        else                                                                              \
            lines ? line_tile_##n(TILE_ARGUMENTS) : tile_##n(TILE_ARGUMENTS);             \
        break;
    switch (rows) {
        TILE_EACH(TILE)
    default: __builtin_unreachable();
    }
#undef TILE
}

/* The activations of a tile as it reads them: int8, or bf16 by groups of as many bytes. */
KERNEL_INLINE void dot_tile_pack(int8_t *tile /* [n_groups][rows][DOT_GROUP] */, const int8_t *const *from /* [rows] */,
                                 const int rows, const int lines, int n_groups)
{
#if DOT_GROUP == 8
    (void)lines;
    dot_arm_pack(tile, from, rows, n_groups);
#else
    if (lines)
        tile_pack_lines(tile, from, rows, n_groups);
    else
        dot_pack(tile, from, rows, n_groups);
#endif
}

/* sums [rows][2 LANES] = start [rows] + Σ_k a [n_groups][rows][DOT_GROUP] b [n_groups][2 LANES][DOT_GROUP],
 * DOT_GROUP k a group, `a` perhaps in lines; meanwhile `step` bytes a group are fetched from `ahead` on. */
KERNEL_INLINE void dot_tile_body(const int rows, const int by_pairs, const int lines, int32_t *sums, const int8_t *a,
                                 const int8_t *b, const int32_t *start, int n_groups, const void *weights, size_t ahead,
                                 size_t step)
{
#if DOT_GROUP == 8
    (void)by_pairs, (void)lines;
    dot_arm_tile(rows, sums, a, b, start, n_groups, weights, ahead, step);
#else
    /* Bytes to the next row, and to the next group. */
    const int apart = lines ? 4 * TILE_LINE : 4, on = lines ? 4 : 4 * rows;
    vi lo[TILE_MOST_ROWS], hi[TILE_MOST_ROWS];
    UNROLL
    for (int r = 0; r < rows; r++)
        lo[r] = hi[r] = viset(start[r]);
    for (int g = 0; g < n_groups; a += lines ? 4 * (rows - 1) * TILE_LINE : 0) {
        const int end = lines && n_groups - g > TILE_LINE ? g + TILE_LINE : n_groups;
        for (; by_pairs && g < end; g += 2, a += 2 * on, b += 16 * LANES, ahead += 2 * step) {
            prefetch_l2(weights, ahead);
            prefetch_l2(weights, ahead + step);
            const vi b_lo = viload(b), b_hi = viload(b + 4 * LANES), c_lo = viload(b + 8 * LANES), c_hi = viload(b + 12 * LANES);
            UNROLL
            for (int r = 0; r < rows; r++) {
                const vi x = vbroadcast4(a + r * apart), y = vbroadcast4(a + r * apart + on);
                lo[r] = vdot4_twice(lo[r], b_lo, c_lo, x, y);
                hi[r] = vdot4_twice(hi[r], b_hi, c_hi, x, y);
            }
        }
        for (; g < end; g++, a += on, b += 8 * LANES, ahead += step) {
            prefetch_l2(weights, ahead);          /* a step of few rows is two lines */
            prefetch_l2(weights, ahead + step / 2);
            const vi b_lo = viload(b), b_hi = viload(b + 4 * LANES);
            UNROLL
            for (int r = 0; r < rows; r++) {
                lo[r] = lines ? vdot4(lo[r], b_lo, vbroadcast4(a + r * apart)) : vdot4_row(lo[r], b_lo, a, r, rows);
                hi[r] = lines ? vdot4(hi[r], b_hi, vbroadcast4(a + r * apart)) : vdot4_row(hi[r], b_hi, a, r, rows);
            }
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        vistore(sums + r * 2 * LANES, lo[r]);
        vistore(sums + r * 2 * LANES + LANES, hi[r]);
    }
#endif
}

#define TILES(n)                                                                                                      \
    TILE_FUNCTION(dot_tile, n, dot_tile_body, int32_t, int8_t, 0, 0)                                                  \
    TILE_FUNCTION(pair_tile, n, dot_tile_body, int32_t, int8_t, 1, 0)                                                 \
    TILE_FUNCTION(dot_line_tile, n, dot_tile_body, int32_t, int8_t, 0, 1)                                             \
    TILE_FUNCTION(pair_line_tile, n, dot_tile_body, int32_t, int8_t, 1, 1)
TILE_EACH(TILES)
#undef TILES
#undef TILE_FUNCTION

/* The same of a constant number of rows, 1 to 14; nibbles, a constant too, come in an even number of groups. */
KERNEL_INLINE void dot_tile(const int rows, const int nibbles, const int lines, int32_t *sums, const int8_t *a,
                            const int8_t *b, const int32_t *start, int n_steps, const void *weights, size_t ahead,
                            size_t step)
{
#define TILE(n)                                                                           \
    case n:                                                                               \
        if (DOT_BY_PAIRS && nibbles)                                                      \
            lines ? pair_line_tile_##n(TILE_ARGUMENTS) : pair_tile_##n(TILE_ARGUMENTS);   \
        else                                                                              \
            lines ? dot_line_tile_##n(TILE_ARGUMENTS) : dot_tile_##n(TILE_ARGUMENTS);     \
        break;
    switch (rows) {
        TILE_EACH(TILE)
    default: __builtin_unreachable();
    }
#undef TILE
#undef TILE_ARGUMENTS
#undef TILE_EACH
}

#endif
