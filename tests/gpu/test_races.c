/* The emulator's race detector: small kernels with one mistake each must be reported, and the same without it not.
 *
 * Compiled with -fsanitize=thread, which calls emulate_races.c; a launch runs in a child process.
 */
#include "emulate_hopper.h"
#include "launch.h"
#include "unit.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N_THREADS = 256, SHARED_LEN = 64 * 1024 };

/* What the kernels read from and write to. */
typedef struct { int mistake; float out[N_THREADS]; _Alignas(16) float in[4 * N_THREADS]; tensor_map map; } Data;
#define DATA (*(Data **)args[0])
#define RIGHT (!DATA->mistake)

/* ---- kernels; each without the line that RIGHT begins when the mistake is made ---- */

static void barrier_call(void *const *args)
{
    float *const shared_floats = shared();
    shared_floats[thread_x()] = 1;
    if (RIGHT)
        barrier();
    DATA->out[thread_x()] = shared_floats[(thread_x() + 32) % N_THREADS];
}

/* Half of the block passes on to the other half, which must come, too. */
static void barrier_some_call(void *const *args)
{
    float *const shared_floats = shared();
    if (thread_x() < 128) {
        shared_floats[thread_x()] = 1;
        barrier_arrive(1, 256);
    } else if (RIGHT) {
        barrier_some(1, 256);
        DATA->out[thread_x()] = shared_floats[thread_x() - 128];
    } else {
        DATA->out[thread_x()] = shared_floats[thread_x() - 128];
        barrier_some(1, 256);
    }
}

/* Lanes hand over by shared memory: a shuffle brings them together and orders nothing. */
static void warp_call(void *const *args)
{
    float *const shared_floats = shared();
    shared_floats[thread_x()] = 1;
    if (RIGHT)
        warp_sync();
    else
        shuffle_i(0, 0);
    DATA->out[thread_x()] = shared_floats[thread_x() ^ 1];
}

/* Two halves of a word are no race; the same half is. */
static void bytes_call(void *const *args)
{
    ((act_t *)shared())[thread_x() / (RIGHT ? 1 : 2)] = (act_t)thread_x();
}

static void write_after_read_call(void *const *args)
{
    float *const shared_floats = shared();
    shared_floats[thread_x()] = 1;
    barrier();
    DATA->out[thread_x()] = shared_floats[N_THREADS - 1 - thread_x()];
    if (RIGHT)
        barrier();
    shared_floats[thread_x()] = 2;
}

static void copy_wait_call(void *const *args)
{
    float *const own = (float *)shared() + 4 * thread_x();
    copy_async16(own, DATA->in + 4 * thread_x(), 16);
    copy_commit();
    if (RIGHT)
        copy_wait(0);
    DATA->out[thread_x()] = own[0];
    copy_wait(0);
}

/* One's own copies are not those of others. */
static void copy_barrier_call(void *const *args)
{
    float *const all = shared();
    copy_async16(all + 4 * thread_x(), DATA->in + 4 * thread_x(), 16);
    copy_commit();
    copy_wait(0);
    if (RIGHT)
        barrier();
    DATA->out[thread_x()] = all[4 * (N_THREADS - 1 - thread_x())];
}

/* A ring of one stage: warp 0 fills it for the others and must hear of all of them before it does so again. */
static void ring_call(void *const *args)
{
    char *const barriers = shared();
    float *const stage = (float *)(barriers + 1024);
    if (thread_x() == 0) {
        mbarrier_init(barriers, 32);
        mbarrier_init(barriers + 8, RIGHT ? N_THREADS - 32 : N_THREADS - 64);
        mbarrier_init_done();
    }
    barrier();
    for (int i = 0; i < 4; i++) {
        if (warp() == 0) {
            mbarrier_wait(barriers + 8, ~i & 1);
            stage[lane()] = 1;
            mbarrier_arrive(barriers);
            continue;
        }
        mbarrier_wait(barriers, i & 1);
        DATA->out[thread_x()] += stage[lane()];
        if (RIGHT || warp() > 1)
            mbarrier_arrive(barriers + 8);
    }
}

static void init_call(void *const *args)
{
    if (thread_x() == 0)
        mbarrier_init(shared(), N_THREADS);
    if (RIGHT)
        barrier();
    else if (thread_x() > 0)
        emulate_yield();
    mbarrier_arrive(shared());
}

enum { BOX_LEN = 64 * 128 };

/* By ordinary stores of the whole block. */
static void clear(char *rows)
{
    for (int i = thread_x(); i < BOX_LEN / 4; i += N_THREADS)
        ((uint32_t *)rows)[i] = 0;
}

/* Rows with themselves: asked for, not waited for. */
static void multiply(float *sums, char *rows)
{
    wgmma_begin();
    wgmma_piece(sums, 64, wgmma_matrix(rows), wgmma_matrix(rows), 0, 2);
    wgmma_commit();
}

/* A bulk copy of 64 rows, then a product of them with themselves. */
static void bulk_call(void *const *args)
{
    char *const full = (char *)shared(), *const rows = full + 1024;
    float sums[32] = { 0 };
    if (thread_x() == 0)
        mbarrier_init(full, 1);
    barrier();
    if (thread_x() == 0) {
        mbarrier_expect(full, BOX_LEN);
        tensor_copy(rows, &DATA->map, 0, 0, full);
    }
    if (RIGHT)
        mbarrier_wait(full, 0);
    multiply(sums, rows);
    wgmma_wait(sums, 64);
    DATA->out[thread_x()] = sums[0];
}

