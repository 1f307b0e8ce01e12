/* argmax: the first of the largest logits, never NaN; tokens, history and positions follow. */
#include "check.h"

enum { HISTORY = 1024, SEQUENCES = 16 };

/* Ties everywhere; row 1 begins with NaN, row 2 holds nothing else. */
static float *draw_logits(int n, int vocab)
{
    float *logits = check_buffer(sizeof(float) * (size_t)n * (size_t)vocab);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < vocab; j++)
            logits[i * vocab + j] = i == 2 || (i == 1 && j < 3) ? NAN : -(float)check_random_below(4);
    check_freeze(logits);
    return logits;
}

static int expected(const float *row, int vocab)
{
    int best = -1;
    for (int j = 0; j < vocab; j++)
        if (!isnan(row[j]) && (best < 0 || row[j] > row[best]))
            best = j;
    return best < 0 ? 0 : best;
}

static void check_argmax(void)
{
    const int vocab = check_param("vocab_size"), n = check_param("sequences");
    float *logits = draw_logits(n, vocab);
    int32_t *tokens = check_buffer(sizeof(int32_t) * (size_t)n);
    int32_t *history = check_buffer(sizeof(int32_t) * HISTORY * SEQUENCES);
    int64_t *positions = check_buffer(sizeof(int64_t) * (size_t)n);
    for (int i = 0; i < HISTORY * SEQUENCES; i++)
        history[i] = -1;
    for (int i = 0; i < n; i++)
        positions[i] = 1000 + 7 * i;
    CHECK_LAUNCH(n, 1, 256, 64, tokens, history, positions, logits);
    int32_t *kept = check_buffer(sizeof(int32_t) * HISTORY * SEQUENCES);
    for (int i = 0; i < HISTORY * SEQUENCES; i++)
        kept[i] = -1;
    for (int i = 0; i < n; i++) {
        const int32_t want = expected(logits + i * vocab, vocab);
        const int64_t position = 1001 + 7 * i;
        kept[(1000 + 7 * i) % HISTORY * SEQUENCES + i] = want;
        check_ints("tokens", &tokens[i], &want, 1);
        check_bytes("positions", &positions[i], &position, sizeof position);
    }
    check_ints("history", history, kept, HISTORY * SEQUENCES);
}

GPU_CHECKS({ "argmax", check_argmax })
