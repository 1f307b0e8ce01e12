/* Keys and values of this call go into their rings, position p to row p modulo rows.
 *
 * rows = window, or n_context with window 0. Of a sequence longer than the ring only the last rows are
 * written, so no row is written twice. sequences: 0, token t of sequence i belongs to slot slots[i], at
 * positions[i] + t; 1, every token is a sequence. Padding of rows is not written: states that remember
 * the same are equal byte for byte.
 *
 * Grid: 8 tokens a block; any number of threads.
 */
PARAM(n_columns, c) PARAM(new_stride, ns) PARAM(kv_stride, ks) PARAM(window, w) PARAM(act, a) PARAM(sequences, sq)

enum { RING_TOKENS = 8 };

KERNEL(ring_write)(act_t *ring_k /* slot 0's [rows][kv_stride] */, act_t *ring_v /* the same */,
    const act_t *k /* [n_tokens][new_stride] */, const act_t *v /* the same */, const int64_t *positions,
    const int32_t *slots, const int32_t *ends, int64_t state_stride, int64_t n_context, int32_t n_sequences,
    int32_t n_tokens)
{
    const int whole = n_columns / 8, n_steps = whole + n_columns % 8;         /* of 8 columns, then of one */
    const int64_t rows = window > 0 ? (int64_t)window : n_context;
    dependency_wait();
    dependency_launch();
    const int first = block_x() * RING_TOKENS, n = min_i(n_tokens - first, RING_TOKENS);
    for (int j = thread_x(); j < n * n_steps; j += n_threads()) {
        const int t = first + j / n_steps, step = j % n_steps;
        const SequenceTile at = sequences ? (SequenceTile){ t, t, t + 1, 0 }
            : sequence_of_row(ends, n_sequences, n_tokens, t);
        if (t < at.end - rows)
            continue;
        const int64_t position = positions[at.sequence] + at.first, slot = slots[at.sequence] * state_stride;
        const int column = step < whole ? step * 8 : step + whole * 7;
        const int64_t from = (int64_t)t * new_stride + column, to = position % rows * kv_stride + column;
        act_t *to_k = (act_t *)((uint8_t *)ring_k + slot) + to, *to_v = (act_t *)((uint8_t *)ring_v + slot) + to;
        if (step < whole) {
            store16(to_k, load16(k + from));
            store16(to_v, load16(v + from));
        } else {
            *to_k = k[from];
            *to_v = v[from];
        }
    }
}
