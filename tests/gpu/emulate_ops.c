/* The emulator's operations of a warp: shuffles, votes, matrix fragments, products of tensor cores.
 *
 * Each is a meeting of 32 threads (emulate_meet_warp): the last one to come does the work of all.
 * Fragments lie in lanes as the PTX manual's figures for mma.m16n8k16, m16n8k32 and ldmatrix say.
 */
#include "emulate.h"
#include "emulate_races.h"

/* ---- shuffles ---- */

typedef struct { int32_t value, from, result; } Shuffle;

static void run_shuffle(void *operands[32])
{
    for (int l = 0; l < 32; l++) {
        Shuffle *to = operands[l];
        to->result = ((const Shuffle *)operands[to->from])->value;
    }
}

int32_t emulate_shuffle(const char *what, int32_t value, int from)
{
    if (from < 0 || from > 31)
        emulate_fail("%s from lane %d", what, from);
    Shuffle shuffle = { value, from, 0 };
    emulate_meet_warp(what, &shuffle, run_shuffle);
    return shuffle.result;
}

typedef struct { int vote; unsigned result; } Ballot;

static void run_ballot(void *operands[32])
{
    unsigned result = 0;
    for (int l = 0; l < 32; l++)
        result |= (unsigned)(((const Ballot *)operands[l])->vote != 0) << l;
    for (int l = 0; l < 32; l++)
        ((Ballot *)operands[l])->result = result;
}

unsigned ballot(int vote)
{
    Ballot operand = { vote, 0 };
    emulate_meet_warp("ballot", &operand, run_ballot);
    return operand.result;
}

/* ---- 16-bit floats ---- */

float half_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half >> 15) << 31, exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31)
        return bits_float(sign | 0x7F800000u | fraction << 13);
    if (exponent == 0)
        return bits_float(sign | float_bits((float)fraction * 0x1p-24f));
    return bits_float(sign | (exponent + 112) << 23 | fraction << 13);
}

/* `bits` without its `shift` low bits, rounded to nearest, ties to even. */
static uint32_t round_shift(uint32_t bits, int shift)
{
    const uint32_t half = 1u << (shift - 1), odd = bits >> shift & 1;
    return (bits + half - 1 + odd) >> shift;
}

uint16_t emulate_float_half(float f)
{
    const uint32_t bits = float_bits(f), sign = bits >> 31 << 15, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u)
        return 0x7FFF;
    if (magnitude >= 0x477FF000u)                       /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7C00);
    if (magnitude >= 0x38800000u)                       /* normal: 2^-14 and more */
        return (uint16_t)(sign | round_shift(magnitude - 0x38000000u, 13));
    if (magnitude < 0x33000000u)                        /* less than half of the least */
        return (uint16_t)sign;
    const int exponent = (int)(magnitude >> 23);
    return (uint16_t)(sign | round_shift((magnitude & 0x7FFFFFu) | 0x800000u, 126 - exponent));
}

uint16_t emulate_float_bf16(float f)
{
    const uint32_t bits = float_bits(f);
    return f != f ? 0x7FFF : (uint16_t)round_shift(bits, 16);
}

/* ---- matrix fragments ---- */

typedef struct { const uint16_t *row; uint32_t r[4]; } MatrixLoad;    /* lane 8 m + i: row i of matrix m */

static void run_matrix_load(void *operands[32])
{
    for (int l = 0; l < 32; l++)
        for (int m = 0; m < 4; m++)
            memcpy(&((MatrixLoad *)operands[l])->r[m],
                   ((const MatrixLoad *)operands[8 * m + l / 4])->row + l % 4 * 2, 4);
}

