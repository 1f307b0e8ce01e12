/* attention_h100, as check_attention.h says. */
#include "check_attention.h"

static AttentionBlock attention_block(int head_dim)
{
    const int parts = (head_dim + 63) / 64;
    const int slot_len = 128 * parts * check_param("tile_keys");
    return (AttentionBlock){ 128, 384, 1024 + 16384 * parts + 2 * check_param("stages") * (slot_len + 16) };
}

GPU_CHECKS({ "attention_h100", check_attention })
