/* The stand-in driver's streams, events and graphs: queues of work that run when somebody waits.
 *
 * Work of a stream runs in its order, in the thread that waits. While a stream captures, its work goes
 * to a graph instead; a graph launched is its work queued again. An event is done when the stream has
 * come to where it was last recorded.
 */
#include "fake_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct FakeEvent {
    int n_pending;                 /* times it was recorded and the stream has not come there */
    bool is_destroyed;
    double at;
    FakeStream *stream;            /* where it was recorded last */
} FakeEvent;
typedef enum { WORK_LAUNCH, WORK_COPY, WORK_SET, WORK_EVENT } WorkKind;

typedef struct Work {
    struct Work *next;
    WorkKind kind;
    FakeLaunch *launch;
    void *to;
    const void *from;
    size_t len;
    unsigned char value;
    FakeEvent *event;
} Work;

typedef struct { Work *first, **end; } Queue;
typedef struct FakeGraph { Queue work; } FakeGraph;

struct FakeStream {
    FakeStream *next;
    Queue work;
    FakeGraph *capture;            /* where its work goes, or NULL */
};

static FakeStream default_stream, *streams = &default_stream;
static int n_launches;

/* ---- queues ---- */

static void append(Queue *queue, Work *work)
{
    if (!queue->first)
        queue->end = &queue->first;
    work->next = NULL;
    *queue->end = work;
    queue->end = &work->next;
}

static void free_work(Work *work)
{
    if (work->launch) {
        for (int i = 0; i < work->launch->n_args; i++)
            free(work->launch->args[i]);
        free(work->launch);
    }
    free(work);
}

static Work *copy_work(const Work *of)
{
    Work *copy = malloc(sizeof *copy);
    *copy = *of;
    if (of->launch) {
        copy->launch = malloc(sizeof *copy->launch);
        *copy->launch = *of->launch;
        for (int i = 0; i < of->launch->n_args; i++) {
            copy->launch->args[i] = malloc(of->launch->arg_lens[i]);
            memcpy(copy->launch->args[i], of->launch->args[i], of->launch->arg_lens[i]);
        }
    }
    return copy;
}

static void clear(Queue *queue)
{
    for (Work *work = queue->first, *next; work; work = next) {
        next = work->next;
        free_work(work);
    }
    queue->first = NULL;
}

static int queue_work(FakeStream *stream, Work work)
{
    Work *copy = malloc(sizeof *copy);
    *copy = work;
    if (!stream)
        stream = &default_stream;
    append(stream->capture ? &stream->capture->work : &stream->work, copy);
    return FAKE_OK;
}

int fake_queue_launch(FakeStream *stream, FakeLaunch *launch)
{
    return queue_work(stream, (Work){ .kind = WORK_LAUNCH, .launch = launch });
}

int fake_queue_copy(FakeStream *stream, void *to, const void *from, size_t len)
{
    return queue_work(stream, (Work){ .kind = WORK_COPY, .to = to, .from = from, .len = len });
}

int fake_queue_set(FakeStream *stream, void *to, unsigned char value, size_t len)
{
    return queue_work(stream, (Work){ .kind = WORK_SET, .to = to, .value = value, .len = len });
}

/* ---- running ---- */

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void reach_event(FakeEvent *event)
{
    event->at = seconds();
    if (--event->n_pending == 0 && event->is_destroyed)
        free(event);
}

static void begin_launch(FakeLaunch *launch)
{
    if (!launch->early && !fake_is_lost())
        launch->early = launch->run_early(&launch->launch, launch->args);
}

/* A launch that may begin before this one ends does so: what it reads too early, it reads as it was. */
static void run_launch(const Work *work, bool may_begin_next)
{
    const Work *next = work->next;
    if (++n_launches == fake_fault("lost"))
        fake_lose_device();
    begin_launch(work->launch);
    if (may_begin_next && next && next->kind == WORK_LAUNCH && next->launch->is_dependent)
        begin_launch(next->launch);
    if (work->launch->early)
        work->launch->run_rest(work->launch->early);
    work->launch->early = NULL;
}

static void run(const Work *work, bool may_begin_next)
{
    switch (work->kind) {
    case WORK_LAUNCH:
        run_launch(work, may_begin_next);
        return;
    case WORK_COPY:
        if (!fake_is_lost())
            memcpy(work->to, work->from, work->len);
        return;
    case WORK_SET:
        if (!fake_is_lost())
            memset(work->to, work->value, work->len);
        return;
    case WORK_EVENT:
        reach_event(work->event);
        return;
    }
}

/* Runs work until there is none, or `until` is done. A launch that has begun must end in this OS thread. */
static int run_until(FakeStream *stream, const FakeEvent *until)
{
    if (stream->capture)
        return fake_misuse(FAKE_CAPTURE_UNSUPPORTED, "waits for a stream that captures");
    while (stream->work.first && (!until || until->n_pending)) {
        Work *work = stream->work.first;
        stream->work.first = work->next;
        run(work, !until);
        free_work(work);
    }
    return fake_is_lost() ? FAKE_LAUNCH_FAILED : FAKE_OK;
}

int fake_wait_stream(FakeStream *stream) { return run_until(stream ? stream : &default_stream, NULL); }

