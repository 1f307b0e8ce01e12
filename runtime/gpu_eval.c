/* moss_eval, moss_eval_prompts, moss_eval_batch and moss_generate on a GPU.
 *
 * Input: states, tokens. Output: advanced states, logits or tokens. A call sends tokens, positions and slots in one
 * small copy and queues the lists; it waits only for what the caller is to see.
 * Invariant: everything that can be refused is refused before the device is asked.
 */
#include "gpu.h"

#include <string.h>

/* One copy for all: the device keeps them as moss_gpu_input. samplers NULL: nothing is drawn. lens: how many of the
 * tokens are each sequence's; NULL: one. */
static int moss_gpu_send(moss_context *context, moss_state *const *states, const int32_t *slots, int32_t n_sequences,
                         const moss_sampler *samplers, const int32_t *tokens, const int32_t *lens, moss_error *error)
{
    int32_t n_tokens = 0;
    const moss_driver *driver = &context->model->driver;
    const uint64_t turn = context->n_calls++ % MOSS_GPU_CALLS;
    moss_gpu_input *input = (moss_gpu_input *)(void *)(context->pinned + turn * context->input_len);
    int result = driver->event_wait(context->sent[turn]);
    if (!result) {
        for (int32_t i = 0; i < n_sequences; i++) {
            input->positions[i] = states[i]->position;
            input->slots[i] = slots[i];
            input->samplers[i] = samplers ? samplers[i] : (moss_sampler){ .temperature = 0 };
            input->ends[i] = n_tokens += lens ? lens[i] : 1;
        }
        memcpy(input->tokens, tokens, (size_t)n_tokens * sizeof *tokens);
        result = driver->copy_to_device(context->memory + context->layout.call, input,
                                        sizeof *input + (size_t)n_tokens * sizeof *tokens, context->stream);
    }
    if (!result)
        result = driver->event_record(context->sent[turn], context->stream);
    return moss_gpu_check(context, result, "cannot send tokens to the GPU", error);
}

/* The first n rows; a few come through pinned memory, which is quicker. */
static int moss_gpu_fetch_logits(moss_context *context, float *logits, int32_t n, moss_error *error)
{
    const moss_driver *driver = &context->model->driver;
    const size_t len = (size_t)n * (size_t)moss_program_data.vocab_size * sizeof *logits;
    const bool pinned = n <= MOSS_GPU_MAX_SEQUENCES;
    const int result = driver->copy_to_host(pinned ? context->logits : logits, context->memory + context->layout.logits,
                                            len, context->stream);
    const int waited = driver->stream_wait(context->stream);
    const int status = moss_gpu_check(context, result ? result : waited, "the GPU failed", error);
    if (status == MOSS_OK && pinned)
        memcpy(logits, context->logits, len);
    return status;
}

/* ---- prompts: one sequence ---- */

static int moss_gpu_piece(moss_context *context, moss_state *state, int32_t slot, const int32_t *tokens,
                          const moss_gpu_call *call, float *logits, moss_error *error)
{
    int status = moss_gpu_send(context, &state, &slot, 1, NULL, tokens, &call->n_tokens, error);
    if (status == MOSS_OK)
        status = moss_gpu_run(context, call, error);
    if (status == MOSS_OK)
        moss_gpu_slot_advance(context, slot, state, call->n_tokens);
    return status == MOSS_OK && call->n_logits ? moss_gpu_fetch_logits(context, logits, call->n_logits, error) : status;
}

/* Tokens that go through the lists together, where the caller wants `chunk`; 0: as many as can. */
static int32_t moss_gpu_chunk(int32_t chunk)
{
    const int32_t most = moss_program_data.chunk;
    return chunk == 0 || chunk > most ? most : chunk;
}

static int moss_gpu_pieces(moss_context *context, moss_state *state, int32_t mode, int32_t chunk, const int32_t *tokens,
                           int32_t n_tokens, float *logits, int32_t n_logits, moss_error *error)
{
    const int32_t first_logits = n_tokens - n_logits;   /* first token whose logits are wanted */
    int32_t slot, n;
    int status = moss_gpu_slots_take(context, &state, 1, &slot, error);
    for (int32_t done = 0; done < n_tokens && status == MOSS_OK; done += n) {
        n = n_tokens - done < chunk ? n_tokens - done : chunk;
        const int32_t skipped = first_logits > done ? first_logits - done : 0;
        if (n - skipped > context->layout.rows)
            n = skipped + context->layout.rows;
        const moss_gpu_call call = { 1, n, skipped < n ? n - skipped : 0, mode, n > 1, MOSS_GPU_NEXT_HOST };
        status = moss_gpu_piece(context, state, slot, tokens + done, &call, logits, error);
        if (call.n_logits)
            logits += (ptrdiff_t)call.n_logits * moss_program_data.vocab_size;
    }
    return status;
}

