/* Races on shared memory: the compiler's calls, clocks, and the last accesses of every word. See emulate_races.h. */
#include "emulate_races.h"
#include "emulate_block.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    N_SLOTS = 4,               /* accesses remembered of a word */
    N_FENCES = 16,
    MAX_MBARRIERS = 512, MAX_BULK = 32 /* of them wait for bulk copies */,
    MAX_CLOCKS = EMULATE_MAX_THREADS + MAX_BULK,
    ANY_BYTE = 15,
};

/* SYNC: the word belongs to an mbarrier. COPY: a copy_async under way. */
typedef enum { READ, WRITE, COPY, BULK, WGMMA, SYNC } Kind;
static const char *const kind_names[] = { "reads", "writes", "copies here", "copies here in bulk", "reads by wgmma",
                                          "" };

typedef uint32_t Clocks[MAX_CLOCKS];     /* [thread, or what stands for the bulk copies of an mbarrier] */

/* clock 0: none. bytes: a bit each. place: of the instruction, from emulate_launch on. */
typedef struct { uint32_t clock; uint16_t thread; uint8_t bytes, kind; int32_t place; } Slot;
typedef struct { Slot slots[N_SLOTS]; } Word;
/* bulk: the clock of its bulk copies, 0 none yet. */
typedef struct { uint32_t offset, init_clock; int init_thread, bulk; Clocks gathered, ended; } Mbarrier;

struct Races {
    int n_threads, n_bulk, n_clocks, n_mbarriers;
    const char *shared;
    uint32_t random;
    Clocks *threads;                     /* [n_threads] */
    Clocks *fences;                      /* of each thread, when it last called proxy_fence */
    uint32_t own_fences[EMULATE_MAX_THREADS][N_FENCES];     /* its own clock at the last few */
    Clocks barriers[N_BARRIERS];
    Mbarrier mbarriers[MAX_MBARRIERS];
    Word words[EMULATE_MAX_SHARED / 4 + 1];
};

bool emulate_races_on;

/* ---- clocks ---- */

static Races *own_races(void) { return emulate_block->races; }
static uint32_t *own_clocks(const Races *r) { return r->threads[emulate_self.thread]; }

static void join(const Races *r, uint32_t *to, const uint32_t *from)
{
    for (int i = 0; i < r->n_clocks; i++)
        to[i] = to[i] > from[i] ? to[i] : from[i];
}

/* What this thread did until now, for others; what it does next is later. */
static void release(const Races *r, uint32_t *to)
{
    join(r, to, own_clocks(r));
    own_clocks(r)[emulate_self.thread]++;
}

Races *races_start(Races *kept, int n_threads, const char *shared, int shared_len)
{
    Races *r = kept ? kept : calloc(1, sizeof *r);
    if (!r || (!r->threads && !(r->threads = calloc(EMULATE_MAX_THREADS, sizeof *r->threads)))
        || (!r->fences && !(r->fences = calloc(EMULATE_MAX_THREADS, sizeof *r->fences))))
        emulate_fail("out of memory");
    r->n_threads = n_threads;
    r->n_clocks = n_threads + MAX_BULK;
    r->n_mbarriers = r->n_bulk = 0;
    r->shared = shared;
    memset(r->threads, 0, (size_t)n_threads * sizeof *r->threads);
    memset(r->fences, 0, (size_t)n_threads * sizeof *r->fences);
    memset(r->own_fences, 0, (size_t)n_threads * sizeof *r->own_fences);
    memset(r->barriers, 0, sizeof r->barriers);
    memset(r->words, 0, ((size_t)shared_len / 4 + 1) * sizeof *r->words);
    for (int t = 0; t < n_threads; t++)
        r->threads[t][t] = 1;
    return r;
}

/* ---- accesses ---- */

static const char *place_text(char text[300], int32_t place)
{
    const char *at = (const char *)(uintptr_t)emulate_launch + place;
    Dl_info info;
    if (!place || !dladdr(at, &info))
        return "the emulator";
    snprintf(text, 300, "%s+%#tx", info.dli_fname, at - (const char *)info.dli_fbase);
    return text;
}

