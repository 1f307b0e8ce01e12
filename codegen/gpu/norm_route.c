/* A residual row takes in its pairs, is normalised, and is routed: softmax over experts, the k largest.
 *
 * Grid: any number of blocks, which share the rows; a step is 2 rows. 32 threads for every 256 columns, 384 at most: a
 * lane has columns 4 l to 4 l + 3 and 128 more of its warp's, of up to 8 experts too. Rows of the next two steps, and
 * two pairs of each, are on their way to shared memory; of more than 3072 columns all is read when it is needed.
 * Shared: with W warps 9232 W + 64, and for E > 1 experts 128 W + 96 E more, or 128 W + 12 E when E > 256.
 */
PARAM(n_in, i) PARAM(in_stride, is) PARAM(pairs_stride, ps) PARAM(out_stride, os) PARAM(act, a) PARAM(n_experts, e)
PARAM(renormalize, rn) PARAM(last, la) FPARAM(eps, eps)

enum {
    NORM_ROUTE_ROWS = 2, NORM_ROUTE_WARPS = 12, NORM_ROUTE_STAGES = 2,      /* STAGES: steps under way */
    NORM_ROUTE_PAIRS = 2,                    /* pairs of a row that are copied ahead */
    NORM_ROUTE_STAGE_LEN = NORM_ROUTE_ROWS * (1024 + 512 * NORM_ROUTE_PAIRS),       /* bytes, of a warp */
    NORM_ROUTE_BATCH = 8,                    /* experts whose logits are summed at a time */
    NORM_ROUTE_CHOSEN = 16,                  /* rows at most whose experts are chosen together */
};

DEVICE int norm_route_chunks(void) { return (n_in + 255) / 256; }
/* Chunks of 256 columns a warp: one is held in registers, several are read whenever they are needed. */
DEVICE int norm_route_passes(void) { return (norm_route_chunks() + NORM_ROUTE_WARPS - 1) / NORM_ROUTE_WARPS; }
DEVICE int norm_route_warps(void) { return (norm_route_chunks() + norm_route_passes() - 1) / norm_route_passes(); }
DEVICE bool norm_route_is_held(void) { return norm_route_passes() == 1; }

/* ---- columns ---- */

/* The first of four columns, half 0 or 1, of this lane in chunk j. */
DEVICE int norm_route_column(int j, int half) { return j * 256 + half * 128 + lane() * 4; }

/* How many of the columns from `column` on there are, at most `most`. */
DEVICE int norm_route_left(int column, int most)
{
    const bool is_whole = n_in % 256 == 0 && norm_route_chunks() % norm_route_warps() == 0;
    return is_whole ? most : max_i(min_i(n_in - column, most), 0);
}

/* Four columns of float32, n of them real; zeros beyond. */
DEVICE void norm_route_load_f32(float v[4], const float *from, int n)
{
    if (n >= 4) {
        const u32x4 quad = load16(from);
        UNROLL
        for (int i = 0; i < 4; i++)
            v[i] = bits_float(quad[i]);
        return;
    }
    UNROLL
    for (int i = 0; i < 4; i++)
        v[i] = i < n ? from[i] : 0;
}

DEVICE void norm_route_store_f32(float *to, const float v[4], int n)
{
    if (n >= 4) {
        store16(to, (u32x4){ float_bits(v[0]), float_bits(v[1]), float_bits(v[2]), float_bits(v[3]) });
        return;
    }
    UNROLL
    for (int i = 0; i < 4; i++)
        if (i < n)
            to[i] = v[i];
}

DEVICE void norm_route_store_act(act_t *to, const float v[4], int n)
{
    if (n >= 4) {
        *(uint64_t *)to = (uint64_t)act_pack(v[2], v[3], act) << 32 | act_pack(v[0], v[1], act);
        return;
    }
    UNROLL
    for (int i = 0; i < 4; i++)
        if (i < n)
            to[i] = float_act(v[i], act);
}

/* Adds four columns of activations, n of them real. */
DEVICE void norm_route_add_act(float v[4], const void *from, int n)
{
    const uint64_t quad = *(const uint64_t *)from;
    UNROLL
    for (int i = 0; i < 2; i++) {
        v[2 * i] += 2 * i < n ? act_lo((uint32_t)(quad >> (32 * i)), act) : 0;
        v[2 * i + 1] += 2 * i + 1 < n ? act_hi((uint32_t)(quad >> (32 * i)), act) : 0;
    }
}

