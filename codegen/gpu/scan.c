/* Selective scan with D and the gate: s = 2^(Δ a) ⊙ s + (Δ B) x, y = (C · s + D x) silu(z); a = A log2(e).
 *
 * block_channels 0: token by token, the state in global memory; for sequences and for any d_state.
 * Grid: ceil(n_channels / 32) × 1, or × n_tokens with sequences; 256 threads.
 *
 * Else 8 or 16: one sequence. Grid: ceil(n_channels / block_channels); threads: 32 (block_channels / 8 · P +
 * block_channels / 4), P = ceil(d_state / 8). Time is not split: that would double the exponentials, which bound
 * this kernel. Of the first warps each has 8 channels x 8 states, a lane two of one channel, in registers for
 * the whole run. The other warps are helpers: a lane has a token of a tile of 32 and four channels; they copy inputs
 * well ahead, turn them so that a lane reads four tokens at once, add up the P parts of y and gate. C · s is done
 * by tensor cores, whose rounding is undone by splitting both factors in two.
 * Tile k is scanned while k + 2 is turned, k + 6 (or k + 3) is fetched, k - 1 is gated and k - 2 stored.
 * Shared: S (32 (4 b + 16) + 32 (z + 1) (2 b + 16) + 256 d_state) + 480 (2 b + 16 P) + 320 P b + 64 (2 b + 16) bytes,
 * b = block_channels, z = z_pairs or 1, S = 8, or 5 where 8 times that first term passes 102400.
 */
PARAM(n_channels, c) PARAM(d_state, n) PARAM(dt_stride, ds) PARAM(x_stride, xs) PARAM(z_stride, zs) PARAM(z_pairs, zp)
PARAM(y_stride, ys) PARAM(zoh, zoh) PARAM(act, a) PARAM(sequences, sq) PARAM(block_channels, bc)

enum { SCAN_TILE = 32, SCAN_ROW = 40, SCAN_TURNED = 3 };    /* tokens; floats of a turned row: no bank conflicts; its ring */

typedef uint32_t scan_u32x2 __attribute__((vector_size(8)));
typedef float scan_f32x2 __attribute__((vector_size(8)));

typedef struct {
    float *y_parts;                 /* [2][P][block_channels][ROW] */
    float *turned;                  /* [TURNED][2 block_channels + 16 P][ROW]: Δ, Δ x (zoh: x), B, C */
    char *raw;                      /* [stages]: Δ, x, z as rows of tokens, then bc as it is */
    char *out;                      /* [2][TILE] rows of y */
} ScanShared;

typedef struct {
    const float *dt, *bc;
    const act_t *x, *z;
    act_t *y;
    const float *d;
    int n_tokens, n_z;              /* n_z: rows of z a token, 0: no gate */
} ScanArrays;

/* ---- sizes ---- */

DEVICE int scan_channels(void) { return block_channels ? block_channels : 8; }
DEVICE int scan_parts(void) { return (d_state + 7) / 8; }
DEVICE int scan_z_rows(void) { return z_pairs ? z_pairs : 1; }
DEVICE int scan_dt_len(void) { return 4 * scan_channels() + 16; }           /* bytes of a token's row in shared memory */
DEVICE int scan_act_len(void) { return 2 * scan_channels() + 16; }
DEVICE int scan_raw_len(void)
{
    return SCAN_TILE * (scan_dt_len() + (1 + scan_z_rows()) * scan_act_len() + 8 * d_state);
}
DEVICE int scan_stages(void) { return 8 * scan_raw_len() <= 102400 ? 8 : 5; }
DEVICE int scan_ahead(void) { return scan_stages() - 2; }                  /* tiles from the scanned one to the fetched */
DEVICE int scan_turned_len(void) { return (2 * scan_channels() + 16 * scan_parts()) * SCAN_ROW; }       /* floats */
DEVICE int scan_part_len(void) { return scan_parts() * scan_channels() * SCAN_ROW; }

DEVICE ScanShared scan_shared(void)
{
    char *const raw = shared();
    float *const turned = (float *)(raw + scan_stages() * scan_raw_len());
    float *const y_parts = turned + SCAN_TURNED * scan_turned_len();
    return (ScanShared){ y_parts, turned, raw, (char *)(y_parts + 2 * scan_part_len()) };
}
DEVICE char *scan_raw(ScanShared s, int tile) { return s.raw + tile % scan_stages() * scan_raw_len(); }
DEVICE char *scan_raw_act(char *raw, int row) { return raw + SCAN_TILE * (scan_dt_len() + row * scan_act_len()); }   /* x, then z */
DEVICE float *scan_raw_bc(char *raw) { return (float *)scan_raw_act(raw, 1 + scan_z_rows()); }
DEVICE float *scan_turned(ScanShared s, int tile) { return s.turned + tile % SCAN_TURNED * scan_turned_len(); }

