/* Rotary embedding of the heads of rows: halves rotated, in float32, rounded once.
 *
 * lo' = lo c - hi s, hi' = hi c + lo s, for the pair (i, i + head_dim / 2) of every head. A thread
 * reads its pairs before it writes them, so out may be in when the strides are equal.
 *
 * Grid: a token a block; any number of threads. head_dim is even.
 */
PARAM(n_heads, n) PARAM(head_dim, h) PARAM(in_stride, is) PARAM(out_stride, os) PARAM(act, a)

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
    const int half = head_dim / 2;
    const int64_t t = block_x();
    dependency_wait();
    dependency_launch();
    if (t >= n_tokens)
        return;
    const float *cosine = table + t * head_dim, *sine = cosine + half;
    const act_t *from = in + t * in_stride;
    act_t *to = out + t * out_stride;
    if (half % 8 == 0) {
        for (int j = thread_x(); j < n_heads * (half / 8); j += n_threads()) {
            const int i = j % (half / 8) * 8, at = j / (half / 8) * head_dim + i;
            u32x4 lo = load16(from + at), hi = load16(from + at + half);
            UNROLL
            for (int w = 0; w < 4; w++) {
                uint32_t a = lo[w], b = hi[w];
                rotate_word(&a, &b, cosine + i + 2 * w, sine + i + 2 * w);
                lo[w] = a;
                hi[w] = b;
            }
            store16(to + at, lo);
            store16(to + at + half, hi);
        }
    } else {
        for (int j = thread_x(); j < n_heads * half; j += n_threads()) {
            const int i = j % half, at = j / half * head_dim + i;
            const float c = cosine[i], s = sine[i];
            const float a = act_float(from[at], act), b = act_float(from[at + half], act);
            to[at] = float_act(a * c - b * s, act);
            to[at + half] = float_act(b * c + a * s, act);
        }
    }
}
