/* Decode: dt_proj of the chosen experts, softplus, a step of the scan, D, silu(z); logits of the next router.
 *
 * A block owns 8 · tiles channels. Grid: channels / (8 · tiles); threads: 32 · tiles · n_slices. Sixteen lanes share a
 * channel's states. In: what decode_x and decode_in left; the columns of dt_proj that belong to no chosen expert
 * are not read. State, xc, z and gates are fetched before the wait on decode_x.
 */
PARAM(n_channels, c) PARAM(d_state, n) PARAM(dt_rank, r) PARAM(n_experts, e) PARAM(renormalize, rn) PARAM(zoh, zoh)
PARAM(weight_dtype, w) PARAM(act, a) PARAM(n_parts, np) PARAM(n_splits, sp) PARAM(tiles, m) PARAM(n_slices, ks)

enum { DECODE_SCAN_AHEAD = 4 };     /* vectors of weights, states of a lane, that are fetched before the wait */

DEVICE float decode_scan_softplus(float x)
{
    if (x > 20.0f)
        return x;
    const float e = exp2_fast(x * 1.44269504f);
    return e < 0.03125f ? e * (1.0f - e * (0.5f - e * (0.33333333f - e * 0.25f))) : 0.69314718f * log2_fast(1.0f + e);
}

/* (exp(u) - 1) / u for u = power ln 2, exp(u) = decay */
DEVICE float decode_scan_ratio(float power, float decay)
{
    const float u = power * 0.69314718f;
    if (u > -0.25f && u < 0.25f)
        return 1.0f + u * (0.5f + u * (0.16666667f + u * (0.041666667f + u * (0.0083333333f + u * 0.0013888889f))));
    return (decay - 1.0f) / u;
}

/* Some expert of `active` has columns of dt_proj in this chunk. */
DEVICE int decode_scan_wants(uint32_t active, int chunk)
{
    const int width = weight_dtype == 3 ? 64 : 32, end = min_i((chunk + 1) * width, n_experts * dt_rank);
    for (int e = chunk * width / dt_rank; e * dt_rank < end; e++)
        if (active >> e & 1)
            return 1;
    return 0;
}

/* One lane's share of what x_proj said: the columns of u, gates times δ; B and C, summed over experts. */
DEVICE void decode_scan_gather(act_t *u, int u_stride, float *bc, const float *xp, const DecodeRoute *route, int n_rows,
    int top_k)
{
    const int n_out = dt_rank + 2 * d_state, k = n_experts > 1 ? top_k : 1;
    for (int i = thread_x(); i < n_rows * k * dt_rank; i += n_threads()) {
        const int row = i / dt_rank / k, j = i % dt_rank;
        const int e = n_experts > 1 ? decode_nth(route->chosen[row], i / dt_rank % k) : 0;
        const float *from = xp + ((int64_t)row * n_experts + e) * n_splits * n_out + j;
        float sum = 0;
        UNROLL for (int s = 0; s < n_splits; s++)
            sum += from[s * n_out];
        u[row * u_stride + e * dt_rank + j] = float_act(n_experts > 1 ? sum * route->gates[e * DECODE_ROWS + row]
            : sum, act);
    }
    for (int i = n_threads() - 1 - thread_x(); i < n_rows * 2 * d_state; i += n_threads()) {
        const int row = i / (2 * d_state), j = i % (2 * d_state);
        float total = 0;
        for (uint32_t left = n_experts > 1 ? route->chosen[row] : 1; left; left &= left - 1) {
            const int e = __builtin_ctz(left);
            const float *from = xp + ((int64_t)row * n_experts + e) * n_splits * n_out + dt_rank + j;
            float sum = 0;
            UNROLL for (int s = 0; s < n_splits; s++)
                sum += from[s * n_out];
            total += n_experts > 1 ? sum * route->gates[e * DECODE_ROWS + row] : sum;
        }
        bc[i] = total;
    }
}

