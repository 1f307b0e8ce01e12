/* What the checks of the decode kernels share: random routing and its reference, what is left for the next layer. */
#ifndef MOSS_TESTS_GPU_CHECK_DECODE_H
#define MOSS_TESTS_GPU_CHECK_DECODE_H

#include "check.h"

enum { SHARED_LEN = 160 * 1024 };
static const double loose[4] = { 0, 1.2e-2, 1.5e-3, 1.5e-3 };     /* by weight type: roundings to act inside */

/* Parts of logits and of sums of squares, as an earlier kernel leaves them, and what they mean. */
typedef struct {
    int n_experts, top_k, n_sums;
    float *parts;           /* [n_rows][n_sums][n_parts]; null: no router, no norm */
    double *gates;          /* [n_rows][n_experts], 0: not chosen; 1 without a router */
    double *scale;          /* [n_rows]: 1 / root mean square; 1 where not normed */
} Route;

static bool route_beats(const double *logits, int a, int b) { return logits[a] > logits[b] || (logits[a] == logits[b]
    && a < b); }

static void route_row(Route *route, const double *logits, int row, bool renormalize)
{
    double best = logits[0], all = 0, kept = 0;
    for (int e = 1; e < route->n_experts; e++)
        best = fmax(best, logits[e]);
    for (int e = 0; e < route->n_experts; e++)
        all += exp((logits[e] - best) * route->scale[row]);
    for (int e = 0; e < route->n_experts; e++) {
        int rank = 0;
        for (int other = 0; other < route->n_experts; other++)
            rank += other != e && route_beats(logits, other, e);
        const double p = exp((logits[e] - best) * route->scale[row]) / all;
        route->gates[row * route->n_experts + e] = rank < route->top_k ? p : 0;
        kept += rank < route->top_k ? p : 0;
    }
    for (int e = 0; e < route->n_experts && renormalize; e++)
        route->gates[row * route->n_experts + e] /= kept;
}

/* n_in > 0: with a sum of squares. The first rows hold ties: experts 0 and 1 alike, then all alike. */
__attribute__((unused)) static Route random_route(int n_rows, int n_experts, int top_k, int n_parts, bool renormalize,
    int n_in, double eps)
{
    const int n_logits = n_experts > 1 ? n_experts : 0;
    Route route = { n_experts, n_experts > 1 ? top_k : 1, n_logits + (n_in > 0), NULL, NULL, NULL };
    route.gates = check_doubles((size_t)(n_rows * n_experts));
    route.scale = check_doubles((size_t)n_rows);
    route.parts = check_random_f32(1, n_rows * route.n_sums * n_parts + 1, n_rows * route.n_sums * n_parts + 1);
    float *parts = check_buffer(sizeof(float) * (size_t)(n_rows * route.n_sums * n_parts + 1));
    for (int row = 0; row < n_rows; row++) {
        double logits[64] = { 0 }, square = 0;
        for (int i = 0; i < route.n_sums; i++)
            for (int j = 0; j < n_parts; j++) {
                const int from = n_experts > 1 && i < n_logits && ((row == 0 && i == 1) || (row == 2 && i > 0)) ? 0 : i;
                float value = route.parts[(row * route.n_sums + from) * n_parts + j];
                if (i == n_logits)
                    value = fabsf(value) * (float)n_in / (float)n_parts + 0.01f;
                parts[(row * route.n_sums + i) * n_parts + j] = value;
                if (i == n_logits)
                    square += (double)value;
                else
                    logits[i] += (double)value;
            }
        route.scale[row] = n_in > 0 ? 1 / sqrt(square / n_in + eps) : 1;
        if (n_experts > 1)
            route_row(&route, logits, row, renormalize);
        else
            route.gates[row] = 1;
    }
    check_freeze(parts);
    route.parts = parts;
    return route;
}

/* Slots for n_rows in a mixed order, among more. */
typedef struct { int32_t *slots; int n_slots; int64_t stride; } Slots;
static Slots random_slots(int n_rows, size_t state_len)
{
    Slots of = { check_buffer(sizeof(int32_t) * (size_t)n_rows), n_rows + 2, (int64_t)((state_len + 255) / 256 * 256) };
    for (int i = 0; i < n_rows; i++)
        of.slots[i] = n_rows - i;
    check_freeze(of.slots);
    return of;
}

/* What no launch right before writes. */
__attribute__((unused)) static void early(const void *const *buffers, int n)
{
    for (int i = 0; i < n; i++)
        if (buffers[i])
            check_early(buffers[i]);
}

static double silu(double v) { return v / (1 + exp(-v)); }

/* Norm weights or null, router or null of the next layer, and the check of what a kernel left for them. */
typedef struct { int n_experts, n_sums, n_blocks; float *norm, *router, *parts; } Left;
static Left random_left(int n_rows, int d_model, int n_experts)
{
    Left left = { n_experts > 1 ? n_experts : 0, (n_experts > 1 ? n_experts : 0) + 1, (d_model + 7) / 8, NULL, NULL,
        NULL };
    left.norm = check_random_f32(1, d_model, d_model);
    left.router = n_experts > 1 ? check_random_f32(n_experts, d_model, d_model) : NULL;
    left.parts = check_buffer(sizeof(float) * (size_t)(n_rows * left.n_sums * left.n_blocks));
    return left;
}
static void check_left(const Left *left, const double *x, int n_rows, int d_model, double tolerance)
{
    const size_t count = (size_t)(n_rows * left->n_sums * left->n_blocks);
    double *want = check_doubles(count);
    for (int row = 0; row < n_rows; row++)
        for (int i = 0; i < d_model; i++) {
            const double value = x[row * d_model + i];
            for (int e = 0; e < left->n_experts; e++)
                want[(row * left->n_sums
                    + e) * left->n_blocks + i / 8] += value * (double)left->norm[i] * (double)left->router[e * d_model
                    + i];
            want[(row * left->n_sums + left->n_experts) * left->n_blocks + i / 8] += value * value;
        }
    check_rows_f32("next", left->parts, want, 1, (int)count, (int)count, tolerance);
}

#endif
