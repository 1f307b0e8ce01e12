/* Merging and removing: whole databases at once. */
#ifndef MOSSC_TUNER_RECORDS_MERGE_H
#define MOSSC_TUNER_RECORDS_MERGE_H

#include "records.h"

/* Add all of `from` to `into`, as one change. The union of trials by id; of a search the larger journal, number by
 * number. So merging is associative, commutative and idempotent. False after reporting, and nothing is changed. */
bool records_merge(Records *into, Arena *arena, Diags *diags, Records *from);
/* Remove trials, and keys that have none any more, as one change; journals stay. Gives the space back. */
bool records_remove(Records *records, Diags *diags, const Trial *const *trials, int n);

#endif
