/* A residual row takes in its pairs, is normalised, and is routed: softmax over experts, the k largest.
 *
 * Grid: 16 rows a block; 256 threads. A warp does some rows at a time, eight columns of a chunk of 256 a lane; logits
 * are summed before the row's scale is known, which multiplies them in the end. The router lies in shared memory where
 * it fits. Shared: ROUTER + 96 E bytes, ROUTER = 4 E (n_in rounded up to 256), or 0 when that passes 98304 or E is 1.
 */
PARAM(n_in, i) PARAM(in_stride, is) PARAM(pairs_stride, ps) PARAM(out_stride, os) PARAM(act, a) PARAM(n_experts, e)
PARAM(renormalize, rn) PARAM(last, la) FPARAM(eps, eps)

enum {
    NORM_ROUTE_ROWS = 16, NORM_ROUTE_WARPS = 8, NORM_ROUTE_HELD = 8,     /* HELD: chunks in a lane's registers */
    NORM_ROUTE_BATCH = 8, NORM_ROUTE_SHARED = 98304,                     /* BATCH: experts summed at a time */
};

DEVICE int norm_route_chunks(void) { return (n_in + 255) / 256; }
/* Rows that a warp does at a time: of each, HELD / rows chunks are in registers. */
DEVICE int norm_route_rows(void) { return norm_route_chunks() <= 4 ? 2 : 1; }
DEVICE bool norm_route_fits(void) { return 4 * (int64_t)n_experts * norm_route_chunks() * 256 <= NORM_ROUTE_SHARED; }

DEVICE float norm_route_sum(float x)
{
    UNROLL
    for (int i = 0; i < 5; i++)
        x += shuffle_xor_f(x, 1 << i);
    return x;
}

/* ---- eight columns ---- */

/* Of float32 from[0..n); zeros beyond. */
DEVICE void norm_route_load_f32(float v[8], const float *from, int n)
{
    if (n >= 8) {
        const u32x4 lo = load16(from), hi = load16(from + 4);
        UNROLL
        for (int i = 0; i < 4; i++) {
            v[i] = bits_float(lo[i]);
            v[i + 4] = bits_float(hi[i]);
        }
        return;
    }
    UNROLL
    for (int i = 0; i < 8; i++)
        v[i] = i < n ? from[i] : 0;
}

DEVICE void norm_route_store_f32(float *to, const float v[8], int n)
{
    if (n >= 8) {
        store16(to, (u32x4){ float_bits(v[0]), float_bits(v[1]), float_bits(v[2]), float_bits(v[3]) });
        store16(to + 4, (u32x4){ float_bits(v[4]), float_bits(v[5]), float_bits(v[6]), float_bits(v[7]) });
        return;
    }
    UNROLL
    for (int i = 0; i < 8; i++)
        if (i < n)
            to[i] = v[i];
}

/* Adds columns of a row of activations, whose padding may be read but is not to be trusted. */
DEVICE void norm_route_add_act(float v[8], u32x4 row, int n)
{
    UNROLL
    for (int i = 0; i < 4; i++) {
        v[2 * i] += 2 * i < n ? act_lo(row[i], act) : 0;
        v[2 * i + 1] += 2 * i + 1 < n ? act_hi(row[i], act) : 0;
    }
}

DEVICE void norm_route_store_act(act_t *to, const float v[8], int n)
{
    if (n >= 8) {
        store16(to, (u32x4){ act_pack(v[0], v[1], act), act_pack(v[2], v[3], act), act_pack(v[4], v[5], act),
                             act_pack(v[6], v[7], act) });
        return;
    }
    UNROLL
    for (int i = 0; i < 8; i++)
        if (i < n)
            to[i] = float_act(v[i], act);
}

/* Columns of chunk j that this lane has: 8 but at the end of the row. */
DEVICE int norm_route_columns(int j)
{
    return (j + 1) * 256 <= n_in ? 8 : j >= norm_route_chunks() ? 0 : n_in - (j * 32 + lane()) * 8;
}

/* ---- rows ---- */

