/* Matrix product of many rows with the experts that chose them (or one dense matrix).
 *
 * Rows are grouped by expert; each thread takes a range of output panels, or of tokens. An output is one chain
 * of fused products over k = 0 … n_in-1 from the bias, then, where experts are summed, fused with
 * its gate onto `out`, experts ascending: the same operations as gemv, whatever the chunk, the
 * tile or the thread. Rows are packed so that a tile reads both factors in sequence; weights narrower
 * than float32 become float32 once for each block of rows, before its tiles or as the first of them reads
 * them. Where the CPU multiplies bf16, rows become bf16 instead, and a step of a chain is two k, on 64-bit
 * ARM four. Where it sums f16, rows become f16, and the bias is added last (runtime/f16_arm.h).
 */
PARAM(n_in, i)           /* k */
PARAM(n_out, o)          /* columns; the last panel's others are padding */
PARAM(in_stride, is)     /* floats between rows of in */
PARAM(out_stride, os)    /* floats between rows of out; unless whole panels, padding is not written */
PARAM(n_experts, e)      /* 1: dense, slots, offsets and gates are NULL, top_k is 1 */
PARAM(weight_dtype, w)   /* 0 f32, 1 bf16, 2 f16, 5 bf16 by pairs of k, 6 f16 with f16 sums */
PARAM(in_pairs, ip)      /* in has a row for each 0: token, 1: pair */
PARAM(out_pairs, op)     /* out has a row for each 0: token, gates applied, 1: pair, no gates */
PARAM(has_bias, hb)      /* 1: chains start at the bias */
PARAM(accumulate, ac)    /* 0: out = product, 1: out += product, 2: out = silu(out) * product */
PARAM(tile_rows, mr)     /* rows of a register tile */
PARAM(tail_rows, tr)     /* step of the heights of smaller tiles for what remains; divides tile_rows */
PARAM(panel, nr)         /* columns of a tile: 2 vectors */
PARAM(block_rows, mc)    /* rows packed at a time; a multiple of tile_rows */
PARAM(pack_lines, pl)    /* 0: rows are packed [k][tile row], 1: by lines of 64 bytes, [k / line][tile row][line] */
PARAM(k_block, kb)       /* steps of k that all rows of a block take before the next; 0: all */
PARAM(fetch_gap, fg)     /* panels of weights between the used and the fetched one */
PARAM(widen, wd)         /* narrow weights become float32 0: before the tiles of a block, 1: in the first of them */

