/* Workload: buffers, random inputs and reference results of one kernel call. */
#include "workload.h"

#include "reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CANARY = 64, GUARD = 32 << 20, MAX_BLOCKS = 16, MAX_COPIES = 64, REFERENCE_WORK = 1000000000 };
static const uint32_t canary = 0x4B1D5AFE;

/* len: without the canary; mapped: from `map` on. */
typedef struct { uint8_t *data, *map; size_t len, mapped; } Block;

struct Work {
    WorkSpec spec;
    WorkShape shape;
    WorkKind kind;
    int n_tokens, n_pairs, out_rows, n_copies;
    uint64_t random;
    Block blocks[MAX_BLOCKS];
    int n_blocks;
    void *in, *in2, *in3;            /* of attention: q, k, v; of a scan: dt_raw, x, bc */
    float *z, *a, *d, *state;        /* of a scan; the state lies behind y, so that both are checked */
    float *router, *norm;            /* of a router, whose gates and experts lie behind the rows of its norm, if any */
    float *out, *initial, *bias, *gates, *ring_k, *ring_v, *bits;
    int32_t *experts, *slots, *offsets;
    uint8_t *weights;
    uint8_t *pack, *scratch;         /* all of it, and what a point is given */
    size_t out_len, copy_len;        /* floats; bytes from copy to copy */
    int64_t position, n_context;
    double *want, *allowed;          /* [out_rows][n_cols] */
    int n_cols;
};

static uint64_t bits64(Work *w)
{
    w->random ^= w->random << 13, w->random ^= w->random >> 7, w->random ^= w->random << 17;
    return w->random;
}
static float random_float(Work *w) { return (float)(bits64(w) >> 40) * 0x1p-23f - 1; }
static int random_below(Work *w, int n) { return (int)((bits64(w) >> 33) % (uint64_t)n); }
static int whole(int n, int unit) { return (n + unit - 1) / unit * unit; }
static bool is(const Work *w, const char *kernel) { return strcmp(w->shape.kernel, kernel) == 0; }
static bool quantised(const Work *w) { return w->shape.weight_dtype == 3 || w->shape.weight_dtype == 4; }

/* Zeroed memory with a canary behind, between stretches that nobody may touch. In a check it ends at one or begins at
 * one, by turns: who reads far behind it, or before it, dies. What is timed begins at a page. */
static void *block(Work *w, size_t len)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (len + CANARY + 63) / 64 * 64;
    const size_t pages = (used + page - 1) / page * page;
    Block b = { .len = len, .mapped = pages + 2 * GUARD };
    b.map = mmap(NULL, b.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (b.map == MAP_FAILED || w->n_blocks == MAX_BLOCKS || mprotect(b.map + GUARD, pages, PROT_READ | PROT_WRITE) != 0)
        return NULL;
    b.data = b.map + GUARD + (w->kind == WORK_CHECK && w->spec.seed % 2 ? pages - used : 0);
    for (size_t i = 0; i + 4 <= CANARY; i += 4)
        memcpy(b.data + len + i, &canary, 4);
    w->blocks[w->n_blocks++] = b;
    return b.data;
}

static bool canaries_live(const Work *w)
{
    for (int i = 0; i < w->n_blocks; i++)
        for (size_t j = 0; j + 4 <= CANARY; j += 4)
            if (memcmp(w->blocks[i].data + w->blocks[i].len + j, &canary, 4) != 0)
                return false;
    return true;
}

void work_free(Work *w)
{
    for (int i = 0; w && i < w->n_blocks; i++)
        munmap(w->blocks[i].map, w->blocks[i].mapped);
    if (w)
        free(w->want), free(w->allowed), free(w->bits);
    free(w);
}

/* ---- inputs ---- */

static float *random_rows(Work *w, int rows, int cols, int stride)
{
    float *data = block(w, 4 * (size_t)rows * (size_t)stride);
    for (int r = 0; data && r < rows; r++)
        for (int c = 0; c < cols; c++)
            data[(size_t)r * (size_t)stride + (size_t)c] = random_float(w);
    return data;
}

/* Values that bf16 holds, for products that round their rows to it. */
static void round_rows(float *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &data[i], 4);
        bits &= 0xFFFF0000;
        memcpy(&data[i], &bits, 4);
    }
}

