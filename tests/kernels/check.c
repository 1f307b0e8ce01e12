/* Kernel tests, the half that runs on the target: instances against naive loops in double.
 *
 * Linked with the rendered instances of cases.def (driver.c writes them); knows nothing of mossc.
 * Every kernel is compared with the specification's formula, then run again cut into chunks,
 * panel ranges and threads' shares, whose results must be equal bit for bit. Padding that may hold
 * junk holds NaN, scratch has its documented length exactly, and a canary follows every buffer.
 */
#include "runtime/dot.h"
#include "runtime/route.h"
#include "runtime/tile.h"
#include "tests/unit/simd_errors.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct { const char *name; int row; void (*kernel)(void); } Entry;
extern const Entry kernel_entries[];
extern const int n_kernel_entries, kernel_tile_rows, kernel_block_rows;

enum { PANEL = 2 * LANES, CANARY = 64, MAX_BUFFERS = 64 };

static int n_failed, n_checked, case_row;
static const char *case_name;
static struct { float *data; size_t count; } buffers[MAX_BUFFERS];
static int n_buffers;
static uint64_t seed;

static void fail(const char *what)
{
    fprintf(stderr, "cases.def:%d: %s: %s\n", case_row, case_name, what);
    n_failed++;
}

static void begin_case(const char *name, int row)
{
    case_name = name;
    case_row = row;
    seed = 0x9E3779B97F4A7C15u * (uint64_t)(row + 1);
    n_checked++;
}

static void (*find(const char *name))(void)
{
    for (int i = 0; i < n_kernel_entries; i++)
        if (kernel_entries[i].row == case_row && strcmp(kernel_entries[i].name, name) == 0)
            return kernel_entries[i].kernel;
    fprintf(stderr, "no kernel %s for line %d\n", name, case_row);
    exit(1);
}

static uint64_t random_bits(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed;
}
static float random_float(void) { return (float)(random_bits() >> 40) * 0x1p-23f - 1; }
static int random_below(int n) { return (int)((random_bits() >> 33) % (uint64_t)n); }
static int whole(int n, int unit) { return (n + unit - 1) / unit * unit; }

/* `count` floats of NaN, 64-byte aligned, with a canary behind. */
static float *buffer(size_t count)
{
    float *data = aligned_alloc(64, (4 * (count + CANARY) + 63) / 64 * 64);
    if (!data || n_buffers == MAX_BUFFERS)
        exit(1);
    for (size_t i = 0; i < count; i++)
        data[i] = NAN;
    for (size_t i = 0; i < CANARY; i++)
        data[count + i] = 12345;
    buffers[n_buffers].data = data;
    buffers[n_buffers++].count = count;
    return data;
}

static void end_case(void)
{
    for (int b = 0; b < n_buffers; b++) {
        for (size_t i = 0; i < CANARY; i++)
            if (buffers[b].data[buffers[b].count + i] != 12345) {
                fail("wrote behind a buffer");
                break;
            }
        free(buffers[b].data);
    }
    n_buffers = 0;
}

/* rows x stride of which cols are random. */
static float *random_rows(int rows, int cols, int stride)
{
    float *data = buffer((size_t)rows * (size_t)stride);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++)
            data[(size_t)r * (size_t)stride + (size_t)c] = random_float();
    return data;
}

static float *copy(const float *from, size_t count)
{
    float *data = buffer(count);
    memcpy(data, from, 4 * count);
    return data;
}

static void compare(const char *what, const float *got, const double *want, int rows, int cols, int stride)
{
    double most = 1e-30;
    for (int i = 0; i < rows * cols; i++)
        most = fabs(want[i]) > most ? fabs(want[i]) : most;
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) {
            const double g = got[(size_t)r * (size_t)stride + (size_t)c], w = want[r * cols + c];
            if (!(fabs(g - w) <= 1e-5 * most)) {
                fprintf(stderr, "  row %d column %d: %.9g, expected %.9g\n", r, c, g, w);
                fail(what);
                return;
            }
        }
}

static void compare_bits(const char *what, const float *a, const float *b, int rows, int cols, int stride)
{
    for (int r = 0; r < rows; r++)
        if (memcmp(a + (size_t)r * (size_t)stride, b + (size_t)r * (size_t)stride, 4 * (size_t)cols) != 0) {
            fail(what);
            return;
        }
}

/* ---- weights ---- */

static double value_of(int dtype, uint32_t bits)
{
    if (dtype == 2) {
        const int exponent = bits >> 10 & 31, fraction = bits & 1023;
        const double magnitude = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
        return bits >> 15 ? -magnitude : magnitude;
    }
    float value;
    bits = dtype == 1 || dtype == 5 ? bits << 16 : bits;
    memcpy(&value, &bits, 4);
    return value;
}

/* A random matrix [n_experts][n_out][n_in] and its packed form [n_experts][n_panels][n_in][PANEL], by pairs (5)
 * [(n_in + 1) / 2][PANEL][2]. */
static void *random_weights(double *plain, int n_experts, int n_out, int n_in, int dtype)
{
    const int n_panels = (n_out + PANEL - 1) / PANEL;
    const size_t n_k = dtype == 5 ? 2 : 1, steps = ((size_t)n_in + n_k - 1) / n_k;
    const size_t count = (size_t)n_experts * (size_t)n_panels * steps * n_k * PANEL;
    void *packed = buffer(dtype ? (count + 1) / 2 : count);
    memset(packed, 0, count * (dtype ? 2 : 4));
    for (int e = 0; e < n_experts; e++)
        for (int o = 0; o < n_out; o++)
            for (int i = 0; i < n_in; i++) {
                const float value = random_float();
                uint32_t bits;
                memcpy(&bits, &value, 4);
                if (dtype == 1 || dtype == 5)
                    bits >>= 16;
                if (dtype == 2)
                    bits = (uint32_t)(random_bits() >> 20 & 0xBFFF) % 0xBC00 | (i % 7 == 0 ? 0x8000 : 0);
                if (dtype == 2 && (bits & 0x7C00) > 0x3C00)
                    bits &= 0x83FF;          /* small, denormals among them */
                const size_t step = ((size_t)e * (size_t)n_panels + (size_t)(o / PANEL)) * steps + (size_t)i / n_k;
                const size_t at = (step * PANEL + (size_t)(o % PANEL)) * n_k + (size_t)i % n_k;
                plain[((size_t)e * (size_t)n_out + (size_t)o) * (size_t)n_in + (size_t)i] = value_of(dtype, bits);
                if (dtype)
                    ((uint16_t *)packed)[at] = (uint16_t)bits;
                else
                    ((uint32_t *)packed)[at] = bits;
            }
    return packed;
}

