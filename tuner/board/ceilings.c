/* Board ceilings: what this machine reaches, told as a line. */
#include "board.h"

#include "../watch.h"

typedef struct { const CeilingKernels *kernels; Ceilings *found; } Task;

static void work(void *context)
{
    const Task *task = context;
    ceilings_run(task->kernels, task->found);
}

void board_ceilings(const CeilingKernels *kernels, double deadline)
{
    Ceilings *found = watch_memory(sizeof *found);
    Task task = { kernels, found };
    const bool ok = found && watch_run(work, &task, deadline).status == TRIAL_OK;
    if (ok)
        board_say("ceilings %a %a %a", found->operations, found->operations_int8, found->bytes);
    if (found)
        watch_release(found, sizeof *found);
}
