/* The machine under the command line: processors, memory, time, signals, messages.
 *
 * Input: /proc, /sys and the signals of the terminal. Output: numbers, and lines on stderr.
 * Invariant: the only mutable global is the flag that a signal handler sets.
 */
#include "cli.h"
#include "cores.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MOSS_DEFAULT_THREADS_MAX = 16 };   /* past it, one token's work is too small to share */

static volatile sig_atomic_t moss_interrupt_flag;

static void moss_interrupt_handle(int signal)
{
    (void)signal;
    moss_interrupt_flag = 1;
}

/* The handler serves once: a second Ctrl-C ends a command that does not come back. A signal that
 * is ignored (nohup) stays ignored. */
void moss_interrupt_install(void)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction action = { .sa_handler = moss_interrupt_handle }, before;
    action.sa_flags = (int)(SA_RESETHAND | SA_RESTART);
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
}

bool moss_interrupted(void)
{
    return moss_interrupt_flag != 0;
}

double moss_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Processors that a container's quota allows, rounded up. */
static int32_t moss_quota_cpus(void)
{
    long quota = 0, period = 0;
    FILE *file = fopen(MOSS_SYS "/fs/cgroup/cpu.max", "re");
    int n = file ? fscanf(file, "%ld %ld", &quota, &period) : 0;
    if (file)
        fclose(file);
    if (n != 2 || quota <= 0 || period <= 0)
        return INT32_MAX;
    return (int32_t)((quota + period - 1) / period);
}

int32_t moss_default_threads(void)
{
    const int32_t n = moss_big_cpus(NULL, 0);
    int32_t most = moss_quota_cpus();
    if (most > MOSS_DEFAULT_THREADS_MAX)
        most = MOSS_DEFAULT_THREADS_MAX;
    if (moss_program_data.threads > 0 && most > moss_program_data.threads)
        most = moss_program_data.threads;      /* as tuning found */
    return n > most ? most : n > 0 ? n : 1;
}

/* Where cores differ, threads stay among the big ones: the scheduler may move them there, not to a small core that all
 * the others would wait for. Threads that are made later inherit the set. */
void moss_use_big_cores(const moss_args *args, int32_t n_threads)
{
    moss_cores cores;
    cpu_set_t usable;
    CPU_ZERO(&usable);
    if (sched_getaffinity(0, sizeof usable, &usable) != 0)
        return;
    moss_cores_find(&cores, MOSS_SYS, &usable);
    if (cores.n_big == cores.n)
        return;
    if (n_threads > cores.n_big) {
        fprintf(stderr, "%s: warning: %d threads, and %d of %d cores are big: at every step all threads wait for the "
                "slowest; -t %d is likely faster\n", args->program, n_threads, cores.n_big, cores.n, cores.n_big);
        return;
    }
    for (int32_t i = cores.n_big; i < cores.n; i++)
        CPU_CLR((size_t)cores.at[i].cpu, &usable);
    sched_setaffinity(0, sizeof usable, &usable);   /* refused: the scheduler knows big cores, too */
}

/* From /proc: getrusage's figure includes the program that called exec. */
uint64_t moss_peak_rss(void)
{
    char line[256];
    uint64_t kib = 0;
    FILE *file = fopen("/proc/self/status", "re");
    while (file && kib == 0 && fgets(line, sizeof line, file))
        if (!strncmp(line, "VmHWM:", 6))
            kib = strtoull(line + 6, NULL, 10);
    if (file)
        fclose(file);
    struct rusage usage;
    if (kib == 0 && getrusage(RUSAGE_SELF, &usage) == 0)
        kib = (uint64_t)usage.ru_maxrss;
    return kib * 1024;
}

int moss_cli_fail(const moss_args *args, int code, const char *format, ...)
{
    va_list list;
    moss_cli_progress(NULL);
    fflush(stdout);
    fprintf(stderr, "%s: error: ", args->program);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    return code;
}

int moss_cli_fail_status(const moss_args *args, const moss_error *error)
{
    const bool system = error->status == MOSS_ERROR_SYSTEM || error->status == MOSS_ERROR_CPU
        || error->status == MOSS_ERROR_DEVICE;
    return moss_cli_fail(args, system ? MOSS_EXIT_SYSTEM : MOSS_EXIT_INPUT, "%s", error->message);
}

void moss_cli_progress(const char *format, ...)
{
    va_list list;
    if (!isatty(STDERR_FILENO))
        return;
    fputs("\r\033[K", stderr);
    if (!format)
        return;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fflush(stderr);
}

void moss_cli_json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

int moss_cli_flush(const moss_args *args)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return MOSS_EXIT_OK;
    return moss_cli_fail(args, MOSS_EXIT_SYSTEM, "cannot write the output: %s", strerror(errno));
}