/* ---- products ---- */

typedef void GemmFn(float *, const float *, const void *, const float *, const int32_t *, const int32_t *,
                    const float *, int, int, float *, int, int);
typedef void GemvFn(float *, const float *, const void *, const float *, const int32_t *, const float *, int, int, int);

static void group_naive(int32_t *slots, int32_t *offsets, const int32_t *experts, int n_pairs, int n_experts)
{
    int n = 0;
    for (int e = 0; e < n_experts; e++) {
        offsets[e] = n;
        for (int p = 0; p < n_pairs; p++)
            if (experts[p] == e)
                slots[n++] = p;
    }
    offsets[n_experts] = n;
}

/* top_k of n_experts for each token, ascending; the last expert never where there is a choice. */
static void random_experts(int32_t *experts, int n_tokens, int top_k, int n_experts)
{
    for (int t = 0; t < n_tokens; t++)
        for (int s = 0, e = 0; s < top_k; e++) {
            const int usable = n_experts > top_k ? n_experts - 1 : n_experts;
            if (random_below(usable - e) < top_k - s)
                experts[t * top_k + s++] = e;
        }
}

static float bf16_value(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits &= 0xFFFF0000;
    memcpy(&x, &bits, 4);
    return x;
}

static double silu(double x) { return x / (1 + exp(-x)); }

static void check_gemm(int row, int n_in, int n_out, int n_experts, int dtype, int in_pairs, int out_pairs,
                       int has_bias, int accumulate, int exact, int top_k, int n_tokens)
{
    begin_case("gemm", row);
    GemmFn *gemm = (GemmFn *)find("gemm");
    GemvFn *gemv = (GemvFn *)find("gemv");
    const int n_panels = (n_out + PANEL - 1) / PANEL, n_pairs = n_tokens * top_k, dense = n_experts == 1;
    const int in_stride = whole(n_in, PANEL), out_stride = exact ? n_out : n_panels * PANEL;
    const int in_rows = in_pairs ? n_pairs : n_tokens, out_rows = out_pairs ? n_pairs : n_tokens;
    double *plain = malloc(8 * (size_t)(n_experts * n_out * n_in)), *want = calloc((size_t)(out_rows * n_out), 8);
    const void *weights = random_weights(plain, n_experts, n_out, n_in, dtype);
    float *in = random_rows(in_rows, n_in, in_stride);
    for (int i = 0; i < in_rows * in_stride && dtype == 5; i++)
        in[i] = bf16_value(in[i]);          /* what is rounded then is exact */
    const float *bias = has_bias ? random_rows(n_experts, n_out, n_panels * PANEL) : NULL;
    const float *initial = accumulate ? random_rows(out_rows, n_out, out_stride) : buffer((size_t)(out_rows * out_stride));
    const float *gates = n_experts > 1 ? random_rows(1, n_pairs, n_pairs) : NULL;
    float *pack = buffer((size_t)(kernel_block_rows + PANEL) * (size_t)n_in);
    int32_t *experts = malloc(4 * (size_t)n_pairs), *slots = malloc(4 * (size_t)n_pairs);
    int32_t *offsets = malloc(4 * (size_t)(n_experts + 1));
    random_experts(experts, n_tokens, top_k, n_experts);

    for (int p = 0; p < n_pairs; p++) {
        const int t = p / top_k, e = experts[p];
        for (int o = 0; o < n_out; o++) {
            double sum = has_bias ? bias[e * n_panels * PANEL + o] : 0;
            for (int i = 0; i < n_in; i++)
                sum += (double)in[(in_pairs ? p : t) * in_stride + i] * plain[((size_t)e * (size_t)n_out + (size_t)o) * (size_t)n_in + (size_t)i];
            double *to = &want[(out_pairs ? p : t) * n_out + o];
            const double there = initial[(out_pairs ? p : t) * out_stride + o];
            if (accumulate == 2)
                *to = silu(there) * sum;
            else
                *to = (accumulate && (out_pairs || p % top_k == 0) ? there : *to) + sum * (out_pairs || dense ? 1 : gates[p]);
        }
    }

    const size_t out_len = (size_t)(out_rows * out_stride);
    float *all = copy(initial, out_len), *again = copy(initial, out_len), *single = copy(initial, out_len);
    group_naive(slots, offsets, experts, n_pairs, n_experts);
    gemm(all, in, weights, bias, dense ? NULL : slots, dense ? NULL : offsets, gates, n_tokens, top_k, pack, 0, n_panels);
    compare("gemm", all, want, out_rows, n_out, out_stride);

    static const int chunks[] = { 1, 3, 7, 2, 5, 64, 64 };      /* two threads, several chunks */
    for (int t = 0, c = 0, n; t < n_tokens; t += n) {
        n = chunks[c++] < n_tokens - t ? chunks[c - 1] : n_tokens - t;
        group_naive(slots, offsets, experts + t * top_k, n * top_k, n_experts);
        for (int half = 0; half < 2; half++)
            gemm(again + (out_pairs ? t * top_k : t) * out_stride, in + (in_pairs ? t * top_k : t) * in_stride, weights, bias,
                 dense ? NULL : slots, dense ? NULL : offsets, dense ? NULL : gates + t * top_k, n, top_k, pack,
                 half ? n_panels / 2 : 0, half ? n_panels : n_panels / 2);
    }
    compare_bits("gemm in chunks differs", all, again, out_rows, n_out, out_stride);
    for (int t = 0; t < n_tokens; t++)
        gemv(single + (out_pairs ? t * top_k : t) * out_stride, in + (in_pairs ? t * top_k : t) * in_stride, weights, bias,
             dense ? NULL : experts + t * top_k, dense ? NULL : gates + t * top_k, top_k, 0, n_panels);
    compare_bits("gemv differs from gemm", all, single, out_rows, n_out, out_stride);
    free(plain), free(want), free(experts), free(slots), free(offsets);
    end_case();
}

