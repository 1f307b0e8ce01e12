/* Router: the top_k experts of each row and their gates, split over threads by rows. */
PARAM(n_in, i)          /* columns */
PARAM(stride, s)        /* floats between rows of x */
PARAM(n_experts, e)
PARAM(renormalize, rn)  /* 1: gates are divided by their sum */
PARAM(by_lanes, bl)     /* 0: row after row, 1: LANES rows at once, a lane each */

KERNEL(route)(
    int32_t *experts,      /* [rows][top_k], ascending in each row */
    float *gates,          /* [rows][top_k] */
    const float *x,        /* [rows][stride] */
    const float *router,   /* [n_experts][n_in] */
    int top_k, int row_begin, int row_end)
{
    float scratch[2 * (by_lanes ? n_experts * LANES : 0) + 2 * (n_experts + LANES)];
    int row = row_begin;
    for (int n_rows; by_lanes && row_end - row >= ROUTE_LEAST_ROWS; row += n_rows) {
        n_rows = row_end - row < LANES ? row_end - row : LANES;
        route_lanes(experts + (size_t)row * top_k, gates + (size_t)row * top_k, x + (size_t)row * stride, router, scratch,
                    stride, n_rows, n_in, n_experts, top_k, renormalize);
    }
    for (; row < row_end; row++)
        route_token(experts + (size_t)row * top_k, gates + (size_t)row * top_k,
                    x + (size_t)row * stride, router, scratch, n_in, n_experts, top_k, renormalize);
}
