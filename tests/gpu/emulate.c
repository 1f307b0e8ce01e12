/* The emulator's machinery: fibers, their meetings, async copies, blocks on OS threads.
 *
 * A Block is what one OS thread needs to run a block; they are kept for the next launch, because
 * touching a thousand stacks costs more than a small block. A thread is ready, waits, or is done.
 * Whoever waits picks the next ready one and switches to it directly; when nobody is ready, threads
 * wait for each other at different places, and the launch aborts.
 */
#include "emulate.h"
#include "launch.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* A thread that ended left its stack's frames behind, and the sanitizer's marks around them. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(at, len) ((void)(at), (void)(len))
#endif

enum { TO_CALLER = -1 };
enum {
    STACK_LEN = 256 * 1024, SIGNAL_STACK_LEN = 64 * 1024, PAGE = 4096,
    MAX_WARPS = EMULATE_MAX_THREADS / 32, N_BARRIERS = 16,
    SHARED_SPACE = (EMULATE_MAX_SHARED + PAGE - 1) / PAGE * PAGE,
    SCRAMBLE = 7919,                /* a prime: the order of blocks is its multiples modulo their number */
    N_EARLY = 32,                   /* blocks of a launch that begin early */
    PATIENCE = 20000,              /* fruitless looks at a memory location, then it is of no use early */
    POISON = 0xFF,                  /* NaN in every float type, -1 in the integers */
};

typedef struct { char *to; const char *from; int len, n_bytes, group; } Copy;     /* n_bytes of len, then zeros */

typedef struct {
    void *stack_pointer;
    const char *waits;              /* what for; NULL: ready or done */
    Copy *copies;                   /* issued, not yet done, oldest first */
    int n_copies, max_copies, n_groups;
} Fiber;

typedef struct {
    const char *what;
    void *operands[32];
    uint32_t arrived;
} WarpMeeting;

/* waits: of those who came, who stays. */
typedef struct { const char *what; int n_expected, n_arrived; uint32_t came[MAX_WARPS], waits[MAX_WARPS]; } Barrier;

typedef struct Block {
    struct Block *next;             /* in the list of those not in use */
    const EmulateLaunch *launch;
    void *const *args;
    int n_threads, n_warps, n_live;
    int forward;                    /* of the ready ones the lowest goes first, else the highest */
    uint64_t random;                /* changes forward, and when async copies happen */
    uint32_t ready[MAX_WARPS];
    WarpMeeting meetings[MAX_WARPS];
    Barrier barriers[N_BARRIERS];
    Fiber fibers[EMULATE_MAX_THREADS];
    void *caller;                   /* stack pointer of the OS thread */
    bool is_early;                  /* runs to dependency_wait only */
    int n_yields;                   /* since a meeting ended */
    EmulateSelf self;               /* while it pauses */
    char *stacks, *shared_space, *signal_stack;
    int n_guarded;                  /* stacks whose lowest page is no memory */
} Block;

_Thread_local EmulateSelf emulate_self;
static _Thread_local Block *block;

/* ---- failing ---- */

_Noreturn void emulate_fail(const char *format, ...)
{
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (block)
        fprintf(stderr, "emulate: %s block (%d, %d) thread %d: %s\n", block->launch->name, emulate_self.block_x,
                emulate_self.block_y, emulate_self.thread, message);
    else
        fprintf(stderr, "emulate: %s\n", message);
    abort();
}

