/* Decode of one sequence: a run of mamba layers in one launch, whose blocks hand their results to each other.
 *
 * A panel is 16 channels of every layer and 8 columns of x. Block b has the panels b, b + n, ... of n blocks, at most
 * `most`, and of 8 columns of x_proj at most x_most, the last blocks first. In: x, and the parts of the first router's
 * logits and of the sum of squares, as an earlier launch left them; out: the same. What a layer needs besides is
 * fetched while the layer before waits for others. Grid: as many blocks as these two allow, at most n_channels / 16 (no
 * less than d_model / 8), all resident; threads: 512. Every sum is over a panel, or over all of them in order: results
 * do not depend on the number of blocks. Invariant: turns[b] counts the layers block b has done.
 */
PARAM(d_model, m) PARAM(n_channels, c) PARAM(d_conv, k) PARAM(d_state, n) PARAM(dt_rank, r) PARAM(n_experts, e)
PARAM(renormalize, rn) PARAM(zoh, zoh) PARAM(weight_dtype, w) PARAM(dt_dtype, dw) PARAM(act, a) PARAM(next_experts, ne)
PARAM(group, g) PARAM(ring, rg) PARAM(out_group, og) PARAM(out_ring, or) PARAM(x_group, xg) PARAM(most, mo)
PARAM(x_most, xm) FPARAM(eps, eps)

DEVICE int chain_x_groups(void)
{
    return decode_n_groups(decode_n_chunks(n_channels, weight_dtype), CHAIN_WARPS, x_group);
}

/* ---- the weights of the three products ---- */

DEVICE DecodeShape chain_in_shape(void)
{
    return (DecodeShape){ chain_k_len(d_model), weight_dtype, act, CHAIN_SLICES, group,
        decode_n_groups(decode_n_chunks(d_model, weight_dtype), CHAIN_SLICES, group), ring, .gated = n_experts > 1,
        .one_row = 1 };
}
/* A warp has one of four tiles of 8 rows, x' or z of half a panel, of each of the block's panels. */
DEVICE DecodeWeights chain_in_weights(const Chain *c, int layer)
{
    const int row_len = decode_row_len(d_model, weight_dtype), r = chain_anew(lane()) / 8, tile = warp() / CHAIN_SLICES;
    const int row = tile / 2 * n_channels + chain_anew(block_x()) * CHAIN_OWN + tile % 2 * 8 + r;
    const int n = c->n_own;
    const DecodeSlice slice = decode_slice(decode_n_chunks(d_model, weight_dtype), CHAIN_SLICES, warp() % CHAIN_SLICES);
    return (DecodeWeights){ c->of.in + layer * c->of.stride + (int64_t)row * row_len + slice.first * DECODE_CHUNK
        + lane() % 8 * 16, 4 * row_len, (int64_t)n_blocks_x() * CHAIN_OWN * row_len, 0,
        (int64_t)2 * n_channels * row_len, 1 << 20, { n, n }, slice.n, 0, n, 1, 1, c->ring };
}

DEVICE DecodeShape chain_x_shape(void)
{
    return (DecodeShape){ chain_k_len(n_channels), weight_dtype, act, CHAIN_WARPS, x_group, chain_x_groups(),
        x_most * chain_x_groups(), .ready = 1, .one_row = 1 };
}
DEVICE DecodeWeights chain_x_weights(const Chain *c, int layer)
{
    const int row_len = decode_row_len(n_channels, weight_dtype), r = chain_anew(lane()) / 8;
    const DecodeSlice slice = decode_slice(decode_n_chunks(n_channels, weight_dtype), CHAIN_WARPS, warp());
    return (DecodeWeights){ c->of.x + layer * c->of.stride + (int64_t)(chain_x_row(0) + r) * row_len
        + slice.first * DECODE_CHUNK + lane() % 8 * 16, 4 * row_len, (int64_t)n_blocks_x() * 8 * row_len, 0, 0, 1 << 20,
        { chain_x_count(c, r), chain_x_count(c, r + 4) }, slice.n, 0, chain_x_count(c, 0), 1, 1, c->x_ring };
}
DEVICE void chain_fetch_x(const Chain *c, int layer)
{
    const DecodeWeights w = chain_x_weights(c, layer);
    DecodeCursor at = decode_begin(&w);
    decode_fill_ring(&w, &at, chain_x_shape());
}

