/* The vector dialect for 8-bit and 4-bit weights: products of bytes, four at a time, in 32-bit sums.
 *
 * A quantised matrix is stored by panels of 2 LANES columns: the columns' float32 scales, then rows
 * of [2 LANES][G] bytes, G = DOT_GROUP. A q8 row holds k = Gr … Gr+G-1 of each column, as q +
 * DOT_OFFSET; a q4 row holds 2Gr … 2Gr+2G-1, byte j = (q of 2Gr+j) + 8 below, (q of 2Gr+G+j) + 8 above;
 * k is padded up to a whole row. A quantised activation row is int8 q, zero up to a multiple of 64,
 * then float32 scale and int32 Σ q. All sums are exact, so their order is free. |activation| <= 127
 * and |signed weight| <= 127, which saves AVX2 from saturating.
 */
#ifndef MOSS_DOT_H
#define MOSS_DOT_H

#include "simd.h"

/* What stored q8 weights have added: 128 where the dot instruction takes them unsigned. */
#if (LANES == 16 && defined __AVX512VNNI__) || (LANES == 8 && defined __AVXVNNI__)
#define DOT_OFFSET 128
#else
#define DOT_OFFSET 0
#endif

/* k of a column that lie together: what the product instructions take. All of 64-bit ARM has one layout. */
#if defined __aarch64__
#define DOT_GROUP 8
#else
#define DOT_GROUP 4
#endif

/* ---- lengths ---- */

/* Rows of a panel, the scales not counted. */
KERNEL_INLINE int dot_rows(int n_in, int dtype)
{
    const int n_k = dtype == WEIGHT_Q4 ? 2 * DOT_GROUP : DOT_GROUP;
    return (n_in + n_k - 1) / n_k;
}

/* Groups of k that a tile multiplies, of the unpacked bytes: nibbles are unpacked to whole eights. */
KERNEL_INLINE int dot_steps(int n_in, int dtype)
{
    return dtype == WEIGHT_Q4 ? (n_in + 7) / 8 * (8 / DOT_GROUP) : dot_rows(n_in, dtype);
}

/* Bytes of a panel's row, and of a panel. */
KERNEL_INLINE size_t dot_row_len(int panel) { return (size_t)panel * DOT_GROUP; }

KERNEL_INLINE size_t dot_panel_len(int n_in, int panel, int dtype)
{
    return (size_t)panel * 4 + (size_t)dot_rows(n_in, dtype) * dot_row_len(panel);
}

/* What every stored weight has too much. */
KERNEL_INLINE int32_t dot_offset(int dtype) { return dtype == WEIGHT_Q4 ? 8 : DOT_OFFSET; }

/* Of a quantised activation row of n values. */
KERNEL_INLINE size_t dot_data_len(int n) { return ((size_t)n + 63) / 64 * 64; }

KERNEL_INLINE float dot_row_scale(const int8_t *row /* [dot_data_len(n) + 64] */, int n)
{
    float scale;
    memcpy(&scale, row + dot_data_len(n), sizeof scale);
    return scale;
}

KERNEL_INLINE int32_t dot_row_sum(const int8_t *row /* [dot_data_len(n) + 64] */, int n)
{
    int32_t sum;
    memcpy(&sum, row + dot_data_len(n) + sizeof(float), sizeof sum);
    return sum;
}

/* Weight k of a column of a panel, as a number. */
KERNEL_INLINE float dot_weight(const uint8_t *of /* panel */, int column, int k, int panel, int dtype)
{
    const uint8_t *data = of + (size_t)panel * 4;
    float scale;
    memcpy(&scale, of + (size_t)column * 4, sizeof scale);
    const int row = k / (dtype == WEIGHT_Q4 ? 2 * DOT_GROUP : DOT_GROUP);
    const uint8_t byte = data[((size_t)row * (size_t)panel + (size_t)column) * DOT_GROUP + (size_t)(k % DOT_GROUP)];
    if (dtype == WEIGHT_Q4)
        return (float)((k % (2 * DOT_GROUP) < DOT_GROUP ? byte & 15 : byte >> 4) - 8) * scale;
    return (float)(DOT_OFFSET ? byte - DOT_OFFSET : (int8_t)byte) * scale;
}

/* ---- vectors ---- */

