/* Packer: checkpoint tensors in the layouts of layout.def, one file of a plan's weights.
 *
 * Input: a Plan and a TensorSource. Output: header page, then main's slots and every layer's, at the
 * plan's offsets. Work is one (layer, slot, expert) at a time, shared among threads; the bytes do not
 * depend on how. Invariant: every element of the checkpoint that is stored is read once and checked
 * to be finite, and where products are summed in f16, to be small enough for that.
 */
#include "codegen.h"

#include "../ir/quant.h"
#include "../runtime/program.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const WeightSlot *slot;
    int64_t offset;          /* in the data */
    int tensor, pair;        /* pair: the tensor of odd rows, or -1 */
    int64_t out_rows;        /* of the whole tensor */
    int64_t expert;
} Task;

typedef struct {
    const Plan *plan;
    const TensorSource *source;
    uint8_t *data;
    Task *tasks;
    int n_tasks;
    atomic_int next;
    atomic_llong done;
    atomic_ullong values;    /* of WeightSums */
    pthread_mutex_t lock;    /* of bad and progress */
    BadValue *bad;
} Packer;

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

int64_t pack_len(const Plan *plan) { return MOSS_WEIGHTS_HEADER_LEN + plan->weights_len; }

/* A sum over values, each mixed with its place: it depends neither on the order nor on who reads them. */
static uint64_t values_sum(uint64_t place, const float *values, int64_t count)
{
    uint64_t sum = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        uint64_t mixed = ((place + (uint64_t)i) * 0x9E3779B97F4A7C15u ^ bits) * 0xBF58476D1CE4E5B9u;
        sum += mixed ^ mixed >> 29;
    }
    return sum;
}

/* Of at most `most`, NaN excluded. */
static void read_tensor(Packer *p, int tensor, int64_t begin, int64_t count, float most, float *out)
{
    p->source->read(p->source->context, tensor, begin, count, out);
    p->values += values_sum(((uint64_t)tensor << 40) + (uint64_t)begin, out, count);
    for (int64_t i = 0; i < count; i++) {
        if (fabsf(out[i]) <= most)
            continue;
        pthread_mutex_lock(&p->lock);
        if (!p->bad->found || tensor < p->bad->tensor)
            *p->bad = (BadValue){ true, tensor, begin + i, out[i] };
        pthread_mutex_unlock(&p->lock);
        return;
    }
}

static void read_checked(Packer *p, const Task *t, int64_t begin, int64_t count, float *out)
{
    read_tensor(p, t->tensor, begin, count, strcmp(t->slot->layout, "panel_f16") == 0 ? F16_MOST_WEIGHT : FLT_MAX, out);
}

static void store(uint8_t *to, DType dtype, int64_t index, float value)
{
    switch (dtype) {
    case DTYPE_F32: ((float *)(void *)to)[index] = value; break;
    case DTYPE_BF16: ((uint16_t *)(void *)to)[index] = dtype_f32_to_bf16(value); break;
    case DTYPE_F16: ((uint16_t *)(void *)to)[index] = dtype_f32_to_f16(value); break;
    default: BUG("cannot pack %s", dtype_info(dtype)->text);
    }
}

/* [out, in] of one expert -> [out panels][in][panel], or by pairs [in / n, up][panel][n], n = 2, on 64-bit ARM 4 */
static void pack_panels(Packer *p, const Task *t)
{
    const WeightSlot *s = t->slot;
    int panel = p->plan->tiling.panel;
    int64_t n_panels = round_up(s->n_out, panel) / panel;
    int64_t n_k = strcmp(s->layout, "panel_pairs") == 0 ? target_dot_group(p->plan->target) / 2 : 1;
    int64_t len = panel_len(s->dtype, round_up(s->n_in, n_k), panel, 0);
    float *rows = malloc((size_t)(panel * s->n_in) * sizeof *rows);
    if (!rows)
        BUG("no memory to pack %s", s->tensor);
    for (int64_t i = 0; i < n_panels; i++) {
        int64_t first = i * panel, n = s->n_out - first < panel ? s->n_out - first : panel;
        int64_t begin = (t->expert * t->out_rows + s->row_begin + first) * s->n_in;
        uint8_t *to = p->data + t->offset + (t->expert * n_panels + i) * len;
        read_checked(p, t, begin, n * s->n_in, rows);
        for (int64_t k = 0; k < s->n_in; k++)
            for (int64_t j = 0; j < n; j++)
                store(to, s->dtype, (k / n_k * panel + j) * n_k + k % n_k, rows[j * s->n_in + k]);
    }
    free(rows);
}

