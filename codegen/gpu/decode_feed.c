/* After decode: the token of the largest logit is the next one, kept in the history, and positions grow by 1.
 *
 * Grid: a row a block; 32 threads. best and best_at are decode_head's. A row without a number gets token 0.
 */
PARAM(n_parts, np) PARAM(history, hi)

KERNEL(decode_feed)(int32_t *tokens /* [n_rows] */, int32_t *kept /* [history][16] */, int64_t *positions,
    const float *best /* [n_rows][n_parts] */, const int32_t *best_at, int32_t n_rows)
{
    const int row = block_x();
    dependency_wait();
    dependency_launch();
    if (row >= n_rows)
        return;
    float largest = 0;
    int where = -1;
    for (int i = lane(); i < n_parts; i += 32) {
        const float value = best[(int64_t)row * n_parts + i];
        const int column = best_at[(int64_t)row * n_parts + i];
        if (column >= 0 && (where < 0 || value > largest)) {
            largest = value;
            where = column;
        }
    }
    decode_pick(&largest, &where);
    if (lane() == 0) {
        const int64_t position = positions[row];
        tokens[row] = max_i(where, 0);
        kept[position % history * DECODE_ROWS + row] = max_i(where, 0);
        positions[row] = position + 1;
    }
}
