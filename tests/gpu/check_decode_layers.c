/* The decode kernels of attention, mlp, both ends of the model, against plain loops. */
#include "check_decode.h"

static void check_embed(void)
{
    const int d = check_param("d_model"), n_rows = check_param("n_rows"), vocab = check_param("vocab"),
        dtype = check_param("weight_dtype");
    const CheckWeights w = check_random_weights(1, vocab, d, dtype);
    const Left left = random_left(n_rows, d, check_param("next_experts"));
    int32_t *tokens = check_buffer(sizeof(int32_t) * (size_t)n_rows);
    float *x = check_buffer(sizeof(float) * (size_t)(n_rows * d));
    double *want = check_doubles((size_t)(n_rows * d));
    for (int row = 0; row < n_rows; row++) {
        tokens[row] = row == 0 ? vocab - 1 : check_random_below(vocab);
        for (int i = 0; i < d; i++)
            want[row * d + i] = w.plain[tokens[row] * d + i];
    }
    const float *scales = w.scales;
    check_freeze(tokens);
    early((const void *[]){ left.norm, left.router }, 2);
    CHECK_LAUNCH(left.n_blocks, 1, check_param("threads"), SHARED_LEN, x, left.parts, tokens, w.weights, scales,
        left.norm, left.router, n_rows);
    check_rows_f32("x", x, want, n_rows, d, d, 1e-6);
    check_left(&left, want, n_rows, d, 1e-5);
}

/* positions: where the rings are filled to a part, just full, and have wrapped */
static int64_t *random_positions(int n_rows, int n_ring)
{
    int64_t *positions = check_buffer(sizeof(int64_t) * (size_t)n_rows);
    for (int row = 0; row < n_rows; row++)
        positions[row] = row == 0 ? check_param("position")
            : row == 1 ? 0 : row == 2 ? n_ring - 1 : check_random_below(3 * n_ring);
    check_freeze(positions);
    check_early(positions);
    return positions;
}

static void normed_row(double *u, const float *x, const float *norm, double scale, int d, int act)
{
    for (int i = 0; i < d; i++)
        u[i] = check_act_value(check_act_round((double)x[i] * scale * (double)norm[i], act), act);
}

static void check_qkv(void)
{
    const int d = check_param("n_in"), n_heads = check_param("n_heads"), n_kv = check_param("n_kv_heads"),
        hd = check_param("head_dim");
    const int n_rows = check_param("n_rows"), act = check_param("act"), dtype = check_param("weight_dtype"),
        rope = check_param("rope");
    const int64_t n_context = check_param("n_context"), n_ring = check_param("window") ? check_param("window")
        : n_context;
    const int q_cols = n_heads * hd, kv_cols = n_kv * hd, q_stride = (q_cols + 7) / 8 * 8, half = hd / 2;
    const Route route = random_route(n_rows, 1, 1, check_param("n_parts"), false, d, check_param_float("eps"));
    const float *x = check_random_f32(n_rows, d, d), *norm = check_random_f32(1, d, d),
        *table = check_random_f32(n_rows, hd, hd);
    const CheckWeights w[3] = { check_random_weights(1, q_cols, d, dtype), check_random_weights(1, kv_cols, d, dtype),
        check_random_weights(1, kv_cols, d, dtype) };
    const size_t ring_len = sizeof(uint16_t) * (size_t)n_ring * (size_t)kv_cols;
    const Slots slots = random_slots(n_rows, 2 * ring_len);
    const int64_t *positions = random_positions(n_rows, (int)n_ring);
    uint16_t *q = check_buffer(sizeof(uint16_t) * (size_t)(n_rows * q_stride));
    uint8_t *states = check_buffer((size_t)slots.stride * (size_t)slots.n_slots), *values = states + ring_len;
    double *want = check_doubles((size_t)(n_rows * (q_cols + 2 * kv_cols))), *u = check_doubles((size_t)d);
    for (int row = 0; row < n_rows; row++) {
        double *to = want + row * (q_cols + 2 * kv_cols);
        normed_row(u, x + row * d, norm, route.scale[row], d, act);
        for (int kind = 0, at = 0; kind < 3; at += kind == 0 ? q_cols : kv_cols, kind++) {
            const int cols = kind == 0 ? q_cols : kv_cols;
            for (int o = 0; o < cols; o++)
                for (int i = 0; i < d; i++)
                    to[at + o] += w[kind].plain[o * d + i] * u[i];
            for (int o = 0; o < cols && rope && kind < 2; o++) {
                if (o % hd >= half)
                    continue;
                const double a = to[at + o], b = to[at + o + half], cosine = (double)table[row * hd + o % hd],
                    sine = (double)table[row * hd + half + o % hd];
                to[at + o] = a * cosine - b * sine;
                to[at + o + half] = b * cosine + a * sine;
            }
        }
    }
    const float *s0 = w[0].scales, *s1 = w[1].scales, *s2 = w[2].scales;
    early((const void *[]){ norm, slots.slots, table }, 3);
    const int per_head = rope ? (half + 3) / 4 : (hd + 7) / 8;
    CHECK_LAUNCH((n_heads + 2 * n_kv) * per_head, 1, 32 * check_param("n_slices"), SHARED_LEN, q, states, values, x,
        route.parts, norm, w[0].weights, w[1].weights,
        w[2].weights, s0, s1, s2, table, positions, slots.slots, slots.stride, n_context, n_rows);
    for (int row = 0; row < n_rows; row++) {
        double *from = want + row * (q_cols + 2 * kv_cols);
        const size_t at = (size_t)slots.slots[row] * (size_t)slots.stride
            + sizeof(uint16_t) * (size_t)(positions[row] % n_ring) * (size_t)kv_cols;
        check_rows_act("q", q + row * q_stride, from, 1, q_cols, q_cols, act, loose[dtype]);
        check_rows_act("k", (uint16_t *)(states + at), from + q_cols, 1, kv_cols, kv_cols, act, loose[dtype]);
        check_rows_act("v", (uint16_t *)(values + at), from + q_cols + kv_cols, 1, kv_cols, kv_cols, act, loose[dtype]);
    }
    check_untouched("slot 0", states, (size_t)slots.stride);
}

