/* The runtime of GPU artifacts over a stand-in driver and program (fake_gpu.c).
 *
 * Checks that each way a machine cannot run the program is told in words, that launches get the grids and arguments
 * their table says, that results are those of the model however calls are cut, that a state is continued where it
 * is newest or refused, and that everything made is given back.
 */
#include "fake_gpu.h"
#include "gpu.h"
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TOKENS = 40, N_STATES = 5 };

typedef struct {
    moss_model *model;
    moss_context *context;
    moss_error error;
} Fixture;

static void *block_new(size_t len)
{
    void *block = aligned_alloc(MOSS_ALIGN, (len + MOSS_ALIGN - 1) / MOSS_ALIGN * MOSS_ALIGN);
    if (!block)
        abort();
    return block;
}

static int fixture_open(Fixture *fixture, int32_t n_states, int64_t n_context)
{
    memset(fixture, 0, sizeof *fixture);
    fixture->model = block_new(moss_model_len());
    fixture->context = block_new(moss_context_len(1));
    memset(fixture->context, 0, moss_context_len(1));
    int status = moss_model_open_sized(fixture->model, NULL, 1, n_states, n_context, &fixture->error);
    if (status == MOSS_OK)
        status = moss_context_init(fixture->context, fixture->model, 1, NULL, &fixture->error);
    return status;
}

/* Whatever was made must be gone. */
static void fixture_close(Fixture *fixture)
{
    moss_context_deinit(fixture->context);
    moss_model_close(fixture->model);
    free(fixture->model);
    free(fixture->context);
    CU_ASSERT_EQUAL(fake_device()->n_live, 0);
}

static moss_state *state_new(int64_t n_context)
{
    moss_state *state = block_new(moss_state_len(n_context));
    CU_ASSERT_EQUAL(moss_state_init(state, n_context, NULL), MOSS_OK);
    return state;
}

static moss_state *state_copy(const moss_state *state)
{
    moss_state *copy = block_new(state->len);
    memcpy(copy, state, state->len);
    return copy;
}

static void make_tokens(int32_t tokens[MAX_TOKENS])
{
    for (int32_t i = 0; i < MAX_TOKENS; i++)
        tokens[i] = i * 37 % FAKE_VOCAB;
}

/* Logits [n][FAKE_VOCAB] by the model's definition. */
static void expect_logits(const int32_t *tokens, int32_t n, int32_t top_k, float *logits)
{
    uint64_t hash = 0;
    for (int32_t i = 0; i < n; i++)
        fake_step(&hash, i, tokens[i], top_k, logits + (ptrdiff_t)i * FAKE_VOCAB);
}

static bool words_in(const moss_error *error, const char *words)
{
    if (strstr(error->message, words))
        return true;
    printf("no '%s' in '%s'\n", words, error->message);
    return false;
}

/* --- What a machine may lack --- */

typedef struct {
    const char *name;
    void (*damage)(fake_gpu *device);
    int32_t status;
    const char *words[3];
    bool before_memory;        /* told before anything is allocated */
} DeviceCase;

static void leave_good(fake_gpu *device) { (void)device; }
static void no_library(fake_gpu *device) { device->no_library = true; }
static void old_driver(fake_gpu *device) { device->version = 11080; }
static void no_version(fake_gpu *device) { device->lacks = "cuDriverGetVersion"; }
static void no_launch(fake_gpu *device) { device->lacks = "cuLaunchKernelEx"; }
static void no_maps(fake_gpu *device) { device->lacks = "cuTensorMapEncodeTiled"; }
static void maps_not_needed(fake_gpu *device)
{
    device->lacks = "cuTensorMapEncodeTiled";
    fake_tables()->n_tensor_maps = 0;
    fake_tables()->prefill.begin++, fake_tables()->decode.begin++;   /* their kernel has one */
}
static void no_device(fake_gpu *device) { device->n_devices = 0; }
static void init_fails(fake_gpu *device) { device->fails = "cuInit", device->fail_code = MOSS_CU_ERROR_NO_DEVICE; }
static void init_breaks(fake_gpu *device) { device->fails = "cuInit", device->fail_code = 999; }
static void older_device(fake_gpu *device) { device->capability = 80; }
static void newer_device(fake_gpu *device) { device->capability = 100; }
static void much_older_device(fake_gpu *device) { device->capability = 75, fake_tables()->sm = 80; }
static void a100_on_newer(fake_gpu *device) { device->capability = 100, fake_tables()->sm = 80; }
static void ptx_refused(fake_gpu *device) { device->ptx_log = "line 7; error : Unknown symbol 'mma'\nptxas fatal"; }
static void too_small(fake_gpu *device) { device->free_len = 9 << 20; }
static void no_kernel(fake_gpu *device)
{
    static const char *const names[] = { "clear", "fold", "logits", "argmin" };
    (void)device;
    fake_tables()->kernels = names;
}
static void little_shared(fake_gpu *device) { device->shared_most = 48 << 10; }
static void fail(fake_gpu *device, const char *symbol, int code, int after)
{
    device->fails = symbol, device->fail_code = code, device->fail_after = after;
}
static void copy_fails(fake_gpu *device) { fail(device, "cuMemcpyHtoDAsync_v2", 719, 0); }
static void stream_fails(fake_gpu *device) { fail(device, "cuStreamCreate", 2, 3); }
static void pinned_fails(fake_gpu *device) { fail(device, "cuMemHostAlloc", 2, 1); }
static void scratch_fails(fake_gpu *device) { fail(device, "cuMemAlloc_v2", 2, 1); }
static void states_fail(fake_gpu *device) { fail(device, "cuMemAlloc_v2", 2, 2); }

