/* Checks of kernels on a GPU, in their place in the model.
 *
 * Input: two variants of a model that differ in one kernel. Both run the same tokens from the same states; what the
 * kernel writes, and what the rest of its layer makes of it, is compared element by element: to the bit where both add
 * in one order, else within what float32 may be off by. Products are also compared with plain loops in double. False
 * from any of these: the device failed, with words in bench->why.
 */
#ifndef MOSSC_TUNER_GPU_CHECK_H
#define MOSSC_TUNER_GPU_CHECK_H

#include "gpu_bench.h"

typedef struct {
    const char *key;
    ListId list;
    bool same_bits;
    int n_tokens[3], n;          /* of the passes; of decode, the sequences */
    int most_tokens;             /* of a prompt before decode */
} GpuCheckRequest;

/* The worst error in units of what is allowed, infinite for a NaN or a write behind a buffer, and where it is. */
bool gpu_check_kernel(BenchSide *base, BenchSide *side, const GpuCheckRequest *request, double *worst,
                      char *where, size_t where_len);
/* Does a token's decode, by the usual launches or (whole) as an artifact does it, give what prefill gives, and is it
 * all numbers? */
bool gpu_check_decode(BenchSide *base, int n_tokens, bool whole, double *worst, char *where, size_t where_len);

/* gpu_product.c: a launch of gemm or gemm_h100 that has just run; `before`: its rows of out as they were. */
bool gpu_is_product(const BenchSide *side, const Launch *launch);
size_t gpu_product_out_len(const BenchSide *side, const Launch *launch, const BenchPass *pass);
bool gpu_product_check(const BenchSide *side, const BenchPass *pass, const Launch *launch, const void *before,
                       double *worst, char *where, size_t where_len);

#endif
