/* What the decode kernels share: products of a few rows with streamed weights, and routing without a phase.
 *
 * A decode kernel multiplies the rows of up to 16 sequences with weights that are read once. The weights are the
 * B operand of the tensor cores, 8 rows of them a tile, the sequences the A operand: lane 4 g + t of a warp takes
 * 16 bytes of weight row g, at byte 16 t of a chunk of 64, and the same elements of the rows of sequences g and
 * g + 8. Weights come by asynchronous copies through a ring in shared memory that a warp has for itself. A warp owns
 * tiles and a slice of the columns; the slices are added up through shared memory, in order.
 *
 * Routing: who makes a piece of a routed vector leaves its part of every logit (and of the sum of squares,
 * where the vector is to be normalised) beside it, [sequence][sum][part]; each block of the next kernel adds the
 * parts up. At most 16 sequences and 32 experts. Every sum has one order: results do not depend on timing.
 */
#ifndef MOSSC_CODEGEN_GPU_DECODE_H
#define MOSSC_CODEGEN_GPU_DECODE_H

enum {
    DECODE_ROWS = 16, DECODE_EXPERTS = 32,
    DECODE_CHUNK = 64,                  /* bytes of a weight row that a warp takes at once */
    DECODE_SLOT = 8 * DECODE_CHUNK,     /* of all rows of a tile */
    DECODE_MAX_GROUP = 8,              /* chunks a step: an even number */
};

/* A hint: the line is needed soon. Its translation then is at hand, which costs as much as the line itself. */
DEVICE void decode_expect(const void *global)
{
#ifdef __NVPTX__
    __asm__ volatile("prefetch.global.L2 [%0];" :: "l"(global));
#else
    (void)global;
#endif
}

/* The pointer is in a register from here on: before a wait, so that what comes after it starts at once. */
DEVICE void decode_hold(const void *pointer)
{
#ifdef __NVPTX__
    __asm__ volatile("" :: "l"(pointer));
#else
    (void)pointer;
#endif
}

/* copy_async16 for weights: of all that is in the second cache they go first, so that code, states and the many
 * small tensors, which come again with the next token, stay there. */
DEVICE void decode_copy16(void *shared, const void *global, int n_bytes)
{
#ifdef __NVPTX__
    uint64_t policy;
    __asm__("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    __asm__ volatile("cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2, %3;"
                     :: "r"(shared_address(shared)), "l"(global), "r"(n_bytes), "l"(policy) : "memory");
#else
    copy_async16(shared, global, n_bytes);
#endif
}

/* ---- small sums ---- */

DEVICE float decode_warp_sum(float x)
{
    UNROLL for (int mask = 16; mask > 0; mask /= 2)
        x += shuffle_xor_f(x, mask);
    return x;
}

DEVICE int decode_warp_max(int x)
{
#ifdef __NVPTX__
    int most;
    __asm__ volatile("redux.sync.max.s32 %0, %1, 0xffffffff;" : "=r"(most) : "r"(x));
    return most;
#else
    for (int mask = 16; mask > 0; mask /= 2)
        x = max_i(x, shuffle_xor_i(x, mask));
    return x;
#endif
}

DEVICE float decode_silu(float x) { return x * reciprocal_fast(1.0f + exp2_fast(-1.44269504f * x)); }