static const DeviceCase device_cases[] = {
    { "good", leave_good, MOSS_OK, { NULL }, false },
    { "no library", no_library, MOSS_ERROR_DEVICE,
      { "no GPU driver (libcuda.so.1: cannot", "h100", "CUDA 12.0 or later" }, true },
    { "old driver", old_driver, MOSS_ERROR_DEVICE, { "driver is for CUDA 11.8", "needs", "CUDA 12.0 or later" }, true },
    { "foreign library", no_version, MOSS_ERROR_DEVICE, { "cuDriverGetVersion", "12.0 or later" }, true },
    { "symbol missing", no_launch, MOSS_ERROR_DEVICE, { "lacks cuLaunchKernelEx" }, true },
    { "maps missing", no_maps, MOSS_ERROR_DEVICE, { "lacks cuTensorMapEncodeTiled" }, true },
    { "maps not needed", maps_not_needed, MOSS_OK, { NULL }, false },
    { "no device", no_device, MOSS_ERROR_DEVICE, { "no GPU", "CUDA 12.4 finds none", "h100" }, true },
    { "no device at init", init_fails, MOSS_ERROR_DEVICE, { "no GPU" }, true },
    { "init breaks", init_breaks, MOSS_ERROR_DEVICE, { "driver does not start", "(999)" }, true },
    { "older device", older_device, MOSS_ERROR_DEVICE,
      { "Fake 40 has compute capability 8.0", "h100", "needs 9.0" }, true },
    { "newer device", newer_device, MOSS_ERROR_DEVICE, { "capability 10.0", "needs 9.0" }, true },
    { "sm_80 too old", much_older_device, MOSS_ERROR_DEVICE, { "capability 7.5", "needs 8.0 or later" }, true },
    { "sm_80 on newer", a100_on_newer, MOSS_OK, { NULL }, false },
    { "PTX refused", ptx_refused, MOSS_ERROR_DEVICE,
      { "CUDA 12.4 refuses this program's PTX: CUDA_ERROR_INVALID_PTX (218)",
        "Unknown symbol 'mma' ptxas fatal" }, false },
    { "little memory", too_small, MOSS_ERROR_DEVICE,
      { "Fake 40 has 9.44 MB of 2147.48 free; needed 9.", "weights 9.44, scratch 0.09", "5 states of 0.00" }, true },
    { "no kernel", no_kernel, MOSS_ERROR_DEVICE, { "kernel argmin", "(500)" }, false },
    { "little shared memory", little_shared, MOSS_ERROR_DEVICE,
      { "kernel fold needs 60000 bytes of shared memory, Fake 40 has 49152" }, false },
    { "upload fails", copy_fails, MOSS_ERROR_DEVICE,
      { "cannot copy the weights to the GPU: CUDA_ERROR_LAUNCH_FAILED (719): unspecified" }, false },
    { "upload without streams", stream_fails, MOSS_ERROR_DEVICE, { "OUT_OF_MEMORY" }, false },
    { "no pinned memory", pinned_fails, MOSS_ERROR_DEVICE, { "queue", "CUDA_ERROR_OUT_OF_MEMORY" }, false },
    { "no scratch", scratch_fails, MOSS_ERROR_DEVICE, { "bytes of GPU memory for scratch, ", "OUT_OF_MEMORY" }, false },
    { "no states", states_fail, MOSS_ERROR_DEVICE, { "bytes of GPU memory for states, " }, false },
};

static void test_what_is_missing_is_told(void)
{
    for (size_t i = 0; i < sizeof device_cases / sizeof *device_cases; i++) {
        const DeviceCase *test = &device_cases[i];
        Fixture fixture;
        fake_reset();
        test->damage(fake_device());
        const int status = fixture_open(&fixture, N_STATES, 0);
        if (status != test->status)
            printf("%s: status %d, '%s'\n", test->name, status, fixture.error.message);
        CU_ASSERT_EQUAL(status, test->status);
        for (int w = 0; w < 3 && test->words[w]; w++)
            CU_ASSERT(words_in(&fixture.error, test->words[w]));
        if (test->before_memory)
            CU_ASSERT_EQUAL(fake_device()->n_allocs, 0);
        fixture_close(&fixture);
    }
    fake_reset();
}

/* Memory of many long states is asked for before anything is allocated; sums that overflow are too much. */
static void test_memory_of_states(void)
{
    Fixture fixture;
    fake_reset();
    fake_full_attention(true);
    CU_ASSERT_EQUAL(fixture_open(&fixture, 16, 8 << 20), MOSS_ERROR_DEVICE);
    CU_ASSERT(words_in(&fixture.error, "16 states of 67.11"));
    CU_ASSERT_EQUAL(fake_device()->n_allocs, 0);
    fixture_close(&fixture);
    CU_ASSERT_EQUAL(fixture_open(&fixture, 4096, INT64_MAX / 32), MOSS_ERROR_DEVICE);
    fixture_close(&fixture);
    CU_ASSERT_EQUAL(fixture_open(&fixture, 4097, 1), MOSS_ERROR_ARGUMENT);
    fixture_close(&fixture);
    CU_ASSERT_EQUAL(fixture_open(&fixture, 0, 1), MOSS_ERROR_ARGUMENT);
    fixture_close(&fixture);
    fake_full_attention(false);
}