/* Groups of copies for the next layer: x_proj's and dt_proj's. Before them its small numbers are one, which without
 * routers follows out_proj's, too. Waiting for fewer than there are is waiting for some of them. */
DEVICE int chain_n_ahead(void) { return x_most * chain_x_groups() + 1; }
DEVICE int chain_behind(void) { return min_i(chain_n_ahead() + (n_experts == 1), 8 - out_ring); }
DEVICE DecodeShape chain_out_shape(void)
{
    return (DecodeShape){ chain_k_len(n_channels), weight_dtype, act, CHAIN_WARPS, out_group,
        decode_n_groups(decode_n_chunks(n_channels, weight_dtype), CHAIN_WARPS, out_group), out_ring,
        .gated = n_experts > 1, .behind = chain_behind(), .one_row = 1 };
}
DEVICE DecodeWeights chain_out_weights(const Chain *c, int layer)
{
    const int row_len = decode_row_len(n_channels, weight_dtype), r = chain_anew(lane()) / 8;
    const int n = c->n_own_out;
    const DecodeSlice slice = decode_slice(decode_n_chunks(n_channels, weight_dtype), CHAIN_WARPS, warp());
    return (DecodeWeights){ c->of.out + layer * c->of.stride + (int64_t)(chain_anew(block_x()) * 8 + r) * row_len
        + slice.first * DECODE_CHUNK + lane() % 8 * 16, 4 * row_len, (int64_t)n_blocks_x() * 8 * row_len, 0,
        (int64_t)d_model * row_len, 1 << 20, { n, n }, slice.n, 0, n, 1, 1, c->ring };
}

/* dt_proj's rows: each warp its own channels'. */
DEVICE void chain_fetch_dt(const Chain *c, int layer)
{
    const int row_len = decode_row_len(n_experts * dt_rank, dt_dtype);
    UNROLL for (int q = 0; q < most; q++) {
        const int channel = (chain_anew(block_x()) + q * n_blocks_x()) * CHAIN_OWN + warp();
        const uint8_t *from = c->of.dt + layer * c->of.stride + (int64_t)channel * row_len;
        for (int i = 16 * lane(); i < row_len && channel < n_channels; i += 512)
            decode_copy16(c->dt + (q * CHAIN_WARPS + warp()) * row_len + i, from + i, 16);
    }
    copy_commit();
}

/* Where rows of the block's tiles begin, before it is known which experts are read. */
DEVICE void chain_expect(DecodeWeights w)
{
    for (int q = 0; q < w.tile_end; q++) {
        decode_expect_experts(&w, n_experts);
        w.row += w.tile_stride;
    }
}

/* A row's input for the products: the warp's slice of `row`. */
DEVICE DecodeInput chain_input(const act_t *row, int first_chunk)
{
    const int t_width = weight_dtype == 3 ? 16 : 8;
    return (DecodeInput){ row, 0, first_chunk * 4 * t_width + chain_anew(lane()) % 4 * t_width };
}

/* ---- routers ---- */

/* The warp's first sum of parts, to be waited and asked for together with what comes before it: a trip to the second
 * cache less. NULL: it has none. A dense layer's only sum is asked for later, by one warp: it would delay the rest. */
DEVICE const uint64_t *chain_also(const uint64_t *parts, int n_sums, const int n_parts)
{
    return n_experts > 1 && warp() < n_sums ? parts + warp() * n_parts : NULL;
}

/* ---- in_proj, convolution ---- */

/* By a warp: what the convolution of panel q has from earlier tokens, to own_x. */
DEVICE void chain_in_old(const Chain *c, int layer, int q)
{
    const int i = chain_anew(lane()) % CHAIN_OWN;
    const float *items = chain_own_items(c, layer, q), *taps = items + i * d_conv;
    const float *old = items + chain_at_state(c);
    float sum = items[chain_at_conv_bias(c) + i];
    UNROLL for (int j = 0; j < d_conv - 1; j++)
        sum += taps[j] * old[j * CHAIN_OWN + i];
    if (lane() < CHAIN_OWN)
        c->own_x[q * CHAIN_OWN + i] = sum;
}

