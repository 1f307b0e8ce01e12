/* Reference: grouped-query attention, causal, with a sliding window and rotary positions.
 *
 * Input: u [d] and the keys and values of the tokens before. Output: f [d].
 * Query head h reads key head h / (n_heads / n_kv_heads).
 * Invariant: a key is rotated by its own position once, when it is stored.
 */
#include "ref_layers.h"

#include <math.h>

void ref_rope(double theta, int64_t position, int64_t head_dim, double *x)
{
    int64_t half = head_dim / 2;
    for (int64_t i = 0; theta != 0 && i < half; i++) {
        double angle = (double)position * pow(theta, -2.0 * (double)i / (double)head_dim);
        double first = x[i], second = x[i + half];
        x[i] = first * cos(angle) - second * sin(angle);
        x[i + half] = second * cos(angle) + first * sin(angle);
    }
}

RefAttentionState ref_attention_start(const RefAttention *layer, int64_t n_tokens, Arena *arena)
{
    size_t len = (size_t)(n_tokens * layer->n_kv_heads * layer->head_dim);
    return (RefAttentionState){
        .keys = arena_array(arena, double, len), .values = arena_array(arena, double, len),
    };
}

/* The row of one token and key head in keys or values. */
static int64_t row_at(const RefAttention *layer, int64_t position, int64_t kv_head)
{
    return (position * layer->n_kv_heads + kv_head) * layer->head_dim;
}

static void store_token(const RefAttention *layer, RefAttentionState *state, int64_t position,
                        const double *u)
{
    int64_t n = layer->n_kv_heads * layer->head_dim;
    ref_linear(layer->k_proj, n, layer->d_model, u, state->keys + row_at(layer, position, 0));
    ref_linear(layer->v_proj, n, layer->d_model, u, state->values + row_at(layer, position, 0));
    for (int64_t h = 0; h < layer->n_kv_heads; h++)
        ref_rope(layer->rope_theta, position, layer->head_dim,
                 state->keys + row_at(layer, position, h));
}

/* out = sum of p_j v_j over the tokens j in the window, p = softmax(q . k_j / sqrt(hd)). */
static void attend(const RefAttention *layer, const RefAttentionState *state, int64_t position,
                   int64_t kv_head, const double *q /* [hd] */, double *out /* [hd] */,
                   Arena *scratch)
{
    int64_t hd = layer->head_dim;
    int64_t first = layer->window && position >= layer->window ? position - layer->window + 1 : 0;
    double *p = arena_array(scratch, double, (size_t)(position - first + 1));
    for (int64_t j = first; j <= position; j++)
        p[j - first] = ref_dot(q, state->keys + row_at(layer, j, kv_head), hd) / sqrt((double)hd);
    ref_softmax(p, position - first + 1);
    for (int64_t i = 0; i < hd; i++) {
        out[i] = 0;
        for (int64_t j = first; j <= position; j++)
            out[i] += p[j - first] * state->values[row_at(layer, j, kv_head) + i];
    }
}

void ref_attention_step(const RefAttention *layer, RefAttentionState *state, const double *u,
                        double *f, RefToken *token)
{
    ArenaMark mark = arena_mark(token->scratch);
    int64_t hd = layer->head_dim, n = layer->n_heads * hd;
    double *q = arena_array(token->scratch, double, (size_t)n);   /* [h, hd] */
    double *y = arena_array(token->scratch, double, (size_t)n);   /* [h, hd] */
    u = ref_activation(layer->rows, u, layer->d_model, token->scratch);
    store_token(layer, state, token->position, u);
    ref_linear(layer->q_proj, n, layer->d_model, u, q);
    for (int64_t h = 0; h < layer->n_heads; h++) {
        int64_t kv_head = h / (layer->n_heads / layer->n_kv_heads);
        ref_rope(layer->rope_theta, token->position, hd, q + h * hd);
        attend(layer, state, token->position, kv_head, q + h * hd, y + h * hd, token->scratch);
    }
    ref_linear(layer->o_proj, layer->d_model, n, ref_activation(layer->rows, y, n, token->scratch), f);
    arena_release(token->scratch, mark);
}
