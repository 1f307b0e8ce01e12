/* Open the CUDA driver and put its errors into words.
 *
 * Input: libcuda.so.1 as the system finds it, cuda_syms.def. Output: a table of functions.
 * The library is never closed: it has threads of its own, which would lose the code they run.
 */
#include "gpu_driver.h"

#include <dlfcn.h>
#include <string.h>

#define MOSS_DRIVER_NEEDED "needs the NVIDIA driver for CUDA 12.0 or later"

/* A function's address in an object of its type; ISO C has no conversion. */
static bool moss_driver_find(void *library, const char *name, void *function, size_t len)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, len);
    return symbol != NULL;
}

static int moss_driver_check_version(moss_driver *driver, void *library, moss_error *error)
{
    int (*get_version)(int *version);
    int version = 0;
    if (!moss_driver_find(library, "cuDriverGetVersion", &get_version, sizeof get_version))
        return moss_error_set(error, MOSS_ERROR_DEVICE, "libcuda.so.1 has no cuDriverGetVersion; compiled for %s, this "
                              MOSS_DRIVER_NEEDED, moss_program_data.target);
    get_version(&version);
    driver->version = version;
    if (version >= MOSS_CU_LEAST_VERSION)
        return MOSS_OK;
    return moss_error_set(error, MOSS_ERROR_DEVICE, "the driver is for CUDA %d.%d; compiled for %s, this "
                          MOSS_DRIVER_NEEDED, version / 1000, version % 1000 / 10, moss_program_data.target);
}

int moss_driver_open(moss_driver *driver, moss_error *error)
{
    enum { MAPS, REQUIRED };
    const char *lacks = NULL;
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return moss_error_set(error, MOSS_ERROR_DEVICE, "no GPU driver (%.100s); compiled for %s, this "
                              MOSS_DRIVER_NEEDED, dlerror(), moss_program_data.target);
    int status = moss_driver_check_version(driver, library, error);
    if (status != MOSS_OK)
        return status;
#define CUDA_SYMBOL(id, name, need, arguments) \
    if (!moss_driver_find(library, name, &driver->id, sizeof driver->id) \
        && (need == REQUIRED || moss_program_data.gpu->n_tensor_maps > 0)) \
        lacks = name;
#include "cuda_syms.def"
#undef CUDA_SYMBOL
    if (!lacks)
        return MOSS_OK;
    return moss_error_set(error, MOSS_ERROR_DEVICE, "the driver for CUDA %d.%d lacks %s; compiled for %s, this "
                          MOSS_DRIVER_NEEDED, driver->version / 1000, driver->version % 1000 / 10, lacks,
                          moss_program_data.target);
}

int moss_driver_check(const moss_driver *driver, int result, const char *what, moss_error *error)
{
    const char *name = NULL, *words = NULL;
    if (result == 0)
        return MOSS_OK;
    driver->get_error_name(result, &name);
    driver->get_error_string(result, &words);
    return moss_error_set(error, MOSS_ERROR_DEVICE, "%s: %s (%d): %s", what, name ? name : "an unknown error", result,
                          words ? words : "the driver has no words for it");
}
