/* Decode: dt_proj, softplus, a step of the scan, D, silu(z); logits of the next router.
 *
 * A block owns 8 · tiles channels. Grid: channels / (8 · tiles); threads: 32 · tiles · n_slices. Sixteen lanes share a
 * channel's states. In: what decode_x and decode_in left. All columns of dt_proj are read, before the wait; those of
 * experts that were not chosen meet zeros.
 */
PARAM(n_channels, c) PARAM(d_state, n) PARAM(dt_rank, r) PARAM(n_experts, e) PARAM(zoh, zoh)
PARAM(weight_dtype, w) PARAM(act, a) PARAM(tiles, m) PARAM(n_slices, ks)

enum { DECODE_SCAN_AHEAD = 4 };     /* vectors of weights, states of a lane, that are fetched before the wait */

/* A thread's share of what x_proj said: the columns of u, gates times δ; B and C, summed over experts. Of one row. */
DEVICE void decode_scan_gather(act_t *u, float *bc, float *gate_at, const float *xp, const float *gates)
{
    const int n_each = dt_rank + 2 * d_state, n_all = n_experts * n_each;
    for (int i = thread_x(); i < n_all; i += n_threads()) {
        const int e = i / n_each, j = i % n_each;
        const float gate = n_experts > 1 ? gates[e] : 1.0f, value = xp[i];
        if (j < dt_rank)
            u[e * dt_rank + j] = gate != 0 ? float_act(n_experts > 1 ? gate * value : value, act) : 0;
    }
    for (int i = n_threads() - 1 - thread_x(); i < 2 * d_state; i += n_threads()) {
        float total = 0;
        UNROLL for (int e = 0; e < n_experts; e++) {
            const float gate = n_experts > 1 ? gates[e] : 1.0f, value = xp[e * n_each + dt_rank + i];
            total += gate != 0 ? gate * value : 0.0f;
        }
        bc[i] = total;
    }
    if (n_experts > 1)
        for (int i = thread_x(); i < n_experts; i += n_threads())
            gate_at[i] = gates[i];
}

/* The same of more rows: what a thread reads, it asks for before it uses any of it. */
DEVICE void decode_scan_gather_rows(act_t *u, int u_stride, float *bc, float *gate_at, const float *xp,
    const float *gates, int n_rows)
{
    enum { AT_ONCE = 4 };
    const int n_each = dt_rank + 2 * d_state, n_in = n_experts * dt_rank, n_u = n_rows * n_in;
    for (int i0 = thread_x(); i0 < n_u; i0 += AT_ONCE * n_threads()) {
        float gate[AT_ONCE], value[AT_ONCE];
        UNROLL for (int k = 0; k < AT_ONCE; k++) {
            const int i = i0 + k * n_threads(), e = i / dt_rank;       /* of all rows */
            gate[k] = i < n_u && n_experts > 1 ? gates[e] : 1.0f;
            value[k] = i < n_u ? xp[e * n_each + i - e * dt_rank] : 0.0f;
        }
        UNROLL for (int k = 0; k < AT_ONCE; k++) {
            const int i = i0 + k * n_threads(), row = i / n_in;
            if (i < n_u)
                u[row * u_stride + i - row * n_in] = gate[k] != 0
                    ? float_act(n_experts > 1 ? gate[k] * value[k] : value[k], act) : 0;
        }
    }
    for (int i = n_threads() - 1 - thread_x(); i < n_rows * 2 * d_state; i += n_threads()) {
        const int row = i / (2 * d_state), j = i - row * 2 * d_state;
        float total = 0;
        UNROLL for (int e = 0; e < n_experts; e++) {
            const float gate = n_experts > 1 ? gates[row * n_experts + e] : 1.0f;
            const float value = xp[(row * n_experts + e) * n_each + dt_rank + j];
            total += gate != 0 ? gate * value : 0.0f;
        }
        bc[i] = total;
    }
    if (n_experts > 1)
        for (int i = thread_x(); i < n_rows * n_experts; i += n_threads())
            gate_at[i] = gates[i];
}

