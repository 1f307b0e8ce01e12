/* The sampler: filters against a plain sort, hostile logits, determinism, distribution.
 *
 * Input: logits made here; the vocabulary length of the stand-in program is changed at will.
 * Invariant checked throughout: whatever the logits, the token is in the vocabulary.
 */
#include "fake_program.h"
#include "moss.h"
#include "unit.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VOCAB = 300 };

static float scratch[2 * MAX_VOCAB];

static int32_t sample_once(float temperature, int32_t top_k, float top_p, float min_p,
                           uint64_t seed, const float *logits, int32_t vocab_size)
{
    moss_sampler sampler;
    fake_program()->vocab_size = vocab_size;
    moss_sampler_init(&sampler, temperature, top_k, top_p, min_p, seed);
    return moss_sample(&sampler, logits, scratch);
}

/* How often each token comes in n draws. */
static void sample_counts(const moss_sampler *settings, const float *logits, int32_t vocab_size,
                          int n, int counts[MAX_VOCAB])
{
    moss_sampler sampler = *settings;
    fake_program()->vocab_size = vocab_size;
    memset(counts, 0, MAX_VOCAB * sizeof *counts);
    for (int i = 0; i < n; i++) {
        const int32_t token = moss_sample(&sampler, logits, scratch);
        CU_ASSERT_FATAL(token >= 0 && token < vocab_size);
        counts[token]++;
    }
}

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    return *x ^= *x << 17;
}

static void test_greedy(void)
{
    const float ties[] = { 1, 3, 2, 3, 3 }, below[] = { -5, -2, -9 }, zeros[] = { -0.0f, 0.0f };
    CU_ASSERT_EQUAL(sample_once(0, 40, 0.9f, 0, 1, ties, 5), 1);
    CU_ASSERT_EQUAL(sample_once(-1, 0, 1, 0, 1, ties, 5), 1);
    CU_ASSERT_EQUAL(sample_once(0, 0, 1, 0, 1, below, 3), 1);
    CU_ASSERT_EQUAL(sample_once(0, 0, 1, 0, 1, zeros, 2), 0);
}

static void test_hostile_logits(void)
{
    const float all_nan[] = { NAN, NAN, NAN }, some[] = { NAN, -3, NAN, -4 };
    const float minus[] = { -INFINITY, -INFINITY }, plus[] = { 1, INFINITY, NAN, 5 };
    const float mixed[] = { -INFINITY, 0, -INFINITY }, wide[] = { -3e38f, 3e38f, 0 };
    const float negative_nan[] = { -NAN, 2 };
    for (uint64_t seed = 0; seed < 200; seed++) {
        const float temperature = seed % 4 ? 0.5f * (float)(seed % 4) : 0;
        CU_ASSERT_EQUAL(sample_once(temperature, 0, 1, 0, seed, all_nan, 3), 0);
        const int32_t token = sample_once(temperature, 3, 0.99f, 0.01f, seed, some, 4);
        CU_ASSERT(token == 1 || token == 3);
        CU_ASSERT(sample_once(temperature, 0, 0.9f, 0, seed, minus, 2) >= 0);
        CU_ASSERT_EQUAL(sample_once(temperature, 0, 1, 0, seed, plus, 4), 1);
        CU_ASSERT_EQUAL(sample_once(temperature, 2, 0.9f, 0.1f, seed, mixed, 3), 1);
        CU_ASSERT_EQUAL(sample_once(temperature, 0, 1, 0, seed, wide, 3), 1);
        CU_ASSERT_EQUAL(sample_once(temperature, 0, 1, 0, seed, negative_nan, 2), 1);
    }
}

static void test_odd_settings(void)
{
    const float logits[] = { 0, 1, 2, 3 };
    for (uint64_t seed = 0; seed < 50; seed++) {
        CU_ASSERT_EQUAL(sample_once(1e-30f, 0, 1, 0, seed, logits, 4), 3);   /* nearly greedy */
        CU_ASSERT_EQUAL(sample_once(NAN, 0, 1, 0, seed, logits, 4), 3);
        CU_ASSERT_EQUAL(sample_once(9, 1, 1, 0, seed, logits, 4), 3);
        CU_ASSERT_EQUAL(sample_once(9, 0, 0, 0, seed, logits, 4), 3);        /* one always stays */
        CU_ASSERT_EQUAL(sample_once(9, 0, 1, 1, seed, logits, 4), 3);
        CU_ASSERT_EQUAL(sample_once(9, 0, -1, NAN, seed, logits, 4), 3);
        CU_ASSERT(sample_once(INFINITY, -7, NAN, -2, seed, logits, 4) < 4);  /* all filters off */
        CU_ASSERT_EQUAL(sample_once(1, 0, 1, 0, seed, logits, 1), 0);
    }
}

static void test_top_k_ties(void)
{
    const float logits[] = { 1, 2, 2, 2, 0 };
    int counts[MAX_VOCAB];
    moss_sampler sampler;
    moss_sampler_init(&sampler, 1, 2, 1, 0, 3);
    sample_counts(&sampler, logits, 5, 2000, counts);
    CU_ASSERT(counts[1] > 800 && counts[2] > 800);   /* the lower ids of three equals */
    CU_ASSERT_EQUAL(counts[1] + counts[2], 2000);
}

/* --- Filters against a plain sort --- */

typedef struct { double p; int32_t id; } Candidate;

static int compare_candidates(const void *a, const void *b)
{
    const Candidate *x = a, *y = b;
    return x->p != y->p ? (x->p < y->p) - (x->p > y->p) : x->id - y->id;
}

static void normalise(Candidate *candidates, int32_t n)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += candidates[i].p;
    for (int32_t i = 0; i < n; i++)
        candidates[i].p /= sum;
}

