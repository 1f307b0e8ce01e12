/* The emulator's launches: blocks on OS threads, in a scrambled order, some of them early.
 *
 * Each OS thread takes a Block from those that earlier launches left. Stray accesses of a block end the run with its
 * kernel, place and thread.
 */
#include "emulate_block.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    SIGNAL_STACK_LEN = 64 * 1024,
    SCRAMBLE = 7919,                /* a prime: the order of blocks is its multiples modulo their number */
    N_EARLY = 32,                   /* blocks of a launch that begin early */
};

/* ---- memory ---- */

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

/* ---- blocks on OS threads ---- */

static void on_bad_access(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    if (emulate_block) {
        const ptrdiff_t at = (char *)info->si_addr - emulate_block->stacks;
        if (at >= 0 && at / STACK_LEN < EMULATE_MAX_THREADS)
            emulate_fail("the stack of %d bytes overflows", STACK_LEN);
        emulate_fail("no memory at %p%s", info->si_addr,
                     emulate_block->is_early ? ", or not before dependency_wait (check_early)" : "");
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void catch_bad_accesses(void)
{
    struct sigaction action = { .sa_sigaction = on_bad_access, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}

static _Thread_local stack_t stack_before;      /* for signals */

/* This OS thread runs blocks of the launch in `own` from here on. */
static void enter(Block *own)
{
    const stack_t for_signals = { .ss_sp = own->signal_stack, .ss_size = SIGNAL_STACK_LEN };
    sigaltstack(&for_signals, &stack_before);
    emulate_block = own;
}

static void leave(void)
{
    sigaltstack(&stack_before, NULL);
    emulate_block = NULL;
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
        emulate_start_block(block_index(i, n_blocks));
        emulate_run_block();
    }
    leave();
    give_block(own);
    return NULL;
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
        emulate_start_block(block_index(run->next, n_blocks));
        emulate_run_block();
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
        emulate_self = emulate_block->self;
        emulate_wake_block();
        emulate_run_block();
        leave();
        give_block(run->early[i]);
    }
    run_rest(run);
    free(run);
}
