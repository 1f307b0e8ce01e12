/* Causal grouped-query attention of a chunk for Hopper: attention with wgmma, keys and values fetched by other warps.
 *
 * Rows, tiles, blocks of keys and their order are those of attention, and again keys that a row does not see change
 * nothing, not even a bit. A tile has 128 rows. Warps 0 to 3 fetch blocks of tile_keys rows into a ring of 2 stages
 * slots, in the order they are used: K0, K1 V0, K2 V1, … Vn. Warps 4 to 11 are two groups of 64 rows: each begins the
 * scores of a block and the sum of values of the one before, and turns these scores into weights while that sum goes
 * on. A slot has two mbarriers, at which every lane arrives: full (its rows are there), empty (both groups read it).
 *
 * Grid: as attention's with tile_rows 128. Threads: 384. P is head_dim / 64 rounded up; shared bytes:
 * 1024 + 16384 P + 2 stages · (128 P · tile_keys + 16). head_dim: a multiple of 8, at most 128. `out` may be `q`.
 */
PARAM(n_heads, n) PARAM(n_kv_heads, kv) PARAM(head_dim, h) PARAM(q_stride, qs) PARAM(new_stride, ns)
PARAM(kv_stride, ks) PARAM(out_stride, os) PARAM(window, w) PARAM(act, a)
PARAM(form, f)           /* 2; 1 is attention */
PARAM(tile_keys, tk)     /* 64, 128 */
PARAM(stages, st)        /* blocks of keys and of values on their way or in use, 2 to 4 */

enum { TILE_ROWS = 128, MAX_KEYS = 128, MAX_DIM = 128, QUERIES_LEN = TILE_ROWS * 128 };

/* Chunk `chunk` (16 bytes) of a row of a matrix for wgmma. */
DEVICE int attention_h100_place(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }

/* Matrices of 64 columns that a row of head_dim makes; bytes of a slot. */
DEVICE int attention_h100_parts(void) { return (head_dim + 63) / 64; }
DEVICE int attention_h100_slot_len(void) { return attention_h100_parts() * tile_keys * 128; }

/* A slot of the ring, and the parity of the phase that is waited for there. */
typedef struct { int slot, parity; } RingPlace;

DEVICE RingPlace attention_h100_after(RingPlace at)
{
    const bool is_last = at.slot == 2 * stages - 1;
    return (RingPlace){ is_last ? 0 : at.slot + 1, at.parity ^ is_last };
}

/* Absolute positions: of the first block of keys, of the first and the last key that a row of the tile sees, and of the
 * call's first token, before which keys are in a ring of ring_rows. */
typedef struct { int64_t begin, first, last, position; uint32_t ring_rows; } KeyWalk;

/* ---- fetching ---- */

/* The rows (keys or values) at base … base + tile_keys - 1, zeros where no row of the tile looks. */
DEVICE void attention_h100_load(char *to, const act_t *rows, const act_t *ring, int64_t base, KeyWalk walk)
{
    const int n_parts = attention_h100_parts(), row = thread_x() >> 3, chunk = thread_x() & 7;
    char *const own = to + attention_h100_place(row, chunk);
    if (base >= walk.position && base >= walk.first && base + tile_keys - 1 <= walk.last) {
        const act_t *const from = rows + (base - walk.position + row) * new_stride + chunk * 8;
        UNROLL for (int part = 0; part < n_parts; part++)
            UNROLL for (int i = 0; i < tile_keys / 16; i++)
                copy_async16(own + (part * tile_keys + i * 16) * 128, from + (int64_t)i * 16 * new_stride + part * 64,
                    part * 64 + chunk * 8 < head_dim ? 16 : 0);
        return;
    }
    const uint32_t ring_base = base < walk.position ? (uint32_t)(base % walk.ring_rows) : 0;
    for (int i = 0; i < tile_keys / 16; i++) {
        const int64_t at = base + row + i * 16;
        const bool is_old = at < walk.position, is_known = at >= walk.first && at <= walk.last;
        const act_t *from = rows;
        if (is_known)
            from = is_old ? ring + (int64_t)((ring_base + (uint32_t)(row + i * 16)) % walk.ring_rows) * kv_stride
                : rows + (at - walk.position) * new_stride;
        UNROLL for (int part = 0; part < n_parts; part++) {
            const int column = part * 64 + chunk * 8, n_bytes = is_known && column < head_dim ? 16 : 0;
            copy_async16(own + (part * tile_keys + i * 16) * 128, n_bytes ? from + column : rows, n_bytes);
        }
    }
}

