/* What mma.sync reaches at most: operands in registers, nothing to wait for. Of no model, but a roof above its kernels.
 *
 * Grid: any; 256 threads. n times 16 products of 16x8x16 a warp. `from`: random numbers; with zeros tensor cores take
 * less power and run faster than any product does.
 */
PARAM(act, a)

enum { CEILING_TILES = 4 };

KERNEL(ceiling_mma)(uint32_t *out, const u32x4 *from /* [n_threads][6] */, int64_t n)
{
    uint32_t a[CEILING_TILES][4], b[CEILING_TILES][2];
    float c[CEILING_TILES][CEILING_TILES][4];
    UNROLL for (int i = 0; i < CEILING_TILES; i++) {
        const u32x4 of_a = load16(from + thread_x() * 6 + i), of_b = load16(from + thread_x() * 6 + 4 + i / 2);
        UNROLL for (int j = 0; j < 4; j++)
            a[i][j] = of_a[j];
        UNROLL for (int j = 0; j < 2; j++)
            b[i][j] = of_b[i % 2 * 2 + j];
        UNROLL for (int j = 0; j < CEILING_TILES; j++)
            UNROLL for (int e = 0; e < 4; e++)
                c[i][j][e] = 0;
    }
    for (int64_t round = 0; round < n; round++)
        UNROLL for (int i = 0; i < CEILING_TILES; i++)
            UNROLL for (int j = 0; j < CEILING_TILES; j++)
                mma_16x8x16(c[i][j], a[i], b[j], act);
    float sum = 0;
    UNROLL for (int i = 0; i < CEILING_TILES; i++)
        UNROLL for (int j = 0; j < CEILING_TILES; j++)
            UNROLL for (int e = 0; e < 4; e++)
                sum += c[i][j][e];
    if (sum == 0.125f)                  /* only so that the products are needed */
        out[0] = 1;
}