/* [out, in] of one expert, a scale a row -> per panel scales, then q: see codegen/templates/README.md */
static void pack_quantised(Packer *p, const Task *t)
{
    const WeightSlot *s = t->slot;
    int panel = p->plan->tiling.panel, offset = target_info(p->plan->target)->dot_offset;
    int group = target_dot_group(p->plan->target);
    int64_t n_panels = round_up(s->n_out, panel) / panel, len = panel_len(s->dtype, s->n_in, panel, group);
    float *rows = malloc((size_t)(panel * s->n_in) * sizeof *rows);
    int8_t *q = malloc((size_t)s->n_in);
    if (!rows || !q)
        BUG("no memory to pack %s", s->tensor);
    for (int64_t i = 0; i < n_panels; i++) {
        int64_t first = i * panel, n = s->n_out - first < panel ? s->n_out - first : panel;
        int64_t begin = (t->expert * t->out_rows + s->row_begin + first) * s->n_in;
        uint8_t *to = p->data + t->offset + (t->expert * n_panels + i) * len, *data = to + 4 * panel;
        read_checked(p, t, begin, n * s->n_in, rows);
        memset(data, s->dtype == DTYPE_Q4 ? 0x88 : offset, (size_t)(len - 4 * panel));      /* q = 0 */
        for (int64_t j = 0; j < n; j++) {
            ((float *)(void *)to)[j] = quant_row(s->dtype, rows + j * s->n_in, s->n_in, q);
            for (int64_t k = 0; k < s->n_in; k++) {
                int64_t row = k / (s->dtype == DTYPE_Q4 ? 2 * group : group);
                uint8_t *byte = &data[(row * panel + j) * group + k % group];
                if (s->dtype == DTYPE_Q8)
                    *byte = (uint8_t)(q[k] + offset);
                else if (k / group % 2 == 0)
                    *byte = (uint8_t)((*byte & 0xF0) | (q[k] + 8));
                else
                    *byte = (uint8_t)((*byte & 0x0F) | (q[k] + 8) << 4);
            }
        }
    }
    free(q);
    free(rows);
}

/* One row for a GPU: [row_stride], and its scale. `row` counts stored rows, of all experts. */
static void store_device_row(const Packer *p, const Task *t, int64_t row, const float *from, int8_t *q)
{
    const WeightSlot *s = t->slot;
    uint8_t *data = p->data + t->offset;
    if (!s->scales) {
        for (int64_t k = 0; k < s->n_in; k++)
            store(data, s->dtype, row * s->row_stride + k, from[k]);
        return;
    }
    ((float *)(void *)(data + s->scales))[row] = quant_row(s->dtype, from, s->n_in, q);
    memcpy(data + row * s->row_stride, q, (size_t)s->n_in);
}

/* [out, in] of one expert -> [stored rows][in padded]; with a pair, rows of both in turn. */
static void pack_device(Packer *p, const Task *t)
{
    const WeightSlot *s = t->slot;
    int64_t part = s->n_out / s->n_parts, padded = s->stored_rows / s->n_parts;
    float *row = malloc((size_t)s->n_in * sizeof *row);
    int8_t *q = malloc((size_t)s->n_in);
    if (!row || !q)
        BUG("no memory to pack %s", s->tensor);
    for (int64_t r = 0; r < s->n_out; r++) {
        int64_t from = t->pair < 0 ? t->expert * t->out_rows + s->row_begin + r : t->expert * t->out_rows + r / 2;
        read_tensor(p, t->pair >= 0 && r % 2 ? t->pair : t->tensor, from * s->n_in, s->n_in, FLT_MAX, row);
        store_device_row(p, t, t->expert * s->stored_rows + r / part * padded + r % part, row, q);
    }
    free(q);
    free(row);
}

/* [out, in] of one expert -> its columns of [out][E in padded] */
static void pack_device_joined(Packer *p, const Task *t)
{
    const WeightSlot *s = t->slot;
    float *rows = malloc((size_t)(s->n_out * s->n_in) * sizeof *rows);
    if (!rows)
        BUG("no memory to pack %s", s->tensor);
    read_checked(p, t, t->expert * s->n_out * s->n_in, s->n_out * s->n_in, rows);
    for (int64_t r = 0; r < s->n_out; r++)
        for (int64_t k = 0; k < s->n_in; k++)
            store(p->data + t->offset, s->dtype, r * s->row_stride + t->expert * s->n_in + k, rows[r * s->n_in + k]);
    free(rows);
}

static float decay(float a_log) { return (float)(-exp((double)a_log) * 1.4426950408889634); }

