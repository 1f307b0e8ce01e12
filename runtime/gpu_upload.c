/* Weights to the device, at the speed of the bus.
 *
 * Input: mapped weights. Output: the same bytes at model->weights, and whether their checksum is right. Some threads
 * copy pieces into pinned memory, each into two buffers in turn, from where the device fetches them; one
 * thread computes the checksum meanwhile; the caller is free to make the kernels.
 * Invariant: after moss_gpu_upload no thread is left and all is on the device, or an error is told.
 */
#include "gpu.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { MOSS_UPLOAD_THREADS = 4, MOSS_UPLOAD_BUFFERS = 2, MOSS_UPLOAD_PIECE = 4 << 20 };

typedef struct moss_upload moss_upload;
typedef struct {
    moss_upload *upload;
    pthread_t handle;
    bool started;
    uint8_t *pinned;           /* MOSS_UPLOAD_BUFFERS pieces */
    int result;                /* the driver's, 0 */
} moss_upload_thread;

struct moss_upload {
    const moss_gpu_model *model;
    uint8_t *pinned;
    atomic_uint_fast64_t next;         /* piece that nobody has begun */
    uint64_t n_pieces;
    moss_upload_thread threads[MOSS_UPLOAD_THREADS], verifier;
    int verify_status;
    moss_error verify_error;
};

static int moss_upload_pieces(moss_upload_thread *thread, moss_cu_stream stream, const moss_cu_event *fetched)
{
    moss_upload *upload = thread->upload;
    const moss_driver *driver = &upload->model->driver;
    const uint64_t len = moss_program_data.weights_len;
    int result = 0;
    for (uint64_t n = 0, piece; !result && (piece = atomic_fetch_add(&upload->next, 1)) < upload->n_pieces; n++) {
        const uint64_t at = piece * MOSS_UPLOAD_PIECE, b = n % MOSS_UPLOAD_BUFFERS;
        const uint64_t piece_len = len - at < MOSS_UPLOAD_PIECE ? len - at : MOSS_UPLOAD_PIECE;
        uint8_t *buffer = thread->pinned + b * MOSS_UPLOAD_PIECE;
        result = driver->event_wait(fetched[b]);
        if (result)
            break;
        memcpy(buffer, upload->model->base.weights.data + at, piece_len);
        result = driver->copy_to_device(upload->model->weights + at, buffer, piece_len, stream);
        if (!result)
            result = driver->event_record(fetched[b], stream);
    }
    const int waited = driver->stream_wait(stream);
    return result ? result : waited;
}

static int moss_upload_with_stream(moss_upload_thread *thread, moss_cu_stream stream)
{
    const moss_driver *driver = &thread->upload->model->driver;
    moss_cu_event fetched[MOSS_UPLOAD_BUFFERS] = { NULL };
    int result = 0;
    for (int b = 0; b < MOSS_UPLOAD_BUFFERS && !result; b++)
        result = driver->event_create(&fetched[b], MOSS_CU_EVENT_NO_TIMING);
    if (!result)
        result = moss_upload_pieces(thread, stream, fetched);
    for (int b = 0; b < MOSS_UPLOAD_BUFFERS; b++)
        if (fetched[b])
            driver->event_destroy(fetched[b]);
    return result;
}

static void *moss_upload_main(void *argument)
{
    moss_upload_thread *thread = argument;
    const moss_driver *driver = &thread->upload->model->driver;
    moss_cu_stream stream;
    thread->result = driver->context_push(thread->upload->model->context);
    if (thread->result)
        return NULL;
    thread->result = driver->stream_create(&stream, MOSS_CU_STREAM_NON_BLOCKING);
    if (!thread->result) {
        thread->result = moss_upload_with_stream(thread, stream);
        driver->stream_destroy(stream);
    }
    moss_gpu_leave(thread->upload->model);
    return NULL;
}

static void *moss_upload_verify(void *argument)
{
    moss_upload *upload = ((moss_upload_thread *)argument)->upload;
    upload->verify_status = moss_weights_verify(&upload->model->base.weights, &upload->verify_error);
    return NULL;
}

static int moss_upload_start_thread(moss_upload *upload, moss_upload_thread *thread, void *(*task)(void *),
                                    moss_error *error)
{
    thread->upload = upload;
    const int code = pthread_create(&thread->handle, NULL, task, thread);
    thread->started = code == 0;
    return code == 0 ? MOSS_OK : moss_error_set(error, MOSS_ERROR_SYSTEM,
                                                "cannot create a thread to load the weights: %s", strerror(code));
}

static int moss_upload_start(moss_upload *upload, int verify, moss_error *error)
{
    const size_t room = MOSS_UPLOAD_BUFFERS * MOSS_UPLOAD_PIECE;
    const moss_driver *driver = &upload->model->driver;
    upload->n_pieces = (moss_program_data.weights_len + MOSS_UPLOAD_PIECE - 1) / MOSS_UPLOAD_PIECE;
    const int n_threads = upload->n_pieces < MOSS_UPLOAD_THREADS ? (int)upload->n_pieces : MOSS_UPLOAD_THREADS;
    void *pinned = NULL;
    int status = moss_driver_check(driver, driver->pinned_alloc(&pinned, (size_t)(n_threads + !n_threads) * room, 0),
                                   "cannot get pinned memory", error);
    upload->pinned = pinned;
    if (status == MOSS_OK && verify)
        status = moss_upload_start_thread(upload, &upload->verifier, moss_upload_verify, error);
    for (int i = 0; i < n_threads && status == MOSS_OK; i++) {
        upload->threads[i].pinned = upload->pinned + (size_t)i * room;
        status = moss_upload_start_thread(upload, &upload->threads[i], moss_upload_main, error);
    }
    return status;
}

static int moss_upload_finish(moss_upload *upload, moss_error *error)
{
    const moss_driver *driver = &upload->model->driver;
    int result = 0;
    for (int i = 0; i < MOSS_UPLOAD_THREADS; i++) {
        if (upload->threads[i].started)
            pthread_join(upload->threads[i].handle, NULL);
        if (!result)
            result = upload->threads[i].result;
    }
    if (upload->verifier.started)
        pthread_join(upload->verifier.handle, NULL);
    if (upload->pinned)
        driver->pinned_free(upload->pinned);
    if (upload->verify_status != MOSS_OK) {
        if (error)
            *error = upload->verify_error;
        return upload->verify_status;
    }
    return moss_driver_check(driver, result, "cannot copy the weights to the GPU", error);
}

int moss_gpu_upload(moss_gpu_model *model, int verify, int (*meanwhile)(moss_gpu_model *model, moss_error *error),
                    moss_error *error)
{
    moss_upload upload = { .model = model };
    moss_error later;
    int status = moss_upload_start(&upload, verify, error);
    if (status == MOSS_OK)
        status = meanwhile(model, error);
    const int finished = moss_upload_finish(&upload, &later);
    if (status == MOSS_OK && finished != MOSS_OK && error)
        *error = later;
    return status != MOSS_OK ? status : finished;
}
