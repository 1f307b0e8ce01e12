/* Output files: written under a temporary name, synced, renamed; nothing half-written stays.
 *
 * An OutFolder is a temporary folder beside the final place, so that renames never cross file systems.
 */
#ifndef MOSSC_COMPILER_OUTFILE_H
#define MOSSC_COMPILER_OUTFILE_H

#include "../ir/diag.h"

#include <stdint.h>

typedef struct { const char *path; } OutFolder;

/* A new folder beside `out`, removed also when a signal ends mossc. False after reporting. */
bool out_folder_make(Arena *arena, Diags *diags, const char *out, OutFolder *folder);
/* Removes it with what is in it. */
void out_folder_remove(const OutFolder *folder);
void out_folder_erase(const char *path);
/* May a file be renamed to `out`? Not if a folder or a device is there. False after reporting. */
bool out_may_replace(Diags *diags, const char *out);
const char *out_folder_file(Arena *arena, const OutFolder *folder, const char *name);

bool out_write(Diags *diags, const char *path, const char *data, size_t len);
/* All of `out` at once, or nothing of it; a device or a pipe is written to as it is. */
bool out_replace(Arena *arena, Diags *diags, const char *out, const char *data, size_t len);
/* A zeroed file of `len` bytes, its space reserved, mapped for writing. NULL after reporting. */
uint8_t *out_map(Diags *diags, const char *path, int64_t len);
bool out_unmap(Diags *diags, const char *path, uint8_t *data, int64_t len);    /* syncs */
/* Sync and move a finished file to its final place. */
bool out_publish(Diags *diags, const char *from, const char *to);

#endif
