/* The next token of every sequence, drawn as runtime/sampler.c draws it, to the bit; greedy ones take the largest.
 *
 * Grid: a sequence a block; 1024 threads. Shared: 17408 bytes. weights: what sample_weigh left. The filters top_k and
 * top_p leave the first tokens of an order in which no two are equal (larger logits first, then lower tokens), min_p
 * those that weigh enough. Who is left is found in a list of those that may be (they are no less than the n-th largest
 * of what the threads have seen, n at least as many as are left), or, where that list is too long or ends too soon, by
 * halving among all. Sums are of integers, so no order of adding changes them. Keeps
 * the token in tokens and history[position % 1024], lets the position grow by 1 and the generator step, as argmax and
 * moss_sample do.
 */
PARAM(vocab_size, v)

enum { DRAW_HISTORY = 1024, DRAW_SEQUENCES = 16, DRAW_THREADS = 1024, DRAW_WARPS = 32, DRAW_BATCH = 4 };
enum { DRAW_LIKELY = 512 };     /* tokens that top_p hardly ever leaves more than */

/* moss_sampler of runtime/moss.h. */
typedef struct { float temperature, top_p, min_p; int32_t top_k; uint64_t random[4]; } DrawSampler;

/* How many tokens, and what they weigh. */
typedef struct { uint64_t weight, count; } DrawTally;
typedef struct { uint64_t rank; uint32_t plain, tempered; } DrawEntry;
typedef struct { DrawTally tallies[2][DRAW_WARPS]; DrawEntry list[DRAW_THREADS]; } DrawShared;

/* What is halved: a row, or one token a thread (of rank 0: none). */
typedef struct { const float *row; const uint32_t *weights; uint64_t rank; uint32_t weight; } DrawSet;

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
DEVICE int draw_token_of(uint64_t rank) { return (int)(0xffffffffu - (uint32_t)rank); }

/* ---- over all threads, which all get it. `turn` is another one each time: who is late still reads the old one ---- */

DEVICE DrawTally draw_add_warp(DrawTally tally)
{
    UNROLL for (int mask = 16; mask > 0; mask /= 2) {
        tally.weight += draw_shuffle(tally.weight, mask);
        tally.count += (uint64_t)(uint32_t)shuffle_xor_i((int)tally.count, mask);
    }
    return tally;
}

DEVICE DrawTally draw_add(DrawShared *common, DrawTally tally, int turn)
{
    DrawTally *const of_warps = common->tallies[turn & 1];
    tally = draw_add_warp(tally);
    if (lane() == 0)
        of_warps[warp()] = tally;
    barrier();
    return draw_add_warp(of_warps[lane()]);
}

