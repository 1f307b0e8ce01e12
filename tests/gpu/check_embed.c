/* embed: every token's row, exactly; nothing for blocks beyond the last token. */
#include "check.h"

static void check_embed(void)
{
    const int d_model = check_param("d_model"), n_tokens = check_param("n_tokens"), vocab = check_param("vocab");
    const int stride = (d_model + 7) / 8 * 8;
    const CheckWeights matrix = check_random_weights(1, vocab, d_model, check_param("weight_dtype"));
    int32_t *tokens = check_buffer(sizeof(int32_t) * (size_t)n_tokens);
    float *x = check_buffer(sizeof(float) * (size_t)n_tokens * (size_t)stride);
    const int n_totals = 3 * (vocab - 1);
    int32_t *totals = check_buffer(sizeof(int32_t) * (size_t)(n_totals + 1));
    int32_t *none = check_buffer(sizeof(int32_t) * (size_t)(n_totals + 1));
    memset(none, 0, sizeof(int32_t) * (size_t)n_totals);
    double *want = check_doubles((size_t)n_tokens * (size_t)d_model);
    for (int t = 0; t < n_tokens; t++) {
        tokens[t] = t == 0 ? vocab - 1 : check_random_below(vocab);
        for (int i = 0; i < d_model; i++)
            want[t * d_model + i] = matrix.plain[tokens[t] * d_model + i];
    }
    check_freeze(tokens);
    CHECK_LAUNCH(n_tokens + 2, 1, check_param("threads"), 0, x, tokens, matrix.weights, matrix.scales,
        totals, n_totals, n_tokens);
    check_ints("totals", totals, none, (size_t)n_totals);
    check_untouched("behind the totals", totals + n_totals, sizeof *totals);
    check_rows_f32("x", x, want, n_tokens, d_model, stride, matrix.scales ? 0x1p-23 : 0);
}

GPU_CHECKS({ "embed", check_embed })
