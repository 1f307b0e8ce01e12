/* What the runtime's own files share: the opaque structs of moss.h, and errors.
 *
 * Nothing here is exported. MOSS_INTERNAL hides a symbol that another file of the runtime (or the
 * generated code) needs, so a library exports the names of moss.h alone.
 */
#ifndef MOSS_INTERNAL_H
#define MOSS_INTERNAL_H

#include "moss.h"
#include "program.h"

#include <stdbool.h>

#define MOSS_INTERNAL __attribute__((visibility("hidden")))

struct moss_model {
    const uint8_t *weights;   /* packed data, after the header */
    void *map;                /* the whole file; NULL when the weights are embedded */
    size_t map_len;
};

/* The header of a state; the generated code's part follows it. No pointers: a state may move. */
struct moss_state {
    char magic[8];
    uint32_t abi, reserved;
    uint64_t model_hash;
    int64_t n_context, position;
    uint64_t len;             /* bytes of the whole block */
    uint64_t weights_checksum;   /* of the weights compiled in or with; 0: not known */
    uint8_t pad[MOSS_ALIGN - 56];
};
#define MOSS_STATE_MAGIC "MOSSSTA1"

/* Fill `error` (may be NULL) and return the status. */
MOSS_INTERNAL int moss_error_set(moss_error *error, moss_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A path as it fits into a message: its tail, after "..." when it is long. */
typedef struct { char text[112]; } moss_path_text;
MOSS_INTERNAL moss_path_text moss_path_clip(const char *path);

/* The first of the blank-separated `features` that this CPU or its system lacks, as a length-
 * counted part of `features`; NULL when it has all. */
MOSS_INTERNAL const char *moss_cpu_missing(const char *features, int *len);

/* The header of a state that lives in memory: is it one of this model, and sound? */
MOSS_INTERNAL int moss_state_check_header(const moss_state *state, moss_error *error);

static inline uint64_t moss_align_up(uint64_t len)
{
    return (len + MOSS_ALIGN - 1) & ~(uint64_t)(MOSS_ALIGN - 1);
}

static inline bool moss_is_aligned(const void *block)
{
    return ((uintptr_t)block & (MOSS_ALIGN - 1)) == 0;
}

#endif
