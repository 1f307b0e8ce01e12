/* Decode of one sequence: a run of mamba layers in one launch, whose blocks hand their results to each other.
 *
 * Block b owns channels 16 b to 16 b + 15 of every layer and columns 8 b to 8 b + 7 of x. In: x, and the parts of the
 * first router's logits and of the sum of squares, as an earlier launch left them; out: the same. What a layer needs
 * besides is fetched while the layer before waits for others. Grid: the larger of n_channels / 16
 * and d_model / 8, all blocks resident; threads: 512. Invariant: turns[b] counts the layers block b has done.
 */
PARAM(d_model, m) PARAM(n_channels, c) PARAM(d_conv, k) PARAM(d_state, n) PARAM(dt_rank, r) PARAM(n_experts, e)
PARAM(renormalize, rn) PARAM(zoh, zoh) PARAM(weight_dtype, w) PARAM(dt_dtype, dw) PARAM(act, a) PARAM(next_experts, ne)
PARAM(group, g) PARAM(ring, rg) PARAM(out_group, og) PARAM(out_ring, or) PARAM(x_group, xg) PARAM(n_blocks, nb)
FPARAM(eps, eps)

enum { CHAIN_WARPS = 16, CHAIN_THREADS = 512, CHAIN_OWN = 16, CHAIN_TILES = 2, CHAIN_SLICES = 4, CHAIN_ITEMS = 4,
    CHAIN_PART_LEN = DECODE_ROWS * 8 * 4 };

/* The tensors of the run's first layer; those of layer i lie i strides further. Scales follow their matrix. */
typedef struct {
    const uint8_t *norm, *in_router, *in, *conv, *conv_bias, *ssm_router, *x, *dt, *dt_bias, *a, *d, *out_router, *out;
    const uint8_t *next_norm, *next_router;            /* of the layer after the run */
    uint8_t *conv_state, *scan_state;                  /* in the sequence's slot */
    int64_t stride, kept_stride;                       /* bytes from layer to layer: weights, states */
} ChainTensors;

/* ---- what follows from the parameters ---- */

DEVICE int chain_routed(void) { return n_experts > 1 ? n_experts : 0; }
DEVICE int chain_in_blocks(void) { return n_channels / CHAIN_OWN; }
DEVICE int chain_out_blocks(void) { return d_model / 8; }
DEVICE int chain_each(void) { return dt_rank + 2 * d_state; }                      /* columns of x_proj */
DEVICE int chain_x_tiles(void) { return (n_experts * chain_each() + 7) / 8; }
DEVICE int chain_x_most(void) { return (chain_x_tiles() + n_blocks - 1) / n_blocks; }         /* of a block */
DEVICE int chain_k_len(int n) { return (n + 63) / 64 * 64; }
DEVICE int chain_x_groups(void)
{
    return decode_n_groups(decode_n_chunks(n_channels, weight_dtype), CHAIN_WARPS, x_group);
}

DEVICE int chain_ring_len(void) { return max_i(group * ring, out_group * out_ring) * DECODE_SLOT; }    /* of a warp */
DEVICE int chain_x_ring_len(void) { return chain_x_most() * chain_x_groups() * x_group * DECODE_SLOT; }

/* Places in a layer's small numbers (floats). */
DEVICE int chain_at_state(void) { return CHAIN_OWN * (d_conv + 1); }
DEVICE int chain_at_ssm(void) { return chain_at_state() + CHAIN_OWN * (d_conv - 1); }
DEVICE int chain_at_router(void) { return chain_at_ssm() + CHAIN_OWN * chain_routed(); }
DEVICE int chain_at_bias(void) { return chain_at_router() + CHAIN_OWN * chain_routed(); }
DEVICE int chain_at_d(void) { return chain_at_bias() + CHAIN_OWN * n_experts; }
DEVICE int chain_at_leave(void) { return chain_at_d() + CHAIN_OWN; }
DEVICE int chain_at_scales(void)
{
    return chain_at_leave() + 8 * max_i(chain_routed(), next_experts > 1 ? next_experts : 0);
}
DEVICE int chain_at_out_scales(void) { return chain_at_scales() + (weight_dtype == 3 ? 2 * CHAIN_OWN * n_experts : 0); }
DEVICE int chain_at_x_scales(void) { return chain_at_out_scales() + (weight_dtype == 3 ? 8 * n_experts : 0); }
DEVICE int chain_at_dt_scales(void) { return chain_at_x_scales() + (weight_dtype == 3 ? 8 * chain_x_most() : 0); }
DEVICE int chain_n_items(void) { return chain_at_dt_scales() + (dt_dtype == 3 ? CHAIN_OWN : 0); }

