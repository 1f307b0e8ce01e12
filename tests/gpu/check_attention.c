/* attention and attention_decode: prefill as check_attention.h says; decode also writes the rings, in every order of
 * its blocks.
 */
#include "check_attention.h"

static AttentionBlock attention_block(int head_dim)
{
    const int dim = (head_dim + 15) / 16 * 16, n_rows = check_param("tile_rows");
    const int n_staged = 2 * check_param("stages") * check_param("tile_keys");
    return (AttentionBlock){ n_rows, 32 * check_param("warps"), (n_rows + n_staged) * (dim + 8) * 2, 0 };
}

/* ---- decode ---- */

/* x [n_heads * head_dim], rotated and rounded; rows of the table are [head_dim / 2] cosines and as many sines */
static void rotate(uint16_t *x, int n_heads, int head_dim, const float *table, int act)
{
    const int half = head_dim / 2;
    for (int head = 0; head < n_heads; head++, x += head_dim)
        for (int i = 0; i < half; i++) {
            const float lo = (float)check_act_value(x[i], act), hi = (float)check_act_value(x[i + half], act);
            const float cosine = table[i], sine = table[half + i];
            x[i] = check_act_round(fmaf(lo, cosine, -(hi * sine)), act);
            x[i + half] = check_act_round(fmaf(hi, cosine, lo * sine), act);
        }
}

/* Lengths and places of what a decode launch takes. */
typedef struct {
    int n, q_stride, new_stride, out_stride, n_splits, tiles, columns;
    uint16_t *q, *k, *v, *out;
    float *table, *partial;
    uint32_t *arrivals;
    uint8_t *state;
    int64_t *positions, state_stride;
    int32_t *slots;
} Decode;

/* Every sequence a Sequence of one token, at positions that differ; states in slots from last to first. */
static void place_sequences(Decode *d, Sequence *sequences)
{
    const int first_position = check_param("position"), rotates = check_param("rotates");
    for (int i = 0; i < d->n; i++) {
        Sequence *s = &sequences[i];
        *s = read_sequence(first_position + i * check_param("apart"), 1);
        d->positions[i] = s->position;
        d->slots[i] = d->n - i;
        uint8_t *slot = d->state + d->slots[i] * d->state_stride;
        fill_ring(s, s->position, s->keys, (uint16_t *)slot);
        fill_ring(s, s->position, s->values, (uint16_t *)(slot + ring_len(s)));
        const int columns = s->n_kv_heads * s->head_dim;
        memcpy(d->k + i * d->new_stride, s->keys + s->position * s->kv_stride, 2 * (size_t)columns);
        memcpy(d->v + i * d->new_stride, s->values + s->position * s->kv_stride, 2 * (size_t)columns);
        if (rotates) {                  /* what the reference sees */
            uint16_t *keys = check_buffer(2 * (size_t)(s->position + 1) * (size_t)s->kv_stride);
            memcpy(keys, s->keys, 2 * (size_t)(s->position + 1) * (size_t)s->kv_stride);
            rotate(keys + s->position * s->kv_stride, s->n_kv_heads, s->head_dim, d->table + i * s->head_dim, s->act);
            s->keys = keys;
        }
    }
}

static Decode make_decode(const Sequence *s)
{
    const int group = s->n_heads / s->n_kv_heads;
    Decode d = { .n = check_param("n_tokens"), .q_stride = check_param("q_stride"),
        .new_stride = check_param("new_stride"), .out_stride = check_param("out_stride"),
        .n_splits = check_param("n_splits"), .columns = s->n_heads * s->head_dim };
    const size_t n = (size_t)d.n;
    d.tiles = s->n_kv_heads * ((group + 3) / 4);
    d.state_stride = (int64_t)((2 * ring_len(s) + 255) / 256 * 256);
    d.state = check_buffer((n + 1) * (size_t)d.state_stride);
    d.positions = check_buffer(n * sizeof *d.positions);
    d.slots = check_buffer(n * sizeof *d.slots);
    d.q = check_random_act(d.n, d.columns, d.q_stride, s->act);
    d.k = check_buffer(2 * n * (size_t)d.new_stride);
    d.v = check_buffer(2 * n * (size_t)d.new_stride);
    d.out = check_buffer(2 * n * (size_t)d.out_stride);
    if (check_param("rotates"))
        d.table = check_random_f32(d.n, s->head_dim, s->head_dim);
    if (d.n_splits > 1) {
        const size_t n_counters = n * (size_t)d.tiles;
        d.partial = check_buffer(4 * n_counters * (size_t)d.n_splits * 4 * (size_t)(s->head_dim + 2));
        d.arrivals = check_buffer(4 * n_counters);
        memset(d.arrivals, 0, 4 * n_counters);
    }
    return d;
}

/* The rings hold this token too, and nothing else changed. */
static void check_rings(const Decode *d, const Sequence *s, int i)
{
    const size_t len = ring_len(s);
    const int64_t row = s->position % ring_rows(s) * s->kv_stride;
    const uint8_t *slot = d->state + d->slots[i] * d->state_stride;
    const size_t columns = 2 * (size_t)(s->n_kv_heads * s->head_dim);
    uint16_t *want = check_buffer(2 * len);
    fill_ring(s, s->position, s->keys, want);
    fill_ring(s, s->position, s->values, want + len / 2);
    memcpy(want + row, s->keys + s->position * s->kv_stride, columns);
    memcpy(want + len / 2 + row, s->values + s->position * s->kv_stride, columns);
    check_bytes("rings", slot, want, 2 * len);
}

static void check_attention_decode(void)
{
    Sequence shape = read_sequence(0, 1), *sequences = calloc((size_t)check_param("n_tokens"), sizeof shape);
    Decode d = make_decode(&shape);
    place_sequences(&d, sequences);
    CHECK_LAUNCH(d.n + 1, d.tiles * d.n_splits, 256, 19456, d.out, d.q, d.k, d.v, d.state, d.state + ring_len(&shape),
        d.table, d.positions, d.slots, d.state_stride, shape.n_context, d.partial, d.arrivals, d.n);
    double *want = check_doubles((size_t)d.n * (size_t)d.columns);
    double *score = check_doubles((size_t)d.positions[d.n - 1] + 1);
    uint16_t *q = check_buffer(2 * (size_t)d.columns);
    for (int i = 0; i < d.n; i++) {
        const Sequence *s = &sequences[i];
        memcpy(q, d.q + i * d.q_stride, 2 * (size_t)d.columns);
        if (d.table)
            rotate(q, s->n_heads, s->head_dim, d.table + i * s->head_dim, s->act);
        for (int head = 0; head < s->n_heads; head++)
            attend(s, s->position, head, q + head * s->head_dim, score, want + i * d.columns + head * s->head_dim);
        check_rings(&d, s, i);
    }
    check_rows_act("out", d.out, want, d.n, d.columns, d.out_stride, shape.act, 0x1p-16);
    for (int i = 0; d.arrivals && i < d.n * d.tiles; i++)
        if (d.arrivals[i] != 0)
            check_fail("arrivals[%d] is %u after the launch", i, d.arrivals[i]);
    free(sequences);
}

GPU_CHECKS({ "attention", check_attention }, { "attention_decode", check_attention_decode })
