/* The device: found, compared with what the program was compiled for, its memory, and kernels made from PTX.
 *
 * Input: the program's gpu tables. Output: a model with its device's context held and its kernels loaded.
 * Invariant: what does not fit is said before anything is allocated.
 */
#include "gpu.h"

#include <inttypes.h>
#include <stdio.h>

int moss_gpu_enter(const moss_gpu_model *model, moss_error *error)
{
    return moss_driver_check(&model->driver, model->driver.context_push(model->context), "cannot use the GPU", error);
}

void moss_gpu_leave(const moss_gpu_model *model)
{
    moss_cu_context context;
    model->driver.context_pop(&context);
}

/* PTX for sm_90 uses what only compute capability 9.0 has; other PTX also runs on later devices. */
static int moss_gpu_check_capability(const moss_gpu_model *model, moss_error *error)
{
    const int32_t found = model->capability, needed = moss_program_data.gpu->sm;
    const bool exact = needed >= 90;
    if (exact ? found == needed : found >= needed)
        return MOSS_OK;
    return moss_error_set(error, MOSS_ERROR_DEVICE,
        "%s has compute capability %d.%d; compiled for %s, this needs %d.%d%s", model->name, found / 10, found % 10,
        moss_program_data.target, needed / 10, needed % 10, exact ? "" : " or later");
}

static int moss_gpu_ask_device(moss_gpu_model *model, moss_error *error)
{
    const moss_driver *driver = &model->driver;
    int major = 0, minor = 0;
    int result = driver->device_get_name(model->name, sizeof model->name, model->device);
    if (!result)
        result = driver->device_get_attribute(&major, MOSS_CU_DEVICE_MAJOR, model->device);
    if (!result)
        result = driver->device_get_attribute(&minor, MOSS_CU_DEVICE_MINOR, model->device);
    if (!result)
        result = driver->device_get_attribute(&model->n_processors, MOSS_CU_DEVICE_PROCESSORS, model->device);
    if (!result)
        result = driver->device_get_attribute(&model->shared_most, MOSS_CU_DEVICE_SHARED, model->device);
    model->capability = 10 * major + minor;
    return moss_driver_check(driver, result, "cannot ask what the GPU is", error);
}

/* Device 0; CUDA_VISIBLE_DEVICES makes another one that. */
int moss_gpu_device_open(moss_gpu_model *model, moss_error *error)
{
    const moss_driver *driver = &model->driver;
    int count = 0, result = driver->init(0);
    if (!result)
        result = driver->device_get_count(&count);
    if (result == MOSS_CU_ERROR_NO_DEVICE || (!result && count == 0))
        return moss_error_set(error, MOSS_ERROR_DEVICE, "no GPU: the driver for CUDA %d.%d finds none; compiled for %s",
                              driver->version / 1000, driver->version % 1000 / 10, moss_program_data.target);
    if (!result)
        result = driver->device_get(&model->device, 0);
    int status = moss_driver_check(driver, result, "the GPU driver does not start", error);
    if (status == MOSS_OK)
        status = moss_gpu_ask_device(model, error);
    if (status == MOSS_OK)
        status = moss_gpu_check_capability(model, error);
    if (status != MOSS_OK)
        return status;
    result = driver->context_retain(&model->context, model->device);
    model->held = result == 0;
    status = moss_driver_check(driver, result, "cannot use the GPU", error);
    return status;
}

int moss_gpu_check_memory(const moss_gpu_model *model, moss_error *error)
{
    const moss_program *program = &moss_program_data;
    const double mb = 1e6;
    const uint64_t scratch = moss_gpu_plan(program).end, state = moss_gpu_state_stride(program, model->n_context);
    uint64_t needed;
    size_t free = 0, total = 0;
    if (__builtin_mul_overflow(state, (uint64_t)model->n_states, &needed)
        || __builtin_add_overflow(needed, program->weights_len + scratch, &needed))
        needed = UINT64_MAX;
    int status = moss_driver_check(&model->driver, model->driver.memory_info(&free, &total),
                                   "cannot ask for free memory of the GPU", error);
    if (status != MOSS_OK || needed <= free)
        return status;
    return moss_error_set(error, MOSS_ERROR_DEVICE,
        "%s has %.2f MB of %.2f free; needed %.2f MB: weights %.2f, scratch %.2f, %d state%s of %.2f", model->name,
        (double)free / mb, (double)total / mb, (double)needed / mb, (double)program->weights_len / mb,
        (double)scratch / mb, model->n_states, model->n_states == 1 ? "" : "s", (double)state / mb);
}

