/* The emulator's threads: fibers, their meetings, async copies.
 *
 * Whoever waits picks the next ready one and switches to it directly; when nobody is ready, threads wait for each other
 * at different places, and the launch aborts. Blocks and their OS threads are emulate_launch.c's.
 */
#include "emulate_block.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* A thread that ended left its stack's frames behind, and the sanitizer's marks around them. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(at, len) ((void)(at), (void)(len))
#endif

enum { TO_CALLER = -1 };
enum {
    PATIENCE = 20000,               /* fruitless looks at a memory location, then it is of no use early */
    POISON = 0xFF,                  /* NaN in every float type, -1 in the integers */
};

_Thread_local EmulateSelf emulate_self;
_Thread_local Block *emulate_block;

/* ---- failing ---- */

_Noreturn void emulate_fail(const char *format, ...)
{
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (emulate_block)
        fprintf(stderr, "emulate: %s block (%d, %d) thread %d: %s\n", emulate_block->launch->name, emulate_self.block_x,
                emulate_self.block_y, emulate_self.thread, message);
    else
        fprintf(stderr, "emulate: %s\n", message);
    abort();
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
    emulate_block->random = emulate_block->random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(emulate_block->random >> 33);
}

static void set_ready(int warp, uint32_t lanes)
{
    emulate_block->ready[warp] |= lanes;
    emulate_block->n_yields = 0;
    emulate_block->forward = draw() & 1;
}

static const char at_dependency[] = "dependency_wait";

static bool waits_for_dependency(void)
{
    for (int t = 0; t < emulate_block->n_threads; t++)
        if (emulate_block->fibers[t].waits == at_dependency)
            return true;
    return false;
}

static void fail_waiting(void)
{
    char text[400];
    int len = 0, n_done = 0;
    const char *last = NULL;
    for (int t = 0; t < emulate_block->n_threads && len < (int)sizeof text; t++) {
        const char *waits = emulate_block->fibers[t].waits;
        n_done += waits == NULL;
        if (waits && waits != last)
            len += snprintf(text + len, sizeof text - (size_t)len, " %d at %s,", t, waits);
        last = waits;
    }
    emulate_fail("threads wait for each other: from%s and %d of %d have ended", text, n_done, emulate_block->n_threads);
}

static int pick(uint32_t lanes) { return emulate_block->forward ? __builtin_ctz(lanes) : 31 - __builtin_clz(lanes); }

/* Some ready thread, of this warp if there is one; TO_CALLER when an early block can do no more. */
static int pick_ready(void)
{
    const int own = emulate_self.thread / 32;
    if (emulate_block->ready[own])
        return own * 32 + pick(emulate_block->ready[own]);
    for (int i = 0; i < emulate_block->n_warps; i++) {
        const int w = emulate_block->forward ? i : emulate_block->n_warps - 1 - i;
        if (emulate_block->ready[w])
            return w * 32 + pick(emulate_block->ready[w]);
    }
    if (!emulate_block->is_early || !waits_for_dependency())
        fail_waiting();
    return TO_CALLER;
}

static void switch_to(int next)
{
    const int from = emulate_self.thread;
    if (next == TO_CALLER) {
        emulate_switch(&emulate_block->fibers[from].stack_pointer, emulate_block->caller);
    } else if (next != from) {
        emulate_self.thread = next;
        emulate_switch(&emulate_block->fibers[from].stack_pointer, emulate_block->fibers[next].stack_pointer);
    }
}

static void wait_for(const char *what)
{
    const int thread = emulate_self.thread;
    emulate_block->ready[thread / 32] &= ~(1u << thread % 32);
    emulate_block->fibers[thread].waits = what;
    switch_to(pick_ready());
}

void emulate_yield(void)
{
    if (emulate_block->is_early && ++emulate_block->n_yields > PATIENCE && waits_for_dependency()) {
        switch_to(TO_CALLER);
        return;
    }
    for (int i = 1; i < emulate_block->n_threads; i++) {
        const int t = (emulate_self.thread + i) % emulate_block->n_threads;
        if (emulate_block->ready[t / 32] >> t % 32 & 1) {
            switch_to(t);
            return;
        }
    }
    sched_yield();
}

void dependency_wait(void)
{
    if (emulate_block->is_early)
        wait_for(at_dependency);
}

void dependency_launch(void)
{
    if (emulate_block->is_early)
        emulate_fail("dependency_launch before dependency_wait: the launch after this may outrun the one before");
}

/* ---- meetings ---- */

static bool same_meeting(const char *a, const char *b) { return a == b || strcmp(a, b) == 0; }

void emulate_meet_warp(const char *what, void *operand, void (*run)(void *operands[32]))
{
    const int warp = emulate_self.thread / 32, lane = emulate_self.thread % 32;
    WarpMeeting *meeting = &emulate_block->meetings[warp];
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
        emulate_block->fibers[warp * 32 + l].waits = NULL;
    if (run)
        run(meeting->operands);
    set_ready(warp, UINT32_MAX);
}

void emulate_order_warp(void *operands[32])
{
    (void)operands;
    if (emulate_races_on)
        races_sync_warp();
}