/* ---- arithmetic ---- */

DEVICE float scan_silu(float x) { return x * reciprocal_fast(1 + exp2_fast(x * -1.44269504f)); }

/* What stands before x B in the next state: Δ, or with zoh (e^(ΔA) - 1) / A; power = Δ a, decay = 2^power. */
DEVICE float scan_zoh_factor(float dt, float power, float decay, float a)
{
    const float q = power * 0.69314718f;       /* near 0, decay - 1 would cancel */
    const float series = q * fma_f(q, fma_f(q, fma_f(q, fma_f(q, fma_f(q, 1 / 720.0f, 1 / 120.0f), 1 / 24.0f), 1 / 6.0f), 0.5f), 1);
    const float less_one = q > -0.3f && q < 0.3f ? series : decay - 1;
    return a == 0 ? dt : less_one * (1.44269504f / a);
}

/* ---- token by token ---- */

/* Four channels a warp, lane's eighth of the states. */
DEVICE void scan_token(ScanArrays in, float *state, const float *a, int t)
{
    const int channel = block_x() * 32 + warp() * 4 + lane() / 8, first = lane() % 8;
    const bool is_real = channel < n_channels;
    const float dt = is_real ? in.dt[(int64_t)t * dt_stride + channel] : 0;
    const float x = is_real ? act_float(in.x[(int64_t)t * x_stride + channel], act) : 0;
    const float *const b = in.bc + (int64_t)t * 2 * d_state, *const c = b + d_state;
    float y = 0;
    for (int n = first; is_real && n < d_state; n += 8) {
        const int64_t at = (int64_t)channel * d_state + n;
        const float power = dt * a[at], decay = exp2_fast(power);
        const float input = zoh ? x * scan_zoh_factor(dt, power, decay, a[at]) : dt * x;
        const float s = fma_f(decay, state[at], input * b[n]);
        state[at] = s;
        y = fma_f(c[n], s, y);
    }
    UNROLL
    for (int i = 1; i < 8; i *= 2)
        y += shuffle_xor_f(y, i);
    if (!is_real || first != 0)
        return;
    y = fma_f(in.d[channel], x, y);
    if (in.n_z > 0) {
        float z = 0;
        for (int s = 0; s < in.n_z; s++)
            z += act_float(in.z[((int64_t)t * in.n_z + s) * z_stride + channel], act);
        y *= scan_silu(z);
    }
    in.y[(int64_t)t * y_stride + channel] = float_act(y, act);
    }

/* ---- helpers ---- */

/* Bytes of 16 that are real, of elements of len bytes from `channel` on of token t. */
DEVICE int scan_copy_len(ScanArrays in, int t, int channel, int len)
{
    return t < in.n_tokens ? max_i(min_i((n_channels - channel) * len, 16), 0) : 0;
}

/* Fetches a tile; helper is this thread among them, 8 scan_channels(). */
DEVICE void scan_fetch(ScanShared s, ScanArrays in, int tile, int helper)
{
    const int n_helpers = 8 * scan_channels(), first = block_x() * scan_channels(), t0 = tile * SCAN_TILE;
    char *const raw = scan_raw(s, tile);
    if (t0 < in.n_tokens) {
        const int quads = scan_channels() / 4, octets = scan_channels() / 8;
        {
            const int t = helper / quads, c = helper % quads * 4;
            copy_async16(raw + t * scan_dt_len() + 4 * c, in.dt + (int64_t)(t0 + t) * dt_stride + first + c,
                         scan_copy_len(in, t0 + t, first + c, 4));
        }
        UNROLL
        for (int i = 0; i < (SCAN_TILE * octets * (1 + scan_z_rows()) + n_helpers - 1) / n_helpers; i++) {
            const int piece = i * n_helpers + helper, row = piece / (SCAN_TILE * octets);      /* 0: x, then z */
            const int t = piece / octets % SCAN_TILE, c = piece % octets * 8;
            const act_t *from = in.x + (int64_t)(t0 + t) * x_stride;
            if (row > 0)
                from = in.z + ((int64_t)(t0 + t) * in.n_z + row - 1) * z_stride;
            if (row <= in.n_z)
                copy_async16(scan_raw_act(raw, row) + t * scan_act_len() + 2 * c, from + first + c,
                             scan_copy_len(in, t0 + t, first + c, 2));
        }
        UNROLL
        for (int i = 0; i < (SCAN_TILE * d_state / 2 + n_helpers - 1) / n_helpers; i++) {
            const int piece = i * n_helpers + helper;                                          /* of 16 bytes */
            const int left = (in.n_tokens - t0) * 8 * d_state - piece * 16;
            if (piece < SCAN_TILE * d_state / 2)
                copy_async16(scan_raw_bc(raw) + piece * 4, in.bc + (int64_t)t0 * 2 * d_state + piece * 4,
                             max_i(min_i(left, 16), 0));
        }
    }
    copy_commit();
}

