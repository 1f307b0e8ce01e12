/* Rank 0: one loop over what workers say.
 *
 * Workers that are alike in target, device and C compiler share one search; each other kind has its own, with its own
 * records. Invariant: a batch is with one worker at most; when that is lost, what is left of it goes to the next that
 * is free, and what came of a trial is in the database before the worker gets another.
 */
#include "mpi_owner.h"

#include "mpi_groups.h"
#include "progress.h"
#include "search_work.h"
#include "../compiler/interrupt.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 1024, POLL_MS = 200 };
static const double join_seconds = 90, patience_seconds = 900, whole_seconds = 4 * 3600;

/* NEW: has said nothing yet. */
typedef enum { WORKER_NEW, WORKER_IDLE, WORKER_PEAKS, WORKER_TRIES, WORKER_WHOLE, WORKER_GONE } WorkerPhase;
typedef struct {
    Wire wire;
    WorkerPhase phase;
    Group *group;
    const char *name;            /* "rank 2 (host)" */
    SearchBatch batch;           /* of TRIES */
    double deadline;             /* by the clock: when no answer is expected any more */
} Worker;

typedef struct {
    const TuneOptions *o;
    Groups groups;
    Progress progress;
    const char *token;
    int listener, n_expected;    /* workers that have neither come nor been heard of */
    Worker *workers;
    int n_workers;               /* connections so far */
    double begun;
    bool failed;                 /* the database, say: nothing can go on */
} Owner;

static double clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int count_alive(const Owner *owner, const Group *group)
{
    int n = 0;
    for (int i = 0; i < owner->n_workers; i++) {
        const Worker *w = &owner->workers[i];
        n += w->phase != WORKER_NEW && w->phase != WORKER_GONE && (!group || w->group == group);
    }
    return n;
}

static void count_workers(Owner *owner)
{
    for (int i = 0; i < owner->groups.n; i++)
        owner->groups.at[i]->run.n_workers = count_alive(owner, NULL);
}

/* ---- workers that go ---- */

/* A point that took two workers with it is not given to a third. */
static void give_batch_back(Owner *owner, Worker *w)
{
    enum { MOST_LOST = 2 };
    SearchRun *run = &w->group->run;
    TrialResult lost = { .status = TRIAL_RUNNER_FAILED, .detail = "workers were lost while they measured it",
                         .max_error = -1 };
    if (++w->batch.n_lost >= MOST_LOST)
        owner->failed |= !search_settle(run, &w->batch, &lost);
    search_give_back(run, &w->batch);
}

static void lose(Owner *owner, Worker *w, const char *why)
{
    const WorkerPhase phase = w->phase;
    wire_close(&w->wire);
    w->phase = WORKER_GONE;
    if (phase == WORKER_NEW)
        return;
    count_workers(owner);
    const int n = count_alive(owner, NULL);
    progress_say(&owner->progress, "%s: %s%s (%d worker%s left)", w->name, why,
                 phase == WORKER_TRIES ? "; its trial goes to another" : "", n, n == 1 ? "" : "s");
    if (phase == WORKER_TRIES)
        give_batch_back(owner, w);
    if (phase == WORKER_PEAKS || phase == WORKER_WHOLE) {
        w->group->n_lost++;
        w->group->busy = false;
    }
}

/* ---- what workers are told ---- */

static void tell(Owner *owner, Worker *w, WorkerPhase phase, MpiMessage kind, Text *text, double seconds)
{
    w->phase = phase;
    w->deadline = clock_seconds() + patience_seconds + seconds;
    if (!wire_send(&w->wire, kind, text))
        lose(owner, w, "is gone");
}

static void tell_build(Owner *owner, Worker *w)
{
    Text text = { 0 };
    int points[SEARCH_BATCH];
    const SearchRun *run = &w->group->run;
    const int n = search_unknown(run, &w->batch, points);
    wire_put_int(&text, w->batch.state - run->states);
    wire_put_int(&text, n);
    for (int i = 0; i < n; i++)
        wire_put_int(&text, points[i]);
    tell(owner, w, WORKER_TRIES, MPI_BUILD, &text, 0);
}

static void tell_try(Owner *owner, Worker *w)
{
    Text text = { 0 };
    const SearchState *s = w->batch.state;
    wire_put_int(&text, s - w->group->run.states);
    wire_put_int(&text, w->batch.points[w->batch.next]);
    wire_put_int(&text, s->incumbent);
    tell(owner, w, WORKER_TRIES, MPI_TRY, &text, 2 * search_work_deadline(s->job));
}

/* A batch with something to measure; false: none now. */
static bool give_batch(Owner *owner, Worker *w)
{
    SearchRun *run = &w->group->run;
    while (search_take(run, &w->batch)) {
        if (search_advance(run, &w->batch)) {
            tell_build(owner, w);
            if (w->phase == WORKER_TRIES)
                tell_try(owner, w);
            return true;
        }
        search_end_batch(run, &w->batch);
    }
    return false;
}

