/* Generation, a step at a time: a pass of all states, then a choice for each.
 *
 * Input: states, a sampler and the next token of each. Output: n_steps rows of tokens.
 * Invariant: all that can be refused is refused before the first step.
 */
#include "internal.h"

int moss_generate_check(moss_state *const *states, int32_t n_states, int32_t mode, const moss_sampler *samplers,
                        const int32_t *next, const int32_t *tokens, int32_t n_steps, const float *scratch,
                        moss_error *error)
{
    if (n_steps < 1)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "n_steps is %d, expected 1 or more", n_steps);
    if (!samplers || !tokens || !scratch)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "%s is NULL",
                              !samplers ? "samplers" : !tokens ? "tokens" : "scratch");
    return moss_eval_check_batch(states, n_states, mode, next, n_steps, error);
}

int moss_generate_steps(moss_context *context, moss_state *const *states, int32_t n_states, int32_t mode,
                        moss_sampler *samplers, const int32_t *next, int32_t *tokens, int32_t n_steps,
                        float *scratch, moss_error *error)
{
    const ptrdiff_t vocab_size = moss_program_data.vocab_size;
    float *logits = scratch + 2 * vocab_size;   /* [n_states][vocab_size] */
    for (int32_t step = 0; step < n_steps; step++, next = tokens, tokens += n_states) {
        const int status = moss_eval_batch(context, states, n_states, mode, next, logits, error);
        if (status != MOSS_OK)
            return status;
        for (int32_t i = 0; i < n_states; i++)
            tokens[i] = moss_sample(&samplers[i], logits + i * vocab_size, scratch);
    }
    return MOSS_OK;
}
