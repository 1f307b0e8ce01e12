/* The stand-in driver itself: order of work, graphs, and every misuse and fault that it shows.
 *
 * The driver keeps its state for a process, so every case is a child that exits with 0 when all was
 * as expected. Kernels: GPU_KERNELS/embed.so.
 */
#include "unit.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The functions called here, by name. */
#define FUNCTIONS(F)                                                                                                   \
    F(cuInit, (unsigned)) F(cuDeviceGetCount, (int *)) F(cuDriverGetVersion, (int *))                                  \
    F(cuDevicePrimaryCtxRetain, (void **, int)) F(cuDevicePrimaryCtxRelease_v2, (int)) F(cuCtxSetCurrent, (void *))    \
    F(cuMemAlloc_v2, (uint64_t *, size_t)) F(cuMemFree_v2, (uint64_t)) F(cuMemHostAlloc, (void **, size_t, unsigned))  \
    F(cuMemFreeHost, (void *)) F(cuMemGetInfo_v2, (size_t *, size_t *))                                                \
    F(cuMemcpyHtoDAsync_v2, (uint64_t, const void *, size_t, void *))                                                  \
    F(cuMemcpyDtoHAsync_v2, (void *, uint64_t, size_t, void *)) F(cuMemcpyDtoH_v2, (void *, uint64_t, size_t))         \
    F(cuMemsetD8Async, (uint64_t, unsigned char, size_t, void *)) F(cuStreamCreate, (void **, unsigned))               \
    F(cuStreamSynchronize, (void *)) F(cuStreamDestroy_v2, (void *)) F(cuEventCreate, (void **, unsigned))             \
    F(cuEventRecord, (void *, void *)) F(cuEventSynchronize, (void *)) F(cuEventDestroy_v2, (void *))                  \
    F(cuModuleLoadDataEx, (void **, const void *, unsigned, int *, void **)) F(cuModuleUnload, (void *))               \
    F(cuModuleGetFunction, (void **, void *, const char *)) F(cuFuncSetAttribute, (void *, int, int))                  \
    F(cuLaunchKernel, (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,  \
                       void **)) F(cuLaunchKernelEx, (const void *, void *, void **, void **))                       \
    F(cuStreamBeginCapture_v2, (void *, int)) F(cuStreamEndCapture, (void *, void **))                                 \
    F(cuGraphInstantiateWithFlags, (void **, void *, unsigned long long)) F(cuGraphLaunch, (void *, void *))           \
    F(cuGraphDestroy, (void *)) F(cuGraphExecDestroy, (void *)) F(cuGetErrorName, (int, const char **))

#define DECLARE(name, args) static int (*name) args;
FUNCTIONS(DECLARE)

enum { N_BLOCKS = 3, N = 32 * N_BLOCKS };
static const char ptx[] = ".version 8.0\n.target sm_90a\n.visible .entry add(\n.param .u64 x\n)\n.maxntid 128, 1, 1\n"
    "{\nret;\n}\n.visible .entry peek(\n.param .u64 seen,\n.param .u64 x\n)\n{\nret;\n}\n";

static void load(void)
{
    void *driver = dlopen(FAKE_CUDA, RTLD_NOW | RTLD_LOCAL);
    if (!driver)
        _exit(99);
#define FIND(name, args) *(void **)&name = dlsym(driver, #name);
    FUNCTIONS(FIND)
    setenv("MOSS_FAKE_CUDA_KERNELS", FAKE_KERNELS, 1);
}

static void start(void)
{
    void *context;
    if (cuInit(0) || cuDevicePrimaryCtxRetain(&context, 0) || cuCtxSetCurrent(context))
        _exit(98);
}

/* In a child: 0 when no EXPECT failed. */
#define EXPECT(condition) \
    do                    \
        if (!(condition)) \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition), _exit(1); \
    while (0)