/* Number of candidates left, best first: the definition, in double. */
static int32_t filter_plainly(const float *logits, int32_t vocab_size, int32_t top_k, double top_p,
                              double min_p, Candidate *candidates)
{
    int32_t n = vocab_size, kept = 0;
    for (int32_t i = 0; i < vocab_size; i++)
        candidates[i] = (Candidate){ exp(logits[i]), i };
    qsort(candidates, (size_t)n, sizeof *candidates, compare_candidates);
    if (top_k > 0 && top_k < n)
        n = top_k;
    normalise(candidates, n);
    for (double sum = 0; top_p < 1 && kept < n && sum < top_p; kept++)
        sum += candidates[kept].p;
    if (top_p < 1)
        n = kept;
    for (kept = 1; kept < n && candidates[kept].p >= min_p * candidates[0].p;)
        kept++;
    return kept;
}

/* High temperature makes what is left nearly uniform, so 60 draws a candidate miss none. */
static void check_filters(uint64_t *random)
{
    float logits[MAX_VOCAB];
    int counts[MAX_VOCAB];
    Candidate candidates[MAX_VOCAB];
    moss_sampler sampler;
    const int32_t vocab_size = 2 + (int32_t)(next(random) % 30);
    for (int32_t i = 0; i < vocab_size; i++)
        logits[i] = (float)(next(random) % 4096) / 512 - 4;
    const int32_t top_k = (int32_t)(next(random) % 12);
    const float top_p = (float)(next(random) % 1000 + 30) / 1000;
    const float min_p = next(random) % 2 ? (float)(next(random) % 400) / 1000 : 0;
    const int32_t n = filter_plainly(logits, vocab_size, top_k, top_p, min_p, candidates);
    moss_sampler_init(&sampler, 1000, top_k, top_p, min_p, next(random));
    sample_counts(&sampler, logits, vocab_size, 60 * n, counts);
    for (int32_t i = 0; i < n; i++)
        CU_ASSERT(counts[candidates[i].id] > 0);
    int total = 0;
    for (int32_t i = 0; i < n; i++)
        total += counts[candidates[i].id];
    CU_ASSERT_EQUAL(total, 60 * n);
}

static void test_filters_match_definition(void)
{
    uint64_t random = 42;
    for (int i = 0; i < 500; i++)
        check_filters(&random);
}

/* --- Distribution and determinism --- */

/* Chi-square against softmax(logits / T); 40 is far out for up to 9 degrees of freedom. */
static void check_distribution(float temperature, uint64_t seed)
{
    const float logits[] = { 0.1f, -1, 2, 0.5f, 1.5f, -0.3f, 0, 1 };
    enum { N = 8, DRAWS = 100000 };
    double p[N], sum = 0, chi = 0;
    int counts[MAX_VOCAB];
    moss_sampler sampler;
    for (int i = 0; i < N; i++)
        sum += p[i] = exp(logits[i] / temperature);
    moss_sampler_init(&sampler, temperature, 0, 1, 0, seed);
    sample_counts(&sampler, logits, N, DRAWS, counts);
    for (int i = 0; i < N; i++) {
        const double expected = DRAWS * p[i] / sum;
        chi += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    CU_ASSERT(chi < 40);
}

static void test_distribution(void)
{
    static const float temperatures[] = { 0.3f, 0.7f, 1, 1.7f, 10 };
    for (size_t i = 0; i < sizeof temperatures / sizeof *temperatures; i++)
        for (uint64_t seed = 0; seed < 4; seed++)
            check_distribution(temperatures[i], seed);
}

/* One seed gives one text everywhere: these tokens, which exact integers of Python gave too, on every CPU and libc. */
static void test_known_text(void)
{
    static const int32_t expected[] = { 13, 255, 242, 236, 52, 217, 160, 79, 109, 228, 165, 64 };
    float logits[MAX_VOCAB];
    moss_sampler sampler;
    uint64_t random = 7;
    fake_program()->vocab_size = 300;
    moss_sampler_init(&sampler, 0.8f, 40, 0.95f, 0.05f, 1234);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        for (int32_t v = 0; v < 300; v++)
            logits[v] = (float)(next(&random) >> 40) / (1 << 21);
        const int32_t token = moss_sample(&sampler, logits, scratch);
        if (token != expected[i])
            printf("token %zu: found %d, expected %d\n", i, token, expected[i]);
        CU_ASSERT_EQUAL(token, expected[i]);
    }
}

static void test_seeds(void)
{
    float logits[MAX_VOCAB] = { 0 };
    moss_sampler a, b, c;
    int same = 0;
    fake_program()->vocab_size = 256;
    moss_sampler_init(&a, 1, 0, 1, 0, 0);
    moss_sampler_init(&b, 1, 0, 1, 0, 0);
    moss_sampler_init(&c, 1, 0, 1, 0, 1);
    for (int i = 0; i < 1000; i++) {
        const int32_t token = moss_sample(&a, logits, scratch);
        CU_ASSERT_EQUAL(token, moss_sample(&b, logits, scratch));
        same += token == moss_sample(&c, logits, scratch);
    }
    CU_ASSERT(same < 30);   /* near seeds are unlike: 1000 / 256 by chance */
}

static const UnitTest tests[] = {
    { "temperature 0", test_greedy },
    { "NaN and infinities", test_hostile_logits },
    { "settings out of range", test_odd_settings },
    { "top_k among equals", test_top_k_ties },
    { "filters match their definition", test_filters_match_definition },
    { "distribution", test_distribution },
    { "one seed, one text", test_known_text },
    { "seeds", test_seeds },
};

UNIT_MAIN("sampler", tests)
