/* A model on a GPU: driver, device, weights and kernels.
 *
 * Input: checked weights on the host. Output: the same on the device, and kernels ready to launch.
 * Invariant: the host's mapping is closed when the model has started; nothing needs it any more.
 */
#include "gpu.h"

#include <string.h>

size_t moss_model_len(void)
{
    return sizeof(moss_gpu_model) + (size_t)moss_program_data.gpu->n_kernels * sizeof(moss_cu_function);
}

const char *moss_model_device(const moss_model *model)
{
    return ((const moss_gpu_model *)(const void *)model)->name;
}

static int moss_gpu_fill(moss_gpu_model *model, int verify, moss_error *error)
{
    int status = moss_gpu_check_memory(model, error);
    if (status == MOSS_OK)
        status = moss_gpu_alloc(model, &model->weights, moss_program_data.weights_len, "weights", error);
    if (status == MOSS_OK)
        status = moss_gpu_upload(model, verify, moss_gpu_load_kernels, error);
    return status;
}

int moss_model_start(moss_model *base, int verify, int32_t n_states, int64_t n_context, moss_error *error)
{
    moss_gpu_model *model = moss_gpu_of(base);
    model->n_states = n_states;
    model->n_context = moss_program_data.state_token_len ? n_context : 0;
    if (n_states > MOSS_GPU_MAX_SLOTS)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "n_states is %d, expected 1 to %d", n_states,
                              MOSS_GPU_MAX_SLOTS);
    int status = moss_driver_open(&model->driver, error);
    if (status == MOSS_OK)
        status = moss_gpu_device_open(model, error);
    if (status == MOSS_OK)
        status = moss_gpu_enter(model, error);
    if (status != MOSS_OK)
        return status;
    status = moss_gpu_fill(model, verify, error);
    moss_gpu_leave(model);
    moss_weights_close(&base->weights);
    return status;
}

void moss_model_stop(moss_model *base)
{
    moss_gpu_model *model = moss_gpu_of(base);
    if (model->held && moss_gpu_enter(model, NULL) == MOSS_OK) {
        if (model->module)
            model->driver.module_unload(model->module);
        if (model->weights)
            model->driver.memory_free(model->weights);
        moss_gpu_leave(model);
    }
    if (model->held)
        model->driver.context_release(model->device);
    model->held = false;
    model->weights = 0;
    model->module = NULL;
}
