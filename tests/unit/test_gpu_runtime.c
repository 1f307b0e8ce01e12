/* Calls of the GPU runtime over a stand-in driver and program (fake_gpu.h).
 *
 * Checks that launches get the grids and arguments their table says, that results are those of the model however calls
 * are cut, that generation needs the host once, and that a device that failed stays lost.
 */
#include "gpu_fixture.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

/* --- Launches --- */

static void check_launch(int i, const char *kernel, uint32_t x, uint32_t y, uint32_t block, uint32_t shared_len,
                         bool dependent, bool cooperative)
{
    const fake_launch *found = &fake_device()->launches[i];
    CU_ASSERT_STRING_EQUAL_FATAL(found->kernel, kernel);
    CU_ASSERT(found->grid[0] == x && found->grid[1] == y && found->grid[2] == 1);
    CU_ASSERT(found->block == block && found->shared_len == shared_len);
    CU_ASSERT(found->dependent == dependent && found->cooperative == cooperative);
}

static void test_grids(void)
{
    Fixture fixture;
    int32_t tokens[MAX_TOKENS];
    static float logits[MAX_TOKENS * FAKE_VOCAB];
    fake_reset();
    make_tokens(tokens);
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, 0), MOSS_OK);
    CU_ASSERT_EQUAL(fake_device()->n_maps, 1);
    moss_state *state = state_new(0);
    CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 1, 0, tokens, 5, logits, 3, NULL), MOSS_OK);
    check_launch(0, "clear", FAKE_PROCESSORS + 1, 1, 32, 0, false, false);
    check_launch(1, "fold", 5, 3, 64, 60000, true, false);       /* 15 pairs by 3; 5 tokens by 4, and 1 */
    check_launch(2, "logits", 3, 1, 128, 100, true, false);
    fake_device()->n_launches = 0;
    CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, tokens, 1, NULL, 0, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(fake_device()->n_launches, 2);               /* no logits wanted */
    check_launch(0, "clear", 1, 1, 32, 0, false, true);
    check_launch(1, "fold", 1, 1, 64, 0, true, false);
    free(state);
    fixture_close(&fixture);
}

/* One sequence takes launches of its own, a block a multiprocessor as far as they go, if the device has as many as they
 * need; more, or on a smaller device, the rest. */
static void test_one_sequence(void)
{
    static const struct { int32_t least, most, n; const char *kernel; uint32_t blocks; } rows[] = {
        { FAKE_PROCESSORS, FAKE_PROCESSORS, 1, "clear", FAKE_PROCESSORS },
        { 2, FAKE_PROCESSORS + 2, 1, "clear", FAKE_PROCESSORS },
        { 2, FAKE_PROCESSORS - 2, 1, "clear", FAKE_PROCESSORS - 2 },
        { FAKE_PROCESSORS + 1, FAKE_PROCESSORS + 2, 1, "fold", 1 }, { 1, 1, 2, "fold", 2 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Fixture fixture;
        moss_gpu_launch launches[FAKE_TABLE_LAUNCHES];
        const int32_t tokens[2] = { 3, 4 };
        fake_reset();
        memcpy(launches, fake_tables()->launches, sizeof launches);
        launches[3].flags = MOSS_GPU_COOPERATIVE | MOSS_GPU_IF_ONE;
        launches[3].grid[0] = (moss_gpu_extent){ MOSS_GPU_RESIDENT, rows[i].least, rows[i].most };
        launches[4].flags |= MOSS_GPU_IF_MORE;
        fake_tables()->launches = launches;
        CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, 0), MOSS_OK);
        moss_state *states[2] = { state_new(0), state_new(0) };
        CU_ASSERT_EQUAL(moss_eval_batch(fixture.context, states, rows[i].n, 0, tokens, NULL, NULL), MOSS_OK);
        CU_ASSERT_EQUAL(fake_device()->n_launches, 1);
        CU_ASSERT_STRING_EQUAL(fake_device()->launches[0].kernel, rows[i].kernel);
        CU_ASSERT_EQUAL(fake_device()->launches[0].grid[0], rows[i].blocks);
        free(states[0]);
        free(states[1]);
        fixture_close(&fixture);
    }
}

