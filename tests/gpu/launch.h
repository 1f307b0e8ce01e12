/* The emulator: runs GPU kernels, rendered as C, on the CPU. For tests only.
 *
 * Every thread of a block is a fiber and runs until it waits for others: at a barrier, at a shuffle,
 * at any operation of a warp. Blocks are shared out over OS threads. What is wrong on a GPU and easy
 * to miss aborts here with the kernel's name, block and thread: threads that wait for each other at
 * different places, misaligned 16-byte accesses, copies to outside of shared memory, bad addresses.
 * Shared memory holds NaNs before every block; half of the async copies happen when they are issued,
 * half when they are waited for; which of the ready threads goes first changes all the time, always
 * in the same way, and blocks are not in order. Not seen here: weak memory order, bank conflicts,
 * approximate functions, speed.
 *
 * host_kernels.sh makes a shared library of kernels and the emulator; INSTANCE_call is a KernelCall.
 * How to add a kernel and its check: check.h.
 */
#ifndef MOSS_TESTS_GPU_LAUNCH_H
#define MOSS_TESTS_GPU_LAUNCH_H

typedef void KernelCall(void *const *args);      /* args[i] points to the i-th argument */

enum { EMULATE_MAX_THREADS = 1024, EMULATE_MAX_SHARED = 227 * 1024 };

typedef struct {
    const char *name;
    KernelCall *call;
    int grid_x, grid_y, n_threads, shared_len;   /* n_threads: a multiple of 32 */
    int all_resident;                            /* cooperative: blocks may wait for each other */
} EmulateLaunch;

/* Runs every block to its end. */
typedef void EmulateFunction(const EmulateLaunch *launch, void *const *args);
__attribute__((visibility("default"))) EmulateFunction emulate_launch;

/* The same in two steps, as programmatic dependent launch may take them: first what some of the blocks do before
 * dependency_wait, when the launch before this one still runs; then all the rest. Both by one OS thread;
 * launch and args stay as they are in between. */
typedef struct EmulateEarly EmulateEarly;
typedef EmulateEarly *EmulateEarlyFunction(const EmulateLaunch *launch, void *const *args);
typedef void EmulateRestFunction(EmulateEarly *early);
__attribute__((visibility("default"))) EmulateEarlyFunction emulate_early;
__attribute__((visibility("default"))) EmulateRestFunction emulate_rest;

#endif
