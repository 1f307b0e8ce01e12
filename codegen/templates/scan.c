/* Selective scan with its softplus and its gate; split over threads by panels of channels.
 *
 *   Δ = softplus(dt_raw)   s = exp(ΔA) ⊙ s + (ΔB) x   y = (C · s + D ⊙ x) ⊙ silu(z)
 *
 * (euler; zoh puts (exp(ΔA) - 1) / A in the place of Δ in ΔB, Eq. 6.) A comes as A log2(e), so
 * that exp(ΔA) is 2^(Δa). A vector holds LANES channels; the state of one stays in registers
 * for the whole chunk. The sum over states is one chain from D x, states ascending.
 */
PARAM(d_state, n)
PARAM(stride, s)       /* floats between rows of y, dt_raw, x, a, state: whole panels */
PARAM(z_stride, zs)    /* floats between rows of z */
PARAM(bc_stride, bs)   /* floats between rows of bc */
PARAM(zoh, zoh)        /* 1: zero-order hold, 0: euler */
PARAM(panel, nr)       /* 2 vectors */

KERNEL(scan)(
    float *y,              /* [n_tokens][stride]; may be dt_raw or x, or z if the strides agree */
    const float *dt_raw,   /* [n_tokens][stride]: Δ before softplus, bias included */
    const float *x,        /* [n_tokens][stride] */
    const float *bc,       /* [n_tokens][bc_stride]: B [d_state], then C [d_state] */
    const float *z,        /* [n_tokens][z_stride], readable to whole panels */
    const float *a,        /* [d_state][stride]: A log2(e) */
    const float *d,        /* [stride] */
    float *state,          /* [d_state][stride] */
    int n_tokens, int panel_begin, int panel_end)
{
    for (int i = panel_begin * panel; i < panel_end * panel; i += LANES) {
        vf s[d_state];
        UNROLL
        for (int n = 0; n < d_state; n++)
            s[n] = vload(state + (size_t)n * stride + i);
        const vf skip = vload(d + i);
        for (int t = 0; t < n_tokens; t++) {
            const size_t at = (size_t)t * stride + i;
            const float *b = bc + (size_t)t * bc_stride, *c = b + d_state;
            const vf xt = vload(x + at), zt = vload(z + (size_t)t * z_stride + i);
            const vf dt = vsoftplus(vload(dt_raw + at)), dt_x = dt * xt;
            vf sum = skip * xt;
            UNROLL
            for (int n = 0; n < d_state; n++) {
                const vf an = vload(a + (size_t)n * stride + i), power = dt * an;
                vf input = dt_x;
                if (zoh)                                  /* log2(e) (2^power - 1) / a, or Δ for a = 0 */
                    input = xt * vselect(an == 0, dt, vexp2m1(power) * 1.44269504f / an);
                s[n] = vfma(vexp2(power), s[n], input * vset(b[n]));
                sum = vfma(vset(c[n]), s[n], sum);
            }
            vstore(y + at, sum * vsilu(zt));
        }
        UNROLL
        for (int n = 0; n < d_state; n++)
            vstore(state + (size_t)n * stride + i, s[n]);
    }
}
