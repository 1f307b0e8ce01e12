/* rope against the rotation in double; the rows' padding stays as it was. */
#include "check.h"

static void check_rope(void)
{
    const int n_heads = check_param("n_heads"), head_dim = check_param("head_dim"), half = head_dim / 2;
    const int in_stride = check_param("in_stride"), out_stride = check_param("out_stride"), act = check_param("act");
    const int n_tokens = check_param("n_tokens"), columns = n_heads * head_dim;
    const uint16_t *in = check_random_act(n_tokens, columns, in_stride, act);
    const float *table = check_random_f32(n_tokens, head_dim, head_dim);
    const size_t out_len = sizeof(uint16_t) * (size_t)n_tokens * (size_t)out_stride;
    uint16_t *out = check_buffer(out_len);
    double *want = check_doubles((size_t)n_tokens * (size_t)columns);
    for (int t = 0; t < n_tokens; t++)
        for (int c = 0; c < columns; c++) {
            const int i = c % head_dim % half, low = c - c % head_dim + i;
            const double a = check_act_value(in[t * in_stride + low], act);
            const double b = check_act_value(in[t * in_stride + low + half], act);
            const double cosine = (double)table[t * head_dim + i], sine = (double)table[t * head_dim + half + i];
            want[t * columns + c] = c == low ? a * cosine - b * sine : b * cosine + a * sine;
        }
    if (check_param("in_place")) {
        memcpy(out, in, out_len);
        in = out;
    }
    CHECK_LAUNCH(n_tokens / 8 + 2, 1, check_param("threads"), 0, out, in, table, n_tokens);
    check_rows_act("out", out, want, n_tokens, columns, out_stride, act, 1e-6);
    for (int t = 0; t < n_tokens; t++)
        check_untouched("padding", out + t * out_stride + columns, 2 * (size_t)(out_stride - columns));
}

GPU_CHECKS({ "rope", check_rope })