KERNEL(decode_scan)(act_t *y /* [n_rows][n_channels up to 8] */, float *logits /* [n_rows][n_experts][blocks] */,
    const float *xp, const float *parts, const float *xc, const float *z, const void *weights /* [n_channels][k] */,
    const float *scales, const float *bias /* [n_experts][n_channels] */, const float *a /* [n_channels][d_state] */,
    const float *d, const float *router, uint8_t *state, const int32_t *slots, int64_t state_stride, int32_t n_rows,
    int32_t top_k)
{
    const int n_in = n_experts * dt_rank, row_len = decode_row_len(n_in, weight_dtype);
    const int n_chunks = decode_n_chunks(n_in, weight_dtype), width = weight_dtype == 3 ? 64 : 32;
    const int u_stride = (n_in + 63) / 64 * 64 + 8, n_own = 8 * tiles, y_stride = (n_channels + 7) / 8 * 8;
    const int n_router = n_experts > 1 ? n_own * n_experts : 0;
    DecodeRoute *route = shared();
    act_t *u = (act_t *)(route + 1);
    float *bc = (float *)(u + DECODE_ROWS * u_stride);
    float *sums = bc + DECODE_ROWS * 2 * d_state;
    float *own = sums + tiles * n_slices * DECODE_ROWS * 8;
    float *items = own + DECODE_ROWS * n_own, *biases = items + n_router;      /* [n_experts][n_own] */

    const int g = lane() / 4, t = lane() % 4, c0 = block_x() * n_own, tile = warp() % tiles, slice = warp() / tiles;
    uint32_t active = 1;
    if (n_experts > 1) {                         /* parts is older than decode_x */
        decode_sum_parts(route->sums, parts, n_rows * n_experts, n_parts);
        barrier();
        active = decode_select(route, n_rows, n_experts, n_experts, top_k);
    }
    const uint8_t *mine = (const uint8_t *)weights + (int64_t)(c0 + 8 * tile + g) * row_len + 16 * t;
    u32x4 ahead[DECODE_SCAN_AHEAD];
    UNROLL for (int i = 0; i < DECODE_SCAN_AHEAD; i++) {
        const int chunk = slice + i * n_slices;
        ahead[i] = (u32x4){ 0, 0, 0, 0 };
        if (chunk < n_chunks && c0 + 8 * tile + g < n_channels && decode_scan_wants(active, chunk))
            ahead[i] = load16_stream(mine + chunk * DECODE_CHUNK);
    }
    const int half = thread_x() / 16, n_halves = n_threads() / 16, first = thread_x() % 16;
    const int channel0 = c0 + half % n_own, row_first = half / n_own, n_each = (d_state + 15) / 16;
    float old[DECODE_SCAN_AHEAD], a_ahead[DECODE_SCAN_AHEAD], x_ahead = 0, z_ahead = 0, d_ahead = 0;
    const int is_first = row_first < n_rows && channel0 < n_channels;
    if (is_first) {
        const float *from = (const float *)(state + slots[row_first] * state_stride) + (int64_t)channel0 * d_state;
        UNROLL for (int i = 0; i < DECODE_SCAN_AHEAD; i++)
            if (first + 16 * i < d_state) {
                old[i] = from[first + 16 * i];
                a_ahead[i] = a[(int64_t)channel0 * d_state + first + 16 * i];
            }
        x_ahead = xc[(int64_t)row_first * n_channels + channel0];
        z_ahead = z[(int64_t)row_first * n_channels + channel0];
        d_ahead = d[channel0];
    }
    for (int i = thread_x(); i < n_router; i += n_threads())
        items[i] = c0 + i % n_own < n_channels ? router[(int64_t)(i / n_own) * n_channels + c0 + i % n_own] : 0.0f;
    for (int i = n_threads() - 1 - thread_x(); i < n_experts * n_own; i += n_threads())
        biases[i] = c0 + i % n_own < n_channels ? bias[(int64_t)(i / n_own) * n_channels + c0 + i % n_own] : 0.0f;
    for (int i = thread_x(); i < n_rows * u_stride / 2; i += n_threads())
        ((uint32_t *)u)[i] = 0;
    if (n_experts > 1)
        decode_gates(route, n_rows, n_experts, n_experts, renormalize, 0, 1, 0);
    barrier();

    decode_hold(xp);
    dependency_wait();
    dependency_launch();
    decode_scan_gather(u, u_stride, bc, xp, route, n_rows, top_k);
    barrier();
    float total[4] = { 0, 0, 0, 0 };
    for (int i = 0; slice + i * n_slices < n_chunks; i++) {
        const int chunk = slice + i * n_slices;
        if (!decode_scan_wants(active, chunk))
            continue;
        u32x4 lo[2], hi[2], weight = { 0, 0, 0, 0 };
        UNROLL for (int j = 0; j < DECODE_SCAN_AHEAD; j++)
            if (i == j)
                weight = ahead[j];
        if (i >= DECODE_SCAN_AHEAD && c0 + 8 * tile + g < n_channels)
            weight = load16_stream(mine + chunk * DECODE_CHUNK);
        decode_load_chunk(lo, g < n_rows ? u + g * u_stride : NULL, chunk * width + t * width / 4, u_stride - 8,
            weight_dtype);
        decode_load_chunk(hi, g + 8 < n_rows ? u + (g + 8) * u_stride : NULL, chunk * width + t * width / 4,
            u_stride - 8,
            weight_dtype);
        decode_mma(total, weight, lo, hi, weight_dtype, act);
    }
    decode_store_part(sums, tile, slice, n_slices, total, n_rows);
    barrier();

    for (int pair = half; pair < DECODE_ROWS * n_own; pair += n_halves) {      /* a channel of a row each */
        const int row = pair / n_own, i = pair % n_own, channel = c0 + i, is = row < n_rows && channel < n_channels;
        if (pair - half % 2 >= n_rows * n_own)
            break;
        float dt = 0, y_sum = 0;
        if (is) {
            dt = decode_read_part(sums, i / 8, n_slices, row, i % 8);
            if (weight_dtype == 3)
                dt *= scales[channel];
            if (n_experts == 1)
                dt += biases[i];
            else
                for (uint32_t left = route->chosen[row]; left; left &= left - 1)
                    dt += route->gates[__builtin_ctz(left) * DECODE_ROWS + row]
                        * biases[__builtin_ctz(left) * n_own + i];
            dt = decode_scan_softplus(dt);
        }
        const int near = pair == half;
        const float x = !is ? 0.0f : near ? x_ahead : xc[(int64_t)row * n_channels + channel];
        float *kept = (float *)(state + (is ? slots[row] * state_stride : 0)) + (int64_t)channel * d_state;
        UNROLL for (int j = 0; j < n_each; j++)
            if (is && first + 16 * j < d_state) {
                const int n = first + 16 * j, is_near = near && j < DECODE_SCAN_AHEAD;
                const float power = dt * (is_near ? a_ahead[min_i(j,
                    DECODE_SCAN_AHEAD - 1)] : a[(int64_t)channel * d_state + n]);
                const float decay = exp2_fast(power), step = zoh ? dt * decode_scan_ratio(power, decay) : dt;
                const float now = decay * (is_near ? old[min_i(j, DECODE_SCAN_AHEAD - 1)] : kept[n])
                    + step * bc[row * 2 * d_state + n] * x;
                kept[n] = now;
                y_sum += bc[row * 2 * d_state + d_state + n] * now;
            }
        UNROLL for (int mask = 8; mask > 0; mask /= 2)
            y_sum += shuffle_xor_f(y_sum, mask);
        if (first == 0 && row < n_rows) {
            float out = 0;
            if (is) {
                out = y_sum + (near ? d_ahead : d[channel]) * x;
                out *= decode_silu(near ? z_ahead : z[(int64_t)row * n_channels + channel]);
                y[(int64_t)row * y_stride + channel] = float_act(out, act);
            }
            own[row * n_own + i] = out;
        }
    }
    if (n_experts == 1)
        return;
    barrier();
    for (int i = thread_x(); i < n_rows * n_experts; i += n_threads()) {
        float sum = 0;
        UNROLL for (int j = 0; j < n_own; j++)
            sum += own[i / n_experts * n_own + j] * items[i % n_experts * n_own + j];
        logits[(int64_t)i * n_blocks_x() + block_x()] = sum;
    }
}
