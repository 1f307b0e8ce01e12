/* sample_weigh and sample_draw: tokens, generators, history and positions to the bit as of runtime/sampler.c. */
#define moss_program_data sample_declared_const   /* as program.h does; here the vocabulary changes */
#include "../../runtime/program.h"
#undef moss_program_data
static moss_program moss_program_data;
#include "../../runtime/sampler.c"

#include "check.h"

enum { HISTORY = 1024, SEQUENCES = 16, ROUNDS = 2, FIRST = 1000 };

/* Row by row: plain, ties, a large spread, infinities, almost equal, NaN between; row 6 is NaN all over, and row 8 has
 * its largest where few threads of a block look. */
static float logit_of(int row, int token)
{
    const float spread[] = { 3, 4, 60, 5, 1e-5f, 2 };
    const float x = spread[row % 6] * check_random();
    if (row == 8)
        return -1e-3f * (float)(token % 1024);
    if (row == 6 || (row % 6 == 5 && check_random_below(3) == 0))
        return NAN;
    if (row % 6 == 3 && check_random_below(4) == 0)
        return check_random_below(3) ? -INFINITY : row > 6 ? INFINITY : x;
    return row % 6 == 1 ? (float)(int)x * (row > 6 ? 0.0f : 1.0f) : x;
}

static float *draw_logits(int n, int vocab)
{
    float *logits = check_buffer(sizeof(float) * (size_t)n * (size_t)vocab);
    for (int i = 0; i < n * vocab; i++)
        logits[i] = logit_of(i / vocab, i % vocab);
    check_freeze(logits);
    return logits;
}

/* Each row another sampler; `turn` changes who gets which. Row 0 of turn 0 is greedy. */
static moss_sampler sampler_of(int row, int turn, int vocab)
{
    const struct { float temperature; int32_t top_k; float top_p, min_p; } all[] = {
        { 0, 5, 0.5f, 0 }, { 1, 0, 1, 0 }, { 0.8f, 7, 1, 0 }, { 0.7f, 0, 0.9f, 0 }, { 1.5f, 0, 1, 0.05f },
        { 0.9f, 40, 0.95f, 0.02f }, { 2, vocab, 0.3f, 0 }, { 1, 1, 1, 0 }, { 5, 3, 0, 0 }, { 1e6f, 0, 0.999f, 1e-6f },
        { 1e-3f, 200, 1, 0 }, { 1, vocab - 1, 1, 1 }, { 0.5f, 2 * vocab, 1e-9f, 0 },
    };
    const int at = (row + 5 * turn) % (int)(sizeof all / sizeof *all);
    moss_sampler sampler;
    moss_sampler_init(&sampler, all[at].temperature, all[at].top_k, all[at].top_p, all[at].min_p, check_random_bits());
    return sampler;
}

static moss_sampler *draw_samplers(int n, int vocab)
{
    moss_sampler *samplers = check_buffer(sizeof *samplers * (size_t)n);
    for (int i = 0; i < n; i++)
        samplers[i] = sampler_of(i, check_param("turn"), vocab);
    return samplers;
}

/* Rows of greedy samplers are nobody's. */
static void weigh_row(const float *logits, float temperature, uint32_t *weights, int vocab)
{
    float largest = -INFINITY;
    for (int i = 0; i < vocab; i++)
        largest = logits[i] > largest ? logits[i] : largest;
    for (int i = 0; i < vocab && temperature > 0; i++) {
        const bool none = moss_is_nan(logits[i]);
        weights[i] = none ? 0 : (uint32_t)moss_weight(logits[i], largest, 1);
        weights[vocab + i] = none ? 0 : (uint32_t)moss_weight(logits[i], largest, temperature);
    }
}

static void check_weigh(void)
{
    const int vocab = check_param("vocab_size"), n = check_param("sequences");
    float *logits = draw_logits(n, vocab);
    moss_sampler *samplers = draw_samplers(n, vocab);
    const size_t len = sizeof(uint32_t) * 2 * (size_t)n * (size_t)vocab;
    uint32_t *weights = check_buffer(len), *want = check_buffer(len);
    check_freeze(samplers);
    for (int i = 0; i < n; i++)
        weigh_row(logits + i * vocab, samplers[i].temperature, want + 2 * i * vocab, vocab);
    CHECK_LAUNCH((vocab + 1023) / 1024, n, 256, 32, weights, logits, samplers);
    check_bytes("weights", weights, want, len);
}

/* Several tokens with the same logits: the generators go on. */
static void check_draw(void)
{
    const int vocab = check_param("vocab_size"), n = check_param("sequences");
    float *logits = draw_logits(n, vocab), *scratch = check_buffer(2 * sizeof(float) * (size_t)vocab);
    moss_sampler *samplers = draw_samplers(n, vocab), *want = check_buffer(sizeof *want * (size_t)n);
    uint32_t *weights = check_buffer(sizeof *weights * 2 * (size_t)n * (size_t)vocab);
    int32_t *tokens = check_buffer(sizeof *tokens * (size_t)n), *expected = check_buffer(sizeof *tokens * (size_t)n);
    int32_t *history = check_buffer(sizeof(int32_t) * HISTORY * SEQUENCES);
    int32_t *kept = check_buffer(sizeof(int32_t) * HISTORY * SEQUENCES);
    int64_t *positions = check_buffer(sizeof *positions * (size_t)n), *after = check_buffer(sizeof *after * (size_t)n);
    moss_program_data.vocab_size = vocab;
    memcpy(want, samplers, sizeof *want * (size_t)n);
    for (int i = 0; i < HISTORY * SEQUENCES; i++)
        history[i] = kept[i] = -1;
    for (int i = 0; i < n; i++) {
        weigh_row(logits + i * vocab, samplers[i].temperature, weights + 2 * i * vocab, vocab);
        positions[i] = after[i] = FIRST + 11 * i;
    }
    check_freeze(weights);
    for (int round = 0; round < ROUNDS; round++) {
        CHECK_LAUNCH(n, 1, 1024, 17408, tokens, history, positions, samplers, logits, weights);
        for (int i = 0; i < n; i++) {
            expected[i] = moss_sample(&want[i], logits + i * vocab, scratch);
            kept[after[i]++ % HISTORY * SEQUENCES + i] = expected[i];
        }
        check_ints("tokens", tokens, expected, n);
        check_bytes("samplers", samplers, want, sizeof *want * (size_t)n);
    }
    check_bytes("positions", positions, after, sizeof *after * (size_t)n);
    check_ints("history", history, kept, HISTORY * SEQUENCES);
}

GPU_CHECKS({ "sample_weigh", check_weigh }, { "sample_draw", check_draw })
