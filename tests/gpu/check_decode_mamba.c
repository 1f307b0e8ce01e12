/* The four decode kernels of a mamba layer, against plain loops. */
#include "check_decode.h"

/* out [n_out] = Σ_e gate_e · W_e · in, over the experts that the row chose. */
static void routed_product(double *out, const Route *route, int row, const CheckWeights *w, int n_out, int n_in,
    const double *in)
{
    for (int o = 0; o < n_out; o++) {
        out[o] = 0;
        for (int e = 0; e < route->n_experts; e++)
            for (int i = 0; i < n_in && route->gates[row * route->n_experts + e] != 0; i++)
                out[o] += route->gates[row * route->n_experts + e] * w->plain[((size_t)e * (size_t)n_out
                    + (size_t)o) * (size_t)n_in + (size_t)i] * in[i];
    }
}

static void check_in(void)
{
    const int d = check_param("n_in"), c = check_param("n_channels"), taps = check_param("d_conv"),
        n_experts = check_param("n_experts");
    const int n_rows = check_param("n_rows"), top_k = check_param("top_k"), act = check_param("act"),
        dtype = check_param("weight_dtype");
    const int own = 8 * check_param("tiles"), blocks = (c + own - 1) / own, c8 = (c + 7) / 8 * 8;
    const Route route = random_route(n_rows, n_experts, top_k, check_param("n_parts"), check_param("renormalize"), d,
        check_param_float("eps"));
    const float *x = check_random_f32(n_rows, d, d), *norm = check_random_f32(1, d, d), *conv = check_random_f32(c,
        taps, taps);
    const float *bias = check_random_f32(1, c, c), *router = n_experts > 1 ? check_random_f32(n_experts, c, c) : NULL;
    const CheckWeights w = check_random_weights(n_experts, 2 * c8, d, dtype);
    const size_t kept_len = (size_t)(taps - 1) * (size_t)c;
    const Slots slots = random_slots(n_rows, 4 * kept_len);
    char *state = check_buffer((size_t)slots.stride * (size_t)slots.n_slots);
    double *old = check_doubles((size_t)n_rows * kept_len + 1), *kept = check_doubles((size_t)n_rows * kept_len + 1);
    double *want_xc = check_doubles((size_t)(n_rows * c)), *want_z = check_doubles((size_t)(n_rows * c));
    double *want_logits = check_doubles((size_t)(n_rows * n_experts * blocks)), *u = check_doubles((size_t)d),
        *both = check_doubles((size_t)(2 * c8));
    for (int row = 0; row < n_rows; row++) {
        float *own_state = (float *)(state + slots.slots[row] * slots.stride);
        for (size_t i = 0; i < kept_len; i++)
            old[(size_t)row * kept_len + i] = (double)(own_state[i] = check_random());
        for (int i = 0; i < d; i++)
            u[i] = check_act_value(check_act_round((double)x[row * d + i] * route.scale[row] * (double)norm[i], act),
                act);
        routed_product(both, &route, row, &w, 2 * c8, d, u);
        for (int i = 0; i < c; i++) {
            double sum = (double)bias[i] + (double)conv[i * taps + taps - 1] * both[i];
            for (int j = 0; j + 1 < taps; j++) {
                sum += (double)conv[i * taps + j] * old[(size_t)row * kept_len + (size_t)(j * c + i)];
                kept[(size_t)row * kept_len + (size_t)(j * c + i)] = j + 2 < taps ? old[(size_t)row * kept_len
                    + (size_t)((j + 1) * c + i)] : both[i];
            }
            want_xc[row * c + i] = silu(sum);
            want_z[row * c + i] = both[c8 + i];
            for (int e = 0; e < n_experts && router; e++)
                want_logits[(row * n_experts + e) * blocks + i / own] += silu(sum) * (double)router[e * c + i];
        }
    }
    double *want_xh = check_doubles((size_t)(n_rows * c));
    memcpy(want_xh, want_xc, sizeof(double) * (size_t)(n_rows * c));
    uint16_t *xh = check_buffer(sizeof(uint16_t) * (size_t)(n_rows * c8));
    float *xc = check_buffer(sizeof(float) * (size_t)(n_rows * c)),
        *z = check_buffer(sizeof(float) * (size_t)(n_rows * c));
    float *logits = router ? check_buffer(sizeof(float) * (size_t)(n_rows * n_experts * blocks)) : NULL;
    const float *scales = w.scales;
    uint8_t *states = (uint8_t *)state;
    early((const void *[]){ norm, conv, bias, router, states, slots.slots }, 6);
    CHECK_LAUNCH(blocks, 1, check_param("threads"), SHARED_LEN, xh, xc, z, logits, x, route.parts, norm, w.weights,
        scales, conv, bias, router, states, slots.slots, slots.stride, n_rows, top_k);
    check_rows_act("xh", xh, want_xh, n_rows, c, c8, act, loose[dtype]);
    check_rows_f32("xc", xc, want_xc, n_rows, c, c, loose[dtype]);
    check_rows_f32("z", z, want_z, n_rows, c, c, loose[dtype]);
    if (router)
        check_rows_f32("logits", logits, want_logits, 1, n_rows * n_experts * blocks, n_rows * n_experts * blocks,
            loose[dtype]);
    for (int row = 0; row < n_rows && kept_len; row++)
        check_rows_f32("state", (float *)(state + slots.slots[row] * slots.stride), kept + (size_t)row * kept_len, 1,
            (int)kept_len, (int)kept_len, loose[dtype]);
    check_untouched("slot 0", state, (size_t)slots.stride);
}

