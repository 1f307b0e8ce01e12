/* Watch: work that may hang or crash, done by a child with a deadline. Also built into the programs that boards run. */
#ifndef MOSSC_TUNER_WATCH_H
#define MOSSC_TUNER_WATCH_H

#include "status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    TrialStatus status;          /* OK: it came to its end; CRASHED, HUNG, RUNNER_FAILED */
    char detail[160];
    bool interrupted;            /* a signal came for mossc: what the child did says nothing */
} Watched;

/* Runs work(context) in a child that has all of this process's memory as a copy. */
Watched watch_run(void (*work)(void *context), void *context, double seconds);
/* Zeroed memory that parent and children share; NULL: none. */
void *watch_memory(size_t len);
void watch_release(void *memory, size_t len);

#endif
