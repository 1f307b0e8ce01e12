/* Decode: a whole mamba layer, in one launch whose blocks hand data to each other in words (decode.h).
 *
 * RMSNorm, router, in_proj, convolution | router, x_proj | dt_proj, scan, gate | router, out_proj, residual, and
 * what the next layer's norm and router need. A group is 16 channels. All blocks must be resident at once: grid at
 * most the multiprocessors, any number does; threads 512. words: see the enum; exchanges have the number
 * step · n_numbers + number, which no earlier launch used. parts, x: of the launch before.
 */
PARAM(n_in, i) PARAM(n_channels, c) PARAM(d_conv, k) PARAM(d_state, n) PARAM(dt_rank, r) PARAM(n_experts, e)
PARAM(renormalize, rn) PARAM(zoh, zoh) PARAM(weight_dtype, w) PARAM(act, a) PARAM(next_experts, ne) PARAM(n_splits, sp)
PARAM(in_slices, ik) PARAM(in_group, ig) PARAM(in_ring, ir) PARAM(out_group, og) PARAM(out_ring, or) FPARAM(eps, eps)

enum { MAMBA_OWN = 16, MAMBA_WARPS = 16, MAMBA_AHEAD = 4 };

/* Where things lie in words, counted in words: everything has 16 rows. */
DEVICE int mamba_n_groups(void) { return (n_channels + MAMBA_OWN - 1) / MAMBA_OWN; }
DEVICE int mamba_row_words(void) { return (n_channels + 7) / 8 * 4; }
DEVICE int mamba_x_out(void) { return dt_rank + 2 * d_state; }
DEVICE int mamba_logit_words(void) { return n_experts > 1 ? n_experts * ((mamba_n_groups() + 1) / 2 * 2) : 0; }

typedef struct {
    uint64_t *xc, *y, *ssm, *out, *xp;
    uint32_t number;
} MambaWords;

DEVICE MambaWords mamba_words(uint64_t *words, uint32_t number)
{
    MambaWords of;
    of.xc = words;                                                   /* [row][pair of channels] */
    of.y = of.xc + DECODE_ROWS * mamba_row_words();
    of.ssm = of.y + DECODE_ROWS * mamba_row_words();                 /* [row][expert][group] */
    of.out = of.ssm + DECODE_ROWS * mamba_logit_words();
    of.xp = of.out + DECODE_ROWS * mamba_logit_words();              /* [row][expert][split][column] */
    of.number = number;
    return of;
}

/* Sends the group's own values as pairs, and its parts of the router's logits. own: shared [MAMBA_OWN], by a warp. */
DEVICE void mamba_send(uint64_t *pairs, uint64_t *logits, uint32_t number, const float *own, const float *router, int group,
    int row)
{
    const int pair = group * (MAMBA_OWN / 2) + lane();
    if (lane() < MAMBA_OWN / 2 && pair < mamba_row_words())
        decode_send(pairs + row * mamba_row_words() + pair, act_pack(own[2 * lane()], own[2 * lane() + 1], act), number);
    if (n_experts > 1 && lane() < n_experts) {
        float sum = 0;
        UNROLL for (int i = 0; i < MAMBA_OWN; i++)
            sum += own[i] * router[lane() * (MAMBA_OWN + 1) + i];
        decode_send(logits + (row * n_experts + lane()) * ((mamba_n_groups() + 1) / 2 * 2) + group, float_bits(sum), number);
    }
}

/* Items of one group, in shared memory: taps and bias, the columns of both routers, biases of Δ, the convolution's states. */
typedef struct { float *taps, *ssm_router, *out_router, *biases, *old; } MambaItems;

DEVICE float mamba_column(const float *from, int64_t row, int channel)
{
    return channel < n_channels ? from[row * n_channels + channel] : 0.0f;
}

