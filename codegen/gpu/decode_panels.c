/* Decode of one sequence: a run of mamba layers in one launch, as decode_chain, of any number of blocks.
 *
 * Panels are 16 channels of every layer and 8 columns of x; block b owns panels b, b + n_blocks, ... of either kind.
 * In: x, and the parts of the first router's logits and of the sum of squares, as an earlier launch left them; out: the
 * same. What a layer needs besides is fetched while the layer before waits for others. Grid: n_blocks, at most
 * n_channels / 16 and no less than a quarter of it, all resident; threads: 512. Every sum is over a panel or over all
 * of them in order: results do not depend on n_blocks. Invariant: turns[b] counts the layers block b has done.
 */
PARAM(d_model, m) PARAM(n_channels, c) PARAM(d_conv, k) PARAM(d_state, n) PARAM(dt_rank, r) PARAM(n_experts, e)
PARAM(renormalize, rn) PARAM(zoh, zoh) PARAM(weight_dtype, w) PARAM(dt_dtype, dw) PARAM(act, a) PARAM(next_experts, ne)
PARAM(group, g) PARAM(ring, rg) PARAM(out_group, og) PARAM(out_ring, or) PARAM(x_group, xg)
PARAM(n_blocks, nb) PARAM(together, tg) FPARAM(eps, eps)

enum { CHAIN_WARPS = 16, CHAIN_THREADS = 512, CHAIN_OWN = 16, CHAIN_TILES = 2, CHAIN_SLICES = 4, CHAIN_ITEMS = 6,
    CHAIN_PART_LEN = DECODE_ROWS * 8 * 4, CHAIN_MOST = 4 /* panels of a block */ };

/* The tensors of the run's first layer; those of layer i lie i strides further. Scales follow their matrix. */
typedef struct {
    const uint8_t *norm, *in_router, *in, *conv, *conv_bias, *ssm_router, *x, *dt, *dt_bias, *a, *d, *out_router, *out;
    const uint8_t *next_norm, *next_router;            /* of the layer after the run */
    uint8_t *conv_state, *scan_state;                  /* in the sequence's slot */
    int64_t stride, kept_stride;                       /* bytes from layer to layer: weights, states */
} ChainTensors;

/* ---- what follows from the parameters ---- */

DEVICE int chain_routed(void) { return n_experts > 1 ? n_experts : 0; }
DEVICE int chain_in_panels(void) { return n_channels / CHAIN_OWN; }
DEVICE int chain_out_panels(void) { return d_model / 8; }
DEVICE int chain_in_most(void) { return (chain_in_panels() + n_blocks - 1) / n_blocks; }       /* of a block */
DEVICE int chain_out_most(void) { return (chain_out_panels() + n_blocks - 1) / n_blocks; }
DEVICE int chain_wide(void) { return chain_in_most() > 1; }
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

/* Shared memory is short where a block has several panels: nothing is kept for lanes and columns that are not there,
 * and parts of x_proj's sums lie in the place of the other sums' second row. */
DEVICE int chain_n_parts(void) { return CHAIN_WARPS * (chain_wide() ? max_i(chain_in_most(), chain_x_most()) : 1); }
DEVICE int chain_norm_len(void) { return chain_wide() ? chain_k_len(d_model) : 4 * CHAIN_THREADS; }
DEVICE int chain_lanes(void) { return chain_wide() ? d_state : 32; }               /* of a channel */