static void check_x(void)
{
    const int c = check_param("n_in"), n_out = check_param("n_out"), n_experts = check_param("n_experts"),
        n_rows = check_param("n_rows"), stride = (c + 7) / 8 * 8;
    const int top_k = check_param("top_k"), act = check_param("act"), dtype = check_param("weight_dtype");
    const Route route = random_route(n_rows, n_experts, top_k, check_param("n_parts"), check_param("renormalize"),
        0, 0);
    const uint16_t *x = check_random_act(n_rows, c, stride, act);
    const CheckWeights w = check_random_weights(n_experts, n_out, c, dtype);
    const float *scales = w.scales;
    const size_t count = (size_t)(n_rows * n_experts * n_out);
    float *out = check_buffer(sizeof(float) * count);
    float *gates = n_experts > 1 ? check_buffer(sizeof(float) * (size_t)(n_rows * n_experts)) : NULL;
    double *want = check_doubles(count);
    CHECK_LAUNCH((n_out + 7) / 8 * n_experts + (n_experts > 1), 1, 32 * check_param("n_slices"), SHARED_LEN, out, gates,
        x, route.parts, w.weights, scales, n_rows, top_k);
    for (size_t at = 0; at < count; at++)
        for (int i = 0; i < c; i++)
            want[at] += w.plain[(int)at % (n_experts * n_out) * c + i]
                * check_act_value(x[(int)at / (n_experts * n_out) * stride + i], act);
    check_rows_f32("out", out, want, 1, (int)count, (int)count, 1e-5);
    if (gates)
        check_rows_f32("gates", gates, route.gates, 1, n_rows * n_experts, n_rows * n_experts, 1e-5);
}

static double softplus(double v) { return v > 30 ? v : log1p(exp(v)); }