DEVICE void mamba_load_first(const MambaItems *items, const float *conv, const float *bias, const float *ssm_router,
    const uint8_t *state, const int32_t *slots, int64_t state_stride, int group, int n_rows)
{
    const int c0 = group * MAMBA_OWN;
    for (int i = thread_x(); i < MAMBA_OWN * (d_conv + 1); i += n_threads()) {
        const int channel = c0 + i / (d_conv + 1), tap = i % (d_conv + 1);
        items->taps[i] = channel >= n_channels ? 0.0f : tap < d_conv ? conv[(int64_t)channel * d_conv + tap] : bias[channel];
    }
    for (int i = thread_x(); i < MAMBA_OWN * n_experts && n_experts > 1; i += n_threads())
        items->ssm_router[i / MAMBA_OWN * (MAMBA_OWN + 1) + i % MAMBA_OWN] =
            mamba_column(ssm_router, i / MAMBA_OWN, c0 + i % MAMBA_OWN);
    for (int i = n_threads() - 1 - thread_x(); i < n_rows * (d_conv - 1) * MAMBA_OWN; i += n_threads()) {
        const int row = i / ((d_conv - 1) * MAMBA_OWN), tap = i / MAMBA_OWN % (d_conv - 1);
        items->old[i] = mamba_column((const float *)(state + slots[row] * state_stride), tap, c0 + i % MAMBA_OWN);
    }
}

DEVICE void mamba_load_second(const MambaItems *items, const float *out_router, const float *dt_bias, int group)
{
    const int c0 = group * MAMBA_OWN;
    for (int i = thread_x(); i < MAMBA_OWN * n_experts && n_experts > 1; i += n_threads())
        items->out_router[i / MAMBA_OWN * (MAMBA_OWN + 1) + i % MAMBA_OWN] =
            mamba_column(out_router, i / MAMBA_OWN, c0 + i % MAMBA_OWN);
    for (int i = n_threads() - 1 - thread_x(); i < MAMBA_OWN * n_experts; i += n_threads())
        items->biases[i] = mamba_column(dt_bias, i / MAMBA_OWN, c0 + i % MAMBA_OWN);
}

/* Convolution of one row of a group, by a warp. */
DEVICE void mamba_convolve(const MambaWords *words, float *xc, float *z, const float *sums, const MambaItems *items, float *own,
    uint8_t *state, int group, int row)
{
    const int channel = group * MAMBA_OWN + lane();
    const float *old = items->old + row * (d_conv - 1) * MAMBA_OWN + lane(), *taps = items->taps + lane() * (d_conv + 1);
    if (lane() < MAMBA_OWN) {
        const float value = decode_read_part(sums, lane() / 8, in_slices, row, lane() % 8);
        const float gate = decode_read_part(sums, 2 + lane() / 8, in_slices, row, lane() % 8);
        float sum = taps[d_conv], *kept = (float *)state + channel;
        for (int j = 0; j + 1 < d_conv; j++) {
            sum += taps[j] * old[j * MAMBA_OWN];
            if (channel < n_channels)
                kept[(int64_t)j * n_channels] = j + 2 < d_conv ? old[(j + 1) * MAMBA_OWN] : value;
        }
        sum = decode_silu(sum + taps[d_conv - 1] * value);
        own[lane()] = channel < n_channels ? sum : 0.0f;
        if (channel < n_channels) {
            xc[(int64_t)row * n_channels + channel] = sum;
            z[(int64_t)row * n_channels + channel] = gate;
        }
    }
    warp_sync();
    mamba_send(words->xc, words->ssm, words->number, own, items->ssm_router, group, row);
}

