/* The dialect's Hopper part (sm_90a), for templates *_h100.c: barriers in memory, the bulk tensor copy, wgmma. Of it
 * any template may use mbarrier_init, mbarrier_arrive and mbarrier_wait.
 *
 * An mbarrier is 8 bytes of shared memory: it counts arrivals, and bytes of bulk copies under way; when all have come,
 * its phase changes. wgmma works on a warpgroup, 4 warps from a multiple of 4, on matrices in shared memory: rows
 * of 64 elements (128 bytes), the 16-byte chunk c of row r at chunk c ^ (r & 7), the whole 1024-aligned. The bulk
 * tensor copy writes them so. What ordinary code or copy_async16 wrote there needs proxy_fence before wgmma reads it.
 */
#ifndef MOSSC_CODEGEN_GPU_HOPPER_H
#define MOSSC_CODEGEN_GPU_HOPPER_H

#ifndef __NVPTX__
#include "emulate_hopper.h"
#else

/* ---- mbarriers; each waits for the phase of that parity (0, 1, 0 …) to end, parity 1 of a new one has ended ---- */

DEVICE void mbarrier_init(void *barrier, int n_arrivals)
{
    __asm__ volatile("mbarrier.init.shared.b64 [%0], %1;"
                     :: "r"(shared_address(barrier)), "r"(n_arrivals) : "memory");
}
/* By who called mbarrier_init, before the block's barrier(): copies see it too. */
DEVICE void mbarrier_init_done(void) { __asm__ volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void mbarrier_arrive(void *barrier)
{
    __asm__ volatile("mbarrier.arrive.shared.b64 _, [%0];" :: "r"(shared_address(barrier)) : "memory");
}
/* Arrives; the phase also waits for so many bytes of tensor_copy. */
DEVICE void mbarrier_expect(void *barrier, int n_bytes)
{
    __asm__ volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                     :: "r"(shared_address(barrier)), "r"(n_bytes) : "memory");
}
/* Arrives when this thread's copy_async16 so far are done. */
DEVICE void mbarrier_arrive_copied(void *barrier)
{
    __asm__ volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" :: "r"(shared_address(barrier)) : "memory");
}
DEVICE void mbarrier_wait(void *barrier, int parity)
{
    int done;
    do
        if (sm >= 90)           /* sleeps a while */
            __asm__ volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.b32 %0, 1, 0, p; }"
                             : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
        else
            __asm__ volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.b32 %0, 1, 0, p; }"
                             : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
    while (!done);
}
DEVICE void proxy_fence(void) { __asm__ volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* ---- the bulk tensor copy ---- */

typedef struct { _Alignas(64) uint64_t words[16]; } tensor_map;     /* a parameter of the kernel, by value */

/* The map's box at (row, column) to shared, by one thread; bytes outside of the tensor are zero but count. */
DEVICE void tensor_copy(void *to, const tensor_map *map, int column, int row, void *barrier)
{
    __asm__ volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                     "[%0], [%1, {%2, %3}], [%4];"
                     :: "r"(shared_address(to)), "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier))
                     : "memory");
}

/* ---- warpgroups ---- */

/* Registers of a thread from here on: by all of a warpgroup, when 128 threads gave them for 256 that take them. */
DEVICE void registers_give(void) { __asm__ volatile("setmaxnreg.dec.sync.aligned.u32 40;"); }
DEVICE void registers_take(void) { __asm__ volatile("setmaxnreg.inc.sync.aligned.u32 232;"); }
/* The same, when 128 threads gave them for 384. */
DEVICE void registers_give_three(void) { __asm__ volatile("setmaxnreg.dec.sync.aligned.u32 32;"); }
DEVICE void registers_take_three(void) { __asm__ volatile("setmaxnreg.inc.sync.aligned.u32 160;"); }

