/* attention_h100, as check_attention.h says. */
#include "check_attention.h"

static AttentionBlock attention_block(int head_dim)
{
    const int parts = (head_dim + 63) / 64, n_rows = check_param("tile_rows");
    const int slot_len = 128 * parts * check_param("tile_keys");
    return (AttentionBlock){ n_rows, 128 + 2 * n_rows,
        1024 + 128 * n_rows * parts + 2 * check_param("stages") * (slot_len + 16), check_param("blocks") };
}

GPU_CHECKS({ "attention_h100", check_attention })
