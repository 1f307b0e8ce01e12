/* Space of the kernels for GPUs: the rows of gpu/space.def, and the rules they name.
 *
 * Formulas of threads and shared memory are those of the kernels' opening comments; the planner has the last word.
 */
#include "space.h"

#include <string.h>

static const SpaceParam params[] = {
#define CHOICE(kernel, name, phase, ...) \
    { #kernel, #name, SPACE_##phase, (int)(sizeof((int[]){ __VA_ARGS__ }) / sizeof(int)), { __VA_ARGS__ } },
#define FEASIBLE(kernel, rule)
#define SUMS(kernel, name)
#include "gpu/space.def"
#undef CHOICE
#undef FEASIBLE
#undef SUMS
};

/* ---- rules ---- */

enum { SLOT_LEN = 512, PART_LEN = 512, DECODE_WARPS = 16 };
typedef struct { const SearchSpace *space; const SpaceShape *shape; const SpacePoint *point; } Asked;

static int value(const Asked *a, const char *name) { return a->point->value[space_param(a->space, name)]; }
static int given(const Asked *a, const char *name)
{
    const GpuShape *gpu = a->shape->gpu;
    return (int)gpu->values[template_param(gpu->template, name)];
}
static int up(int n, int m) { return (n + m - 1) / m; }
static int shared_most(const Asked *a) { return sm_shared_most(a->shape->gpu->sm); }
static bool is_q8(const Asked *a) { return given(a, "weight_dtype") == 3; }

static int gemm_threads(const Asked *a)
{
    return 32 * (value(a, "tile_rows") / 64) * (value(a, "tile_columns") / value(a, "warp_columns"));
}

/* Whole warps, and every thread copies as much as any other. */
static bool gemm_tile_divides(const Asked *a)
{
    int rows = value(a, "tile_rows"), columns = value(a, "tile_columns"), of_warp = value(a, "warp_columns");
    int n = gemm_threads(a);
    if ((is_q8(a) || given(a, "epilogue") == 1) && of_warp % 32 != 0)
        return false;
    return columns % of_warp == 0 && n <= 256 && rows <= n && 8 * rows % n == 0
        && (is_q8(a) ? 4 : 8) * columns % n == 0;
}

/* A thread's sums of 64 rows leave 64 registers for the rest; two small blocks share a multiprocessor. */
static bool gemm_registers_fit(const Asked *a)
{
    int n_blocks = gemm_threads(a) <= 128 ? 2 : 1;
    return n_blocks * gemm_threads(a) * (2 * value(a, "warp_columns") + 64) <= 65536;
}

static bool gemm_shared_fits(const Asked *a)
{
    int rows = value(a, "tile_rows"), weight_len = is_q8(a) ? 1 : 2;
    int ring = value(a, "stages") * 64 * (2 * rows + weight_len * value(a, "tile_columns"));
    int len = ring + 2048 * gemm_threads(a) / 32 + 4 * (2 * (given(a, "n_experts") + 1) + 4 * rows);
    return len <= shared_most(a);
}

/* Not more than half of a tile's columns are waste. */
static bool wgmma_tile_suits(const Asked *a)
{
    int columns = value(a, "tile_columns");
    return columns == 96 || columns / 2 < given(a, "n_out");
}

/* Stages of tiles of 128 rows, or one more of 64, beside what gemm_h100.c says. */
static bool wgmma_ring_fits(const Asked *a)
{
    int columns = value(a, "tile_columns"), stages = value(a, "stages");
    int tiles = stages * (128 + columns), halves = (stages + 1) * (64 + columns);
    int room = shared_most(a) - (1024 + 8 * 2048 + 12 * (given(a, "n_experts") + 1));
    return 128 * (tiles > halves ? tiles : halves) + 48 * stages <= (room < 212000 ? room : 212000);
}

/* A lane of scan.c holds three numbers a token and what a step takes; a quarter of the warps has 16384 registers. Whole
 * warps gate. */
static bool scan_registers_fit(const Asked *a)
{
    int tile = value(a, "tile_tokens"), of_step = given(a, "zoh") ? 100 : 64;
    return tile * value(a, "block_channels") % 128 == 0
        && up(value(a, "stages"), 4) * 32 * (3 * tile + of_step) <= 16384;
}

/* Where the state stays in registers: scan.c says what of shared memory a block takes. */
static bool scan_block_fits(const Asked *a)
{
    int channels = value(a, "block_channels"), z_rows = given(a, "z_pairs") ? given(a, "z_pairs") : 1;
    int tile = value(a, "tile_tokens"), steps = up(given(a, "d_state") * channels, 32);
    int bc = 8 * (tile + 4) * steps * 32 / channels, parts = 128 * (tile + 2);
    int own = 2 * tile * channels * (z_rows + 3) + 2 * (bc < parts ? parts : bc) + 264 * steps;
    return given(a, "block_channels") > 0 && value(a, "stages") * own + 4 * channels <= shared_most(a);
}

static int attention_dim(const Asked *a) { return up(given(a, "head_dim"), 16) * 16; }

/* A warp has one or two fragments of 16 rows, and every thread copies as much as any other. */
static bool attention_tile_divides(const Asked *a)
{
    int rows = value(a, "tile_rows"), warps = value(a, "warps");
    return (rows == 16 * warps || rows == 32 * warps) && value(a, "tile_keys") * attention_dim(a) % (256 * warps) == 0;
}

/* Scores and sums of a thread leave half of its registers for the rest. */
static bool attention_registers_fit(const Asked *a)
{
    int n_fragments = value(a, "tile_rows") / (16 * value(a, "warps"));
    return n_fragments * (value(a, "tile_keys") + attention_dim(a)) <= 256;
}

static bool attention_shared_fits(const Asked *a)
{
    int n_staged = 2 * value(a, "stages") * value(a, "tile_keys");
    return (value(a, "tile_rows") + n_staged) * (attention_dim(a) + 8) * 2 <= shared_most(a);
}

/* Three groups have fewer registers each. */
static bool attention_h100_fits(const Asked *a)
{
    int rows = value(a, "tile_rows"), n_staged = 2 * value(a, "stages") * value(a, "tile_keys");
    int row_len = 128 * up(given(a, "head_dim"), 64);
    return (rows == 128 || row_len == 128)
        && 1024 + (rows + n_staged) * row_len + 32 * value(a, "stages") <= shared_most(a);
}

/* Pairs of chunks of 64 bytes in a row of weights. */
static int row_pairs(const Asked *a) { return up(up(given(a, "n_in"), 64) * (is_q8(a) ? 1 : 2), 2); }
static bool group_suits(const Asked *a, int n_slices)
{
    int of_slice = 2 * up(row_pairs(a), n_slices);
    return value(a, "group") <= (of_slice > 2 ? of_slice : 2);
}

/* A step is no longer than a warp's slice of a row. */
static bool group_in_slice(const Asked *a) { return group_suits(a, given(a, "n_slices")); }
static bool in_group_in_slice(const Asked *a) { return group_suits(a, DECODE_WARPS / 2 / value(a, "tiles")); }
static bool slices_have_chunks(const Asked *a) { return value(a, "n_slices") <= row_pairs(a); }

/* The rings of all warps in the place of those it has; `more` bytes beside them. */
static bool ring_fits(const Asked *a, int more)
{
    const GpuShape *gpu = a->shape->gpu;
    int unit = gpu->n_threads / 32 * SLOT_LEN, others = gpu->shared_len - unit * given(a, "group") * given(a, "ring");
    return others + more + unit * value(a, "group") * value(a, "ring") <= shared_most(a);
}

static bool decode_ring_fits(const Asked *a) { return ring_fits(a, 0); }

/* decode_in: of each channel of a block 16 rows, q8's scales, taps, the bias, columns of a router, 16 states. */
static bool decode_in_fits(const Asked *a)
{
    int n_experts = given(a, "n_experts"), n_taps = given(a, "d_conv");
    int of_channel = 64 + (is_q8(a) ? 8 * n_experts : 0)
        + 4 * (n_taps + 1 + (n_experts > 1 ? n_experts : 0) + 16 * (n_taps - 1));
    return ring_fits(a, (value(a, "tiles") - given(a, "tiles")) * 8 * of_channel);
}

/* Sums of a tile for each slice, and scales of its rows. */
static bool decode_tiles_fit(const Asked *a)
{
    int n_experts = strcmp(a->space->kernel, "decode_head") == 0 ? 1 : given(a, "n_experts");
    int of_tile = given(a, "n_slices") * PART_LEN + (is_q8(a) ? 32 * n_experts : 0);
    return ring_fits(a, (value(a, "tiles") - given(a, "tiles")) * of_tile);
}

static const struct { const char *kernel; bool (*holds)(const Asked *asked); } rules[] = {
#define CHOICE(...)
#define FEASIBLE(kernel, rule) { #kernel, rule },
#define SUMS(kernel, name)
#include "gpu/space.def"
#undef CHOICE
#undef FEASIBLE
#undef SUMS
};

static bool feasible(const SearchSpace *space, const SpaceShape *shape, const SpacePoint *point)
{
    const Asked asked = { space, shape, point };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (strcmp(rules[i].kernel, space->kernel) == 0 && !rules[i].holds(&asked))
            return false;
    return true;
}

/* ---- looking up ---- */

bool space_find_gpu(const char *kernel, SearchSpace *space)
{
    bool found = space_find_in(params, (int)(sizeof params / sizeof *params), kernel, space);
    space->feasible = feasible;
    return found;
}

bool space_gpu_keeps_bits(const SearchSpace *space, const SpacePoint *a, const SpacePoint *b)
{
    static const struct { const char *kernel, *name; } sums[] = {
#define CHOICE(...)
#define FEASIBLE(kernel, rule)
#define SUMS(kernel, name) { #kernel, #name },
#include "gpu/space.def"
#undef CHOICE
#undef FEASIBLE
#undef SUMS
    };
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) {
        int at = strcmp(sums[i].kernel, space->kernel) == 0 ? space_param(space, sums[i].name) : -1;
        if (at >= 0 && a->value[at] != b->value[at])
            return false;
    }
    return true;
}