int fake_wait_all(void)
{
    int result = FAKE_OK;
    for (FakeStream *s = streams; s && !result; s = s->next)
        result = run_until(s, NULL);
    return result;
}

/* ---- streams ---- */

CUDA_API cuStreamCreate(FakeStream **stream, unsigned flags)
{
    (void)flags;
    const int result = fake_enter();
    if (!result) {
        *stream = calloc(1, sizeof **stream);
        (*stream)->next = default_stream.next;
        default_stream.next = *stream;
        fake_n_objects++;
    }
    fake_leave();
    return result;
}

CUDA_API cuStreamDestroy_v2(FakeStream *stream)
{
    int result = fake_enter();
    FakeStream **link = &default_stream.next;
    while (*link && *link != stream)
        link = &(*link)->next;
    if (!*link) {
        result = fake_misuse(FAKE_INVALID_HANDLE, "a stream that is none is destroyed");
    } else {
        if (!stream->capture)
            run_until(stream, NULL);
        else
            clear(&stream->capture->work);
        free(stream->capture);
        *link = stream->next;
        free(stream);
        fake_n_objects--;
    }
    fake_leave();
    return result;
}

CUDA_API cuStreamSynchronize(FakeStream *stream)
{
    int result = fake_enter();
    if (!result)
        result = fake_wait_stream(stream);
    fake_leave();
    return result;
}

/* ---- events ---- */

CUDA_API cuEventCreate(FakeEvent **event, unsigned flags)
{
    (void)flags;
    const int result = fake_enter();
    if (!result) {
        *event = calloc(1, sizeof **event);
        fake_n_objects++;
    }
    fake_leave();
    return result;
}

CUDA_API cuEventDestroy_v2(FakeEvent *event)
{
    const int result = fake_enter();
    fake_n_objects--;
    event->is_destroyed = true;
    if (event->n_pending == 0)
        free(event);
    fake_leave();
    return result;
}

CUDA_API cuEventRecord(FakeEvent *event, FakeStream *stream)
{
    int result = fake_enter();
    if (!result && stream && stream->capture)
        result = fake_misuse(FAKE_CAPTURE_UNSUPPORTED, "an event recorded in a stream that captures");
    if (!result) {
        event->n_pending++;
        event->stream = stream ? stream : &default_stream;
        queue_work(stream, (Work){ .kind = WORK_EVENT, .event = event });
    }
    fake_leave();
    return result;
}

CUDA_API cuEventSynchronize(FakeEvent *event)
{
    int result = fake_enter();
    if (!result && event->n_pending)
        result = run_until(event->stream, event);
    fake_leave();
    return result;
}

CUDA_API cuEventElapsedTime(float *milliseconds, FakeEvent *begin, FakeEvent *end)
{
    *milliseconds = (float)(1e3 * (end->at - begin->at));
    return begin->n_pending || end->n_pending ? FAKE_NOT_READY : FAKE_OK;
}

/* ---- graphs ---- */

CUDA_API cuStreamBeginCapture_v2(FakeStream *stream, int mode)
{
    (void)mode;
    int result = fake_enter();
    if (!result && (!stream || stream->capture))
        result = fake_misuse(FAKE_CAPTURE_UNSUPPORTED, "this stream cannot capture");
    if (!result)
        stream->capture = calloc(1, sizeof *stream->capture);
    fake_leave();
    return result;
}

CUDA_API cuStreamEndCapture(FakeStream *stream, FakeGraph **graph)
{
    int result = fake_enter();
    if (!result && (!stream || !stream->capture))
        result = fake_misuse(FAKE_INVALID_VALUE, "this stream does not capture");
    if (!result) {
        *graph = stream->capture;
        stream->capture = NULL;
        fake_n_objects++;
    }
    fake_leave();
    return result;
}

static void copy_queue(Queue *to, const Queue *from)
{
    for (const Work *work = from->first; work; work = work->next)
        append(to, copy_work(work));
}

CUDA_API cuGraphInstantiateWithFlags(FakeGraph **exec, FakeGraph *graph, unsigned long long flags)
{
    (void)flags;
    const int result = fake_enter();
    if (!result) {
        *exec = calloc(1, sizeof **exec);
        copy_queue(&(*exec)->work, &graph->work);
        fake_n_objects++;
    }
    fake_leave();
    return result;
}

CUDA_API cuGraphLaunch(FakeGraph *exec, FakeStream *stream)
{
    int result = fake_enter();
    if (!result && stream && stream->capture)
        result = fake_misuse(FAKE_CAPTURE_UNSUPPORTED, "a graph launched in a stream that captures");
    if (!result)
        copy_queue(&(stream ? stream : &default_stream)->work, &exec->work);
    fake_leave();
    return result;
}

static int destroy_graph(FakeGraph *graph)
{
    const int result = fake_enter();
    clear(&graph->work);
    free(graph);
    fake_n_objects--;
    fake_leave();
    return result;
}

CUDA_API cuGraphDestroy(FakeGraph *graph) { return destroy_graph(graph); }
CUDA_API cuGraphExecDestroy(FakeGraph *exec) { return destroy_graph(exec); }