static void test_damaged_weights(void)
{
    Fixture fixture;
    fake_reset();
    uint8_t *last = fake_weights() + FAKE_FILE_LEN - 1;
    *last ^= 1;
    CU_ASSERT_EQUAL(fixture_open(&fixture, 1, 0), MOSS_ERROR_WEIGHTS);
    CU_ASSERT(words_in(&fixture.error, "corrupt"));
    fixture_close(&fixture);
    fixture.model = block_new(moss_model_len());
    CU_ASSERT_EQUAL(moss_model_open(fixture.model, NULL, 0, NULL), MOSS_OK);    /* not verified */
    moss_model_close(fixture.model);
    *last ^= 1;
    CU_ASSERT_EQUAL(fake_device()->n_live, 0);
    free(fixture.model);
}

static void test_weights_arrive(void)
{
    Fixture fixture;
    char path[] = "/tmp/moss-gpu-XXXXXX";
    fake_reset();
    const int fd = mkstemp(path);
    CU_ASSERT_EQUAL_FATAL(write(fd, fake_weights(), FAKE_FILE_LEN), FAKE_FILE_LEN);
    close(fd);
    fixture.model = block_new(moss_model_len());
    CU_ASSERT_EQUAL_FATAL(moss_model_open(fixture.model, path, 1, &fixture.error), MOSS_OK);
    const moss_gpu_model *model = moss_gpu_of(fixture.model);
    CU_ASSERT_STRING_EQUAL(moss_model_device(fixture.model), "Fake 40");
    CU_ASSERT_EQUAL(memcmp((const void *)(uintptr_t)model->weights, fake_weights() + MOSS_WEIGHTS_HEADER_LEN,
                           FAKE_DATA_LEN), 0);
    CU_ASSERT_PTR_NULL(model->base.weights.map);       /* the host keeps no copy */
    moss_model_close(fixture.model);
    free(fixture.model);
    unlink(path);
    CU_ASSERT_EQUAL(fake_device()->n_live, 0);
}

/* --- Launches --- */

static void check_launch(int i, const char *kernel, uint32_t x, uint32_t y, uint32_t block, uint32_t shared_len,
                         bool dependent, bool cooperative)
{
    const fake_launch *found = &fake_device()->launches[i];
    CU_ASSERT_STRING_EQUAL_FATAL(found->kernel, kernel);
    CU_ASSERT(found->grid[0] == x && found->grid[1] == y && found->grid[2] == 1);
    CU_ASSERT(found->block == block && found->shared_len == shared_len);
    CU_ASSERT(found->dependent == dependent && found->cooperative == cooperative);
}

static void test_grids(void)
{
    Fixture fixture;
    int32_t tokens[MAX_TOKENS];
    static float logits[MAX_TOKENS * FAKE_VOCAB];
    fake_reset();
    make_tokens(tokens);
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, 0), MOSS_OK);
    CU_ASSERT_EQUAL(fake_device()->n_maps, 1);
    moss_state *state = state_new(0);
    CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 1, 0, tokens, 5, logits, 3, NULL), MOSS_OK);
    check_launch(0, "clear", FAKE_PROCESSORS + 1, 1, 32, 0, false, false);
    check_launch(1, "fold", 5, 3, 64, 60000, true, false);       /* 15 pairs by 3; 5 tokens by 4, and 1 */
    check_launch(2, "logits", 3, 1, 128, 100, true, false);
    fake_device()->n_launches = 0;
    CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, tokens, 1, NULL, 0, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(fake_device()->n_launches, 2);               /* no logits wanted */
    check_launch(0, "clear", 1, 1, 32, 0, false, true);
    check_launch(1, "fold", 1, 1, 64, 0, true, false);
    free(state);
    fixture_close(&fixture);
}

/* One sequence takes launches of its own if the device holds their blocks; more, or on a smaller device, the rest. */
static void test_one_sequence(void)
{
    static const struct { uint32_t blocks; int32_t n; const char *kernel; } rows[] = {
        { FAKE_PROCESSORS, 1, "clear" }, { FAKE_PROCESSORS + 1, 1, "fold" }, { 1, 2, "fold" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Fixture fixture;
        moss_gpu_launch launches[FAKE_TABLE_LAUNCHES];
        const int32_t tokens[2] = { 3, 4 };
        fake_reset();
        memcpy(launches, fake_tables()->launches, sizeof launches);
        launches[3].flags = MOSS_GPU_COOPERATIVE | MOSS_GPU_IF_ONE;
        launches[3].grid[0].extra = (int32_t)rows[i].blocks - 1;
        launches[4].flags |= MOSS_GPU_IF_MORE;
        fake_tables()->launches = launches;
        CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, 0), MOSS_OK);
        moss_state *states[2] = { state_new(0), state_new(0) };
        CU_ASSERT_EQUAL(moss_eval_batch(fixture.context, states, rows[i].n, 0, tokens, NULL, NULL), MOSS_OK);
        CU_ASSERT_EQUAL(fake_device()->n_launches, 1);
        CU_ASSERT_STRING_EQUAL(fake_device()->launches[0].kernel, rows[i].kernel);
        free(states[0]);
        free(states[1]);
        fixture_close(&fixture);
    }
}

/* Dependent launches need both a driver whose graphs hold them and kernels that wait. */
static void test_dependent_launches(void)
{
    static const struct { int version, sm; bool dependent; } rows[] = {
        { 12040, 90, true }, { 12020, 90, false }, { 12040, 80, false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Fixture fixture;
        const int32_t token = 3;
        fake_reset();
        fake_device()->version = rows[i].version;
        fake_tables()->sm = rows[i].sm;
        CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, 1, 0), MOSS_OK);
        moss_state *state = state_new(0);
        CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, &token, 1, NULL, 0, NULL), MOSS_OK);
        CU_ASSERT_EQUAL(fake_device()->launches[1].dependent, rows[i].dependent);
        free(state);
        fixture_close(&fixture);
    }
}

