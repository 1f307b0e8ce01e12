/* Safetensors: the header of a checkpoint, checked, as named entries. Used by weights.c. */
#ifndef MOSSC_COMPILER_SAFETENSORS_H
#define MOSSC_COMPILER_SAFETENSORS_H

#include "../ir/diag.h"
#include "../ir/dtype.h"

#include <stddef.h>
#include <stdint.h>

enum { SAFETENSORS_MAX_HEADER = 100000000, SAFETENSORS_MAX_RANK = 8 };

typedef struct {
    const char *name;
    const char *dtype_text;   /* as the file says */
    bool supported;           /* dtype_text is one of F32, F16, BF16: dtype holds it */
    DType dtype;
    int rank;
    int64_t shape[SAFETENSORS_MAX_RANK];
    int64_t begin, end;       /* bytes, counted from the end of the header */
} SafetensorsEntry;

typedef struct {
    SafetensorsEntry *entries;    /* sorted by name */
    int n_entries;
    const unsigned char *data;    /* first byte after the header */
    int64_t data_len;
} Safetensors;

/* Check the whole file in memory: lengths, JSON, every entry, and that the entries cover the data
 * without holes or overlap. False after reporting. */
bool safetensors_read(Arena *arena, Diags *diags, const char *file, const unsigned char *bytes, size_t len,
                      Safetensors *out);
const SafetensorsEntry *safetensors_find(const Safetensors *safetensors, const char *name);
/* "[2,128,64]" in the arena. */
const char *shape_text(Arena *arena, const int64_t *shape, int rank);

#endif
