/* Element types: the table's rows and the scalar conversions of 16-bit floats.
 *
 * Input: names or values. Output: rows of dtype.def, or rounded bits.
 * Invariant: f32 to 16 bits rounds to nearest even and back is exact, subnormals included.
 */
#include "dtype.h"
#include "text.h"

#include <string.h>

static const DTypeInfo rows[N_DTYPES] = {
#define DTYPE(id, text, bits, safetensors, c_type, tolerance) \
    [DTYPE_##id] = { text, bits, safetensors, c_type, tolerance },
#include "dtype.def"
#undef DTYPE
};

const DTypeInfo *dtype_info(DType dtype)
{
    if ((unsigned)dtype >= N_DTYPES)
        BUG("dtype %d", (int)dtype);
    return &rows[dtype];
}

int dtype_len(DType dtype)
{
    return dtype_info(dtype)->bits / 8;
}

bool dtype_from_text(const char *text, DType *dtype)
{
    for (int i = 0; i < N_DTYPES; i++)
        if (strcmp(rows[i].text, text) == 0) {
            *dtype = (DType)i;
            return true;
        }
    return false;
}

bool dtype_from_safetensors(const char *text, int len, DType *dtype)
{
    for (int i = 0; i < N_DTYPES; i++) {
        const char *name = rows[i].safetensors;
        if (*name && (int)strlen(name) == len && memcmp(name, text, (size_t)len) == 0) {
            *dtype = (DType)i;
            return true;
        }
    }
    return false;
}

static uint32_t f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float f32_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint16_t dtype_f32_to_bf16(float value)
{
    uint32_t bits = f32_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40);   /* quiet: rounding could turn a NaN into infinity */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float dtype_bf16_to_f32(uint16_t bits)
{
    return f32_from_bits((uint32_t)bits << 16);
}

uint16_t dtype_f32_to_f16(float value)
{
    uint32_t bits = f32_bits(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u)
        return sign | 0x7e00;
    if (bits >= 0x477ff000u)   /* 65520, half way past the largest f16 */
        return sign | 0x7c00;
    if (bits < 0x38800000u) {  /* below 2^-14: subnormal, in units of 2^-24 */
        int exponent = (int)(bits >> 23);
        int shift = 126 - exponent;   /* of the 24-bit significand */
        if (shift > 24)
            return sign;
        uint32_t significand = (bits & 0x7fffffu) | 0x800000u;
        uint32_t half = 1u << (shift - 1);
        uint32_t kept = significand >> shift;
        uint32_t rest = significand & (2 * half - 1);
        kept += rest > half || (rest == half && (kept & 1));
        return sign | (uint16_t)kept;
    }
    uint32_t rounded = bits + 0xfff + (bits >> 13 & 1);
    return sign | (uint16_t)((rounded - 0x38000000u) >> 13);
}

float dtype_f16_to_f32(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
    if (exponent == 0x1f)
        return f32_from_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) {
        float magnitude = (float)fraction * 0x1p-24f;   /* exact */
        return f32_from_bits(sign | f32_bits(magnitude));
    }
    return f32_from_bits(sign | ((exponent + 112) << 23) | fraction << 13);
}
