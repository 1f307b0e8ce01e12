/* Launches of a check on a GPU, through the driver. Input: a text of PTX.
 *
 * Every buffer has a twin on the device: all are copied there before a launch, and those that may
 * have changed back after it. Arguments that point into a buffer are translated, maps of matrices encoded.
 */
#include "check_run.h"
#include "emulate_map.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;

static Result (*cu_init)(unsigned), (*cu_device_get)(int *, int), (*cu_retain)(void **, int), (*cu_set_current)(void *);
static Result (*cu_load)(void **, const void *, unsigned, int *, void **);
static Result (*cu_function)(void **, void *, const char *);
static Result (*cu_attribute)(void *, int, int), (*cu_alloc)(uint64_t *, size_t), (*cu_free)(uint64_t);
static Result (*cu_to_device)(uint64_t, const void *, size_t), (*cu_to_host)(void *, uint64_t, size_t);
static Result (*cu_launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,
                           void **, void **);
static Result (*cu_cooperative)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,
                                void **);
static Result (*cu_map)(void *, int, unsigned, void *, const uint64_t *, const uint64_t *, const uint32_t *,
                        const uint32_t *, int, int, int, int);
static Result (*cu_sync)(void), (*cu_error_name)(Result, const char **);

static const struct { void *function; const char *name; } symbols[] = {
    { &cu_init, "cuInit" }, { &cu_device_get, "cuDeviceGet" }, { &cu_retain, "cuDevicePrimaryCtxRetain" },
    { &cu_set_current, "cuCtxSetCurrent" }, { &cu_load, "cuModuleLoadDataEx" }, { &cu_function, "cuModuleGetFunction" },
    { &cu_attribute, "cuFuncSetAttribute" }, { &cu_alloc, "cuMemAlloc_v2" }, { &cu_free, "cuMemFree_v2" },
    { &cu_to_device, "cuMemcpyHtoD_v2" }, { &cu_to_host, "cuMemcpyDtoH_v2" }, { &cu_launch, "cuLaunchKernel" },
    { &cu_cooperative, "cuLaunchCooperativeKernel" }, { &cu_map, "cuTensorMapEncodeTiled" },
    { &cu_sync, "cuCtxSynchronize" }, { &cu_error_name, "cuGetErrorName" },
};

enum { JIT_ERROR_LOG = 5, JIT_ERROR_LOG_LEN = 6, MAX_DYNAMIC_SHARED = 8, MAX_ARGS = 64, MAX_MAPS = 4 };

static void *module;
static char problem[4096];

static const char *failed(const char *what, Result result)
{
    const char *name = NULL;
    cu_error_name(result, &name);
    snprintf(problem, sizeof problem, "%s: %s", what, name ? name : "unknown error");
    return problem;
}

#define TRY(call)                                  \
    do {                                           \
        const Result result_ = (call);             \
        if (result_)                               \
            return failed(#call, result_);         \
    } while (0)

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        return NULL;
    const long len = ftell(file);
    char *text = calloc(1, (size_t)len + 1);
    rewind(file);
    if (!text || fread(text, 1, (size_t)len, file) != (size_t)len)
        return NULL;
    fclose(file);
    return text;
}

const char *check_open_cuda(const char *ptx)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW), *context = NULL;
    if (!driver)
        return dlerror();
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *function = dlsym(driver, symbols[i].name);
        if (!function)
            return dlerror();
        memcpy(symbols[i].function, &function, sizeof function);
    }
    int device;
    TRY(cu_init(0));
    TRY(cu_device_get(&device, 0));
    TRY(cu_retain(&context, device));
    TRY(cu_set_current(context));
    char *text = read_text(ptx);
    if (!text)
        return "cannot read the PTX";
    static char log[3800];
    int options[] = { JIT_ERROR_LOG, JIT_ERROR_LOG_LEN };
    void *values[] = { log, (void *)sizeof log };
    const Result result = cu_load(&module, text, 2, options, values);
    free(text);
    if (result)
        snprintf(problem, sizeof problem, "the driver refuses the PTX: %d: %s", result, log);
    return result ? problem : NULL;
}

