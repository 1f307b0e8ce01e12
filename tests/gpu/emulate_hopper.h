/* The host's half of codegen/gpu/hopper.h: mbarriers, the bulk tensor copy and wgmma.
 *
 * A thread does its own part of a wgmma, half of them when they are issued and half when they are waited for. Not seen
 * here: missing wgmma_begin, registers of a wgmma that are written too early; and only by emulate_races.h: bulk copies
 * that have not arrived, missing proxy fences.
 */
#ifndef MOSS_TESTS_GPU_EMULATE_HOPPER_H
#define MOSS_TESTS_GPU_EMULATE_HOPPER_H

#include "emulate.h"
#include "emulate_map.h"
#include "emulate_races.h"

/* Its accesses are not the thread's own: emulate_races.h is told of them in other words. */
#define EMULATE_APART __attribute__((noinline, unused, no_sanitize("thread"))) static

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
    if (emulate_races_on)
        races_mbarrier_end(barrier);
    barrier->phase ^= 1;
    barrier->n_left = barrier->n_arrivals;
}
DEVICE void mbarrier_init(void *barrier, int n_arrivals)
{
    if (emulate_races_on)
        races_mbarrier_init(emulate_mbarrier(barrier));
    *emulate_mbarrier(barrier) = (EmulateMbarrier){ 0, (uint64_t)n_arrivals, (uint64_t)n_arrivals, 0 };
}
DEVICE void mbarrier_init_done(void) { }
DEVICE void mbarrier_expect(void *barrier, int n_bytes)
{
    EmulateMbarrier *b = emulate_mbarrier(barrier);
    if (emulate_races_on)
        races_mbarrier_arrive(b);
    if (b->n_left == 0)
        emulate_fail("more arrivals at an mbarrier than %d", (int)b->n_arrivals);
    b->n_bytes += n_bytes;
    b->n_left--;
    emulate_mbarrier_step(b);
}
/* Who waits for it may go on first: what this thread still does there comes too late. */
DEVICE void mbarrier_arrive(void *barrier)
{
    mbarrier_expect(barrier, 0);
    emulate_yield();
}
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
    if (emulate_races_on)
        races_mbarrier_wait(barrier);
}
DEVICE void proxy_fence(void)
{
    if (emulate_races_on)
        races_proxy_fence();
}

/* ---- the bulk tensor copy ---- */

typedef EmulateMap tensor_map;

DEVICE void *emulate_swizzled(uint32_t address) { return (char *)shared() + (address ^ (address >> 3 & 0x70)); }

