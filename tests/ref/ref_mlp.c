/* Reference: the gated MLP, dense or a mixture of experts.
 *
 * Input: u [d]. Output: f [d] = sum of g_i E_i(u), Eq. (7), with
 * E_i(u) = (silu(u . gate_i^T) * (u . up_i^T)) . down_i^T.
 */
#include "ref_layers.h"

static void expert_output(const RefMlp *layer, int64_t expert, const double *u, double *out,
                          Arena *scratch)
{
    int64_t d = layer->d_model, n = layer->d_ff, at = expert * n * d;
    double *gate = arena_array(scratch, double, (size_t)n);     /* [f] */
    double *hidden = arena_array(scratch, double, (size_t)n);   /* [f] */
    u = ref_activation(layer->rows, u, d, scratch);
    ref_linear(layer->gate_proj + at, n, d, u, gate);
    ref_linear(layer->up_proj + at, n, d, u, hidden);
    for (int64_t i = 0; i < n; i++)
        hidden[i] *= ref_silu(gate[i]);
    ref_linear(layer->down_proj + at, d, n, ref_activation(layer->rows, hidden, n, scratch), out);
}

void ref_mlp_step(const RefMlp *layer, int mode, const double *u, double *f, RefToken *token)
{
    ArenaMark mark = arena_mark(token->scratch);
    double *own = arena_array(token->scratch, double, (size_t)layer->d_model);   /* [d] */
    RefChoice choice = ref_route(&layer->router, mode, u, token);
    for (int64_t i = 0; i < layer->d_model; i++)
        f[i] = 0;
    for (int64_t j = 0; j < choice.k; j++) {
        expert_output(layer, choice.expert[j], u, own, token->scratch);
        for (int64_t i = 0; i < layer->d_model; i++)
            f[i] += choice.gate[j] * own[i];
    }
    arena_release(token->scratch, mark);
}
