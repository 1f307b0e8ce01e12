/* Trials on a GPU: first right, then timed in pairs. */
#include "gpu_trial.h"

#include "gpu_check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_EVENTS = 256, TOKENS_A_SAMPLE = 16, REST_SAMPLES = 5, MOST_PIECES = 32, CHECKED_TOKENS = 33 };

/* ---- samples ---- */

typedef struct {
    GpuBench *bench;
    const char *key;
    BenchPass pass;
    CudaEvent events[MOST_EVENTS];
    int n_made, n_used;
    int64_t position;            /* decode: where every sample begins */
    int64_t begins[MOST_PIECES]; /* of a prompt's pieces, */
    int32_t lens[MOST_PIECES];   /* and their tokens: alive until they are read */
} Timer;

static bool fine(GpuBench *b, int result) { return cuda_check(&b->cuda, result, "cannot time", b->why, sizeof b->why); }

static bool mark(Timer *t)
{
    GpuBench *b = t->bench;
    if (t->n_used == t->n_made && (!fine(b, b->cuda.event_create(&t->events[t->n_made], 0)) || !++t->n_made))
        return false;
    return fine(b, b->cuda.event_record(t->events[t->n_used++], b->cuda.stream));
}

static bool is_timed(const Timer *t, const Launch *launch)
{
    return t->n_used + 2 <= MOST_EVENTS && (!t->key || (launch->key && strcmp(launch->key, t->key) == 0));
}

static bool before(void *context, BenchSide *side, const Launch *launch)
{
    (void)side;
    Timer *t = context;
    return !is_timed(t, launch) || mark(t);
}

static bool after(void *context, BenchSide *side, const Launch *launch)
{
    (void)side;
    Timer *t = context;
    return t->n_used % 2 == 0 || !(launch->key && strcmp(launch->key, t->key) == 0) || mark(t);
}

/* Sum of what lies between pairs of events. */
static bool elapsed(Timer *t, double *seconds)
{
    GpuBench *b = t->bench;
    *seconds = 0;
    if (!bench_wait(b))
        return false;
    for (int i = 0; i + 1 < t->n_used; i += 2) {
        float milliseconds;
        if (!fine(b, b->cuda.event_elapsed(&milliseconds, t->events[i], t->events[i + 1])))
            return false;
        *seconds += 1e-3 * (double)milliseconds;
    }
    *seconds = *seconds > 1e-9 ? *seconds : 1e-9;
    return true;
}

/* A prompt in chunks of the side's own length, the last with logits. */
static bool sample_prompt(Timer *t, BenchSide *side, double *seconds)
{
    const int n = t->pass.n_tokens, chunk = side->plan->chunk;
    bool good = mark(t);
    for (int i = 0, at = 0; at < n && i < MOST_PIECES && good; at += t->lens[i++]) {
        BenchPass pass = t->pass;
        t->begins[i] = at;
        t->lens[i] = pass.n_tokens = n - at < chunk ? n - at : chunk;
        pass.n_logits = at + pass.n_tokens == n;
        good = bench_place(side, &t->lens[i], &t->begins[i]) && bench_run(side, &pass);
    }
    return good && mark(t) && elapsed(t, seconds);
}

/* A prefill: of the key's launches, or (key NULL) of a prompt as a whole. */
static bool sample_prefill(Timer *t, BenchSide *side, double *seconds)
{
    BenchPass pass = t->pass;
    t->n_used = 0;
    if (!t->key)
        return sample_prompt(t, side, seconds);
    pass.before = before;
    pass.after = after;
    pass.context = t;
    return bench_run(side, &pass) && elapsed(t, seconds);
}

/* A token of a graph that holds one. */
static bool sample_decode(Timer *t, BenchSide *side, CudaGraphExec exec, double *seconds)
{
    GpuBench *b = t->bench;
    t->n_used = 0;
    if (!bench_input(side, t->pass.n_tokens, t->pass.n_tokens, t->position, 0, 11) || !mark(t))
        return false;
    for (int i = 0; i < TOKENS_A_SAMPLE; i++)
        if (!fine(b, b->cuda.graph_launch(exec, b->cuda.stream)))
            return false;
    if (!mark(t) || !elapsed(t, seconds))
        return false;
    *seconds /= TOKENS_A_SAMPLE;
    return true;
}

/* ---- pairs ---- */

typedef struct { BenchSide *side; CudaGraphExec exec; } Contender;

static bool sample(Timer *t, Contender *c, double *seconds)
{
    return c->exec ? sample_decode(t, c->side, c->exec, seconds) : sample_prefill(t, c->side, seconds);
}