/* The token of row `row`; the first is row 0's, but with several sequences the last rows are each one's last token. */
DEVICE int64_t norm_route_token(const int32_t *ends, int n_sequences, int first, int row)
{
    return last && n_sequences > 1 ? ends[row] - 1 : first + row;
}

/* HELD / rows chunks from chunk `first` on of the first `left` tokens. */
DEVICE void norm_route_load(float v[][8], const float *x, const int64_t *tokens, int left, int first)
{
    const int rows = norm_route_rows(), chunks = NORM_ROUTE_HELD / rows;
    UNROLL
    for (int i = 0; i < NORM_ROUTE_HELD; i++) {
        const int r = i / chunks, j = first + i % chunks;
        norm_route_load_f32(v[i], x + tokens[r] * in_stride + (j * 32 + lane()) * 8,
                            r < left ? norm_route_columns(j) : 0);
    }
}

/* Adds the pairs of the tokens to v and stores the sums. */
DEVICE void norm_route_add_pairs(float v[][8], float *x, const act_t *pairs, const int64_t *tokens, int left,
    int first, int pair_k)
{
    const int rows = norm_route_rows(), chunks = NORM_ROUTE_HELD / rows;
    for (int s = 0; s < pair_k; s++) {
        u32x4 row[NORM_ROUTE_HELD];
        UNROLL
        for (int i = 0; i < NORM_ROUTE_HELD; i++) {
            const int r = i / chunks, j = first + i % chunks;
            const act_t *from = pairs + (tokens[r] * pair_k + s) * pairs_stride + (j * 32 + lane()) * 8;
            row[i] = r < left && norm_route_columns(j) > 0 ? load16(from) : (u32x4){ 0, 0, 0, 0 };
        }
        UNROLL
        for (int i = 0; i < NORM_ROUTE_HELD; i++)
            norm_route_add_act(v[i], row[i], norm_route_columns(first + i % chunks));
    }
    UNROLL
    for (int i = 0; i < NORM_ROUTE_HELD; i++) {
        const int r = i / chunks, j = first + i % chunks;
        norm_route_store_f32(x + tokens[r] * in_stride + (j * 32 + lane()) * 8, v[i],
                             r < left ? norm_route_columns(j) : 0);
    }
}

/* Where column 4 · half of lane's columns of chunk j lies in a row of the shared router: lanes side by side. */
DEVICE int norm_route_place(int j, int half, int of_lane) { return ((j * 2 + half) * 32 + of_lane) * 4; }

DEVICE void norm_route_copy_router(float *to, const float *router)
{
    const int quads = norm_route_chunks() * 64;              /* of four columns, of one expert */
    for (int i = thread_x(); i < n_experts * quads; i += 32 * NORM_ROUTE_WARPS) {
        const int e = i / quads, q = i % quads, n = max_i(min_i(n_in - 4 * q, 4), 0);
        const float *from = router + (int64_t)e * n_in + 4 * q;
        float *place = to + e * quads * 4 + norm_route_place(q / 64, q % 2, q / 2 % 32);
        if (n_in % 4 == 0)
            copy_async16(place, n > 0 ? from : router, 4 * n);
        else
            for (int c = 0; c < 4; c++)
                place[c] = c < n ? from[c] : 0;
    }
}

/* logits += v · router for BATCH experts from e on. */
DEVICE void norm_route_product(float logits[][NORM_ROUTE_BATCH], float v[][8], const float *router,
    const float *shared_router, int e, int first)
{
    const int rows = norm_route_rows(), chunks = NORM_ROUTE_HELD / rows;
    UNROLL
    for (int j = 0; j < chunks; j++)
        UNROLL
        for (int b = 0; b < NORM_ROUTE_BATCH; b++) {
            float w[8];
            if (e + b >= n_experts || first + j >= norm_route_chunks())
                continue;
            if (norm_route_fits()) {
                const float *row = shared_router + (e + b) * norm_route_chunks() * 256;
                const u32x4 lo = load16(row + norm_route_place(first + j, 0, lane()));
                const u32x4 hi = load16(row + norm_route_place(first + j, 1, lane()));
                UNROLL
                for (int c = 0; c < 4; c++) {
                    w[c] = bits_float(lo[c]);
                    w[c + 4] = bits_float(hi[c]);
                }
            } else {
                const int n = norm_route_columns(first + j);
                const float *from = router + (int64_t)(e + b) * n_in + ((first + j) * 32 + lane()) * 8;
                UNROLL
                for (int c = 0; c < 8; c++)
                    w[c] = c < n ? from[c] : 0;
            }
            UNROLL
            for (int r = 0; r < rows; r++)
                UNROLL
                for (int c = 0; c < 8; c++)
                    logits[r][b] = fma_f(v[r * chunks + j][c], w[c], logits[r][b]);
        }
}