/* What repeats is captured once for each kind of call, and replayed. */
static void test_graphs(void)
{
    Fixture fixture;
    int32_t tokens[MAX_TOKENS];
    float logits[FAKE_VOCAB];
    fake_reset();
    make_tokens(tokens);
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, 0), MOSS_OK);
    moss_state *state = state_new(0);
    const fake_gpu *device = fake_device();
    for (int i = 0; i < 10; i++)
        CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, tokens, 1, logits, 1, NULL), MOSS_OK);
    CU_ASSERT(device->n_captures == 1 && device->n_replays == 10 && device->n_launches == 3);
    CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, tokens, 1, NULL, 0, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 1, 0, tokens, 1, NULL, 0, NULL), MOSS_OK);
    CU_ASSERT(device->n_captures == 3 && device->n_replays == 12);
    const int32_t n = 3 * FAKE_CHUNK + 3;      /* the first whole piece is launched, and the odd one */
    CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, tokens, n, logits, 1, NULL), MOSS_OK);
    CU_ASSERT(device->n_captures == 4 && device->n_replays == 14);
    CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, tokens, n, logits, 1, NULL), MOSS_OK);
    CU_ASSERT(device->n_captures == 5 && device->n_replays == 18);     /* by now both have come before */
    free(state);
    fixture_close(&fixture);
}

/* More kinds of calls than there is room for. */
static void test_graphs_run_out(void)
{
    enum { N = 16, ROUNDS = 3 };
    Fixture fixture;
    moss_state *states[N];
    int32_t tokens[MAX_TOKENS];
    static float logits[N * FAKE_VOCAB];
    float *scratch = block_new((N + 2) * FAKE_VOCAB * sizeof *scratch);
    moss_sampler samplers[N];
    fake_reset();
    make_tokens(tokens);
    fake_program()->n_modes = MOSS_MAX_MODES;
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N, 0), MOSS_OK);
    for (int i = 0; i < N; i++) {
        states[i] = state_new(0);
        moss_sampler_init(&samplers[i], 0, 0, 1, 0, 0);
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int32_t n = 1; n <= N; n++)
            for (int32_t mode = 0; mode < MOSS_MAX_MODES; mode++) {
                int32_t out[N];
                CU_ASSERT_EQUAL(moss_eval_batch(fixture.context, states, n, mode, tokens, NULL, NULL), MOSS_OK);
                CU_ASSERT_EQUAL(moss_eval_batch(fixture.context, states, n, mode, tokens, logits, NULL), MOSS_OK);
                const int status = moss_generate(fixture.context, states, n, mode, samplers, tokens, out, 1, scratch, NULL);
                CU_ASSERT_EQUAL(status, MOSS_OK);
            }
    CU_ASSERT_EQUAL(fake_device()->n_captures, ROUNDS * N * MOSS_MAX_MODES * 3);
    CU_ASSERT(fake_device()->n_live < 3 * MOSS_GPU_MAX_GRAPHS);        /* old ones were dropped */
    fake_program()->n_modes = 2;
    for (int i = 0; i < N; i++)
        free(states[i]);
    free(scratch);
    fixture_close(&fixture);
}

/* --- Results --- */

static void check_cut(Fixture *fixture, int32_t mode, int32_t chunk, int32_t call_len, int32_t n_logits)
{
    static float expected[MAX_TOKENS * FAKE_VOCAB], found[MAX_TOKENS * FAKE_VOCAB];
    int32_t tokens[MAX_TOKENS];
    make_tokens(tokens);
    expect_logits(tokens, MAX_TOKENS, mode ? 3 : 2, expected);
    moss_state *state = state_new(MAX_TOKENS);
    for (int32_t done = 0, n; done < MAX_TOKENS; done += n) {
        n = MAX_TOKENS - done < call_len ? MAX_TOKENS - done : call_len;
        const int32_t wanted = n_logits < n ? n_logits : n;
        memset(found, 0xFF, sizeof found);
        const int status = moss_eval(fixture->context, state, mode, chunk, tokens + done, n, found, wanted, NULL);
        CU_ASSERT_EQUAL(status, MOSS_OK);
        CU_ASSERT_EQUAL(memcmp(found, expected + (ptrdiff_t)(done + n - wanted) * FAKE_VOCAB,
                               (size_t)wanted * FAKE_VOCAB * sizeof *found), 0);
        CU_ASSERT_EQUAL(moss_state_position(state), done + n);
    }
    CU_ASSERT_EQUAL(moss_state_sync(fixture->context, state, NULL), MOSS_OK);
    free(state);
}

static void test_cuts_agree(void)
{
    for (int full = 0; full < 2; full++) {
        Fixture fixture;
        fake_reset();
        fake_full_attention(full);
        CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, 2, MAX_TOKENS), MOSS_OK);
        for (int32_t mode = 0; mode < 2; mode++)
            for (int32_t chunk = 0; chunk < 10; chunk += 3)
                for (int32_t call_len = 1; call_len <= MAX_TOKENS; call_len += 6)
                    for (int32_t n_logits = 0; n_logits <= MAX_TOKENS; n_logits += 9)
                        check_cut(&fixture, mode, chunk, call_len, n_logits);
        fixture_close(&fixture);
    }
}