/* Places in the small numbers (floats) of a layer, of each panel of channels ... */
DEVICE int chain_at_state(void) { return CHAIN_OWN * (d_conv + 1); }
DEVICE int chain_at_ssm(void) { return chain_at_state() + CHAIN_OWN * (d_conv - 1); }
DEVICE int chain_at_router(void) { return chain_at_ssm() + CHAIN_OWN * chain_routed(); }
DEVICE int chain_at_bias(void) { return chain_at_router() + CHAIN_OWN * chain_routed(); }
DEVICE int chain_at_d(void) { return chain_at_bias() + CHAIN_OWN * n_experts; }
DEVICE int chain_own_len(void) { return chain_at_d() + CHAIN_OWN; }
/* ... and of all. */
DEVICE int chain_at_leave(void) { return chain_in_most() * chain_own_len(); }
DEVICE int chain_leave_len(void) { return 8 * max_i(chain_routed(), next_experts > 1 ? next_experts : 0); }
DEVICE int chain_at_scales(void) { return chain_at_leave() + chain_out_most() * chain_leave_len(); }
DEVICE int chain_in_scales(void) { return 2 * CHAIN_OWN * chain_in_most(); }       /* of an expert */
DEVICE int chain_out_scales(void) { return 8 * chain_out_most(); }
DEVICE int chain_at_out_scales(void)
{
    return chain_at_scales() + (weight_dtype == 3 ? chain_in_scales() * n_experts : 0);
}
DEVICE int chain_at_x_scales(void)
{
    return chain_at_out_scales() + (weight_dtype == 3 ? chain_out_scales() * n_experts : 0);
}
DEVICE int chain_at_dt_scales(void) { return chain_at_x_scales() + (weight_dtype == 3 ? 8 * chain_x_most() : 0); }
DEVICE int chain_n_items(void) { return chain_at_dt_scales() + (dt_dtype == 3 ? CHAIN_OWN * chain_in_most() : 0); }

/* Words that blocks exchange. */
DEVICE int chain_at_y(void) { return n_channels / 2; }
DEVICE int chain_at_x(void) { return chain_at_y() + n_channels / 2; }
DEVICE int chain_at_ssm_parts(void) { return chain_at_x() + d_model; }
DEVICE int chain_at_out_parts(void) { return chain_at_ssm_parts() + chain_routed() * chain_in_panels(); }
DEVICE int chain_at_sums(void) { return chain_at_out_parts() + chain_routed() * chain_in_panels(); }
DEVICE int chain_at_xp(void) { return chain_at_sums() + (chain_routed() + 1) * chain_out_panels(); }
DEVICE int chain_xp_stride(void) { return (chain_each() + 1) / 2 * 2; }

/* ---- a block ---- */

typedef struct {
    DecodeRoute *route;
    act_t *xs, *rows;          /* the normalised input; x_c, then y: each warp its slice */
    uint8_t *ring, *x_ring, *dt;   /* a warp's own rings */
    float *sums, *x_sums, *own_x, *own_z, *own_y, *own_columns /* of x */, *xp;
    float *items /* of two layers */, *norm /* its weights */, *kept /* [panel][a, state][warp][chain_lanes] */;
    uint64_t *words;
    ChainTensors of;
    int top_k, n_layers;
} Chain;

/* What a thread fetched for the next layer. */
typedef struct { float items[CHAIN_ITEMS], norm[4], a[CHAIN_MOST], old[CHAIN_MOST]; } ChainAhead;

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
    at += chain_in_most() * CHAIN_OWN * decode_row_len(n_experts * dt_rank, dt_dtype);
    c->sums = (float *)at;
    at += chain_n_parts() * CHAIN_PART_LEN;
    c->x_sums = chain_wide() ? c->sums + 8 : (float *)at;
    at += chain_wide() ? 0 : chain_x_most() * CHAIN_WARPS * CHAIN_PART_LEN;
    c->own_x = (float *)at;
    c->own_z = c->own_x + chain_in_most() * CHAIN_OWN;
    c->own_y = c->own_z + chain_in_most() * CHAIN_OWN;
    c->own_columns = c->own_y + chain_in_most() * CHAIN_OWN;
    c->xp = c->own_columns + chain_out_most() * 8;
    c->norm = c->xp + n_experts * chain_xp_stride();
    c->kept = c->norm + chain_norm_len();
    c->items = c->kept + chain_in_most() * 2 * CHAIN_WARPS * chain_lanes();
}

/* Where block b's panels are, and how many of n it has. */
DEVICE int chain_panel(int q) { return block_x() + q * n_blocks; }
DEVICE int chain_n_own(int n_panels) { return (n_panels - block_x() + n_blocks - 1) / n_blocks; }
/* Tiles of x_proj come first to blocks that have few panels. */
DEVICE int chain_x_block(int block) { return chain_wide() ? n_blocks - 1 - block : block; }

DEVICE float *chain_items(const Chain *c, int layer) { return c->items + layer % 2 * chain_n_items(); }
DEVICE const float *chain_own_items(const Chain *c, int layer, int q)
{
    return chain_items(c, layer) + q * chain_own_len();
}
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