KERNEL_INLINE vi viload(const void *p /* [4 * LANES] bytes */) { return *(const vi_unaligned *)p; }
KERNEL_INLINE void vistore(void *p /* [4 * LANES] bytes */, vi a) { *(vi_unaligned *)p = a; }
KERNEL_INLINE vf vfloat(vi a) { return __builtin_convertvector(a, vf); }

/* Four bytes in every lane; kept in a register, as by vbroadcast. */
KERNEL_INLINE vi vbroadcast4(const int8_t *p /* [4] */)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    vi a = viset(four);
#if LANES == 16 && !defined __clang__
    __asm__("" : "+v"(a));
#endif
    return a;
}

KERNEL_INLINE vi vimax(vi a, vi b)
{
#if LANES == 16
    return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b);
#elif LANES == 8
    return (vi)_mm256_max_epi32((__m256i)a, (__m256i)b);
#elif defined __aarch64__
    return vmaxq_s32(a, b);
#else
    const vi mask = a > b;
    return (a & mask) | (b & ~mask);
#endif
}

/* a / b correctly rounded, as by the far slower division: from a quotient within an ulp, one step
 * with the rounded inverse 1 / b gives the rounded one (Markstein), and a first step leads within
 * that ulp. b is in (2^-60, 2^60); where |a / b| < 1/4 the residue may underflow and only |result| <
 * 1/2 is sure. */
KERNEL_INLINE vf vquotient(vf a, float b, float inverse)
{
    vf q = a * inverse;
    q = vfma(vfma(-q, vset(b), a), vset(inverse), q);
    return vfma(vfma(-q, vset(b), a), vset(inverse), q);
}

/* The low and the high nibbles of every byte. */
KERNEL_INLINE vi vnibbles_lo(vi a) { return a & 0x0F0F0F0F; }
KERNEL_INLINE vi vnibbles_hi(vi a)
{
#if defined __aarch64__
    return (vi)vshrq_n_u8((uint8x16_t)a, 4);
#else
    return a >> 4 & 0x0F0F0F0F;
#endif
}

/* Nibbles of a panel as bytes, both with the same offset. */
KERNEL_INLINE void dot_unpack(int8_t *to /* [n_groups][panel][DOT_GROUP] */,
                              const int8_t *from /* [(n_groups + 1) / 2][panel][DOT_GROUP] */, int n_groups, const int panel)
{
    const size_t row_len = dot_row_len(panel);
    for (int g = 0; g < n_groups; g += 2, to += 2 * row_len, from += row_len)
        for (size_t j = 0; j < row_len; j += 4 * LANES) {
            const vi both = viload(from + j);
            vistore(to + j, vnibbles_lo(both));
            if (DOT_GROUP == 4 || g + 1 < n_groups)
                vistore(to + j + row_len, vnibbles_hi(both));
        }
}

/* The lanes, each in [-128, 127], as bytes. */
KERNEL_INLINE void vstore_bytes(int8_t *p /* [LANES] */, vi a)
{
#if LANES == 16
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8((__m512i)a));
#elif LANES == 8
    const __m128i half = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)a), _mm256_extracti128_si256((__m256i)a, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packs_epi16(half, half));
#elif defined __aarch64__
    const int16x4_t half = vmovn_s32(a);
    const int32_t four = vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(half, half))), 0);
    memcpy(p, &four, sizeof four);
#else
    for (int i = 0; i < LANES; i++)
        p[i] = (int8_t)a[i];
#endif
}

/* Lane by lane, sum + Σ of four products of a stored weight (q8 or nibbles) with an activation. */
KERNEL_INLINE vi vdot4(vi sum, vi weights, vi activations)
{
#if LANES == 16 && DOT_OFFSET
    return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, (__m512i)activations);
#elif LANES == 8 && DOT_OFFSET
    return (vi)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)weights, (__m256i)activations);
