/* Messages of a search by several processes, as bytes and back, checked. */
#include "mpi_protocol.h"

#include "digest.h"
#include "identity.h"

#include <math.h>
#include <string.h>

enum { MOST_JOBS = 4096, MOST_POINTS = 1 << 20, MOST_CHOICES = 1 << 16, DIGEST_DIGITS = 32 };

/* ---- hello ---- */

void mpi_put_hello(Text *to, const MpiHello *hello)
{
    const RecordKey *key = &hello->key;
    wire_put_int(to, hello->rank);
    wire_put_text(to, hello->host);
    wire_put_text(to, hello->target);
    wire_put_text(to, key->features);
    wire_put_text(to, key->device);
    wire_put_text(to, key->toolchain);
    wire_put_text(to, hello->digest);
    wire_put_int(to, hello->n_jobs);
    for (int i = 0; i < hello->n_jobs; i++) {
        wire_put_int(to, hello->n_points[i]);
        for (int p = 0; p < hello->n_points[i]; p++) {
            wire_put_text(to, hello->points[i][p]);
            wire_put_double(to, hello->costs[i][p]);
        }
    }
}

bool mpi_read_hello(WireMessage *message, Arena *arena, MpiHello *hello)
{
    *hello = (MpiHello){ .rank = (int)wire_int(message), .host = wire_text(message, arena) };
    hello->target = wire_text(message, arena);
    hello->key.features = wire_text(message, arena);
    hello->key.device = wire_text(message, arena);
    hello->key.toolchain = wire_text(message, arena);
    hello->digest = wire_text(message, arena);
    const int64_t n_jobs = wire_int(message);
    if (message->bad || n_jobs < 0 || n_jobs > MOST_JOBS)
        return false;
    hello->n_jobs = (int)n_jobs;
    const char *const **points = arena_array(arena, const char *const *, (size_t)n_jobs + 1);
    const double **costs = arena_array(arena, const double *, (size_t)n_jobs + 1);
    int *counts = arena_array(arena, int, (size_t)n_jobs + 1);
    for (int i = 0; i < n_jobs; i++) {
        const int64_t n = wire_int(message);
        if (message->bad || n < 0 || n > MOST_POINTS)
            return false;
        const char **texts = arena_array(arena, const char *, (size_t)n + 1);
        double *values = arena_array(arena, double, (size_t)n + 1);
        for (int p = 0; p < n; p++) {
            texts[p] = wire_text(message, arena);
            values[p] = wire_double(message);
        }
        counts[i] = (int)n;
        points[i] = texts;
        costs[i] = values;
    }
    hello->n_points = counts;
    hello->points = points;
    hello->costs = costs;
    return !message->bad;
}

const char *mpi_digest(Arena *arena, const Plan *plan, const Job *jobs, int n)
{
    Digest digest;
    char *text = arena_alloc(arena, DIGEST_DIGITS + 1);
    const size_t sizes[] = { sizeof(TrialResult), sizeof(StepRequest), sizeof(StepResult), sizeof(double) };
    digest_begin(&digest);
    digest_int(&digest, MPI_PROTOCOL);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        digest_int(&digest, (int64_t)sizes[i]);
    digest_int(&digest, (int64_t)plan->hash);
    digest_text(&digest, plan->quant);
    digest_text(&digest, identity_template(arena, plan->target, "step"));
    for (int i = 0; i < n; i++) {
        Text initial = { 0 };
        space_print(&jobs[i].space, &jobs[i].initial, &initial);
        digest_text(&digest, jobs[i].key);
        digest_text(&digest, jobs[i].shape);
        digest_text(&digest, initial.data ? initial.data : "");
        text_free(&initial);
        for (int t = 0; t < jobs[i].n_tokens; t++)
            digest_int(&digest, jobs[i].tokens[t]);
    }
    digest_end(&digest, text, DIGEST_DIGITS);
    return text;
}

/* ---- choices ---- */

void mpi_put_choices(Text *to, const Choices *choices)
{
    int n = 0;
    for (int i = 0; i < choices->n; i++)
        n += choices->keys[i].n;
    wire_put_int(to, n);
    for (int i = 0; i < choices->n; i++)
        for (int v = 0; v < choices->keys[i].n; v++) {
            wire_put_text(to, choices->keys[i].key);
            wire_put_text(to, choices->keys[i].at[v].name);
            wire_put_int(to, choices->keys[i].at[v].value);
        }
}

Choices *mpi_read_choices(WireMessage *message, Arena *arena)
{
    Choices *choices = choices_new(arena);
    const int64_t n = wire_int(message);
    if (n < 0 || n > MOST_CHOICES)
        message->bad = true;
    for (int64_t i = 0; i < n && !message->bad; i++) {
        const char *key = wire_text(message, arena), *name = wire_text(message, arena);
        const int64_t value = wire_int(message);
        if (!message->bad)
            choices_set(choices, key, name, value);
    }
    return message->bad ? NULL : choices;
}

/* ---- results ---- */

static bool good_samples(const double *samples, int n)
{
    for (int i = 0; i < n; i++)
        if (!(samples[i] > 0 && isfinite(samples[i])))
            return false;
    return true;
}

static bool good_pairs(const TrialPairs *pairs)
{
    return pairs->n >= 0 && pairs->n <= DECIDE_MOST_PAIRS && good_samples(pairs->candidate, pairs->n)
        && good_samples(pairs->incumbent, pairs->n);
}

bool mpi_read_trial(WireMessage *message, int n_times, TrialResult *result)
{
    wire_bytes(message, result, sizeof *result);
    result->detail[TRIAL_DETAIL_LEN - 1] = '\0';
    bool good = !message->bad && (unsigned)result->status < N_TRIAL_STATUSES && !result->interrupted;
    for (int i = 0; i < TRIAL_MAX_WORKS && good; i++)
        good = good_pairs(&result->pairs[i]) && (i < n_times || result->pairs[i].n == 0);
    return good && (result->status != TRIAL_OK || result->pairs[0].n > 0);
}

/* Paths mean nothing elsewhere. */
void mpi_put_whole(Text *to, const StepRequest *request, const StepResult *result)
{
    StepRequest bare = *request;
    bare.untuned = bare.tuned = bare.weights = bare.folder = NULL;
    wire_put_bytes(to, &bare, sizeof bare);
    wire_put_bytes(to, result, sizeof *result);
}

bool mpi_read_whole(WireMessage *message, StepRequest *request, StepResult *result)
{
    wire_bytes(message, request, sizeof *request);
    wire_bytes(message, result, sizeof *result);
    request->untuned = request->tuned = request->weights = request->folder = NULL;
    result->detail[TRIAL_DETAIL_LEN - 1] = '\0';
    bool good = !message->bad && (unsigned)result->status < N_TRIAL_STATUSES && request->n_chunks >= 0
        && request->n_chunks <= STEP_MAX_CHUNKS && request->n_variants >= 0 && request->n_variants <= STEP_MAX_VARIANTS
        && good_pairs(&result->prefill) && good_pairs(&result->decode);
    for (int i = 0; i < STEP_MAX_CHUNKS && good; i++)
        good = good_pairs(&result->chunks[i]);
    for (int i = 0; i < STEP_MAX_VARIANTS && good; i++)
        good = good_pairs(&result->variants[i])
            && memchr(request->variants[i].name, 0, sizeof request->variants[i].name);
    return good && (result->status != TRIAL_OK || (result->prefill.n > 0 && result->decode.n > 0));
}
