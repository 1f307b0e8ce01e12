/* A run of mamba layers for one sequence in one launch, against plain loops; and with other numbers of blocks, to the
 * bit: cases with the same `seed` that follow one another are the same model.
 */
#include "check_decode.h"

enum { NORM, IN_ROUTER, IN, CONV, CONV_BIAS, SSM_ROUTER, XP, DT, DT_BIAS, A, D, OUT_ROUTER, OUT, N_TENSORS };
enum { MAX_LAYERS = 4, OWN = 16, FIRST_TURN = 7 };

/* The model: one piece of memory, as the packed weights are. */
typedef struct {
    int d, c, taps, n, r, e, top_k, act, renormalize, zoh, each, in_blocks, out_blocks;
    double eps;
} Shape;
static Shape shape_of_case(void)
{
    Shape s = { check_param("d_model"), check_param("n_channels"), check_param("d_conv"), check_param("d_state"),
        check_param("dt_rank"), check_param("n_experts"), check_param("top_k"), check_param("act"),
        check_param("renormalize"), check_param("zoh"), 0, 0, 0, check_param_float("eps") };
    s.each = s.r + 2 * s.n;
    s.in_blocks = s.c / OWN;
    s.out_blocks = s.d / 8;
    return s;
}

static uint8_t *weights;
static size_t weights_used;
enum { WEIGHTS_LEN = 4 << 20 };

static int64_t place(size_t len)
{
    const size_t at = weights_used;
    weights_used = (weights_used + len + 255) / 256 * 256;
    if (weights_used > WEIGHTS_LEN)
        check_fail("the weights need more than %d bytes", WEIGHTS_LEN);
    return (int64_t)at;
}

static int64_t place_floats(double *plain, int n, double offset, double factor)
{
    const int64_t at = place(sizeof(float) * (size_t)n);
    for (int i = 0; i < n; i++)
        plain[i] = (double)(((float *)(void *)(weights + at))[i] = (float)(offset + factor * (double)check_random()));
    return at;
}

/* rows x n_in, of a size that keeps products near 1; with q8 scales behind it. */
static int64_t place_matrix(double *plain, int rows, int n_in, int dtype)
{
    const size_t k = (size_t)(n_in + 63) / 64 * 64;
    const double factor = 1.5 / sqrt(n_in);
    const int64_t at = place((size_t)rows * k * (dtype == 3 ? 1 : 2));
    const int64_t scales = dtype == 3 ? place(sizeof(float) * (size_t)rows) : 0;
    memset(weights + at, 0, (size_t)rows * k * (dtype == 3 ? 1 : 2));
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < n_in; i++) {
            const double value = (double)check_random();
            const size_t place_of = (size_t)row * k + (size_t)i;
            if (dtype == 3) {
                const float scale = (float)(factor / 127) * (float)(1 + row % 3);
                ((float *)(void *)(weights + scales))[row] = scale;
                ((int8_t *)weights + at)[place_of] = (int8_t)(value * 127);
                plain[row * n_in + i] = (double)(int8_t)(value * 127) * (double)scale;
            } else {
                const uint16_t rounded = check_act_round(value * factor, dtype);
                ((uint16_t *)(void *)(weights + at))[place_of] = rounded;
                plain[row * n_in + i] = check_act_value(rounded, dtype);
            }
        }
    return at;
}

typedef struct { double *of[N_TENSORS], *conv, *scan; int64_t at[N_TENSORS], conv_at, scan_at; } Layer;

