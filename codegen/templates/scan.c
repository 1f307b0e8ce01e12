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
PARAM(token_block, tb) /* tokens whose Δ and gate are computed ahead, which hides their latency */
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
        const vf skip = vload(d + i);
        vf s[d_state], over_a[d_state], lowest = vset(0);
        UNROLL
        for (int n = 0; n < d_state; n++) {
            s[n] = vload(state + (size_t)n * stride + i);
            lowest = vmin(lowest, vload(a + (size_t)n * stride + i));
            over_a[n] = zoh ? vset(1.44269504f) / vload(a + (size_t)n * stride + i) : vset(0);
        }
        for (int t0 = 0; t0 < n_tokens; t0 += token_block) {
            const int n_block = n_tokens - t0 < token_block ? n_tokens - t0 : token_block;
            vf dt[token_block], xt[token_block], gate[token_block], longest = vset(0);
            for (int t = 0; t < n_block; t++) {
                const size_t at = (size_t)(t0 + t) * stride + i, z_at = (size_t)(t0 + t) * z_stride + i;
                dt[t] = vsoftplus(vload(dt_raw + at));
                longest = vmax(longest, dt[t]);
                xt[t] = vload(x + at);
                gate[t] = vsilu(vload(z + z_at));
                prefetch(dt_raw, (at + token_block * stride) * sizeof *dt_raw);
                prefetch(x, (at + token_block * stride) * sizeof *x);
                prefetch(z, (z_at + token_block * z_stride) * sizeof *z);
            }
            float *const to = y + (size_t)t0 * stride + i;
            const float *const shared = bc + (size_t)t0 * bc_stride;
            if (scan_is_tame(longest, lowest))
                scan_tokens(to, s, dt, xt, gate, skip, a + i, over_a, shared, n_block, d_state, stride, bc_stride, zoh, 1);
            else
                scan_tokens(to, s, dt, xt, gate, skip, a + i, over_a, shared, n_block, d_state, stride, bc_stride, zoh, 0);
        }
        UNROLL
        for (int n = 0; n < d_state; n++)
            vstore(state + (size_t)n * stride + i, s[n]);
    }
}