static _Noreturn void fail_race(const Races *r, uint32_t offset, const Slot *before, const Slot *now, const char *lacks)
{
    char places[2][300], who[40];
    if (before->thread < r->n_threads)
        snprintf(who, sizeof who, "thread %d", before->thread);
    else
        snprintf(who, sizeof who, "some thread");
    emulate_fail("a race at shared + %u, %s: it %s, %s %s; addr2line -ie names the lines: %s %s", offset, lacks,
                 kind_names[now->kind], who, kind_names[before->kind], place_text(places[0], now->place),
                 place_text(places[1], before->place));
}

static bool is_write(int kind) { return kind == WRITE || kind == COPY || kind == BULK; }

/* Would nothing be missed without the one `before`, as `now` comes after it? */
static bool covers(const Slot *now, const Slot *before)
{
    return !(before->bytes & ~now->bytes) && (is_write(now->kind) || !is_write(before->kind));
}

/* By this thread since, or by the writer, as far as this thread knows of it. */
static bool is_fenced(const Races *r, const Slot *before)
{
    const int writer = before->thread;
    bool fenced = before->clock <= r->fences[emulate_self.thread][writer];
    for (int i = 0; i < N_FENCES; i++) {
        const uint32_t clock = r->own_fences[writer][i];
        fenced |= before->clock <= clock && clock <= own_clocks(r)[writer];
    }
    return fenced;
}

static void check_slot(const Races *r, uint32_t offset, const Slot *before, const Slot *now)
{
    if (!(before->bytes & now->bytes) || (!is_write(before->kind) && !is_write(now->kind)))
        return;
    if (before->kind == COPY)
        fail_race(r, offset, before, now, "nobody waited for the copy");
    if (before->thread != emulate_self.thread && own_clocks(r)[before->thread] < before->clock)
        fail_race(r, offset, before, now, "nothing orders them");
    if (now->kind == WGMMA && before->kind == WRITE && !is_fenced(r, before))
        fail_race(r, offset, before, now, "no proxy_fence is between them");
}

static Slot *slot_for(Races *r, Word *word, const Slot *now)
{
    Slot *free_slot = NULL;
    for (int i = 0; i < N_SLOTS; i++) {
        Slot *s = &word->slots[i];
        if (s->clock == 0 || (covers(now, s) && (s->thread == now->thread || own_clocks(r)[s->thread] >= s->clock)))
            free_slot = s;
    }
    for (int i = 0; !free_slot || (free_slot->kind == COPY && i < N_SLOTS); i++)
        free_slot = &word->slots[(r->random = r->random * 1664525u + 1013904223u) >> 30];
    return free_slot;
}

/* bytes: of the word at `offset`, a multiple of 4. */
static void touch_word(Races *r, uint32_t offset, unsigned bytes, Slot now)
{
    Word *word = &r->words[offset / 4];
    if (word->slots[0].kind == SYNC && word->slots[0].clock)
        return;
    now.bytes = (uint8_t)bytes;
    for (int i = 0; i < N_SLOTS; i++)
        if (word->slots[i].clock)
            check_slot(r, offset, &word->slots[i], &now);
    *slot_for(r, word, &now) = now;
}

static void touch(Races *r, const void *p, int len, Slot now)
{
    const uint32_t begin = (uint32_t)((const char *)p - r->shared), end = begin + (uint32_t)len;
    for (uint32_t at = begin / 4 * 4; at < end; at += 4) {
        unsigned bytes = ANY_BYTE;
        if (at < begin)
            bytes &= ANY_BYTE << (begin - at);
        if (at + 4 > end)
            bytes &= ANY_BYTE >> (at + 4 - end);
        touch_word(r, at, bytes, now);
    }
}