/* The same of rows that ordinary code wrote, which another proxy reads. */
static void proxy_call(void *const *args)
{
    char *const rows = (char *)shared();
    float sums[32] = { 0 };
    clear(rows);
    if (RIGHT)
        proxy_fence();
    barrier();
    multiply(sums, rows);
    wgmma_wait(sums, 64);
    DATA->out[thread_x()] = sums[0];
}

/* The same, and the fence comes after the writer has told. */
static void late_fence_call(void *const *args)
{
    char *const rows = (char *)shared();
    float sums[32] = { 0 };
    clear(rows);
    if (RIGHT)
        proxy_fence();
    barrier();
    if (!RIGHT && thread_x() >= 128)
        proxy_fence();
    barrier_some(1 + warp() / 4, 128);
    if (thread_x() < 128) {
        multiply(sums, rows);
        wgmma_wait(sums, 64);
    }
    DATA->out[thread_x()] = sums[0];
}

/* A wait for wgmma is no barrier for what else its threads do. */
static void wgmma_barrier_call(void *const *args)
{
    char *const rows = (char *)shared();
    float *const shared_floats = (float *)(rows + BOX_LEN);
    float sums[32] = { 0 };
    multiply(sums, rows);
    shared_floats[thread_x()] = 1;
    wgmma_wait(sums, 64);
    if (RIGHT)
        barrier();
    DATA->out[thread_x()] = shared_floats[(thread_x() + 32) % 128 + thread_x() / 128 * 128];
}

/* Rows are still read when they are written again. */
static void wgmma_wait_call(void *const *args)
{
    char *const rows = (char *)shared();
    float sums[32] = { 0 };
    clear(rows);
    proxy_fence();
    barrier();
    multiply(sums, rows);
    if (RIGHT)
        wgmma_wait(sums, 64);
    barrier();
    ((uint32_t *)rows)[thread_x()] = 1;
    wgmma_wait(sums, 64);
    DATA->out[thread_x()] = sums[0];
}

/* ---- running them ---- */

/* What a launch in a child process says; "" when it ends well. */
static void launch_said(KernelCall *call, int mistake, char said[1000])
{
    int ends[2];
    CU_ASSERT_FATAL(pipe(ends) == 0);
    const pid_t child = fork();
    if (child == 0) {
        static _Alignas(64) Data data;
        static act_t rows[64 * 64];
        Data *const given = &data;
        const EmulateLaunch launch = { "kernel", call, 1, 1, N_THREADS, SHARED_LEN, 0 };
        data.mistake = mistake;
        data.map = (tensor_map){ .base = (const char *)rows, .n_rows = 64, .n_columns = 64, .row_stride = 128,
                                 .element_len = 2, .box_rows = 64, .box_columns = 64 };
        dup2(ends[1], 2);
        emulate_launch(&launch, (void *const[]){ (void *)&given });
        _exit(0);
    }
    close(ends[1]);
    size_t len = 0;
    for (ssize_t n; len < 999 && (n = read(ends[0], said + len, 999 - len)) > 0; len += (size_t)n)
        ;
    said[len] = 0;
    close(ends[0]);
    int status;
    CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
    CU_ASSERT_EQUAL(WIFEXITED(status) && WEXITSTATUS(status) == 0, !*said);
}

static void expect(KernelCall *call, const char *words)
{
    char said[1000];
    launch_said(call, 0, said);
    CU_ASSERT_STRING_EQUAL(said, "");
    launch_said(call, 1, said);
    CU_ASSERT_PTR_NOT_NULL(strstr(said, "kernel block (0, 0) thread "));
    if (!strstr(said, words))
        fprintf(stderr, "expected \"%s\", found \"%s\"\n", words, said);
    CU_ASSERT_PTR_NOT_NULL(strstr(said, words));
}

static void barriers(void)
{
    expect(barrier_call, "nothing orders them");
    expect(barrier_some_call, "nothing orders them");
    expect(write_after_read_call, "nothing orders them");
}
static void warps(void) { expect(warp_call, "nothing orders them"); }
static void bytes(void) { expect(bytes_call, "it writes, thread "); }
static void copies(void)
{
    expect(copy_wait_call, "nobody waited for the copy");
    expect(copy_barrier_call, "nothing orders them");
}
static void mbarriers(void)
{
    expect(ring_call, "nothing orders them");
    expect(init_call, "its mbarrier_init before");
}
static void wgmma(void)
{
    expect(bulk_call, "copies here in bulk");
    expect(proxy_call, "no proxy_fence is between them");
    expect(late_fence_call, "no proxy_fence is between them");
    expect(wgmma_barrier_call, "nothing orders them");
    expect(wgmma_wait_call, " reads by wgmma");
}

static const UnitTest tests[] = {
    { "barriers of a block", barriers },
    { "threads of a warp", warps },
    { "bytes of a word", bytes },
    { "asynchronous copies", copies },
    { "mbarriers", mbarriers },
    { "bulk copies and wgmma", wgmma },
};

UNIT_MAIN("races", tests)