static void run_matrix_load_transposed(void *operands[32])
{
    for (int l = 0; l < 32; l++)
        for (int m = 0; m < 4; m++) {
            const uint16_t lo = ((const MatrixLoad *)operands[8 * m + l % 4 * 2])->row[l / 4];
            const uint16_t hi = ((const MatrixLoad *)operands[8 * m + l % 4 * 2 + 1])->row[l / 4];
            ((MatrixLoad *)operands[l])->r[m] = (uint32_t)hi << 16 | lo;
        }
}

static void matrix_load(const char *what, uint32_t r[4], const void *row, void (*run)(void *operands[32]))
{
    emulate_check_16(what, row);
    emulate_check_shared(what, row, 16);
    if (emulate_races_on)
        races_read(row, 16);
    MatrixLoad load = { row, { 0 } };
    emulate_meet_warp(what, &load, run);
    memcpy(r, load.r, sizeof load.r);
}

void matrix_load4(uint32_t r[4], const void *row)
{
    matrix_load("matrix_load4", r, row, run_matrix_load);
}

void matrix_load4_transposed(uint32_t r[4], const void *row)
{
    matrix_load("matrix_load4_transposed", r, row, run_matrix_load_transposed);
}

/* ---- products ---- */

typedef struct { float *c; const uint32_t *a, *b; int act; } Mma;

static void run_mma(void *operands[32])
{
    float a[16][16], b[8][16];           /* b transposed */
    for (int l = 0; l < 32; l++) {
        const Mma *m = operands[l];
        const int g = l / 4, k = l % 4 * 2;
        for (int half = 0; half < 2; half++)
            for (int i = 0; i < 2; i++) {
                const uint32_t word = m->a[half * 2 + i];
                a[g + 8 * i][k + 8 * half] = act_lo(word, m->act);
                a[g + 8 * i][k + 8 * half + 1] = act_hi(word, m->act);
            }
        for (int half = 0; half < 2; half++) {
            b[g][k + 8 * half] = act_lo(m->b[half], m->act);
            b[g][k + 8 * half + 1] = act_hi(m->b[half], m->act);
        }
    }
    for (int l = 0; l < 32; l++) {
        const Mma *m = operands[l];
        for (int i = 0; i < 4; i++) {
            const float *row = a[l / 4 + i / 2 * 8], *column = b[l % 4 * 2 + i % 2];
            double sum = m->c[i];
            for (int k = 0; k < 16; k++)
                sum += (double)row[k] * (double)column[k];
            m->c[i] = (float)sum;
        }
    }
}

void mma_16x8x16(float c[4], const uint32_t a[4], const uint32_t b[2], int act)
{
    Mma operand = { c, a, b, act };
    emulate_meet_warp("mma_16x8x16", &operand, run_mma);
}

typedef struct { float *d; const float *a, *b, *c; } MmaTf32;

static double without_low_bits(float x) { return (double)bits_float(float_bits(x) & ~UINT32_C(0x1FFF)); }

static void run_mma_tf32(void *operands[32])
{
    double a[16][8], b[8][8];            /* b transposed */
    for (int l = 0; l < 32; l++) {
        const MmaTf32 *m = operands[l];
        for (int half = 0; half < 2; half++) {
            for (int i = 0; i < 2; i++)
                a[l / 4 + 8 * i][l % 4 + 4 * half] = without_low_bits(m->a[half * 2 + i]);
            b[l / 4][l % 4 + 4 * half] = without_low_bits(m->b[half]);
        }
    }
    for (int l = 0; l < 32; l++) {
        const MmaTf32 *m = operands[l];
        for (int i = 0; i < 4; i++) {
            double sum = (double)m->c[i];
            for (int k = 0; k < 8; k++)
                sum += a[l / 4 + i / 2 * 8][k] * b[l % 4 * 2 + i % 2][k];
            m->d[i] = (float)sum;
        }
    }
}

void mma_16x8x8(float d[4], const float a[4], const float b[2], const float c[4])
{
    MmaTf32 operand = { d, a, b, c };
    emulate_meet_warp("mma_16x8x8", &operand, run_mma_tf32);
}