/* Words that blocks exchange. */
DEVICE int chain_at_y(void) { return n_channels / 2; }
DEVICE int chain_at_x(void) { return chain_at_y() + n_channels / 2; }
DEVICE int chain_at_ssm_parts(void) { return chain_at_x() + d_model; }
DEVICE int chain_at_out_parts(void) { return chain_at_ssm_parts() + chain_routed() * chain_in_blocks(); }
DEVICE int chain_at_sums(void) { return chain_at_out_parts() + chain_routed() * chain_in_blocks(); }
DEVICE int chain_at_xp(void) { return chain_at_sums() + (chain_routed() + 1) * chain_out_blocks(); }
DEVICE int chain_xp_stride(void) { return (chain_each() + 1) / 2 * 2; }

/* ---- a block ---- */

typedef struct {
    DecodeRoute *route;
    act_t *xs, *rows;          /* the normalised input; x_c, then y: each warp its slice */
    uint8_t *ring, *x_ring, *dt;   /* a warp's own rings */
    float *sums, *x_sums, *own_x, *own_z, *own_y, *own_columns /* of x */, *xp;
    float *items /* of two layers */, *ahead /* [6][threads]: of the norm's weights, a, the state */;
    uint64_t *words;
    ChainTensors of;
    int top_k, n_layers;
} Chain;

/* What a thread fetched for the next layer. */
typedef struct { float items[CHAIN_ITEMS], norm[4], a, old; } ChainAhead;

DEVICE void chain_place(Chain *c)
{
    uint8_t *at = shared();
    c->route = (DecodeRoute *)at;
    at += sizeof(DecodeRoute);
    c->xs = (act_t *)at;
    at += 2 * (chain_k_len(d_model) + 8);
    c->rows = (act_t *)at;
    at += 2 * (chain_k_len(n_channels) + 8);
    c->ring = at + warp() * chain_ring_len();
    at += CHAIN_WARPS * chain_ring_len();
    c->x_ring = at + warp() * chain_x_ring_len();
    at += CHAIN_WARPS * chain_x_ring_len();
    c->dt = at;
    at += CHAIN_OWN * decode_row_len(n_experts * dt_rank, dt_dtype);
    c->sums = (float *)at;
    at += 2 * CHAIN_TILES * CHAIN_SLICES * CHAIN_PART_LEN;
    c->x_sums = (float *)at;
    at += chain_x_most() * CHAIN_WARPS * CHAIN_PART_LEN;
    c->own_x = (float *)at;
    c->own_z = c->own_x + CHAIN_OWN;
    c->own_y = c->own_z + CHAIN_OWN;
    c->own_columns = c->own_y + CHAIN_OWN;
    c->xp = c->own_columns + 8;
    c->ahead = c->xp + n_experts * chain_xp_stride();
    c->items = c->ahead + 6 * CHAIN_THREADS;
}

DEVICE float *chain_items(const Chain *c, int layer) { return c->items + layer % 2 * chain_n_items(); }
DEVICE const float *chain_floats(const Chain *c, const uint8_t *first, int layer)
{
    return (const float *)(first + layer * c->of.stride);
}
DEVICE float *chain_kept(const Chain *c, uint8_t *first, int layer)
{
    return (float *)(first + layer * c->of.kept_stride);
}
/* Of a matrix with so many rows. */
DEVICE const float *chain_scales(const Chain *c, const uint8_t *first, int n_rows, const int n_in, int layer)
{
    const int64_t len = (int64_t)n_rows * decode_row_len(n_in, 3);
    return chain_floats(c, first + (len + 255) / 256 * 256, layer);
}

/* Experts of the router after a layer, 0: none. */
DEVICE int chain_n_next(const Chain *c, int layer)
{
    return layer + 1 < c->n_layers ? chain_routed() : next_experts > 1 ? next_experts : 0;
}

