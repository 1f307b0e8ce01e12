/* Checks: what would go wrong with names and places is refused before anything is read or written. */
#ifndef MOSSC_COMPILER_CHECKS_H
#define MOSSC_COMPILER_CHECKS_H

#include "../ir/diag.h"

/* Each: false after reporting. */

/* Can functions begin with it? NULL is the usual one. */
bool check_prefix(Diags *diags, const char *prefix);
/* Is `out` no input (NULL: none), under whatever name? */
bool check_not_input(Diags *diags, const char *out, const char *input);

#endif