/* Sequences at different places, more than one pass takes. */
static void test_batch(void)
{
    enum { N = 21 };
    Fixture fixture;
    moss_state *states[N];
    uint64_t hashes[N] = { 0 };
    int32_t tokens[N];
    static float expected[N][FAKE_VOCAB], found[N][FAKE_VOCAB];
    fake_reset();
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N, 0), MOSS_OK);
    const int n_allocs = fake_device()->n_allocs;
    for (int32_t i = 0; i < N; i++) {
        states[i] = state_new(0);
        for (int32_t t = 0; t < i; t++) {
            fake_step(&hashes[i], t, t + i, 2, expected[i]);
            tokens[t] = t + i;
        }
        if (i)
            CU_ASSERT_EQUAL(moss_eval(fixture.context, states[i], 0, 0, tokens, i, NULL, 0, NULL), MOSS_OK);
    }
    for (int round = 0; round < 3; round++) {
        for (int32_t i = 0; i < N; i++) {
            tokens[i] = (round * 50 + i * 13) % FAKE_VOCAB;
            fake_step(&hashes[i], i + round, tokens[i], 3, expected[i]);
        }
        memset(found, 0xFF, sizeof found);
        CU_ASSERT_EQUAL(moss_eval_batch(fixture.context, states, N, 1, tokens, round == 1 ? NULL : &found[0][0],
                                        &fixture.error), MOSS_OK);
        if (round != 1)
            CU_ASSERT_EQUAL(memcmp(expected, found, sizeof found), 0);
    }
    CU_ASSERT_EQUAL(fake_device()->n_allocs, n_allocs);      /* nothing is allocated after init */
    for (int i = 0; i < N; i++)
        free(states[i]);
    fixture_close(&fixture);
}

/* Prompts of several sequences together: every length, pieces of one in two passes, more than one pass takes. */
static void check_prompts(Fixture *fixture, int32_t n, int32_t chunk, int32_t longest, bool wants_logits)
{
    enum { MOST = 19 };
    moss_state *states[MOST];
    int32_t lens[MOST], tokens[MOST * MAX_TOKENS], n_all = 0;
    static float expected[MOST][FAKE_VOCAB], found[MOST][FAKE_VOCAB];
    uint64_t hashes[MOST] = { 0 };
    for (int32_t i = 0; i < n; i++) {
        states[i] = state_new(MAX_TOKENS);
        const int32_t seen = i % 3;
        for (int32_t t = 0; t < seen; t++)
            fake_step(&hashes[i], t, t, 3, expected[i]);
        if (seen)
            CU_ASSERT_EQUAL(moss_eval(fixture->context, states[i], 1, 0, (int32_t[2]){ 0, 1 }, seen, NULL, 0, NULL),
                            MOSS_OK);
        lens[i] = 1 + (i * 7 + longest) % longest;
        for (int32_t t = 0; t < lens[i]; t++) {
            tokens[n_all] = (i * 31 + t * 17) % FAKE_VOCAB;
            fake_step(&hashes[i], seen + t, tokens[n_all++], 3, expected[i]);
        }
    }
    memset(found, 0xFF, sizeof found);
    CU_ASSERT_EQUAL(moss_eval_prompts(fixture->context, states, n, 1, chunk, tokens, lens,
                                      wants_logits ? &found[0][0] : NULL, &fixture->error), MOSS_OK);
    if (wants_logits)
        CU_ASSERT_EQUAL(memcmp(expected, found, (size_t)n * sizeof *found), 0);
    for (int32_t i = 0; i < n; i++) {
        CU_ASSERT_EQUAL(moss_state_position(states[i]), i % 3 + lens[i]);
        CU_ASSERT_EQUAL(moss_state_sync(fixture->context, states[i], NULL), MOSS_OK);
        free(states[i]);
    }
}

static void test_prompts(void)
{
    for (int full = 0; full < 2; full++) {
        Fixture fixture;
        fake_reset();
        fake_full_attention(full);
        CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, 19, MAX_TOKENS), MOSS_OK);
        for (int32_t n = 1; n <= 19; n += 3)
            for (int32_t chunk = 0; chunk < 2 * FAKE_CHUNK; chunk += 3)
                for (int32_t longest = 1; longest < MAX_TOKENS - 2; longest += 5)
                    check_prompts(&fixture, n, chunk, longest, (n + longest) % 2);
        fixture_close(&fixture);
    }
}

/* What is refused leaves every state as it was. */
static void test_prompts_errors(void)
{
    Fixture fixture;
    fake_reset();
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, 2, 0), MOSS_OK);
    moss_state *states[2] = { state_new(0), state_new(0) }, *twice[2] = { states[0], states[0] };
    const int32_t tokens[4] = { 1, 2, FAKE_VOCAB - 1, 0 }, wrong[4] = { 0, 0, 0, FAKE_VOCAB };
    const struct { moss_state **states; int32_t n, mode, chunk; const int32_t *tokens; int32_t lens[2]; } bad[] = {
        { twice, 2, 0, 0, tokens, { 2, 2 } }, { states, 2, 0, 0, wrong, { 2, 2 } }, { states, 2, 0, 0, NULL, { 2, 2 } },
        { NULL, 2, 0, 0, tokens, { 2, 2 } }, { states, 0, 0, 0, tokens, { 2, 2 } },
        { states, 2, 9, 0, tokens, { 2, 2 } }, { states, 2, 0, -1, tokens, { 2, 2 } },
        { states, 2, 0, 0, tokens, { 4, 0 } }, { states, 2, 0, 0, tokens, { INT32_MAX, 1 } },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const int status = moss_eval_prompts(fixture.context, bad[i].states, bad[i].n, bad[i].mode, bad[i].chunk,
                                             bad[i].tokens, bad[i].lens, NULL, &fixture.error);
        CU_ASSERT_EQUAL(status, MOSS_ERROR_ARGUMENT);
    }
    CU_ASSERT_EQUAL(moss_eval_prompts(fixture.context, states, 2, 0, 0, tokens, NULL, NULL, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT(moss_state_position(states[0]) == 0 && moss_state_position(states[1]) == 0);
    free(states[0]);
    free(states[1]);
    fixture_close(&fixture);
}

/* --- States --- */

/* The logits of one more token are those of `hash` after `seen` tokens. */
static int goes_on(Fixture *fixture, moss_state *state, uint64_t hash, int64_t seen, int32_t token)
{
    float expected[FAKE_VOCAB], found[FAKE_VOCAB];
    fake_step(&hash, seen, token, 2, expected);
    const int status = moss_eval(fixture->context, state, 0, 0, &token, 1, found, 1, &fixture->error);
    if (status == MOSS_OK)
        CU_ASSERT_EQUAL(memcmp(expected, found, sizeof found), 0);
    return status;
}

static uint64_t feed(Fixture *fixture, moss_state *state, int32_t n)
{
    int32_t tokens[MAX_TOKENS];
    float ignored[FAKE_VOCAB];
    uint64_t hash = 0;
    make_tokens(tokens);
    for (int32_t i = 0; i < n; i++)
        fake_step(&hash, i, tokens[i], 2, ignored);
    CU_ASSERT_EQUAL(moss_eval(fixture->context, state, 0, 0, tokens, n, NULL, 0, &fixture->error), MOSS_OK);
    return hash;
}

static void test_states_stay(void)
{
    Fixture fixture;
    fake_reset();
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, 0), MOSS_OK);
    moss_state *state = state_new(0);
    uint64_t hash = feed(&fixture, state, 11);
    CU_ASSERT_EQUAL(goes_on(&fixture, state, hash, 11, 5), MOSS_OK);
    CU_ASSERT(fake_device()->n_states_up == 0 && fake_device()->n_states_down == 0);
    free(state);
    fixture_close(&fixture);
}

