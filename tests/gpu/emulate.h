/* The host's half of the kernels' dialect: every name a template may use, for the emulator.
 *
 * codegen/gpu/dialect.h includes this where the compiler is not one for GPUs, and says what the names
 * promise. An operation of a warp or a block is a meeting of its threads, which are fibers (launch.h).
 * Kernels are compiled with -fno-strict-aliasing, as on the device.
 */
#ifndef MOSS_TESTS_GPU_EMULATE_H
#define MOSS_TESTS_GPU_EMULATE_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KERNEL(name) static void name
#define DEVICE static inline __attribute__((always_inline, unused))
#define UNROLL

/* ---- who am I ---- */

typedef struct {
    int thread, block_x, block_y;
    int n_blocks_x, n_blocks_y, n_threads;
    void *shared;
} EmulateSelf;
extern _Thread_local EmulateSelf emulate_self;

DEVICE int thread_x(void) { return emulate_self.thread; }
DEVICE int block_x(void) { return emulate_self.block_x; }
DEVICE int block_y(void) { return emulate_self.block_y; }
DEVICE int n_blocks_x(void) { return emulate_self.n_blocks_x; }
DEVICE int n_blocks_y(void) { return emulate_self.n_blocks_y; }
DEVICE int n_threads(void) { return emulate_self.n_threads; }
DEVICE int lane(void) { return emulate_self.thread % 32; }
DEVICE int warp(void) { return emulate_self.thread / 32; }
DEVICE void *shared(void) { return emulate_self.shared; }
DEVICE uint32_t shared_address(const void *pointer)
{
    return (uint32_t)((const char *)pointer - (const char *)emulate_self.shared);
}

/* ---- meetings ---- */

/* Prints who and where, then aborts. */
_Noreturn void emulate_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* All 32 threads of the warp come with an operand of their own; the last one calls run(operands).
 * `what` names the meeting: threads of a warp that meet at different ones abort. */
void emulate_meet_warp(const char *what, void *operand, void (*run)(void *operands[32]));
/* n_threads threads come to barrier `id`; whole warps. Who does not stay goes on at once. */
void emulate_meet_barrier(const char *what, int id, int n_threads, bool stays);
/* Another thread may run: for loops that wait for other threads or blocks. */
void emulate_yield(void);

DEVICE void barrier(void) { emulate_meet_barrier("barrier", 0, emulate_self.n_threads, true); }
DEVICE void barrier_some(int id, int n) { emulate_meet_barrier("barrier_some", id, n, true); }
DEVICE void barrier_arrive(int id, int n) { emulate_meet_barrier("barrier_some", id, n, false); }
void emulate_order_warp(void *operands[32]);
DEVICE void warp_sync(void) { emulate_meet_warp("warp_sync", NULL, emulate_order_warp); }

int32_t emulate_shuffle(const char *what, int32_t value, int from);
unsigned ballot(int vote);

DEVICE int shuffle_i(int value, int from) { return emulate_shuffle("shuffle", value, from); }
DEVICE int shuffle_xor_i(int value, int mask) { return emulate_shuffle("shuffle_xor", value, lane() ^ mask); }
DEVICE int shuffle_up_i(int value, int delta)
{
    return emulate_shuffle("shuffle_up", value, lane() < delta ? lane() : lane() - delta);
}
DEVICE int count_ones(uint32_t x) { return __builtin_popcount(x); }

