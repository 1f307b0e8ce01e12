/* Decode: RMSNorm, router, in_proj of the chosen experts, causal convolution, silu; logits of the next router.
 *
 * A block owns 8 · tiles channels: their rows of x' and of z. Grid: channels / (8 · tiles); threads: 32 · n_slices ·
 * a divisor of 2 · tiles. Shared: see the enum. parts holds the logits (n_experts > 1) and the sum of squares of x.
 */
PARAM(n_in, i) PARAM(n_channels, c) PARAM(d_conv, k) PARAM(n_experts, e) PARAM(renormalize, rn) PARAM(weight_dtype, w)
PARAM(act, a) PARAM(n_parts, np) PARAM(tiles, m)
PARAM(n_slices, ks) PARAM(group, g) PARAM(ring, r)
FPARAM(eps, eps)

/* Item i of what the end of the block needs: taps and bias by channel, the next router's columns, the states. */
DEVICE float decode_in_item(int i, int n_rows, const float *conv, const float *bias, const float *router,
    const uint8_t *state, const int32_t *slots, int64_t state_stride)
{
    const int n_own = 8 * tiles, c0 = block_x() * n_own, n_taps = n_own * (d_conv + 1);
    const int n_router = n_experts > 1 ? n_own * n_experts : 0;
    if (i < n_taps) {
        const int channel = c0 + i / (d_conv + 1), tap = i % (d_conv + 1);
        return channel >= n_channels ? 0.0f : tap < d_conv ? conv[(int64_t)channel * d_conv + tap] : bias[channel];
    }
    i -= n_taps;
    if (i < n_router)
        return c0 + i % n_own < n_channels ? router[(int64_t)(i / n_own) * n_channels + c0 + i % n_own] : 0.0f;
    i -= n_router;
    const int row = i / (n_own * (d_conv - 1)), rest = i % (n_own * (d_conv - 1)), channel = c0 + rest % n_own;
    if (row >= n_rows || channel >= n_channels)
        return 0.0f;
    return ((const float *)(state + slots[row] * state_stride))[(int64_t)(rest / n_own) * n_channels + channel];
}

/* One row's convolution and logits, by a warp. */
DEVICE void decode_in_finish(act_t *xh, float *xc, float *z, float *logits, const float *parts, const float *items,
    float *own,    uint8_t *state, int row)
{
    const int n_own = 8 * tiles, c0 = block_x() * n_own, n_taps = n_own * (d_conv + 1);
    const float *router = items + n_taps;
    const float *old = router + (n_experts > 1 ? n_own * n_experts : 0) + row * n_own * (d_conv - 1);
    for (int i = lane(); i < n_own; i += 32) {
        const int channel = c0 + i;
        const float x = decode_read_part(parts, i / 8, n_slices, row, i % 8);
        const float gate = decode_read_part(parts, tiles + i / 8, n_slices, row, i % 8);
        const float *taps = items + i * (d_conv + 1);
        float sum = taps[d_conv];
        float *kept = (float *)state + channel;
        UNROLL for (int j = 0; j < d_conv - 1; j++) {
            const float next = j + 2 < d_conv ? old[(j + 1) * n_own + i] : x;
            sum += taps[j] * old[j * n_own + i];
            if (channel < n_channels)
                kept[(int64_t)j * n_channels] = next;
        }
        sum = decode_silu(sum + taps[d_conv - 1] * x);
        own[i] = channel < n_channels ? sum : 0.0f;
        if (channel < n_channels) {
            xc[(int64_t)row * n_channels + channel] = sum;
            xh[(int64_t)row * ((n_channels + 7) / 8 * 8) + channel] = float_act(sum, act);
            z[(int64_t)row * n_channels + channel] = gate;
        }
    }
    warp_sync();
    if (n_experts > 1)
        for (int n0 = 0; n0 < n_experts; n0 += 8) {        /* four lanes a logit */
            const int n = n0 + lane() / 4, q = lane() % 4;
            float sum = 0;
            if (n < n_experts)
                UNROLL for (int i = 0; i < n_own / 4; i++)
                    sum += own[4 * i + q] * router[n * n_own + 4 * i + q];
            sum += shuffle_xor_f(sum, 1);
            sum += shuffle_xor_f(sum, 2);
            if (n < n_experts && q == 0)
                logits[((int64_t)row * n_experts + n) * n_blocks_x() + block_x()] = sum;
        }
}