/* v as the norm's weight leaves it; the sums of squares before that are added to squares, where it is not null. */
DEVICE void norm_route_weigh(float v[][8], const float *weight, int first, float *squares)
{
    const int rows = norm_route_rows(), chunks = NORM_ROUTE_HELD / rows;
    UNROLL
    for (int j = 0; j < chunks; j++) {
        float w[8];
        norm_route_load_f32(w, weight + ((first + j) * 32 + lane()) * 8, norm_route_columns(first + j));
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int c = 0; c < 8; c++) {
                float *x = &v[r * chunks + j][c];
                if (squares)
                    squares[r] = fma_f(*x, *x, squares[r]);
                *x *= w[c];
            }
    }
}

DEVICE void norm_route_store(act_t *out, float v[][8], const float *scales, int row, int left, int first)
{
    const int rows = norm_route_rows(), chunks = NORM_ROUTE_HELD / rows;
    UNROLL
    for (int i = 0; i < NORM_ROUTE_HELD; i++) {
        const int r = i / chunks, j = first + i % chunks;
        UNROLL
        for (int c = 0; c < 8; c++)
            v[i][c] *= scales[r];
        norm_route_store_act(out + (int64_t)(row + r) * out_stride + (j * 32 + lane()) * 8, v[i],
                             r < left ? norm_route_columns(j) : 0);
    }
}

/* Half of 2 · half values for a half of those of the lane `half` further. */
DEVICE void norm_route_swap(float values[], int half)
{
    const bool is_upper = lane() & half;
    UNROLL
    for (int i = 0; i < half; i++) {
        const float lower = values[i], upper = values[i + half];
        values[i] = (is_upper ? upper : lower) + shuffle_xor_f(is_upper ? lower : upper, half);
    }
}

/* Sums over lanes of BATCH experts of two rows: in the end each lane has one of them, those of 16 lanes are equal. */
DEVICE void norm_route_keep_logits(float *kept, float logits[][NORM_ROUTE_BATCH], int e)
{
    float values[2 * NORM_ROUTE_BATCH];
    UNROLL
    for (int i = 0; i < 2 * NORM_ROUTE_BATCH; i++)
        values[i] = logits[i / NORM_ROUTE_BATCH][i % NORM_ROUTE_BATCH];
    norm_route_swap(values, 8);
    norm_route_swap(values, 4);
    norm_route_swap(values, 2);
    norm_route_swap(values, 1);
    values[0] += shuffle_xor_f(values[0], 16);
    const int r = lane() / NORM_ROUTE_BATCH % 2, expert = e + lane() % NORM_ROUTE_BATCH;
    if (lane() < 16 && expert < n_experts)
        kept[r * n_experts + expert] = values[0];
}

/* The choices of a warp's rows from their logits. */
DEVICE void norm_route_choose(int32_t *experts, float *gates, uint16_t *chosen, const float *kept, const float *scales,
    int row, int left, int top_k)
{
    const int rows = norm_route_rows(), lanes = routing_lanes(n_experts);
    UNROLL
    for (int first = 0; first < rows; first += 32 / lanes) {
        const int r = min_i(first + lane() / lanes, rows - 1);
        const int64_t at = (int64_t)(row + r) * top_k;
        routing_choose(experts + at, gates + at, chosen + r, kept + r * n_experts, r == 0 ? scales[0] : scales[1],
            first + lane() / lanes < left, n_experts, top_k, renormalize, NORM_ROUTE_ROWS);
    }
}

