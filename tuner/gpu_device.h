/* The GPU of this machine, asked in a child, so that mossc itself can still fork others that use it. */
#ifndef MOSSC_TUNER_GPU_DEVICE_H
#define MOSSC_TUNER_GPU_DEVICE_H

#include "../ir/arena.h"
#include "../ir/target.h"

#include <stdbool.h>

typedef struct {
    bool found;
    int capability, version;     /* 10 * major + minor; of the driver, 1000 * major + 10 * minor */
    char name[64], why[240];     /* why: where none was found */
} GpuDevice;

GpuDevice gpu_device_ask(void);
/* As records know it: "NVIDIA H200, sm_90, CUDA 13"; NULL: there is none. */
const char *gpu_device_text(Arena *arena);
/* Can it run the target's PTX? Else words. */
bool gpu_device_runs(Arena *arena, TargetId target, const char **why);

#endif
