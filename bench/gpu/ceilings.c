/* What this machine's GPU can do at most, through the driver: bench_gpu_ceilings [SECONDS]
 *
 * Output: the device's name, then a line "NAME VALUE UNIT" for each ceiling, the median of rounds that take SECONDS (1)
 * together: read (4 GB, more than any cache holds), read_token (0.85 GB in one launch, what 8x200M+ reads for a
 * token), exchange (us, until each of 128 blocks, or of as many as there are multiprocessors, has heard eight words of
 * every other), phase_64 and phase_192 (us, an exchange and then 64 or 192 KiB of weights a block, from where it says),
 * mma and tensor (16-bit floats into float32; tensor is wgmma where there is that, else mma again).
 * Also the number of multiprocessors and their clock. Needs libcuda.so.1 only.
 * Exit code: 0 ok, 3 the environment.
 */
#include "embedded.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

extern const EmbeddedFile embedded_ceilings[];      /* ceilings_80.ptx, ceilings_90.ptx */

enum { CLOCK = 13, PROCESSORS = 16, MAJOR = 75, SHARED = 8, READ_THREADS = 256, READS = 8, MAX_ROUNDS = 1000,
       OPERANDS_LEN = 12288 * 16 };

typedef uint64_t Address;
typedef void *Handle;

/* SYMBOL(id, name in libcuda.so.1, arguments) */
#define SYMBOLS \
    SYMBOL(init, "cuInit", (unsigned flags)) \
    SYMBOL(device_get, "cuDeviceGet", (int *device, int ordinal)) \
    SYMBOL(device_name, "cuDeviceGetName", (char *name, int len, int device)) \
    SYMBOL(device_attribute, "cuDeviceGetAttribute", (int *value, int attribute, int device)) \
    SYMBOL(context_retain, "cuDevicePrimaryCtxRetain", (Handle *context, int device)) \
    SYMBOL(context_set, "cuCtxSetCurrent", (Handle context)) \
    SYMBOL(context_wait, "cuCtxSynchronize", (void)) \
    SYMBOL(module_load, "cuModuleLoadData", (Handle *module, const void *text)) \
    SYMBOL(function_get, "cuModuleGetFunction", (Handle *function, Handle module, const char *name)) \
    SYMBOL(function_set, "cuFuncSetAttribute", (Handle function, int attribute, int value)) \
    SYMBOL(memory_alloc, "cuMemAlloc_v2", (Address *memory, size_t len)) \
    SYMBOL(memory_set, "cuMemsetD8_v2", (Address memory, unsigned char value, size_t len)) \
    SYMBOL(memory_write, "cuMemcpyHtoD_v2", (Address to, const void *from, size_t len)) \
    SYMBOL(launch, "cuLaunchKernel", (Handle function, unsigned x, unsigned y, unsigned z, unsigned threads_x, \
        unsigned threads_y, unsigned threads_z, unsigned shared_len, Handle stream, void **arguments, void **extra)) \
    SYMBOL(error_name, "cuGetErrorName", (int result, const char **name))

static struct {
#define SYMBOL(id, name, arguments) int (*id) arguments;
    SYMBOLS
#undef SYMBOL
} cuda;

static void fail(const char *what, const char *words)
{
    fprintf(stderr, "ceilings: %s: %s\n", what, words);
    exit(3);
}

static void try_call(int result, const char *what)
{
    const char *name = "unknown error";
    if (result == 0)
        return;
    cuda.error_name(result, &name);
    fail(what, name);
}
#define TRY(call) try_call(cuda.call, #call)

static void open_driver(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library)
        fail("no GPU driver", dlerror());
#define SYMBOL(id, name, arguments) \
    *(void **)&cuda.id = dlsym(library, name); \
    if (!cuda.id) \
        fail("the driver lacks", name);
    SYMBOLS
#undef SYMBOL
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct { Handle function; unsigned n_blocks, n_threads, shared_len; void **arguments; } Launch;

/* Seconds of a launch: the median of rounds of `n_launches`, after one that does not count. */
static double time_launch(const Launch *launch, int n_launches, double seconds)
{
    double rounds[MAX_ROUNDS], begin = now();
    int n = -1;
    while (n < 3 || (now() - begin < seconds && n < MAX_ROUNDS)) {
        const double round_begin = now();
        for (int i = 0; i < n_launches; i++)
            TRY(launch(launch->function, launch->n_blocks, 1, 1, launch->n_threads, 1, 1, launch->shared_len, NULL,
                launch->arguments, NULL));
        TRY(context_wait());
        if (n >= 0)
            rounds[n] = (now() - round_begin) / n_launches;
        n++;
    }
    qsort(rounds, (size_t)n, sizeof *rounds, compare_doubles);
    return rounds[n / 2];
}

static Handle find_function(Handle module, const char *name)
{
    Handle function;
    TRY(function_get(&function, module, name));
    return function;
}

