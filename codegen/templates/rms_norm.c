/* RMSNorm of rows: out = x / sqrt(mean(x²) + eps) * weight, split over threads by rows. */
PARAM(n_in, i)      /* columns */
PARAM(stride, s)    /* floats between rows: whole panels */
FPARAM(eps, eps)    /* added to the mean square */

KERNEL(rms_norm)(
    float *out,            /* [rows][stride]; may be x */
    const float *x,        /* [rows][stride] */
    const float *weight,   /* [stride], whole panels */
    int row_begin, int row_end)
{
    for (int row = row_begin; row < row_end; row++) {
        const float *from = x + (size_t)row * stride;
        float *to = out + (size_t)row * stride;
        const float mean = vdot(from, from, n_in) / n_in;
        const vf scale = vset(1 / sqrtf(mean + (float)eps));
        for (int i = 0; i < n_in; i += LANES)
            vstore(to + i, vload(from + i) * scale * vload(weight + i));
    }
}
