/* What wgmma reaches at most: operands in shared memory, as gemm_h100 has them. Of no model, but a roof above it.
 *
 * Grid: any; 256 threads, two warpgroups; shared memory: 1024 bytes and a ring of 4 pieces of 128 and 256 rows of 64. n
 * times a product of 64x256x64 a warpgroup. `from`: random numbers, as in ceiling_mma.
 */
PARAM(act, a)

enum { CEILING_STAGES = 4, CEILING_ROW_LEN = 128, CEILING_STAGE_LEN = (128 + 256) * CEILING_ROW_LEN };

KERNEL(ceiling_wgmma_h100)(uint32_t *out, const u32x4 *from /* [12288] */, int64_t n)
{
    uint8_t *memory = shared();
    memory += -shared_address(memory) & 1023;
    for (int i = thread_x(); i < CEILING_STAGES * CEILING_STAGE_LEN / 16; i += n_threads())
        store16(memory + i * 16, load16(from + i));
    proxy_fence();
    barrier();
    float d[128];
    UNROLL for (int i = 0; i < 128; i++)
        d[i] = 0;
    const uint64_t first = wgmma_matrix(memory);
    const uint64_t group = (uint64_t)(thread_x() >> 7) * 64 * CEILING_ROW_LEN / 16;
    for (int64_t round = 0; round < n; round++) {
        const uint64_t stage = first + (uint64_t)(round % CEILING_STAGES) * (CEILING_STAGE_LEN / 16);
        wgmma_begin();
        wgmma_piece(d, 256, stage + group, stage + 128 * CEILING_ROW_LEN / 16, 1, act);
        wgmma_commit();
        wgmma_wait_before();
    }
    wgmma_wait(d, 256);
    float sum = 0;
    UNROLL for (int i = 0; i < 128; i++)
        sum += d[i];
    if (sum == 0.125f)                  /* only so that the products are needed */
        out[0] = 1;
}