static const char *send(CheckBuffer *buffer)
{
    const size_t len = (size_t)(buffer->end - buffer->begin);
    if (!buffer->on_device)
        TRY(cu_alloc(&buffer->on_device, len));
    TRY(cu_to_device(buffer->on_device, buffer->begin, len));
    return NULL;
}

static uint64_t translate(uint64_t value, const CheckBuffer *buffers, int n_buffers)
{
    for (int b = 0; b < n_buffers; b++)
        if (value >= (uint64_t)(uintptr_t)buffers[b].begin && value <= (uint64_t)(uintptr_t)buffers[b].end)
            return value - (uint64_t)(uintptr_t)buffers[b].begin + buffers[b].on_device;
    return value;
}

/* The driver's map, of boxes with rows of 128 bytes that lie swizzled, as emulate_hopper.h has them. */
static const char *encode(void *made, const EmulateMap *map, const CheckBuffer *buffers, int n_buffers)
{
    enum { UINT8, UINT16, NO_INTERLEAVE = 0, SWIZZLE_128 = 3, PROMOTE_256 = 3, FILL_ZERO = 0 };
    const uint64_t base = translate((uint64_t)(uintptr_t)map->base, buffers, n_buffers);
    const uint64_t dims[] = { (uint64_t)map->n_columns, (uint64_t)map->n_rows };
    const uint64_t strides[] = { (uint64_t)map->row_stride };
    const uint32_t box[] = { (uint32_t)map->box_columns, (uint32_t)map->box_rows }, steps[] = { 1, 1 };
    TRY(cu_map(made, map->element_len == 1 ? UINT8 : UINT16, 2, (void *)(uintptr_t)base, dims, strides, box, steps,
               NO_INTERLEAVE, SWIZZLE_128, PROMOTE_256, FILL_ZERO));
    return NULL;
}

const char *check_run_cuda(const char *instance, const CheckGrid *grid, int n_args, const void *const *args,
                           const size_t *arg_lens, CheckBuffer *buffers, int n_buffers)
{
    void *function;
    TRY(cu_function(&function, module, instance));
    if (grid->shared_len > 48 * 1024)
        TRY(cu_attribute(function, MAX_DYNAMIC_SHARED, grid->shared_len));
    for (int b = 0; b < n_buffers; b++) {
        const char *wrong = send(&buffers[b]);
        if (wrong)
            return wrong;
    }
    uint64_t pointers[MAX_ARGS];
    EmulateMap maps[MAX_MAPS];
    void *there[MAX_ARGS];
    int n_maps = 0;
    for (int i = 0; i < n_args; i++) {
        there[i] = (void *)args[i];
        if (arg_lens[i] == sizeof pointers[i]) {
            memcpy(&pointers[i], args[i], sizeof pointers[i]);
            pointers[i] = translate(pointers[i], buffers, n_buffers);
            there[i] = &pointers[i];
        } else if (arg_lens[i] == sizeof *maps) {
            const char *wrong = n_maps == MAX_MAPS ? "more maps than room for them"
                              : encode(&maps[n_maps], args[i], buffers, n_buffers);
            if (wrong)
                return wrong;
            there[i] = &maps[n_maps++];
        }
    }
    const unsigned x = (unsigned)grid->grid_x, y = (unsigned)grid->grid_y, threads = (unsigned)grid->n_threads;
    const unsigned shared_len = (unsigned)grid->shared_len;
    if (grid->all_resident)
        TRY(cu_cooperative(function, x, y, 1, threads, 1, 1, shared_len, NULL, there));
    else
        TRY(cu_launch(function, x, y, 1, threads, 1, 1, shared_len, NULL, there, NULL));
    TRY(cu_sync());
    for (int b = 0; b < n_buffers; b++)
        if (!buffers[b].frozen)
            TRY(cu_to_host(buffers[b].begin, buffers[b].on_device, (size_t)(buffers[b].end - buffers[b].begin)));
    return NULL;
}

void check_free_cuda(CheckBuffer *buffer)
{
    if (buffer->on_device)
        cu_free(buffer->on_device);
}
