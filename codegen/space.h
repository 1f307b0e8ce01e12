/* Space: what can be chosen of a kernel, from templates/space.def.
 *
 * Input: a kernel's name, its shape and the target. Output: all feasible points in a fixed order.
 * Invariant: a point that breaks a rule of its kernel is never given out.
 */
#ifndef MOSSC_CODEGEN_SPACE_H
#define MOSSC_CODEGEN_SPACE_H

#include "../ir/arena.h"
#include "../ir/target.h"
#include "../ir/text.h"

#include <stdint.h>

enum { SPACE_MAX_PARAMS = 4, SPACE_MAX_VALUES = 16 };
typedef enum { SPACE_PREFILL, SPACE_DECODE, SPACE_MODEL } SpacePhase;

typedef struct {
    const char *kernel, *name;
    SpacePhase phase;
    int n, values[SPACE_MAX_VALUES];
} SpaceParam;

/* Parameters in ascending order of their names, as they stand in a point's text. */
typedef struct {
    const char *kernel;
    SpacePhase phase;
    int n;
    const SpaceParam *param[SPACE_MAX_PARAMS];
} SearchSpace;

/* What the rules ask about. row_len: bytes of a packed row of a product; group: heads a key head. */
typedef struct { TargetId target; int64_t n_in, row_len, group, head_dim, chunk, l2_len; } SpaceShape;

typedef struct { int value[SPACE_MAX_PARAMS]; } SpacePoint;    /* by SearchSpace.param */

/* False: nothing of this kernel is chosen. */
bool space_find(const char *kernel, SearchSpace *space);
int space_param(const SearchSpace *space, const char *name);      /* -1: none */
/* All feasible points, the first parameter changing slowest; returns how many. */
int space_points(Arena *arena, const SearchSpace *space, const SpaceShape *shape, SpacePoint **points);
bool space_feasible(const SearchSpace *space, const SpaceShape *shape, const SpacePoint *point);
/* "block_rows=144 tail_rows=4 tile_rows=12" and back; false when it is no such text. */
void space_print(const SearchSpace *space, const SpacePoint *point, Text *out);
bool space_read(const SearchSpace *space, const char *text, SpacePoint *point);

#endif
