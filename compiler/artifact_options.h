/* Options that mossc hands on to an artifact, checked before the artifact is built. */
#ifndef MOSSC_COMPILER_ARTIFACT_OPTIONS_H
#define MOSSC_COMPILER_ARTIFACT_OPTIONS_H

#include "../ir/diag.h"

/* Are argv[0..n) options of the artifact's `command`, by name and with a value where one is due?
 * `table`: the text of runtime/options.def. Values are the artifact's to judge. False after reporting. */
bool artifact_options_check(Diags *diags, const char *table, const char *command, const char *const *argv, int n);

#endif
