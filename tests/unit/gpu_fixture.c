/* The fixture of the tests of the GPU runtime; see gpu_fixture.h. */
#include "gpu_fixture.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *block_new(size_t len)
{
    void *block = aligned_alloc(MOSS_ALIGN, (len + MOSS_ALIGN - 1) / MOSS_ALIGN * MOSS_ALIGN);
    if (!block)
        abort();
    return block;
}

int fixture_open(Fixture *fixture, int32_t n_states, int64_t n_context)
{
    memset(fixture, 0, sizeof *fixture);
    fixture->model = block_new(moss_model_len());
    fixture->context = block_new(moss_context_len(1));
    memset(fixture->context, 0, moss_context_len(1));
    int status = moss_model_open_sized(fixture->model, NULL, 1, n_states, n_context, &fixture->error);
    if (status == MOSS_OK)
        status = moss_context_init(fixture->context, fixture->model, 1, NULL, &fixture->error);
    return status;
}

void fixture_close(Fixture *fixture)
{
    moss_context_deinit(fixture->context);
    moss_model_close(fixture->model);
    free(fixture->model);
    free(fixture->context);
    CU_ASSERT_EQUAL(fake_device()->n_live, 0);
}

moss_state *state_new(int64_t n_context)
{
    moss_state *state = block_new(moss_state_len(n_context));
    CU_ASSERT_EQUAL(moss_state_init(state, n_context, NULL), MOSS_OK);
    return state;
}

moss_state *state_copy(const moss_state *state)
{
    moss_state *copy = block_new(state->len);
    memcpy(copy, state, state->len);
    return copy;
}

void make_tokens(int32_t tokens[MAX_TOKENS])
{
    for (int32_t i = 0; i < MAX_TOKENS; i++)
        tokens[i] = i * 37 % FAKE_VOCAB;
}

bool words_in(const moss_error *error, const char *words)
{
    if (strstr(error->message, words))
        return true;
    printf("no '%s' in '%s'\n", words, error->message);
    return false;
}

int goes_on(Fixture *fixture, moss_state *state, uint64_t hash, int64_t seen, int32_t token)
{
    float expected[FAKE_VOCAB], found[FAKE_VOCAB];
    fake_step(&hash, seen, token, 2, expected);
    const int status = moss_eval(fixture->context, state, 0, 0, &token, 1, found, 1, &fixture->error);
    if (status == MOSS_OK)
        CU_ASSERT_EQUAL(memcmp(expected, found, sizeof found), 0);
    return status;
}

uint64_t feed(Fixture *fixture, moss_state *state, int32_t n)
{
    int32_t tokens[MAX_TOKENS];
    float ignored[FAKE_VOCAB];
    uint64_t hash = 0;
    make_tokens(tokens);
    for (int32_t i = 0; i < n; i++)
        fake_step(&hash, i, tokens[i], 2, ignored);
    CU_ASSERT_EQUAL(moss_eval(fixture->context, state, 0, 0, tokens, n, NULL, 0, &fixture->error), MOSS_OK);
    return hash;
}
