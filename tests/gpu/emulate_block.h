/* A block of the emulator, and what runs it: emulate.c its threads, emulate_launch.c the blocks of a launch.
 *
 * A Block is what one OS thread needs to run a block; they are kept for the next launch, because touching a thousand
 * stacks costs more than a small block. A thread is ready, waits, or is done.
 */
#ifndef MOSS_TESTS_GPU_EMULATE_BLOCK_H
#define MOSS_TESTS_GPU_EMULATE_BLOCK_H

#include "emulate.h"
#include "emulate_races.h"
#include "launch.h"

#include <stdbool.h>

enum {
    STACK_LEN = 256 * 1024, PAGE = 4096,
    MAX_WARPS = EMULATE_MAX_THREADS / 32, N_BARRIERS = 16,
    SHARED_SPACE = (EMULATE_MAX_SHARED + PAGE - 1) / PAGE * PAGE,
};

/* n_bytes of len, then zeros. done: before anybody waited for it. */
typedef struct { char *to; const char *from; int len, n_bytes, group; bool done; } Copy;

typedef struct {
    void *stack_pointer;
    const char *waits;              /* what for; NULL: ready or done */
    Copy *copies;                   /* issued, not yet waited for, oldest first */
    int n_copies, max_copies, n_groups;
} Fiber;

typedef struct {
    const char *what;
    void *operands[32];
    uint32_t arrived;
} WarpMeeting;

/* waits: of those who came, who stays. */
typedef struct { const char *what; int n_expected, n_arrived; uint32_t came[MAX_WARPS], waits[MAX_WARPS]; } Barrier;

typedef struct Block {
    struct Block *next;             /* in the list of those not in use */
    const EmulateLaunch *launch;
    void *const *args;
    int n_threads, n_warps, n_live;
    int forward;                    /* of the ready ones the lowest goes first, else the highest */
    uint64_t random;                /* changes forward, and when async copies happen */
    uint32_t ready[MAX_WARPS];
    WarpMeeting meetings[MAX_WARPS];
    Barrier barriers[N_BARRIERS];
    Fiber fibers[EMULATE_MAX_THREADS];
    void *caller;                   /* stack pointer of the OS thread */
    bool is_early;                  /* runs to dependency_wait only */
    int n_yields;                   /* since a meeting ended */
    Races *races;
    EmulateSelf self;               /* while it pauses */
    char *stacks, *shared_space, *signal_stack;
    int n_guarded;                  /* stacks whose lowest page is no memory */
} Block;

/* The block that this OS thread runs; NULL: none. */
extern _Thread_local Block *emulate_block;

/* Block b of its launch, ready to run. */
void emulate_start_block(int b);
/* Runs ready threads until all have ended or, early, until they wait for the launch before. */
void emulate_run_block(void);
/* What waited for the launch before may go on. */
void emulate_wake_block(void);

#endif