/* Rows as `quantize` writes them: bytes, zeros up to 64, then scale and sum. */
static int8_t *random_quantised_rows(Work *w, int rows)
{
    const WorkShape *s = &w->shape;
    int8_t *data = block(w, (size_t)rows * (size_t)s->in_stride);
    for (int r = 0; data && r < rows; r++) {
        int8_t *row = data + (size_t)r * (size_t)s->in_stride;
        float scale = 0.001f + 0.02f * fabsf(random_float(w));
        int32_t sum = 0;
        for (int i = 0; i < s->n_in; i++)
            sum += row[i] = (int8_t)(random_below(w, 255) - 127);
        memcpy(row + whole(s->n_in, 64), &scale, 4);
        memcpy(row + whole(s->n_in, 64) + 4, &sum, 4);
    }
    return data;
}

/* Stored weights: every bit pattern here is a number of ordinary size. Bytes of q8 are odd, so that none is -128. */
static void fill_weights(Work *w, uint8_t *data, size_t len)
{
    static const uint64_t mask[] = { 0x81FFFFFF81FFFFFF, 0x81FF81FF81FF81FF, 0x83FF83FF83FF83FF, ~0ull, ~0ull,
                                     0x81FF81FF81FF81FF, 0x83FF83FF83FF83FF };
    static const uint64_t add[] = { 0x3E0000003E000000, 0x3E003E003E003E00, 0x3400340034003400, 0x0101010101010101, 0,
                                    0x3E003E003E003E00, 0x3400340034003400 };
    const int dtype = w->shape.weight_dtype;
    for (size_t i = 0; i + 8 <= len; i += 8) {
        uint64_t bits = (bits64(w) & mask[dtype]) | add[dtype];
        memcpy(data + i, &bits, 8);
    }
    const int panels = (w->shape.n_out + w->shape.panel - 1) / w->shape.panel;
    const size_t n_panels = (size_t)w->shape.n_experts * (size_t)panels;
    for (size_t p = 0; quantised(w) && p < n_panels; p++)
        for (int c = 0; c < w->shape.panel; c++) {
            const float scale = 0.001f + 0.01f * fabsf(random_float(w));
            memcpy(data + len / n_panels * p + (size_t)c * 4, &scale, 4);
        }
}

/* Each token's experts, ascending. In a check the last is never chosen where there is a choice, and the first by nearly
 * every token, so that one expert has many rows and others few. */
static void draw_experts(Work *w)
{
    const int n_experts = w->shape.n_experts, k = w->shape.top_k, skewed = w->kind == WORK_CHECK;
    for (int t = 0; t < w->n_tokens; t++)
        for (int s = 0, e = 0; s < k; e++) {
            const int usable = skewed && n_experts > k ? n_experts - 1 : n_experts;
            if ((skewed && e == 0 && t % 8) || random_below(w, usable - e) < k - s)
                w->experts[t * k + s++] = e;
        }
}

/* Rows that no tile of up to 10 rows divides; few rows cannot be so. */
static bool is_odd(int n, int n_tokens)
{
    return n % 2 && (n_tokens < 20 || (n % 3 && n % 5 && n % 7));
}

/* Are the rows of the first expert and of the last chosen no whole tiles, by turns odd ones, and for the last two more
 * than whole fours? Of one token: is it the first expert's, or the last's? */
static bool is_awkward(const Work *w)
{
    const int n_experts = w->shape.n_experts, usable = n_experts > w->shape.top_k ? n_experts - 1 : n_experts;
    const int first = w->offsets[1], last = w->offsets[usable] - w->offsets[usable - 1];
    const bool turn = w->spec.seed % 2;
    if (w->n_tokens == 1)
        return (turn ? last : first) > 0;
    return is_odd(first, w->n_tokens) && (turn ? is_odd(last, w->n_tokens) : last % 4 == 2);
}

static void choose_experts(Work *w)
{
    enum { DRAWS = 400 };
    for (int i = 0; i < DRAWS; i++) {
        draw_experts(w);
        ref_group(w->slots, w->offsets, w->experts, w->n_pairs, w->shape.n_experts);
        if (w->kind != WORK_CHECK || is_awkward(w))
            return;
    }
}

