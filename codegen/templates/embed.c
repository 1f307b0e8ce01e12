/* Embedding rows of tokens, read out of the panels the logits product uses (tied weights). */
PARAM(d_model, n)
PARAM(stride, s)         /* floats between rows of x */
PARAM(weight_dtype, w)   /* 0 f32, 1 bf16, 2 f16, 3 q8, 4 q4, 5 bf16 by pairs of k, 6 f16 */
PARAM(panel, nr)         /* 2 vectors */

KERNEL(embed)(
    float *x,                /* [rows][stride] */
    const int32_t *tokens,   /* [rows] */
    const void *weights,     /* [n_panels of the vocabulary][d_model][panel]; else as gemm's and gemm_q's */
    int row_begin, int row_end)
{
    for (int row = row_begin; row < row_end; row++) {
        const size_t p = (size_t)(tokens[row] / panel), column = (size_t)(tokens[row] % panel);
        if (weight_dtype == WEIGHT_Q8 || weight_dtype == WEIGHT_Q4) {
            const uint8_t *of = (const uint8_t *)weights + p * dot_panel_len(d_model, panel, weight_dtype);
            for (int i = 0; i < d_model; i++)
                x[(size_t)row * stride + i] = dot_weight(of, (int)column, i, panel, weight_dtype);
        } else if (weight_dtype == WEIGHT_BF16_PAIRS) {
            const uint8_t *of = (const uint8_t *)weights + p * float_panel_len(d_model, panel, weight_dtype);
            for (int i = 0; i < d_model; i++)
                x[(size_t)row * stride + i] = load_weight(of, bf16_index((int)column, i, panel), WEIGHT_BF16);
        } else {
            for (int i = 0; i < d_model; i++)
                x[(size_t)row * stride + i] = load_weight(weights, (p * d_model + (size_t)i) * panel + column, weight_dtype);
        }
    }
}