KERNEL(gemm)(
    float *out,               /* [rows][out_stride] */
    const float *in,          /* [rows][in_stride] */
    const void *weights,      /* [n_experts][n_panels][n_in][panel], by pairs: [n_steps][panel][BF16_GROUP] */
    const float *bias,        /* [n_experts][n_panels * panel], or NULL */
    const int32_t *slots,     /* [n_pairs]: pairs by expert */
    const int32_t *offsets,   /* [n_experts + 1] into slots */
    const float *gates,       /* [n_pairs] */
    int token_begin, int token_end,   /* rows of which tokens */
    int top_k,
    float *pack,              /* this thread's scratch: (block_rows + panel) * n_in, at least 2, in lines whole 16 */
    int panel_begin, int panel_end)
{
    const int n_panels = (n_out + panel - 1) / panel;
    const int pairs = weight_dtype == WEIGHT_BF16_PAIRS, halves = weight_dtype == WEIGHT_F16_ROWS;
    const int narrow = weight_dtype == WEIGHT_BF16 || weight_dtype == WEIGHT_F16;
    const int n_steps = k_steps(n_in, weight_dtype);
    const int row_len = tile_row_len(packed_floats(n_in, weight_dtype), pack_lines);      /* of a packed row, in floats */
    const size_t panel_len = float_panel_len(n_in, panel, weight_dtype);   /* bytes */
    float *const widened = pack + (size_t)block_rows * row_len;  /* [n_in][panel]; or rounded rows before they are packed */
    float sums[(k_block ? block_rows : tile_rows) * panel];     /* a tile's results; so far, of all rows */
    float *to[block_rows];          /* output row of each packed row */
    float gate[block_rows];
    float unscale[halves ? block_rows : 1];                    /* what a rounded row is to be multiplied with */
    int fresh[block_rows];          /* 1: nothing is in out yet */

    for (int e = 0; e < n_experts; e++) {
        const int first = n_experts == 1 ? token_begin : slots_before(slots, offsets + e, token_begin * top_k);
        const int last = n_experts == 1 ? token_end : slots_before(slots, offsets + e, token_end * top_k);
        for (int begin = first; begin < last; begin += block_rows) {
            const int n_rows = last - begin < block_rows ? last - begin : block_rows;

            for (int row = 0, rows; row < n_rows; row += rows) {
                rows = tile_height(n_rows - row, tile_rows, tail_rows);
                float *tile = pack + (size_t)row * row_len;
                const int8_t *row_words[tile_rows];    /* a step's: a float, or DOT_GROUP bytes of bf16 */
                for (int r = 0; r < rows; r++) {
                    const int taken = row + r < n_rows ? begin + row + r : last - 1;
                    const int pair = n_experts == 1 ? taken : slots[taken];
                    const int token = n_experts == 1 ? pair : pair / top_k;
                    const float *from = in + (size_t)(in_pairs ? pair : token) * in_stride;
                    uint16_t *rounded = (uint16_t *)widened + (size_t)r * 2 * row_len;
                    row_words[r] = pairs || halves ? (const int8_t *)rounded : (const int8_t *)from;
                    if (pairs)
                        bf16_row(rounded, from, n_in);
                    if (halves)
                        unscale[row + r] = f16_row(rounded, from, n_in);
                    to[row + r] = out + (size_t)(out_pairs ? pair : token) * out_stride;
                    gate[row + r] = n_experts == 1 || out_pairs ? 1 : gates[pair];
                    fresh[row + r] = !accumulate && (out_pairs || pair == token * top_k);
                }
                if (pack_lines)
                    tile_pack_lines((int8_t *)tile, row_words, rows, n_steps);
                else if (pairs && rows == tile_rows)
                    dot_tile_pack((int8_t *)tile, row_words, tile_rows, 0, n_steps);
                else if (pairs)
                    dot_tile_pack((int8_t *)tile, row_words, rows, 0, n_steps);
                else if (rows == tile_rows)
                    dot_pack((int8_t *)tile, row_words, tile_rows, n_steps);
                else
                    dot_pack((int8_t *)tile, row_words, rows, n_steps);
            }

            for (int p = panel_begin; p < panel_end; p++) {
                const size_t column = (size_t)p * panel;
                const size_t at = ((size_t)e * n_panels + p) * panel_len;
                const int whole = (p + 1) * panel <= out_stride;
                const int n_lo = n_out - p * panel < LANES ? n_out - p * panel : LANES;
                const int n_hi = n_out - p * panel - n_lo < LANES ? n_out - p * panel - n_lo : LANES;
                const uint8_t *const stored = (const uint8_t *)weights + at;
                const float *start = has_bias ? bias + (size_t)e * n_panels * panel + column : NULL;
                /* Every tile fetches its share of the next panel, or of one further on. */
                const size_t step_len = panel_len / n_steps, step = step_len / ((n_rows + tile_rows - 1) / tile_rows);

                for (int k = 0, n_k; k < n_steps; k += n_k) {
                    n_k = k_block && n_steps - k > k_block ? k_block : n_steps - k;
                    const int n_tile = halves ? n_in : n_k;
                    const float *const as_stored = (const float *)(stored + k * step_len);
                    for (size_t i = 0; narrow && !widen && i < (size_t)n_k * panel; i += LANES)
                        vstore(widened + i, vload_weight(stored, (size_t)k * panel + i, weight_dtype));
                    size_t ahead = at + (1 + fetch_gap) * panel_len + k * step;
                    for (int row = 0, rows; row < n_rows; row += rows, ahead += step * n_steps) {
                        rows = tile_height(n_rows - row, tile_rows, tail_rows);
                        const float *a = pack + (size_t)row * row_len + (size_t)k * rows;
                        float *to_sum = sums + (k_block ? row * panel : 0);
                        const float *from_sum = k ? to_sum : start;
                        const float *b = narrow && !(widen && row == 0) ? widened : as_stored;
                        float *to_wide = narrow && widen && row == 0 ? widened : NULL;
                        if (rows == tile_rows)
                            product_tile(tile_rows, weight_dtype, pack_lines, to_wide, to_sum, a, b, from_sum, n_tile, weights, ahead, step);
                        else if (rows != tail_rows)
                            product_tile(tile_rows - tail_rows, weight_dtype, pack_lines, to_wide, to_sum, a, b, from_sum, n_tile, weights, ahead, step);
                        else
                            product_tile(tail_rows, weight_dtype, pack_lines, to_wide, to_sum, a, b, from_sum, n_tile, weights, ahead, step);
                        if (k + n_k < n_steps)
                            continue;
                        for (int r = 0; r < rows && row + r < n_rows; r++) {
                            float *o = to[row + r] + column;
                            const float *sum = to_sum + r * panel;
                            const float *unscaled = halves ? &unscale[row + r] : NULL;
                            const vf g = vset(gate[row + r]), lo = product_sum(sum, start, unscaled);
                            const vf hi = product_sum(sum + LANES, start ? start + LANES : NULL, unscaled);
                            if (whole) {
                                vstore(o, product_end(accumulate, g, lo, fresh[row + r] ? vset(0) : vload(o)));
                                vstore(o + LANES, product_end(accumulate, g, hi, fresh[row + r] ? vset(0) : vload(o + LANES)));
                            } else {
                                vstore_part(o, product_end(accumulate, g, lo, fresh[row + r] ? vset(0) : vload_part(o, n_lo)), n_lo);
                                vstore_part(o + LANES, product_end(accumulate, g, hi, fresh[row + r] ? vset(0) : vload_part(o + LANES, n_hi)), n_hi);
                            }
                        }
                    }
                }
            }
        }
    }
}
