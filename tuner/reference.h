/* Reference: products with experts, attention, scans and routers as plain loops in double, with what float32 may be
 * off by.
 *
 * Input: numbers, however the caller stores them. Output: `want` and `allowed`, [rows][columns] without padding, zeroed
 * by the caller. Uses the C library only: the tuner, the programs it sends to boards and the kernel tests share it.
 */
#ifndef MOSSC_TUNER_REFERENCE_H
#define MOSSC_TUNER_REFERENCE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct RefProduct RefProduct;
/* Columns [panel * width, + width) of an expert's matrix, [n_in][width]; what lies beyond n_out is not looked at. */
typedef void RefReader(const RefProduct *p, int expert, int panel, double *to);

struct RefProduct {
    int n_in, n_out, n_experts, top_k, n_tokens;
    int in_pairs, out_pairs;     /* rows are those of pairs, not of tokens */
    int accumulate;              /* 0: out = product, 1: out += product, 2: out = silu(out) * product */
    bool f16_sums;               /* rows are rounded to float16, and so are sums of 64 products */
    int width, panel_step;       /* only every panel_step-th panel and the last are computed; others may be anything */
    const double *in;            /* [rows][n_in] */
    const float *bias;           /* [n_experts][n_panels * width], or NULL */
    const float *gates;          /* [n_pairs]; not read where n_experts is 1 or out_pairs */
    const float *initial;        /* [out rows][out_stride]: what accumulate adds to or gates */
    int out_stride;
    const int32_t *slots, *offsets;      /* as ref_group writes them; not read where n_experts is 1 */
    RefReader *read;
    const void *weights;         /* for `read` */
};
/* False: no memory, or panels wider than it takes. */
bool ref_product(const RefProduct *p, double *want, double *allowed);

typedef struct {
    int n_heads, n_kv_heads, head_dim, window, n_tokens, q_stride, kv_stride;
    int64_t position, n_context;
    const float *q, *k, *v, *ring_k, *ring_v;
} RefAttention;
/* False: no memory. */
bool ref_attention(const RefAttention *a, double *want, double *allowed);

/* Results: n_tokens rows of y, then d_state rows of the state. `a` is A log2(e). */
typedef struct {
    int n_channels, d_state, zoh, n_tokens, stride, z_stride, bc_stride;
    const float *dt_raw, *x, *bc, *z, *a, *d, *state;
} RefScan;
bool ref_scan(const RefScan *s, double *want, double *allowed);

/* Results, one after the other: with a norm (weight is not NULL) its rows [n_tokens][stride]; gates [n_tokens][top_k];
 * experts [n_tokens][top_k], their bits taken for those of floats. Where float32 cannot tell which expert is the better
 * one, a token's may be anything. */
typedef struct {
    int n_in, stride, n_experts, top_k, renormalize, n_tokens;
    double eps;
    const float *x, *weight, *router;        /* [n_tokens][stride], [stride], [n_experts][n_in] */
} RefRouter;
/* False: no memory. */
bool ref_router(const RefRouter *r, double *want, double *allowed);

double ref_silu(double x);
/* Pairs by expert, ascending: slots [n_pairs], offsets [n_experts + 1]. */
void ref_group(int32_t *slots, int32_t *offsets, const int32_t *experts, int n_pairs, int n_experts);

#endif
