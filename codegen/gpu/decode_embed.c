/* Decode: the rows of the tokens, and what the first layer's norm and router need of them.
 *
 * A block makes 8 columns of x. Grid: d_model / 8; a warp a row, up to 16. weights [vocab][k], q8: times scales
 * [vocab].
 */
PARAM(d_model, n) PARAM(weight_dtype, w) PARAM(act, a) PARAM(next_experts, ne)

KERNEL(decode_embed)(float *x /* [n_rows][d_model] */, float *next /* [n_rows][next_experts + 1][blocks] */,
    const int32_t *tokens, const void *weights, const float *scales, const float *next_norm, const float *next_router,
    int32_t n_rows)
{
    const int n_next = next_experts > 1 ? next_experts : 0, column0 = block_x() * 8, column = column0 + lane() % 8;
    const int64_t row_len = (d_model + 63) / 64 * 64;
    float *items = shared();
    for (int i = thread_x(); i < 8 * n_next; i += n_threads())
        items[i] = decode_leave_item(i, next_router, next_norm, n_next, d_model, column0);
    barrier();
    dependency_wait();
    dependency_launch();
    for (int row = warp(); row < n_rows; row += n_threads() / 32) {
        const int64_t token = tokens[row];
        float value = 0;
        if (column < d_model && weight_dtype == 3)
            value = scales[token] * (float)((const int8_t *)weights)[token * row_len + column];
        else if (column < d_model)
            value = act_float(((const act_t *)weights)[token * row_len + column], act);
        if (lane() < 8 && column < d_model)
            x[(int64_t)row * d_model + column] = value;
        decode_leave(next, items, value, row, n_next, n_blocks_x(), block_x());
    }
}
