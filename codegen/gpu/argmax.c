/* The likeliest token of every sequence becomes its next: the largest logit, of equals the first, never NaN.
 *
 * Grid: a sequence a block; 256 threads. Shared: 64 bytes. A row without a number gives token 0. The token is kept in
 * history[position % 1024] too, and the position grows by 1.
 */
PARAM(vocab_size, v)

enum { ARGMAX_HISTORY = 1024, ARGMAX_SEQUENCES = 16, ARGMAX_WARPS = 8 };

/* Keep the larger value, of equals the one that comes first; at -1: none. */
DEVICE void argmax_take(float *value, int *at, float other, int other_at)
{
    if (other_at >= 0 && (*at < 0 || other > *value || (other == *value && other_at < *at))) {
        *value = other;
        *at = other_at;
    }
}

DEVICE void argmax_warp(float *value, int *at)
{
    UNROLL for (int mask = 16; mask > 0; mask /= 2) {
        const float other = shuffle_xor_f(*value, mask);
        const int other_at = shuffle_xor_i(*at, mask);
        argmax_take(value, at, other, other_at);
    }
}

KERNEL(argmax)(int32_t *tokens /* [sequences] */, int32_t *history /* [1024][16] */, int64_t *positions,
    const float *logits /* [sequences][vocab_size] */)
{
    float *const values = shared();                  /* [WARPS] */
    int32_t *const places = (int32_t *)(values + ARGMAX_WARPS);
    const int sequence = block_x();
    const float *row = logits + (int64_t)sequence * vocab_size;
    float value = 0;
    int at = -1;
    dependency_wait();
    dependency_launch();
    for (int i = thread_x(); i < vocab_size; i += n_threads())
        argmax_take(&value, &at, row[i], row[i] == row[i] ? i : -1);
    argmax_warp(&value, &at);
    if (lane() == 0) {
        values[warp()] = value;
        places[warp()] = at;
    }
    barrier();
    if (thread_x() >= 32)
        return;
    value = lane() < ARGMAX_WARPS ? values[lane()] : 0;
    at = lane() < ARGMAX_WARPS ? places[lane()] : -1;
    argmax_warp(&value, &at);
    if (thread_x() == 0) {
        const int64_t position = positions[sequence];
        tokens[sequence] = max_i(at, 0);
        history[position % ARGMAX_HISTORY * ARGMAX_SEQUENCES + sequence] = max_i(at, 0);
        positions[sequence] = position + 1;
    }
}
