/* The emulator itself: operations against their definitions, and every mistake it must catch.
 *
 * A mistake is made in a child process, which must die with the message expected.
 */
#include "emulate.h"
#include "launch.h"
#include "unit.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void launch(KernelCall *call, int grid_x, int n_threads, int shared_len, void *data)
{
    const EmulateLaunch launch = { "kernel", call, grid_x, 1, n_threads, shared_len, 0 };
    emulate_launch(&launch, (void *const[]){ &data });
}

#define DATA(type) (*(type **)args[0])

/* ---- what must work ---- */

/* The sum of 0 … n_threads - 1 of each block, by shuffles and shared memory. */
static void sum_call(void *const *args)
{
    float sum = (float)(thread_x() + block_x()), *of_warp = shared();
    for (int mask = 16; mask; mask >>= 1)
        sum += shuffle_xor_f(sum, mask);
    if (lane() == 0)
        of_warp[warp()] = sum;
    barrier();
    if (thread_x() == 0) {
        float all = 0;
        for (int w = 0; w < n_threads() / 32; w++)
            all += of_warp[w];
        DATA(float)[block_x()] = all;
    }
}

static void sum(void)
{
    float got[300];
    launch(sum_call, 300, 1024, 32 * 4, got);
    for (int b = 0; b < 300; b++)
        CU_ASSERT_EQUAL(got[b], 1024 * 1023 / 2 + 1024 * b);
}

static void lanes_call(void *const *args)
{
    int *out = DATA(int) + 5 * thread_x();
    out[0] = shuffle_i(thread_x(), (lane() + 3) % 32);
    out[1] = shuffle_up_i(thread_x(), 2);
    out[2] = (int)ballot(lane() % 3 == 0);
    out[3] = shuffle_xor_i(thread_x(), 5);
    if (warp() < 2)
        barrier_some(1, 64);
    out[4] = (int)shuffle_f((float)thread_x(), 7);
}

static void lanes(void)
{
    int out[96][5];
    unsigned thirds = 0;
    for (int l = 0; l < 32; l += 3)
        thirds |= 1u << l;
    launch(lanes_call, 1, 96, 0, out);
    for (int t = 0; t < 96; t++) {
        const int first = t / 32 * 32, l = t % 32;
        CU_ASSERT_EQUAL(out[t][0], first + (l + 3) % 32);
        CU_ASSERT_EQUAL(out[t][1], l < 2 ? t : t - 2);
        CU_ASSERT_EQUAL((unsigned)out[t][2], thirds);
        CU_ASSERT_EQUAL(out[t][3], first + (l ^ 5));
        CU_ASSERT_EQUAL(out[t][4], first + 7);
    }
}

/* Warp 0 fills two halves in turn and only tells; it waits until both have been read. */
static void told_call(void *const *args)
{
    int *const halves = shared();
    for (int i = 0; i < 40; i++)
        if (warp() == 0) {
            halves[i % 2 * 32 + lane()] = i * 32 + lane();
            barrier_arrive(1 + i % 2, 64);
            if (i % 2)
                barrier_some(3, 64);
        } else {
            barrier_some(1 + i % 2, 64);
            DATA(int)[i * 32 + lane()] = halves[i % 2 * 32 + 31 - lane()];
            if (i % 2)
                barrier_arrive(3, 64);
        }
}

static void told(void)
{
    int out[40 * 32];
    launch(told_call, 1, 64, 256, out);
    for (int i = 0; i < 40 * 32; i++)
        CU_ASSERT_EQUAL(out[i], i / 32 * 32 + 31 - i % 32);
}

static void poison_call(void *const *args)
{
    const float *f = shared();
    if (thread_x() == 0)
        DATA(int)[block_x()] = isnan(f[0]) && isnan(f[9]);
    barrier();
    ((float *)shared())[thread_x() % 10] = 1;
}

static void poison(void)
{
    int got[50];
    launch(poison_call, 50, 32, 40, got);
    for (int b = 0; b < 50; b++)
        CU_ASSERT_EQUAL(got[b], 1);
}

/* c = a · bᵀ of 16x16 and 8x16, through shared memory and fragments. */
typedef struct { float a[16][16], b[8][16], c[16][8]; int act; } Product;

