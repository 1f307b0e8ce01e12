/* A residual row takes in its pairs, is normalised, and is routed: softmax over experts, the k largest.
 *
 * Grid: 16 rows a block, 64 without normalise; 256 threads, or 512. A warp does some rows at a time, eight columns of a
 * chunk of 256 a lane; logits are summed before the row's scale is known, which multiplies them in the end. Counts are
 * of 16 rows each. The router lies in shared memory where it fits. Shared: ROUTER + 144 E bytes, 320 E without
 * normalise, ROUTER = 4 E (n_in rounded up to 256), or 0 when that passes 98304 or E is 1.
 */
PARAM(n_in, i) PARAM(in_stride, is) PARAM(from_act, fa) PARAM(normalise, nm) PARAM(pairs_stride, ps)
PARAM(out_stride, os) PARAM(act, a) PARAM(n_experts, e) PARAM(renormalize, rn) FPARAM(eps, eps)

enum {
    NORM_ROUTE_RUN = 16, NORM_ROUTE_HELD = 8,         /* rows that are counted; chunks in a lane's registers */
    NORM_ROUTE_BATCH = 8, NORM_ROUTE_SHARED = 98304,                     /* BATCH: experts summed at a time */
};

DEVICE int norm_route_chunks(void) { return (n_in + 255) / 256; }
/* Rows that a warp does at a time: of each, HELD / rows chunks are in registers. */
DEVICE int norm_route_rows(void) { return !normalise ? 4 : norm_route_chunks() <= 4 ? 2 : 1; }
DEVICE int norm_route_warps(void) { return normalise ? 8 : 16; }
DEVICE int norm_route_block(void) { return normalise ? 16 : 64; }            /* rows */
DEVICE bool norm_route_fits(void) { return 4 * (int64_t)n_experts * norm_route_chunks() * 256 <= NORM_ROUTE_SHARED; }

DEVICE float norm_route_sum(float x)
{
    UNROLL
    for (int i = 0; i < 5; i++)
        x += shuffle_xor_f(x, 1 << i);
    return x;
}

