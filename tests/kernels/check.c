/* Kernel tests, the half that runs on the target: instances against naive loops in double.
 *
 * Linked with the rendered instances of cases.def (driver.c writes them) and with tuner/reference.c, whose loops the
 * tuner compares candidates with; knows nothing else of mossc.
 * Every kernel is compared with the specification's formula, then run again cut into chunks,
 * panel ranges and threads' shares, whose results must be equal bit for bit. Padding that may hold
 * junk holds NaN, scratch has its documented length exactly, and a canary follows every buffer.
 */
#include "runtime/dot.h"
#include "runtime/route.h"
#include "runtime/tile.h"
#include "tests/unit/simd_errors.h"
#include "tuner/reference.h"

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

/* allowed: [rows][cols], or NULL and every element may be off by `most`. */
static void compare_within(const char *what, const float *got, const double *want, const double *allowed, double most,
                           int rows, int cols, int stride)
{
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) {
            const double g = got[(size_t)r * (size_t)stride + (size_t)c], w = want[r * cols + c];
            if (!(fabs(g - w) <= (allowed ? allowed[r * cols + c] : most))) {
                fprintf(stderr, "  row %d column %d: %.9g, expected %.9g\n", r, c, g, w);
                fail(what);
                return;
            }
        }
}

static void compare_allowed(const char *what, const float *got, const double *want, const double *allowed, int rows,
                            int cols, int stride)
{
    compare_within(what, got, want, allowed, 0, rows, cols, stride);
}

static void compare(const char *what, const float *got, const double *want, int rows, int cols, int stride)
{
    double most = 1e-30;
    for (int i = 0; i < rows * cols; i++)
        most = fabs(want[i]) > most ? fabs(want[i]) : most;
    compare_within(what, got, want, NULL, 1e-5 * most, rows, cols, stride);
}

static void compare_bits(const char *what, const float *a, const float *b, int rows, int cols, int stride)
{
    for (int r = 0; r < rows; r++)
        if (memcmp(a + (size_t)r * (size_t)stride, b + (size_t)r * (size_t)stride, 4 * (size_t)cols) != 0) {
            fail(what);
            return;
        }
}

#include "check_products.h"
#include "check_tiles.h"

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
    enum { ROWS = 2 * LANES + 5 };
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
    int32_t *experts = (int32_t *)buffer((size_t)(ROWS * n_experts));
    int32_t *experts2 = (int32_t *)buffer((size_t)(ROWS * n_experts));
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
    typedef void GroupFn(int32_t *, int32_t *, const int32_t *, int);
    GroupFn *group = (GroupFn *)find("group");
    int32_t *experts = (int32_t *)buffer((size_t)n_pairs), *slots = (int32_t *)buffer((size_t)n_pairs);
    int32_t *offsets = (int32_t *)buffer((size_t)n_experts + 1);
    int32_t *slots2 = (int32_t *)buffer((size_t)n_pairs), *offsets2 = (int32_t *)buffer((size_t)n_experts + 1);
    for (int p = 0; p < n_pairs; p++)
        experts[p] = random_below((n_experts + 1) / 2) * 2 % n_experts;
    group(slots, offsets, experts, n_pairs);
    ref_group(slots2, offsets2, experts, n_pairs, n_experts);
    if (memcmp(slots, slots2, 4 * (size_t)n_pairs) || memcmp(offsets, offsets2, 4 * (size_t)(n_experts + 1)))
        fail("wrong order");
    end_case();
}

static void check_embed(int row, int vocab, int d_model, int dtype)
{
    begin_case("embed", row);
    typedef void EmbedFn(float *, const int32_t *, const void *, int, int);
    EmbedFn *embed = (EmbedFn *)find("embed");
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
                sum += (double)weight[j * stride + c]
                     * (at >= 0 ? in[at * in_stride + c] : initial[(at + d_conv - 1) * stride + c]);
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
    const int stride = whole(d_inner, PANEL), z_stride = stride + PANEL, bc_stride = 2 * d_state + 3;
    const int n_panels = stride / PANEL;
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
            const double delta = log1p(exp((double)dt[t * stride + c]));
            const double xt = x[t * stride + c], zt = z[t * z_stride + c];
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
    float *y = buffer(len), *again = copy(dt, len);
    float *state = copy(initial, state_len), *state2 = copy(initial, state_len);
    scan(y, dt, x, bc, z, a, d, state, n_tokens, 0, n_panels);
    compare("scan", y, want, n_tokens, d_inner, stride);
    static const int chunks[] = { 1, 3, 5, 64 };                    /* in place, a panel at a time */
    for (int t = 0, i = 0, n; t < n_tokens; t += n) {
        n = chunks[i++] < n_tokens - t ? chunks[i - 1] : n_tokens - t;
        for (int p = 0; p < n_panels; p++)
            scan(again + t * stride, again + t * stride, x + t * stride, bc + t * bc_stride, z + t * z_stride, a, d,
                 state2, n, p, p + 1);
    }
    compare_bits("scan in chunks differs", y, again, n_tokens, d_inner, stride);
    compare_bits("scan: state differs", state, state2, d_state, d_inner, stride);
    free(want);
    end_case();
}