/* x_proj: a task is a tile of 8 rows of one chosen expert and one of n_splits parts of the columns; blocks take them in turn. */
DEVICE void mamba_x(const MambaWords *words, float *sums, const DecodeRoute *route, uint32_t active, const uint8_t *weights,
    const float *scales, int n_rows)
{
    const int row_len = decode_row_len(n_channels, weight_dtype), n_chunks = decode_n_chunks(n_channels, weight_dtype);
    const int per_split = (n_chunks + n_splits - 1) / n_splits, n_out = mamba_x_out();
    const int per_expert = (n_out + 7) / 8 * n_splits, g = lane() / 4, t = lane() % 4;
    const DecodeShape shape = { .n_in = n_channels, .weight_dtype = weight_dtype, .act = act, .words = 1 };
    const DecodeInput in = { .words = words->xc, .stride = 2 * mamba_row_words(), .number = words->number };
    for (int task = block_x(); task / per_expert < count_ones(active); task += n_blocks_x()) {
        const int expert = decode_nth(active, task / per_expert), row0 = task % per_expert / n_splits * 8, split = task % n_splits;
        const int end = min_i((split + 1) * per_split, n_chunks), is = row0 + g < n_out;
        const uint8_t *from = weights + ((int64_t)expert * n_out + row0 + g) * row_len + 16 * t;
        const int column = row0 + thread_x() % 8;
        const float scale = weight_dtype == 3 && column < n_out ? scales[(int64_t)expert * n_out + column] : 1.0f;
        float total[4] = { 0, 0, 0, 0 };
        for (int chunk = split * per_split + warp(); chunk < end; chunk += 2 * MAMBA_WARPS) {
            u32x4 weight[2];
            UNROLL for (int j = 0; j < 2; j++) {
                weight[j] = (u32x4){ 0, 0, 0, 0 };
                if (is && chunk + j * MAMBA_WARPS < end)
                    weight[j] = load16_stream(from + (chunk + j * MAMBA_WARPS) * DECODE_CHUNK);
            }
            UNROLL for (int j = 0; j < 2; j++) {
                u32x4 lo[2], hi[2];
                const int here = chunk + j * MAMBA_WARPS, k = here * (weight_dtype == 3 ? 64 : 32) + t * (weight_dtype == 3 ? 16 : 8);
                decode_load_input(lo, &in, here < end && g < n_rows ? g : -1, k, shape);
                decode_load_input(hi, &in, here < end && g + 8 < n_rows ? g + 8 : -1, k, shape);
                decode_mma(total, weight[j], lo, hi, weight_dtype, act);
            }
        }
        decode_store_part(sums, 0, warp(), MAMBA_WARPS, total, n_rows);
        barrier();
        for (int i = thread_x(); i < 8 * n_rows; i += n_threads()) {
            const int row = i / 8;
            const float value = decode_read_part(sums, 0, MAMBA_WARPS, row, i % 8) * scale;
            if (column < n_out && (n_experts == 1 || route->chosen[row] >> expert & 1))
                decode_send(words->xp + ((row * n_experts + expert) * n_splits + split) * n_out + column, float_bits(value),
                    words->number);
        }
        barrier();
    }
}

/* What x_proj said of every row: u, gates times δ, joined; B and C, summed over experts. u holds zeros elsewhere. */
DEVICE void mamba_gather(const MambaWords *words, act_t *u, int u_stride, float *bc, const DecodeRoute *route, int n_rows,
    int top_k)
{
    const int n_out = mamba_x_out(), k = n_experts > 1 ? top_k : 1;
    for (int i = thread_x(); i < n_rows * (k * dt_rank + 2 * d_state); i += n_threads()) {
        const int row = i / (k * dt_rank + 2 * d_state), j = i % (k * dt_rank + 2 * d_state), is_delta = j < k * dt_rank;
        const uint32_t chosen = n_experts > 1 ? route->chosen[row] : 1;
        const uint32_t mine = is_delta ? 1u << decode_nth(chosen, j / dt_rank) : chosen;
        const int column = is_delta ? j % dt_rank : dt_rank + j - k * dt_rank;
        float total = 0;
        for (uint32_t left = mine; left; left &= left - 1) {
            const int e = __builtin_ctz(left);
            const uint64_t *from = words->xp + (row * n_experts + e) * n_splits * n_out + column;
            float sum = 0;
            UNROLL for (int s = 0; s < n_splits; s++)
                sum += decode_receive(from + s * n_out, words->number);
            total += n_experts > 1 ? sum * route->gates[e * DECODE_ROWS + row] : sum;
        }
        if (is_delta)
            u[row * u_stride + __builtin_ctz(mine) * dt_rank + column] = float_act(total, act);
        else
            bc[row * 2 * d_state + j - k * dt_rank] = total;
    }
}

