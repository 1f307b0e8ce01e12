/* Step: a whole model with what was chosen of its kernels beside the same without, prefill and decode.
 *
 * A kernel alone may like what a model does not: caches are shared, threads run beside each other. What makes a phase
 * slower is recorded, and then not chosen.
 */
#ifndef MOSSC_TUNER_STEP_H
#define MOSSC_TUNER_STEP_H

#include "search.h"
#include "../compiler/driver.h"

/* Builds both in `folder`, measures them in turn, records and prints it. False after reporting, or when a signal came.
 * */
bool step_compare(Compilation *c, SearchRun *run, const char *folder);

/* Drops of `choices` what a comparison of whole models has found slower, and adds the chunk that was fastest. `key` has
 * features, device and toolchain. False after reporting. */
bool step_apply(Records *records, Arena *arena, Diags *diags, const Plan *plan, const RecordKey *key, Choices *choices);

#endif
