/* mossc import: a Hugging Face folder becomes a graph and its weights. docs/import.md */
#ifndef MOSSC_COMPILER_IMPORT_H
#define MOSSC_COMPILER_IMPORT_H

#include "../ir/diag.h"

/* Reads config.json and the safetensors of `folder`; writes `out`/model.json and
 * `out`/model.safetensors. Says on stdout what was made, if `verbose`. False after reporting. */
bool import_folder(Arena *arena, Diags *diags, const char *folder, const char *out, bool verbose);

#endif