/* Dependent launches need both a driver whose graphs hold them and kernels that wait. */
static void test_dependent_launches(void)
{
    static const struct { int version, sm; bool dependent; } rows[] = {
        { 12040, 90, true }, { 12020, 90, false }, { 12040, 80, false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Fixture fixture;
        const int32_t token = 3;
        fake_reset();
        fake_device()->version = rows[i].version;
        fake_tables()->sm = rows[i].sm;
        CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, 1, 0), MOSS_OK);
        moss_state *state = state_new(0);
        CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, &token, 1, NULL, 0, NULL), MOSS_OK);
        CU_ASSERT_EQUAL(fake_device()->launches[1].dependent, rows[i].dependent);
        free(state);
        fixture_close(&fixture);
    }
}

/* What repeats is captured once for each kind of call, and replayed. */
static void test_graphs(void)
{
    Fixture fixture;
    int32_t tokens[MAX_TOKENS];
    float logits[FAKE_VOCAB];
    fake_reset();
    make_tokens(tokens);
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, 0), MOSS_OK);
    moss_state *state = state_new(0);
    const fake_gpu *device = fake_device();
    for (int i = 0; i < 10; i++)
        CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, tokens, 1, logits, 1, NULL), MOSS_OK);
    CU_ASSERT(device->n_captures == 1 && device->n_replays == 10 && device->n_launches == 3);
    CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, tokens, 1, NULL, 0, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 1, 0, tokens, 1, NULL, 0, NULL), MOSS_OK);
    CU_ASSERT(device->n_captures == 3 && device->n_replays == 12);
    const int32_t n = 3 * FAKE_CHUNK + 3;      /* the first whole piece is launched, and the odd one */
    CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, tokens, n, logits, 1, NULL), MOSS_OK);
    CU_ASSERT(device->n_captures == 4 && device->n_replays == 14);
    CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, tokens, n, logits, 1, NULL), MOSS_OK);
    CU_ASSERT(device->n_captures == 5 && device->n_replays == 18);     /* by now both have come before */
    free(state);
    fixture_close(&fixture);
}

/* More kinds of calls than there is room for. */
static void test_graphs_run_out(void)
{
    enum { N = 16, ROUNDS = 3 };
    Fixture fixture;
    moss_state *states[N];
    int32_t tokens[MAX_TOKENS];
    static float logits[N * FAKE_VOCAB];
    float *scratch = block_new((N + 2) * FAKE_VOCAB * sizeof *scratch);
    moss_sampler samplers[N];
    fake_reset();
    make_tokens(tokens);
    fake_program()->n_modes = MOSS_MAX_MODES;
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N, 0), MOSS_OK);
    for (int i = 0; i < N; i++) {
        states[i] = state_new(0);
        moss_sampler_init(&samplers[i], 0, 0, 1, 0, 0);
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int32_t n = 1; n <= N; n++)
            for (int32_t mode = 0; mode < MOSS_MAX_MODES; mode++) {
                int32_t out[N];
                CU_ASSERT_EQUAL(moss_eval_batch(fixture.context, states, n, mode, tokens, NULL, NULL), MOSS_OK);
                CU_ASSERT_EQUAL(moss_eval_batch(fixture.context, states, n, mode, tokens, logits, NULL), MOSS_OK);
                CU_ASSERT_EQUAL(moss_generate(fixture.context, states, n, mode, samplers, tokens, out, 1, scratch,
                                              NULL), MOSS_OK);
            }
    CU_ASSERT_EQUAL(fake_device()->n_captures, ROUNDS * N * MOSS_MAX_MODES * 3);
    CU_ASSERT(fake_device()->n_live < 3 * MOSS_GPU_MAX_GRAPHS);        /* old ones were dropped */
    fake_program()->n_modes = 2;
    for (int i = 0; i < N; i++)
        free(states[i]);
    free(scratch);
    fixture_close(&fixture);
}

/* --- Results --- */

