/* Selective scan with D and the gate: s = 2^(Δ a) ⊙ s + (Δ B) x, y = (C · s + D x) silu(z); a = A log2(e).
 *
 * block_channels 0: token by token, the state in global memory; for sequences and for any d_state.
 * Grid: ceil(n_channels / 32) × n_sequences, or × n_tokens with sequences; 256 threads.
 *
 * Else 8 or 16; several sequences only with an even d_state. Grid: ceil(n_channels / block_channels) × n_sequences;
 * threads: block_channels (4 P + 16), P = ceil(d_state / 8). Time is not split: that would double the exponentials. Of the first warps each has 8 channels
 * × 8 states, a lane two of one channel, in registers for the whole run. The others help, one half with even tiles of
 * 32 tokens, one with odd ones, a lane for a token and four channels: they copy inputs well ahead, turn them so that a
 * lane that scans reads what it multiplies, add up the P parts of y, and gate. Tensor cores multiply (Δ x) B and C · s,
 * with factors of 11 bits. Loads are two groups of eight tokens ahead of the states, exponentials one.
 * Shared: stages (128 b + 64 b (z + 1) + 128 B) + 2880 b + 512 P (b + 4) bytes, b = block_channels, z = z_pairs or 1,
 * B = 2 d_state (odd d_state), or up to 8 above a multiple of 32; stages (of inputs) is even, 6 or more.
 */
PARAM(n_channels, c) PARAM(d_state, n) PARAM(dt_stride, ds) PARAM(x_stride, xs) PARAM(z_stride, zs) PARAM(z_pairs, zp)
PARAM(y_stride, ys) PARAM(zoh, zoh) PARAM(act, a) PARAM(sequences, sq) PARAM(block_channels, bc)
PARAM(stages, st)

/* Tokens of a tile and of a group; tiles in the rings of turned ones and of y's parts; floats of a turned row, which
 * avoid bank conflicts; pieces of x and z that a helper copies, at most; halves of the helpers. */
enum { SCAN_TILE = 32, SCAN_GROUP = 8, SCAN_GROUPS = SCAN_TILE / SCAN_GROUP, SCAN_RING = 4,
       SCAN_ROW = 36, SCAN_PIECES = 9, SCAN_SETS = 2 };

typedef uint32_t scan_u32x2 __attribute__((vector_size(8)));
typedef float scan_f32x2 __attribute__((vector_size(8)));