static void check_attention(void)
{
    const int n_heads = check_param("n_heads"), n_kv = check_param("n_kv_heads"), hd = check_param("head_dim"),
        act = check_param("act");
    const int n_rows = check_param("n_rows"), splits = check_param("splits"), q_stride = (n_heads * hd + 7) / 8 * 8,
        kv_cols = n_kv * hd;
    const int64_t n_context = check_param("n_context"), n_ring = check_param("window") ? check_param("window")
        : n_context;
    const int n_used = n_rows <= 2 ? splits : splits / (n_rows <= 4 ? 2 : 4) > 1 ? splits / (n_rows <= 4 ? 2 : 4) : 1,
        per_kv = n_heads / n_kv;
    const uint16_t *q = check_random_act(n_rows, n_heads * hd, q_stride, act);
    const size_t ring_len = sizeof(uint16_t) * (size_t)n_ring * (size_t)kv_cols;
    const Slots slots = random_slots(n_rows, 2 * ring_len);
    const int64_t *positions = random_positions(n_rows, (int)n_ring);
    uint8_t *states = check_buffer((size_t)slots.stride * (size_t)slots.n_slots), *values = states + ring_len;
    double *want = check_doubles((size_t)(n_rows * n_heads * hd)), *p = check_doubles((size_t)n_ring);
    for (int row = 0; row < n_rows; row++) {
        uint16_t *k = (uint16_t *)(states + slots.slots[row] * slots.stride), *v = k + ring_len / 2;
        const int64_t n_seen = positions[row] + 1 < n_ring ? positions[row] + 1 : n_ring;
        for (int64_t i = 0; i < n_seen * kv_cols; i++) {
            k[i] = check_act_round((double)check_random() * 2, act);
            v[i] = check_act_round((double)check_random(), act);
        }
        for (int head = 0; head < n_heads; head++) {
            double best = -1e300, sum = 0;
            for (int i = 0; i < n_seen; i++) {
                p[i] = 0;
                for (int j = 0; j < hd; j++)
                    p[i] += check_act_value(q[row * q_stride + head * hd + j],
                        act) * check_act_value(k[i * kv_cols + head / per_kv * hd + j], act);
                p[i] /= sqrt(hd);
                best = fmax(best, p[i]);
            }
            for (int i = 0; i < n_seen; i++)
                sum += p[i] = exp(p[i] - best);
            for (int i = 0; i < n_seen; i++)
                for (int j = 0; j < hd; j++)
                    want[(row * n_heads + head) * hd + j] += p[i] / sum * check_act_value(v[i * kv_cols
                        + head / per_kv * hd + j], act);
        }
    }
    float *sums = check_buffer(sizeof(float) * (size_t)(n_rows * n_heads * splits * hd)),
        *peaks = check_buffer(sizeof(float) * (size_t)(n_rows * n_heads * splits * 2));
    early((const void *[]){ states, slots.slots }, 2);
    CHECK_LAUNCH(n_kv * ((per_kv + 15) / 16) * splits, n_rows, check_param("threads"), SHARED_LEN, sums, peaks, q,
        states, values, positions, slots.slots, slots.stride,
        n_context, n_rows);
    float *got = check_buffer(sizeof(float) * (size_t)(n_rows * n_heads * hd));
    for (int at = 0; at < n_rows * n_heads; at++) {
        double best = -1e300, share = 0;
        for (int s = 0; s < n_used; s++)
            best = fmax(best, (double)peaks[2 * (at * splits + s)]);
        for (int s = 0; s < n_used; s++)
            share += exp2((double)peaks[2 * (at * splits + s)] - best) * (double)peaks[2 * (at * splits + s) + 1];
        for (int j = 0; j < hd; j++) {
            double sum = 0;
            for (int s = 0; s < n_used; s++)
                sum += exp2((double)peaks[2 * (at * splits + s)] - best) * (double)sums[(at * splits + s) * hd + j];
            got[at * hd + j] = (float)(sum / share);
        }
    }
    check_rows_f32("out", got, want, n_rows, n_heads * hd, n_heads * hd, loose[act]);
}

