/* Reference: products with experts and attention as plain loops in double, with what float32 may be off by.
 *
 * `want` and `allowed` are [rows][columns] without padding, zeroed by the caller. False: no memory.
 */
#ifndef MOSSC_TUNER_REFERENCE_H
#define MOSSC_TUNER_REFERENCE_H

#include "workload.h"

typedef struct {
    int n_in, n_out, in_stride, out_stride, n_experts, weight_dtype, in_pairs, out_pairs, accumulate, panel, top_k,
        quantised;
    /* only every panel_step-th panel and the last are computed; of others all is allowed */
    int n_tokens, panel_step;
    size_t panel_len;            /* bytes */
    const void *in;              /* float [rows][in_stride], or quantised rows of in_stride bytes */
    const uint8_t *weights;      /* [n_experts][n_panels][panel_len] */
    const float *bias, *gates;   /* [n_experts][n_panels * panel], [n_pairs], or NULL */
    const float *initial;        /* [out rows][out_stride]: what accumulate adds to or is gated by */
    const int32_t *experts, *slots, *offsets;
    WorkReader *reader;
} RefProduct;
bool ref_product(const RefProduct *p, double *want, double *allowed);

typedef struct {
    int n_heads, n_kv_heads, head_dim, window, n_tokens, q_stride, kv_stride;
    int64_t position, n_context;
    const float *q, *k, *v, *ring_k, *ring_v;
} RefAttention;
bool ref_attention(const RefAttention *a, double *want, double *allowed);

#endif