/* Item i of a layer; 0 where the block owns nothing. */
DEVICE float chain_item(const Chain *c, int layer, int i)
{
    const int block = chain_anew(block_x()), c0 = block * CHAIN_OWN, column0 = block * 8;
    const int owns = c0 < n_channels, leaves = column0 < d_model;
    if (i < chain_at_state())
        return !owns ? 0.0f : i % (d_conv + 1) < d_conv
            ? chain_floats(c, c->of.conv, layer)[(c0 + i / (d_conv + 1)) * d_conv + i % (d_conv + 1)]
            : chain_floats(c, c->of.conv_bias, layer)[c0 + i / (d_conv + 1)];
    if (i < chain_at_ssm()) {
        const int j = i - chain_at_state();
        return owns ? chain_kept(c, c->of.conv_state, layer)[j / CHAIN_OWN * n_channels + c0 + j % CHAIN_OWN] : 0.0f;
    }
    if (i < chain_at_d()) {              /* two routers and the bias: [expert][channel] */
        const int j = i < chain_at_router() ? i - chain_at_ssm() : i < chain_at_bias() ? i - chain_at_router()
            : i - chain_at_bias();
        const uint8_t *from = i < chain_at_router() ? c->of.ssm_router : i < chain_at_bias() ? c->of.out_router
            : c->of.dt_bias;
        return owns ? chain_floats(c, from, layer)[j / CHAIN_OWN * n_channels + c0 + j % CHAIN_OWN] : 0.0f;
    }
    if (i < chain_at_leave())
        return owns ? chain_floats(c, c->of.d, layer)[c0 + i - chain_at_d()] : 0.0f;
    if (i < chain_at_scales()) {
        const int j = i - chain_at_leave(), last = layer + 1 == c->n_layers, n_next = chain_n_next(c, layer);
        const float *router = last ? (const float *)c->of.next_router : chain_floats(c, c->of.in_router, layer + 1);
        const float *norm = last ? (const float *)c->of.next_norm : chain_floats(c, c->of.norm, layer + 1);
        return leaves && j < 8 * n_next ? decode_leave_item(j, router, norm, n_next, d_model, column0) : 0.0f;
    }
    if (i < chain_at_out_scales()) {
        const int j = i - chain_at_scales(), part = j / CHAIN_OWN;          /* expert, then x' or z */
        const float *scales = chain_scales(c, c->of.in, 2 * n_experts * n_channels, d_model, layer);
        return owns ? scales[part * n_channels + c0 + j % CHAIN_OWN] : 0.0f;
    }
    if (i < chain_at_x_scales()) {
        const int j = i - chain_at_out_scales();
        const float *scales = chain_scales(c, c->of.out, n_experts * d_model, n_channels, layer);
        return leaves ? scales[j / 8 * d_model + column0 + j % 8] : 0.0f;
    }
    if (i < chain_at_dt_scales()) {
        const int j = i - chain_at_x_scales(), row = (block + j / 8 * n_blocks) * 8 + j % 8;
        const float *scales = chain_scales(c, c->of.x, n_experts * chain_each(), n_channels, layer);
        return row < n_experts * chain_each() ? scales[row] : 0.0f;
    }
    const float *scales = chain_scales(c, c->of.dt, n_channels, n_experts * dt_rank, layer);
    return owns ? scales[c0 + i - chain_at_dt_scales()] : 0.0f;
}

/* Small numbers of a layer, to registers. */
DEVICE void chain_fetch(const Chain *c, ChainAhead *ahead, int layer)
{
    const int thread = chain_anew(thread_x());
    const int channel = chain_anew(block_x()) * CHAIN_OWN + thread / 32;
    UNROLL for (int i = 0; i < (chain_n_items() + CHAIN_THREADS - 1) / CHAIN_THREADS; i++)
        if (thread + i * CHAIN_THREADS < chain_n_items())
            ahead->items[min_i(i, CHAIN_ITEMS - 1)] = chain_item(c, layer, thread + i * CHAIN_THREADS);
    decode_load4(ahead->norm, chain_floats(c, c->of.norm, layer), 4 * ((thread + CHAIN_THREADS / 2) % CHAIN_THREADS),
        d_model);
    ahead->a = ahead->old = 0;
    if (lane() < d_state && channel < n_channels) {
        ahead->a = chain_floats(c, c->of.a, layer)[channel * d_state + lane()];
        ahead->old = chain_kept(c, c->of.scan_state, layer)[channel * d_state + lane()];
    }
}

DEVICE void chain_keep(const Chain *c, const ChainAhead *ahead, int layer)
{
    UNROLL for (int i = 0; i < (chain_n_items() + CHAIN_THREADS - 1) / CHAIN_THREADS; i++)
        if (thread_x() + i * CHAIN_THREADS < chain_n_items())
            chain_items(c, layer)[thread_x() + i * CHAIN_THREADS] = ahead->items[min_i(i, CHAIN_ITEMS - 1)];
    UNROLL for (int i = 0; i < 4; i++)
        c->ahead[i * CHAIN_THREADS + thread_x()] = ahead->norm[i];
    c->ahead[4 * CHAIN_THREADS + thread_x()] = ahead->a;
    c->ahead[5 * CHAIN_THREADS + thread_x()] = ahead->old;
}

/* ---- the weights of the three products ---- */