/* Some expert of `active` has columns of dt_proj in this chunk. */
DEVICE int mamba_wants(uint32_t active, int chunk)
{
    const int width = weight_dtype == 3 ? 64 : 32, end = min_i((chunk + 1) * width, n_experts * dt_rank);
    for (int e = chunk * width / dt_rank; e * dt_rank < end; e++)
        if (active >> e & 1)
            return 1;
    return 0;
}

/* What a thread fetches of a group before x_proj is there: weights of dt_proj; by sixteen lanes a channel of a row. */
typedef struct { u32x4 weights[MAMBA_AHEAD]; float old[MAMBA_AHEAD], a[MAMBA_AHEAD], x, z, d; } MambaAhead;

DEVICE void mamba_fetch(MambaAhead *ahead, const uint8_t *weights, const uint8_t *state, const int32_t *slots,
    int64_t state_stride, const float *a, const float *d, const float *xc, const float *z, uint32_t active, int group, int n_rows)
{
    const int n_in_joined = n_experts * dt_rank, row_len = decode_row_len(n_in_joined, weight_dtype);
    const int n_chunks = decode_n_chunks(n_in_joined, weight_dtype), tile = warp() % 2, slice = warp() / 2;
    const int weight_row = group * MAMBA_OWN + 8 * tile + lane() / 4;
    UNROLL for (int i = 0; i < MAMBA_AHEAD; i++) {
        const int chunk = slice + i * (MAMBA_WARPS / 2);
        ahead->weights[i] = (u32x4){ 0, 0, 0, 0 };
        if (chunk < n_chunks && weight_row < n_channels && mamba_wants(active, chunk))
            ahead->weights[i] = load16_stream(weights + (int64_t)weight_row * row_len + chunk * DECODE_CHUNK + lane() % 4 * 16);
    }
    const int half = thread_x() / 16, row = half / MAMBA_OWN, channel = group * MAMBA_OWN + half % MAMBA_OWN;
    ahead->x = ahead->z = ahead->d = 0;
    if (row >= n_rows || channel >= n_channels)
        return;
    const float *from = (const float *)(state + slots[row] * state_stride) + (int64_t)channel * d_state;
    UNROLL for (int i = 0; i < MAMBA_AHEAD; i++)
        if (thread_x() % 16 + 16 * i < d_state) {
            ahead->old[i] = from[thread_x() % 16 + 16 * i];
            ahead->a[i] = a[(int64_t)channel * d_state + thread_x() % 16 + 16 * i];
        }
    ahead->x = xc[(int64_t)row * n_channels + channel];
    ahead->z = z[(int64_t)row * n_channels + channel];
    ahead->d = d[channel];
}

