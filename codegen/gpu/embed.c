/* Token rows: x[t] = weights[tokens[t]], widened to float32. First of its list, it sets what routers count to zero.
 *
 * Grid: a token a block; any number of threads. weights [vocab][k], k = d_model rounded up to 64;
 * q8: times scales [vocab].
 */
PARAM(d_model, n) PARAM(weight_dtype, w) PARAM(act, a)

KERNEL(embed)(float *x /* [n_tokens][d_model] */, const int32_t *tokens, const void *restrict weights,
    const float *restrict scales, int32_t *totals, int32_t n_totals, int32_t n_tokens)
{
    const int64_t row_len = (d_model + 63) / 64 * 64;
    const int64_t t = block_x();
    dependency_wait();
    dependency_launch();
    for (int i = thread_x(); t == 0 && i < n_totals; i += n_threads())
        totals[i] = 0;
    if (t >= n_tokens)
        return;
    const int64_t token = tokens[t];
    float *to = x + t * ((d_model + 7) / 8 * 8);
    if (weight_dtype == 3) {
        const int8_t *from = (const int8_t *)weights + token * row_len;
        const float scale = scales[token];
        for (int i = thread_x(); i < d_model; i += n_threads())
            to[i] = scale * (float)from[i];
    } else {
        const act_t *from = (const act_t *)weights + token * row_len;
        for (int i = thread_x(); i < d_model; i += n_threads())
            to[i] = act_float(from[i], act);
    }
}
