/* What it takes at least that every block hears of every other, as the phases of a token generated do.
 *
 * Each of n turns every block tells eight words and hears those of all, each thread its part, through shared memory to
 * the next turn's words. Grid: any that is resident; threads: any multiple of 32, 8 at least. turns[b], zero at first,
 * counts those of block b. Of no model.
 */
PARAM(act, a)

enum { CEILING_WORDS = 8 };             /* of a block */

KERNEL(ceiling_exchange)(uint32_t *turns /* [blocks] */, uint64_t *words /* [2][blocks][8], 16-aligned */, int64_t n)
{
    float *heard = shared();            /* [threads] */
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
        barrier();
    }
    if (thread_x() == 0)
        turns[block_x()] = turn;
}
