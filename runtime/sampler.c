/* Choose the next token from logits.
 *
 * Input: a sampler and logits [vocab_size]. Output: a token; the generator steps once unless the
 * temperature is 0. Filters in order top_k, top_p, min_p, then temperature, as llama.cpp's.
 * Candidates are popped from a heap, largest first, so a large vocabulary is never sorted whole;
 * what the filters leave is drawn from in the order of tokens.
 * Invariants: NaN is never chosen (all NaN: token 0). Probabilities are integers made by integer
 * arithmetic, so neither libm nor contraction nor vector length can change a text. The same choice,
 * to the bit, is made on GPUs (codegen/gpu/sample_draw.c).
 */
#include "internal.h"

#include <string.h>

/* A probability is weight / sum of weights; the largest logit weighs MOSS_WEIGHT_ONE. */
enum { MOSS_WEIGHT_BITS = 30 };
static const uint64_t MOSS_WEIGHT_ONE = (uint64_t)1 << MOSS_WEIGHT_BITS;

/* A max-heap in the caller's scratch: value[i] belongs to token id[i]; float holds ids exactly up
 * to 2^24. Larger values first, equal ones by lower id. */
typedef struct { float *value, *id; int32_t n; } moss_heap;

/* By its bits, because fast-math lets a compiler assume isnan() is false. */
static bool moss_is_nan(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x7FFFFFFF) > 0x7F800000;
}

/* 2^30 * e^x for x <= 0, within a few units. */
static uint64_t moss_exp_weight(double x)
{
    /* 2^30 / i!: e^-y by its series, after x = -(n ln2 + y) with y in [0, ln2). */
    static const int64_t coefficients[] = {
        1073741824, -1073741824, 536870912, -178956971, 44739243, -8947849, 1491308, -213044,
        26631, -2959, 296, -27,
    };
    const uint64_t ln2 = 2977044472;   /* 2^32 ln2 */
    if (!(x > -21.0))
        return 0;
    const uint64_t scaled = (uint64_t)(-x * 4294967296.0);
    const uint64_t n = scaled / ln2;
    const int64_t y = (int64_t)(scaled % ln2);
    int64_t sum = 0;
    for (int i = (int)(sizeof coefficients / sizeof *coefficients) - 1; i >= 0; i--)
        sum = coefficients[i] + sum * y / ((int64_t)1 << 32);
    return n > MOSS_WEIGHT_BITS ? 0 : (uint64_t)sum >> n;
}

/* Infinite logits: equal to the largest weighs one, anything else nothing. */
static uint64_t moss_weight(float logit, float largest, float temperature)
{
    if (logit == largest)
        return MOSS_WEIGHT_ONE;
    return moss_exp_weight(((double)logit - (double)largest) / (double)temperature);
}

static bool moss_heap_before(const moss_heap *heap, int32_t a, int32_t b)
{
    if (heap->value[a] != heap->value[b])
        return heap->value[a] > heap->value[b];
    return heap->id[a] < heap->id[b];
}

static void moss_heap_swap(moss_heap *heap, int32_t a, int32_t b)
{
    float value = heap->value[a], id = heap->id[a];
    heap->value[a] = heap->value[b];
    heap->id[a] = heap->id[b];
    heap->value[b] = value;
    heap->id[b] = id;
}

static void moss_heap_sink(moss_heap *heap, int32_t at, int32_t n)
{
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child >= n)
            return;
        if (child + 1 < n && moss_heap_before(heap, child + 1, child))
            child++;
        if (!moss_heap_before(heap, child, at))
            return;
        moss_heap_swap(heap, child, at);
        at = child;
    }
}

static moss_heap moss_heap_make(const float *logits, float *scratch, int32_t vocab_size)
{
    moss_heap heap = { .value = scratch, .id = scratch + vocab_size };
    for (int32_t i = 0; i < vocab_size; i++) {
        if (moss_is_nan(logits[i]))
            continue;
        heap.value[heap.n] = logits[i];
        heap.id[heap.n++] = (float)i;
    }
    for (int32_t i = heap.n / 2 - 1; i >= 0; i--)
        moss_heap_sink(&heap, i, heap.n);
    return heap;
}

/* Move the largest `n` to the end of the arrays: the i-th largest ends at heap->n - 1 - i. */
static void moss_heap_pop(moss_heap *heap, int32_t n_popped, int32_t n)
{
    for (int32_t i = n_popped; i < n; i++) {
        const int32_t last = heap->n - 1 - i;
        moss_heap_swap(heap, 0, last);
        moss_heap_sink(heap, 0, last);
    }
}

static float moss_heap_popped(const moss_heap *heap, int32_t i)
{
    return heap->value[heap->n - 1 - i];
}

/* A fraction of a weight; a fraction out of [0, 1] or NaN was clamped in moss_sampler_init. */
static uint64_t moss_weight_part(uint64_t weight, float fraction)
{
    return (uint64_t)((double)weight * (double)fraction);
}

/* Sum of the weights at temperature 1: of the candidates popped or, when n_left is n, of all. */
static uint64_t moss_heap_total(const moss_heap *heap, int32_t n_left, float largest)
{
    uint64_t total = 0;
    for (int32_t i = 0; i < n_left; i++)
        total += moss_weight(moss_heap_popped(heap, i), largest, 1);
    return total;
}

/* The number of candidates the filters leave, at least 1; they are popped when it returns unless
 * all are left. */