int moss_eval(moss_context *context, moss_state *state, int32_t mode, int32_t chunk, const int32_t *tokens,
              int32_t n_tokens, float *logits, int32_t n_logits, moss_error *error)
{
    int status = moss_gpu_check_context(context, error);
    if (status == MOSS_OK)
        status = moss_eval_check(state, mode, chunk, tokens, n_tokens, logits, n_logits, error);
    if (status == MOSS_OK)
        status = moss_gpu_enter(context->model, error);
    if (status != MOSS_OK)
        return status;
    status = moss_gpu_pieces(context, state, mode, moss_gpu_chunk(chunk), tokens, n_tokens, logits, n_logits, error);
    moss_gpu_leave(context->model);
    return status;
}

/* ---- prompts: several sequences ---- */

/* Prompts on their way: whole ones and pieces of others go through the lists together. */
typedef struct {
    moss_state *const *states;
    const int32_t *lens;
    int32_t n_states, first, done;     /* the first that is not through, and how much of it is */
    const int32_t *tokens;             /* the next */
    float *logits;                     /* [n_states][vocab_size], or NULL */
    int32_t chunk, mode;
} moss_gpu_prompts;

/* One pass: sequences from `first` on, so many tokens of each; n_whole of them end in it. */
typedef struct {
    int32_t slots[MOSS_GPU_MAX_SEQUENCES], lens[MOSS_GPU_MAX_SEQUENCES], n, n_tokens, n_whole;
} moss_gpu_pass;

static moss_gpu_pass moss_gpu_next_pass(const moss_gpu_prompts *prompts)
{
    moss_gpu_pass pass = { .n = 0 };
    for (int32_t i = prompts->first; i < prompts->n_states && pass.n < MOSS_GPU_MAX_SEQUENCES; i++) {
        const int32_t left = prompts->lens[i] - (pass.n ? 0 : prompts->done), room = prompts->chunk - pass.n_tokens;
        if (room == 0)
            break;
        pass.lens[pass.n++] = left < room ? left : room;
        pass.n_tokens += left < room ? left : room;
        pass.n_whole += left <= room;
    }
    return pass;
}

static int moss_gpu_run_pass(moss_context *context, const moss_gpu_prompts *prompts, moss_gpu_pass *pass,
                             moss_error *error)
{
    moss_state *const *states = prompts->states + prompts->first;
    const moss_gpu_call call = { pass->n, pass->n_tokens, prompts->logits ? pass->n_whole : 0, prompts->mode,
                                 pass->n_tokens > 1, MOSS_GPU_NEXT_HOST };
    int status = moss_gpu_slots_take(context, states, pass->n, pass->slots, error);
    if (status == MOSS_OK)
        status = moss_gpu_send(context, states, pass->slots, pass->n, NULL, prompts->tokens, pass->lens, error);
    if (status == MOSS_OK)
        status = moss_gpu_run(context, &call, error);
    for (int32_t i = 0; i < pass->n && status == MOSS_OK; i++)
        moss_gpu_slot_advance(context, pass->slots[i], states[i], pass->lens[i]);
    if (status != MOSS_OK || !call.n_logits)
        return status;
    return moss_gpu_fetch_logits(context, prompts->logits + (ptrdiff_t)prompts->first * moss_program_data.vocab_size,
                                 call.n_logits, error);
}

static int moss_gpu_run_prompts(moss_context *context, moss_gpu_prompts *prompts, moss_error *error)
{
    int status = moss_gpu_slots_take_all(context, prompts->states, prompts->n_states, error);
    while (prompts->first < prompts->n_states && status == MOSS_OK) {
        moss_gpu_pass pass = moss_gpu_next_pass(prompts);
        status = moss_gpu_run_pass(context, prompts, &pass, error);
        const bool goes_on = pass.n_whole < pass.n;
        prompts->done = (pass.n_whole ? 0 : prompts->done) + (goes_on ? pass.lens[pass.n - 1] : 0);
        prompts->first += pass.n_whole;
        prompts->tokens += pass.n_tokens;
    }
    return status;
}

