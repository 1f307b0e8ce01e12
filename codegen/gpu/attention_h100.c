/* Causal grouped-query attention of a chunk for Hopper: attention with wgmma, keys and values fetched by other warps.
 *
 * Rows, blocks of keys and their order are those of attention, and again keys that a row does not see change nothing,
 * not even a bit. Blocks of threads stay and take tile after tile, the longest walks first. Warps 0 and 1 fetch blocks
 * of keys, every other one, into a ring of `stages` slots, warps 2 and 3 values into another; a slot's mbarriers say
 * full (its warp has it) and empty (all that multiply have read it). The others are groups of four warps and 64 rows:
 * each has the scores of a block and the sum of values of the one before multiplied, in turn, and turns these scores
 * into weights while the other groups multiply. The next tile's queries come while the last sum of this one does.
 *
 * Grid: any number of blocks. Threads: 128 + 2 tile_rows. P is head_dim / 64 rounded up; shared bytes:
 * 1024 + 128 P · tile_rows + 2 stages · (128 P · tile_keys + 16). head_dim: a multiple of 8, at most 128, at most 64
 * with 192 rows. `out` may be `q`.
 */
PARAM(n_heads, n) PARAM(n_kv_heads, kv) PARAM(head_dim, h) PARAM(q_stride, qs) PARAM(new_stride, ns)
PARAM(kv_stride, ks) PARAM(out_stride, os) PARAM(window, w) PARAM(act, a)
PARAM(tile_rows, tr)     /* 128, 192 */
PARAM(tile_keys, tk)     /* 64, 128 */
PARAM(stages, st)        /* blocks of keys and of values on their way or in use, 2 to 4 */

enum { MAX_KEYS = 128, MAX_DIM = 128 };

/* Matrices of 64 columns that a row of head_dim makes; bytes of a slot. */
DEVICE int attention_h100_parts(void) { return (head_dim + 63) / 64; }
DEVICE int attention_h100_slot_len(void) { return attention_h100_parts() * tile_keys * 128; }

/* Heads of a group that a tile has, tiles that these make of a group, tokens of a tile. */
DEVICE int attention_h100_heads(void) { return min_i(n_heads / n_kv_heads, tile_rows); }
DEVICE int attention_h100_head_tiles(void)
{
    return (n_heads / n_kv_heads + attention_h100_heads() - 1) / attention_h100_heads();
}
DEVICE int attention_h100_tokens(void) { return tile_rows / attention_h100_heads(); }

/* ---- tiles ---- */

/* The launch: what says where tokens and states are; tiles of all sequences and heads. */
typedef struct {
    const int64_t *positions;
    const int32_t *slots, *ends;
    int64_t state_stride;
    int n_sequences, n_tokens, n_tiles;
} Call;

/* n_tokens tokens from row `row` of the call on, of a kv head and of its group the heads from first_head on. Counted
 * from the first key of the first block, the keys they see are first_key … last_key, the first token is `newest`, and
 * those before n_old are in the ring, the first one in row ring_row. No such tile: last_key is -1. */
typedef struct {
    int row, n_tokens, kv_head, first_head, first_key, last_key, newest, n_old;
    uint32_t ring_row;      /* counted on past its last */
    int64_t slot;           /* bytes from slot 0 to the sequence's */
} Tile;

DEVICE int attention_h100_n_blocks(const Tile *tile) { return tile->last_key / tile_keys + 1; }

/* Without a window a ring is never full: it has a row for every position. */
DEVICE uint32_t attention_h100_wrap(uint32_t row) { return window > 0 ? row % (uint32_t)max_i(window, 1) : row; }

DEVICE Tile attention_h100_tile(const Call *call, int index)
{
    const int n_y = n_kv_heads * attention_h100_head_tiles(), x = call->n_tiles / n_y - 1 - index / n_y;
    const int tokens = attention_h100_tokens();
    const SequenceTile rows = sequence_tile(call->ends, call->n_sequences, call->n_tokens, x, tokens);
    const int n = min_i(tokens, rows.end - rows.begin - rows.first);
    if (n <= 0)
        return (Tile){ .last_key = -1 };
    const int64_t begin = call->positions[rows.sequence], at = begin + rows.first;
    const int64_t first = window > 0 && at >= window ? at - window + 1 : 0, start = first & -(int64_t)tile_keys;
    Tile tile = { .row = rows.begin + rows.first, .n_tokens = n, .kv_head = index % n_y / attention_h100_head_tiles(),
                  .first_head = index % n_y % attention_h100_head_tiles() * attention_h100_heads(),
                  .first_key = (int)(first - start), .last_key = (int)(at + n - 1 - start), .newest = (int)(at - start),
                  .n_old = (int)(begin - start), .slot = call->slots[rows.sequence] * call->state_stride };
    tile.ring_row = (uint32_t)(window > 0 ? start % max_i(window, 1) : start);
    return tile;
}