#elif LANES == 16 && defined __AVX512BW__
    /* |w| times x with the sign of w: at most 2 * 127 * 127 in 16 bits, which does not saturate. */
    const __m512i w = (__m512i)weights, x = (__m512i)activations;
    const __m512i flipped = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
    const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w), flipped);
    return sum + (vi)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif LANES == 8
    const __m256i w = (__m256i)weights, x = (__m256i)activations;
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return sum + (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#elif defined __aarch64__ && defined __ARM_FEATURE_DOTPROD
    return vdotq_s32(sum, (int8x16_t)weights, (int8x16_t)activations);
#elif defined __aarch64__
    const int8x16_t w = (int8x16_t)weights, x = (int8x16_t)activations;
    const int16x8_t lo = vmull_s8(vget_low_s8(w), vget_low_s8(x)), hi = vmull_high_s8(w, x);
    return vpadalq_s16(sum, vpaddq_s16(lo, hi));
#else
    int8_t w[4 * LANES], x[4 * LANES];
    memcpy(w, &weights, sizeof w);
    memcpy(x, &activations, sizeof x);
    for (int i = 0; i < 4 * LANES; i++)
        sum[i / 4] += w[i] * x[i];
    return sum;
#endif
}

/* ---- a row of activations with a panel's vectors of weights, as stored ---- */

/* Vectors of a panel's row; as many, or half as many, are the vectors of its columns. */
#define DOT_VECTORS (DOT_GROUP / 2)

/* One group of k in every column's place. */
KERNEL_INLINE vi vbroadcast_group(const int8_t *p /* [DOT_GROUP] */)
{
#if DOT_GROUP == 8
    return (vi)vreinterpretq_s32_s8(vcombine_s8(vld1_s8(p), vld1_s8(p)));
#else
    return vbroadcast4(p);
#endif
}

/* Sums of columns begin at `start`: one lane of each column. */
KERNEL_INLINE vi vdot_begin(int32_t start)
{
#if DOT_GROUP == 8
    return (vi){ start, 0, start, 0 };
#else
    return viset(start);
#endif
}

/* Vector j of the columns, from the sums of all vectors of rows: one lane a column. */
KERNEL_INLINE vi vdot_end(const vi *sums, const int j)
{
#if DOT_GROUP == 8
    return vpaddq_s32(sums[2 * j], sums[2 * j + 1]);
#else
    return sums[j];
#endif
}

/* ---- bf16 rows with bf16 weights: DOT_GROUP bytes of a column lie together, two k, on 64-bit ARM four ---- */

#define BF16_GROUP (DOT_GROUP / 2)

/* Steps of k of a matrix stored as `dtype`. */
KERNEL_INLINE int k_steps(int n_in, int dtype)
{
    return dtype == WEIGHT_BF16_PAIRS ? (n_in + BF16_GROUP - 1) / BF16_GROUP : dtype == WEIGHT_F16_ROWS ? (n_in + 1) / 2 : n_in;
}

/* Float32s in whose place a row is packed. */
KERNEL_INLINE int packed_floats(int n_in, int dtype)
{
    return dtype == WEIGHT_BF16_PAIRS ? k_steps(n_in, dtype) * DOT_GROUP / 4 : k_steps(n_in, dtype);
}

/* Bytes of a panel of float weights. */
KERNEL_INLINE size_t float_panel_len(int n_in, int panel, int dtype)
{
    return dtype == WEIGHT_BF16_PAIRS ? (size_t)k_steps(n_in, dtype) * dot_row_len(panel)
                                      : (size_t)n_in * (size_t)panel * weight_len(dtype);
}

/* The place of weight k of a column of such a panel. */
KERNEL_INLINE size_t bf16_index(int column, int k, int panel)
{
    return ((size_t)(k / BF16_GROUP) * (size_t)panel + (size_t)column) * BF16_GROUP + (size_t)(k % BF16_GROUP);
}

/* vdot_bf16: lane by lane, sum + the products of two weights with two values, or what stands in for it on
 * 64-bit ARM: columns 2j and 2j + 1 of a step of four k, lanes 0 and 1 of one row, 2 and 3 of another.
 * bf16_row: a row rounded to bf16, ties to even; zeros fill its last step. */
#if defined __AVX512BF16__
/* The odd product first, each fused. */
KERNEL_INLINE vf vdot_bf16(vf sum, vi weights, vi values)
{
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)weights, (__m512bh)values);
}

KERNEL_INLINE void bf16_row(uint16_t *to /* [n rounded up to 2] */, const float *from /* [n] */, int n)
{
    for (int i = 0; i < n; i += LANES) {
        const __m256bh half = _mm512_cvtneps_pbh((__m512)vload_row(from, i, n));
        const int left = n + n % 2 - i;
        memcpy(to + i, &half, left < LANES ? (size_t)left * 2 : sizeof half);
    }
}
#elif defined __aarch64__ && defined __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
/* Twice the sum of two products is added; sums are rounded to odd. */
KERNEL_INLINE vf vdot_bf16(vf sum, vi weights, vi values)
{
    return vbfmmlaq_f32(sum, vreinterpretq_bf16_s32(values), vreinterpretq_bf16_s32(weights));
}

