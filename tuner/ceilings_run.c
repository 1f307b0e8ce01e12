/* Ceilings run: short runs, and a read of more than any cache holds. */
#include "ceilings_run.h"

#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { RUNS = 7, CHAINS = 12, STEPS = 400000, READ_LEN = 192 << 20 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double most_operations(float (*multiply)(long steps), double each)
{
    double most = 0;
    for (int run = 0; multiply && run < RUNS; run++) {
        double begin = now();
        volatile float used = multiply(STEPS);
        double rate = each * 2 * CHAINS * STEPS / (now() - begin);
        (void)used;
        most = rate > most ? rate : most;
    }
    return most;
}

static double most_bytes(float (*read)(const float *p, long n))
{
    double most = 0;
    float *buffer = mmap(NULL, READ_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!read || buffer == MAP_FAILED)
        return 0;
    memset(buffer, 1, READ_LEN);
    for (int run = 0; run < RUNS; run++) {
        double begin = now();
        volatile float used = read(buffer, READ_LEN / (long)sizeof *buffer);
        double rate = READ_LEN / (now() - begin);
        (void)used;
        most = rate > most ? rate : most;
    }
    munmap(buffer, READ_LEN);
    return most;
}

void ceilings_run(const CeilingKernels *kernels, Ceilings *found)
{
    found->operations = most_operations(kernels->multiply, kernels->lanes);
    found->operations_int8 = most_operations(kernels->multiply_int8, 4.0 * kernels->lanes);
    found->bytes = most_bytes(kernels->read);
}
