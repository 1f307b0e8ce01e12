/* Watch: fork, and a pipe that the child's end closes, which is what the parent waits for. */
#include "watch.h"

#include "../compiler/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void *watch_memory(size_t len)
{
    void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void watch_release(void *memory, size_t len) { munmap(memory, len); }

static void run_child(void (*work)(void *context), void *context)
{
    const struct rlimit none = { 0, 0 };
    prctl(PR_SET_PDEATHSIG, SIGKILL);        /* mossc killed: nothing stays behind */
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGINT, SIG_IGN);                 /* a terminal's Ctrl-C is mossc's, which ends this process */
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    work(context);
    _exit(0);
}

/* Until the child's end of the pipe closes: true; false when time or patience is over. */
static bool wait_for_end(int pipe_end, double seconds, bool *interrupted)
{
    struct pollfd end = { .fd = pipe_end, .events = POLLIN };
    double left = seconds;
    while (left > 0 && !(*interrupted = interrupt_came())) {
        struct timespec begin, after;
        clock_gettime(CLOCK_MONOTONIC, &begin);
        int n = poll(&end, 1, (int)(left < 0.2 ? left * 1000 + 1 : 200));
        if (n > 0)
            return true;
        clock_gettime(CLOCK_MONOTONIC, &after);
        left -= (double)(after.tv_sec - begin.tv_sec) + 1e-9 * (double)(after.tv_nsec - begin.tv_nsec);
    }
    return false;
}

static void describe_end(Watched *end, int status, bool in_time, double seconds)
{
    if (!in_time) {
        end->status = TRIAL_HUNG;
        snprintf(end->detail, sizeof end->detail, "it did not end within %.0f s", seconds);
    } else if (WIFSIGNALED(status)) {
        end->status = TRIAL_CRASHED;
        snprintf(end->detail, sizeof end->detail, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else if (WEXITSTATUS(status) != 0) {
        end->status = TRIAL_CRASHED;
        snprintf(end->detail, sizeof end->detail, "it ended the process with %d", WEXITSTATUS(status));
    }
}

static Watched cannot(const char *what)
{
    Watched end = { .status = TRIAL_RUNNER_FAILED };
    snprintf(end.detail, sizeof end.detail, "%s: %s", what, strerror(errno));
    return end;
}

Watched watch_run(void (*work)(void *context), void *context, double seconds)
{
    int ends[2], status = 0;
    Watched end = { .status = TRIAL_OK };
    if (pipe2(ends, O_CLOEXEC) != 0)
        return cannot("no pipe for a candidate");
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        run_child(work, context);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return cannot("no process for a candidate");
    }
    bool in_time = wait_for_end(ends[0], seconds, &end.interrupted);
    if (!in_time)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    close(ends[0]);
    describe_end(&end, status, in_time, seconds);
    return end;
}
