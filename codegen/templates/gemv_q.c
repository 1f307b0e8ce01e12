/* Matrix product of one quantised row with the chosen experts (or one dense matrix).
 *
 * Bound by reading the weights: several panels are in flight at once, each its own stream. Integer
 * sums are exact and the rest is done as in gemm_q, so the result equals that bit for bit.
 */
PARAM(n_in, i)           /* k */
PARAM(n_out, o)          /* columns; the last panel's others are padding */
PARAM(in_stride, is)     /* bytes between rows of in (pairs) */
PARAM(out_stride, os)    /* floats between rows of out (pairs); unless whole panels, padding is not written */
PARAM(n_experts, e)      /* 1: dense, experts and gates are NULL, top_k is 1 */
PARAM(weight_dtype, w)   /* 3 q8, 4 q4 */
PARAM(in_pairs, ip)      /* in has a row for 0: the token, 1: each pair */
PARAM(out_pairs, op)     /* out has a row for 0: the token, gates applied, 1: each pair, no gates */
PARAM(has_bias, hb)
PARAM(accumulate, ac)    /* 0: out = product, 1: out += product, 2: out = silu(out) * product */
PARAM(panel, nr)         /* 2 vectors */
PARAM(prefetch_rows, pf) /* rows of a panel between the prefetched and the used one */
PARAM(streams, st)       /* panels in flight */
PARAM(unroll, un)        /* rows of a panel in a round of the loop */

KERNEL(gemv_q)(
    float *out,               /* [1 or top_k][out_stride] */
    const int8_t *in,         /* [1 or top_k][in_stride], quantised */
    const void *weights,      /* [n_experts][n_panels]: scales [panel], then rows of [panel][DOT_GROUP] bytes */
    const float *bias,        /* [n_experts][n_panels * panel], or NULL */
    const int32_t *experts,   /* [top_k], ascending */
    const float *gates,       /* [top_k] */
    int top_k, int panel_begin, int panel_end)
{
    const int n_panels = (n_out + panel - 1) / panel;
    const int n_rows = dot_rows(n_in, weight_dtype);
    const size_t panel_len = dot_panel_len(n_in, panel, weight_dtype), row_len = dot_row_len(panel);

    for (int p = panel_begin, width; p < panel_end; p += width) {
        width = panel_end - p >= streams ? streams : 1;
        for (int s = 0; s < top_k; s++) {
            const int e = n_experts == 1 ? 0 : experts[s];
            const int8_t *x = in + (in_pairs ? (size_t)s * in_stride : 0);
            const float *from = has_bias ? bias + ((size_t)e * n_panels + p) * panel : bias;
            const size_t at = ((size_t)e * n_panels + p) * panel_len;
            const uint8_t *panels = (const uint8_t *)weights + at;
            float *o = out + (out_pairs ? (size_t)s * out_stride : 0) + (size_t)p * panel;
            const int fresh = !accumulate && (out_pairs || s == 0);
            const vf g = vset(n_experts == 1 || out_pairs ? 1 : gates[s]), scale = vset(dot_row_scale(x, n_in));
            vi sum[streams * DOT_VECTORS];
            UNROLL
            for (int j = 0; j < streams * DOT_VECTORS; j++)
                sum[j] = vdot_begin(-dot_offset(weight_dtype) * dot_row_sum(x, n_in));
            if (width == streams)
                dot_stream(sum, streams, weight_dtype, weights, at, panel_len, row_len, x, n_rows, prefetch_rows, unroll);
            else
                dot_stream(sum, 1, weight_dtype, weights, at, panel_len, row_len, x, n_rows, 0, 1);
            UNROLL
            for (int j = 0; j < 2 * streams; j++) {
                const int left = n_out - p * panel - j * LANES;     /* valid columns from here on */
                if (j >= 2 * width)
                    break;
                const vf scales = vload((const float *)(panels + (size_t)(j / 2) * panel_len) + j % 2 * LANES);
                const vf value = vfma(vfloat(vdot_end(sum, j)), scales * scale, has_bias ? vload(from + j * LANES) : vset(0));
                if ((p + j / 2 + 1) * panel <= out_stride) {
                    vstore(o + j * LANES, product_end(accumulate, g, value, fresh ? vset(0) : vload(o + j * LANES)));
                } else if (left > 0) {
                    const int n = left < LANES ? left : LANES;
                    vstore_part(o + j * LANES, product_end(accumulate, g, value, fresh ? vset(0) : vload_part(o + j * LANES, n)), n);
                }
            }
        }
    }
}