DEVICE float norm_route_max(float x)
{
    UNROLL
    for (int i = 0; i < 5; i++)
        x = max_f(x, shuffle_xor_f(x, 1 << i));
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

/* Of activations: HELD / rows chunks from chunk `first` on, of the first `left` rows from `token` on. */
DEVICE void norm_route_fetch(u32x4 fetched[], const void *x, int64_t token, int left, int first)
{
    const int rows = norm_route_rows(), chunks = NORM_ROUTE_HELD / rows;
    UNROLL
    for (int i = 0; i < NORM_ROUTE_HELD; i++) {
        const int r = i / chunks, j = first + i % chunks;
        const act_t *from = (const act_t *)x + (token + r) * in_stride + (j * 32 + lane()) * 8;
        fetched[i] = r < left && norm_route_columns(j) > 0 ? load16(from) : (u32x4){ 0, 0, 0, 0 };
    }
}

DEVICE void norm_route_unpack(float v[][8], const u32x4 fetched[], int first)
{
    const int chunks = NORM_ROUTE_HELD / norm_route_rows();
    UNROLL
    for (int i = 0; i < NORM_ROUTE_HELD; i++) {
        UNROLL
        for (int c = 0; c < 8; c++)
            v[i][c] = 0;
        norm_route_add_act(v[i], fetched[i], norm_route_columns(first + i % chunks));
    }
}

/* The same of either kind, at once. */
DEVICE void norm_route_load(float v[][8], const void *x, int64_t token, int left, int first)
{
    const int rows = norm_route_rows(), chunks = NORM_ROUTE_HELD / rows;
    if (from_act) {
        u32x4 fetched[NORM_ROUTE_HELD];
        norm_route_fetch(fetched, x, token, left, first);
        norm_route_unpack(v, fetched, first);
        return;
    }
    UNROLL
    for (int i = 0; i < NORM_ROUTE_HELD; i++) {
        const int r = i / chunks, j = first + i % chunks;
        norm_route_load_f32(v[i], (const float *)x + (token + r) * in_stride + (j * 32 + lane()) * 8,
                            r < left ? norm_route_columns(j) : 0);
    }
}

/* Adds the pairs of the tokens to v and stores the sums. */
DEVICE void norm_route_add_pairs(float v[][8], float *x, const act_t *pairs, int64_t token, int left, int first,
    int pair_k)
{
    const int rows = norm_route_rows(), chunks = NORM_ROUTE_HELD / rows;
    for (int s = 0; s < pair_k; s++) {
        u32x4 row[NORM_ROUTE_HELD];
        UNROLL
        for (int i = 0; i < NORM_ROUTE_HELD; i++) {
            const int r = i / chunks, j = first + i % chunks;
            const act_t *from = pairs + ((token + r) * pair_k + s) * pairs_stride + (j * 32 + lane()) * 8;
            row[i] = r < left && norm_route_columns(j) > 0 ? load16(from) : (u32x4){ 0, 0, 0, 0 };
        }
        UNROLL
        for (int i = 0; i < NORM_ROUTE_HELD; i++)
            norm_route_add_act(v[i], row[i], norm_route_columns(first + i % chunks));
    }
    UNROLL
    for (int i = 0; i < NORM_ROUTE_HELD; i++) {
        const int r = i / chunks, j = first + i % chunks;
        norm_route_store_f32(x + (token + r) * in_stride + (j * 32 + lane()) * 8, v[i],
                             r < left ? norm_route_columns(j) : 0);
    }
}

/* Where column 4 · half of lane's columns of chunk j lies in a row of the shared router: lanes side by side. */
DEVICE int norm_route_place(int j, int half, int of_lane) { return ((j * 2 + half) * 32 + of_lane) * 4; }

DEVICE void norm_route_copy_router(float *to, const float *router)
{
    const int quads = norm_route_chunks() * 64;              /* of four columns, of one expert */
    for (int i = thread_x(); i < n_experts * quads; i += 32 * norm_route_warps()) {
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

/* ---- the choice, from logits in shared memory, which lack their row's scale ---- */

/* Lanes that share a row, so that a warp does several rows at once. */
DEVICE int norm_route_lanes(void) { return n_experts <= 8 ? 8 : n_experts <= 16 ? 16 : 32; }

/* Sums, or maxima, over the lanes of a row. */
DEVICE float norm_route_row_sum(float x)
{
    UNROLL
    for (int i = 1; i < norm_route_lanes(); i *= 2)
        x += shuffle_xor_f(x, i);
    return x;
}

DEVICE float norm_route_row_max(float x)
{
    UNROLL
    for (int i = 1; i < norm_route_lanes(); i *= 2)
        x = max_f(x, shuffle_xor_f(x, i));
    return x;
}

/* The share of expert e before division by the sum of all. */
DEVICE float norm_route_share(const float *logits, int e, float scale, float largest)
{
    return exp2_fast((logits[e] * scale - largest) * 1.44269504f);
}

/* Whether fewer than top_k experts come before e. Logits, not shares, which may be 0 together. */
DEVICE bool norm_route_is_chosen(const float *logits, int e, int top_k)
{
    const float own = logits[e];
    int n_before = 0;
    for (int other = 0; other < n_experts; other++)
        n_before += logits[other] > own || (logits[other] == own && other < e);
    return n_before < top_k;
}

/* Writes the choice of a row for each norm_route_lanes() lanes; a row that is not real has logits all the same.
 * chosen_by [E][row] gets a 1 for each of the row's experts. With NaNs some k experts are chosen. */
DEVICE void norm_route_choose(int32_t *experts, float *gates, uint8_t *chosen_by, const float *logits, float scale,
    bool is_real, int top_k)
{
    const int lanes = norm_route_lanes(), first_lane = lane() & -lanes, own = lane() - first_lane;
    float largest = -3.4e38f, sum = 0;
    for (int e = own; e < n_experts; e += lanes)
        largest = max_f(largest, logits[e] * scale);
    largest = norm_route_row_max(largest);
    for (int e = own; e < n_experts; e += lanes)
        if (!renormalize || norm_route_is_chosen(logits, e, top_k))
            sum += norm_route_share(logits, e, scale, largest);
    const float over_sum = 1 / norm_route_row_sum(sum);
    int n_chosen = 0;
    for (int first = 0; first < n_experts; first += lanes) {
        const int e = first + own;
        const bool is_chosen = e < n_experts && norm_route_is_chosen(logits, e, top_k);
        const uint32_t chosen = ballot(is_chosen) >> first_lane & (0xffffffffu >> (32 - lanes));
        const int at = n_chosen + count_ones(chosen & ((1u << own) - 1));
        if (is_real && is_chosen && at < top_k) {
            experts[at] = e;
            gates[at] = norm_route_share(logits, e, scale, largest) * over_sum;
            chosen_by[e * norm_route_block()] = 1;
        }
        n_chosen += count_ones(chosen);
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

/* Sums over lanes of BATCH experts of all rows: in the end each lane has one of them. */
DEVICE void norm_route_keep_logits(float *kept, float logits[][NORM_ROUTE_BATCH], int e)
{
    float values[32];
    UNROLL
    for (int i = 0; i < 32; i++)
        values[i] = logits[i / NORM_ROUTE_BATCH][i % NORM_ROUTE_BATCH];
    norm_route_swap(values, 16);
    norm_route_swap(values, 8);
    norm_route_swap(values, 4);
    norm_route_swap(values, 2);
    norm_route_swap(values, 1);
    const int r = lane() / NORM_ROUTE_BATCH, expert = e + lane() % NORM_ROUTE_BATCH;
    if (expert < n_experts)
        kept[r * n_experts + expert] = values[0];
}

KERNEL(norm_route)(void *x /* [n_tokens][in_stride] */, const act_t *pairs /* [n_tokens · pair_k][pairs_stride] */,
    const float *restrict weight /* [n_in] */, const float *restrict router /* [E][n_in] */,
    act_t *out /* [n_rows][out_stride] */, int32_t *experts, float *gates /* both [n_rows][top_k] */,
    int32_t *counts /* [run][E] */, int32_t n_rows, int32_t n_tokens, int32_t top_k, int32_t pair_k)
{
    const int rows = norm_route_rows(), chunks = NORM_ROUTE_HELD / rows;
    const int warp_rows = norm_route_block() / norm_route_warps();
    const bool is_held = norm_route_chunks() <= chunks;
    const int router_len = n_experts > 1 && norm_route_fits() ? n_experts * norm_route_chunks() * 256 : 0;
    float *const shared_router = shared();                                      /* [E][whole chunks], placed */
    float *const kept = shared_router + router_len + warp() * 4 * n_experts;    /* [rows][E], this warp's logits */
    /* [E][ROWS] */
    uint8_t *const chosen_by = (uint8_t *)(shared_router + router_len + norm_route_warps() * 4 * n_experts);
    if (router_len > 0)
        norm_route_copy_router(shared_router, router);
    copy_commit();
    dependency_wait();
    dependency_launch();
    const int block_row = block_x() * norm_route_block(), begin = block_row + warp() * warp_rows;
    const int end = min_i(begin + warp_rows, n_rows);
    const bool is_ahead = from_act && !normalise;                               /* fetching */
    u32x4 fetched[NORM_ROUTE_HELD];
    if (is_ahead)
        norm_route_fetch(fetched, x, n_tokens - n_rows + begin, end - begin, 0);
    for (int i = thread_x(); n_experts > 1 && i < n_experts * norm_route_block(); i += 32 * norm_route_warps())
        chosen_by[i] = 0;
    bool is_ready = !normalise;                                                 /* the router, and chosen_by */
    if (is_ready) {
        copy_wait(0);
        barrier();
    }
    for (int row = begin; row < end; row += rows) {
        const int64_t token = n_tokens - n_rows + row;
        const int left = min_i(end - row, rows);
        float v[NORM_ROUTE_HELD][8], squares[4] = { 0 }, scales[4] = { 1, 1, 1, 1 };
        for (int e = 0; e < n_experts; e += NORM_ROUTE_BATCH) {
            float logits[4][NORM_ROUTE_BATCH] = { { 0 } };
            for (int first = 0; first < norm_route_chunks(); first += chunks) {
                if (e == 0 || !is_held) {
                    if (is_ahead) {
                        norm_route_unpack(v, fetched, first);
                        const bool is_row_left = first + chunks < norm_route_chunks();
                        const bool is_again = !is_held && e + NORM_ROUTE_BATCH < n_experts;
                        const int next = is_row_left || is_again ? row : row + rows;
                        norm_route_fetch(fetched, x, n_tokens - n_rows + next, end - next,
                                         is_row_left ? first + chunks : 0);
                    } else
                        norm_route_load(v, x, token, left, first);
                    if (pairs_stride > 0 && e == 0)
                        norm_route_add_pairs(v, x, pairs, token, left, first, pair_k);
                    if (normalise)
                        norm_route_weigh(v, weight, first, e == 0 ? squares : NULL);
                }
                if (!is_ready) {
                    copy_wait(0);
                    barrier();
                    is_ready = true;
                }
                if (n_experts > 1)
                    norm_route_product(logits, v, router, shared_router, e, first);
            }
            if (n_experts > 1)
                norm_route_keep_logits(kept, logits, e);
        }
        if (normalise) {
            UNROLL
            for (int r = 0; r < rows; r++)
                scales[r] = rsqrt_fast(norm_route_sum(squares[r]) / n_in + eps);
            for (int first = 0; first < norm_route_chunks(); first += chunks) {
                if (!is_held) {
                    norm_route_load(v, x, token, left, first);
                    norm_route_weigh(v, weight, first, NULL);
                }
                norm_route_store(out, v, scales, row, left, first);
            }
        }
        warp_sync();
        if (n_experts > 1)
            UNROLL
            for (int first = 0; first < rows; first += 32 / norm_route_lanes()) {
                const int r = min_i(first + lane() / norm_route_lanes(), rows - 1);
                const bool is_real = first + lane() / norm_route_lanes() < left;
                const int64_t at = (int64_t)(row + r) * top_k;
                float scale = scales[0];
                UNROLL
                for (int i = 1; i < rows; i++)
                    scale = r == i ? scales[i] : scale;
                norm_route_choose(experts + at, gates + at, chosen_by + row + r - block_row, kept + r * n_experts,
                                  scale, is_real, top_k);
            }
        warp_sync();
    }
    if (!is_ready) {
        copy_wait(0);
        barrier();
    }
    if (n_experts == 1)
        return;
    barrier();
    const int n_runs = norm_route_block() / NORM_ROUTE_RUN;
    for (int i = thread_x(); i < n_runs * n_experts; i += 32 * norm_route_warps()) {
        const int run = i / n_experts, e = i % n_experts;
        int count = 0;
        for (int r = 0; r < NORM_ROUTE_RUN; r += 4)
            count = dot4_s8(count, *(const int *)(chosen_by + e * norm_route_block() + run * NORM_ROUTE_RUN + r),
                            0x01010101);
        if (block_row + run * NORM_ROUTE_RUN < n_rows)
            counts[(int64_t)block_row / NORM_ROUTE_RUN * n_experts + i] = count;
    }
}