/* This block's next tile. Every other round goes backwards, so that nobody has the longest of each. */
DEVICE Tile attention_h100_next(const Call *call, int *round)
{
    Tile tile = { .last_key = -1 };
    while (tile.last_key < 0 && *round * n_blocks_x() < call->n_tiles) {
        const int back = -(*round % 2), index = *round * n_blocks_x() + (back & n_blocks_x()) + (block_x() ^ back);
        if (index < call->n_tiles)
            tile = attention_h100_tile(call, index);
        ++*round;
    }
    return tile;
}

/* ---- fetching, by one warp: its lanes take 4 rows at a time ---- */

/* x, but nothing that is made of it is kept from block to block: a warp that fetches may have but 32 registers. */
DEVICE int attention_h100_anew(int x)
{
    uint32_t own = (uint32_t)x;
    wgmma_hold(&own, 1);
    return (int)own;
}

/* A block of rows from `from` on, all of them. */
DEVICE void attention_h100_load_all(char *to, const act_t *from, const int stride)
{
    const int own = attention_h100_anew(lane()), row = own >> 3, chunk = own & 7;
    char *even = to + wgmma_place(row, chunk), *odd = to + wgmma_place(row + 4, chunk);
    from += row * stride + chunk * 8;
    for (int i = 0; i < tile_keys / 8; i++, from += 8 * stride, even += 8 * 128, odd += 8 * 128)
        UNROLL for (int part = 0; part < attention_h100_parts(); part++) {
            const int n_bytes = part * 64 + chunk * 8 < head_dim ? 16 : 0;
            copy_async16(even + part * tile_keys * 128, from + part * 64, n_bytes);
            copy_async16(odd + part * tile_keys * 128, from + 4 * stride + part * 64, n_bytes);
        }
}

/* The tile's keys (or values) from `base` on: this call's or the ring's, zeros where no row of the tile looks. rows:
 * where the tile's first block would be in this call. */
DEVICE void attention_h100_load(char *to, const act_t *rows, const act_t *ring, const Tile *tile, int base)
{
    const bool is_whole = base >= tile->first_key && base + tile_keys - 1 <= tile->last_key;
    const uint32_t ring_row = attention_h100_wrap(tile->ring_row + (uint32_t)base);
    if (is_whole && base >= tile->n_old) {
        attention_h100_load_all(to, rows + (int64_t)base * new_stride, new_stride);
        return;
    }
    if (is_whole && base + tile_keys <= tile->n_old && (window == 0 || ring_row + tile_keys <= (uint32_t)window)) {
        attention_h100_load_all(to, ring + (int64_t)ring_row * kv_stride, kv_stride);
        return;
    }
    const int own = attention_h100_anew(lane()), chunk = own & 7;
    for (int i = own >> 3; i < tile_keys; i += 4) {
        const bool is_known = base + i >= tile->first_key && base + i <= tile->last_key;
        const uint32_t old_row = attention_h100_wrap(ring_row + (uint32_t)i);
        const act_t *from = base + i < tile->n_old ? ring + (int64_t)old_row * kv_stride
            : rows + (int64_t)(base + i) * new_stride;
        from = is_known ? from + chunk * 8 : ring;
        UNROLL for (int part = 0; part < attention_h100_parts(); part++) {
            const bool is_there = is_known && part * 64 + chunk * 8 < head_dim;
            copy_async16(to + part * tile_keys * 128 + wgmma_place(i, chunk),
                is_there ? from + part * 64 : ring, is_there ? 16 : 0);
        }
    }
}