static Slot own_slot(const Races *r, Kind kind, const void *instruction)
{
    const uint16_t thread = (uint16_t)emulate_self.thread;
    const ptrdiff_t place = instruction ? (const char *)instruction - (const char *)(uintptr_t)emulate_launch : 0;
    return (Slot){ r->threads[thread][thread], thread, 0, (uint8_t)kind, (int32_t)place };
}

static void access(const void *p, size_t len, Kind kind, const void *instruction)
{
    if (!emulate_block || (uintptr_t)p - (uintptr_t)emulate_self.shared >= (size_t)emulate_block->launch->shared_len)
        return;
    Races *r = own_races();
    touch(r, p, (int)len, own_slot(r, kind, instruction));
}

void races_read(const void *from, int len) { access(from, (size_t)len, READ, __builtin_return_address(0)); }
/* The four warps of a group wait as one: who hears of its first thread's wait has heard of all. */
void races_read_wgmma(const void *from, int len)
{
    Races *r = own_races();
    Slot now = own_slot(r, WGMMA, __builtin_return_address(0));
    now.thread = (uint16_t)(emulate_self.thread / 128 * 128);
    now.clock = r->threads[now.thread][now.thread];
    touch(r, from, len, now);
}

void races_proxy_fence(void)
{
    Races *r = own_races();
    const int thread = emulate_self.thread;
    const uint32_t clock = own_clocks(r)[thread]++;
    memmove(r->own_fences[thread] + 1, r->own_fences[thread], (N_FENCES - 1) * sizeof clock);
    r->own_fences[thread][0] = clock;
    memcpy(r->fences[thread], own_clocks(r), (size_t)r->n_clocks * sizeof clock);
    r->fences[thread][thread] = clock;
}

/* ---- copies ---- */

void races_copy_begin(const void *to, int len) { access(to, (size_t)len, COPY, __builtin_return_address(0)); }
void races_copy_end(const void *to, int len)
{
    Races *r = own_races();
    const uint32_t begin = (uint32_t)((const char *)to - r->shared);
    for (uint32_t at = begin; at < begin + (uint32_t)len; at += 4)
        for (int i = 0; i < N_SLOTS; i++) {
            Slot *s = &r->words[at / 4].slots[i];
            if (s->kind != COPY || s->thread != emulate_self.thread)
                continue;
            s->kind = WRITE;
            s->clock = own_clocks(r)[emulate_self.thread];
        }
}

/* ---- what orders ---- */

void races_arrive(int barrier) { release(own_races(), own_races()->barriers[barrier]); }
void races_pass(int barrier, int thread)
{
    const Races *r = own_races();
    join(r, r->threads[thread], r->barriers[barrier]);
}
void races_empty(int barrier) { memset(own_races()->barriers[barrier], 0, sizeof(Clocks)); }

void races_sync_warp(void)
{
    Races *r = own_races();
    const int first = emulate_self.thread / 32 * 32;
    Clocks all;
    memset(all, 0, (size_t)r->n_clocks * sizeof *all);
    for (int t = first; t < first + 32; t++)
        join(r, all, r->threads[t]);
    for (int t = first; t < first + 32; t++) {
        memcpy(r->threads[t], all, (size_t)r->n_clocks * sizeof *all);
        r->threads[t][t]++;
    }
}

static Mbarrier *find_mbarrier(Races *r, const void *mbarrier)
{
    const uint32_t offset = (uint32_t)((const char *)mbarrier - r->shared);
    for (int i = 0; i < r->n_mbarriers; i++)
        if (r->mbarriers[i].offset == offset)
            return &r->mbarriers[i];
    return NULL;
}

/* One that this thread may use. */
static Mbarrier *known_mbarrier(Races *r, const void *mbarrier)
{
    Mbarrier *b = find_mbarrier(r, mbarrier);
    if (!b || (b->init_thread != emulate_self.thread && own_clocks(r)[b->init_thread] < b->init_clock))
        emulate_fail("a race at shared + %td: an mbarrier, and nothing orders its mbarrier_init before",
                     (const char *)mbarrier - r->shared);
    return b;
}