/* ---- quantised products ---- */

/* One activation row as quantize's argument `out` has it: q, zeros, scale, sum. */
static void quantize_naive(int8_t *out, const float *x, int n)
{
    float most = 0;
    int32_t sum = 0;
    int bad = 0;
    for (int i = 0; i < n; i++) {
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
        bad |= !isfinite(x[i]);
    }
    const float scale = most / 127;
    memset(out, 0, (size_t)whole(n, 64));
    for (int i = 0; i < n && !bad && scale > 0; i++) {
        const double ratio = rint(x[i] / scale);
        out[i] = (int8_t)(ratio > 127 ? 127 : ratio < -127 ? -127 : ratio);
        sum += out[i];
    }
    memcpy(out + whole(n, 64), &scale, 4);
    memcpy(out + whole(n, 64) + 4, &sum, 4);
}

/* A random matrix of q [n_experts][n_out][n_in] with scales [n_experts][n_out], and its panels. */
static void *random_quantised(int8_t *q, float *scales, int n_experts, int n_out, int n_in, int dtype)
{
    const int n_panels = (n_out + PANEL - 1) / PANEL, unit = dtype == WEIGHT_Q4 ? 2 * DOT_GROUP : DOT_GROUP, n_rows = (n_in + unit - 1) / unit;
    const size_t panel_len = (size_t)PANEL * 4 + (size_t)n_rows * PANEL * DOT_GROUP;
    uint8_t *packed = (uint8_t *)buffer((size_t)(n_experts * n_panels) * panel_len / 4);
    for (int e = 0; e < n_experts; e++)
        for (int o = 0; o < n_panels * PANEL; o++) {
            uint8_t *of = packed + (size_t)(e * n_panels + o / PANEL) * panel_len;
            const float scale = o < n_out ? 0.001f + 0.01f * fabsf(random_float()) : 0;
            memcpy(of + o % PANEL * 4, &scale, 4);
            if (o < n_out)
                scales[e * n_out + o] = scale;
            for (int i = 0; i < n_rows * unit; i++) {
                int value = dtype == WEIGHT_Q4 ? random_below(16) - 8 : random_below(255) - 127;
                if (o % 5 == 1)
                    value = dtype == WEIGHT_Q4 ? -8 : i % 2 ? 127 : -127;        /* the extremes */
                value = i < n_in && o < n_out ? value : 0;
                uint8_t *byte = of + PANEL * 4 + ((size_t)(i / unit) * PANEL + (size_t)(o % PANEL)) * DOT_GROUP + i % DOT_GROUP;
                if (dtype == WEIGHT_Q8)
                    *byte = (uint8_t)(value + DOT_OFFSET);
                else if (i % unit < DOT_GROUP)
                    *byte = (uint8_t)(value + 8);                                 /* the low nibbles come first in k */
                else
                    *byte = (uint8_t)(*byte | (value + 8) << 4);
                if (i < n_in && o < n_out)
                    q[((size_t)(e * n_out + o)) * (size_t)n_in + (size_t)i] = (int8_t)value;
            }
        }
    return packed;
}

typedef void QuantizeFn(int8_t *, const float *, int, int);
typedef void GemmQFn(float *, const int8_t *, const void *, const float *, const int32_t *, const int32_t *,
                     const float *, int, int, int8_t *, int, int);
typedef void GemvQFn(float *, const int8_t *, const void *, const float *, const int32_t *, const float *, int, int, int);