/* dt_proj of the group's channels: slices of chunks by warp. */
DEVICE void mamba_dt(float *sums, const MambaAhead *ahead, int near, const uint8_t *weights, const act_t *u, int u_stride,
    uint32_t active, int group, int n_rows)
{
    const int n_in_joined = n_experts * dt_rank, row_len = decode_row_len(n_in_joined, weight_dtype);
    const int n_chunks = decode_n_chunks(n_in_joined, weight_dtype), tile = warp() % 2, slice = warp() / 2;
    const int g = lane() / 4, t = lane() % 4, width = weight_dtype == 3 ? 64 : 32, weight_row = group * MAMBA_OWN + 8 * tile + g;
    const DecodeShape shape = { .n_in = u_stride - 8, .weight_dtype = weight_dtype, .act = act };
    const DecodeInput in = { .x = u, .stride = u_stride };
    float total[4] = { 0, 0, 0, 0 };
    for (int i = 0; slice + i * (MAMBA_WARPS / 2) < n_chunks; i++) {
        const int chunk = slice + i * (MAMBA_WARPS / 2);
        if (!mamba_wants(active, chunk))
            continue;
        u32x4 lo[2], hi[2], weight = { 0, 0, 0, 0 };
        UNROLL for (int j = 0; j < MAMBA_AHEAD; j++)
            if (i == j)
                weight = ahead->weights[j];
        if ((!near || i >= MAMBA_AHEAD) && weight_row < n_channels)
            weight = load16_stream(weights + (int64_t)weight_row * row_len + chunk * DECODE_CHUNK + 16 * t);
        decode_load_input(lo, &in, g < n_rows ? g : -1, chunk * width + t * width / 4, shape);
        decode_load_input(hi, &in, g + 8 < n_rows ? g + 8 : -1, chunk * width + t * width / 4, shape);
        decode_mma(total, weight, lo, hi, weight_dtype, act);
    }
    decode_store_part(sums, tile, slice, MAMBA_WARPS / 2, total, n_rows);
}

/* One step of the scan for a channel of a row by sixteen lanes; all lanes get the gated output. */
DEVICE float mamba_step(const MambaAhead *ahead, int near, float dt, const float *bc, float *state, const float *a, float x, float z,
    float d, int is)
{
    const int first = thread_x() % 16;
    float sum = 0;
    UNROLL for (int j = 0; j < (d_state + 15) / 16; j++)
        if (is && first + 16 * j < d_state) {
            const int n = first + 16 * j, is_near = near && j < MAMBA_AHEAD;
            const float power = dt * (is_near ? ahead->a[min_i(j, MAMBA_AHEAD - 1)] : a[n]), decay = exp2_fast(power);
            const float step = zoh ? dt * decode_scan_ratio(power, decay) : dt;
            const float now = decay * (is_near ? ahead->old[min_i(j, MAMBA_AHEAD - 1)] : state[n]) + step * bc[n] * x;
            state[n] = now;
            sum += bc[d_state + n] * now;
        }
    UNROLL for (int mask = 8; mask > 0; mask /= 2)
        sum += shuffle_xor_f(sum, mask);
    return (sum + d * x) * decode_silu(z);
}

