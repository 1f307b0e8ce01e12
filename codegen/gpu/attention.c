/* Causal grouped-query attention of a chunk on tensor cores, with a running softmax in float32.
 *
 * A block takes one kv head and a tile of rows, a row being one query head of one token. It walks over the
 * keys that any of them sees, tile_keys at a time, while the next blocks of keys are copied: first the ring's,
 * then this call's. Blocks of keys start at multiples of tile_keys of the absolute position, and keys a row does
 * not see change nothing, not even a bit: how a prompt is cut makes no difference, nor do the other parameters.
 * Scores are S = Q Kᵀ, p = 2^(c (S - top)), out = Σ p v / Σ p; c top is at most 8 below the largest c S.
 *
 * Grid: tokens / T + n_sequences - 1, with G = n_heads / n_kv_heads, H = min(G, tile_rows), T = tile_rows / H
 * rounded down; n_kv_heads · ceil(G / H). Threads: 32 warps. D is head_dim rounded up to 16; shared bytes:
 * (tile_rows + 2 stages · tile_keys) · (D + 8) · 2. head_dim: a multiple of 8, at most 128. `out` may be `q`.
 * A warp has 16 or 32 rows, of which its threads hold 16 (tile_keys + D) or twice as many sums; tile_keys · D is a
 * multiple of 256 warps.
 */
PARAM(n_heads, n) PARAM(n_kv_heads, kv) PARAM(head_dim, h) PARAM(q_stride, qs) PARAM(new_stride, ns)
PARAM(kv_stride, ks) PARAM(out_stride, os) PARAM(window, w) PARAM(act, a)
PARAM(tile_rows, tr)     /* 16 or 32 a warp */
PARAM(tile_keys, tk)     /* 32, 64, 128 */
PARAM(warps, nw)         /* 4, 8 */
PARAM(stages, st)        /* blocks of keys on their way or in use, 2 to 4 */

enum { MAX_KEYS = 128, MAX_DIM = 128, MAX_TILES = 2 };

/* Where this thread's i-th 16 bytes of a block of keys lie: rows [tile_keys][row_len]. */
DEVICE int chunk_row(int i)
{
    const int row_chunks = (head_dim + 15) / 16 * 2;
    return 32 * warps % row_chunks == 0 ? i * (32 * warps / row_chunks) + thread_x() / row_chunks
        : (i * (32 * warps) + thread_x()) / row_chunks;
}
DEVICE int chunk_column(int i)
{
    const int row_chunks = (head_dim + 15) / 16 * 2;
    return (32 * warps % row_chunks == 0 ? thread_x() : i * (32 * warps) + thread_x()) % row_chunks * 8;
}

/* The keys and values at base … base + tile_keys - 1, zeros where no row of the tile looks. */
DEVICE void load_keys(act_t *to_k, act_t *to_v, const act_t *k, const act_t *v, const act_t *ring_k,
    const act_t *ring_v, int64_t base, int64_t first, int64_t last, int64_t position, int64_t n_context)
{
    const int dim = (head_dim + 15) / 16 * 16, row_len = dim + 8;
    if (base >= position && base >= first && base + (tile_keys - 1) <= last) {  /* most: this call's, and all of them */
        const int64_t from = (base - position) * new_stride;
        UNROLL
        for (int i = 0; i < tile_keys * dim / 8 / (32 * warps); i++) {
            const int row = chunk_row(i), column = chunk_column(i), n_bytes = column < head_dim ? 16 : 0;
            copy_async16(to_k + row * row_len + column, k + from + row * new_stride + column, n_bytes);
            copy_async16(to_v + row * row_len + column, v + from + row * new_stride + column, n_bytes);
        }
        return;
    }
    const uint32_t ring_rows = window > 0 ? (uint32_t)window : (uint32_t)n_context;
    const uint32_t ring_base = base < position ? (uint32_t)(base % ring_rows) : 0;
    for (int i = 0; i < tile_keys * dim / 8 / (32 * warps); i++) {
        const int row = chunk_row(i), column = chunk_column(i);
        const int64_t at = base + row;
        const bool is_old = at < position, is_known = at >= first && at <= last && column < head_dim;
        int64_t from = 0;
        if (is_known)
            from = column + (is_old ? (int64_t)((ring_base + (uint32_t)row) % ring_rows) * kv_stride
                : (at - position) * new_stride);
        const int n_bytes = is_known ? 16 : 0;
        copy_async16(to_k + row * row_len + column, (is_known && is_old ? ring_k : k) + from, n_bytes);
        copy_async16(to_v + row * row_len + column, (is_known && is_old ? ring_v : v) + from, n_bytes);
    }
}

