/* Random weights: every element a function of (seed, tensor name, index) alone.
 *
 * Input: a seed, a tensor, a range. Output: float32 values; matrices are rounded to bfloat16, the
 * type they are declared with.
 * Invariant: the same bits on every machine. So hashes are integer, each value is one integer
 * rounded to float and multiplied once (nothing a compiler could contract into an fma), and the
 * logarithm of A_log is computed in integers.
 */
#include "random_weights.h"
#include "../ir/text.h"

#include <math.h>
#include <string.h>

#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

/* Finalizer of splitmix64 (Steele, Lea, Flood 2014). */
static inline uint64_t mix64(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* FNV-1a of the name, mixed with the seed. */
static uint64_t tensor_key(uint64_t seed, const char *name)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
    return mix64(seed + GOLDEN) ^ mix64(hash);
}

/* (u + shift) * scale, u uniform in the 2^24 integers from -2^23. */
static void uniform_fill(uint64_t key, int64_t begin, int64_t count, int32_t shift, float scale, float *out)
{
    uint64_t counter = key + (uint64_t)begin * GOLDEN;
    shift -= 1 << 23;
    for (int64_t i = 0; i < count; i++) {
        counter += GOLDEN;
        out[i] = (float)((int32_t)(mix64(counter) >> 40) + shift) * scale;
    }
}

static void round_to_bf16(int64_t count, float *out)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &out[i], sizeof bits);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
        memcpy(&out[i], &bits, sizeof bits);
    }
}

/* ln(n) for n >= 1: log2 bit by bit, by squaring a 1.62 fixed-point significand. */
static float integer_ln(uint64_t n)
{
    enum { FRACTION = 40 };
    int whole = 63 - __builtin_clzll(n);
    uint64_t significand = whole <= 62 ? n << (62 - whole) : n >> 1;
    uint64_t log2 = (uint64_t)whole;
    for (int bit = 0; bit < FRACTION; bit++) {
        unsigned __int128 square = (unsigned __int128)significand * significand;
        bool two = square >> 125 & 1;
        significand = (uint64_t)(square >> (two ? 63 : 62));
        log2 = log2 << 1 | two;
    }
    return (float)((double)log2 * (0.69314718055994530942 / (double)(UINT64_C(1) << FRACTION)));
}

/* A_log[c, n] = ln(n + 1), the S4D-real start of Mamba. */
static void ln_fill(int64_t d_state, int64_t begin, int64_t count, float *out)
{
    for (int64_t i = 0; i < count && i < d_state; i++)
        out[i] = integer_ln((uint64_t)((begin + i) % d_state) + 1);
    for (int64_t i = d_state; i < count; i++)
        out[i] = out[i - d_state];
}

static void constant_fill(float value, int64_t count, float *out)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = value;
}

static bool ends_with(const char *name, const char *end)
{
    size_t len = strlen(name), end_len = strlen(end);
    return len >= end_len && strcmp(name + len - end_len, end) == 0;
}

/* Half the width of a uniform distribution, as the scale of an integer in [-2^23, 2^23). */
static float scale_of(double half_width)
{
    return (float)(half_width * 0x1p-23);
}

void random_weights_read(uint64_t seed, const TensorSpec *spec, int64_t begin, int64_t count, float *out)
{
    const char *name = spec->name;
    double fan_in = (double)spec->shape[spec->rank - 1];
    uint64_t key = tensor_key(seed, name);
    if (spec->matrix) {                                   /* standard deviation 1/sqrt(fan_in) */
        uniform_fill(key, begin, count, 0, scale_of(sqrt(3 / fan_in)), out);
        round_to_bf16(count, out);
    } else if (ends_with(name, "router.weight")) {        /* twice that, so that experts differ */
        uniform_fill(key, begin, count, 0, scale_of(2 * sqrt(3 / fan_in)), out);
    } else if (ends_with(name, "conv1d.weight")) {
        uniform_fill(key, begin, count, 0, scale_of(1 / sqrt(fan_in)), out);
    } else if (ends_with(name, "dt_proj.bias")) {         /* [-4.6, -2.2]: softplus gives 0.01 to 0.1 */
        uniform_fill(key, begin, count, (int32_t)(-3.4 / 1.2 * 0x1p23), scale_of(1.2), out);
    } else if (ends_with(name, "A_log")) {
        ln_fill(spec->shape[1], begin, count, out);
    } else if (ends_with(name, "conv1d.bias")) {
        constant_fill(0, count, out);
    } else if (spec->rank == 1) {                         /* norms and D */
        constant_fill(1, count, out);
    } else {
        BUG("no rule for random %s", name);
    }
}