int moss_eval_prompts(moss_context *context, moss_state *const *states, int32_t n_states, int32_t mode, int32_t chunk,
                      const int32_t *tokens, const int32_t *n_tokens, float *logits, moss_error *error)
{
    int status = moss_gpu_check_context(context, error);
    if (status == MOSS_OK)
        status = moss_eval_check_prompts(states, n_states, mode, chunk, tokens, n_tokens, error);
    if (status == MOSS_OK)
        status = moss_gpu_enter(context->model, error);
    if (status != MOSS_OK)
        return status;
    moss_gpu_prompts prompts = { .states = states, .lens = n_tokens, .n_states = n_states, .tokens = tokens,
                                 .logits = logits, .chunk = moss_gpu_chunk(chunk), .mode = mode };
    status = moss_gpu_run_prompts(context, &prompts, error);
    moss_gpu_leave(context->model);
    return status;
}

/* ---- one token of several sequences ---- */

/* At most MOSS_GPU_MAX_SEQUENCES at a time. */
typedef struct { moss_state *const *states; int32_t slots[MOSS_GPU_MAX_SEQUENCES], n; } moss_gpu_group;

static int moss_gpu_begin_group(moss_context *context, moss_gpu_group *group, moss_state *const *states, int32_t n_left,
                                const moss_sampler *samplers, const int32_t *tokens, moss_error *error)
{
    group->states = states;
    group->n = n_left < MOSS_GPU_MAX_SEQUENCES ? n_left : MOSS_GPU_MAX_SEQUENCES;
    int status = moss_gpu_slots_take(context, states, group->n, group->slots, error);
    if (status == MOSS_OK)
        status = moss_gpu_send(context, states, group->slots, group->n, samplers, tokens, NULL, error);
    return status;
}

static void moss_gpu_advance_group(moss_context *context, const moss_gpu_group *group, int32_t n_tokens)
{
    for (int32_t i = 0; i < group->n; i++)
        moss_gpu_slot_advance(context, group->slots[i], group->states[i], n_tokens);
}

static int moss_gpu_step(moss_context *context, moss_state *const *states, int32_t n_states, int32_t mode,
                         const int32_t *tokens, float *logits, moss_error *error)
{
    moss_gpu_group group;
    int status = moss_gpu_slots_take_all(context, states, n_states, error);
    for (int32_t done = 0; done < n_states && status == MOSS_OK; done += group.n) {
        status = moss_gpu_begin_group(context, &group, states + done, n_states - done, NULL, tokens + done, error);
        const moss_gpu_call call = { group.n, group.n, logits ? group.n : 0, mode, false, MOSS_GPU_NEXT_HOST };
        if (status == MOSS_OK)
            status = moss_gpu_run(context, &call, error);
        if (status == MOSS_OK)
            moss_gpu_advance_group(context, &group, 1);
        if (status == MOSS_OK && logits)
            status = moss_gpu_fetch_logits(context, logits + (ptrdiff_t)done * moss_program_data.vocab_size, group.n,
                                           error);
    }
    return status;
}

int moss_eval_batch(moss_context *context, moss_state *const *states, int32_t n_states, int32_t mode,
                    const int32_t *tokens, float *logits, moss_error *error)
{
    int status = moss_gpu_check_context(context, error);
    if (status == MOSS_OK)
        status = moss_eval_check_batch(states, n_states, mode, tokens, 1, error);
    if (status == MOSS_OK)
        status = moss_gpu_enter(context->model, error);
    if (status != MOSS_OK)
        return status;
    status = moss_gpu_step(context, states, n_states, mode, tokens, logits, error);
    moss_gpu_leave(context->model);
    return status;
}

/* ---- generation ---- */

