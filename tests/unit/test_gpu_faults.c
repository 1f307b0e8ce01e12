/* Every call of the driver fails in turn, over the life of a model on the stand-in GPU (fake_gpu.h): one call alone,
 * and one with all that come after it.
 *
 * Whatever fails: nothing crashes, nothing stays allocated, what says it succeeded has the right results, and a context
 * is as if the call had not been made, or lost, in the same words for ever.
 */
#include "gpu_fixture.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 2, PROMPT = 20, N_GENERATED = 3, OUT_LEN = PROMPT * FAKE_VOCAB * 4, MOST_CALLS = 5000 };

typedef struct {
    Fixture fixture;
    moss_state *states[N];
    float scratch[(N + 2) * FAKE_VOCAB];
    uint8_t out[OUT_LEN];          /* of the step at hand, else zeros */
} Run;

/* ---- the steps of a life: each leaves what it found in out ---- */

static int open_model(Run *run, moss_error *error)
{
    return moss_model_open_sized(run->fixture.model, NULL, 0, N_STATES, 0, error);
}

static int make_context(Run *run, moss_error *error)
{
    return moss_context_init(run->fixture.context, run->fixture.model, 1, NULL, error);
}

/* Pieces of one length are captured, the last one is not. */
static int eval_prompt(Run *run, moss_error *error)
{
    int32_t tokens[MAX_TOKENS];
    make_tokens(tokens);
    return moss_eval(run->fixture.context, run->states[0], 0, 0, tokens, PROMPT, (float *)run->out, PROMPT, error);
}

static int eval_prompts(Run *run, moss_error *error)
{
    static const int32_t lens[N] = { 5, 6 };
    int32_t tokens[MAX_TOKENS];
    make_tokens(tokens);
    return moss_eval_prompts(run->fixture.context, run->states, N, 1, 0, tokens, lens, (float *)run->out, error);
}

static int eval_token(Run *run, moss_error *error)
{
    static const int32_t tokens[N] = { 7, 8 };
    return moss_eval_batch(run->fixture.context, run->states, N, 0, tokens, (float *)run->out, error);
}

static int generate(Run *run, float temperature, moss_error *error)
{
    static const int32_t next[N] = { 9, 10 };
    moss_sampler samplers[N];
    for (int i = 0; i < N; i++)
        moss_sampler_init(&samplers[i], temperature, 20, 1, 0, (uint64_t)i);
    int status = moss_generate(run->fixture.context, run->states, N, 0, samplers, next, (int32_t *)run->out,
                               N_GENERATED, run->scratch, error);
    if (status == MOSS_OK)
        memcpy(run->out + N_GENERATED * N * 4, samplers, sizeof samplers);
    return status;
}
static int generate_greedily(Run *run, moss_error *error) { return generate(run, 0, error); }
static int generate_drawn(Run *run, moss_error *error) { return generate(run, 2, error); }

static int sync_state(Run *run, moss_error *error)
{
    moss_state *state = run->states[0];
    const int status = moss_state_sync(run->fixture.context, state, error);
    if (status == MOSS_OK)
        memcpy(run->out, state + 1, state->len - sizeof *state);
    return status;
}

typedef int Step(Run *run, moss_error *error);
static Step *const steps[] = { open_model, make_context, eval_prompt, eval_prompts, eval_token, generate_greedily,
                               generate_drawn, sync_state, eval_prompt, eval_token, eval_prompt };
enum { N_STEPS = sizeof steps / sizeof *steps };
static uint8_t expected[N_STEPS][OUT_LEN];

static int do_step(Run *run, int step, moss_error *error)
{
    memset(run->out, 0, sizeof run->out);
    *error = (moss_error){ .status = 0 };
    return steps[step](run, error);
}

/* ---- a life with a fault ---- */

static bool is_right(const Run *run, int step) { return memcmp(run->out, expected[step], OUT_LEN) == 0; }

