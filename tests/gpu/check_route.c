/* route: choices in the order of a plain sort, gates, places of pairs. */
#include "check_routing.h"

static void check_route(void)
{
    const int n_in = check_param("n_in"), in_stride = check_param("in_stride"), act = check_param("act");
    const int n_tokens = check_param("n_tokens"), n_experts = check_param("n_experts");
    const uint16_t *in = check_random_act(n_tokens, n_in, in_stride, act);
    double *row = check_doubles((size_t)n_in);
    CheckRoute route = route_make(n_in, n_tokens);
    for (int t = 0; t < n_tokens; t++) {
        for (int i = 0; i < n_in; i++)
            row[i] = check_act_value(in[t * in_stride + i], act);
        route_want(&route, row, t);
    }
    const int shared_len = 65536 * check_param("stages") + 16384 + (n_experts > 256 ? 96 : 192) * n_experts;
    CHECK_LAUNCH(check_param("blocks"), 1, 512, shared_len, in, route.router, route.experts, route.gates,
                 route.slots, route.totals, n_tokens, route.top_k);
    route_compare(&route);
}

GPU_CHECKS({ "route", check_route })