/* What the device has chosen since the group began, and samplers as they are now (NULL: none has drawn). */
static int moss_gpu_fetch_choices(moss_context *context, const moss_gpu_group *group, moss_sampler *samplers,
                                  moss_error *error)
{
    const moss_driver *driver = &context->model->driver;
    const size_t history_len = MOSS_GPU_HISTORY * MOSS_GPU_MAX_SEQUENCES * sizeof(int32_t);
    const size_t samplers_len = (size_t)group->n * sizeof *samplers;
    int result = driver->copy_to_host(context->history, context->memory + context->layout.history, history_len,
                                      context->stream);
    if (!result && samplers)
        result = driver->copy_to_host(context->samplers, context->memory + context->layout.call
                                      + offsetof(moss_gpu_input, samplers), samplers_len, context->stream);
    const int waited = driver->stream_wait(context->stream);
    const int status = moss_gpu_check(context, result ? result : waited, "the GPU failed", error);
    if (status == MOSS_OK && samplers)
        memcpy(samplers, context->samplers, samplers_len);
    return status;
}

/* Steps that fit into the history: the device feeds itself, its tokens come back at the end. `tokens` are rows of
 * `row` tokens, of which this group has the first. */
static int moss_gpu_feed(moss_context *context, const moss_gpu_group *group, int32_t mode, moss_sampler *samplers,
                         int32_t *tokens, int32_t row, int32_t n_steps, moss_error *error)
{
    const moss_gpu_call call = { group->n, group->n, group->n, mode, false,
                                 samplers ? MOSS_GPU_NEXT_DRAW : MOSS_GPU_NEXT_FEED };
    int status = MOSS_OK;
    for (int32_t step = 0; step < n_steps && status == MOSS_OK; step++)
        status = moss_gpu_run(context, &call, error);
    if (status == MOSS_OK)
        status = moss_gpu_fetch_choices(context, group, samplers, error);
    if (status != MOSS_OK)
        return status;
    for (int32_t i = 0; i < group->n; i++)
        for (int32_t step = 0; step < n_steps; step++) {
            const int64_t at = (group->states[i]->position + step) % MOSS_GPU_HISTORY;
            tokens[(ptrdiff_t)step * row + i] = context->history[at * MOSS_GPU_MAX_SEQUENCES + i];
        }
    moss_gpu_advance_group(context, group, n_steps);
    return MOSS_OK;
}

static bool moss_gpu_draws(const moss_sampler *samplers, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (samplers[i].temperature > 0)
            return true;
    return false;
}

static int moss_gpu_generate(moss_context *context, moss_state *const *states, int32_t n_states, int32_t mode,
                             moss_sampler *samplers, const int32_t *next, int32_t *tokens, int32_t n_steps,
                             moss_error *error)
{
    moss_gpu_group group;
    int status = moss_gpu_slots_take_all(context, states, n_states, error);
    for (int32_t first = 0; first < n_states && status == MOSS_OK; first += group.n) {
        status = moss_gpu_begin_group(context, &group, states + first, n_states - first, samplers + first, next + first,
                                      error);
        moss_sampler *const drawing = moss_gpu_draws(samplers + first, group.n) ? samplers + first : NULL;
        for (int32_t done = 0, n; done < n_steps && status == MOSS_OK; done += n) {
            n = n_steps - done < MOSS_GPU_HISTORY ? n_steps - done : MOSS_GPU_HISTORY;
            int32_t *rows = tokens + (ptrdiff_t)done * n_states + first;
            status = moss_gpu_feed(context, &group, mode, drawing, rows, n_states, n, error);
        }
    }
    return status;
}

int moss_generate(moss_context *context, moss_state *const *states, int32_t n_states, int32_t mode,
                  moss_sampler *samplers, const int32_t *next, int32_t *tokens, int32_t n_steps, float *scratch,
                  moss_error *error)
{
    const moss_gpu_program *gpu = moss_program_data.gpu;
    int status = moss_gpu_check_context(context, error);
    if (status == MOSS_OK)
        status = moss_generate_check(states, n_states, mode, samplers, next, tokens, n_steps, scratch, error);
    if (status != MOSS_OK)
        return status;
    if (gpu->feed.begin == gpu->feed.end || gpu->draw.begin == gpu->draw.end)
        return moss_generate_steps(context, states, n_states, mode, samplers, next, tokens, n_steps, scratch, error);
    status = moss_gpu_enter(context->model, error);
    if (status != MOSS_OK)
        return status;
    status = moss_gpu_generate(context, states, n_states, mode, samplers, next, tokens, n_steps, error);
    moss_gpu_leave(context->model);
    return status;
}