/* sums[i] = parts[i][0] + parts[i][1] + …; the barrier after it is the caller's. */
DEVICE void decode_sum_parts(float *sums /* shared [n_sums] */, const float *parts /* [n_sums][n_parts] */, int n_sums,
    const int n_parts)
{
    enum { MOST_PARTS = 16, MOST_SUMS = 4 };     /* loads of a lane and sums of a warp that are under way at once */
    const int n_each = (n_parts + 31) / 32, n_warps = n_threads() / 32;
    if (n_sums <= n_warps || n_each * MOST_SUMS > MOST_PARTS) {        /* of one row: the fewest instructions */
        for (int i = warp(); i < n_sums; i += n_warps) {
            const float *from = parts + (int64_t)i * n_parts;
            float sum = 0;
            UNROLL for (int j = 0; j < n_parts / 32; j++)
                sum += from[j * 32 + lane()];
            if (n_parts / 32 * 32 + lane() < n_parts)
                sum += from[n_parts / 32 * 32 + lane()];
            sum = decode_warp_sum(sum);
            if (lane() == 0)
                sums[i] = sum;
        }
        return;
    }
    for (int i0 = warp(); i0 < n_sums; i0 += MOST_SUMS * n_warps) {
        float part[MOST_SUMS][MOST_PARTS / MOST_SUMS];
        UNROLL for (int k = 0; k < MOST_SUMS; k++)
            UNROLL for (int j = 0; j < n_each; j++) {
                const int i = i0 + k * n_warps, at = j * 32 + lane();
                part[k][j] = i < n_sums && at < n_parts ? parts[(int64_t)i * n_parts + at] : 0.0f;
            }
        UNROLL for (int k = 0; k < MOST_SUMS; k++) {
            if (i0 + k * n_warps >= n_sums)
                break;
            float sum = 0;
            UNROLL for (int j = 0; j < n_each; j++)
                sum += part[k][j];
            sum = decode_warp_sum(sum);
            if (lane() == 0)
                sums[i0 + k * n_warps] = sum;
        }
    }
}

/* Of the warp's pairs the one with the largest value, of equal ones the lowest place; places below 0 do not count. */
DEVICE void decode_pick(float *value, int *place)
{
    UNROLL for (int mask = 16; mask > 0; mask /= 2) {
        const float other = shuffle_xor_f(*value, mask);
        const int there = shuffle_xor_i(*place, mask);
        if (there >= 0 && (*place < 0 || other > *value || (other == *value && there < *place))) {
            *value = other;
            *place = there;
        }
    }
}

/* ---- routing ---- */

typedef struct {
    float sums[DECODE_ROWS * (DECODE_EXPERTS + 1)];
    float gates[DECODE_EXPERTS * DECODE_ROWS];   /* [expert][sequence], 0 where not chosen */
    uint32_t chosen[DECODE_ROWS];                /* a bit for each expert; see decode_chosen_at */
} DecodeRoute;

/* Where the choice of a row is. Of a single row every warp has chosen for itself and keeps its own copy: no barrier. */
DEVICE int decode_chosen_at(int row, int n_rows) { return n_rows == 1 ? warp() : row; }

/* 1 / (root mean square) of a row, the last of whose sums is that of its squares. */
DEVICE float decode_rms(const DecodeRoute *route, int row, int n_sums, const int n_in, float eps)
{
    return rsqrt_fast(route->sums[row * n_sums + n_sums - 1] * (1.0f / (float)n_in) + eps);
}

/* The top_k experts of every row by route->sums [n_rows][n_sums], logits first: equal ones to the lower index, any
 * order among NaNs. Fills route->chosen and returns what some row chose. The whole block comes; sums are ready. */
DEVICE uint32_t decode_select(DecodeRoute *route, int n_rows, const int n_sums, const int n_experts, int top_k)
{
    const int n_warps = n_threads() / 32;
    uint32_t active = 0;
    for (int row = n_rows == 1 ? 0 : warp(); row < n_rows; row += n_warps) {
        const float *logits = route->sums + row * n_sums;
        int key = (int)float_bits(logits[min_i(lane(), n_experts - 1)]), is = lane() < n_experts;
        key ^= key >> 31 & 0x7fffffff;           /* integers in the order of the floats */
        active = 0;
        for (int k = 0; k < top_k; k++) {
            const int most = decode_warp_max(is ? key : -0x7fffffff - 1);
            const uint32_t best = ballot(is && key == most);
            active |= best & -best;
            is = is && !(active >> lane() & 1);
        }
        if (lane() == 0)
            route->chosen[decode_chosen_at(row, n_rows)] = active;
    }
    if (n_rows == 1)                             /* every warp has chosen for itself */
        return active;
    barrier();
    active = lane() < n_rows ? route->chosen[lane()] : 0;
    UNROLL for (int mask = 8; mask > 0; mask /= 2)
        active |= (uint32_t)shuffle_xor_i((int)active, mask);
    return (uint32_t)shuffle_i((int)active, 0);
}