static bool make_product(Work *w, int64_t far)
{
    const WorkShape *s = &w->shape;
    const int in_rows = s->in_pairs ? w->n_pairs : w->n_tokens, n_panels = (s->n_out + s->panel - 1) / s->panel;
    w->out_rows = s->out_pairs ? w->n_pairs : w->n_tokens;
    w->n_cols = s->n_out;
    w->out_len = (size_t)w->out_rows * (size_t)s->out_stride;
    w->copy_len = w->kind == WORK_CHECK ? (size_t)s->weights_len : ((size_t)s->weights_len + 4095) / 4096 * 4096;
    if (w->kind == WORK_TIME && far > s->weights_len)
        w->n_copies = (int)((far + s->weights_len - 1) / s->weights_len);
    if (w->n_copies > MAX_COPIES)
        w->n_copies = MAX_COPIES;
    w->weights = block(w, w->copy_len * (size_t)w->n_copies);
    w->in = quantised(w) ? (void *)random_quantised_rows(w, in_rows) : random_rows(w, in_rows, s->n_in, s->in_stride);
    w->out = block(w, 4 * w->out_len);
    w->initial = random_rows(w, w->out_rows, s->out_stride, s->out_stride);
    w->experts = block(w, 4 * (size_t)w->n_pairs);
    w->slots = block(w, 4 * (size_t)w->n_pairs);
    w->offsets = block(w, 4 * (size_t)(s->n_experts + 1));
    w->pack = block(w, (size_t)s->pack_len);
    w->bias = s->has_bias ? random_rows(w, s->n_experts, s->n_out, n_panels * s->panel) : NULL;
    w->gates = s->n_experts > 1 ? random_rows(w, 1, w->n_pairs, w->n_pairs) : NULL;
    if (!w->weights || !w->in || !w->out || !w->initial || !w->experts || !w->slots || !w->offsets || !w->pack)
        return false;
    fill_weights(w, w->weights, (size_t)s->weights_len);
    for (int i = 1; i < w->n_copies; i++)
        memcpy(w->weights + w->copy_len * (size_t)i, w->weights, (size_t)s->weights_len);
    if (s->weight_dtype == 5)
        round_rows(w->in, (size_t)in_rows * (size_t)s->in_stride);
    choose_experts(w);
    return true;
}

static bool make_attention(Work *w)
{
    const WorkShape *s = &w->shape;
    const int q_width = s->n_heads * s->head_dim, kv_width = s->n_kv_heads * s->head_dim;
    w->position = w->spec.position;
    w->n_context = w->position + w->n_tokens;
    const int ring_rows = s->window ? s->window : (int)w->n_context;
    w->out_rows = w->n_tokens;
    w->n_cols = q_width;
    w->out_len = (size_t)w->n_tokens * (size_t)s->out_stride;
    float *q = random_rows(w, w->n_tokens, q_width, s->q_stride);
    w->in = q;
    w->in2 = random_rows(w, w->n_tokens, kv_width, s->kv_stride);
    w->in3 = random_rows(w, w->n_tokens, kv_width, s->kv_stride);
    w->ring_k = random_rows(w, ring_rows, kv_width, s->kv_stride);
    w->ring_v = random_rows(w, ring_rows, kv_width, s->kv_stride);
    w->out = block(w, 4 * w->out_len);
    w->initial = block(w, 4 * w->out_len);
    w->pack = block(w, (size_t)s->pack_len);
    for (int i = 0; q && i < w->n_tokens * s->q_stride; i++)
        q[i] *= 4;
    return w->in && w->in2 && w->in3 && w->ring_k && w->ring_v && w->out && w->initial && w->pack;
}

/* Rows of y, then of the state. A channel may decay in a token, or not at all. */
static bool make_scan(Work *w)
{
    const WorkShape *s = &w->shape;
    const int n = s->n_out;
    w->out_rows = w->n_tokens + s->d_state;
    w->n_cols = n;
    w->out_len = (size_t)w->out_rows * (size_t)s->out_stride;
    w->out = block(w, 4 * w->out_len);
    w->initial = random_rows(w, w->out_rows, n, s->out_stride);
    w->state = w->out ? w->out + (size_t)w->n_tokens * (size_t)s->out_stride : NULL;
    float *dt = random_rows(w, w->n_tokens, n, s->out_stride);
    w->in = dt;
    w->in2 = random_rows(w, w->n_tokens, n, s->out_stride);
    w->in3 = random_rows(w, w->n_tokens, 2 * s->d_state, s->bc_stride);
    /* Readable to whole panels. */
    w->z = block(w, 4 * ((size_t)w->n_tokens * (size_t)s->z_stride + (size_t)s->panel));
    w->a = random_rows(w, s->d_state, n, s->out_stride);
    w->d = random_rows(w, 1, n, s->out_stride);
    w->pack = block(w, (size_t)s->pack_len);
    if (!w->out || !w->initial || !w->in || !w->in2 || !w->in3 || !w->z || !w->a || !w->d || !w->pack)
        return false;
    for (int i = 0; i < w->n_tokens * s->out_stride; i++)
        dt[i] = 6 * dt[i] - 3;
    for (int i = 0; i < w->n_tokens * s->z_stride; i++)
        w->z[i] = 4 * random_float(w);
    for (int i = 0; i < s->d_state * s->out_stride; i++)
        w->a[i] = i % 61 == 7 ? 0 : -12 * (1.001f + w->a[i]);
    return true;
}

