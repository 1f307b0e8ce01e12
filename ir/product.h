/* Product: what a matrix product of the IR multiplies, whichever of the three operations it is. */
#ifndef MOSSC_IR_PRODUCT_H
#define MOSSC_IR_PRODUCT_H

#include "module.h"

typedef struct {
    const Value *x, *weight;
    const Value *experts, *gates, *bias, *slots, *offsets;     /* NULL: none */
    bool in_pairs, out_pairs;    /* rows of x, of the result: (token, chosen expert) pairs */
    int accumulate;              /* 0 replaces, 1 adds to the result's buffer, 2 is gated by it */
    int n_experts;               /* 1: dense */
} Product;

bool op_is_product(const Op *op);
Product product_of(const Op *op);
/* Is it multiplied as float32, and its weight stored narrower? */
bool product_widens(const Op *op);
/* What reads the weight: the values of runtime/simd.h, WEIGHT_F32 and so on. */
int product_weight_code(const Value *weight);

#endif
