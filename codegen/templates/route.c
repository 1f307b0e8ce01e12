/* Router: the top_k experts of each row and their gates, split over threads by rows. */
PARAM(n_in, i)          /* columns */
PARAM(stride, s)        /* floats between rows of x */
PARAM(n_experts, e)
PARAM(renormalize, rn)  /* 1: gates are divided by their sum */

KERNEL(route)(
    int32_t *experts,      /* [rows][top_k], ascending in each row */
    float *gates,          /* [rows][top_k] */
    const float *x,        /* [rows][stride] */
    const float *router,   /* [n_experts][n_in] */
    int top_k, int row_begin, int row_end)
{
    float scratch[2 * (n_experts + LANES)];
    for (int row = row_begin; row < row_end; row++)
        route_token(experts + (size_t)row * top_k, gates + (size_t)row * top_k,
                    x + (size_t)row * stride, router, scratch, n_in, n_experts, top_k, renormalize);
}