/* Forks, saves and rollbacks after a sync; what comes back equals what a state at home would be. */
static void test_states_fork_and_roll_back(void)
{
    Fixture fixture, other;
    fake_reset();
    fake_full_attention(true);
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, MAX_TOKENS), MOSS_OK);
    CU_ASSERT_EQUAL_FATAL(fixture_open(&other, 1, MAX_TOKENS), MOSS_OK);
    moss_state *state = state_new(MAX_TOKENS);
    const uint64_t hash = feed(&fixture, state, 13);
    CU_ASSERT_EQUAL(moss_state_check(state, state->len, &fixture.error), MOSS_ERROR_STATE);
    CU_ASSERT(words_in(&fixture.error, "moss_state_sync"));
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, state, &fixture.error), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_check(state, state->len, &fixture.error), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, state, &fixture.error), MOSS_OK);    /* again: nothing to do */
    CU_ASSERT_EQUAL(fake_device()->n_states_down, 1);
    moss_state *saved = state_copy(state), *fork = state_copy(state);
    CU_ASSERT_EQUAL(goes_on(&fixture, state, hash, 13, 7), MOSS_OK);
    CU_ASSERT_EQUAL(goes_on(&fixture, fork, hash, 13, 9), MOSS_OK);
    memcpy(state, saved, saved->len);                                          /* roll back while on the device */
    CU_ASSERT_EQUAL(goes_on(&fixture, state, hash, 13, 8), MOSS_OK);
    CU_ASSERT_EQUAL(goes_on(&other, saved, hash, 13, 7), MOSS_OK);             /* another context */
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, state, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_sync(other.context, saved, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, fork, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_position(fork), 14);
    free(state), free(saved), free(fork);
    moss_context_deinit(fixture.context);
    moss_model_close(fixture.model);
    free(fixture.context), free(fixture.model);
    fixture_close(&other);
    fake_full_attention(false);
}

static void check_stale(Fixture *fixture, moss_state *state)
{
    const int32_t token = 1;
    moss_state before = *state;
    CU_ASSERT_EQUAL(moss_eval(fixture->context, state, 0, 0, &token, 1, NULL, 0, &fixture->error), MOSS_ERROR_STATE);
    CU_ASSERT(words_in(&fixture->error, "without moss_state_sync"));
    CU_ASSERT_EQUAL(moss_state_sync(fixture->context, state, &fixture->error), MOSS_ERROR_STATE);
    CU_ASSERT_EQUAL(memcmp(state, &before, sizeof before), 0);
}

