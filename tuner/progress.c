/* Progress: bar, speeds so far, trials, failures, time left. */
#include "progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static const double lines_apart = 10;      /* seconds, where there is no terminal */

Progress progress_new(void) { return (Progress){ .terminal = isatty(2) }; }

static void print_time(double seconds, char *to, size_t len)
{
    if (seconds < 3600)
        snprintf(to, len, "%d:%02d", (int)seconds / 60, (int)seconds % 60);
    else
        snprintf(to, len, "%d:%02d:%02d", (int)seconds / 3600, (int)seconds / 60 % 60, (int)seconds % 60);
}

/* What part of the budget is used, and what is left of it in seconds. */
static double part_done(const SearchRun *run, double *left)
{
    double seconds = search_seconds(run), part = 0;
    int n_points = 0;
    for (int i = 0; i < run->n_states; i++)
        n_points += run->states[i].job->n_points;
    if (run->most_trials > 0 && run->most_trials < n_points)
        n_points = (int)run->most_trials;
    if (n_points > 0)
        part = (double)run->n_trials / n_points;
    if (run->most_seconds > 0 && seconds / run->most_seconds > part)
        part = seconds / run->most_seconds;
    part = part > 1 ? 1 : part;
    *left = part > 0.001 ? seconds * (1 - part) / part : 0;
    if (run->most_seconds > 0 && *left > run->most_seconds - seconds)
        *left = run->most_seconds > seconds ? run->most_seconds - seconds : 0;
    return part;
}

void progress_show(Progress *p, const SearchRun *run, const SearchState *state)
{
    double now = search_seconds(run) - run->spent_before, left;
    if (!p->terminal && now - p->last < lines_apart)
        return;
    p->last = now;
    enum { WIDTH = 20 };
    char time[32];
    double part = part_done(run, &left);
    int filled = (int)(WIDTH * part), n_failed = 0;
    for (int i = 0; i < run->n_states; i++)
        n_failed += run->states[i].n_failed;
    print_time(left, time, sizeof time);
    fprintf(stderr, "%s", p->terminal ? "\r" : "");
    if (p->terminal)
        fprintf(stderr, "[%.*s%*s] ", filled, "####################", WIDTH - filled, "");
    fprintf(stderr, "prefill %.3fx decode %.3fx  %d trials, %d failed, %s left", search_speedup(run, PLAN_PREFILL),
            search_speedup(run, PLAN_DECODE), run->n_trials, n_failed, time);
    if (run->n_workers > 0)
        fprintf(stderr, ", %d worker%s", run->n_workers, run->n_workers == 1 ? "" : "s");
    fprintf(stderr, "  %-10s", state ? state->job->template->name : "");
    fprintf(stderr, "%s", p->terminal ? "\033[K" : "\n");
}

void progress_say(Progress *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s", p->terminal ? "\r\033[K" : "");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
}

void progress_end(Progress *p)
{
    if (p->terminal)
        fprintf(stderr, "\r\033[K");
}