/* Gates of what decode_select chose; normed: logits are times decode_rms. A barrier after it is the caller's. */
DEVICE void decode_gates(DecodeRoute *route, int n_rows, const int n_sums, const int n_experts, const int renormalize,
    const int normed, const int n_in, float eps)
{
    warp_sync();                                 /* chosen is there, also without decode_select's barrier */
    for (int row = warp(); row < n_rows; row += n_threads() / 32) {
        const int exists = lane() < n_experts;
        const int is = exists && route->chosen[decode_chosen_at(row, n_rows)] >> lane() & 1;
        float logit = exists ? route->sums[row * n_sums + lane()] : -3.0e38f;
        if (normed)
            logit *= decode_rms(route, row, n_sums, n_in, eps);
        float best = logit;
        UNROLL for (int mask = 16; mask > 0; mask /= 2)
            best = max_f(best, shuffle_xor_f(best, mask));
        const float p = exists ? exp2_fast((logit - best) * 1.44269504f) : 0.0f;
        const float sum = decode_warp_sum(is || !renormalize ? p : 0.0f);
        if (exists)
            route->gates[lane() * DECODE_ROWS + row] = is ? p * reciprocal_fast(sum) : 0.0f;
    }
}

/* ---- streamed weights ---- */

/* What a warp reads, as one of its lanes sees it. A tile is 8 weight rows; tiles_per_part of them at a tile_stride
 * are a part, parts are a part_stride apart. Lane 8 r + p copies piece p (16 bytes) of every pair of chunks of the
 * rows r and r + 4. */
typedef struct {
    const uint8_t *row;         /* the lane's piece of row r of the slice's first chunks: expert 0, tile 0 */
    int64_t half_stride, tile_stride, part_stride, expert_stride;   /* bytes; half: from row r to row r + 4 */
    int tiles_per_part;
    int n_valid[2];             /* tiles of a part in which the lane's rows exist */
    int n_chunks;               /* of the warp's slice of columns */
    int tile_begin, tile_end, tile_step;
    uint32_t experts;           /* a bit for each expert to read */
    uint8_t *ring;              /* shared: [ring][group] slots */
} DecodeWeights;

/* What the compiler knows of a product. */
typedef struct {
    int n_in;                   /* columns of the input */
    int weight_dtype, act;
    int n_slices, group, n_groups,
        ring;   /* slices of columns; chunks a step; steps a tile and slice; steps in flight */
    int experts_outer;          /* all tiles of an expert before the next one's; else all experts of a tile */
    int gated, by_pair;         /* times the gates; the input differs from expert to expert */
    int early;                  /* the input is far (global): fetched before the wait for the weights */
    int ready;                  /* the whole ring is there: nothing to wait for, nothing to copy */
    int behind;                 /* groups of copies for others that were begun after the ring was filled */
    int one_row;                /* parts have places for one row only */
} DecodeShape;

/* The step that is copied next, and the place in the ring that is used up next. */
typedef struct { int tile, group, slot, used; uint32_t experts; } DecodeCursor;

DEVICE DecodeCursor decode_begin(const DecodeWeights *w)
{
    return (DecodeCursor){ w->tile_begin, 0, 0, 0, w->experts };
}

