/* Causal depthwise convolution over time with bias and SiLU; a token's input may be the sum of its pairs.
 *
 * Grid: any number of blocks, which share 512 channels of a run of tokens each; with sequences a run is a token. 64
 * threads, each 8 channels; the next 4 tokens, and two pairs of each, are on their way to shared memory. The state is
 * the last d_conv - 1 inputs, oldest first, in float32. Only the first run reads it, and it writes the new one, so no
 * block waits for another; with many taps it does all tokens. Shared: 4096 bytes, 8192 for pairs.
 */
PARAM(n_channels, c) PARAM(d_conv, k) PARAM(in_stride, is) PARAM(in_pairs, ip) PARAM(out_stride, os) PARAM(silu, si)
PARAM(act, a) PARAM(sequences, sq)

/* Tokens a run at least and at a time, steps under way, pairs of a token that are copied ahead, threads, taps that
 * registers hold. */
enum { CONV1D_RUN = 8, CONV1D_STEP = 2, CONV1D_STAGES = 2, CONV1D_FETCHED = 2, CONV1D_THREADS = 64, CONV1D_TAPS = 8 };

DEVICE int conv1d_fetched(void) { return in_pairs ? CONV1D_FETCHED : 1; }

/* Where this thread's row s of token i of a step lies in shared memory. */
DEVICE u32x4 *conv1d_place(int stage, int i, int s)
{
    const int row = (stage * CONV1D_STEP + i) * conv1d_fetched() + s;
    return (u32x4 *)shared() + row * CONV1D_THREADS + thread_x();
}

/* Asks for rows s < FETCHED of the inputs of tokens t to t + STEP - 1, eight channels of each; zeros beyond `end`. */
DEVICE void conv1d_fetch(int stage, const act_t *in, int channel, int t, int end, int top_k)
{
    const int n = in_pairs ? top_k : 1;
    UNROLL
    for (int i = 0; i < CONV1D_STEP; i++)
        UNROLL
        for (int s = 0; s < conv1d_fetched(); s++) {
            const bool is_there = t + i < end && s < n;
            copy_async16(conv1d_place(stage, i, s), in + ((int64_t)(t + i) * n + s) * in_stride + channel,
                         is_there ? 16 : 0);
        }
    copy_commit();
}

DEVICE void conv1d_add(float x[8], u32x4 row)
{
    UNROLL
    for (int j = 0; j < 4; j++) {
        x[2 * j] += act_lo(row[j], act);
        x[2 * j + 1] += act_hi(row[j], act);
    }
}

/* The sums of what conv1d_fetch got and of the rows that it did not. */
DEVICE void conv1d_sum(float x[][8], int stage, const act_t *in, int channel, int t, int end, int top_k)
{
    UNROLL
    for (int i = 0; i < CONV1D_STEP; i++) {
        const u32x4 row = *conv1d_place(stage, i, 0);
        UNROLL
        for (int j = 0; j < 4; j++) {
            x[i][2 * j] = act_lo(row[j], act);
            x[i][2 * j + 1] = act_hi(row[j], act);
        }
        UNROLL
        for (int s = 1; s < conv1d_fetched(); s++)
            conv1d_add(x[i], *conv1d_place(stage, i, s));
        for (int s = CONV1D_FETCHED; in_pairs && s < top_k; s++)
            if (t + i < end)
                conv1d_add(x[i], load16(in + ((int64_t)(t + i) * top_k + s) * in_stride + channel));
    }
}

/* One channel's input at a time that may lie before this call: then it is in the state. */
DEVICE float conv1d_input(const act_t *in, const float *state, int channel, int time, int top_k)
{
    if (time < 0)
        return state[(int64_t)(time + d_conv - 1) * n_channels + channel];
    const int n = in_pairs ? top_k : 1;
    float x = 0;
    for (int s = 0; s < n; s++)
        x += act_float(in[((int64_t)time * n + s) * in_stride + channel], act);
    return x;
}

