/* States: one block of constant length, a header and then what the generated code keeps.
 *
 * Input: the program's lengths and n_context. Output: a zeroed block, checks of a restored one.
 * Invariant: no pointers inside, so copying the bytes forks, saves, restores and rolls back.
 */
#include "internal.h"

#include <inttypes.h>
#include <string.h>

_Static_assert(sizeof(moss_state) == MOSS_ALIGN, "the generated part follows aligned");

/* 0 when n_context is out of range or the length overflows. */
size_t moss_state_len(int64_t n_context)
{
    const moss_program *program = &moss_program_data;
    const uint64_t most = (uint64_t)INT64_MAX / 2;
    const uint64_t fixed = sizeof(moss_state) + program->state_fixed_len;
    if (n_context < 0 || fixed > most)
        return 0;
    if (program->state_token_len && (uint64_t)n_context > (most - fixed) / program->state_token_len)
        return 0;
    uint64_t len = moss_align_up(fixed + (uint64_t)n_context * program->state_token_len);
    return len <= SIZE_MAX ? (size_t)len : 0;
}

static int moss_state_check_context(int64_t n_context, moss_error *error)
{
    const bool full = moss_program_data.full_attention;
    if (n_context < (full ? 1 : 0))
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "n_context is %" PRId64
            ", expected at least %d", n_context, full ? 1 : 0);
    if (moss_state_len(n_context) == 0)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "n_context is %" PRId64
            ", a state of that length does not fit into memory", n_context);
    return MOSS_OK;
}

static int moss_state_check_block(const moss_state *state, moss_error *error)
{
    if (!state)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "state is NULL");
    if (!moss_is_aligned(state))
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "state is not aligned to %d bytes",
                              MOSS_ALIGN);
    return MOSS_OK;
}

int moss_state_init(moss_state *state, int64_t n_context, moss_error *error)
{
    int status = moss_state_check_block(state, error);
    if (status == MOSS_OK)
        status = moss_state_check_context(n_context, error);
    if (status != MOSS_OK)
        return status;
    const size_t len = moss_state_len(n_context);
    memset(state, 0, len);
    memcpy(state->magic, MOSS_STATE_MAGIC, sizeof state->magic);
    state->abi = MOSS_ABI;
    state->model_hash = moss_program_data.state_hash;
    state->weights_values = moss_program_data.weights_values;
    state->n_context = n_context;
    state->len = len;
    return MOSS_OK;
}

/* Against the program and against itself. */
int moss_state_check_header(const moss_state *state, moss_error *error)
{
    const moss_program *program = &moss_program_data;
    int status = moss_state_check_block(state, error);
    if (status != MOSS_OK)
        return status;
    if (memcmp(state->magic, MOSS_STATE_MAGIC, sizeof state->magic))
        return moss_error_set(error, MOSS_ERROR_STATE,
            "not a state: its first 8 bytes are not %s", MOSS_STATE_MAGIC);
    if (state->abi != MOSS_ABI)
        return moss_error_set(error, MOSS_ERROR_STATE,
            "a state of ABI %" PRIu32 ", expected %d", state->abi, MOSS_ABI);
    if (state->model_hash != program->state_hash)
        return moss_error_set(error, MOSS_ERROR_STATE,
            "a state of model %016" PRIx64 ", expected %016" PRIx64 " (%.63s)", state->model_hash,
            program->state_hash, program->name);
    if (program->weights_values && state->weights_values != program->weights_values)
        return moss_error_set(error, MOSS_ERROR_STATE,
            "a state of other weights (sum %016" PRIx64 "), expected %016" PRIx64 " (%.63s)",
            state->weights_values, program->weights_values, program->name);
    if (state->n_context < 0 || state->len == 0 || state->len != moss_state_len(state->n_context))
        return moss_error_set(error, MOSS_ERROR_STATE,
            "the state's header says %" PRIu64 " bytes; n_context %" PRId64 " needs %zu",
            state->len, state->n_context, moss_state_len(state->n_context));
    if (state->position < 0 || (program->full_attention && state->position > state->n_context))
        return moss_error_set(error, MOSS_ERROR_STATE,
            "the state's position is %" PRId64 ", expected 0 to n_context %" PRId64,
            state->position, state->n_context);
    return MOSS_OK;
}

int moss_state_check(const moss_state *state, size_t len, moss_error *error)
{
    if (state && len < sizeof *state)
        return moss_error_set(error, MOSS_ERROR_STATE,
            "truncated: a state of %zu bytes, its header alone has %zu", len, sizeof *state);
    int status = moss_state_check_header(state, error);
    if (status == MOSS_OK && len != state->len)
        return moss_error_set(error, MOSS_ERROR_STATE,
            "a state of %zu bytes, expected %" PRIu64 " for n_context %" PRId64, len, state->len,
            state->n_context);
    if (status == MOSS_OK && state->ticket)
        return moss_error_set(error, MOSS_ERROR_STATE,
            "the state is on a device: moss_state_sync brings it into its block, before that is copied or saved");
    return status;
}

int64_t moss_state_position(const moss_state *state)
{
    return state->position;
}
