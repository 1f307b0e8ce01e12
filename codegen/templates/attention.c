/* Causal grouped-query attention of a chunk, over earlier keys (a ring) and its own.
 *
 * An item is one kv head and token_block tokens; a thread takes every item_step-th. Keys come in
 * blocks that start at multiples of key_block of the ABSOLUTE position, and the softmax is online
 * (a running maximum and sum for each row, a row being one query head of one token), so a row
 * meets the same blocks in the same order however the prompt was cut: the result is the same bit
 * for bit. A block's keys are transposed, so that scores are vectors over keys; its values are
 * copied where that pays; all query heads of the kv head share both.
 *
 * scratch, floats: rows * (head_dim + key_block + head_stride + panel + 2) + (2 * key_block + 1) * head_stride
 * with rows = token_block * n_heads / n_kv_heads rounded up to tile_rows.
 */
PARAM(n_heads, n)
PARAM(n_kv_heads, kv)
PARAM(head_dim, h)
PARAM(head_stride, hs)   /* head_dim rounded up to whole panels */
PARAM(q_stride, qs)      /* floats between rows of q */
PARAM(kv_stride, ks)     /* floats between rows of k, v and the rings */
PARAM(out_stride, os)    /* floats between rows of out */
PARAM(window, w)         /* tokens attended to, the current one included; 0: all */
PARAM(token_block, tb)   /* tokens of an item */
PARAM(key_block, kb)     /* keys of a block; whole panels */
PARAM(tile_rows, mr)     /* rows of a register tile */
PARAM(panel, nr)         /* 2 vectors */