/* Logits [n][FAKE_VOCAB] by the model's definition. */
static void expect_logits(const int32_t *tokens, int32_t n, int32_t top_k, float *logits)
{
    uint64_t hash = 0;
    for (int32_t i = 0; i < n; i++)
        fake_step(&hash, i, tokens[i], top_k, logits + (ptrdiff_t)i * FAKE_VOCAB);
}

static void check_cut(Fixture *fixture, int32_t mode, int32_t chunk, int32_t call_len, int32_t n_logits)
{
    static float expected[MAX_TOKENS * FAKE_VOCAB], found[MAX_TOKENS * FAKE_VOCAB];
    int32_t tokens[MAX_TOKENS];
    make_tokens(tokens);
    expect_logits(tokens, MAX_TOKENS, mode ? 3 : 2, expected);
    moss_state *state = state_new(MAX_TOKENS);
    for (int32_t done = 0, n; done < MAX_TOKENS; done += n) {
        n = MAX_TOKENS - done < call_len ? MAX_TOKENS - done : call_len;
        const int32_t wanted = n_logits < n ? n_logits : n;
        memset(found, 0xFF, sizeof found);
        const int status = moss_eval(fixture->context, state, mode, chunk, tokens + done, n, found, wanted, NULL);
        CU_ASSERT_EQUAL(status, MOSS_OK);
        CU_ASSERT_EQUAL(memcmp(found, expected + (ptrdiff_t)(done + n - wanted) * FAKE_VOCAB,
                               (size_t)wanted * FAKE_VOCAB * sizeof *found), 0);
        CU_ASSERT_EQUAL(moss_state_position(state), done + n);
    }
    CU_ASSERT_EQUAL(moss_state_sync(fixture->context, state, NULL), MOSS_OK);
    free(state);
}

static void test_cuts_agree(void)
{
    for (int full = 0; full < 2; full++) {
        Fixture fixture;
        fake_reset();
        fake_full_attention(full);
        CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, 2, MAX_TOKENS), MOSS_OK);
        for (int32_t mode = 0; mode < 2; mode++)
            for (int32_t chunk = 0; chunk < 10; chunk += 3)
                for (int32_t call_len = 1; call_len <= MAX_TOKENS; call_len += 6)
                    for (int32_t n_logits = 0; n_logits <= MAX_TOKENS; n_logits += 9)
                        check_cut(&fixture, mode, chunk, call_len, n_logits);
        fixture_close(&fixture);
    }
}

/* Sequences at different places, more than one pass takes. */
static void test_batch(void)
{
    enum { N = 21 };
    Fixture fixture;
    moss_state *states[N];
    uint64_t hashes[N] = { 0 };
    int32_t tokens[N];
    static float expected[N][FAKE_VOCAB], found[N][FAKE_VOCAB];
    fake_reset();
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N, 0), MOSS_OK);
    const int n_allocs = fake_device()->n_allocs;
    for (int32_t i = 0; i < N; i++) {
        states[i] = state_new(0);
        for (int32_t t = 0; t < i; t++) {
            fake_step(&hashes[i], t, t + i, 2, expected[i]);
            tokens[t] = t + i;
        }
        if (i)
            CU_ASSERT_EQUAL(moss_eval(fixture.context, states[i], 0, 0, tokens, i, NULL, 0, NULL), MOSS_OK);
    }
    for (int round = 0; round < 3; round++) {
        for (int32_t i = 0; i < N; i++) {
            tokens[i] = (round * 50 + i * 13) % FAKE_VOCAB;
            fake_step(&hashes[i], i + round, tokens[i], 3, expected[i]);
        }
        memset(found, 0xFF, sizeof found);
        CU_ASSERT_EQUAL(moss_eval_batch(fixture.context, states, N, 1, tokens, round == 1 ? NULL : &found[0][0],
                                        &fixture.error), MOSS_OK);
        if (round != 1)
            CU_ASSERT_EQUAL(memcmp(expected, found, sizeof found), 0);
    }
    CU_ASSERT_EQUAL(fake_device()->n_allocs, n_allocs);      /* nothing is allocated after init */
    for (int i = 0; i < N; i++)
        free(states[i]);
    fixture_close(&fixture);
}

