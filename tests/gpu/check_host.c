/* Launches of a check on the emulator. Input: a library made by host_kernels.sh. */
#include "check_run.h"
#include "launch.h"

#include <dlfcn.h>
#include <stdio.h>
#include <sys/mman.h>

static void *library;
static EmulateEarlyFunction *run_early;
static EmulateRestFunction *run_rest;
static char problem[256];

const char *check_open_host(const char *path)
{
    if (!(library = dlopen(path, RTLD_NOW)) || !(run_early = (EmulateEarlyFunction *)dlsym(library, "emulate_early"))
        || !(run_rest = (EmulateRestFunction *)dlsym(library, "emulate_rest")))
        return dlerror();
    return NULL;
}

/* Before dependency_wait a kernel may read what no launch writes, and write nothing. */
static void protect(const CheckBuffer *buffers, int n_buffers, bool is_early)
{
    for (int b = 0; b < n_buffers; b++) {
        const CheckBuffer *of = &buffers[b];
        const int later = of->frozen ? PROT_READ : PROT_READ | PROT_WRITE;
        mprotect(of->begin, (size_t)(of->end - of->begin), is_early ? of->early ? PROT_READ : PROT_NONE : later);
    }
}

const char *check_run_host(const char *instance, const CheckGrid *grid, int n_args, const void *const *args,
                           const size_t *arg_lens, const CheckBuffer *buffers, int n_buffers)
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
    protect(buffers, n_buffers, true);
    EmulateEarly *early = run_early(&what, (void *const *)args);
    protect(buffers, n_buffers, false);
    run_rest(early);
    return NULL;
}