static void fill_layer(Layer *l, const Shape *s, int dtype, int dt_dtype)
{
    const int routed = s->e > 1 ? s->e : 0;
    const int lens[N_TENSORS] = { [NORM] = s->d, [IN_ROUTER] = routed * s->d, [IN] = s->e * 2 * s->c * s->d,
        [CONV] = s->c * s->taps,
        [CONV_BIAS] = s->c, [SSM_ROUTER] = routed * s->c, [XP] = s->e * s->each * s->c, [DT] = s->c * s->e * s->r,
        [DT_BIAS] = s->e * s->c, [A] = s->c * s->n, [D] = s->c, [OUT_ROUTER] = routed * s->c,
        [OUT] = s->e * s->d * s->c };
    for (int i = 0; i < N_TENSORS; i++)
        l->of[i] = lens[i] ? check_doubles((size_t)lens[i]) : NULL;
    l->at[NORM] = place_floats(l->of[NORM], s->d, 1, 0.3);
    l->at[IN_ROUTER] = place_floats(l->of[IN_ROUTER], routed * s->d, 0, 1);
    l->at[IN] = place_matrix(l->of[IN], s->e * 2 * s->c, s->d, dtype);
    l->at[CONV] = place_floats(l->of[CONV], s->c * s->taps, 0, 1);
    l->at[CONV_BIAS] = place_floats(l->of[CONV_BIAS], s->c, 0, 1);
    l->at[SSM_ROUTER] = place_floats(l->of[SSM_ROUTER], routed * s->c, 0, 1);
    l->at[XP] = place_matrix(l->of[XP], s->e * s->each, s->c, dtype);
    l->at[DT] = place_matrix(l->of[DT], s->c, s->e * s->r, dt_dtype);
    l->at[DT_BIAS] = place_floats(l->of[DT_BIAS], s->e * s->c, 0, 1);
    l->at[A] = place_floats(l->of[A], s->c * s->n, -1, 1);
    l->at[D] = place_floats(l->of[D], s->c, 1, 0.3);
    l->at[OUT_ROUTER] = place_floats(l->of[OUT_ROUTER], routed * s->c, 0, 1);
    l->at[OUT] = place_matrix(l->of[OUT], s->e * s->d, s->c, dtype);
}

/* The gates of logits; scale is that of the norm. */
static void choose(double *gates, const double *logits, const Shape *s, double scale)
{
    Route route = { s->e, s->e > 1 ? s->top_k : 1, s->e, NULL, gates, &scale };
    if (s->e == 1)
        gates[0] = 1;
    else
        route_row(&route, logits, 0, s->renormalize);
}

/* out [n_out] += Σ_e gate_e W_e in */
static void add_product(double *out, const double *gates, const double *w, int n_experts, int n_out, int n_in,
    const double *in)
{
    for (int e = 0; e < n_experts; e++)
        for (int o = 0; o < n_out && gates[e] != 0; o++)
            for (int i = 0; i < n_in; i++)
                out[o] += gates[e] * w[((size_t)e * (size_t)n_out + (size_t)o) * (size_t)n_in + (size_t)i] * in[i];
}

static void add_logits(double *logits, const double *router, int n_experts, int n, const double *in)
{
    for (int e = 0; e < n_experts && router; e++)
        for (int i = 0; i < n; i++)
            logits[e] += router[e * n + i] * in[i];
}

static double rounded(double value, int act) { return check_act_value(check_act_round(value, act), act); }

static double softplus(double v) { return v > 30 ? v : log1p(exp(v)); }