static void product_call(void *const *args)
{
    Product *p = DATA(Product);
    act_t *a = shared(), *b = a + 16 * 16;
    for (int i = lane(); i < 256; i += 32)
        a[i] = float_act(p->a[i / 16][i % 16], p->act);
    for (int i = lane(); i < 128; i += 32)
        b[i] = float_act(p->b[i / 16][i % 16], p->act);
    barrier();
    uint32_t fa[4], fb[4];
    float c[4] = { 0 };
    matrix_load4(fa, a + lane() % 16 * 16 + lane() / 16 * 8);
    matrix_load4(fb, b + lane() % 8 * 16 + lane() / 8 % 2 * 8);
    mma_16x8x16(c, fa, fb, p->act);
    for (int i = 0; i < 4; i++)
        p->c[lane() / 4 + i / 2 * 8][lane() % 4 * 2 + i % 2] = c[i];
}

static void product(void)
{
    for (int act = 1; act <= 2; act++) {
        static Product p;
        for (int i = 0; i < 256; i++)
            p.a[i / 16][i % 16] = (float)(i * 7 % 31 - 15) / 16;
        for (int i = 0; i < 128; i++)
            p.b[i / 16][i % 16] = (float)(i * 5 % 29 - 14) / 8;
        p.act = act;
        launch(product_call, 1, 32, (256 + 128) * 2, &p);
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                double sum = 0;
                for (int k = 0; k < 16; k++)
                    sum += (double)p.a[i][k] * (double)p.b[j][k];
                CU_ASSERT_DOUBLE_EQUAL(p.c[i][j], sum, 1e-6);
            }
    }
}

/* matrix_load4_transposed gives what matrix_load4 gives of the transposed matrices. */
static void transposed_call(void *const *args)
{
    uint16_t *m = shared(), *t = m + 256;
    for (int i = lane(); i < 256; i += 32) {
        const int matrix = i / 64, row = i / 8 % 8, column = i % 8;
        m[i] = (uint16_t)(i * 13);
        t[matrix * 64 + column * 8 + row] = m[i];
    }
    barrier();
    uint32_t r[4], s[4];
    matrix_load4(r, m + lane() * 8);
    matrix_load4_transposed(s, t + lane() * 8);
    DATA(int)[lane()] = memcmp(r, s, sizeof r) == 0;
}

static void transposed(void)
{
    int same[32];
    launch(transposed_call, 1, 32, 1024, same);
    for (int l = 0; l < 32; l++)
        CU_ASSERT_EQUAL(same[l], 1);
}

static void copies_call(void *const *args)
{
    char *to = (char *)shared() + 16 * thread_x();
    copy_async16(to, DATA(char) + 16 * thread_x(), 5);
    char *const word = (char *)shared() + 16 * (n_threads() + thread_x()) + 4;
    copy_async4(word, DATA(char) + 16 * thread_x() + 4, 4);
    copy_async4(word + 4, DATA(char), 0);
    copy_commit();
    copy_wait(0);
    for (int i = 0; i < 8; i++)
        if (word[i] != (i < 4 ? DATA(char)[16 * thread_x() + 4 + i] : 0))
            emulate_fail("byte %d of a word", i);
    for (int i = 0; i < 16; i++)
        if (to[i] != (i < 5 ? DATA(char)[16 * thread_x() + i] : 0))
            emulate_fail("byte %d", i);
}

static void copies(void)
{
    static _Alignas(16) char from[1024];
    for (int i = 0; i < 1024; i++)
        from[i] = (char)(i * 7 + 1);
    launch(copies_call, 3, 64, 2048, from);
}

/* Every block waits for all others. */
static void all_blocks_call(void *const *args)
{
    if (thread_x() == 40) {
        add_counter(DATA(int32_t), 1);
        while (add_counter(DATA(int32_t), 0) < n_blocks_x())
            emulate_yield();
    }
    barrier();
}

static void all_blocks(void)
{
    int32_t counter = 0, *data = &counter;
    const EmulateLaunch launch = { "kernel", all_blocks_call, 20, 1, 64, 0, 1 };
    emulate_launch(&launch, (void *const[]){ &data });
    CU_ASSERT_EQUAL(counter, 20);
}

