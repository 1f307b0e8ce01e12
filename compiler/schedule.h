/* Schedule: which thread does what, and where the threads must meet. */
#ifndef MOSSC_COMPILER_SCHEDULE_H
#define MOSSC_COMPILER_SCHEDULE_H

#include "../ir/plan.h"

/* Steps of a lowered block in order, shared out, with the barriers they need. In prefill, products of at most
 * `row_split` panels of `panel` columns are shared out by rows, others by columns; 0: as their sizes suggest. */
void schedule_block(Arena *arena, const Block *block, int64_t row_split, int64_t panel, Schedule *schedule);
/* The step of an operation; NULL when it has none (weights, views). */
Step *schedule_find(const Schedule *schedule, const Op *op);

/* Does `op` write over an operand, the residual stream or a gate? Then *x is that. */
bool op_updates(const Op *op, const Value **x);
/* The value whose bytes these are: what is updated in place, rows of another, or itself. */
const Value *value_storage(const Value *value);

#endif
