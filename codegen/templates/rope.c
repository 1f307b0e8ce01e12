/* Rotary embedding of the heads of rows, halves rotated as Llama; split over threads by rows. */
PARAM(n_heads, n)
PARAM(head_dim, h)       /* even */
PARAM(in_stride, is)     /* floats between rows of in */
PARAM(out_stride, os)    /* floats between rows of out */

KERNEL(rope)(
    float *out,           /* [rows][out_stride]; may be in */
    const float *in,      /* [rows][in_stride]: head h at h * head_dim */
    const float *table,   /* [rows][head_dim]: cosines, then sines */
    int row_begin, int row_end)
{
    const int half = head_dim / 2;
    for (int row = row_begin; row < row_end; row++) {
        const float *cosine = table + (size_t)row * head_dim, *sine = cosine + half;
        for (int h = 0; h < n_heads; h++) {
            const float *from = in + (size_t)row * in_stride + h * head_dim;
            float *to = out + (size_t)row * out_stride + h * head_dim;
            for (int i = 0; i < half; i += LANES) {
                const vf c = vload_row(cosine, i, half), s = vload_row(sine, i, half);
                const vf lo = vload_row(from, i, half), hi = vload_row(from + half, i, half);
                vstore_row(to, i, half, vfma(-hi, s, lo * c));
                vstore_row(to + half, i, half, vfma(lo, s, hi * c));
            }
        }
    }
}
