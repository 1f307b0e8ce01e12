/* Predictions: the tables are whole, more hardware is never slower, and where one thing alone binds the figure is what
 * can be worked out by hand.
 */
#include "../../compiler/inspect.h"

#include <string.h>

#include "models.h"

static const char source[] =
    "{\"format\":\"mossnet-graph/1\",\"name\":\"p\",\"vocab_size\":256,\"d_model\":64,\"experts\":4,\"top_k\":[2,1],"
    "\"layers\":[{\"op\":\"mamba\"},{\"op\":\"attention\",\"heads\":4,\"window\":64},{\"op\":\"mlp\",\"d_ff\":128}]}";

static Plan *plan_of(Arena *arena, DType dtype, TargetId target)
{
    return models_plan(arena, models_read_text(arena, source), dtype, target);
}

static bool read_device(Arena *arena, const char *text, Device *device, const char *words)
{
    Diags *diags = diags_new(arena);
    Text said = { 0 };
    bool good = device_read(device, diags, text);
    text_append(&said, "", 0);
    diags_print(diags, &said);
    CU_ASSERT_EQUAL(good, !diags_failed(diags));
    if (words && !strstr(said.data, words))
        printf("expected: %s\nfound: %s\n", words, said.data);
    CU_ASSERT(!words || strstr(said.data, words));
    text_free(&said);
    return good;
}

static Device device_of(Arena *arena, const char *text)
{
    Device device;
    CU_ASSERT_TRUE_FATAL(read_device(arena, text, &device, NULL));
    return device;
}

/* Every device has sane figures and a rate of every class for all its code: a missing one aborts. */
static void test_tables(void)
{
    Arena *arena = arena_new();
    Device device;
    int n = 0;
    for (; device_at(n, &device); n++) {
        Device same = device_of(arena, device.name);
        CU_ASSERT_STRING_EQUAL(same.text, device.text);
        CU_ASSERT(device.n_clusters >= 1 && device.share.low <= device.share.high && device.core_gbs <= device.gbs);
        CU_ASSERT(device.efficiency.low <= device.efficiency.high && device.efficiency.high <= 1);
        CU_ASSERT(device_threads(&device) >= 1 && device_threads(&device) <= device_cores(&device));
        for (int t = TARGET_HOST + 1; t < N_TARGETS; t++) {
            const char *code = target_sm((TargetId)t) ? NULL : device_code(&device, diags_new(arena), (TargetId)t);
            for (int rate = 0; code && rate < N_RATES; rate++)
                for (int threads = 1; threads <= device_cores(&device) && threads <= 16; threads++)
                    CU_ASSERT(device_rate(&device, code, (RateClass)rate, threads) > 1e8);
        }
    }
    CU_ASSERT(n >= 12);
    arena_free(arena);
}