/* By a warp: lanes 0 to 15 a channel of x' of panel q each, the others one of z. */
DEVICE void chain_in_finish(const Chain *c, int layer, int q, uint32_t turn)
{
    const int own = chain_anew(lane()), half = own / CHAIN_OWN, i = own % CHAIN_OWN, tile = own / 8;
    const int panel = chain_panel(q), channel = panel * CHAIN_OWN + i;
    const float *items = chain_own_items(c, layer, q), *taps = items + i * d_conv;
    const float *old = items + chain_at_state(c), *parts = c->sums + (tile * most + q) * CHAIN_SLICES * 8 + i % 8;
    float *kept = chain_kept(c, c->of.conv_state, layer) + channel, *own_x = c->own_x + q * CHAIN_OWN, value = 0;
    UNROLL for (int s = 0; s < CHAIN_SLICES; s++)
        value += parts[8 * s];
    const float sum = decode_silu(half ? value : own_x[i] + taps[d_conv - 1] * value);
    const float other = shuffle_xor_f(sum, 1);
    if (half == 0 && i % 2 == 0)
        chain_tell(c->words + channel / 2, act_pack(sum, other, act), turn);
    (half ? c->own_z + q * CHAIN_OWN : own_x)[i] = sum;
    warp_sync();
    for (int n0 = 0; n0 < chain_routed(c); n0 += 8)
        chain_tell_logits(c, c->words + chain_at_ssm_parts(c), own_x, items + chain_at_ssm(c), n0, panel, turn);
    UNROLL for (int j = 0; j < d_conv - 1; j++)
        if (half == 0)
            kept[(int64_t)j * n_channels] = j + 2 < d_conv ? old[(j + 1) * CHAIN_OWN + i] : value;
}

/* x and parts: of the first layer. ring_at: where the ring stands, without routers. */
DEVICE void chain_in(const Chain *c, DecodeCursor *ring_at, int layer, const float *x,
    const float *parts, uint32_t turn)
{
    const int n_sums = chain_routed(c) + 1, k = 4 * ((chain_anew(thread_x()) + CHAIN_THREADS / 2) % CHAIN_THREADS);
    DecodeWeights w = chain_in_weights(c, layer);
    const DecodeShape shape = chain_in_shape();
    const DecodeSlice slice = decode_slice(decode_n_chunks(d_model, weight_dtype), CHAIN_SLICES, warp() % CHAIN_SLICES);
    float from[4] = { 0, 0, 0, 0 };
    if (layer == 0) {
        decode_load4(from, x, k, d_model);
        decode_sum_parts(c->route->sums, parts, n_sums, chain_out_panels(c));
    } else {
        const uint64_t *own = c->words + chain_at_x(c) + min_i(k, d_model - 4), *sums = c->words + chain_at_sums(c);
        const uint64_t *also = chain_also(sums, n_sums, chain_out_panels(c));
        ChainAsked asked;
        chain_guard(own, also, turn - 1);
        u32x4 got[2] = { chain_load(own), chain_load(own + 2) };
        if (also)
            chain_ask_sum(&asked, also, chain_out_panels(c));
        chain_sums(c->route->sums, &asked, n_experts > 1, sums, n_sums, chain_out_panels(c), turn - 1);
        UNROLL for (int i = 0; i < 2; i++) {
            got[i] = chain_hear(got[i], own + 2 * i, turn - 1);
            from[2 * i] = k < d_model ? bits_float(got[i][0]) : 0.0f;
            from[2 * i + 1] = k < d_model ? bits_float(got[i][2]) : 0.0f;
        }
    }
    barrier();
    if (n_experts > 1) {
        w.experts = decode_select(c->route, 1, n_sums, n_experts, c->top_k);
        *ring_at = decode_begin(&w);
        decode_fill_ring(&w, ring_at, shape);
        decode_gates(c->route, 1, n_sums, n_experts, renormalize, 1, d_model, eps);
    }
    if (k < chain_k_len(d_model)) {
        float norm[4];
        decode_load4(norm, c->norm, k, chain_k_len(d_model));
        decode_store_norm4(c->xs, k, from, norm, decode_rms(c->route, 0, n_sums, d_model, eps), act);
    }
    const int n_own = c->n_own;
    if (warp() < n_own)
        chain_in_old(c, layer, warp());
    barrier();
    const DecodeInput in = chain_input(c->xs, slice.first);
    const int tile = warp() / CHAIN_SLICES * most;         /* of the first panel */
    const float *scales = chain_own_scales(c, layer, chain_own_len(c) + 8 * (warp() / CHAIN_SLICES));
    decode_multiply(c->sums + tile * CHAIN_SLICES * 8, &w, ring_at, w.experts, &in, c->route, scales,
        8 * CHAIN_TILES * most, 1, c->top_k, NULL, shape);
    if (n_experts == 1) {                                  /* out_proj's, as soon as the ring is used up */
        const DecodeWeights out = chain_out_weights(c, layer);
        *ring_at = decode_begin(&out);
        warp_sync();
        decode_fill_ring(&out, ring_at, chain_out_shape());
    }
    barrier();
    if (warp() < n_own)
        chain_in_finish(c, layer, warp(), turn);
    if (n_experts > 1)
        chain_expect(chain_out_weights(c, layer));
}