/* Warps 0 to 3. */
DEVICE void attention_h100_fetch(char *ring, char *full, char *empty, const act_t *k, const act_t *v,
    const act_t *ring_k, const act_t *ring_v, KeyWalk walk)
{
    RingPlace at = { 0, 1 };
    for (int64_t base = walk.begin; base - tile_keys <= walk.last; base += tile_keys) {
        if (base <= walk.last) {
            mbarrier_wait(empty + at.slot * 8, at.parity);
            attention_h100_load(ring + at.slot * attention_h100_slot_len(), k, ring_k, base, walk);
            mbarrier_arrive_copied(full + at.slot * 8);
            at = attention_h100_after(at);
        }
        if (base > walk.begin) {
            mbarrier_wait(empty + at.slot * 8, at.parity);
            attention_h100_load(ring + at.slot * attention_h100_slot_len(), v, ring_v, base - tile_keys, walk);
            mbarrier_arrive_copied(full + at.slot * 8);
            at = attention_h100_after(at);
        }
    }
}

/* ---- multiplying: this thread's rows are `row` and row + 8, its scores and sums as wgmma_piece has them ---- */

/* Asynchronous: score = queries · keysᵀ */
DEVICE void attention_h100_score(float *score, uint64_t queries, uint64_t keys)
{
    UNROLL for (int part = 0; part < attention_h100_parts(); part++)
        wgmma_piece(score, tile_keys, queries + part * (QUERIES_LEN / 16), keys + part * (tile_keys * 8), part > 0,
            act);
}

/* Asynchronous: sum += weights · values */
DEVICE void attention_h100_add(float *sum, const uint32_t *weight, uint64_t values)
{
    UNROLL for (int part = 0; part < attention_h100_parts(); part++)
        UNROLL for (int i = 0; i < tile_keys / 16; i++)
            wgmma_step(sum + part * 32, weight + i * 4, values + (part * tile_keys + i * 16) * 8, act);
}

/* newest: of the tile's first token, counted from the block's first key. */
DEVICE void attention_h100_mask(float *score, int row, int newest, int tile_heads)
{
    UNROLL for (int half = 0; half < 2; half++) {
        const int own = newest + (row + half * 8) / tile_heads;
        UNROLL for (int i = 0; i < tile_keys / 4; i++) {
            const int key = i / 2 * 8 + lane() % 4 * 2 + i % 2;
            if (key > own || (window > 0 && key <= own - window))
                score[i / 2 * 4 + half * 2 + i % 2] = -INFINITY;
        }
    }
}

/* What a row's sums are relative to, how much they must shrink because it rose just now, and the sum of its weights. */
typedef struct { float top, shrink, total; } RowState;

/* 2^(scale (score - top)) instead of the scores. The top follows the largest score when that is more than 2^8 times
 * ahead: rarely. Does a row of this thread rise? */
DEVICE bool attention_h100_weigh(float *score, RowState state[2], float scale)
{
    bool rises = false;
    UNROLL for (int half = 0; half < 2; half++) {
        RowState *const of = &state[half];
        float most = -INFINITY, added = 0.0f;
        UNROLL for (int i = 0; i < tile_keys / 8; i++)
            most = max_f(most, max_f(score[i * 4 + half * 2], score[i * 4 + half * 2 + 1]));
        most = max_f(most, shuffle_xor_f(most, 1));
        most = max_f(most, shuffle_xor_f(most, 2));
        most = (most - of->top) * scale > 8.0f ? most : of->top;
        rises |= most != of->top;
        of->shrink = exp2_fast((of->top - most) * scale);
        of->top = most;
        const float offset = -most * scale;
        UNROLL for (int i = 0; i < tile_keys / 4; i++) {
            float *const p = &score[i / 2 * 4 + half * 2 + i % 2];
            *p = exp2_fast(fma_f(*p, scale, offset));
            added += *p;
        }
        of->total = of->total * of->shrink + added;
    }
    return rises;
}

/* Weights as wgmma_step takes them: 4 words for 16 keys. */
DEVICE void attention_h100_pack(uint32_t *weight, const float *score)
{
    UNROLL for (int i = 0; i < tile_keys / 4; i++)
        weight[i] = act_pack(score[i * 2], score[i * 2 + 1], act);
    wgmma_hold(weight, tile_keys / 4);
}