/* Of one row: 2^(scale (score - top)) instead of the scores. Returns this thread's part of their sum. */
DEVICE float weigh(float score[MAX_KEYS / 8][4], const int half, float scale, float top)
{
    const float offset = -top * scale;
    float added = 0.0f;
    UNROLL
    for (int j = 0; j < tile_keys / 8; j++)
        UNROLL
        for (int e = 0; e < 2; e++) {
            const float p = exp2_fast(fma_f(score[j][half * 2 + e], scale, offset));
            score[j][half * 2 + e] = p;
            added += p;
        }
    return added;
}

/* What sums are relative to, `top`, follows the largest score when that is more than 2^8 times ahead: rarely. */
DEVICE void raise_top(float score[MAX_TILES][MAX_KEYS / 8][4], float sum[MAX_TILES][MAX_DIM / 8][4],
    float top[MAX_TILES][2], float total[MAX_TILES][2], float scale)
{
    const int m_tiles = tile_rows / (16 * warps), dim = (head_dim + 15) / 16 * 16;
    float most[MAX_TILES][2];
    int rises = 0;
    UNROLL
    for (int m = 0; m < m_tiles; m++)
        UNROLL
        for (int half = 0; half < 2; half++) {
            float x = -INFINITY;
            UNROLL
            for (int j = 0; j < tile_keys / 8; j++)
                x = max_f(x, max_f(score[m][j][half * 2], score[m][j][half * 2 + 1]));
            x = max_f(x, shuffle_xor_f(x, 1));
            x = max_f(x, shuffle_xor_f(x, 2));
            most[m][half] = (x - top[m][half]) * scale > 8.0f ? x : top[m][half];
            rises |= most[m][half] != top[m][half];
        }
    if (!ballot(rises))
        return;
    UNROLL
    for (int m = 0; m < m_tiles; m++)
        UNROLL
        for (int half = 0; half < 2; half++) {
            const float shrink = exp2_fast((top[m][half] - most[m][half]) * scale);
            top[m][half] = most[m][half];
            total[m][half] *= shrink;
            UNROLL
            for (int i = 0; i < dim / 8; i++) {
                sum[m][i][half * 2] *= shrink;
                sum[m][i][half * 2 + 1] *= shrink;
            }
        }
}

