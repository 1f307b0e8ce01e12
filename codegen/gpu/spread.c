/* The pairs of x_proj as dt_proj takes them: gate-weighted columns of joined experts, and B, C of the token.
 *
 * Grid: 8 tokens a block; 256 threads, a warp a token. out[t] has, for each of the token's experts e, gate · δ in
 * columns e r to e r + r, and 0 elsewhere, up to out_stride; bc[t] = Σ_s gate_s · (B, C), s ascending. With one
 * expert there are no gates.
 */
PARAM(dt_rank, r) PARAM(d_state, n) PARAM(n_experts, e) PARAM(in_stride, is) PARAM(out_stride, os) PARAM(act, a)

/* Column of out: 0 unless one of the token's experts owns it. */
DEVICE float spread_column(const float *in, const int32_t *experts, const float *gates, int top_k, int column)
{
    const int expert = column / dt_rank;
    float value = 0;
    for (int s = 0; s < top_k; s++)
        if ((n_experts == 1 ? 0 : experts[s]) == expert)
            value = (n_experts == 1 ? 1.0f : gates[s]) * in[(int64_t)s * in_stride + column - expert * dt_rank];
    return value;
}

/* Eight columns of one expert. */
DEVICE u32x4 spread_columns(const float *in, const int32_t *experts, const float *gates, int top_k, int column)
{
    const int expert = column / dt_rank;
    u32x4 lo = { 0, 0, 0, 0 }, hi = { 0, 0, 0, 0 };
    float gate = 0;
    for (int s = 0; s < top_k; s++)
        if ((n_experts == 1 ? 0 : experts[s]) == expert) {
            const float *from = in + (int64_t)s * in_stride + column - expert * dt_rank;
            lo = load16(from);
            hi = load16(from + 4);
            gate = n_experts == 1 ? 1.0f : gates[s];
        }
    return (u32x4){
        act_pack(gate * bits_float(lo[0]), gate * bits_float(lo[1]), act),
        act_pack(gate * bits_float(lo[2]), gate * bits_float(lo[3]), act),
        act_pack(gate * bits_float(hi[0]), gate * bits_float(hi[1]), act),
        act_pack(gate * bits_float(hi[2]), gate * bits_float(hi[3]), act),
    };
}

KERNEL(spread)(act_t *out /* [n_tokens][out_stride] */, float *bc /* [n_tokens][2 d_state] */,
    const float *in /* [pairs][in_stride]: δ, B, C */, const int32_t *experts, const float *gates,
    int32_t n_tokens, int32_t top_k)
{
    enum { tokens_a_block = 8 };
    dependency_wait();
    dependency_launch();
    const int64_t t = (int64_t)block_x() * tokens_a_block + warp();
    if (t >= n_tokens)
        return;
    const int32_t *const chosen = n_experts == 1 ? NULL : experts + t * top_k;
    const float *const weights = n_experts == 1 ? NULL : gates + t * top_k;
    in += t * top_k * in_stride;
    for (int n = lane(); n < 2 * d_state; n += 32) {
        float sum = 0;
        for (int s = 0; s < top_k; s++)
            sum = fma_f(n_experts == 1 ? 1.0f : weights[s], in[(int64_t)s * in_stride + dt_rank + n], sum);
        bc[t * (2 * d_state) + n] = sum;
    }
    act_t *const row = out + t * out_stride;
    if (dt_rank % 8 == 0) {
        UNROLL
        for (int i = 0; i < (out_stride / 8 + 31) / 32; i++) {
            const int column = (i * 32 + lane()) * 8;
            if (column < out_stride)
                store16(row + column, spread_columns(in, chosen, weights, top_k, column));
        }
    } else {
        for (int column = lane(); column < out_stride; column += 32)
            row[column] = float_act(spread_column(in, chosen, weights, top_k, column), act);
    }
}
