/* Whole: builds of a model compared on a board, as step_run compares them, among its big cores. */
#include "board_step.h"

#include <sched.h>
#include <stdio.h>

int32_t moss_big_cpus(int32_t *cpus, int32_t room);

/* As an artifact does where it is not told which processors to take. */
static void use_big_cores(void)
{
    enum { MOST = 1024 };
    int32_t cpus[MOST];
    const int32_t n = moss_big_cpus(cpus, MOST);
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int32_t i = 0; i < n && i < MOST; i++)
        if (cpus[i] < CPU_SETSIZE)
            CPU_SET((size_t)cpus[i], &set);
    if (n > 0)
        sched_setaffinity(0, sizeof set, &set);      /* refused: the scheduler knows big cores, too */
}

static void tell(const StepRequest *request, const StepResult *result)
{
    int n = 0;
    board_say("bits 0 %016llx", (unsigned long long)result->bits);
    board_say_outcome(result->status, result->max_error, result->detail);
    board_say_pairs(n++, &result->prefill);
    board_say_pairs(n++, &result->decode);
    for (int i = 0; i < request->n_chunks; i++)
        board_say_pairs(n++, &result->chunks[i]);
    for (int i = 0; i < request->n_variants; i++)
        board_say_pairs(n++, &result->variants[i]);
}

void board_step_run(void)
{
    char path[64];
    StepRequest request = board_step.request;
    StepResult result = { .status = TRIAL_RUNNER_FAILED };
    const int file = board_weights_make(result.detail, sizeof result.detail);
    if (file >= 0) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
        request.weights = path;
        use_big_cores();
        step_run(&request, &result);
    }
    tell(&request, &result);
}