KERNEL(decode_in)(act_t *xh /* [n_rows][n_channels up to 8] */, float *xc /* [n_rows][n_channels] */,
    float *z /* the same */, float *logits /* [n_rows][n_experts][blocks] */, const float *x /* [n_rows][n_in] */,
    const float *parts, const float *norm, const void *weights /* [n_experts][2][n_channels up to 8][k] */,
    const float *scales, const float *conv, const float *bias, const float *router, uint8_t *state,
    const int32_t *slots, int64_t state_stride, int32_t n_rows, int32_t top_k)
{
    const int row_len = decode_row_len(n_in, weight_dtype), n_chunks = decode_n_chunks(n_in, weight_dtype);
    const int k_len = (n_in + 63) / 64 * 64, x_stride = k_len + 8, n_own = 8 * tiles, n_warps = n_threads() / 32;
    const int n_sums = (n_experts > 1 ? n_experts : 0) + 1, part_rows = (n_channels + 7) / 8 * 8;
    const int n_items = n_own * (d_conv + 1) + (n_experts > 1 ? n_own * n_experts : 0) + n_rows * n_own * (d_conv - 1);
    DecodeRoute *route = shared();
    act_t *xs = (act_t *)(route + 1);
    uint8_t *ring_at = (uint8_t *)(xs + DECODE_ROWS * x_stride);
    float *sums = (float *)(ring_at + n_warps * ring * group * DECODE_SLOT);
    float *own = sums + 2 * tiles * n_slices * DECODE_ROWS * 8;
    float *scale_at = own + DECODE_ROWS * n_own;
    float *items = scale_at + (weight_dtype == 3 ? n_experts * 2 * n_own : 0);

    const int r = lane() / 8, t = lane() % 4, c0 = block_x() * n_own;
    const DecodeSlice slice = decode_slice(n_chunks, n_slices, warp() % n_slices);
    DecodeWeights w = { (const uint8_t *)weights + (int64_t)(c0 + r) * row_len
        + slice.first * DECODE_CHUNK + lane() % 8 * 16, 4 * row_len, 8 * row_len, (int64_t)part_rows * row_len,
        (int64_t)2 * part_rows * row_len, tiles, { (n_channels - c0 - r + 7) / 8, (n_channels - c0 - r + 3) / 8 },
        slice.n, warp() / n_slices, 2 * tiles, n_warps / n_slices, 1, ring_at + warp() * ring * group * DECODE_SLOT };
    const DecodeShape shape = { k_len, weight_dtype, act, n_slices, group, decode_n_groups(n_chunks, n_slices, group),
        ring, .gated = n_experts > 1 };
    DecodeCursor at = decode_begin(&w);
    if (n_experts == 1)
        decode_fill_ring(&w, &at, shape);
    else
        decode_expect_experts(&w, n_experts);
    DecodeColumns columns;
    decode_fetch_norm(&columns, norm, n_in, n_rows);
    float ahead[2];
    UNROLL for (int i = 0; i < 2; i++)
        ahead[i] = thread_x() + i * n_threads() < n_items ? decode_in_item(thread_x() + i * n_threads(), n_rows, conv,
            bias,
            router, state, slots, state_stride) : 0.0f;

    const int64_t state_first = warp() < n_rows ? slots[warp()] * state_stride : 0;
    decode_await_rows(&columns, x, n_in, n_rows, route->sums, parts, n_rows * n_sums, n_parts);
    if (n_experts > 1) {
        w.experts = decode_select(route, n_rows, n_sums, n_experts, top_k);
        at = decode_begin(&w);
    }
    if (weight_dtype == 3)
        for (int i = thread_x(); i < n_experts * 2 * n_own; i += n_threads()) {
            const int e = i / (2 * n_own), half = i / n_own % 2, channel = c0 + i % n_own;
            if (w.experts >> e & 1)
                scale_at[i] = channel < n_channels ? scales[((int64_t)e * 2 + half) * part_rows + channel] : 0.0f;
        }
    if (n_experts > 1) {
        decode_fill_ring(&w, &at, shape);
        decode_gates(route, n_rows, n_sums, n_experts, renormalize, 1, n_in, eps);
    }
    UNROLL for (int i = 0; i < 2; i++)
        if (thread_x() + i * n_threads() < n_items)
            items[thread_x() + i * n_threads()] = ahead[i];
    for (int i = thread_x() + 2 * n_threads(); i < n_items; i += n_threads())
        items[i] = decode_in_item(i, n_rows, conv, bias, router, state, slots, state_stride);
    decode_store_norm(xs, x_stride, k_len, &columns, x, norm, route, n_sums, n_in, eps, n_rows, act);
    barrier();

    const DecodeInput in = { xs, x_stride, slice.first * (weight_dtype == 3 ? 64 : 32)
        + t * (weight_dtype == 3 ? 16 : 8) };
    decode_multiply(sums, &w, &at, w.experts, &in, route, weight_dtype == 3 ? scale_at : NULL, 2 * n_own, n_rows,
        top_k, NULL, shape);
    barrier();
    for (int row = warp(); row < n_rows; row += n_warps)
        decode_in_finish(xh, xc, z, logits, sums, items, own + row * n_own,
            state + (row == warp() ? state_first : slots[row] * state_stride), row);
}