/* Four channels of lane's token. */
DEVICE void scan_unpack(float v[4], const char *row)
{
    const scan_u32x2 pairs = *(const scan_u32x2 *)row;
    v[0] = act_lo(pairs[0], act);
    v[1] = act_hi(pairs[0], act);
    v[2] = act_lo(pairs[1], act);
    v[3] = act_hi(pairs[1], act);
}

/* Rows of tokens become rows of channels and of states. */
DEVICE void scan_turn(ScanShared s, int tile, int helper)
{
    const int t = helper % 32, quad = helper / 32, n_quads = scan_channels() / 4;
    char *const raw = scan_raw(s, tile);
    float *const turned = scan_turned(s, tile) + t, *const states = turned + 2 * scan_channels() * SCAN_ROW;
    const u32x4 dt = load16(raw + t * scan_dt_len() + 16 * quad);
    float x[4];
    scan_unpack(x, scan_raw_act(raw, 0) + t * scan_act_len() + 8 * quad);
    UNROLL
    for (int i = 0; i < 4; i++) {
        turned[(4 * quad + i) * SCAN_ROW] = bits_float(dt[i]);
        turned[(scan_channels() + 4 * quad + i) * SCAN_ROW] = zoh ? x[i] : bits_float(dt[i]) * x[i];
    }
    const float *const bc = scan_raw_bc(raw) + t * 2 * d_state;
    UNROLL
    for (int i = 0; i < (2 * d_state + n_quads - 1) / n_quads; i++) {
        const int step = i * n_quads + quad, n = (step + t) % (2 * d_state);     /* each lane another bank */
        if (step < 2 * d_state)
            states[(n < d_state ? n : 8 * scan_parts() + n - d_state) * SCAN_ROW] = bc[n];
    }
}

/* y of lane's token and four channels: parts, D, gate. */
DEVICE void scan_gate(ScanShared s, ScanArrays in, int tile, int helper, const float d[4])
{
    const int t = helper % 32, quad = helper / 32;
    char *const raw = scan_raw(s, tile);
    const float *const parts = s.y_parts + tile % 2 * scan_part_len() + 4 * quad * SCAN_ROW + t;
    float x[4], y[4], z[4], part[4];
    scan_unpack(x, scan_raw_act(raw, 0) + t * scan_act_len() + 8 * quad);
    UNROLL
    for (int i = 0; i < 4; i++) {
        y[i] = d[i] * x[i];
        UNROLL
        for (int p = 0; p < scan_parts(); p++)
            y[i] += parts[(p * scan_channels() + i) * SCAN_ROW];
        z[i] = 0;
    }
    if (in.n_z > 0) {
        UNROLL
        for (int row = 0; row < scan_z_rows(); row++)
            if (row < in.n_z) {
                scan_unpack(part, scan_raw_act(raw, 1 + row) + t * scan_act_len() + 8 * quad);
                UNROLL
                for (int i = 0; i < 4; i++)
                    z[i] += part[i];
            }
        UNROLL
        for (int i = 0; i < 4; i++)
            y[i] *= scan_silu(z[i]);
    }
    char *const out = s.out + (tile % 2 * SCAN_TILE + t) * scan_act_len() + 8 * quad;
    *(scan_u32x2 *)out = (scan_u32x2){ act_pack(y[0], y[1], act), act_pack(y[2], y[3], act) };
}

DEVICE void scan_store(ScanShared s, ScanArrays in, int tile, int helper)
{
    const int octets = scan_channels() / 8, row = helper / octets, t = tile * SCAN_TILE + row;
    const int channel = block_x() * scan_channels() + helper % octets * 8, n = n_channels - channel;
    if (row >= SCAN_TILE || t >= in.n_tokens || n <= 0)
        return;
    const char *const out = s.out + (tile % 2 * SCAN_TILE + row) * scan_act_len() + helper % octets * 16;
    act_t *const to = in.y + (int64_t)t * y_stride + channel;
    if (n >= 8)
        store16(to, load16(out));
    else
        for (int i = 0; i < n; i++)
            to[i] = ((const act_t *)out)[i];
}

