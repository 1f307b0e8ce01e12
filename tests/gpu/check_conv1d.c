/* conv1d: tokens of sequences, or a token of several; states of slots that nobody uses stay. */
#include "check_sequences.h"

enum { N_SLOTS = 20 };

typedef struct {
    int n_channels, d_conv, in_stride, out_stride, silu, act, n_tokens, top_k;
    const float *weight, *bias;
} Conv;

/* x [d_conv - 1 + n_tokens][n_channels]: the state, then the inputs */
static double convolve(const Conv *conv, const double *x, int t, int c)
{
    double y = conv->bias[c];
    for (int j = 0; j < conv->d_conv; j++)
        y += x[(t + j) * conv->n_channels + c] * (double)conv->weight[c * conv->d_conv + j];
    return conv->silu ? y / (1 + exp(-y)) : y;
}

/* Fills want and the new state, of n tokens from `first` on, whose rows of in are theirs. */
static void expect(const Conv *conv, double *want, double *state, const uint16_t *in, int first, int n)
{
    const int channels = conv->n_channels, past = conv->d_conv - 1;
    double *x = check_doubles((size_t)(past + n) * (size_t)channels);
    memcpy(x, state, sizeof(double) * (size_t)past * (size_t)channels);
    for (int t = 0; t < n; t++)
        for (int s = 0; s < conv->top_k; s++)
            for (int c = 0; c < channels; c++)
                x[(past + t) * channels + c] +=
                    check_act_value(in[((first + t) * conv->top_k + s) * conv->in_stride + c], conv->act);
    for (int t = 0; t < n; t++)
        for (int c = 0; c < channels; c++)
            want[(first + t) * channels + c] = convolve(conv, x, t, c);
    memcpy(state, x + n * channels, sizeof(double) * (size_t)past * (size_t)channels);
}

static void check_conv1d(void)
{
    const int sequences = check_param("sequences"), in_pairs = check_param("in_pairs");
    Conv conv = { check_param("n_channels"), check_param("d_conv"), check_param("in_stride"), check_param("out_stride"),
        check_param("silu"), check_param("act"), check_param("n_tokens"), in_pairs ? check_param("top_k") : 1,
        NULL, NULL };
    const CheckSequences of = check_sequences(conv.n_tokens, sequences);
    const int n_state = (conv.d_conv - 1) * conv.n_channels, n_sequences = of.n;
    const int64_t state_stride = 4 * n_state + 48;
    conv.weight = check_random_f32(conv.n_channels, conv.d_conv, conv.d_conv);
    conv.bias = check_random_f32(1, conv.n_channels, conv.n_channels);
    const uint16_t *in = check_random_act(conv.n_tokens * conv.top_k, conv.n_channels, conv.in_stride, conv.act);
    uint16_t *out = check_buffer(2 * (size_t)conv.n_tokens * (size_t)conv.out_stride);
    char *states = check_buffer((size_t)state_stride * N_SLOTS);
    int32_t *slots = check_buffer(4 * (size_t)n_sequences);
    double *want = check_doubles((size_t)conv.n_tokens * (size_t)conv.n_channels);
    double *want_states = check_doubles((size_t)n_sequences * (size_t)n_state);
    for (int i = 0; i < n_sequences; i++) {
        slots[i] = (7 * i + 3) % N_SLOTS;
        float *state = (float *)(states + slots[i] * state_stride);
        for (int j = 0; j < n_state; j++)
            want_states[i * n_state + j] = state[j] = check_random();
        expect(&conv, want, want_states + i * n_state, in, check_begin(of, i), check_len(of, i));
    }
    check_freeze(slots);
    const int columns = (conv.n_channels + 511) / 512, shared_len = in_pairs ? 8192 : 4096;
    CHECK_LAUNCH(sequences ? columns : check_param("blocks"), sequences ? of.n : 1, 64, shared_len, out, in,
                 conv.weight, conv.bias, (float *)states, slots, of.ends, state_stride, of.n, conv.n_tokens,
                 in_pairs ? conv.top_k : 0);
    check_rows_act("out", out, want, conv.n_tokens, conv.n_channels, conv.out_stride, conv.act, 0x1p-20);
    for (int i = 0; i < N_SLOTS; i++) {
        const int j = (i + 17) * 3 % N_SLOTS;                /* the sequence in slot i: 7 j + 3 = i */
        if (j >= n_sequences) {
            check_untouched("state of another slot", states + i * state_stride, (size_t)state_stride);
            continue;
        }
        check_rows_f32("state", (float *)(states + i * state_stride), want_states + j * n_state, 1, n_state, n_state,
                       0x1p-22);
        check_untouched("behind the state", states + i * state_stride + 4 * n_state, 48);
    }
}

GPU_CHECKS({ "conv1d", check_conv1d })
