/* The scan behind json.h; see there. Not for other users. */
#ifndef MOSSC_COMPILER_JSON_SCAN_H
#define MOSSC_COMPILER_JSON_SCAN_H

#include "../ir/arena.h"
#include "../ir/diag.h"

#include <stdint.h>

#define JSON_NO_KEY SIZE_MAX
enum { JSON_NO_PARENT = -1 };

typedef struct {
    size_t value, key;        /* offsets; key is that of the opening quote, or JSON_NO_KEY */
    int parent, index;        /* record of the container, place within it */
} JsonRecord;

typedef struct {
    DiagId id;
    size_t offset;
    int record;               /* of the value being scanned; -1: before the first */
    const char *message;
} JsonFault;

typedef struct { JsonRecord *records; int n_records; JsonFault fault; } JsonScan;

/* False with `fault` set at the first thing that is not strict JSON. */
bool json_scan(Arena *arena, const char *text, size_t len, JsonScan *result);

#endif
