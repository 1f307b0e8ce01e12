/* The C dialect of GPU kernels: everything a template in this folder may use.
 *
 * On the device (clang for nvptx64) a PARAM is an external constant that codegen/ptx.c binds; in the
 * host rendering (codegen/template.h) it is an enum of the same name, and the names below
 * come from the header "emulate.h" of the tests (fibers for threads). Either way one file is one
 * template. A template has the form
 *     opening comment, PARAM, FPARAM and OPTION lines, helpers (DEVICE functions, enums, types), KERNEL
 * and neither includes nor preprocessor lines. Blocks have one dimension. Addresses handed to
 * functions that say `shared` or `global` must be such. `act` arguments are 1 (bf16) or 2 (f16) and
 * constant once parameters are bound. `restrict` is for weights alone: what another launch or block
 * writes could otherwise be read before a wait (ld.global.nc). Loops over parameters unroll only in the form
 *     UNROLL for (int i = 0; i < N / 32; i++) … [i * 32 + lane()]     and then the tail.
 */
#ifndef MOSSC_CODEGEN_GPU_DIALECT_H
#define MOSSC_CODEGEN_GPU_DIALECT_H

#ifndef __NVPTX__
#include "emulate.h"
#else

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t, uintptr_t, size_t;
typedef _Bool bool;
enum { false, true };
#define NULL ((void *)0)
#define INFINITY __builtin_inff()

#define PARAM(name, code) extern const int name;
#define FPARAM(name, code) extern const float name;
#define OPTION(name, code) extern const int name;
#define KERNEL(name) __attribute__((nvptx_kernel)) void name
#define DEVICE static inline __attribute__((always_inline, unused))
#define UNROLL _Pragma("unroll")

/* The architecture, 80 or 90: bound in every instance like a parameter. */
PARAM(sm, sm)

/* ---- where a thread is ---- */

DEVICE int thread_x(void) { return __nvvm_read_ptx_sreg_tid_x(); }
DEVICE int block_x(void) { return __nvvm_read_ptx_sreg_ctaid_x(); }
DEVICE int block_y(void) { return __nvvm_read_ptx_sreg_ctaid_y(); }
DEVICE int n_blocks_x(void) { return __nvvm_read_ptx_sreg_nctaid_x(); }
DEVICE int n_blocks_y(void) { return __nvvm_read_ptx_sreg_nctaid_y(); }
DEVICE int n_threads(void) { return __nvvm_read_ptx_sreg_ntid_x(); }
DEVICE int lane(void) { return thread_x() & 31; }
DEVICE int warp(void) { return thread_x() >> 5; }

/* ---- meeting points: every thread they name must come ---- */

DEVICE void barrier(void) { __syncthreads(); }
/* id 1 to 15, n_some threads of the block: whole warps */
DEVICE void barrier_some(int id, int n_some)
{
    __asm__ volatile("bar.sync %0, %1;" :: "r"(id), "r"(n_some) : "memory");
}
/* The same, but goes on at once: for who only tells. */
DEVICE void barrier_arrive(int id, int n_some)
{
    __asm__ volatile("bar.arrive %0, %1;" :: "r"(id), "r"(n_some) : "memory");
}
DEVICE void warp_sync(void) { __nvvm_bar_warp_sync(~0u); }

DEVICE float shuffle_xor_f(float x, int mask) { return __nvvm_shfl_sync_bfly_f32(~0u, x, mask, 31); }
DEVICE float shuffle_f(float x, int from) { return __nvvm_shfl_sync_idx_f32(~0u, x, from, 31); }
DEVICE int shuffle_xor_i(int x, int mask) { return __nvvm_shfl_sync_bfly_i32(~0u, x, mask, 31); }
DEVICE int shuffle_i(int x, int from) { return __nvvm_shfl_sync_idx_i32(~0u, x, from, 31); }
/* A lane below `delta` keeps its own value. */
DEVICE int shuffle_up_i(int x, int delta) { return __nvvm_shfl_sync_up_i32(~0u, x, delta, 0); }
DEVICE uint32_t ballot(int predicate) { return __nvvm_vote_ballot_sync(~0u, predicate != 0); }
DEVICE int count_ones(uint32_t x) { return __builtin_popcount(x); }

/* ---- shared memory: one dynamic block, its length given at launch ---- */