typedef struct {
    char *raw;                      /* [stages]: Δ, x, z as rows of tokens, then bc */
    float *turned;                  /* [RING][1 + GROUPS][b][ROW]: Δ of 32 tokens; of each group, Δ x for each q */
    float *y_parts;                 /* [RING][P][TILE][scan_y_row()] */
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
DEVICE int scan_stages(void) { return stages ? stages : 6; }
/* Floats of a token's row in shared memory, so that lanes 4 g + q find float g of row q in 32 banks. */
DEVICE int scan_bc_row(void) { return 2 * d_state + (d_state % 2 ? 0 : (40 - 2 * d_state % 32) % 32); }
DEVICE int scan_y_row(void) { return scan_channels() + 4; }      /* the same for row 2 q */
DEVICE int scan_raw_len(void)
{
    return SCAN_TILE * (4 * scan_channels() + 2 * scan_channels() * (1 + scan_z_rows()) + 4 * scan_bc_row());
}
DEVICE int scan_turned_len(void) { return (1 + SCAN_GROUPS) * scan_channels() * SCAN_ROW; }      /* floats */
DEVICE int scan_part_len(void) { return SCAN_TILE * scan_y_row(); }      /* floats */

DEVICE ScanShared scan_shared(void)
{
    char *const raw = shared();
    float *const turned = (float *)(raw + scan_stages() * scan_raw_len());
    return (ScanShared){ raw, turned, turned + SCAN_RING * scan_turned_len() };
}
DEVICE char *scan_raw(ScanShared s, unsigned tile)
{
    return s.raw + (int)(tile % (unsigned)scan_stages()) * scan_raw_len();
}
/* Row 0: x, then z. */
DEVICE char *scan_raw_act(char *raw, int row)
{
    return raw + SCAN_TILE * (4 * scan_channels() + row * 2 * scan_channels());
}
DEVICE float *scan_raw_bc(char *raw) { return (float *)scan_raw_act(raw, 1 + scan_z_rows()); }
DEVICE float *scan_turned(ScanShared s, unsigned tile)
{
    return s.turned + (int)(tile % SCAN_RING) * scan_turned_len();
}
DEVICE float *scan_y_tile(ScanShared s, unsigned tile)
{
    return s.y_parts + (int)(tile % SCAN_RING) * scan_parts() * scan_part_len();
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

/* So much that the tensor core sees x rounded. */
DEVICE float scan_rounded(float x) { return bits_float(float_bits(x) + 0x1000u); }

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

/* Where piece `piece` of 16 bytes of a tile's B and C goes. */
DEVICE float *scan_bc_place(char *raw, int piece)
{
    const int pieces = max_i(d_state / 2, 1);
    float *const bc = scan_raw_bc(raw);
    return d_state % 2 ? bc + piece * 4 : bc + piece / pieces * scan_bc_row() + piece % pieces * 4;
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

DEVICE ScanFetch scan_fetch_first(ScanArrays in, int set, int helper)
{
    const int64_t first = block_x() * scan_channels();
    const int quads = scan_channels() / 4;
    const int64_t token = set * SCAN_TILE;
    ScanFetch fetch = { in.dt + (token + helper / quads) * dt_stride + first + helper % quads * 4,
                        in.bc + token * 2 * d_state, { 0 }, { 0 } };
    UNROLL
    for (int i = 0; i < scan_pieces(); i++) {
        const int piece = i * scan_helpers() + helper, row = piece / (SCAN_TILE * scan_octets());
        const int64_t t = token + piece / scan_octets() % SCAN_TILE, c = first + piece % scan_octets() * 8;
        fetch.rows[i] = row == 0 ? in.x + t * x_stride + c : in.z + (t * in.n_z + row - 1) * z_stride + c;
        fetch.steps[i] = SCAN_SETS * SCAN_TILE * (row == 0 ? x_stride : in.n_z * z_stride);
    }
    return fetch;
}

/* Fetches a tile and moves on; helper is this thread of its half. */
DEVICE void scan_fetch(ScanFetch *fetch, ScanShared s, ScanArrays in, unsigned tile, int helper)
{
    const int first = block_x() * scan_channels(), quads = scan_channels() / 4;
    const int left = in.n_tokens - (int)tile * SCAN_TILE;
    char *const raw = scan_raw(s, tile);
    if (left > 0) {
        copy_async16(raw + helper * 16, fetch->dt,
                     helper / quads < left ? scan_copy_len(first + helper % quads * 4, 4) : 0);
        UNROLL
        for (int i = 0; i < scan_pieces(); i++) {
            const int piece = i * scan_helpers() + helper, row = piece / (SCAN_TILE * scan_octets());
            const int t = piece / scan_octets() % SCAN_TILE, c = piece % scan_octets() * 8;
            if (row <= in.n_z)
                copy_async16(scan_raw_act(raw, 0) + piece * 16, fetch->rows[i],
                             t < left ? scan_copy_len(first + c, 2) : 0);
            fetch->rows[i] += fetch->steps[i];
        }
        UNROLL
        for (int i = 0; i < (SCAN_TILE * d_state / 2 + scan_helpers() - 1) / scan_helpers(); i++) {
            const int piece = i * scan_helpers() + helper, bytes = left * 8 * d_state - piece * 16;
            if (piece < SCAN_TILE * d_state / 2)
                copy_async16(scan_bc_place(raw, piece), fetch->bc + piece * 4,
                             bytes <= 0 ? 0 : d_state % 2 == 0 || bytes >= 16 ? 16 : bytes);
        }
        fetch->dt += SCAN_SETS * SCAN_TILE * dt_stride;
        fetch->bc += SCAN_SETS * SCAN_TILE * 2 * d_state;
    }
    copy_commit();
}

/* Four channels of a token. */
DEVICE void scan_unpack(float v[4], const char *row)
{
    const scan_u32x2 pairs = *(const scan_u32x2 *)row;
    v[0] = act_lo(pairs[0], act);
    v[1] = act_hi(pairs[0], act);
    v[2] = act_lo(pairs[1], act);
    v[3] = act_hi(pairs[1], act);
}

/* y of this helper's token and four channels: parts, D, gate. A number cut to 11 bits is too small by 2^-11 / (2 ln 2)
 * on average: so were the two factors of every part. */
DEVICE void scan_gate(ScanShared s, ScanArrays in, int tile, int helper, const float d[4])
{
    const float unbias = 1 + 2 * 0.7213475f / 2048;
    const int quads = scan_channels() / 4, t = helper / quads, quad = helper % quads;
    const int token = tile * SCAN_TILE + t, channel = block_x() * scan_channels() + 4 * quad;
    const char *const rows = scan_raw_act(scan_raw(s, (unsigned)tile), 0) + helper * 8;
    const float *const parts = scan_y_tile(s, (unsigned)tile) + t * scan_y_row() + 4 * quad;
    float x[4], y[4] = { 0, 0, 0, 0 };
    UNROLL
    for (int p = 0; p < scan_parts(); p++) {
        const u32x4 part = load16(parts + p * scan_part_len());
        UNROLL
        for (int i = 0; i < 4; i++)
            y[i] += bits_float(part[i]);
    }
    scan_unpack(x, rows);
    UNROLL
    for (int i = 0; i < 4; i++)
        y[i] = fma_f(d[i], x[i], y[i] * unbias);
    if (in.n_z > 0) {
        float z[4] = { 0, 0, 0, 0 };
        UNROLL
        for (int row = 1; row <= scan_z_rows(); row++) {
            float more[4];
            if (row > in.n_z)
                break;
            scan_unpack(more, rows + row * SCAN_TILE * 2 * scan_channels());
            UNROLL
            for (int i = 0; i < 4; i++)
                z[i] += more[i];
        }
        UNROLL
        for (int i = 0; i < 4; i++)
            y[i] *= scan_silu(z[i]);
    }
    if (token >= in.n_tokens)
        return;
    act_t *const to = in.y + (int64_t)token * y_stride + channel;
    const scan_u32x2 packed = { act_pack(y[0], y[1], act), act_pack(y[2], y[3], act) };
    if (n_channels % 4 == 0 ? channel < n_channels : channel + 4 <= n_channels)
        *(scan_u32x2 *)to = packed;
    else
        for (int i = 0; i < 4 && channel + i < n_channels; i++)
            to[i] = (act_t)(packed[i / 2] >> (16 * (i % 2)));
}

/* Δ and Δ x (zoh: x) of this helper's token and channels, where those who scan read them. */
DEVICE void scan_turn(ScanShared s, int tile, int helper)
{
    const int quads = scan_channels() / 4, t = helper / quads, quad = helper % quads, q = t % 4;
    char *const raw = scan_raw(s, (unsigned)tile);
    float *const to = scan_turned(s, (unsigned)tile) + quad * 4 * SCAN_ROW;
    float *const inputs = to + (1 + t / SCAN_GROUP) * scan_channels() * SCAN_ROW + q * 8 + t % SCAN_GROUP;
    const u32x4 dt = load16(raw + helper * 16);
    float x[4];
    scan_unpack(x, scan_raw_act(raw, 0) + helper * 8);
    UNROLL
    for (int i = 0; i < 4; i++) {
        to[i * SCAN_ROW + t] = bits_float(dt[i]);
        inputs[i * SCAN_ROW] = scan_rounded(zoh ? x[i] : bits_float(dt[i]) * x[i]);
    }
}

/* Barriers between those who scan and a half of the helpers: FULL + tile % 4, the tile is there; DONE + tile % 4, it
 * is scanned, and y of it in its place. Four, for nobody may come again before all have come. OWN: of a half. */
enum { SCAN_FULL = 1, SCAN_DONE = 5, SCAN_OWN = 9, SCAN_CLEAR = 11 };

DEVICE int scan_scanning(void) { return scan_channels() * 4 * scan_parts(); }        /* threads */

/* Tile tile is turned, if it is one, and told of. */
DEVICE void scan_bring(ScanShared s, int tile, int n_tiles, int set, int helper)
{
    barrier_some(SCAN_OWN + set, scan_helpers());
    if (tile < n_tiles)
        scan_turn(s, tile, helper);
    if (tile <= n_tiles)
        barrier_arrive(SCAN_FULL + tile % 4, scan_scanning() + scan_helpers());
}

/* Even tiles, or odd ones. The next one is brought before this one is waited for. */
DEVICE void scan_help(ScanShared s, ScanArrays in, int set, int helper)
{
    const int n_tiles = (in.n_tokens + SCAN_TILE - 1) / SCAN_TILE, channel = block_x() * scan_channels();
    const int own_stages = scan_stages() / SCAN_SETS;
    ScanFetch fetch = scan_fetch_first(in, set, helper);
    float d[4];
    for (int i = 0; i < own_stages; i++)
        scan_fetch(&fetch, s, in, (unsigned)(set + i * SCAN_SETS), helper);
    for (int i = set * scan_helpers() + helper; i < SCAN_RING * scan_turned_len(); i += SCAN_SETS * scan_helpers())
        s.turned[i] = 0;                /* what is not on the diagonal of a q's eight tokens stays so */
    UNROLL
    for (int i = 0; i < 4; i++) {
        const int own = channel + helper % (scan_channels() / 4) * 4 + i;
        d[i] = own < n_channels ? in.d[own] : 0;
    }
    barrier_some(SCAN_CLEAR, SCAN_SETS * scan_helpers());
    copy_wait(min_i(own_stages - 1, 7));
    scan_bring(s, set, n_tiles, set, helper);
    for (int tile = set; tile < n_tiles; tile += SCAN_SETS) {
        copy_wait(min_i(own_stages - 3, 7));
        scan_bring(s, tile + SCAN_SETS, n_tiles, set, helper);
        barrier_some(SCAN_DONE + tile % 4, scan_scanning() + scan_helpers());
        if (tile > set)
            scan_fetch(&fetch, s, in, (unsigned)(tile - SCAN_SETS + own_stages * SCAN_SETS), helper);
        else
            copy_commit();
        scan_gate(s, in, tile, helper, d);
    }
}

/* ---- the warps that scan: lane = 4 g + q has channel g and states 2 q, 2 q + 1 of its warp's 8 x 8 ---- */

/* Of a group of eight tokens: Δ; Δ x of tokens q and q + 4, zeros for the others; state g's B for these two; C of token
 * g for the lane's states. */
typedef struct { float dt[8], dt_x[8], b[2], c[2]; } ScanTokens;

/* What a lane reads of each group: where in a tile, and what of it is real. */
typedef struct { int dt, dt_x, b, c; bool has_b, has_c[2]; } ScanPlaces;

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

DEVICE void scan_load(ScanTokens *to, const float *turned, const float *bc, int group, const ScanPlaces *at)
{
    scan_load8(to->dt, turned + at->dt + group * SCAN_GROUP);
    scan_load8(to->dt_x, turned + at->dt_x + group * scan_channels() * SCAN_ROW);
    UNROLL
    for (int i = 0; i < 2; i++) {
        to->b[i] = at->has_b ? bc[(group * SCAN_GROUP + i * 4) * scan_bc_row() + at->b] : 0;
        to->c[i] = at->has_c[i] ? bc[group * SCAN_GROUP * scan_bc_row() + at->c + i] : 0;
    }
}

typedef struct { float decay[8][2], input[8][2], c[2]; } ScanSteps;

/* Exponentials and (Δ x) B, two tokens a product: rows 0 to 7 are a token, 8 to 15 the next one. */
DEVICE void scan_prepare(ScanSteps *to, const ScanTokens *from, const float a[2])
{
    const float zero[4] = { 0, 0, 0, 0 };
    UNROLL
    for (int t = 0; t < 8; t++)
        UNROLL
        for (int i = 0; i < 2; i++)
            to->decay[t][i] = exp2_fast(from->dt[t] * a[i]);
    UNROLL
    for (int m = 0; m < 4; m++) {
        float d[4];
        mma_16x8x4(d, from->dt_x + 2 * m, scan_rounded(from->b[m / 2]), zero);
        to->input[2 * m][0] = d[0], to->input[2 * m][1] = d[1];
        to->input[2 * m + 1][0] = d[2], to->input[2 * m + 1][1] = d[3];
    }
    UNROLL
    for (int t = 0; zoh && t < 8; t++)
        UNROLL
        for (int i = 0; i < 2; i++)
            to->input[t][i] *= scan_zoh_factor(from->dt[t], from->dt[t] * a[i], to->decay[t][i], a[i]);
    to->c[0] = from->c[0];
    to->c[1] = from->c[1];
}

/* Eight steps. y: C · s; rows 0 to 7 of a product are a token's states, 8 to 15 the next one's; its columns are the C
 * of all eight tokens, of which each row needs its own. */
DEVICE void scan_step(float y[4][2], float s[2], const ScanSteps *steps)
{
    const float zero[4] = { 0, 0, 0, 0 };
    UNROLL
    for (int m = 0; m < 4; m++) {
        float state[4], d[4];
        UNROLL
        for (int t = 0; t < 2; t++)
            UNROLL
            for (int i = 0; i < 2; i++)
                state[2 * i + t] = s[i] = fma_f(steps->decay[2 * m + t][i], s[i], steps->input[2 * m + t][i]);
        mma_16x8x8(d, state, steps->c, zero);
        y[m][0] = d[0];
        y[m][1] = d[3];
    }
}

/* y of tokens 2 q, 2 q + 1 of a group to its place. */
DEVICE void scan_put_y(float *to, float d[4][2])
{
    float y[2] = { d[0][0], d[0][1] };
    UNROLL
    for (int m = 1; m < 4; m++)
        UNROLL
        for (int i = 0; i < 2; i++)
            y[i] = lane() % 4 == m ? d[m][i] : y[i];
    to[0] = y[0];
    to[scan_y_row()] = y[1];
}

/* Everything slow is used one group after it was asked for, y too. */
DEVICE void scan_run(ScanShared s, float *state, const float *a, int n_tokens)
{
    const int n_tiles = (n_tokens + SCAN_TILE - 1) / SCAN_TILE, part = warp() % scan_parts();
    const int g = lane() / 4, q = lane() % 4, channel = warp() / scan_parts() * 8 + g, first_state = part * 8 + q * 2;
    const int64_t real_channel = block_x() * scan_channels() + channel;
    const ScanPlaces at = { channel * SCAN_ROW, (scan_channels() + channel) * SCAN_ROW + q * 8,
                            q * scan_bc_row() + part * 8 + g, g * scan_bc_row() + d_state + first_state,
                            part * 8 + g < d_state, { first_state < d_state, first_state + 1 < d_state } };
    const int n_meet = scan_scanning() + scan_helpers();
    float own_a[2] = { 0, 0 }, own[2] = { 0, 0 }, y[4][2] = { { 0 } };
    UNROLL
    for (int i = 0; i < 2; i++)
        if (real_channel < n_channels && first_state + i < d_state) {
            own_a[i] = a[real_channel * d_state + first_state + i];
            own[i] = state[real_channel * d_state + first_state + i];
        }
    barrier_some(SCAN_FULL, n_meet);
    ScanTokens tokens;
    ScanSteps steps;
    scan_load(&tokens, s.turned, scan_raw_bc(s.raw), 0, &at);
    scan_prepare(&steps, &tokens, own_a);
    scan_load(&tokens, s.turned, scan_raw_bc(s.raw), 1, &at);
    float *const parts = s.y_parts + part * scan_part_len() + 2 * q * scan_y_row() + channel;
    float *to = parts + (SCAN_RING - 1) * scan_parts() * scan_part_len();       /* nobody reads that yet */
    int stage = 0;
    for (int tile = 0; tile < n_tiles; tile++) {
        float *const y_to = parts + tile % SCAN_RING * scan_parts() * scan_part_len();
        const float *const this_bc = scan_raw_bc(s.raw + stage * scan_raw_len());
        const float *const this_turned = scan_turned(s, (unsigned)tile);
        stage = stage + 1 == scan_stages() ? 0 : stage + 1;
        const float *const next_bc = scan_raw_bc(s.raw + stage * scan_raw_len());
        const float *const next_turned = scan_turned(s, (unsigned)tile + 1);
        UNROLL
        for (int i = 0; i < SCAN_GROUPS; i++) {
            const ScanSteps own_steps = steps;
            scan_put_y(to, y);
            if (i == 0 && tile > 0)
                barrier_arrive(SCAN_DONE + (tile - 1) % 4, n_meet);
            if (i == SCAN_GROUPS - 2)
                barrier_some(SCAN_FULL + (tile + 1) % 4, n_meet);
            to = y_to + i * (SCAN_GROUP * scan_y_row());
            scan_prepare(&steps, &tokens, own_a);
            scan_load(&tokens, i < SCAN_GROUPS - 2 ? this_turned : next_turned,
                      i < SCAN_GROUPS - 2 ? this_bc : next_bc, (i + 2) % SCAN_GROUPS, &at);
            /* 0: states wait for an exponential of the next group, so that those are asked for early. */
            const float zero = min_f(steps.decay[7][0], 0);
            own[0] += zero;
            own[1] += zero;
            scan_step(y, own, &own_steps);
        }
    }
    scan_put_y(to, y);
    barrier_arrive(SCAN_DONE + (n_tiles - 1) % 4, n_meet);
    UNROLL
    for (int i = 0; i < 2; i++)
        if (real_channel < n_channels && first_state + i < d_state)
            state[real_channel * d_state + first_state + i] = own[i];
}

KERNEL(scan)(act_t *y /* [n_tokens][y_stride] */, const float *dt /* [n_tokens][dt_stride] */,
    const act_t *x /* [n_tokens][x_stride] */, const float *bc /* [n_tokens][2 d_state] */,
    const act_t *z /* [n_tokens, or pairs][z_stride] */, const float *restrict a /* [n_channels][d_state] */,
    const float *restrict d /* [n_channels] */, float *state /* [n_channels][d_state] */, const int32_t *slots,
    const int32_t *ends, int64_t state_stride, int32_t n_tokens, int32_t top_k)
{
    const int n_z = z ? z_pairs ? top_k : 1 : 0;
    dependency_wait();
    dependency_launch();
    const int64_t begin = sequences || block_y() == 0 ? 0 : ends[block_y() - 1];
    n_tokens = sequences ? n_tokens : ends[block_y()] - (int)begin;
    const ScanArrays in = { dt + begin * dt_stride, bc + begin * 2 * d_state, x + begin * x_stride,
                            z + begin * n_z * z_stride, y + begin * y_stride, d, n_tokens, n_z };
    state = (float *)((char *)state + slots[block_y()] * state_stride);
    if (block_channels == 0) {
        for (int t = sequences ? block_y() : 0; t < (sequences ? block_y() + 1 : n_tokens); t++)
            scan_token(in, state, a, t);
        return;
    }
    const int helper = thread_x() - scan_scanning(), set = helper >= scan_helpers();
    if (helper < 0)
        scan_run(scan_shared(), state, a, n_tokens);
    else
        scan_help(scan_shared(), in, set, helper - set * scan_helpers());
}