/* ---- x_proj ---- */

DEVICE void chain_x(const Chain *c, int layer, uint32_t turn)
{
    const DecodeWeights w = chain_x_weights(c, layer);
    const DecodeSlice slice = decode_slice(decode_n_chunks(n_channels, weight_dtype), CHAIN_WARPS, warp());
    const int width = weight_dtype == 3 ? 64 : 32, first = slice.first * width;
    const int n = min_i(slice.n * width, n_channels - first);
    DecodeCursor at = decode_begin(&w);
    if (w.tile_end == 0)
        return;
    const u32x4 asked = chain_ask_row(c->words + first / 2, n, NULL, turn);
    chain_take_row(c->rows + first, asked, c->words + first / 2, n, turn);
    warp_sync();
    const DecodeInput in = chain_input(c->rows, slice.first);
    decode_multiply(c->x_sums, &w, &at, 1, &in, c->route, NULL, 0, 1, 1, NULL, chain_x_shape());
    barrier();
    for (int i = warp(); i < w.tile_end; i += CHAIN_WARPS) {
        const int row = chain_x_row(i) + lane();
        float sum = chain_fold(c->x_sums + i * CHAIN_WARPS * 8);
        if (chain_q8(c))
            sum *= chain_items(c, layer)[chain_at_x_scales(c) + 8 * i + lane() % 8];
        if (lane() < 8 && row < n_experts * chain_each(c))
            chain_tell(c->words + chain_at_xp(c) + row / chain_each(c) * chain_xp_stride(c) + row % chain_each(c),
                float_bits(sum), turn);
    }
}

/* ---- dt_proj, scan ---- */

/* By a warp: the step of its channel of panel q. */
DEVICE void chain_step(const Chain *c, int layer, int q, uint32_t active)
{
    const int i = warp(), channel = chain_panel(q) * CHAIN_OWN + i;
    const int row_len = decode_row_len(n_experts * dt_rank, dt_dtype);
    const float *items = chain_own_items(c, layer, q);
    const uint8_t *row = c->dt + (q * CHAIN_WARPS + i) * row_len;
    float dt = 0, bias = 0, b = 0, state_c = 0, a = 0, old = 0;
    for (uint32_t left = active; left; left &= left - 1) {
        const int expert = __builtin_ctz(left);
        const float gate = n_experts > 1 ? c->route->gates[expert * DECODE_ROWS] : 1.0f;
        const float *xp = c->xp + expert * chain_xp_stride(c);
        float sum = 0;
        UNROLL for (int j0 = 0; j0 < (dt_rank + 63) / 64; j0++) {
            const int j = 64 * j0 + 2 * lane(), at = expert * dt_rank + j;
            if (j < dt_rank && dt_dtype == 3) {
                sum += xp[j] * (float)((const int8_t *)row)[at] + xp[j + 1] * (float)((const int8_t *)row)[at + 1];
            } else if (j < dt_rank) {
                const uint32_t pair = *(const uint32_t *)(row + 2 * at);
                sum += xp[j] * act_lo(pair, act) + xp[j + 1] * act_hi(pair, act);
            }
        }
        dt += gate * sum;
        bias += gate * items[chain_at_bias(c) + expert * CHAIN_OWN + i];
        if (lane() < d_state) {
            b += gate * xp[dt_rank + lane()];
            state_c += gate * xp[dt_rank + d_state + lane()];
        }
    }
    if (lane() < d_state) {
        a = *chain_kept_at(c, q, 0);
        old = *chain_kept_at(c, q, 1);
    }
    dt = decode_warp_sum(dt);
    if (dt_dtype == 3)
        dt *= items[chain_at_dt_scales(c) + i];
    dt = decode_softplus(dt + bias);
    const float x = c->own_x[q * CHAIN_OWN + i], power = dt * a, decay = exp2_fast(power);
    const float now = decay * old + (zoh ? dt * decode_decay_ratio(power, decay) : dt) * b * x;
    float y = lane() < d_state ? state_c * now : 0.0f;
    y = decode_warp_sum(y);
    if (lane() == 0)
        c->own_y[q * CHAIN_OWN + i] = (y + items[chain_at_d(c) + i] * x) * c->own_z[q * CHAIN_OWN + i];
    if (lane() < d_state)
        chain_kept(c, c->of.scan_state, layer)[channel * d_state + lane()] = now;
}

