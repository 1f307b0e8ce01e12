/* Between the parts of the stand-in GPU: fake_gpu.c has the program and its kernels, fake_device.c the memory and the
 * queue that runs them late, fake_driver.c the functions that the runtime calls. */
#ifndef FAKE_DRIVER_H
#define FAKE_DRIVER_H

#include "fake_gpu.h"
#include "gpu_driver.h"

/* A launch: which kernel, its arguments as words, its grid. */
typedef struct { int kernel; uint64_t values[MOSS_GPU_MAX_ARGS]; moss_cu_launch config; } FakeKernel;
/* A copy (from), a fill (to alone) or a launch; `staged` is freed when it is done. */
typedef struct { void *to; const void *from; uint8_t *staged; size_t len; int value; FakeKernel kernel; } FakeWork;

/* fake_gpu.c: kernels are numbers from 0; -1: there is none of this name. */
int fake_kernel_find(const char *name);
const char *fake_kernel_name(int kernel);
int fake_kernel_n_args(int kernel);
int fake_kernel_shared_len(int kernel);      /* what the runtime must have asked for */
void fake_kernel_run(const FakeKernel *kernel);
void fake_program_reset(void);

/* fake_device.c: results are the driver's; 0 is right. */
extern _Thread_local int fake_depth;         /* contexts pushed by this thread */
int fake_enter(const char *name, bool needs_context);    /* what a function that begins has to return, or 0 */
void fake_count(int *counter, int n);
int fake_memory_new(void **memory, size_t len, bool pinned);
int fake_memory_delete(void *memory);
bool fake_memory_has(const void *memory, size_t len, bool pinned);     /* all of it in one block of this kind */
void fake_queue_add(const FakeWork *work);
void fake_queue_run(void);

#endif
