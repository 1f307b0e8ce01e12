/* What a phase of decode takes at least: every block hears of every other, then reads what follows from it.
 *
 * Each of n turns every block tells eight words and hears those of all, each thread its part. Where a block's `reads`
 * pieces of 16 bytes a thread lie (0: it reads none) depends on what it heard, as weights do on a router, and what it
 * tells next on what it read. Nothing else is computed. Grid: any that is resident; threads: any multiple of 32, 8 at
 * least. turns[b], zero at first, counts those of block b. Of no model.
 */
PARAM(act, a) PARAM(reads, r)

enum { CEILING_WORDS = 8 /* of a block */, CEILING_READS = 24 /* most of them */ };

/* The thread's pieces of place `place`, folded to a small number. */
DEVICE float ceiling_fold(const u32x4 *from, int64_t place)
{
    u32x4 values[CEILING_READS];
    uint32_t fold = 0;
    from += (place * n_blocks_x() + block_x()) * reads * n_threads() + thread_x();
    UNROLL for (int j = 0; j < reads; j++)
        values[j] = load16_stream(from + j * n_threads());
    UNROLL for (int j = 0; j < reads; j++)
        fold ^= values[j][0] ^ values[j][1] ^ values[j][2] ^ values[j][3];
    return (float)(fold & 255);
}

KERNEL(ceiling_phase)(uint32_t *turns /* [blocks] */, uint64_t *words /* [2][blocks][8], 16-aligned */,
    const u32x4 *from /* [n_places][blocks][reads][threads] */, int64_t n_places, int64_t n)
{
    float *heard = shared(), *parts = heard + n_threads();      /* [threads], [warps] */
    const int n_words = n_blocks_x() * CEILING_WORDS;
    uint32_t turn = turns[block_x()];
    float own = (float)thread_x();
    for (int64_t i = 0; i < n; i++) {
        turn++;
        uint64_t *now = words + (int64_t)(turn % 2) * n_words;
        if (thread_x() < CEILING_WORDS)
            chain_tell(now + block_x() * CEILING_WORDS + thread_x(), act_pack(own, own, act), turn);
        float sum = 0;
        for (int k = 2 * thread_x(); k < n_words; k += 2 * n_threads()) {
            const u32x4 got = chain_hear(chain_load(now + k), now + k, turn);
            sum += act_lo(got[0], act) + act_lo(got[2], act);
        }
        heard[thread_x()] = sum;
        barrier();
        own = heard[(7 * thread_x() + (int)turn) % n_threads()] * 0.0001f;
        if (reads > 0) {
            own = decode_warp_sum(own + ceiling_fold(from, (turn + (own > 1e30f)) % n_places));
            if (lane() == 0)
                parts[warp()] = own;
            barrier();
            own = 0;
            for (int w = 0; w < n_threads() / 32; w++)
                own += parts[w] * 0.0001f;
        } else {
            barrier();
        }
    }
    if (thread_x() == 0)
        turns[block_x()] = turn;
}
