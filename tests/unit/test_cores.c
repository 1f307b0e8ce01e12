/* Which cores get a thread: phones, boards and servers as their /sys tells, and a /sys that tells little or nothing.
 *
 * Input: folders made here, in the place of /sys. Capacities are about what such devices tell.
 */
#include "cores.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/moss-cores-XXXXXX";

static void run(const char *format, const char *argument)
{
    char command[256];
    snprintf(command, sizeof command, format, root, argument);
    CU_ASSERT_EQUAL_FATAL(system(command), 0);
}

static void put(int cpu, const char *file, long number)
{
    char path[256], folder[64];
    snprintf(folder, sizeof folder, "devices/system/cpu/cpu%d/topology", cpu);
    run("mkdir -p %s/%s", folder);
    snprintf(folder, sizeof folder, "devices/system/cpu/cpu%d/cpufreq", cpu);
    run("mkdir -p %s/%s", folder);
    snprintf(path, sizeof path, "%s/devices/system/cpu/cpu%d/%s", root, cpu, file);
    FILE *out = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(out);
    fprintf(out, "%ld\n", number);
    fclose(out);
}

static void put_all(const char *file, const long *numbers, int n)
{
    run("rm -rf %s/%s", "devices");
    for (int i = 0; i < n; i++)
        put(i, file, numbers[i]);
}

/* Are the big ones of the processors [0, n) but `without` these, in this order? */
static void check(int n, int without, const char *expected)
{
    moss_cores cores;
    cpu_set_t usable;
    char found[256] = "";
    CPU_ZERO(&usable);
    for (int i = 0; i < n; i++)
        if (i != without)
            CPU_SET((size_t)i, &usable);
    moss_cores_find(&cores, root, &usable);
    for (int32_t i = 0; i < cores.n_big; i++)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%d", i ? " " : "", cores.at[i].cpu);
    CU_ASSERT_STRING_EQUAL(found, expected);
    if (strcmp(found, expected))
        printf("expected: %s\nfound: %s\n", expected, found);
}

static void test_phones(void)
{
    static const long s24_ultra[] = { 326, 326, 830, 830, 870, 870, 870, 1024 };
    static const long pixel_8[] = { 160, 160, 160, 160, 620, 620, 620, 620, 1024 };
    static const long pixel_6[] = { 160, 160, 160, 160, 498, 498, 1024, 1024 };
    static const long all_big[] = { 540, 540, 540, 540, 900, 900, 900, 1024 };
    put_all("cpu_capacity", s24_ultra, 8);
    check(8, -1, "7 4 5 6 2 3");
    put_all("cpu_capacity", pixel_8, 9);
    check(9, -1, "8 4 5 6 7");
    put_all("cpu_capacity", pixel_6, 8);
    check(8, -1, "6 7");                     /* the middle ones are below half, and would gain nothing */
    put_all("cpu_capacity", all_big, 8);
    check(8, -1, "7 4 5 6");                 /* eight would be a gain of a fifth at best: not clear */
}

static void test_two_kinds(void)
{
    static const long four_and_four[] = { 400, 400, 400, 400, 1024, 1024, 1024, 1024 };
    static const long one_big[] = { 600, 600, 600, 1024 };
    put_all("cpu_capacity", four_and_four, 8);
    check(8, -1, "4 5 6 7");
    put_all("cpu_capacity", one_big, 4);
    check(4, -1, "3 0 1 2");                 /* four times 600 is more than once 1024 */
}

/* What cpusets, taskset or the system take away is not counted. */
static void test_limits(void)
{
    static const long four_and_four[] = { 400, 400, 400, 400, 1024, 1024, 1024, 1024 };
    put_all("cpu_capacity", four_and_four, 8);
    check(8, 5, "4 6 7");
    check(4, -1, "0 1 2 3");                 /* an app in the background: the small ones are all there are */
    put(6, "online", 0);
    put(7, "online", 1);
    check(8, -1, "4 5 7");
    check(0, -1, "");
}

static void test_clock_alone(void)
{
    static const long pixel_8[] = { 1704, 1704, 1704, 1704, 2367, 2367, 2367, 2367, 2914 };
    static const long turbo[] = { 5700, 5500, 5500, 5700 };
    put_all("cpufreq/cpuinfo_max_freq", pixel_8, 9);
    check(9, -1, "8 4 5 6 7");               /* 58 % of the clock, a fifth of the speed */
    put_all("cpufreq/cpuinfo_max_freq", turbo, 4);
    check(4, -1, "0 3 1 2");
    /* Capacity of some alone is no measure of all. */
    put_all("cpufreq/cpuinfo_max_freq", pixel_8, 9);
    put(8, "cpu_capacity", 1024);
    check(9, -1, "8 4 5 6 7");
}

static void test_alike(void)
{
    run("rm -rf %s/%s", "devices");
    check(4, -1, "0 1 2 3");                 /* no files */
    put(0, "cpu_capacity", 0);
    put(1, "cpu_capacity", -5);
    check(4, -1, "0 1 2 3");                 /* nonsense */
    run("printf 'soon\\n' >%s/%s", "devices/system/cpu/cpu0/cpu_capacity");
    check(2, -1, "0 1");
    run(": >%s/%s", "devices/system/cpu/cpu0/cpu_capacity");
    check(2, -1, "0 1");
}

/* Of a core's hyperthreads the first that may be used. */
static void test_hyperthreads(void)
{
    run("rm -rf %s/%s", "devices");
    for (int cpu = 0; cpu < 8; cpu++)
        put(cpu, "topology/thread_siblings_list", cpu % 4);
    check(8, -1, "0 1 2 3");
    check(8, 1, "0 2 3 5");
}

static void test_this_machine(void)
{
    int32_t cpus[2] = { -1, -1 };
    cpu_set_t usable;
    const int32_t n = moss_big_cpus(cpus, 1);
    CU_ASSERT_EQUAL_FATAL(sched_getaffinity(0, sizeof usable, &usable), 0);
    CU_ASSERT(n >= 1 && n <= CPU_COUNT(&usable));
    CU_ASSERT(CPU_ISSET((size_t)cpus[0], &usable));
    CU_ASSERT_EQUAL(cpus[1], -1);
    CU_ASSERT_EQUAL(moss_big_cpus(NULL, 0), n);
}

static const UnitTest tests[] = {
    { "phones", test_phones },
    { "two kinds of core", test_two_kinds },
    { "limits", test_limits },
    { "the clock alone", test_clock_alone },
    { "cores that are alike, or tell nothing", test_alike },
    { "hyperthreads", test_hyperthreads },
    { "this machine", test_this_machine },
};

int main(void)
{
    if (!mkdtemp(root))
        return 3;
    int code = unit_main("cores", tests, (int)(sizeof tests / sizeof *tests));
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command) == 0 ? code : 3;
}