KERNEL(norm_route)(float *x /* [n_tokens][in_stride] */, const act_t *pairs /* [n_tokens · pair_k][pairs_stride] */,
    const float *restrict weight /* [n_in] */, const float *restrict router /* [E][n_in] */,
    act_t *out /* [n_rows][out_stride] */, int32_t *experts, float *gates /* both [n_rows][top_k] */,
    int32_t *slots /* [E][n_rows] */, int32_t *totals /* [E] */, const int32_t *ends, int32_t n_sequences,
    int32_t n_rows, int32_t n_tokens, int32_t top_k, int32_t pair_k)
{
    const int rows = norm_route_rows(), chunks = NORM_ROUTE_HELD / rows, warp_rows = NORM_ROUTE_ROWS / NORM_ROUTE_WARPS;
    const bool is_held = norm_route_chunks() <= chunks;
    const int router_len = n_experts > 1 && norm_route_fits() ? n_experts * norm_route_chunks() * 256 : 0;
    float *const shared_router = shared();                                      /* [E][whole chunks], placed */
    float *const kept = shared_router + router_len + warp() * 2 * n_experts;    /* [rows][E], this warp's logits */
    uint16_t *const chosen = (uint16_t *)(kept + (NORM_ROUTE_WARPS - warp()) * 2 * n_experts);  /* [E][ROWS] */
    if (router_len > 0)
        norm_route_copy_router(shared_router, router);
    copy_commit();
    for (int i = thread_x(); n_experts > 1 && i < n_experts * NORM_ROUTE_ROWS; i += 32 * NORM_ROUTE_WARPS)
        chosen[i] = 0;
    dependency_wait();
    dependency_launch();
    const int block_row = block_x() * NORM_ROUTE_ROWS, begin = block_row + warp() * warp_rows;
    const int end = min_i(begin + warp_rows, n_rows);
    copy_wait(0);                                                               /* the router, asked for long ago */
    barrier();
    for (int row = begin; row < end; row += rows) {
        const int left = min_i(end - row, rows);
        int64_t tokens[2];
        float v[NORM_ROUTE_HELD][8], squares[2] = { 0 }, scales[2] = { 1, 1 };
        UNROLL
        for (int r = 0; r < 2; r++)
            tokens[r] = norm_route_token(ends, n_sequences, n_tokens - n_rows, min_i(row + r, end - 1));
        for (int e = 0; e < n_experts; e += NORM_ROUTE_BATCH) {
            float logits[2][NORM_ROUTE_BATCH] = { { 0 } };
            for (int first = 0; first < norm_route_chunks(); first += chunks) {
                if (e == 0 || !is_held) {
                    norm_route_load(v, x, tokens, left, first);
                    if (pairs_stride > 0 && e == 0)
                        norm_route_add_pairs(v, x, pairs, tokens, left, first, pair_k);
                    norm_route_weigh(v, weight, first, e == 0 ? squares : NULL);
                }
                if (n_experts > 1)
                    norm_route_product(logits, v, router, shared_router, e, first);
            }
            if (n_experts > 1)
                norm_route_keep_logits(kept, logits, e);
        }
        UNROLL
        for (int r = 0; r < rows; r++)
            scales[r] = rsqrt_fast(norm_route_sum(squares[r]) / n_in + eps);
        for (int first = 0; first < norm_route_chunks(); first += chunks) {
            if (!is_held) {
                norm_route_load(v, x, tokens, left, first);
                norm_route_weigh(v, weight, first, NULL);
            }
            norm_route_store(out, v, scales, row, left, first);
        }
        warp_sync();
        if (n_experts > 1)
            norm_route_choose(experts, gates, chosen + row - block_row, kept, scales, row, left, top_k);
        warp_sync();
    }
    if (n_experts == 1)
        return;
    barrier();
    routing_place(slots, totals, chosen, n_experts, NORM_ROUTE_ROWS, block_row, n_rows, top_k);
}