/* ---- rows: v[r] is this lane's eight columns of row r of a step, which has `left` rows ---- */

/* Which token a row is: with several sequences the last rows are each one's last token. */
typedef struct { const int32_t *ends; int n_sequences, first; } NormRouteTokens;

DEVICE int64_t norm_route_token(NormRouteTokens of, int row)
{
    return last && of.n_sequences > 1 ? of.ends[row] - 1 : of.first + row;
}

/* Asks for rows of x and of their first pairs: a stage has x [row][half][lane], then pairs [s][row][lane], 16 bytes. */
DEVICE void norm_route_fetch(uint8_t *stage, const float *x, const act_t *pairs, NormRouteTokens of, int row, int left,
    int pair_k)
{
    UNROLL
    for (int r = 0; r < NORM_ROUTE_ROWS; r++) {
        if (r >= left)
            continue;
        const int64_t token = norm_route_token(of, row + r);
        UNROLL
        for (int half = 0; half < 2; half++) {
            const int column = norm_route_column(warp(), half);
            copy_async16(stage + ((r * 2 + half) * 32 + lane()) * 16, x + token * in_stride + column,
                         4 * norm_route_left(column, 4));
        }
        UNROLL
        for (int s = 0; s < NORM_ROUTE_PAIRS; s++) {
            const int column = warp() * 256 + lane() * 8;
            if (pairs_stride > 0 && s < pair_k)
                copy_async16(stage + (((2 + s) * NORM_ROUTE_ROWS + r) * 32 + lane()) * 16,
                             pairs + (token * pair_k + s) * pairs_stride + column, 2 * norm_route_left(column, 8));
        }
    }
}

/* The rows that have come, with their first pairs. */
DEVICE void norm_route_take(float v[][8], const uint8_t *stage, int pair_k)
{
    UNROLL
    for (int i = 0; i < 2 * NORM_ROUTE_ROWS; i++)
        norm_route_load_f32(v[i / 2] + i % 2 * 4, (const float *)(stage + (i * 32 + lane()) * 16), 4);
    UNROLL
    for (int s = 0; s < NORM_ROUTE_PAIRS; s++) {
        if (pairs_stride == 0 || s >= pair_k)
            continue;
        const uint8_t *const rows = stage + (2 + s) * NORM_ROUTE_ROWS * 512;
        UNROLL
        for (int i = 0; i < 2 * NORM_ROUTE_ROWS; i++)
            norm_route_add_act(v[i / 2] + i % 2 * 4, rows + i * 256 + lane() * 8, 4);
    }
}

/* Chunk j of rows that were not asked for. */
DEVICE void norm_route_load(float v[][8], const float *x, NormRouteTokens of, int row, int left, int j)
{
    UNROLL
    for (int r = 0; r < NORM_ROUTE_ROWS; r++)
        UNROLL
        for (int half = 0; half < 2; half++) {
            const int column = norm_route_column(j, half), n = r < left ? norm_route_left(column, 4) : 0;
            const int64_t token = n > 0 ? norm_route_token(of, row + r) : 0;
            norm_route_load_f32(v[r] + half * 4, x + token * in_stride + column, n);
        }
}

/* Adds pairs s to pair_k - 1, whose padding may be read but is not to be trusted. */
DEVICE void norm_route_add_pairs(float v[][8], const act_t *pairs, NormRouteTokens of, int row, int left, int s,
    int pair_k, int j)
{
    for (; s < pair_k; s++)
        UNROLL
        for (int i = 0; i < 2 * NORM_ROUTE_ROWS; i++) {
            const int column = norm_route_column(j, i % 2), n = i / 2 < left ? norm_route_left(column, 4) : 0;
            const int64_t pair = n > 0 ? norm_route_token(of, row + i / 2) * pair_k + s : 0;
            if (n > 0)
                norm_route_add_act(v[i / 2] + i % 2 * 4, pairs + pair * pairs_stride + column, n);
        }
}

DEVICE void norm_route_keep(float *x, float v[][8], NormRouteTokens of, int row, int left, int j)
{
    UNROLL
    for (int r = 0; r < NORM_ROUTE_ROWS; r++)
        UNROLL
        for (int half = 0; half < 2; half++) {
            const int column = norm_route_column(j, half);
            if (r < left)
                norm_route_store_f32(x + norm_route_token(of, row + r) * in_stride + column, v[r] + half * 4,
                                     norm_route_left(column, 4));
        }
}

