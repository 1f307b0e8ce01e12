/* A worker: a loop over what rank 0 says.
 *
 * What goes wrong here is told to rank 0, which finds another worker; this process ends well in any case, since mpirun
 * would end all others with it.
 */
#include "mpi_worker.h"

#include "cost.h"
#include "mpi_protocol.h"
#include "search_measure.h"
#include "../compiler/interrupt.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const double connect_seconds = 10;

typedef struct {
    const TuneOptions *o;
    Compilation c;               /* with diagnostics of its own */
    Wire wire;
    SearchRun run;
    SearchState *current;        /* whose workloads are there */
    OutFolder folder;
    const char *token;
    int rank;
} Worker;

/* ---- who this is ---- */

static void put_job(Arena *arena, const Job *job, const char *const **texts, const double **costs)
{
    const char **list = arena_array(arena, const char *, (size_t)job->n_points + 1);
    double *values = arena_array(arena, double, (size_t)job->n_points + 1);
    for (int p = 0; p < job->n_points; p++) {
        Text text = { 0 };
        space_print(&job->space, &job->points[p], &text);
        list[p] = arena_strdup(arena, text.data);
        text_free(&text);
        values[p] = cost_of_point(job, &job->points[p], job->tokens[0]);
    }
    *texts = list;
    *costs = values;
}

static void put_points(Arena *arena, const Job *jobs, int n, MpiHello *hello)
{
    const char *const **points = arena_array(arena, const char *const *, (size_t)n + 1);
    const double **costs = arena_array(arena, const double *, (size_t)n + 1);
    int *counts = arena_array(arena, int, (size_t)n + 1);
    for (int i = 0; i < n; i++) {
        counts[i] = jobs[i].n_points;
        put_job(arena, &jobs[i], &points[i], &costs[i]);
    }
    hello->n_jobs = n;
    hello->n_points = counts;
    hello->points = points;
    hello->costs = costs;
}

/* Everything that this machine needs to measure. False after reporting. */
static bool prepare(Worker *w)
{
    Compilation *c = &w->c;
    if (!tune_check_target(c) || !driver_plan(c, false))
        return false;
    w->run = (SearchRun){ .arena = c->arena, .diags = c->diags, .plan = c->plan, .journal = { .seed = w->o->seed } };
    if (!tune_identify(c, &w->run) || !tune_make_folder(c, &w->folder))
        return false;
    tune_set_builder(w->o, &w->folder, &w->run);
    const Job *jobs = jobs_of_plan(c->arena, c->plan, &w->run.n_states);
    w->run.states = arena_array(c->arena, SearchState, (size_t)w->run.n_states + 1);
    for (int i = 0; i < w->run.n_states; i++)
        w->run.states[i] = (SearchState){ .job = &jobs[i], .incumbent = SEARCH_DEFAULT };
    return true;
}

static bool say_hello(Worker *w)
{
    char host[256] = "unknown";
    Text text = { 0 };
    gethostname(host, sizeof host - 1);
    MpiHello hello = { .rank = w->rank, .host = host, .target = target_info(w->c.target)->name, .key = w->run.key };
    const Job *jobs = w->run.n_states ? w->run.states[0].job : NULL;      /* one array */
    hello.digest = mpi_digest(w->c.arena, w->c.plan, jobs, w->run.n_states);
    put_points(w->c.arena, jobs, w->run.n_states, &hello);
    wire_put_text(&text, w->token);
    mpi_put_hello(&text, &hello);
    return wire_send(&w->wire, MPI_HELLO, &text);
}

/* ---- what it does ---- */

static SearchState *state_of(Worker *w, WireMessage *message)
{
    const int64_t i = wire_int(message);
    message->bad |= i < 0 || i >= w->run.n_states;
    return message->bad ? NULL : &w->run.states[i];
}

static int point_of(const SearchState *s, WireMessage *message)
{
    const int64_t point = wire_int(message);
    message->bad |= !s || point < SEARCH_DEFAULT || point >= s->job->n_points;
    return message->bad ? SEARCH_DEFAULT : (int)point;
}