void emulate_meet_barrier(const char *what, int id, int n_threads, bool stays)
{
    if (id < 0 || id >= N_BARRIERS || n_threads < 32 || n_threads % 32 || n_threads > emulate_block->n_threads)
        emulate_fail("%s %d of %d threads", what, id, n_threads);
    Barrier *barrier = &emulate_block->barriers[id];
    if (barrier->n_arrived && (barrier->n_expected != n_threads || !same_meeting(barrier->what, what)))
        emulate_fail("%s %d of %d threads, others are there with %d", what, id, n_threads, barrier->n_expected);
    const int own_warp = emulate_self.thread / 32;
    const uint32_t own = 1u << emulate_self.thread % 32;
    if (barrier->came[own_warp] & own)
        emulate_fail("%s %d a second time before all came", what, id);
    barrier->what = what;
    barrier->n_expected = n_threads;
    const bool orders = emulate_races_on && !same_meeting(what, "wgmma_wait");
    if (orders)
        races_arrive(id);
    barrier->came[own_warp] |= own;
    if (stays)
        barrier->waits[own_warp] |= own;
    if (++barrier->n_arrived < n_threads) {
        if (stays)
            wait_for(what);
        return;
    }
    barrier->n_arrived = 0;
    for (int w = 0; w < emulate_block->n_warps; w++) {
        for (uint32_t left = barrier->waits[w]; left; left &= left - 1) {
            emulate_block->fibers[w * 32 + __builtin_ctz(left)].waits = NULL;
            if (orders)
                races_pass(id, w * 32 + __builtin_ctz(left));
        }
        set_ready(w, barrier->waits[w]);
        barrier->waits[w] = barrier->came[w] = 0;
    }
    if (orders)
        races_empty(id);
}

/* ---- async copies ---- */

void emulate_check_shared(const char *what, const void *p, int len)
{
    const char *begin = emulate_self.shared, *at = p;
    if (at < begin || at + len > begin + emulate_block->launch->shared_len)
        emulate_fail("%s at shared + %td, of %d bytes", what, at - begin, emulate_block->launch->shared_len);
}

static void copy_now(Copy *copy)
{
    copy->done = true;
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
    Fiber *fiber = &emulate_block->fibers[emulate_self.thread];
    Copy copy = { to_shared, from, len, n_bytes, fiber->n_groups, false };
    if (emulate_races_on)
        races_copy_begin(to_shared, len);
    if (draw() & 1)
        copy_now(&copy);
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

void copy_commit(void) { emulate_block->fibers[emulate_self.thread].n_groups++; }

void copy_wait(int n_groups_left)
{
    Fiber *fiber = &emulate_block->fibers[emulate_self.thread];
    int n_done = 0;
    for (; n_done < fiber->n_copies && fiber->copies[n_done].group < fiber->n_groups - n_groups_left; n_done++) {
        Copy *copy = &fiber->copies[n_done];
        if (!copy->done)
            copy_now(copy);
        if (emulate_races_on)
            races_copy_end(copy->to, copy->len);
    }
    if (n_done)
        memmove(fiber->copies, fiber->copies + n_done, (size_t)(fiber->n_copies - n_done) * sizeof(Copy));
    fiber->n_copies -= n_done;
}

/* ---- one block ---- */

static void run_fiber(void)
{
    emulate_block->launch->call(emulate_block->args);
    const int thread = emulate_self.thread;
    emulate_block->ready[thread / 32] &= ~(1u << thread % 32);
    void *unused;
    if (--emulate_block->n_live == 0)
        emulate_switch(&unused, emulate_block->caller);
    switch_to(pick_ready());
    emulate_fail("a thread that ended goes on");
}

/* Stacks that start at one offset in their pages would share a few cache sets: spread them. */
static uint64_t *stack_top(int thread)
{
    return (uint64_t *)(emulate_block->stacks + (size_t)(thread + 1) * STACK_LEN - (size_t)(thread % 32) * 128);
}

void emulate_start_block(int b)
{
    const EmulateLaunch *launch = emulate_block->launch;
    const int shared_space = (launch->shared_len + 127) / 128 * 128;
    emulate_self = (EmulateSelf){ 0, b % launch->grid_x, b / launch->grid_x, launch->grid_x, launch->grid_y,
                                  launch->n_threads, emulate_block->shared_space + SHARED_SPACE - shared_space };
    memset(emulate_self.shared, POISON, (size_t)shared_space);
    if (emulate_races_on)
        emulate_block->races = races_start(emulate_block->races, launch->n_threads, emulate_self.shared,
                                           launch->shared_len);
    emulate_block->random = (uint64_t)(b + 1) * 0x9E3779B97F4A7C15u;
    emulate_block->n_live = emulate_block->n_threads;
    memset(emulate_block->ready, 0, sizeof emulate_block->ready);
    memset(emulate_block->meetings, 0, sizeof emulate_block->meetings);
    memset(emulate_block->barriers, 0, sizeof emulate_block->barriers);
    for (int t = 0; t < emulate_block->n_threads; t++) {
        Fiber *fiber = &emulate_block->fibers[t];
        ASAN_UNPOISON_MEMORY_REGION(emulate_block->stacks + (size_t)t * STACK_LEN, STACK_LEN);
        fiber->stack_pointer = first_frame(stack_top(t));
        fiber->waits = NULL;
        fiber->n_copies = fiber->n_groups = 0;
    }
    for (int w = 0; w < emulate_block->n_warps; w++)
        set_ready(w, UINT32_MAX);
}

void emulate_run_block(void)
{
    emulate_self.thread = pick_ready();
    emulate_switch(&emulate_block->caller, emulate_block->fibers[emulate_self.thread].stack_pointer);
}

void emulate_wake_block(void)
{
    emulate_block->is_early = false;
    for (int t = 0; t < emulate_block->n_threads; t++)
        if (emulate_block->fibers[t].waits == at_dependency) {
            emulate_block->fibers[t].waits = NULL;
            set_ready(t / 32, 1u << t % 32);
        }
}