static int child_status(void (*run)(void), const char *fault)
{
    const pid_t child = fork();
    if (child == 0) {
        if (fault)
            setenv("MOSS_FAKE_CUDA_FAULT", fault, 1);
        load();
        run();
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    return status;
}

/* ---- what works ---- */

static void *module, *add, *peek, *stream;
static uint64_t x, seen;

static void prepare(void)
{
    start();
    EXPECT(!cuModuleLoadDataEx(&module, ptx, 0, NULL, NULL));
    EXPECT(!cuModuleGetFunction(&add, module, "add") && !cuModuleGetFunction(&peek, module, "peek"));
    EXPECT(!cuStreamCreate(&stream, 1) && !cuMemAlloc_v2(&x, 4 * N) && !cuMemAlloc_v2(&seen, 8) && x % 256 == 0);
    EXPECT(!cuMemsetD8Async(x, 0, 4 * N, stream));
}

static int launch(void)
{
    void *args[] = { &x };
    return cuLaunchKernel(add, N_BLOCKS, 1, 1, 32, 1, 1, 0, stream, args, NULL);
}

static void expect_x(float want)
{
    float got[N];
    EXPECT(!cuMemcpyDtoH_v2(got, x, sizeof got));
    for (int i = 0; i < N; i++)
        EXPECT(got[i] == want);
}

static void release_all(void)
{
    EXPECT(!cuMemFree_v2(x) && !cuMemFree_v2(seen));
    EXPECT(!cuStreamDestroy_v2(stream) && !cuModuleUnload(module));
    setenv("MOSS_FAKE_CUDA_LEAKS", "1", 1);
    EXPECT(!cuDevicePrimaryCtxRelease_v2(0));
}

static void launches(void)
{
    prepare();
    EXPECT(!launch() && !launch() && !cuStreamSynchronize(stream));
    expect_x(2);
    release_all();
}

/* A dependent launch begins before the one before it, and ends after it. */
static void dependent_launches(void)
{
    struct { int32_t id, pad; int32_t on, unused[15]; } attribute = { 6, 0, 1, { 0 } };
    struct { uint32_t grid[3], block[3], shared_len; void *stream, *attributes; uint32_t n_attributes; } config
        = { { 1, 1, 1 }, { 32, 1, 1 }, 0, NULL, &attribute, 1 };
    void *args[] = { &seen, &x };
    float got[2];
    prepare();
    config.stream = stream;
    EXPECT(!launch() && !cuLaunchKernelEx(&config, peek, args, NULL) && !cuStreamSynchronize(stream));
    EXPECT(!cuMemcpyDtoH_v2(got, seen, sizeof got) && got[0] == 0 && got[1] == 1);
    config.n_attributes = 0;
    EXPECT(!launch() && !cuLaunchKernelEx(&config, peek, args, NULL) && !cuStreamSynchronize(stream));
    EXPECT(!cuMemcpyDtoH_v2(got, seen, sizeof got) && got[0] == 2 && got[1] == 2);
    release_all();
}

static void graphs(void)
{
    void *graph, *exec;
    prepare();
    EXPECT(!cuStreamBeginCapture_v2(stream, 1) && !launch());
    EXPECT(cuStreamSynchronize(stream) == 900);
    EXPECT(!cuStreamEndCapture(stream, &graph) && !cuGraphInstantiateWithFlags(&exec, graph, 0));
    EXPECT(!cuGraphDestroy(graph) && !cuStreamSynchronize(stream));
    expect_x(0);
    for (int i = 1; i < 3; i++) {
        EXPECT(!cuGraphLaunch(exec, stream) && !cuStreamSynchronize(stream));
        expect_x((float)i);
    }
    EXPECT(!cuGraphExecDestroy(exec));
    release_all();
}

/* Pinned memory is read and written when somebody waits, not before. */
static void late_copies(void)
{
    void *pinned, *event;
    uint64_t memory;
    char byte = 0;
    start();
    EXPECT(!cuStreamCreate(&stream, 1) && !cuEventCreate(&event, 2));
    EXPECT(!cuMemHostAlloc(&pinned, 2, 0) && !cuMemAlloc_v2(&memory, 1));
    memcpy(pinned, "ab", 2);
    EXPECT(!cuMemcpyHtoDAsync_v2(memory, pinned, 1, stream) && !cuEventRecord(event, stream));
    EXPECT(!cuMemcpyDtoHAsync_v2((char *)pinned + 1, memory, 1, stream));
    memcpy(pinned, "c", 1);                              /* too early: the copy has not been */
    EXPECT(!cuEventSynchronize(event) && ((char *)pinned)[1] == 'b');
    EXPECT(!cuStreamSynchronize(stream) && ((char *)pinned)[1] == 'c');
    byte = 'd';                                          /* not pinned: over when the call returns */
    EXPECT(!cuMemcpyHtoDAsync_v2(memory, &byte, 1, stream));
    byte = 'e';
    EXPECT(!cuMemcpyDtoH_v2(&byte, memory, 1) && byte == 'd');
    EXPECT(!cuEventDestroy_v2(event) && !cuStreamDestroy_v2(stream) && !cuMemFree_v2(memory) && !cuMemFreeHost(pinned));
    setenv("MOSS_FAKE_CUDA_LEAKS", "1", 1);
    EXPECT(!cuDevicePrimaryCtxRelease_v2(0));
}

static void *without_context(void *result)
{
    uint64_t memory;
    *(int *)result = cuMemAlloc_v2(&memory, 1);
    return NULL;
}

static void refusals(void)
{
    pthread_t thread;
    void *other;
    uint64_t memory;
    char bytes[100];
    int result = 0;
    EXPECT(cuMemAlloc_v2(&memory, 1) == 3);              /* before cuInit */
    prepare();
    pthread_create(&thread, NULL, without_context, &result);
    pthread_join(thread, NULL);
    EXPECT(result == 201);
    EXPECT(cuMemcpyDtoHAsync_v2(bytes, seen, sizeof bytes, stream) == 1);
    EXPECT(cuMemFree_v2(seen + 1) == 1);
    EXPECT(cuModuleGetFunction(&other, module, "gemm") == 500);
    EXPECT(cuFuncSetAttribute(add, 8, 228 << 10) == 1);
    EXPECT(cuLaunchKernel(add, 1, 1, 1, 256, 1, 1, 0, stream, NULL, NULL) == 1);        /* .maxntid 128 */
    EXPECT(cuLaunchKernel(add, 0, 1, 1, 128, 1, 1, 0, stream, NULL, NULL) == 1);
    EXPECT(cuLaunchKernel(add, 1, 1, 1, 128, 1, 1, 64 << 10, stream, NULL, NULL) == 1);
    EXPECT(!cuFuncSetAttribute(add, 8, 64 << 10));
    EXPECT(cuModuleLoadDataEx(&other, "nonsense", 0, NULL, NULL) == 218);
}

/* add, cooperatively. */
static int launch_together(uint32_t n_blocks, uint32_t n_threads, uint32_t shared_len)
{
    struct { int32_t id, pad; int32_t on, unused[15]; } attribute = { 2, 0, 1, { 0 } };
    struct { uint32_t grid[3], block[3], shared_len; void *stream, *attributes; uint32_t n_attributes; } config
        = { { n_blocks, 1, 1 }, { n_threads, 1, 1 }, shared_len, stream, &attribute, 1 };
    void *args[] = { &x };
    return cuLaunchKernelEx(&config, add, args, NULL);
}

/* What a block may have, and how many are there at once: of those with 100 KB so many a multiprocessor. */
static void check_shared(int most, uint32_t of_100_kb)
{
    enum { N_PROCESSORS = 3, PEEK_THREADS = 288 };
    void *args[] = { &seen, &x };
    setenv("MOSS_FAKE_CUDA_PROCESSORS", "3", 1);
    prepare();
    EXPECT(!cuFuncSetAttribute(add, 8, most) && cuFuncSetAttribute(add, 8, most + 1) == 1);
    EXPECT(launch_together(1, 32, (uint32_t)most + 1) == 1);
    EXPECT(!launch_together(N_PROCESSORS, 32, (uint32_t)most));
    EXPECT(launch_together(N_PROCESSORS + 1, 32, (uint32_t)most) == 720);
    EXPECT(!launch_together(N_PROCESSORS * of_100_kb, 32, 100 << 10));
    EXPECT(launch_together(N_PROCESSORS * of_100_kb + 1, 32, 100 << 10) == 720);
    EXPECT(!launch_together(N_PROCESSORS * 2, 128, 0));               /* registers, if a thread has 255 */
    EXPECT(launch_together(N_PROCESSORS * 2 + 1, 128, 0) == 720);
    EXPECT(!cuLaunchKernel(peek, 1, 1, 1, 256, 1, 1, 0, stream, args, NULL));
    EXPECT(cuLaunchKernel(peek, 1, 1, 1, PEEK_THREADS, 1, 1, 0, stream, args, NULL) == 701);
}
static void shared_80(void)
{
    setenv("MOSS_FAKE_CUDA_SM", "80", 1);
    check_shared(163 << 10, 1);
}
static void shared_90(void) { check_shared(227 << 10, 2); }

static void leaks(void)
{
    prepare();
    setenv("MOSS_FAKE_CUDA_LEAKS", "1", 1);
    cuDevicePrimaryCtxRelease_v2(0);
}

static void written_behind(void)
{
    uint64_t memory;
    start();
    EXPECT(!cuMemAlloc_v2(&memory, 100));
    ((char *)(uintptr_t)memory)[100] = 0;
    cuMemFree_v2(memory);
}

static void order(void)
{
    CU_ASSERT_EQUAL(child_status(launches, NULL), 0);
    CU_ASSERT_EQUAL(child_status(dependent_launches, NULL), 0);
    CU_ASSERT_EQUAL(child_status(graphs, NULL), 0);
    CU_ASSERT_EQUAL(child_status(late_copies, NULL), 0);
}

static void misuse(void)
{
    CU_ASSERT_EQUAL(child_status(refusals, NULL), 0);
    CU_ASSERT_EQUAL(child_status(shared_80, NULL), 0);
    CU_ASSERT_EQUAL(child_status(shared_90, NULL), 0);
    CU_ASSERT_TRUE(WIFSIGNALED(child_status(leaks, NULL)));
    CU_ASSERT_TRUE(WIFSIGNALED(child_status(written_behind, NULL)));
}

/* ---- faults ---- */

static void no_device(void) { EXPECT(cuInit(0) == 100); }

static void old_driver(void)
{
    int version;
    EXPECT(!cuDriverGetVersion(&version) && version < 12000);
}

static void no_memory(void)
{
    uint64_t memory;
    size_t free_len, total;
    start();
    EXPECT(!cuMemAlloc_v2(&memory, 10) && cuMemAlloc_v2(&memory, 10) == 2 && !cuMemAlloc_v2(&memory, 10));
    setenv("MOSS_FAKE_CUDA_MEMORY", "1000", 1);
    EXPECT(!cuMemGetInfo_v2(&free_len, &total) && free_len == 980 && total == 1000);
    EXPECT(cuMemAlloc_v2(&memory, 981) == 2 && !cuMemAlloc_v2(&memory, 980));
}

static void bad_ptx(void)
{
    char log[200] = "";
    int options[] = { 5, 6 };
    void *values[] = { log, (void *)sizeof log };
    start();
    EXPECT(cuModuleLoadDataEx(&module, ptx, 2, options, values) == 218 && strstr(log, "fatal"));
}

static void lost(void)
{
    const char *name;
    prepare();
    EXPECT(!launch() && !cuStreamSynchronize(stream) && !launch());
    EXPECT(cuStreamSynchronize(stream) == 719 && cuStreamSynchronize(stream) == 719 && launch() == 719);
    EXPECT(!cuGetErrorName(719, &name) && strcmp(name, "CUDA_ERROR_LAUNCH_FAILED") == 0);
}

static void faults(void)
{
    CU_ASSERT_EQUAL(child_status(no_device, "no-device"), 0);
    CU_ASSERT_EQUAL(child_status(old_driver, "old-driver"), 0);
    CU_ASSERT_EQUAL(child_status(no_memory, "no-memory:2"), 0);
    CU_ASSERT_EQUAL(child_status(bad_ptx, "ptx"), 0);
    CU_ASSERT_EQUAL(child_status(lost, "lost:2"), 0);
}

static const UnitTest tests[] = { { "order of work", order }, { "misuse", misuse }, { "faults", faults } };
UNIT_MAIN("fake_cuda", tests)