static bool drop_graph(Contender *c)
{
    if (c->exec)
        c->side->bench->cuda.graph_exec_destroy(c->exec);
    c->exec = NULL;
    return true;
}

/* What a token takes without the kernel: the median of some. */
static bool rest_of(Timer *t, BenchSide *side, double *rest)
{
    BenchPass without = t->pass;
    double seconds[REST_SAMPLES] = { 0 };
    Contender c = { .side = side };
    without.without = t->key;
    bool good = bench_capture(side, &without, &c.exec) && sample(t, &c, rest);
    for (int i = 0; i < REST_SAMPLES && good; i++) {
        good = sample(t, &c, &seconds[i]);
        for (int j = i; good && j > 0 && seconds[j] < seconds[j - 1]; j--) {
            double x = seconds[j];
            seconds[j] = seconds[j - 1];
            seconds[j - 1] = x;
        }
    }
    *rest = seconds[REST_SAMPLES / 2];
    drop_graph(&c);
    return good;
}

static bool measure_pairs(Timer *t, Contender *candidate, Contender *incumbent, double rest, bool decides,
                          TrialPairs *pairs)
{
    double warm;
    bool good = sample(t, candidate, &warm) && sample(t, incumbent, &warm);
    for (int n = 0; n < DECIDE_MOST_PAIRS && good; n++) {
        double *const to[2] = { &pairs->candidate[n], &pairs->incumbent[n] };
        Contender *const of[2] = { candidate, incumbent };
        for (int i = 0; i < 2 && good; i++) {
            const int which = n % 2 ? 1 - i : i;
            good = sample(t, of[which], to[which]);
            *to[which] = *to[which] > rest + 1e-7 ? *to[which] - rest : 1e-7;
        }
        pairs->n = n + 1;
        if (decides ? decide_hopeless(pairs->candidate, pairs->incumbent, n + 1)
                          || decide_done(pairs->candidate, pairs->incumbent, n + 1)
                    : n + 1 >= DECIDE_LEAST_PAIRS)
            break;
    }
    return good;
}

static bool begin(BenchSide *side, int n, bool decode)
{
    const int n_first = !decode && n > side->plan->chunk ? side->plan->chunk : n;
    return bench_clear(side) && bench_input(side, n_first, decode ? n : 1, 0, 0, 5);
}

/* A prompt of n tokens, or n sequences of decode; key NULL: whole passes. */
static bool measure(GpuBench *b, BenchSide *candidate, BenchSide *incumbent, const char *key, ListId list, int n,
                    bool decides, TrialPairs *pairs)
{
    Timer *t = arena_one(b->trial, Timer);
    Contender one = { .side = candidate }, other = { .side = incumbent };
    double rest = 0;
    const bool decode = list == LIST_DECODE;
    *t = (Timer){ .bench = b, .key = key, .position = b->base->chunk < 1024 ? b->base->chunk : 1024,
                  .pass = { .list = list, .n_tokens = n, .n_logits = decode ? n : 1, .feeds = decode, .whole = !key } };
    bool good = begin(candidate, n, decode) && begin(incumbent, n, decode);
    if (decode)
        good = good && bench_capture(candidate, &t->pass, &one.exec) && bench_capture(incumbent, &t->pass, &other.exec);
    /* Without the kernel states become nonsense, from which experts are chosen: they begin anew. */
    if (decode && key)
        good = good && rest_of(t, incumbent, &rest) && begin(incumbent, n, decode);
    good = good && measure_pairs(t, &one, &other, rest, decides, pairs);
    drop_graph(&one);
    drop_graph(&other);
    for (int i = 0; i < t->n_made; i++)
        b->cuda.event_destroy(t->events[i]);
    return good;
}

/* ---- a trial ---- */

static bool fail(GpuBench *b, TrialResult *result)
{
    result->status = TRIAL_CRASHED;
    snprintf(result->detail, sizeof result->detail, "%s", b->why);
    return false;
}

static bool check(BenchSide *base, BenchSide *side, const GpuTrial *trial, double *worst, char *where, size_t len)
{
    const bool decode = trial->phase == PLAN_DECODE;
    GpuCheckRequest request = { .key = trial->key, .list = decode ? LIST_DECODE : LIST_PREFILL,
                                .same_bits = trial->same_bits, .n_tokens = { 1, trial->check_tokens },
                                .n = 2, .most_tokens = trial->check_tokens };
    if (decode)
        request.n_tokens[1] = 3;
    if (!gpu_check_kernel(base, side, &request, worst, where, len))
        return false;
    return !trial->is_default || !decode || *worst > 1
        || gpu_check_decode(base, trial->check_tokens, false, worst, where, len);
}

