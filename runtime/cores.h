/* The processors of this machine, by speed. */
#ifndef MOSS_CORES_H
#define MOSS_CORES_H

#include "internal.h"

#include <sched.h>

#ifndef MOSS_SYS
#define MOSS_SYS "/sys"     /* tests have one of their own */
#endif

enum { MOSS_CORES_MAX = 1024 };

typedef struct { int32_t cpu; long speed; } moss_core;

typedef struct {
    int32_t n, n_big;          /* cores; the first n_big are worth a thread */
    double least_share;        /* of the fastest's speed that a big core has */
    moss_core at[MOSS_CORES_MAX];      /* the fastest first; of a core with hyperthreads the first one */
} moss_cores;

MOSS_INTERNAL void moss_cores_find(moss_cores *cores, const char *sys, const cpu_set_t *usable);

#endif
