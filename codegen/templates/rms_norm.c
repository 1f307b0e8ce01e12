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
    for (int row = row_begin; row < row_end; row++)
        norm_row(out + (size_t)row * stride, x + (size_t)row * stride, weight, n_in, (float)eps);
}
