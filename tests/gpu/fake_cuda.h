/* A stand-in for the CUDA driver, libcuda.so.1: what its files share.
 *
 * Device memory is host memory, kernels are host renderings in the library that MOSS_FAKE_CUDA_KERNELS
 * names (host_kernels.sh makes it), streams are queues that run when somebody waits for them: what the
 * caller does too early shows. A misuse is answered with the driver's error and words on stderr.
 * tests/gpu/fake_cuda.c lists the environment variables.
 */
#ifndef MOSS_TESTS_GPU_FAKE_CUDA_H
#define MOSS_TESTS_GPU_FAKE_CUDA_H

#include "launch.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CUDA_API __attribute__((visibility("default"))) int

enum {
    FAKE_OK = 0, FAKE_INVALID_VALUE = 1, FAKE_OUT_OF_MEMORY = 2, FAKE_NOT_INITIALIZED = 3, FAKE_NO_DEVICE = 100,
    FAKE_INVALID_CONTEXT = 201, FAKE_INVALID_PTX = 218, FAKE_INVALID_HANDLE = 400, FAKE_NOT_FOUND = 500,
    FAKE_NOT_READY = 600, FAKE_OUT_OF_RESOURCES = 701, FAKE_LAUNCH_FAILED = 719,
    FAKE_TOO_LARGE = 720, FAKE_CAPTURE_UNSUPPORTED = 900,
    FAKE_MAX_ARGS = 64,
};

/* ---- fake_cuda.c ---- */

/* Words on stderr, and the code. */
int fake_misuse(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The N of a fault "name:N" that MOSS_FAKE_CUDA_FAULT asks for, 1 without a number, 0: not this fault. */
int fake_fault(const char *name);
/* Whole numbers of the environment. */
long fake_setting(const char *name, long otherwise);
/* The device: compute capability, multiprocessors, bytes of shared memory that a block may have at most. */
int fake_sm(void);
int fake_processors(void);
int fake_shared_most(void);
/* Every call takes the lock, then asks this: may this thread go on? 0, or the error. */
int fake_enter(void);
void fake_leave(void);
/* From now on every call fails. */
void fake_lose_device(void);
bool fake_is_lost(void);
extern int fake_n_objects;      /* streams, events, modules, graphs that live */

/* ---- fake_cuda_memory.c ---- */

/* Does [at, at + len) lie in one allocation? */
bool fake_is_device(uint64_t at, size_t len);
bool fake_is_pinned(const void *at, size_t len);
int fake_n_allocations(void);
size_t fake_memory_free(void);

/* ---- fake_cuda_stream.c: with the lock held ---- */

typedef struct {
    EmulateEarlyFunction *run_early;
    EmulateRestFunction *run_rest;
    EmulateLaunch launch;
    EmulateEarly *early;        /* it has begun, before the launch before it */
    bool is_dependent;          /* may begin before that ends */
    int n_args;
    size_t arg_lens[FAKE_MAX_ARGS];
    void *args[FAKE_MAX_ARGS];  /* copies of their values */
} FakeLaunch;

typedef struct FakeStream FakeStream;
/* Takes over `launch`, whose args came from malloc; runs it when the stream is waited for. */
int fake_queue_launch(FakeStream *stream, FakeLaunch *launch);
int fake_queue_copy(FakeStream *stream, void *to, const void *from, size_t len);
int fake_queue_set(FakeStream *stream, void *to, unsigned char value, size_t len);
int fake_wait_stream(FakeStream *stream);
int fake_wait_all(void);

#endif
