/* Checks of kernels on a GPU: what the default leaves is kept, what the candidate leaves is compared with it. */
#include "gpu_check.h"

#include "../codegen/template.h"
#include "../ir/dtype.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_KEPT = 512, MOST_LAUNCHES = 12 };
typedef enum { OF_ACT, OF_F32, OF_OTHER } ElementKind;

typedef struct { int launch, arg; size_t len; ElementKind kind; uint8_t *bytes; } Kept;

typedef struct {
    const GpuCheckRequest *request;
    const BenchPass *pass;
    Kept kept[MOST_KEPT];
    int n_kept, layer, n_seen, rows;     /* rows: of the list's buffers */
    bool keeps, inside, lost;            /* keeps: the default runs; inside: the kernel's layer has begun */
    void *before;                        /* of a product that adds to what is there */
    double worst;
    char *where;
    size_t where_len;
} Comparison;

static const char *template_of(const BenchSide *side, const Launch *launch)
{
    return side->plan->launches->kernels[launch->kernel].template;
}

/* What an argument points to, by its type in the template. */
static ElementKind kind_of(const BenchSide *side, const Launch *launch, int arg)
{
    const Template *template = template_find_gpu(side->bench->trial, template_of(side, launch));
    const char *type = NULL, *name = NULL, *at = template->args;
    for (int i = 0; i <= arg && at; i++)
        at = template_next_argument(at + 1, &type, &name);     /* past ( or , */
    if (!type)
        return OF_OTHER;
    return strncmp(type, "act_t", 5) == 0 ? OF_ACT : strncmp(type, "float", 5) == 0 ? OF_F32 : OF_OTHER;
}

static bool is_key(const Comparison *c, const Launch *launch)
{
    return launch->key && strcmp(launch->key, c->request->key) == 0;
}

/* Bytes of an output that this pass writes; 0: not known by rows. */
static size_t written_len(const Comparison *c, const BenchSide *side, const Launch *launch, int i)
{
    const LaunchArg *arg = &side->plan->launches->args[launch->first_arg + i];
    if (arg->kind == ARG_LOGITS)
        return 4 * (size_t)c->pass->n_logits * (size_t)side->plan->graph->vocab_size;
    if (arg->kind != ARG_SCRATCH || arg->offset != 0 || (arg->access != ACCESS_WRITE && arg->access != ACCESS_UPDATE)
        || arg->buffer->len % c->rows != 0)
        return 0;
    return (size_t)(arg->buffer->len / c->rows) * (size_t)c->pass->n_tokens;
}

/* ---- the default ---- */

static bool keep(Comparison *c, BenchSide *side, const Launch *launch, int index)
{
    for (int i = 0; i < launch->n_args; i++) {
        const size_t len = written_len(c, side, launch, i);
        const ElementKind kind = kind_of(side, launch, i);
        if (len == 0 || kind == OF_OTHER || c->n_kept == MOST_KEPT)
            continue;
        Kept *k = &c->kept[c->n_kept++];
        *k = (Kept){ index, i, len, kind, arena_alloc(side->bench->trial, len) };
        if (!bench_read(side->bench, k->bytes, bench_address(side, launch, i), len))
            return false;
    }
    return true;
}

/* ---- the candidate ---- */

static double number(const Kept *k, const uint8_t *bytes, size_t i, int act)
{
    uint16_t bits;
    float value;
    if (k->kind == OF_F32)
        return memcpy(&value, bytes + 4 * i, 4), value;
    memcpy(&bits, bytes + 2 * i, 2);
    return act == 1 ? dtype_bf16_to_f32(bits) : dtype_f16_to_f32(bits);
}

static double mean_size(const Kept *k, size_t n, int act)
{
    double sum = 0;
    size_t counted = 0;
    for (size_t i = 0; i < n; i++) {
        const double x = fabs(number(k, k->bytes, i, act));
        if (x < 1e30) {
            sum += x * x;
            counted++;
        }
    }
    return counted ? sqrt(sum / (double)counted) : 0;
}