/* v as the norm's weight leaves it; the sums of squares before that are added to squares, where they count. */
DEVICE void norm_route_weigh(float v[][8], const float *weight, const u32x4 *shared_weight, int j, float *squares,
    bool count)
{
    UNROLL
    for (int half = 0; half < 2; half++) {
        const int column = norm_route_column(j, half);
        float w[4];
        if (norm_route_is_held())
            norm_route_load_f32(w, (const float *)(shared_weight + half * 32 + lane()), 4);
        else
            norm_route_load_f32(w, weight + column, norm_route_left(column, 4));
        UNROLL
        for (int r = 0; r < NORM_ROUTE_ROWS; r++)
            UNROLL
            for (int c = 0; c < 4; c++) {
                float *const value = &v[r][half * 4 + c];
                squares[r] = count ? fma_f(*value, *value, squares[r]) : squares[r];
                *value *= w[c];
            }
    }
}

DEVICE void norm_route_store(act_t *out, float v[][8], const float *scales, int row, int left, int j)
{
    UNROLL
    for (int i = 0; i < 2 * NORM_ROUTE_ROWS; i++) {
        const int column = norm_route_column(j, i % 2);
        UNROLL
        for (int c = 0; c < 4; c++)
            v[i / 2][i % 2 * 4 + c] *= scales[i / 2];
        norm_route_store_act(out + (int64_t)(row + i / 2) * out_stride + column, v[i / 2] + i % 2 * 4,
                             i / 2 < left ? norm_route_left(column, 4) : 0);
    }
}

/* ---- the router ---- */

/* Whether a lane's columns of all experts stay in registers. */
DEVICE bool norm_route_is_router_held(void)
{
    return n_experts > 1 && n_experts <= NORM_ROUTE_BATCH && norm_route_is_held();
}

/* This lane's columns of expert e, in chunk j. */
DEVICE void norm_route_load_router(float w[8], const float *router, int e, int j)
{
    UNROLL
    for (int half = 0; half < 2; half++) {
        const int column = norm_route_column(j, half), n = norm_route_left(column, 4);
        const float *const from = router + (int64_t)e * n_in + column;
        if (n_in % 4 == 0)
            norm_route_load_f32(w + half * 4, from, n);
        else
            UNROLL
            for (int c = 0; c < 4; c++)
                w[half * 4 + c] = c < n ? from[c] : 0;
    }
}

