/* A session: the open model and all memory of one command.
 *
 * Input: the command line. Output: model, context, states, logits and sampler scratch in one
 * mapped block. Invariant: after moss_session_open no command allocates.
 */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct { uint64_t end; } moss_layout;

/* Room for `len` bytes: their offset. Lengths of memory that exists do not overflow; sums of the
 * others stop at half the range and mmap refuses them. */
static uint64_t moss_layout_add(moss_layout *layout, uint64_t len)
{
    const uint64_t at = layout->end, most = UINT64_MAX / 2;
    len = (len + MOSS_ALIGN - 1) & ~(uint64_t)(MOSS_ALIGN - 1);
    layout->end = len > most - at ? most : at + len;
    return at;
}

int32_t moss_chunk_len(const moss_args *args)
{
    const int32_t compiled = moss_program_data.chunk;
    const moss_value *chunk = &args->values[MOSS_OPT_CHUNK];
    if (args->values[MOSS_OPT_STEP].given)
        return 1;
    return chunk->given && chunk->number < compiled ? (int32_t)chunk->number : compiled;
}

uint64_t moss_scratch_len(int32_t n_threads)
{
    if (moss_program_data.gpu)
        return moss_gpu_plan(&moss_program_data).end;
    return moss_program_data.shared_len + (uint64_t)n_threads * moss_program_data.private_len;
}

static int moss_session_find_mode(moss_session *session)
{
    const moss_program *program = &moss_program_data;
    const moss_value *experts = &session->args->values[MOSS_OPT_EXPERTS];
    char modes[128] = "";
    if (!experts->given)
        return MOSS_EXIT_OK;
    for (int32_t i = 0; i < program->n_modes; i++) {
        if (program->mode_top_k[i] == experts->number) {
            session->mode = i;
            return MOSS_EXIT_OK;
        }
        const size_t len = strlen(modes);
        snprintf(modes + len, sizeof modes - len, "%s%d", i ? ", " : "", program->mode_top_k[i]);
    }
    return moss_cli_fail(session->args, MOSS_EXIT_INPUT,
        "--experts-per-token: found %jd, this model was compiled for %s",
        (intmax_t)experts->number, modes);
}

/* Threads and the processors they are bound to; `cpus` has room for 1024. */
static int moss_session_find_threads(moss_session *session, int32_t *cpus, bool *bind)
{
    const moss_value *threads = &session->args->values[MOSS_OPT_THREADS];
    const moss_value *list = &session->args->values[MOSS_OPT_CPUS];
    const int32_t n_cpus = list->given ? moss_args_ints(list->text, cpus, 1024) : 0;
    *bind = list->given;
    session->n_threads = threads->given ? (int32_t)threads->number
                       : list->given    ? n_cpus : moss_program_data.gpu ? 1 : moss_default_threads();
    if (list->given && n_cpus != session->n_threads)
        return moss_cli_fail(session->args, MOSS_EXIT_USAGE,
            "--cpus: found %d processors, expected one for each of %d threads", n_cpus,
            session->n_threads);
    if (!list->given && !threads->given && moss_program_data.bind && session->n_threads > 1)
        *bind = moss_big_cpus(cpus, 1024) >= session->n_threads;
    if (!list->given && !*bind && !moss_program_data.gpu)
        moss_use_big_cores(session->args, session->n_threads);
    return MOSS_EXIT_OK;
}

static int moss_session_map(moss_session *session, int32_t n_states, int32_t n_rows)
{
    const uint64_t vocab_len = (uint64_t)moss_program_data.vocab_size * sizeof(float);
    moss_layout layout = { 0 };
    session->state_len = moss_state_len(session->n_context);
    session->context_len = moss_context_len(session->n_threads);
    if (session->state_len == 0 || session->context_len == 0)
        return moss_cli_fail(session->args, MOSS_EXIT_INPUT,
            "a state for %jd tokens does not fit into memory", (intmax_t)session->n_context);
    uint64_t states_len = 0;
    if (__builtin_mul_overflow(session->state_len, (uint64_t)n_states, &states_len))
        states_len = UINT64_MAX / 2;
    const uint64_t model = moss_layout_add(&layout, moss_model_len());
    const uint64_t context = moss_layout_add(&layout, session->context_len);
    const uint64_t states = moss_layout_add(&layout, states_len);
    const uint64_t list = moss_layout_add(&layout, (uint64_t)n_states * sizeof *session->list);
    const uint64_t logits = moss_layout_add(&layout, (uint64_t)n_rows * vocab_len);
    const uint64_t scratch = moss_layout_add(&layout, ((uint64_t)n_states + 2) * vocab_len);
    uint8_t *block = mmap(NULL, layout.end, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                          -1, 0);
    if (block == MAP_FAILED)
        return moss_cli_fail(session->args, MOSS_EXIT_SYSTEM, "cannot get %ju bytes of memory: %s",
                             (uintmax_t)layout.end, strerror(errno));
    session->block = block;
    session->block_len = layout.end;
    session->model = (void *)(block + model);
    session->context = (void *)(block + context);
    session->states = block + states;
    session->list = (void *)(block + list);
    session->logits = (void *)(block + logits);
    session->scratch = (void *)(block + scratch);
    return MOSS_EXIT_OK;
}