static void say(Comparison *c, const char *template, const Kept *k, size_t i, double got, double want)
{
    snprintf(c->where, c->where_len, "%d tokens, argument %d of %s, element %zu: %.9g, expected %.9g",
             c->pass->n_tokens, k->arg, template, i, got, want);
}

/* What may be off of the typical size. Attention's weights are rounded to activations relative to a score that depends
 * on the blocks of keys: a few half units of their last place. */
static double typical_share(const Comparison *c, int act)
{
    return 2e-4 + (strncmp(c->request->key, "attention", 9) == 0 ? act == 1 ? 0x1p-6 : 0x1p-9 : 0);
}

/* Equal bits are equal, NaNs in padding too. */
static void compare_one(Comparison *c, const Kept *k, const uint8_t *got, const char *template, int act)
{
    const size_t size = k->kind == OF_F32 ? 4 : 2, n = k->len / size;
    const double typical = mean_size(k, n, act), ulp = k->kind == OF_F32 ? 0 : act == 1 ? 0x1p-7 : 0x1p-10;
    const double share = typical_share(c, act);
    for (size_t i = 0; i < n && !(c->worst == INFINITY); i++) {
        if (memcmp(got + size * i, k->bytes + size * i, size) == 0)
            continue;
        const double a = number(k, got, i, act), b = number(k, k->bytes, i, act);
        if (!(b == b) && !(a == a))
            continue;
        double error = fabs(a - b) / (share * typical + (1e-4 + ulp) * fabs(b) + 1e-30);
        if (c->request->same_bits || !(error == error))
            error = INFINITY;
        if (error > c->worst) {
            c->worst = error;
            say(c, template, k, i, a, b);
        }
    }
}

static bool compare(Comparison *c, BenchSide *side, const Launch *launch, int index)
{
    for (int j = 0; j < c->n_kept; j++) {
        const Kept *k = &c->kept[j];
        if (k->launch != index || written_len(c, side, launch, k->arg) != k->len)
            continue;
        uint8_t *got = arena_alloc(side->bench->trial, k->len);
        if (!bench_read(side->bench, got, bench_address(side, launch, k->arg), k->len))
            return false;
        compare_one(c, k, got, template_of(side, launch), side->plan->launches->act);
    }
    return true;
}

/* ---- both ---- */

static bool before(void *context, BenchSide *side, const Launch *launch)
{
    Comparison *c = context;
    if (c->keeps || !is_key(c, launch) || !gpu_is_product(side, launch))
        return true;
    const size_t len = gpu_product_out_len(side, launch, c->pass);
    c->before = arena_alloc(side->bench->trial, len);
    return bench_read(side->bench, c->before, bench_address(side, launch, 0), len);
}

/* From the kernel's first launch to the end of its layer. */
static bool after(void *context, BenchSide *side, const Launch *launch)
{
    Comparison *c = context;
    const int index = (int)(launch - side->plan->launches->launches) - side->plan->launches->lists[c->pass->list].begin;
    if (!c->inside && c->n_seen == 0 && is_key(c, launch)) {
        c->inside = true;
        c->layer = launch->layer;
    }
    c->inside = c->inside && launch->layer == c->layer && c->n_seen < MOST_LAUNCHES;
    if (!c->inside)
        return true;
    c->n_seen++;
    if (!c->keeps && is_key(c, launch) && gpu_is_product(side, launch)) {
        double worst;
        char where[BENCH_WORDS] = "";
        if (!gpu_product_check(side, c->pass, launch, c->before, &worst, where, sizeof where))
            return false;
        if (worst > c->worst) {
            c->worst = worst;
            snprintf(c->where, c->where_len, "%s", where);
        }
    }
    return (c->keeps ? keep : compare)(c, side, launch, index);
}

static bool run_one(Comparison *c, BenchSide *side, const BenchPass *pass)
{
    BenchPass watched = *pass;
    watched.before = before;
    watched.after = after;
    watched.context = c;
    c->pass = pass;
    c->inside = false;
    c->n_seen = 0;
    c->rows = pass->list == LIST_PREFILL ? side->plan->chunk : BENCH_ROWS;
    return bench_run(side, &watched) && bench_wait(side->bench);
}

