/* Slots: where a block's weights and state lie in what its layers bind. */
#ifndef MOSSC_COMPILER_SLOTS_H
#define MOSSC_COMPILER_SLOTS_H

#include "../ir/plan.h"

enum { PLAN_ALIGN = 64, DEVICE_ALIGN = 256 };    /* bytes */
static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
static inline int64_t align_len(int64_t len) { return round_up(len, PLAN_ALIGN); }

/* Is it one of those that --quant applies to? */
bool slot_is_matrix(const WeightSlot *slot);

/* Give the value of a weight or state operation its slot, adding one when the block (in its other
 * phase) does not have it yet. `panel`: columns are padded to whole ones; 0: for a GPU, where they are
 * not. */
void bind_weight(Arena *arena, BlockPlan *plan, const Op *op, int panel, int group);
void bind_state(Arena *arena, BlockPlan *plan, const Op *op, int panel);
const Buffer *buffer_new(Arena *arena, Buffer buffer);

#endif
