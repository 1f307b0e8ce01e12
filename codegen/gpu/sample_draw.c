/* The next token of every sequence, drawn as runtime/sampler.c draws it, to the bit; greedy ones take the largest.
 *
 * Grid: a sequence a block; 1024 threads. Shared: 1152 bytes. weights: what sample_weigh left. The filters top_k and
 * top_p leave the first tokens of an order in which no two are equal (larger logits first, then lower tokens), min_p
 * those that weigh enough; where the first tokens end is found by halving. Sums are of integers, so no order of adding
 * changes them. Keeps the token in tokens and history[position % 1024], lets the position grow by 1 and the generator
 * step, as argmax and moss_sample do.
 */
PARAM(vocab_size, v)

enum { DRAW_HISTORY = 1024, DRAW_SEQUENCES = 16, DRAW_WARPS = 32 };

/* moss_sampler of runtime/moss.h. */
typedef struct { float temperature, top_p, min_p; int32_t top_k; uint64_t random[4]; } DrawSampler;

/* How many tokens, and what they weigh. */
typedef struct { uint64_t weight, count; } DrawTally;
typedef struct { DrawTally tallies[2][DRAW_WARPS]; uint32_t tile[32]; } DrawShared;

DEVICE uint64_t draw_shuffle(uint64_t x, int mask)
{
    const uint32_t high = (uint32_t)shuffle_xor_i((int)(x >> 32), mask);
    return (uint64_t)high << 32 | (uint32_t)shuffle_xor_i((int)(uint32_t)x, mask);
}

/* Where a token stands: before those of lower numbers; 0 for NaN, which stands nowhere. -0 equals 0. */
DEVICE uint64_t draw_rank(float logit, int token)
{
    uint32_t bits = float_bits(logit);
    if (logit != logit)
        return 0;
    if (bits == 0x80000000u)
        bits = 0;
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (0xffffffffu - (uint32_t)token);
}

DEVICE DrawTally draw_add_warp(DrawTally tally)
{
    UNROLL for (int mask = 16; mask > 0; mask /= 2) {
        tally.weight += draw_shuffle(tally.weight, mask);
        tally.count += draw_shuffle(tally.count, mask);
    }
    return tally;
}

/* Over all threads, which all get it. `turn` is another one each time, so that who is late still reads the old one. */
DEVICE DrawTally draw_add(DrawShared *common, DrawTally tally, int turn)
{
    DrawTally *const of_warps = common->tallies[turn & 1];
    tally = draw_add_warp(tally);
    if (lane() == 0)
        of_warps[warp()] = tally;
    barrier();
    return draw_add_warp(of_warps[lane()]);
}

/* Of the tokens whose rank is at least `least`. */
DEVICE DrawTally draw_tally(DrawShared *common, const float *row, const uint32_t *weights, uint64_t least, int turn)
{
    DrawTally tally = { 0, 0 };
    for (int i = thread_x(); i < vocab_size; i += n_threads())
        if (draw_rank(row[i], i) >= least) {
            tally.weight += weights[i];
            tally.count++;
        }
    return draw_add(common, tally, turn);
}

/* The fewest first tokens that are `count` at least and weigh `weight`: the rank of the last. Those whose rank is at
 * least `low` do, and none has rank `high`. */
DEVICE uint64_t draw_halve(DrawShared *common, const float *row, const uint32_t *weights, uint64_t low,
    DrawTally at_low, uint64_t high, uint64_t count, uint64_t weight, int *turn)
{
    uint64_t n_high = 0;
    while (at_low.count - n_high > 1) {
        const uint64_t middle = low + (high - low) / 2;
        const DrawTally tally = draw_tally(common, row, weights, middle, (*turn)++);
        if (tally.count > 0 && tally.count >= count && tally.weight >= weight) {
            low = middle;
            at_low = tally;
        } else {
            high = middle;
            n_high = tally.count;
        }
    }
    return low;
}

DEVICE uint64_t draw_largest(DrawShared *common, const float *row)
{
    uint64_t rank = 0;
    for (int i = thread_x(); i < vocab_size; i += n_threads()) {
        const uint64_t other = draw_rank(row[i], i);
        rank = other > rank ? other : rank;
    }
    UNROLL for (int mask = 16; mask > 0; mask /= 2) {
        const uint64_t other = draw_shuffle(rank, mask);
        rank = other > rank ? other : rank;
    }
    uint64_t *const of_warps = (uint64_t *)common->tallies[1];
    if (lane() == 0)
        of_warps[warp()] = rank;
    barrier();
    rank = of_warps[lane()];
    UNROLL for (int mask = 16; mask > 0; mask /= 2) {
        const uint64_t other = draw_shuffle(rank, mask);
        rank = other > rank ? other : rank;
    }
    return rank;
}

/* The least rank that top_k and top_p leave. */
DEVICE uint64_t draw_filter(DrawShared *common, const float *row, const uint32_t *weights, const DrawSampler *sampler,
    uint64_t largest, int *turn)
{
    uint64_t least = 1;
    DrawTally left = draw_tally(common, row, weights, least, (*turn)++);
    if (sampler->top_k > 0 && (uint64_t)sampler->top_k < left.count) {
        least = draw_halve(common, row, weights, least, left, largest + 1, (uint64_t)sampler->top_k, 0, turn);
        left = draw_tally(common, row, weights, least, (*turn)++);
    }
    if (sampler->top_p < 1.0f)
        least = draw_halve(common, row, weights, least, left, largest + 1, 1,
            (uint64_t)((double)left.weight * (double)sampler->top_p), turn);
    return least;
}

