/* Causal depthwise convolution over time, with its bias and SiLU; split over threads by panels.
 *
 * The state holds the last d_conv - 1 inputs, oldest first, and moves on to this chunk's.
 */
PARAM(n_channels, c)
PARAM(d_conv, k)         /* taps; tap d_conv - 1 multiplies the current token */
PARAM(in_stride, is)     /* floats between rows of in */
PARAM(stride, s)         /* floats between rows of out, weight and state: whole panels */
PARAM(silu, si)          /* 1: out = silu(conv + bias) */
PARAM(panel, nr)         /* 2 vectors */

KERNEL(conv1d)(
    float *out,            /* [n_tokens][stride]; not in */
    const float *in,       /* [n_tokens][in_stride], readable to whole panels of n_channels */
    const float *weight,   /* [d_conv][stride] */
    const float *bias,     /* [stride] */
    float *state,          /* [d_conv - 1][stride] */
    int n_tokens, int panel_begin, int panel_end)
{
    const int begin = panel_begin * panel, end = panel_end * panel;
    for (int t = 0; t < n_tokens; t++) {
        const float *tap[d_conv];
        for (int j = 0; j < d_conv; j++) {
            const int back = t + j - (d_conv - 1);         /* row of in, or of the past */
            tap[j] = back >= 0 ? in + (size_t)back * in_stride : state + (size_t)(t + j) * stride;
        }
        for (int i = begin; i < end; i += LANES) {
            vf sum = vload(bias + i);
            UNROLL_ARM
            for (int j = 0; j < d_conv; j++)
                sum = vfma(vload(tap[j] + i), vload(weight + j * stride + i), sum);
            vstore(out + (size_t)t * stride + i, silu ? vsilu(sum) : sum);
        }
    }
    for (int j = 0; j < d_conv - 1; j++) {
        const int back = n_tokens + j - (d_conv - 1);
        const float *from = back >= 0 ? in + (size_t)back * in_stride : state + (size_t)(n_tokens + j) * stride;
        for (int i = begin; i < end; i += LANES)
            vstore(state + (size_t)j * stride + i, vload(from + i));
    }
}
