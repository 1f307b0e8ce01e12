/* Element types: names, and 16-bit floats against a definition that rounds by search.
 *
 * Checks every one of the 65536 patterns, the midpoints between neighbours, and the edges.
 */
#include "../../ir/dtype.h"
#include "unit.h"

#include <math.h>
#include <string.h>

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static bool same(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static void test_names(void)
{
    DType dtype = N_DTYPES;
    for (int i = 0; i < N_DTYPES; i++) {
        CU_ASSERT(dtype_from_text(dtype_info((DType)i)->text, &dtype));
        CU_ASSERT_EQUAL((int)dtype, i);
        CU_ASSERT_EQUAL(dtype_len((DType)i), dtype_info((DType)i)->bits / 8);      /* 0: two to a byte */
    }
    CU_ASSERT(!dtype_from_text("BF16", &dtype));
    CU_ASSERT(!dtype_from_text("", &dtype));
    CU_ASSERT(dtype_from_safetensors("BF16x", 4, &dtype));
    CU_ASSERT_EQUAL(dtype, DTYPE_BF16);
    CU_ASSERT(!dtype_from_safetensors("BF16", 3, &dtype));
    CU_ASSERT(!dtype_from_safetensors("", 0, &dtype));   /* I32 has no name there */
    CU_ASSERT(!dtype_from_safetensors("F64", 3, &dtype));
}

/* The value of an f16 pattern by its definition. */
static double f16_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double magnitude = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static void test_f16_to_f32(void)
{
    int n_bad = 0;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float value = dtype_f16_to_f32((uint16_t)bits);
        if ((bits & 0x7c00) == 0x7c00)
            n_bad += bits & 0x3ff ? !isnan(value) : !isinf(value) || (value < 0) != (bits >> 15);
        else
            n_bad += !same(value, (float)f16_value((uint16_t)bits));
    }
    CU_ASSERT_EQUAL(n_bad, 0);
}

static void test_f16_round_trip(void)
{
    int n_bad = 0;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        uint16_t back = dtype_f32_to_f16(dtype_f16_to_f32((uint16_t)bits));
        bool nan = (bits & 0x7c00) == 0x7c00 && (bits & 0x3ff);
        n_bad += nan ? (back & 0x7c00) != 0x7c00 || !(back & 0x3ff) : back != bits;
    }
    CU_ASSERT_EQUAL(n_bad, 0);
}

/* Half way goes to the even neighbour; a hair to either side goes to that side. */
static void test_f16_midpoints(void)
{
    int n_bad = 0;
    for (uint16_t bits = 0; bits < 0x7bff; bits++) {
        float middle = (float)((f16_value(bits) + f16_value((uint16_t)(bits + 1))) / 2);   /* exact */
        uint16_t even = (uint16_t)(bits + (bits & 1));
        n_bad += dtype_f32_to_f16(middle) != even;
        n_bad += dtype_f32_to_f16(nextafterf(middle, 0)) != bits;
        n_bad += dtype_f32_to_f16(nextafterf(middle, INFINITY)) != bits + 1;
        n_bad += dtype_f32_to_f16(-middle) != (even | 0x8000);
    }
    CU_ASSERT_EQUAL(n_bad, 0);
    CU_ASSERT_EQUAL(dtype_f32_to_f16(65519.99f), 0x7bff);
    CU_ASSERT_EQUAL(dtype_f32_to_f16(65520), 0x7c00);
    CU_ASSERT_EQUAL(dtype_f32_to_f16(-1e30f), 0xfc00);
    CU_ASSERT_EQUAL(dtype_f32_to_f16(0x1p-25f), 0);
    CU_ASSERT_EQUAL(dtype_f32_to_f16(from_bits(1)), 0);
    CU_ASSERT_EQUAL(dtype_f32_to_f16(-0.0f), 0x8000);
}

static void test_bf16(void)
{
    int n_bad = 0;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float value = dtype_bf16_to_f32((uint16_t)bits);
        bool nan = (bits & 0x7f80) == 0x7f80 && (bits & 0x7f);
        uint16_t back = dtype_f32_to_bf16(value);
        n_bad += nan ? !isnan(dtype_bf16_to_f32(back)) : back != bits;
        if (nan || bits >= 0x7f80)
            continue;
        uint32_t middle = bits << 16 | 0x8000;
        n_bad += dtype_f32_to_bf16(from_bits(middle)) != (uint16_t)(bits + (bits & 1));
        n_bad += dtype_f32_to_bf16(from_bits(middle - 1)) != bits;
        n_bad += dtype_f32_to_bf16(from_bits(middle + 1)) != (uint16_t)(bits + 1);
    }
    CU_ASSERT_EQUAL(n_bad, 0);
    CU_ASSERT(isnan(dtype_bf16_to_f32(dtype_f32_to_bf16(from_bits(0x7f800001)))));
    CU_ASSERT(isnan(dtype_bf16_to_f32(dtype_f32_to_bf16(from_bits(0xffffffff)))));
    CU_ASSERT_EQUAL(dtype_f32_to_bf16(from_bits(0x7f7fffff)), 0x7f80);
}

static const UnitTest tests[] = {
    { "names", test_names },
    { "f16 to f32, every pattern", test_f16_to_f32 },
    { "f16 round trip", test_f16_round_trip },
    { "f16 midpoints and edges", test_f16_midpoints },
    { "bf16", test_bf16 },
};
UNIT_MAIN("dtype", tests)