/* Item i of a panel of channels from c0 on; 0 where there is none. */
DEVICE float chain_own_item(const Chain *c, int layer, int c0, int i)
{
    const int owns = c0 < n_channels;
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
    return owns ? chain_floats(c, c->of.d, layer)[c0 + i - chain_at_d()] : 0.0f;
}

/* Item i of a layer; 0 where the block owns nothing. */
DEVICE float chain_item(const Chain *c, int layer, int i)
{
    const int block = chain_anew(block_x());
    if (i < chain_at_leave()) {
        const int q = chain_wide() ? i / chain_own_len() : 0;
        return chain_own_item(c, layer, (block + q * n_blocks) * CHAIN_OWN, i - q * chain_own_len());
    }
    if (i < chain_at_scales()) {
        const int q = chain_out_most() > 1 ? (i - chain_at_leave()) / chain_leave_len() : 0;
        const int j = i - chain_at_leave() - q * chain_leave_len();
        const int column0 = (block + q * n_blocks) * 8, last = layer + 1 == c->n_layers;
        const int n_next = chain_n_next(c, layer);
        const float *router = last ? (const float *)c->of.next_router : chain_floats(c, c->of.in_router, layer + 1);
        const float *norm = last ? (const float *)c->of.next_norm : chain_floats(c, c->of.norm, layer + 1);
        return column0 < d_model && j < 8 * n_next ? decode_leave_item(j, router, norm, n_next, d_model, column0)
            : 0.0f;
    }
    if (i < chain_at_out_scales()) {     /* [expert][x' or z][tile][panel][8] */
        const int j = i - chain_at_scales(), tile = j / (8 * chain_in_most()), q = j / 8 % chain_in_most();
        const int c0 = (block + q * n_blocks) * CHAIN_OWN, i_own = chain_wide() ? tile % 2 * 8 + j % 8 : j % CHAIN_OWN;
        const float *scales = chain_scales(c, c->of.in, 2 * n_experts * n_channels, d_model, layer);
        return c0 < n_channels ? scales[tile / 2 * n_channels + c0 + i_own] : 0.0f;
    }
    if (i < chain_at_x_scales()) {       /* [expert][panel][8] */
        const int j = i - chain_at_out_scales(), q = j / 8 % chain_out_most(), column0 = (block + q * n_blocks) * 8;
        const float *scales = chain_scales(c, c->of.out, n_experts * d_model, n_channels, layer);
        return column0 < d_model ? scales[j / chain_out_scales() * d_model + column0 + j % 8] : 0.0f;
    }
    if (i < chain_at_dt_scales()) {
        const int j = i - chain_at_x_scales(), row = (chain_x_block(block) + j / 8 * n_blocks) * 8 + j % 8;
        const float *scales = chain_scales(c, c->of.x, n_experts * chain_each(), n_channels, layer);
        return row < n_experts * chain_each() ? scales[row] : 0.0f;
    }
    const int q = chain_wide() ? (i - chain_at_dt_scales()) / CHAIN_OWN : 0, c0 = (block + q * n_blocks) * CHAIN_OWN;
    const float *scales = chain_scales(c, c->of.dt, n_channels, n_experts * dt_rank, layer);
    return c0 < n_channels ? scales[c0 + i - chain_at_dt_scales() - q * CHAIN_OWN] : 0.0f;
}

/* Small numbers of a layer, to registers. */
DEVICE void chain_fetch(const Chain *c, ChainAhead *ahead, int layer)
{
    const int thread = chain_anew(thread_x()), block = chain_anew(block_x());
    UNROLL for (int i = 0; i < (chain_n_items() + CHAIN_THREADS - 1) / CHAIN_THREADS; i++)
        if (thread + i * CHAIN_THREADS < chain_n_items())
            ahead->items[min_i(i, CHAIN_ITEMS - 1)] = chain_item(c, layer, thread + i * CHAIN_THREADS);
    decode_load4(ahead->norm, chain_floats(c, c->of.norm, layer), 4 * ((thread + CHAIN_THREADS / 2) % CHAIN_THREADS),
        d_model);
    UNROLL for (int q = 0; q < chain_in_most(); q++) {
        const int channel = (block + q * n_blocks) * CHAIN_OWN + thread / 32, at = min_i(q, CHAIN_MOST - 1);
        ahead->a[at] = ahead->old[at] = 0;
        if (lane() < d_state && channel < n_channels) {
            ahead->a[at] = chain_floats(c, c->of.a, layer)[channel * d_state + lane()];
            ahead->old[at] = chain_kept(c, c->of.scan_state, layer)[channel * d_state + lane()];
        }
    }
}