KERNEL(attention)(
    float *out,            /* [n_tokens][out_stride]: head h at h * head_dim; may be q if the strides agree */
    const float *q,        /* [n_tokens][q_stride], rotated */
    const float *k,        /* [n_tokens][kv_stride], rotated */
    const float *v,        /* [n_tokens][kv_stride] */
    const float *ring_k,   /* [window or n_context][kv_stride]: positions before `position` */
    const float *ring_v,   /* as ring_k */
    int64_t position,      /* of token 0 */
    int64_t n_context, int n_tokens,
    float *scratch,        /* this thread's, see above */
    int item_begin, int item_step)
{
    const int group = n_heads / n_kv_heads;
    const int max_rows = (token_block * group + tile_rows - 1) / tile_rows * tile_rows;
    const int64_t ring_rows = window > 0 ? window : n_context;
    const float scale = 1.44269504f / sqrtf(head_dim);       /* exp becomes 2^ */
    float *const query = scratch;                            /* [max_rows][head_dim] */
    float *const weight = query + max_rows * head_dim;       /* [max_rows][key_block]: scores, then p */
    float *const sum = weight + max_rows * key_block;        /* [max_rows][head_stride]: Σ p v */
    float *const keys = sum + max_rows * head_stride;        /* [head_stride][key_block] */
    float *const values = keys + head_stride * key_block;    /* [key_block][head_stride] */
    float *const total = values + key_block * head_stride;   /* [max_rows][LANES]: Σ p */
    float *const top = total + max_rows * panel;             /* [max_rows]: largest score so far */
    float *const shrink = top + max_rows;                    /* [max_rows]: of the sums so far */
    float *const zeros = shrink + max_rows;                  /* [head_stride]: a key that is not there */
    const float *value[key_block];                           /* rows of values, or where they came from */
    int seen_begin[max_rows / tile_rows], seen_end[max_rows / tile_rows];    /* keys of a block that a tile's rows see */
    const int copies = token_block > 1 || head_dim != head_stride;   /* one token reads each row once */
    const int n_items = (n_tokens + token_block - 1) / token_block * n_kv_heads;

    for (int i = 0; i < head_stride; i += LANES)
        vstore(zeros + i, vset(0));
    for (int item = item_begin; item < n_items; item += item_step) {
        const int head = item % n_kv_heads, t0 = item / n_kv_heads * token_block;
        const int n_rows = (n_tokens - t0 < token_block ? n_tokens - t0 : token_block) * group;
        const int64_t last = position + t0 + n_rows / group - 1;
        const int64_t first = window > 0 && position + t0 >= window ? position + t0 - window + 1 : 0;

        for (int r = 0; r < max_rows; r++) {
            const float *from = q + (size_t)(t0 + r / group) * q_stride + (head * group + r % group) * head_dim;
            for (int c = 0; c < head_dim; c += LANES)
                vstore_row(query + r * head_dim, c, head_dim, r < n_rows ? vload_row(from, c, head_dim) * scale : vset(0));
            for (int i = 0; i < head_stride; i += LANES)
                vstore(sum + r * head_stride + i, vset(0));
            vstore(total + r * LANES, vset(0));
            top[r] = -INFINITY;
            shrink[r] = 1;
        }

        for (int64_t base = first - first % key_block; base <= last; base += key_block) {
            /* Pack the block; keys that no row may see are zero. */
            int64_t ring_row = base < position ? base % ring_rows : 0;
            for (int j = 0; j < key_block; j += LANES) {
                const float *key[LANES];
                for (int i = 0; i < LANES; i++) {
                    const int64_t at = base + j + i;
                    const int old = at < position, known = at >= first && at <= last;
                    const int64_t row = old ? ring_row : at - position;
                    const size_t from = (size_t)row * kv_stride + (size_t)head * head_dim;
                    value[j + i] = known ? (old ? ring_v : v) + from : zeros;
                    key[i] = known ? (old ? ring_k : k) + from : zeros;
                    ring_row = ring_row + 1 < ring_rows ? ring_row + 1 : 0;
                    if (!copies)
                        continue;
                    float *to = values + (j + i) * head_stride;
                    for (int c = 0; c < head_dim; c += LANES)
                        vstore(to + c, vload_row(value[j + i], c, head_dim));
                    for (int c = (head_dim + LANES - 1) / LANES * LANES; c < head_stride; c += LANES)
                        vstore(to + c, vset(0));
                    value[j + i] = to;
                }
                for (int c = 0; c < head_dim; c += LANES) {
                    vf square[LANES];
                    UNROLL
                    for (int i = 0; i < LANES; i++)
                        square[i] = vload_row(key[i], c, head_dim);
                    vtranspose(square);
                    UNROLL
                    for (int i = 0; i < LANES; i++)
                        vstore(keys + (c + i) * key_block + j, square[i]);
                }
            }

            for (int row = 0; row < n_rows; row += tile_rows) {
                const int last_row = row + tile_rows < n_rows ? row + tile_rows - 1 : n_rows - 1;
                const int64_t from = window > 0 ? position + t0 + row / group - window + 1 - base : 0;
                const int64_t to = position + t0 + last_row / group + 1 - base;
                seen_begin[row / tile_rows] = (int)(from < 0 ? 0 : from);
                seen_end[row / tile_rows] = (int)(to < 0 ? 0 : to > key_block ? key_block : to);
            }

            /* Scores, by panels of keys. */
            for (int row = 0; row < n_rows; row += tile_rows)
                for (int j = seen_begin[row / tile_rows] / panel * panel; j < seen_end[row / tile_rows]; j += panel) {
                    const float *x = query + row * head_dim;
                    vf lo[tile_rows], hi[tile_rows];
                    UNROLL
                    for (int r = 0; r < tile_rows; r++)
                        lo[r] = hi[r] = vset(0);
                    for (int i = 0; i < head_dim; i++) {
                        const vf b_lo = vload(keys + i * key_block + j);
                        const vf b_hi = vload(keys + i * key_block + j + LANES);
                        UNROLL
                        for (int r = 0; r < tile_rows; r++) {
                            const vf a = vbroadcast(x + r * head_dim + i);
                            lo[r] = vfma(a, b_lo, lo[r]);
                            hi[r] = vfma(a, b_hi, hi[r]);
                        }
                    }
                    UNROLL
                    for (int r = 0; r < tile_rows; r++) {
                        vstore(weight + (row + r) * key_block + j, lo[r]);
                        vstore(weight + (row + r) * key_block + j + LANES, hi[r]);
                    }
                }

            /* Online softmax: p = 2^(score - top); what came before shrinks as top grows. */
            for (int r = 0; r < n_rows; r++) {
                float *p = weight + r * key_block;
                const int64_t at = position + t0 + r / group;
                const int64_t oldest = window > 0 && at >= window ? at - window + 1 : 0;
                if (base > at || base + key_block <= oldest) {     /* none of this block is the row's */
                    for (int j = 0; j < key_block; j += LANES)
                        vstore(p + j, vset(0));
                    shrink[r] = 1;
                    continue;
                }
                const int end = at - base < key_block ? (int)(at - base) : key_block;
                const int begin = oldest > base ? (int)(oldest - base) : 0;
                vf most = vset(top[r]), added = vset(0);
                for (int j = 0; j < key_block; j += LANES) {
                    const vi index = viota() + j;
                    const vf s = vselect((index >= begin) & (index <= end), vload(p + j), vset(-INFINITY));
                    most = vmax(most, s);
                    vstore(p + j, s);
                }
                const float new_top = vmax_lanes(most);
                const vf factor = vexp2(vset(top[r] - new_top));
                for (int j = 0; j < key_block; j += LANES) {
                    const vf e = vexp2(vload(p + j) - new_top);
                    added += e;
                    vstore(p + j, e);
                }
                vstore(total + r * LANES, vfma(factor, vload(total + r * LANES), added));
                top[r] = new_top;
                shrink[r] = factor[0];
            }

            /* Values; keys that no row of the tile sees would add zeros. */
            for (int row = 0; row < n_rows; row += tile_rows)
                for (int c = 0; c < head_stride; c += panel) {
                    const float *x = weight + row * key_block;
                    vf lo[tile_rows], hi[tile_rows];
                    UNROLL
                    for (int r = 0; r < tile_rows; r++) {
                        const float *old = sum + (row + r) * head_stride + c;
                        lo[r] = vload(old) * shrink[row + r];
                        hi[r] = vload(old + LANES) * shrink[row + r];
                    }
                    for (int j = seen_begin[row / tile_rows]; j < seen_end[row / tile_rows]; j++) {
                        const vf b_lo = vload(value[j] + c), b_hi = vload(value[j] + c + LANES);
                        UNROLL
                        for (int r = 0; r < tile_rows; r++) {
                            const vf a = vbroadcast(x + r * key_block + j);
                            lo[r] = vfma(a, b_lo, lo[r]);
                            hi[r] = vfma(a, b_hi, hi[r]);
                        }
                    }
                    UNROLL
                    for (int r = 0; r < tile_rows; r++) {
                        vstore(sum + (row + r) * head_stride + c, lo[r]);
                        vstore(sum + (row + r) * head_stride + c + LANES, hi[r]);
                    }
                }
        }

        for (int r = 0; r < n_rows; r++) {
            float *to = out + (size_t)(t0 + r / group) * out_stride + (head * group + r % group) * head_dim;
            const vf one_over = vset(1 / vsum(vload(total + r * LANES)));
            for (int c = 0; c < head_dim; c += LANES)
                vstore_row(to, c, head_dim, vload(sum + r * head_stride + c) * one_over);
        }
    }
}