DEVICE DecodeShape chain_in_shape(void)
{
    return (DecodeShape){ chain_k_len(d_model), weight_dtype, act, CHAIN_SLICES, group,
        decode_n_groups(decode_n_chunks(d_model, weight_dtype), CHAIN_SLICES, group), ring, .gated = n_experts > 1 };
}
DEVICE DecodeWeights chain_in_weights(const Chain *c, int layer)
{
    const int row_len = decode_row_len(d_model, weight_dtype), r = chain_anew(lane()) / 8;
    const int c0 = chain_anew(block_x()) * CHAIN_OWN;
    const int n_tiles = c0 < n_channels ? CHAIN_TILES : 0;
    const DecodeSlice slice = decode_slice(decode_n_chunks(d_model, weight_dtype), CHAIN_SLICES, warp() % CHAIN_SLICES);
    return (DecodeWeights){ c->of.in + layer * c->of.stride + (int64_t)(c0 + r) * row_len + slice.first * DECODE_CHUNK
        + lane() % 8 * 16, 4 * row_len, 8 * row_len, (int64_t)n_channels * row_len, (int64_t)2 * n_channels * row_len,
        CHAIN_TILES, { n_tiles, n_tiles }, slice.n, warp() / CHAIN_SLICES, 2 * n_tiles, CHAIN_WARPS / CHAIN_SLICES, 1,
        c->ring };
}

DEVICE DecodeShape chain_x_shape(void)
{
    return (DecodeShape){ chain_k_len(n_channels), weight_dtype, act, CHAIN_WARPS, x_group, chain_x_groups(),
        chain_x_most() * chain_x_groups(), .ready = 1 };
}
DEVICE int chain_x_count(void) { return max_i(chain_x_tiles() - block_x() + n_blocks - 1, 0) / n_blocks; }
DEVICE DecodeWeights chain_x_weights(const Chain *c, int layer)
{
    const int row_len = decode_row_len(n_channels, weight_dtype), r = chain_anew(lane()) / 8;
    const int row0 = chain_anew(block_x()) * 8;
    const int n_rows = n_experts * chain_each(), step = 8 * n_blocks;
    const DecodeSlice slice = decode_slice(decode_n_chunks(n_channels, weight_dtype), CHAIN_WARPS, warp());
    return (DecodeWeights){ c->of.x + layer * c->of.stride + (int64_t)(row0 + r) * row_len + slice.first * DECODE_CHUNK
        + lane() % 8 * 16, 4 * row_len, (int64_t)step * row_len, 0, 0, 1 << 20,
        { max_i(n_rows - row0 - r + step - 1, 0) / step, max_i(n_rows - row0 - r - 4 + step - 1, 0) / step }, slice.n,
        0, chain_x_count(), 1, 1,
        c->x_ring };
}
DEVICE void chain_fetch_x(const Chain *c, int layer)
{
    const DecodeWeights w = chain_x_weights(c, layer);
    DecodeCursor at = decode_begin(&w);
    decode_fill_ring(&w, &at, chain_x_shape());
}

/* Groups of copies for the next layer that follow out_proj's; fewer than there are makes it wait for some of them. */
DEVICE int chain_behind(void) { return min_i(chain_x_most() * chain_x_groups() + 1, 8 - out_ring); }
DEVICE DecodeShape chain_out_shape(void)
{
    return (DecodeShape){ chain_k_len(n_channels), weight_dtype, act, CHAIN_WARPS, out_group,
        decode_n_groups(decode_n_chunks(n_channels, weight_dtype), CHAIN_WARPS, out_group), out_ring,
        .gated = n_experts > 1, .behind = chain_behind() };
}
DEVICE DecodeWeights chain_out_weights(const Chain *c, int layer)
{
    const int row_len = decode_row_len(n_channels, weight_dtype), r = chain_anew(lane()) / 8;
    const int column0 = chain_anew(block_x()) * 8;
    const int n_tiles = column0 < d_model;
    const DecodeSlice slice = decode_slice(decode_n_chunks(n_channels, weight_dtype), CHAIN_WARPS, warp());
    return (DecodeWeights){ c->of.out + layer * c->of.stride + (int64_t)(column0 + r) * row_len
        + slice.first * DECODE_CHUNK + lane() % 8 * 16, 4 * row_len, 0, 0, (int64_t)d_model * row_len, 1,
        { n_tiles, n_tiles }, slice.n,
        0, n_tiles, 1, 1, c->ring };
}