extern __attribute__((address_space(3), aligned(128))) uint8_t shared_memory[];

DEVICE void *shared(void) { return (void *)shared_memory; }
/* The 32-bit address that instructions on shared memory take. */
DEVICE uint32_t shared_address(const void *pointer)
{
    return (uint32_t)(uintptr_t)(__attribute__((address_space(3))) const void *)pointer;
}

/* ---- 16-byte accesses ---- */

typedef uint32_t u32x4 __attribute__((vector_size(16)));

DEVICE u32x4 load16(const void *from) { return *(const u32x4 *)from; }
DEVICE void store16(void *to, u32x4 value) { *(u32x4 *)to = value; }
/* Weights, read once: past the first cache. They stay in the order of the text, before or after a wait. */
DEVICE u32x4 load16_stream(const void *global)
{
    u32x4 value;
    __asm__ volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(value[0]), "=r"(value[1]), "=r"(value[2]), "=r"(value[3]) : "l"(global));
    return value;
}

/* ---- activations of 16 bits ---- */

typedef uint16_t act_t;

DEVICE float bits_float(uint32_t bits) { return __builtin_bit_cast(float, bits); }
DEVICE uint32_t float_bits(float x) { return __builtin_bit_cast(uint32_t, x); }

DEVICE float half_float(uint16_t bits)
{
    float x;
    __asm__("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

DEVICE float act_float(act_t x, int act) { return act == 1 ? bits_float((uint32_t)x << 16) : half_float(x); }
/* lo in the low half. Round to nearest even; NaN stays one. */
DEVICE uint32_t act_pack(float lo, float hi, int act)
{
    uint32_t pair;
    if (act == 1)
        __asm__("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(hi), "f"(lo));
    else
        __asm__("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(hi), "f"(lo));
    return pair;
}
/* f16, 65504 for what is more; NaN stays one. */
DEVICE uint32_t half_pack_finite(float lo, float hi)
{
    uint32_t pair = act_pack(lo, hi, 2);
    __asm__("min.NaN.f16x2 %0, %0, %1;" : "+r"(pair) : "r"(0x7bff7bffu));
    return pair;
}
DEVICE act_t float_act(float x, int act) { return (act_t)act_pack(x, 0.0f, act); }
DEVICE float act_lo(uint32_t pair, int act) { return act == 1 ? bits_float(pair << 16) : half_float((uint16_t)pair); }
DEVICE float act_hi(uint32_t pair, int act)
{
    return act == 1 ? bits_float(pair & 0xffff0000u) : half_float((uint16_t)(pair >> 16));
}

/* ---- arithmetic: approximate ones flush denormals ---- */

DEVICE float exp2_fast(float x) { return __nvvm_ex2_approx_ftz_f(x); }
DEVICE float log2_fast(float x) { return __nvvm_lg2_approx_ftz_f(x); }
DEVICE float reciprocal_fast(float x) { return __nvvm_rcp_approx_ftz_f(x); }
DEVICE float rsqrt_fast(float x) { return __nvvm_rsqrt_approx_ftz_f(x); }
DEVICE float fma_f(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
/* Of a number and NaN: the number. */
DEVICE float max_f(float a, float b) { return __builtin_fmaxf(a, b); }
DEVICE int max_i(int a, int b) { return a > b ? a : b; }
DEVICE int min_i(int a, int b) { return a < b ? a : b; }

/* ---- asynchronous copies to shared memory, in groups ---- */

/* 16 bytes, both ends aligned to 16: n_bytes (0 to 16) from global, the rest zero. */
DEVICE void copy_async16(void *shared, const void *global, int n_bytes)
{
    __asm__ volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                     :: "r"(shared_address(shared)), "l"(global), "r"(n_bytes) : "memory");
}
/* 4 bytes, both ends aligned to 4: from global, or with n_bytes 0 zeros. */
DEVICE void copy_async4(void *shared, const void *global, int n_bytes)
{
    __asm__ volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                     :: "r"(shared_address(shared)), "l"(global), "r"(n_bytes) : "memory");
}
DEVICE void copy_commit(void) { __asm__ volatile("cp.async.commit_group;" ::: "memory"); }
/* Until at most n_left (0 to 7, a constant) of this thread's groups are under way; barrier() is yours. */
DEVICE void copy_wait(const int n_left)
{
    switch (n_left) {
    case 0: __asm__ volatile("cp.async.wait_group 0;" ::: "memory"); break;
    case 1: __asm__ volatile("cp.async.wait_group 1;" ::: "memory"); break;
    case 2: __asm__ volatile("cp.async.wait_group 2;" ::: "memory"); break;
    case 3: __asm__ volatile("cp.async.wait_group 3;" ::: "memory"); break;
    case 4: __asm__ volatile("cp.async.wait_group 4;" ::: "memory"); break;
    case 5: __asm__ volatile("cp.async.wait_group 5;" ::: "memory"); break;
    case 6: __asm__ volatile("cp.async.wait_group 6;" ::: "memory"); break;
    default: __asm__ volatile("cp.async.wait_group 7;" ::: "memory"); break;
    }
}

/* ---- tensor cores: fragments as the PTX manual draws them; whole warps only ---- */

/* Four 8x8 matrices of 16 bits; lane 8 i + j gives row j (16 bytes, shared) of matrix i, r[i] is its part of it. */
DEVICE void matrix_load4(uint32_t r[4], const void *row)
{
    __asm__ volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
DEVICE void matrix_load4_transposed(uint32_t r[4], const void *row)
{
    __asm__ volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
/* c += a (16x16, row-major) · b (16x8, column-major), in float32 */
DEVICE void mma_16x8x16(float c[4], const uint32_t a[4], const uint32_t b[2], int act)
{
    if (act == 1)
        __asm__("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else
        __asm__("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* d = c + a (16x8, row-major) · b (8x8, column-major): float32 whose 13 low bits the operands a and b lose */
DEVICE void mma_16x8x8(float d[4], const float a[4], const float b[2], const float c[4])
{
    __asm__("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
            : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
            : "r"(float_bits(a[0])), "r"(float_bits(a[1])), "r"(float_bits(a[2])), "r"(float_bits(a[3])),
              "r"(float_bits(b[0])), "r"(float_bits(b[1])), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

/* Four int8, ascending, as two pairs of act. */
DEVICE void act_from_s8(uint32_t pairs[2], uint32_t bytes, int act)
{
    UNROLL for (int i = 0; i < 2; i++)
        if (act == 1)
            pairs[i] = act_pack((float)(int8_t)(bytes >> (16 * i)), (float)(int8_t)(bytes >> (16 * i + 8)), act);
        else                              /* the half 0x6400 + u is 1024 + u; u = value + 128 */
            __asm__("{ .reg .b32 t; prmt.b32 t, %1, 0x64646464, %2; sub.f16x2 %0, t, %3; }"
                    : "=r"(pairs[i]) : "r"(bytes ^ 0x80808080u), "r"(0x4140 + 0x0202 * i), "r"(0x64806480u));
}

/* ---- kernels that depend on each other (programmatic dependent launch, sm 90) ---- */

/* Before the first read of what an earlier launch wrote, and before the first write. */
DEVICE void dependency_wait(void)
{
    if (sm >= 90)
        __asm__ volatile("griddepcontrol.wait;" ::: "memory");
}
/* The next launch may start; it still waits for all of this one's writes. */
DEVICE void dependency_launch(void)
{
    if (sm >= 90)
        __asm__ volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
/* The same before dependency_wait: this launch and the one before it may then still run when the next one starts, which
 * must not read what they write before its own wait. */
DEVICE void dependency_pass(void) { dependency_launch(); }

/* ---- between blocks of one launch ---- */

/* Returns what was there before. Who comes last sees what the others wrote before they came. */
DEVICE uint32_t add_acquire_release(uint32_t *global, uint32_t value)
{
    uint32_t old;
    __asm__ volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(old) : "l"(global), "r"(value) : "memory");
    return old;
}
/* The same, but nothing that others wrote is seen by it. */
DEVICE int add_counter(int32_t *global, int value)
{
    int old;
    __asm__ volatile("atom.relaxed.gpu.global.add.s32 %0, [%1], %2;" : "=r"(old) : "l"(global), "r"(value) : "memory");
    return old;
}

#endif

#include "chain_layer.h"
#include "gemm.h"
#include "hopper.h"
#include "routing.h"
#include "sequences.h"

#endif
