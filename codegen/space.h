/* Space: what can be chosen of a kernel, from templates/space.def.
 *
 * Input: a kernel's name, its shape and the target. Output: all feasible points in a fixed order.
 * Invariant: a point that breaks a rule of its kernel is never given out.
 */
#ifndef MOSSC_CODEGEN_SPACE_H
#define MOSSC_CODEGEN_SPACE_H

#include "template.h"
#include "../ir/arena.h"
#include "../ir/target.h"
#include "../ir/text.h"

#include <stdint.h>

enum { SPACE_MAX_PARAMS = 8, SPACE_MAX_VALUES = 16 };
typedef enum { SPACE_PREFILL, SPACE_DECODE, SPACE_MODEL } SpacePhase;

typedef struct {
    const char *kernel, *name;
    SpacePhase phase;
    int n, values[SPACE_MAX_VALUES];
} SpaceParam;

typedef struct SpaceShape SpaceShape;
typedef struct { int value[SPACE_MAX_PARAMS]; } SpacePoint;    /* by SearchSpace.param */

/* Parameters in ascending order of their names, as they stand in a point's text. */
typedef struct SearchSpace {
    const char *kernel;
    /* The rules of a GPU's kernel; NULL: a CPU's. */
    bool (*feasible)(const struct SearchSpace *space, const SpaceShape *shape, const SpacePoint *point);
    SpacePhase phase;
    int n;
    const SpaceParam *param[SPACE_MAX_PARAMS];
} SearchSpace;

/* What the rules ask about. row_len: bytes of a packed row of a product; widened: its weights are stored narrower than
 * they are multiplied; group: heads a key head. */
typedef struct GpuShape GpuShape;
struct SpaceShape {
    TargetId target;
    int64_t n_in, n_out, row_len, group, head_dim, chunk, l2_len;
    bool widened;
    const GpuShape *gpu;         /* of GPUs, instead */
};
/* A kernel as the planner makes it without choices: its parameters, and a launch of it. */
struct GpuShape { int sm, n_threads, shared_len; const Template *template; const double *values; };

/* False: nothing of this kernel is chosen. */
bool space_find(const char *kernel, SearchSpace *space);
/* The same of the kernels in gpu/space.def. */
bool space_find_gpu(const char *kernel, SearchSpace *space);
/* Do both points add in one order, so that they give the same bits? */
bool space_gpu_keeps_bits(const SearchSpace *space, const SpacePoint *a, const SpacePoint *b);
/* In a table of n parameters. */
bool space_find_in(const SpaceParam *params, int n, const char *kernel, SearchSpace *space);
int space_param(const SearchSpace *space, const char *name);      /* -1: none */
/* All feasible points, the first parameter changing slowest; returns how many. */
int space_points(Arena *arena, const SearchSpace *space, const SpaceShape *shape, SpacePoint **points);
bool space_feasible(const SearchSpace *space, const SpaceShape *shape, const SpacePoint *point);
/* "block_rows=144 tail_rows=4 tile_rows=12" and back; false when it is no such text. */
void space_print(const SearchSpace *space, const SpacePoint *point, Text *out);
bool space_read(const SearchSpace *space, const char *text, SpacePoint *point);

#endif