/* Results are one column: rows of the norm, gates, experts. Every third expert is another's double: ties. */
static bool make_router(Work *w)
{
    const WorkShape *s = &w->shape;
    const size_t n_normed = is(w, "route") ? 0 : (size_t)w->n_tokens * (size_t)s->out_stride, row = (size_t)s->n_in;
    w->shape.in_stride = s->out_stride;
    w->shape.out_stride = 1;
    w->n_cols = 1;
    w->out_len = n_normed + 2 * (size_t)w->n_pairs;
    w->out_rows = (int)w->out_len;
    w->out = block(w, 4 * w->out_len);
    w->initial = random_rows(w, w->out_rows, 1, 1);
    w->in2 = random_rows(w, w->n_tokens, s->n_in, s->in_stride);
    w->norm = is(w, "route") ? NULL : random_rows(w, 1, s->n_in, s->in_stride);
    w->router = random_rows(w, s->n_experts, s->n_in, s->n_in);
    w->pack = block(w, (size_t)s->pack_len);
    if (!w->out || !w->initial || !w->in2 || !w->router || !w->pack || (!is(w, "route") && !w->norm))
        return false;
    w->gates = w->out + n_normed;
    w->experts = (int32_t *)(void *)(w->gates + w->n_pairs);
    for (int e = 2; e < s->n_experts; e += 3)
        memcpy(w->router + (size_t)e * row, w->router + (size_t)(e - 2) * row, 4 * row);
    return true;
}

static bool is_router(const Work *w) { return is(w, "route") || is(w, "rms_norm_route"); }

/* ---- the reference ---- */

/* Stored panels as the reference reads them. */
typedef struct { const uint8_t *data; size_t panel_len; int dtype, n_panels; float *line; WorkReader *reader; } Stored;

static void read_stored(const RefProduct *p, int expert, int panel, double *to /* [n_in][width] */)
{
    const Stored *s = p->weights;
    const size_t len = (size_t)p->n_in * (size_t)p->width;
    s->reader(s->line, s->data + (size_t)(expert * s->n_panels + panel) * s->panel_len, p->n_in, p->width, s->dtype);
    for (size_t i = 0; i < len; i++)
        to[i] = s->line[i];
}

/* Row of `in` as numbers. */
static void read_row(const Work *w, int row, double *to /* [n_in] */)
{
    const WorkShape *s = &w->shape;
    const size_t at = (size_t)row * (size_t)s->in_stride;
    if (!quantised(w)) {
        for (int i = 0; i < s->n_in; i++)
            to[i] = ((const float *)w->in)[at + (size_t)i];
        return;
    }
    const int8_t *from = (const int8_t *)w->in + at;
    float scale;
    memcpy(&scale, from + whole(s->n_in, 64), 4);
    for (int i = 0; i < s->n_in; i++)
        to[i] = from[i] * (double)scale;
}