void races_mbarrier_init(const void *mbarrier)
{
    Races *r = own_races();
    Mbarrier *b = find_mbarrier(r, mbarrier);
    if (!b && r->n_mbarriers == MAX_MBARRIERS)
        emulate_fail("more than %d mbarriers", MAX_MBARRIERS);
    b = b ? b : &r->mbarriers[r->n_mbarriers++];
    memset(b, 0, sizeof *b);
    b->offset = (uint32_t)((const char *)mbarrier - r->shared);
    b->init_thread = emulate_self.thread;
    b->init_clock = own_clocks(r)[emulate_self.thread];
    for (uint32_t at = b->offset; at < b->offset + 8; at += 4)
        r->words[at / 4].slots[0] = (Slot){ .clock = 1, .kind = SYNC };
}

void races_mbarrier_arrive(const void *mbarrier)
{
    Races *r = own_races();
    release(r, known_mbarrier(r, mbarrier)->gathered);
}
void races_mbarrier_end(const void *mbarrier)
{
    Races *r = own_races();
    Mbarrier *b = known_mbarrier(r, mbarrier);
    memcpy(b->ended, b->gathered, sizeof b->ended);
}
void races_mbarrier_wait(const void *mbarrier)
{
    Races *r = own_races();
    join(r, own_clocks(r), known_mbarrier(r, mbarrier)->ended);
}

/* Each mbarrier has a clock for the bulk copies that it waits for. */
void races_bulk(const void *to, int len, const void *mbarrier)
{
    Races *r = own_races();
    Mbarrier *b = known_mbarrier(r, mbarrier);
    Slot now = own_slot(r, BULK, __builtin_return_address(0));
    if (!b->bulk && r->n_bulk == MAX_BULK)
        emulate_fail("more than %d mbarriers of bulk copies", MAX_BULK);
    b->bulk = b->bulk ? b->bulk : r->n_threads + r->n_bulk++;
    now.thread = (uint16_t)b->bulk;
    now.clock = ++b->gathered[now.thread];
    touch(r, to, len, now);
}

/* ---- the compiler's calls ---- */

void __tsan_init(void) { emulate_races_on = true; }
void __tsan_func_entry(void *caller) { (void)caller; }
void __tsan_func_exit(void) { }

#define CALLS(len)                                                                                      \
    void __tsan_read##len(void *p) { access(p, len, READ, __builtin_return_address(0)); }                \
    void __tsan_write##len(void *p) { access(p, len, WRITE, __builtin_return_address(0)); }              \
    void __tsan_unaligned_read##len(void *p) { access(p, len, READ, __builtin_return_address(0)); }      \
    void __tsan_unaligned_write##len(void *p) { access(p, len, WRITE, __builtin_return_address(0)); }
CALLS(1) CALLS(2) CALLS(4) CALLS(8) CALLS(16)

void __tsan_read_range(void *p, size_t len) { access(p, len, READ, __builtin_return_address(0)); }
void __tsan_write_range(void *p, size_t len) { access(p, len, WRITE, __builtin_return_address(0)); }
void *__tsan_memmove(void *to, const void *from, size_t len)
{
    access(from, len, READ, __builtin_return_address(0));
    access(to, len, WRITE, __builtin_return_address(0));
    return memmove(to, from, len);
}
void *__tsan_memcpy(void *to, const void *from, size_t len) { return __tsan_memmove(to, from, len); }
void *__tsan_memset(void *to, int value, size_t len)
{
    access(to, len, WRITE, __builtin_return_address(0));
    return memset(to, value, len);
}

/* Kernels have atomics on global memory alone. */
uint32_t __tsan_atomic32_fetch_add(uint32_t *p, uint32_t value, int order)
{
    (void)order;
    return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);
}
uint64_t __tsan_atomic64_load(const uint64_t *p, int order)
{
    (void)order;
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
void __tsan_atomic64_store(uint64_t *p, uint64_t value, int order)
{
    (void)order;
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);
}
