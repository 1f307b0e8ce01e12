/* The stand-in driver: its settings, errors, device and contexts.
 *
 * MOSS_FAKE_CUDA_KERNELS=FILE.so   host renderings of the kernels, by host_kernels.sh
 * MOSS_FAKE_CUDA_SM=80|90          compute capability (90), and with it shared memory as an A100 or H100 has it
 * MOSS_FAKE_CUDA_VERSION=N         of the driver (13000)
 * MOSS_FAKE_CUDA_MEMORY=N          bytes of device memory (16 GB)
 * MOSS_FAKE_CUDA_PROCESSORS=N      multiprocessors (5; an A100 has 108, an H100 132)
 * MOSS_FAKE_CUDA_LEAKS=1           abort when the context goes while memory, streams, … still live
 * MOSS_FAKE_CUDA_FAULT=WHAT        no-device; old-driver; no-memory:N, the Nth allocation fails;
 *                                  no-pinned:N, that of pinned memory; ptx, the module is refused with a
 *                                  log; lost:N, the Nth launch breaks the device
 */
#include "fake_cuda.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct FakeContext { int n_retained; } FakeContext;

enum { MAX_CONTEXTS = 16 };       /* pushed by one thread */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool is_initialized, is_lost;
static FakeContext primary;
static _Thread_local FakeContext *contexts[MAX_CONTEXTS];
static _Thread_local int n_contexts;
int fake_n_objects;

int fake_misuse(int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "fake cuda: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, " (%d)\n", code);
    va_end(args);
    return code;
}

int fake_fault(const char *name)
{
    const char *fault = getenv("MOSS_FAKE_CUDA_FAULT");
    const size_t len = strlen(name);
    if (!fault || strncmp(fault, name, len) != 0 || (fault[len] && fault[len] != ':'))
        return 0;
    return fault[len] ? atoi(fault + len + 1) : 1;
}

