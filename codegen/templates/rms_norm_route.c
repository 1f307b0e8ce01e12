/* RMSNorm of rows and the routing of the result: rms_norm then route, while the row is in cache. */
PARAM(n_in, i)          /* columns */
PARAM(stride, s)        /* floats between rows: whole panels */
FPARAM(eps, eps)        /* added to the mean square */
PARAM(n_experts, e)
PARAM(renormalize, rn)  /* 1: gates are divided by their sum */

KERNEL(rms_norm_route)(
    float *out,            /* [rows][stride]; may be x */
    int32_t *experts,      /* [rows][top_k], ascending in each row */
    float *gates,          /* [rows][top_k] */
    const float *x,        /* [rows][stride] */
    const float *weight,   /* [stride], whole panels */
    const float *router,   /* [n_experts][n_in] */
    int top_k, int row_begin, int row_end)
{
    float scratch[2 * (n_experts + LANES)];
    for (int row = row_begin; row < row_end; row++) {
        float *to = out + (size_t)row * stride;
        norm_row(to, x + (size_t)row * stride, weight, n_in, (float)eps);
        route_token(experts + (size_t)row * top_k, gates + (size_t)row * top_k,
                    to, router, scratch, n_in, n_experts, top_k, renormalize);
    }
}
