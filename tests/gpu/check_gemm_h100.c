/* gemm_h100: weights and, of dense products, rows come by bulk tensor copies. */
#include "check_gemm.h"
#include "emulate_map.h"

static void check_gemm_h100(void)
{
    const int tile_columns = check_param("tile_columns"), stages = check_param("stages");
    GemmCheck c = gemm_make(check_param("act"));
    const int64_t k = (c.n_in + 63) / 64 * 64;
    const EmulateMap map = { .base = c.weights.weights, .n_rows = (int64_t)c.n_experts * c.n_out, .n_columns = k,
        .row_stride = 2 * k, .element_len = 2, .box_columns = 64,
        .box_rows = tile_columns == 256 ? 128 : tile_columns };
    const EmulateMap rows = { .base = c.in, .n_rows = c.in_pairs ? c.n_rows : c.n_tokens, .n_columns = c.n_in,
        .row_stride = 2 * (int64_t)c.in_stride, .element_len = 2, .box_rows = 64, .box_columns = 64 };
    const float *scales = NULL;
    const int tiles_len = stages * 128 * (128 + tile_columns), halves_len = (stages + 1) * 128 * (64 + tile_columns);
    const int ring_len = (tiles_len > halves_len ? tiles_len : halves_len) + 48 * stages;
    const int shared_len = 1024 + ring_len + 8 * 2048 + 12 * (c.n_experts + 1);
    CHECK_LAUNCH(check_param("blocks"), 1, 384, shared_len, c.out, c.in, map, scales, c.bias, c.slots, c.totals,
        c.experts, c.gates, c.n_tokens, c.top_k, rows);
    gemm_compare(&c);
}

GPU_CHECKS({ "gemm_h100", check_gemm_h100 })
