/* rope_table against libm in double, to 3e-7, at positions up to 1e9. */
#include "check_sequences.h"

static void check_rope_table(void)
{
    const int head_dim = check_param("head_dim"), half = head_dim / 2, sequences = check_param("sequences");
    const int n_tokens = check_param("n_tokens"), first = check_param("first");
    const double theta = check_param_float("theta");
    const CheckSequences of = check_sequences(n_tokens, sequences);
    int64_t *positions = check_buffer(sizeof(int64_t) * (size_t)of.n);
    float *table = check_buffer(sizeof(float) * (size_t)n_tokens * (size_t)head_dim);
    double *want = check_doubles((size_t)n_tokens * (size_t)head_dim);
    for (int i = 0; i < of.n; i++)
        positions[i] = i ? check_random_below(first + 1) : first;
    for (int t = 0, s = 0; t < n_tokens; t++) {
        s += t == check_begin(of, s) + check_len(of, s);
        const int64_t position = positions[s] + t - check_begin(of, s);
        for (int i = 0; i < half; i++) {
            const double angle = (double)position * pow(theta, -2.0 * i / head_dim);
            want[t * head_dim + i] = cos(angle);
            want[t * head_dim + half + i] = sin(angle);
        }
    }
    check_freeze(positions);
    CHECK_LAUNCH(n_tokens + 1, 1, check_param("threads"), 0, table, positions, of.ends, of.n,
                 n_tokens);
    check_rows_f32("table", table, want, n_tokens, head_dim, head_dim, 3e-7);
}

GPU_CHECKS({ "rope_table", check_rope_table })