static void check_gemm_q(int row, int n_in, int n_out, int n_experts, int dtype, int in_pairs, int out_pairs,
                         int has_bias, int accumulate, int exact, int top_k, int n_tokens)
{
    begin_case("gemm_q", row);
    GemmQFn *gemm = (GemmQFn *)find("gemm_q");
    GemvQFn *gemv = (GemvQFn *)find("gemv_q");
    const int n_panels = (n_out + PANEL - 1) / PANEL, n_pairs = n_tokens * top_k, dense = n_experts == 1;
    const int in_stride = whole(n_in, 64) + 64, out_stride = exact ? n_out : n_panels * PANEL;
    const int in_rows = in_pairs ? n_pairs : n_tokens, out_rows = out_pairs ? n_pairs : n_tokens;
    int8_t *q = malloc((size_t)(n_experts * n_out * n_in));
    float *scales = malloc(4 * (size_t)(n_experts * n_out)), *x = malloc(4 * (size_t)n_in);
    const void *weights = random_quantised(q, scales, n_experts, n_out, n_in, dtype);
    int8_t *in = (int8_t *)buffer((size_t)(in_rows * in_stride) / 4);
    for (int r = 0; r < in_rows; r++) {
        for (int i = 0; i < n_in; i++)
            x[i] = r % 7 == 3 ? 0 : r % 7 == 5 ? (i % 2 ? 3 : -3) : random_float();     /* zeros, extremes */
        quantize_naive(in + r * in_stride, x, n_in);
    }
    const float *bias = has_bias ? random_rows(n_experts, n_out, n_panels * PANEL) : NULL;
    const float *initial = accumulate ? random_rows(out_rows, n_out, out_stride) : buffer((size_t)(out_rows * out_stride));
    const float *gates = n_experts > 1 ? random_rows(1, n_pairs, n_pairs) : NULL;
    int8_t *pack = (int8_t *)buffer((size_t)((kernel_block_rows + (dtype == WEIGHT_Q4 ? PANEL : 0)) * whole(n_in, 8)) / 4);
    int32_t *experts = malloc(4 * (size_t)n_pairs), *slots = malloc(4 * (size_t)n_pairs);
    int32_t *offsets = malloc(4 * (size_t)(n_experts + 1));
    random_experts(experts, n_tokens, top_k, n_experts);

    const size_t out_len = (size_t)(out_rows * out_stride);
    float *want = copy(initial, out_len), *all = copy(initial, out_len), *again = copy(initial, out_len), *single = copy(initial, out_len);
    double *gated = malloc(8 * (size_t)(out_rows * n_out));
    for (int p = 0; p < n_pairs; p++) {
        const int8_t *from = in + (in_pairs ? p : p / top_k) * in_stride;
        float scale;
        memcpy(&scale, from + whole(n_in, 64), 4);
        for (int o = 0; o < n_out; o++) {
            const int column = experts[p] * n_out + o;
            int64_t sum = 0;
            for (int i = 0; i < n_in; i++)
                sum += q[(size_t)column * (size_t)n_in + (size_t)i] * from[i];
            const float start = has_bias ? bias[experts[p] * n_panels * PANEL + o] : 0;
            const float value = fmaf((float)sum, scales[column] * scale, start);
            float *to = &want[(out_pairs ? p : p / top_k) * out_stride + o];
            gated[(out_pairs ? p : p / top_k) * n_out + o] = silu(*to) * (double)value;
            *to = fmaf(out_pairs || dense ? 1 : gates[p], value, accumulate || (!out_pairs && p % top_k) ? *to : 0);
        }
    }
    group_naive(slots, offsets, experts, n_pairs, n_experts);
    gemm(all, in, weights, bias, dense ? NULL : slots, dense ? NULL : offsets, gates, n_tokens, top_k, pack, 0, n_panels);
    if (accumulate == 2)
        compare("gemm_q", all, gated, out_rows, n_out, out_stride);
    else
        compare_bits("gemm_q", all, want, out_rows, n_out, out_stride);

    static const int chunks[] = { 1, 3, 7, 2, 5, 64, 64 };      /* two threads, several chunks */
    for (int t = 0, c = 0, n; t < n_tokens; t += n) {
        n = chunks[c++] < n_tokens - t ? chunks[c - 1] : n_tokens - t;
        group_naive(slots, offsets, experts + t * top_k, n * top_k, n_experts);
        for (int half = 0; half < 2; half++)
            gemm(again + (out_pairs ? t * top_k : t) * out_stride, in + (in_pairs ? t * top_k : t) * in_stride, weights, bias,
                 dense ? NULL : slots, dense ? NULL : offsets, dense ? NULL : gates + t * top_k, n, top_k, pack,
                 half ? n_panels / 2 : 0, half ? n_panels : n_panels / 2);
    }
    compare_bits("gemm_q in chunks differs", all, again, out_rows, n_out, out_stride);
    for (int t = 0; t < n_tokens; t++)
        gemv(single + (out_pairs ? t * top_k : t) * out_stride, in + (in_pairs ? t * top_k : t) * in_stride, weights, bias,
             dense ? NULL : experts + t * top_k, dense ? NULL : gates + t * top_k, top_k, 0, n_panels);
    compare_bits("gemv_q differs from gemm_q", all, single, out_rows, n_out, out_stride);
    free(q), free(scales), free(x), free(gated), free(experts), free(slots), free(offsets);
    end_case();
}

static void check_quantize(int row, int n_in)
{
    begin_case("quantize", row);
    QuantizeFn *quantize = (QuantizeFn *)find("quantize");
    enum { ROWS = 12 };
    const int in_stride = whole(n_in, PANEL), out_stride = whole(n_in, 64) + 64;
    float *x = random_rows(ROWS, n_in, in_stride);
    int8_t *out = (int8_t *)buffer((size_t)(ROWS * out_stride) / 4), *want = malloc((size_t)out_stride);
    static const float units[ROWS] = { 1, 0, 1e30f, 1e-30f, 0x1p-126f, 0x1p-149f, 0x1p-142f, 0.5f };
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < n_in; i++) {
            float *at = &x[r * in_stride + i];
            *at = r == 5 || r == 6 ? units[r] * (float)random_below(200) : *at * units[r];     /* denormals */
            if (r == 7)
                *at = i ? (float)random_below(254) - 126.5f : 127;                              /* ties */
            if (r > 7)
                *at = i == (r * 5) % n_in ? (r == 8 ? NAN : r == 9 ? INFINITY : r == 10 ? -NAN : -INFINITY) : 1;
        }
    quantize(out, x, 0, 5);
    quantize(out, x, 5, ROWS);
    for (int r = 0; r < ROWS; r++) {
        const int8_t *got = out + r * out_stride;
        float scale;
        memcpy(&scale, got + whole(n_in, 64), 4);
        quantize_naive(want, x + r * in_stride, n_in);
        if (memcmp(got, want, (size_t)whole(n_in, 64)) != 0 || memcmp(got + whole(n_in, 64) + 4, want + whole(n_in, 64) + 4, 4) != 0)
            fail("quantize: bytes or sum");
        if (r > 7 ? isfinite(scale) : memcmp(&scale, want + whole(n_in, 64), 4) != 0)
            fail("quantize: scale");
    }
    free(want);
    end_case();
}

