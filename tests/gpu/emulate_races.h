/* Races on shared memory, found by what orders accesses and not by luck: for kernels compiled with -fsanitize=thread.
 *
 * The compiler then calls emulate_races.c before every load and store; here is what the emulator tells it besides.
 * Every thread has a vector clock. What orders, as in the PTX memory model: barriers of the block or of some warps,
 * warp_sync, mbarriers (arrivals and bytes of bulk copies before those who wait), copy_wait for the copies of one's
 * own. Not: shuffles, votes, ldmatrix, mma, one warp's threads by themselves, or that something happened to come first.
 * A copy_async writes from its issue to its copy_wait, a bulk copy until its mbarrier's phase has ended, a wgmma reads
 * until it is waited for. What ordinary code or copy_async wrote and wgmma reads needs a proxy_fence by either side in
 * between. Not seen: global memory; registers of wgmma; mbarrier_init_done; reads before the last few of a word; what
 * lanes other than the first of a warp lack before a wgmma; bytes of an mbarrier that are used for something else.
 * Without such kernels emulate_races_on stays false and nothing here costs anything.
 */
#ifndef MOSS_TESTS_GPU_EMULATE_RACES_H
#define MOSS_TESTS_GPU_EMULATE_RACES_H

#include <stdbool.h>
#include <stdint.h>

extern bool emulate_races_on;

typedef struct Races Races;

/* ---- by emulate.c ---- */

/* For a block of n_threads with shared memory at `shared`; `kept` is an earlier block's, or NULL. */
Races *races_start(Races *kept, int n_threads, const char *shared, int shared_len);
void races_arrive(int barrier);                 /* this thread at one of the block's barriers */
void races_pass(int barrier, int thread);       /* all have come: that thread goes on */
void races_empty(int barrier);                  /* all who stayed have passed */
void races_sync_warp(void);                     /* all of this thread's warp have come */
void races_copy_begin(const void *to, int len);
void races_copy_end(const void *to, int len);
void races_read(const void *from, int len);     /* by this thread, from code that is not compiled so */

/* ---- by emulate_hopper.h ---- */

void races_mbarrier_init(const void *mbarrier);
void races_mbarrier_arrive(const void *mbarrier);
void races_mbarrier_end(const void *mbarrier);       /* its phase has ended */
void races_mbarrier_wait(const void *mbarrier);      /* for it: this thread goes on */
void races_bulk(const void *to, int len, const void *mbarrier);
void races_read_wgmma(const void *from, int len);
void races_proxy_fence(void);

#endif
