/* Reference: nothing here is fast but for its order of loops. */
#include "reference.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_WIDTH = 64 };
static const double half_ulp = 0x1p-24;

double ref_silu(double x) { return x / (1 + exp(-x)); }

void ref_group(int32_t *slots, int32_t *offsets, const int32_t *experts, int n_pairs, int n_experts)
{
    int n = 0;
    for (int e = 0; e < n_experts; e++) {
        offsets[e] = n;
        for (int p = 0; p < n_pairs; p++)
            if (experts[p] == e)
                slots[n++] = p;
    }
    offsets[n_experts] = n;
}

static bool is_computed(const RefProduct *p, int panel, int n_panels)
{
    return panel % p->panel_step == 0 || panel == n_panels - 1;
}

static void allow_all(const RefProduct *p, int panel, double *allowed)
{
    const int rows = p->out_pairs ? p->n_tokens * p->top_k : p->n_tokens;
    for (int r = 0; r < rows; r++)
        for (int c = panel * p->width; c < (panel + 1) * p->width && c < p->n_out; c++)
            allowed[(size_t)r * (size_t)p->n_out + (size_t)c] = INFINITY;
}

/* One pair's part of one panel, added to its row. weights: [n_in][width], x: [n_in] */
static void add_pair(const RefProduct *p, int expert, int pair, int n_panel, const double *weights, const double *x,
                     double *want, double *allowed)
{
    const int width = p->width, token = pair / p->top_k, row = p->out_pairs ? pair : token, dense = p->n_experts == 1;
    const int n_panels = (p->n_out + width - 1) / width, first = n_panel * width;
    double sum[MAX_WIDTH], size[MAX_WIDTH];
    for (int c = 0; c < width; c++) {
        sum[c] = p->bias ? p->bias[(size_t)(expert * n_panels + n_panel) * (size_t)width + (size_t)c] : 0;
        size[c] = fabs(sum[c]);
    }
    for (int k = 0; k < p->n_in; k++)
        for (int c = 0; c < width; c++) {
            const double term = x[k] * weights[(size_t)k * (size_t)width + (size_t)c];
            sum[c] += term;
            size[c] += fabs(term);
        }
    const double gate = dense || p->out_pairs ? 1 : p->gates[pair];
    const double unit = p->f16_sums ? 0x1p-8 : half_ulp * (4 * sqrt(p->n_in) + 8);
    const bool begins = dense || p->out_pairs || pair == token * p->top_k;
    for (int c = 0; c < width && first + c < p->n_out; c++) {
        const double there = p->initial[(size_t)row * (size_t)p->out_stride + (size_t)(first + c)];
        double *to = want + (size_t)row * (size_t)p->n_out + (size_t)(first + c);
        double *off = allowed + (size_t)row * (size_t)p->n_out + (size_t)(first + c);
        if (p->accumulate == 2) {
            *to = ref_silu(there) * sum[c];
            *off = fabs(ref_silu(there)) * (unit + 16 * half_ulp) * size[c] + 1e-30;
            continue;
        }
        const double before = p->accumulate && begins ? there : *to;
        *to = before + gate * sum[c];
        *off += fabs(gate) * unit * size[c] + 4 * half_ulp * fabs(before) + 1e-30;
    }
}

bool ref_product(const RefProduct *p, double *want, double *allowed)
{
    const int n_panels = (p->n_out + p->width - 1) / p->width, dense = p->n_experts == 1;
    double *weights = malloc((size_t)p->n_in * (size_t)p->width * sizeof *weights);
    const bool good = weights && p->width <= MAX_WIDTH;
    for (int e = 0; good && e < p->n_experts; e++)
        for (int panel = 0; panel < n_panels; panel++) {
            const int first = dense ? 0 : p->offsets[e], last = dense ? p->n_tokens : p->offsets[e + 1];
            if (first == last || !is_computed(p, panel, n_panels))
                continue;
            p->read(p, e, panel, weights);
            for (int i = first; i < last; i++) {
                const int pair = dense ? i : p->slots[i], row = p->in_pairs ? pair : pair / p->top_k;
                add_pair(p, e, pair, panel, weights, p->in + (size_t)row * (size_t)p->n_in, want, allowed);
            }
        }
    for (int panel = 0; good && panel < n_panels; panel++)
        if (!is_computed(p, panel, n_panels))
            allow_all(p, panel, allowed);
    free(weights);
    return good;
}
/* Key or value row `at`: of the ring before the chunk, else of the chunk. */
static const float *key_row(const RefAttention *a, const float *ring, const float *chunk, int64_t at)
{
    const int64_t ring_rows = a->window ? a->window : a->n_context;
    return at < a->position ? ring + (size_t)(at % ring_rows) * (size_t)a->kv_stride
                            : chunk + (size_t)(at - a->position) * (size_t)a->kv_stride;
}

