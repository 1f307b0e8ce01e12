/* Rotary embedding of the heads of rows: halves rotated, in float32, rounded once.
 *
 * lo' = lo c - hi s, hi' = hi c + lo s, for the pair (i, i + head_dim / 2) of every head. A thread
 * reads its pairs before it writes them, so out may be in when the strides are equal.
 *
 * Grid: 8 tokens a block; any number of threads. head_dim is even.
 */
PARAM(n_heads, n) PARAM(head_dim, h) PARAM(in_stride, is) PARAM(out_stride, os) PARAM(act, a)

enum { ROPE_TOKENS = 8 };

/* Two pairs: those of the low and of the high half of a word. */
DEVICE void rotate_word(uint32_t *lo, uint32_t *hi, const float *c, const float *s)
{
    const float a0 = act_lo(*lo, act), a1 = act_hi(*lo, act), b0 = act_lo(*hi, act), b1 = act_hi(*hi, act);
    *lo = act_pack(a0 * c[0] - b0 * s[0], a1 * c[1] - b1 * s[1], act);
    *hi = act_pack(b0 * c[0] + a0 * s[0], b1 * c[1] + a1 * s[1], act);
}

KERNEL(rope)(act_t *out /* [n_tokens][out_stride] */, const act_t *in /* [n_tokens][in_stride] */,
    const float *table /* [n_tokens][head_dim] */, int32_t n_tokens)
{
    const int half = head_dim / 2, step = half % 8 == 0 ? 8 : 1, n_steps = n_heads * (half / step);
    dependency_wait();
    dependency_launch();
    const int first = block_x() * ROPE_TOKENS, n = min_i(n_tokens - first, ROPE_TOKENS);
    for (int j = thread_x(); j < n * n_steps; j += n_threads()) {
        const int64_t t = first + j / n_steps;
        const int i = j % (half / step) * step, at = j % n_steps / (half / step) * head_dim + i;
        const float *cosine = table + t * head_dim + i, *sine = cosine + half;
        const act_t *from = in + t * in_stride + at;
        act_t *to = out + t * out_stride + at;
        if (step == 8) {
            u32x4 lo = load16(from), hi = load16(from + half);
            UNROLL
            for (int w = 0; w < 4; w++) {
                uint32_t a = lo[w], b = hi[w];
                rotate_word(&a, &b, cosine + 2 * w, sine + 2 * w);
                lo[w] = a;
                hi[w] = b;
            }
            store16(to, lo);
            store16(to + half, hi);
        } else {
            const float a = act_float(*from, act), b = act_float(from[half], act);
            *to = float_act(a * *cosine - b * *sine, act);
            to[half] = float_act(b * *cosine + a * *sine, act);
        }
    }
}
