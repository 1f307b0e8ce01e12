/* norm_route: sums, normalised rows, choices in the order of a plain sort, places of pairs. */
#include "check_routing.h"
#include "check_sequences.h"

/* The tokens that are normalised: the last n_rows, or of several sequences each one's last. */
typedef struct { int n_rows, n_tokens, n_sequences; const int32_t *ends; } Rows;

static int row_of(Rows rows, int token)
{
    if (rows.n_sequences == 1)
        return token - (rows.n_tokens - rows.n_rows);
    for (int r = 0; r < rows.n_rows; r++)
        if (rows.ends[r] - 1 == token)
            return r;
    return -1;
}

static void check_norm_route(void)
{
    const int n_in = check_param("n_in"), in_stride = check_param("in_stride");
    const int pairs_stride = check_param("pairs_stride"), out_stride = check_param("out_stride");
    const int act = check_param("act"), n_experts = check_param("n_experts");
    const int n_tokens = check_param("n_tokens"), pair_k = check_param("pair_k");
    const double eps = check_param_float("eps");
    const CheckSequences of = check_sequences(n_tokens, false);
    const Rows rows = { check_param("n_rows"), n_tokens, check_param("last") ? of.n : 1, of.ends };
    const uint16_t *pairs = pairs_stride ? check_random_act(n_tokens * pair_k, n_in, pairs_stride, act) : NULL;
    const float *weight = check_random_f32(1, n_in, n_in);
    check_early(weight);
    float *x = check_buffer(4 * (size_t)n_tokens * (size_t)in_stride);
    uint16_t *out = check_buffer(2 * (size_t)rows.n_rows * (size_t)out_stride);
    double *want_x = check_doubles((size_t)n_tokens * (size_t)n_in);
    double *want = check_doubles((size_t)rows.n_rows * (size_t)n_in);
    CheckRoute route = route_make(n_in, rows.n_rows);
    for (int t = 0; t < n_tokens; t++) {
        double *row = want_x + t * n_in, squares = 0;
        const int r = row_of(rows, t);
        for (int i = 0; i < n_in; i++) {
            row[i] = (double)(x[t * in_stride + i] = check_random());
            for (int s = 0; r >= 0 && pairs && s < pair_k; s++)
                row[i] += check_act_value(pairs[(t * pair_k + s) * pairs_stride + i], act);
            squares += row[i] * row[i];
        }
        if (r < 0)
            continue;
        for (int i = 0; i < n_in; i++)
            want[r * n_in + i] = row[i] / sqrt(squares / n_in + eps) * (double)weight[i];
        if (n_experts > 1)
            route_want(&route, want + r * n_in, r);
    }
    const int chunks = (n_in + 255) / 256, passes = (chunks + 11) / 12, warps = (chunks + passes - 1) / passes;
    const int blocks = check_param("blocks"), routed = 128 * warps + (n_experts > 256 ? 12 : 96) * n_experts;
    const int shared_len = 9232 * warps + 64 + (n_experts > 1 ? routed : 0);
    CHECK_LAUNCH(blocks > 4 ? blocks / 4 : blocks, blocks > 4 ? 4 : 1, 32 * warps, shared_len, x, pairs, weight,
                 route.router, out, route.experts, route.gates, route.slots, route.totals, of.ends, of.n, rows.n_rows,
                 n_tokens, route.top_k, pair_k);
    check_rows_f32("x", x, want_x, n_tokens, n_in, in_stride, 0x1p-22);
    check_rows_act("out", out, want, rows.n_rows, n_in, out_stride, act, 0x1p-20);
    if (n_experts > 1)
        route_compare(&route);
}

GPU_CHECKS({ "norm_route", check_norm_route })
