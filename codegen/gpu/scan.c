/* Selective scan with D and the gate: s = 2^(Δ a) ⊙ s + (Δ B) x, y = (C · s + D x) silu(z); a = A log2(e).
 *
 * block_channels 0: token by token, the state in global memory; for sequences and for any d_state.
 * Grid: ceil(n_channels / 32) × 1, or × n_tokens with sequences; 256 threads.
 *
 * Else 8 or 16: one sequence. Grid: ceil(n_channels / block_channels); threads: 32 (block_channels / 8 · P +
 * block_channels / 2), P = ceil(d_state / 8). Time is not split: that would double the exponentials. Of the first
 * warps each has 8 channels × 8 states, a lane two of one channel, in registers for the whole run. The others help; a
 * lane has a token of a tile of 32 and four channels. Half of them copy inputs well ahead and turn them so that a lane
 * reads four tokens at once, half add up the P parts of y and gate. C · s and (Δ x) B are done by tensor cores, whose
 * rounding is undone by splitting factors in two. While tile k is scanned, k + 2 is turned, k + stages - 2 fetched,
 * k - 1 gated and k - 2 stored.
 * Shared: stages (32 (4 b + 16) + 32 (z + 1) (2 b + 16) + 4096 ceil(d_state / 16)) + 432 (3 b + 24 P) + 320 P b +
 * 64 (2 b + 16) bytes, b = block_channels, z = z_pairs or 1; stages (of inputs) is 6 or more.
 */
PARAM(n_channels, c) PARAM(d_state, n) PARAM(dt_stride, ds) PARAM(x_stride, xs) PARAM(z_stride, zs) PARAM(z_pairs, zp)
PARAM(y_stride, ys) PARAM(zoh, zoh) PARAM(act, a) PARAM(sequences, sq) PARAM(block_channels, bc)
PARAM(stages, st)

/* Tokens of a tile; floats of a turned row and of one of y's parts, which avoid bank conflicts; tiles in the rings of
 * turned ones and of y's parts; pieces of x and z that a helper copies, at most. */
enum { SCAN_TILE = 32, SCAN_ROW = 36, SCAN_PART_ROW = 40, SCAN_TURNED = 3, SCAN_Y_PARTS = 2, SCAN_PIECES = 9 };

typedef uint32_t scan_u32x2 __attribute__((vector_size(8)));
typedef float scan_f32x2 __attribute__((vector_size(8)));

