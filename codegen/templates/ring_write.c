/* Keys and values of a chunk go into their ring, position p to row p % rows; only the last ones
 * where the chunk is longer than the ring. Split over threads by panels. */
PARAM(kv_stride, s)   /* floats between rows: whole panels */
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
    for (int64_t t = n_tokens > rows ? n_tokens - rows : 0; t < n_tokens; t++) {
        const size_t from = (size_t)t * kv_stride, to = (size_t)((position + t) % rows) * kv_stride;
        for (int i = panel_begin * panel; i < panel_end * panel; i += LANES) {
            vstore(ring_k + to + i, vload(k + from + i));
            vstore(ring_v + to + i, vload(v + from + i));
        }
    }
}
