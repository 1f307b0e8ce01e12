/* States of the GPU runtime, over a stand-in driver and program (fake_gpu.h).
 *
 * Checks that a state is continued where it is newest or refused: on the device, after a sync, in another context, as a
 * copy; and what happens when places run out or states have another length.
 */
#include "gpu_fixture.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 18 };        /* more states than go through the lists together, and than have places */

static void test_states_stay(void)
{
    Fixture fixture;
    fake_reset();
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, 0), MOSS_OK);
    moss_state *state = state_new(0);
    uint64_t hash = feed(&fixture, state, 11);
    CU_ASSERT_EQUAL(goes_on(&fixture, state, hash, 11, 5), MOSS_OK);
    CU_ASSERT(fake_device()->n_states_up == 0 && fake_device()->n_states_down == 0);
    free(state);
    fixture_close(&fixture);
}

/* Forks, saves and rollbacks after a sync; what comes back equals what a state at home would be. */
static void test_states_fork_and_roll_back(void)
{
    Fixture fixture, other;
    fake_reset();
    fake_full_attention(true);
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, MAX_TOKENS), MOSS_OK);
    CU_ASSERT_EQUAL_FATAL(fixture_open(&other, 1, MAX_TOKENS), MOSS_OK);
    moss_state *state = state_new(MAX_TOKENS);
    const uint64_t hash = feed(&fixture, state, 13);
    CU_ASSERT_EQUAL(moss_state_check(state, state->len, &fixture.error), MOSS_ERROR_STATE);
    CU_ASSERT(words_in(&fixture.error, "moss_state_sync"));
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, state, &fixture.error), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_check(state, state->len, &fixture.error), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, state, &fixture.error), MOSS_OK);    /* again: nothing to do */
    CU_ASSERT_EQUAL(fake_device()->n_states_down, 1);
    moss_state *saved = state_copy(state), *fork = state_copy(state);
    CU_ASSERT_EQUAL(goes_on(&fixture, state, hash, 13, 7), MOSS_OK);
    CU_ASSERT_EQUAL(goes_on(&fixture, fork, hash, 13, 9), MOSS_OK);
    memcpy(state, saved, saved->len);                                          /* roll back while on the device */
    CU_ASSERT_EQUAL(goes_on(&fixture, state, hash, 13, 8), MOSS_OK);
    CU_ASSERT_EQUAL(goes_on(&other, saved, hash, 13, 7), MOSS_OK);             /* another context */
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, state, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_sync(other.context, saved, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, fork, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_position(fork), 14);
    free(state), free(saved), free(fork);
    moss_context_deinit(fixture.context);
    moss_model_close(fixture.model);
    free(fixture.context), free(fixture.model);
    fixture_close(&other);
    fake_full_attention(false);
}

static void check_stale(Fixture *fixture, moss_state *state)
{
    const int32_t token = 1;
    moss_state before = *state;
    CU_ASSERT_EQUAL(moss_eval(fixture->context, state, 0, 0, &token, 1, NULL, 0, &fixture->error), MOSS_ERROR_STATE);
    CU_ASSERT(words_in(&fixture->error, "without moss_state_sync"));
    CU_ASSERT_EQUAL(moss_state_sync(fixture->context, state, &fixture->error), MOSS_ERROR_STATE);
    CU_ASSERT_EQUAL(memcmp(state, &before, sizeof before), 0);
}

/* A copy made without sync is refused wherever it comes up; the state itself goes on. */
static void test_stale_copies(void)
{
    Fixture fixture, other;
    fake_reset();
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, 0), MOSS_OK);
    CU_ASSERT_EQUAL_FATAL(fixture_open(&other, N_STATES, 0), MOSS_OK);
    moss_state *state = state_new(0);
    uint64_t hash = feed(&fixture, state, 3);
    moss_state *copy = state_copy(state), *older = state_copy(state);
    check_stale(&fixture, copy);
    check_stale(&other, copy);
    check_stale(&other, state);
    CU_ASSERT_EQUAL(goes_on(&fixture, state, hash, 3, 1), MOSS_OK);
    check_stale(&fixture, copy);
    moss_state *newest = state_copy(state);
    memcpy(state, older, older->len);          /* rolled back without sync: not possible, and found out */
    check_stale(&fixture, state);
    memcpy(state, newest, newest->len);        /* as it was */
    float ignored[FAKE_VOCAB];
    fake_step(&hash, 3, 1, 2, ignored);
    CU_ASSERT_EQUAL(goes_on(&fixture, state, hash, 4, 2), MOSS_OK);
    moss_context_deinit(fixture.context);      /* what was on the device is lost with its context */
    CU_ASSERT_EQUAL(moss_context_init(fixture.context, fixture.model, 1, NULL, NULL), MOSS_OK);
    check_stale(&fixture, state);
    CU_ASSERT_EQUAL(moss_state_init(state, 0, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(goes_on(&fixture, state, 0, 0, 2), MOSS_OK);
    free(state), free(copy), free(older), free(newest);
    moss_context_deinit(fixture.context);
    moss_model_close(fixture.model);
    free(fixture.context), free(fixture.model);
    fixture_close(&other);
}

static void test_slots_run_out(void)
{
    Fixture fixture;
    moss_state *states[N_STATES + 1];
    fake_reset();
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, 0), MOSS_OK);
    for (int i = 0; i <= N_STATES; i++)
        states[i] = state_new(0);
    for (int i = 0; i < N_STATES; i++)
        CU_ASSERT_EQUAL(goes_on(&fixture, states[i], 0, 0, i), MOSS_OK);
    CU_ASSERT_EQUAL(goes_on(&fixture, states[N_STATES], 0, 0, 1), MOSS_ERROR_STATE);
    CU_ASSERT(words_in(&fixture.error, "all 5 places"));
    for (int i = 0; i < 20; i++) {             /* starting anew takes no further place */
        CU_ASSERT_EQUAL(moss_state_init(states[2], 0, NULL), MOSS_OK);
        CU_ASSERT_EQUAL(goes_on(&fixture, states[2], 0, 0, i), MOSS_OK);
    }
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, states[1], NULL), MOSS_OK);
    CU_ASSERT_EQUAL(goes_on(&fixture, states[N_STATES], 0, 0, 1), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_init(states[3], 0, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, states[3], NULL), MOSS_OK);    /* gives up the place it had */
    CU_ASSERT_EQUAL(moss_eval_batch(fixture.context, states, 3, 0, (int32_t[3]){ 1, 2, 3 }, NULL, NULL), MOSS_OK);
    for (int i = 0; i <= N_STATES; i++)
        free(states[i]);
    fixture_close(&fixture);
}