DEVICE void decode_next_step(const DecodeWeights *w, DecodeCursor *at, const DecodeShape shape)
{
    at->slot = at->slot + 1 == shape.ring ? 0 : at->slot + 1;
    if (++at->group < shape.n_groups)
        return;
    at->group = 0;
    if (shape.experts_outer) {
        at->tile += w->tile_step;
        if (at->tile >= w->tile_end) {
            at->tile = w->tile_begin;
            at->experts &= at->experts - 1;
        }
        return;
    }
    at->experts &= at->experts - 1;
    if (!at->experts) {
        at->experts = w->experts;
        at->tile += w->tile_step;
    }
}

/* Starts the copies of the step at the cursor; an empty group when there is none left. */
DEVICE void decode_copy_step(const DecodeWeights *w, DecodeCursor *at, const DecodeShape shape)
{
    if (at->tile < w->tile_end && at->experts) {
        const int part = at->tile / w->tiles_per_part, tile = at->tile - part * w->tiles_per_part;
        const uint8_t *from = w->row + tile * w->tile_stride + part * w->part_stride
            + __builtin_ctz(at->experts) * w->expert_stride + at->group * shape.group * DECODE_CHUNK;
        uint8_t *to = w->ring + at->slot * shape.group * DECODE_SLOT
            + lane() / 8 * 128 + ((lane() % 8) ^ (lane() / 8 % 2 * 4)) * 16;
        const int n_left = w->n_chunks - at->group * shape.group - lane() % 8 / 4;
        UNROLL for (int j = 0; j < shape.group; j++)        /* a pair of chunks: its rows 0 to 3, then 4 to 7 */
            decode_copy16(to + j * DECODE_SLOT, from + j / 2 * 2 * DECODE_CHUNK + j % 2 * w->half_stride,
                j / 2 * 2 < n_left && tile < w->n_valid[j % 2] ? 16 : 0);
        decode_next_step(w, at, shape);
    }
    copy_commit();
}

/* Before it is known which experts are read: where their rows begin. */
DEVICE void decode_expect_experts(const DecodeWeights *w, const int n_experts)
{
    for (int e = warp(); e < n_experts; e += n_threads() / 32)
        if (lane() % 8 == 0 && w->n_valid[0] > 0)
            decode_expect(w->row + e * w->expert_stride);
}

DEVICE void decode_fill_ring(const DecodeWeights *w, DecodeCursor *at, const DecodeShape shape)
{
    for (int i = 0; i < shape.ring; i++)
        decode_copy_step(w, at, shape);
}

/* acc += 16 rows · one chunk of a tile. lo, hi: the lane's elements of rows g and g + 8: 1 vector, 2 with q8. */
DEVICE void decode_mma(float acc[4], u32x4 weight, const u32x4 *lo, const u32x4 *hi, const int weight_dtype,
    const int act)
{
    UNROLL for (int i = 0; i < 2; i++)
        if (weight_dtype == 3)
            UNROLL for (int j = 0; j < 2; j++) {
                uint32_t b[2];
                act_from_s8(b, weight[2 * i + j], act);
                mma_16x8x16(acc, (const uint32_t[4]){ lo[i][2 * j], hi[i][2 * j], lo[i][2 * j + 1], hi[i][2 * j + 1] },
                    b, act);
            }
        else
            mma_16x8x16(acc, (const uint32_t[4]){ lo[0][2 * i], hi[0][2 * i], lo[0][2 * i + 1], hi[0][2 * i + 1] },
                (const uint32_t[2]){ weight[2 * i], weight[2 * i + 1] }, act);
}

/* 8 elements of a row at column k, zeros from column n_in on. stride: of rows, a multiple of 8. */
DEVICE u32x4 decode_load8(const act_t *row, int k, const int n_in)
{
    if (k + 8 <= n_in)
        return load16(row + k);
    u32x4 value = { 0, 0, 0, 0 };
    if (n_in % 8 && k < n_in) {
        value = load16(row + k);
        UNROLL for (int i = 0; i < 8; i++)
            if (k + i >= n_in)
                value[i / 2] &= i % 2 ? 0x0000ffffu : 0xffff0000u;
    }
    return value;
}

