/* The GPU of this machine: what the driver says of device 0. */
#include "gpu_device.h"

#include "gpu_cuda.h"
#include "watch.h"

#include <stdio.h>
#include <string.h>

static void ask(void *context)
{
    GpuDevice *device = context;
    Cuda cuda;
    device->found = cuda_open(&cuda, device->why, sizeof device->why);
    device->capability = cuda.capability;
    device->version = cuda.version;
    memcpy(device->name, cuda.name, sizeof device->name);
}

GpuDevice gpu_device_ask(void)
{
    enum { SECONDS = 60 };
    GpuDevice device = { .why = "no memory" }, *shared = watch_memory(sizeof *shared);
    if (!shared)
        return device;
    const Watched end = watch_run(ask, shared, SECONDS);
    device = *shared;
    if (end.status != TRIAL_OK) {
        device.found = false;
        snprintf(device.why, sizeof device.why, "asking the driver: %s", end.detail);
    }
    watch_release(shared, sizeof *shared);
    return device;
}

const char *gpu_device_text(Arena *arena)
{
    const GpuDevice device = gpu_device_ask();
    return device.found ? arena_printf(arena, "%s, sm_%d, CUDA %d", device.name, device.capability,
                                       device.version / 1000) : NULL;
}

/* PTX for sm_90 uses what only compute capability 9.0 has; other PTX also runs on later devices. */
bool gpu_device_runs(Arena *arena, TargetId target, const char **why)
{
    const GpuDevice device = gpu_device_ask();
    const int needed = target_sm(target);
    if (!device.found)
        *why = arena_strdup(arena, device.why);
    else if (needed >= 90 ? device.capability != needed : device.capability < needed)
        *why = arena_printf(arena, "%s has compute capability %d.%d, and %d.%d is needed", device.name,
                            device.capability / 10, device.capability % 10, needed / 10, needed % 10);
    else
        return true;
    return false;
}
