/* Ceilings of a GPU: what it can do at most, for the roofline of its records.
 *
 * Runs in the child that holds the device, alone on it. Takes about a second.
 */
#ifndef MOSSC_TUNER_GPU_CEILINGS_H
#define MOSSC_TUNER_GPU_CEILINGS_H

#include "gpu_bench.h"

/* Bytes a second of reading more than caches hold; operations a second of 16-bit products with float32 sums, by
 * mma.sync and by wgmma, a multiply-add counted two. 0: not measured, or the target has no such instruction. */
typedef struct { double read, mma, wgmma; } GpuCeilings;

/* False: the device is lost, with words in bench->why. A kernel that does not load, or for which there is no memory,
 * leaves a 0. */
bool gpu_ceilings_measure(GpuBench *bench, GpuCeilings *found);

#endif
