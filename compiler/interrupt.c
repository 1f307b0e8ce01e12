/* Interrupts: a signal is noted and passed on to the children; at the next safe place the guarded
 * folders are removed and mossc ends the way the signal would have ended it.
 *
 * Invariant: the handler calls nothing but kill. What it needs are the compiler's only mutable
 * globals, since handlers belong to the process; they change with the signals blocked.
 */
#include "interrupt.h"

#include "outfile.h"
#include "../ir/text.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

enum { MAX_FOLDERS = 2, MAX_CHILDREN = 8, N_SIGNALS = 3 };
static const int signals[N_SIGNALS] = { SIGINT, SIGTERM, SIGHUP };

static volatile sig_atomic_t came;
static struct { volatile pid_t pid; volatile ChildKind kind; } children[MAX_CHILDREN];
static const char *folders[MAX_FOLDERS];
static int n_folders;

/* A program in the foreground has had the terminal's signals already; those sent by kill reach
 * mossc alone. */
static void handle(int signal, siginfo_t *info, void *context)
{
    (void)context;
    int keep_errno = errno;
    came = signal;
    for (int i = 0; i < MAX_CHILDREN; i++) {
        pid_t pid = children[i].pid;
        if (pid && children[i].kind == CHILD_TOOL)
            kill(-pid, SIGTERM);
        else if (pid && info->si_code <= 0)
            kill(pid, signal);
    }
    errno = keep_errno;
}

static sigset_t signal_set(void)
{
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < N_SIGNALS; i++)
        sigaddset(&set, signals[i]);
    return set;
}

/* Signals that were ignored from the start, as under nohup, stay so. */
static void set_handlers(void)
{
    struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_RESTART }, before;
    action.sa_mask = signal_set();
    for (int i = 0; i < N_SIGNALS; i++)
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
}

void interrupt_guard(const char *folder)
{
    if (n_folders == MAX_FOLDERS)
        BUG("more than %d temporary folders", MAX_FOLDERS);
    set_handlers();
    folders[n_folders++] = folder;
}

void interrupt_unguard(void)
{
    if (n_folders > 0)
        n_folders--;
}

bool interrupt_came(void) { return came != 0; }

void interrupt_check(void)
{
    if (!came)
        return;
    for (int i = n_folders; i > 0; i--)      /* the inner first: an outer one must be empty to go */
        if (folders[i - 1])
            out_folder_erase(folders[i - 1]);
    signal(came, SIG_DFL);
    raise(came);
}

static void remember(pid_t pid, ChildKind kind)
{
    for (int i = 0; i < MAX_CHILDREN; i++)
        if (!children[i].pid) {
            children[i].kind = kind;
            children[i].pid = pid;
            return;
        }
    BUG("more than %d children", MAX_CHILDREN);
}

/* files: standard input, output and error; NULL: mossc's. Input -1: nothing. */
static int spawn(pid_t *pid, ChildKind kind, const char *const *argv, const int *files, const sigset_t *mask)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, mask);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | (kind == CHILD_TOOL ? POSIX_SPAWN_SETPGROUP : 0));
    for (int i = 0; files && i < 3; i++)
        if (files[i] < 0)
            posix_spawn_file_actions_addopen(&actions, i, "/dev/null", O_RDONLY, 0);
        else
            posix_spawn_file_actions_adddup2(&actions, files[i], i);
    int status = posix_spawnp(pid, argv[0], &actions, &attributes, (char *const *)argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return status;
}

static int spawn_known(pid_t *pid, ChildKind kind, const char *const *argv, const int *files)
{
    sigset_t set = signal_set(), before;
    interrupt_check();
    set_handlers();
    /* Blocked until the child is known to the handler, so that no signal misses it. */
    pthread_sigmask(SIG_BLOCK, &set, &before);
    int status = spawn(pid, kind, argv, files, &before);
    if (status == 0)
        remember(*pid, kind);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

int interrupt_spawn(pid_t *pid, ChildKind kind, const char *const *argv, int log)
{
    const int files[3] = { -1, log, log };
    return spawn_known(pid, kind, argv, log >= 0 ? files : NULL);
}

int interrupt_spawn_files(pid_t *pid, const char *const *argv, const int files[3])
{
    return spawn_known(pid, CHILD_TOOL, argv, files);
}

bool interrupt_ended(pid_t pid)
{
    siginfo_t info = { 0 };
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == pid;
}

int interrupt_wait(pid_t pid)
{
    int status = 0;
    siginfo_t info;
    sigset_t set = signal_set(), before;
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR)
        continue;
    /* Forgotten before it is reaped: a number that is free again may be another's. */
    pthread_sigmask(SIG_BLOCK, &set, &before);
    for (int i = 0; i < MAX_CHILDREN; i++)
        if (children[i].pid == pid)
            children[i].pid = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}
