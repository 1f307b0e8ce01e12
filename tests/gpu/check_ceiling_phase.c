/* ceiling_phase: every block takes all its turns, whatever it was told before, and tells each of them. */
#include "check.h"

enum { WORDS = 8 /* of a block */, FIRST_TURN = 7, PLACES = 3 };

static void check_phase(void)
{
    const int blocks = check_param("blocks"), threads = check_param("threads");
    const int64_t n = check_param("n"), n_places = PLACES;
    const size_t n_pieces = (size_t)(PLACES * blocks * threads * check_param("reads"));
    uint32_t *from = check_buffer(16 * n_pieces);
    uint32_t *turns = check_buffer(sizeof(uint32_t) * (size_t)blocks);
    uint64_t *words = check_buffer(sizeof(uint64_t) * 2 * WORDS * (size_t)blocks);
    for (int i = 0; i < blocks; i++)
        turns[i] = FIRST_TURN;
    for (int i = 0; i < 2 * WORDS * blocks; i++)
        words[i] = (uint64_t)FIRST_TURN << 32;
    for (size_t i = 0; i < 4 * n_pieces; i++)
        from[i] = (uint32_t)i;
    CHECK_LAUNCH_RESIDENT(blocks, 1, threads, (threads + threads / 32) * (int)sizeof(float), turns, words, from,
        n_places, n);
    const uint32_t last = FIRST_TURN + (uint32_t)n;
    for (int i = 0; i < blocks; i++)
        if (turns[i] != last)
            check_fail("block %d is at turn %u", i, turns[i]);
    for (int i = 0; i < WORDS * blocks; i++)
        if (words[last % 2 * (uint32_t)(WORDS * blocks) + (uint32_t)i] >> 32 != last)
            check_fail("word %d is not of the last turn", i);
}

GPU_CHECKS({ "ceiling_phase", check_phase })
