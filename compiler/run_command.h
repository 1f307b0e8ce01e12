/* `mossc run|bench|eval MODEL.json|ARTIFACT ...`: compile if need be, then let the artifact do it. */
#ifndef MOSSC_COMPILER_RUN_COMMAND_H
#define MOSSC_COMPILER_RUN_COMMAND_H

#include "driver.h"

/* The artifact's exit code, or -1 after reporting. */
int run_command(Compilation *c, const char *command);

#endif