/* vdot4 and vdot8 on random bytes and all pairs of extremes; the weights as stored: q8, then nibbles. */
static void check_dot(void)
{
    case_name = "vdot4";
    case_row = 0;
    seed = 1;
    for (int rep = 0; rep < 4000; rep++) {
        int8_t x[4], minus[4], weights[4 * LANES];
        int32_t start[LANES], got[LANES], want[LANES];
        const int nibbles = rep & 1;
        for (int i = 0; i < 4; i++)
            x[i] = (int8_t)(rep < 64 ? (rep >> (i + 2) & 1 ? 127 : -127) : random_below(255) - 127);
        for (int i = 0; i < LANES; i++)
            start[i] = want[i] = (int32_t)random_bits() >> 4;
        for (int i = 0; i < 4 * LANES; i++) {
            const int extreme = nibbles ? (i >> i % 4 & 4 ? 15 : 0) : i >> (2 + i % 4) & 1 ? 127 : -127;
            const int q = rep < 64 ? extreme : nibbles ? random_below(16) : random_below(255) - 127;
            const int stored = nibbles ? q : q + DOT_OFFSET;
            weights[i] = (int8_t)stored;
            want[i / 4] += stored * x[i % 4];
        }
        vistore(got, vdot4(viload(start), viload(weights), vbroadcast4(x)));
        int wrong = memcmp(got, want, sizeof got) != 0;
        if (nibbles) {                     /* as the low ones; the high ones are what is left to 15 */
            for (int i = 0; i < 4 * LANES; i++) {
                want[i / 4] += (15 - weights[i]) * -x[i % 4];
                weights[i] = (int8_t)(weights[i] | (15 - weights[i]) << 4);
            }
            for (int i = 0; i < 4; i++)
                minus[i] = (int8_t)-x[i];
            vistore(got, vdot8(viload(start), viload(weights), vbroadcast4(x), vbroadcast4(minus)));
            wrong |= memcmp(got, want, sizeof got) != 0;
        }
        if (wrong) {
            fail("wrong sum");
            return;
        }
    }
}

/* Tiles of every height, also of those that no target takes by itself. */
static void check_tiles(void)
{
    enum { MOST_GROUPS = 10 };
    static int8_t x[TILE_MOST_ROWS][MOST_GROUPS * DOT_GROUP], b[MOST_GROUPS * PANEL * DOT_GROUP];
    static int8_t a[TILE_MOST_ROWS * MOST_GROUPS * DOT_GROUP];
    int32_t start[TILE_MOST_ROWS], got[TILE_MOST_ROWS * PANEL];
    case_name = "dot_tile";
    seed = 2;
    for (case_row = 1; case_row <= TILE_MOST_ROWS; case_row++)
        for (int rep = 0; rep < 2 * MOST_GROUPS; rep++) {
            const int rows = case_row, nibbles = rep % 2, n = 1 + rep / 2, n_groups = nibbles ? (n + 1) / 2 * 2 : n;
            const int8_t *from[TILE_MOST_ROWS];
            for (int r = 0; r < rows; r++) {
                from[r] = x[r];
                start[r] = (int32_t)random_bits() >> 4;
                for (int k = 0; k < n_groups * DOT_GROUP; k++)
                    x[r][k] = (int8_t)(r % 3 == 1 ? 127 : random_below(255) - 127);
            }
            for (int i = 0; i < n_groups * PANEL * DOT_GROUP; i++)
                b[i] = (int8_t)(nibbles ? random_below(16) : (i / DOT_GROUP % 3 ? random_below(255) - 127 : -127) + DOT_OFFSET);
            dot_tile_pack(a, from, rows, n_groups);
            dot_tile(rows, nibbles, got, a, b, start, n_groups, b, 0, 0);
            for (int r = 0; r < rows; r++)
                for (int j = 0; j < PANEL; j++) {
                    int32_t want = start[r];
                    for (int k = 0; k < n_groups * DOT_GROUP; k++) {
                        const int8_t w = b[(k / DOT_GROUP * PANEL + j) * DOT_GROUP + k % DOT_GROUP];
                        want += x[r][k] * (nibbles || !DOT_OFFSET ? w : (uint8_t)w);
                    }
                    if (got[r * PANEL + j] != want) {
                        fail("wrong sum");
                        return;
                    }
                }
        }
}

/* ---- rows ---- */

typedef void RmsNormFn(float *, const float *, const float *, int, int);
typedef void RouteFn(int32_t *, float *, const float *, const float *, int, int, int);
typedef void RmsNormRouteFn(float *, int32_t *, float *, const float *, const float *, const float *, int, int, int);

static void check_rows(int row, int n_in, int n_experts, int renormalize)
{
    begin_case("rows", row);
    RmsNormFn *rms_norm = (RmsNormFn *)find("rms_norm");
    RouteFn *route = (RouteFn *)find("route");
    RmsNormRouteFn *fused = (RmsNormRouteFn *)find("rms_norm_route");
    enum { ROWS = 9 };
    const int stride = whole(n_in, PANEL);
    const float *x = random_rows(ROWS, n_in, stride), *weight = random_rows(1, n_in, stride);
    float *router = random_rows(n_experts, n_in, n_in);
    for (int e = 2; e < n_experts; e += 3)                      /* ties: equal rows give equal logits */
        memcpy(router + e * n_in, router + (e - 2) * n_in, 4 * (size_t)n_in);
    double *want = malloc(8 * (size_t)(ROWS * n_in)), *p = malloc(8 * (size_t)n_experts);
    for (int r = 0; r < ROWS; r++) {
        double square = 0;
        for (int i = 0; i < n_in; i++)
            square += (double)x[r * stride + i] * x[r * stride + i];
        for (int i = 0; i < n_in; i++)
            want[r * n_in + i] = x[r * stride + i] / sqrt(square / n_in + 1e-5) * weight[i];
    }
    float *u = buffer((size_t)(ROWS * stride)), *in_place = copy(x, (size_t)(ROWS * stride));
    rms_norm(u, x, weight, 0, ROWS);
    compare("rms_norm", u, want, ROWS, n_in, stride);

    float *gates = buffer((size_t)(ROWS * n_experts)), *gates2 = buffer((size_t)(ROWS * n_experts));
    int32_t *experts = (int32_t *)buffer((size_t)(ROWS * n_experts)), *experts2 = (int32_t *)buffer((size_t)(ROWS * n_experts));
    for (int k = 1; k <= n_experts; k++) {
        route(experts, gates, u, router, k, 0, ROWS);
        for (int r = 0; r < ROWS; r++) {
            double top = -1e300, sum = 0, chosen = 0;
            for (int e = 0; e < n_experts; e++) {
                p[e] = 0;
                for (int i = 0; i < n_in; i++)
                    p[e] += (double)u[r * stride + i] * router[e * n_in + i];
                top = p[e] > top ? p[e] : top;
            }
            for (int e = 0; e < n_experts; e++)
                sum += p[e] = exp(p[e] - top);
            for (int s = 0; s < k; s++)
                chosen += p[experts[r * k + s]] / sum;
            for (int s = 0; s < k; s++) {
                const int e = experts[r * k + s];
                const double gate = p[e] / sum / (renormalize ? chosen : 1);
                int better = 0;              /* experts that come before e: larger, or equal and lower */
                for (int other = 0; other < n_experts; other++)
                    better += p[other] > p[e] * (1 + 1e-5) || (p[other] == p[e] && other < e);
                if (better >= k)
                    fail("route chose a smaller probability, or the higher of equal experts");
                if (e < 0 || e >= n_experts || (s && e <= experts[r * k + s - 1]))
                    fail("route: experts are not ascending");
                if (!(fabs(gates[r * k + s] - gate) <= 1e-5))
                    fail("route: gate");
            }
        }
        if (k == 1)
            fused(in_place, experts2, gates2, in_place, weight, router, k, 0, ROWS);
        else
            fused(in_place, experts2, gates2, x, weight, router, k, 0, 4),
            fused(in_place, experts2, gates2, x, weight, router, k, 4, ROWS);
        compare_bits("rms_norm_route: rows differ", u, in_place, ROWS, n_in, stride);
        compare_bits("rms_norm_route: gates differ", gates, gates2, 1, ROWS * k, 0);
        if (memcmp(experts, experts2, 4 * (size_t)(ROWS * k)) != 0)
            fail("rms_norm_route: experts differ");

        static const float bad[] = { NAN, INFINITY, -INFINITY, 3e38f };
        for (int r = 0; r < 4; r++)
            for (int i = 0; i < n_in; i++)
                in_place[r * stride + i] = i % 2 ? bad[r] : 1;
        route(experts2, gates2, in_place, router, k, 0, 4);
        for (int i = 0; i < 4 * k; i++)
            if (experts2[i] < 0 || experts2[i] >= n_experts || (i % k && experts2[i] <= experts2[i - 1]))
                fail("route: bad input gives experts that are invalid or not distinct");
    }
    free(want), free(p);
    end_case();
}

