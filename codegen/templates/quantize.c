/* Rows of float32 to rows of int8, each with its scale and its sum.
 *
 * scale = max |x| / 127, q = x / scale rounded to nearest, ties to even. A row that holds a NaN or
 * an infinity gets that as its scale and q = 0: its products are NaN, as they would be in float.
 */
PARAM(n_in, i)
PARAM(in_stride, is)     /* floats between rows of x */
PARAM(out_stride, os)    /* bytes between rows of out: n_in rounded up to 64, and 64 more */

KERNEL(quantize)(
    int8_t *out,             /* [rows][out_stride]: n_in q, zeros up to 64, float32 scale, int32 sum of q */
    const float *x,          /* [rows][in_stride] */
    int row_begin, int row_end)
{
    for (int row = row_begin; row < row_end; row++) {
        const float *from = x + (size_t)row * in_stride;
        int8_t *to = out + (size_t)row * out_stride;
        const int data_len = (int)dot_data_len(n_in);
        vi most[2] = { viset(0), viset(0) };          /* bits of |x|, which are ordered as |x| is */
        for (int i = 0; i < n_in; i += 2 * LANES) {
            most[0] = vimax(most[0], (vi)vabs(vload_row(from, i, n_in)));
            if (i + LANES < n_in)
                most[1] = vimax(most[1], (vi)vabs(vload_row(from, i + LANES, n_in)));
        }
        most[0] = vimax(most[0], most[1]);
        int32_t bits = 0, total = 0;
        for (int i = 0; i < LANES; i++)
            bits = most[0][i] > bits ? most[0][i] : bits;
        float scale;
        memcpy(&scale, &bits, sizeof scale);
        scale /= 127;
        const int usable = scale > 0 && scale <= 0x1p127f, plain = scale > 0x1p-60f && scale < 0x1p60f;
        const float inverse = 1 / scale;

        vi sum = viset(0);
        for (int i = 0; i < n_in; i += LANES) {
            vf ratio = vset(0);
            if (plain) {
                ratio = vquotient(vload_row(from, i, n_in), scale, inverse);
            } else if (usable) {
                ratio = vload_row(from, i, n_in) / vset(scale);
                ratio = vmin(vset(127), vmax(vset(-127), ratio));     /* a denormal scale is inexact */
            }
            const vi q = __builtin_convertvector(vround(ratio), vi);
            vstore_bytes(to + i, q);
            sum += q;
        }
        for (int i = (n_in + LANES - 1) / LANES * LANES; i < data_len; i++)
            to[i] = 0;
        for (int i = 0; i < LANES; i++)
            total += sum[i];
        memcpy(to + data_len, &scale, sizeof scale);
        memcpy(to + data_len + sizeof scale, &total, sizeof total);
    }
}
