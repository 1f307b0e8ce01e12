/* What runs the launches of a check: the emulator in a library of host renderings, or a GPU. */
#ifndef MOSS_TESTS_GPU_CHECK_RUN_H
#define MOSS_TESTS_GPU_CHECK_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct { int grid_x, grid_y, n_threads, shared_len, all_resident; } CheckGrid;

/* Memory of one check_buffer: [begin, end) is mapped, data with its len lies at the end. */
typedef struct {
    char *begin, *end, *data;
    size_t len;
    bool frozen, early;          /* nobody may write it; it may be read before dependency_wait */
    uint64_t on_device;          /* address of `begin` there, 0: not yet */
} CheckBuffer;

/* Each returns NULL or what is wrong. args[i] points to the i-th argument, arg_lens[i] bytes. */
const char *check_open_host(const char *library);
const char *check_run_host(const char *instance, const CheckGrid *grid, int n_args, const void *const *args,
                           const size_t *arg_lens, const CheckBuffer *buffers, int n_buffers);

const char *check_open_cuda(const char *ptx);
const char *check_run_cuda(const char *instance, const CheckGrid *grid, int n_args, const void *const *args,
                           const size_t *arg_lens, CheckBuffer *buffers, int n_buffers);
void check_free_cuda(CheckBuffer *buffer);

#endif