static void check_scan(void)
{
    const int c = check_param("n_channels"), n = check_param("d_state"), r = check_param("dt_rank"),
        n_experts = check_param("n_experts");
    const int n_rows = check_param("n_rows"), top_k = check_param("top_k"), act = check_param("act"),
        dtype = check_param("weight_dtype");
    const int n_out = r + 2 * n, own = 8 * check_param("tiles"),
        blocks = (c + own - 1) / own;
    const int y_stride = (c + 7) / 8 * 8;
    const Route route = random_route(n_rows, n_experts, top_k, 1, false, 0, 0);
    float *gates = check_buffer(sizeof(float) * (size_t)(n_rows * n_experts));
    for (int i = 0; i < n_rows * n_experts; i++)
        route.gates[i] = (double)(gates[i] = (float)route.gates[i]);
    check_freeze(gates);
    const float *xp = check_random_f32(n_rows * n_experts, n_out, n_out), *xc = check_random_f32(n_rows, c,
        c);
    const float *z = check_random_f32(n_rows, c, c), *bias = check_random_f32(n_experts, c, c),
        *d = check_random_f32(1, c, c);
    const float *router = n_experts > 1 ? check_random_f32(n_experts, c, c) : NULL;
    float *a = check_buffer(sizeof(float) * (size_t)(c * n));
    for (int i = 0; i < c * n; i++)
        a[i] = i % 7 == 3 ? 0 : -2 * fabsf(check_random());
    check_freeze(a);
    const CheckWeights w = check_random_weights(1, c, n_experts * r, dtype);       /* joined: [c][e r + j] */
    const Slots slots = random_slots(n_rows, sizeof(float) * (size_t)(c * n));
    char *state = check_buffer((size_t)slots.stride * (size_t)slots.n_slots);
    double *want_y = check_doubles((size_t)(n_rows * c)), *want_state = check_doubles((size_t)(n_rows * c * n));
    double *want_logits = check_doubles((size_t)(n_rows * n_experts * blocks)),
        *u = check_doubles((size_t)(n_experts * r)), *bc = check_doubles((size_t)(2 * n));
    for (int row = 0; row < n_rows; row++) {
        float *old = (float *)(state + slots.slots[row] * slots.stride);
        memset(bc, 0, sizeof(double) * (size_t)(2 * n));
        for (int e = 0; e < n_experts; e++)
            for (int j = 0; j < n_out; j++) {
                const double sum = (double)xp[(row * n_experts + e) * n_out + j] * route.gates[row * n_experts + e];
                if (j < r)
                    u[e * r + j] = check_act_value(check_act_round(sum, act), act);
                else
                    bc[j - r] += sum;
            }
        for (int i = 0; i < c; i++) {
            double dt = 0, y = (double)d[i] * (double)xc[row * c + i];
            for (int j = 0; j < n_experts * r; j++)
                dt += w.plain[i * n_experts * r + j] * u[j];
            for (int e = 0; e < n_experts; e++)
                dt += route.gates[row * n_experts + e] * (double)bias[e * c + i];
            dt = softplus(dt);
            for (int j = 0; j < n; j++) {
                const double power = dt * (double)a[i * n + j] * log(2.0),
                    ratio = power == 0 ? 1 : expm1(power) / power;
                old[i * n + j] = check_random();
                const double now = exp(power) * (double)old[i * n + j]
                    + dt * (check_param("zoh") ? ratio : 1) * bc[j] * (double)xc[row * c + i];
                want_state[(row * c + i) * n + j] = now;
                y += bc[n + j] * now;
            }
            y *= silu((double)z[row * c + i]);
            want_y[row * c + i] = y;
            for (int e = 0; e < n_experts && router; e++)
                want_logits[(row * n_experts + e) * blocks + i / own] += y * (double)router[e * c + i];
        }
    }
    uint16_t *y = check_buffer(sizeof(uint16_t) * (size_t)(n_rows * y_stride));
    float *logits = router ? check_buffer(sizeof(float) * (size_t)(n_rows * n_experts * blocks)) : NULL;
    const float *scales = w.scales;
    uint8_t *states = (uint8_t *)state;
    early((const void *[]){ bias, a, d, router, states, slots.slots }, 6);
    CHECK_LAUNCH(blocks, 1, 32 * check_param("tiles") * check_param("n_slices"), SHARED_LEN, y, logits, xp, gates, xc,
        z, w.weights, scales, bias, a, d, router, states, slots.slots, slots.stride, n_rows);
    check_rows_act("y", y, want_y, n_rows, c, y_stride, act, loose[dtype]);
    if (router)
        check_rows_f32("logits", logits, want_logits, 1, n_rows * n_experts * blocks, n_rows * n_experts * blocks,
            loose[dtype]);
    for (int row = 0; row < n_rows; row++)
        check_rows_f32("state", (float *)(state + slots.slots[row] * slots.stride), want_state + row * c * n, c, n, n,
            loose[dtype]);
    check_untouched("slot 0", state, (size_t)slots.stride);
}