/* x through a layer, in float64 with the kernel's roundings. */
static void run_layer(Layer *l, const Shape *s, double *x)
{
    double *in = check_doubles((size_t)s->d), *both = check_doubles((size_t)(2 * s->c)), square = 0;
    double *xc = check_doubles((size_t)s->c), *xh = check_doubles((size_t)s->c), *y = check_doubles((size_t)s->c);
    double *xp = check_doubles((size_t)(s->e * s->each)), logits[32] = { 0 }, gates[32], all[32];
    for (int i = 0; i < s->d; i++) {
        in[i] = x[i] * l->of[NORM][i];
        square += x[i] * x[i];
    }
    const double scale = 1 / sqrt(square / s->d + s->eps);
    add_logits(logits, l->of[IN_ROUTER], s->e, s->d, in);
    choose(gates, logits, s, scale);
    for (int i = 0; i < s->d; i++)
        in[i] = rounded(in[i] * scale, s->act);
    add_product(both, gates, l->of[IN], s->e, 2 * s->c, s->d, in);
    for (int c = 0; c < s->c; c++) {
        double sum = l->of[CONV_BIAS][c] + l->of[CONV][c * s->taps + s->taps - 1] * both[c];
        for (int j = 0; j < s->taps - 1; j++)
            sum += l->of[CONV][c * s->taps + j] * l->conv[j * s->c + c];
        for (int j = 0; j < s->taps - 1; j++)
            l->conv[j * s->c + c] = j + 2 < s->taps ? l->conv[(j + 1) * s->c + c] : both[c];
        xc[c] = silu(sum);
        xh[c] = rounded(xc[c], s->act);
    }
    memset(logits, 0, sizeof logits);
    add_logits(logits, l->of[SSM_ROUTER], s->e, s->c, xc);
    choose(gates, logits, s, 1);
    for (int e = 0; e < s->e; e++)
        all[e] = 1;
    for (int e = 0; e < s->e; e++)
        add_product(xp + e * s->each, all, l->of[XP] + e * s->each * s->c, 1, s->each, s->c, xh);
    for (int c = 0; c < s->c; c++) {
        double dt = 0, sum = l->of[D][c] * xc[c];
        for (int e = 0; e < s->e; e++) {
            dt += gates[e] * l->of[DT_BIAS][e * s->c + c];
            for (int j = 0; j < s->r; j++)
                dt += gates[e] * l->of[DT][c * s->e * s->r + e * s->r + j] * xp[e * s->each + j];
        }
        dt = softplus(dt);
        for (int n = 0; n < s->n; n++) {
            const double power = dt * l->of[A][c * s->n + n] * log(2.0), ratio = power == 0 ? 1 : expm1(power) / power;
            double b = 0, state_c = 0;
            for (int e = 0; e < s->e; e++) {
                b += gates[e] * xp[e * s->each + s->r + n];
                state_c += gates[e] * xp[e * s->each + s->r + s->n + n];
            }
            double *h = &l->scan[c * s->n + n];
            *h = exp(power) * *h + dt * (s->zoh ? ratio : 1) * b * xc[c];
            sum += state_c * *h;
        }
        y[c] = sum * silu(both[s->c + c]);
    }
    memset(logits, 0, sizeof logits);
    add_logits(logits, l->of[OUT_ROUTER], s->e, s->c, y);
    choose(gates, logits, s, 1);
    for (int c = 0; c < s->c; c++)
        y[c] = rounded(y[c], s->act);
    add_product(x, gates, l->of[OUT], s->e, s->d, s->c, y);
}

static float *random_states(Layer *layers, int n_layers, const Shape *s, const Slots *slots, char *state)
{
    const int n_conv = (s->taps - 1) * s->c, n_scan = s->c * s->n;
    float *own = (float *)(void *)(state + slots->slots[0] * slots->stride), *to = own;
    for (int i = 0; i < n_layers; i++) {
        layers[i].conv_at = (int64_t)sizeof(float) * (to - own);
        layers[i].conv = check_doubles((size_t)n_conv + 1);
        for (int j = 0; j < n_conv; j++)
            layers[i].conv[j] = (double)(*to++ = check_random());
        layers[i].scan_at = (int64_t)sizeof(float) * (to - own);
        layers[i].scan = check_doubles((size_t)n_scan);
        for (int j = 0; j < n_scan; j++)
            layers[i].scan[j] = (double)(*to++ = check_random());
    }
    return own;
}

/* What each router and norm of x gets from every 8 columns. */
static float *random_parts(const Shape *s, const Layer *first, const double *x)
{
    const int routed = s->e > 1 ? s->e : 0;
    double *want = check_doubles((size_t)((routed + 1) * s->out_blocks));
    float *parts = check_buffer(sizeof(float) * (size_t)((routed + 1) * s->out_blocks));
    for (int i = 0; i < s->d; i++) {
        for (int e = 0; e < routed; e++)
            want[e * s->out_blocks + i / 8] += x[i] * first->of[NORM][i] * first->of[IN_ROUTER][e * s->d + i];
        want[routed * s->out_blocks + i / 8] += x[i] * x[i];
    }
    for (int i = 0; i < (routed + 1) * s->out_blocks; i++)
        parts[i] = (float)want[i];
    check_freeze(parts);
    return parts;
}

/* ---- the same from any number of blocks ---- */

static struct { int seed; uint64_t hash; } last;

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ ((const uint8_t *)data)[i]) * 0x100000001B3u;
    return hash;
}

static void check_same(int seed, uint64_t hash)
{
    if (last.seed == seed && last.hash != hash)
        check_fail("other bits than with another number of blocks");
    last.seed = seed;
    last.hash = hash;
}

