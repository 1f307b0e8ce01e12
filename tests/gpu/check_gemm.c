/* gemm: dense and grouped, every epilogue, odd sizes, experts without rows, one row; few blocks with many tiles. */
#include "check_gemm.h"

static void check_gemm(void)
{
    const int weight_dtype = check_param("weight_dtype"), tile_rows = check_param("tile_rows");
    const int tile_columns = check_param("tile_columns");
    const int n_warps = tile_rows / 64 * (tile_columns / check_param("warp_columns"));
    const int stage_len = 64 * (2 * tile_rows + (weight_dtype == 3 ? 1 : 2) * tile_columns);
    GemmCheck c = gemm_make(weight_dtype);
    const int shared_len = check_param("stages") * stage_len + n_warps * 2048 +
                           4 * (2 * (c.n_experts + 1) + 4 * tile_rows);
    const int n_blocks = check_param("blocks"), across = n_blocks > 2 ? n_blocks / 2 : n_blocks;
    CHECK_LAUNCH(across, n_blocks / across, n_warps * 32, shared_len, c.out, c.in, c.weights.weights, c.weights.scales,
        c.bias, c.slots, c.totals, c.experts, c.gates, c.n_tokens, c.top_k);
    gemm_compare(&c);
}

GPU_CHECKS({ "gemm", check_gemm })
