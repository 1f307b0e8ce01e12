/* Targets: what code is generated for. See target.def. */
#ifndef MOSSC_IR_TARGET_H
#define MOSSC_IR_TARGET_H

#include "dtype.h"

#include <stdbool.h>

typedef enum {
#define TARGET(id, ...) TARGET_##id,
#include "target.def"
#undef TARGET
    N_TARGETS
} TargetId;

typedef enum { FAMILY_X86, FAMILY_AARCH64, FAMILY_GPU } Family;

typedef struct {
    const char *name;
    Family family;
    int lanes;              /* float32 lanes of one vector register */
    int tile_rows;          /* activation rows of one product tile */
    int tail_rows;          /* of the tiles for what is left; divides tile_rows */
    int dot_offset;         /* q8 weights are stored plus this: what the int8 product instruction takes */
    const char *flags;      /* for the C compiler */
    const char *features;   /* space-separated; the artifact refuses to run without them */
    const char *summary;
} Target;

const Target *target_info(TargetId id);
/* The targets whose code an artifact for `id` holds, from the least to the most demanding: of a target for several kinds
 * of CPU those, else `id` alone. Returns how many. They share one layout of weights, states and scratch. */
enum { TARGET_MAX_CODES = 3 };
int target_codes(TargetId id, TargetId codes[TARGET_MAX_CODES]);
bool target_has_codes(TargetId id);      /* several */
bool target_from_name(const char *name, TargetId *id);
/* `host` becomes the best target this machine can run; others stay. */
TargetId target_resolve(TargetId id);
/* The type whose matrices have their rows rounded to it too: bf16 or f16, else f32. Faster and less exact, so only
 * where asked for: `host` never becomes such a target. */
DType target_row_dtype(TargetId id);
/* Bytes of a column that lie together in panels of int8, and in those of bf16 by pairs: DOT_GROUP of runtime/dot.h, one
 * layout a family. */
int target_dot_group(TargetId id);
/* A GPU target's least compute capability, 80 or 90; 0 for a CPU. */
int target_sm(TargetId id);
/* Bytes of shared memory that a block may have on such a GPU; a multiprocessor has one KiB more, which one block takes
 * beside its own. */
int sm_shared_most(int sm);
/* Can code for `id` run on this machine? A GPU's: is its driver installed? */
bool target_runs_here(TargetId id);
/* Why not, in words that follow "cannot run code for h100: "; NULL: it can. */
const char *target_lacks_here(TargetId id);

#endif