/* This group's 64 rows of the tile's queries. */
DEVICE void attention_h100_open(char *queries, const act_t *q, int t0, int t1, int kv_head, int first_head,
    int tile_heads)
{
    const int group = n_heads / n_kv_heads, own = thread_x() % 128;
    UNROLL for (int part = 0; part < attention_h100_parts(); part++)
        UNROLL for (int i = 0; i < 4; i++) {
            const int row = (warp() / 4 - 1) * 64 + i * 16 + own / 8, column = part * 64 + own % 8 * 8;
            const int token = t0 + row / tile_heads, head = first_head + row % tile_heads;
            const bool is_known = token < t1 && head < group && column < head_dim;
            const int64_t from = (int64_t)token * q_stride + (kv_head * group + head) * head_dim + column;
            copy_async16(queries + part * QUERIES_LEN + attention_h100_place(row, own % 8), q + (is_known ? from : 0),
                is_known ? 16 : 0);
        }
    copy_commit();
    copy_wait(0);
    barrier_some(warp() / 4, 128);
    proxy_fence();
}

/* What a multiplying thread knows: matrices, barriers, and how its first row lies to the walk. */
typedef struct {
    uint64_t queries, ring;      /* of its group; the first slot */
    char *full, *empty;
    KeyWalk walk;
    int64_t oldest;              /* what the tile's first token sees last: itself */
    int row, tile_heads;
    float scale;
} KeyTake;

/* A slot whose rows are there. */
DEVICE uint64_t attention_h100_take(const KeyTake *of, RingPlace at)
{
    mbarrier_wait(of->full + at.slot * 8, at.parity);
    proxy_fence();
    return of->ring + at.slot * (attention_h100_slot_len() / 16);
}

DEVICE bool attention_h100_weigh_block(const KeyTake *of, float *score, RowState state[2], int64_t base)
{
    if (base + tile_keys - 1 > of->oldest || (window > 0 && base <= of->walk.last - window))
        attention_h100_mask(score, of->row, (int)(of->oldest - base), of->tile_heads);
    return attention_h100_weigh(score, state, of->scale);
}

/* Warps 4 to 11: over all keys. */
DEVICE void attention_h100_multiply(const KeyTake *of, float *sum, RowState state[2])
{
    const int n_columns = attention_h100_parts() * 64;
    float score[MAX_KEYS / 2];
    uint32_t weight[MAX_KEYS / 4];
    RingPlace at = { 0, 0 };
    UNROLL for (int i = 0; i < tile_keys / 2; i++)
        score[i] = 0.0f;
    const uint64_t first_keys = attention_h100_take(of, at);
    wgmma_begin();
    attention_h100_score(score, of->queries, first_keys);
    wgmma_commit();
    wgmma_wait(score, tile_keys);
    mbarrier_arrive(of->empty + at.slot * 8);
    attention_h100_weigh_block(of, score, state, of->walk.begin);
    attention_h100_pack(weight, score);
    at = attention_h100_after(at);

    for (int64_t base = of->walk.begin + tile_keys; base <= of->walk.last; base += tile_keys) {
        const RingPlace of_keys = at, of_values = attention_h100_after(at);
        const uint64_t keys = attention_h100_take(of, of_keys);
        wgmma_begin();
        attention_h100_score(score, of->queries, keys);
        wgmma_commit();
        const uint64_t values = attention_h100_take(of, of_values);
        wgmma_begin();
        attention_h100_add(sum, weight, values);
        wgmma_commit();
        wgmma_wait_before();
        wgmma_hold_floats(score, tile_keys / 2);
        mbarrier_arrive(of->empty + of_keys.slot * 8);
        const bool rises = attention_h100_weigh_block(of, score, state, base);
        wgmma_wait(sum, n_columns);
        wgmma_hold(weight, tile_keys / 4);
        mbarrier_arrive(of->empty + of_values.slot * 8);
        if (ballot(rises))
            UNROLL for (int i = 0; i < n_columns / 2; i++)
                sum[i] *= state[i % 4 / 2].shrink;
        attention_h100_pack(weight, score);
        at = attention_h100_after(of_values);
    }
    const uint64_t last_values = attention_h100_take(of, at);
    wgmma_begin();
    attention_h100_add(sum, weight, last_values);
    wgmma_commit();
    wgmma_wait(sum, n_columns);
    wgmma_hold(weight, tile_keys / 4);
}

