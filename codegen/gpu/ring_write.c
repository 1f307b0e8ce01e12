/* Keys and values of this call go into their rings, position p to row p modulo rows.
 *
 * rows = window, or n_context with window 0. Of a call longer than the ring only the last rows are
 * written, so no row is written twice. sequences: 0, token t belongs to slot slots[0], at
 * positions[0] + t; 1, to slots[t], at positions[t]. Padding of rows is not written: states that
 * remember the same are equal byte for byte.
 *
 * Grid: a token a block; any number of threads.
 */
PARAM(n_columns, c) PARAM(kv_stride, ks) PARAM(window, w) PARAM(act, a) PARAM(sequences, sq)

KERNEL(ring_write)(act_t *ring_k /* slot 0's [rows][kv_stride] */, act_t *ring_v /* the same */,
    const act_t *k /* [n_tokens][kv_stride] */, const act_t *v /* the same */, const int64_t *positions,
    const int32_t *slots, int64_t state_stride, int64_t n_context, int32_t n_tokens)
{
    const int t = block_x();
    const int64_t rows = window > 0 ? (int64_t)window : n_context;
    dependency_wait();
    dependency_launch();
    if (t >= n_tokens || (!sequences && t < n_tokens - rows))
        return;
    const int64_t position = sequences ? positions[t] : positions[0] + t;
    const int64_t slot = (sequences ? slots[t] : slots[0]) * state_stride;
    const int64_t from = (int64_t)t * kv_stride, to = position % rows * kv_stride;
    act_t *to_k = (act_t *)((uint8_t *)ring_k + slot) + to, *to_v = (act_t *)((uint8_t *)ring_v + slot) + to;
    for (int i = thread_x(); i < n_columns / 8; i += n_threads()) {
        store16(to_k + i * 8, load16(k + from + i * 8));
        store16(to_v + i * 8, load16(v + from + i * 8));
    }
    for (int i = n_columns / 8 * 8 + thread_x(); i < n_columns; i += n_threads()) {
        to_k[i] = k[from + i];
        to_v[i] = v[from + i];
    }
}
