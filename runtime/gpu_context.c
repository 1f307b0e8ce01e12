/* Contexts of a GPU: a stream, scratch on the device, pinned memory for what goes in and out, slots for states.
 *
 * Input: a started model. Output: a context of constant length in the caller's block.
 * Invariant: once the device has failed, every later call says so, in the words of the first.
 */
#include "gpu.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { MOSS_CONTEXT_MAGIC = 0x58435347, MOSS_CONTEXT_MAX_THREADS = 1024 };

static uint64_t moss_context_logits_len(void)
{
    return (uint64_t)MOSS_GPU_MAX_SEQUENCES * (uint64_t)moss_program_data.vocab_size * sizeof(float);
}

size_t moss_context_len(int32_t n_threads)
{
    if (n_threads < 1 || n_threads > MOSS_CONTEXT_MAX_THREADS)
        return 0;
    return moss_align_up(sizeof(moss_context)
                         + (size_t)moss_program_data.gpu->n_tensor_maps * sizeof(moss_cu_tensor_map));
}

int moss_gpu_check(moss_context *context, int result, const char *what, moss_error *error)
{
    if (result == 0)
        return MOSS_OK;
    moss_driver_check(&context->model->driver, result, what, &context->lost);
    if (error)
        *error = context->lost;
    return context->lost.status;
}

int moss_gpu_check_context(const moss_context *context, moss_error *error)
{
    if (!context || context->magic != MOSS_CONTEXT_MAGIC)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "context is %s", context ? "not initialised" : "NULL");
    if (context->lost.status != MOSS_OK && error)
        *error = context->lost;
    return context->lost.status;
}

static int moss_context_check(const moss_context *context, const moss_gpu_model *model, int32_t n_threads,
                              moss_error *error)
{
    if (!context || !moss_is_aligned(context))
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "context is %s",
                              context ? "not aligned to 64 bytes" : "NULL");
    if (!model || !model->weights)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "model is %s", model ? "not open" : "NULL");
    if (n_threads < 1 || n_threads > MOSS_CONTEXT_MAX_THREADS)
        return moss_error_set(error, MOSS_ERROR_ARGUMENT, "n_threads is %d, expected 1 to %d", n_threads,
                              MOSS_CONTEXT_MAX_THREADS);
    return MOSS_OK;
}

/* Pinned memory: inputs of some calls, the history, samplers, logits of a decode. */
static int moss_context_pin(moss_context *context)
{
    const uint64_t history_len = MOSS_GPU_HISTORY * MOSS_GPU_MAX_SEQUENCES * sizeof(int32_t);
    void *pinned = NULL;
    context->input_len = moss_align_up(sizeof(moss_gpu_input) + (uint64_t)context->layout.most * sizeof(int32_t));
    const uint64_t inputs_len = MOSS_GPU_CALLS * context->input_len;
    const uint64_t samplers_len = MOSS_GPU_MAX_SEQUENCES * sizeof(moss_sampler);
    const uint64_t len = inputs_len + history_len + samplers_len + moss_context_logits_len();
    const int result = context->model->driver.pinned_alloc(&pinned, len, 0);
    if (result)
        return result;
    context->pinned = pinned;
    context->history = (int32_t *)(void *)(context->pinned + inputs_len);
    context->samplers = (moss_sampler *)(void *)(context->pinned + inputs_len + history_len);
    context->logits = (float *)(void *)(context->pinned + inputs_len + history_len + samplers_len);
    return 0;
}

static int moss_context_make_queue(moss_context *context, moss_error *error)
{
    const moss_driver *driver = &context->model->driver;
    int result = driver->stream_create(&context->stream, MOSS_CU_STREAM_NON_BLOCKING);
    for (int i = 0; i < MOSS_GPU_CALLS && !result; i++)
        result = driver->event_create(&context->sent[i], MOSS_CU_EVENT_NO_TIMING);
    if (!result)
        result = moss_context_pin(context);
    return moss_driver_check(driver, result, "cannot make a queue to the GPU", error);
}

/* What kernels count in, and the history, of which every call fetches all rows. */
static int moss_context_clear(moss_context *context, moss_error *error)
{
    const moss_driver *driver = &context->model->driver;
    const uint64_t zeroed_len = moss_program_data.gpu->zeroed_len;
    int result = zeroed_len ? driver->memory_set(context->memory, 0, zeroed_len, context->stream) : 0;
    if (!result)
        result = driver->memory_set(context->memory + context->layout.history, 0,
                                    context->layout.logits - context->layout.history, context->stream);
    return moss_driver_check(driver, result, "cannot clear memory of the GPU", error);
}

static int moss_context_make(moss_context *context, moss_error *error)
{
    const moss_gpu_model *model = context->model;
    int status = moss_context_make_queue(context, error);
    if (status == MOSS_OK)
        status = moss_gpu_alloc(model, &context->memory, context->layout.end, "scratch", error);
    if (status == MOSS_OK)
        status = moss_context_clear(context, error);
    if (status == MOSS_OK)
        status = moss_gpu_encode_maps(context, error);
    /* States of a model with full attention have a length that may not be known yet. */
    if (status == MOSS_OK && (model->n_context > 0 || !moss_program_data.state_token_len))
        status = moss_gpu_slots_make(context, model->n_context, error);
    return status;
}

static void moss_context_free(moss_context *context)
{
    const moss_driver *driver = &context->model->driver;
    if (context->stream)
        driver->stream_wait(context->stream);
    moss_gpu_drop_graphs(context);
    if (context->states)
        driver->memory_free(context->states);
    if (context->memory)
        driver->memory_free(context->memory);
    if (context->pinned)
        driver->pinned_free(context->pinned);
    for (int i = 0; i < MOSS_GPU_CALLS; i++)
        if (context->sent[i])
            driver->event_destroy(context->sent[i]);
    if (context->stream)
        driver->stream_destroy(context->stream);
}

/* Where tickets begin. The clock serves where the system has no random numbers yet. */
static uint64_t moss_context_salt(void)
{
    uint64_t salt;
    struct timespec now;
    if (getrandom(&salt, sizeof salt, GRND_NONBLOCK) == sizeof salt)
        return salt;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return ((uint64_t)now.tv_sec * 1000000007u + (uint64_t)now.tv_nsec) * 0x9E3779B97F4A7C15u;
}

/* The device computes: n_threads and cpus change nothing. */
int moss_context_init(moss_context *context, const moss_model *base, int32_t n_threads, const int32_t *cpus,
                      moss_error *error)
{
    const moss_gpu_model *model = (const moss_gpu_model *)(const void *)base;
    (void)cpus;
    int status = moss_context_check(context, model, n_threads, error);
    if (status == MOSS_OK)
        status = moss_gpu_enter(model, error);
    if (status != MOSS_OK)
        return status;
    memset(context, 0, moss_context_len(n_threads));
    context->model = model;
    context->layout = moss_gpu_plan(&moss_program_data);
    context->n_slots = model->n_states;
    context->salt = moss_context_salt();
    status = moss_context_make(context, error);
    if (status == MOSS_OK)
        context->magic = MOSS_CONTEXT_MAGIC;
    else
        moss_context_free(context);
    moss_gpu_leave(model);
    return status;
}

void moss_context_deinit(moss_context *context)
{
    if (!context || context->magic != MOSS_CONTEXT_MAGIC)
        return;
    context->magic = 0;
    if (moss_gpu_enter(context->model, NULL) != MOSS_OK)
        return;
    moss_context_free(context);
    moss_gpu_leave(context->model);
}
