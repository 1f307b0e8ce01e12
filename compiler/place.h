/* Placing buffers with lifetimes into one arena: small, offline, first fit by size. */
#ifndef MOSSC_COMPILER_PLACE_H
#define MOSSC_COMPILER_PLACE_H

#include "../ir/plan.h"

#include <stdint.h>

/* `len` bytes alive in phases first..last, both included. place_items writes *offset. */
typedef struct { int64_t len; int first, last; int64_t *offset; } PlacedItem;

/* Offsets such that items alive in one phase do not overlap; returns the length needed. */
int64_t place_items(PlacedItem *items, int n);

/* Floats attention packs for one item: see codegen/templates/attention.c. */
int64_t attention_scratch_len(const Tiling *tiling, const Step *step, int64_t heads_per_kv, int64_t head_dim);

#endif