/* dt_proj's rows: each warp its own channel's. */
DEVICE void chain_fetch_dt(const Chain *c, int layer)
{
    const int row_len = decode_row_len(n_experts * dt_rank, dt_dtype);
    const int channel = chain_anew(block_x()) * CHAIN_OWN + warp();
    const uint8_t *from = c->of.dt + layer * c->of.stride + (int64_t)channel * row_len;
    for (int i = 16 * lane(); i < row_len && channel < n_channels; i += 512)
        decode_copy16(c->dt + warp() * row_len + i, from + i, 16);
    copy_commit();
}

/* A row's input for the products: the warp's slice of `row`. */
DEVICE DecodeInput chain_input(const act_t *row, int first_chunk)
{
    const int t_width = weight_dtype == 3 ? 16 : 8;
    return (DecodeInput){ row, 0, first_chunk * 4 * t_width + lane() % 4 * t_width };
}

/* Sums of parts that blocks told: by the first warps, for all after a barrier. */
DEVICE void chain_sums(const Chain *c, const uint64_t *words, int n_sums, const int n_parts, uint32_t turn)
{
    for (int i = warp(); i < n_sums; i += CHAIN_WARPS) {
        const float sum = chain_sum(words + i * n_parts, n_parts, turn);
        if (lane() == 0)
            c->route->sums[i] = sum;
    }
}

/* ---- in_proj, convolution ---- */

/* By a warp: what the convolution has from earlier tokens, to own_x. */
DEVICE void chain_in_old(const Chain *c, int layer)
{
    const int i = lane() % CHAIN_OWN;
    const float *items = chain_items(c, layer), *taps = items + i * (d_conv + 1), *old = items + chain_at_state();
    float sum = taps[d_conv];
    UNROLL for (int j = 0; j < d_conv - 1; j++)
        sum += taps[j] * old[j * CHAIN_OWN + i];
    if (lane() < CHAIN_OWN)
        c->own_x[i] = sum;
}

/* By a warp: lanes 0 to 15 a channel of x' each, the others one of z. */
DEVICE void chain_in_finish(const Chain *c, int layer, uint32_t turn)
{
    const int half = lane() / CHAIN_OWN, i = lane() % CHAIN_OWN, channel = block_x() * CHAIN_OWN + i;
    const float *items = chain_items(c, layer), *taps = items + i * (d_conv + 1), *old = items + chain_at_state();
    const float *router = items + chain_at_ssm();
    float *kept = chain_kept(c, c->of.conv_state, layer) + channel;
    const float value = decode_read_part(c->sums, half * CHAIN_TILES + i / 8, CHAIN_SLICES, 0, i % 8);
    const float sum = decode_silu(half ? value : c->own_x[i] + taps[d_conv - 1] * value);
    const float other = shuffle_xor_f(sum, 1);
    if (half == 0 && i % 2 == 0)
        chain_tell(c->words + channel / 2, act_pack(sum, other, act), turn);
    (half ? c->own_z : c->own_x)[i] = sum;
    warp_sync();
    for (int n0 = 0; n0 < chain_routed(); n0 += 8) {       /* four lanes a logit */
        const int n = n0 + lane() / 4, q = lane() % 4;
        float logit = 0;
        if (n < n_experts)
            UNROLL for (int j = 0; j < CHAIN_OWN / 4; j++)
                logit += c->own_x[4 * j + q] * router[n * CHAIN_OWN + 4 * j + q];
        logit += shuffle_xor_f(logit, 1);
        logit += shuffle_xor_f(logit, 2);
        if (n < n_experts && q == 0)
            chain_tell(c->words + chain_at_ssm_parts() + n * chain_in_blocks() + block_x(), float_bits(logit), turn);
    }
    UNROLL for (int j = 0; j < d_conv - 1; j++)
        if (half == 0)
            kept[(int64_t)j * n_channels] = j + 2 < d_conv ? old[(j + 1) * CHAIN_OWN + i] : value;
}