/* Eight channels, n of them real, of the d_conv - 1 inputs from time `first` on. */
DEVICE void conv1d_window(float x[][8], const act_t *in, const float *state, int channel, int n, int first, int top_k)
{
    UNROLL
    for (int j = 0; j < d_conv - 1; j++)
        UNROLL
        for (int c = 0; c < 8; c++)
            x[j][c] = first + j < 0 && c < n ? state[(int64_t)(first + j + d_conv - 1) * n_channels + channel + c] : 0;
    for (int s = 0; s < (in_pairs ? top_k : 1); s++) {
        u32x4 rows[CONV1D_TAPS];
        UNROLL
        for (int j = 0; j < d_conv - 1; j++) {
            const int64_t row = (int64_t)(first + j) * (in_pairs ? top_k : 1) + s;
            rows[j] = first + j < 0 ? (u32x4){ 0, 0, 0, 0 } : load16(in + row * in_stride + channel);
        }
        UNROLL
        for (int j = 0; j < d_conv - 1; j++)
            conv1d_add(x[j], rows[j]);
    }
}

DEVICE float conv1d_activation(float x)
{
    return silu ? x * reciprocal_fast(1 + exp2_fast(x * -1.44269504f)) : x;
}

DEVICE void conv1d_store(act_t *to, const float y[8], int n)
{
    if (n >= 8) {
        store16(to, (u32x4){ act_pack(y[0], y[1], act), act_pack(y[2], y[3], act), act_pack(y[4], y[5], act),
                             act_pack(y[6], y[7], act) });
        return;
    }
    UNROLL
    for (int i = 0; i < 8; i++)
        if (i < n)
            to[i] = float_act(y[i], act);
}

/* w[tap][channel], and biases. */
DEVICE void conv1d_weights(float w[][8], float b[8], const float *weight, const float *bias, int channel, int n)
{
    if (n >= 8) {
        const u32x4 lo = load16(bias + channel), hi = load16(bias + channel + 4);
        UNROLL
        for (int i = 0; i < 4; i++) {
            b[i] = bits_float(lo[i]);
            b[i + 4] = bits_float(hi[i]);
        }
    } else
        UNROLL
        for (int i = 0; i < 8; i++)
            b[i] = i < n ? bias[channel + i] : 0;
    UNROLL
    for (int i = 0; i < 8; i++) {
        const float *const row = weight + (int64_t)(channel + i) * d_conv;
        if (d_conv == 4) {
            const u32x4 taps = i < n ? load16(row) : (u32x4){ 0, 0, 0, 0 };
            UNROLL
            for (int j = 0; j < 4; j++)
                w[j][i] = bits_float(taps[j]);
        } else
            UNROLL
            for (int j = 0; j < d_conv; j++)
                w[j][i] = i < n ? row[j] : 0;
    }
}

/* Tokens begin to end of eight channels, n of them real; a window of inputs in registers. */
DEVICE void conv1d_run(act_t *out, const act_t *in, const float *weight, const float *bias, const float *state,
    int channel, int n, int begin, int end, int top_k)
{
    float x[CONV1D_TAPS - 1 + CONV1D_STEP][8], w[CONV1D_TAPS][8], b[8];
    UNROLL
    for (int i = 0; i < CONV1D_STAGES; i++)
        conv1d_fetch(i, in, channel, begin + i * CONV1D_STEP, end, top_k);
    conv1d_weights(w, b, weight, bias, channel, n);
    conv1d_window(x, in, state, channel, n, begin - (d_conv - 1), top_k);
    for (int t = begin, stage = 0; t < end; t += CONV1D_STEP, stage = (stage + 1) % CONV1D_STAGES) {
        copy_wait(CONV1D_STAGES - 1);
        conv1d_sum(x + d_conv - 1, stage, in, channel, t, end, top_k);
        conv1d_fetch(stage, in, channel, t + CONV1D_STAGES * CONV1D_STEP, end, top_k);
        UNROLL
        for (int i = 0; i < CONV1D_STEP; i++) {
            float y[8];
            UNROLL
            for (int c = 0; c < 8; c++) {
                y[c] = b[c];
                UNROLL
                for (int j = 0; j < d_conv; j++)
                    y[c] = fma_f(x[i + j][c], w[j][c], y[c]);
                y[c] = conv1d_activation(y[c]);
            }
            if (t + i < end)
                conv1d_store(out + (int64_t)(t + i) * out_stride + channel, y, n);
        }
        UNROLL
        for (int j = 0; j < d_conv - 1; j++)
            UNROLL
            for (int c = 0; c < 8; c++)
                x[j][c] = x[j + CONV1D_STEP][c];
    }
    copy_wait(0);                   /* of zeros: another run's rows go to the same place */
}

