/* Worker: the child's loop, and the parent's watch over it. */
#include "gpu_worker.h"

#include "watch.h"
#include "../compiler/gpu_plan.h"
#include "../compiler/interrupt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { OPEN_SECONDS = 300 };

typedef struct { GpuRequest request; TrialResult result; GpuCeilings ceilings; } Shared;

struct GpuWorker {
    const Plan *base;
    Shared *shared;
    pid_t pid;                   /* 0: none */
    int line;                    /* a socket: a byte a request, a byte an answer */
    bool refused;                /* the device cannot be used at all: words in the result of the last try */
    TrialResult refusal;
};

/* ---- choices as text ---- */

bool gpu_write_choices(const Choices *choices, char *to, size_t len)
{
    size_t at = 0;
    for (int i = 0; choices && i < choices->n && at < len; i++) {
        const KeyChoices *k = &choices->keys[i];
        at += (size_t)snprintf(to + at, len - at, "%s\t", k->key);
        for (int j = 0; j < k->n && at < len; j++)
            at += (size_t)snprintf(to + at, len - at, "%s%s=%lld", j ? " " : "", k->at[j].name,
                                   (long long)k->at[j].value);
        if (at < len)
            at += (size_t)snprintf(to + at, len - at, "\n");
    }
    if (at < len)
        at += (size_t)snprintf(to + at, len - at, "\n");
    return at < len;
}

/* Past the empty line. */
static const char *read_choices(Arena *arena, const char *text, Choices **choices)
{
    *choices = choices_new(arena);
    while (*text && *text != '\n') {
        const char *key = arena_strndup(arena, text, strcspn(text, "\t"));
        for (text += strcspn(text, "\t"); *text && *text != '\n'; ) {
            const size_t len = strcspn(++text, "=");
            choices_set(*choices, key, arena_strndup(arena, text, len), strtoll(text + len + 1, NULL, 10));
            text += strcspn(text, " \n");
        }
        text += *text == '\n';
    }
    return text + (*text == '\n');
}

/* ---- in the child ---- */

/* Plans say again where weights lie, in values that all of them share: to the same effect. */
static const Plan *plan_with(const Plan *base, Arena *arena, const Choices *choices)
{
    return gpu_plan_module_chosen(arena, base->graph, (Module *)base->module, base->target, choices,
                                  base->max_scratch);
}

static const Plan *plan_of_text(const Plan *base, Arena *arena, const char *text)
{
    Choices *choices;
    read_choices(arena, text, &choices);
    return plan_with(base, arena, choices);
}

static void prepare(GpuBench *bench, const GpuRequest *request)
{
    const Plan *plans[GPU_BATCH];
    int n = 0;
    for (const char *at = request->candidate; *at && n < GPU_BATCH; ) {
        Choices *choices;
        at = read_choices(bench->trial, at, &choices);
        plans[n++] = plan_with(bench->base, bench->trial, choices);
    }
    bench_load(bench, plans, n);
}

/* Did the planner take all that was asked for? */
static bool took(const Plan *plan, const GpuRequest *request, Arena *arena)
{
    Choices *choices;
    read_choices(arena, request->candidate, &choices);
    const KeyChoices *asked = choices_find(choices, request->key);
    const Launches *l = plan->launches;
    for (int i = 0; i < l->n_launches; i++) {
        if (!l->launches[i].key || strcmp(l->launches[i].key, request->key) != 0)
            continue;
        const Kernel *kernel = &l->kernels[l->launches[i].kernel];
        for (int j = 0; asked && j < asked->n; j++)
            for (int k = 0; k < kernel->n_params; k++)
                if (strcmp(kernel->params[k].name, asked->at[j].name) == 0
                    && kernel->params[k].value != (double)asked->at[j].value)
                    return false;
        return true;
    }
    return false;
}

static bool refuse(TrialResult *result)
{
    *result = (TrialResult){ .status = TRIAL_BUILD_FAILED, .max_error = -1 };
    snprintf(result->detail, sizeof result->detail, "the planner does not take this point");
    return true;
}

/* False: the device is gone. */
static bool serve(GpuBench *bench, BenchSide *base, Shared *shared)
{
    const GpuRequest *r = &shared->request;
    TrialResult *result = &shared->result;
    Arena *arena = bench->trial;
    if (r->what == GPU_ASK_PREPARE) {
        prepare(bench, r);
        *result = (TrialResult){ .status = TRIAL_OK, .max_error = -1 };
        return true;
    }
    if (r->what == GPU_ASK_CEILINGS) {
        *result = (TrialResult){ .status = TRIAL_OK, .max_error = -1 };
        return gpu_ceilings_measure(bench, &shared->ceilings);
    }
    const Plan *candidate = plan_of_text(bench->base, arena, r->candidate);
    const Plan *incumbent = plan_of_text(bench->base, arena, r->incumbent);
    if (r->what == GPU_ASK_STEP) {
        GpuStep step = { candidate, incumbent, r->tokens[0] };
        if (r->chunk && candidate->chunk != r->chunk)
            return refuse(result);
        return gpu_step(bench, &step, result);
    }
    if (!took(candidate, r, arena))
        return refuse(result);
    GpuTrial trial = { .key = r->key, .phase = r->phase, .candidate = candidate, .incumbent = incumbent,
                       .is_default = r->is_default, .same_bits = r->same_bits, .n_tokens = r->n_tokens,
                       .check_tokens = r->check_tokens };
    memcpy(trial.tokens, r->tokens, sizeof trial.tokens);
    return gpu_trial(bench, base, &trial, result);
}