/* Prompts of several sequences together: every length, pieces of one in two passes, more than one pass takes. */
static void check_prompts(Fixture *fixture, int32_t n, int32_t chunk, int32_t longest, bool wants_logits)
{
    enum { MOST = 19 };
    moss_state *states[MOST];
    int32_t lens[MOST], tokens[MOST * MAX_TOKENS], n_all = 0;
    static float expected[MOST][FAKE_VOCAB], found[MOST][FAKE_VOCAB];
    uint64_t hashes[MOST] = { 0 };
    for (int32_t i = 0; i < n; i++) {
        states[i] = state_new(MAX_TOKENS);
        const int32_t seen = i % 3;
        for (int32_t t = 0; t < seen; t++)
            fake_step(&hashes[i], t, t, 3, expected[i]);
        if (seen)
            CU_ASSERT_EQUAL(moss_eval(fixture->context, states[i], 1, 0, (int32_t[2]){ 0, 1 }, seen, NULL, 0, NULL),
                            MOSS_OK);
        lens[i] = 1 + (i * 7 + longest) % longest;
        for (int32_t t = 0; t < lens[i]; t++) {
            tokens[n_all] = (i * 31 + t * 17) % FAKE_VOCAB;
            fake_step(&hashes[i], seen + t, tokens[n_all++], 3, expected[i]);
        }
    }
    memset(found, 0xFF, sizeof found);
    CU_ASSERT_EQUAL(moss_eval_prompts(fixture->context, states, n, 1, chunk, tokens, lens,
                                      wants_logits ? &found[0][0] : NULL, &fixture->error), MOSS_OK);
    if (wants_logits)
        CU_ASSERT_EQUAL(memcmp(expected, found, (size_t)n * sizeof *found), 0);
    for (int32_t i = 0; i < n; i++) {
        CU_ASSERT_EQUAL(moss_state_position(states[i]), i % 3 + lens[i]);
        CU_ASSERT_EQUAL(moss_state_sync(fixture->context, states[i], NULL), MOSS_OK);
        free(states[i]);
    }
}

static void test_prompts(void)
{
    for (int full = 0; full < 2; full++) {
        Fixture fixture;
        fake_reset();
        fake_full_attention(full);
        CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, 19, MAX_TOKENS), MOSS_OK);
        for (int32_t n = 1; n <= 19; n += 3)
            for (int32_t chunk = 0; chunk < 2 * FAKE_CHUNK; chunk += 3)
                for (int32_t longest = 1; longest < MAX_TOKENS - 2; longest += 5)
                    check_prompts(&fixture, n, chunk, longest, (n + longest) % 2);
        fixture_close(&fixture);
    }
}

