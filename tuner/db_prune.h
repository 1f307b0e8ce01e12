/* Pruning: trials that may go. */
#ifndef MOSSC_TUNER_DB_PRUNE_H
#define MOSSC_TUNER_DB_PRUNE_H

#include "db_summary.h"

/* STALE: of another version of its template. FAILED: everything but ok and stopped. SUPERSEDED: neither the
 * best of its key, nor the default, nor ever an incumbent. */
typedef enum { PRUNE_STALE, PRUNE_FAILED, PRUNE_SUPERSEDED, N_PRUNE_REASONS } PruneReason;
typedef struct { const Trial **trials; int n, count[N_PRUNE_REASONS]; } Pruning;

/* `reasons`: bits 1 << PruneReason. A trial that has several counts once. No trial goes whose going would make
 * another point the best of a key that is not stale. */
Pruning db_prune_choose(Arena *arena, const Summary *summary, unsigned reasons);

#endif