/* Rows of act by token, or one for each pair; or the parts that decode_attention leaves. */
static void check_out(void)
{
    const int n_in = check_param("n_in"), d = check_param("n_out"), n_experts = check_param("n_experts"),
        n_rows = check_param("n_rows");
    const int top_k = check_param("top_k"), act = check_param("act"), dtype = check_param("weight_dtype"),
        by_pair = check_param("by_pair");
    const int splits = check_param("splits"), head_dim = check_param("head_dim"), stride = (n_in + 7) / 8 * 8;
    const Route route = random_route(n_rows, n_experts, top_k, check_param("n_parts"), check_param("renormalize"),
        check_param("normed") ? d : 0, check_param_float("eps"));
    const int n_inputs = n_rows * (by_pair ? route.top_k : 1), n_heads = splits ? n_in / head_dim : 1,
        each = n_heads * splits;
    const int n_used = splits ? (n_rows <= 2 ? splits : n_rows <= 4 ? splits / 2 : splits / 4) : 0;
    const uint16_t *rows = check_random_act(n_inputs, n_in, stride, act);
    const float *sums = splits ? check_random_f32(n_rows * each, head_dim, head_dim) : NULL;
    float *peaks = splits ? check_buffer(sizeof(float) * 2 * (size_t)(n_rows * each)) : NULL;
    for (int i = 0; i < n_rows * each; i++) {
        peaks[2 * i] = i % 5 == 4 && i % splits ? -3e38f : 4 * check_random();
        peaks[2 * i + 1] = 1.5f + check_random();
    }
    const CheckWeights w = check_random_weights(n_experts, d, n_in, dtype);
    float *x = check_buffer(sizeof(float) * (size_t)(n_rows * d));
    double *want = check_doubles((size_t)(n_rows * d)), *in = check_doubles((size_t)n_in);
    const Left left = random_left(n_rows, d, check_param("next_experts"));
    for (int row = 0; row < n_rows; row++) {
        for (int o = 0; o < d; o++)
            want[row * d + o] = (double)(x[row * d + o] = check_random());
        for (int e = 0, s = 0; e < n_experts; e++) {
            if (route.gates[row * n_experts + e] == 0)
                continue;
            for (int i = 0; i < n_in; i++) {
                in[i] = check_act_value(rows[(by_pair ? row * route.top_k + s : row) * stride + i], act);
                if (!splits)
                    continue;
                const int at = (row * n_heads + i / head_dim) * splits;
                double sum = 0, share = 0, best = -1e300;
                for (int p = 0; p < (n_used > 1 ? n_used : 1); p++)
                    best = fmax(best, (double)peaks[2 * (at + p)]);
                for (int p = 0; p < (n_used > 1 ? n_used : 1); p++) {
                    const double weight = exp2((double)peaks[2 * (at + p)] - best);
                    sum += weight * (double)sums[(at + p) * head_dim + i % head_dim];
                    share += weight * (double)peaks[2 * (at + p) + 1];
                }
                in[i] = check_act_value(check_act_round(sum / share, act), act);
            }
            for (int o = 0; o < d; o++)
                for (int i = 0; i < n_in; i++)
                    want[row * d + o] += route.gates[row * n_experts
                        + e] * w.plain[((size_t)e * (size_t)d + (size_t)o) * (size_t)n_in + (size_t)i] * in[i];
            s++;
        }
    }
    const float *scales = w.scales;
    const void *input = splits ? (const void *)sums : rows;
    early((const void *[]){ x, left.norm, left.router, check_param("known") ? route.parts : NULL }, 4);
    CHECK_LAUNCH((d + 7) / 8, 1, 32 * check_param("n_slices"), SHARED_LEN, x, left.parts, input, peaks, route.parts,
        w.weights, scales, left.norm, left.router, n_rows, top_k);
    check_rows_f32("x", x, want, n_rows, d, d, loose[dtype] / 10);
    check_left(&left, want, n_rows, d, loose[dtype]);
}

GPU_CHECKS({ "decode_in", check_in }, { "decode_x", check_x }, { "decode_scan", check_scan }, { "decode_out",
    check_out })