static void test_option(void)
{
    Arena *arena = arena_new();
    Device device;
    CU_ASSERT_FALSE(read_device(arena, "s25", &device, "no such device (mossc devices lists them)"));
    CU_ASSERT_FALSE(read_device(arena, "s24-ultr", &device, "no such device"));
    CU_ASSERT_FALSE(read_device(arena, "s24,", &device, "expected bandwidth=GB/S or clock=GHZ"));
    CU_ASSERT_FALSE(read_device(arena, "s24,speed=3", &device, "found `speed=3`"));
    CU_ASSERT_FALSE(read_device(arena, "s24,clock=", &device, "found `clock=`"));
    CU_ASSERT_FALSE(read_device(arena, "s24,clock=nan", &device, "found `clock=nan`"));
    CU_ASSERT_FALSE(read_device(arena, "s24,clock=3x", &device, "found `clock=3x`"));
    CU_ASSERT_FALSE(read_device(arena, "s24,clock=3,bandwidth=-1", &device, "found `bandwidth=-1`"));
    device = device_of(arena, "s24,clock=1.605,bandwidth=50");
    CU_ASSERT_DOUBLE_EQUAL(device.gbs, 50, 0);
    CU_ASSERT_DOUBLE_EQUAL(device.clusters[0].ghz, 1.605, 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(device.clusters[1].ghz, 1.45, 1e-9);      /* all by half */
    arena_free(arena);
}

static void test_code(void)
{
    Arena *arena = arena_new();
    Device phone = device_of(arena, "s24-ultra"), board = device_of(arena, "pi-5"), server = device_of(arena, "xeon-2");
    CU_ASSERT_STRING_EQUAL(device_code(&phone, diags_new(arena), TARGET_ANDROID_ARM64), "arm-i8mm");
    CU_ASSERT_STRING_EQUAL(device_code(&board, diags_new(arena), TARGET_ANDROID_ARM64), "arm-dotprod");
    CU_ASSERT_STRING_EQUAL(device_code(&phone, diags_new(arena), TARGET_ARM_NEON), "arm-neon");
    CU_ASSERT_STRING_EQUAL(device_code(&server, diags_new(arena), TARGET_X86_64_V3), "x86-64-v3");
    CU_ASSERT_PTR_NULL(device_code(&board, diags_new(arena), TARGET_ARM_I8MM));
    CU_ASSERT_PTR_NULL(device_code(&phone, diags_new(arena), TARGET_X86_64_V3));
    CU_ASSERT_PTR_NULL(device_code(&server, diags_new(arena), TARGET_ARM_NEON));
    CU_ASSERT_PTR_NULL(device_code(&server, diags_new(arena), TARGET_H100));
    arena_free(arena);
}

/* Equal shares: n cores are as fast as n times the slowest of them, and threads beyond the cores add nothing. */
static void test_equal_shares(void)
{
    Arena *arena = arena_new();
    Device phone = device_of(arena, "pixel-8");                      /* 1 + 4 + 4 cores */
    double rate[21];
    for (int n = 1; n <= 20; n++)
        rate[n] = device_rate(&phone, "arm-neon", RATE_GEMM_FLOAT, n);
    CU_ASSERT_DOUBLE_EQUAL(rate[5] / rate[2], 2.5, 1e-9);
    CU_ASSERT(rate[1] > rate[2] / 2 && rate[9] / 9 < rate[5] / 5);
    CU_ASSERT_DOUBLE_EQUAL(rate[20], rate[9], 1);
    CU_ASSERT_EQUAL(device_threads(&phone), 5);
    arena_free(arena);
}

static const PredictionRow *row_of(const Prediction *p, bool decode, int experts, int64_t n_context)
{
    for (int i = 0; i < p->n_rows; i++)
        if (p->rows[i].decode == decode && p->rows[i].experts_per_token == experts && p->rows[i].n_context == n_context)
            return &p->rows[i];
    return NULL;
}

static Prediction predict(Arena *arena, const Plan *plan, const char *text, int n_threads, int64_t n_context)
{
    Device device = device_of(arena, text);
    return predict_plan(plan, &device, "x86-64-vnni", n_threads, n_context);
}

/* With memory that crawls, generation is bandwidth over bytes, as inspect counts them. */
static void test_memory_binds(void)
{
    Arena *arena = arena_new();
    const Plan *plan = plan_of(arena, DTYPE_Q8, TARGET_X86_64_VNNI);
    Device device = device_of(arena, "xeon-2,bandwidth=0.1");
    device.cache_mb = 0;
    Prediction p = predict_plan(plan, &device, "x86-64-vnni", 1, 512);
    for (int mode = 0; mode < 2; mode++) {
        const PredictionRow *row = row_of(&p, true, mode ? 1 : 2, 512);
        CU_ASSERT_PTR_NOT_NULL_FATAL(row);
        double bytes = plan->decode_cost[mode].weight_bytes + plan->decode_cost[mode].state_bytes;
        CU_ASSERT_DOUBLE_EQUAL(row->tokens.low, 0.085e9 / bytes, 0.01 * row->tokens.low);
        CU_ASSERT_DOUBLE_EQUAL(row->tokens.high, 0.125e9 / bytes, 0.01 * row->tokens.high);
        CU_ASSERT_DOUBLE_EQUAL(row->memory_share.low, 1, 0.01);
    }
    arena_free(arena);
}

/* With memory that costs nothing, half the clock is half the speed but for barriers. */
static void test_arithmetic_binds(void)
{
    Arena *arena = arena_new();
    const Plan *plan = plan_of(arena, DTYPE_Q8, TARGET_X86_64_VNNI);
    Prediction fast = predict(arena, plan, "xeon-2,clock=3,bandwidth=90000", 1, 512);
    Prediction slow = predict(arena, plan, "xeon-2,clock=1.5,bandwidth=90000", 1, 512);
    for (int i = 0; i < fast.n_rows; i++) {
        if (fast.rows[i].decode)
            continue;
        CU_ASSERT_DOUBLE_EQUAL(fast.rows[i].tokens.low, 2 * slow.rows[i].tokens.low, 0.01 * fast.rows[i].tokens.low);
        CU_ASSERT_DOUBLE_EQUAL(fast.rows[i].tokens.high, 2 * slow.rows[i].tokens.high, 0.01 * fast.rows[i].tokens.high);
    }
    arena_free(arena);
}

static void test_order(void)
{
    Arena *arena = arena_new();
    const Plan *q8 = plan_of(arena, DTYPE_Q8, TARGET_X86_64_VNNI), *f32 = plan_of(arena, DTYPE_F32, TARGET_X86_64_VNNI);
    Prediction p = predict(arena, q8, "xeon-2", 2, 4096), wide = predict(arena, f32, "xeon-2", 2, 4096);
    CU_ASSERT_EQUAL(p.n_rows, 8);
    for (int i = 0; i < p.n_rows; i++) {
        CU_ASSERT(p.rows[i].tokens.low > 0 && p.rows[i].tokens.low < p.rows[i].tokens.high);
        CU_ASSERT(p.rows[i].tokens.high > wide.rows[i].tokens.high);
    }
    CU_ASSERT(row_of(&p, true, 1, 512)->tokens.high > row_of(&p, true, 2, 512)->tokens.high);
    CU_ASSERT(row_of(&p, false, 1, 4096)->tokens.low > row_of(&p, false, 2, 4096)->tokens.low);
    arena_free(arena);
}

/* The words say that it is a prediction, the JSON is JSON. */
static void test_printed(void)
{
    Arena *arena = arena_new();
    const Plan *plan = plan_of(arena, DTYPE_Q8, TARGET_X86_64_VNNI);
    Prediction p = predict(arena, plan, "xeon-2", 3, 4096);
    Text text = { 0 }, json = { 0 };
    prediction_print(&p, 5000000000, &text);
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "prediction, not measured: xeon-2"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "needs 5.00 of 8 GB: more than half"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "There are 2 cores: more threads take turns"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "bench/README.md"));
    prediction_print_json(&p, &json);
    CU_ASSERT_PTR_NOT_NULL(strstr(json.data, "\"prediction\": {\"measured\": false, \"device\": \"xeon-2\""));
    text_free(&text);
    text_free(&json);
    arena_free(arena);
}

static const UnitTest tests[] = {
    { "every device and its rates", test_tables },
    { "what --device takes", test_option },
    { "which code runs there", test_code },
    { "threads share work equally", test_equal_shares },
    { "memory binds", test_memory_binds },
    { "arithmetic binds", test_arithmetic_binds },
    { "wider types and more experts are slower", test_order },
    { "the words", test_printed },
};

UNIT_MAIN("predict", tests)