static void check_swiglu(int row, int d_ff, int n_rows)
{
    begin_case("swiglu", row);
    typedef void SwigluFn(float *, const float *, const float *, int, int, int);
    SwigluFn *swiglu = (SwigluFn *)find("swiglu");
    const int stride = whole(d_ff, PANEL);
    float *gate = random_rows(n_rows, d_ff, stride), *up = random_rows(n_rows, d_ff, stride);
    double *want = malloc(8 * (size_t)(n_rows * d_ff));
    for (int r = 0; r < n_rows; r++)
        for (int i = 0; i < d_ff; i++) {
            gate[r * stride + i] *= 8;
            want[r * d_ff + i] = ref_silu(gate[r * stride + i]) * up[r * stride + i];
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
    typedef void RopeFn(float *, const float *, const float *, int, int);
    RopeFn *rope = (RopeFn *)find("rope");
    enum { ROWS = 7 };
    const int width = n_heads * head_dim, in_stride = whole(width, PANEL), out_stride = in_stride + PANEL;
    const int half = head_dim / 2;
    const int64_t position = 100000;
    float *in = random_rows(ROWS, width, in_stride), *out = buffer((size_t)(ROWS * out_stride));
    float *table = buffer((size_t)(ROWS * head_dim));
    double *want = malloc(8 * (size_t)(ROWS * width));
    for (int r = 0; r < ROWS; r++)
        for (int h = 0; h < n_heads; h++)
            for (int i = 0; i < half; i++) {
                const double angle = (double)(position + r) * pow(theta, -2.0 * i / head_dim);
                const float *head = in + r * in_stride + h * head_dim;
                const double lo = head[i], hi = head[half + i];
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

static void check_attention(int row, int n_heads, int n_kv_heads, int head_dim, int window, int token_block,
                            int key_block, int n_tokens)
{
    begin_case("attention", row);
    typedef void AttentionFn(float *, const float *, const float *, const float *, const float *, const float *,
                             int64_t, int64_t, int, float *, int, int);
    typedef void RingFn(float *, float *, const float *, const float *, int64_t, int64_t, int, int, int);
    AttentionFn *attention = (AttentionFn *)find("attention");
    RingFn *ring_write = (RingFn *)find("ring_write");
    const int group = n_heads / n_kv_heads, q_width = n_heads * head_dim, kv_width = n_kv_heads * head_dim;
    const int q_stride = whole(q_width, PANEL), kv_stride = whole(kv_width, PANEL);
    const int head_stride = whole(head_dim, PANEL);
    const int ring_rows = window ? window : n_tokens, max_rows = whole(token_block * group, kernel_tile_rows);
    float *q = random_rows(n_tokens, q_width, q_stride), *k = random_rows(n_tokens, kv_width, kv_stride);
    float *v = random_rows(n_tokens, kv_width, kv_stride);
    double *want = calloc((size_t)(n_tokens * q_width), 8), *allowed = calloc((size_t)(n_tokens * q_width), 8);
    const RefAttention reference = { n_heads, n_kv_heads, head_dim, window, n_tokens, q_stride, kv_stride, 0, n_tokens,
                                     q, k, v, NULL, NULL };
    key_block *= PANEL;
    for (int i = 0; i < n_tokens * q_stride; i++)
        q[i] *= 4;
    if (!ref_attention(&reference, want, allowed))
        exit(1);
    float *scratch = buffer((size_t)(max_rows * (head_dim + key_block + head_stride + PANEL + 2)
                                     + (2 * key_block + 1) * head_stride));
    float *all = buffer((size_t)(n_tokens * q_stride)), *again = buffer((size_t)(n_tokens * q_stride));
    float *ring_k = buffer((size_t)(ring_rows * kv_stride)), *ring_v = buffer((size_t)(ring_rows * kv_stride));
    attention(all, q, k, v, ring_k, ring_v, 0, ring_rows, n_tokens, scratch, 0, 1);
    compare("attention", all, want, n_tokens, q_width, q_stride);
    static const int chunks[] = { 1, 3, 5, 11, 1, 2, 40, 64, 64 };      /* two threads */
    for (int t = 0, i = 0, n; t < n_tokens; t += n) {
        n = chunks[i++] < n_tokens - t ? chunks[i - 1] : n_tokens - t;
        for (int thread = 0; thread < 2; thread++)
            attention(again + t * q_stride, q + t * q_stride, k + t * kv_stride, v + t * kv_stride, ring_k, ring_v, t,
                      ring_rows, n, scratch, thread, 2);
        for (int panel = 0; panel < kv_stride / PANEL; panel++)
            ring_write(ring_k, ring_v, k + t * kv_stride, v + t * kv_stride, t, ring_rows, n, panel, panel + 1);
    }
    compare_bits("attention in chunks differs", all, again, n_tokens, q_width, q_stride);
    free(want), free(allowed);
    end_case();
}

int main(void)
{
    for (int f = 0; f < N_SIMD_FUNCTIONS; f++) {
        float at = 0;
        const double worst = simd_worst(&simd_functions[f], 20011, &at);
        if (!(worst <= simd_functions[f].bound)) {
            fprintf(stderr, "%s: %.2f ulp at %.9g, bound %g\n", simd_functions[f].name, worst, at,
                    simd_functions[f].bound);
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
#ifdef ROUNDED
#define GEMM_ROUNDED(i, o, e, ip, op, hb, ac, exact, k, t) \
    check_gemm(__LINE__, i, o, e, ROUNDED, ip, op, hb, ac, exact, k, t);
#else
#define GEMM_ROUNDED(...)
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
