/* What every token's probability is a fraction of, as runtime/sampler.c has it: integers from integer arithmetic.
 *
 * Grid: 1024 tokens of a row a block, sequences; 256 threads. Shared: 32 bytes. weights: of every sequence two rows, at
 * temperature 1 and at the sampler's; the largest logit weighs 2^30, NaN nothing. Greedy sequences are left out.
 */
PARAM(vocab_size, v)

enum { WEIGH_THREADS = 256, WEIGH_WARPS = 8, WEIGH_BATCH = 16, WEIGH_TOKENS = 1024 };
enum { WEIGH_BITS = 30, WEIGH_SAMPLER = 12 };

/* 2^30 · e^x for x <= 0: e^-y by its series, after x = -(n ln 2 + y) with y in [0, ln 2), 32 bits behind the point. */
DEVICE uint32_t weigh_exp(double x)
{
    const int64_t coefficients[] = { 1073741824, -1073741824, 536870912, -178956971, 44739243, -8947849, 1491308,
        -213044, 26631, -2959, 296, -27 };
    const uint64_t ln2 = 2977044472;
    if (!(x > -21.0))
        return 0;
    const uint64_t scaled = (uint64_t)(-x * 4294967296.0), n = scaled / ln2;
    const int64_t y = (int64_t)(scaled - n * ln2);
    int64_t sum = coefficients[11];
    UNROLL for (int i = 10; i >= 0; i--)
        sum = coefficients[i] + sum * y / ((int64_t)1 << 32);
    return n > WEIGH_BITS ? 0 : (uint32_t)((uint64_t)sum >> n);
}

/* Infinite logits: the largest weigh all, others nothing. */
DEVICE uint32_t weigh(float logit, float largest, float temperature)
{
    if (logit == largest)
        return 1u << WEIGH_BITS;
    return weigh_exp(((double)logit - (double)largest) / (double)temperature);
}

/* Over all threads; NaNs count as none. */
DEVICE float weigh_largest(const float *row)
{
    float *const of_warps = shared();
    float largest = -INFINITY;
    for (int first = thread_x(); first < vocab_size; first += WEIGH_BATCH * WEIGH_THREADS)
        UNROLL for (int j = 0; j < WEIGH_BATCH; j++)
            if (first + j * WEIGH_THREADS < vocab_size)
                largest = max_f(largest, row[first + j * WEIGH_THREADS]);
    UNROLL for (int mask = 16; mask > 0; mask /= 2)
        largest = max_f(largest, shuffle_xor_f(largest, mask));
    if (lane() == 0)
        of_warps[warp()] = largest;
    barrier();
    largest = of_warps[lane() % WEIGH_WARPS];
    UNROLL for (int mask = 4; mask > 0; mask /= 2)
        largest = max_f(largest, shuffle_xor_f(largest, mask));
    return largest;
}

KERNEL(sample_weigh)(uint32_t *weights /* [sequences][2][vocab_size] */,
    const float *logits /* [sequences][vocab_size] */,
    const float *samplers /* [sequences][12], the first a temperature: moss_sampler of runtime/moss.h */)
{
    const int sequence = block_y(), end = min_i(vocab_size, (block_x() + 1) * WEIGH_TOKENS);
    const float *const row = logits + (int64_t)sequence * vocab_size;
    uint32_t *const plain = weights + (int64_t)sequence * 2 * vocab_size, *const tempered = plain + vocab_size;
    dependency_wait();
    dependency_launch();
    const float temperature = samplers[sequence * WEIGH_SAMPLER];
    if (!(temperature > 0.0f))
        return;
    const float largest = weigh_largest(row);
    for (int i = block_x() * WEIGH_TOKENS + thread_x(); i < end; i += WEIGH_THREADS) {
        const float logit = row[i];
        const uint32_t weight = logit == logit ? weigh(logit, largest, 1.0f) : 0;
        plain[i] = weight;
        tempered[i] = temperature == 1.0f || logit != logit ? weight : weigh(logit, largest, temperature);
    }
}
