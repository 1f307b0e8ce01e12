/* Selective scan with D and the gate: s = 2^(Δ a) ⊙ s + (Δ B) x, y = (C · s + D x) silu(z); a = A log2(e).
 *
 * block_channels 0: token by token, the state in global memory; for sequences and for any d_state.
 * Grid: ceil(n_channels / 32) × n_sequences, or × n_tokens with sequences; 256 threads.
 *
 * Else 8 or 16: b channels of a sequence a block. Grid: ceil(n_channels / b) × n_sequences; threads: 32 stages. Warps
 * take tiles of T = tile_tokens, 32, 16, or 24 with b 16, in turn. 32 / b lanes share a channel: at step j each takes
 * one state of it through the tile, from where the warp of the tile before ended its step j. So all warps work at once,
 * each a step or more behind the one before, and nothing is computed twice. Sums are those of the loop over tokens,
 * however a prompt is cut, whatever b, stages and T are. d_state is at most 1024 / b.
 * Shared: stages (2 T b (z + 3) + 2 B + 264 S) + 4 b bytes; stages is even, z = z_pairs or 1, B = 8 (T + 4) S 32 / b
 * bytes, at least 128 (T + 2), and S = ceil(d_state b / 32) steps.
 */
PARAM(n_channels, c) PARAM(d_state, n) PARAM(dt_stride, ds) PARAM(x_stride, xs) PARAM(z_stride, zs) PARAM(z_pairs, zp)
PARAM(y_stride, ys) PARAM(zoh, zoh) PARAM(act, a) PARAM(sequences, sq) PARAM(block_channels, bc)
PARAM(stages, st) PARAM(tile_tokens, tt)

/* Tokens of a tile and steps, at most. */
enum { SCAN_TILE = 32, SCAN_STEPS = 32 };

typedef uint32_t scan_u32x2 __attribute__((vector_size(8)));
typedef float scan_f32x2 __attribute__((vector_size(8)));

typedef struct {
    const uint16_t *dt;             /* f16 */
    const float *bc;
    const act_t *x, *z;
    act_t *y;
    const float *a, *d;
    float *state;
    int n_tokens, n_z;              /* n_z: rows of z a token, 0: no gate */
} ScanArrays;

/* ---- sizes ---- */

DEVICE int scan_channels(void) { return block_channels ? block_channels : 16; }
DEVICE int scan_warps(void) { return stages ? stages : 8; }
DEVICE int scan_tokens(void) { return tile_tokens ? tile_tokens : 32; }
DEVICE int scan_sharers(void) { return 32 / scan_channels(); }          /* lanes that share a channel */
DEVICE int scan_steps(void) { return (d_state + scan_sharers() - 1) / scan_sharers(); }
DEVICE int scan_rows(void) { return scan_steps() * scan_sharers(); }    /* of B, the last ones may be zeros */
DEVICE int scan_z_rows(void) { return z_pairs ? z_pairs : 1; }
DEVICE int scan_act_len(void) { return scan_tokens() * 2 * scan_channels(); }
/* Floats of a row of B or C: rows of lanes that share a channel lie in other banks; of a lane's row of y's parts, so
 * that four rows by eight tokens lie in 32 banks. */
DEVICE int scan_bc_row(void) { return scan_tokens() + 4; }
DEVICE int scan_y_row(void) { return scan_tokens() + 2; }
DEVICE int scan_bc_len(void) { return max_i(2 * scan_rows() * scan_bc_row(), 32 * scan_y_row()); }

/* What stands between a warp and the one before, of a step: the states with which it begins, A, and an mbarrier that
 * tells when they are there. */
enum { SCAN_A = 128, SCAN_MEETING = 256, SCAN_STEP = 264 };

/* What a warp has of shared memory. */
typedef struct {
    char *soon;                     /* Δ and x of the next tile, [T][b] each */
    char *late;                     /* x and rows of z of this one, [T][b] each */
    float *bc;                      /* [2]: [B or C][rows][bc_row]; then y's parts [32][y_row] of this tile */
    char *steps, *next_steps;       /* [steps]: its own, those of the next warp */
    float *d;                       /* [b], of all */
} ScanShared;

