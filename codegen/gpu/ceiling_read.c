/* What reading memory reaches at most: nothing is made of what is read. Of no model, but a roof above its kernels.
 *
 * Grid, threads: any. Reads n pieces of 16 bytes, a multiple of reads times the threads of a block.
 */
PARAM(reads, r)

enum { CEILING_READS = 8 };             /* most of them */

KERNEL(ceiling_read)(uint32_t *out, const u32x4 *from /* [n] */, int64_t n)
{
    const int64_t piece = (int64_t)reads * n_threads();
    uint32_t sum = 0;
    for (int64_t i = block_x() * piece + thread_x(); i < n; i += n_blocks_x() * piece) {
        u32x4 values[CEILING_READS];
        UNROLL for (int j = 0; j < reads; j++)
            values[j] = load16_stream(from + i + (int64_t)j * n_threads());
        UNROLL for (int j = 0; j < reads; j++)
            sum ^= values[j][0] ^ values[j][1] ^ values[j][2] ^ values[j][3];
    }
    if (sum == 0x5eed5eedu)             /* only so that the reads are needed */
        out[0] = sum;
}