/* As trial.c decides: the first token count says who wins, the others may not be much slower. */
static bool time_all(GpuBench *b, BenchSide *candidate, BenchSide *incumbent, const GpuTrial *trial,
                     TrialResult *result)
{
    const ListId list = trial->phase == PLAN_DECODE ? LIST_DECODE : LIST_PREFILL;
    for (int i = 0; i < trial->n_tokens; i++) {
        TrialPairs *pairs = &result->pairs[i];
        if (!measure(b, candidate, incumbent, trial->key, list, trial->tokens[i], i == 0 && !trial->is_default, pairs))
            return fail(b, result);
        if (trial->is_default)
            continue;
        if (i == 0 && !decide_wins(pairs->candidate, pairs->incumbent, pairs->n)) {
            result->status = decide_hopeless(pairs->candidate, pairs->incumbent, pairs->n) ? TRIAL_STOPPED : TRIAL_OK;
            return true;
        }
        if (i > 0 && decide_harms(pairs->candidate, pairs->incumbent, pairs->n)) {
            result->status = TRIAL_STOPPED;
            snprintf(result->detail, sizeof result->detail, "slower at %d tokens", trial->tokens[i]);
            return true;
        }
    }
    result->status = TRIAL_OK;
    return true;
}

bool gpu_trial(GpuBench *b, BenchSide *base, const GpuTrial *trial, TrialResult *result)
{
    char where[TRIAL_DETAIL_LEN] = "";
    *result = (TrialResult){ .status = TRIAL_BUILD_FAILED, .max_error = -1 };
    BenchSide *candidate = bench_side(b, trial->candidate);
    BenchSide *incumbent = candidate ? bench_side(b, trial->incumbent) : NULL;
    bool lives = true;
    if (!candidate || !incumbent) {
        snprintf(result->detail, sizeof result->detail, "%s", b->why);
    } else if (!check(base, candidate, trial, &result->max_error, where, sizeof where)) {
        lives = fail(b, result);
    } else if (!(result->max_error <= 1)) {
        result->status = TRIAL_WRONG;
        snprintf(result->detail, sizeof result->detail, "%s", where);
    } else {
        lives = time_all(b, candidate, incumbent, trial, result);
    }
    if (lives) {
        bench_side_free(candidate);
        bench_side_free(incumbent);
    }
    return lives;
}

/* Both have run the same prompts: how far the logits of one are from the other's, in units of a tenth of their size. */
static bool compare_logits(GpuBench *b, const BenchSide *one, const BenchSide *other, double *error)
{
    const size_t n = (size_t)b->base->graph->vocab_size;
    float *got = arena_array(b->trial, float, n), *want = arena_array(b->trial, float, n);
    double square = 0, off = 0;
    if (!bench_read(b, got, one->logits, 4 * n) || !bench_read(b, want, other->logits, 4 * n))
        return false;
    for (size_t i = 0; i < n; i++) {
        square += (double)want[i] * (double)want[i];
        off += pow((double)got[i] - (double)want[i], 2);
    }
    *error = sqrt(off / square) / 0.1;
    return true;
}

bool gpu_step(GpuBench *b, const GpuStep *step, TrialResult *result)
{
    *result = (TrialResult){ .status = TRIAL_BUILD_FAILED, .max_error = -1 };
    BenchSide *candidate = bench_side(b, step->candidate);
    BenchSide *incumbent = candidate ? bench_side(b, step->incumbent) : NULL;
    if (!candidate || !incumbent) {
        snprintf(result->detail, sizeof result->detail, "%s", b->why);
        return true;
    }
    const bool prefill = step->tokens > 0;
    char where[TRIAL_DETAIL_LEN] = "";
    if (!prefill && !gpu_check_decode(candidate, CHECKED_TOKENS, true, &result->max_error, where, sizeof where))
        return fail(b, result);
    if ((prefill || result->max_error <= 1)
        && !measure(b, candidate, incumbent, NULL, prefill ? LIST_PREFILL : LIST_DECODE, prefill ? step->tokens : 1,
                    false, &result->pairs[0]))
        return fail(b, result);
    if (prefill && !compare_logits(b, candidate, incumbent, &result->max_error))
        return fail(b, result);
    bench_side_free(candidate);
    bench_side_free(incumbent);
    result->status = result->max_error <= 1 ? TRIAL_OK : TRIAL_WRONG;
    if (result->status == TRIAL_WRONG && prefill)
        snprintf(where, sizeof where, "logits after %d tokens are off by %.3g of their size", step->tokens,
                 0.1 * result->max_error);
    if (result->status == TRIAL_WRONG)
        snprintf(result->detail, sizeof result->detail, "%s", where);
    return true;
}
