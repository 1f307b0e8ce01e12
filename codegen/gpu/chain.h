/* Phases of one launch: blocks that are all resident hand results to each other.
 *
 * A word is 32 bits of a result and, above them, the turn it belongs to. It is stored and loaded as a whole, so who
 * reads the turn it waits for has the result, too: no counter, no fence, one trip to the second cache. A place is
 * written again one turn later, when every reader of it has told something that its writer has heard since.
 */
#ifndef MOSSC_CODEGEN_GPU_CHAIN_H
#define MOSSC_CODEGEN_GPU_CHAIN_H

#include "decode.h"

enum { CHAIN_AHEAD = 4 };        /* pairs of words a lane asks for at once */

/* Each word is whole, old or new; in no order with other accesses. */
DEVICE void chain_store(uint64_t *word, uint64_t value)
{
#ifdef __NVPTX__
    __asm__ volatile("st.relaxed.gpu.global.u64 [%0], %1;" :: "l"(word), "l"(value));
#else
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
#endif
}
/* Two neighbours, the first at an even place: low and high half of the one, of the other. */
DEVICE u32x4 chain_load(const uint64_t *words)
{
    uint64_t a, b;
#ifdef __NVPTX__
    __asm__ volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(a), "=l"(b) : "l"(words));
#else
    emulate_check_16("chain_load", words);
    emulate_yield();
    a = __atomic_load_n(words, __ATOMIC_RELAXED);
    b = __atomic_load_n(words + 1, __ATOMIC_RELAXED);
#endif
    return (u32x4){ (uint32_t)a, (uint32_t)(a >> 32), (uint32_t)b, (uint32_t)(b >> 32) };
}

DEVICE void chain_tell(uint64_t *word, uint32_t value, uint32_t turn)
{
    chain_store(word, (uint64_t)turn << 32 | value);
}

/* The same, of which the compiler knows nothing: what follows from it is not kept in registers from turn to turn. */
DEVICE int chain_anew(int x)
{
#ifdef __NVPTX__
    __asm__ volatile("" : "+r"(x));
#endif
    return x;
}
DEVICE uint64_t *chain_anew_words(uint64_t *words)
{
#ifdef __NVPTX__
    __asm__ volatile("" : "+l"(words));
#endif
    return words;
}

/* By a warp: lane 0 waits for the turn of word a, lane 1 for that of b (NULL: for none), the others for these two. Who
 * needs many words begins so: many who ask all the time delay those who answer. */
DEVICE void chain_guard(const uint64_t *a, const uint64_t *b, uint32_t turn)
{
    const uint64_t *own = lane() == 0 ? a : b;
    if (lane() < 2 && own)
        while (chain_load(own)[1] != turn)
            ;
    warp_sync();
}

/* Two neighbours that were asked for and may not have been there: elements 0 and 2 of what comes are their values. */
DEVICE u32x4 chain_hear(u32x4 got, const uint64_t *words, uint32_t turn)
{
    while (got[1] != turn || got[3] != turn)
        got = chain_load(words);
    return got;
}

/* By a warp: the floats of n words (an even number, at most 256), added up: ask for them, then hear. */
typedef struct { u32x4 got[CHAIN_AHEAD]; } ChainAsked;
DEVICE void chain_ask_sum(ChainAsked *asked, const uint64_t *words, const int n)
{
    UNROLL for (int i = 0; i < CHAIN_AHEAD; i++)
        if (64 * i + 2 * lane() < n)
            asked->got[i] = chain_load(words + 64 * i + 2 * lane());
}
DEVICE float chain_hear_sum(ChainAsked *asked, const uint64_t *words, const int n, uint32_t turn)
{
    float sum = 0;
    UNROLL for (int i = 0; i < CHAIN_AHEAD; i++)
        if (64 * i + 2 * lane() < n) {
            asked->got[i] = chain_hear(asked->got[i], words + 64 * i + 2 * lane(), turn);
            sum += bits_float(asked->got[i][0]) + bits_float(asked->got[i][2]);
        }
    return decode_warp_sum(sum);
}

/* Sums of parts that blocks told, by the first warps, for all after a barrier. is_asked: each has asked for its first
 * sum, or has none. */
DEVICE void chain_sums(float *sums /* shared [n_sums] */, ChainAsked *asked, int is_asked,
    const uint64_t *words /* [n_sums][n_parts] */, int n_sums, const int n_parts, uint32_t turn)
{
    for (int i = warp(); i < n_sums; i += n_threads() / 32) {
        const uint64_t *own = words + i * n_parts;
        if (!is_asked || i != warp()) {
            chain_guard(own, NULL, turn);
            chain_ask_sum(asked, own, n_parts);
        }
        const float sum = chain_hear_sum(asked, own, n_parts, turn);
        if (lane() == 0)
            sums[i] = sum;
    }
}

/* By a warp, a row of `n` 16-bit elements (a multiple of 4; 0 or less: none), two a word, to shared memory: ask for its
 * beginning, when a word of something else is there, too (NULL: of nothing); then take it all. */
DEVICE u32x4 chain_ask_row(const uint64_t *words, int n, const uint64_t *also, uint32_t turn)
{
    chain_guard(n > 0 ? words : NULL, also, turn);
    return 4 * lane() < n ? chain_load(words + 2 * lane()) : (u32x4){ 0, 0, 0, 0 };
}
DEVICE void chain_take_row(act_t *to, u32x4 got, const uint64_t *words, int n, uint32_t turn)
{
    for (int k = 4 * lane(); k < n; k += 128) {
        got = chain_hear(k == 4 * lane() ? got : chain_load(words + k / 2), words + k / 2, turn);
        ((uint32_t *)(to + k))[0] = got[0];
        ((uint32_t *)(to + k))[1] = got[2];
    }
}

#endif