static int moss_session_init(moss_session *session, const int32_t *cpus, int32_t n_states)
{
    const moss_value *weights = &session->args->values[MOSS_OPT_MODEL];
    const int verify = !session->args->values[MOSS_OPT_NO_VERIFY].given;
    int status = moss_model_open_sized(session->model, weights->text, verify, n_states, session->n_context,
                                       &session->error);
    if (status != MOSS_OK)
        return moss_cli_fail_status(session->args, &session->error);
    status = moss_context_init(session->context, session->model, session->n_threads, cpus,
                               &session->error);
    if (status != MOSS_OK)
        return moss_cli_fail_status(session->args, &session->error);
    for (int32_t i = 0; i < n_states; i++) {
        session->list[i] = moss_session_state(session, i);
        int code = moss_session_reset(session, i);
        if (code != MOSS_EXIT_OK)
            return code;
    }
    return MOSS_EXIT_OK;
}

int moss_session_open(moss_session *session, const moss_args *args, int32_t n_states,
                      int64_t n_context, int32_t n_rows)
{
    int32_t cpus[1024];
    bool bind;
    memset(session, 0, sizeof *session);
    session->args = args;
    session->n_context = moss_program_data.full_attention ? n_context : 0;
    session->chunk = moss_chunk_len(args);
    int code = moss_session_find_mode(session);
    if (code == MOSS_EXIT_OK)
        code = moss_session_find_threads(session, cpus, &bind);
    if (code == MOSS_EXIT_OK)
        code = moss_session_map(session, n_states, n_rows);
    if (code == MOSS_EXIT_OK)
        code = moss_session_init(session, bind ? cpus : NULL, n_states);
    if (code != MOSS_EXIT_OK)
        moss_session_close(session);
    return code;
}

void moss_session_close(moss_session *session)
{
    if (!session->block)
        return;
    moss_context_deinit(session->context);
    moss_model_close(session->model);
    munmap(session->block, session->block_len);
    session->block = NULL;
}

moss_state *moss_session_state(const moss_session *session, int32_t i)
{
    return (void *)(session->states + (size_t)i * session->state_len);
}

int moss_session_reset(moss_session *session, int32_t i)
{
    moss_state *state = moss_session_state(session, i);
    if (moss_state_init(state, session->n_context, &session->error) != MOSS_OK)
        return moss_cli_fail_status(session->args, &session->error);
    return MOSS_EXIT_OK;
}

int moss_session_eval_prompts(moss_session *session, const int32_t *tokens, const int32_t *n_tokens, int32_t n)
{
    int status = moss_eval_prompts(session->context, session->list, n, session->mode, session->chunk, tokens, n_tokens,
                                   session->logits, &session->error);
    return status == MOSS_OK ? MOSS_EXIT_OK : moss_cli_fail_status(session->args, &session->error);
}

int moss_session_eval_batch(moss_session *session, const int32_t *tokens, int32_t n)
{
    int status = moss_eval_batch(session->context, session->list, n, session->mode, tokens, session->logits,
                                 &session->error);
    return status == MOSS_OK ? MOSS_EXIT_OK : moss_cli_fail_status(session->args, &session->error);
}

int32_t moss_session_steps(void)
{
    return moss_program_data.gpu ? MOSS_SESSION_STEPS : 1;
}

int moss_session_generate(moss_session *session, moss_sampler *samplers, int32_t n, const int32_t *next,
                          int32_t *tokens, int32_t n_steps)
{
    return moss_generate(session->context, session->list, n, session->mode, samplers, next, tokens, n_steps,
                         session->scratch, &session->error);
}

int moss_session_eval(moss_session *session, int32_t state, const int32_t *tokens, int32_t n,
                      int32_t n_logits)
{
    int status = moss_eval(session->context, moss_session_state(session, state), session->mode,
                           session->chunk, tokens, n, session->logits, n_logits, &session->error);
    return status == MOSS_OK ? MOSS_EXIT_OK : moss_cli_fail_status(session->args, &session->error);
}
