/* Keys and values of a chunk go into their ring, position p to row p % rows; only the last ones
 * where the chunk is longer than the ring. Split over threads by panels. Padding is not written: a state
 * holds nothing but what the model remembers, and two that remember the same are equal byte for byte. */
PARAM(kv_stride, s)   /* floats between rows: whole panels */
PARAM(n_columns, c)   /* kv heads * head_dim */
PARAM(window, w)      /* rows of the ring; 0: n_context rows */
PARAM(panel, nr)      /* 2 vectors */

KERNEL(ring_write)(
    float *ring_k,       /* [rows][kv_stride] */
    float *ring_v,       /* [rows][kv_stride] */
    const float *k,      /* [n_tokens][kv_stride] */
    const float *v,      /* [n_tokens][kv_stride] */
    int64_t position,    /* of token 0 */
    int64_t n_context, int n_tokens, int panel_begin, int panel_end)
{
    const int64_t rows = window > 0 ? window : n_context;
    const int first = panel_begin * panel, last = panel_end * panel < n_columns ? panel_end * panel : n_columns;
    const size_t len = last > first ? (size_t)(last - first) * sizeof *k : 0;
    for (int64_t t = n_tokens > rows ? n_tokens - rows : 0; t < n_tokens; t++) {
        const size_t from = (size_t)t * kv_stride + first, to = (size_t)((position + t) % rows) * kv_stride + first;
        memcpy(ring_k + to, k + from, len);
        memcpy(ring_v + to, v + from, len);
    }
}
