/* Launches of a check on the emulator. Input: a library made by host_kernels.sh. */
#include "check_run.h"
#include "launch.h"

#include <dlfcn.h>
#include <stdio.h>

static void *library;
static EmulateFunction *launch;
static char problem[256];

const char *check_open_host(const char *path)
{
    if (!(library = dlopen(path, RTLD_NOW)) || !(launch = (EmulateFunction *)dlsym(library, "emulate_launch")))
        return dlerror();
    return NULL;
}

const char *check_run_host(const char *instance, const CheckGrid *grid, int n_args, const void *const *args,
                           const size_t *arg_lens)
{
    char name[512];
    snprintf(name, sizeof name, "%s_call", instance);
    KernelCall *call = (KernelCall *)dlsym(library, name);
    snprintf(name, sizeof name, "%s_arg_lens", instance);
    const int *lens = dlsym(library, name);
    if (!call || !lens)
        return dlerror();
    for (int i = 0; i < n_args || lens[i]; i++)
        if (i == n_args || (size_t)lens[i] != arg_lens[i]) {
            snprintf(problem, sizeof problem, "argument %d: the kernel takes %d bytes, the check gives %zu", i, lens[i],
                     i == n_args ? 0 : arg_lens[i]);
            return problem;
        }
    const EmulateLaunch what = { instance, call, grid->grid_x, grid->grid_y, grid->n_threads, grid->shared_len,
                                 grid->all_resident };
    launch(&what, (void *const *)args);
    return NULL;
}