DEVICE uint64_t draw_most(DrawShared *common, uint64_t rank, int turn)
{
    uint64_t *const of_warps = &common->tallies[turn & 1][0].weight;
    UNROLL for (int mask = 16; mask > 0; mask /= 2) {
        const uint64_t other = draw_shuffle(rank, mask);
        rank = other > rank ? other : rank;
    }
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

/* ---- the first tokens ---- */

/* The rank of the first of the tokens that are this thread's: every 1024th. */
DEVICE uint64_t draw_own_first(const float *row)
{
    float largest = -INFINITY;
    int at = -1;
    for (int first = thread_x(); first < vocab_size; first += DRAW_BATCH * DRAW_THREADS) {
        float logits[DRAW_BATCH];
        UNROLL for (int j = 0; j < DRAW_BATCH; j++)
            logits[j] = first + j * DRAW_THREADS < vocab_size ? row[first + j * DRAW_THREADS] : bits_float(0x7fc00000u);
        UNROLL for (int j = 0; j < DRAW_BATCH; j++)
            if (logits[j] > largest || (at < 0 && logits[j] == logits[j])) {
                largest = logits[j];
                at = first + j * DRAW_THREADS;
            }
    }
    return at < 0 ? 0 : draw_rank(largest, at);
}

/* Of the tokens whose rank is at least `least`, which is not 0. */
DEVICE DrawTally draw_tally(DrawShared *common, const DrawSet *set, uint64_t least, int turn)
{
    DrawTally tally = { 0, 0 };
    if (!set->row && set->rank >= least)
        tally = (DrawTally){ set->weight, 1 };
    for (int first = thread_x(); set->row && first < vocab_size; first += DRAW_BATCH * DRAW_THREADS) {
        float logits[DRAW_BATCH];
        uint32_t weights[DRAW_BATCH];
        UNROLL for (int j = 0; j < DRAW_BATCH; j++) {
            const int i = first + j * DRAW_THREADS;
            logits[j] = i < vocab_size ? set->row[i] : bits_float(0x7fc00000u);
            weights[j] = i < vocab_size ? set->weights[i] : 0;
        }
        UNROLL for (int j = 0; j < DRAW_BATCH; j++)
            if (draw_rank(logits[j], first + j * DRAW_THREADS) >= least) {
                tally.weight += weights[j];
                tally.count++;
            }
    }
    return draw_add(common, tally, turn);
}

/* The fewest first tokens that are `count` at least and weigh `weight`: the rank of the last, or, where the count alone
 * matters, one that tells them from others. Those whose rank is at least `low` do, and none has rank `high`. */
DEVICE uint64_t draw_halve(DrawShared *common, const DrawSet *set, uint64_t low, DrawTally at_low, uint64_t high,
    uint64_t count, uint64_t weight, int *turn)
{
    uint64_t n_high = 0;
    while (at_low.count - n_high > 1 && !(weight == 0 && at_low.count == count)) {
        const uint64_t middle = low + (high - low) / 2;
        const DrawTally tally = draw_tally(common, set, middle, (*turn)++);
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

/* The tokens whose rank is at least `least` into the list: how many, or -1 if they are too many. `own` is the first of
 * this thread's. */
DEVICE int draw_list(DrawShared *common, const float *row, const uint32_t *plain, const uint32_t *tempered,
    uint64_t own, uint64_t least, int *turn)
{
    int n_own = 0;
    for (int i = thread_x(); i < vocab_size && own >= least; i += DRAW_THREADS)
        n_own += draw_rank(row[i], i) >= least;
    int before = n_own;                           /* in this warp, with this thread */
    UNROLL for (int delta = 1; delta < 32; delta *= 2) {
        const int other = shuffle_up_i(before, delta);
        before += lane() >= delta ? other : 0;
    }
    uint64_t *const of_warps = &common->tallies[(*turn)++ & 1][0].weight;
    if (lane() == 31)
        of_warps[warp()] = (uint64_t)before;
    barrier();
    int n = 0;
    before -= n_own;
    for (int w = 0; w < DRAW_WARPS; w++) {
        before += w < warp() ? (int)of_warps[w] : 0;
        n += (int)of_warps[w];
    }
    if (n > DRAW_THREADS)
        return -1;
    for (int i = thread_x(); i < vocab_size && n_own > 0; i += DRAW_THREADS) {
        const uint64_t rank = draw_rank(row[i], i);
        if (rank >= least) {
            common->list[before++] = (DrawEntry){ rank, plain[i], tempered[i] };
            n_own--;
        }
    }
    barrier();
    return n;
}

/* The least rank that top_k and top_p leave. */
DEVICE uint64_t draw_filter(DrawShared *common, const DrawSet *set, const DrawSampler *sampler, uint64_t largest,
    int *turn)
{
    uint64_t low = 1;
    DrawTally left = draw_tally(common, set, low, (*turn)++);
    if (sampler->top_k > 0 && (uint64_t)sampler->top_k < left.count) {
        low = draw_halve(common, set, low, left, largest + 1, (uint64_t)sampler->top_k, 0, turn);
        left = draw_tally(common, set, low, (*turn)++);
    }
    if (sampler->top_p < 1.0f)
        low = draw_halve(common, set, low, left, largest + 1, 1,
            (uint64_t)((double)left.weight * (double)sampler->top_p), turn);
    return low;
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

/* ---- the choice: a token from `least` on that weighs `least_weight`; one thread returns it, all others -1 ---- */

/* Of the list's n: those of the first top_k before which less than top_p of `total` lies. */
DEVICE int draw_from_list(DrawShared *common, int n, uint64_t total, const DrawSampler *sampler, uint32_t least_weight,
    uint64_t random, int *turn)
{
    const DrawEntry own = common->list[thread_x()];
    const bool listed = thread_x() < n;
    uint64_t order = 0, heavier = 0;              /* how many tokens are before this one, and what they weigh */
    for (int i = 0; i < n; i++) {
        const DrawEntry other = common->list[i];
        order += other.rank > own.rank;
        heavier += other.rank > own.rank ? other.plain : 0;
    }
    const bool first = listed && (sampler->top_k <= 0 || order < (uint64_t)sampler->top_k);
    if (sampler->top_k > 0)
        total = draw_add(common, (DrawTally){ first ? own.plain : 0, 0 }, (*turn)++).weight;
    const bool inside = sampler->top_p >= 1.0f || order == 0
        || heavier < (uint64_t)((double)total * (double)sampler->top_p);
    const bool left = first && inside && own.plain >= least_weight;
    barrier();
    if (listed && !left)
        common->list[thread_x()].tempered = 0;
    barrier();
    uint64_t sum = 0, before = 0;                 /* before: of lower tokens, which end in higher bits of their rank */
    for (int i = 0; i < n; i++) {
        const DrawEntry other = common->list[i];
        sum += other.tempered;
        before += (uint32_t)other.rank > (uint32_t)own.rank ? other.tempered : 0;
    }
    const uint64_t drawn = draw_below(random, sum);
    return left && drawn >= before && drawn < before + own.tempered ? draw_token_of(own.rank) : -1;
}

/* What a token that is left weighs, any other nothing. */
DEVICE uint32_t draw_weight(const float *row, const uint32_t *plain, const uint32_t *tempered, uint64_t least,
    uint32_t least_weight, int i)
{
    if (least > 1 || least_weight > 0)
        return draw_rank(row[i], i) >= least && plain[i] >= least_weight ? tempered[i] : 0;
    return tempered[i];                           /* of NaN 0 */
}

/* Of a row: each warp has a run of it, each lane every 32nd tile of 32 tokens. */
DEVICE int draw_from_row(DrawShared *common, const float *row, const uint32_t *plain, const uint32_t *tempered,
    uint64_t least, uint32_t least_weight, uint64_t random, int turn)
{
    const int run = (vocab_size + 32 * DRAW_WARPS - 1) / (32 * DRAW_WARPS) * 32;
    const int first = warp() * run, end = min_i(vocab_size, first + run);
    DrawTally own = { 0, 0 };
    for (int i = first + lane(); i < end; i += 32 * DRAW_BATCH) {
        uint32_t weights[DRAW_BATCH];
        UNROLL for (int j = 0; j < DRAW_BATCH; j++)
            weights[j] = i + 32 * j < end ? draw_weight(row, plain, tempered, least, least_weight, i + 32 * j) : 0;
        UNROLL for (int j = 0; j < DRAW_BATCH; j++)
            own.weight += weights[j];
    }
    DrawTally *const of_warps = common->tallies[turn & 1];
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
    for (int tiles = first; tiles < end; tiles += 32 * 32) {
        /* In this warp: what the tiles up to each lane's weigh. */
        uint64_t sum = 0;
        for (int i = tiles + 32 * lane(); i < min_i(end, tiles + 32 * lane() + 32); i += 4)
            UNROLL for (int j = 0; j < 4; j++)
                sum += i + j < end ? draw_weight(row, plain, tempered, least, least_weight, i + j) : 0;
        uint64_t upto = sum;
        UNROLL for (int delta = 1; delta < 32; delta *= 2) {
            const uint32_t high = (uint32_t)shuffle_up_i((int)(upto >> 32), delta);
            const uint64_t other = (uint64_t)high << 32 | (uint32_t)shuffle_up_i((int)(uint32_t)upto, delta);
            upto += lane() >= delta ? other : 0;
        }
        const uint32_t beyond = ballot(before + upto > drawn);
        if (beyond) {
            if (beyond << (31 - lane()) != 0x80000000u)
                return -1;
            before += upto - sum;
            for (int i = tiles + 32 * lane();; i++) {
                before += draw_weight(row, plain, tempered, least, least_weight, i);
                if (before > drawn)
                    return i;
            }
        }
        const uint32_t all_high = (uint32_t)shuffle_i((int)(upto >> 32), 31);
        before += (uint64_t)all_high << 32 | (uint32_t)shuffle_i((int)(uint32_t)upto, 31);
    }
    return -1;
}

/* What moss_sample does at a temperature; `largest` is not 0. */
DEVICE int draw_token(DrawShared *common, const float *row, const uint32_t *plain, const uint32_t *tempered,
    uint64_t own, uint64_t largest, const DrawSampler *sampler)
{
    const DrawSet all = { row, plain, 0, 0 };
    const uint64_t random = draw_random(sampler->random);
    const uint32_t least_weight = (uint32_t)((double)(1u << 30) * (double)sampler->min_p);
    const bool nucleus = sampler->top_p < 1.0f;
    int turn = 1;
    if (!nucleus && sampler->top_k <= 0)
        return draw_from_row(common, row, plain, tempered, 1, least_weight, random, turn);
    if (sampler->top_k <= DRAW_THREADS) {
        const DrawSet firsts = { NULL, NULL, own, 0 };
        const uint64_t wanted = sampler->top_k > 0 ? (uint64_t)sampler->top_k : DRAW_LIKELY;
        const DrawTally threads = draw_tally(common, &firsts, 1, turn++);
        const uint64_t low = threads.count <= wanted ? 1
            : draw_halve(common, &firsts, 1, threads, largest + 1, wanted, 0, &turn);
        const int n = draw_list(common, row, plain, tempered, own, low, &turn);
        const uint32_t plain_own = thread_x() < n ? common->list[thread_x()].plain : 0;
        const uint64_t in_list = draw_add(common, (DrawTally){ plain_own, 0 }, turn++).weight;
        const uint64_t total = n >= 0 && sampler->top_k <= 0 ? draw_tally(common, &all, 1, turn++).weight : in_list;
        if (n >= 0 && in_list >= (uint64_t)((double)total * (double)sampler->top_p))
            return draw_from_list(common, n, total, sampler, least_weight, random, &turn);
    }
    const uint64_t least = draw_filter(common, &all, sampler, largest, &turn);
    return draw_from_row(common, row, plain, tempered, least, least_weight, random, turn);
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
    DrawSampler *const stored = (DrawSampler *)samplers + sequence;
    DrawSampler sampler = *stored;
    const uint64_t own = draw_own_first(row), largest = draw_most(common, own, 0);
    int token = thread_x() == 0 ? 0 : -1;
    if (largest > 0 && sampler.temperature > 0.0f)
        token = draw_token(common, row, plain, tempered, own, largest, &sampler);
    else if (token == 0 && largest > 0)
        token = draw_token_of(largest);
    if (token >= 0) {
        const int64_t position = positions[sequence];
        tokens[sequence] = token;
        history[position % DRAW_HISTORY * DRAW_SEQUENCES + sequence] = token;
        positions[sequence] = position + 1;
    }
    if (thread_x() == 0 && sampler.temperature > 0.0f) {
        draw_step(sampler.random);
        *stored = sampler;
    }
}
