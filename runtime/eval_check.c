/* Checks of what moss_eval and its kin are given, the same for every machine.
 *
 * Input: the arguments. Output: a status, and words that name what was found and expected.
 */
#include "internal.h"

#include <inttypes.h>

static int moss_eval_check_tokens(const int32_t *tokens, int32_t n_tokens, moss_error *error)
{
    const int32_t vocab_size = moss_program_data.vocab_size;
    if (!tokens)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "tokens is NULL");
    for (int32_t i = 0; i < n_tokens; i++)
        if (tokens[i] < 0 || tokens[i] >= vocab_size)
            return moss_error_set(error, MOSS_ERROR_ARGUMENT, "token %d is %d, expected 0 to %d", i,
                                  tokens[i], vocab_size - 1);
    return MOSS_OK;
}

static int moss_eval_check_room(const moss_state *state, int32_t n_tokens, moss_error *error)
{
    const int64_t most = moss_program_data.full_attention ? state->n_context : INT64_MAX;
    if (n_tokens > most - state->position)
        return moss_error_set(error, MOSS_ERROR_STATE,
            "the state is full: %" PRId64 " tokens seen and %d more, n_context is %" PRId64,
            state->position, n_tokens, most);
    return MOSS_OK;
}

static int moss_eval_check_numbers(int32_t mode, int32_t chunk, int32_t n_tokens,
                                   const float *logits, int32_t n_logits, moss_error *error)
{
    if (mode < 0 || mode >= moss_program_data.n_modes)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "mode is %d, expected 0 to %d", mode,
                              moss_program_data.n_modes - 1);
    if (chunk < 0)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "chunk is %d, expected 0 or more", chunk);
    if (n_tokens < 1)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "n_tokens is %d, expected 1 or more",
                              n_tokens);
    if (n_logits < 0 || n_logits > n_tokens)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "n_logits is %d, expected 0 to %d",
                              n_logits, n_tokens);
    if (n_logits && !logits)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "logits is NULL, n_logits is %d",
                              n_logits);
    return MOSS_OK;
}

int moss_eval_check(const moss_state *state, int32_t mode, int32_t chunk, const int32_t *tokens, int32_t n_tokens,
                    const float *logits, int32_t n_logits, moss_error *error)
{
    int status = moss_eval_check_numbers(mode, chunk, n_tokens, logits, n_logits, error);
    if (status == MOSS_OK)
        status = moss_state_check_header(state, error);
    if (status == MOSS_OK)
        status = moss_eval_check_tokens(tokens, n_tokens, error);
    if (status == MOSS_OK)
        status = moss_eval_check_room(state, n_tokens, error);
    return status;
}

/* n_tokens: of each state; NULL: n_steps of all. */
static int moss_eval_check_states(moss_state *const *states, int32_t n_states, int32_t n_steps,
                                  const int32_t *n_tokens, moss_error *error)
{
    if (!states || n_states < 1)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "n_states is %d, expected 1 or more%s", n_states,
                              states ? "" : ", and states is NULL");
    for (int32_t i = 0; i < n_states; i++) {
        int status = moss_state_check_header(states[i], error);
        if (status == MOSS_OK)
            status = moss_eval_check_room(states[i], n_tokens ? n_tokens[i] : n_steps, error);
        if (status != MOSS_OK)
            return status;
        if (states[i]->n_context != states[0]->n_context)
            return moss_error_set(error, MOSS_ERROR_ARGUMENT,
                "state %d has n_context %" PRId64 ", state 0 has %" PRId64, i, states[i]->n_context,
                states[0]->n_context);
        for (int32_t j = 0; j < i; j++)
            if (states[j] == states[i])
                return moss_error_set(error, MOSS_ERROR_ARGUMENT, "states %d and %d are one state", j, i);
    }
    return MOSS_OK;
}

int moss_eval_check_batch(moss_state *const *states, int32_t n_states, int32_t mode, const int32_t *tokens,
                          int32_t n_steps, moss_error *error)
{
    int status = moss_eval_check_numbers(mode, 0, n_steps, NULL, 0, error);
    if (status == MOSS_OK)
        status = moss_eval_check_states(states, n_states, n_steps, NULL, error);
    if (status == MOSS_OK)
        status = moss_eval_check_tokens(tokens, n_states, error);
    return status;
}

/* Tokens of all prompts together; a sum that no int32 holds is too many. */
static int moss_eval_check_lens(const int32_t *n_tokens, int32_t n_states, int32_t *n_all, moss_error *error)
{
    int32_t sum = 0;
    if (!n_tokens)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "n_tokens is NULL");
    for (int32_t i = 0; i < n_states; i++) {
        if (n_tokens[i] < 1)
            return moss_error_set(error, MOSS_ERROR_ARGUMENT, "n_tokens of state %d is %d, expected 1 or more", i,
                                  n_tokens[i]);
        if (__builtin_add_overflow(sum, n_tokens[i], &sum))
            return moss_error_set(error, MOSS_ERROR_ARGUMENT, "n_tokens of all states pass %d", INT32_MAX);
    }
    *n_all = sum;
    return MOSS_OK;
}

int moss_eval_check_prompts(moss_state *const *states, int32_t n_states, int32_t mode, int32_t chunk,
                            const int32_t *tokens, const int32_t *n_tokens, moss_error *error)
{
    int32_t n_all = 0;
    int status = moss_eval_check_numbers(mode, chunk, 1, NULL, 0, error);
    if (status == MOSS_OK)
        status = moss_eval_check_lens(n_tokens, n_states, &n_all, error);
    if (status == MOSS_OK)
        status = moss_eval_check_states(states, n_states, 1, n_tokens, error);
    if (status == MOSS_OK)
        status = moss_eval_check_tokens(tokens, n_all, error);
    return status;
}