KERNEL_INLINE void bf16_row(uint16_t *to /* [n rounded up to 4] */, const float *from /* [n] */, int n)
{
    for (int i = 0; i < n; i += LANES) {
        const bfloat16x4_t half = vcvt_bf16_f32(vload_row(from, i, n));
        memcpy(to + i, &half, sizeof half);
    }
}
#else
KERNEL_INLINE vf vdot_bf16(vf sum, vi weights, vi values) { (void)weights, (void)values; return sum; }
KERNEL_INLINE void bf16_row(uint16_t *to, const float *from, int n) { (void)to, (void)from, (void)n; }
#endif

/* ---- chains over k of one row, by the vectors of a panel's step ---- */

/* Vector j of the sums before the first step, of columns that begin at `start`; `dtype` is constant. */
KERNEL_INLINE vf vstep_begin(const float *start, const int j, const int dtype)
{
#if DOT_GROUP == 8
    if (dtype == WEIGHT_BF16_PAIRS)
        return vcombine_f32(vld1_f32(start + 2 * j), vld1_f32(start + 2 * j));
#endif
    (void)dtype;
    return vload(start + j * LANES);
}

/* Vector j of the columns, after the last. */
KERNEL_INLINE vf vstep_end(const vf *sums, const int j, const int dtype)
{
#if DOT_GROUP == 8
    if (dtype == WEIGHT_BF16_PAIRS)
        return (vf)vzip1q_f64((float64x2_t)sums[2 * j], (float64x2_t)sums[2 * j + 1]);
#endif
    (void)dtype;
    return sums[j];
}

/* What step k multiplies with: an element of the row, or a group of the rounded one. */
KERNEL_INLINE vf vstep_value(const float *row, const uint16_t *rounded, int k, const int dtype)
{
    return dtype == WEIGHT_BF16_PAIRS ? (vf)vbroadcast_group((const int8_t *)(rounded + BF16_GROUP * k)) : vbroadcast(row + k);
}

/* One step: with vector `part` of a panel's step of weights. */
KERNEL_INLINE vf vstep(vf sum, vf value, const uint8_t *step, int part, const int dtype)
{
    if (dtype == WEIGHT_BF16_PAIRS)
        return vdot_bf16(sum, viload(step + part * 4 * LANES), (vi)value);
    return vfma(value, vload_weight(step, (size_t)(part * LANES), dtype), sum);
}

/* Asks for row k of `width` panels of n_rows rows; behind their end for one of the panels `width` further on. */
KERNEL_INLINE void stream_fetch(const int width, const void *weights, size_t at, size_t panel_len, const size_t row_len, int k,
                                int n_rows)
{
    const size_t ahead = at + (size_t)k * row_len + (k < n_rows ? 0 : (size_t)(width - 1) * panel_len);
    UNROLL
    for (int j = 0; j < width; j++)
        for (size_t line = 0; line < row_len; line += 64)
            prefetch(weights, ahead + (size_t)j * panel_len + line);
}

/* One step of k of `width` panels of float weights. */
KERNEL_INLINE void float_stream_row(vf *sum /* [width * parts] */, const int width, const int parts, const int dtype,
                                    const uint8_t *row /* of the first panel */, size_t panel_len, vf value)
{
    UNROLL
    for (int j = 0; j < width * parts; j++)
        sum[j] = vstep(sum[j], value, row + (size_t)(j / parts) * panel_len, j % parts, dtype);
}

/* Sums of `width` panels of float weights, each a stream of its own, with one row x, which by pairs is `rounded`; a
 * panel's step has `parts` vectors. Every stream is fetched prefetch_rows ahead; `unroll` steps are a round of the loop. */