/* What is refused leaves every state as it was. */
static void test_prompts_errors(void)
{
    Fixture fixture;
    fake_reset();
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, 2, 0), MOSS_OK);
    moss_state *states[2] = { state_new(0), state_new(0) }, *twice[2] = { states[0], states[0] };
    const int32_t tokens[4] = { 1, 2, FAKE_VOCAB - 1, 0 }, wrong[4] = { 0, 0, 0, FAKE_VOCAB };
    const struct { moss_state **states; int32_t n, mode, chunk; const int32_t *tokens; int32_t lens[2]; } bad[] = {
        { twice, 2, 0, 0, tokens, { 2, 2 } }, { states, 2, 0, 0, wrong, { 2, 2 } }, { states, 2, 0, 0, NULL, { 2, 2 } },
        { NULL, 2, 0, 0, tokens, { 2, 2 } }, { states, 0, 0, 0, tokens, { 2, 2 } },
        { states, 2, 9, 0, tokens, { 2, 2 } }, { states, 2, 0, -1, tokens, { 2, 2 } },
        { states, 2, 0, 0, tokens, { 4, 0 } }, { states, 2, 0, 0, tokens, { INT32_MAX, 1 } },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const int status = moss_eval_prompts(fixture.context, bad[i].states, bad[i].n, bad[i].mode, bad[i].chunk,
                                             bad[i].tokens, bad[i].lens, NULL, &fixture.error);
        CU_ASSERT_EQUAL(status, MOSS_ERROR_ARGUMENT);
    }
    CU_ASSERT_EQUAL(moss_eval_prompts(fixture.context, states, 2, 0, 0, tokens, NULL, NULL, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT(moss_state_position(states[0]) == 0 && moss_state_position(states[1]) == 0);
    free(states[0]);
    free(states[1]);
    fixture_close(&fixture);
}

/* --- Generation --- */

static void check_generate(float temperature, bool feeds, int32_t n, int32_t n_steps, int32_t per_call)
{
    enum { MOST = 20, MOST_STEPS = 2100 };
    static int32_t found[MOST_STEPS * MOST];
    Fixture fixture;
    moss_state *states[MOST];
    moss_sampler samplers[MOST], expected[MOST];
    int32_t next[MOST];
    float *scratch = block_new((MOST + 2) * FAKE_VOCAB * sizeof *scratch), logits[FAKE_VOCAB];
    fake_reset();
    if (!feeds)
        fake_tables()->feed.end = fake_tables()->feed.begin;
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, n, 0), MOSS_OK);
    for (int32_t i = 0; i < n; i++) {
        states[i] = state_new(0);
        moss_sampler_init(&samplers[i], i % 2 ? temperature : 0, 20, 1, 0, (uint64_t)i);
        expected[i] = samplers[i];
        next[i] = i * 11;
        if (i % 3)
            feed(&fixture, states[i], i + 1);
    }
    for (int32_t done = 0, part; done < n_steps; done += part) {
        part = n_steps - done < per_call ? n_steps - done : per_call;
        CU_ASSERT_EQUAL(moss_generate(fixture.context, states, n, 0, samplers, done ? found + (done - 1) * n : next,
                                      found + done * n, part, scratch, &fixture.error), MOSS_OK);
    }
    for (int32_t i = 0; i < n; i++) {
        int32_t tokens[MAX_TOKENS], seen = i % 3 ? i + 1 : 0, token = next[i], n_wrong = 0;
        uint64_t hash = 0;
        make_tokens(tokens);
        for (int32_t t = 0; t < seen; t++)
            fake_step(&hash, t, tokens[t], 2, logits);
        for (int32_t step = 0; step < n_steps; step++) {
            fake_step(&hash, seen + step, token, 2, logits);
            token = moss_sample(&expected[i], logits, scratch);
            n_wrong += found[step * n + i] != token;
        }
        CU_ASSERT_EQUAL(n_wrong, 0);
        CU_ASSERT_EQUAL(moss_state_position(states[i]), seen + n_steps);
        CU_ASSERT_EQUAL(goes_on(&fixture, states[i], hash, seen + n_steps, 6), MOSS_OK);
        CU_ASSERT_EQUAL(memcmp(&expected[i], &samplers[i], sizeof samplers[i]), 0);
        free(states[i]);
    }
    free(scratch);
    fixture_close(&fixture);
}

static void test_generate(void)
{
    check_generate(0, true, 1, 1, 1);
    check_generate(0, true, 3, 2100, 2100);        /* longer than the history */
    check_generate(0, true, 20, 50, 7);            /* more than one pass */
    check_generate(0, false, 3, 40, 40);           /* the program has no such kernel */
    check_generate(2, true, 3, 40, 13);
    check_generate(2, true, 2, 1100, 1100);        /* row 0 is greedy */
    check_generate(0.7f, true, 20, 30, 30);
    check_generate(2, false, 3, 40, 13);           /* drawn by the host */
}

