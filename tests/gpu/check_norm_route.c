/* norm_route: sums, normalised rows, choices in the order of a plain sort, counts. */
#include "check.h"

typedef struct {
    int n_in, n_experts, top_k, renormalize;
    const float *router;
} Route;

/* The choice for u [n_in]: plain selection of the largest, the lower index of equal ones. p [E] is scratch. */
static void choose(const Route *route, const double *u, double *p, int32_t *experts, double *gates)
{
    const int n = route->n_experts;
    double largest = -INFINITY, sum = 0, chosen = 0;
    for (int e = 0; e < n; e++) {
        p[e] = 0;
        for (int i = 0; i < route->n_in; i++)
            p[e] += u[i] * (double)route->router[e * route->n_in + i];
        largest = fmax(largest, p[e]);
    }
    for (int e = 0; e < n; e++)
        sum += p[e] = exp(p[e] - largest);
    bool *taken = calloc((size_t)n, sizeof(bool));
    for (int s = 0; s < route->top_k; s++) {
        int best = -1;
        for (int e = 0; e < n; e++)
            if (!taken[e] && (best < 0 || p[e] > p[best]))
                best = e;
        taken[best] = true;
        chosen += p[best];
    }
    for (int e = 0, s = 0; e < n; e++)
        if (taken[e]) {
            experts[s] = e;
            gates[s++] = p[e] / (route->renormalize ? chosen : sum);
        }
    free(taken);
}

static void check_norm_route(void)
{
    const int n_in = check_param("n_in"), in_stride = check_param("in_stride"), from_act = check_param("from_act");
    const int normalise = check_param("normalise"), pairs_stride = check_param("pairs_stride");
    const int out_stride = check_param("out_stride"), n_experts = check_param("n_experts");
    const int act = check_param("act"), ties = check_param("ties");
    const int n_rows = check_param("n_rows"), n_tokens = check_param("n_tokens"), top_k = check_param("top_k");
    const int pair_k = check_param("pair_k"), n_runs = (n_rows + 15) / 16, first = n_tokens - n_rows;
    const double eps = check_param_float("eps");
    const uint16_t *pairs = pairs_stride ? check_random_act(n_tokens * pair_k, n_in, pairs_stride, act) : NULL;
    const float *weight = check_random_f32(1, n_in, n_in);
    float *router = check_buffer(4 * (size_t)(n_experts * n_in));
    for (int i = 0; i < n_experts * n_in; i++)             /* expert 1 is expert 0 again */
        router[i] = ties && i / n_in == 1 ? router[i - n_in] : 4 / sqrtf((float)n_in) * check_random();
    check_freeze(router);
    check_early(router);
    const uint16_t *x_act = from_act ? check_random_act(n_tokens, n_in, in_stride, act) : NULL;
    float *x = from_act ? NULL : check_buffer(4 * (size_t)n_tokens * (size_t)in_stride);
    uint16_t *out = normalise ? check_buffer(2 * (size_t)n_rows * (size_t)out_stride) : NULL;
    const size_t n_chosen = (size_t)(n_rows * top_k), n_counts = (size_t)(n_runs * n_experts);
    int32_t *experts = check_buffer(4 * n_chosen), *counts = check_buffer(4 * n_counts);
    float *gates = check_buffer(4 * n_chosen);
    double *want_x = check_doubles((size_t)n_tokens * (size_t)n_in);
    double *want = check_doubles((size_t)n_rows * (size_t)n_in);
    double *scratch = check_doubles((size_t)n_experts), *want_gates = check_doubles(n_chosen);
    int32_t *want_experts = check_buffer(4 * n_chosen), *want_counts = check_buffer(4 * n_counts);
    memset(want_counts, 0, 4 * n_counts);
    const Route route = { n_in, n_experts, top_k, check_param("renormalize"), router };
    for (int t = 0; t < n_tokens; t++) {
        double *row = want_x + t * n_in, squares = 0;
        for (int i = 0; i < n_in; i++) {
            if (!from_act)
                x[t * in_stride + i] = check_random();
            row[i] = from_act ? check_act_value(x_act[t * in_stride + i], act) : (double)x[t * in_stride + i];
            for (int s = 0; t >= first && pairs && s < pair_k; s++)
                row[i] += check_act_value(pairs[(t * pair_k + s) * pairs_stride + i], act);
            squares += row[i] * row[i];
        }
        const int r = t - first;
        if (r < 0)
            continue;
        for (int i = 0; i < n_in; i++)
            want[r * n_in + i] = normalise ? row[i] / sqrt(squares / n_in + eps) * (double)weight[i] : row[i];
        if (n_experts > 1)
            choose(&route, want + r * n_in, scratch, want_experts + r * top_k, want_gates + r * top_k);
        for (int s = 0; n_experts > 1 && s < top_k; s++)
            want_counts[r / 16 * n_experts + want_experts[r * top_k + s]]++;
    }
    const int router_len = 4 * n_experts * ((n_in + 255) / 256 * 256);
    const int n_blocks = normalise ? n_runs : (n_rows + 63) / 64;
    const int others_len = (normalise ? 144 : 320) * n_experts;
    const int shared_len = (n_experts > 1 && router_len <= 98304 ? router_len : 0) + others_len;
    CHECK_LAUNCH(n_blocks, 1, normalise ? 256 : 512, shared_len, from_act ? (void *)x_act : (void *)x, pairs,
                 weight, router, out, experts, gates, counts, n_rows, n_tokens, top_k, pair_k);
    if (!from_act)
        check_rows_f32("x", x, want_x, n_tokens, n_in, in_stride, 0x1p-22);
    if (normalise)
        check_rows_act("out", out, want, n_rows, n_in, out_stride, act, 0x1p-20);
    if (n_experts == 1)
        return;
    check_ints("experts", experts, want_experts, n_chosen);
    check_rows_f32("gates", gates, want_gates, n_rows, top_k, top_k, 0x1p-14);
    check_ints("counts", counts, want_counts, n_counts);
}

GPU_CHECKS({ "norm_route", check_norm_route })
