/* Embedding rows of tokens, read out of the panels the logits product uses (tied weights). */
PARAM(d_model, n)
PARAM(stride, s)         /* floats between rows of x */
PARAM(weight_dtype, w)   /* 0 f32, 1 bf16, 2 f16 */
PARAM(panel, nr)         /* 2 vectors */

KERNEL(embed)(
    float *x,                /* [rows][stride] */
    const int32_t *tokens,   /* [rows] */
    const void *weights,     /* [n_panels of the vocabulary][d_model][panel] */
    int row_begin, int row_end)
{
    for (int row = row_begin; row < row_end; row++) {
        const size_t at = (size_t)(tokens[row] / panel) * d_model * panel + tokens[row] % panel;
        for (int i = 0; i < d_model; i++)
            x[(size_t)row * stride + i] = load_weight(weights, at + (size_t)i * panel, weight_dtype);
    }
}
