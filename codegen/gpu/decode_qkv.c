/* Decode: RMSNorm, q, k and v, rotation; keys and values go to their rows of the rings.
 *
 * A block makes 8 rows of one head; with rope 4 and the 4 they are rotated with. Grid: (n_heads + 2 n_kv_heads) ·
 * ceil(head_dim / 8), with rope ceil(head_dim / 2 / 4) in the last factor's place; threads: 32 · n_slices.
 */
PARAM(n_in, i) PARAM(n_heads, nh) PARAM(n_kv_heads, kv) PARAM(head_dim, h) PARAM(rope, ro) PARAM(window, wi)
PARAM(weight_dtype, w) PARAM(act, a) PARAM(n_parts, np) PARAM(n_slices, ks) PARAM(group, g) PARAM(ring, r)
FPARAM(eps, eps)

KERNEL(decode_qkv)(act_t *q /* [n_rows][n_heads · head_dim up to 8] */, uint8_t *ring_k, uint8_t *ring_v,
    const float *x, const float *parts, const float *norm, const void *wq, const void *wk, const void *wv,
    const float *sq, const float *sk, const float *sv, const float *table /* [n_rows][head_dim] */,
    const int64_t *positions, const int32_t *slots, int64_t state_stride, int64_t n_context, int32_t n_rows)
{
    const int row_len = decode_row_len(n_in, weight_dtype), n_chunks = decode_n_chunks(n_in, weight_dtype);
    const int k_len = (n_in + 63) / 64 * 64, x_stride = k_len + 8, half = head_dim / 2;
    const int per_head = rope ? (half + 3) / 4 : (head_dim + 7) / 8;
    DecodeRoute *route = shared();
    act_t *xs = (act_t *)(route + 1);
    uint8_t *ring_at = (uint8_t *)(xs + DECODE_ROWS * x_stride);
    float *sums = (float *)(ring_at + n_slices * ring * group * DECODE_SLOT);
    float *scale_at = sums + n_slices * DECODE_ROWS * 8;

    const int r = lane() / 8, t = lane() % 4, head = block_x() / per_head, tile = block_x() % per_head;
    const int kind = head < n_heads ? 0 : head < n_heads + n_kv_heads ? 1 : 2;
    const int own = head - (kind > 0) * n_heads - (kind > 1) * n_kv_heads;            /* among q, k or v */
    const int i_lane = lane() % 8;                                                    /* row of the tile, at the end */
    const int row_r = rope ? 4 * tile + r : 8 * tile + r, far = rope ? half : 4;      /* of the head: r and r + 4 */
    const int row_i = rope ? 4 * tile + i_lane % 4 + i_lane / 4 * half : 8 * tile + i_lane;
    const int is_i = rope ? 4 * tile + i_lane % 4 < half : row_i < head_dim;
    const uint8_t *weights = kind == 0 ? wq : kind == 1 ? wk : wv;
    const DecodeSlice slice = decode_slice(n_chunks, n_slices, warp());
    DecodeWeights w = { weights + (int64_t)(own * head_dim + row_r) * row_len + slice.first * DECODE_CHUNK
        + lane() % 8 * 16,
        (int64_t)far * row_len, 0, 0, 0, 1, { rope ? row_r < half : row_r < head_dim,
            rope ? row_r < half : row_r + 4 < head_dim }, slice.n, 0, 1, 1, 1,
            ring_at + warp() * ring * group * DECODE_SLOT };
    const DecodeShape shape = { k_len, weight_dtype, act, n_slices, group, decode_n_groups(n_chunks, n_slices, group),
        ring,
        .gated = 0 };
    DecodeCursor at = decode_begin(&w);
    decode_fill_ring(&w, &at, shape);
    DecodeColumns columns;
    decode_fetch_norm(&columns, norm, n_in, n_rows);
    if (weight_dtype == 3 && thread_x() < 8)
        scale_at[thread_x()] = is_i ? (kind == 0 ? sq : kind == 1 ? sk : sv)[own * head_dim + row_i] : 0.0f;

    const int row_first = min_i(warp(), n_rows - 1);
    const int64_t slot_first = slots[row_first] * state_stride;
    const int64_t ring_first = positions[row_first] % (window ? window : n_context);
    const float *angles_first = table + (int64_t)row_first * head_dim + row_i % max_i(half, 1);
    const float cosine = rope && is_i ? angles_first[0] : 0.0f, sine = rope && is_i ? angles_first[half] : 0.0f;
    decode_await_rows(&columns, x, n_in, n_rows, route->sums, parts, n_rows, n_parts);
    decode_store_norm(xs, x_stride, k_len, &columns, x, norm, route, 1, n_in, eps, n_rows, act);
    barrier();
    const int t_width = weight_dtype == 3 ? 16 : 8;
    const DecodeInput in = { xs, x_stride, slice.first * 4 * t_width + t * t_width };
    decode_multiply(sums, &w, &at, 1, &in, route, weight_dtype == 3 ? scale_at : NULL, 8, n_rows, 1, NULL, shape);
    barrier();

    for (int row = warp(); row < n_rows; row += n_threads() / 32) {
        float value = decode_read_part(sums, 0, n_slices, row, i_lane);
        if (rope) {
            const float *angles = table + (int64_t)row * head_dim + row_i % half;
            const int near = row == warp();
            const float other = shuffle_xor_f(value, 4);
            if (kind < 2 && is_i)
                value = value * (near ? cosine : angles[0])
                    + (i_lane < 4 ? -other : other) * (near ? sine : angles[half]);
        }
        if (lane() >= 8 || !is_i)
            continue;
        const int column = own * head_dim + row_i;
        if (kind == 0) {
            q[(int64_t)row * ((n_heads * head_dim + 7) / 8 * 8) + column] = float_act(value, act);
        } else {
            const int near = row == warp();
            const int64_t at_row = near ? ring_first : positions[row] % (window ? window : n_context);
            act_t *to = (act_t *)((kind == 1 ? ring_k : ring_v) + (near ? slot_first : slots[row] * state_stride));
            to[at_row * (n_kv_heads * head_dim) + column] = float_act(value, act);
        }
    }
}