EMULATE_APART void tensor_copy(void *to, const tensor_map *map, int column, int row, void *barrier)
{
    const int row_len = map->box_columns * map->element_len;
    if (row_len != 128 || shared_address(to) % 1024)
        emulate_fail("tensor_copy: rows of %d bytes to shared + %u", row_len, shared_address(to));
    emulate_check_shared("tensor_copy", to, map->box_rows * row_len);
    if (emulate_races_on)
        races_bulk(to, map->box_rows * row_len, emulate_mbarrier(barrier));
    for (int r = 0; r < map->box_rows; r++)
        for (int c = 0; c < map->box_columns; c++) {
            char *element = emulate_swizzled(shared_address(to) + (uint32_t)(r * row_len + c * map->element_len));
            if (row + r < map->n_rows && column + c < map->n_columns)
                memcpy(element, (const char *)map->base + (row + r) * map->row_stride
                       + (int64_t)(column + c) * map->element_len, (size_t)map->element_len);
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
DEVICE void registers_give_three(void) { }
DEVICE void registers_take_three(void) { }
DEVICE uint64_t wgmma_matrix(const void *matrix) { return shared_address(matrix) >> 4; }
DEVICE void wgmma_begin(void) { emulate_meet_warp("wgmma_begin", NULL, NULL); }

DEVICE float emulate_element(uint64_t matrix, int row, int k, int act)
{
    return act_float(*(act_t *)emulate_swizzled((uint32_t)(matrix * 16) + (uint32_t)(row * 128 + k * 2)), act);
}

/* A wgmma that has been issued. With n_columns 0 its rows are in registers: of lane 4 g + q, rows g and g + 8. */
typedef struct {
    float *d;
    uint64_t a, b;
    int n_columns, accumulate, act, group;
    float rows[2][16];
} EmulateWgmma;

enum { EMULATE_WGMMA_THREADS = 512, EMULATE_WGMMA_MOST = 64 };
typedef struct { EmulateWgmma pending[EMULATE_WGMMA_MOST]; int n, n_groups, block; uint32_t random; } EmulateWgmmaQueue;
static _Thread_local EmulateWgmmaQueue emulate_wgmma_queues[EMULATE_WGMMA_THREADS];

/* Its rows and columns, one lane for its warp: when it is issued, and until it is waited for. */
DEVICE void emulate_wgmma_reads(const EmulateWgmma *w)
{
    if (!emulate_races_on || lane() != 0)
        return;
    if (w->n_columns)
        races_read_wgmma((char *)shared() + w->a * 16 + warp() % 4 * 2048, 2048);
    races_read_wgmma((char *)shared() + w->b * 16, (w->n_columns ? w->n_columns : 16) * 128);
}

EMULATE_APART void emulate_wgmma_run(const EmulateWgmma *w)
{
    emulate_wgmma_reads(w);
    for (int i = 0; i < (w->n_columns ? w->n_columns : 64) / 2; i++) {
        const int half = i % 4 / 2, row = warp() % 4 * 16 + lane() / 4 + half * 8;
        const int column = i / 4 * 8 + lane() % 4 * 2 + i % 2;
        float sum = w->accumulate ? w->d[i] : 0;
        for (int k = 0; k < 64 && w->n_columns; k++)
            sum += emulate_element(w->a, row, k, w->act) * emulate_element(w->b, column, k, w->act);
        for (int k = 0; k < 16 && !w->n_columns; k++)
            sum += w->rows[half][k] * emulate_element(w->b, k, column, w->act);
        w->d[i] = sum;
    }
}

DEVICE EmulateWgmmaQueue *emulate_wgmma_queue(void)
{
    if (emulate_self.thread >= EMULATE_WGMMA_THREADS)
        emulate_fail("wgmma in a block of more than %d threads", EMULATE_WGMMA_THREADS);
    EmulateWgmmaQueue *queue = &emulate_wgmma_queues[emulate_self.thread];
    const int block = block_y() * n_blocks_x() + block_x();
    if (queue->n && queue->block != block)
        emulate_fail("a block before this one ended without waiting for its wgmma");
    queue->block = block;
    return queue;
}

DEVICE void emulate_wgmma_issue(EmulateWgmma w)
{
    EmulateWgmmaQueue *queue = emulate_wgmma_queue();
    queue->random = queue->random * 1664525u + 1013904223u;
    if (queue->n == EMULATE_WGMMA_MOST)
        emulate_fail("more than %d wgmma that nobody waits for", EMULATE_WGMMA_MOST);
    w.group = queue->n_groups;
    emulate_wgmma_reads(&w);
    if (queue->n == 0 && queue->random >> 31 && !emulate_races_on)
        emulate_wgmma_run(&w);
    else
        queue->pending[queue->n++] = w;
}

/* What one warp has waited for is done for all of the warpgroup, which take one of the last barriers. */
DEVICE void emulate_wgmma_wait(int n_left)
{
    EmulateWgmmaQueue *queue = emulate_wgmma_queue();
    int n_done = 0;
    while (n_done < queue->n && queue->pending[n_done].group < queue->n_groups - n_left)
        emulate_wgmma_run(&queue->pending[n_done++]);
    queue->n -= n_done;
    memmove(queue->pending, queue->pending + n_done, (size_t)queue->n * sizeof *queue->pending);
    emulate_meet_barrier("wgmma_wait", 15 - warp() / 4, 128, true);
}

DEVICE void wgmma_piece(float *d, int n_columns, uint64_t a, uint64_t b, int accumulate, int act)
{
    emulate_wgmma_issue((EmulateWgmma){ .d = d, .a = a, .b = b, .n_columns = n_columns, .accumulate = accumulate,
                                        .act = act });
}

typedef struct { const uint32_t *a; EmulateWgmma *w; } EmulateWgmmaRows;

/* Rows g and g + 8 from the words of the four lanes that share them. */
__attribute__((unused)) static void emulate_wgmma_gather(void *operands[32])
{
    const EmulateWgmmaRows *of[32];
    for (int l = 0; l < 32; l++)
        of[l] = operands[l];
    for (int l = 0; l < 32; l++)
        for (int k = 0; k < 16; k++)
            for (int half = 0; half < 2; half++) {
                const uint32_t word = of[l / 4 * 4 + k % 8 / 2]->a[k / 8 * 2 + half];
                of[l]->w->rows[half][k] = k % 2 ? act_hi(word, of[l]->w->act) : act_lo(word, of[l]->w->act);
            }
}
DEVICE void wgmma_step(float *d, const uint32_t a[4], uint64_t b, int act)
{
    EmulateWgmma w = { .d = d, .b = b, .accumulate = 1, .act = act };
    EmulateWgmmaRows operand = { a, &w };
    emulate_meet_warp("wgmma_step", &operand, emulate_wgmma_gather);
    emulate_wgmma_issue(w);
}
DEVICE void wgmma_commit(void) { emulate_wgmma_queue()->n_groups++; }
DEVICE void wgmma_wait_before(void) { emulate_wgmma_wait(1); }
DEVICE void wgmma_wait(float *d, int n_columns)
{
    (void)d, (void)n_columns;
    emulate_wgmma_wait(0);
}
DEVICE void wgmma_hold(const uint32_t *r, int n) { (void)r, (void)n; }
DEVICE void wgmma_hold_floats(const float *r, int n) { (void)r, (void)n; }

#endif