/* logits[r * BATCH + b] += v[r] · router of expert e + b. */
DEVICE void norm_route_product(float *logits, float v[][8], const float *router, float held[][8], int e, int j)
{
    UNROLL
    for (int b = 0; b < NORM_ROUTE_BATCH; b++) {
        float w[8];
        if (e + b >= n_experts)
            continue;
        if (!norm_route_is_router_held())
            norm_route_load_router(w, router, e + b, j);
        UNROLL
        for (int r = 0; r < NORM_ROUTE_ROWS; r++)
            UNROLL
            for (int c = 0; c < 8; c++)
                logits[r * NORM_ROUTE_BATCH + b] = fma_f(v[r][c], norm_route_is_router_held() ? held[b][c] : w[c],
                                                         logits[r * NORM_ROUTE_BATCH + b]);
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

/* The sum over lanes of value lane() % (2 · half), of 2 · half values, 16 at most. */
DEVICE float norm_route_sum(float values[], const int half)
{
    if (half >= 8)
        norm_route_swap(values, 8);
    if (half >= 4)
        norm_route_swap(values, 4);
    if (half >= 2)
        norm_route_swap(values, 2);
    norm_route_swap(values, 1);
    UNROLL
    for (int i = 1; i < 5; i++)
        if (1 << i > half)
            values[0] += shuffle_xor_f(values[0], 1 << i);
    return values[0];
}

/* Rows whose experts are chosen together. */
DEVICE int norm_route_chosen(void) { return n_experts > 256 ? NORM_ROUTE_ROWS : NORM_ROUTE_CHOSEN; }

/* ---- what a block shares ---- */

typedef struct {
    u32x4 *weight;          /* [WARPS][2][32] */
    float *squares;         /* [2][ROWS][WARPS], steps in turn */
    float *parts;           /* [2][WARPS][ROWS][BATCH], batches in turn: logits of a warp's columns */
    float *scales;          /* [CHOSEN] */
    float *logits;          /* [chosen()][E], without the scales */
    uint16_t *chosen;       /* [E][chosen()] */
} NormRoute;

DEVICE NormRoute norm_route_shared(uint8_t *at)
{
    const int warps = norm_route_warps();
    NormRoute s;
    s.weight = (u32x4 *)at;
    s.squares = (float *)(at + warps * 1024);
    s.scales = s.squares + 2 * NORM_ROUTE_ROWS * warps;
    s.parts = s.scales + NORM_ROUTE_CHOSEN;
    s.logits = s.parts + (n_experts > 1 ? 2 * NORM_ROUTE_ROWS * warps * NORM_ROUTE_BATCH : 0);
    s.chosen = (uint16_t *)(s.logits + norm_route_chosen() * n_experts);
    return s;
}

/* Behind a barrier: the scales of a step's rows, of which the first is `at` of those chosen together. */
DEVICE void norm_route_scale(const NormRoute *s, float *scales, const float *squares, int at)
{
    const int warps = norm_route_warps();
    UNROLL
    for (int r = 0; r < NORM_ROUTE_ROWS; r++) {
        float sum = squares[r * warps];
        UNROLL
        for (int w = 1; w < warps; w++)
            sum += squares[r * warps + w];
        scales[r] = rsqrt_fast(sum / n_in + eps);
        if (thread_x() == 0)
            s->scales[at + r] = scales[r];
    }
}

/* Behind a barrier: the sums of a batch's logits, from expert e on. */
DEVICE void norm_route_add_up(const NormRoute *s, const float *parts, int at, int e)
{
    const int r = thread_x() / NORM_ROUTE_BATCH, expert = e + thread_x() % NORM_ROUTE_BATCH;
    if (r >= NORM_ROUTE_ROWS || expert >= n_experts)
        return;
    float sum = parts[thread_x()];
    UNROLL
    for (int w = 1; w < norm_route_warps(); w++)
        sum += parts[w * NORM_ROUTE_ROWS * NORM_ROUTE_BATCH + thread_x()];
    s->logits[(at + r) * n_experts + expert] = sum;
}

/* By the whole block: the choices of n rows from `row` on, and the places of their pairs. */
DEVICE void norm_route_choose(const NormRoute *s, int32_t *experts, float *gates, int32_t *slots, int32_t *totals,
    int row, int n, int n_rows, int top_k)
{
    const int warps = norm_route_warps(), lanes = routing_lanes(n_experts), at_once = 32 / lanes;
    for (int i = thread_x(); i < n_experts * norm_route_chosen(); i += 32 * warps)
        s->chosen[i] = 0;
    barrier();
    for (int first = warp() * at_once; first < n; first += warps * at_once) {
        const int r = first + lane() / lanes, real = min_i(r, n - 1);
        const int64_t at = (int64_t)(row + real) * top_k;
        routing_choose(experts + at, gates + at, s->chosen + real, s->logits + real * n_experts, s->scales[real], r < n,
            n_experts, top_k, renormalize, norm_route_chosen());
    }
    barrier();
    routing_place(slots, totals, s->chosen, n_experts, norm_route_chosen(), row, n_rows, top_k);
}

KERNEL(norm_route)(float *x /* [n_tokens][in_stride] */, const act_t *pairs /* [n_tokens · pair_k][pairs_stride] */,
    const float *restrict weight /* [n_in] */, const float *restrict router /* [E][n_in] */,
    act_t *out /* [n_rows][out_stride] */, int32_t *experts, float *gates /* both [n_rows][top_k] */,
    int32_t *slots /* [E][n_rows] */, int32_t *totals /* [E] */, const int32_t *ends, int32_t n_sequences,
    int32_t n_rows, int32_t n_tokens, int32_t top_k, int32_t pair_k)
{
    const int warps = norm_route_warps(), passes = norm_route_passes(), stage_len = NORM_ROUTE_STAGE_LEN;
    const int n_blocks = n_blocks_x() * n_blocks_y(), block = block_y() * n_blocks_x() + block_x();
    const int64_t n_steps = (n_rows + NORM_ROUTE_ROWS - 1) / NORM_ROUTE_ROWS;
    const int begin = (int)(n_steps * block / n_blocks) * NORM_ROUTE_ROWS;
    const int end = min_i((int)(n_steps * (block + 1) / n_blocks) * NORM_ROUTE_ROWS, n_rows);
    uint8_t *const ring = (uint8_t *)shared() + warp() * NORM_ROUTE_STAGES * stage_len;
    const NormRoute s = norm_route_shared((uint8_t *)shared() + warps * NORM_ROUTE_STAGES * stage_len);
    u32x4 *const own_weight = s.weight + warp() * 64;
    const NormRouteTokens of = { ends, n_sequences, n_tokens - n_rows };
    float held[NORM_ROUTE_BATCH][8];
    if (begin >= end)
        return;
    UNROLL
    for (int half = 0; half < 2; half++) {
        const int column = norm_route_column(warp(), half);
        if (norm_route_is_held())
            copy_async16(own_weight + half * 32 + lane(), weight + column, 4 * norm_route_left(column, 4));
    }
    UNROLL
    for (int b = 0; b < NORM_ROUTE_BATCH; b++)
        if (norm_route_is_router_held() && b < n_experts)
            norm_route_load_router(held[b], router, b, warp());
    dependency_wait();
    dependency_launch();
    for (int i = 0; i < NORM_ROUTE_STAGES && norm_route_is_held(); i++) {
        const int row = begin + i * NORM_ROUTE_ROWS;
        norm_route_fetch(ring + i * stage_len, x, pairs, of, row, end - row, pair_k);
        copy_commit();
    }
    for (int row = begin, step = 0, batch = 0; row < end; row += NORM_ROUTE_ROWS, step++) {
        const int left = min_i(end - row, NORM_ROUTE_ROWS);
        const int at = step % (norm_route_chosen() / NORM_ROUTE_ROWS) * NORM_ROUTE_ROWS;
        float v[NORM_ROUTE_ROWS][8], squares[NORM_ROUTE_ROWS] = { 0 }, scales[NORM_ROUTE_ROWS];
        float *const shared_squares = s.squares + step % 2 * NORM_ROUTE_ROWS * warps;
        for (int e = 0; e < n_experts; e += NORM_ROUTE_BATCH, batch++) {
            float logits[NORM_ROUTE_ROWS * NORM_ROUTE_BATCH] = { 0 };
            for (int pass = 0; pass < passes; pass++) {
                const int j = pass * warps + warp();
                if (norm_route_is_held() && e == 0) {
                    const int next = row + NORM_ROUTE_STAGES * NORM_ROUTE_ROWS;
                    uint8_t *const stage = ring + step % NORM_ROUTE_STAGES * stage_len;
                    copy_wait(NORM_ROUTE_STAGES - 1);
                    warp_sync();
                    norm_route_take(v, stage, pair_k);
                    warp_sync();
                    norm_route_fetch(stage, x, pairs, of, next, end - next, pair_k);
                    copy_commit();
                } else if (!norm_route_is_held())
                    norm_route_load(v, x, of, row, left, j);
                if (pairs_stride > 0 && e == 0) {
                    const int first = norm_route_is_held() ? NORM_ROUTE_PAIRS : 0;
                    norm_route_add_pairs(v, pairs, of, row, left, first, pair_k, j);
                    norm_route_keep(x, v, of, row, left, j);
                }
                if (e == 0 || !norm_route_is_held())
                    norm_route_weigh(v, weight, own_weight, j, squares, e == 0);
                if (n_experts > 1)
                    norm_route_product(logits, v, router, held, e, j);
            }
            float *const parts = s.parts + batch % 2 * warps * NORM_ROUTE_ROWS * NORM_ROUTE_BATCH;
            if (n_experts > 1) {
                const float logit = norm_route_sum(logits, NORM_ROUTE_ROWS * NORM_ROUTE_BATCH / 2);
                if (lane() < NORM_ROUTE_ROWS * NORM_ROUTE_BATCH)
                    parts[warp() * NORM_ROUTE_ROWS * NORM_ROUTE_BATCH + lane()] = logit;
            }
            if (e == 0) {
                const float square = norm_route_sum(squares, NORM_ROUTE_ROWS / 2);
                if (lane() < NORM_ROUTE_ROWS)
                    shared_squares[lane() * warps + warp()] = square;
            }
            barrier();
            if (n_experts > 1)
                norm_route_add_up(&s, parts, at, e);
        }
        norm_route_scale(&s, scales, shared_squares, at);
        for (int pass = 0; pass < passes; pass++) {
            const int j = pass * warps + warp();
            if (!norm_route_is_held()) {
                norm_route_load(v, x, of, row, left, j);
                norm_route_weigh(v, weight, own_weight, j, squares, false);
            }
            norm_route_store(out, v, scales, row, left, j);
        }
        const int n_done = at + left;
        if (n_experts > 1 && (n_done == norm_route_chosen() || row + left == end))
            norm_route_choose(&s, experts, gates, slots, totals, row + left - n_done, n_done, n_rows, top_k);
    }
}