/* y of panel q to all; its part of the next router's logits. A panel's first warp is four behind that of the panel
 * before: all are told at once. */
DEVICE void chain_scan_finish(const Chain *c, int layer, int q, uint32_t turn)
{
    const int panel = chain_panel(q), place = (warp() + CHAIN_WARPS - 4 * q) % CHAIN_WARPS;
    const float *router = chain_own_items(c, layer, q) + chain_at_router(c), *own_y = c->own_y + q * CHAIN_OWN;
    if (place == 0 && lane() < CHAIN_OWN / 2)
        chain_tell(c->words + chain_at_y(c) + panel * (CHAIN_OWN / 2) + lane(),
            act_pack(own_y[2 * lane()], own_y[2 * lane() + 1], act), turn);
    for (int n0 = 8 * (place - 1); place > 0 && n0 < chain_routed(c); n0 += 8 * (CHAIN_WARPS - 1))
        chain_tell_logits(c, c->words + chain_at_out_parts(c), own_y, router, n0, panel, turn);
}

/* By all: the columns of x_proj of the chosen experts, a thread each pair. */
DEVICE void chain_take_xp(const Chain *c, uint32_t active, uint32_t turn)
{
    int place = 0;
    for (uint32_t left = active; left; left &= left - 1, place += chain_xp_stride(c) / 2) {
        const int expert = __builtin_ctz(left);
        const uint64_t *from = c->words + chain_at_xp(c) + expert * chain_xp_stride(c);
        for (int j = thread_x() - place; j < chain_xp_stride(c) / 2; j += CHAIN_THREADS) {
            if (j < 0)
                continue;
            u32x4 got;
            const int odd = 2 * j + 1 >= chain_each(c);     /* the last one has no neighbour */
            do
                got = chain_load(from + 2 * j);
            while (got[1] != turn || (!odd && got[3] != turn));
            c->xp[expert * chain_xp_stride(c) + 2 * j] = bits_float(got[0]);
            c->xp[expert * chain_xp_stride(c) + 2 * j + 1] = bits_float(got[2]);
        }
    }
}

DEVICE void chain_scan(const Chain *c, int layer, uint32_t turn)
{
    const int n_own = c->n_own;
    uint32_t active = 1;
    if (n_experts > 1) {
        const uint64_t *parts = c->words + chain_at_ssm_parts(c);
        const int late = chain_x_count(c, 0) > 0;             /* after products of its own: all has been told */
        ChainAsked asked;
        if (late && warp() < n_experts)
            chain_ask_sum(&asked, parts + warp() * chain_panels(c), chain_panels(c));
        chain_sums(c->route->sums, &asked, late, parts, n_experts, chain_panels(c), turn);
        barrier();
        active = decode_select(c->route, 1, n_experts, n_experts, c->top_k);
        decode_gates(c->route, 1, n_experts, n_experts, renormalize, 0, 1, 0);
    }
    chain_take_xp(c, active, turn);
    barrier();
    for (int q = 0; q < n_own; q++)
        chain_step(c, layer, q, active);
    barrier();
    for (int q = 0; q < n_own; q++)
        chain_scan_finish(c, layer, q, turn);
    if (n_experts > 1 && layer + 1 < c->n_layers)
        chain_expect(chain_in_weights(c, layer + 1));
}