/* What a thread keeps: item i of the norm's weights from column k on; a and the state of panel q. */
DEVICE int chain_norm_at(int k, int i) { return chain_wide() ? k + i : i * CHAIN_THREADS + thread_x(); }
DEVICE int chain_kept_at(int q, int i) { return ((2 * q + i) * CHAIN_WARPS + warp()) * chain_lanes() + lane(); }

DEVICE void chain_keep(const Chain *c, const ChainAhead *ahead, int layer)
{
    UNROLL for (int i = 0; i < (chain_n_items() + CHAIN_THREADS - 1) / CHAIN_THREADS; i++)
        if (thread_x() + i * CHAIN_THREADS < chain_n_items())
            chain_items(c, layer)[thread_x() + i * CHAIN_THREADS] = ahead->items[min_i(i, CHAIN_ITEMS - 1)];
    const int k = 4 * ((thread_x() + CHAIN_THREADS / 2) % CHAIN_THREADS);
    UNROLL for (int i = 0; i < 4; i++)
        if (!chain_wide() || k < chain_norm_len())
            c->norm[chain_norm_at(k, i)] = ahead->norm[i];
    UNROLL for (int q = 0; q < chain_in_most(); q++)
        if (!chain_wide() || lane() < d_state) {
            c->kept[chain_kept_at(q, 0)] = ahead->a[min_i(q, CHAIN_MOST - 1)];
            c->kept[chain_kept_at(q, 1)] = ahead->old[min_i(q, CHAIN_MOST - 1)];
        }
}

/* ---- the weights of the three products ---- */

