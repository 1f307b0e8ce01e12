/* Element types of tensors and the scalar conversions between them. */
#ifndef MOSSC_IR_DTYPE_H
#define MOSSC_IR_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
#define DTYPE(id, ...) DTYPE_##id,
#include "dtype.def"
#undef DTYPE
    N_DTYPES
} DType;

typedef struct {
    const char *text;          /* in IR text and options: "bf16" */
    int bits;
    const char *safetensors;   /* name in a safetensors header, "" when it has none */
    const char *c_type;        /* stored element in generated C */
    double tolerance;          /* see dtype.def */
} DTypeInfo;

const DTypeInfo *dtype_info(DType dtype);
int dtype_len(DType dtype);                            /* bytes of one element */
bool dtype_from_text(const char *text, DType *dtype);  /* "bf16" */
bool dtype_from_safetensors(const char *text, int len, DType *dtype);   /* "BF16" */

/* Round to nearest even; NaN stays NaN, overflow becomes infinity. */
uint16_t dtype_f32_to_bf16(float value);
uint16_t dtype_f32_to_f16(float value);
float dtype_bf16_to_f32(uint16_t bits);
float dtype_f16_to_f32(uint16_t bits);

#endif