static void check_gated(void)
{
    const int d = check_param("n_in"), f = check_param("n_out"), n_experts = check_param("n_experts"),
        n_rows = check_param("n_rows"), act = check_param("act");
    const int dtype = check_param("weight_dtype"), top_k = check_param("top_k"), stride = (f + 7) / 8 * 8,
        tiles = check_param("tiles");
    const Route route = random_route(n_rows, n_experts, top_k, check_param("n_parts"), false, d,
        check_param_float("eps"));
    const float *x = check_random_f32(n_rows, d, d), *norm = check_random_f32(1, d, d);
    const CheckWeights w = check_random_weights(n_experts, 2 * f, d, dtype);
    uint16_t *out = check_buffer(sizeof(uint16_t) * (size_t)(n_rows * route.top_k * stride));
    double *want = check_doubles((size_t)(n_rows * route.top_k * f)), *u = check_doubles((size_t)d);
    for (int row = 0, pair = 0; row < n_rows; row++) {
        normed_row(u, x + row * d, norm, route.scale[row], d, act);
        for (int e = 0; e < n_experts; e++) {
            if (route.gates[row * n_experts + e] == 0)
                continue;
            for (int o = 0; o < f; o++) {
                double both[2] = { 0, 0 };
                for (int i = 0; i < 2 * d; i++)
                    both[i / d] += w.plain[((size_t)e * 2 * (size_t)f
                        + (size_t)(2 * o + i / d)) * (size_t)d + (size_t)(i % d)] * u[i % d];
                want[pair * f + o] = silu(both[0]) * both[1];
            }
            pair++;
        }
    }
    const float *scales = w.scales;
    early((const void *[]){ norm }, 1);
    CHECK_LAUNCH((f + 4 * tiles - 1) / (4 * tiles), check_param("grid_y"), check_param("threads"), SHARED_LEN, out, x,
        route.parts, norm, w.weights, scales, n_rows, top_k);
    check_rows_act("out", out, want, n_rows * route.top_k, f, stride, act, loose[dtype]);
}

