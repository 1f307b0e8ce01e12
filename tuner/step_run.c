/* Step run: the child's work. Both models are open at once and share the file of weights; pairs of prefills and
 * of decodes go in turn, by the clock on the wall, since several threads work.
 */
#include "step_run.h"

#include "library.h"
#include "watch.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STEP_LEAST_PAIRS = 11, STEP_CHUNK_PAIRS = 11, ERROR_LEN = 256 };
enum { MOST_CPUS = 64, GENERATED = 128, LOST_PAIRS = 5 };
static const double allowed_error = 1e-3;      /* of the largest logit, where keys are walked in other blocks */

typedef struct {
    Library *library;
    void *model, *context, *state;
    float *logits;                   /* [vocab_size] */
    int64_t n_context;
    int n_threads, cpus[MOST_CPUS];  /* that they are bound to */
    bool bind;
} Side;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *memory(int64_t len)
{
    void *data = NULL;
    return len > 0 && posix_memalign(&data, 64, (size_t)len) == 0 ? data : NULL;
}

/* Calls a function that gives 0 when it is well; words of its error otherwise. */
static bool call(Side *side, const char *name, const LibraryValue *values, int n, const char *error, char *why,
                 size_t why_len)
{
    bool ok;
    int64_t status = library_call(side->library, name, values, n, &ok);
    if (ok && status == 0)
        return true;
    snprintf(why, why_len, "%s: %s", name, ok ? error : "the manifest has no such function");
    return false;
}

static int64_t number(Side *side, const char *name, LibraryValue value, int n)
{
    bool ok;
    int64_t result = library_call(side->library, name, &value, n, &ok);
    return ok ? result : 0;
}

#define POINTER(p) { .pointer = (void *)(uintptr_t)(p) }

static bool open_side(Side *side, const StepRequest *r, const char *path, char *why, size_t why_len)
{
    char error[ERROR_LEN] = "";
    side->n_threads = side->n_threads ? side->n_threads : r->n_threads;
    side->library = library_load(path, why, why_len);
    if (!side->library)
        return false;
    side->n_context = r->n_tokens + STEP_DECODED;
    side->model = memory(number(side, "model_len", (LibraryValue){ .i32 = 0 }, 0));
    side->context = memory(number(side, "context_len", (LibraryValue){ .i32 = side->n_threads }, 1));
    side->state = memory(number(side, "state_len", (LibraryValue){ .i64 = side->n_context }, 1));
    side->logits = memory((int64_t)r->vocab_size * 4);
    if (!side->model || !side->context || !side->state || !side->logits)
        return snprintf(why, why_len, "no memory for a model"), false;
    const LibraryValue open[] = { POINTER(side->model), POINTER(r->weights), { .i32 = 0 }, POINTER(error) };
    const LibraryValue init[] = { POINTER(side->context), POINTER(side->model), { .i32 = side->n_threads },
                                  POINTER(side->bind ? side->cpus : NULL), POINTER(error) };
    return call(side, "model_open", open, 4, error, why, why_len)
        && call(side, "context_init", init, 5, error, why, why_len);
}

static bool begin_state(Side *side, char *why, size_t why_len)
{
    char error[ERROR_LEN] = "";
    const LibraryValue values[] = { POINTER(side->state), { .i64 = side->n_context }, POINTER(error) };
    return call(side, "state_init", values, 3, error, why, why_len);
}

/* Seconds; negative after writing why. */
static double eval(Side *side, const int32_t *tokens, int n, int chunk, char *why, size_t why_len)
{
    char error[ERROR_LEN] = "";
    const LibraryValue values[] = { POINTER(side->context), POINTER(side->state), { .i32 = 0 }, { .i32 = chunk },
                                    POINTER(tokens),
                                    { .i32 = n }, POINTER(side->logits), { .i32 = 1 }, POINTER(error) };
    double begin = now();
    return call(side, "eval", values, 9, error, why, why_len) ? now() - begin : -1;
}

static double prefill(Side *side, const StepRequest *r, const int32_t *tokens, int chunk, char *why, size_t why_len)
{
    return begin_state(side, why, why_len) ? eval(side, tokens, r->n_tokens, chunk, why, why_len) : -1;
}

/* Of one token, after a prefill. */
static double decode(Side *side, const int32_t *tokens, char *why, size_t why_len)
{
    double sum = 0;
    for (int i = 0; i < STEP_DECODED; i++) {
        double seconds = eval(side, tokens + i, 1, 0, why, why_len);
        if (seconds < 0)
            return -1;
        sum += seconds;
    }
    return sum / STEP_DECODED;
}

static uint64_t hash_logits(const StepRequest *r, const Side *side)
{
    const uint8_t *bytes = (const uint8_t *)side->logits;
    uint64_t hash = 0xCBF29CE484222325u;
    for (size_t i = 0; i < (size_t)r->vocab_size * sizeof *side->logits; i++)
        hash = (hash ^ bytes[i]) * 0x100000001B3u;
    return hash;
}