/* Warps 0 and 1 keys, 2 and 3 values: every other block of all tiles' together. */
DEVICE void attention_h100_fetch(const Call *call, char *slots, char *full, char *empty, const act_t *rows,
    const act_t *ring)
{
    RingPlace at = { 0, 1 };
    int round = 0, base = warp() % 2 * tile_keys;
    if (base > 0)
        at = ring_after(at, stages);
    for (Tile tile = attention_h100_next(call, &round); tile.last_key >= 0; tile = attention_h100_next(call, &round)) {
        const act_t *const from = rows + (int64_t)(tile.row - tile.newest) * new_stride + tile.kv_head * head_dim;
        const act_t *const old = (const act_t *)((const uint8_t *)ring + tile.slot) + tile.kv_head * head_dim;
        for (; base <= tile.last_key; base += 2 * tile_keys, at = ring_after(ring_after(at, stages), stages)) {
            mbarrier_wait(empty + at.slot * 8, at.parity);
            attention_h100_load(slots + at.slot * attention_h100_slot_len(), from, old, &tile, base);
            copy_commit();
            copy_wait(0);
            proxy_fence();
            warp_sync();
            if (lane() == 0)
                mbarrier_arrive(full + at.slot * 8);
        }
        base -= attention_h100_n_blocks(&tile) * tile_keys;
    }
}

/* ---- multiplying: this thread's rows are `row` and row + 8, its scores and sums as wgmma_piece has them ---- */

/* Asynchronous: score = queries · keysᵀ */
DEVICE void attention_h100_score(float *score, uint64_t queries, uint64_t keys)
{
    UNROLL for (int part = 0; part < attention_h100_parts(); part++)
        wgmma_piece(score, tile_keys, queries + part * (tile_rows * 8), keys + part * (tile_keys * 8), part > 0, act);
}

/* Asynchronous: sum += weights · values */
DEVICE void attention_h100_add(float *sum, const uint32_t *weight, uint64_t values)
{
    UNROLL for (int part = 0; part < attention_h100_parts(); part++)
        UNROLL for (int i = 0; i < tile_keys / 16; i++)
            wgmma_step(sum + part * 32, weight + i * 4, values + (part * tile_keys + i * 16) * 8, act);
}

