/* Step: a whole model with what was chosen of its kernels beside the same without, prefill and decode.
 *
 * A kernel alone may like what a model does not: caches are shared, threads run beside each other. What makes a phase
 * slower is recorded, and then not chosen.
 */
#ifndef MOSSC_TUNER_STEP_H
#define MOSSC_TUNER_STEP_H

#include "search.h"
#include "step_run.h"
#include "../compiler/driver.h"

/* Builds both in `folder`, measures them in turn, records and prints it. False after reporting, or when a signal
 * came. */
bool step_compare(Compilation *c, SearchRun *run, const char *folder);
/* Its parts: what the records choose of each kernel; both builds measured, on the machine that records are of, which
 * need not have the records, and which `runner` reaches (NULL: this one); what came of it recorded and printed. */
bool step_choose(const SearchRun *run, Choices *choices);
bool step_measure(Compilation *c, const Plan *plan, const char *folder, Runner *runner, const Choices *choices,
                  StepRequest *request, StepResult *result);
bool step_store(SearchRun *run, const Choices *choices, const StepRequest *request, const StepResult *result);

/* Names in records: the key of what ("prefill", "decode", "chunk") of a model on a machine, whose features, device and
 * toolchain are in `machine`; the point that all choices of a phase together are, "choices=0" where they are
 * defaults. */
RecordKey step_key(Arena *arena, const Plan *plan, const RecordKey *machine, const char *what);
const char *step_point(Arena *arena, const Plan *plan, int phase, const Choices *choices);

/* Drops of `choices` what a comparison of whole models has found slower, and adds the chunk that was fastest. `key` has
 * features, device and toolchain. False after reporting. */
bool step_apply(Records *records, Arena *arena, Diags *diags, const Plan *plan, const RecordKey *key, Choices *choices);

#endif