DEVICE DecodeShape chain_in_shape(void)
{
    return (DecodeShape){ chain_k_len(d_model), weight_dtype, act, CHAIN_SLICES, group,
        decode_n_groups(decode_n_chunks(d_model, weight_dtype), CHAIN_SLICES, group), ring, .gated = n_experts > 1 };
}
/* A warp has one of four tiles of 8 rows, x' or z of half a panel, of each of the block's panels. */
DEVICE DecodeWeights chain_in_weights(const Chain *c, int layer)
{
    const int row_len = decode_row_len(d_model, weight_dtype), r = chain_anew(lane()) / 8;
    const int c0 = chain_anew(block_x()) * CHAIN_OWN;
    const int n_tiles = c0 < n_channels ? CHAIN_TILES : 0, tile = warp() / CHAIN_SLICES;
    const int n = chain_n_own(chain_in_panels());
    const DecodeSlice slice = decode_slice(decode_n_chunks(d_model, weight_dtype), CHAIN_SLICES, warp() % CHAIN_SLICES);
    if (chain_wide())
        return (DecodeWeights){ c->of.in + layer * c->of.stride
            + (int64_t)(tile / CHAIN_TILES * n_channels + c0 + tile % CHAIN_TILES * 8 + r) * row_len
            + slice.first * DECODE_CHUNK + lane() % 8 * 16, 4 * row_len, (int64_t)n_blocks * CHAIN_OWN * row_len, 0,
            (int64_t)2 * n_channels * row_len, 1 << 20, { n, n }, slice.n, 0, n, 1, 1, c->ring };
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
DEVICE int chain_x_count(void)
{
    return max_i(chain_x_tiles() - chain_x_block(block_x()) + n_blocks - 1, 0) / n_blocks;
}
DEVICE DecodeWeights chain_x_weights(const Chain *c, int layer)
{
    const int row_len = decode_row_len(n_channels, weight_dtype), r = chain_anew(lane()) / 8;
    const int row0 = chain_x_block(chain_anew(block_x())) * 8;
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
    const int n_tiles = chain_out_most() > 1 ? chain_n_own(chain_out_panels()) : column0 < d_model;
    const DecodeSlice slice = decode_slice(decode_n_chunks(n_channels, weight_dtype), CHAIN_WARPS, warp());
    return (DecodeWeights){ c->of.out + layer * c->of.stride + (int64_t)(column0 + r) * row_len
        + slice.first * DECODE_CHUNK + lane() % 8 * 16, 4 * row_len,
        chain_out_most() > 1 ? (int64_t)n_blocks * 8 * row_len : 0, 0, (int64_t)d_model * row_len,
        chain_out_most() > 1 ? 1 << 20 : 1, { n_tiles, n_tiles }, slice.n, 0, n_tiles, 1, 1, c->ring };
}

/* dt_proj's rows: each warp its own channels'. */
DEVICE void chain_fetch_dt(const Chain *c, int layer)
{
    const int row_len = decode_row_len(n_experts * dt_rank, dt_dtype);
    UNROLL for (int q = 0; q < chain_in_most(); q++) {
        const int channel = (chain_anew(block_x()) + q * n_blocks) * CHAIN_OWN + warp();
        const uint8_t *from = c->of.dt + layer * c->of.stride + (int64_t)channel * row_len;
        for (int i = 16 * lane(); i < row_len && channel < n_channels; i += 512)
            decode_copy16(c->dt + (q * CHAIN_WARPS + warp()) * row_len + i, from + i, 16);
    }
    copy_commit();
}

/* Where rows of the block's tiles begin, before it is known which experts are read. */
DEVICE void chain_expect(DecodeWeights w, const int n_tiles)
{
    UNROLL for (int q = 0; q < n_tiles; q++) {
        if (q < max_i(w.tile_end, 1))
            decode_expect_experts(&w, n_experts);
        w.row += w.tile_stride;
    }
}

/* A row's input for the products: the warp's slice of `row`. */
DEVICE DecodeInput chain_input(const act_t *row, int first_chunk)
{
    const int t_width = weight_dtype == 3 ? 16 : 8;
    return (DecodeInput){ row, 0, first_chunk * 4 * t_width + lane() % 4 * t_width };
}

/* Sums of parts that blocks told: by the first warps, for all after a barrier. is_asked: a warp has asked for its
 * first sum. */
DEVICE void chain_sums(const Chain *c, ChainAsked *asked, int is_asked, const uint64_t *words, int n_sums,
    const int n_parts, uint32_t turn)
{
    if (is_asked && warp() < n_sums) {
        const float sum = chain_hear_sum(asked, words + warp() * n_parts, n_parts, turn);
        if (lane() == 0)
            c->route->sums[warp()] = sum;
    }
    for (int i = warp() + (is_asked ? CHAIN_WARPS : 0); i < n_sums; i += CHAIN_WARPS) {
        const float sum = chain_sum(words + i * n_parts, n_parts, turn);
        if (lane() == 0)
            c->route->sums[i] = sum;
    }
}

/* The first word of the warp's first sum, to be waited or asked for together with what comes before it: a trip to the
 * second cache less. NULL: it has none, or (together 0) asks later. */
DEVICE const uint64_t *chain_also(const uint64_t *words, int n_sums, const int n_parts)
{
    return together && warp() < n_sums ? words + warp() * n_parts : NULL;
}

/* By a warp, as chain_ask_row, and a word of a sum that it waits for, too, NULL: none. */
DEVICE u32x4 chain_ask_with(const uint64_t *words, int n, const uint64_t *also, uint32_t turn)
{
    if (!also)
        return chain_ask_row(words, n, turn);
    chain_guard_both(also, n > 0 ? words : also, turn);
    return 4 * lane() < n ? chain_load(words + 2 * lane()) : (u32x4){ 0, 0, 0, 0 };
}

/* ---- in_proj, convolution ---- */

/* By a warp: what the convolution of panel q has from earlier tokens, to own_x. */
DEVICE void chain_in_old(const Chain *c, int layer, int q)
{
    const int i = lane() % CHAIN_OWN;
    const float *items = chain_own_items(c, layer, q), *taps = items + i * (d_conv + 1);
    const float *old = items + chain_at_state();
    float sum = taps[d_conv];
    UNROLL for (int j = 0; j < d_conv - 1; j++)
        sum += taps[j] * old[j * CHAIN_OWN + i];
    if (lane() < CHAIN_OWN)
        c->own_x[q * CHAIN_OWN + i] = sum;
}

/* By a warp: lanes 0 to 15 a channel of x' of panel q each, the others one of z. */
DEVICE void chain_in_finish(const Chain *c, int layer, int q, uint32_t turn)
{
    const int half = lane() / CHAIN_OWN, i = lane() % CHAIN_OWN, tile = half * CHAIN_TILES + i / 8;
    const int panel = chain_panel(q), channel = panel * CHAIN_OWN + i;
    const float *items = chain_own_items(c, layer, q), *taps = items + i * (d_conv + 1);
    const float *old = items + chain_at_state(), *router = items + chain_at_ssm();
    float *kept = chain_kept(c, c->of.conv_state, layer) + channel, *own_x = c->own_x + q * CHAIN_OWN;
    const float value = decode_read_part(c->sums, tile * chain_in_most() + q, CHAIN_SLICES, 0, i % 8);
    const float sum = decode_silu(half ? value : own_x[i] + taps[d_conv - 1] * value);
    const float other = shuffle_xor_f(sum, 1);
    if (half == 0 && i % 2 == 0)
        chain_tell(c->words + channel / 2, act_pack(sum, other, act), turn);
    (half ? c->own_z + q * CHAIN_OWN : own_x)[i] = sum;
    warp_sync();
    for (int n0 = 0; n0 < chain_routed(); n0 += 8) {       /* four lanes a logit */
        const int n = n0 + lane() / 4, t = lane() % 4;
        float logit = 0;
        if (n < n_experts)
            UNROLL for (int j = 0; j < CHAIN_OWN / 4; j++)
                logit += own_x[4 * j + t] * router[n * CHAIN_OWN + 4 * j + t];
        logit += shuffle_xor_f(logit, 1);
        logit += shuffle_xor_f(logit, 2);
        if (n < n_experts && t == 0)
            chain_tell(c->words + chain_at_ssm_parts() + n * chain_in_panels() + panel, float_bits(logit), turn);
    }
    UNROLL for (int j = 0; j < d_conv - 1; j++)
        if (half == 0)
            kept[(int64_t)j * n_channels] = j + 2 < d_conv ? old[(j + 1) * CHAIN_OWN + i] : value;
}

/* The panel that this warp finishes, of so many that the block may have; -1: none. */
DEVICE int chain_finishes(const int most, int n_panels)
{
    if (most == 1)
        return warp() == 0 && block_x() < n_panels ? 0 : -1;
    return warp() < most && chain_panel(warp()) < n_panels ? warp() : -1;
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
        decode_sum_parts(c->route->sums, parts, n_sums, chain_out_panels());
    } else {
        const uint64_t *own = c->words + chain_at_x() + min_i(k, d_model - 4);
        const uint64_t *sums = c->words + chain_at_sums(), *also = chain_also(sums, n_sums, chain_out_panels());
        ChainAsked asked;
        if (also)
            chain_guard_both(own, also, turn - 1);
        else
            chain_guard(own, turn - 1);
        u32x4 got[2] = { chain_load(own), chain_load(own + 2) };
        if (also)
            chain_ask_sum(&asked, also, chain_out_panels());
        chain_sums(c, &asked, together, sums, n_sums, chain_out_panels(), turn - 1);
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
        norm[i] = !chain_wide() || k < chain_norm_len() ? c->norm[chain_norm_at(k, i)] : 0.0f;
    if (k < chain_k_len(d_model))
        decode_store_norm4(c->xs, k, from, norm, decode_rms(c->route, 0, n_sums, d_model, eps), act);
    if (warp() < chain_in_most())
        chain_in_old(c, layer, chain_wide() ? warp() : 0);
    barrier();
    const DecodeInput in = chain_input(c->xs, slice.first);
    const int tile = chain_wide() ? warp() / CHAIN_SLICES * chain_in_most() : 0;
    decode_multiply(c->sums + tile * CHAIN_SLICES * DECODE_ROWS * 8, &w, ring_at, w.experts, &in, c->route,
        weight_dtype == 3 ? chain_items(c, layer) + chain_at_scales() + 8 * tile : NULL, chain_in_scales(), 1, c->top_k,
        NULL, shape);
    if (n_experts == 1) {                                  /* out_proj's, as soon as the ring is used up */
        const DecodeWeights out = chain_out_weights(c, layer);
        *ring_at = decode_begin(&out);
        warp_sync();
        decode_fill_ring(&out, ring_at, chain_out_shape());
    }
    barrier();
    const int q = chain_finishes(chain_in_most(), chain_in_panels());
    if (q >= 0)
        chain_in_finish(c, layer, q, turn);
    if (n_experts > 1)
        chain_expect(chain_out_weights(c, layer), chain_out_most());
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
        const u32x4 asked = chain_ask_row(c->words + first / 2, n, turn);
        chain_take_row(c->rows + first, asked, c->words + first / 2, n, turn);
        warp_sync();
        const DecodeInput in = chain_input(c->rows, slice.first);
        decode_multiply(c->x_sums, &w, &at, 1, &in, c->route, NULL, 0, 1, 1, NULL, shape);
        barrier();
        for (int i = warp(); i < chain_x_count(); i += CHAIN_WARPS) {
            const int row = (chain_x_block(block_x()) + i * n_blocks) * 8 + lane();
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

/* By a warp: the step of its channel of panel q. */
DEVICE void chain_step(const Chain *c, int layer, int q, uint32_t active)
{
    const int i = warp(), channel = chain_panel(q) * CHAIN_OWN + i;
    const int row_len = decode_row_len(n_experts * dt_rank, dt_dtype);
    const float *items = chain_own_items(c, layer, q);
    const uint8_t *row = c->dt + (q * CHAIN_WARPS + i) * row_len;
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
        dt *= chain_items(c, layer)[chain_at_dt_scales() + q * CHAIN_OWN + i];
    dt = decode_softplus(dt + bias);
    const float kept_a = !chain_wide() || lane() < d_state ? c->kept[chain_kept_at(q, 0)] : 0.0f;
    const float kept = !chain_wide() || lane() < d_state ? c->kept[chain_kept_at(q, 1)] : 0.0f;
    const float x = c->own_x[q * CHAIN_OWN + i], power = dt * kept_a, decay = exp2_fast(power);
    const float now = decay * kept
        + (zoh ? dt * decode_decay_ratio(power, decay) : dt) * b * x;
    float y = lane() < d_state ? state_c * now : 0.0f;
    y = decode_warp_sum(y);
    if (lane() == 0)
        c->own_y[q * CHAIN_OWN + i] = (y + items[chain_at_d() + i] * x) * c->own_z[q * CHAIN_OWN + i];
    if (lane() < d_state && channel < n_channels)
        chain_kept(c, c->of.scan_state, layer)[channel * d_state + lane()] = now;
}

/* y of panel q to all; its part of the next router's logits. A panel's first warp is four behind that of the panel
 * before: all are told at once. */
DEVICE void chain_scan_finish(const Chain *c, int layer, int q, uint32_t turn)
{
    const int panel = chain_panel(q), place = chain_wide() ? (warp() + 4 * (CHAIN_MOST - q)) % CHAIN_WARPS : warp();
    const float *router = chain_own_items(c, layer, q) + chain_at_router(), *own_y = c->own_y + q * CHAIN_OWN;
    if (place == 0 && lane() < CHAIN_OWN / 2)
        chain_tell(c->words + chain_at_y() + panel * (CHAIN_OWN / 2) + lane(),
            act_pack(own_y[2 * lane()], own_y[2 * lane() + 1], act), turn);
    for (int n0 = 8 * (place - 1); place > 0 && n0 < chain_routed(); n0 += 8 * (CHAIN_WARPS - 1)) {
        const int n = n0 + lane() / 4, t = lane() % 4;
        float logit = 0;
        if (n < n_experts)
            UNROLL for (int j = 0; j < CHAIN_OWN / 4; j++)
                logit += own_y[4 * j + t] * router[n * CHAIN_OWN + 4 * j + t];
        logit += shuffle_xor_f(logit, 1);
        logit += shuffle_xor_f(logit, 2);
        if (n < n_experts && t == 0)
            chain_tell(c->words + chain_at_out_parts() + n * chain_in_panels() + panel, float_bits(logit), turn);
    }
}

DEVICE void chain_scan(const Chain *c, int layer, uint32_t turn)
{
    uint32_t active = 1;
    if (n_experts > 1) {
        const uint64_t *parts = c->words + chain_at_ssm_parts();
        const int late = together && chain_x_count() > 0;     /* after products of its own: all has been told */
        ChainAsked asked;
        if (late && warp() < n_experts)
            chain_ask_sum(&asked, parts + warp() * chain_in_panels(), chain_in_panels());
        chain_sums(c, &asked, late, parts, n_experts, chain_in_panels(), turn);
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
    for (int q = 0; q < chain_in_most(); q++)
        if (chain_panel(q) < chain_in_panels())
            chain_step(c, layer, q, active);
    barrier();
    for (int q = 0; q < chain_in_most(); q++)
        if (chain_panel(q) < chain_in_panels())
            chain_scan_finish(c, layer, q, turn);
    if (n_experts > 1 && layer + 1 < c->n_layers)
        chain_expect(chain_in_weights(c, layer + 1), chain_in_most());
}

/* ---- out_proj ---- */

/* By a warp: new columns of x, panel q; their part of the next router's logits and of the sum of squares. */
DEVICE void chain_out_finish(const Chain *c, int layer, int q, float *x, float *next, uint32_t turn)
{
    const int n_next = chain_n_next(c, layer), column = chain_panel(q) * 8 + lane() % 8;
    const float *items = chain_items(c, layer) + chain_at_leave() + q * chain_leave_len();
    const float *parts = c->sums + q * CHAIN_WARPS * DECODE_ROWS * 8;
    float *own = c->own_columns + 8 * q;
    float sum = 0, square, from[8], even = 0, odd = 0;
    UNROLL for (int s = 0; s < CHAIN_WARPS / 4; s++)
        sum += parts[(4 * s + lane() / 8) * DECODE_ROWS * 8 + lane() % 8];
    sum += shuffle_xor_f(sum, 8);
    sum += shuffle_xor_f(sum, 16);
    sum += own[lane() % 8];
    warp_sync();
    if (lane() < 8)
        own[lane()] = sum;
    if (layer + 1 == c->n_layers) {
        if (lane() < 8)
            x[column] = sum;
        decode_leave(next, items, sum, 0, n_next, chain_out_panels(), chain_anew(block_x()) + q * n_blocks);
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
        chain_tell(c->words + chain_at_sums() + lane() * chain_out_panels() + chain_panel(q),
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
    const uint64_t *parts = c->words + chain_at_out_parts();
    const uint64_t *also = chain_also(parts, chain_routed(), chain_in_panels());
    ChainAsked sums;
    const u32x4 asked = chain_ask_with(from, n, also, turn);
    if (also)
        chain_ask_sum(&sums, also, chain_in_panels());
    if (n_experts > 1)
        chain_sums(c, &sums, together, parts, n_experts, chain_in_panels(), turn);
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
        weight_dtype == 3 ? chain_items(c, layer) + chain_at_out_scales() : NULL, chain_out_scales(), 1, c->top_k, NULL,
        shape);
    if (n_experts == 1 && layer + 1 < c->n_layers) {
        const DecodeWeights in_next = chain_in_weights(c, layer + 1);
        *ring_at = decode_begin(&in_next);
        warp_sync();
        decode_fill_ring(&in_next, ring_at, chain_in_shape());
    }
    barrier();
    const int q = chain_finishes(chain_out_most(), chain_out_panels());
    if (q >= 0)
        chain_out_finish(c, layer, q, x, next, turn);
}

/* ---- the run ---- */

KERNEL(decode_panels)(float *x /* [d_model] */, float *next /* [sums][d_model / 8] */,
    const float *parts /* the same */, uint64_t *words, uint32_t *turns /* [blocks] */, const uint8_t *norm,
    const uint8_t *in_router, const uint8_t *in,
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
    UNROLL for (int q = 0; q < chain_out_most(); q++)
        if (thread_x() < 8 && chain_panel(q) < chain_out_panels())
            c.own_columns[8 * q + lane()] = x[chain_panel(q) * 8 + lane()];
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
