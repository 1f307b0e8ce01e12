/* A token of the selective scan for a vector of channels, and tokens of a block.
 *
 * NEON has its own text where its pipes ask for it: state and input are two products there, what all channels share
 * is a lane of one load, and powers that are not too small (`tame`) take fewer instructions, to the same value.
 */
#ifndef MOSS_SCAN_H
#define MOSS_SCAN_H

#include "simd.h"

#if defined __aarch64__

/* Is no power 2^(dt a) below 2^-125, for the longest dt and the lowest a of each lane? Not for NaN. */
KERNEL_INLINE int scan_is_tame(vf longest, vf lowest) { return vminvq_f32(longest * lowest) >= -125; }

/* s * e, in the register of s: gcc would take another and copy it back. */
KERNEL_INLINE vf scan_scale(vf s, vf e)
{
    __asm__("fmul %0.4s, %0.4s, %1.4s" : "+w"(s) : "w"(e));
    return s;
}

/* One token: s [d_state] moves on; the sum over states, one chain from skip x, states ascending. */
KERNEL_INLINE vf scan_token(vf *s /* [d_state] */, vf dt, vf x, vf skip, const float *a /* [d_state][stride] */,
                            const vf *over_a /* [d_state] */, const float *bc, const int d_state, const size_t stride,
                            const int zoh, const int tame)
{
    const vf *addends = simd_decay_addends;
    const vf dt_x = dt * x;
    vf sum = skip * x;
    UNROLL
    for (int n = 0; n < d_state; n++) {
        /* For the compiler alone: a state waits for the one before the last, or all would start at once and
         * not stay in registers; and addends come from memory each time, which costs no pipe that multiplies. */
        __asm__("" : "+r"(addends), "+r"(a) : "w"(n < 2 ? dt_x : s[n - 2]));
        const vf an = vload(a + (size_t)n * stride), e = simd_decay(dt, an, addends, tame);
        vf input = dt_x;
        if (zoh)                              /* Δ where a = 0 */
            input = x * vselect(an == 0, dt, vexp2m1(dt * an) * over_a[n]);
        s[n] = vfma_lane(scan_scale(s[n], e), input, bc, n, d_state);
        sum = vfma_lane(sum, s[n], bc + d_state, n, d_state);
    }
    return sum;
}

#else

KERNEL_INLINE int scan_is_tame(vf longest, vf lowest) { (void)longest, (void)lowest; return 0; }

KERNEL_INLINE vf scan_token(vf *s /* [d_state] */, vf dt, vf x, vf skip, const float *a /* [d_state][stride] */,
                            const vf *over_a /* [d_state] */, const float *bc, const int d_state, const size_t stride,
                            const int zoh, const int tame)
{
    const float *b = bc, *c = b + d_state;
    const vf dt_x = dt * x;
    vf sum = skip * x;
    (void)tame;
    UNROLL
    for (int n = 0; n < d_state; n++) {
        const vf an = vload(a + (size_t)n * stride), power = dt * an;
        vf input = dt_x;
        if (zoh)                              /* Δ where a = 0 */
            input = x * vselect(an == 0, dt, vexp2m1(power) * over_a[n]);
        s[n] = vfma(vexp2_decay(power), s[n], input * vset(b[n]));
        sum = vfma(vset(c[n]), s[n], sum);
    }
    return sum;
}

#endif

/* Tokens of a block: y [n_tokens][stride] from dt, x, gate [n_tokens] and bc [n_tokens][bc_stride]. */
KERNEL_INLINE void scan_tokens(float *y, vf *s, const vf *dt, const vf *x, const vf *gate, vf skip, const float *a,
                               const vf *over_a, const float *bc, int n_tokens, const int d_state, const size_t stride,
                               const size_t bc_stride, const int zoh, const int tame)
{
    for (int t = 0; t < n_tokens; t++) {
        const float *const shared = bc + (size_t)t * bc_stride;
        const vf sum = scan_token(s, dt[t], x[t], skip, a, over_a, shared, d_state, stride, zoh, tame);
        vstore(y + (size_t)t * stride, sum * gate[t]);
    }
}

#endif