/* The lane's elements of one chunk of a row, 1 vector or (q8) 2, from column k on; a null row is zero. */
DEVICE void decode_load_chunk(u32x4 *to, const act_t *row, int k, const int n_in, const int weight_dtype)
{
    UNROLL for (int i = 0; i < (weight_dtype == 3 ? 2 : 1); i++)
        to[i] = row ? decode_load8(row, k + 8 * i, n_in) : (u32x4){ 0, 0, 0, 0 };
}

/* How a block's warps share k columns: warp w has slice w % n_slices of whole chunks. */
typedef struct { int first, n; } DecodeSlice;      /* chunks */

DEVICE int decode_n_chunks(const int n_in, const int weight_dtype)
{
    return (n_in + 63) / 64 * (weight_dtype == 3 ? 1 : 2);
}
DEVICE int decode_row_len(const int n_in, const int weight_dtype)   /* bytes */
{
    return decode_n_chunks(n_in, weight_dtype) * DECODE_CHUNK;
}
DEVICE DecodeSlice decode_slice(const int n_chunks, const int n_slices, int slice)
{
    const int per = (n_chunks + 2 * n_slices - 1) / (2 * n_slices) * 2, first = slice * per;      /* pairs */
    return (DecodeSlice){ first, min_i(per, max_i(n_chunks - first, 0)) };
}
/* Groups of chunks in a slice. */
DEVICE int decode_n_groups(const int n_chunks, const int n_slices, const int group)
{
    return ((n_chunks + 2 * n_slices - 1) / (2 * n_slices) * 2 + group - 1) / group;
}

/* Partial products of a block: [tile][slice][n_places][8], n_places 16, or 1 for one row. Rows from n_rows on are not
 * written. */
DEVICE void decode_store_part(float *parts /* shared */, int tile, int slice, const int n_slices, const int n_places,
    const float total[4], int n_rows)
{
    const int g = lane() / 4, t = lane() % 4;
    float *to = parts + ((tile * n_slices + slice) * n_places + g) * 8 + 2 * t;
    if (g < n_rows) {
        to[0] = total[0];
        to[1] = total[1];
    }
    if (g + 8 < n_rows) {
        to[64] = total[2];
        to[65] = total[3];
    }
}

DEVICE float decode_read_part(const float *parts, int tile, const int n_slices, int row, int column)
{
    float sum = 0;
    UNROLL for (int i = 0; i < n_slices; i++)
        sum += parts[((tile * n_slices + i) * DECODE_ROWS + row) * 8 + column];
    return sum;
}

/* ---- products ---- */

/* The A operand: row r of a block's input, shared or global, `stride` elements (a multiple of 8) from the next. */
typedef struct {
    const act_t *x;
    int64_t stride;
    int k0;                     /* the lane's column in the slice's first chunk */
} DecodeInput;

/* Row r's input for expert e: row r, or with by_pair that of its pair with e; -1: there is none. */
DEVICE int decode_input_row(const DecodeRoute *route, int row, int n_rows, int expert, const int by_pair, int top_k)
{
    if (row >= n_rows || !by_pair)
        return row < n_rows ? row : -1;
    const uint32_t chosen = route->chosen[decode_chosen_at(row, n_rows)], bit = 1u << expert;
    return chosen & bit ? row * top_k + count_ones(chosen & (bit - 1)) : -1;
}

/* The lane's elements of one chunk of a row, 1 vector or (q8) 2, from column k on; no row: zero. */
DEVICE void decode_load_input(u32x4 *to, const DecodeInput *in, int row, int k, const DecodeShape shape)
{
    UNROLL for (int i = 0; i < (shape.weight_dtype == 3 ? 2 : 1); i++)
        if (row < 0)
            to[i] = (u32x4){ 0, 0, 0, 0 };
        else
            to[i] = decode_load8(in->x + row * in->stride, k + 8 * i, shape.n_in);
}