/* Rows of states beyond d_state, in all of the ring: zeros, which nobody writes again. */
DEVICE void scan_clear(ScanShared s, int helper)
{
    const int n_none = 8 * scan_parts() - d_state;
    for (int i = helper; i < SCAN_TURNED * 2 * n_none * SCAN_ROW; i += 8 * scan_channels()) {
        const int row = i / SCAN_ROW % (2 * n_none), ring = i / SCAN_ROW / (2 * n_none);
        const int state = row < n_none ? d_state + row : 8 * scan_parts() + d_state + row - n_none;
        s.turned[ring * scan_turned_len() + (2 * scan_channels() + state) * SCAN_ROW + i % SCAN_ROW] = 0;
    }
}

DEVICE void scan_help(ScanShared s, ScanArrays in, int helper)
{
    const int n_tiles = (in.n_tokens + SCAN_TILE - 1) / SCAN_TILE, ahead = scan_ahead();
    float d[4];
    UNROLL
    for (int i = 0; i < 4; i++) {
        const int channel = block_x() * scan_channels() + helper / 32 * 4 + i;
        d[i] = channel < n_channels ? in.d[channel] : 0;
    }
    for (int tile = 0; tile < ahead; tile++)
        scan_fetch(s, in, tile, helper);
    scan_clear(s, helper);
    copy_wait(scan_ahead() - 3);
    barrier_some(1, 8 * scan_channels());
    scan_turn(s, 0, helper);
    if (n_tiles > 1)
        scan_turn(s, 1, helper);
    barrier();
    for (int tile = 0; tile < n_tiles + 2; tile++) {
        scan_fetch(s, in, tile + ahead, helper);
        if (tile + 2 < n_tiles)
            scan_turn(s, tile + 2, helper);
        if (tile >= 1 && tile - 1 < n_tiles)
            scan_gate(s, in, tile - 1, helper, d);
        if (tile >= 2)
            scan_store(s, in, tile - 2, helper);
        copy_wait(scan_ahead() - 3);
        barrier();
    }
}

/* ---- the warps that scan: lane = 4 g + q has channel g and states q, q + 4 of its warp's 8 x 8 ---- */

typedef struct { float dt[8], dt_x[8], b[2][8], c[2]; } ScanTokens;      /* eight tokens; c: of token g */
typedef struct { float decay[2][8], input[2][8], c[2]; } ScanSteps;

DEVICE void scan_load8(float to[8], const float *from)
{
    UNROLL
    for (int half = 0; half < 2; half++) {
        const u32x4 quad = load16(from + 4 * half);
        UNROLL
        for (int i = 0; i < 4; i++)
            to[4 * half + i] = bits_float(quad[i]);
    }
}

DEVICE void scan_load(ScanTokens *to, const float *turned, int channel, int state, int first)
{
    const float *const states = turned + (2 * scan_channels() + state) * SCAN_ROW + first;
    scan_load8(to->dt, turned + channel * SCAN_ROW + first);
    scan_load8(to->dt_x, turned + (scan_channels() + channel) * SCAN_ROW + first);
    UNROLL
    for (int i = 0; i < 2; i++) {
        scan_load8(to->b[i], states + 4 * i * SCAN_ROW);
        to->c[i] = states[(8 * scan_parts() + 4 * i) * SCAN_ROW + lane() / 4];
    }
}

DEVICE void scan_prepare(ScanSteps *to, const ScanTokens *from, const float a[2])
{
    UNROLL
    for (int t = 0; t < 8; t++)
        UNROLL
        for (int i = 0; i < 2; i++) {
            const float power = from->dt[t] * a[i], decay = exp2_fast(power);
            to->decay[i][t] = decay;
            to->input[i][t] = from->dt_x[t] * from->b[i][t];
            if (zoh)
                to->input[i][t] *= scan_zoh_factor(from->dt[t], power, decay, a[i]);
        }
    to->c[0] = from->c[0];
    to->c[1] = from->c[1];
}

DEVICE float scan_high(float x) { return bits_float(float_bits(x) & 0xffffe000u); }

/* Eight steps; y: C · s of channel g, tokens 2 q and 2 q + 1. Rows 0 to 7 of a product are a token's states, 8 to 15
 * the next one's; its columns are the C of all eight tokens, of which each row needs its own. */
