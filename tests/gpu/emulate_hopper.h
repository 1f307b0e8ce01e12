/* The host's half of codegen/gpu/hopper.h: mbarriers, the bulk tensor copy and wgmma, at once and in order.
 *
 * Not seen here: missing fences and waits of wgmma, copies that have not arrived.
 */
#ifndef MOSS_TESTS_GPU_EMULATE_HOPPER_H
#define MOSS_TESTS_GPU_EMULATE_HOPPER_H

#include "emulate.h"

/* ---- mbarriers ---- */

typedef struct {
    uint64_t phase : 1, n_arrivals : 20, n_left : 20;
    int64_t n_bytes : 23;
} EmulateMbarrier;
_Static_assert(sizeof(EmulateMbarrier) == 8, "an mbarrier has 8 bytes");

DEVICE EmulateMbarrier *emulate_mbarrier(void *barrier)
{
    if ((uintptr_t)barrier % 8)
        emulate_fail("mbarrier at %p: not a multiple of 8", barrier);
    emulate_check_shared("mbarrier", barrier, 8);
    return barrier;
}
DEVICE void emulate_mbarrier_step(EmulateMbarrier *barrier)
{
    if (barrier->n_left > 0 || barrier->n_bytes != 0)
        return;
    barrier->phase ^= 1;
    barrier->n_left = barrier->n_arrivals;
}
DEVICE void mbarrier_init(void *barrier, int n_arrivals)
{
    *emulate_mbarrier(barrier) = (EmulateMbarrier){ 0, (uint64_t)n_arrivals, (uint64_t)n_arrivals, 0 };
}
DEVICE void mbarrier_init_done(void) { }
DEVICE void mbarrier_expect(void *barrier, int n_bytes)
{
    EmulateMbarrier *b = emulate_mbarrier(barrier);
    if (b->n_left == 0)
        emulate_fail("more arrivals at an mbarrier than %d", (int)b->n_arrivals);
    b->n_bytes += n_bytes;
    b->n_left--;
    emulate_mbarrier_step(b);
}
DEVICE void mbarrier_arrive(void *barrier) { mbarrier_expect(barrier, 0); }
DEVICE void mbarrier_arrive_copied(void *barrier)
{
    copy_commit();
    copy_wait(0);
    mbarrier_arrive(barrier);
}
DEVICE void mbarrier_wait(void *barrier, int parity)
{
    while (*(volatile uint64_t *)emulate_mbarrier(barrier) % 2 == (uint64_t)parity)
        emulate_yield();
}
DEVICE void proxy_fence(void) { }

/* ---- the bulk tensor copy ---- */

typedef struct {
    _Alignas(64) const char *base;
    int64_t n_rows, n_columns, row_stride;      /* bytes */
    int32_t element_len, box_rows, box_columns;
    char unused[84];
} tensor_map;
_Static_assert(sizeof(tensor_map) == 128, "as long as the driver's");

DEVICE void *emulate_swizzled(uint32_t address) { return (char *)shared() + (address ^ (address >> 3 & 0x70)); }

DEVICE void tensor_copy(void *to, const tensor_map *map, int column, int row, void *barrier)
{
    const int row_len = map->box_columns * map->element_len;
    if (row_len != 128 || shared_address(to) % 1024)
        emulate_fail("tensor_copy: rows of %d bytes to shared + %u", row_len, shared_address(to));
    emulate_check_shared("tensor_copy", to, map->box_rows * row_len);
    for (int r = 0; r < map->box_rows; r++)
        for (int c = 0; c < map->box_columns; c++) {
            char *element = emulate_swizzled(shared_address(to) + (uint32_t)(r * row_len + c * map->element_len));
            if (row + r < map->n_rows && column + c < map->n_columns)
                memcpy(element, map->base + (row + r) * map->row_stride + (int64_t)(column + c) * map->element_len,
                       (size_t)map->element_len);
            else
                memset(element, 0, (size_t)map->element_len);
        }
    EmulateMbarrier *b = emulate_mbarrier(barrier);
    b->n_bytes -= map->box_rows * row_len;
    emulate_mbarrier_step(b);
}

/* ---- warpgroups ---- */

DEVICE void registers_give(void) { }
DEVICE void registers_take(void) { }
DEVICE uint64_t wgmma_matrix(const void *matrix) { return shared_address(matrix) >> 4; }
DEVICE void wgmma_begin(void) { warp_sync(); }
DEVICE void wgmma_commit(void) { }
DEVICE void wgmma_wait_before(void) { warp_sync(); }
DEVICE void wgmma_wait(float *d, int n_columns)
{
    (void)d, (void)n_columns;
    warp_sync();
}

DEVICE float emulate_element(uint64_t matrix, int row, int k, int act)
{
    return act_float(*(act_t *)emulate_swizzled((uint32_t)(matrix * 16) + (uint32_t)(row * 128 + k * 2)), act);
}
DEVICE void wgmma_piece(float *d, int n_columns, uint64_t a, uint64_t b, int accumulate, int act)
{
    for (int i = 0; i < n_columns / 2; i++) {
        const int row = warp() % 4 * 16 + lane() / 4 + i % 4 / 2 * 8, column = i / 4 * 8 + lane() % 4 * 2 + i % 2;
        float sum = accumulate ? d[i] : 0;
        for (int k = 0; k < 64; k++)
            sum += emulate_element(a, row, k, act) * emulate_element(b, column, k, act);
        d[i] = sum;
    }
}

#endif