DEVICE void decode_load_group(u32x4 *to, const DecodeInput *in, int row, int k, int n_chunks, const DecodeShape shape)
{
    const int per = shape.weight_dtype == 3 ? 2 : 1;
    UNROLL for (int j = 0; j < shape.group; j++)
        decode_load_input(to + j * per, in, j < n_chunks ? row : -1, k + j * 32 * per, shape);
}

/* The lane's row of a slice, fetched before the weights are under way, for all experts. */
typedef struct { u32x4 row[2 * DECODE_MAX_GROUP]; } DecodeAhead;

DEVICE int decode_may_keep(const DecodeShape shape) { return shape.early && shape.n_groups == 1 && !shape.by_pair; }
DEVICE void decode_fetch_input(DecodeAhead *ahead, const DecodeInput *in, int n_chunks, int n_rows,
    const DecodeShape shape)
{
    const int g = lane() / 4;
    if (decode_may_keep(shape))
        decode_load_group(ahead->row, in, g < n_rows ? g : -1, in->k0, n_chunks, shape);
}

/* parts = the products of all of w's tiles with these experts, summed over them. scales: shared, q8, or null: [expert]
 * [n_scales], that of row c of tile i at 8 i + c. The copies of the first steps are under way. */
DEVICE void decode_multiply(float *parts, const DecodeWeights *w, DecodeCursor *at, uint32_t experts,
    const DecodeInput *in,
    const DecodeRoute *route, const float *scales, int n_scales, int n_rows, int top_k, const DecodeAhead *fetched,
    const DecodeShape shape)
{
    const int g = lane() / 4, t = lane() % 4, slice = warp() % shape.n_slices;
    const int per = shape.weight_dtype == 3 ? 2 : 1, columns = 32 * per;
    const int keep = decode_may_keep(shape);
    int n_first = shape.ring;                                                  /* steps that the ring was filled with */
    u32x4 ahead[2 * DECODE_MAX_GROUP];                                         /* of row g */
    if (keep)
        UNROLL for (int j = 0; j < shape.group * per; j++)
            ahead[j] = fetched->row[j];
    for (int tile = w->tile_begin; tile < w->tile_end; tile += w->tile_step) {
        float total[4] = { 0, 0, 0, 0 };
        for (uint32_t left = experts; left; left &= left - 1) {
            const int expert = __builtin_ctz(left);
            const int row_lo = decode_input_row(route, g, n_rows, expert, shape.by_pair, top_k);
            const int row_hi = decode_input_row(route, g + 8, n_rows, expert, shape.by_pair, top_k);
            float even[4] = { 0, 0, 0, 0 }, odd[4] = { 0, 0, 0, 0 };
            for (int i = 0; i < shape.n_groups; i++) {
                const int k = in->k0 + i * shape.group * columns, n_left = w->n_chunks - i * shape.group;
                if (shape.early && !keep)
                    decode_load_group(ahead, in, row_lo, k, n_left, shape);
                const uint8_t *from = w->ring + at->used * shape.group * DECODE_SLOT + g * 128;
                if (shape.behind && n_first-- > 0)
                    copy_wait(shape.ring - 1 + shape.behind);
                else if (!shape.ready)
                    copy_wait(shape.ring - 1);
                warp_sync();
                UNROLL for (int j = 0; j < shape.group; j++) {
                    u32x4 lo[2], hi[2];
                    if (!shape.early)
                        decode_load_input(lo, in, j < n_left ? row_lo : -1, k + j * columns, shape);
                    decode_load_input(hi, in, j < n_left ? row_hi : -1, k + j * columns, shape);
                    decode_mma(j % 2 ? odd : even, load16(from + j / 2 * 2 * DECODE_SLOT + ((j % 2 * 4
                        + t) ^ (g % 2 * 4)) * 16), shape.early ? ahead + j * per : lo, hi,
                        shape.weight_dtype, shape.act);
                }
                if (!shape.ready) {
                    warp_sync();                 /* all lanes have read the place that is filled again */
                    decode_copy_step(w, at, shape);
                }
                at->used = at->used + 1 == shape.ring ? 0 : at->used + 1;
            }
            UNROLL for (int i = 0; i < 4; i++) {
                float sum = even[i] + odd[i];
                if (scales)
                    sum *= scales[expert * n_scales + 8 * tile + 2 * t + i % 2];
                if (shape.gated)
                    sum *= route->gates[expert * DECODE_ROWS + g + i / 2 * 8];
                total[i] += sum;
            }
        }
        decode_store_part(parts, tile, slice, shape.n_slices, shape.one_row ? 1 : DECODE_ROWS, total, n_rows);
    }
}

