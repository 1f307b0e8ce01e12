/* What a GPU can do at most: reading memory, and tensor cores that wait for nothing. For gpu_ceilings.c.
 *
 * Written in the dialect of codegen/gpu/dialect.h, compiled for sm_80 (read, mma) and sm_90a (wgmma, too). Operands
 * are random numbers: with zeros tensor cores take less power and run faster than any product does.
 */
const int sm = SM;

enum { READS = 8, TILES = 4, STAGES = 4, ROW_LEN = 128 };

/* 16-bit floats of magnitude 1 to 2, both signs, two in a word */
DEVICE uint32_t random_pair(uint32_t seed)
{
    seed *= 2654435761u;
    seed ^= seed >> 15;
    seed *= 2246822519u;
    seed ^= seed >> 13;
    return (seed & 0x83ff83ffu) | 0x3c003c00u;
}

/* Reads n 16-byte pieces of `from`, a multiple of 8 times the threads of a block. */
KERNEL(ceiling_read)(const u32x4 *from, int64_t n, uint32_t *out)
{
    const int64_t piece = (int64_t)READS * n_threads();
    uint32_t sum = 0;
    for (int64_t i = block_x() * piece + thread_x(); i < n; i += n_blocks_x() * piece) {
        u32x4 values[READS];
        UNROLL for (int j = 0; j < READS; j++)
            values[j] = load16_stream(from + i + (int64_t)j * n_threads());
        UNROLL for (int j = 0; j < READS; j++)
            sum ^= values[j][0] ^ values[j][1] ^ values[j][2] ^ values[j][3];
    }
    if (sum == 0x5eed5eedu)             /* only so that the reads are needed */
        out[0] = sum;
}

/* n times 16 products of 16x8x16 a warp, operands in registers */
KERNEL(ceiling_mma)(int n, float *out)
{
    uint32_t a[TILES][4], b[TILES][2];
    float c[TILES][TILES][4];
    UNROLL for (int i = 0; i < TILES; i++) {
        UNROLL for (int j = 0; j < 4; j++)
            a[i][j] = random_pair((uint32_t)(thread_x() * 64 + i * 4 + j));
        UNROLL for (int j = 0; j < 2; j++)
            b[i][j] = random_pair((uint32_t)(thread_x() * 64 + 32 + i * 2 + j));
        UNROLL for (int j = 0; j < TILES; j++)
            UNROLL for (int e = 0; e < 4; e++)
                c[i][j][e] = 0;
    }
    for (int round = 0; round < n; round++)
        UNROLL for (int i = 0; i < TILES; i++)
            UNROLL for (int j = 0; j < TILES; j++)
                mma_16x8x16(c[i][j], a[i], b[j], 2);
    float sum = 0;
    UNROLL for (int i = 0; i < TILES; i++)
        UNROLL for (int j = 0; j < TILES; j++)
            UNROLL for (int e = 0; e < 4; e++)
                sum += c[i][j][e];
    if (sum == 0.125f)
        out[0] = sum;
}

#if SM == 90
/* n times a product of 64x256x64 a warpgroup, two of them; operands in shared memory: stages of 128 + 256 rows of 64 */
KERNEL(ceiling_wgmma)(int n, float *out)
{
    enum { STAGE_LEN = (128 + 256) * ROW_LEN };
    uint8_t *memory = shared();
    memory += -shared_address(memory) & 1023;
    for (int i = thread_x(); i < STAGES * STAGE_LEN / 4; i += n_threads())
        ((uint32_t *)memory)[i] = random_pair((uint32_t)i);
    proxy_fence();
    barrier();
    float d[128];
    UNROLL for (int i = 0; i < 128; i++)
        d[i] = 0;
    const uint64_t first = wgmma_matrix(memory), group = (uint64_t)(thread_x() >> 7) * 64 * ROW_LEN / 16;
    for (int round = 0; round < n; round++) {
        const uint64_t stage = first + (uint64_t)(round % STAGES) * (STAGE_LEN / 16);
        wgmma_begin();
        wgmma_piece(d, 256, stage + group, stage + 128 * ROW_LEN / 16, 1, 2);
        wgmma_commit();
        wgmma_wait_before();
    }
    wgmma_wait(d, 256);
    float sum = 0;
    UNROLL for (int i = 0; i < 128; i++)
        sum += d[i];
    if (sum == 0.125f)
        out[0] = sum;
}
#endif