/* Early, data[1 + block] gets data[0] as it was, afterwards what it is then is added. */
static void dependent_call(void *const *args)
{
    float *kept = shared();
    if (thread_x() == 40)
        kept[0] = DATA(float)[0];
    barrier();
    if (warp() == 0)
        dependency_wait();
    barrier();
    dependency_launch();
    if (thread_x() == 0)
        DATA(float)[1 + block_x()] = kept[0] * 1000 + DATA(float)[0];
}

static void dependent(void)
{
    float got[1 + 50] = { 1 }, *data = got;
    void *const args[] = { &data };
    const EmulateLaunch launch = { "kernel", dependent_call, 50, 1, 64, 4, 0 };
    EmulateEarly *early = emulate_early(&launch, args);
    got[0] = 2;
    emulate_rest(early);
    int n_early = 0;
    for (int b = 0; b < 50; b++) {
        CU_ASSERT_TRUE(got[1 + b] == 1002 || got[1 + b] == 2002);
        n_early += got[1 + b] == 1002;
    }
    CU_ASSERT_EQUAL(n_early, 32);
}

static void conversions(void)
{
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = half_float((uint16_t)h), b = act_float((act_t)h, 1);
        CU_ASSERT_TRUE(isnan(f) ? (h & 0x7FFF) > 0x7C00 : emulate_float_half(f) == h);
        CU_ASSERT_TRUE(isnan(b) ? (h & 0x7FFF) > 0x7F80 : emulate_float_bf16(b) == h);
    }
    CU_ASSERT_EQUAL(half_float(0x3C01), 1 + 0x1p-10f);
    CU_ASSERT_EQUAL(half_float(0x8001), -0x1p-24f);
    CU_ASSERT_EQUAL(emulate_float_half(1 + 0x1p-11f), 0x3C00);
    CU_ASSERT_EQUAL(emulate_float_half(1 + 0x3p-11f), 0x3C02);
    CU_ASSERT_EQUAL(emulate_float_half(65519), 0x7BFF);
    CU_ASSERT_EQUAL(emulate_float_half(65520), 0x7C00);
    CU_ASSERT_EQUAL(emulate_float_half(0x1p-25f), 0);
    CU_ASSERT_EQUAL(emulate_float_half(-0x1.8p-25f), 0x8001);
    CU_ASSERT_EQUAL(emulate_float_half(0x3p-25f), 2);
    CU_ASSERT_EQUAL(emulate_float_half(NAN), 0x7FFF);
    CU_ASSERT_EQUAL(emulate_float_bf16(1 + 0x1p-8f), 0x3F80);
    CU_ASSERT_EQUAL(emulate_float_bf16(1 + 0x3p-8f), 0x3F82);
    CU_ASSERT_EQUAL(emulate_float_bf16(3.4e38f), 0x7F80);
    CU_ASSERT_EQUAL(act_pack(1, -2, 1), 0xC0003F80u);
    CU_ASSERT_EQUAL(half_pack_finite(INFINITY, -2), 0xC0007BFFu);
    CU_ASSERT_TRUE(isnan(half_float((uint16_t)half_pack_finite(NAN, 0))));
}

/* ---- what must be caught ---- */

/* Run it in a child; does it abort, with `words` on stderr? */
static void must_die(KernelCall *call, int n_threads, int shared_len, const char *words)
{
    static _Alignas(16) char data[8192];
    char text[1024], *argument = data;
    void *const args[] = { &argument };
    const EmulateLaunch early = { "kernel", call, 1, 1, n_threads, shared_len, 0 };
    int ends[2];
    CU_ASSERT_EQUAL_FATAL(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        emulate_rest(emulate_early(&early, args));
        _exit(0);
    }
    close(ends[1]);
    size_t len = 0;
    for (ssize_t n; (n = read(ends[0], text + len, sizeof text - 1 - len)) > 0;)
        len += (size_t)n;
    text[len] = '\0';
    close(ends[0]);
    int status;
    waitpid(child, &status, 0);
    CU_ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    if (!strstr(text, words))
        fprintf(stderr, "expected \"%s\", got \"%s\"\n", words, text);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, words));
}

static void divergent_barrier_call(void *const *args)
{
    (void)args;
    if (thread_x() < 40)
        barrier();
}

static void divergent_shuffle_call(void *const *args)
{
    if (lane() < 16)
        DATA(int)[0] = shuffle_xor_i(1, 1);
    else
        warp_sync();
}