static void compare_logits(const StepRequest *r, const Side *tuned, const Side *untuned, StepResult *result)
{
    double most = 1e-30;
    for (int i = 0; i < r->vocab_size; i++)
        most = fabs(untuned->logits[i]) > most ? fabs(untuned->logits[i]) : most;
    for (int i = 0; i < r->vocab_size; i++) {
        double error = r->same_bits ? (memcmp(&tuned->logits[i], &untuned->logits[i], 4) ? INFINITY : 0)
                                    : fabs(tuned->logits[i] - untuned->logits[i]) / most / allowed_error;
        if (!(error <= result->max_error))
            result->max_error = error == error ? error : INFINITY;
    }
    if (!(result->max_error <= 1)) {
        result->status = TRIAL_WRONG;
        snprintf(result->detail, sizeof result->detail, "its logits are not those of the untuned model");
    }
}

/* A pair; which side comes first changes. False after writing why. */
static bool measure_pair(TrialPairs *prefills, TrialPairs *decodes, Side *sides[2], const int chunks[2],
                         const StepRequest *r,
                         const int32_t *tokens, int i, char *why, size_t why_len)
{
    for (int turn = 0; turn < 2; turn++) {
        int s = (i + turn) % 2;
        double first = prefill(sides[s], r, tokens, chunks[s], why, why_len);
        double then = first < 0 || !decodes ? first : decode(sides[s], tokens, why, why_len);
        if (then < 0)
            return false;
        (s ? prefills->incumbent : prefills->candidate)[i] = first;
        if (decodes)
            (s ? decodes->incumbent : decodes->candidate)[i] = then;
    }
    return true;
}

/* Both phases: a noisy machine gets more pairs before it is believed. */
static bool is_settled(const StepResult *result)
{
    const TrialPairs *prefill = &result->prefill, *decode = &result->decode;
    return prefill->n >= DECIDE_MOST_PAIRS
        || (prefill->n >= STEP_LEAST_PAIRS && decide_slower_settled(prefill->candidate, prefill->incumbent, prefill->n)
            && decide_slower_settled(decode->candidate, decode->incumbent, decode->n));
}

/* Whole models take seconds: what does not gain 1 % in five pairs is not measured on. */
static bool is_lost(const TrialPairs *pairs)
{
    return decide_hopeless(pairs->candidate, pairs->incumbent, pairs->n)
        || (pairs->n >= LOST_PAIRS && decide_ratio(pairs->candidate, pairs->incumbent, pairs->n) > 0.99);
}

bool step_variant_is_built(const StepVariant *variant)
{
    return strcmp(variant->name, "threads") != 0 && strcmp(variant->name, "bind") != 0;
}

/* The processors this process may use, for `bind`; false: fewer than threads. */
static bool find_cpus(Side *side, int n_threads, cpu_set_t *all)
{
    int n = 0;
    if (sched_getaffinity(0, sizeof *all, all) != 0)
        return false;
    for (int cpu = 0; cpu < CPU_SETSIZE && n < MOST_CPUS; cpu++)
        if (CPU_ISSET((size_t)cpu, all))
            side->cpus[n++] = cpu;
    return n >= n_threads;
}

/* The thread that calls is one of the team's: bound with it, free beside one that is not. */
static void place_caller(const Side *side, const cpu_set_t *all)
{
    cpu_set_t own;
    CPU_ZERO(&own);
    CPU_SET((size_t)side->cpus[0], &own);
    sched_setaffinity(0, sizeof own, side->bind ? &own : all);
}

/* Pairs of a prompt and GENERATED tokens after it, of sides that differ in their threads. */
static bool measure_threads(const StepRequest *r, Side *sides[2], const cpu_set_t *all, const int32_t *tokens,
                            TrialPairs *pairs, char *why, size_t len)
{
    for (int i = 0; i < STEP_CHUNK_PAIRS; i++) {
        for (int turn = 0; turn < 2; turn++) {
            const int s = (i + turn) % 2;
            place_caller(sides[s], all);
            const double first = prefill(sides[s], r, tokens, 0, why, len);
            const double then = first < 0 ? -1 : decode(sides[s], tokens, why, len);
            if (then < 0)
                return false;
            (s ? pairs->incumbent : pairs->candidate)[i] = first + GENERATED * then;
        }
        pairs->n = i + 1;
        if (is_lost(pairs))
            break;
    }
    return true;
}