/* A channel of a row: its state, of which a lane has elements 16 apart, x_c and z. */
typedef struct { float old[DECODE_SCAN_AHEAD], x, z; float *kept; } DecodeScanPair;

DEVICE void decode_scan_load_state(DecodeScanPair *pair, int row, int channel, int n_rows, uint8_t *state,
    const int32_t *slots, int64_t state_stride)
{
    const int first = thread_x() % 16;
    pair->kept = NULL;
    if (row >= n_rows || channel >= n_channels)
        return;
    pair->kept = (float *)(state + slots[row] * state_stride) + (int64_t)channel * d_state;
    UNROLL for (int i = 0; i < DECODE_SCAN_AHEAD; i++)
        if (first + 16 * i < d_state)
            pair->old[i] = pair->kept[first + 16 * i];
}

DEVICE void decode_scan_load_inputs(DecodeScanPair *pair, int row, int channel, int n_rows, const float *xc,
    const float *z)
{
    const int is = row < n_rows && channel < n_channels;
    pair->x = is ? xc[(int64_t)row * n_channels + channel] : 0.0f;
    pair->z = is ? z[(int64_t)row * n_channels + channel] : 0.0f;
}

DEVICE void decode_scan_rows(act_t *y /* [n_rows][n_channels up to 8] */,
    float *logits /* [n_rows][n_experts][blocks] */,
    const float *xp /* [n_rows][n_experts][dt_rank + 2 d_state] */, const float *gates /* [n_rows][n_experts] */,
    const float *xc, const float *z, const void *weights /* [n_channels][k] */, const float *scales,
    const float *bias /* [n_experts][n_channels] */, const float *a /* [n_channels][d_state] */, const float *d,
    const float *router /* [n_experts][n_channels] */, uint8_t *state, const int32_t *slots, int64_t state_stride,
    const int32_t n_rows)
{
    const int n_in = n_experts * dt_rank, row_len = decode_row_len(n_in, weight_dtype);
    const int n_chunks = decode_n_chunks(n_in, weight_dtype), width = weight_dtype == 3 ? 64 : 32;
    const int u_stride = (n_in + 63) / 64 * 64 + 8, n_own = 8 * tiles, y_stride = (n_channels + 7) / 8 * 8;
    const int n_routed = n_experts > 1 ? n_experts : 0;
    act_t *u = shared();
    float *bc = (float *)(u + DECODE_ROWS * u_stride);
    float *sums = bc + DECODE_ROWS * 2 * d_state;
    float *own = sums + tiles * n_slices * DECODE_ROWS * 8;
    float *gate_at = own + DECODE_ROWS * n_own, *items = gate_at + DECODE_ROWS * n_experts;
    float *biases = items + n_own * n_routed;      /* [n_own][n_experts] */

    const int g = lane() / 4, t = lane() % 4, c0 = block_x() * n_own, tile = warp() % tiles, slice = warp() / tiles;
    dependency_pass();
    const uint8_t *mine = (const uint8_t *)weights + (int64_t)(c0 + 8 * tile + g) * row_len + 16 * t;
    u32x4 ahead[DECODE_SCAN_AHEAD];
    UNROLL for (int i = 0; i < DECODE_SCAN_AHEAD; i++) {
        const int chunk = slice + i * n_slices;
        ahead[i] = (u32x4){ 0, 0, 0, 0 };
        if (chunk < n_chunks && c0 + 8 * tile + g < n_channels)
            ahead[i] = load16_stream(mine + chunk * DECODE_CHUNK);
    }
    const int half = thread_x() / 16, n_halves = n_threads() / 16, first = thread_x() % 16;
    const int channel0 = c0 + half % n_own, n_each = (d_state + 15) / 16;
    const int two = n_rows > 1, one_channel = n_slices % 4 == 0;          /* a half warp's pairs are of one channel */
    float a_ahead[DECODE_SCAN_AHEAD], d_ahead = 0;
    DecodeScanPair now, next;
    decode_scan_load_state(&now, half / n_own, channel0, n_rows, state, slots, state_stride);
    if (two)
        decode_scan_load_state(&next, (half + n_halves) / n_own, c0 + (half + n_halves) % n_own, n_rows, state, slots,
            state_stride);
    if (channel0 < n_channels) {
        UNROLL for (int i = 0; i < DECODE_SCAN_AHEAD; i++)
            if (first + 16 * i < d_state)
                a_ahead[i] = a[(int64_t)channel0 * d_state + first + 16 * i];
        d_ahead = d[channel0];
    }
    for (int i = thread_x(); i < n_own * n_routed; i += n_threads())
        items[i % n_own * n_routed + i / n_own] = c0 + i % n_own < n_channels
            ? router[(int64_t)(i / n_own) * n_channels + c0 + i % n_own] : 0.0f;
    for (int i = n_threads() - 1 - thread_x(); i < n_experts * n_own; i += n_threads())
        biases[i % n_own * n_experts + i / n_own] = c0 + i % n_own < n_channels
            ? bias[(int64_t)(i / n_own) * n_channels + c0 + i % n_own] : 0.0f;
    if (n_in % 64)
        for (int i = thread_x(); i < n_rows * u_stride / 2; i += n_threads())
            ((uint32_t *)u)[i] = 0;
    barrier();

    decode_hold(xp);
    decode_hold(gates);
    dependency_wait();
    decode_scan_load_inputs(&now, half / n_own, channel0, n_rows, xc, z);
    if (two)
        decode_scan_load_inputs(&next, (half + n_halves) / n_own, c0 + (half + n_halves) % n_own, n_rows, xc, z);
    if (n_rows == 1)
        decode_scan_gather(u, bc, gate_at, xp, gates);
    else
        decode_scan_gather_rows(u, u_stride, bc, gate_at, xp, gates, n_rows);
    barrier();
    float total[4] = { 0, 0, 0, 0 };
    UNROLL for (int i = 0; i < (n_chunks + n_slices - 1) / n_slices; i++) {
        const int chunk = slice + i * n_slices;
        u32x4 lo[2], hi[2], weight = { 0, 0, 0, 0 };
        if (i < DECODE_SCAN_AHEAD)
            weight = ahead[min_i(i, DECODE_SCAN_AHEAD - 1)];
        else if (chunk < n_chunks && c0 + 8 * tile + g < n_channels)
            weight = load16_stream(mine + chunk * DECODE_CHUNK);
        if (chunk >= n_chunks)
            continue;
        decode_load_chunk(lo, g < n_rows ? u + g * u_stride : NULL, chunk * width + t * width / 4, u_stride - 8,
            weight_dtype);
        decode_load_chunk(hi, g + 8 < n_rows ? u + (g + 8) * u_stride : NULL, chunk * width + t * width / 4,
            u_stride - 8, weight_dtype);
        decode_mma(total, weight, lo, hi, weight_dtype, act);
    }
    decode_store_part(sums, tile, slice, n_slices, DECODE_ROWS, total, n_rows);
    barrier();

    for (int pair = half; pair < DECODE_ROWS * n_own; pair += n_halves) {      /* a channel of a row each */
        const int row = pair / n_own, i = pair % n_own, channel = c0 + i, is = row < n_rows && channel < n_channels;
        if (pair - half % 2 >= n_rows * n_own)
            break;
        const int near = one_channel || pair == half;
        float dt = 0, y_sum = 0;
        if (!two && pair != half) {
            decode_scan_load_state(&now, row, channel, n_rows, state, slots, state_stride);
            decode_scan_load_inputs(&now, row, channel, n_rows, xc, z);
        }
        if (is) {
            dt = decode_read_part(sums, i / 8, n_slices, row, i % 8);
            if (weight_dtype == 3)
                dt *= scales[channel];
            if (n_experts == 1)
                dt += biases[i];
            else
                UNROLL for (int e = 0; e < n_experts; e++)
                    dt += gate_at[row * n_experts + e] * biases[i * n_experts + e];
            dt = decode_softplus(dt);
        }
        const float x = now.x;
        UNROLL for (int j = 0; j < n_each; j++)
            if (is && first + 16 * j < d_state) {
                const int n = first + 16 * j, at = min_i(j, DECODE_SCAN_AHEAD - 1);
                const float power = dt * (near && j < DECODE_SCAN_AHEAD ? a_ahead[at]
                    : a[(int64_t)channel * d_state + n]);
                const float decay = exp2_fast(power), step = zoh ? dt * decode_decay_ratio(power, decay) : dt;
                const float value = decay * (j < DECODE_SCAN_AHEAD ? now.old[at] : now.kept[n])
                    + step * bc[row * 2 * d_state + n] * x;
                now.kept[n] = value;
                y_sum += bc[row * 2 * d_state + d_state + n] * value;
            }
        UNROLL for (int mask = 8; mask > 0; mask /= 2)
            y_sum += shuffle_xor_f(y_sum, mask);
        if (first == 0 && row < n_rows) {
            float out = 0;
            if (is) {
                out = y_sum + (near ? d_ahead : d[channel]) * x;
                out *= decode_silu(now.z);
                y[(int64_t)row * y_stride + channel] = float_act(out, act);
            }
            own[row * n_own + i] = out;
        }
        if (two) {
            const int then = pair + 2 * n_halves;
            now = next;
            decode_scan_load_state(&next, then / n_own, c0 + then % n_own, n_rows, state, slots, state_stride);
            decode_scan_load_inputs(&next, then / n_own, c0 + then % n_own, n_rows, xc, z);
        }
    }
    if (n_routed == 0)
        return;
    barrier();
    for (int i0 = warp() * 8; i0 < n_rows * n_routed; i0 += n_threads() / 4) {      /* four lanes a sum */
        const int i = i0 + lane() / 4, q = lane() % 4, is = i < n_rows * n_routed;
        const int row = n_rows == 1 ? 0 : i / n_routed, n = i - row * n_routed;
        float sum = 0;
        if (is)
            UNROLL for (int j = 0; j < n_own / 4; j++)
                sum += own[row * n_own + 4 * j + q] * items[(4 * j + q) * n_routed + n];
        sum += shuffle_xor_f(sum, 1);
        sum += shuffle_xor_f(sum, 2);
        if (is && q == 0)
            logits[(int64_t)i * n_blocks_x() + block_x()] = sum;
    }
}

/* One row has code of its own: with all its loops and tests the other takes half a microsecond more. */
KERNEL(decode_scan)(act_t *y /* [n_rows][n_channels up to 8] */, float *logits /* [n_rows][n_experts][blocks] */,
    const float *xp /* [n_rows][n_experts][dt_rank + 2 d_state] */, const float *gates /* [n_rows][n_experts] */,
    const float *xc, const float *z, const void *weights /* [n_channels][k] */, const float *scales,
    const float *bias /* [n_experts][n_channels] */, const float *a /* [n_channels][d_state] */, const float *d,
    const float *router /* [n_experts][n_channels] */, uint8_t *state, const int32_t *slots, int64_t state_stride,
    int32_t n_rows)
{
    if (n_rows == 1)
        decode_scan_rows(y, logits, xp, gates, xc, z, weights, scales, bias, a, d, router, state, slots, state_stride,
            1);
    else
        decode_scan_rows(y, logits, xp, gates, xc, z, weights, scales, bias, a, d, router, state, slots, state_stride,
            n_rows);
}