KERNEL(decode_mamba)(float *x /* [n_rows][n_in] */, float *next, const float *parts, float *xc, float *z, uint64_t *exchange,
    const uint32_t *step, int32_t n_numbers, int32_t number, const float *norm, const void *in_weights, const float *in_scales,
    const float *conv, const float *conv_bias, const float *ssm_router, const void *x_weights, const float *x_scales,
    const void *dt_weights, const float *dt_scales, const float *dt_bias, const float *a, const float *d, const float *out_router,
    const void *out_weights, const float *out_scales, const float *next_norm, const float *next_router, uint8_t *state,
    const int32_t *slots, int64_t state_stride, int32_t n_rows, int32_t top_k)
{
    const int n_groups = mamba_n_groups(), k_len = (n_in + 63) / 64 * 64, x_stride = k_len + 8;
    const int u_stride = (n_experts * dt_rank + 63) / 64 * 64 + 8, n_next = next_experts > 1 ? next_experts : 0;
    const int n_sums = (n_experts > 1 ? n_experts : 0) + 1, routed = n_experts > 1;
    const int part_rows = (n_channels + 7) / 8 * 8, ring_slots = max_i(in_group * in_ring, out_group * out_ring);
    DecodeRoute *in_route = shared(), *ssm_route = in_route + 1, *out_route = in_route + 2;
    act_t *xs = (act_t *)(in_route + 3), *u = xs;                     /* xs is used up when u is made */
    uint8_t *ring_at = (uint8_t *)(xs + DECODE_ROWS * max_i(x_stride, u_stride));
    float *sums = (float *)(ring_at + MAMBA_WARPS * ring_slots * DECODE_SLOT);
    float *own = sums + max_i(4 * in_slices, MAMBA_WARPS) * DECODE_ROWS * 8, *bc = own + DECODE_ROWS * MAMBA_OWN;
    float *leave = bc + DECODE_ROWS * 2 * d_state, *scale_at = leave + 8 * (n_next + 1);
    MambaItems items;
    items.taps = scale_at + (weight_dtype == 3 ? n_experts * 4 * 8 : 0);
    items.ssm_router = items.taps + MAMBA_OWN * (d_conv + 1);
    items.out_router = items.ssm_router + routed * n_experts * (MAMBA_OWN + 1);
    items.biases = items.out_router + routed * n_experts * (MAMBA_OWN + 1);
    items.old = items.biases + n_experts * MAMBA_OWN;

    const int r = lane() / 8, t = lane() % 4, in_len = decode_row_len(n_in, weight_dtype), group0 = block_x();
    const int out_len = decode_row_len(n_channels, weight_dtype), out_chunks = decode_n_chunks(n_channels, weight_dtype);
    const int t_width = weight_dtype == 3 ? 16 : 8;
    uint8_t *warp_ring = ring_at + warp() * ring_slots * DECODE_SLOT, *scan_state = state + (int64_t)(d_conv - 1) * n_channels * 4;
    const DecodeSlice in_slice = decode_slice(decode_n_chunks(n_in, weight_dtype), in_slices, warp() % in_slices);
    const DecodeSlice out_slice = decode_slice(out_chunks, MAMBA_WARPS, warp());
    const DecodeShape in_shape = { k_len, weight_dtype, act, in_slices, in_group,
        decode_n_groups(decode_n_chunks(n_in, weight_dtype), in_slices, in_group), in_ring, .gated = routed };
    const DecodeShape out_shape = { n_channels, weight_dtype, act, MAMBA_WARPS, out_group,
        decode_n_groups(out_chunks, MAMBA_WARPS, out_group), out_ring, .gated = routed, .early = 1, .words = 1 };
    mamba_load_first(&items, conv, conv_bias, ssm_router, state, slots, state_stride, group0, n_rows);
    mamba_load_second(&items, out_router, dt_bias, group0);
    for (int i = thread_x(); i < 8 * (n_next + 1); i += n_threads())
        leave[i] = decode_leave_item(i, next_router, next_norm, n_next, n_in, group0 * 8);
    DecodeColumns columns;
    decode_fetch_norm(&columns, norm, n_in);

    dependency_wait();
    dependency_launch();
    const MambaWords words = mamba_words(exchange, *step * (uint32_t)n_numbers + (uint32_t)number);
    decode_fetch_rows(&columns, x, n_in, n_rows);
    decode_sum_parts(in_route->sums, parts, n_rows * n_sums, (n_in + 7) / 8);
    barrier();
    const uint32_t in_active = routed ? decode_select(in_route, n_rows, n_sums, n_experts, top_k) : 1;
    for (int group = group0; group < n_groups; group += n_blocks_x()) {
        const int c0 = group * MAMBA_OWN;
        if (group != group0)
            barrier();
        DecodeWeights w = { (const uint8_t *)in_weights + (int64_t)(c0 + r) * in_len + in_slice.first * DECODE_CHUNK + lane() % 8 * 16,
            4 * in_len, 8 * in_len, (int64_t)part_rows * in_len, (int64_t)2 * part_rows * in_len, 2,
            { (n_channels - c0 - r + 7) / 8, (n_channels - c0 - r + 3) / 8 }, in_slice.n, warp() / in_slices, 4,
            MAMBA_WARPS / in_slices, in_active, warp_ring };
        DecodeCursor at = decode_begin(&w);
        decode_fill_ring(&w, &at, in_shape);
        if (group == group0) {
            if (routed)
                decode_gates(in_route, n_rows, n_sums, n_experts, renormalize, 1, n_in, eps);
            decode_store_norm(xs, x_stride, k_len, &columns, x, norm, in_route, n_sums, n_in, eps, n_rows, act);
        } else {
            mamba_load_first(&items, conv, conv_bias, ssm_router, state, slots, state_stride, group, n_rows);
        }
        for (int i = thread_x(); i < n_experts * 32 && weight_dtype == 3; i += n_threads()) {
            const int channel = c0 + i % MAMBA_OWN;
            scale_at[i] = channel < n_channels && in_active >> i / 32 & 1 ?
                in_scales[((int64_t)(i / 32) * 2 + i / MAMBA_OWN % 2) * part_rows + channel] : 0.0f;
        }
        barrier();
        const DecodeInput in = { xs, x_stride, in_slice.first * 4 * t_width + t * t_width, NULL, 0 };
        decode_multiply(sums, &w, &at, in_active, &in, in_route, weight_dtype == 3 ? scale_at : NULL, 32, n_rows, top_k, in_shape);
        barrier();
        for (int row = warp(); row < n_rows; row += MAMBA_WARPS)
            mamba_convolve(&words, xc, z, sums, &items, own + row * MAMBA_OWN, state + slots[row] * state_stride, group, row);
    }

    /* the output's weights, where it is known which: nothing else waits for memory from here on */
    const int column_r = group0 * 8 + r;
    DecodeWeights out_w = { (const uint8_t *)out_weights + (int64_t)column_r * out_len + out_slice.first * DECODE_CHUNK + lane() % 8 * 16,
        4 * out_len, 0, 0, (int64_t)n_in * out_len, 1, { column_r < n_in, column_r + 4 < n_in }, out_slice.n, 0, 1, 1, 1, warp_ring };
    DecodeCursor out_at = decode_begin(&out_w);
    if (!routed)
        decode_fill_ring(&out_w, &out_at, out_shape);
    if (routed)
        decode_sum_words(ssm_route->sums, words.ssm, n_rows * n_experts, n_groups, words.number);
    barrier();
    const uint32_t active = routed ? decode_select(ssm_route, n_rows, n_experts, n_experts, top_k) : 1;
    MambaAhead ahead;
    mamba_fetch(&ahead, dt_weights, scan_state, slots, state_stride, a, d, xc, z, active, group0, n_rows);
    mamba_x(&words, sums, ssm_route, active, x_weights, x_scales, n_rows);
    if (routed)
        decode_gates(ssm_route, n_rows, n_experts, n_experts, renormalize, 0, 1, 0);
    for (int i = thread_x(); i < n_rows * u_stride / 2; i += n_threads())
        ((uint32_t *)u)[i] = 0;
    barrier();
    mamba_gather(&words, u, u_stride, bc, ssm_route, n_rows, top_k);
    for (int group = group0; group < n_groups; group += n_blocks_x()) {
        const int near_group = group == group0;
        barrier();
        if (!near_group)
            mamba_load_second(&items, out_router, dt_bias, group);
        mamba_dt(sums, &ahead, near_group, dt_weights, u, u_stride, active, group, n_rows);
        barrier();
        for (int pair = thread_x() / 16; pair - pair % 2 < n_rows * MAMBA_OWN; pair += 2 * MAMBA_WARPS) {
            const int row = pair / MAMBA_OWN, i = pair % MAMBA_OWN, channel = group * MAMBA_OWN + i;
            const int is = row < n_rows && channel < n_channels, near = near_group && pair == thread_x() / 16;
            float dt = 0;
            if (is) {
                dt = decode_read_part(sums, i / 8, MAMBA_WARPS / 2, row, i % 8);
                if (weight_dtype == 3)
                    dt *= dt_scales[channel];
                for (uint32_t left = routed ? ssm_route->chosen[row] : 1; left; left &= left - 1)
                    dt += (routed ? ssm_route->gates[__builtin_ctz(left) * DECODE_ROWS + row] : 1.0f)
                        * items.biases[__builtin_ctz(left) * MAMBA_OWN + i];
                dt = decode_scan_softplus(dt);
            }
            const int64_t at = (int64_t)row * n_channels + channel;
            float *kept = (float *)(scan_state + (is ? slots[row] * state_stride : 0)) + (int64_t)channel * d_state;
            const float y = mamba_step(&ahead, near, dt, bc + row * 2 * d_state, kept, a + (int64_t)channel * d_state,
                near || !is ? ahead.x : xc[at], near || !is ? ahead.z : z[at], near || !is ? ahead.d : d[channel], is);
            if (thread_x() % 16 == 0 && row < n_rows)
                own[row * MAMBA_OWN + i] = is ? y : 0.0f;
        }
        barrier();
        for (int row = warp(); row < n_rows; row += MAMBA_WARPS)
            mamba_send(words.y, words.out, words.number, own + row * MAMBA_OWN, items.out_router, group, row);
    }

    if (routed) {
        decode_sum_words(out_route->sums, words.out, n_rows * n_experts, n_groups, words.number);
        barrier();
        out_w.experts = decode_select(out_route, n_rows, n_experts, n_experts, top_k);
        out_at = decode_begin(&out_w);
    }
    for (int column0 = group0 * 8; column0 < n_in; column0 += 8 * n_blocks_x()) {
        if (column0 != group0 * 8) {
            barrier();
            out_w.row += (int64_t)8 * n_blocks_x() * out_len;
            out_w.n_valid[0] = column0 + r < n_in, out_w.n_valid[1] = column0 + r + 4 < n_in;
            out_at = decode_begin(&out_w);
            for (int i = thread_x(); i < 8 * (n_next + 1); i += n_threads())
                leave[i] = decode_leave_item(i, next_router, next_norm, n_next, n_in, column0);
        }
        if (routed || column0 != group0 * 8)
            decode_fill_ring(&out_w, &out_at, out_shape);
        if (routed && column0 == group0 * 8)
            decode_gates(out_route, n_rows, n_experts, n_experts, renormalize, 0, 1, 0);
        for (int i = thread_x(); i < n_experts * 8 && weight_dtype == 3; i += n_threads())
            scale_at[i] = column0 + i % 8 < n_in && out_w.experts >> i / 8 & 1 ? out_scales[(int64_t)(i / 8) * n_in + column0 + i % 8] : 0.0f;
        const int column = column0 + lane() % 8;
        const float old = warp() < n_rows && column < n_in ? x[(int64_t)warp() * n_in + column] : 0.0f;
        barrier();
        const DecodeInput in = { NULL, 2 * mamba_row_words(), out_slice.first * 4 * t_width + t * t_width, words.y, words.number };
        decode_multiply(sums, &out_w, &out_at, out_w.experts, &in, out_route, weight_dtype == 3 ? scale_at : NULL, 8, n_rows, top_k, out_shape);
        barrier();
        if (warp() < n_rows) {                   /* a row a warp: there are not more rows than warps */
            float sum = 0;
            for (int i = lane() / 8; i < MAMBA_WARPS; i += 4)
                sum += sums[(i * DECODE_ROWS + warp()) * 8 + lane() % 8];
            sum += shuffle_xor_f(sum, 8);
            sum += shuffle_xor_f(sum, 16);
            sum = column < n_in ? sum + old : 0.0f;
            if (lane() < 8 && column < n_in)
                x[(int64_t)warp() * n_in + column] = sum;
            decode_leave(next, leave, sum, warp(), n_next, (n_in + 7) / 8, column0 / 8);
        }
    }
}