/* A copy made without sync is refused wherever it comes up; the state itself goes on. */
static void test_stale_copies(void)
{
    Fixture fixture, other;
    fake_reset();
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, 0), MOSS_OK);
    CU_ASSERT_EQUAL_FATAL(fixture_open(&other, N_STATES, 0), MOSS_OK);
    moss_state *state = state_new(0);
    uint64_t hash = feed(&fixture, state, 3);
    moss_state *copy = state_copy(state), *older = state_copy(state);
    check_stale(&fixture, copy);
    check_stale(&other, copy);
    check_stale(&other, state);
    CU_ASSERT_EQUAL(goes_on(&fixture, state, hash, 3, 1), MOSS_OK);
    check_stale(&fixture, copy);
    moss_state *newest = state_copy(state);
    memcpy(state, older, older->len);          /* rolled back without sync: not possible, and found out */
    check_stale(&fixture, state);
    memcpy(state, newest, newest->len);        /* as it was */
    float ignored[FAKE_VOCAB];
    fake_step(&hash, 3, 1, 2, ignored);
    CU_ASSERT_EQUAL(goes_on(&fixture, state, hash, 4, 2), MOSS_OK);
    moss_context_deinit(fixture.context);      /* what was on the device is lost with its context */
    CU_ASSERT_EQUAL(moss_context_init(fixture.context, fixture.model, 1, NULL, NULL), MOSS_OK);
    check_stale(&fixture, state);
    CU_ASSERT_EQUAL(moss_state_init(state, 0, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(goes_on(&fixture, state, 0, 0, 2), MOSS_OK);
    free(state), free(copy), free(older), free(newest);
    moss_context_deinit(fixture.context);
    moss_model_close(fixture.model);
    free(fixture.context), free(fixture.model);
    fixture_close(&other);
}

static void test_slots_run_out(void)
{
    Fixture fixture;
    moss_state *states[N_STATES + 1];
    fake_reset();
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, 0), MOSS_OK);
    for (int i = 0; i <= N_STATES; i++)
        states[i] = state_new(0);
    for (int i = 0; i < N_STATES; i++)
        CU_ASSERT_EQUAL(goes_on(&fixture, states[i], 0, 0, i), MOSS_OK);
    CU_ASSERT_EQUAL(goes_on(&fixture, states[N_STATES], 0, 0, 1), MOSS_ERROR_STATE);
    CU_ASSERT(words_in(&fixture.error, "all 5 places"));
    for (int i = 0; i < 20; i++) {             /* starting anew takes no further place */
        CU_ASSERT_EQUAL(moss_state_init(states[2], 0, NULL), MOSS_OK);
        CU_ASSERT_EQUAL(goes_on(&fixture, states[2], 0, 0, i), MOSS_OK);
    }
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, states[1], NULL), MOSS_OK);
    CU_ASSERT_EQUAL(goes_on(&fixture, states[N_STATES], 0, 0, 1), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_init(states[3], 0, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, states[3], NULL), MOSS_OK);    /* gives up the place it had */
    CU_ASSERT_EQUAL(moss_eval_batch(fixture.context, states, 3, 0, (int32_t[3]){ 1, 2, 3 }, NULL, NULL), MOSS_OK);
    for (int i = 0; i <= N_STATES; i++)
        free(states[i]);
    fixture_close(&fixture);
}

/* Slots have one length at a time; it changes when none is used. */
static void test_other_contexts_length(void)
{
    Fixture fixture;
    fake_reset();
    fake_full_attention(true);
    fixture.model = block_new(moss_model_len());
    fixture.context = block_new(moss_context_len(1));
    CU_ASSERT_EQUAL_FATAL(moss_model_open(fixture.model, NULL, 1, NULL), MOSS_OK);      /* lengths not known */
    CU_ASSERT_EQUAL_FATAL(moss_context_init(fixture.context, fixture.model, 1, NULL, NULL), MOSS_OK);
    moss_state *little = state_new(20), *large = state_new(2000);
    const uint64_t hash = feed(&fixture, little, 9);
    CU_ASSERT_EQUAL(goes_on(&fixture, large, 0, 0, 4), MOSS_ERROR_STATE);
    CU_ASSERT(words_in(&fixture.error, "states of n_context 20 are on the device"));
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, little, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(goes_on(&fixture, large, 0, 0, 4), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_sync(fixture.context, large, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(goes_on(&fixture, little, hash, 9, 4), MOSS_OK);      /* graphs of the old places are gone */
    free(little), free(large);
    fixture_close(&fixture);
    fake_full_attention(false);
}

/* --- Generation --- */

static void check_generate(float temperature, bool feeds, int32_t n, int32_t n_steps, int32_t per_call)
{
    enum { MOST = 20, MOST_STEPS = 2100 };
    static int32_t found[MOST_STEPS * MOST];
    Fixture fixture;
    moss_state *states[MOST];
    moss_sampler samplers[MOST], expected[MOST];
    int32_t next[MOST];
    float *scratch = block_new((MOST + 2) * FAKE_VOCAB * sizeof *scratch), logits[FAKE_VOCAB];
    fake_reset();
    if (!feeds)
        fake_tables()->feed.end = fake_tables()->feed.begin;
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, n, 0), MOSS_OK);
    for (int32_t i = 0; i < n; i++) {
        states[i] = state_new(0);
        moss_sampler_init(&samplers[i], i % 2 ? temperature : 0, 20, 1, 0, (uint64_t)i);
        expected[i] = samplers[i];
        next[i] = i * 11;
        if (i % 3)
            feed(&fixture, states[i], i + 1);
    }
    for (int32_t done = 0, part; done < n_steps; done += part) {
        part = n_steps - done < per_call ? n_steps - done : per_call;
        CU_ASSERT_EQUAL(moss_generate(fixture.context, states, n, 0, samplers, done ? found + (done - 1) * n : next,
                                      found + done * n, part, scratch, &fixture.error), MOSS_OK);
    }
    for (int32_t i = 0; i < n; i++) {
        int32_t tokens[MAX_TOKENS], seen = i % 3 ? i + 1 : 0, token = next[i], n_wrong = 0;
        uint64_t hash = 0;
        make_tokens(tokens);
        for (int32_t t = 0; t < seen; t++)
            fake_step(&hash, t, tokens[t], 2, logits);
        for (int32_t step = 0; step < n_steps; step++) {
            fake_step(&hash, seen + step, token, 2, logits);
            token = moss_sample(&expected[i], logits, scratch);
            n_wrong += found[step * n + i] != token;
        }
        CU_ASSERT_EQUAL(n_wrong, 0);
        CU_ASSERT_EQUAL(moss_state_position(states[i]), seen + n_steps);
        CU_ASSERT_EQUAL(goes_on(&fixture, states[i], hash, seen + n_steps, 6), MOSS_OK);
        CU_ASSERT_EQUAL(memcmp(&expected[i], &samplers[i], sizeof samplers[i]), 0);
        free(states[i]);
    }
    free(scratch);
    fixture_close(&fixture);
}

