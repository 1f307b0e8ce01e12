/* Ceilings: a small program of the target's own instructions, compiled like a candidate and run by a watched child.
 *
 * Input: the compiler and flags of the target. Output: the best of several short runs, since whatever else the machine
 * does can only make them slower.
 */
#include "ceilings.h"

#include "watch.h"
#include "../codegen/codegen.h"

#include <dlfcn.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { RUNS = 7, STEPS = 400000, READ_LEN = 192 << 20, DEADLINE_S = 30 };

/* 12 chains hide the latency of a multiply-add on every CPU there is, and fit every register file. */
static const char source[] =
    "#define EXPORT __attribute__((visibility(\"default\")))\n"
    "EXPORT const int ceiling_lanes = LANES;\n"
    "EXPORT float ceiling_multiply(long steps)\n{\n"
    "    vf sum[12], x = vset(0.999f), y = vset(1e-3f), all = vset(0);\n"
    "    UNROLL\n    for (int j = 0; j < 12; j++)\n        sum[j] = vset((float)j);\n"
    "    for (long i = 0; i < steps; i++) {\n"
    "        __asm__ volatile(\"\" ::: \"memory\");\n"
    "        UNROLL\n        for (int j = 0; j < 12; j++)\n            sum[j] = vfma(x, sum[j], y);\n    }\n"
    "    UNROLL\n    for (int j = 0; j < 12; j++)\n        all += sum[j];\n    return vsum(all);\n}\n"
    "EXPORT float ceiling_multiply_int8(long steps)\n{\n"
    "    vi sum[12], x = viset(0x01010101), y = viset(0x02030201), all = viset(0);\n"
    "    UNROLL\n    for (int j = 0; j < 12; j++)\n        sum[j] = viset(j);\n"
    "    for (long i = 0; i < steps; i++) {\n"
    "        __asm__ volatile(\"\" ::: \"memory\");\n"
    "        UNROLL\n        for (int j = 0; j < 12; j++)\n            sum[j] = vdot4(sum[j], x, y);\n    }\n"
    "    UNROLL\n    for (int j = 0; j < 12; j++)\n        all += sum[j];\n    return (float)all[0];\n}\n"
    "EXPORT float ceiling_read(const float *p, long n)\n{\n"
    "    vf sum[8], all = vset(0);\n"
    "    UNROLL\n    for (int j = 0; j < 8; j++)\n        sum[j] = vset(0);\n"
    "    for (long i = 0; i + 8 * LANES <= n; i += 8 * LANES) {\n"
    "        UNROLL\n        for (int j = 0; j < 8; j++)\n            sum[j] += vload(p + i + j * LANES);\n    }\n"
    "    UNROLL\n    for (int j = 0; j < 8; j++)\n        all += sum[j];\n    return vsum(all);\n}\n";

typedef struct { double operations, operations_int8, bytes; } Found;
typedef struct { const char *path; Found *found; } Task;

typedef float Multiply(long steps);
typedef float Read(const float *p, long n);

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A symbol as a pointer to a function, which C converts only through its bytes. */
static void find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
}

static double most_operations(Multiply *multiply, double each)
{
    double most = 0;
    for (int run = 0; multiply && run < RUNS; run++) {
        double begin = now();
        volatile float used = multiply(STEPS);
        double rate = each * 2 * 12 * STEPS / (now() - begin);
        (void)used;
        most = rate > most ? rate : most;
    }
    return most;
}

static double most_bytes(Read *read)
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

static void work(void *context)
{
    const Task *w = context;
    Multiply *multiply, *multiply_int8;
    Read *read;
    void *library = dlopen(w->path, RTLD_NOW | RTLD_LOCAL);
    const int *lanes = library ? dlsym(library, "ceiling_lanes") : NULL;
    if (!lanes)
        return;
    find(library, "ceiling_multiply", &multiply);
    find(library, "ceiling_multiply_int8", &multiply_int8);
    find(library, "ceiling_read", &read);
    w->found->operations = most_operations(multiply, *lanes);
    w->found->operations_int8 = most_operations(multiply_int8, 4.0 * *lanes);
    w->found->bytes = most_bytes(read);
}

void ceilings_measure(const Builder *builder, Diags *diags, bool int8, double *operations, double *bytes)
{
    Text text = { 0 };
    Bundle bundle = { 0 };
    *operations = *bytes = 0;
    bundle_kernel_headers(&bundle, &text);
    text_append(&text, source, strlen(source));
    Candidate candidate = candidate_write(builder, diags, "ceilings", &text);
    text_free(&text);
    Found *found = watch_memory(sizeof *found);
    if (found && candidates_compile(builder, &candidate, 1) && candidate.built) {
        Task task = { candidate.path, found };
        if (watch_run(work, &task, DEADLINE_S).status == TRIAL_OK) {
            *operations = found->operations;
            if (int8 && found->operations_int8 > found->operations)
                *operations = found->operations_int8;
            *bytes = found->bytes;
        }
    }
    if (found)
        watch_release(found, sizeof *found);
}
