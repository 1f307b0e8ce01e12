/* The CUDA driver: dlopen, and its errors in words. */
#include "gpu_cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* A function's address in an object of its type; ISO C has no conversion. */
static bool find(void *library, const char *name, void *function, size_t len)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, len);
    return symbol != NULL;
}

bool cuda_check(const Cuda *cuda, int result, const char *what, char *why, size_t why_len)
{
    const char *name = NULL;
    if (result == 0)
        return true;
    cuda->get_error_name(result, &name);
    snprintf(why, why_len, "%s: %s (%d)", what, name ? name : "an unknown error", result);
    return false;
}

static bool open_library(Cuda *cuda, char *why, size_t why_len)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return snprintf(why, why_len, "no GPU driver (%.120s)", dlerror()), false;
#define CUDA(id, name, arguments) \
    if (!find(library, name, &cuda->id, sizeof cuda->id)) \
        return snprintf(why, why_len, "the driver lacks %s: it is too old", name), false;
#include "gpu_cuda.def"
#undef CUDA
    find(library, "cuTensorMapEncodeTiled", &cuda->map_encode, sizeof cuda->map_encode);
    return true;
}

bool cuda_open(Cuda *cuda, char *why, size_t why_len)
{
    int count = 0, device = 0, major = 0, minor = 0;
    *cuda = (Cuda){ 0 };
    if (!open_library(cuda, why, why_len))
        return false;
    cuda->get_version(&cuda->version);
    if (cuda->version < CUDA_LEAST_VERSION)
        return snprintf(why, why_len, "the driver is for CUDA %d.%d, and 12.0 is needed", cuda->version / 1000,
                        cuda->version % 1000 / 10), false;
    int result = cuda->init(0);
    result = result ? result : cuda->device_get_count(&count);
    if (!result && count == 0)
        return snprintf(why, why_len, "the driver finds no GPU"), false;
    result = result ? result : cuda->device_get(&device, 0);
    result = result ? result : cuda->device_get_name(cuda->name, sizeof cuda->name, device);
    result = result ? result : cuda->device_get_attribute(&major, CUDA_DEVICE_MAJOR, device);
    result = result ? result : cuda->device_get_attribute(&minor, CUDA_DEVICE_MINOR, device);
    result = result ? result : cuda->device_get_attribute(&cuda->n_processors, CUDA_DEVICE_PROCESSORS, device);
    cuda->capability = 10 * major + minor;
    return cuda_check(cuda, result, "cannot open the GPU", why, why_len);
}

bool cuda_start(Cuda *cuda, char *why, size_t why_len)
{
    int device = 0, result = cuda->device_get(&device, 0);
    result = result ? result : cuda->context_retain(&cuda->context, device);
    result = result ? result : cuda->context_push(cuda->context);
    result = result ? result : cuda->stream_create(&cuda->stream, CUDA_STREAM_NON_BLOCKING);
    return cuda_check(cuda, result, "cannot use the GPU", why, why_len);
}
