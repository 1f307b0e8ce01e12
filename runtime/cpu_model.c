/* A model on CPUs: its weights are used where they are mapped, its states where the caller has them.
 *
 * Invariant: a model that started runs on this CPU. The verifying pass also brings the pages into memory.
 */
#include "internal.h"

size_t moss_model_len(void) { return sizeof(moss_model); }

const char *moss_model_device(const moss_model *model)
{
    (void)model;
    return "CPU";
}

int moss_model_start(moss_model *model, int verify, int32_t n_states, int64_t n_context, moss_error *error)
{
    const moss_program *program = &moss_program_data;
    int len;
    (void)n_states, (void)n_context;
    const char *missing = moss_cpu_missing(program->features, &len);
    if (missing)
        return moss_error_set(error, MOSS_ERROR_CPU,
            "compiled for %s, which needs %s; this CPU or its system lacks %.*s",
            program->target, program->features, len, missing);
    return verify ? moss_weights_verify(&model->weights, error) : MOSS_OK;
}

void moss_model_stop(moss_model *model) { (void)model; }

int moss_state_sync(moss_context *context, moss_state *state, moss_error *error)
{
    (void)context;
    return moss_state_check_header(state, error);
}

int moss_generate(moss_context *context, moss_state *const *states, int32_t n_states, int32_t mode,
                  moss_sampler *samplers, const int32_t *next, int32_t *tokens, int32_t n_steps,
                  float *scratch, moss_error *error)
{
    const int status = moss_generate_check(states, n_states, mode, samplers, next, tokens, n_steps, scratch, error);
    return status != MOSS_OK ? status : moss_generate_steps(context, states, n_states, mode, samplers, next, tokens,
                                                            n_steps, scratch, error);
}