/* x and parts: of the first layer. ring_at: where the ring stands, without routers. */
DEVICE void chain_in(const Chain *c, DecodeCursor *ring_at, int layer, const float *x,
    const float *parts, uint32_t turn)
{
    const int n_sums = chain_routed() + 1, k = 4 * ((chain_anew(thread_x()) + CHAIN_THREADS / 2) % CHAIN_THREADS);
    DecodeWeights w = chain_in_weights(c, layer);
    const DecodeShape shape = chain_in_shape();
    const DecodeSlice slice = decode_slice(decode_n_chunks(d_model, weight_dtype), CHAIN_SLICES, warp() % CHAIN_SLICES);
    float from[4] = { 0, 0, 0, 0 };
    if (layer == 0) {
        decode_load4(from, x, k, d_model);
        decode_sum_parts(c->route->sums, parts, n_sums, chain_out_blocks());
    } else {
        const uint64_t *own = c->words + chain_at_x() + min_i(k, d_model - 4);
        chain_guard(own, turn - 1);
        u32x4 got[2] = { chain_load(own), chain_load(own + 2) };
        chain_sums(c, c->words + chain_at_sums(), n_sums, chain_out_blocks(), turn - 1);
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
    float norm[4];
    UNROLL for (int i = 0; i < 4; i++)
        norm[i] = c->ahead[i * CHAIN_THREADS + thread_x()];
    if (k < chain_k_len(d_model))
        decode_store_norm4(c->xs, k, from, norm, decode_rms(c->route, 0, n_sums, d_model, eps), act);
    if (warp() == 0)
        chain_in_old(c, layer);
    barrier();
    const DecodeInput in = chain_input(c->xs, slice.first);
    decode_multiply(c->sums, &w, ring_at, w.experts, &in, c->route,
        weight_dtype == 3 ? chain_items(c, layer) + chain_at_scales() : NULL, 2 * CHAIN_OWN, 1, c->top_k, NULL, shape);
    if (n_experts == 1) {                                  /* out_proj's, as soon as the ring is used up */
        const DecodeWeights out = chain_out_weights(c, layer);
        *ring_at = decode_begin(&out);
        warp_sync();
        decode_fill_ring(&out, ring_at, chain_out_shape());
    }
    barrier();
    if (warp() == 0 && block_x() < chain_in_blocks())
        chain_in_finish(c, layer, turn);
    if (n_experts > 1) {
        const DecodeWeights out = chain_out_weights(c, layer);
        decode_expect_experts(&out, n_experts);
    }
}

/* ---- x_proj ---- */

DEVICE void chain_x(const Chain *c, int layer, uint32_t turn)
{
    const DecodeShape shape = chain_x_shape();
    if (chain_x_count() > 0) {
        const DecodeWeights w = chain_x_weights(c, layer);
        const DecodeSlice slice = decode_slice(decode_n_chunks(n_channels, weight_dtype), CHAIN_WARPS, warp());
        const int width = weight_dtype == 3 ? 64 : 32, first = slice.first * width;
        DecodeCursor at = decode_begin(&w);
        const int n = min_i(slice.n * width, n_channels - first);
        chain_take_row(c->rows + first, chain_ask_row(c->words + first / 2, n, turn), c->words + first / 2, n, turn);
        warp_sync();
        const DecodeInput in = chain_input(c->rows, slice.first);
        decode_multiply(c->x_sums, &w, &at, 1, &in, c->route, NULL, 0, 1, 1, NULL, shape);
        barrier();
        for (int i = warp(); i < chain_x_count(); i += CHAIN_WARPS) {
            const int row = (block_x() + i * n_blocks) * 8 + lane();
            float sum = 0;
            UNROLL for (int s = 0; s < CHAIN_WARPS / 4; s++)
                sum += c->x_sums[(i * CHAIN_WARPS + 4 * s + lane() / 8) * DECODE_ROWS * 8 + lane() % 8];
            sum += shuffle_xor_f(sum, 8);
            sum += shuffle_xor_f(sum, 16);
            if (weight_dtype == 3)
                sum *= chain_items(c, layer)[chain_at_x_scales() + 8 * i + lane() % 8];
            if (lane() < 8 && row < n_experts * chain_each())
                chain_tell(c->words + chain_at_xp() + row / chain_each() * chain_xp_stride() + row % chain_each(),
                    float_bits(sum), turn);
        }
    }
}

/* ---- dt_proj, scan ---- */

/* By a warp: its channel's step. */
DEVICE void chain_step(const Chain *c, int layer, uint32_t active)
{
    const int i = warp(), channel = block_x() * CHAIN_OWN + i, row_len = decode_row_len(n_experts * dt_rank, dt_dtype);
    const float *items = chain_items(c, layer);
    const uint8_t *row = c->dt + i * row_len;
    float dt = 0, bias = 0, b = 0, state_c = 0;
    for (uint32_t left = active; left; left &= left - 1) {
        const int expert = __builtin_ctz(left);
        const float gate = n_experts > 1 ? c->route->gates[expert * DECODE_ROWS] : 1.0f;
        const float *xp = c->xp + expert * chain_xp_stride();
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
        bias += gate * items[chain_at_bias() + expert * CHAIN_OWN + i];
        if (lane() < d_state) {
            b += gate * xp[dt_rank + lane()];
            state_c += gate * xp[dt_rank + d_state + lane()];
        }
    }
    dt = decode_warp_sum(dt);
    if (dt_dtype == 3)
        dt *= items[chain_at_dt_scales() + i];
    dt = decode_softplus(dt + bias);
    const float x = c->own_x[i], power = dt * c->ahead[4 * CHAIN_THREADS + thread_x()], decay = exp2_fast(power);
    const float now = decay * c->ahead[5 * CHAIN_THREADS + thread_x()]
        + (zoh ? dt * decode_decay_ratio(power, decay) : dt) * b * x;
    float y = lane() < d_state ? state_c * now : 0.0f;
    y = decode_warp_sum(y);
    if (lane() == 0)
        c->own_y[i] = (y + items[chain_at_d() + i] * x) * c->own_z[i];
    if (lane() < d_state && channel < n_channels)
        chain_kept(c, c->of.scan_state, layer)[channel * d_state + lane()] = now;
}

/* y to all; its part of the next router's logits. */
DEVICE void chain_scan_finish(const Chain *c, int layer, uint32_t turn)
{
    const float *router = chain_items(c, layer) + chain_at_router();
    if (warp() == 0 && lane() < CHAIN_OWN / 2)
        chain_tell(c->words + chain_at_y() + block_x() * (CHAIN_OWN / 2) + lane(),
            act_pack(c->own_y[2 * lane()], c->own_y[2 * lane() + 1], act), turn);
    for (int n0 = 8 * (warp() - 1); warp() > 0 && n0 < chain_routed(); n0 += 8 * (CHAIN_WARPS - 1)) {
        const int n = n0 + lane() / 4, q = lane() % 4;
        float logit = 0;
        if (n < n_experts)
            UNROLL for (int j = 0; j < CHAIN_OWN / 4; j++)
                logit += c->own_y[4 * j + q] * router[n * CHAIN_OWN + 4 * j + q];
        logit += shuffle_xor_f(logit, 1);
        logit += shuffle_xor_f(logit, 2);
        if (n < n_experts && q == 0)
            chain_tell(c->words + chain_at_out_parts() + n * chain_in_blocks() + block_x(), float_bits(logit), turn);
    }
}

DEVICE void chain_scan(const Chain *c, int layer, uint32_t turn)
{
    uint32_t active = 1;
    if (n_experts > 1) {
        chain_sums(c, c->words + chain_at_ssm_parts(), n_experts, chain_in_blocks(), turn);
        barrier();
        active = decode_select(c->route, 1, n_experts, n_experts, c->top_k);
        decode_gates(c->route, 1, n_experts, n_experts, renormalize, 0, 1, 0);
    }
    int place = 0;                                         /* pairs of columns of the chosen experts, a thread each */
    for (uint32_t left = active; left; left &= left - 1, place += chain_xp_stride() / 2) {
        const int expert = __builtin_ctz(left);
        const uint64_t *from = c->words + chain_at_xp() + expert * chain_xp_stride();
        for (int j = thread_x() - place; j < chain_xp_stride() / 2; j += CHAIN_THREADS) {
            if (j < 0)
                continue;
            u32x4 got;
            const int odd = 2 * j + 1 >= chain_each();     /* the last one has no neighbour */
            do
                got = chain_load(from + 2 * j);
            while (got[1] != turn || (!odd && got[3] != turn));
            c->xp[expert * chain_xp_stride() + 2 * j] = bits_float(got[0]);
            c->xp[expert * chain_xp_stride() + 2 * j + 1] = bits_float(got[2]);
        }
    }
    barrier();
    if (block_x() < chain_in_blocks())
        chain_step(c, layer, active);
    barrier();
    if (block_x() < chain_in_blocks())
        chain_scan_finish(c, layer, turn);
    if (n_experts > 1 && layer + 1 < c->n_layers) {
        const DecodeWeights in = chain_in_weights(c, layer + 1);
        decode_expect_experts(&in, n_experts);
    }
}

/* ---- out_proj ---- */

/* By a warp: new columns of x; their part of the next router's logits and of the sum of squares. */
DEVICE void chain_out_finish(const Chain *c, int layer, float *x, float *next, uint32_t turn)
{
    const int n_next = chain_n_next(c, layer), column = block_x() * 8 + lane() % 8;
    const float *items = chain_items(c, layer) + chain_at_leave();
    float sum = 0, square, from[8], even = 0, odd = 0;
    UNROLL for (int s = 0; s < CHAIN_WARPS / 4; s++)
        sum += c->sums[(4 * s + lane() / 8) * DECODE_ROWS * 8 + lane() % 8];
    sum += shuffle_xor_f(sum, 8);
    sum += shuffle_xor_f(sum, 16);
    sum += c->own_columns[lane() % 8];
    warp_sync();
    if (lane() < 8)
        c->own_columns[lane()] = sum;
    if (layer + 1 == c->n_layers) {
        if (lane() < 8)
            x[column] = sum;
        decode_leave(next, items, sum, 0, n_next, chain_out_blocks(), chain_anew(block_x()));
        return;
    }
    if (lane() < 8)
        chain_tell(c->words + chain_at_x() + column, float_bits(sum), turn);
    square = sum * sum;
    UNROLL for (int mask = 4; mask > 0; mask /= 2)
        square += shuffle_xor_f(square, mask);
    UNROLL for (int i = 0; i < 8; i++)
        from[i] = shuffle_f(sum, i);
    if (lane() < n_next)
        UNROLL for (int i = 0; i < 8; i += 2) {
            even += from[i] * items[i * n_next + lane()];
            odd += from[i + 1] * items[(i + 1) * n_next + lane()];
        }
    if (lane() <= n_next)
        chain_tell(c->words + chain_at_sums() + lane() * chain_out_blocks() + block_x(),
            float_bits(lane() < n_next ? even + odd : square), turn);
}

DEVICE void chain_out(const Chain *c, const ChainAhead *ahead, DecodeCursor *ring_at, int layer, float *x,
    float *next, uint32_t turn)
{
    DecodeWeights w = chain_out_weights(c, layer);
    const DecodeShape shape = chain_out_shape();
    const DecodeSlice slice = decode_slice(decode_n_chunks(n_channels, weight_dtype), CHAIN_WARPS, warp());
    const int width = weight_dtype == 3 ? 64 : 32, first = slice.first * width;
    const int n = min_i(slice.n * width, n_channels - first);
    const uint64_t *from = c->words + chain_at_y() + first / 2;
    const u32x4 asked = chain_ask_row(from, n, turn);
    if (n_experts > 1)
        chain_sums(c, c->words + chain_at_out_parts(), n_experts, chain_in_blocks(), turn);
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
        chain_keep(c, ahead, layer + 1);
    } else {
        UNROLL for (int i = 0; i < chain_x_most() * chain_x_groups() + 1; i++)
            copy_commit();
    }
    barrier();
    const DecodeInput in = chain_input(c->rows, slice.first);
    decode_multiply(c->sums, &w, ring_at, w.experts, &in, c->route,
        weight_dtype == 3 ? chain_items(c, layer) + chain_at_out_scales() : NULL, 8, 1, c->top_k, NULL, shape);
    if (n_experts == 1 && layer + 1 < c->n_layers) {
        const DecodeWeights in_next = chain_in_weights(c, layer + 1);
        *ring_at = decode_begin(&in_next);
        warp_sync();
        decode_fill_ring(&in_next, ring_at, chain_in_shape());
    }
    barrier();
    if (warp() == 0 && block_x() < chain_out_blocks())
        chain_out_finish(c, layer, x, next, turn);
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
    Chain c = { .words = words, .top_k = top_k, .n_layers = n_layers, .of = { norm, in_router, in, conv, conv_bias,
        ssm_router, x_proj, dt, dt_bias, a, d, out_router, out, next_norm, next_router, conv_state + slot,
        scan_state + slot, (int64_t)16 * stride, (int64_t)16 * kept_stride } };
    ChainAhead ahead;
    DecodeCursor ring_at = { 0, 0, 0, 0, 0 };
    chain_place(&c);
    for (int i = n_channels + thread_x(); i < chain_k_len(n_channels); i += CHAIN_THREADS)
        c.rows[i] = 0;
    chain_fetch_x(&c, 0);
    chain_fetch_dt(&c, 0);
    if (n_experts == 1) {
        const DecodeWeights w = chain_in_weights(&c, 0);
        ring_at = decode_begin(&w);
        decode_fill_ring(&w, &ring_at, chain_in_shape());
    }
    chain_fetch(&c, &ahead, 0);
    chain_keep(&c, &ahead, 0);
    dependency_wait();
    dependency_launch();
    uint32_t turn = turns[block_x()];
    if (thread_x() < 8 && block_x() < chain_out_blocks())
        c.own_columns[lane()] = x[block_x() * 8 + lane()];
    for (int layer = 0; layer < n_layers; layer++) {
        turn++;
        c.words = chain_anew_words(words);
        chain_in(&c, &ring_at, layer, x, parts, turn);
        chain_x(&c, layer, turn);
        chain_scan(&c, layer, turn);
        if (layer + 1 < n_layers)
            chain_fetch(&c, &ahead, layer + 1);
        chain_out(&c, &ahead, &ring_at, layer, x, next, turn);
    }
    barrier();
    if (thread_x() == 0)
        turns[block_x()] = turn;
}
