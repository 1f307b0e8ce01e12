/* Planned: names that are known but not there yet, so that they are not called unknown. */
#ifndef MOSSC_COMPILER_PLANNED_H
#define MOSSC_COMPILER_PLANNED_H

#include "../ir/diag.h"

typedef enum { PLANNED_COMMAND, PLANNED_OPTION, PLANNED_TARGET, PLANNED_EMIT } PlannedKind;

/* A name that nothing else knows: a usage error if it is planned, else false and nothing said. */
bool planned_report(Diags *diags, PlannedKind kind, const char *name);

#endif
