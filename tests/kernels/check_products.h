/* Checks of products: gemm, gemv and their quantised forms, and the rows they read.
 *
 * Part of check.c, which has the buffers, the random numbers and the comparisons, and includes this once.
 * Invariant: loops in double on what is stored are what the kernels are compared with.
 */

/* ---- weights ---- */

static double value_of(int dtype, uint32_t bits)
{
    if (dtype == 2 || dtype == 6) {
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
 * [n_in / BF16_GROUP, up][PANEL][BF16_GROUP]. */
static void *random_weights(double *plain, int n_experts, int n_out, int n_in, int dtype)
{
    const int n_panels = (n_out + PANEL - 1) / PANEL;
    const size_t n_k = dtype == 5 ? BF16_GROUP : 1, steps = ((size_t)n_in + n_k - 1) / n_k;
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
                if (dtype == 2 || dtype == 6)
                    bits = (uint32_t)(random_bits() >> 20 & 0xBFFF) % 0xBC00 | (i % 7 == 0 ? 0x8000 : 0);
                if ((dtype == 2 || dtype == 6) && (bits & 0x7C00) > 0x3C00)
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
                    const float *, int, int, int, float *, int, int);
typedef void GemvFn(float *, const float *, const void *, const float *, const int32_t *, const float *, int, int, int);
typedef void GemmQFn(float *, const int8_t *, const void *, const float *, const int32_t *, const int32_t *,
                     const float *, int, int, int, int8_t *, int, int);
typedef void GemvQFn(float *, const int8_t *, const void *, const float *, const int32_t *, const float *, int, int,
                     int);

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

/* Of plain matrices [n_experts][n_out][n_in]. */
static void read_plain(const RefProduct *p, int expert, int panel, double *to /* [n_in][width] */)
{
    const double *plain = p->weights;
    for (int c = 0; c < p->width; c++)
        for (int i = 0; i < p->n_in; i++) {
            const int o = panel * p->width + c;
            const size_t row = (size_t)expert * (size_t)p->n_out + (size_t)o;
            to[i * p->width + c] = o < p->n_out ? plain[row * (size_t)p->n_in + (size_t)i] : 0;
        }
}

/* Rows of floats as numbers without padding. */
static double *plain_rows(const float *in, int rows, int cols, int stride)
{
    double *plain = malloc(8 * (size_t)(rows * cols));
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++)
            plain[r * cols + c] = in[r * stride + c];
    return plain;
}

/* Products as runtime/f16_arm.h says they are summed. */
static double f16_sum(const float *x /* [n] */, const double *w /* [n] */, int n)
{
    float sum = 0, most = 0;
#if defined __aarch64__
    for (int i = 0; i < n; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    const float scale = most > 0 ? ldexpf(1, -ilogbf(most) - 1) : 1;
    for (int begin = 0; begin < n; begin += 64) {
        _Float16 part[2] = { 0, 0 };
        for (int i = begin; i < n && i < begin + 64; i++)         /* exact in 113 bits, so rounded once */
            part[i % 2] = (_Float16)((long double)(_Float16)(x[i] * scale) * w[i] + part[i % 2]);
        sum += (float)(_Float16)(part[0] + part[1]);
    }
    return (double)sum / scale;
#else
    (void)x, (void)w, (void)n, (void)most;
    return sum;
#endif
}

/* What ref_product computes, of such sums; every element may be off by the same. */
static void f16_products(const RefProduct *p, const float *in, int in_stride, const double *plain,
                         const int32_t *experts, double *want, double *allowed)
{
    const int n_panels = (p->n_out + PANEL - 1) / PANEL, dense = p->n_experts == 1;
    double most = 1e-30;
    for (int pair = 0; pair < p->n_tokens * p->top_k; pair++)
        for (int o = 0; o < p->n_out; o++) {
            const int token = pair / p->top_k, e = experts[pair], row = p->out_pairs ? pair : token;
            const size_t column = (size_t)e * (size_t)p->n_out + (size_t)o;
            const double bias = p->bias ? p->bias[e * n_panels * PANEL + o] : 0;
            const double there = p->initial[row * p->out_stride + o];
            const float *x = in + (p->in_pairs ? pair : token) * in_stride;
            const double sum = bias + f16_sum(x, plain + column * (size_t)p->n_in, p->n_in);
            double *to = &want[row * p->n_out + o];
            if (p->accumulate == 2)
                *to = ref_silu(there) * sum;
            else if (p->out_pairs || pair % p->top_k == 0)
                *to = (p->accumulate ? there : 0) + sum * (p->out_pairs || dense ? 1 : p->gates[pair]);
            else
                *to += sum * p->gates[pair];
            most = fabs(*to) > most ? fabs(*to) : most;
        }
    for (int i = 0; i < (p->out_pairs ? p->n_tokens * p->top_k : p->n_tokens) * p->n_out; i++)
        allowed[i] = 1e-5 * most;
}

/* A product, of float rows or (gemm_q, gemv_q) of quantised ones: what its kernels take. */
typedef struct {
    GemmFn *gemm;
    GemvFn *gemv;
    GemmQFn *gemm_q;
    GemvQFn *gemv_q;
    int n_out, n_experts, in_pairs, out_pairs, top_k, n_tokens, in_stride, out_stride;
    const void *in, *weights;
    void *pack;
    const float *bias, *gates;
    const int32_t *experts;
    int32_t *slots, *offsets;             /* of the tokens of a call */
} Product;

/* Rows before those of a token, in `in` or `out`. */
static int rows_before(const Product *p, int by_pairs, int token) { return by_pairs ? token * p->top_k : token; }

/* Tokens [begin, end) of those that follow `first`, and some panels. */
static void call_gemm(const Product *p, float *out, int first, int begin, int end, int panel_begin, int panel_end)
{
    const int dense = p->n_experts == 1, in_at = rows_before(p, p->in_pairs, first) * p->in_stride;
    const int32_t *slots = dense ? NULL : p->slots, *offsets = dense ? NULL : p->offsets;
    const float *gates = dense ? NULL : p->gates + first * p->top_k;
    out += rows_before(p, p->out_pairs, first) * p->out_stride;
    if (p->gemm_q)
        p->gemm_q(out, (const int8_t *)p->in + in_at, p->weights, p->bias, slots, offsets, gates, begin, end, p->top_k,
                  p->pack, panel_begin, panel_end);
    else
        p->gemm(out, (const float *)p->in + in_at, p->weights, p->bias, slots, offsets, gates, begin, end, p->top_k,
                p->pack, panel_begin, panel_end);
}

static void call_gemv(const Product *p, float *out, int token, int n_panels)
{
    const int dense = p->n_experts == 1, in_at = rows_before(p, p->in_pairs, token) * p->in_stride;
    const int32_t *experts = dense ? NULL : p->experts + token * p->top_k;
    const float *gates = dense ? NULL : p->gates + token * p->top_k;
    out += rows_before(p, p->out_pairs, token) * p->out_stride;
    if (p->gemv_q)
        p->gemv_q(out, (const int8_t *)p->in + in_at, p->weights, p->bias, experts, gates, p->top_k, 0, n_panels);
    else
        p->gemv(out, (const float *)p->in + in_at, p->weights, p->bias, experts, gates, p->top_k, 0, n_panels);
}

/* gemm of all tokens into a copy of `initial` [out_rows][out_stride]. */
static float *product_of_all(const Product *p, const float *initial, int out_rows)
{
    float *out = copy(initial, (size_t)(out_rows * p->out_stride));
    ref_group(p->slots, p->offsets, p->experts, p->n_tokens * p->top_k, p->n_experts);
    call_gemm(p, out, 0, 0, p->n_tokens, 0, (p->n_out + PANEL - 1) / PANEL);
    return out;
}

/* In chunks, by two threads that share columns or rows, and token by token, it is to the bit what it is in one call. */
static void compare_pieces(const Product *p, const float *initial, const float *all, int out_rows)
{
    static const int chunks[] = { 1, 3, 7, 2, 5, 64, 64 };
    const int n_panels = (p->n_out + PANEL - 1) / PANEL;
    const size_t out_len = (size_t)(out_rows * p->out_stride);
    float *again = copy(initial, out_len), *single = copy(initial, out_len);
    for (int t = 0, c = 0, n, by_rows; t < p->n_tokens; t += n) {
        by_rows = c % 2;
        n = chunks[c++] < p->n_tokens - t ? chunks[c - 1] : p->n_tokens - t;
        ref_group(p->slots, p->offsets, p->experts + t * p->top_k, n * p->top_k, p->n_experts);
        for (int half = 0; half < 2; half++)
            call_gemm(p, again, t, by_rows && half ? n / 2 : 0, by_rows && !half ? n / 2 : n,
                      !by_rows && half ? n_panels / 2 : 0, !by_rows && !half ? n_panels / 2 : n_panels);
    }
    compare_bits("a product in chunks differs", all, again, out_rows, p->n_out, p->out_stride);
    for (int t = 0; t < p->n_tokens; t++)
        call_gemv(p, single, t, n_panels);
    compare_bits("gemv differs from gemm", all, single, out_rows, p->n_out, p->out_stride);
}

static void check_gemm(int row, int n_in, int n_out, int n_experts, int dtype, int in_pairs, int out_pairs,
                       int has_bias, int accumulate, int exact, int top_k, int n_tokens)
{
    begin_case("gemm", row);
    const int n_panels = (n_out + PANEL - 1) / PANEL, n_pairs = n_tokens * top_k;
    const int in_stride = whole(n_in, PANEL), out_stride = exact ? n_out : n_panels * PANEL;
    const int in_rows = in_pairs ? n_pairs : n_tokens, out_rows = out_pairs ? n_pairs : n_tokens;
    double *plain = malloc(8 * (size_t)(n_experts * n_out * n_in)), *want = calloc((size_t)(out_rows * n_out), 8);
    double *allowed = calloc((size_t)(out_rows * n_out), 8);
    const void *weights = random_weights(plain, n_experts, n_out, n_in, dtype);
    float *in = random_rows(in_rows, n_in, in_stride);
    for (int i = 0; i < in_rows * in_stride && dtype == 5; i++)
        in[i] = bf16_value(in[i]);          /* what is rounded then is exact */
    for (int i = 0; i < in_rows * in_stride && dtype == 6 && !has_bias; i++)
        in[i] = ldexpf(in[i], n_in % 2 ? -40 : 20);        /* beyond float16, but for a row's scale */
    const float *bias = has_bias ? random_rows(n_experts, n_out, n_panels * PANEL) : NULL;
    const float *initial = accumulate ? random_rows(out_rows, n_out, out_stride)
                                      : buffer((size_t)(out_rows * out_stride));
    const float *gates = n_experts > 1 ? random_rows(1, n_pairs, n_pairs) : NULL;
    float *pack = buffer((size_t)(kernel_block_rows + PANEL) * (size_t)whole(n_in, 16));
    int32_t *experts = malloc(4 * (size_t)n_pairs), *slots = malloc(4 * (size_t)n_pairs);
    int32_t *offsets = malloc(4 * (size_t)(n_experts + 1));
    random_experts(experts, n_tokens, top_k, n_experts);

    ref_group(slots, offsets, experts, n_pairs, n_experts);
    double *plain_in = plain_rows(in, in_rows, n_in, in_stride);
    const RefProduct wanted = { .n_in = n_in, .n_out = n_out, .n_experts = n_experts, .top_k = top_k,
                                 .n_tokens = n_tokens, .in_pairs = in_pairs, .out_pairs = out_pairs,
                                 .accumulate = accumulate, .width = PANEL, .panel_step = 1, .in = plain_in,
                                 .bias = bias, .gates = gates, .initial = initial, .out_stride = out_stride,
                                 .slots = slots, .offsets = offsets, .read = read_plain, .weights = plain };
    if (dtype == 6)
        f16_products(&wanted, in, in_stride, plain, experts, want, allowed);
    else if (!ref_product(&wanted, want, allowed))
        exit(1);

    const Product product = { .gemm = (GemmFn *)find("gemm"), .gemv = (GemvFn *)find("gemv"), .n_out = n_out,
                              .n_experts = n_experts, .in_pairs = in_pairs, .out_pairs = out_pairs, .top_k = top_k,
                              .n_tokens = n_tokens, .in_stride = in_stride, .out_stride = out_stride, .in = in,
                              .weights = weights, .pack = pack, .bias = bias, .gates = gates, .experts = experts,
                              .slots = slots, .offsets = offsets };
    const float *all = product_of_all(&product, initial, out_rows);
    compare_allowed("gemm", all, want, allowed, out_rows, n_out, out_stride);
    compare_pieces(&product, initial, all, out_rows);
    free(plain), free(plain_in), free(want), free(allowed), free(experts), free(slots), free(offsets);
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
    const int n_panels = (n_out + PANEL - 1) / PANEL, unit = dtype == WEIGHT_Q4 ? 2 * DOT_GROUP : DOT_GROUP;
    const int n_rows = (n_in + unit - 1) / unit;
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
                uint8_t *group = of + PANEL * 4 + ((size_t)(i / unit) * PANEL + (size_t)(o % PANEL)) * DOT_GROUP;
                uint8_t *byte = group + i % DOT_GROUP;
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

static void check_gemm_q(int row, int n_in, int n_out, int n_experts, int dtype, int in_pairs, int out_pairs,
                         int has_bias, int accumulate, int exact, int top_k, int n_tokens)
{
    begin_case("gemm_q", row);
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
    const float *initial = accumulate ? random_rows(out_rows, n_out, out_stride)
                                      : buffer((size_t)(out_rows * out_stride));
    const float *gates = n_experts > 1 ? random_rows(1, n_pairs, n_pairs) : NULL;
    const int pack_rows = kernel_block_rows + (dtype == WEIGHT_Q4 ? PANEL : 0);
    int8_t *pack = (int8_t *)buffer((size_t)(pack_rows * whole(n_in, 64)) / 4);
    int32_t *experts = malloc(4 * (size_t)n_pairs), *slots = malloc(4 * (size_t)n_pairs);
    int32_t *offsets = malloc(4 * (size_t)(n_experts + 1));
    random_experts(experts, n_tokens, top_k, n_experts);

    float *want = copy(initial, (size_t)(out_rows * out_stride));
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
            gated[(out_pairs ? p : p / top_k) * n_out + o] = ref_silu(*to) * (double)value;
            *to = fmaf(out_pairs || dense ? 1 : gates[p], value, accumulate || (!out_pairs && p % top_k) ? *to : 0);
        }
    }
    const Product product = { .gemm_q = (GemmQFn *)find("gemm_q"), .gemv_q = (GemvQFn *)find("gemv_q"), .n_out = n_out,
                              .n_experts = n_experts, .in_pairs = in_pairs, .out_pairs = out_pairs, .top_k = top_k,
                              .n_tokens = n_tokens, .in_stride = in_stride, .out_stride = out_stride, .in = in,
                              .weights = weights, .pack = pack, .bias = bias, .gates = gates, .experts = experts,
                              .slots = slots, .offsets = offsets };
    const float *all = product_of_all(&product, initial, out_rows);
    if (accumulate == 2)
        compare("gemm_q", all, gated, out_rows, n_out, out_stride);
    else
        compare_bits("gemm_q", all, want, out_rows, n_out, out_stride);
    compare_pieces(&product, initial, all, out_rows);
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
        if (memcmp(got, want, (size_t)whole(n_in, 64)) != 0
            || memcmp(got + whole(n_in, 64) + 4, want + whole(n_in, 64) + 4, 4) != 0)
            fail("quantize: bytes or sum");
        if (r > 7 ? isfinite(scale) : memcmp(&scale, want + whole(n_in, 64), 4) != 0)
            fail("quantize: scale");
    }
    free(want);
    end_case();
}