static bool complain(int step, const char *what, const moss_error *error)
{
    printf("call %d%s, step %d: %s: '%s'\n", fake_device()->fails_at, fake_device()->stays_broken ? " and on" : "",
           step, what, error->message);
    return false;
}

/* A lost context says so, whatever it is asked for. */
static bool stays_lost(Run *run, int step, const moss_error *first)
{
    moss_error error;
    for (; step < N_STEPS; step++)
        if (do_step(run, step, &error) != first->status || strcmp(error.message, first->message) != 0)
            return complain(step, "not lost in the same words", &error);
    return true;
}

/* The step has failed. What comes next goes on from *step. */
static bool check_failure(Run *run, int *step, const moss_error *first, int n_live)
{
    moss_error error;
    if (first->status != MOSS_ERROR_DEVICE || first->message[0] == 0)
        return complain(*step, "another error", first);
    if (*step <= 1 && fake_device()->n_live != n_live)
        return complain(*step, "something stays allocated", first);
    if (*step > 1 && run->fixture.context->lost.status != MOSS_OK) {
        const bool stays = stays_lost(run, *step, first);
        *step = N_STEPS;
        return stays;
    }
    if (fake_device()->stays_broken) {
        *step = N_STEPS;
        return true;
    }
    if (do_step(run, *step, &error) != MOSS_OK || !is_right(run, *step))
        return complain(*step, "does not succeed now", &error);
    ++*step;
    return true;
}

static bool live(Run *run)
{
    for (int step = 0; step < N_STEPS; ) {
        const int n_live = fake_device()->n_live;
        moss_error error;
        if (do_step(run, step, &error) != MOSS_OK) {
            if (!check_failure(run, &step, &error, n_live))
                return false;
        } else if (!is_right(run, step++))
            return complain(step - 1, "wrong results", &error);
    }
    return true;
}

/* n_context > 0: a model of full attention, whose places for states are made when the first is used. */
static void begin(Run *run, int64_t n_context)
{
    fake_full_attention(n_context > 0);
    memset(run, 0, sizeof *run);
    run->fixture.model = block_new(moss_model_len());
    run->fixture.context = block_new(moss_context_len(1));
    memset(run->fixture.model, 0, moss_model_len());
    memset(run->fixture.context, 0, moss_context_len(1));
    for (int i = 0; i < N; i++)
        run->states[i] = state_new(n_context);
}

static void end(Run *run)
{
    fixture_close(&run->fixture);          /* which looks for what was not given back */
    for (int i = 0; i < N; i++)
        free(run->states[i]);
    fake_full_attention(false);
}

/* Every call in turn, until a life has no more. */
static void fail_in_turn(int64_t n_context, int code, bool stays_broken)
{
    static Run run;
    int n = 0, n_calls;
    do {
        fake_reset();
        fake_device()->fails_at = ++n;
        fake_device()->fail_code = code;
        fake_device()->stays_broken = stays_broken;
        begin(&run, n_context);
        CU_ASSERT_TRUE(live(&run));
        end(&run);
        n_calls = fake_device()->n_calls;
    } while (n <= n_calls && n < MOST_CALLS);
    CU_ASSERT(n > 150 && n < MOST_CALLS);
}

/* What is right comes from a life without faults. */
static void test_faults(int64_t n_context)
{
    static Run run;
    moss_error error;
    fake_reset();
    begin(&run, n_context);
    for (int step = 0; step < N_STEPS; step++) {
        CU_ASSERT_EQUAL_FATAL(do_step(&run, step, &error), MOSS_OK);
        memcpy(expected[step], run.out, OUT_LEN);
    }
    end(&run);
    fail_in_turn(n_context, 2, false);
    fail_in_turn(n_context, 719, true);
}

static void test_places_first(void) { test_faults(0); }
static void test_places_late(void) { test_faults(100); }

static const UnitTest tests[] = {
    { "places for states made first", test_places_first },
    { "places for states made late", test_places_late },
};

UNIT_MAIN("gpu faults", tests)