bool ref_attention(const RefAttention *a, double *want, double *allowed)
{
    const int group = a->n_heads / a->n_kv_heads, width = a->n_heads * a->head_dim;
    double *p = malloc(sizeof *p * (size_t)(a->position + a->n_tokens)), most = 1e-30;
    for (int t = 0; p && t < a->n_tokens; t++)
        for (int h = 0; h < a->n_heads; h++) {
            const int64_t at = a->position + t, first = a->window && at >= a->window ? at - a->window + 1 : 0;
            const size_t kv = (size_t)(h / group * a->head_dim);
            const float *q = a->q + (size_t)t * (size_t)a->q_stride + (size_t)(h * a->head_dim);
            double top = -1e300, sum = 0, *to = want + (size_t)t * (size_t)width + (size_t)(h * a->head_dim);
            for (int64_t j = first; j <= at; j++) {
                const float *key = key_row(a, a->ring_k, a->k, j) + kv;
                p[j] = 0;
                for (int i = 0; i < a->head_dim; i++)
                    p[j] += (double)q[i] * key[i];
                p[j] /= sqrt(a->head_dim);
                top = p[j] > top ? p[j] : top;
            }
            for (int64_t j = first; j <= at; j++)
                sum += p[j] = exp(p[j] - top);
            for (int64_t j = first; j <= at; j++) {
                const float *value = key_row(a, a->ring_v, a->v, j) + kv;
                for (int i = 0; i < a->head_dim; i++)
                    to[i] += p[j] / sum * value[i];
            }
            for (int i = 0; i < a->head_dim; i++)
                most = fabs(to[i]) > most ? fabs(to[i]) : most;
        }
    for (size_t i = 0; p && i < (size_t)a->n_tokens * (size_t)width; i++)
        allowed[i] = 2e-5 * most;
    free(p);
    return p != NULL;
}

/* One channel. What a state may be off by decays with it; a power is off by its exponent's error. */
static void scan_channel(const RefScan *s, int c, double *state /* [d_state] */, double *off /* [d_state] */,
                         double *want, double *allowed)
{
    const double log2_e = 1.4426950408889634;
    for (int n = 0; n < s->d_state; n++) {
        state[n] = s->state[(size_t)n * (size_t)s->stride + (size_t)c];
        off[n] = 0;
    }
    for (int t = 0; t < s->n_tokens; t++) {
        const size_t at = (size_t)t * (size_t)s->stride + (size_t)c;
        const float *b = s->bc + (size_t)t * (size_t)s->bc_stride;
        const double dt_raw = s->dt_raw[at], x = s->x[at], z = s->z[(size_t)t * (size_t)s->z_stride + (size_t)c];
        const double dt = dt_raw > 0 ? dt_raw + log1p(exp(-dt_raw)) : log1p(exp(dt_raw));
        double sum = s->d[c] * x, sum_off = 4 * half_ulp * fabs(sum), size = fabs(sum);
        for (int n = 0; n < s->d_state; n++) {
            const double a = s->a[(size_t)n * (size_t)s->stride + (size_t)c], power = dt * a, e = exp2(power);
            const double input = b[n] * (s->zoh && a != 0 ? x * (e - 1) / a * log2_e : dt * x);
            off[n] = e * off[n] + half_ulp * (fabs(e * state[n]) * (8 + 12 * fabs(power)) + 24 * fabs(input));
            state[n] = e * state[n] + input;
            const double term = b[s->d_state + n] * state[n];
            sum += term;
            size += fabs(term);
            sum_off += fabs(b[s->d_state + n]) * off[n];
        }
        const double gate = ref_silu(z);
        want[(size_t)t * (size_t)s->n_channels + (size_t)c] = sum * gate;
        allowed[(size_t)t * (size_t)s->n_channels + (size_t)c] = 1e-30
            + fabs(gate) * (sum_off + half_ulp * (s->d_state + 2) * size) + 16 * half_ulp * fabs(sum * gate);
    }
    for (int n = 0; n < s->d_state; n++) {
        const size_t to = (size_t)(s->n_tokens + n) * (size_t)s->n_channels + (size_t)c;
        want[to] = state[n];
        allowed[to] = off[n] + 1e-30;
    }
}

bool ref_scan(const RefScan *s, double *want, double *allowed)
{
    double *state = malloc(2 * sizeof *state * (size_t)s->d_state);
    for (int c = 0; state && c < s->n_channels; c++)
        scan_channel(s, c, state, state + s->d_state, want, allowed);
    const bool good = state != NULL;
    free(state);
    return good;
}