static void early_end_call(void *const *args)
{
    if (thread_x() != 17)
        DATA(unsigned)[thread_x()] = ballot(1);
}

static void crossed_barriers_call(void *const *args)
{
    (void)args;
    barrier_some(1, warp() == 0 ? 64 : 96);
}

static void told_twice_call(void *const *args)
{
    (void)args;
    if (warp() == 1)
        barrier();
    barrier_arrive(1, 64);
    barrier_arrive(1, 64);
}

static void misaligned_call(void *const *args) { DATA(uint32_t)[0] = load16(DATA(char) + 8)[0]; }

static void copy_outside_call(void *const *args) { copy_async16((char *)shared() + 64, DATA(char), 16); }

static void behind_shared_call(void *const *args) { DATA(char)[0] = ((char *)shared())[128]; }

static void bad_address_call(void *const *args)
{
    DATA(char *)[0] = (char *)64;
    *DATA(char *volatile)[0] = 1;
}

static void missing_wait_call(void *const *args)
{
    char *to = (char *)shared() + 16 * thread_x();
    copy_async16(to, DATA(char) + 16 * thread_x(), 16);
    copy_commit();
    barrier();
    if (to[0] != 0)
        emulate_fail("not there yet");
}

static void missing_barrier_call(void *const *args)
{
    (void)args;
    float *of = shared();
    of[thread_x()] = 1;
    if (isnan(of[(thread_x() + 1) % n_threads()]))
        emulate_fail("not there yet");
}

static void late_read_call(void *const *args)
{
    (void)args;
    float *of = shared();
    of[0] = 1;
    barrier();
    if (of[0] != 1)                 /* the second barrier is missing: thread 5 may be ahead */
        emulate_fail("too late");
    if (thread_x() == 5)
        of[0] = 2;
}

static void wrong_lane_call(void *const *args) { DATA(int)[0] = shuffle_i(1, 32); }

static void launch_first_call(void *const *args)
{
    (void)args;
    dependency_launch();
    dependency_wait();
}

/* Warp 1 waits for the launch before, and warp 0 for nobody. */
static void lonely_call(void *const *args)
{
    (void)args;
    if (warp() == 1)
        dependency_wait();
    else
        barrier();
}

static void deep(int n, volatile char *above)
{
    volatile char here[4096];
    here[0] = above[0];
    if (n > 0)
        deep(n - 1, here);
}

static void overflow_call(void *const *args)
{
    if (thread_x() == 31)
        deep(64, DATA(char));
}

static void mistakes(void)
{
    must_die(divergent_barrier_call, 64, 0, "kernel block (0, 0)");
    must_die(divergent_barrier_call, 64, 0, "threads wait for each other: from 0 at barrier, and 24 of 64 have ended");
    must_die(divergent_shuffle_call, 32, 0, "of its warp at");
    must_die(early_end_call, 32, 0, "at ballot, and 1 of 32 have ended");
    must_die(crossed_barriers_call, 96, 0, "threads, others are there with");
    must_die(told_twice_call, 64, 0, "a second time before all came");
    must_die(misaligned_call, 32, 0, "load16 at");
    must_die(copy_outside_call, 32, 64, "copy_async16 to at shared + 64, of 64 bytes");
    must_die(behind_shared_call, 32, 128, "no memory at");
    must_die(bad_address_call, 32, 0, "no memory at 0x40");
    must_die(missing_wait_call, 64, 1024, "not there yet");
    must_die(missing_barrier_call, 128, 512, "not there yet");
    must_die(late_read_call, 128, 512, "too late");
    must_die(wrong_lane_call, 32, 0, "from lane 32");
    must_die(launch_first_call, 32, 0, "dependency_launch before dependency_wait");
    must_die(lonely_call, 64, 0, "from 0 at barrier, and 32 of 64 have ended");
    must_die(overflow_call, 32, 0, "overflows");
    must_die(sum_call, 48, 0, "48 threads");
}

static const UnitTest tests[] = {
    { "sum of a block", sum }, { "lanes", lanes }, { "told", told }, { "poison", poison }, { "product", product },
    { "transposed", transposed }, { "copies", copies },
    { "all blocks at once", all_blocks }, { "dependent launches", dependent },
    { "conversions", conversions }, { "mistakes", mistakes },
};
UNIT_MAIN("emulate", tests)