KERNEL_INLINE void float_stream(vf *sum /* [width * parts] */, const int width, const int parts, const int dtype,
                                const void *weights, size_t at, size_t panel_len, const size_t row_len, const float *x,
                                const uint16_t *rounded, int n_steps, const int prefetch_rows, const int unroll)
{
    const uint8_t *rows = (const uint8_t *)weights + at;
    int k = 0;
    for (; k + unroll <= n_steps; k += unroll) {
        UNROLL
        for (int i = 0; i < unroll; i++) {
            if (prefetch_rows)
                stream_fetch(width, weights, at, panel_len, row_len, k + i + prefetch_rows, n_steps);
            float_stream_row(sum, width, parts, dtype, rows + (size_t)(k + i) * row_len, panel_len,
                             vstep_value(x, rounded, k + i, dtype));
        }
    }
    for (; k < n_steps; k++)
        float_stream_row(sum, width, parts, dtype, rows + (size_t)k * row_len, panel_len, vstep_value(x, rounded, k, dtype));
}

/* A vector of columns from a tile's sums: as they are, or, of a scaled row, unscaled and only then from the start. */
KERNEL_INLINE vf product_sum(const float *sum /* [LANES] */, const float *start /* [LANES] or NULL */,
                             const float *unscale /* [1] or NULL */)
{
    return unscale ? vfma(vload(sum), vset(*unscale), start ? vload(start) : vset(0)) : vload(sum);
}

/* Can two steps of nibbles share their widening to 32 bits? Without a dot instruction they can: their
 * products need no sign, and four of them fit into 16 bits. */
#if !DOT_OFFSET && (LANES == 8 || (LANES == 16 && defined __AVX512BW__))
#define DOT_BY_PAIRS 1
#else
#define DOT_BY_PAIRS 0
#endif

/* Lane by lane, sum + Σ of eight products: unpacked nibbles with activations, twice four. */
KERNEL_INLINE vi vdot4_twice(vi sum, vi lo, vi hi, vi first, vi second)
{
#if DOT_BY_PAIRS && LANES == 16
    const __m512i pairs = _mm512_add_epi16(_mm512_maddubs_epi16((__m512i)lo, (__m512i)first),
                                           _mm512_maddubs_epi16((__m512i)hi, (__m512i)second));
    return sum + (vi)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif DOT_BY_PAIRS
    const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16((__m256i)lo, (__m256i)first),
                                           _mm256_maddubs_epi16((__m256i)hi, (__m256i)second));
    return sum + (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else
    return vdot4(vdot4(sum, lo, first), hi, second);
#endif
}

/* The same of a q4 row with the activations of its k 0 … 3 and 4 … 7. */
KERNEL_INLINE vi vdot8(vi sum, vi weights, vi first, vi second)
{
    return vdot4_twice(sum, vnibbles_lo(weights), vnibbles_hi(weights), first, second);
}

/* Four vectors are in registers from here on: gcc would load each just before its use, for which cores that
 * go in order wait. */
KERNEL_INLINE void vhold(vi *a /* [4] */)
{
#if defined __aarch64__ && !defined __clang__
    __asm__ volatile("" : "+w"(a[0]), "+w"(a[1]), "+w"(a[2]), "+w"(a[3]) : : "memory");
#else
    (void)a;
#endif
}

/* One row of `width` panels with its activations. */
KERNEL_INLINE void dot_stream_row(vi *sum /* [width * DOT_VECTORS] */, const int width, const int dtype,
                                  const uint8_t *row /* of the first panel */, size_t panel_len, const int8_t *x)
{
    const vi a = vbroadcast_group(x), b = dtype == WEIGHT_Q4 ? vbroadcast_group(x + DOT_GROUP) : a;
    UNROLL
    for (int p = 0; p < width; p++, row += panel_len) {
        vi w[DOT_VECTORS];
        UNROLL
        for (int j = 0; j < DOT_VECTORS; j++)
            w[j] = viload(row + j * LANES * 4);
        if (DOT_VECTORS == 4)
            vhold(w);
        UNROLL
        for (int j = 0; j < DOT_VECTORS; j++)
            sum[p * DOT_VECTORS + j] = dtype == WEIGHT_Q4 ? vdot8(sum[p * DOT_VECTORS + j], w[j], a, b)
                                                          : vdot4(sum[p * DOT_VECTORS + j], w[j], a);
    }
}

/* Sums of `width` panels, each a stream of its own, with one row of activations. Every stream is fetched
 * prefetch_rows ahead, at its end from the panel `width` further on, its next; `unroll` rows are a round of the loop.
 * Cores of 64-bit ARM fetch streams themselves and are short of load slots, so there only the next panels' beginnings
 * are asked for. */