static void say(int line, char byte)
{
    while (send(line, &byte, 1, MSG_NOSIGNAL) < 0 && errno == EINTR)
        continue;
}

_Noreturn static void child(const GpuWorker *w, int line)
{
    const struct rlimit none = { 0, 0 };
    GpuBench bench;
    Arena *arena = arena_new();
    char byte;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGINT, SIG_IGN);                 /* a terminal's Ctrl-C is mossc's, which ends this process */
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    BenchSide *base = bench_open(&bench, arena, w->base) ? bench_side(&bench, w->base) : NULL;
    if (!base) {
        w->shared->result = (TrialResult){ .status = TRIAL_RUNNER_FAILED, .max_error = -1 };
        snprintf(w->shared->result.detail, sizeof w->shared->result.detail, "%s", bench.why);
    }
    say(line, base ? 'y' : 'n');
    while (base && recv(line, &byte, 1, 0) == 1) {
        bench.trial = arena_new();
        bool lives = serve(&bench, base, w->shared);
        arena_free(bench.trial);
        say(line, lives ? 'y' : 'n');
        if (!lives)
            break;
    }
    _exit(0);
}

/* ---- in the parent ---- */

GpuWorker *gpu_worker_new(const Plan *base)
{
    GpuWorker *w = calloc(1, sizeof *w);
    if (w)
        *w = (GpuWorker){ .base = base, .shared = watch_memory(sizeof *w->shared) };
    if (w && w->shared)
        return w;
    free(w);
    return NULL;
}

GpuRequest *gpu_worker_request(GpuWorker *w)
{
    w->shared->request = (GpuRequest){ .what = GPU_ASK_TRIAL };
    return &w->shared->request;
}

GpuCeilings gpu_worker_ceilings(const GpuWorker *w) { return w->shared->ceilings; }

static int end(GpuWorker *w)
{
    int status = 0;
    if (w->pid) {
        close(w->line);
        while (waitpid(w->pid, &status, 0) < 0 && errno == EINTR)
            continue;
    }
    w->pid = 0;
    return status;
}

void gpu_worker_free(GpuWorker *w)
{
    if (!w)
        return;
    if (w->pid)
        kill(w->pid, SIGKILL);
    end(w);
    watch_release(w->shared, sizeof *w->shared);
    free(w);
}

static bool start(GpuWorker *w)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return false;
    fflush(NULL);
    w->pid = fork();
    if (w->pid == 0) {
        close(ends[0]);
        child(w, ends[1]);
    }
    close(ends[1]);
    w->line = ends[0];
    if (w->pid > 0)
        return true;
    w->pid = 0;
    close(w->line);
    return false;
}

/* The child's byte; 0: it ended without one, -1: it is too late, or a signal came. */
static int wait_for_byte(const GpuWorker *w, double seconds, bool *interrupted)
{
    struct pollfd end = { .fd = w->line, .events = POLLIN };
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    while (!(*interrupted = interrupt_came())) {
        char byte;
        if (poll(&end, 1, 100) > 0)
            return recv(w->line, &byte, 1, 0) == 1 ? byte : 0;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if ((double)(now.tv_sec - begin.tv_sec) + 1e-9 * (double)(now.tv_nsec - begin.tv_nsec) > seconds)
            break;
    }
    return -1;
}

static void tell_end(GpuWorker *w, int byte, double seconds, bool interrupted, TrialResult *result)
{
    *result = (TrialResult){ .status = byte ? TRIAL_HUNG : TRIAL_CRASHED, .max_error = -1,
                             .interrupted = interrupted };
    if (byte)
        kill(w->pid, SIGKILL);
    int status = end(w);
    if (byte)
        snprintf(result->detail, sizeof result->detail, "it did not end within %.0f s", seconds);
    else if (WIFSIGNALED(status))
        snprintf(result->detail, sizeof result->detail, "signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(result->detail, sizeof result->detail, "it ended the process with %d", WEXITSTATUS(status));
}

static bool open_child(GpuWorker *w, TrialResult *result)
{
    bool interrupted = false;
    *result = (TrialResult){ .status = TRIAL_RUNNER_FAILED, .max_error = -1 };
    snprintf(result->detail, sizeof result->detail, "no process for a candidate");
    if (!start(w))
        return false;
    int byte = wait_for_byte(w, OPEN_SECONDS, &interrupted);
    if (byte == 'y')
        return true;
    if (byte == 'n')
        *result = w->shared->result;
    else
        tell_end(w, byte, OPEN_SECONDS, interrupted, result);
    end(w);
    result->status = TRIAL_RUNNER_FAILED;
    w->refused = !interrupted;
    w->refusal = *result;
    return false;
}

void gpu_worker_ask(GpuWorker *w, double seconds, TrialResult *result)
{
    bool interrupted = false;
    if (w->refused)
        *result = w->refusal;
    if (w->refused || (!w->pid && !open_child(w, result)))
        return;
    w->shared->result = (TrialResult){ .status = TRIAL_CRASHED, .max_error = -1 };
    say(w->line, 'r');
    const int byte = wait_for_byte(w, seconds, &interrupted);
    if (byte != 'y' && byte != 'n') {
        tell_end(w, byte, seconds, interrupted, result);
        return;
    }
    *result = w->shared->result;
    if (byte == 'n')
        end(w);
}
