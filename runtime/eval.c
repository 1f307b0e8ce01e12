/* Contexts, and moss_eval: tokens through the generated code, chunk by chunk.
 *
 * Input: a state and tokens. Output: the advanced state, logits of the last n_logits tokens.
 * A context is one block: struct, members of the team, shared scratch, each thread's scratch.
 * Invariant: everything that can fail is checked before the first chunk runs, so a call that
 * reports an error has not touched the state.
 */
#include "threads.h"

#include <string.h>

struct moss_context {
    moss_team team;
    uint32_t magic;               /* tells a context from memory never initialised */
    const uint8_t *weights;
    const moss_code *code;
    uint8_t *shared, *private_scratch;
};
enum { MOSS_CONTEXT_MAGIC = 0x58435347 };

/* Offsets of the parts; the last is the length, 0 when it overflows. */
typedef struct { uint64_t members, shared, private_scratch, end; } moss_context_layout;

static moss_context_layout moss_context_plan(int32_t n_threads)
{
    const moss_program *program = &moss_program_data;
    const uint64_t most = (uint64_t)INT64_MAX / 4, n = (uint64_t)n_threads;
    moss_context_layout layout = { 0 };
    if (n_threads < 1 || n_threads > MOSS_MAX_THREADS || program->shared_len > most
        || program->private_len > most / n)
        return layout;
    layout.members = moss_align_up(sizeof(moss_context));
    layout.shared = moss_align_up(layout.members + n * sizeof(moss_member));
    layout.private_scratch = moss_align_up(layout.shared + program->shared_len);
    layout.end = moss_align_up(layout.private_scratch + n * program->private_len);
    return layout;
}

/* 0 when n_threads is out of range. */
size_t moss_context_len(int32_t n_threads)
{
    return (size_t)moss_context_plan(n_threads).end;
}

static int moss_context_check(const moss_context *context, const moss_model *model,
                              int32_t n_threads, moss_error *error)
{
    if (!context || !moss_is_aligned(context))
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "context is %s",
                              context ? "not aligned to 64 bytes" : "NULL");
    if (!model || !model->weights.data)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "model is %s",
                              model ? "not open" : "NULL");
    if (n_threads < 1 || n_threads > MOSS_MAX_THREADS)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "n_threads is %d, expected 1 to %d",
                              n_threads, MOSS_MAX_THREADS);
    return MOSS_OK;
}

int moss_context_init(moss_context *context, const moss_model *model, int32_t n_threads,
                      const int32_t *cpus, moss_error *error)
{
    int status = moss_context_check(context, model, n_threads, error);
    if (status != MOSS_OK)
        return status;
    const moss_context_layout layout = moss_context_plan(n_threads);
    uint8_t *block = (uint8_t *)context;
    memset(context, 0, sizeof *context);
    context->weights = model->weights.data;
    context->code = model->code;
    context->shared = block + layout.shared;
    context->private_scratch = block + layout.private_scratch;
    moss_member *members = (moss_member *)(void *)(block + layout.members);
    status = moss_team_start(&context->team, members, n_threads, cpus, error);
    if (status == MOSS_OK)
        context->magic = MOSS_CONTEXT_MAGIC;
    return status;
}

void moss_context_deinit(moss_context *context)
{
    if (!context || context->magic != MOSS_CONTEXT_MAGIC)
        return;
    moss_team_stop(&context->team);
    context->magic = 0;
}

typedef struct { const moss_run *run; moss_forward_fn *forward; } moss_eval_task;

static void moss_eval_member(void *argument, int thread)
{
    const moss_eval_task *task = argument;
    task->forward(task->run, thread);
}

/* All chunks of one call; `run` comes with what does not change from chunk to chunk. */
static void moss_eval_chunks(moss_context *context, moss_run *run, int64_t *position, int32_t chunk,
                             const int32_t *tokens, int32_t n_tokens, int32_t n_logits)
{
    const int32_t first_logits = n_tokens - n_logits;   /* first token whose logits are wanted */
    float *logits = run->logits;
    int32_t n;
    for (int32_t done = 0; done < n_tokens; done += n) {
        n = n_tokens - done < chunk ? n_tokens - done : chunk;
        const int32_t skipped = first_logits > done ? first_logits - done : 0;
        run->tokens = tokens + done;
        run->n_tokens = n;
        run->n_logits = skipped < n ? n - skipped : 0;
        run->logits = run->n_logits ? logits : NULL;
        moss_eval_task task = {
            run, n == 1 ? context->code->decode : context->code->prefill,
        };
        moss_team_run(&context->team, moss_eval_member, &task);
        logits += (ptrdiff_t)run->n_logits * moss_program_data.vocab_size;
        *position += n;
    }
}

