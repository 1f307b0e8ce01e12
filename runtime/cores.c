/* Which processors are worth a thread: the big cores of a phone, all cores elsewhere.
 *
 * Input: the processors this thread may use (cpusets and taskset decide that, offline ones are not among them) and what
 * /sys tells of each. Output: those to use, the fastest first. Threads share work equally and meet at barriers, so n
 * of them are as fast as n times the slowest. Slower cores are taken only where that is a clear gain, none below half
 * the fastest: generation is bound by memory and can but lose. Files that are missing make processors alike.
 */
#include "cores.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first number in a file; false when there is none. */
static bool moss_cores_number(const char *sys, int cpu, const char *what, long *number)
{
    char path[256];
    snprintf(path, sizeof path, "%s/devices/system/cpu/cpu%d/%s", sys, cpu, what);
    char *line = NULL;
    size_t room = 0;
    FILE *file = fopen(path, "re");
    const bool found = file && getline(&line, &room, file) > 0 && sscanf(line, "%ld", number) == 1;
    if (file)
        fclose(file);
    free(line);
    return found;
}

/* A hyperthread of a core whose first one may be used, too. */
static bool moss_cores_is_second(const char *sys, int cpu, const cpu_set_t *usable)
{
    long first;
    return moss_cores_number(sys, cpu, "topology/thread_siblings_list", &first) && first != cpu && first >= 0
        && first < CPU_SETSIZE && CPU_ISSET((size_t)first, usable);
}

static bool moss_cores_is_offline(const char *sys, int cpu)
{
    long online;
    return moss_cores_number(sys, cpu, "online", &online) && online == 0;
}

/* `what` of every core; false when one does not tell. */
static bool moss_cores_read(moss_cores *cores, const char *sys, const char *what)
{
    for (int32_t i = 0; i < cores->n; i++)
        if (!moss_cores_number(sys, cores->at[i].cpu, what, &cores->at[i].speed) || cores->at[i].speed <= 0)
            return false;
    return true;
}

/* Capacity counts what a core does in a cycle and how many there are. The clock alone says less: a small core has two
 * thirds of a big one's and is four times as slow, so whoever has less than three quarters is small. */
static void moss_cores_find_speeds(moss_cores *cores, const char *sys)
{
    cores->least_share = 0.5;
    if (moss_cores_read(cores, sys, "cpu_capacity"))
        return;
    cores->least_share = 0.75;
    if (moss_cores_read(cores, sys, "cpufreq/cpuinfo_max_freq"))
        return;
    for (int32_t i = 0; i < cores->n; i++)
        cores->at[i].speed = 1;
}

/* By insertion, so that equals keep their order; a machine of hundreds of cores is sorted but once. */
static void moss_cores_sort(moss_cores *cores)
{
    for (int32_t i = 1; i < cores->n; i++) {
        const moss_core core = cores->at[i];
        int32_t j = i;
        for (; j > 0 && cores->at[j - 1].speed < core.speed; j--)
            cores->at[j] = cores->at[j - 1];
        cores->at[j] = core;
    }
}

static void moss_cores_choose_big(moss_cores *cores)
{
    const double clear_gain = 1.25;
    double best = 0;
    for (int32_t i = 0; i < cores->n; i++) {
        const double speed = (double)cores->at[i].speed, all = speed * (i + 1);
        const bool slower = i > 0 && cores->at[i].speed < cores->at[cores->n_big - 1].speed;
        if (speed < cores->least_share * (double)cores->at[0].speed)
            break;
        if (all >= best * (slower ? clear_gain : 1)) {
            best = all;
            cores->n_big = i + 1;
        }
    }
}

void moss_cores_find(moss_cores *cores, const char *sys, const cpu_set_t *usable)
{
    memset(cores, 0, sizeof *cores);
    for (int cpu = 0; cpu < CPU_SETSIZE && cpu < MOSS_CORES_MAX; cpu++)
        if (CPU_ISSET((size_t)cpu, usable) && !moss_cores_is_offline(sys, cpu) && !moss_cores_is_second(sys, cpu, usable))
            cores->at[cores->n++].cpu = cpu;
    moss_cores_find_speeds(cores, sys);
    moss_cores_sort(cores);
    moss_cores_choose_big(cores);
}

int32_t moss_big_cpus(int32_t *cpus, int32_t room)
{
    moss_cores cores;
    cpu_set_t usable;
    CPU_ZERO(&usable);
    if (sched_getaffinity(0, sizeof usable, &usable) != 0)
        return 0;   /* more processors than the set has bits */
    moss_cores_find(&cores, MOSS_SYS, &usable);
    for (int32_t i = 0; i < cores.n_big && i < room; i++)
        cpus[i] = cores.at[i].cpu;
    return cores.n_big;
}