static bool is_searching(const Owner *owner, const Group *group)
{
    for (int i = 0; i < owner->n_workers; i++)
        if (owner->workers[i].group == group && owner->workers[i].phase == WORKER_TRIES)
            return true;
    return false;
}

static void give_whole(Owner *owner, Worker *w)
{
    Text text = { 0 };
    Group *group = w->group;
    group->choices = choices_new(group->run.arena);
    group->busy = true;
    if (!step_choose(&group->run, group->choices)) {
        owner->failed = true;
        return;
    }
    progress_say(&owner->progress, "%s builds and measures the whole model", w->name);
    mpi_put_choices(&text, group->choices);
    tell(owner, w, WORKER_WHOLE, MPI_WHOLE, &text, whole_seconds);
}

/* Something to do for one that waits. */
static void give_work(Owner *owner, Worker *w)
{
    Group *group = w->group;
    if (group->phase == GROUP_PEAKS && !group->busy) {
        group->busy = true;
        tell(owner, w, WORKER_PEAKS, MPI_PEAKS, NULL, 0);
    } else if (group->phase == GROUP_SEARCH && !give_batch(owner, w) && !is_searching(owner, group)) {
        owner->failed = !group_end_search(owner->o, &owner->groups, group);
    }
    if (w->phase == WORKER_IDLE && group->phase == GROUP_WHOLE && !group->busy)
        give_whole(owner, w);
}

/* ---- what workers say ---- */

static bool read_token(const Owner *owner, Worker *w, WireMessage *message)
{
    const char *token = wire_text(message, owner->o->c->arena);
    return w->phase != WORKER_NEW || strcmp(token, owner->token) == 0;
}

static void hear_hello(Owner *owner, Worker *w, WireMessage *message)
{
    MpiHello hello;
    if (!read_token(owner, w, message) || !mpi_read_hello(message, owner->o->c->arena, &hello)) {
        lose(owner, w, "");
        return;
    }
    owner->n_expected--;
    w->name = arena_printf(owner->o->c->arena, "rank %d (%s)", hello.rank, hello.host);
    w->phase = WORKER_IDLE;
    const char *why = NULL;
    w->group = groups_find(owner->o, &owner->groups, &hello, &why);
    if (!w->group) {
        if (why)
            lose(owner, w, why);
        else
            owner->failed = true;
        return;
    }
    w->group->run.progress = &owner->progress;
    count_workers(owner);
    progress_say(&owner->progress, "%s: %s, %s", w->name, w->group->run.key.device, hello.target);
}

static void hear_failure(Owner *owner, Worker *w, WireMessage *message)
{
    Arena *arena = owner->o->c->arena;
    const bool new = w->phase == WORKER_NEW;
    if (!read_token(owner, w, message)) {
        lose(owner, w, "");
        return;
    }
    const int rank = (int)wire_int(message);
    const char *words = wire_text(message, arena);
    if (new) {
        owner->n_expected--;
        progress_say(&owner->progress, "rank %d: %s", rank, words);
    }
    lose(owner, w, words);
}

static void hear_trial(Owner *owner, Worker *w, WireMessage *message)
{
    TrialResult result;
    SearchRun *run = &w->group->run;
    if (!mpi_read_trial(message, w->batch.state->job->n_tokens, &result)) {
        lose(owner, w, "says what makes no sense");
        return;
    }
    owner->failed = !search_settle(run, &w->batch, &result);
    if (!owner->failed && search_advance(run, &w->batch)) {
        tell_try(owner, w);
        return;
    }
    search_end_batch(run, &w->batch);
    w->phase = WORKER_IDLE;
}

static void hear_peaks(Worker *w, WireMessage *message)
{
    Search *journal = &w->group->run.journal;
    journal->peak_operations = wire_double(message);
    journal->peak_bytes = wire_double(message);
    w->group->phase = GROUP_SEARCH;
    w->group->busy = false;
    w->phase = WORKER_IDLE;
}

static void hear_whole(Owner *owner, Worker *w, WireMessage *message)
{
    StepRequest request;
    StepResult result;
    if (!mpi_read_whole(message, &request, &result)) {
        lose(owner, w, "says what makes no sense");
        return;
    }
    w->phase = WORKER_IDLE;
    w->group->busy = false;
    w->group->phase = GROUP_DONE;
    group_print_name(&owner->groups, w->group);
    step_store(&w->group->run, w->group->choices, &request, &result);
    fflush(stdout);
}

