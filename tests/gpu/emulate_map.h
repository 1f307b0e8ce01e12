/* A matrix for bulk tensor copies, an argument of a kernel by value: what the emulator, the stand-in driver and the
 * checks take for the driver's CUtensorMap.
 */
#ifndef MOSS_TESTS_GPU_EMULATE_MAP_H
#define MOSS_TESTS_GPU_EMULATE_MAP_H

#include <stdint.h>

typedef struct {
    _Alignas(64) const void *base;
    int64_t n_rows, n_columns, row_stride;      /* bytes */
    int32_t element_len, box_rows, box_columns;
    char unused[84];
} EmulateMap;
_Static_assert(sizeof(EmulateMap) == 128, "as long as the driver's");

#endif
