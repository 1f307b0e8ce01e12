/* A model on CPUs: its weights are used where they are mapped, its states where the caller has them.
 *
 * A program may have code for several kinds of CPU; the most demanding that this one can run is taken.
 * The variable MOSS_CODE names another: tests, and comparisons on one machine.
 * Invariant: a model that started runs on this CPU. The verifying pass also brings the pages into memory.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

size_t moss_model_len(void) { return sizeof(moss_model); }

static int moss_code_check(const moss_code *code, moss_error *error)
{
    int len;
    const char *missing = moss_cpu_missing(code->features, &len);
    if (!missing)
        return MOSS_OK;
    return moss_error_set(error, MOSS_ERROR_CPU,
        "compiled for %s, which needs %s; this CPU or its system lacks %.*s", code->name, code->features, len, missing);
}

static int moss_code_find(const char *name, const moss_code **code, moss_error *error)
{
    const moss_program *program = &moss_program_data;
    for (int32_t i = 0; i < program->n_codes; i++)
        if (!strcmp(program->codes[i]->name, name)) {
            *code = program->codes[i];
            return moss_code_check(*code, error);
        }
    return moss_error_set(error, MOSS_ERROR_ARGUMENT, "MOSS_CODE is %.40s, expected one from %s to %s", name,
                          program->codes[0]->name, program->codes[program->n_codes - 1]->name);
}

/* The code for this CPU. */
static int moss_code_choose(const moss_code **code, moss_error *error)
{
    const moss_program *program = &moss_program_data;
    const char *wanted = program->n_codes > 1 ? getenv("MOSS_CODE") : NULL;
    if (wanted && *wanted)
        return moss_code_find(wanted, code, error);
    for (int32_t i = program->n_codes - 1; i > 0; i--)
        if (moss_code_check(program->codes[i], NULL) == MOSS_OK) {
            *code = program->codes[i];
            return MOSS_OK;
        }
    *code = program->codes[0];
    return moss_code_check(*code, error);
}

const char *moss_model_device(const moss_model *model)
{
    const moss_code *code = model ? model->code : NULL;
    if (moss_program_data.n_codes == 1)
        return "CPU";
    return code || moss_code_choose(&code, NULL) == MOSS_OK ? code->name : "none";
}

int moss_model_start(moss_model *model, int verify, int32_t n_states, int64_t n_context, moss_error *error)
{
    (void)n_states, (void)n_context;
    const int status = moss_code_choose(&model->code, error);
    return status == MOSS_OK && verify ? moss_weights_verify(&model->weights, error) : status;
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