/* The head and, from what it leaves, the feed of the next token. Equal largest logits: the first. */
static void check_head(void)
{
    const int d = check_param("n_in"), vocab = check_param("n_out"), n_rows = check_param("n_rows"),
        act = check_param("act"), dtype = check_param("weight_dtype");
    const int own = 8 * check_param("tiles"), blocks = (vocab + own - 1) / own;
    const Route route = random_route(n_rows, 1, 1, check_param("n_parts"), false, d, check_param_float("eps"));
    float *x = check_buffer(sizeof(float) * (size_t)(n_rows * d));
    const float *norm = check_random_f32(1, d, d);
    const CheckWeights w = check_random_weights(1, vocab, d, dtype);
    double *want = check_doubles((size_t)(n_rows * vocab)), *u = check_doubles((size_t)d);
    for (int row = 0; row < n_rows; row++) {
        for (int i = 0; i < d; i++)
            x[row * d + i] = row == 1 ? 0 : row == 3 ? NAN : check_random();
        normed_row(u, x + row * d, norm, route.scale[row], d, act);
        for (int o = 0; o < vocab; o++)
            for (int i = 0; i < d; i++)
                want[row * vocab + o] += w.plain[(size_t)o * (size_t)d + (size_t)i] * u[i];
    }
    float *logits = check_buffer(sizeof(float) * (size_t)(n_rows * vocab)),
        *best = check_buffer(sizeof(float) * (size_t)(n_rows * blocks));
    int32_t *best_at = check_buffer(sizeof(int32_t) * (size_t)(n_rows * blocks)),
        *want_at = check_buffer(sizeof(int32_t) * (size_t)(n_rows * blocks));
    const float *scales = w.scales;
    check_freeze(x);
    early((const void *[]){ norm }, 1);
    CHECK_LAUNCH(blocks, 1, check_param("threads"), SHARED_LEN, logits, best, best_at, x, route.parts, norm, w.weights,
        scales, n_rows);
    for (int row = 0; row < n_rows; row++) {
        if (row != 3)
            check_rows_f32("logits", logits + row * vocab, want + row * vocab, 1, vocab, vocab, loose[dtype]);
        for (int block = 0; block < blocks; block++) {
            int at = -1;
            for (int o = block * own; o < (block + 1) * own && o < vocab; o++)
                if (!isnan(logits[row * vocab + o]) && (at < 0 || logits[row * vocab + o] > logits[row * vocab + at]))
                    at = o;
            want_at[row * blocks + block] = at;
            if (at >= 0 && best[row * blocks + block] != logits[row * vocab + at])
                check_fail("best of row %d, block %d: %g", row, block, (double)best[row * blocks + block]);
        }
    }
    check_ints("best_at", best_at, want_at, (size_t)(n_rows * blocks));
}

static void check_feed(void)
{
    const int n_rows = check_param("n_rows"), n_parts = check_param("n_parts"), history = check_param("history");
    float *best = check_buffer(sizeof(float) * (size_t)(n_rows * n_parts));
    int32_t *best_at = check_buffer(sizeof(int32_t) * (size_t)(n_rows * n_parts)),
        *tokens = check_buffer(sizeof(int32_t) * (size_t)n_rows);
    int32_t *kept = check_buffer(sizeof(int32_t) * (size_t)history * 16),
        *want = check_buffer(sizeof(int32_t) * (size_t)n_rows);
    int64_t *positions = check_buffer(sizeof(int64_t) * (size_t)n_rows);
    for (int row = 0; row < n_rows; row++) {
        float largest = -INFINITY;
        positions[row] = 5 + 1000 * row;
        want[row] = 0;
        for (int i = 0; i < n_parts; i++) {
            const bool is = row != 1 && check_random_below(8) > 0;
            best[row * n_parts + i] = row == 2 ? -INFINITY : (float)check_random_below(9);
            best_at[row * n_parts + i] = is ? 10 * i + check_random_below(10) : -1;
            if (is && (best[row * n_parts + i] > largest || (row == 2 && want[row] == 0))) {
                largest = best[row * n_parts + i];
                want[row] = best_at[row * n_parts + i];
            }
        }
    }
    check_freeze(best), check_freeze(best_at);
    CHECK_LAUNCH(n_rows + 1, 1, 32, 0, tokens, kept, positions, best, best_at, n_rows);
    check_ints("tokens", tokens, want, (size_t)n_rows);
    for (int row = 0; row < n_rows; row++) {
        if (positions[row] != 6 + 1000 * row)
            check_fail("position of row %d: %lld", row, (long long)positions[row]);
        check_ints("history", kept + (5 + 1000 * row) % history * 16 + row, want + row, 1);
    }
}

GPU_CHECKS({ "decode_embed", check_embed }, { "decode_qkv", check_qkv }, { "decode_attention", check_attention },
    { "decode_gated", check_gated },
    { "decode_head", check_head }, { "decode_feed", check_feed })