static int moss_eval_check_context(const moss_context *context, moss_error *error)
{
    if (context && context->magic == MOSS_CONTEXT_MAGIC)
        return MOSS_OK;
    return moss_error_set(error, MOSS_ERROR_ARGUMENT, "context is %s", context ? "not initialised" : "NULL");
}

/* What does not change from piece to piece. */
static moss_run moss_eval_run(moss_context *context, int32_t mode, int64_t n_context, float *logits)
{
    return (moss_run){
        .weights = context->weights, .shared = context->shared, .private_scratch = context->private_scratch,
        .logits = logits, .mode = mode, .n_threads = context->team.n_threads, .n_context = n_context,
        .barrier = &context->team.barrier,
    };
}

int moss_eval(moss_context *context, moss_state *state, int32_t mode, int32_t chunk,
              const int32_t *tokens, int32_t n_tokens, float *logits, int32_t n_logits,
              moss_error *error)
{
    int status = moss_eval_check_context(context, error);
    if (status == MOSS_OK)
        status = moss_eval_check(state, mode, chunk, tokens, n_tokens, logits, n_logits, error);
    if (status != MOSS_OK)
        return status;
    if (chunk == 0 || chunk > moss_program_data.chunk)
        chunk = moss_program_data.chunk;   /* scratch is planned for no more */
    uint8_t *data = (uint8_t *)(state + 1);
    int64_t position = state->position;
    moss_run run = moss_eval_run(context, mode, state->n_context, logits);
    run.states = &data;
    run.positions = &position;
    run.n_sequences = 1;
    moss_eval_chunks(context, &run, &position, chunk, tokens, n_tokens, n_logits);
    state->position = position;
    return MOSS_OK;
}

/* ---- several sequences ---- */

enum { MOSS_BATCH_MOST = 64 };   /* sequences of one pass: more are taken in several */

static void moss_eval_pass(moss_context *context, moss_run *run, moss_state *const *states, int32_t n,
                           const int32_t *tokens)
{
    uint8_t *data[MOSS_BATCH_MOST];
    int64_t positions[MOSS_BATCH_MOST];
    for (int32_t i = 0; i < n; i++) {
        data[i] = (uint8_t *)(states[i] + 1);
        positions[i] = states[i]->position;
    }
    run->states = data;
    run->positions = positions;
    run->tokens = tokens;
    run->n_tokens = run->n_sequences = n;
    run->n_logits = run->logits ? n : 0;
    moss_eval_task task = { run, n == 1 ? context->code->decode : context->code->prefill };
    moss_team_run(&context->team, moss_eval_member, &task);
    for (int32_t i = 0; i < n; i++)
        states[i]->position++;
}

int moss_eval_batch(moss_context *context, moss_state *const *states, int32_t n_states, int32_t mode,
                    const int32_t *tokens, float *logits, moss_error *error)
{
    int status = moss_eval_check_context(context, error);
    if (status == MOSS_OK)
        status = moss_eval_check_batch(states, n_states, mode, tokens, 1, error);
    if (status != MOSS_OK)
        return status;
    const int32_t most = moss_program_data.chunk < MOSS_BATCH_MOST ? moss_program_data.chunk : MOSS_BATCH_MOST;
    for (int32_t done = 0, n; done < n_states; done += n) {
        n = n_states - done < most ? n_states - done : most;
        moss_run run = moss_eval_run(context, mode, states[0]->n_context,
                                     logits ? logits + (ptrdiff_t)done * moss_program_data.vocab_size : NULL);
        moss_eval_pass(context, &run, states + done, n, tokens + done);
    }
    return MOSS_OK;
}

/* One after another: a piece of one sequence keeps all threads busy. */
int moss_eval_prompts(moss_context *context, moss_state *const *states, int32_t n_states, int32_t mode, int32_t chunk,
                      const int32_t *tokens, const int32_t *n_tokens, float *logits, moss_error *error)
{
    int status = moss_eval_check_context(context, error);
    if (status == MOSS_OK)
        status = moss_eval_check_prompts(states, n_states, mode, chunk, tokens, n_tokens, error);
    for (int32_t i = 0; i < n_states && status == MOSS_OK; i++) {
        float *row = logits ? logits + (ptrdiff_t)i * moss_program_data.vocab_size : NULL;
        status = moss_eval(context, states[i], mode, chunk, tokens, n_tokens[i], row, row ? 1 : 0, error);
        tokens += n_tokens[i];
    }
    return status;
}