static void check_group(int row, int n_experts, int n_pairs)
{
    begin_case("group", row);
    void (*group)(int32_t *, int32_t *, const int32_t *, int) = (void (*)(int32_t *, int32_t *, const int32_t *, int))find("group");
    int32_t *experts = (int32_t *)buffer((size_t)n_pairs), *slots = (int32_t *)buffer((size_t)n_pairs), *offsets = (int32_t *)buffer((size_t)n_experts + 1);
    int32_t *slots2 = (int32_t *)buffer((size_t)n_pairs), *offsets2 = (int32_t *)buffer((size_t)n_experts + 1);
    for (int p = 0; p < n_pairs; p++)
        experts[p] = random_below((n_experts + 1) / 2) * 2 % n_experts;
    group(slots, offsets, experts, n_pairs);
    group_naive(slots2, offsets2, experts, n_pairs, n_experts);
    if (memcmp(slots, slots2, 4 * (size_t)n_pairs) || memcmp(offsets, offsets2, 4 * (size_t)(n_experts + 1)))
        fail("wrong order");
    end_case();
}

static void check_embed(int row, int vocab, int d_model, int dtype)
{
    begin_case("embed", row);
    void (*embed)(float *, const int32_t *, const void *, int, int) = (void (*)(float *, const int32_t *, const void *, int, int))find("embed");
    const int stride = whole(d_model, PANEL);
    double *plain = malloc(8 * (size_t)(vocab * d_model)), want[9 * 64];
    const void *weights;
    if (dtype == WEIGHT_Q8 || dtype == WEIGHT_Q4) {
        int8_t *q = malloc((size_t)(vocab * d_model));
        float *scales = malloc(4 * (size_t)vocab);
        weights = random_quantised(q, scales, 1, vocab, d_model, dtype);
        for (int i = 0; i < vocab * d_model; i++)
            plain[i] = (float)q[i] * scales[i / d_model];
        free(q), free(scales);
    } else {
        weights = random_weights(plain, 1, vocab, d_model, dtype);
    }
    int32_t tokens[9] = { 0, vocab - 1, vocab / 2 };
    float *x = buffer((size_t)(9 * stride));
    for (int t = 3; t < 9; t++)
        tokens[t] = random_below(vocab);
    for (int t = 0; t < 9; t++)
        for (int i = 0; i < d_model; i++)
            want[t * d_model + i] = plain[tokens[t] * d_model + i];
    embed(x, tokens, weights, 0, 4);
    embed(x, tokens, weights, 4, 9);
    compare("embed", x, want, 9, d_model, stride);
    free(plain);
    end_case();
}

/* ---- mamba ---- */

static void check_conv(int row, int n_channels, int d_conv, int silu, int n_tokens)
{
    begin_case("conv1d", row);
    typedef void ConvFn(float *, const float *, const float *, const float *, float *, int, int, int);
    ConvFn *conv1d = (ConvFn *)find("conv1d");
    const int stride = whole(n_channels, PANEL), in_stride = stride + PANEL, n_panels = stride / PANEL;
    const float *in = random_rows(n_tokens, n_channels, in_stride), *weight = random_rows(d_conv, n_channels, stride);
    const float *bias = random_rows(1, n_channels, stride), *initial = random_rows(d_conv - 1, n_channels, stride);
    double *want = calloc((size_t)(n_tokens * n_channels), 8);
    for (int t = 0; t < n_tokens; t++)
        for (int c = 0; c < n_channels; c++) {
            double sum = bias[c];
            for (int j = 0; j < d_conv; j++) {
                const int at = t + j - (d_conv - 1);
                sum += (double)weight[j * stride + c] * (at >= 0 ? in[at * in_stride + c] : initial[(at + d_conv - 1) * stride + c]);
            }
            want[t * n_channels + c] = silu ? sum / (1 + exp(-sum)) : sum;
        }
    const size_t state_len = (size_t)((d_conv - 1) * stride);
    float *out = buffer((size_t)(n_tokens * stride)), *again = buffer((size_t)(n_tokens * stride));
    float *state = copy(initial, state_len), *state2 = copy(initial, state_len);
    conv1d(out, in, weight, bias, state, n_tokens, 0, n_panels);
    compare("conv1d", out, want, n_tokens, n_channels, stride);
    static const int chunks[] = { 1, 2, 1, 3, 5, 64 };
    for (int t = 0, i = 0, n; t < n_tokens; t += n) {
        n = chunks[i++] < n_tokens - t ? chunks[i - 1] : n_tokens - t;
        for (int p = 0; p < n_panels; p++)
            conv1d(again + t * stride, in + t * in_stride, weight, bias, state2, n, p, p + 1);
    }
    compare_bits("conv1d in chunks differs", out, again, n_tokens, n_channels, stride);
    compare_bits("conv1d: state differs", state, state2, d_conv - 1, n_channels, stride);
    free(want);
    end_case();
}