static void test_generate(void)
{
    check_generate(0, true, 1, 1, 1);
    check_generate(0, true, 3, 2100, 2100);        /* longer than the history */
    check_generate(0, true, 20, 50, 7);            /* more than one pass */
    check_generate(0, false, 3, 40, 40);           /* the program has no such kernel */
    check_generate(2, true, 3, 40, 13);
    check_generate(2, true, 2, 1100, 1100);        /* row 0 is greedy */
    check_generate(0.7f, true, 20, 30, 30);
    check_generate(2, false, 3, 40, 13);           /* drawn by the host */
}

static void test_generate_waits_once(void)
{
    Fixture fixture;
    int32_t next = 1, tokens[100];
    moss_sampler sampler;
    float *scratch = block_new(3 * FAKE_VOCAB * sizeof *scratch);
    fake_reset();
    moss_sampler_init(&sampler, 0, 0, 1, 0, 0);
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, 1, 0), MOSS_OK);
    moss_state *state = state_new(0);
    CU_ASSERT_EQUAL(moss_generate(fixture.context, &state, 1, 0, &sampler, &next, tokens, 100, scratch, NULL), MOSS_OK);
    CU_ASSERT(fake_device()->n_captures == 1 && fake_device()->n_replays == 100);
    CU_ASSERT_EQUAL(fake_device()->n_launches, 4);         /* decode and feed, captured together */
    CU_ASSERT_EQUAL(moss_generate(fixture.context, &state, 1, 0, &sampler, &next, tokens, 0, scratch, NULL),
                    MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_generate(NULL, &state, 1, 0, &sampler, &next, tokens, 1, scratch, NULL), MOSS_ERROR_ARGUMENT);
    free(state), free(scratch);
    fixture_close(&fixture);
}

/* --- A device that fails --- */

static void test_lost_device(void)
{
    static const char *const where[] = { "cuStreamSynchronize", "cuGraphLaunch", "cuLaunchKernelEx",
        "cuMemcpyHtoDAsync_v2", "cuStreamBeginCapture_v2", "cuGraphInstantiateWithFlags" };
    int32_t tokens[MAX_TOKENS];
    float logits[FAKE_VOCAB];
    make_tokens(tokens);
    for (size_t i = 0; i < sizeof where / sizeof *where; i++) {
        Fixture fixture;
        moss_error first;
        fake_reset();
        CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, N_STATES, 0), MOSS_OK);
        moss_state *state = state_new(0);
        fake_device()->fails = where[i];
        fake_device()->fail_code = 719;
        CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, tokens, 1, logits, 1, &first), MOSS_ERROR_DEVICE);
        CU_ASSERT(words_in(&first, "CUDA_ERROR_LAUNCH_FAILED (719): unspecified launch failure"));
        fake_device()->fails = NULL;
        moss_error *error = &fixture.error;
        CU_ASSERT_EQUAL(moss_eval(fixture.context, state, 0, 0, tokens, 1, logits, 1, error), MOSS_ERROR_DEVICE);
        CU_ASSERT_STRING_EQUAL(fixture.error.message, first.message);
        CU_ASSERT_EQUAL(moss_eval_batch(fixture.context, &state, 1, 0, tokens, logits, NULL), MOSS_ERROR_DEVICE);
        CU_ASSERT_EQUAL(moss_state_sync(fixture.context, state, &fixture.error), MOSS_ERROR_DEVICE);
        CU_ASSERT_STRING_EQUAL(fixture.error.message, first.message);
        free(state);
        fixture_close(&fixture);
    }
}

static void test_arguments(void)
{
    Fixture fixture;
    float logits[FAKE_VOCAB];
    int32_t token = 1, high = FAKE_VOCAB;
    fake_reset();
    CU_ASSERT_EQUAL(moss_context_len(0), 0);
    CU_ASSERT_EQUAL_FATAL(fixture_open(&fixture, 1, 0), MOSS_OK);
    moss_state *state = state_new(0);
    moss_context *context = fixture.context;
    CU_ASSERT_EQUAL(moss_eval(NULL, state, 0, 0, &token, 1, logits, 1, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_eval(context, NULL, 0, 0, &token, 1, logits, 1, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_eval(context, state, 2, 0, &token, 1, logits, 1, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_eval(context, state, 0, 0, &high, 1, logits, 1, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_eval(context, state, 0, 0, &token, 1, NULL, 1, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_context_init(context, NULL, 1, NULL, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_context_init(NULL, fixture.model, 1, NULL, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_context_init(context, fixture.model, 0, NULL, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_state_sync(NULL, state, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(state->ticket, 0);
    free(state);
    fixture_close(&fixture);
}

static const UnitTest tests[] = {
    { "what a machine lacks is told", test_what_is_missing_is_told },
    { "memory of states is asked for first", test_memory_of_states },
    { "damaged weights", test_damaged_weights },
    { "weights arrive whole", test_weights_arrive },
    { "grids and shapes of launches", test_grids },
    { "launches of one sequence", test_one_sequence },
    { "dependent launches where they can be", test_dependent_launches },
    { "graphs are captured once", test_graphs },
    { "more graphs than room", test_graphs_run_out },
    { "results do not depend on how calls are cut", test_cuts_agree },
    { "a batch is its sequences", test_batch },
    { "prompts of several sequences together", test_prompts },
    { "prompts that are refused", test_prompts_errors },
    { "states stay on the device", test_states_stay },
    { "states fork and roll back", test_states_fork_and_roll_back },
    { "stale copies are refused", test_stale_copies },
    { "places for states run out", test_slots_run_out },
    { "states of another length", test_other_contexts_length },
    { "generation", test_generate },
    { "generation needs the host once", test_generate_waits_once },
    { "a lost device stays lost", test_lost_device },
    { "arguments", test_arguments },
};

UNIT_MAIN("gpu runtime", tests)