/* One variant beside the tuned model, whose logits it must give to the bit. */
static bool measure_variant(const StepRequest *r, int v, Side *tuned, const int32_t *tokens, StepResult *result)
{
    char path[4096], *why = result->detail;
    const size_t len = sizeof result->detail;
    const int none[2] = { 0, 0 };
    TrialPairs *pairs = &result->variants[v];
    const StepVariant *variant = &r->variants[v];
    const bool built = step_variant_is_built(variant);
    Side other = { .bind = strcmp(variant->name, "bind") == 0, .n_threads = built ? 0 : r->n_threads };
    Side *sides[2] = { &other, tuned };
    cpu_set_t all;
    if (strcmp(variant->name, "threads") == 0)
        other.n_threads = variant->value;
    if (!find_cpus(&other, other.n_threads, &all))
        return true;                   /* nothing to bind them to */
    if (built)
        snprintf(path, sizeof path, "%s/%s-%d.so", r->folder, variant->name, variant->value);
    else
        snprintf(path, sizeof path, "%s", r->tuned);
    if (!open_side(&other, r, path, why, len) || prefill(&other, r, tokens, 0, why, len) < 0
        || prefill(tuned, r, tokens, 0, why, len) < 0)
        return false;
    if (memcmp(other.logits, tuned->logits, (size_t)r->vocab_size * 4) != 0) {
        result->status = TRIAL_WRONG;
        snprintf(why, len, "its logits are others with %s=%d", variant->name, variant->value);
        return false;
    }
    if (!built) {
        const bool good = measure_threads(r, sides, &all, tokens, pairs, why, len);
        sched_setaffinity(0, sizeof all, &all);
        return good;
    }
    for (int i = 0; i < STEP_CHUNK_PAIRS; i++) {
        if (!measure_pair(pairs, NULL, sides, none, r, tokens, i, why, len))
            return false;
        pairs->n = i + 1;
        if (is_lost(pairs))
            break;
    }
    return true;
}

static bool measure(const StepRequest *r, Side *tuned, Side *untuned, const int32_t *tokens, StepResult *result)
{
    char *why = result->detail;
    const size_t len = sizeof result->detail;
    Side *sides[2] = { tuned, untuned }, *same[2] = { tuned, tuned };
    const int none[2] = { 0, 0 };
    for (int i = 0; i < 2; i++)
        if (prefill(sides[i], r, tokens, 0, why, len) < 0)
            return false;
    result->bits = hash_logits(r, untuned);
    compare_logits(r, tuned, untuned, result);
    for (int i = 0; result->status != TRIAL_WRONG && !is_settled(result); i++) {
        if (!measure_pair(&result->prefill, &result->decode, sides, none, r, tokens, i, why, len))
            return false;
        result->prefill.n = result->decode.n = i + 1;
    }
    for (int c = 0; c < r->n_chunks && result->status != TRIAL_WRONG; c++) {
        const int chunks[2] = { r->chunks[c], 0 };
        for (int i = 0; i < STEP_CHUNK_PAIRS; i++) {
            if (!measure_pair(&result->chunks[c], NULL, same, chunks, r, tokens, i, why, len))
                return false;
            result->chunks[c].n = i + 1;
            if (is_lost(&result->chunks[c]))
                break;
        }
    }
    for (int v = 0; v < r->n_variants && result->status != TRIAL_WRONG; v++)
        if (!measure_variant(r, v, tuned, tokens, result))
            return false;
    return true;
}

typedef struct { const StepRequest *request; StepResult *shared; } ChildWork;

static void child(void *context)
{
    const ChildWork *work = context;
    const StepRequest *r = work->request;
    StepResult *result = work->shared;
    Side tuned = { 0 }, untuned = { 0 };
    int32_t *tokens = memory(4 * (int64_t)(r->n_tokens + STEP_DECODED));
    uint64_t random = 88172645463325252u;
    result->status = TRIAL_RUNNER_FAILED;
    if (!tokens || !open_side(&untuned, r, r->untuned, result->detail, sizeof result->detail)
        || !open_side(&tuned, r, r->tuned, result->detail, sizeof result->detail))
        return;
    for (int i = 0; i < r->n_tokens + STEP_DECODED; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        tokens[i] = (int32_t)((random >> 33) % (uint64_t)r->vocab_size);
    }
    if (measure(r, &tuned, &untuned, tokens, result) && result->status != TRIAL_WRONG) {
        result->status = TRIAL_OK;
        result->detail[0] = '\0';
    }
}

void step_run(const StepRequest *request, StepResult *result)
{
    *result = (StepResult){ .status = TRIAL_RUNNER_FAILED };
    StepResult *shared = watch_memory(sizeof *shared);
    if (!shared)
        return;
    ChildWork work = { request, shared };
    Watched end = watch_run(child, &work, request->deadline);
    *result = *shared;
    result->interrupted = end.interrupted;
    if (end.status != TRIAL_OK) {
        result->status = end.status;
        snprintf(result->detail, sizeof result->detail, "%s", end.detail);
    }
    watch_release(shared, sizeof *shared);
}