/* ---- out_proj ---- */

/* By a warp: new columns of x, panel q; their part of the next router's logits and of the sum of squares: to all, or
 * after the last layer to x and next. */
DEVICE void chain_out_finish(const Chain *c, int layer, int q, float *x, float *next, uint32_t turn)
{
    const int n_next = chain_n_next(c, layer), column = chain_panel(q) * 8 + lane() % 8;
    const float *items = chain_items(c, layer) + chain_at_leave(c) + q * chain_leave_len(c);
    float *own = c->own_columns + 8 * q + chain_anew(lane()) % 8, sum = chain_fold(c->sums + q * CHAIN_WARPS * 8);
    float square, from[8], even = 0, odd = 0;
    sum += *own;
    warp_sync();
    if (lane() < 8)
        *own = sum;
    if (layer + 1 == c->n_layers) {
        if (lane() < 8)
            x[column] = sum;
        decode_leave(next, items, sum, 0, n_next, chain_out_panels(c), chain_panel(q));
        return;
    }
    if (lane() < 8)
        chain_tell(c->words + chain_at_x(c) + column, float_bits(sum), turn);
    square = sum * sum;
    UNROLL for (int mask = 4; mask > 0; mask /= 2)
        square += shuffle_xor_f(square, mask);
    UNROLL for (int i = 0; i < 8; i++)
        from[i] = shuffle_f(sum, i);
    uint64_t *to = c->words + chain_at_sums(c) + chain_panel(q);
    if (lane() < n_next) {
        UNROLL for (int i = 0; i < 8; i += 2) {
            even += from[i] * items[i * n_next + lane()];
            odd += from[i + 1] * items[(i + 1) * n_next + lane()];
        }
        chain_tell(to + lane() * chain_out_panels(c), float_bits(even + odd), turn);
    }
    if (lane() == 31)
        chain_tell(to + n_next * chain_out_panels(c), float_bits(square), turn);
}

/* leave: chain_leave_item of the next layer. */
DEVICE void chain_out(const Chain *c, float leave, DecodeCursor *ring_at, int layer, float *x, float *next,
    uint32_t turn)
{
    DecodeWeights w = chain_out_weights(c, layer);
    const DecodeShape shape = chain_out_shape();
    const DecodeSlice slice = decode_slice(decode_n_chunks(n_channels, weight_dtype), CHAIN_WARPS, warp());
    const int width = weight_dtype == 3 ? 64 : 32, first = slice.first * width;
    const int n = min_i(slice.n * width, n_channels - first);
    const uint64_t *from = c->words + chain_at_y(c) + first / 2, *parts = c->words + chain_at_out_parts(c);
    const uint64_t *also = chain_also(parts, chain_routed(c), chain_panels(c));
    ChainAsked sums;
    const u32x4 asked = chain_ask_row(from, n, also, turn);
    if (also)
        chain_ask_sum(&sums, also, chain_panels(c));
    if (n_experts > 1)
        chain_sums(c->route->sums, &sums, 1, parts, n_experts, chain_panels(c), turn);
    chain_take_row(c->rows + first, asked, from, n, turn);
    if (n_experts > 1) {
        barrier();
        w.experts = decode_select(c->route, 1, n_experts, n_experts, c->top_k);
        *ring_at = decode_begin(&w);
        decode_fill_ring(&w, ring_at, shape);
        decode_gates(c->route, 1, n_experts, n_experts, renormalize, 0, 1, 0);
    }
    if (layer + 1 < c->n_layers) {
        chain_fetch_x(c, layer + 1);
        chain_fetch_dt(c, layer + 1);
        chain_keep_leave(c, leave, layer + 1);
    } else {
        UNROLL for (int i = 0; i < chain_n_ahead(); i++)
            copy_commit();
    }
    barrier();
    const DecodeInput in = chain_input(c->rows, slice.first);
    decode_multiply(c->sums, &w, ring_at, w.experts, &in, c->route,
        chain_own_scales(c, layer, chain_at_out_scales(c)), 8 * most, 1, c->top_k, NULL, shape);
    if (n_experts > 1)                                     /* the next layer's small numbers are there */
        copy_wait(min_i(chain_n_ahead() + out_ring, 7));
    else if (w.tile_end > 0)
        copy_wait(min_i(chain_n_ahead() + shape.n_groups, 7));
    else
        copy_wait(min_i(chain_n_ahead(), 7));
    if (n_experts == 1 && layer + 1 < c->n_layers) {
        const DecodeWeights in_next = chain_in_weights(c, layer + 1);
        *ring_at = decode_begin(&in_next);
        warp_sync();
        decode_fill_ring(&in_next, ring_at, chain_in_shape());
    }
    barrier();
    if (warp() < w.tile_end)
        chain_out_finish(c, layer, warp(), x, next, turn);
}

