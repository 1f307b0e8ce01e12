/* Quantised rows: what q8 and q4 mean, once for the packer and for the reference.
 *
 * A matrix keeps one float32 scale for each output row; an element is scale * q. q8: q in
 * [-127, 127]. q4: q in [-8, 7], scale (of either sign) searched for the least squared error.
 * Chosen by measurement: bench/NOTES.md.
 */
#ifndef MOSSC_IR_QUANT_H
#define MOSSC_IR_QUANT_H

#include "dtype.h"

bool dtype_is_quantised(DType dtype);

/* q [n] and the scale of a row of finite weights. An all-zero row: scale 0, q 0. */
float quant_row(DType dtype, const float *weights, int64_t n, int8_t *q);

/* Bytes of one packed panel of `panel` rows: scales, then q in groups of `group` (q8) or twice that (q4)
 * along the row; or, for float types, the elements. */
int64_t panel_len(DType dtype, int64_t n_in, int64_t panel, int64_t group);
/* Bytes of a row that a product packs, at most: int8 by eights, else float32; bf16 by fours has eight at least. */
int64_t packed_row_len(bool quantised, int64_t n_in);

/* Products that are summed in f16 add 64 with elements below 1: larger weights might overflow. */
enum { F16_MOST_WEIGHT = 512 };

/* A quantised row of activations: int8 padded to 64, then scale and sum; bytes from row to row. */
int64_t quant_activation_stride(int64_t n);

#endif