/* ---- routers ---- */

/* A row as the norm leaves it, with what that may be off by; without a norm the row itself. */
static void norm_row(const RefRouter *r, const float *x, double *row /* [n_in] */, double *off /* [n_in] */)
{
    double squares = 0;
    for (int i = 0; i < r->n_in; i++)
        squares += (double)x[i] * x[i];
    const double scale = r->weight ? 1 / sqrt(squares / r->n_in + r->eps) : 1;
    for (int i = 0; i < r->n_in; i++) {
        row[i] = x[i] * scale * (r->weight ? r->weight[i] : 1);
        off[i] = r->weight ? half_ulp * (sqrt(r->n_in) + 16) * fabs(row[i]) : 0;
    }
}

/* Probabilities of a row; returns what their logarithms may be off by. */
static double probabilities(const RefRouter *r, const double *row, const double *off, double *p /* [n_experts] */)
{
    double top = -1e300, sum = 0, worst = 0;
    for (int e = 0; e < r->n_experts; e++) {
        double size = 0, carried = 0;
        p[e] = 0;
        for (int i = 0; i < r->n_in; i++) {
            const double w = r->router[(size_t)e * (size_t)r->n_in + (size_t)i];
            p[e] += row[i] * w;
            size += fabs(row[i] * w);
            carried += off[i] * fabs(w);
        }
        carried += half_ulp * (4 * sqrt(r->n_in) + 8) * size;
        worst = carried > worst ? carried : worst;
        top = p[e] > top ? p[e] : top;
    }
    for (int e = 0; e < r->n_experts; e++)
        sum += p[e] = exp(p[e] - top);
    for (int e = 0; e < r->n_experts; e++)
        p[e] /= sum;
    return 4 * worst + 64 * half_ulp;
}

/* The top_k largest, equal ones in the order of their indices, as marks. Rows of the router that are alike give the
 * same number everywhere. False: another one is so close that `off` does not tell them apart. */
static bool choose(const RefRouter *r, const double *p, double off, bool *chosen /* [n_experts] */)
{
    bool known = true;
    for (int e = 0; e < r->n_experts; e++)
        chosen[e] = false;
    for (int s = 0; s < r->top_k; s++) {
        int best = -1;
        for (int e = 0; e < r->n_experts; e++)
            if (!chosen[e] && (best < 0 || p[e] > p[best]))
                best = e;
        chosen[best] = true;
    }
    for (int e = 0; e < r->n_experts; e++)
        for (int other = 0; chosen[e] && other < r->n_experts; other++)
            known &= chosen[other] || p[e] == p[other] || p[e] - p[other] > off * p[e];
    return known;
}

static double expert_bits(int e)
{
    return ldexp(e, -149);       /* the float whose bits are e */
}

static void route_row(const RefRouter *r, const double *p, double off, bool *chosen, double *gates, double *gates_off,
                      double *experts, double *experts_off)
{
    const bool known = choose(r, p, off, chosen);
    double sum = 0;
    for (int e = 0; e < r->n_experts; e++)
        sum += chosen[e] ? p[e] : 0;
    for (int e = 0, s = 0; e < r->n_experts; e++) {
        if (!chosen[e])
            continue;
        gates[s] = p[e] / (r->renormalize ? sum : 1);
        gates_off[s] = known ? 2 * off * gates[s] + 1e-30 : INFINITY;
        experts[s] = expert_bits(e);
        experts_off[s++] = known ? expert_bits(1) / 4 : INFINITY;
    }
}

bool ref_router(const RefRouter *r, double *want, double *allowed)
{
    const size_t n_in = (size_t)r->n_in, stride = (size_t)r->stride, n_normed = r->weight ? stride : 0;
    const size_t n_rows = (size_t)r->n_tokens, k = (size_t)r->top_k;
    double *row = malloc((2 * n_in + (size_t)r->n_experts) * sizeof *row), *off = row + n_in, *p = off + n_in;
    bool *chosen = malloc((size_t)r->n_experts);
    const bool good = row && chosen;
    for (size_t t = 0; good && t < n_rows; t++) {
        const size_t gates = n_rows * n_normed + t * k, experts = gates + n_rows * k;
        norm_row(r, r->x + t * stride, row, off);
        for (size_t i = 0; i < n_normed; i++) {
            want[t * stride + i] = i < n_in ? row[i] : 0;
            allowed[t * stride + i] = i < n_in ? off[i] + 1e-30 : INFINITY;
        }
        const double log_off = probabilities(r, row, off, p);
        route_row(r, p, log_off, chosen, want + gates, allowed + gates, want + experts, allowed + experts);
    }
    free(row), free(chosen);
    return good;
}