static void check_scan(int row, int d_inner, int d_state, int zoh, int n_tokens)
{
    begin_case("scan", row);
    typedef void ScanFn(float *, const float *, const float *, const float *, const float *, const float *, const float *,
                        float *, int, int, int);
    ScanFn *scan = (ScanFn *)find("scan");
    const int stride = whole(d_inner, PANEL), z_stride = stride + PANEL, bc_stride = 2 * d_state + 3, n_panels = stride / PANEL;
    float *dt = random_rows(n_tokens, d_inner, stride);
    const float *x = random_rows(n_tokens, d_inner, stride), *z = random_rows(n_tokens, d_inner, z_stride);
    const float *bc = random_rows(n_tokens, 2 * d_state, bc_stride), *d = random_rows(1, d_inner, stride);
    float *a = random_rows(d_state, d_inner, stride);
    const float *initial = random_rows(d_state, d_inner, stride);
    for (int i = 0; i < d_state * stride; i++)
        a[i] = i % 11 == 3 ? 0 : i % 13 == 5 ? -1e-6f : -8 * fabsf(a[i]);
    for (int i = 0; i < n_tokens * stride; i++)
        dt[i] *= i % 5 == 0 ? 20 : 2;
    double *want = malloc(8 * (size_t)(n_tokens * d_inner));
    for (int c = 0; c < d_inner; c++) {
        double s[64];
        for (int n = 0; n < d_state; n++)
            s[n] = initial[n * stride + c];
        for (int t = 0; t < n_tokens; t++) {
            const double delta = log1p(exp((double)dt[t * stride + c])), xt = x[t * stride + c], zt = z[t * z_stride + c];
            double y = d[c] * xt;
            for (int n = 0; n < d_state; n++) {
                const double A = (double)a[n * stride + c] / 1.4426950408889634;
                const double step = zoh && A != 0 ? expm1(delta * A) / A : delta;
                s[n] = exp(delta * A) * s[n] + step * bc[t * bc_stride + n] * xt;
                y += bc[t * bc_stride + d_state + n] * s[n];
            }
            want[t * d_inner + c] = y * zt / (1 + exp(-zt));
        }
    }
    const size_t len = (size_t)(n_tokens * stride), state_len = (size_t)(d_state * stride);
    float *y = buffer(len), *again = copy(dt, len), *state = copy(initial, state_len), *state2 = copy(initial, state_len);
    scan(y, dt, x, bc, z, a, d, state, n_tokens, 0, n_panels);
    compare("scan", y, want, n_tokens, d_inner, stride);
    static const int chunks[] = { 1, 3, 5, 64 };                    /* in place, a panel at a time */
    for (int t = 0, i = 0, n; t < n_tokens; t += n) {
        n = chunks[i++] < n_tokens - t ? chunks[i - 1] : n_tokens - t;
        for (int p = 0; p < n_panels; p++)
            scan(again + t * stride, again + t * stride, x + t * stride, bc + t * bc_stride, z + t * z_stride, a, d, state2, n, p, p + 1);
    }
    compare_bits("scan in chunks differs", y, again, n_tokens, d_inner, stride);
    compare_bits("scan: state differs", state, state2, d_state, d_inner, stride);
    free(want);
    end_case();
}

static void check_swiglu(int row, int d_ff, int n_rows)
{
    begin_case("swiglu", row);
    void (*swiglu)(float *, const float *, const float *, int, int, int) = (void (*)(float *, const float *, const float *, int, int, int))find("swiglu");
    const int stride = whole(d_ff, PANEL);
    float *gate = random_rows(n_rows, d_ff, stride), *up = random_rows(n_rows, d_ff, stride);
    double *want = malloc(8 * (size_t)(n_rows * d_ff));
    for (int r = 0; r < n_rows; r++)
        for (int i = 0; i < d_ff; i++) {
            gate[r * stride + i] *= 8;
            want[r * d_ff + i] = silu(gate[r * stride + i]) * up[r * stride + i];
        }
    swiglu(up, gate, up, n_rows, 0, stride / PANEL);
    compare("swiglu", up, want, n_rows, d_ff, stride);
    free(want);
    end_case();
}

/* ---- attention ---- */

static void check_rope(int row, int n_heads, int head_dim, double theta)
{
    begin_case("rope", row);
    void (*rope_table)(float *, int64_t, int, int) = (void (*)(float *, int64_t, int, int))find("rope_table");
    void (*rope)(float *, const float *, const float *, int, int) = (void (*)(float *, const float *, const float *, int, int))find("rope");
    enum { ROWS = 7 };
    const int width = n_heads * head_dim, in_stride = whole(width, PANEL), out_stride = in_stride + PANEL, half = head_dim / 2;
    const int64_t position = 100000;
    float *in = random_rows(ROWS, width, in_stride), *out = buffer((size_t)(ROWS * out_stride)), *table = buffer((size_t)(ROWS * head_dim));
    double *want = malloc(8 * (size_t)(ROWS * width));
    for (int r = 0; r < ROWS; r++)
        for (int h = 0; h < n_heads; h++)
            for (int i = 0; i < half; i++) {
                const double angle = (double)(position + r) * pow(theta, -2.0 * i / head_dim);
                const double lo = in[r * in_stride + h * head_dim + i], hi = in[r * in_stride + h * head_dim + half + i];
                want[r * width + h * head_dim + i] = lo * cos(angle) - hi * sin(angle);
                want[r * width + h * head_dim + half + i] = hi * cos(angle) + lo * sin(angle);
            }
    rope_table(table, position, 0, 3);
    rope_table(table, position, 3, ROWS);
    rope(out, in, table, 0, ROWS);
    compare("rope", out, want, ROWS, width, out_stride);
    free(want);
    end_case();
}

