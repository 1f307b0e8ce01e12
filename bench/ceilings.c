/* The machine's ceilings, for the figures beside them: fp32 FMA peak, int8 dot peak, read bandwidth, clock.
 *
 * Usage: bench_ceilings [THREADS]. Prints one CSV row a number of threads: threads, GFLOP/s, GB/s,
 * GOP/s of int8, GHz, each the median of 9 runs of all threads together. Build for the machine at hand
 * (-march=native). A read goes over 512 MiB a thread, beyond any cache but the largest servers'.
 */
#include "../runtime/dot.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RUNS = 9, CHAINS = 2 * (LANES == 16 ? 12 : LANES == 8 ? 6 : 8), MAX_THREADS = 64 };
static const size_t read_len = (size_t)512 << 20;
static const long fma_steps = 20000000;

typedef struct {
    pthread_barrier_t *start;
    float (*work)(const float *);
    const float *buffer;     /* read_len bytes, for read_all */
    float result;            /* so that nothing is optimised away */
} Worker;

static float multiply(const float *unused)
{
    (void)unused;
    vf sum[CHAINS], x = vset(0.999f), y = vset(1e-3f);
    UNROLL
    for (int j = 0; j < CHAINS; j++)
        sum[j] = vset((float)j);
    for (long i = 0; i < fma_steps / 4; i++) {
        __asm__ volatile("" ::: "memory");
        UNROLL
        for (int j = 0; j < CHAINS; j++)
            sum[j] = vfma(x, sum[j], y);
    }
    vf all = sum[0];
    UNROLL
    for (int j = 1; j < CHAINS; j++)
        all += sum[j];
    return vsum(all);
}

static float multiply_int8(const float *unused)
{
    (void)unused;
    vi sum[CHAINS], x = viset(0x01010101), y = viset(0x02030201);
    UNROLL
    for (int j = 0; j < CHAINS; j++)
        sum[j] = viset(j);
    for (long i = 0; i < fma_steps / 4; i++) {
        __asm__ volatile("" ::: "memory");
        UNROLL
        for (int j = 0; j < CHAINS; j++)
            sum[j] = vdot4(sum[j], x, y);
    }
    vi all = sum[0];
    UNROLL
    for (int j = 1; j < CHAINS; j++)
        all += sum[j];
    return (float)all[0];
}

static float read_all(const float *p)
{
    vf sum[8] = { 0 };
    for (size_t i = 0; i + 8 * LANES <= read_len / sizeof *p; i += 8 * LANES) {
        UNROLL
        for (int j = 0; j < 8; j++)
            sum[j] += vload(p + i + j * LANES);
    }
    return vsum((sum[0] + sum[1] + sum[2] + sum[3]) + (sum[4] + sum[5] + sum[6] + sum[7]));
}

/* Additions that wait for one another: one a cycle on every core. */
static float count_cycles(const float *unused)
{
    unsigned long sum = 0, one = 1;
    (void)unused;
    __asm__ volatile("" : "+r"(one));
    for (long i = 0; i < fma_steps / 16; i++) {
        UNROLL
        for (int j = 0; j < 16; j++) {
            sum += one;
            __asm__ volatile("" : "+r"(sum));
        }
    }
    return (float)sum;
}

static void *work(void *argument)
{
    Worker *worker = argument;
    for (int i = 0; i < RUNS; i++) {
        pthread_barrier_wait(worker->start);
        worker->result += worker->work(worker->buffer);
        pthread_barrier_wait(worker->start);
    }
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of a run of n threads. */
static double measure(int n, float (*task)(const float *), float **buffers)
{
    pthread_barrier_t start;
    pthread_t threads[MAX_THREADS];
    Worker workers[MAX_THREADS];
    double seconds[RUNS];
    pthread_barrier_init(&start, NULL, (unsigned)n + 1);
    for (int i = 0; i < n; i++) {
        workers[i] = (Worker){ &start, task, buffers[i], 0 };
        pthread_create(&threads[i], NULL, work, &workers[i]);
    }
    for (int i = 0; i < RUNS; i++) {
        struct timespec a, b;
        pthread_barrier_wait(&start);
        clock_gettime(CLOCK_MONOTONIC, &a);
        pthread_barrier_wait(&start);
        clock_gettime(CLOCK_MONOTONIC, &b);
        seconds[i] = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
    }
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&start);
    qsort(seconds, RUNS, sizeof *seconds, by_value);
    return seconds[RUNS / 2];
}

int main(int argc, char **argv)
{
    int most = argc > 1 ? atoi(argv[1]) : 1;
    float *buffers[MAX_THREADS];
    if (most < 1 || most > MAX_THREADS) {
        fprintf(stderr, "usage: bench_ceilings [THREADS], 1 to %d\n", MAX_THREADS);
        return 2;
    }
    for (int i = 0; i < most; i++) {
        buffers[i] = aligned_alloc(64, read_len);
        if (!buffers[i]) {
            fprintf(stderr, "bench_ceilings: no memory for %zu bytes a thread\n", read_len);
            return 3;
        }
        for (size_t j = 0; j < read_len / sizeof(float); j++)
            buffers[i][j] = (float)(j & 7);
    }
    puts("threads,gflops,gbytes,gops_int8,ghz");
    for (int n = 1; n <= most; n++) {
        double flop = 2.0 * LANES * CHAINS * (double)(fma_steps / 4) * n;
        double gflops = flop / measure(n, multiply, buffers) * 1e-9;
        double gops = 4 * flop / measure(n, multiply_int8, buffers) * 1e-9;
        double gbytes = (double)read_len * n / measure(n, read_all, buffers) * 1e-9;
        double ghz = (double)fma_steps / measure(n, count_cycles, buffers) * 1e-9;
        printf("%d,%.1f,%.2f,%.1f,%.2f\n", n, gflops, gbytes, gops, ghz);
    }
    return 0;
}