int moss_gpu_alloc(const moss_gpu_model *model, moss_cu_pointer *memory, uint64_t len, const char *what,
                   moss_error *error)
{
    size_t free = 0, total = 0;
    const int result = model->driver.memory_alloc(memory, len ? len : 1);
    if (!result)
        return MOSS_OK;
    char words[120];
    model->driver.memory_info(&free, &total);
    snprintf(words, sizeof words, "cannot get %" PRIu64 " bytes of GPU memory for %s, %zu are free", len, what, free);
    return moss_driver_check(&model->driver, result, words, error);
}

/* ---- kernels ---- */

/* The compiler's words on one line, as far as a message holds them. */
static int moss_gpu_ptx_error(const moss_gpu_model *model, int result, char *log, moss_error *error)
{
    const char *name = NULL;
    for (char *c = log; *c; c++)
        if (*c == '\n')
            *c = ' ';
    model->driver.get_error_name(result, &name);
    return moss_error_set(error, MOSS_ERROR_DEVICE,
        "the driver for CUDA %d.%d refuses this program's PTX: %s (%d)%s%s", model->driver.version / 1000,
        model->driver.version % 1000 / 10, name ? name : "an unknown error", result, *log ? ": " : "", log);
}

static int moss_gpu_load_module(moss_gpu_model *model, moss_error *error)
{
    enum { LOG_LEN = 4096 };
    char log[LOG_LEN] = "";
    int options[] = { MOSS_CU_JIT_ERROR_LOG, MOSS_CU_JIT_ERROR_LOG_LEN };
    void *values[] = { log, (void *)(uintptr_t)(LOG_LEN - 1) };
    const int result = model->driver.module_load(&model->module, moss_program_data.gpu->ptx, 2, options, values);
    return result ? moss_gpu_ptx_error(model, result, log, error) : MOSS_OK;
}

/* Shared memory that the launches of a kernel ask for at most. */
static int32_t moss_gpu_kernel_shared(int32_t kernel)
{
    const moss_gpu_program *gpu = moss_program_data.gpu;
    int32_t most = 0;
    for (int32_t i = 0; i < gpu->n_launches; i++)
        if (gpu->launches[i].kernel == kernel && gpu->launches[i].shared_len > most)
            most = gpu->launches[i].shared_len;
    return most;
}

static int moss_gpu_load_kernel(moss_gpu_model *model, int32_t kernel, moss_error *error)
{
    const char *name = moss_program_data.gpu->kernels[kernel];
    const int32_t shared = moss_gpu_kernel_shared(kernel);
    char words[160];
    snprintf(words, sizeof words, "kernel %.140s", name);
    if (shared > model->shared_most)
        return moss_error_set(error, MOSS_ERROR_DEVICE, "%s needs %d bytes of shared memory, %s has %d", words, shared,
                              model->name, model->shared_most);
    int result = model->driver.module_get_function(&model->kernels[kernel], model->module, name);
    if (!result && shared)
        result = model->driver.function_set(model->kernels[kernel], MOSS_CU_FUNCTION_SHARED, shared);
    return moss_driver_check(&model->driver, result, words, error);
}

int moss_gpu_load_kernels(moss_gpu_model *model, moss_error *error)
{
    int status = moss_gpu_load_module(model, error);
    for (int32_t i = 0; i < moss_program_data.gpu->n_kernels && status == MOSS_OK; i++)
        status = moss_gpu_load_kernel(model, i, error);
    return status;
}