DEVICE ScanShared scan_shared(void)
{
    const int soon_len = 2 * scan_act_len(), late_len = (1 + scan_z_rows()) * scan_act_len();
    const int own_len = soon_len + late_len + 8 * scan_bc_len();
    const int steps_len = scan_steps() * SCAN_STEP, next = warp() + 1 == scan_warps() ? 0 : warp() + 1;
    char *const own = (char *)shared() + warp() * own_len, *const steps = (char *)shared() + scan_warps() * own_len;
    return (ScanShared){ own, own + soon_len, (float *)(own + soon_len + late_len), steps + warp() * steps_len,
                         steps + next * steps_len, (float *)(steps + scan_warps() * steps_len) };
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

/* ---- token by token ---- */

/* Four channels a warp, lane's eighth of the states. */
DEVICE void scan_token(ScanArrays in, int t)
{
    const int channel = block_x() * 32 + warp() * 4 + lane() / 8, first = lane() % 8;
    const bool is_real = channel < n_channels;
    const float dt = is_real ? half_float(in.dt[(int64_t)t * dt_stride + channel]) : 0;
    const float x = is_real ? act_float(in.x[(int64_t)t * x_stride + channel], act) : 0;
    const float *const b = in.bc + (int64_t)t * 2 * d_state, *const c = b + d_state;
    float y = 0;
    for (int n = first; is_real && n < d_state; n += 8) {
        const int64_t at = (int64_t)channel * d_state + n;
        const float power = dt * in.a[at], decay = exp2_fast(power);
        const float input = zoh ? x * scan_zoh_factor(dt, power, decay, in.a[at]) : dt * x;
        const float s = fma_f(decay, in.state[at], input * b[n]);
        in.state[at] = s;
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

/* ---- copies: each warp for itself ---- */

/* Bytes of 16 that are real, of elements from `channel` on. */
DEVICE int scan_copy_len(int channel)
{
    return n_channels % scan_channels() == 0 ? 16 : max_i(min_i((n_channels - channel) * 2, 16), 0);
}

/* A tile of rows of 16 bits, step elements apart; whole: all of it is real, else `left` tokens. */
DEVICE void scan_fetch_tile(char *to, const uint16_t *from, int64_t step, int left, bool whole)
{
    const int pieces = scan_channels() / 8, first = block_x() * scan_channels() + lane() % pieces * 8;
    from += lane() / pieces * step + first;
    UNROLL
    for (int i = 0; i < (scan_tokens() * pieces + 31) / 32; i++) {
        const int t = i * 32 / pieces + lane() / pieces;
        if (scan_tokens() * pieces % 32 == 0 || t < scan_tokens())
            copy_async16(to + (i * 32 + lane()) * 16, from + i * 32 / pieces * step,
                         whole ? 16 : t < left ? scan_copy_len(first) : 0);
    }
}

/* B and C, turned: four tokens by eight columns at a time, which go to 32 banks. */
DEVICE void scan_fetch_bc(float *to, const float *from, int left, bool whole)
{
    const int quarter = lane() / 8, first = lane() % 8;
    from += quarter * (2 * d_state) + first;
    to += quarter;
    UNROLL
    for (int i = 0; i < (2 * d_state + 7) / 8; i++) {
        const int column = i * 8 + first, row = column < d_state ? column : column - d_state + scan_rows();
        UNROLL
        for (int t = 0; t < scan_tokens(); t += 4)
            if (d_state % 4 == 0 || column < 2 * d_state)
                copy_async4(to + row * scan_bc_row() + t, from + t * (2 * d_state) + i * 8,
                            whole || t + quarter < left ? 4 : 0);
    }
}

/* Whether a tile and the block's channels are all there. */
DEVICE bool scan_is_whole(int left)
{
    return left >= scan_tokens() && (n_channels % scan_channels() == 0 || block_x() + 1 < n_blocks_x());
}

/* Δ, x, B and C of a tile. */
DEVICE void scan_fetch_inputs(ScanShared s, ScanArrays in, int tile, int stage, bool whole)
{
    const int64_t token = (int64_t)tile * scan_tokens();
    const int left = in.n_tokens - tile * scan_tokens();
    scan_fetch_tile(s.soon, in.dt + token * dt_stride, dt_stride, left, whole);
    scan_fetch_tile(s.soon + scan_act_len(), in.x + token * x_stride, x_stride, left, whole);
    scan_fetch_bc(s.bc + stage * scan_bc_len(), in.bc + token * 2 * d_state, left, whole);
}

/* The same, if it is a tile. */
DEVICE void scan_fetch_soon(ScanShared s, ScanArrays in, int tile, int stage)
{
    const int left = in.n_tokens - tile * scan_tokens();
    if (scan_is_whole(left))
        scan_fetch_inputs(s, in, tile, stage, true);
    else if (left > 0)
        scan_fetch_inputs(s, in, tile, stage, false);
    copy_commit();
}

/* x and the rows of z. */
DEVICE void scan_fetch_rows(ScanShared s, ScanArrays in, int tile, bool whole)
{
    const int64_t token = (int64_t)tile * scan_tokens();
    const int left = in.n_tokens - tile * scan_tokens();
    scan_fetch_tile(s.late, in.x + token * x_stride, x_stride, left, whole);
    UNROLL
    for (int row = 0; row < scan_z_rows(); row++)
        if (row < in.n_z)
            scan_fetch_tile(s.late + (1 + row) * scan_act_len(), in.z + (token * in.n_z + row) * z_stride,
                            (int64_t)in.n_z * z_stride, left, whole);
}

DEVICE void scan_fetch_late(ScanShared s, ScanArrays in, int tile)
{
    if (scan_is_whole(in.n_tokens - tile * scan_tokens()))
        scan_fetch_rows(s, in, tile, true);
    else
        scan_fetch_rows(s, in, tile, false);
    copy_commit();
}

/* ---- a tile ---- */

/* Δ and Δ x (zoh: x) of the lane's channel. */
typedef struct { float dt[SCAN_TILE], input[SCAN_TILE]; } ScanInputs;

DEVICE void scan_load_inputs(ScanInputs *to, ScanShared s)
{
    const int channel = lane() % scan_channels();
    const uint16_t *const dt = (const uint16_t *)s.soon + channel;
    const act_t *const x = (const act_t *)(s.soon + scan_act_len()) + channel;
    UNROLL
    for (int t = 0; t < scan_tokens(); t++) {
        const float value = act_float(x[t * scan_channels()], act);
        to->dt[t] = half_float(dt[t * scan_channels()]);
        to->input[t] = zoh ? value : to->dt[t] * value;
    }
}

/* One state through the tile; y += C s. */
DEVICE float scan_step(float y[SCAN_TILE], float s, const ScanInputs *in, const float *b, const float *c, float a)
{
    UNROLL
    for (int quad = 0; quad < scan_tokens(); quad += 4) {
        const u32x4 quad_b = load16(b + quad), quad_c = load16(c + quad);
        UNROLL
        for (int i = 0; i < 4; i++) {
            const int t = quad + i;
            const float power = in->dt[t] * a, decay = exp2_fast(power);
            float input = in->input[t] * bits_float(quad_b[i]);
            if (zoh)
                input *= scan_zoh_factor(in->dt[t], power, decay, a);
            s = fma_f(decay, s, input);
            y[t] = fma_f(bits_float(quad_c[i]), s, y[t]);
        }
    }
    return s;
}

/* Where the lane's state of step j lies in global memory; -1: there is none. */
DEVICE int64_t scan_state_at(int j)
{
    const int channel = block_x() * scan_channels() + lane() % scan_channels();
    const int n = j * scan_sharers() + lane() / scan_channels();
    return channel < n_channels && n < d_state ? (int64_t)channel * d_state + n : -1;
}

/* Every step takes the states from the warp before and gives them to the next one. */
DEVICE void scan_tile(float y[SCAN_TILE], const ScanInputs *in, ScanShared s, const float *bc, int parity)
{
    const float *b = bc + lane() / scan_channels() * scan_bc_row();
    char *from = s.steps, *to = s.next_steps;
    UNROLL
    for (int t = 0; t < scan_tokens(); t++)
        y[t] = 0;
    for (int j = 0; j < scan_steps(); j++) {
        const float a = ((const float *)(from + SCAN_A))[lane()];
        mbarrier_wait(from + SCAN_MEETING, parity);
        ((float *)to)[lane()] = scan_step(y, ((const float *)from)[lane()], in, b, b + scan_rows() * scan_bc_row(), a);
        mbarrier_arrive(to + SCAN_MEETING);
        from += SCAN_STEP;
        to += SCAN_STEP;
        b += scan_sharers() * scan_bc_row();
    }
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

/* What a lane gates: of `quads` tokens four channels each; so many lanes have a token. */
typedef struct { float of[4][4]; } ScanQuads;

DEVICE int scan_quad_lanes(void) { return scan_channels() / 4; }
DEVICE int scan_quads(void) { return scan_tokens() * scan_quad_lanes() / 32; }

/* Of every token four channels of a row: z = them, or z += them. */
DEVICE void scan_add_row(ScanQuads *z, const char *row, bool is_first)
{
    UNROLL
    for (int i = 0; i < scan_quads(); i++) {
        float more[4];
        scan_unpack(more, row + (i * 32 + lane()) * 8);
        UNROLL
        for (int k = 0; k < 4; k++)
            z->of[i][k] = is_first ? more[k] : z->of[i][k] + more[k];
    }
}

/* y = the sum of its parts and D x. */
DEVICE void scan_sum_parts(ScanQuads *y, const float *parts, ScanShared s)
{
    const int first = lane() % scan_quad_lanes() * 4;
    const u32x4 d = load16(s.d + first);
    ScanQuads x;
    scan_add_row(&x, s.late, true);
    UNROLL
    for (int i = 0; i < scan_quads(); i++)
        UNROLL
        for (int k = 0; k < 4; k++) {
            const int token = i * 32 / scan_quad_lanes() + lane() / scan_quad_lanes();
            const float *const part = parts + (first + k) * scan_y_row() + token;
            float sum = part[0];
            UNROLL
            for (int j = 1; j < scan_sharers(); j++)
                sum += part[j * scan_channels() * scan_y_row()];
            y->of[i][k] = fma_f(bits_float(d[k]), x.of[i][k], sum);
        }
}

/* y times silu of the sum of z's rows, if there are any. */
DEVICE void scan_gate(ScanQuads *y, ScanShared s, int n_z)
{
    ScanQuads z;
    if (n_z == 0)
        return;
    scan_add_row(&z, s.late + scan_act_len(), true);
    UNROLL
    for (int row = 1; row < scan_z_rows(); row++) {
        if (row == n_z)
            break;
        scan_add_row(&z, s.late + (1 + row) * scan_act_len(), false);
    }
    UNROLL
    for (int i = 0; i < scan_quads(); i++)
        UNROLL
        for (int k = 0; k < 4; k++)
            y->of[i][k] *= scan_silu(z.of[i][k]);
}

DEVICE void scan_store(const ScanQuads *y, ScanArrays in, int tile)
{
    const int channel = block_x() * scan_channels() + lane() % scan_quad_lanes() * 4;
    const int first = tile * scan_tokens() + lane() / scan_quad_lanes();
    act_t *const to = in.y + (int64_t)first * y_stride + channel;
    UNROLL
    for (int i = 0; i < scan_quads(); i++) {
        const int token = i * 32 / scan_quad_lanes();
        const float *const v = y->of[i];
        const scan_u32x2 packed = { act_pack(v[0], v[1], act), act_pack(v[2], v[3], act) };
        if (first + token >= in.n_tokens)
            break;
        if (n_channels % 4 == 0 ? channel < n_channels : channel + 4 <= n_channels)
            *(scan_u32x2 *)(to + token * y_stride) = packed;
        else
            for (int k = 0; n_channels % 4 != 0 && k < 4 && channel + k < n_channels; k++)
                to[token * y_stride + k] = (act_t)(packed[k / 2] >> (16 * (k % 2)));
    }
}

/* ---- a block ---- */

/* A and D, the states of the first tile, meetings: all numbers asked for before the first is stored. */
DEVICE void scan_begin(ScanShared s, ScanArrays in)
{
    float a[SCAN_STEPS], first[SCAN_STEPS];
    UNROLL
    for (int j = 0; j < scan_steps(); j++) {
        const int64_t at = scan_state_at(j);
        a[j] = at >= 0 ? in.a[at] : 0;
        first[j] = warp() == 0 && at >= 0 ? in.state[at] : 0;
    }
    UNROLL
    for (int j = 0; j < scan_steps(); j++) {
        char *const step = s.steps + j * SCAN_STEP;
        ((float *)(step + SCAN_A))[lane()] = a[j];
        if (warp() == 0)
            ((float *)step)[lane()] = first[j];
        if (lane() == 0)
            mbarrier_init(step + SCAN_MEETING, 32);
    }
    if (thread_x() < scan_channels()) {
        const int channel = block_x() * scan_channels() + thread_x();
        s.d[thread_x()] = channel < n_channels ? in.d[channel] : 0;
    }
    barrier();
}

/* By who had the last tile: what would be the next one's. */
DEVICE void scan_end(ScanShared s, ScanArrays in)
{
    for (int j = 0; j < scan_steps(); j++)
        if (scan_state_at(j) >= 0)
            in.state[scan_state_at(j)] = ((const float *)(s.next_steps + j * SCAN_STEP))[lane()];
}

/* Rows of B and C that stand for no state: y's parts were there. */
DEVICE void scan_clear(float *bc)
{
    for (int n = d_state; n < scan_rows() && lane() < scan_tokens(); n++) {
        bc[n * scan_bc_row() + lane()] = 0;
        bc[(scan_rows() + n) * scan_bc_row() + lane()] = 0;
    }
}

DEVICE void scan_run(ScanShared s, ScanArrays in)
{
    const int n_tiles = (in.n_tokens + scan_tokens() - 1) / scan_tokens();
    int stage = 0, parity = warp() == 0;        /* the first warp's first states are there: a phase less */
    scan_fetch_soon(s, in, warp(), stage);
    scan_begin(s, in);
    for (int tile = warp(); tile < n_tiles; tile += scan_warps()) {
        float *const bc = s.bc + stage * scan_bc_len();
        ScanInputs inputs;
        ScanQuads out;
        float y[SCAN_TILE];
        copy_wait(0);
        scan_clear(bc);
        warp_sync();
        scan_load_inputs(&inputs, s);
        warp_sync();
        scan_fetch_late(s, in, tile);
        scan_fetch_soon(s, in, tile + scan_warps(), stage ^ 1);
        scan_tile(y, &inputs, s, bc, parity);
        copy_wait(1);
        warp_sync();
        UNROLL
        for (int t = 0; t < scan_tokens(); t += 2)
            *(scan_f32x2 *)(bc + lane() * scan_y_row() + t) = (scan_f32x2){ y[t], y[t + 1] };
        warp_sync();
        scan_sum_parts(&out, bc, s);
        scan_gate(&out, s, in.n_z);
        scan_store(&out, in, tile);
        if (tile + 1 == n_tiles)
            scan_end(s, in);
        stage ^= 1;
        parity ^= 1;
    }
}

KERNEL(scan)(act_t *y /* [n_tokens][y_stride] */, const uint16_t *dt /* [n_tokens][dt_stride] */,
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
    state = (float *)((char *)state + slots[block_y()] * state_stride);
    const ScanArrays in = { dt + begin * dt_stride, bc + begin * 2 * d_state, x + begin * x_stride,
                            z + begin * n_z * z_stride, y + begin * y_stride, a, d, state, n_tokens, n_z };
    if (block_channels != 0) {
        scan_run(scan_shared(), in);
        return;
    }
    for (int t = sequences ? block_y() : 0; t < (sequences ? block_y() + 1 : n_tokens); t++)
        scan_token(in, t);
}