/* The new state. */
DEVICE void conv1d_keep(float *state, const act_t *in, int channel, int n, int n_tokens, int top_k)
{
    float x[CONV1D_TAPS][8];
    conv1d_window(x, in, state, channel, n, n_tokens - (d_conv - 1), top_k);
    UNROLL
    for (int j = 0; j < d_conv - 1; j++)
        UNROLL
        for (int c = 0; c < 8; c++)
            if (c < n)
                state[(int64_t)j * n_channels + channel + c] = x[j][c];
}

/* conv1d_run for any number of taps: every input is read as often as it is used. */
DEVICE void conv1d_long(act_t *out, const act_t *in, const float *weight, const float *bias, const float *state,
    int channel, int n, int end, int top_k)
{
    for (int t = 0; t < end; t++)
        for (int c = channel; c < channel + n; c++) {
            float y = bias[c];
            for (int j = 0; j < d_conv; j++)
                y = fma_f(conv1d_input(in, state, c, t + j - (d_conv - 1), top_k), weight[(int64_t)c * d_conv + j], y);
            out[(int64_t)t * out_stride + c] = float_act(conv1d_activation(y), act);
        }
}

/* A run of a sequence of n_tokens. */
DEVICE void conv1d_tile(act_t *out, const act_t *in, const float *weight, const float *bias, float *state, int channel,
    int n, int first, int end, int n_tokens, int top_k)
{
    if (d_conv <= CONV1D_TAPS) {
        conv1d_run(out, in, weight, bias, state, channel, n, first, end, top_k);
        if (first == 0)
            conv1d_keep(state, in, channel, n, n_tokens, top_k);
    } else if (first == 0) {
        conv1d_long(out, in, weight, bias, state, channel, n, n_tokens, top_k);
        for (int j = 0; j < d_conv - 1; j++)      /* upwards: what is still needed lies above */
            for (int c = channel; c < channel + n; c++)
                state[(int64_t)j * n_channels + c] = conv1d_input(in, state, c, n_tokens + j - (d_conv - 1), top_k);
    }
}

KERNEL(conv1d)(act_t *out /* [n_tokens][out_stride] */, const act_t *in /* [n_tokens, or pairs][in_stride] */,
    const float *restrict weight /* [n_channels][d_conv] */, const float *restrict bias /* [n_channels] */,
    float *state /* [d_conv - 1][n_channels] */, const int32_t *slots, const int32_t *ends, int64_t state_stride,
    int32_t n_sequences, int32_t n_tokens, int32_t top_k)
{
    const int columns = (n_channels + CONV1D_THREADS * 8 - 1) / (CONV1D_THREADS * 8);
    const int n_blocks = n_blocks_x() * n_blocks_y(), block = block_y() * n_blocks_x() + block_x();
    const int n_shares = max_i(n_blocks / columns, 1), share = (n_tokens + n_shares - 1) / n_shares;
    const int run_len = max_i((share + CONV1D_STEP - 1) / CONV1D_STEP * CONV1D_STEP, CONV1D_RUN);
    dependency_wait();
    dependency_launch();
    for (int work = block;; work += n_blocks) {
        const int tile = work / columns, channel = (work % columns * CONV1D_THREADS + thread_x()) * 8;
        const int n = n_channels % 8 == 0 ? 8 : min_i(n_channels - channel, 8);
        const SequenceTile run = sequences ? (SequenceTile){ tile, tile, tile + (tile < n_tokens), 0 }
            : sequence_tile(ends, n_sequences, n_tokens, tile, run_len);
        const int first = run.first, n_own = run.end - run.begin;
        const int64_t begin = run.begin;
        if (first >= n_own)
            return;
        if (channel >= n_channels)
            continue;
        conv1d_tile(out + begin * out_stride, in + begin * (in_pairs ? top_k : 1) * in_stride, weight, bias,
            (float *)((char *)state + slots[run.sequence] * state_stride), channel, n, first,
            min_i(first + run_len, n_own), n_own, top_k);
    }
}