static bool product_reference(Work *w, WorkReader *reader)
{
    const WorkShape *s = &w->shape;
    const int n_panels = (s->n_out + s->panel - 1) / s->panel, rows = s->in_pairs ? w->n_pairs : w->n_tokens;
    Stored stored = { .data = w->weights, .dtype = s->weight_dtype, .n_panels = n_panels, .reader = reader,
                      .panel_len = (size_t)s->weights_len / (size_t)s->n_experts / (size_t)n_panels,
                      .line = malloc(4 * (size_t)s->n_in * (size_t)s->panel) };
    double *in = malloc((size_t)rows * (size_t)s->n_in * sizeof *in);
    RefProduct p = { .n_in = s->n_in, .n_out = s->n_out, .n_experts = s->n_experts, .top_k = s->top_k,
                     .n_tokens = w->n_tokens, .f16_sums = s->weight_dtype == 6, .in_pairs = s->in_pairs,
                     .out_pairs = s->out_pairs,
                     .accumulate = s->accumulate, .width = s->panel, .in = in, .bias = w->bias, .gates = w->gates,
                     .initial = w->initial, .out_stride = s->out_stride, .slots = w->slots, .offsets = w->offsets,
                     .read = read_stored, .weights = &stored };
    const double work = (double)s->n_in * s->n_out * w->n_pairs;
    p.panel_step = work > REFERENCE_WORK ? (int)(work / REFERENCE_WORK) + 1 : 1;
    bool good = stored.line && in;
    for (int r = 0; good && r < rows; r++)
        read_row(w, r, in + (size_t)r * (size_t)s->n_in);
    good = good && ref_product(&p, w->want, w->allowed);
    free(in), free(stored.line);
    return good;
}

static bool reference(Work *w, WorkReader *reader)
{
    const WorkShape *s = &w->shape;
    w->want = calloc((size_t)w->out_rows * (size_t)w->n_cols, sizeof *w->want);
    w->allowed = calloc((size_t)w->out_rows * (size_t)w->n_cols, sizeof *w->allowed);
    if (!w->want || !w->allowed)
        return false;
    if (is(w, "scan")) {
        const RefScan scan = { s->n_out, s->d_state, s->zoh, w->n_tokens, s->out_stride, s->z_stride, s->bc_stride,
                               w->in, w->in2, w->in3, w->z, w->a, w->d, w->initial + (w->state - w->out) };
        return ref_scan(&scan, w->want, w->allowed);
    }
    if (is_router(w)) {
        const RefRouter router = { s->n_in, s->in_stride, s->n_experts, s->top_k, s->renormalize, w->n_tokens, s->eps,
                                   w->in2, w->norm, w->router };
        return ref_router(&router, w->want, w->allowed);
    }
    if (!is(w, "attention"))
        return product_reference(w, reader);
    const RefAttention a = { s->n_heads, s->n_kv_heads, s->head_dim, s->window, w->n_tokens, s->q_stride, s->kv_stride,
                             w->position, w->n_context, w->in, w->in2, w->in3, w->ring_k, w->ring_v };
    return ref_attention(&a, w->want, w->allowed);
}

/* ---- using it ---- */

Work *work_elsewhere(const WorkSpec *spec)
{
    Work *w = calloc(1, sizeof *w);
    if (w)
        *w = (Work){ .spec = *spec, .shape = spec->shape, .kind = spec->kind, .n_tokens = spec->n_tokens,
                     .n_pairs = spec->n_tokens * spec->shape.top_k, .n_copies = 1,
                     .random = spec->seed * 0x9E3779B97F4A7C15u + 0x2545F4914F6CDD1Du };
    return w;
}

Work *work_new(const WorkSpec *spec, WorkReader *reader)
{
    Work *w = work_elsewhere(spec);
    bool made = w && (is(w, "attention") ? make_attention(w) : is(w, "scan") ? make_scan(w)
                                            : is_router(w) ? make_router(w) : make_product(w, spec->far));
    if (made && (spec->kind == WORK_TIME || !reader || reference(w, reader))) {
        work_set_scratch(w, spec->shape.pack_len);
        work_reset(w);
        return w;
    }
    work_free(w);
    return NULL;
}

const WorkSpec *work_spec(const Work *work) { return &work->spec; }
int work_tokens(const Work *work) { return work->n_tokens; }
int work_copies(const Work *work) { return work->n_copies; }