/* ---- normalised input ---- */

/* Rows of x in pieces of four columns, piece p of all rows: a thread has p = its number, then as many threads further.
 * What it fetches ahead of its first pieces: of x, and the norm's weights. */
enum { DECODE_AHEAD = 2 };
typedef struct { float weight[DECODE_AHEAD][4], x[DECODE_AHEAD][4]; } DecodeColumns;
typedef float f32x4 __attribute__((vector_size(16)));

/* Four floats from column k of a row, zeros from n_in on. */
DEVICE void decode_load4(float *to, const float *row, int k, const int n_in)
{
    if (n_in % 4 == 0) {
        const f32x4 value = k < n_in ? *(const f32x4 *)(row + k) : (f32x4){ 0, 0, 0, 0 };
        UNROLL for (int i = 0; i < 4; i++)
            to[i] = value[i];
    } else {
        UNROLL for (int i = 0; i < 4; i++)
            to[i] = k + i < n_in ? row[k + i] : 0.0f;
    }
}
DEVICE int decode_pieces(const int n_in) { return (n_in + 63) / 64 * 16; }      /* of a row and its padding */
DEVICE void decode_fetch_norm(DecodeColumns *columns, const float *weight, const int n_in, int n_rows)
{
    const int n = decode_pieces(n_in);
    UNROLL for (int i = 0; i < DECODE_AHEAD; i++) {
        const int p = thread_x() + i * n_threads();
        if (p < n_rows * n)
            decode_load4(columns->weight[i], weight, p % n * 4, n_in);
    }
}
DEVICE void decode_fetch_rows(DecodeColumns *columns, const float *x, const int n_in, int n_rows)
{
    const int n = decode_pieces(n_in);
    UNROLL for (int i = 0; i < DECODE_AHEAD; i++) {
        const int p = thread_x() + i * n_threads();
        if (p < n_rows * n)
            decode_load4(columns->x[i], x + (int64_t)(p / n) * n_in, p % n * 4, n_in);
    }
}

/* Waits for the launch before, then takes what it left: rows of x, and the parts of `n_sums` sums, added up for all. */
DEVICE void decode_await_rows(DecodeColumns *columns, const float *x, const int n_in, int n_rows,
    float *sums /* shared [n_sums] */, const float *parts /* [n_sums][n_parts] */, int n_sums, const int n_parts)
{
    decode_hold(x);
    decode_hold(parts);
    dependency_wait();
    dependency_launch();
    decode_fetch_rows(columns, x, n_in, n_rows);
    decode_sum_parts(sums, parts, n_sums, n_parts);
    barrier();
}

DEVICE void decode_store_norm4(act_t *to, int k, const float *x, const float *weight, float scale, const int act)
{
    uint32_t pairs[2];
    UNROLL for (int i = 0; i < 2; i++)
        pairs[i] = act_pack(x[2 * i] * scale * weight[2 * i], x[2 * i + 1] * scale * weight[2 * i + 1], act);
    ((uint32_t *)(to + k))[0] = pairs[0];
    ((uint32_t *)(to + k))[1] = pairs[1];
}

