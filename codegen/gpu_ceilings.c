/* Ceilings of a GPU: the kernels that show what it can do at most, as PTX, and how they are launched.
 *
 * Each is a module of its own. What a launch does grows with its n; blocks and threads fill any device.
 */
#include "codegen.h"
#include "ptx.h"

#include <string.h>

enum { READS = 8, F16 = 2, WARP_ROUND = 16 * 2 * 16 * 8 * 16, GROUP_ROUND = 2 * 64 * 256 * 64, PIECE = 16 };

typedef struct { const char *template; TemplateBinding binding; GpuCeiling launch; } Row;

static const Row rows[N_CEILINGS] = {
    [CEILING_READ] = { "ceiling_read", { "reads", READS }, { .n_threads = 256, .n_blocks = 8, .work = PIECE } },
    [CEILING_MMA] = { "ceiling_mma", { "act", F16 }, { .n_threads = 256, .n_blocks = 2, .work = 8 * WARP_ROUND } },
    [CEILING_WGMMA] = { "ceiling_wgmma_h100", { "act", F16 },
                        { .n_threads = 256, .n_blocks = 1, .shared_len = 1024 + 4 * (128 + 256) * 128,
                          .work = 2 * GROUP_ROUND } },
};

bool codegen_ceiling(Arena *arena, TargetId target, CeilingId id, GpuCeiling *ceiling, Text *out)
{
    const Row *row = &rows[id];
    if (id == CEILING_WGMMA && target_sm(target) < 90)
        return false;
    Ptx *ptx = ptx_open(target_sm(target));
    *ceiling = row->launch;
    ceiling->name = arena_strdup(arena, ptx_instance(ptx, row->template, &row->binding, 1, ceiling->n_threads,
                                                     ceiling->n_blocks > 2 ? 0 : ceiling->n_blocks));
    if (out)
        ptx_finish(ptx, out, NULL);
    ptx_close(ptx);
    return true;
}
