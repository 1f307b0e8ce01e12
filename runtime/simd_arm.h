/* The transcendental functions of runtime/simd.h for NEON, included by it alone.
 *
 * Same values as there but for the last bits, and the same bounds. What differs is what costs on these
 * cores: rounding and conversions have half a pipe or less, so an integer is read out of the low bits of
 * a sum with 1.5 * 2^23; so has division, so a reciprocal is refined; and a fused product overwrites its
 * addend, so constants that are added come from memory, where copying a register takes a pipe.
 */
#ifndef MOSS_SIMD_ARM_H
#define MOSS_SIMD_ARM_H

#define SIMD_SAME(x) { (x), (x), (x), (x) }

/* A table of addends, to be read anew where `after` is known: not kept in registers, nor read earlier. */
KERNEL_INLINE const vf *simd_addends(const vf *table, vf after)
{
    __asm__("" : "+r"(table) : "w"(after));
    return table;
}

/* A register's value, unknown to the compiler: it would make a product with a power of two a shift and a sum. */
KERNEL_INLINE vi simd_hide(vi a)
{
    __asm__("" : "+w"(a));
    return a;
}

KERNEL_INLINE vf simd_minus_abs(vf a) { return (vf)((vi)a | INT32_MIN); }

/* 2^x, 2 ulp everywhere: 0 below -150, infinity from 128, denormals between, NaN for NaN. */
KERNEL_INLINE vf vexp2(vf x)
{
    static const vf addends[] = {
        SIMD_SAME(0x1.8p23f + 254), SIMD_SAME(0.001339073563f), SIMD_SAME(0.009618237478f),
        SIMD_SAME(0.05550357433f), SIMD_SAME(0.2402264979f), SIMD_SAME(0.6931471879f), SIMD_SAME(1.0f),
    };
    x = vmin(vset(129), vmax(vset(-151), x));
    const vf *c = simd_addends(addends, x), magic = vset(0x1.8p23f + 254);
    const vf shifted = x + magic, f = x - (shifted - magic);      /* the low bits are round(x) + 254 */
    vf q = vfma(vset(0.0001540351967f), f, c[1]);
    q = vfma(q, f, c[2]);
    q = vfma(q, f, c[3]);
    q = vfma(q, f, c[4]);
    q = vfma(q, f, c[5]);
    q = vfma(q, f, c[6]);
    const vi half = (vi)shifted >> 1, rest = (vi)shifted - half;
    return q * (vf)(half << 23) * (vf)(rest << 23);
}

/* e^x for x <= 0, 2 ulp: 0 below -104, denormals above. */
KERNEL_INLINE vf simd_exp_negative(vf x)
{
    static const vf addends[] = { SIMD_SAME(0x1.8p23f + 191), SIMD_SAME(0.4999999341f), SIMD_SAME(0.04166839378f) };
    x = vmax(vset(-104), x);
    const vf *c = simd_addends(addends, x);
    const vf shifted = vfma(x, vset(1.44269504f), c[0]);          /* the low bits are n + 127 + 64 */
    const vf n = shifted - (0x1.8p23f + 191);
    vf r = vfma(n, vset(-0.693359375f), x);                       /* ln 2 in two parts, the first exact */
    r = vfma(n, vset(2.12194440e-4f), r);
    const vf r2 = r * r, lo = vfma(vset(0.1666652011f), r, c[1]);
    const vf hi = vfma(vset(0.001381449627f), r2, vfma(vset(0.008368780278f), r, c[2]));
    return (vfma(vfma(hi, r2, lo), r2, r) + 1) * (vf)((vi)shifted << 23) * 0x1p-64f;
}

/* log(1 + e^x) = max(x, 0) + log(1 + e) with e = e^-|x| and a polynomial of log(1 + e) / e in e - 1/2: 4 ulp
 * everywhere, so also relative to the tiny values of very negative x. */
KERNEL_INLINE vf vsoftplus(vf x)
{
    static const vf addends[] = {
        SIMD_SAME(0.8109302194f), SIMD_SAME(0.1326090845f), SIMD_SAME(0.03663386003f), SIMD_SAME(0.01158647601f),
    };
    const vf e = simd_exp_negative(simd_minus_abs(x)), t = e - 0.5f, t2 = t * t, *c = simd_addends(addends, t);
    const vf q0 = vfma(vset(-0.2885266654f), t, c[0]), q2 = vfma(vset(-0.06771144696f), t, c[1]);
    const vf q4 = vfma(vset(-0.02022824605f), t, c[2]), q6 = vfma(vset(-0.008574461720f), t, c[3]);
    const vf hi = vfma(vfma(vset(0.005232694262f), t2, q6), t2, q4);
    return vfma(e, vfma(hi, t2 * t2, vfma(q2, t2, q0)), vmax(vset(0), x));
}

/* 1 / (1 + e^-x), 4 ulp everywhere. */
KERNEL_INLINE vf vsigmoid(vf x)
{
    const vf e = simd_exp_negative(simd_minus_abs(x)), b = e + 1;
    vf inverse = vrecpeq_f32(b);
    inverse *= (vf)vrecpsq_f32(b, inverse);
    inverse *= (vf)vrecpsq_f32(b, inverse);
    return vselect(x < 0, e, vset(1)) * inverse;
}

/* What simd_decay adds: 1.5 * 2^23, then the coefficients of (1 - 2^-g) / g but for the highest, then 1. */
static const vf simd_decay_addends[] = {
    SIMD_SAME(0x1.8p23f), SIMD_SAME(0.009671718134f), SIMD_SAME(-0.05550976046f), SIMD_SAME(0.24022238f),
    SIMD_SAME(-0.6931467728f), SIMD_SAME(1.0f),
};

/* 2^(dt a), 2 ulp, 0 where it would be denormal; `tame` promises that it is above 2^-125 in every lane, and takes
 * fewer instructions to the same value. dt a is not rounded; the error near 0, 6e-7, is as if `a` had it. */
KERNEL_INLINE vf simd_decay(vf dt, vf a, const vf *addends /* simd_decay_addends */, const int tame)
{
    const vf shifted = vfmaq_f32(addends[0], dt, a);              /* the low bits are n = round(dt a) */
    const vf g = vfmsq_f32(shifted - 0x1.8p23f, dt, a);           /* n - dt a */
    vf q = vfma(vset(-0.001319946143f), g, addends[1]);
    q = vfma(q, g, addends[2]);
    q = vfma(q, g, addends[3]);
    q = vfma(q, g, addends[4]);
    q = vfma(q, g, addends[5]);
    if (tame)                                         /* n goes onto the exponent: one instruction */
        return (vf)vmlaq_s32((vi)q, (vi)shifted, simd_hide(viset(1 << 23)));
    const vf power = q * (vf)(((vi)shifted + 127) << 23);
    return (vf)(~(dt * a < -126) & (vi)power);        /* NaN comes through */
}

/* 2^x for x <= 0: vexp2, but 0 wherever vexp2 would be denormal. */
KERNEL_INLINE vf vexp2_decay(vf x) { return simd_decay(x, vset(1), simd_decay_addends, 0); }

#endif
