/* `mossc tune`. */
#ifndef MOSSC_TUNER_TUNE_H
#define MOSSC_TUNER_TUNE_H

#include "../compiler/driver.h"

/* The whole command; what goes wrong is reported in c->diags. */
void tune_command(Compilation *c);

#endif