KERNEL(attention)(act_t *out /* [n_tokens][out_stride] */, const act_t *q /* [n_tokens][q_stride], rotated */,
    const act_t *k /* [n_tokens][new_stride], rotated */, const act_t *v, const act_t *ring_k /* [rows][kv_stride] */,
    const act_t *ring_v, const int64_t *positions, const int32_t *slots, const int32_t *ends, int64_t state_stride,
    int64_t n_context, int32_t n_sequences, int32_t n_tokens)
{
    const int group = n_heads / n_kv_heads, m_tiles = tile_rows / (16 * warps);
    const int tile_heads = group < tile_rows ? group : tile_rows, tile_tokens = tile_rows / tile_heads;
    const int head_tiles = (group + tile_heads - 1) / tile_heads;
    const int dim = (head_dim + 15) / 16 * 16, row_len = dim + 8;

    const int kv_head = block_y() / head_tiles, first_head = block_y() % head_tiles * tile_heads;   /* of the group */
    act_t *queries = shared();                                 /* [tile_rows][row_len] */
    act_t *keys = queries + tile_rows * row_len;               /* [stages][tile_keys][row_len] */
    act_t *values = keys + stages * tile_keys * row_len;       /* as keys */

    dependency_wait();
    dependency_launch();
    /* the longest walks first */
    const SequenceTile tile = sequence_tile(ends, n_sequences, n_tokens, n_blocks_x() - 1 - block_x(), tile_tokens);
    const int t0 = tile.first, t1 = min_i(t0 + tile_tokens, tile.end - tile.begin);
    if (t0 >= t1)
        return;
    const int64_t position = positions[tile.sequence], slot = slots[tile.sequence] * state_stride;
    const int64_t last = position + t1 - 1;
    const int64_t first = window > 0 && position + t0 >= window ? position + t0 - window + 1 : 0;
    const int64_t begin = first & -(int64_t)tile_keys;
    q += (int64_t)tile.begin * q_stride;
    out += (int64_t)tile.begin * out_stride;
    k += (int64_t)tile.begin * new_stride + kv_head * head_dim;
    v += (int64_t)tile.begin * new_stride + kv_head * head_dim;
    ring_k = (const act_t *)((const uint8_t *)ring_k + slot) + kv_head * head_dim;
    ring_v = (const act_t *)((const uint8_t *)ring_v + slot) + kv_head * head_dim;

    for (int i = 0; i < tile_rows * (dim / 8) / (32 * warps); i++) {
        const int chunk = i * (32 * warps) + thread_x(), row = chunk / (dim / 8), column = chunk % (dim / 8) * 8;
        const int token = t0 + row / tile_heads, head = first_head + row % tile_heads;
        const bool is_known = token < t1 && head < group && column < head_dim;
        const int64_t from = is_known ? (int64_t)token * q_stride + (kv_head * group + head) * head_dim + column : 0;
        copy_async16(queries + row * row_len + column, q + from, is_known ? 16 : 0);
    }
    load_keys(keys, values, k, v, ring_k, ring_v, begin, first, last, position, n_context);
    copy_commit();
    for (int i = 1; i < stages - 1; i++) {
        if (begin + i * tile_keys <= last)
            load_keys(keys + i * tile_keys * row_len, values + i * tile_keys * row_len, k, v, ring_k, ring_v,
                begin + i * tile_keys, first, last, position, n_context);
        copy_commit();
    }
    copy_wait(stages - 2);
    barrier();

    /* Fragments of this warp's m_tiles · 16 rows; this thread's rows in one are lane / 4 and that + 8. */
    float sum[MAX_TILES][MAX_DIM / 8][4], top[MAX_TILES][2], total[MAX_TILES][2];
    const int warp_row = warp() * 16 * m_tiles;
    UNROLL
    for (int m = 0; m < m_tiles; m++) {
        UNROLL
        for (int i = 0; i < dim / 8; i++)
            sum[m][i][0] = sum[m][i][1] = sum[m][i][2] = sum[m][i][3] = 0.0f;
        top[m][0] = top[m][1] = -1e30f;              /* finite: the difference to -infinity is no NaN */
        total[m][0] = total[m][1] = 0.0f;
    }
    const float scale = 1.44269504f * rsqrt_fast((float)head_dim);
    const int key_row = lane() / 16 * 8 + lane() % 8, key_column = lane() / 8 % 2 * 8;
    const int value_row = lane() % 16, value_column = lane() / 16 * 8;
    const act_t *warp_queries = queries + (warp_row + lane() % 16) * row_len + lane() / 16 * 8;

    for (int64_t base = begin; base <= last; base += tile_keys) {
        const int stage = (int)((base - begin) / tile_keys % stages);
        const act_t *block_keys = keys + stage * tile_keys * row_len;
        const act_t *block_values = values + stage * tile_keys * row_len;
        if (base > begin) {
            copy_wait(stages - 2);
            barrier();                  /* all have the block, and are done with the one before */
        }
        float score[MAX_TILES][MAX_KEYS / 8][4];
        UNROLL
        for (int m = 0; m < m_tiles; m++)
            UNROLL
            for (int j = 0; j < tile_keys / 8; j++)
                score[m][j][0] = score[m][j][1] = score[m][j][2] = score[m][j][3] = 0.0f;
        UNROLL
        for (int i = 0; i < dim / 16; i++) {
            uint32_t query[MAX_TILES][4];            /* again every time: registers are short */
            UNROLL
            for (int m = 0; m < m_tiles; m++)
                matrix_load4(query[m], warp_queries + m * 16 * row_len + i * 16);
            UNROLL
            for (int j = 0; j < tile_keys / 16; j++) {
                uint32_t b[4];
                matrix_load4(b, block_keys + (j * 16 + key_row) * row_len + i * 16 + key_column);
                UNROLL
                for (int m = 0; m < m_tiles; m++) {
                    mma_16x8x16(score[m][2 * j], query[m], b, act);
                    mma_16x8x16(score[m][2 * j + 1], query[m], b + 2, act);
                }
            }
        }

        const int64_t next = base + (stages - 1) * tile_keys;
        const int next_stage = (stage + stages - 1) % stages;
        if (next <= last)
            load_keys(keys + next_stage * tile_keys * row_len, values + next_stage * tile_keys * row_len, k, v, ring_k,
                ring_v, next, first, last, position, n_context);
        copy_commit();

        if (base + (tile_keys - 1) > position + t0 || (window > 0 && base <= last - window)) {
            UNROLL
            for (int m = 0; m < m_tiles; m++)
                UNROLL
                for (int half = 0; half < 2; half++) {
                    const int row = warp_row + m * 16 + half * 8 + lane() / 4;
                    const int newest = (int)(position + t0 + row / tile_heads - base);
                    UNROLL
                    for (int j = 0; j < tile_keys / 8; j++)
                        UNROLL
                        for (int e = 0; e < 2; e++) {
                            const int key = j * 8 + lane() % 4 * 2 + e;
                            if (key > newest || (window > 0 && key <= newest - window))
                                score[m][j][half * 2 + e] = -INFINITY;
                        }
                }
        }

        raise_top(score, sum, top, total, scale);
        UNROLL
        for (int m = 0; m < m_tiles; m++)
            UNROLL
            for (int half = 0; half < 2; half++)
                total[m][half] += weigh(score[m], half, scale, top[m][half]);

        UNROLL
        for (int j = 0; j < tile_keys / 16; j++) {
            uint32_t p[MAX_TILES][4];
            UNROLL
            for (int m = 0; m < m_tiles; m++)
                UNROLL
                for (int i = 0; i < 4; i++)
                    p[m][i] = act_pack(score[m][2 * j + i / 2][i % 2 * 2], score[m][2 * j + i / 2][i % 2 * 2 + 1], act);
            UNROLL
            for (int i = 0; i < dim / 16; i++) {
                uint32_t b[4];
                matrix_load4_transposed(b, block_values + (j * 16 + value_row) * row_len + i * 16 + value_column);
                UNROLL
                for (int m = 0; m < m_tiles; m++) {
                    mma_16x8x16(sum[m][2 * i], p[m], b, act);
                    mma_16x8x16(sum[m][2 * i + 1], p[m], b + 2, act);
                }
            }
        }
    }

    UNROLL
    for (int m = 0; m < m_tiles; m++)
        UNROLL
        for (int half = 0; half < 2; half++) {
            const int row = warp_row + m * 16 + half * 8 + lane() / 4;
            const int token = t0 + row / tile_heads, head = first_head + row % tile_heads;
            total[m][half] += shuffle_xor_f(total[m][half], 1);
            total[m][half] += shuffle_xor_f(total[m][half], 2);
            const float one_over = reciprocal_fast(total[m][half]);
            act_t *to = out + (int64_t)token * out_stride + (kv_head * group + head) * head_dim + lane() % 4 * 2;
            if (token >= t1 || head >= group)
                continue;
            UNROLL
            for (int i = 0; i < head_dim / 8; i++)
                *(uint32_t *)(to + i * 8)
                    = act_pack(sum[m][i][half * 2] * one_over, sum[m][i][half * 2 + 1] * one_over, act);
        }
}