/* Of decode, every slot's sequence sees a prompt of its own first: by the same kernels in both. */
static bool prepare(BenchSide *side, const GpuCheckRequest *r, int n, uint64_t seed)
{
    const BenchPass prompt = { .list = LIST_PREFILL, .n_tokens = r->most_tokens };
    if (!bench_clear(side))
        return false;
    if (r->list == LIST_PREFILL)
        return bench_input(side, n, 1, 0, 0, seed);
    for (int s = 0; s < n; s++)
        if (!bench_input(side, r->most_tokens, 1, 0, s, seed + 1 + (uint64_t)s) || !bench_run(side, &prompt))
            return false;
    return bench_wait(side->bench) && bench_input(side, n, n, r->most_tokens, 0, seed);
}

bool gpu_check_kernel(BenchSide *base, BenchSide *side, const GpuCheckRequest *r, double *worst, char *where,
                      size_t where_len)
{
    where[0] = '\0';
    *worst = 0;
    for (int i = 0; i < r->n && *worst <= 1; i++) {
        const int n = r->n_tokens[i];
        const BenchPass pass = { .list = r->list, .n_tokens = n, .n_logits = r->list == LIST_PREFILL ? 1 : n };
        Comparison *c = arena_one(base->bench->trial, Comparison);
        *c = (Comparison){ .request = r, .keeps = true, .where = where, .where_len = where_len };
        if (!prepare(base, r, n, 7 + (uint64_t)i) || !prepare(side, r, n, 7 + (uint64_t)i) || !run_one(c, base, &pass))
            return false;
        c->keeps = false;
        if (!run_one(c, side, &pass))
            return false;
        *worst = c->worst > *worst ? c->worst : *worst;
    }
    if (!bench_guards_live(side)) {
        *worst = INFINITY;
        snprintf(where, where_len, "%s", side->bench->why);
    }
    return true;
}

/* The logits after `n` tokens by prefill, or with the last of them by decode (whole: as an artifact does that). */
static bool last_logits(BenchSide *side, int n, bool decodes, bool as_whole, uint64_t seed, float *logits)
{
    const BenchPass whole = { .list = LIST_PREFILL, .n_tokens = decodes ? n - 1 : n, .n_logits = 1 };
    const BenchPass one = { .list = LIST_DECODE, .n_tokens = 1, .n_logits = 1, .whole = as_whole };
    int32_t token;
    if (!bench_clear(side) || !bench_input(side, n, 1, 0, 0, seed)
        || !bench_read(side->bench, &token, side->tokens + 4 * (CudaPointer)(n - 1), 4)
        || !bench_input(side, whole.n_tokens, 1, 0, 0, seed) || !bench_run(side, &whole) || !bench_wait(side->bench))
        return false;
    if (decodes && (!bench_input(side, 1, 1, n - 1, 0, seed) || !bench_write(side->bench, side->tokens, &token, 4)
                    || !bench_run(side, &one) || !bench_wait(side->bench)))
        return false;
    return bench_read(side->bench, logits, side->logits, 4 * (size_t)side->plan->graph->vocab_size);
}

/* Prefill and decode round in other places, which now and then makes a router choose another expert: of three prompts
 * the best counts. */
bool gpu_check_decode(BenchSide *base, int n_tokens, bool whole, double *worst, char *where, size_t where_len)
{
    const size_t n = (size_t)base->plan->graph->vocab_size;
    float *prefilled = arena_array(base->bench->trial, float, n), *decoded = arena_array(base->bench->trial, float, n);
    *worst = INFINITY;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        double square = 0, off = 0;
        if (!last_logits(base, n_tokens, false, whole, seed, prefilled)
            || !last_logits(base, n_tokens, true, whole, seed, decoded))
            return false;
        for (size_t i = 0; i < n; i++) {
            square += (double)prefilled[i] * (double)prefilled[i];
            off += pow((double)decoded[i] - (double)prefilled[i], 2);
        }
        const double error = sqrt(off / square) / 0.1;
        *worst = error < *worst ? error : *worst;
    }
    snprintf(where, where_len, "logits of decode after %d tokens are off those of prefill by %.3g of their size",
             n_tokens, *worst * 0.1);
    return true;
}
