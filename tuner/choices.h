/* Choices from records: `mossc compile --tuning DB`. */
#ifndef MOSSC_TUNER_CHOICES_H
#define MOSSC_TUNER_CHOICES_H

#include "records.h"
#include "../compiler/driver.h"

/* What the database says is best of each kernel of c->plan, on one device with one C compiler. The device is that
 * of --tuned-on, else this machine; where this machine cannot run c->target and the database knows one device of it,
 * that one. Nothing is taken from the records of another device. NULL after reporting. */
const Choices *choices_from_records(Compilation *c);

/* The same of records at hand. `n_found`: kernels that have a record. */
bool choices_fill(Records *records, Arena *arena, Diags *diags, const Plan *plan, const char *device,
                  const char *toolchain, Choices *choices, int *n_found);

#endif