bool work_argument(const Work *w, const char *name, int copy, WorkValue *value)
{
    const WorkShape *s = &w->shape;
    const bool dense = s->n_experts == 1, attention = is(w, "attention");
    const struct { const char *name; void *pointer; } pointers[] = {
        { "out", w->out }, { attention ? "q" : "in", w->in }, { "k", w->in2 }, { "v", w->in3 }, { "ring_k", w->ring_k },
        { "ring_v", w->ring_v }, { "weights", w->weights + w->copy_len * (size_t)copy }, { "bias", w->bias },
        { "slots", dense ? NULL : w->slots }, { "offsets", dense ? NULL : w->offsets },
        { "experts", dense ? NULL : w->experts }, { "gates", w->gates }, { "pack", w->scratch },
        { "scratch", w->scratch }, { "y", w->out }, { "dt_raw", w->in }, { "x", w->in2 }, { "bc", w->in3 },
        { "z", w->z }, { "a", w->a }, { "d", w->d }, { "state", w->state },
        { "router", w->router }, { "weight", w->norm },
    };
    const struct { const char *name; int32_t value; } ints[] = {
        { "n_tokens", w->n_tokens }, { "token_begin", 0 }, { "token_end", w->n_tokens }, { "row_begin", 0 },
        { "row_end", w->n_tokens }, { "top_k", s->top_k }, { "panel_begin", 0 },
        { "panel_end", (s->n_out + s->panel - 1) / (s->panel ? s->panel : 1) }, { "item_begin", 0 }, { "item_step", 1 },
    };
    memset(value, 0, sizeof *value);
    for (size_t i = 0; i < sizeof pointers / sizeof *pointers; i++)
        if (strcmp(pointers[i].name, name) == 0)
            return value->pointer = pointers[i].pointer, true;
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        if (strcmp(ints[i].name, name) == 0)
            return value->i32 = ints[i].value, true;
    value->i64 = strcmp(name, "position") == 0 ? w->position : w->n_context;
    return strcmp(name, "position") == 0 || strcmp(name, "n_context") == 0;
}

bool work_set_tokens(Work *w, int n)
{
    if (is(w, "scan") || is_router(w))      /* other results lie behind those of the last token */
        return false;
    w->n_tokens = n;
    w->n_pairs = n * w->shape.top_k;
    w->out_rows = w->shape.out_pairs ? w->n_pairs : n;
    if (w->offsets)
        ref_group(w->slots, w->offsets, w->experts, w->n_pairs, w->shape.n_experts);
    return true;
}

void work_set_scratch(Work *w, int64_t len)
{
    const int64_t rounded = (len + 63) / 64 * 64, most = w->shape.pack_len;
    w->scratch = w->pack + (rounded < most ? most - rounded : 0);
}

void work_reset(Work *w)
{
    memcpy(w->out, w->initial, 4 * w->out_len);
    if (w->kind == WORK_CHECK)
        memset(w->pack, 0xFF, (size_t)w->shape.pack_len);      /* NaNs */
}

/* Compared with the reference; where there is none, with the bits alone. */
static double element_error(const Work *w, size_t at, size_t i)
{
    return w->want ? fabs((double)w->out[at] - w->want[i]) / w->allowed[i] : 0;
}

double work_error(const Work *w, bool same_bits, char *where, size_t where_len)
{
    double worst = 0;
    where[0] = '\0';
    if (!canaries_live(w))
        return snprintf(where, where_len, "it wrote behind a buffer"), INFINITY;
    if (!w->want && !(same_bits && w->bits))
        return snprintf(where, where_len, "there is nothing to compare with"), INFINITY;
    for (int r = 0; r < w->out_rows; r++)
        for (int c = 0; c < w->n_cols; c++) {
            const size_t at = (size_t)r * (size_t)w->shape.out_stride + (size_t)c;
            const size_t i = (size_t)r * (size_t)w->n_cols + (size_t)c;
            double error = element_error(w, at, i);
            if (same_bits && w->bits && memcmp(&w->out[at], &w->bits[at], 4) != 0 && error <= 1)
                return snprintf(where, where_len, "%d tokens, row %d, column %d: %.9g, bit for bit expected %.9g",
                                w->n_tokens, r, c,
                                w->out[at], w->bits[at]), INFINITY;
            if (!(error <= worst)) {
                worst = error == error ? error : INFINITY;
                snprintf(where, where_len, "%d tokens, row %d, column %d: %.9g, expected %.9g", w->n_tokens, r, c,
                         w->out[at], w->want[i]);
            }
            if (worst == INFINITY)
                return worst;
        }
    return worst;
}

void work_keep_bits(Work *w)
{
    free(w->bits);
    w->bits = malloc(4 * w->out_len);
    if (w->bits)
        memcpy(w->bits, w->out, 4 * w->out_len);
}

uint64_t work_bits(const Work *w)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (int r = 0; w->bits && r < w->out_rows; r++)
        for (int c = 0; c < w->n_cols; c++) {
            uint32_t bits;
            memcpy(&bits, &w->bits[(size_t)r * (size_t)w->shape.out_stride + (size_t)c], 4);
            hash = (hash ^ bits) * 0x100000001B3u;
        }
    return w->bits ? hash | 1 : 0;
}