/* Each false when it is to end: after reporting, or since a signal came or rank 0 is gone. */
static bool build(Worker *w, WireMessage *message)
{
    int points[SEARCH_BATCH];
    SearchState *s = state_of(w, message);
    const int64_t n = wire_int(message);
    message->bad |= n < 0 || n > SEARCH_BATCH;
    for (int i = 0; i < n && !message->bad; i++)
        points[i] = point_of(s, message);
    if (message->bad)
        return false;
    if (w->current && w->current != s)
        search_measure_end(w->current);
    w->current = s;
    return search_build(&w->run, s, points, (int)n);
}

static bool try_point(Worker *w, WireMessage *message)
{
    TrialResult result;
    Text text = { 0 };
    SearchState *s = state_of(w, message);
    const int point = point_of(s, message), incumbent = point_of(s, message);
    if (message->bad || !search_measure(&w->run, s, point, incumbent, &result))
        return false;
    wire_put_bytes(&text, &result, sizeof result);
    return wire_send(&w->wire, MPI_TRY, &text);
}

static bool measure_peaks(Worker *w)
{
    double operations = 0, bytes = 0;
    Text text = { 0 };
    tune_measure_ceilings(&w->run, &operations, &bytes);
    wire_put_double(&text, operations);
    wire_put_double(&text, bytes);
    return !interrupt_came() && wire_send(&w->wire, MPI_PEAKS, &text);
}

/* Memory, and a GPU, that only single kernels need. */
static void let_go(Worker *w)
{
    if (w->current)
        search_measure_end(w->current);
    w->current = NULL;
    search_measure_free(&w->run);
}

static bool measure_whole(Worker *w, WireMessage *message)
{
    StepRequest request;
    StepResult result;
    Text text = { 0 };
    const Choices *choices = mpi_read_choices(message, w->c.arena);
    let_go(w);
    if (!choices || !step_measure(&w->c, w->c.plan, w->folder.path, NULL, choices, &request, &result))
        return false;
    mpi_put_whole(&text, &request, &result);
    return wire_send(&w->wire, MPI_WHOLE, &text);
}

static bool obey(Worker *w, WireMessage *message)
{
    switch ((MpiMessage)message->kind) {
    case MPI_BUILD: return build(w, message);
    case MPI_TRY:   return try_point(w, message);
    case MPI_PEAKS: return measure_peaks(w);
    case MPI_WHOLE: return measure_whole(w, message);
    default:        return false;
    }
}

/* Words of what was reported here, for rank 0 to print. */
static void tell_failure(Worker *w)
{
    Text words = { 0 }, text = { 0 };
    if (!diags_failed(w->c.diags))
        return;
    diags_print(w->c.diags, &words);
    wire_put_text(&text, w->token);
    wire_put_int(&text, w->rank);
    wire_put_text(&text, words.data ? words.data : "");
    text_free(&words);
    wire_send(&w->wire, MPI_FAILED, &text);
}

void mpi_work(const TuneOptions *o, const Mpi *mpi, const char *token, const char *address)
{
    Worker w = { .o = o, .c = *o->c, .token = token, .rank = mpi->rank };
    w.c.diags = diags_new(w.c.arena);
    char greeting[MPI_GREETING_LEN + 1];
    snprintf(greeting, sizeof greeting, "%.*s", MPI_GREETING_LEN, token);
    w.wire.fd = wire_connect(address, connect_seconds, greeting);
    if (w.wire.fd < 0) {
        fprintf(stderr, "rank %d: rank 0 cannot be reached at%s\n", mpi->rank, address);
        return;
    }
    bool ok = prepare(&w) && say_hello(&w);
    WireMessage message;
    while (ok && wire_wait(&w.wire, &message) && message.kind != MPI_END)
        ok = obey(&w, &message);
    if (!interrupt_came())
        tell_failure(&w);
    wire_close(&w.wire);
    let_go(&w);
    if (w.folder.path)
        out_folder_remove(&w.folder);
    interrupt_check();
}
