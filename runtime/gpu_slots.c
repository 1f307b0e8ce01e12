/* Where states are: at home in the caller's block, or in a slot on the device.
 *
 * Input: states as moss.h defines them. Output: slots. A block whose ticket is 0 holds its state: it is copied into a
 * slot, and gets that slot's ticket. A block with a ticket has only its header up to date; the slot of that ticket
 * has the rest. Every call gives a state a new ticket, so a copy of an older block is found out, and tickets
 * begin at random, so one of another context or process is found out, too.
 * Invariant: a state is used where it is newest or refused.
 */
#include "gpu.h"

#include <inttypes.h>
#include <string.h>

/* A ticket's low bits are its slot. */
static uint64_t moss_ticket_new(moss_context *context, int32_t slot)
{
    uint64_t ticket;
    do
        ticket = (context->salt + context->n_tickets++) * MOSS_GPU_MAX_SLOTS + (uint64_t)slot;
    while (ticket == 0);
    return ticket;
}

/* The slot of a state with a ticket, or -1. */
static int32_t moss_slot_find(const moss_context *context, const moss_state *state)
{
    const int32_t slot = (int32_t)(state->ticket % MOSS_GPU_MAX_SLOTS);
    if (slot >= context->n_slots || context->slots[slot].ticket != state->ticket || context->slots[slot].home != state)
        return -1;
    return slot;
}

static int moss_slot_stale(moss_error *error)
{
    return moss_error_set(error, MOSS_ERROR_STATE,
        "the state's newest content is elsewhere: its block was copied, moved or taken to another context without "
        "moss_state_sync, or its context is gone");
}

/* For a state that comes from home: the slot it had before its block was written anew, else a free one. */
static int32_t moss_slot_choose(const moss_context *context, const moss_state *state)
{
    int32_t free = -1;
    for (int32_t i = context->n_slots - 1; i >= 0; i--) {
        if (context->slots[i].ticket && context->slots[i].home == state)
            return i;
        if (!context->slots[i].ticket)
            free = i;
    }
    return free;
}

static bool moss_slots_used(const moss_context *context)
{
    for (int32_t i = 0; i < context->n_slots; i++)
        if (context->slots[i].ticket)
            return true;
    return false;
}

int moss_gpu_slots_make(moss_context *context, int64_t n_context, moss_error *error)
{
    const moss_gpu_model *model = context->model;
    const uint64_t stride = moss_gpu_state_stride(&moss_program_data, n_context);
    uint64_t len;
    moss_gpu_drop_graphs(context);   /* they hold these addresses */
    if (__builtin_mul_overflow(stride, (uint64_t)context->n_slots, &len))
        len = UINT64_MAX;
    if (len > context->states_len) {
        if (context->states)
            model->driver.memory_free(context->states);
        context->states = 0;
        context->states_len = 0;
        const int status = moss_gpu_alloc(model, &context->states, len, "states", error);
        if (status != MOSS_OK)
            return status;
        context->states_len = len;
    }
    context->stride = stride;
    context->n_context = n_context;
    return MOSS_OK;
}

/* All slots have one length, which changes only while none is used. */
static int moss_slots_fit(moss_context *context, int64_t n_context, moss_error *error)
{
    if (!moss_program_data.state_token_len)
        n_context = 0;
    if (context->states && context->n_context == n_context)
        return MOSS_OK;
    if (moss_slots_used(context))
        return moss_error_set(error, MOSS_ERROR_STATE,
            "states of n_context %" PRId64 " are on the device; moss_state_sync them all before one of %" PRId64,
            context->n_context, n_context);
    return moss_gpu_slots_make(context, n_context, error);
}

/* Contents to the device. A state that has seen nothing is all zeros. */
static int moss_slot_fill(moss_context *context, int32_t slot, const moss_state *state, moss_error *error)
{
    const moss_driver *driver = &context->model->driver;
    const moss_cu_pointer to = context->states + (uint64_t)slot * context->stride;
    int result = state->position == 0
        ? driver->memory_set(to, 0, context->stride, context->stream)
        : driver->copy_to_device(to, state + 1, state->len - sizeof *state, context->stream);
    if (!result && state->position)
        result = driver->stream_wait(context->stream);   /* the caller may write to the block again */
    return moss_gpu_check(context, result, "cannot copy a state to the GPU", error);
}

static int moss_slot_take(moss_context *context, moss_state *state, int32_t *slot, moss_error *error)
{
    if (state->ticket) {
        *slot = moss_slot_find(context, state);
        return *slot < 0 ? moss_slot_stale(error) : MOSS_OK;
    }
    int status = moss_slots_fit(context, state->n_context, error);
    if (status != MOSS_OK)
        return status;
    *slot = moss_slot_choose(context, state);
    if (*slot < 0)
        return moss_error_set(error, MOSS_ERROR_STATE,
            "all %d places for states on the device are taken: moss_state_sync one that is done, or ask "
            "moss_model_open_sized for more", context->n_slots);
    status = moss_slot_fill(context, *slot, state, error);
    if (status != MOSS_OK)
        return status;
    context->slots[*slot].home = state;
    moss_gpu_slot_advance(context, *slot, state, 0);
    return MOSS_OK;
}

int moss_gpu_slots_take(moss_context *context, moss_state *const *states, int32_t n, int32_t *slots, moss_error *error)
{
    int status = MOSS_OK;
    for (int32_t i = 0; i < n && status == MOSS_OK; i++)
        status = moss_slot_take(context, states[i], &slots[i], error);
    return status;
}

int moss_gpu_slots_take_all(moss_context *context, moss_state *const *states, int32_t n_states, moss_error *error)
{
    int32_t slot;
    int status = MOSS_OK;
    for (int32_t i = 0; i < n_states && status == MOSS_OK; i++)
        status = moss_slot_take(context, states[i], &slot, error);
    return status;
}

void moss_gpu_slot_advance(moss_context *context, int32_t slot, moss_state *state, int32_t n_tokens)
{
    state->position += n_tokens;
    state->ticket = context->slots[slot].ticket = moss_ticket_new(context, slot);
}

static int moss_slot_bring_home(moss_context *context, int32_t slot, moss_state *state, moss_error *error)
{
    const moss_driver *driver = &context->model->driver;
    int status = moss_gpu_enter(context->model, error);
    if (status != MOSS_OK)
        return status;
    int result = driver->copy_to_host(state + 1, context->states + (uint64_t)slot * context->stride,
                                      state->len - sizeof *state, context->stream);
    const int waited = driver->stream_wait(context->stream);
    status = moss_gpu_check(context, result ? result : waited, "cannot copy a state from the GPU", error);
    moss_gpu_leave(context->model);
    if (status == MOSS_OK)
        state->ticket = context->slots[slot].ticket = 0;
    return status;
}

/* A state at home may have a slot from before its block was written anew: that becomes free, too. */
int moss_state_sync(moss_context *context, moss_state *state, moss_error *error)
{
    int status = moss_gpu_check_context(context, error);
    if (status == MOSS_OK)
        status = moss_state_check_header(state, error);
    if (status != MOSS_OK)
        return status;
    if (!state->ticket) {
        for (int32_t i = 0; i < context->n_slots; i++)
            if (context->slots[i].home == state)
                context->slots[i].ticket = 0;
        return MOSS_OK;
    }
    const int32_t slot = moss_slot_find(context, state);
    return slot < 0 ? moss_slot_stale(error) : moss_slot_bring_home(context, slot, state, error);
}