typedef struct {
    float *y_parts;                 /* [Y_PARTS][P][block_channels][PART_ROW] */
    float *turned;                  /* [TURNED][3 block_channels + 24 P][ROW]: Δ, Δ x (zoh: x) and B in two, C */
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
/* Bytes of a token's rows in shared memory. */
DEVICE int scan_dt_len(void) { return 4 * scan_channels() + 16; }
DEVICE int scan_act_len(void) { return 2 * scan_channels() + 16; }
DEVICE int scan_bc_len(void) { return (d_state + 15) / 16 * 128; }        /* whole eights of pieces of 16 bytes */
DEVICE int scan_raw_len(void)
{
    return SCAN_TILE * (scan_dt_len() + (1 + scan_z_rows()) * scan_act_len() + scan_bc_len());
}
DEVICE int scan_stages(void) { return stages ? stages : 6; }
DEVICE int scan_ahead(void) { return scan_stages() - 2; }       /* tiles from the scanned one to the fetched */
DEVICE int scan_turned_len(void) { return (3 * scan_channels() + 24 * scan_parts()) * SCAN_ROW; }       /* floats */
DEVICE int scan_part_len(void) { return scan_parts() * scan_channels() * SCAN_PART_ROW; }

DEVICE ScanShared scan_shared(void)
{
    char *const raw = shared();
    float *const turned = (float *)(raw + scan_stages() * scan_raw_len());
    float *const y_parts = turned + SCAN_TURNED * scan_turned_len();
    char *const out = (char *)(y_parts + SCAN_Y_PARTS * scan_part_len());
    return (ScanShared){ y_parts, turned, raw, out };
}
DEVICE char *scan_raw(ScanShared s, unsigned tile)
{
    return s.raw + (int)(tile % (unsigned)scan_stages()) * scan_raw_len();
}
/* Row 0: x, then z. */
DEVICE char *scan_raw_act(char *raw, int row) { return raw + SCAN_TILE * (scan_dt_len() + row * scan_act_len()); }
DEVICE float *scan_raw_bc(char *raw) { return (float *)scan_raw_act(raw, 1 + scan_z_rows()); }
DEVICE float *scan_turned(ScanShared s, unsigned tile)
{
    return s.turned + (int)(tile % SCAN_TURNED) * scan_turned_len();
}

/* ---- arithmetic ---- */

DEVICE float scan_silu(float x) { return x * reciprocal_fast(1 + exp2_fast(x * -1.44269504f)); }

/* What stands before x B in the next state: Δ, or with zoh (e^(ΔA) - 1) / A; power = Δ a, decay = 2^power. */
DEVICE float scan_zoh_factor(float dt, float power, float decay, float a)
{
    const float q = power * 0.69314718f;       /* near 0, decay - 1 would cancel */
    const float third = fma_f(q, fma_f(q, fma_f(q, 1 / 720.0f, 1 / 120.0f), 1 / 24.0f), 1 / 6.0f);
    const float series = q * fma_f(q, fma_f(q, third, 0.5f), 1);
    const float less_one = q > -0.3f && q < 0.3f ? series : decay - 1;
    return a == 0 ? dt : less_one * (1.44269504f / a);
}

/* What a tensor core sees of x; x less this, it sees nearly whole. */
DEVICE float scan_high(float x) { return bits_float(float_bits(x) & 0xffffe000u); }

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

/* Bytes of 16 that are real, of elements of len bytes from `channel` on. */
DEVICE int scan_copy_len(int channel, int len)
{
    return n_channels % scan_channels() == 0 ? 16 : max_i(min_i((n_channels - channel) * len, 16), 0);
}

/* Where piece `piece` of 16 bytes of a tile's B and C goes. With whole pieces a token, eight tokens have the same piece
 * in different banks. */
DEVICE float *scan_bc_place(char *raw, int piece)
{
    const int pieces = max_i(d_state / 2, 1), t = piece / pieces;
    float *const bc = scan_raw_bc(raw);
    return d_state % 2 ? bc + piece * 4 : bc + t * (scan_bc_len() / 4) + (piece % pieces ^ t % 8) * 4;
}

/* What a helper copies of the next tile. Of x and z, `pieces` of 16 bytes: rows of x, then of z, of all tokens. */
typedef struct {
    const float *dt, *bc;
    const act_t *rows[SCAN_PIECES];
    int steps[SCAN_PIECES];         /* elements from tile to tile */
} ScanFetch;

DEVICE int scan_helpers(void) { return 8 * scan_channels(); }
DEVICE int scan_octets(void) { return scan_channels() / 8; }
DEVICE int scan_pieces(void)
{
    return (SCAN_TILE * scan_octets() * (1 + scan_z_rows()) + scan_helpers() - 1) / scan_helpers();
}

DEVICE ScanFetch scan_fetch_first(ScanArrays in, int helper)
{
    const int64_t first = block_x() * scan_channels();
    const int quads = scan_channels() / 4;
    ScanFetch fetch = { in.dt + helper / quads * (int64_t)dt_stride + first + helper % quads * 4, in.bc, { 0 }, { 0 } };
    UNROLL
    for (int i = 0; i < scan_pieces(); i++) {
        const int piece = i * scan_helpers() + helper, row = piece / (SCAN_TILE * scan_octets());
        const int64_t t = piece / scan_octets() % SCAN_TILE, c = first + piece % scan_octets() * 8;
        fetch.rows[i] = row == 0 ? in.x + t * x_stride + c : in.z + (t * in.n_z + row - 1) * z_stride + c;
        fetch.steps[i] = row == 0 ? SCAN_TILE * x_stride : SCAN_TILE * in.n_z * z_stride;
    }
    return fetch;
}

/* Fetches a tile and moves on; helper is this thread among them. Rows of z that the token does not have become 0. */
DEVICE void scan_fetch(ScanFetch *fetch, ScanShared s, ScanArrays in, unsigned tile, int helper)
{
    const int first = block_x() * scan_channels(), quads = scan_channels() / 4;
    const int left = in.n_tokens - (int)tile * SCAN_TILE;
    char *const raw = scan_raw(s, tile);
    if (left > 0) {
        copy_async16(raw + helper / quads * scan_dt_len() + helper % quads * 16, fetch->dt,
                     helper / quads < left ? scan_copy_len(first + helper % quads * 4, 4) : 0);
        UNROLL
        for (int i = 0; i < scan_pieces(); i++) {
            const int piece = i * scan_helpers() + helper, row = piece / (SCAN_TILE * scan_octets());
            const int t = piece / scan_octets() % SCAN_TILE, c = piece % scan_octets() * 8;
            if (row <= scan_z_rows())
                copy_async16(scan_raw_act(raw, row) + t * scan_act_len() + 2 * c, fetch->rows[i],
                             t < left && row <= in.n_z ? scan_copy_len(first + c, 2) : 0);
            fetch->rows[i] += fetch->steps[i];
        }
        UNROLL
        for (int i = 0; i < (SCAN_TILE * d_state / 2 + scan_helpers() - 1) / scan_helpers(); i++) {
            const int piece = i * scan_helpers() + helper, bytes = left * 8 * d_state - piece * 16;
            if (piece < SCAN_TILE * d_state / 2)
                copy_async16(scan_bc_place(raw, piece), fetch->bc + piece * 4,
                             bytes <= 0 ? 0 : d_state % 2 == 0 || bytes >= 16 ? 16 : bytes);
        }
        fetch->dt += SCAN_TILE * dt_stride;
        fetch->bc += SCAN_TILE * 2 * d_state;
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

/* A row of Δ x or B, its high part, and a row further its low one. */
DEVICE void scan_put_split(float *row, float x)
{
    row[0] = scan_high(x);
    row[SCAN_ROW] = x - scan_high(x);
}

/* The n-th of a token's numbers B, C; states: rows of B in two, then of C. */
DEVICE void scan_put_state(float *states, int n, float x)
{
    if (n < d_state)
        scan_put_split(states + 2 * n * SCAN_ROW, x);
    else
        states[(16 * scan_parts() + n - d_state) * SCAN_ROW] = x;
}

/* Rows of tokens become rows of channels and of states. */
DEVICE void scan_turn(ScanShared s, unsigned tile, int helper)
{
    const int t = helper % 32, quad = helper / 32, n_quads = scan_channels() / 4;
    char *const raw = scan_raw(s, tile);
    float *const turned = scan_turned(s, tile) + t, *const states = turned + 3 * scan_channels() * SCAN_ROW;
    const u32x4 dt = load16(raw + t * scan_dt_len() + 16 * quad);
    float x[4];
    scan_unpack(x, scan_raw_act(raw, 0) + t * scan_act_len() + 8 * quad);
    UNROLL
    for (int i = 0; i < 4; i++) {
        turned[(4 * quad + i) * SCAN_ROW] = bits_float(dt[i]);
        scan_put_split(turned + (scan_channels() + 2 * (4 * quad + i)) * SCAN_ROW,
                       zoh ? x[i] : bits_float(dt[i]) * x[i]);
    }
    if (d_state % 2 == 0)
        UNROLL
        for (int i = 0; i < (d_state / 2 + n_quads - 1) / n_quads; i++) {
            const int piece = i * n_quads + quad;
            if (piece >= d_state / 2)
                continue;
            const u32x4 four = load16(scan_bc_place(raw, t * (d_state / 2) + piece));
            UNROLL
            for (int j = 0; j < 4; j++)
                scan_put_state(states, 4 * piece + j, bits_float(four[j]));
        }
    else
        for (int i = quad; i < 2 * d_state; i += n_quads) {
            const int n = (i + t) % (2 * d_state);                               /* each lane another bank */
            scan_put_state(states, n, scan_raw_bc(raw)[t * 2 * d_state + n]);
        }
}

/* y of lane's token and four channels: parts, D, gate. */
DEVICE void scan_gate(ScanShared s, ScanArrays in, unsigned tile, int helper, const float d[4])
{
    const int t = helper % 32, quad = helper / 32;
    char *const raw = scan_raw(s, tile);
    const float *const parts = s.y_parts + (int)(tile % SCAN_Y_PARTS) * scan_part_len() + 4 * quad * SCAN_PART_ROW + t;
    float x[4], y[4];
    scan_unpack(x, scan_raw_act(raw, 0) + t * scan_act_len() + 8 * quad);
    UNROLL
    for (int i = 0; i < 4; i++) {
        y[i] = fma_f(d[i], x[i], parts[i * SCAN_PART_ROW]);
        UNROLL
        for (int p = 1; p < scan_parts(); p++)
            y[i] += parts[(p * scan_channels() + i) * SCAN_PART_ROW];
    }
    if (in.n_z > 0) {
        float z[4];
        scan_unpack(z, scan_raw_act(raw, 1) + t * scan_act_len() + 8 * quad);
        UNROLL
        for (int row = 1; row < scan_z_rows(); row++) {
            float more[4];
            scan_unpack(more, scan_raw_act(raw, 1 + row) + t * scan_act_len() + 8 * quad);
            UNROLL
            for (int i = 0; i < 4; i++)
                z[i] += more[i];
        }
        UNROLL
        for (int i = 0; i < 4; i++)
            y[i] *= scan_silu(z[i]);
    }
    char *const out = s.out + ((int)(tile % 2) * SCAN_TILE + t) * scan_act_len() + 8 * quad;
    *(scan_u32x2 *)out = (scan_u32x2){ act_pack(y[0], y[1], act), act_pack(y[2], y[3], act) };
}

DEVICE void scan_store(ScanShared s, ScanArrays in, unsigned tile, int helper)
{
    const int octets = scan_channels() / 8, row = helper / octets, t = (int)tile * SCAN_TILE + row;
    const int channel = block_x() * scan_channels() + helper % octets * 8, n = n_channels - channel;
    if (row >= SCAN_TILE || t >= in.n_tokens || n <= 0)
        return;
    const char *const out = s.out + ((int)(tile % 2) * SCAN_TILE + row) * scan_act_len() + helper % octets * 16;
    act_t *const to = in.y + (int64_t)t * y_stride + channel;
    if (n_channels % 8 == 0 || n >= 8)
        store16(to, load16(out));
    else
        for (int i = 0; i < n; i++)
            to[i] = ((const act_t *)out)[i];
}

/* Rows of states beyond d_state, in all of the ring: zeros, which nobody writes again. */
DEVICE void scan_clear(ScanShared s, int helper)
{
    const int n_none = 8 * scan_parts() - d_state;
    for (int i = helper; i < SCAN_TURNED * 3 * n_none * SCAN_ROW; i += scan_helpers()) {
        const int row = i / SCAN_ROW % (3 * n_none), ring = i / SCAN_ROW / (3 * n_none);
        const int state = row < 2 * n_none ? 2 * d_state + row : 16 * scan_parts() + d_state + row - 2 * n_none;
        s.turned[ring * scan_turned_len() + (3 * scan_channels() + state) * SCAN_ROW + i % SCAN_ROW] = 0;
    }
}

/* All warps meet after every tile, and before the first; what is fetched is then there for all helpers. */
DEVICE void scan_feed(ScanShared s, ScanArrays in, int helper)
{
    const int n_tiles = (in.n_tokens + SCAN_TILE - 1) / SCAN_TILE, ahead = scan_ahead();
    ScanFetch fetch = scan_fetch_first(in, helper);
    for (int tile = 0; tile < ahead; tile++)
        scan_fetch(&fetch, s, in, tile, helper);
    scan_clear(s, helper);
    copy_wait(scan_ahead() - 3);
    barrier_some(1, scan_helpers());
    scan_turn(s, 0, helper);
    if (n_tiles > 1)
        scan_turn(s, 1, helper);
    barrier();
    for (int tile = 0; tile < n_tiles + 2; tile++) {
        scan_fetch(&fetch, s, in, tile + ahead, helper);
        if (tile + 2 < n_tiles)
            scan_turn(s, tile + 2, helper);
        copy_wait(scan_ahead() - 3);
        barrier();
    }
}

DEVICE void scan_finish(ScanShared s, ScanArrays in, int helper)
{
    const int n_tiles = (in.n_tokens + SCAN_TILE - 1) / SCAN_TILE;
    float d[4];
    UNROLL
    for (int i = 0; i < 4; i++) {
        const int channel = block_x() * scan_channels() + helper / 32 * 4 + i;
        d[i] = channel < n_channels ? in.d[channel] : 0;
    }
    barrier();
    for (int tile = 0; tile < n_tiles + 2; tile++) {
        if (tile >= 1 && tile - 1 < n_tiles)
            scan_gate(s, in, tile - 1, helper, d);
        if (tile >= 2)
            scan_store(s, in, tile - 2, helper);
        barrier();
    }
}

/* ---- the warps that scan: lane = 4 g + q has channel g and states 2 q, 2 q + 1 of its warp's 8 x 8 ---- */

typedef struct { float dt[8], dt_x[8], b[8], c[2]; } ScanTokens;     /* eight tokens; dt_x, b: parts; c: of token g */
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

/* For inputs, lane has a row and a column of a product over four parts: high high, high low, low high, low low. */
DEVICE void scan_load(ScanTokens *to, const float *turned, int channel, int part, int first)
{
    const int g = lane() / 4, q = lane() % 4;
    const float *const dt_x = turned + (scan_channels() + 2 * channel + q / 2) * SCAN_ROW + first;
    const float *const states = turned + 3 * scan_channels() * SCAN_ROW + first;
    scan_load8(to->dt, turned + channel * SCAN_ROW + first);
    scan_load8(to->dt_x, dt_x);
    scan_load8(to->b, states + (2 * (8 * part + g) + q % 2) * SCAN_ROW);
    UNROLL
    for (int i = 0; i < 2; i++)
        to->c[i] = states[(16 * scan_parts() + 8 * part + 2 * q + i) * SCAN_ROW + g];
}

/* Decays and inputs, (Δ x) B. Rows 0 to 7 of a product are the first token of a pair, 8 to 15 the other. */
DEVICE void scan_prepare(ScanSteps *to, const ScanTokens *from, const float a[2])
{
    const float zero[4] = { 0, 0, 0, 0 };
    UNROLL
    for (int t = 0; t < 8; t++) {
        float d[4];
        mma_16x8x4(d, from->dt_x + t / 2 * 2, from->b[t], zero);
        UNROLL
        for (int i = 0; i < 2; i++) {
            const float power = from->dt[t] * a[i], decay = exp2_fast(power);
            to->decay[i][t] = decay;
            to->input[i][t] = d[t % 2 * 2 + i];
            if (zoh)
                to->input[i][t] *= scan_zoh_factor(from->dt[t], power, decay, a[i]);
        }
    }
    to->c[0] = from->c[0];
    to->c[1] = from->c[1];
}

/* Eight steps; y: C · s of channel g, tokens 2 q and 2 q + 1. Rows 0 to 7 of a product are a token's states, 8 to 15
 * the next one's; its columns are the C of all eight tokens, of which each row needs its own. */
DEVICE void scan_step(float y[2], float s[2], const ScanSteps *steps)
{
    const float zero[4] = { 0, 0, 0, 0 };
    const float c_low[2] = { steps->c[0] - scan_high(steps->c[0]), steps->c[1] - scan_high(steps->c[1]) };
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

/* Loads are two groups of eight tokens ahead of the states, exponentials one. */
DEVICE void scan_run(ScanShared s, float *state, const float *a, int n_tokens)
{
    enum { groups = SCAN_TILE / 8 };
    const int n_tiles = (n_tokens + SCAN_TILE - 1) / SCAN_TILE, part = warp() % scan_parts();
    const int channel = warp() / scan_parts() * 8 + lane() / 4, first_state = part * 8 + lane() % 4 * 2;
    const int64_t real_channel = block_x() * scan_channels() + channel;
    float own_a[2] = { 0, 0 }, own[2] = { 0, 0 }, y[2] = { 0, 0 };
    UNROLL
    for (int i = 0; i < 2; i++)
        if (real_channel < n_channels && first_state + i < d_state) {
            own_a[i] = a[real_channel * d_state + first_state + i];
            own[i] = state[real_channel * d_state + first_state + i];
        }
    barrier();
    ScanTokens tokens[2];
    ScanSteps steps[2];
    scan_load(&tokens[0], scan_turned(s, 0), channel, part, 0);
    scan_load(&tokens[1], scan_turned(s, 0), channel, part, 8);
    scan_prepare(&steps[0], &tokens[0], own_a);
    for (int tile = 0; tile < n_tiles; tile++) {
        const float *const turned = scan_turned(s, tile), *const next = scan_turned(s, tile + 1);
        float *const y_part = s.y_parts + tile % SCAN_Y_PARTS * scan_part_len() +
                              (part * scan_channels() + channel) * SCAN_PART_ROW;
        UNROLL
        for (int g = 0; g < groups; g++) {
            scan_load(&tokens[g % 2], g + 2 < groups ? turned : next, channel, part, (g + 2) % groups * 8);
            scan_prepare(&steps[(g + 1) % 2], &tokens[(g + 1) % 2], own_a);
            scan_step(y, own, &steps[g % 2]);
            *(scan_f32x2 *)(y_part + g * 8 + lane() % 4 * 2) = (scan_f32x2){ y[0], y[1] };
        }
        barrier();
    }
    UNROLL
    for (int i = 0; i < 2; i++)
        if (real_channel < n_channels && first_state + i < d_state)
            state[real_channel * d_state + first_state + i] = own[i];
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
    else if (thread_x() < n_scanning + scan_helpers())
        scan_feed(scan_shared(), in, thread_x() - n_scanning);
    else
        scan_finish(scan_shared(), in, thread_x() - n_scanning - scan_helpers());
}
