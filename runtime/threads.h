/* The team: n_threads that run the same task together and meet at barriers.
 *
 * The calling thread is member 0; the others are made in moss_team_start and wait between tasks.
 * Waiting spins for some microseconds, so that a barrier costs little on free cores, and then
 * sleeps in the kernel, so that a busy machine is not made busier.
 * Invariant: between two calls of moss_team_run no member touches the caller's memory.
 */
#ifndef MOSS_THREADS_H
#define MOSS_THREADS_H

#include "internal.h"

#include <pthread.h>
#include <stdatomic.h>

enum { MOSS_MAX_THREADS = 1024 };

/* A counter that threads wait on. `value` has its cache line to itself. */
typedef struct {
    _Alignas(MOSS_ALIGN) atomic_uint value;
    atomic_uint n_sleepers;
    atomic_uint n_vain, n_naps;    /* spins in vain in a row; waits to come that sleep at once */
} moss_event;

struct moss_barrier {
    _Alignas(MOSS_ALIGN) atomic_uint n_arrived;
    moss_event passed;         /* barriers completed so far */
    unsigned n_threads;
    int64_t spin_ns;
};

typedef void moss_task(void *argument, int thread);
typedef struct moss_team moss_team;

typedef struct {
    moss_team *team;
    pthread_t handle;
    int thread, bind_errno;    /* errno of binding it to its processor, 0 */
} moss_member;

struct moss_team {
    moss_event started;        /* tasks begun so far */
    moss_barrier barrier;      /* for the task's own use; also ends every task */
    moss_member *members;      /* [n_threads] */
    moss_task *task;
    void *argument;
    const int32_t *cpus;
    int32_t n_threads;
    bool stop;
    bool bound;                /* the caller's affinity was changed: `caller_cpus` gives it back */
    _Alignas(MOSS_ALIGN) unsigned char caller_cpus[128];
};

/* `members` has room for n_threads; `cpus` is NULL or [n_threads]. On an error nothing is left. */
MOSS_INTERNAL int moss_team_start(moss_team *team, moss_member *members, int32_t n_threads,
                                  const int32_t *cpus, moss_error *error);
MOSS_INTERNAL void moss_team_stop(moss_team *team);
/* task(argument, thread) on every member; returns when all are done. */
MOSS_INTERNAL void moss_team_run(moss_team *team, moss_task *task, void *argument);

MOSS_INTERNAL void moss_barrier_init(moss_barrier *barrier, int32_t n_threads);
MOSS_INTERNAL void moss_barrier_wait(moss_barrier *barrier);

#endif