/* ---- the run ---- */

KERNEL(decode_chain)(float *x /* [d_model] */, float *next /* [sums][d_model / 8] */, const float *parts /* the same */,
    uint64_t *words, uint32_t *turns /* [blocks] */, const uint8_t *norm, const uint8_t *in_router, const uint8_t *in,
    const uint8_t *conv, const uint8_t *conv_bias, const uint8_t *ssm_router, const uint8_t *x_proj, const uint8_t *dt,
    const uint8_t *dt_bias, const uint8_t *a, const uint8_t *d, const uint8_t *out_router, const uint8_t *out,
    const uint8_t *next_norm, const uint8_t *next_router, uint8_t *conv_state, uint8_t *scan_state,
    const int32_t *slots, int64_t state_stride, int32_t stride /* of 16 bytes */, int32_t kept_stride, int32_t n_layers,
    int32_t top_k)
{
    const int64_t slot = slots[0] * state_stride;
    Chain c = { .d_model = d_model, .n_channels = n_channels, .d_conv = d_conv, .d_state = d_state, .dt_rank = dt_rank,
        .n_experts = n_experts, .next_experts = next_experts, .weight_dtype = weight_dtype, .dt_dtype = dt_dtype,
        .most = most, .x_most = x_most, .ring_len = max_i(group * ring, out_group * out_ring) * DECODE_SLOT,
        .x_ring_len = x_most * chain_x_groups() * x_group * DECODE_SLOT, .words = words, .top_k = top_k,
        .n_layers = n_layers, .of = { norm, in_router, in, conv, conv_bias, ssm_router, x_proj, dt, dt_bias, a, d,
        out_router, out, next_norm, next_router, conv_state + slot, scan_state + slot, (int64_t)16 * stride,
        (int64_t)16 * kept_stride } };
    DecodeCursor ring_at = { 0, 0, 0, 0, 0 };
    chain_place(&c);
    c.n_own = chain_n_own(&c, chain_panels(&c));
    c.n_own_out = chain_n_own(&c, chain_out_panels(&c));
    for (int i = n_channels + thread_x(); i < chain_k_len(n_channels); i += CHAIN_THREADS)
        c.rows[i] = 0;
    float leave = chain_fetch(&c, 0);
    chain_fetch_x(&c, 0);
    chain_fetch_dt(&c, 0);
    if (n_experts == 1) {
        const DecodeWeights w = chain_in_weights(&c, 0);
        ring_at = decode_begin(&w);
        decode_fill_ring(&w, &ring_at, chain_in_shape());
    }
    chain_keep_leave(&c, leave, 0);
    copy_wait(min_i(chain_n_ahead() + (n_experts == 1 ? ring : 0), 7));
    dependency_wait();
    dependency_launch();
    uint32_t turn = turns[block_x()];
    if (thread_x() < 8 * most && chain_panel(thread_x() / 8) < chain_out_panels(&c))
        c.own_columns[thread_x()] = x[chain_panel(thread_x() / 8) * 8 + thread_x() % 8];
    for (int layer = 0; layer < n_layers; layer++) {
        turn++;
        c.words = chain_anew_words(words);
        chain_in(&c, &ring_at, layer, x, parts, turn);
        chain_x(&c, layer, turn);
        chain_scan(&c, layer, turn);
        if (layer + 1 < n_layers)
            leave = chain_fetch(&c, layer + 1);
        else
            copy_commit();
        chain_out(&c, leave, &ring_at, layer, x, next, turn);
    }
    barrier();
    if (thread_x() == 0)
        turns[block_x()] = turn;
}