/* A matrix in shared memory, as wgmma takes it; 32 bytes (16 columns) on is + 2, 1024 bytes (8 rows) on + 64. */
DEVICE uint64_t wgmma_matrix(const void *matrix)
{
    const uint64_t address = shared_address(matrix) >> 4 & 0x3fff;
    return address | (uint64_t)1 << 16 | (uint64_t)64 << 32 | (uint64_t)1 << 62;
}

/* Before the first wgmma_piece, and when other code wrote its sums. */
DEVICE void wgmma_begin(void) { __asm__ volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit(void) { __asm__ volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

#define WGMMA_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define WGMMA_D16(i) WGMMA_D4(i), WGMMA_D4(i + 4), WGMMA_D4(i + 8), WGMMA_D4(i + 12)
#define WGMMA_D32 WGMMA_D16(0), WGMMA_D16(16)
#define WGMMA_D24 WGMMA_D16(0), WGMMA_D4(16), WGMMA_D4(20)
#define WGMMA_D48 WGMMA_D32, WGMMA_D16(32)
#define WGMMA_D64 WGMMA_D48, WGMMA_D16(48)
#define WGMMA_D128 WGMMA_D64, WGMMA_D16(64), WGMMA_D16(80), WGMMA_D16(96), WGMMA_D16(112)
#define WGMMA_R24 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23"
#define WGMMA_R32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_R48 WGMMA_R32 ", " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define WGMMA_R64 WGMMA_R48 ", " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_R128 WGMMA_R64 ", " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_STEP(n, type, sums, a, b, add) \
    "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" sums "}, " a ", " b ", " add ", 1, 1, 0, 0; "
#define WGMMA_NEXT "add.s64 a, a, 2; add.s64 b, b, 2; "
#define WGMMA_PIECE(n, type, sums, a, b, add) \
    "{ .reg .pred p, q; .reg .b64 a, b; setp.ne.b32 p, " add ", 0; setp.eq.b32 q, " add ", " add "; " \
    "mov.b64 a, " a "; mov.b64 b, " b "; " \
    WGMMA_STEP(n, type, sums, "a", "b", "p") WGMMA_NEXT WGMMA_STEP(n, type, sums, "a", "b", "q") WGMMA_NEXT \
    WGMMA_STEP(n, type, sums, "a", "b", "q") WGMMA_NEXT WGMMA_STEP(n, type, sums, "a", "b", "q") "}"

/* d (+)= a (64 rows of 64) · bᵀ (n_columns rows of 64: 48, 64, 96, 128, 256), asynchronous. d[4 n + i] of lane 4 g + q
 * of warp w (of 4): row 16 w + g + 8 (i / 2), column 8 n + 2 q + i % 2. */
DEVICE void wgmma_piece(float *d, int n_columns, uint64_t a, uint64_t b, int accumulate, int act)
{
    if (n_columns == 256 && act == 1)
        __asm__ volatile(WGMMA_PIECE(256, "bf16", WGMMA_R128, "%128", "%129", "%130")
                         : WGMMA_D128 : "l"(a), "l"(b), "r"(accumulate) : "memory");
    else if (n_columns == 256)
        __asm__ volatile(WGMMA_PIECE(256, "f16", WGMMA_R128, "%128", "%129", "%130")
                         : WGMMA_D128 : "l"(a), "l"(b), "r"(accumulate) : "memory");
    else if (n_columns == 128 && act == 1)
        __asm__ volatile(WGMMA_PIECE(128, "bf16", WGMMA_R64, "%64", "%65", "%66")
                         : WGMMA_D64 : "l"(a), "l"(b), "r"(accumulate) : "memory");
    else if (n_columns == 128)
        __asm__ volatile(WGMMA_PIECE(128, "f16", WGMMA_R64, "%64", "%65", "%66")
                         : WGMMA_D64 : "l"(a), "l"(b), "r"(accumulate) : "memory");
    else if (n_columns == 64 && act == 1)
        __asm__ volatile(WGMMA_PIECE(64, "bf16", WGMMA_R32, "%32", "%33", "%34")
                         : WGMMA_D32 : "l"(a), "l"(b), "r"(accumulate) : "memory");
    else if (n_columns == 64)
        __asm__ volatile(WGMMA_PIECE(64, "f16", WGMMA_R32, "%32", "%33", "%34")
                         : WGMMA_D32 : "l"(a), "l"(b), "r"(accumulate) : "memory");
    else if (n_columns == 48 && act == 1)
        __asm__ volatile(WGMMA_PIECE(48, "bf16", WGMMA_R24, "%24", "%25", "%26")
                         : WGMMA_D24 : "l"(a), "l"(b), "r"(accumulate) : "memory");
    else if (n_columns == 48)
        __asm__ volatile(WGMMA_PIECE(48, "f16", WGMMA_R24, "%24", "%25", "%26")
                         : WGMMA_D24 : "l"(a), "l"(b), "r"(accumulate) : "memory");
    else if (act == 1)
        __asm__ volatile(WGMMA_PIECE(96, "bf16", WGMMA_R48, "%48", "%49", "%50")
                         : WGMMA_D48 : "l"(a), "l"(b), "r"(accumulate) : "memory");
    else
        __asm__ volatile(WGMMA_PIECE(96, "f16", WGMMA_R48, "%48", "%49", "%50")
                         : WGMMA_D48 : "l"(a), "l"(b), "r"(accumulate) : "memory");
}
#define WGMMA_ROWS(type) \
    "{ .reg .pred p; setp.eq.b64 p, %36, %36; wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type \
    " {" WGMMA_R32 "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1; }"
/* d (64 columns) += a (64 rows of 16, in registers) · b (16 rows of 64), asynchronously. a: words 0 and 1 of a thread
 * are columns 2 q, 2 q + 1 of its rows (as of d), words 2 and 3 those 8 on. */
DEVICE void wgmma_step(float *d, const uint32_t a[4], uint64_t b, int act)
{
    if (act == 1)
        __asm__ volatile(WGMMA_ROWS("bf16")
                         : WGMMA_D32 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b) : "memory");
    else
        __asm__ volatile(WGMMA_ROWS("f16")
                         : WGMMA_D32 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b) : "memory");
}
/* Values that wgmma reads or writes stay where they are: what is above happens before, what is below after. */
DEVICE void wgmma_hold(uint32_t *r, const int n)
{
    UNROLL for (int i = 0; i < n; i++)
        __asm__ volatile("" : "+r"(r[i]));
}
DEVICE void wgmma_hold_floats(float *r, const int n)
{
    UNROLL for (int i = 0; i < n; i++)
        __asm__ volatile("" : "+f"(r[i]));
}
/* Until all but the last committed group are done: with shared memory, and their sums are there. */
DEVICE void wgmma_wait_before(void) { __asm__ volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory"); }
/* Until the sums are there. */
DEVICE void wgmma_wait(float *d, int n_columns)
{
    if (n_columns == 256)
        __asm__ volatile("wgmma.wait_group.sync.aligned 0;" : WGMMA_D128 :: "memory");
    else if (n_columns == 128)
        __asm__ volatile("wgmma.wait_group.sync.aligned 0;" : WGMMA_D64 :: "memory");
    else if (n_columns == 64)
        __asm__ volatile("wgmma.wait_group.sync.aligned 0;" : WGMMA_D32 :: "memory");
    else if (n_columns == 48)
        __asm__ volatile("wgmma.wait_group.sync.aligned 0;" : WGMMA_D24 :: "memory");
    else
        __asm__ volatile("wgmma.wait_group.sync.aligned 0;" : WGMMA_D48 :: "memory");
}

#endif

/* ---- both halves ---- */

/* Where chunk `chunk` (16 bytes) of a row of a matrix for wgmma lies. */
DEVICE int wgmma_place(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }

/* A slot of a ring, and the parity of the phase that is waited for there. */
typedef struct { int slot, parity; } RingPlace;

DEVICE RingPlace ring_after(RingPlace at, int n_slots)
{
    const bool is_last = at.slot == n_slots - 1;
    return (RingPlace){ is_last ? 0 : at.slot + 1, at.parity ^ is_last };
}

#endif