static void test_generate_waits_once(void)
{
    Fixture fixture;
    int32_t next = 1, tokens[100];
    moss_sampler sampler;
    float *scratch = block_new(3 * FAKE_VOCAB * sizeof *scratch);
    fake_reset();
    moss_sampler_init(&sampler, 0, 0, 1, 0, 0);
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, 1, 0), MOSS_OK);
    moss_state *state = state_new(0);
    CU_ASSERT_EQUAL(moss_generate(fixture.context, &state, 1, 0, &sampler, &next, tokens, 100, scratch, NULL), MOSS_OK);
    CU_ASSERT(fake_device()->n_captures == 1 && fake_device()->n_replays == 100);
    CU_ASSERT_EQUAL(fake_device()->n_launches, 4);         /* decode and feed, captured together */
    CU_ASSERT_EQUAL(moss_generate(fixture.context, &state, 1, 0, &sampler, &next, tokens, 0, scratch, NULL),
                    MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_generate(NULL, &state, 1, 0, &sampler, &next, tokens, 1, scratch, NULL), MOSS_ERROR_ARGUMENT);
    free(state), free(scratch);
    fixture_close(&fixture);
}

/* --- A device that fails --- */

static void test_lost_device(void)
{
    static const char *const where[] = { "cuStreamSynchronize", "cuGraphLaunch", "cuLaunchKernelEx",
        "cuMemcpyHtoDAsync_v2", "cuStreamBeginCapture_v2", "cuGraphInstantiateWithFlags" };
    int32_t tokens[MAX_TOKENS];
    float logits[FAKE_VOCAB];
    make_tokens(tokens);
    for (size_t i = 0; i < sizeof where / sizeof *where; i++) {
        Fixture fixture;
        moss_error first;
        fake_reset();
        CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, 0), MOSS_OK);
        moss_state *state = state_new(0);
        fake_device()->fails = where[i];
        fake_device()->fail_code = 719;
        CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, tokens, 1, logits, 1, &first), MOSS_ERROR_DEVICE);
        CU_ASSERT(words_in(&first, "CUDA_ERROR_LAUNCH_FAILED (719): unspecified launch failure"));
        fake_device()->fails = NULL;
        moss_error *error = &fixture.error;
        CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, tokens, 1, logits, 1, error), MOSS_ERROR_DEVICE);
        CU_ASSERT_STRING_EQUAL(fixture.error.message, first.message);
        CU_ASSERT_EQUAL(moss_eval_batch(fixture.context, &state, 1, 0, tokens, logits, NULL), MOSS_ERROR_DEVICE);
        CU_ASSERT_EQUAL(moss_state_sync(fixture.context, state, &fixture.error), MOSS_ERROR_DEVICE);
        CU_ASSERT_STRING_EQUAL(fixture.error.message, first.message);
        free(state);
        fixture_close(&fixture);
    }
}

static void test_arguments(void)
{
    Fixture fixture;
    float logits[FAKE_VOCAB];
    int32_t token = 1, high = FAKE_VOCAB;
    fake_reset();
    CU_ASSERT_EQUAL(moss_context_len(0), 0);
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, 1, 0), MOSS_OK);
    moss_state *state = state_new(0);
    moss_context *context = fixture.context;
    CU_ASSERT_EQUAL(moss_eval(NULL, state, 0, 0, &token, 1, logits, 1, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_eval(context, NULL, 0, 0, &token, 1, logits, 1, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_eval(context, state, 2, 0, &token, 1, logits, 1, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_eval(context, state, 0, 0, &high, 1, logits, 1, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_eval(context, state, 0, 0, &token, 1, NULL, 1, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_context_init(context, NULL, 1, NULL, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_context_init(NULL, fixture.model, 1, NULL, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_context_init(context, fixture.model, 0, NULL, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_state_sync(NULL, state, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(state->ticket, 0);
    free(state);
    fixture_close(&fixture);
}

static const UnitTest tests[] = {
    { "grids and shapes of launches", test_grids },
    { "launches of one sequence", test_one_sequence },
    { "dependent launches where they can be", test_dependent_launches },
    { "graphs are captured once", test_graphs },
    { "more graphs than room", test_graphs_run_out },
    { "results do not depend on how calls are cut", test_cuts_agree },
    { "a batch is its sequences", test_batch },
    { "prompts of several sequences together", test_prompts },
    { "prompts that are refused", test_prompts_errors },
    { "generation", test_generate },
    { "generation needs the host once", test_generate_waits_once },
    { "a lost device stays lost", test_lost_device },
    { "arguments", test_arguments },
};

UNIT_MAIN("gpu runtime", tests)
