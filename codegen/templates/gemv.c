/* Matrix product of one token with its chosen experts (or one dense matrix).
 *
 * Bound by reading the weights: several panels are in flight at once, each its own stream, and the
 * chains over k stay whole, so the result equals gemm's bit for bit.
 */
PARAM(n_in, i)           /* k */
PARAM(n_out, o)          /* columns; the last panel's others are padding */
PARAM(in_stride, is)     /* floats between rows of in (pairs) */
PARAM(out_stride, os)    /* floats between rows of out (pairs); unless whole panels, padding is not written */
PARAM(n_experts, e)      /* 1: dense, experts and gates are NULL, top_k is 1 */
PARAM(weight_dtype, w)   /* 0 f32, 1 bf16, 2 f16, 5 bf16 by pairs of k, 6 f16 with f16 sums */
PARAM(in_pairs, ip)      /* in has a row for 0: the token, 1: each pair */
PARAM(out_pairs, op)     /* out has a row for 0: the token, gates applied, 1: each pair, no gates */
PARAM(has_bias, hb)      /* 1: chains start at the bias */
PARAM(accumulate, ac)    /* 0: out = product, 1: out += product, 2: out = silu(out) * product */
PARAM(panel, nr)         /* 2 vectors */
PARAM(prefetch_rows, pf) /* rows of a panel between the prefetched and the used one */
PARAM(streams, st)       /* panels in flight */
PARAM(unroll, un)        /* steps of k in a round of the loop */

KERNEL(gemv)(
    float *out,               /* [1 or top_k][out_stride] */
    const float *in,          /* [1 or top_k][in_stride] */
    const void *weights,      /* as gemm's */
    const float *bias,        /* [n_experts][n_panels * panel], or NULL */
    const int32_t *experts,   /* [top_k], ascending */
    const float *gates,       /* [top_k] */
    int top_k, int panel_begin, int panel_end)
{
    const int n_panels = (n_out + panel - 1) / panel;
    const int pairs = weight_dtype == WEIGHT_BF16_PAIRS, halves = weight_dtype == WEIGHT_F16_ROWS;
    const int n_steps = k_steps(n_in, weight_dtype);
    const size_t panel_len = float_panel_len(n_in, panel, weight_dtype), step_len = panel_len / n_steps;   /* bytes */
    enum { parts = weight_dtype == WEIGHT_BF16_PAIRS ? DOT_VECTORS : 2 };      /* vectors of a panel's step */
    uint16_t rounded[pairs || halves ? 2 * packed_floats(n_in, weight_dtype) : 1];     /* the row */
    float unscale = 1;

    if (pairs && !in_pairs)
        bf16_row(rounded, in, n_in);
    if (halves && !in_pairs)
        unscale = f16_row(rounded, in, n_in);
    for (int p = panel_begin, width; p < panel_end; p += width) {
        width = panel_end - p >= streams ? streams : 1;
        for (int s = 0; s < top_k; s++) {
            const int e = n_experts == 1 ? 0 : experts[s];
            const float *x = in + (in_pairs ? (size_t)s * in_stride : 0);
            if (pairs && in_pairs)
                bf16_row(rounded, x, n_in);
            if (halves && in_pairs)
                unscale = f16_row(rounded, x, n_in);
            const float *start = has_bias ? bias + ((size_t)e * n_panels + p) * panel : bias;
            const size_t at = ((size_t)e * n_panels + p) * panel_len;
            float *o = out + (out_pairs ? (size_t)s * out_stride : 0) + (size_t)p * panel;
            const int fresh = !accumulate && (out_pairs || s == 0);
            const vf g = vset(n_experts == 1 || out_pairs ? 1 : gates[s]);
            vf sum[streams * parts];
            UNROLL
            for (int j = 0; j < streams * parts; j++)
                sum[j] = has_bias && j < parts * width ? vstep_begin(start, j, weight_dtype) : vset(0);
            if (halves && width == streams)
                f16_arm_stream(sum, streams, weights, at, panel_len, rounded, n_in, prefetch_rows);
            else if (halves)
                f16_arm_stream(sum, 1, weights, at, panel_len, rounded, n_in, 0);
            else if (width == streams)
                float_stream(sum, streams, parts, weight_dtype, weights, at, panel_len, step_len, x, rounded, n_steps, prefetch_rows, unroll);
            else
                float_stream(sum, 1, parts, weight_dtype, weights, at, panel_len, step_len, x, rounded, n_steps, 0, 1);
            UNROLL
            for (int j = 0; j < 2 * streams; j++) {
                const int left = n_out - p * panel - j * LANES;     /* valid columns from here on */
                if (j >= 2 * width)
                    break;
                const vf end = vstep_end(sum, j, weight_dtype);
                const vf value = halves ? vfma(end, vset(unscale), has_bias ? vload(start + j * LANES) : vset(0)) : end;
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