static void hear(Owner *owner, Worker *w, WireMessage *message)
{
    if (message->kind == MPI_HELLO && w->phase == WORKER_NEW)
        hear_hello(owner, w, message);
    else if (message->kind == MPI_FAILED)
        hear_failure(owner, w, message);
    else if (message->kind == MPI_TRY && w->phase == WORKER_TRIES)
        hear_trial(owner, w, message);
    else if (message->kind == MPI_PEAKS && w->phase == WORKER_PEAKS)
        hear_peaks(w, message);
    else if (message->kind == MPI_WHOLE && w->phase == WORKER_WHOLE)
        hear_whole(owner, w, message);
    else
        lose(owner, w, "says what was not asked for");
}

/* ---- the loop ---- */

static void accept_worker(Owner *owner)
{
    int fd = accept4(owner->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (owner->n_workers == MOST_CONNECTIONS) {
        close(fd);
        return;
    }
    wire_watch(fd);
    Worker *w = &owner->workers[owner->n_workers++];
    *w = (Worker){ .wire = { .fd = fd }, .phase = WORKER_NEW, .name = "", .deadline = clock_seconds() + join_seconds };
    char greeting[MPI_GREETING_LEN + 1];
    snprintf(greeting, sizeof greeting, "%.*s", MPI_GREETING_LEN, owner->token);
    wire_greet(&w->wire, greeting);      /* gone already: listen_to finds out */
}

static void listen_to(Owner *owner, Worker *w)
{
    WireMessage message;
    int found = 0;
    while (!owner->failed && w->phase != WORKER_GONE && (found = wire_receive(&w->wire, &message)) > 0)
        hear(owner, w, &message);
    if (found < 0 && w->phase != WORKER_GONE)
        lose(owner, w, "is gone");
}

static void wait_for_words(Owner *owner)
{
    struct pollfd ends[MOST_CONNECTIONS + 1] = { { .fd = owner->listener, .events = POLLIN } };
    const int n = owner->n_workers;
    for (int i = 0; i < n; i++)
        ends[i + 1] = (struct pollfd){ .fd = owner->workers[i].wire.fd, .events = POLLIN };
    if (poll(ends, (nfds_t)n + 1, POLL_MS) < 0)
        return;
    for (int i = 0; i < n && !owner->failed; i++)
        if (ends[i + 1].revents)
            listen_to(owner, &owner->workers[i]);
    if (ends[0].revents)
        accept_worker(owner);
}

static void check_deadlines(Owner *owner)
{
    const double now = clock_seconds();
    for (int i = 0; i < owner->n_workers; i++) {
        Worker *w = &owner->workers[i];
        if (w->phase != WORKER_GONE && w->phase != WORKER_IDLE && now > w->deadline)
            lose(owner, w, "has not answered for too long");
    }
    if (owner->n_expected > 0 && now > owner->begun + join_seconds) {
        progress_say(&owner->progress, "%d workers have not come: going on without", owner->n_expected);
        owner->n_expected = 0;
    }
}

/* Nobody is left that could go on with it. */
static void check_groups(Owner *owner)
{
    for (int i = 0; i < owner->groups.n; i++) {
        Group *group = owner->groups.at[i];
        if (group->phase < GROUP_DONE && (group->n_lost > 1 || (!owner->n_expected && !count_alive(owner, group))))
            group_give_up(owner->o, group);
    }
}

static bool is_over(const Owner *owner)
{
    bool over = owner->n_expected == 0;
    for (int i = 0; i < owner->groups.n; i++)
        over &= owner->groups.at[i]->phase >= GROUP_DONE;
    return over || owner->failed || interrupt_came();
}

static void end(Owner *owner)
{
    for (int i = 0; i < owner->n_workers; i++) {
        Worker *w = &owner->workers[i];
        if (w->phase == WORKER_GONE)
            continue;
        wire_send(&w->wire, MPI_END, NULL);
        wire_close(&w->wire);
    }
    for (int i = 0; i < owner->groups.n; i++)
        group_end(owner->o, owner->groups.at[i]);
    if (owner->groups.n == 0 && !interrupt_came() && !diags_failed(owner->o->c->diags))
        diag_report(owner->o->c->diags, DIAG_RUN, NULL, "no worker has come that could measure");
}

void mpi_own(const TuneOptions *o, const Mpi *mpi, Records *records, int listener, const char *token)
{
    Owner owner = { .o = o, .groups = { .records = records }, .progress = progress_new(), .token = token,
                    .listener = listener, .n_expected = mpi->size - 1, .begun = clock_seconds() };
    owner.workers = arena_array(o->c->arena, Worker, MOST_CONNECTIONS);
    interrupt_guard(NULL);
    while (!is_over(&owner)) {
        for (int i = 0; i < owner.n_workers && !owner.failed; i++)
            if (owner.workers[i].phase == WORKER_IDLE)
                give_work(&owner, &owner.workers[i]);
        wait_for_words(&owner);
        check_deadlines(&owner);
        check_groups(&owner);
    }
    end(&owner);
    interrupt_unguard();
    interrupt_check();
}