/* A call that is refused has changed no state, also where those it would refuse come after the first sixteen. */
static void check_untouched(Fixture *fixture, moss_state **states, int32_t n, float *scratch)
{
    int32_t tokens[MOST] = { 0 }, lens[MOST], out[MOST];
    moss_sampler samplers[MOST];
    for (int32_t i = 0; i < n; i++) {
        lens[i] = 1;
        moss_sampler_init(&samplers[i], 0, 0, 1, 0, 0);
    }
    moss_error *error = &fixture->error;
    moss_context *context = fixture->context;
    CU_ASSERT_EQUAL(moss_eval_batch(context, states, n, 0, tokens, NULL, error), MOSS_ERROR_STATE);
    CU_ASSERT_EQUAL(moss_eval_prompts(context, states, n, 0, 0, tokens, lens, NULL, error), MOSS_ERROR_STATE);
    CU_ASSERT_EQUAL(moss_generate(context, states, n, 0, samplers, tokens, out, 1, scratch, error), MOSS_ERROR_STATE);
    for (int32_t i = 0; i < n; i++)
        CU_ASSERT_EQUAL(moss_state_position(states[i]), 0);
}

static void test_refused_late(void)
{
    Fixture fixture;
    moss_state *states[MOST];
    float *scratch = block_new((MOST + 2) * FAKE_VOCAB * sizeof *scratch);
    fake_reset();
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, MOST - 1, 0), MOSS_OK);
    for (int i = 0; i < MOST; i++)
        states[i] = state_new(0);
    check_untouched(&fixture, states, MOST, scratch);
    CU_ASSERT(words_in(&fixture.error, "all 17 places"));
    moss_state *fresh = states[MOST - 2], *stale = state_copy(fresh);        /* which is on the device by now */
    states[MOST - 2] = stale;
    check_untouched(&fixture, states, MOST - 1, scratch);
    CU_ASSERT(words_in(&fixture.error, "without moss_state_sync"));
    states[MOST - 2] = fresh;
    CU_ASSERT_EQUAL(moss_eval_batch(fixture.context, states, MOST - 1, 0, (int32_t[MOST]){ 0 }, NULL, NULL), MOSS_OK);
    for (int i = 0; i < MOST; i++)
        free(states[i]);
    free(stale), free(scratch);
    fixture_close(&fixture);
}

/* Slots have one length at a time; it changes when none is used. */
static void test_other_contexts_length(void)
{
    Fixture fixture;
    fake_reset();
    fake_full_attention(true);
    fixture.model = block_new(moss_model_len());
    fixture.context = block_new(moss_context_len(1));
    CU_ASSERT_EQUAL_FATAL(moss_model_open(fixture.model, NULL, 1, NULL), MOSS_OK);      /* lengths not known */
    CU_ASSERT_EQUAL_FATAL(moss_context_init(fixture.context, fixture.model, 1, NULL, NULL), MOSS_OK);
    moss_state *little = state_new(20), *large = state_new(2000);
    const uint64_t hash = feed(&fixture, little, 9);
    CU_ASSERT_EQUAL(goes_on(&fixture, large, 0, 0, 4), MOSS_ERROR_STATE);
    CU_ASSERT(words_in(&fixture.error, "states of n_context 20 are on the device"));
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, little, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(goes_on(&fixture, large, 0, 0, 4), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, large, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(goes_on(&fixture, little, hash, 9, 4), MOSS_OK);      /* graphs of the old places are gone */
    free(little), free(large);
    fixture_close(&fixture);
    fake_full_attention(false);
}

static const UnitTest tests[] = {
    { "states stay on the device", test_states_stay },
    { "states fork and roll back", test_states_fork_and_roll_back },
    { "stale copies are refused", test_stale_copies },
    { "places for states run out", test_slots_run_out },
    { "refused late, nothing changed", test_refused_late },
    { "states of another length", test_other_contexts_length },
};

UNIT_MAIN("gpu states", tests)
