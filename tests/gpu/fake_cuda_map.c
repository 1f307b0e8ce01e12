/* The stand-in driver's tensor maps: what emulate_hopper.h's tensor_copy reads, after the driver's checks. */
#include "fake_cuda.h"
#include "emulate_map.h"

static int refuse(const char *what, long value)
{
    return fake_misuse(FAKE_INVALID_VALUE, "a tensor map: %s %ld", what, value);
}

CUDA_API cuTensorMapEncodeTiled(EmulateMap *map, int type, unsigned rank, void *address, const uint64_t *dims,
                                const uint64_t *strides, const uint32_t *box, const uint32_t *steps, int interleave,
                                int swizzle, int promotion, int fill)
{
    enum { UINT8, UINT16, FLOAT16 = 6, BFLOAT16 = 9, SWIZZLE_128 = 3, MAX_BOX = 256 };
    const int element_len = type == UINT8 ? 1 : 2;
    (void)promotion;
    if (type != UINT8 && type != UINT16 && type != FLOAT16 && type != BFLOAT16)
        return refuse("type", type);
    if (rank != 2 || interleave || fill || steps[0] != 1 || steps[1] != 1)
        return refuse("not plain, of rank", rank);
    if ((uintptr_t)map % 64 || (uintptr_t)address % 16 || strides[0] % 16)
        return refuse("not aligned, of stride", (long)strides[0]);
    if (box[0] == 0 || box[1] == 0 || box[0] > MAX_BOX || box[1] > MAX_BOX || box[0] * (uint32_t)element_len % 16)
        return refuse("box of columns", (long)box[0]);
    if (swizzle < 0 || swizzle > SWIZZLE_128 || (swizzle && box[0] * (uint32_t)element_len > 16u << swizzle))
        return refuse("rows of the box longer than the swizzle", swizzle);
    if (dims[0] == 0 || dims[1] == 0 || dims[0] >> 32 || dims[1] >> 32 || strides[0] >> 40)
        return refuse("columns", (long)dims[0]);
    if (!fake_is_device((uint64_t)(uintptr_t)address, (dims[1] - 1) * strides[0] + dims[0] * (uint64_t)element_len))
        return refuse("beyond an allocation, rows", (long)dims[1]);
    *map = (EmulateMap){ .base = address, .n_rows = (int64_t)dims[1], .n_columns = (int64_t)dims[0],
        .row_stride = (int64_t)strides[0], .element_len = element_len, .box_rows = (int32_t)box[1],
        .box_columns = (int32_t)box[0] };
    return FAKE_OK;
}
