/* Safetensors, written: a header whose tensors are known beforehand, then their bytes in order.
 *
 * The data of any checkpoint passes through in pieces; memory does not grow with it.
 */
#ifndef MOSSC_COMPILER_SAFETENSORS_WRITE_H
#define MOSSC_COMPILER_SAFETENSORS_WRITE_H

#include "safetensors.h"

/* Length, JSON and padding. Reads name, dtype, rank and shape; the data follow in this order. */
void safetensors_put_header(Text *out, const SafetensorsEntry *entries, int n_entries);
int64_t safetensors_entry_len(const SafetensorsEntry *entry);    /* bytes of data */

typedef struct SafetensorsWriter SafetensorsWriter;

/* A new file with its header and its space reserved. NULL after reporting. */
SafetensorsWriter *safetensors_write_open(Arena *arena, Diags *diags, const char *path, const SafetensorsEntry *entries,
                                          int n_entries);
/* The next bytes of the data. False after reporting. */
bool safetensors_write_bytes(SafetensorsWriter *writer, const void *bytes, size_t len);
/* False after reporting. A whole file must have been written, unless it is `abandoned`. */
bool safetensors_write_close(SafetensorsWriter *writer, bool abandoned);

#endif
