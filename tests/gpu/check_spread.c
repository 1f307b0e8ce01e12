/* spread: every column of out, zeros included, and B, C summed over a token's experts. */
#include "check.h"

static void check_spread(void)
{
    const int rank = check_param("dt_rank"), n = check_param("d_state"), n_experts = check_param("n_experts");
    const int in_stride = check_param("in_stride"), out_stride = check_param("out_stride"), act = check_param("act");
    const int n_tokens = check_param("n_tokens"), top_k = check_param("top_k"), n_pairs = n_tokens * top_k;
    const float *in = check_random_f32(n_pairs, rank + 2 * n, in_stride);
    float *gates = n_experts > 1 ? check_buffer(sizeof(float) * (size_t)n_pairs) : NULL;
    int32_t *experts = n_experts > 1 ? check_buffer(sizeof(int32_t) * (size_t)n_pairs) : NULL;
    uint16_t *out = check_buffer(2 * (size_t)n_tokens * (size_t)out_stride);
    float *bc = check_buffer(sizeof(float) * (size_t)n_tokens * 2 * (size_t)n);
    double *want = check_doubles((size_t)n_tokens * (size_t)out_stride);
    double *want_bc = check_doubles((size_t)n_tokens * 2 * (size_t)n);
    for (int t = 0; t < n_tokens; t++)
        for (int s = 0, e = 0; s < top_k; s++, e++) {
            const int pair = t * top_k + s;
            e += check_random_below(n_experts - e - (top_k - s) + 1);      /* ascending, room for the rest */
            double gate = 1;
            if (experts) {
                experts[pair] = e;
                gate = gates[pair] = check_random();
            }
            for (int j = 0; j < rank; j++)
                want[t * out_stride + e * rank + j] = gate * in[pair * in_stride + j];
            for (int j = 0; j < 2 * n; j++)
                want_bc[t * 2 * n + j] += gate * in[pair * in_stride + rank + j];
        }
    CHECK_LAUNCH((n_tokens + 7) / 8 + 1, 1, 256, 0, out, bc, in, experts, gates, n_tokens, top_k);
    check_rows_act("out", out, want, n_tokens, out_stride, out_stride, act, 0x1p-22);
    check_rows_f32("bc", bc, want_bc, n_tokens, 2 * n, 2 * n, 0x1p-21);
}

GPU_CHECKS({ "spread", check_spread })