DEVICE void scan_step(float y[2], float s[2], const ScanSteps *steps)
{
    const float zero[4] = { 0, 0, 0, 0 }, c_low[2] = { steps->c[0] - scan_high(steps->c[0]), steps->c[1] - scan_high(steps->c[1]) };
    UNROLL
    for (int m = 0; m < 4; m++) {
        float state[4], low[4], d[4];
        UNROLL
        for (int t = 0; t < 2; t++)
            UNROLL
            for (int i = 0; i < 2; i++) {
                s[i] = fma_f(steps->decay[i][2 * m + t], s[i], steps->input[i][2 * m + t]);
                state[2 * i + t] = s[i];
                low[2 * i + t] = s[i] - scan_high(s[i]);
            }
        mma_16x8x8(d, state, c_low, zero);
        mma_16x8x8(d, low, steps->c, d);
        mma_16x8x8(d, state, steps->c, d);
        y[0] = lane() % 4 == m ? d[0] : y[0];
        y[1] = lane() % 4 == m ? d[3] : y[1];
    }
}

DEVICE void scan_run(ScanShared s, float *state, const float *a, int n_tokens)
{
    enum { groups = SCAN_TILE / 8 };
    const int n_tiles = (n_tokens + SCAN_TILE - 1) / SCAN_TILE, part = warp() % scan_parts();
    const int channel = warp() / scan_parts() * 8 + lane() / 4, first_state = part * 8 + lane() % 4;
    const int64_t real_channel = block_x() * scan_channels() + channel;
    float own_a[2] = { 0, 0 }, own[2] = { 0, 0 }, y[2] = { 0, 0 };
    UNROLL
    for (int i = 0; i < 2; i++)
        if (real_channel < n_channels && first_state + 4 * i < d_state) {
            own_a[i] = a[real_channel * d_state + first_state + 4 * i];
            own[i] = state[real_channel * d_state + first_state + 4 * i];
        }
    barrier();
    ScanTokens tokens[2];
    ScanSteps steps[2];
    scan_load(&tokens[0], scan_turned(s, 0), channel, first_state, 0);
    scan_load(&tokens[1], scan_turned(s, 0), channel, first_state, 8);
    scan_prepare(&steps[0], &tokens[0], own_a);
    for (int tile = 0; tile < n_tiles; tile++) {
        const float *const turned = scan_turned(s, tile), *const next = scan_turned(s, tile + 1);
        float *const y_part = s.y_parts + tile % 2 * scan_part_len() + (part * scan_channels() + channel) * SCAN_ROW;
        UNROLL
        for (int g = 0; g < groups; g++) {       /* loads are two groups ahead, exponentials one */
            scan_load(&tokens[g % 2], g + 2 < groups ? turned : next, channel, first_state, (g + 2) % groups * 8);
            scan_prepare(&steps[(g + 1) % 2], &tokens[(g + 1) % 2], own_a);
            scan_step(y, own, &steps[g % 2]);
            *(scan_f32x2 *)(y_part + g * 8 + lane() % 4 * 2) = (scan_f32x2){ y[0], y[1] };
        }
        barrier();
    }
    UNROLL
    for (int i = 0; i < 2; i++)
        if (real_channel < n_channels && first_state + 4 * i < d_state)
            state[real_channel * d_state + first_state + 4 * i] = own[i];
    barrier();
    barrier();
}

KERNEL(scan)(act_t *y /* [n_tokens][y_stride] */, const float *dt /* [n_tokens][dt_stride] */,
    const act_t *x /* [n_tokens][x_stride] */, const float *bc /* [n_tokens][2 d_state] */,
    const act_t *z /* [n_tokens, or pairs][z_stride] */, const float *restrict a /* [n_channels][d_state] */,
    const float *restrict d /* [n_channels] */, float *state /* [n_channels][d_state] */, const int32_t *slots,
    int64_t state_stride, int32_t n_tokens, int32_t top_k)
{
    const ScanArrays in = { dt, bc, x, z, y, d, n_tokens, z ? z_pairs ? top_k : 1 : 0 };
    dependency_wait();
    dependency_launch();
    state = (float *)((char *)state + slots[sequences ? block_y() : 0] * state_stride);
    if (block_channels == 0) {
        for (int t = sequences ? block_y() : 0; t < (sequences ? block_y() + 1 : n_tokens); t++)
            scan_token(in, state, a, t);
        return;
    }
    const int n_scanning = block_channels * 4 * scan_parts();        /* threads */
    if (thread_x() < n_scanning)
        scan_run(scan_shared(), state, a, n_tokens);
    else
        scan_help(scan_shared(), in, thread_x() - n_scanning);
}