/* One of this thread's rows to its place in out. */
DEVICE void attention_h100_write(act_t *to, const float *sum, int half, float total)
{
    total += shuffle_xor_f(total, 1);
    total += shuffle_xor_f(total, 2);
    const float one_over = reciprocal_fast(total);
    if (to)
        UNROLL for (int i = 0; i < head_dim / 8; i++)
            *(uint32_t *)(to + i * 8 + lane() % 4 * 2)
                = act_pack(sum[i * 4 + half * 2] * one_over, sum[i * 4 + half * 2 + 1] * one_over, act);
}

KERNEL(attention_h100)(act_t *out /* [n_tokens][out_stride] */, const act_t *q /* [n_tokens][q_stride], rotated */,
    const act_t *k /* [n_tokens][new_stride], rotated */, const act_t *v, const act_t *ring_k /* [rows][kv_stride] */,
    const act_t *ring_v, const int64_t *positions, const int32_t *slots, const int32_t *ends, int64_t state_stride,
    int64_t n_context, int32_t n_sequences, int32_t n_tokens)
{
    const int group = n_heads / n_kv_heads, tile_heads = group < TILE_ROWS ? group : TILE_ROWS;
    const int tile_tokens = TILE_ROWS / tile_heads, head_tiles = (group + tile_heads - 1) / tile_heads;
    const int kv_head = block_y() / head_tiles, first_head = block_y() % head_tiles * tile_heads;   /* of the group */
    char *const queries = (char *)shared() + (-shared_address(shared()) & 1023u);       /* [parts][128] of 128 bytes */
    char *const ring = queries + attention_h100_parts() * QUERIES_LEN;                  /* [2 stages] slots */
    char *const full = ring + 2 * stages * attention_h100_slot_len(), *const empty = full + 2 * stages * 8;

    if (thread_x() == 0) {
        for (int i = 0; i < 2 * stages; i++) {
            mbarrier_init(full + i * 8, 128);
            mbarrier_init(empty + i * 8, 256);
        }
        mbarrier_init_done();
    }
    dependency_wait();
    dependency_launch();
    barrier();
    /* the longest walks first */
    const SequenceTile tile = sequence_tile(ends, n_sequences, n_tokens, n_blocks_x() - 1 - block_x(), tile_tokens);
    const int t0 = tile.first, t1 = min_i(t0 + tile_tokens, tile.end - tile.begin);
    if (t0 >= t1)
        return;
    const int64_t position = positions[tile.sequence], slot = slots[tile.sequence] * state_stride;
    const int64_t first = window > 0 && position + t0 >= window ? position + t0 - window + 1 : 0;
    const KeyWalk walk = { first / tile_keys * tile_keys, first, position + t1 - 1, position,
                           window > 0 ? (uint32_t)window : (uint32_t)n_context };
    if (warp() < 4) {
        registers_give();
        const int64_t from = (int64_t)tile.begin * new_stride + kv_head * head_dim;
        attention_h100_fetch(ring, full, empty, k + from, v + from,
            (const act_t *)((const uint8_t *)ring_k + slot) + kv_head * head_dim,
            (const act_t *)((const uint8_t *)ring_v + slot) + kv_head * head_dim, walk);
        return;
    }
    registers_take();
    attention_h100_open(queries, q + (int64_t)tile.begin * q_stride, t0, t1, kv_head, first_head, tile_heads);

    const int row = (warp() - 4) * 16 + lane() / 4;
    RowState state[2] = { { -1e30f, 1.0f, 0.0f }, { -1e30f, 1.0f, 0.0f } };     /* finite, or differences are NaN */
    float sum[MAX_DIM / 2];
    UNROLL for (int i = 0; i < attention_h100_parts() * 32; i++)
        sum[i] = 0.0f;
    const KeyTake take = { wgmma_matrix(queries + (warp() / 4 - 1) * 64 * 128), wgmma_matrix(ring), full, empty, walk,
                           position + t0, row, tile_heads, 1.44269504f * rsqrt_fast((float)head_dim) };
    attention_h100_multiply(&take, sum, state);
    UNROLL for (int half = 0; half < 2; half++) {
        const int token = t0 + (row + half * 8) / tile_heads, head = first_head + (row + half * 8) % tile_heads;
        const int64_t to = (int64_t)(tile.begin + token) * out_stride + (kv_head * group + head) * head_dim;
        attention_h100_write(token < t1 && head < group ? out + to : NULL, sum, half, state[half].total);
    }
}