static void check_chain(void)
{
    check_seed(check_param("seed"));
    const Shape s = shape_of_case();
    const int n_layers = check_param("n_layers"), dtype = check_param("weight_dtype"), top_k = s.top_k;
    const int next_experts = check_param("next_experts"), routed = s.e > 1 ? s.e : 0, blocks = check_param("blocks");
    const size_t kept = sizeof(float) * (size_t)((s.taps - 1) * s.c + s.c * s.n) * (size_t)n_layers;
    const size_t n_words = (size_t)(s.c + s.d + 2 * routed * s.in_blocks + (routed + 1) * s.out_blocks
        + s.e * ((s.each + 1) / 2 * 2));
    Layer layers[MAX_LAYERS] = { 0 };
    weights = check_buffer(WEIGHTS_LEN);
    weights_used = 0;
    for (int i = 0; i < n_layers; i++)
        fill_layer(&layers[i], &s, dtype, check_param("dt_dtype"));
    const Left left = random_left(1, s.d, next_experts);
    const Slots slots = random_slots(1, kept);
    char *state = check_buffer((size_t)slots.stride * (size_t)slots.n_slots);
    const float *own = random_states(layers, n_layers, &s, &slots, state);
    float *x = check_buffer(sizeof(float) * (size_t)s.d);
    double *want = check_doubles((size_t)s.d);
    for (int i = 0; i < s.d; i++)
        want[i] = (double)(x[i] = check_random());
    const float *parts = random_parts(&s, &layers[0], want);
    uint64_t *words = check_buffer(sizeof(uint64_t) * n_words);           /* NaNs of the turn before */
    for (size_t i = 0; i < n_words; i++)
        words[i] = (uint64_t)FIRST_TURN << 32 | 0x7fffffff;
    uint32_t *turns = check_buffer(sizeof(uint32_t) * (size_t)blocks);
    for (int i = 0; i < blocks; i++)
        turns[i] = FIRST_TURN;
    for (int i = 0; i < n_layers; i++)
        run_layer(&layers[i], &s, want);
    check_freeze(weights);
    const int32_t stride = n_layers > 1 ? (int32_t)(layers[1].at[IN] - layers[0].at[IN]) / 16 : 0;
    const int32_t kept_stride = (int32_t)(kept / (size_t)n_layers) / 16;
    const uint8_t *w[N_TENSORS], *next_norm = (const uint8_t *)left.norm, *next_router = (const uint8_t *)left.router;
    for (int i = 0; i < N_TENSORS; i++)
        w[i] = weights + layers[0].at[i];
    uint8_t *conv_state = (uint8_t *)state + layers[0].conv_at, *scan_state = (uint8_t *)state + layers[0].scan_at;
    CHECK_LAUNCH_RESIDENT(blocks, 1, 512, 226 << 10, x, left.parts, parts, words, turns, w[NORM], w[IN_ROUTER], w[IN],
        w[CONV], w[CONV_BIAS], w[SSM_ROUTER], w[XP], w[DT], w[DT_BIAS], w[A], w[D], w[OUT_ROUTER], w[OUT], next_norm,
        next_router, conv_state, scan_state, slots.slots, slots.stride, stride, kept_stride, n_layers, top_k);
    check_rows_f32("x", x, want, 1, s.d, s.d, loose[dtype]);
    check_left(&left, want, 1, s.d, loose[dtype]);
    for (int i = 0; i < n_layers; i++) {
        check_rows_f32("convolution's state", own + layers[i].conv_at / 4, layers[i].conv, s.taps - 1, s.c, s.c,
            loose[dtype]);
        check_rows_f32("scan's state", own + layers[i].scan_at / 4, layers[i].scan, s.c, s.n, s.n, loose[dtype]);
    }
    for (int i = 0; i < blocks; i++)
        if (turns[i] != (uint32_t)(FIRST_TURN + n_layers))
            check_fail("block %d is at turn %u", i, turns[i]);
    check_untouched("slot 0", state, (size_t)slots.stride);
    const uint64_t hash = hash_bytes(0xCBF29CE484222325u, x, sizeof(float) * (size_t)s.d);
    check_same(check_param("seed"), hash_bytes(hash_bytes(hash, left.parts,
        sizeof(float) * (size_t)(left.n_sums * left.n_blocks)), own, kept));
}

GPU_CHECKS({ "decode_chain", check_chain })