/* to[row][k] = x[row][k] · decode_rms(row) · weight[k], zero from n_in to k_len. */
DEVICE void decode_store_norm(act_t *to /* shared [n_rows][stride] */, int stride, const int k_len,
    const DecodeColumns *columns, const float *x, const float *weight, const DecodeRoute *route, int n_sums,
    const int n_in, float eps, int n_rows, const int act)
{
    const int n = k_len / 4;
    UNROLL for (int i = 0; i < DECODE_AHEAD; i++) {
        const int p = thread_x() + i * n_threads(), row = p / n;
        if (row < n_rows)
            decode_store_norm4(to + row * stride, p % n * 4, columns->x[i], columns->weight[i],
                decode_rms(route, row, n_sums, n_in, eps), act);
    }
    for (int p0 = thread_x() + DECODE_AHEAD * n_threads(); p0 < n_rows * n; p0 += 2 * n_threads()) {
        float from[2][4], scale[2][4];
        UNROLL for (int i = 0; i < 2; i++) {
            const int p = p0 + i * n_threads();
            if (p < n_rows * n) {
                decode_load4(from[i], x + (int64_t)(p / n) * n_in, p % n * 4, n_in);
                decode_load4(scale[i], weight, p % n * 4, n_in);
            }
        }
        UNROLL for (int i = 0; i < 2; i++) {
            const int p = p0 + i * n_threads(), row = p / n;
            if (row < n_rows)
                decode_store_norm4(to + row * stride, p % n * 4, from[i], scale[i],
                    decode_rms(route, row, n_sums, n_in, eps), act);
        }
    }
}

/* Parts of the positions that decode_attention really makes, of at most `splits`: fewer with more rows. */
DEVICE int decode_splits(const int splits, int n_rows)
{
    return max_i(splits / (n_rows <= 2 ? 1 : n_rows <= 4 ? 2 : 4), 1);
}

/* ---- what the next layer's norm and router need of 8 new columns of x ---- */

/* Item i of n_next times 8: the router's columns times the norm's weights, [column][router row]. */
DEVICE float decode_leave_item(int i, const float *router, const float *norm, const int n_next, const int n_out,
    int column0)
{
    const int column = column0 + i / n_next;
    return column < n_out ? router[(int64_t)(i % n_next) * n_out + column] * norm[column] : 0.0f;
}

/* By a warp: lane c (and c + 8, …) has x, the row's new column c, 0 where there is none. */
DEVICE void decode_leave(float *parts /* [row][n_next + 1][n_parts] */, const float *items, float x, int row,
    const int n_next, int n_parts, int part)
{
    float *to = parts + (int64_t)row * (n_next + 1) * n_parts + part;
    float square = x * x, from[8], even = 0, odd = 0;
    UNROLL for (int mask = 4; mask > 0; mask /= 2)
        square += shuffle_xor_f(square, mask);
    UNROLL for (int c = 0; c < 8 && n_next; c++)
        from[c] = shuffle_f(x, c);
    if (lane() < n_next) {
        UNROLL for (int c = 0; c < 8; c += 2) {
            even += from[c] * items[c * n_next + lane()];
            odd += from[c + 1] * items[(c + 1) * n_next + lane()];
        }
        to[lane() * n_parts] = even + odd;
    }
    if (lane() == 0)
        to[n_next * n_parts] = square;
}

/* ---- a step of the scan ---- */

DEVICE float decode_softplus(float x)
{
    if (x > 20.0f)
        return x;
    const float e = exp2_fast(x * 1.44269504f);
    return e < 0.03125f ? e * (1.0f - e * (0.5f - e * (0.33333333f - e * 0.25f))) : 0.69314718f * log2_fast(1.0f + e);
}

/* (exp(u) - 1) / u for u = power ln 2, exp(u) = decay */
DEVICE float decode_decay_ratio(float power, float decay)
{
    const float u = power * 0.69314718f;
    if (u > -0.25f && u < 0.25f)
        return 1.0f + u * (0.5f + u * (0.16666667f + u * (0.041666667f + u * (0.0083333333f + u * 0.0013888889f))));
    return (decay - 1.0f) / u;
}

#endif
