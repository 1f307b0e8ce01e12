/* Board kernels: kernel_call.h for kernels that are linked in. */
#include "board.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_ARGS = 16, MAX_COPIES = 64 };

struct KernelCall {
    const BoardKernel *kernel;
    WorkValue values[MAX_COPIES][MAX_ARGS];
};

KernelCall *board_kernel(const BoardKernel *kernel)
{
    KernelCall *call = calloc(1, sizeof *call);
    if (call)
        call->kernel = kernel;
    return call;
}

bool kernel_bind(KernelCall *call, const Work *work, char *why, size_t why_len)
{
    for (int copy = 0; copy < work_copies(work); copy++)
        for (int i = 0; i < call->kernel->n; i++)
            if (!work_argument(work, call->kernel->names[i], copy, &call->values[copy][i]))
                return snprintf(why, why_len, "no value for its argument %s", call->kernel->names[i]), false;
    return true;
}

void kernel_run(KernelCall *call, int copy) { call->kernel->run(call->values[copy]); }