DEVICE uint32_t float_bits(float x) { uint32_t bits; memcpy(&bits, &x, 4); return bits; }
DEVICE float bits_float(uint32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
DEVICE float shuffle_f(float value, int from)
{
    return bits_float((uint32_t)emulate_shuffle("shuffle", (int32_t)float_bits(value), from));
}
DEVICE float shuffle_xor_f(float value, int mask)
{
    return bits_float((uint32_t)emulate_shuffle("shuffle_xor", (int32_t)float_bits(value), lane() ^ mask));
}

/* ---- activations: act 1 bf16, 2 f16 ---- */

typedef uint16_t act_t;
float half_float(uint16_t half);
uint16_t emulate_float_half(float f);       /* nearest, ties to even */
uint16_t emulate_float_bf16(float f);

DEVICE float act_float(act_t value, int act)
{
    return act == 1 ? bits_float((uint32_t)value << 16) : half_float(value);
}
DEVICE act_t float_act(float value, int act)
{
    return act == 1 ? emulate_float_bf16(value) : emulate_float_half(value);
}
DEVICE uint32_t act_pack(float lo, float hi, int act)
{
    return (uint32_t)float_act(hi, act) << 16 | float_act(lo, act);
}
DEVICE uint32_t half_pack_finite(float lo, float hi)
{
    const float most = 65504;
    return act_pack(lo > most ? most : lo, hi > most ? most : hi, 2);
}
DEVICE float act_lo(uint32_t pair, int act) { return act_float((act_t)pair, act); }
DEVICE float act_hi(uint32_t pair, int act) { return act_float((act_t)(pair >> 16), act); }

DEVICE void act_from_s8(uint32_t pairs[2], uint32_t bytes, int act)
{
    for (int i = 0; i < 2; i++)
        pairs[i] = act_pack((int8_t)(bytes >> (16 * i)), (int8_t)(bytes >> (16 * i + 8)), act);
}

/* ---- memory ---- */

typedef uint32_t u32x4 __attribute__((vector_size(16)));

DEVICE void emulate_check_16(const char *what, const void *p)
{
    if ((uintptr_t)p % 16)
        emulate_fail("%s at %p: not a multiple of 16", what, p);
}
/* `len` bytes at p lie in the block's shared memory, or it aborts. */
void emulate_check_shared(const char *what, const void *p, int len);

DEVICE u32x4 load16(const void *from)
{
    emulate_check_16("load16", from);
    return *(const u32x4 *)from;
}
DEVICE u32x4 load16_stream(const void *from)
{
    emulate_check_16("load16_stream", from);
    return *(const u32x4 *)from;
}
DEVICE void store16(void *to, u32x4 value)
{
    emulate_check_16("store16", to);
    *(u32x4 *)to = value;
}

void copy_async16(void *to_shared, const void *from, int n_bytes);
void copy_async4(void *to_shared, const void *from, int n_bytes);
void copy_commit(void);
void copy_wait(int n_groups_left);

DEVICE uint32_t add_acquire_release(uint32_t *counter, uint32_t value)
{
    return __atomic_fetch_add(counter, value, __ATOMIC_ACQ_REL);
}
DEVICE int add_counter(int32_t *counter, int value)
{
    return __atomic_fetch_add(counter, value, __ATOMIC_RELAXED);
}

void dependency_wait(void);
void dependency_launch(void);
DEVICE void dependency_pass(void) { }

/* ---- arithmetic ---- */

DEVICE float exp2_fast(float x) { return exp2f(x); }
DEVICE float log2_fast(float x) { return log2f(x); }
DEVICE float reciprocal_fast(float x) { return 1 / x; }
DEVICE float rsqrt_fast(float x) { return 1 / sqrtf(x); }
DEVICE float fma_f(float a, float b, float c) { return fmaf(a, b, c); }
DEVICE float max_f(float a, float b) { return fmaxf(a, b); }     /* of a NaN and x: x, as max.f32 */
DEVICE int max_i(int a, int b) { return a > b ? a : b; }
DEVICE int min_i(int a, int b) { return a < b ? a : b; }

/* ---- tensor cores ---- */

void matrix_load4(uint32_t r[4], const void *row);
void matrix_load4_transposed(uint32_t r[4], const void *row);
void mma_16x8x16(float c[4], const uint32_t a[4], const uint32_t b[2], int act);
void mma_16x8x8(float d[4], const float a[4], const float b[2], const float c[4]);

#endif