static void check_attention(int row, int n_heads, int n_kv_heads, int head_dim, int window, int token_block, int key_block, int n_tokens)
{
    begin_case("attention", row);
    typedef void AttentionFn(float *, const float *, const float *, const float *, const float *, const float *,
                             int64_t, int64_t, int, float *, int, int);
    typedef void RingFn(float *, float *, const float *, const float *, int64_t, int64_t, int, int, int);
    AttentionFn *attention = (AttentionFn *)find("attention");
    RingFn *ring_write = (RingFn *)find("ring_write");
    const int group = n_heads / n_kv_heads, q_width = n_heads * head_dim, kv_width = n_kv_heads * head_dim;
    const int q_stride = whole(q_width, PANEL), kv_stride = whole(kv_width, PANEL), head_stride = whole(head_dim, PANEL);
    const int ring_rows = window ? window : n_tokens, max_rows = whole(token_block * group, kernel_tile_rows);
    float *q = random_rows(n_tokens, q_width, q_stride), *k = random_rows(n_tokens, kv_width, kv_stride), *v = random_rows(n_tokens, kv_width, kv_stride);
    double *want = calloc((size_t)(n_tokens * q_width), 8), *p = malloc(8 * (size_t)n_tokens);
    key_block *= PANEL;
    for (int i = 0; i < n_tokens * q_stride; i++)
        q[i] *= 4;
    for (int t = 0; t < n_tokens; t++)
        for (int h = 0; h < n_heads; h++) {
            const int first = window && t >= window ? t - window + 1 : 0, kv = h / group * head_dim;
            double top = -1e300, sum = 0;
            for (int j = first; j <= t; j++) {
                p[j] = 0;
                for (int i = 0; i < head_dim; i++)
                    p[j] += (double)q[t * q_stride + h * head_dim + i] * k[j * kv_stride + kv + i];
                p[j] /= sqrt(head_dim);
                top = p[j] > top ? p[j] : top;
            }
            for (int j = first; j <= t; j++)
                sum += p[j] = exp(p[j] - top);
            for (int j = first; j <= t; j++)
                for (int i = 0; i < head_dim; i++)
                    want[t * q_width + h * head_dim + i] += p[j] / sum * v[j * kv_stride + kv + i];
        }
    float *scratch = buffer((size_t)(max_rows * (head_dim + key_block + head_stride + PANEL + 2) + (2 * key_block + 1) * head_stride));
    float *all = buffer((size_t)(n_tokens * q_stride)), *again = buffer((size_t)(n_tokens * q_stride));
    float *ring_k = buffer((size_t)(ring_rows * kv_stride)), *ring_v = buffer((size_t)(ring_rows * kv_stride));
    attention(all, q, k, v, ring_k, ring_v, 0, ring_rows, n_tokens, scratch, 0, 1);
    compare("attention", all, want, n_tokens, q_width, q_stride);
    static const int chunks[] = { 1, 3, 5, 11, 1, 2, 40, 64, 64 };      /* two threads */
    for (int t = 0, i = 0, n; t < n_tokens; t += n) {
        n = chunks[i++] < n_tokens - t ? chunks[i - 1] : n_tokens - t;
        for (int thread = 0; thread < 2; thread++)
            attention(again + t * q_stride, q + t * q_stride, k + t * kv_stride, v + t * kv_stride, ring_k, ring_v, t, ring_rows, n, scratch, thread, 2);
        for (int panel = 0; panel < kv_stride / PANEL; panel++)
            ring_write(ring_k, ring_v, k + t * kv_stride, v + t * kv_stride, t, ring_rows, n, panel, panel + 1);
    }
    compare_bits("attention in chunks differs", all, again, n_tokens, q_width, q_stride);
    free(want), free(p);
    end_case();
}

int main(void)
{
    for (int f = 0; f < N_SIMD_FUNCTIONS; f++) {
        float at = 0;
        const double worst = simd_worst(&simd_functions[f], 20011, &at);
        if (!(worst <= simd_functions[f].bound)) {
            fprintf(stderr, "%s: %.2f ulp at %.9g, bound %g\n", simd_functions[f].name, worst, at, simd_functions[f].bound);
            n_failed++;
        }
    }
    check_dot();
    check_tiles();
#define GEMM_Q(i, o, e, w, ip, op, hb, ac, exact, t) \
    for (int k = 1; k <= e; k++)                     \
        check_gemm_q(__LINE__, i, o, e, w, ip, op, hb, ac, exact, k, t);
#define QUANTIZE(...) check_quantize(__LINE__, __VA_ARGS__);
#define GEMM(...) check_gemm(__LINE__, __VA_ARGS__);
#ifdef ROUNDS_ROWS
#define GEMM_BF16(i, o, e, ip, op, hb, ac, exact, k, t) check_gemm(__LINE__, i, o, e, 5, ip, op, hb, ac, exact, k, t);
#else
#define GEMM_BF16(...)
#endif
#define ROWS(...) check_rows(__LINE__, __VA_ARGS__);
#define GROUP(...) check_group(__LINE__, __VA_ARGS__);
#define EMBED(...) check_embed(__LINE__, __VA_ARGS__);
#define CONV(...) check_conv(__LINE__, __VA_ARGS__);
#define SCAN(...) check_scan(__LINE__, __VA_ARGS__);
#define SWIGLU(...) check_swiglu(__LINE__, __VA_ARGS__);
#define ROPE(...) check_rope(__LINE__, __VA_ARGS__);
#define ATTENTION(...) check_attention(__LINE__, __VA_ARGS__);
#include "cases.def"
    printf("%d lanes: %d cases, %d failures\n", LANES, n_checked, n_failed);
    return n_failed != 0;
}
