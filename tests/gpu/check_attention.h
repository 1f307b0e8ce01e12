/* What the checks of attention's kernels share: sequences with their rings, plain loops, and the check of prefill.
 *
 * Against plain loops; a prompt cut in two gives the same bits, and so do sequences in one call. Rings hold NaNs in
 * rows that no token has written yet, and so do all other slots.
 */
#ifndef MOSS_TESTS_GPU_CHECK_ATTENTION_H
#define MOSS_TESTS_GPU_CHECK_ATTENTION_H

#include "check.h"

enum { N_SLOTS = 3 };

/* One sequence: keys and values of all positions, and the rings as they are before this call. */
typedef struct {
    int64_t position, n_context;
    int n_tokens, n_heads, n_kv_heads, head_dim, kv_stride, window, act;
    const uint16_t *keys, *values;      /* [position + n_tokens][kv_stride] */
} Sequence;

static int64_t ring_rows(const Sequence *s)
{
    return s->window > 0 ? s->window : s->n_context;
}

static Sequence read_sequence(int64_t position, int n_tokens)
{
    Sequence s = { .position = position, .n_context = check_param("n_context"), .n_tokens = n_tokens,
        .n_heads = check_param("n_heads"), .n_kv_heads = check_param("n_kv_heads"), .head_dim = check_param("head_dim"),
        .kv_stride = check_param("kv_stride"), .window = check_param("window"), .act = check_param("act") };
    const int n_rows = (int)position + n_tokens;
    s.keys = check_random_act(n_rows, s.n_kv_heads * s.head_dim, s.kv_stride, s.act);
    s.values = check_random_act(n_rows, s.n_kv_heads * s.head_dim, s.kv_stride, s.act);
    return s;
}

static size_t ring_len(const Sequence *s)
{
    return (size_t)ring_rows(s) * (size_t)s->kv_stride * 2;
}

/* The rows of positions before `until` that the ring still has. */
static void fill_ring(const Sequence *s, int64_t until, const uint16_t *rows, uint16_t *ring)
{
    const int64_t n = ring_rows(s), first = until > n ? until - n : 0;
    for (int64_t at = first; at < until; at++)
        memcpy(ring + at % n * s->kv_stride, rows + at * s->kv_stride, 2 * (size_t)s->kv_stride);
}

/* want [head_dim] of one query head of the token at `at`; score: as many doubles as there are tokens */
static void attend(const Sequence *s, int64_t at, int head, const uint16_t *q, double *score, double *want)
{
    const int kv = head / (s->n_heads / s->n_kv_heads) * s->head_dim;
    const int64_t first = s->window > 0 && at >= s->window ? at - s->window + 1 : 0;
    double top = -INFINITY, total = 0;
    for (int64_t j = first; j <= at; j++) {
        double dot = 0;
        for (int i = 0; i < s->head_dim; i++)
            dot += check_act_value(q[i], s->act) * check_act_value(s->keys[j * s->kv_stride + kv + i], s->act);
        score[j - first] = dot / sqrt(s->head_dim);
        top = fmax(top, score[j - first]);
    }
    for (int64_t j = first; j <= at; j++)
        total += score[j - first] = exp(score[j - first] - top);
    for (int64_t j = first; j <= at; j++)
        for (int i = 0; i < s->head_dim; i++)
            want[i] += score[j - first] / total * check_act_value(s->values[j * s->kv_stride + kv + i], s->act);
}

/* Weights of the sum are rounded to `act`. */
static double tolerance(int act)
{
    return act == 1 ? 0x1p-8 : 0x1p-11;
}

/* ---- prefill ---- */

typedef struct {
    uint8_t *state;
    int64_t state_stride;
    size_t values_at;
    int32_t *slots, *ends;
    int64_t *positions;
} Place;

/* n calls of the sequence, each with its rest from its position on. */
static Place make_place(const Sequence *s, const int64_t *positions, const int32_t *ends, int n)
{
    Place p = { .state_stride = (int64_t)((2 * ring_len(s) + 255) / 256 * 256), .values_at = ring_len(s) };
    p.state = check_buffer((size_t)(N_SLOTS * p.state_stride));
    p.slots = check_buffer(sizeof *p.slots * (size_t)n);
    p.ends = check_buffer(sizeof *p.ends * (size_t)n);
    p.positions = check_buffer(sizeof *p.positions * (size_t)n);
    for (int i = 0; i < n; i++) {
        p.slots[i] = N_SLOTS - 1 - i;
        p.positions[i] = positions[i];
        p.ends[i] = ends[i];
        uint8_t *slot = p.state + p.slots[i] * p.state_stride;
        fill_ring(s, positions[i], s->keys, (uint16_t *)slot);
        fill_ring(s, positions[i], s->values, (uint16_t *)(slot + p.values_at));
    }
    check_freeze(p.state);
    check_freeze(p.ends);
    check_freeze(p.slots);
    check_freeze(p.positions);
    return p;
}

/* A block of the kernel for this head_dim; its rows are query heads of tokens. n_blocks: 0, one for each tile. */
typedef struct { int n_rows, n_threads, shared_len, n_blocks; } AttentionBlock;
static AttentionBlock attention_block(int head_dim);