static void on_bad_access(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    if (block) {
        const ptrdiff_t at = (char *)info->si_addr - block->stacks;
        if (at >= 0 && at / STACK_LEN < EMULATE_MAX_THREADS)
            emulate_fail("the stack of %d bytes overflows", STACK_LEN);
        emulate_fail("no memory at %p%s", info->si_addr,
                     block->is_early ? ", or not before dependency_wait (check_early)" : "");
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* ---- switching ---- */

static void run_fiber(void);

#if defined __x86_64__
/* Saves what a call preserves, and the stack pointer in *save; goes on where `load` was saved. */
void emulate_switch(void **save, void *load);
__asm__(".text\n.local emulate_switch\n.type emulate_switch, @function\nemulate_switch:\n"
        "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    mov %rsp, (%rdi)\n    mov %rsi, %rsp\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n    ret\n"
        ".size emulate_switch, . - emulate_switch\n");

enum { SAVED_WORDS = 8 };                       /* six registers, the place to go on, alignment */
static void *first_frame(uint64_t *top)
{
    uint64_t *frame = top - SAVED_WORDS;
    memset(frame, 0, 8 * SAVED_WORDS);
    frame[6] = (uint64_t)(uintptr_t)run_fiber;
    return frame;
}
#elif defined __aarch64__
void emulate_switch(void **save, void *load);
__asm__(".text\n.local emulate_switch\n.type emulate_switch, %function\nemulate_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n    stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n    stp d10, d11, [sp, #112]\n    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n    str x9, [x0]\n    mov sp, x1\n"
        "    ldp x19, x20, [sp]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n    ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n    ldp d10, d11, [sp, #112]\n    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n    ret\n"
        ".size emulate_switch, . - emulate_switch\n");

enum { SAVED_WORDS = 20 };
static void *first_frame(uint64_t *top)
{
    uint64_t *frame = top - SAVED_WORDS;
    memset(frame, 0, 8 * SAVED_WORDS);
    frame[11] = (uint64_t)(uintptr_t)run_fiber; /* x30 */
    return frame;
}
#else
#error "emulate.c: write emulate_switch for this machine"
#endif

/* ---- who goes next ---- */

static unsigned draw(void)
{
    block->random = block->random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(block->random >> 33);
}

static void set_ready(int warp, uint32_t lanes)
{
    block->ready[warp] |= lanes;
    block->n_yields = 0;
    block->forward = draw() & 1;
}

static const char at_dependency[] = "dependency_wait";

static bool waits_for_dependency(void)
{
    for (int t = 0; t < block->n_threads; t++)
        if (block->fibers[t].waits == at_dependency)
            return true;
    return false;
}

static void fail_waiting(void)
{
    char text[400];
    int len = 0, n_done = 0;
    const char *last = NULL;
    for (int t = 0; t < block->n_threads && len < (int)sizeof text; t++) {
        const char *waits = block->fibers[t].waits;
        n_done += waits == NULL;
        if (waits && waits != last)
            len += snprintf(text + len, sizeof text - (size_t)len, " %d at %s,", t, waits);
        last = waits;
    }
    emulate_fail("threads wait for each other: from%s and %d of %d have ended", text, n_done, block->n_threads);
}

static int pick(uint32_t lanes) { return block->forward ? __builtin_ctz(lanes) : 31 - __builtin_clz(lanes); }

/* Some ready thread, of this warp if there is one; TO_CALLER when an early block can do no more. */
static int pick_ready(void)
{
    const int own = emulate_self.thread / 32;
    if (block->ready[own])
        return own * 32 + pick(block->ready[own]);
    for (int i = 0; i < block->n_warps; i++) {
        const int w = block->forward ? i : block->n_warps - 1 - i;
        if (block->ready[w])
            return w * 32 + pick(block->ready[w]);
    }
    if (!block->is_early || !waits_for_dependency())
        fail_waiting();
    return TO_CALLER;
}

static void switch_to(int next)
{
    const int from = emulate_self.thread;
    if (next == TO_CALLER) {
        emulate_switch(&block->fibers[from].stack_pointer, block->caller);
    } else if (next != from) {
        emulate_self.thread = next;
        emulate_switch(&block->fibers[from].stack_pointer, block->fibers[next].stack_pointer);
    }
}

static void wait_for(const char *what)
{
    const int thread = emulate_self.thread;
    block->ready[thread / 32] &= ~(1u << thread % 32);
    block->fibers[thread].waits = what;
    switch_to(pick_ready());
}

void emulate_yield(void)
{
    if (block->is_early && ++block->n_yields > PATIENCE && waits_for_dependency()) {
        switch_to(TO_CALLER);
        return;
    }
    for (int i = 1; i < block->n_threads; i++) {
        const int t = (emulate_self.thread + i) % block->n_threads;
        if (block->ready[t / 32] >> t % 32 & 1) {
            switch_to(t);
            return;
        }
    }
    sched_yield();
}

void dependency_wait(void)
{
    if (block->is_early)
        wait_for(at_dependency);
}

void dependency_launch(void)
{
    if (block->is_early)
        emulate_fail("dependency_launch before dependency_wait: the launch after this may outrun the one before");
}

/* ---- meetings ---- */

static bool same_meeting(const char *a, const char *b) { return a == b || strcmp(a, b) == 0; }

void emulate_meet_warp(const char *what, void *operand, void (*run)(void *operands[32]))
{
    const int warp = emulate_self.thread / 32, lane = emulate_self.thread % 32;
    WarpMeeting *meeting = &block->meetings[warp];
    if (meeting->arrived && !same_meeting(meeting->what, what))
        emulate_fail("is at %s, thread %d of its warp at %s", what, warp * 32 + __builtin_ctz(meeting->arrived),
                     meeting->what);
    meeting->what = what;
    meeting->operands[lane] = operand;
    meeting->arrived |= 1u << lane;
    if (meeting->arrived != UINT32_MAX) {
        wait_for(what);
        return;
    }
    meeting->arrived = 0;
    for (int l = 0; l < 32; l++)
        block->fibers[warp * 32 + l].waits = NULL;
    if (run)
        run(meeting->operands);
    set_ready(warp, UINT32_MAX);
}

void emulate_meet_barrier(const char *what, int id, int n_threads, bool stays)
{
    if (id < 0 || id >= N_BARRIERS || n_threads < 32 || n_threads % 32 || n_threads > block->n_threads)
        emulate_fail("%s %d of %d threads", what, id, n_threads);
    Barrier *barrier = &block->barriers[id];
    if (barrier->n_arrived && (barrier->n_expected != n_threads || !same_meeting(barrier->what, what)))
        emulate_fail("%s %d of %d threads, others are there with %d", what, id, n_threads, barrier->n_expected);
    const int own_warp = emulate_self.thread / 32;
    const uint32_t own = 1u << emulate_self.thread % 32;
    if (barrier->came[own_warp] & own)
        emulate_fail("%s %d a second time before all came", what, id);
    barrier->what = what;
    barrier->n_expected = n_threads;
    barrier->came[own_warp] |= own;
    if (stays)
        barrier->waits[own_warp] |= own;
    if (++barrier->n_arrived < n_threads) {
        if (stays)
            wait_for(what);
        return;
    }
    barrier->n_arrived = 0;
    for (int w = 0; w < block->n_warps; w++) {
        for (uint32_t left = barrier->waits[w]; left; left &= left - 1)
            block->fibers[w * 32 + __builtin_ctz(left)].waits = NULL;
        set_ready(w, barrier->waits[w]);
        barrier->waits[w] = barrier->came[w] = 0;
    }
}

/* ---- async copies ---- */

void emulate_check_shared(const char *what, const void *p, int len)
{
    const char *begin = emulate_self.shared, *at = p;
    if (at < begin || at + len > begin + block->launch->shared_len)
        emulate_fail("%s at shared + %td, of %d bytes", what, at - begin, block->launch->shared_len);
}

static void copy_now(const Copy *copy)
{
    if (copy->n_bytes)      /* nothing may come from nowhere: a null `from` */
        memcpy(copy->to, copy->from, (size_t)copy->n_bytes);
    memset(copy->to + copy->n_bytes, 0, (size_t)(copy->len - copy->n_bytes));
}

static void copy_async(const char *what, void *to_shared, const void *from, int len, int n_bytes)
{
    emulate_check_shared(what, to_shared, len);
    if ((uintptr_t)to_shared % (unsigned)len || (uintptr_t)from % (unsigned)len)
        emulate_fail("%s %p from %p: not multiples of %d", what, to_shared, from, len);
    if (n_bytes < 0 || n_bytes > len)
        emulate_fail("%s %p: %d bytes of %d", what, to_shared, n_bytes, len);
    Fiber *fiber = &block->fibers[emulate_self.thread];
    const Copy copy = { to_shared, from, len, n_bytes, fiber->n_groups };
    if (draw() & 1) {
        copy_now(&copy);
        return;
    }
    if (fiber->n_copies == fiber->max_copies) {
        fiber->max_copies = 2 * fiber->max_copies + 16;
        fiber->copies = realloc(fiber->copies, (size_t)fiber->max_copies * sizeof(Copy));
        if (!fiber->copies)
            emulate_fail("out of memory");
    }
    fiber->copies[fiber->n_copies++] = copy;
}

void copy_async16(void *to_shared, const void *from, int n_bytes)
{
    copy_async("copy_async16 to", to_shared, from, 16, n_bytes);
}

void copy_async4(void *to_shared, const void *from, int n_bytes)
{
    copy_async("copy_async4 to", to_shared, from, 4, n_bytes);
}

void copy_commit(void) { block->fibers[emulate_self.thread].n_groups++; }

void copy_wait(int n_groups_left)
{
    Fiber *fiber = &block->fibers[emulate_self.thread];
    int n_done = 0;
    while (n_done < fiber->n_copies && fiber->copies[n_done].group < fiber->n_groups - n_groups_left)
        copy_now(&fiber->copies[n_done++]);
    if (n_done)
        memmove(fiber->copies, fiber->copies + n_done, (size_t)(fiber->n_copies - n_done) * sizeof(Copy));
    fiber->n_copies -= n_done;
}

/* ---- one block ---- */

static void run_fiber(void)
{
    block->launch->call(block->args);
    const int thread = emulate_self.thread;
    block->ready[thread / 32] &= ~(1u << thread % 32);
    void *unused;
    if (--block->n_live == 0)
        emulate_switch(&unused, block->caller);
    switch_to(pick_ready());
    emulate_fail("a thread that ended goes on");
}

/* Stacks that start at one offset in their pages would share a few cache sets: spread them. */
static uint64_t *stack_top(int thread)
{
    return (uint64_t *)(block->stacks + (size_t)(thread + 1) * STACK_LEN - (size_t)(thread % 32) * 128);
}

/* The block b of its launch, ready to run. */
static void start_block(int b)
{
    const EmulateLaunch *launch = block->launch;
    const int shared_space = (launch->shared_len + 127) / 128 * 128;
    emulate_self = (EmulateSelf){ 0, b % launch->grid_x, b / launch->grid_x, launch->grid_x, launch->grid_y,
                                  launch->n_threads, block->shared_space + SHARED_SPACE - shared_space };
    memset(emulate_self.shared, POISON, (size_t)shared_space);
    block->random = (uint64_t)(b + 1) * 0x9E3779B97F4A7C15u;
    block->n_live = block->n_threads;
    memset(block->ready, 0, sizeof block->ready);
    memset(block->meetings, 0, sizeof block->meetings);
    memset(block->barriers, 0, sizeof block->barriers);
    for (int t = 0; t < block->n_threads; t++) {
        Fiber *fiber = &block->fibers[t];
        ASAN_UNPOISON_MEMORY_REGION(block->stacks + (size_t)t * STACK_LEN, STACK_LEN);
        fiber->stack_pointer = first_frame(stack_top(t));
        fiber->waits = NULL;
        fiber->n_copies = fiber->n_groups = 0;
    }
    for (int w = 0; w < block->n_warps; w++)
        set_ready(w, UINT32_MAX);
}

/* Runs ready threads until all have ended or, early, until they wait for the launch before. */
static void run_block(void)
{
    emulate_self.thread = pick_ready();
    emulate_switch(&block->caller, block->fibers[emulate_self.thread].stack_pointer);
}

/* What waited for the launch before may go on. */
static void wake_block(void)
{
    block->is_early = false;
    for (int t = 0; t < block->n_threads; t++)
        if (block->fibers[t].waits == at_dependency) {
            block->fibers[t].waits = NULL;
            set_ready(t / 32, 1u << t % 32);
        }
}

/* ---- blocks on OS threads ---- */

static pthread_mutex_t blocks_lock = PTHREAD_MUTEX_INITIALIZER;
static Block *free_blocks;

static void *map(size_t len)
{
    void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        emulate_fail("out of memory");
    return memory;
}

static Block *take_block(void)
{
    pthread_mutex_lock(&blocks_lock);
    Block *taken = free_blocks;
    if (taken)
        free_blocks = taken->next;
    pthread_mutex_unlock(&blocks_lock);
    if (taken)
        return taken;
    taken = map(sizeof *taken);
    taken->stacks = map((size_t)EMULATE_MAX_THREADS * STACK_LEN);
    taken->signal_stack = map(SIGNAL_STACK_LEN);
    taken->shared_space = map(SHARED_SPACE + PAGE);
    mprotect(taken->shared_space + SHARED_SPACE, PAGE, PROT_NONE);
    return taken;
}

static void give_block(Block *given)
{
    pthread_mutex_lock(&blocks_lock);
    given->next = free_blocks;
    free_blocks = given;
    pthread_mutex_unlock(&blocks_lock);
}

/* Thousands of stacks may be more mappings than the kernel allows: the rest go without a guard. */
static void guard_stacks(Block *of, int n)
{
    for (; of->n_guarded < n; of->n_guarded++)
        if (mprotect(of->stacks + (size_t)of->n_guarded * STACK_LEN, PAGE, PROT_NONE) != 0)
            return;
}

static _Thread_local stack_t stack_before;      /* for signals */

/* This OS thread runs blocks of the launch in `own` from here on. */
static void enter(Block *own)
{
    const stack_t for_signals = { .ss_sp = own->signal_stack, .ss_size = SIGNAL_STACK_LEN };
    sigaltstack(&for_signals, &stack_before);
    block = own;
}

static void leave(void)
{
    sigaltstack(&stack_before, NULL);
    block = NULL;
}

static Block *block_for(const EmulateLaunch *launch, void *const *args)
{
    Block *own = take_block();
    own->launch = launch;
    own->args = args;
    own->n_threads = launch->n_threads;
    own->n_warps = launch->n_threads / 32;
    own->is_early = false;
    guard_stacks(own, own->n_threads);
    return own;
}

/* The i-th block to run: no block may count on an earlier one. */
static int block_index(int i, int n_blocks)
{
    return n_blocks % SCRAMBLE ? (int)((int64_t)i * SCRAMBLE % n_blocks) : i;
}

static int count_blocks(const EmulateLaunch *launch) { return launch->grid_x * launch->grid_y; }

struct EmulateEarly {
    const EmulateLaunch *launch;
    void *const *args;
    int next;                        /* block to run, as block_index counts */
    int n_early;
    Block *early[N_EARLY];           /* those that wait */
};

static void *run_blocks(void *of)
{
    EmulateEarly *run = of;
    const int n_blocks = count_blocks(run->launch);
    Block *own = block_for(run->launch, run->args);
    enter(own);
    int i;
    while ((i = __atomic_fetch_add(&run->next, 1, __ATOMIC_RELAXED)) < n_blocks) {
        start_block(block_index(i, n_blocks));
        run_block();
    }
    leave();
    give_block(own);
    return NULL;
}

static void catch_bad_accesses(void)
{
    struct sigaction action = { .sa_sigaction = on_bad_access, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}

static void check_launch(const EmulateLaunch *launch)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (launch->grid_x < 1 || launch->grid_y < 1 || launch->grid_y > 65535)
        emulate_fail("%s: a grid of %d x %d", launch->name, launch->grid_x, launch->grid_y);
    if (launch->n_threads < 32 || launch->n_threads > EMULATE_MAX_THREADS || launch->n_threads % 32)
        emulate_fail("%s: %d threads", launch->name, launch->n_threads);
    if (launch->shared_len < 0 || launch->shared_len > EMULATE_MAX_SHARED)
        emulate_fail("%s: %d bytes of shared memory", launch->name, launch->shared_len);
    pthread_once(&once, catch_bad_accesses);
}

/* The blocks that have not begun, on OS threads of which this is one. */
static void run_rest(EmulateEarly *run)
{
    const int n_blocks = count_blocks(run->launch) - run->next;
    const long n_cores = sysconf(_SC_NPROCESSORS_ONLN);
    const int n_workers = run->launch->all_resident || n_blocks < n_cores ? n_blocks : (int)n_cores;
    pthread_t *workers = calloc((size_t)n_workers + 1, sizeof *workers);
    int n_started = 1;
    while (workers && n_started < n_workers && pthread_create(&workers[n_started], NULL, run_blocks, run) == 0)
        n_started++;
    if (!workers || (run->launch->all_resident && n_started < n_workers))
        emulate_fail("%s: no %d OS threads", run->launch->name, n_workers);
    run_blocks(run);
    for (int w = 1; w < n_started; w++)
        pthread_join(workers[w], NULL);
    free(workers);
}

void emulate_launch(const EmulateLaunch *launch, void *const *args)
{
    EmulateEarly run = { .launch = launch, .args = args };
    check_launch(launch);
    run_rest(&run);
}

EmulateEarly *emulate_early(const EmulateLaunch *launch, void *const *args)
{
    check_launch(launch);
    EmulateEarly *run = calloc(1, sizeof *run);
    if (!run)
        emulate_fail("out of memory");
    *run = (EmulateEarly){ .launch = launch, .args = args };
    const int n_blocks = count_blocks(launch);
    for (; run->next < n_blocks && run->next < N_EARLY && !launch->all_resident; run->next++) {
        Block *own = block_for(launch, args);
        own->is_early = true;
        enter(own);
        start_block(block_index(run->next, n_blocks));
        run_block();
        own->self = emulate_self;
        if (own->n_live > 0)
            run->early[run->n_early++] = own;
        else
            give_block(own);
        leave();
    }
    return run;
}

void emulate_rest(EmulateEarly *run)
{
    for (int i = 0; i < run->n_early; i++) {
        enter(run->early[i]);
        emulate_self = block->self;
        wake_block();
        run_block();
        leave();
        give_block(run->early[i]);
    }
    run_rest(run);
    free(run);
}