KERNEL_INLINE void dot_stream(vi *sum /* [width * DOT_VECTORS] */, const int width, const int dtype, const void *weights,
                              size_t at, size_t panel_len, const size_t row_len, const int8_t *x, int n_rows,
                              const int prefetch_rows, const int unroll)
{
    const uint8_t *rows = (const uint8_t *)weights + at + 8 * LANES;
    const int n_k = dtype == WEIGHT_Q4 ? 2 * DOT_GROUP : DOT_GROUP;
    const int alone = DOT_GROUP == 8 && n_rows > prefetch_rows ? n_rows - prefetch_rows : 0;
    int k = 0;
    for (; k < alone; k++)
        dot_stream_row(sum, width, dtype, rows + (size_t)k * row_len, panel_len, x + n_k * k);
    for (; k + unroll <= n_rows; k += unroll) {
        UNROLL
        for (int i = 0; i < unroll; i++) {
            if (prefetch_rows)
                stream_fetch(width, weights, at + 8 * LANES, panel_len, row_len, k + i + prefetch_rows, n_rows);
            dot_stream_row(sum, width, dtype, rows + (size_t)(k + i) * row_len, panel_len, x + n_k * (k + i));
        }
    }
    for (; k < n_rows; k++)
        dot_stream_row(sum, width, dtype, rows + (size_t)k * row_len, panel_len, x + n_k * k);
}

/* vdot4 with row r of a group's activations; r and rows are constant. */
KERNEL_INLINE vi vdot4_row(vi sum, vi weights, const int8_t *a /* [rows][4] */, const int r, const int rows)
{
#if defined __aarch64__ && defined __ARM_FEATURE_DOTPROD
    /* The instruction takes a lane of four rows' bytes: one load instead of four broadcasts. */
    if (r / 4 * 4 + 4 <= rows) {
        const int8x16_t w = (int8x16_t)weights, four = (int8x16_t)viload(a + r / 4 * 16);
        switch (r % 4) {
        case 0: return vdotq_laneq_s32(sum, w, four, 0);
        case 1: return vdotq_laneq_s32(sum, w, four, 1);
        case 2: return vdotq_laneq_s32(sum, w, four, 2);
        case 3: return vdotq_laneq_s32(sum, w, four, 3);
        }
    }
#else
    (void)rows;
#endif
    return vdot4(sum, weights, vbroadcast4(a + 4 * r));
}

/* Rows of activations by groups of four k, as a tile reads them: 4 x 4 groups at a time. */
KERNEL_INLINE void dot_pack(int8_t *tile /* [n_groups][rows][4] */, const int8_t *const *from /* [rows] */,
                            const int rows, int n_groups)
{
    typedef int32_t quad __attribute__((vector_size(16), aligned(4), may_alias));
    const int whole = rows / 4 * 4;
    for (int r = 0; r < whole; r += 4) {
        int g = 0;
        for (; g + 4 <= n_groups; g += 4) {
            const quad a = *(const quad *)(from[r] + 4 * g), b = *(const quad *)(from[r + 1] + 4 * g);
            const quad c = *(const quad *)(from[r + 2] + 4 * g), d = *(const quad *)(from[r + 3] + 4 * g);
            const quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
            const quad ef = __builtin_shufflevector(a, b, 2, 6, 3, 7), gh = __builtin_shufflevector(c, d, 2, 6, 3, 7);
            int8_t *to = tile + ((size_t)g * (size_t)rows + (size_t)r) * 4;
            *(quad *)to = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
            *(quad *)(to + 4 * rows) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
            *(quad *)(to + 8 * rows) = __builtin_shufflevector(ef, gh, 0, 1, 4, 5);
            *(quad *)(to + 12 * rows) = __builtin_shufflevector(ef, gh, 2, 3, 6, 7);
        }
        for (; g < n_groups; g++)
            for (int i = r; i < r + 4; i++)
                memcpy(tile + ((size_t)g * (size_t)rows + (size_t)i) * 4, from[i] + 4 * g, 4);
    }
    for (int r = whole; r < rows; r++)
        for (int g = 0; g < n_groups; g++)
            memcpy(tile + ((size_t)g * (size_t)rows + (size_t)r) * 4, from[r] + 4 * g, 4);
}

#endif