/* out [n_tokens][out_stride] for n_tokens tokens of n sequences */
static void launch(const Sequence *s, const Place *p, int n, int n_tokens, const uint16_t *q, const uint16_t *k,
    const uint16_t *v, uint16_t *out)
{
    const AttentionBlock block = attention_block(s->head_dim);
    const int group = s->n_heads / s->n_kv_heads, heads = group < block.n_rows ? group : block.n_rows;
    const int tokens = block.n_rows / heads, head_tiles = s->n_kv_heads * ((group + heads - 1) / heads);
    const int n_x = block.n_blocks ? block.n_blocks : (n_tokens + tokens - 1) / tokens + n;
    CHECK_LAUNCH(n_x, block.n_blocks ? 1 : head_tiles, block.n_threads,
        block.shared_len, out, q, k, v, p->state, p->state + p->values_at, p->positions, p->slots,
        p->ends, p->state_stride, s->n_context, n, n_tokens);
}

/* Rows of a call, n of them from row `first` on, as far apart as the case says. */
static uint16_t *new_rows(const Sequence *s, const uint16_t *rows, int64_t first, int n)
{
    const int stride = check_param("new_stride"), columns = s->n_kv_heads * s->head_dim;
    uint16_t *to = check_buffer(2 * (size_t)n * (size_t)stride);
    for (int t = 0; t < n; t++)
        memcpy(to + t * stride, rows + (first + t) * s->kv_stride, 2 * (size_t)columns);
    check_freeze(to);
    return to;
}

static void launch_one(const Sequence *s, int64_t position, int n_tokens, const uint16_t *q, uint16_t *out)
{
    const Place p = make_place(s, &position, &n_tokens, 1);
    launch(s, &p, 1, n_tokens, q, new_rows(s, s->keys, position, n_tokens), new_rows(s, s->values, position, n_tokens),
        out);
}

/* `from` [n][stride], and behind it its rows from `cut` on. */
static uint16_t *twice(const uint16_t *from, int n, int cut, int stride)
{
    const size_t row = (size_t)stride;
    uint16_t *both = check_buffer(2 * row * (size_t)(2 * n - cut));
    memcpy(both, from, 2 * row * (size_t)n);
    memcpy(both + row * (size_t)n, from + row * (size_t)cut, 2 * row * (size_t)(n - cut));
    check_freeze(both);
    return both;
}

/* The whole and its rest from `cut` on as two sequences of one call: what each gave alone. */
static void check_together(const Sequence *s, int n_tokens, int cut, const uint16_t *q, const uint16_t *whole,
    const uint16_t *rest)
{
    const int q_stride = check_param("q_stride"), out_stride = check_param("out_stride"), n = 2 * n_tokens - cut;
    const int32_t ends[2] = { n_tokens, n };
    const int64_t positions[2] = { s->position, s->position + cut };
    const Place p = make_place(s, positions, ends, 2);
    const int new_stride = check_param("new_stride");
    const uint16_t *keys = new_rows(s, s->keys, s->position, n_tokens);
    const uint16_t *values = new_rows(s, s->values, s->position, n_tokens);
    uint16_t *out = check_buffer(2 * (size_t)n * (size_t)out_stride);
    launch(s, &p, 2, n, twice(q, n_tokens, cut, q_stride), twice(keys, n_tokens, cut, new_stride),
        twice(values, n_tokens, cut, new_stride), out);
    for (int t = 0; t < n; t++)
        check_bytes("a token of two sequences", out + t * out_stride,
            t < n_tokens ? whole + t * out_stride : rest + (t - n_tokens) * out_stride,
            2 * (size_t)(s->n_heads * s->head_dim));
}

/* As many times larger as the case says: then the largest score grows a lot on the way, and few keys matter. */
static const uint16_t *random_queries(int n_tokens, int columns, int stride, int act)
{
    const uint16_t *plain = check_random_act(n_tokens, columns, stride, act);
    uint16_t *q = check_buffer(2 * (size_t)n_tokens * (size_t)stride);
    for (int i = 0; i < n_tokens * columns; i++) {
        const int at = i / columns * stride + i % columns;
        q[at] = check_act_round(check_param("times") * check_act_value(plain[at], act), act);
    }
    check_freeze(q);
    return q;
}

static void check_attention(void)
{
    const int n_tokens = check_param("n_tokens");
    const int q_stride = check_param("q_stride"), out_stride = check_param("out_stride");
    const Sequence s = read_sequence(check_param("position"), n_tokens);
    const int columns = s.n_heads * s.head_dim;
    const uint16_t *q = random_queries(n_tokens, columns, q_stride, s.act);
    uint16_t *out = check_buffer(2 * (size_t)n_tokens * (size_t)out_stride);
    double *want = check_doubles((size_t)n_tokens * (size_t)columns);
    double *score = check_doubles((size_t)(s.position + n_tokens));
    for (int t = 0; t < n_tokens; t++)
        for (int head = 0; head < s.n_heads; head++)
            attend(&s, s.position + t, head, q + t * q_stride + head * s.head_dim, score,
                want + t * columns + head * s.head_dim);
    launch_one(&s, s.position, n_tokens, q, out);
    check_rows_act("out", out, want, n_tokens, columns, out_stride, s.act, tolerance(s.act));

    /* In two calls: the second sees the first one's keys in the ring. */
    const int cut = n_tokens / 3;
    uint16_t *rest = check_buffer(2 * (size_t)(n_tokens - cut) * (size_t)out_stride);
    launch_one(&s, s.position + cut, n_tokens - cut, q + cut * q_stride, rest);
    for (int t = cut; t < n_tokens; t++)
        check_bytes("the token after a cut", rest + (t - cut) * out_stride, out + t * out_stride, 2 * (size_t)columns);
    check_together(&s, n_tokens, cut, q, out, rest);
}

#endif