/* newest: of the tile's first token, counted from the block's first key. */
DEVICE void attention_h100_mask(float *score, int row, int newest)
{
    UNROLL for (int half = 0; half < 2; half++) {
        const int last = newest + (row + half * 8) / attention_h100_heads() - lane() % 4 * 2, before = last - window;
        UNROLL for (int i = 0; i < tile_keys / 4; i++) {
            const int key = i / 2 * 8 + i % 2;
            if (key > last || (window > 0 && key <= before))
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
        float most[2] = { -INFINITY, -INFINITY };
        UNROLL for (int i = 0; i < tile_keys / 8; i++)
            most[i % 2] = max_f(most[i % 2], max_f(score[i * 4 + half * 2], score[i * 4 + half * 2 + 1]));
        float top = max_f(most[0], most[1]);
        top = max_f(top, shuffle_xor_f(top, 1));
        top = max_f(top, shuffle_xor_f(top, 2));
        top = (top - of->top) * scale > 8.0f ? top : of->top;
        rises |= top != of->top;
        of->shrink = exp2_fast((of->top - top) * scale);
        of->top = top;
    }
    float added[2][2] = { { 0.0f, 0.0f }, { 0.0f, 0.0f } };
    const float offset[2] = { -state[0].top * scale, -state[1].top * scale };
    UNROLL for (int i = 0; i < tile_keys / 2; i++) {
        score[i] = exp2_fast(fma_f(score[i], scale, offset[i % 4 / 2]));
        added[i % 4 / 2][i % 2] += score[i];
    }
    UNROLL for (int half = 0; half < 2; half++)
        state[half].total = fma_f(state[half].total, state[half].shrink, added[half][0] + added[half][1]);
    return rises;
}

/* Weights as wgmma_step takes them: 4 words for 16 keys. */
DEVICE void attention_h100_pack(uint32_t *weight, const float *score)
{
    UNROLL for (int i = 0; i < tile_keys / 4; i++)
        weight[i] = act_pack(score[i * 2], score[i * 2 + 1], act);
    wgmma_hold(weight, tile_keys / 4);
}

/* This group's 64 rows of the tile's queries: they are on their way. */
DEVICE void attention_h100_ask(char *queries, const act_t *q, const Tile *tile)
{
    const int group = n_heads / n_kv_heads, own = thread_x() % 128;
    q += (int64_t)tile->row * q_stride;
    UNROLL for (int part = 0; part < attention_h100_parts(); part++)
        UNROLL for (int i = 0; i < 4; i++) {
            const int row = (warp() / 4 - 1) * 64 + i * 16 + own / 8, column = part * 64 + own % 8 * 8;
            const int token = row / attention_h100_heads(), head = tile->first_head + row % attention_h100_heads();
            const bool is_known = token < tile->n_tokens && head < group && column < head_dim;
            const int64_t from = (int64_t)token * q_stride + (tile->kv_head * group + head) * head_dim + column;
            char *const to = queries + part * tile_rows * 128 + wgmma_place(row, own % 8);
            copy_async16(to, q + (is_known ? from : 0), is_known ? 16 : 0);
        }
    copy_commit();
}

/* What a multiplying thread knows: matrices and barriers, and where it is in the rings. */
typedef struct {
    uint64_t queries, keys, values;         /* of its group; the first slots */
    char *full, *empty;                     /* of keys, then of values */
    RingPlace keys_at, values_at;
    float scale;
} Taker;

DEVICE uint64_t attention_h100_take_keys(const Taker *t)
{
    mbarrier_wait(t->full + t->keys_at.slot * 8, t->keys_at.parity);
    return t->keys + t->keys_at.slot * (attention_h100_slot_len() / 16);
}
DEVICE uint64_t attention_h100_take_values(const Taker *t)
{
    mbarrier_wait(t->full + (stages + t->values_at.slot) * 8, t->values_at.parity);
    return t->values + t->values_at.slot * (attention_h100_slot_len() / 16);
}
DEVICE void attention_h100_leave_keys(Taker *t)
{
    if (lane() == 0)
        mbarrier_arrive(t->empty + t->keys_at.slot * 8);
    t->keys_at = ring_after(t->keys_at, stages);
}
DEVICE void attention_h100_leave_values(Taker *t)
{
    if (lane() == 0)
        mbarrier_arrive(t->empty + (stages + t->values_at.slot) * 8);
    t->values_at = ring_after(t->values_at, stages);
}

/* Block i of the tile. */
DEVICE bool attention_h100_weigh_block(const Taker *t, float *score, RowState state[2], const Tile *tile, int i)
{
    const int group = warp() / 4 - 1, newest = tile->newest - i * tile_keys;
    const int first = newest + group * 64 / attention_h100_heads();            /* of its first row, of its last one */
    const int last = newest + (group * 64 + 63) / attention_h100_heads();
    if (tile_keys - 1 > first || (window > 0 && last >= window))
        attention_h100_mask(score, (warp() - 4) * 16 + lane() / 4, newest);
    return attention_h100_weigh(score, state, t->scale);
}

DEVICE void attention_h100_shrink(float *sum, const RowState state[2], bool rises)
{
    if (ballot(rises))
        UNROLL for (int i = 0; i < attention_h100_parts() * 32; i++)
            sum[i] *= state[i % 4 / 2].shrink;
}

/* Groups multiply in turn, so that the others weigh meanwhile: the next may come when a group's products are queued. */
DEVICE void attention_h100_turn(void) { barrier_some(3 + warp() / 4, 256); }
DEVICE void attention_h100_pass(void) { barrier_arrive(4 + warp() / 4 % (tile_rows / 64), 256); }

/* All blocks of a tile but the sum of the last one's values. */
DEVICE void attention_h100_multiply(Taker *t, const Tile *tile, float *sum, uint32_t *weight, RowState state[2])
{
    float score[MAX_KEYS / 2];
    UNROLL for (int i = 0; i < tile_keys / 2; i++)
        score[i] = 0.0f;
    const uint64_t first_keys = attention_h100_take_keys(t);
    wgmma_begin();
    attention_h100_score(score, t->queries, first_keys);
    wgmma_commit();
    wgmma_wait(score, tile_keys);
    attention_h100_leave_keys(t);
    attention_h100_weigh_block(t, score, state, tile, 0);
    attention_h100_pack(weight, score);
    for (int i = 1; i < attention_h100_n_blocks(tile); i++) {
        const uint64_t keys = attention_h100_take_keys(t), values = attention_h100_take_values(t);
        attention_h100_turn();
        wgmma_begin();
        attention_h100_score(score, t->queries, keys);
        attention_h100_add(sum, weight, values);
        wgmma_commit();
        attention_h100_pass();
        wgmma_wait(sum, attention_h100_parts() * 64);
        wgmma_hold_floats(score, tile_keys / 2);
        wgmma_hold(weight, tile_keys / 4);
        attention_h100_leave_keys(t);
        attention_h100_leave_values(t);
        attention_h100_shrink(sum, state, attention_h100_weigh_block(t, score, state, tile, i));
        attention_h100_pack(weight, score);
    }
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

DEVICE void attention_h100_write_tile(act_t *out, const Tile *tile, const float *sum, const RowState state[2])
{
    const int group = n_heads / n_kv_heads;
    UNROLL for (int half = 0; half < 2; half++) {
        const int row = (warp() - 4) * 16 + lane() / 4 + half * 8;
        const int token = row / attention_h100_heads(), head = tile->first_head + row % attention_h100_heads();
        const int64_t to = (int64_t)(tile->row + token) * out_stride + (tile->kv_head * group + head) * head_dim;
        attention_h100_write(token < tile->n_tokens && head < group ? out + to : NULL, sum, half, state[half].total);
    }
}

/* The groups that multiply: their tiles. queries: of all groups. */
DEVICE void attention_h100_take_tiles(const Call *call, Taker *t, char *queries, const act_t *q, act_t *out)
{
    int round = 0;
    Tile tile = attention_h100_next(call, &round);
    if (tile.last_key >= 0)
        attention_h100_ask(queries, q, &tile);
    if (warp() / 4 == tile_rows / 64)
        attention_h100_pass();
    while (tile.last_key >= 0) {
        RowState state[2] = { { -1e30f, 1.0f, 0.0f }, { -1e30f, 1.0f, 0.0f } };     /* finite: differences are no NaN */
        float sum[MAX_DIM / 2];
        uint32_t weight[MAX_KEYS / 4];
        UNROLL for (int i = 0; i < attention_h100_parts() * 32; i++)
            sum[i] = 0.0f;
        copy_wait(0);
        proxy_fence();
        barrier_some(warp() / 4, 128);
        attention_h100_multiply(t, &tile, sum, weight, state);
        const uint64_t values = attention_h100_take_values(t);
        wgmma_begin();
        attention_h100_add(sum, weight, values);
        wgmma_commit();
        const Tile next = attention_h100_next(call, &round);
        barrier_some(warp() / 4, 128);              /* all have read this tile's queries */
        if (next.last_key >= 0)
            attention_h100_ask(queries, q, &next);
        wgmma_wait(sum, attention_h100_parts() * 64);
        wgmma_hold(weight, tile_keys / 4);
        attention_h100_leave_values(t);
        attention_h100_write_tile(out, &tile, sum, state);
        tile = next;
    }
}

KERNEL(attention_h100)(act_t *out /* [n_tokens][out_stride] */, const act_t *q /* [n_tokens][q_stride], rotated */,
    const act_t *k /* [n_tokens][new_stride], rotated */, const act_t *v, const act_t *ring_k /* [rows][kv_stride] */,
    const act_t *ring_v, const int64_t *positions, const int32_t *slots, const int32_t *ends, int64_t state_stride,
    int64_t n_context, int32_t n_sequences, int32_t n_tokens)
{
    (void)n_context;
    const int slot_len = attention_h100_slot_len(), parts = attention_h100_parts();
    char *const queries = (char *)shared() + (-shared_address(shared()) & 1023u);   /* [parts][tile_rows], 128 bytes */
    char *const keys = queries + parts * tile_rows * 128;                           /* [stages] slots */
    char *const values = keys + stages * slot_len;                                  /* as keys */
    char *const full = values + stages * slot_len, *const empty = full + 2 * stages * 8;

    if (thread_x() == 0) {
        for (int i = 0; i < 2 * stages; i++) {
            mbarrier_init(full + i * 8, 1);
            mbarrier_init(empty + i * 8, tile_rows / 16);
        }
        mbarrier_init_done();
    }
    dependency_wait();
    dependency_launch();
    barrier();
    const int tokens = attention_h100_tokens(), n_x = (n_tokens + tokens - 1) / tokens + n_sequences - 1;
    const Call call = { positions, slots, ends, state_stride, n_sequences, n_tokens,
                        n_x * n_kv_heads * attention_h100_head_tiles() };
    if (warp() < 4) {
        if (tile_rows == 192)
            registers_give_three();
        else
            registers_give();
        if (warp() < 2)
            attention_h100_fetch(&call, keys, full, empty, k, ring_k);
        else
            attention_h100_fetch(&call, values, full + stages * 8, empty + stages * 8, v, ring_v);
        return;
    }
    if (tile_rows == 192)
        registers_take_three();
    else
        registers_take();
    Taker taker = { wgmma_matrix(queries + (warp() / 4 - 1) * 64 * 128), wgmma_matrix(keys), wgmma_matrix(values), full,
                    empty, { 0, 0 }, { 0, 0 }, 1.44269504f * rsqrt_fast((float)head_dim) };
    attention_h100_take_tiles(&call, &taker, queries, q, out);
}