static int32_t moss_heap_filter(moss_heap *heap, const moss_sampler *sampler, float largest)
{
    int32_t n_left = heap->n, n_popped = 0;
    if (sampler->top_k > 0 && sampler->top_k < n_left) {
        n_left = n_popped = sampler->top_k;
        moss_heap_pop(heap, 0, n_popped);
    }
    if (sampler->top_p >= 1 && sampler->min_p <= 0)
        return n_left;
    const bool nucleus = sampler->top_p < 1;
    const uint64_t total = nucleus ? moss_heap_total(heap, n_left, largest) : 0;
    const uint64_t enough = nucleus ? moss_weight_part(total, sampler->top_p) : UINT64_MAX;
    const uint64_t least = moss_weight_part(MOSS_WEIGHT_ONE, sampler->min_p);
    uint64_t sum = 0;
    for (int32_t i = 0; i < n_left; i++) {
        if (i == n_popped)
            moss_heap_pop(heap, n_popped++, i + 1);
        const uint64_t weight = moss_weight(moss_heap_popped(heap, i), largest, 1);
        if (i > 0 && weight < least)
            return i;
        sum += weight;
        if (sum >= enough)
            return i + 1;
    }
    return n_left;
}

static uint64_t moss_rotate(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

/* xoshiro256**, Blackman and Vigna. */
static uint64_t moss_random(uint64_t rng[4])
{
    const uint64_t result = moss_rotate(rng[1] * 5, 7) * 9;
    const uint64_t shifted = rng[1] << 17;
    rng[2] ^= rng[0];
    rng[3] ^= rng[1];
    rng[1] ^= rng[2];
    rng[0] ^= rng[3];
    rng[2] ^= shifted;
    rng[3] = moss_rotate(rng[3], 45);
    return result;
}

/* splitmix64: spreads a seed, so that near seeds give unlike texts and 0 is a seed too. */
static uint64_t moss_random_spread(uint64_t *seed)
{
    uint64_t z = *seed += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* random * total / 2^64, for total < 2^57: a number in [0, total) without division. */
static uint64_t moss_random_below(uint64_t random, uint64_t total)
{
    const uint64_t low = (random & UINT32_MAX) * (total & UINT32_MAX) >> 32;
    const uint64_t middle_a = (random >> 32) * (total & UINT32_MAX);
    const uint64_t middle_b = (random & UINT32_MAX) * (total >> 32);
    const uint64_t carry = low + (middle_a & UINT32_MAX) + (middle_b & UINT32_MAX);
    return (random >> 32) * (total >> 32) + (middle_a >> 32) + (middle_b >> 32) + (carry >> 32);
}

/* What the filters left, in the order of tokens: all numbers, or those not behind the last one popped. */
static bool moss_is_left(const moss_heap *heap, int32_t n_left, float logit, int32_t id)
{
    if (moss_is_nan(logit))
        return false;
    if (n_left == heap->n)
        return true;
    const int32_t last = heap->n - n_left;
    return logit > heap->value[last] || (logit == heap->value[last] && (float)id <= heap->id[last]);
}

static int32_t moss_draw(const moss_heap *heap, int32_t n_left, const float *logits, float largest, float temperature,
                         uint64_t random)
{
    const int32_t vocab_size = moss_program_data.vocab_size;
    uint64_t total = 0, sum = 0;
    for (int32_t i = 0; i < vocab_size; i++)
        if (moss_is_left(heap, n_left, logits[i], i))
            total += moss_weight(logits[i], largest, temperature);
    const uint64_t drawn = moss_random_below(random, total);
    for (int32_t i = 0; i < vocab_size; i++) {
        if (moss_is_left(heap, n_left, logits[i], i))
            sum += moss_weight(logits[i], largest, temperature);
        if (sum > drawn)
            return i;
    }
    return 0;   /* not reached: drawn < total */
}

static int32_t moss_sample_largest(const float *logits, int32_t vocab_size)
{
    int32_t best = -1;
    for (int32_t i = 0; i < vocab_size; i++)
        if (!moss_is_nan(logits[i]) && (best < 0 || logits[i] > logits[best]))
            best = i;
    return best < 0 ? 0 : best;
}

/* Into [low, high]; NaN gives `low`. */
static float moss_clamp(float value, float low, float high)
{
    if (moss_is_nan(value) || value < low)
        return low;
    return value > high ? high : value;
}

void moss_sampler_init(moss_sampler *sampler, float temperature, int32_t top_k, float top_p,
                       float min_p, uint64_t seed)
{
    sampler->temperature = moss_clamp(temperature, 0, 1e6f);
    sampler->top_k = top_k > 0 ? top_k : 0;
    sampler->top_p = moss_is_nan(top_p) ? 1 : moss_clamp(top_p, 0, 1);
    sampler->min_p = moss_clamp(min_p, 0, 1);
    for (int i = 0; i < 4; i++)
        sampler->rng[i] = moss_random_spread(&seed);
}

int32_t moss_sample(moss_sampler *sampler, const float *logits, float *scratch)
{
    const int32_t vocab_size = moss_program_data.vocab_size;
    if (sampler->temperature <= 0)
        return moss_sample_largest(logits, vocab_size);
    const uint64_t random = moss_random(sampler->rng);   /* one step a token, whatever happens */
    moss_heap heap = moss_heap_make(logits, scratch, vocab_size);
    if (heap.n == 0)
        return 0;
    const float largest = heap.value[0];
    const int32_t n_left = moss_heap_filter(&heap, sampler, largest);
    return moss_draw(&heap, n_left, logits, largest, sampler->temperature, random);
}