long fake_setting(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

int fake_sm(void) { return (int)fake_setting("MOSS_FAKE_CUDA_SM", 90); }
int fake_processors(void) { return (int)fake_setting("MOSS_FAKE_CUDA_PROCESSORS", 5); }
int fake_shared_most(void) { return (fake_sm() >= 90 ? 227 : 163) << 10; }

void fake_lose_device(void) { is_lost = true; }
bool fake_is_lost(void) { return is_lost; }

int fake_enter(void)
{
    pthread_mutex_lock(&lock);
    if (!is_initialized)
        return fake_misuse(FAKE_NOT_INITIALIZED, "a call before cuInit");
    if (n_contexts == 0 || !contexts[n_contexts - 1])
        return fake_misuse(FAKE_INVALID_CONTEXT, "a call of a thread without a context");
    if (contexts[n_contexts - 1]->n_retained == 0)
        return fake_misuse(FAKE_INVALID_CONTEXT, "a call in a context that was released");
    return is_lost ? FAKE_LAUNCH_FAILED : FAKE_OK;
}

void fake_leave(void) { pthread_mutex_unlock(&lock); }

/* ---- errors ---- */

static const struct { int code; const char *name, *words; } errors[] = {
    { FAKE_OK, "CUDA_SUCCESS", "no error" },
    { FAKE_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument" },
    { FAKE_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory" },
    { FAKE_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error" },
    { FAKE_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected" },
    { FAKE_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context" },
    { FAKE_INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed" },
    { FAKE_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle" },
    { FAKE_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found" },
    { FAKE_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch" },
    { FAKE_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure" },
    { FAKE_TOO_LARGE, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "too many blocks in cooperative launch" },
    { FAKE_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
      "operation not permitted when stream is capturing" },
};
enum { N_ERRORS = sizeof errors / sizeof errors[0] };

CUDA_API cuGetErrorName(int code, const char **text)
{
    for (int i = 0; i < N_ERRORS; i++)
        if (errors[i].code == code)
            return *text = errors[i].name, FAKE_OK;
    return *text = NULL, FAKE_INVALID_VALUE;
}

CUDA_API cuGetErrorString(int code, const char **text)
{
    for (int i = 0; i < N_ERRORS; i++)
        if (errors[i].code == code)
            return *text = errors[i].words, FAKE_OK;
    return *text = NULL, FAKE_INVALID_VALUE;
}

/* ---- the driver and its one device ---- */

CUDA_API cuDriverGetVersion(int *version)
{
    *version = fake_fault("old-driver") ? 11040 : (int)fake_setting("MOSS_FAKE_CUDA_VERSION", 13000);
    return FAKE_OK;
}

CUDA_API cuInit(unsigned flags)
{
    if (flags != 0)
        return fake_misuse(FAKE_INVALID_VALUE, "cuInit(%u)", flags);
    if (fake_fault("no-device"))
        return FAKE_NO_DEVICE;
    is_initialized = true;
    return FAKE_OK;
}

CUDA_API cuDeviceGetCount(int *count) { return *count = 1, is_initialized ? FAKE_OK : FAKE_NOT_INITIALIZED; }

CUDA_API cuDeviceGet(int *device, int ordinal)
{
    if (!is_initialized || ordinal != 0)
        return fake_misuse(is_initialized ? FAKE_INVALID_VALUE : FAKE_NOT_INITIALIZED, "cuDeviceGet(%d)", ordinal);
    return *device = 0, FAKE_OK;
}

CUDA_API cuDeviceGetName(char *name, int len, int device)
{
    (void)device;
    snprintf(name, (size_t)len, "Stand-in GPU");
    return FAKE_OK;
}

CUDA_API cuDeviceGetAttribute(int *value, int attribute, int device)
{
    enum { WARP = 10, CLOCK = 13, PROCESSORS = 16, L2 = 38, MAJOR = 75, MINOR = 76, SHARED_SM = 81, COOPERATIVE = 95,
           SHARED_BLOCK = 97 };
    (void)device;
    switch (attribute) {
    case WARP:         return *value = 32, FAKE_OK;
    case CLOCK:        return *value = 1980000, FAKE_OK;
    case PROCESSORS:   return *value = fake_processors(), FAKE_OK;
    case L2:           return *value = 50 << 20, FAKE_OK;
    case MAJOR:        return *value = fake_sm() / 10, FAKE_OK;
    case MINOR:        return *value = fake_sm() % 10, FAKE_OK;
    case SHARED_SM:    return *value = fake_shared_most() + 1024, FAKE_OK;
    case COOPERATIVE:  return *value = 1, FAKE_OK;
    case SHARED_BLOCK: return *value = fake_shared_most(), FAKE_OK;
    default:           return fake_misuse(FAKE_INVALID_VALUE, "cuDeviceGetAttribute(%d) is not here", attribute);
    }
}

/* ---- contexts ---- */

CUDA_API cuDevicePrimaryCtxRetain(FakeContext **context, int device)
{
    if (!is_initialized || device != 0)
        return fake_misuse(FAKE_INVALID_VALUE, "cuDevicePrimaryCtxRetain(%d)", device);
    pthread_mutex_lock(&lock);
    primary.n_retained++;
    *context = &primary;
    fake_leave();
    return is_lost ? FAKE_LAUNCH_FAILED : FAKE_OK;
}

static void check_leaks(void)
{
    if (!fake_setting("MOSS_FAKE_CUDA_LEAKS", 0) || (fake_n_objects == 0 && fake_n_allocations() == 0))
        return;
    fake_misuse(FAKE_INVALID_CONTEXT, "the context goes, %d allocations and %d streams, events, modules or graphs "
                "stay", fake_n_allocations(), fake_n_objects);
    abort();
}

CUDA_API cuDevicePrimaryCtxRelease_v2(int device)
{
    pthread_mutex_lock(&lock);
    const bool good = device == 0 && primary.n_retained > 0;
    if (good && --primary.n_retained == 0)
        check_leaks();
    fake_leave();
    return good ? FAKE_OK : fake_misuse(FAKE_INVALID_CONTEXT, "a context released too often");
}

CUDA_API cuCtxPushCurrent_v2(FakeContext *context)
{
    if (context != &primary || n_contexts == MAX_CONTEXTS)
        return fake_misuse(FAKE_INVALID_CONTEXT, "cuCtxPushCurrent of no context");
    contexts[n_contexts++] = context;
    return FAKE_OK;
}

CUDA_API cuCtxPopCurrent_v2(FakeContext **context)
{
    if (n_contexts == 0)
        return fake_misuse(FAKE_INVALID_CONTEXT, "cuCtxPopCurrent without a context");
    *context = contexts[--n_contexts];
    return FAKE_OK;
}

CUDA_API cuCtxSetCurrent(FakeContext *context)
{
    if (n_contexts == 0)
        n_contexts = 1;
    contexts[n_contexts - 1] = context;
    return FAKE_OK;
}

CUDA_API cuCtxSynchronize(void)
{
    int result = fake_enter();
    if (!result)
        result = fake_wait_all();
    fake_leave();
    return result;
}
