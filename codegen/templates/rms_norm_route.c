/* RMSNorm of rows and the routing of the result: rms_norm then route, while the row is in cache. */
PARAM(n_in, i)          /* columns */
PARAM(stride, s)        /* floats between rows: whole panels */
FPARAM(eps, eps)        /* added to the mean square */
PARAM(n_experts, e)
PARAM(renormalize, rn)  /* 1: gates are divided by their sum */
PARAM(by_lanes, bl)     /* 0: a row is routed when it is normed, 1: LANES rows at once, a lane each */

KERNEL(rms_norm_route)(
    float *out,            /* [rows][stride]; may be x */
    int32_t *experts,      /* [rows][top_k], ascending in each row */
    float *gates,          /* [rows][top_k] */
    const float *x,        /* [rows][stride] */
    const float *weight,   /* [stride], whole panels */
    const float *router,   /* [n_experts][n_in] */
    int top_k, int row_begin, int row_end)
{
    float scratch[2 * (by_lanes ? n_experts * LANES : 0) + 2 * (n_experts + LANES)];
    int row = row_begin;
    for (int n_rows; by_lanes && row_end - row >= ROUTE_LEAST_ROWS; row += n_rows) {
        n_rows = row_end - row < LANES ? row_end - row : LANES;
        for (int r = row; r < row + n_rows; r++)
            norm_row(out + (size_t)r * stride, x + (size_t)r * stride, weight, n_in, (float)eps);
        route_lanes(experts + (size_t)row * top_k, gates + (size_t)row * top_k, out + (size_t)row * stride, router,
                    scratch, stride, n_rows, n_in, n_experts, top_k, renormalize);
    }
    for (; row < row_end; row++) {
        float *to = out + (size_t)row * stride;
        norm_row(to, x + (size_t)row * stride, weight, n_in, (float)eps);
        route_token(experts + (size_t)row * top_k, gates + (size_t)row * top_k,
                    to, router, scratch, n_in, n_experts, top_k, renormalize);
    }
}