/* Everything else is small: whole, and float32. */
static void pack_small(Packer *p, const Task *t)
{
    const WeightSlot *s = t->slot;
    int64_t count = s->n_out * s->n_in, padded = round_up(s->n_out, p->plan->tiling.panel);
    float *from = malloc((size_t)count * sizeof *from), *to = (float *)(void *)(p->data + t->offset);
    if (!from)
        BUG("no memory to pack %s", s->tensor);
    read_checked(p, t, t->expert * count, count, from);      /* whole: never a part of the rows */
    bool decays = strcmp(s->layout, "decay") == 0;
    if (strcmp(s->layout, "device_decay") == 0) {
        for (int64_t i = 0; i < count; i++)
            to[i] = decay(from[i]);
    } else if (strcmp(s->layout, "rows") == 0) {
        memcpy(to, from, (size_t)count * sizeof *to);
    } else if (strcmp(s->layout, "vector") == 0) {
        memcpy(to + t->expert * padded, from, (size_t)count * sizeof *to);
    } else {                                           /* taps, decay: [out, in] -> [in][padded] */
        for (int64_t i = 0; i < s->n_out; i++)
            for (int64_t k = 0; k < s->n_in; k++)
                to[k * padded + i] = decays ? decay(from[i * s->n_in + k]) : from[i * s->n_in + k];
    }
    free(from);
}

static int64_t task_len(const Task *t) { return t->slot->len / t->slot->n_experts; }

static void *work(void *argument)
{
    Packer *p = argument;
    for (int i; (i = atomic_fetch_add(&p->next, 1)) < p->n_tasks && !p->bad->found;) {
        const Task *t = &p->tasks[i];
        bool panels = strncmp(t->slot->layout, "panel", 5) == 0;
        if (panels && dtype_is_quantised(t->slot->dtype))
            pack_quantised(p, t);
        else if (panels)
            pack_panels(p, t);
        else if (strcmp(t->slot->layout, "device") == 0 || strcmp(t->slot->layout, "device_pairs") == 0)
            pack_device(p, t);
        else if (strcmp(t->slot->layout, "device_joined") == 0)
            pack_device_joined(p, t);
        else
            pack_small(p, t);
        int64_t done = atomic_fetch_add(&p->done, task_len(t)) + task_len(t);
        if (p->source->progress) {
            pthread_mutex_lock(&p->lock);
            p->source->progress(p->source->context, done, p->plan->weights_len);
            pthread_mutex_unlock(&p->lock);
        }
    }
    return NULL;
}

/* The tensor of a block's slot; `layer` -1: main's. */
static int find_tensor(const Packer *p, const char *tensor, int layer)
{
    Text name = { 0 };
    if (layer >= 0)
        text_printf(&name, "layers.%d.", layer);
    text_printf(&name, "%s", tensor);
    int found = p->source->find(p->source->context, name.data);
    if (found < 0)
        BUG("no tensor %s", name.data);
    text_free(&name);
    return found;
}

/* One task an expert of each slot of a block at `offset`; tensors are those of `layer` (-1: main). */
static void add_tasks(Packer *p, const BlockPlan *block, int64_t offset, int layer)
{
    for (int i = 0; i < block->n_weights; i++) {
        const WeightSlot *slot = &block->weights[i];
        int tensor = find_tensor(p, slot->tensor, layer), pair = slot->pair ? find_tensor(p, slot->pair, layer) : -1;
        for (int64_t e = 0; e < slot->n_experts; e++)
            p->tasks[p->n_tasks++] = (Task){ slot, offset + slot->offset, tensor, pair,
                                             p->source->out_rows(p->source->context, tensor), e };
    }
}

static int64_t count_tasks(const Plan *plan)
{
    int64_t n = 0;
    for (int i = -1; i < plan->n_layers; i++) {
        const BlockPlan *block = i < 0 ? plan->main : plan->layers[i].block;
        for (int j = 0; j < block->n_weights; j++)
            n += block->weights[j].n_experts;
    }
    return n;
}

WeightSums pack_weights(const Plan *plan, const TensorSource *source, int n_threads, uint8_t *file, BadValue *bad)
{
    enum { MAX_THREADS = 16 };
    Packer p = { .plan = plan, .source = source, .data = file + MOSS_WEIGHTS_HEADER_LEN, .bad = bad,
                 .lock = PTHREAD_MUTEX_INITIALIZER };
    *bad = (BadValue){ 0 };
    p.tasks = calloc((size_t)count_tasks(plan), sizeof *p.tasks);
    if (!p.tasks)
        BUG("no memory for the list of tensors");
    add_tasks(&p, plan->main, 0, -1);
    for (int i = 0; i < plan->n_layers; i++)
        add_tasks(&p, plan->layers[i].block, plan->layers[i].weights_offset, i);

    pthread_t threads[MAX_THREADS];
    int n = 0;
    while (n < n_threads - 1 && n < MAX_THREADS && pthread_create(&threads[n], NULL, work, &p) == 0)
        n++;
    work(&p);
    while (n > 0)
        pthread_join(threads[--n], NULL);
    free(p.tasks);

    moss_weights_header header = { .magic = MOSS_WEIGHTS_MAGIC, .abi = MOSS_ABI, .model_hash = plan->hash,
                                   .data_len = (uint64_t)plan->weights_len };
    strncpy(header.name, plan->graph->name, sizeof header.name - 1);
    header.checksum = moss_checksum(p.data, header.data_len);
    memcpy(file, &header, sizeof header);
    return (WeightSums){ header.checksum, p.values };
}
