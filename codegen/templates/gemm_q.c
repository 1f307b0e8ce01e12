/* Matrix product of many quantised rows with the experts that chose them (or one dense matrix).
 *
 * As gemm, with exact integer sums: value = Σ q_w q_x * (scale_w * scale_x) fused onto the bias,
 * then fused with its gate onto `out`, experts ascending. Stored weights have an offset, so every
 * sum starts at -offset * Σ q_x. Rows are packed as dot_tile_pack says; nibbles become bytes once for
 * each block of rows.
 */
PARAM(n_in, i)           /* k */
PARAM(n_out, o)          /* columns; the last panel's others are padding */
PARAM(in_stride, is)     /* bytes between rows of in */
PARAM(out_stride, os)    /* floats between rows of out; unless whole panels, padding is not written */
PARAM(n_experts, e)      /* 1: dense, slots, offsets and gates are NULL, top_k is 1 */
PARAM(weight_dtype, w)   /* 3 q8, 4 q4 */
PARAM(in_pairs, ip)      /* in has a row for each 0: token, 1: pair */
PARAM(out_pairs, op)     /* out has a row for each 0: token, gates applied, 1: pair, no gates */
PARAM(has_bias, hb)
PARAM(accumulate, ac)    /* 0: out = product, 1: out += product, 2: out = silu(out) * product */
PARAM(tile_rows, mr)     /* rows of a register tile */
PARAM(tail_rows, tr)     /* step of the heights of smaller tiles for what remains; divides tile_rows */
PARAM(panel, nr)         /* columns of a tile: 2 vectors */
PARAM(block_rows, mc)    /* rows packed at a time; a multiple of tile_rows */
PARAM(pack_lines, pl)    /* 0: rows are packed [k][tile row], 1: by lines of 64 bytes, [k / line][tile row][line] */
PARAM(fetch_gap, fg)     /* panels of weights between the used and the fetched one */