/* xoshiro256**, its result before the step. */
DEVICE uint64_t draw_rotate(uint64_t x, int k) { return x << k | x >> (64 - k); }
DEVICE uint64_t draw_random(const uint64_t *random) { return draw_rotate(random[1] * 5, 7) * 9; }
DEVICE void draw_step(uint64_t *random)
{
    const uint64_t shifted = random[1] << 17;
    random[2] ^= random[0];
    random[3] ^= random[1];
    random[1] ^= random[2];
    random[0] ^= random[3];
    random[2] ^= shifted;
    random[3] = draw_rotate(random[3], 45);
}

/* random · total / 2^64, for total < 2^57. */
DEVICE uint64_t draw_below(uint64_t random, uint64_t total)
{
    const uint64_t low = (random & 0xffffffffu) * (total & 0xffffffffu) >> 32;
    const uint64_t middle_a = (random >> 32) * (total & 0xffffffffu);
    const uint64_t middle_b = (random & 0xffffffffu) * (total >> 32);
    const uint64_t carry = low + (middle_a & 0xffffffffu) + (middle_b & 0xffffffffu);
    return (random >> 32) * (total >> 32) + (middle_a >> 32) + (middle_b >> 32) + (carry >> 32);
}

/* In the order of tokens, each warp a run of them: the token at which the sum of what is left exceeds what is drawn.
 * One thread returns it, all others -1. */
DEVICE int draw_token(DrawShared *common, const float *row, const uint32_t *plain, const uint32_t *tempered,
    uint64_t least, uint32_t least_weight, uint64_t random, int turn)
{
    const int run = (vocab_size + 32 * DRAW_WARPS - 1) / (32 * DRAW_WARPS) * 32;
    const int first = warp() * run, end = min_i(vocab_size, first + run);
    DrawTally *const of_warps = common->tallies[turn & 1];
    DrawTally own = { 0, 0 };
    for (int i = first + lane(); i < end; i += 32)
        if (draw_rank(row[i], i) >= least && plain[i] >= least_weight)
            own.weight += tempered[i];
    own = draw_add_warp(own);
    if (lane() == 0)
        of_warps[warp()] = own;
    barrier();
    uint64_t total = 0, before = 0;
    for (int w = 0; w < DRAW_WARPS; w++) {
        before = w == warp() ? total : before;
        total += of_warps[w].weight;
    }
    const uint64_t drawn = draw_below(random, total);
    if (drawn < before || drawn >= before + own.weight)
        return -1;
    for (int tile = first; tile < end; tile += 32) {
        const int i = tile + lane();
        const bool left = i < end && draw_rank(row[i], i) >= least && plain[i] >= least_weight;
        const uint32_t weight = left ? tempered[i] : 0;
        const DrawTally sum = draw_add_warp((DrawTally){ weight, 0 });
        if (before + sum.weight <= drawn) {
            before += sum.weight;
            continue;
        }
        common->tile[lane()] = weight;
        warp_sync();
        if (lane() > 0)
            return -1;
        for (int j = 0;; j++) {
            before += common->tile[j];
            if (before > drawn)
                return tile + j;
        }
    }
    return -1;
}

KERNEL(sample_draw)(int32_t *tokens /* [sequences] */, int32_t *history /* [1024][16] */, int64_t *positions,
    uint64_t *samplers /* [sequences][6]: moss_sampler */, const float *logits /* [sequences][vocab_size] */,
    const uint32_t *weights /* [sequences][2][vocab_size] */)
{
    DrawShared *const common = shared();
    const int sequence = block_x();
    const float *const row = logits + (int64_t)sequence * vocab_size;
    const uint32_t *const plain = weights + (int64_t)sequence * 2 * vocab_size, *const tempered = plain + vocab_size;
    dependency_wait();
    dependency_launch();
    DrawSampler *const own = (DrawSampler *)samplers + sequence;
    DrawSampler sampler = *own;
    const uint64_t largest = draw_largest(common, row);
    int token = thread_x() == 0 ? 0 : -1, turn = 0;
    if (!(sampler.temperature > 0.0f) || largest == 0) {
        if (token == 0 && largest > 0)
            token = (int)(0xffffffffu - (uint32_t)largest);
    } else {
        const uint64_t least = draw_filter(common, row, plain, &sampler, largest, &turn);
        const uint32_t least_weight = (uint32_t)((double)(1u << 30) * (double)sampler.min_p);
        token = draw_token(common, row, plain, tempered, least, least_weight, draw_random(sampler.random), turn);
    }
    if (token >= 0) {
        const int64_t position = positions[sequence];
        tokens[sequence] = token;
        history[position % DRAW_HISTORY * DRAW_SEQUENCES + sequence] = token;
        positions[sequence] = position + 1;
    }
    if (thread_x() == 0 && sampler.temperature > 0.0f) {
        draw_step(sampler.random);
        *own = sampler;
    }
}
