/* scan: tokens of sequences, or a token of several; some A are 0, which zoh must survive. Other slots stay. */
#include "check_sequences.h"

enum { N_SLOTS = 20 };

typedef struct {
    int n_channels, d_state, zoh, act, dt_stride, x_stride, z_stride, n_z;
    const float *bc, *a, *d;
    const uint16_t *dt, *x, *z;
} Scan;

static double state_factor(const Scan *scan, double dt, double a)
{
    return !scan->zoh || a == 0 ? dt : expm1(dt * a * log(2)) / (a * log(2));
}

/* A token of one channel; s [d_state]. */
static double step(const Scan *scan, double *s, int t, int c)
{
    const int n_states = scan->d_state;
    const double dt = check_act_value(scan->dt[t * scan->dt_stride + c], 2);
    const double x = check_act_value(scan->x[t * scan->x_stride + c], scan->act);
    double y = scan->d[c] * x, z = 0;
    for (int n = 0; n < n_states; n++) {
        const double a = scan->a[c * n_states + n];
        s[n] = exp2(dt * a) * s[n] + state_factor(scan, dt, a) * x * scan->bc[t * 2 * n_states + n];
        y += scan->bc[t * 2 * n_states + n_states + n] * s[n];
    }
    for (int i = 0; i < scan->n_z; i++)
        z += check_act_value(scan->z[(t * scan->n_z + i) * scan->z_stride + c], scan->act);
    return scan->n_z ? y * z / (1 + exp(-z)) : y;
}

static int shared_len(int b, int d_state, int z_pairs, int stages, int tile)
{
    const int z_rows = z_pairs ? z_pairs : 1, steps = (d_state * b + 31) / 32;
    const int bc = 8 * (tile + 4) * steps * 32 / b, parts = 128 * (tile + 2);
    const int own = 2 * tile * b * (z_rows + 3) + 2 * (bc < parts ? parts : bc) + 264 * steps;
    return stages * own + 4 * b;
}

static void check_scan(void)
{
    const int n_tokens = check_param("n_tokens"), top_k = check_param("top_k");
    const int block = check_param("block_channels"), z_pairs = check_param("z_pairs");
    const int y_stride = check_param("y_stride"), stages = check_param("stages"), tile = check_param("tile_tokens");
    Scan scan = { .n_channels = check_param("n_channels"), .d_state = check_param("d_state"), .zoh = check_param("zoh"),
        .act = check_param("act"), .dt_stride = check_param("dt_stride"), .x_stride = check_param("x_stride"),
        .z_stride = check_param("z_stride"), .n_z = !check_param("gate") ? 0 : z_pairs ? top_k : 1 };
    const CheckSequences of = check_sequences(n_tokens, check_param("sequences"));
    const int channels = scan.n_channels, n_states = channels * scan.d_state, n_sequences = of.n;
    const int64_t state_stride = 4 * n_states + 16;
    uint16_t *dt = check_buffer(2 * (size_t)n_tokens * (size_t)scan.dt_stride);
    float *a = check_buffer(4 * (size_t)n_states);
    for (int i = 0; i < n_states; i++)
        a[i] = i % 11 == 3 ? 0 : -8 * fabsf(check_random());
    for (int t = 0; t < n_tokens; t++)
        for (int c = 0; c < channels; c++)
            dt[t * scan.dt_stride + c] = check_act_round(exp(4 * (double)check_random() - 4), 2);
    check_freeze(dt);
    check_freeze(a);
    scan.dt = dt, scan.a = a;
    scan.bc = check_random_f32(n_tokens, 2 * scan.d_state, 2 * scan.d_state);
    scan.x = check_random_act(n_tokens, channels, scan.x_stride, scan.act);
    scan.z = scan.n_z ? check_random_act(n_tokens * scan.n_z, channels, scan.z_stride, scan.act) : NULL;
    scan.d = check_random_f32(1, channels, channels);
    uint16_t *y = check_buffer(2 * (size_t)n_tokens * (size_t)y_stride);
    char *states = check_buffer((size_t)state_stride * N_SLOTS);
    int32_t *slots = check_buffer(4 * (size_t)n_sequences);
    double *want = check_doubles((size_t)(n_tokens * channels));
    double *want_states = check_doubles((size_t)(n_sequences * n_states));
    for (int i = 0; i < n_sequences; i++) {
        slots[i] = (7 * i + 3) % N_SLOTS;
        float *state = (float *)(states + slots[i] * state_stride);
        for (int j = 0; j < n_states; j++)
            want_states[i * n_states + j] = state[j] = check_random();
    }
    for (int t = 0, i = 0; t < n_tokens; t++) {
        i += t == check_begin(of, i) + check_len(of, i);
        for (int c = 0; c < channels; c++)
            want[t * channels + c] = step(&scan, want_states + i * n_states + c * scan.d_state, t, c);
    }
    check_freeze(slots);
    const double tolerance = 0x1p-19;
    const int n_blocks = block ? (channels + block - 1) / block : (channels + 31) / 32;
    const int n_threads = block ? 32 * stages : 256;
    CHECK_LAUNCH(n_blocks, of.n, n_threads,
                 block ? shared_len(block, scan.d_state, z_pairs, stages, tile) : 0, y, scan.dt, scan.x, scan.bc,
                 scan.z, scan.a, scan.d, (float *)states, slots, of.ends, state_stride, n_tokens, top_k);
    check_rows_act("y", y, want, n_tokens, channels, y_stride, scan.act, tolerance);
    for (int i = 0; i < N_SLOTS; i++) {
        const int j = (i + 17) * 3 % N_SLOTS;                /* the sequence in slot i: 7 j + 3 = i */
        if (j >= n_sequences) {
            check_untouched("state of another slot", states + i * state_stride, (size_t)state_stride);
            continue;
        }
        check_rows_f32("state", (float *)(states + i * state_stride), want_states + j * n_states, 1, n_states, n_states,
                       tolerance);
        check_untouched("behind the state", states + i * state_stride + 4 * n_states, 16);
    }
}

GPU_CHECKS({ "scan", check_scan })