/* Operands of products: 16-bit floats of magnitude 1 to 2, both signs. */
static void write_operands(Address memory)
{
    static uint32_t words[OPERANDS_LEN / 4];
    uint32_t seed = 1;
    for (int i = 0; i < OPERANDS_LEN / 4; i++) {
        seed = seed * 1664525u + 1013904223u;
        words[i] = ((seed ^ seed >> 15) * 2246822519u & 0x83ff83ffu) | 0x3c003c00u;
    }
    TRY(memory_write(memory, words, sizeof words));
}

static void measure_read(Handle module, const char *name, int n_processors, Address memory, size_t len, double seconds)
{
    const int64_t piece = READ_THREADS * READS;
    int64_t n = (int64_t)(len / 16) / piece * piece;
    void *arguments[] = { &memory, &memory, &n };
    const Launch launch = { find_function(module, "ceiling_read_r8"), (unsigned)n_processors * 8, READ_THREADS, 0,
                            arguments };
    const int n_launches = len > (size_t)1 << 31 ? 4 : 16;
    printf("%s %.0f GB/s\n", name, (double)n * 16 / time_launch(&launch, n_launches, seconds) / 1e9);
}

/* An exchange (reads 0), or a phase that reads 16 `reads` bytes a thread, from places that no cache has any more. */
static void measure_phase(Handle module, const char *name, int reads, int n_processors, Address memory, size_t len,
                          double seconds)
{
    enum { TURNS = 1000, THREADS = 512, WORDS_AT = 4096, PLACES_AT = 1 << 20 };
    const unsigned n_blocks = n_processors < 128 ? (unsigned)n_processors : 128;
    const size_t place_len = (size_t)n_blocks * THREADS * 16 * (size_t)(reads ? reads : 1);
    Address words = memory + WORDS_AT, places = memory + PLACES_AT;
    int64_t n = TURNS, n_places = (int64_t)((len - PLACES_AT) / place_len);
    void *arguments[] = { &memory, &words, &places, &n_places, &n };
    char function[32];
    snprintf(function, sizeof function, "ceiling_phase_a2_r%d", reads);
    const Launch launch = { find_function(module, function), n_blocks, THREADS,
                            (THREADS + THREADS / 32) * sizeof(float), arguments };
    TRY(memory_set(memory, 0, PLACES_AT));
    printf("%s %.3f us\n", name, time_launch(&launch, 1, seconds) / TURNS * 1e6);
}

static void measure_tensor(Handle module, const char *name, bool hopper, int n_processors, Address memory,
                           double seconds)
{
    enum { ROUNDS = 20000, WGMMA_SHARED = 4 * (128 + 256) * 128 + 1024 };
    int64_t n = ROUNDS;
    void *arguments[] = { &memory, &memory, &n };
    Launch launch = { find_function(module, hopper ? "ceiling_wgmma_h100_a2" : "ceiling_mma_a2"),
                      (unsigned)n_processors * (hopper ? 1 : 2), 256, hopper ? WGMMA_SHARED : 0, arguments };
    const double block_flops = hopper ? 2 * 2.0 * 64 * 256 * 64 : 8 * 16 * 2.0 * 16 * 8 * 16;     /* in one of n */
    if (hopper)
        TRY(function_set(launch.function, SHARED, WGMMA_SHARED));
    const double each = time_launch(&launch, 1, seconds);
    printf("%s %.1f TFLOP/s\n", name, block_flops * (double)n * launch.n_blocks / each / 1e12);
}

int main(int n_arguments, char **arguments)
{
    const double seconds = n_arguments > 1 ? atof(arguments[1]) : 1;
    const size_t len = (size_t)4 << 30, token_len = 850000000;
    int device, n_processors, major, clock_khz;
    char name[256];
    Handle context, module;
    Address memory;
    if (n_arguments > 2 || seconds <= 0)
        return fprintf(stderr, "usage: bench_gpu_ceilings [SECONDS]\n"), 2;
    open_driver();
    TRY(init(0));
    TRY(device_get(&device, 0));
    TRY(device_name(name, sizeof name, device));
    TRY(device_attribute(&n_processors, PROCESSORS, device));
    TRY(device_attribute(&major, MAJOR, device));
    TRY(device_attribute(&clock_khz, CLOCK, device));
    TRY(context_retain(&context, device));
    TRY(context_set(context));
    TRY(module_load(&module, embedded_ceilings[major == 9].text));
    TRY(memory_alloc(&memory, len));
    TRY(memory_set(memory, 0x35, len));
    printf("device %s\nprocessors %d pieces\nclock %d MHz\n", name, n_processors, clock_khz / 1000);
    measure_read(module, "read", n_processors, memory, len, seconds / 4);
    measure_read(module, "read_token", n_processors, memory, token_len, seconds / 4);
    measure_phase(module, "exchange", 0, n_processors, memory, len, seconds / 8);
    measure_phase(module, "phase_64", 8, n_processors, memory, len, seconds / 8);
    measure_phase(module, "phase_192", 24, n_processors, memory, len, seconds / 8);
    write_operands(memory);
    measure_tensor(module, "mma", false, n_processors, memory, seconds / 4);
    measure_tensor(module, "tensor", major == 9, n_processors, memory, seconds / 4);
    return 0;
}