KERNEL(gemm_q)(
    float *out,               /* [rows][out_stride] */
    const int8_t *in,         /* [rows][in_stride], quantised */
    const void *weights,      /* [n_experts][n_panels]: scales [panel], then rows of [panel][DOT_GROUP] bytes */
    const float *bias,        /* [n_experts][n_panels * panel], or NULL */
    const int32_t *slots,     /* [n_pairs]: pairs by expert */
    const int32_t *offsets,   /* [n_experts + 1] into slots */
    const float *gates,       /* [n_pairs] */
    int token_begin, int token_end,   /* rows of which tokens */
    int top_k,
    int8_t *pack,             /* this thread's scratch: (block_rows + (q4: panel)) * (n_in rounded up to 8, in lines to 64) */
    int panel_begin, int panel_end)
{
    const int n_panels = (n_out + panel - 1) / panel;
    const int n_groups = dot_steps(n_in, weight_dtype);
    const int row_len = tile_row_len(n_groups, pack_lines) * DOT_GROUP;     /* of a packed row */
    const size_t panel_len = dot_panel_len(n_in, panel, weight_dtype);
    const int unit = pack_lines ? 64 : 8;
    int8_t *const unpacked = pack + (size_t)block_rows * ((n_in + unit - 1) / unit * unit);   /* [n_groups][panel][DOT_GROUP] */
    int32_t sums[tile_rows * panel];   /* a tile's results */
    float *to[block_rows];             /* output row of each packed row */
    float gate[block_rows], scale[block_rows];
    int32_t start[block_rows];
    int fresh[block_rows];             /* 1: nothing is in out yet */

    for (int e = 0; e < n_experts; e++) {
        const int first = n_experts == 1 ? token_begin : slots_before(slots, offsets + e, token_begin * top_k);
        const int last = n_experts == 1 ? token_end : slots_before(slots, offsets + e, token_end * top_k);
        for (int begin = first; begin < last; begin += block_rows) {
            const int n_rows = last - begin < block_rows ? last - begin : block_rows;

            for (int row = 0, rows; row < n_rows; row += rows) {
                rows = tile_height(n_rows - row, tile_rows, tail_rows);
                const int8_t *from[tile_rows];
                for (int r = 0; r < rows; r++) {
                    const int taken = row + r < n_rows ? begin + row + r : last - 1;
                    const int pair = n_experts == 1 ? taken : slots[taken];
                    const int token = n_experts == 1 ? pair : pair / top_k;
                    from[r] = in + (size_t)(in_pairs ? pair : token) * in_stride;
                    to[row + r] = out + (size_t)(out_pairs ? pair : token) * out_stride;
                    gate[row + r] = n_experts == 1 || out_pairs ? 1 : gates[pair];
                    scale[row + r] = dot_row_scale(from[r], n_in);
                    start[row + r] = -dot_offset(weight_dtype) * dot_row_sum(from[r], n_in);
                    fresh[row + r] = !accumulate && (out_pairs || pair == token * top_k);
                }
                if (rows == tile_rows)
                    dot_tile_pack(pack + (size_t)row * row_len, from, tile_rows, pack_lines, n_groups);
                else if (rows != tail_rows)
                    dot_tile_pack(pack + (size_t)row * row_len, from, tile_rows - tail_rows, pack_lines, n_groups);
                else
                    dot_tile_pack(pack + (size_t)row * row_len, from, tail_rows, pack_lines, n_groups);
            }

            for (int p = panel_begin; p < panel_end; p++) {
                const size_t column = (size_t)p * panel;
                const size_t at = ((size_t)e * n_panels + p) * panel_len;
                const int whole = (p + 1) * panel <= out_stride;
                const int n_lo = n_out - p * panel < LANES ? n_out - p * panel : LANES;
                const int n_hi = n_out - p * panel - n_lo < LANES ? n_out - p * panel - n_lo : LANES;
                const float *scales = (const float *)((const uint8_t *)weights + at);
                const int8_t *data = (const int8_t *)weights + at + panel * 4;
                if (weight_dtype == WEIGHT_Q4) {
                    dot_unpack(unpacked, data, n_groups, panel);
                    data = unpacked;
                }
                const float *base = has_bias ? bias + (size_t)e * n_panels * panel + column : NULL;
                const vf base_lo = has_bias ? vload(base) : vset(0), base_hi = has_bias ? vload(base + LANES) : vset(0);

                /* Every tile fetches its share of the next panel, or of one further on. */
                const size_t step = panel_len / n_groups / ((n_rows + tile_rows - 1) / tile_rows);
                size_t ahead = at + (1 + fetch_gap) * panel_len;

                for (int row = 0, rows; row < n_rows; row += rows, ahead += step * n_groups) {
                    const int8_t *a = pack + (size_t)row * row_len;
                    rows = tile_height(n_rows - row, tile_rows, tail_rows);
                    for (int r = 0; r < rows; r++)
                        for (size_t line = 0; line < panel * sizeof *out; line += 64)
                            prefetch(to[row + r] + column, line);
                    if (rows == tile_rows)
                        dot_tile(tile_rows, weight_dtype == WEIGHT_Q4, pack_lines, sums, a, data, start + row, n_groups, weights, ahead, step);
                    else if (rows != tail_rows)
                        dot_tile(tile_rows - tail_rows, weight_dtype == WEIGHT_Q4, pack_lines, sums, a, data, start + row, n_groups, weights, ahead, step);
                    else
                        dot_tile(tail_rows, weight_dtype == WEIGHT_Q4, pack_lines, sums, a, data, start + row, n_groups, weights, ahead, step);
                    for (int r = 0; r < rows && row + r < n_rows; r++) {
                        float *o = to[row + r] + column;
                        const int32_t *sum = sums + r * panel;
                        const int begins = n_experts == 1 || out_pairs ? !accumulate : fresh[row + r];
                        const vf g = vset(n_experts == 1 || out_pairs ? 1 : gate[row + r]), s = vset(scale[row + r]);
                        const vf lo = vfma(vfloat(viload(sum)), vload(scales) * s, base_lo);
                        const vf hi = vfma(vfloat(viload(sum + LANES)), vload(scales + LANES) * s, base_hi);
                        if (whole) {
                            vstore(o, product_end(accumulate, g, lo, begins ? vset(0) : vload(o)));
                            vstore(o + LANES, product_end(accumulate, g, hi, begins ? vset(0) : vload(o + LANES)));
                        } else {
                            vstore_part(o, product_end(accumulate, g, lo, begins ? vset(0) : vload_part(o, n_lo)), n_lo);
                            vstore_part(o + LANES, product_end(accumulate, g, hi, begins ? vset(0) : vload_part(o + LANES, n_hi)), n_hi);
                        }
                    }
                }
            }
        }
    }
}
