/* Times and checks prefill's memory-bound kernels and the scan on a GPU, each alone, through the driver.
 *
 *   scan_bench FOLDER [TOKENS...]
 *
 * FOLDER/list has a line "KIND FILE LABEL [BLOCK_CHANNELS STAGES TILE_TOKENS]" for each kernel: KIND norm, route,
 * group, conv1d, spread or scan; FILE the PTX of one instance for d_model 1024, 2048 channels, 16 states, 8 experts,
 * top-2, f16, and the least strides (d_model or channels; 96 for x_proj's rows, 512 for spread's; that of a scan's z
 * is in its name). Output: a line for each kernel and number of tokens (8192 and 32768) with the median time, the
 * bytes it must move over that time and their share of a copy measured in the same run; for the scan also its share
 * of the bound that exponentials set. The first number of tokens is checked against loops in double. Exit code: 0 ok,
 * 1 a result is wrong, 3 the environment.
 *
 * Build: cc -std=c17 -O2 -D_GNU_SOURCE scan_bench.c -o scan_bench -ldl -lm
 */
#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    D_MODEL = 1024, CHANNELS = 2048, STATES = 16, EXPERTS = 8, TOP_K = 2, TAPS = 4, RANK = 64, X_PROJ = 96,
    SPREAD = EXPERTS * RANK, POOL = 1000003, ROUNDS = 11, COPY_LEN = 1 << 30, MAX_TOKENS = 32768,
};

typedef uint64_t Address;
typedef int Result;
typedef void *Handle;

static Result (*cu_init)(unsigned), (*cu_device_get)(int *, int), (*cu_retain)(Handle *, int);
static Result (*cu_set_current)(Handle), (*cu_device_attribute)(int *, int, int), (*cu_device_name)(char *, int, int);
static Result (*cu_load)(Handle *, const void *, unsigned, int *, void **), (*cu_unload)(Handle);
static Result (*cu_function)(Handle *, Handle, const char *), (*cu_attribute)(Handle, int, int);
static Result (*cu_alloc)(Address *, size_t), (*cu_clear)(Address, unsigned char, size_t);
static Result (*cu_to_device)(Address, const void *, size_t), (*cu_to_host)(void *, Address, size_t);
static Result (*cu_on_device)(Address, Address, size_t);
static Result (*cu_launch)(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle,
                           void **, void **);
static Result (*cu_event)(Handle *, unsigned), (*cu_record)(Handle, Handle), (*cu_elapsed)(float *, Handle, Handle);
static Result (*cu_sync)(void), (*cu_error_name)(Result, const char **);

static const struct { void *function; const char *name; } symbols[] = {
    { &cu_init, "cuInit" }, { &cu_device_get, "cuDeviceGet" }, { &cu_retain, "cuDevicePrimaryCtxRetain" },
    { &cu_set_current, "cuCtxSetCurrent" }, { &cu_load, "cuModuleLoadDataEx" }, { &cu_unload, "cuModuleUnload" },
    { &cu_function, "cuModuleGetFunction" }, { &cu_attribute, "cuFuncSetAttribute" }, { &cu_alloc, "cuMemAlloc_v2" },
    { &cu_to_device, "cuMemcpyHtoD_v2" }, { &cu_to_host, "cuMemcpyDtoH_v2" }, { &cu_on_device, "cuMemcpyDtoD_v2" },
    { &cu_clear, "cuMemsetD8_v2" }, { &cu_launch, "cuLaunchKernel" }, { &cu_sync, "cuCtxSynchronize" },
    { &cu_event, "cuEventCreate" }, { &cu_record, "cuEventRecord" }, { &cu_elapsed, "cuEventElapsedTime" },
    { &cu_error_name, "cuGetErrorName" }, { &cu_device_attribute, "cuDeviceGetAttribute" },
    { &cu_device_name, "cuDeviceGetName" },
};

#define TRY(call) try_call(call, #call)
static void try_call(Result result, const char *what)
{
    if (result == 0)
        return;
    const char *name = "?";
    cu_error_name(result, &name);
    fprintf(stderr, "scan_bench: %s: %s\n", what, name);
    exit(3);
}

/* ---- values: element i of a buffer is pool[i % POOL], mapped to a range ---- */

static float pool[POOL];

static void fill_pool(void)
{
    uint64_t state = 88172645463325252u;
    for (int i = 0; i < POOL; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        pool[i] = (float)(state >> 40) * 0x1p-23f - 1;
    }
}

static double pooled(int64_t i) { return (double)pool[i % POOL]; }

static uint16_t to_half(float f)           /* of the pool's numbers: no overflow, tiny ones to 0 */
{
    const double magnitude = fabs((double)f);
    if (magnitude < 0x1p-14)
        return (uint16_t)((f < 0 ? 0x8000 : 0) | (int)nearbyint(magnitude * 0x1p24));
    int exponent;
    const int fraction = (int)nearbyint(frexp(magnitude, &exponent) * 2048);
    return (uint16_t)((f < 0 ? 0x8000 : 0) | (((exponent + 14) << 10) + fraction - 1024));
}

static double from_half(uint16_t h)
{
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const double magnitude = exponent == 31 ? NAN : exponent ? ldexp(1024 + fraction, exponent - 25)
                                                             : ldexp(fraction, -24);
    return h >> 15 ? -magnitude : magnitude;
}

static double pooled_half(int64_t i) { return from_half(to_half(pool[i % POOL])); }

typedef enum { F32, NEGATIVE, DT, HALF } Fill;           /* the last two of 16 bits */
static uint16_t dt_half(int64_t i) { return to_half(expf(2.5f * pool[i % POOL] - 4)); }          /* 0.0015 to 0.22 */
static double a_value(int64_t i) { return -8.5 - 8 * pooled(i); }                                /* 2^(Δ a) */

static Address make_buffer(Fill fill, size_t count)
{
    const size_t len = fill >= DT ? 2 : 4;
    unsigned char *host = malloc(len * POOL);
    for (int i = 0; i < POOL; i++)
        if (fill >= DT)
            ((uint16_t *)host)[i] = fill == DT ? dt_half(i) : to_half(pool[i]);
        else
            ((float *)host)[i] = fill == NEGATIVE ? (float)a_value(i) : pool[i];
    Address buffer;
    TRY(cu_alloc(&buffer, len * count + 256));
    const size_t first = count < POOL ? count : POOL;
    TRY(cu_to_device(buffer, host, len * first));
    for (size_t done = first; done < count; done += POOL)
        TRY(cu_on_device(buffer + len * done, buffer, len * (count - done < POOL ? count - done : POOL)));
    free(host);
    return buffer;
}

static Address make_empty(size_t len)
{
    Address buffer;
    TRY(cu_alloc(&buffer, len));
    TRY(cu_clear(buffer, 0, len));
    return buffer;
}

static void *fetch(Address buffer, size_t len)
{
    void *host = malloc(len);
    TRY(cu_to_host(host, buffer, len));
    return host;
}

/* ---- kernels ---- */

typedef struct { Handle module, function; int n_threads, z_stride; } Kernel;     /* of a scan: in its name, zs… */

static Kernel load_text(const char *ptx, const char *label)
{
    Kernel kernel = { 0 };
    char name[256];
    const char *entry = strstr(ptx, ".entry "), *threads = strstr(ptx, ".maxntid ");
    if (!entry) {
        fprintf(stderr, "scan_bench: no kernel in %s\n", label);
        exit(3);
    }
    const size_t len = strcspn(entry + 7, "( \t\n");
    snprintf(name, sizeof name, "%.*s", (int)len, entry + 7);
    kernel.n_threads = threads ? atoi(threads + 9) : 256;
    const char *stride = strstr(name, "_zs");
    kernel.z_stride = stride ? atoi(stride + 3) : CHANNELS;
    TRY(cu_load(&kernel.module, ptx, 0, NULL, NULL));
    TRY(cu_function(&kernel.function, kernel.module, name));
    return kernel;
}

static Kernel load_file(const char *folder, const char *file)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *in = fopen(path, "rb");
    if (!in) {
        perror(path);
        exit(3);
    }
    char *text = calloc(1, 4 << 20);
    if (fread(text, 1, (4 << 20) - 1, in) == 0)
        exit(3);
    fclose(in);
    const Kernel kernel = load_text(text, path);
    free(text);
    return kernel;
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The median of a few launches, in ms. */
static double time_launch(Kernel kernel, int grid_x, int grid_y, int shared_len, void **args)
{
    enum { MAX_DYNAMIC_SHARED = 8 };
    static Handle begin, end;
    float ms[ROUNDS];
    if (!begin) {
        TRY(cu_event(&begin, 0));
        TRY(cu_event(&end, 0));
    }
    if (shared_len > 48 * 1024)
        TRY(cu_attribute(kernel.function, MAX_DYNAMIC_SHARED, shared_len));
    for (int i = -2; i < ROUNDS; i++) {
        TRY(cu_record(begin, NULL));
        TRY(cu_launch(kernel.function, (unsigned)grid_x, (unsigned)grid_y, 1, (unsigned)kernel.n_threads, 1, 1,
                      (unsigned)shared_len, NULL, args, NULL));
        TRY(cu_record(end, NULL));
        TRY(cu_sync());
        if (i >= 0)
            TRY(cu_elapsed(&ms[i], begin, end));
    }
    qsort(ms, ROUNDS, sizeof *ms, by_value);
    return (double)ms[ROUNDS / 2];
}

/* ---- ceilings: a copy, and exponentials ---- */

static const char ceiling_ptx[] =
    ".version 7.4\n.target sm_80\n.address_size 64\n"
    ".visible .entry copy(.param .u64 to, .param .u64 from) .maxntid 512, 1, 1 {\n"
    ".reg .b64 %d<4>; .reg .b32 %r<20>; .reg .b64 %o;\n"
    "ld.param.u64 %d0, [to]; ld.param.u64 %d1, [from];\n"
    "mov.u32 %r0, %ctaid.x; mov.u32 %r1, %tid.x; mad.lo.u32 %r0, %r0, 2048, %r1; mul.wide.u32 %o, %r0, 16;\n"
    "add.u64 %d0, %d0, %o; add.u64 %d1, %d1, %o;\n"
    "ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%d1]; ld.global.v4.u32 {%r6, %r7, %r8, %r9}, [%d1+8192];\n"
    "ld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%d1+16384];\n"
    "ld.global.v4.u32 {%r14, %r15, %r16, %r17}, [%d1+24576];\n"
    "st.global.v4.u32 [%d0], {%r2, %r3, %r4, %r5}; st.global.v4.u32 [%d0+8192], {%r6, %r7, %r8, %r9};\n"
    "st.global.v4.u32 [%d0+16384], {%r10, %r11, %r12, %r13};\n"
    "st.global.v4.u32 [%d0+24576], {%r14, %r15, %r16, %r17};\n"
    "ret; }\n";

/* 8 chains of 4096 exponentials a thread */
static const char exponential_ptx[] =
    ".version 7.4\n.target sm_80\n.address_size 64\n"
    ".visible .entry exponentials(.param .u64 to) .maxntid 512, 1, 1 {\n"
    ".reg .b64 %d<2>; .reg .b32 %r<2>; .reg .f32 %f<9>; .reg .pred %p;\n"
    "mov.u32 %r0, %tid.x; cvt.rn.f32.u32 %f0, %r0; mov.u32 %r1, 512; mul.f32 %f0, %f0, 0fb8d1b717;\n"
    "mul.f32 %f1, %f0, %f0; mul.f32 %f2, %f1, %f0; mul.f32 %f3, %f2, %f0; mul.f32 %f4, %f3, %f0;\n"
    "mul.f32 %f5, %f4, %f0; mul.f32 %f6, %f5, %f0; mul.f32 %f7, %f6, %f0;\n"
    "again:\n"
#define EX2(i) "ex2.approx.ftz.f32 %f" #i ", %f" #i ";\n"
#define ALL EX2(0) EX2(1) EX2(2) EX2(3) EX2(4) EX2(5) EX2(6) EX2(7)
    ALL ALL ALL ALL ALL ALL ALL ALL
    "sub.u32 %r1, %r1, 1; setp.ne.u32 %p, %r1, 0; @%p bra again;\n"
    "add.f32 %f0, %f0, %f1; add.f32 %f2, %f2, %f3; add.f32 %f4, %f4, %f5; add.f32 %f6, %f6, %f7;\n"
    "add.f32 %f0, %f0, %f2;\n"
    "add.f32 %f4, %f4, %f6; add.f32 %f0, %f0, %f4; setp.eq.f32 %p, %f0, 0f42f6e979;\n"
    "ld.param.u64 %d0, [to]; @%p st.global.f32 [%d0], %f0; ret; }\n";

static double copy_rate, exponential_rate;       /* bytes, exponentials a ms */

static void measure_ceilings(int n_processors)
{
    Address a = make_empty(COPY_LEN), b = make_empty(COPY_LEN);
    void *copy_args[] = { &a, &b }, *exponential_args[] = { &a };
    const Kernel copy = load_text(ceiling_ptx, "copy"), exponentials = load_text(exponential_ptx, "exponentials");
    copy_rate = 2.0 * COPY_LEN / time_launch(copy, COPY_LEN / 32768, 1, 0, copy_args);
    exponential_rate = 2.0 * n_processors * 512 * 64 * 512 /
                       time_launch(exponentials, 2 * n_processors, 1, 0, exponential_args);
    printf("copy %.2f TB/s, exponentials %.2f T/s (%d multiprocessors)\n", copy_rate * 1e-9, exponential_rate * 1e-9,
           n_processors);
}

static bool all_right = true;

static void report(const char *label, int n_tokens, double ms, double bytes, double exponentials, const char *verdict)
{
    printf("%-26s %6d  %8.4f ms  %6.0f GB/s  %3.0f %% of copy", label, n_tokens, ms, bytes / ms * 1e-6,
           100 * bytes / ms / copy_rate);
    if (exponentials > 0)
        printf("  %3.0f %% of exp", 100 * exponentials / ms / exponential_rate);
    printf("  %s\n", verdict);
    fflush(stdout);
}

/* Worst |got - want| over the largest |want|, and the verdict on it. */
typedef struct { double error, largest; } Worst;
static void compare(Worst *worst, double got, double want)
{
    const double error = fabs(got - want);
    if (!(error <= worst->error))
        worst->error = error;
    worst->largest = fmax(worst->largest, fabs(want));
}
static const char *verdict(Worst worst, double tolerance)
{
    static char text[100];
    const bool good = worst.error <= tolerance * worst.largest;
    all_right &= good;
    snprintf(text, sizeof text, "error %.1e of %.2g: %s", worst.error / worst.largest, tolerance,
             good ? "ok" : "WRONG");
    return text;
}

/* ---- data ---- */

typedef struct {
    Address x32, pairs, x16, dt, bc, pairs16, a, vector, router, proj, gates, experts, ends;         /* read */
    Address out, ints, floats, places, totals, state, slots;                                         /* written */
} Data;

static Data make_data(void)
{
    const size_t t = MAX_TOKENS;
    Data data = {
        .x32 = make_buffer(F32, t * D_MODEL), .pairs = make_buffer(HALF, t * TOP_K * D_MODEL),
        .x16 = make_buffer(HALF, t * CHANNELS), .dt = make_buffer(DT, t * CHANNELS),
        .bc = make_buffer(F32, t * 2 * STATES), .pairs16 = make_buffer(HALF, t * TOP_K * 2 * CHANNELS),
        .a = make_buffer(NEGATIVE, CHANNELS * STATES), .vector = make_buffer(F32, CHANNELS * TAPS),
        .router = make_buffer(F32, EXPERTS * CHANNELS), .proj = make_buffer(F32, t * TOP_K * X_PROJ),
        .gates = make_buffer(F32, t * TOP_K), .experts = make_empty(4 * t * TOP_K),
        .ends = make_empty(64), .out = make_empty(2 * t * CHANNELS),
        .ints = make_empty(4 * t * TOP_K), .floats = make_empty(4 * t * 2 * STATES),
        .places = make_empty(4 * t * EXPERTS), .totals = make_empty(64), .state = make_empty(4 * CHANNELS * STATES),
        .slots = make_empty(64),
    };
    int32_t *experts = malloc(4 * t * TOP_K);
    for (size_t i = 0; i < t; i++) {
        const int first = (int)((pool[i % POOL] + 1) * 3.49f);
        const int second = first + 1 + (int)((pool[(i + 77) % POOL] + 1) * 0.499f * (float)(7 - first));
        experts[2 * i] = first, experts[2 * i + 1] = second;
    }
    TRY(cu_to_device(data.experts, experts, 4 * t * TOP_K));
    free(experts);
    return data;
}

/* ---- one kernel each ---- */

static int top_k = TOP_K, one = 1;
static int64_t no_stride = 0;

typedef struct { int channels, stages, tile; } ScanBlock;

static int scan_shared_len(ScanBlock of)
{
    const int b = of.channels, tile = of.tile, steps = (STATES * b + 31) / 32;
    const int bc = 8 * (tile + 4) * steps * 32 / b, parts = 128 * (tile + 2);
    const int own = 2 * tile * b * (TOP_K + 3) + 2 * (bc < parts ? parts : bc) + 264 * steps;
    return of.stages * own + 4 * b;
}

static const char *check_scan(const Data *data, int n_tokens, int64_t z_stride)
{
    static const int channels[] = { 0, 1, 7, 8, 15, 16, 1021, 2040, 2047 };
    uint16_t *y = fetch(data->out, 2 * (size_t)n_tokens * CHANNELS);
    Worst worst = { 0, 0 };
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++) {
        const int64_t c = channels[i];
        double s[STATES] = { 0 };
        for (int64_t t = 0; t < n_tokens; t++) {
            const double dt = from_half(dt_half(t * CHANNELS + c)), x = pooled_half(t * CHANNELS + c);
            double sum = pooled(c) * x, z = 0;
            for (int n = 0; n < STATES; n++) {
                s[n] *= exp2(dt * (double)(float)a_value(c * STATES + n));
                s[n] += dt * x * pooled(t * 2 * STATES + n);
                sum += pooled(t * 2 * STATES + STATES + n) * s[n];
            }
            for (int j = 0; j < TOP_K; j++)
                z += pooled_half((t * TOP_K + j) * z_stride + c);
            compare(&worst, from_half(y[t * CHANNELS + c]), sum * z / (1 + exp(-z)));
        }
    }
    free(y);
    return verdict(worst, 1e-3);
}

static void run_scan(Data *data, Kernel kernel, const char *label, ScanBlock block, int n_tokens, bool check)
{
    void *args[] = { &data->out, &data->dt, &data->x16, &data->bc, &data->pairs16, &data->a, &data->vector,
                     &data->state, &data->slots, &data->ends, &no_stride, &n_tokens, &top_k };
    TRY(cu_to_device(data->ends, &n_tokens, sizeof n_tokens));
    const int blocks = CHANNELS / block.channels, shared_len = scan_shared_len(block);
    const double ms = time_launch(kernel, blocks, 1, shared_len, args);
    if (check) {                                     /* once more, from a state of zeros */
        TRY(cu_clear(data->state, 0, 4 * CHANNELS * STATES));
        TRY(cu_launch(kernel.function, (unsigned)blocks, 1, 1, (unsigned)kernel.n_threads, 1, 1, (unsigned)shared_len,
                      NULL, args, NULL));
        TRY(cu_sync());
    }
    const double elements = (double)n_tokens * CHANNELS;
    report(label, n_tokens, ms, elements * (2 + 2 + 2 * TOP_K + 2) + (double)n_tokens * 8 * STATES, elements * STATES,
           check ? check_scan(data, n_tokens, kernel.z_stride) : "");
}

static const char *check_conv1d(const Data *data, int n_tokens)
{
    uint16_t *out = fetch(data->out, 2 * (size_t)n_tokens * CHANNELS);
    Worst worst = { 0, 0 };
    for (int64_t t = TAPS; t < n_tokens; t++)
        for (int64_t c = t % 61; c < CHANNELS; c += 61) {
            double y = pooled(c);
            for (int j = 0; j < TAPS; j++)
                for (int s = 0; s < TOP_K; s++)
                    y += pooled(c * TAPS + j) * pooled_half(((t + j - TAPS + 1) * TOP_K + s) * CHANNELS + c);
            compare(&worst, from_half(out[t * CHANNELS + c]), y / (1 + exp(-y)));
        }
    free(out);
    return verdict(worst, 1e-3);
}

static void run_conv1d(Data *data, Kernel kernel, const char *label, int n_tokens, bool check)
{
    void *args[] = { &data->out, &data->pairs16, &data->vector, &data->vector, &data->state, &data->slots, &data->ends,
                     &no_stride, &one, &n_tokens, &top_k };
    const double ms = time_launch(kernel, CHANNELS / 512, (n_tokens + 15) / 16, 0, args);
    report(label, n_tokens, ms, 2.0 * n_tokens * CHANNELS * (TOP_K + 1), 0, check ? check_conv1d(data, n_tokens) : "");
}

/* Gates of the rows i · 97, or of x normalised, whose experts are as the GPU chose them. */
static const char *check_route(const Data *data, int n_tokens, bool is_norm, const float *x)
{
    const int n_in = is_norm ? D_MODEL : CHANNELS;
    int32_t *experts = fetch(data->ints, 4 * (size_t)n_tokens * TOP_K);
    float *gates = fetch(data->floats, 4 * (size_t)n_tokens * TOP_K);
    uint16_t *out = fetch(data->out, 2 * (size_t)n_tokens * D_MODEL);
    Worst worst = { 0, 1 }, worst_out = { 0, 0 };
    for (int64_t t = 0; t < n_tokens; t += 97) {
        double u[CHANNELS], p[EXPERTS], largest = -INFINITY, sum = 0, squares = 0;
        for (int i = 0; i < n_in; i++) {
            u[i] = is_norm ? (double)x[t * D_MODEL + i] : pooled_half(t * CHANNELS + i);
            squares += u[i] * u[i];
        }
        for (int i = 0; is_norm && i < n_in; i++) {
            u[i] *= pooled(i) / sqrt(squares / n_in + 1e-5);
            compare(&worst_out, from_half(out[t * D_MODEL + i]), u[i]);
        }
        for (int e = 0; e < EXPERTS; e++) {
            p[e] = 0;
            for (int i = 0; i < n_in; i++)
                p[e] += u[i] * pooled((int64_t)e * n_in + i);
            largest = fmax(largest, p[e]);
        }
        for (int e = 0; e < EXPERTS; e++)
            sum += p[e] = exp(p[e] - largest);
        for (int s = 0; s < TOP_K; s++) {
            const int chosen = experts[t * TOP_K + s];
            int n_before = 0;
            for (int e = 0; e < EXPERTS; e++)
                n_before += chosen < 0 || chosen >= EXPERTS || p[e] > p[chosen] * (1 + 1e-3);
            const bool is_right = n_before < TOP_K;
            compare(&worst, is_right ? (double)gates[t * TOP_K + s] : NAN, is_right ? p[chosen] / sum : 0);
        }
    }
    free(experts);
    free(gates);
    free(out);
    const bool is_out_wrong = is_norm && !(worst_out.error <= 1e-3 * worst_out.largest);
    return verdict(is_out_wrong ? worst_out : worst, 1e-3);
}

/* Totals go on growing while it is timed: only the first pairs find places. */
static void run_route(Data *data, Kernel kernel, const char *label, bool is_norm, int n_tokens, bool check)
{
    const int shared_len = is_norm ? 4 * EXPERTS * D_MODEL + 96 * EXPERTS : 8192 + 192 * EXPERTS;
    const int blocks = is_norm ? (n_tokens + 15) / 16 : (n_tokens + 31) / 32;
    void *norm_args[] = { &data->x32, &data->pairs, &data->vector, &data->router, &data->out, &data->ints,
                          &data->floats, &data->places, &data->totals, &data->ends, &one, &n_tokens, &n_tokens, &top_k,
                          &top_k };
    void *route_args[] = { &data->x16, &data->router, &data->ints, &data->floats, &data->places, &data->totals,
                           &n_tokens, &top_k };
    const double ms = time_launch(kernel, blocks, 1, shared_len, is_norm ? norm_args : route_args);
    float *sums = check && is_norm ? fetch(data->x32, 4 * (size_t)n_tokens * D_MODEL) : NULL;
    const double bytes = is_norm ? (double)n_tokens * D_MODEL * (4 + 2 * TOP_K + 4 + 2) : 2.0 * n_tokens * CHANNELS;
    report(label, n_tokens, ms, bytes, 0, check ? check_route(data, n_tokens, is_norm, sums) : "");
    free(sums);
}

static void run_spread(Data *data, Kernel kernel, const char *label, int n_tokens, bool check)
{
    void *args[] = { &data->out, &data->floats, &data->proj, &data->experts, &data->gates, &n_tokens, &top_k };
    const double ms = time_launch(kernel, (n_tokens + 7) / 8, 1, 0, args);
    Worst worst = { 0, 0 };
    if (check) {
        uint16_t *out = fetch(data->out, 2 * (size_t)n_tokens * SPREAD);
        int32_t *experts = fetch(data->experts, 4 * (size_t)n_tokens * TOP_K);
        for (int64_t t = 0; t < n_tokens; t += 13)
            for (int j = 0; j < SPREAD; j++) {
                double want = 0;
                for (int64_t p = t * TOP_K; p < (t + 1) * TOP_K; p++)
                    if (experts[p] == j / RANK)
                        want = pooled(p) * pooled(p * X_PROJ + j % RANK);
                compare(&worst, from_half(out[t * SPREAD + j]), want);
            }
        free(out);
        free(experts);
    }
    report(label, n_tokens, ms, (double)n_tokens * (TOP_K * 4 * X_PROJ + 2 * SPREAD + 8 * STATES), 0,
           check ? verdict(worst, 1e-3) : "");
}

/* ---- main ---- */

static void open_driver(void)
{
    enum { PROCESSORS = 16 };
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    for (size_t i = 0; driver && i < sizeof symbols / sizeof *symbols; i++) {
        void *function = dlsym(driver, symbols[i].name);
        if (function)
            memcpy(symbols[i].function, &function, sizeof function);
        else
            driver = NULL;
    }
    if (!driver) {
        fprintf(stderr, "scan_bench: %s\n", dlerror());
        exit(3);
    }
    int device, n_processors;
    Handle context;
    char name[100];
    TRY(cu_init(0));
    TRY(cu_device_get(&device, 0));
    TRY(cu_retain(&context, device));
    TRY(cu_set_current(context));
    TRY(cu_device_name(name, sizeof name, device));
    TRY(cu_device_attribute(&n_processors, PROCESSORS, device));
    printf("%s: ", name);
    measure_ceilings(n_processors);
}

static bool run_line(Data *data, const char *folder, const char *line, const int *tokens, int n)
{
    char kind[32], file[256], label[64];
    ScanBlock block = { 16, 12, 24 };
    if (sscanf(line, "%31s %255s %63s %d %d %d", kind, file, label, &block.channels, &block.stages, &block.tile) < 3)
        return false;
    const Kernel kernel = load_file(folder, file);
    for (int i = 0; i < n; i++) {
        const bool check = i == 0;
        if (strcmp(kind, "scan") == 0)
            run_scan(data, kernel, label, block, tokens[i], check);
        else if (strcmp(kind, "conv1d") == 0)
            run_conv1d(data, kernel, label, tokens[i], check);
        else if (strcmp(kind, "norm") == 0 || strcmp(kind, "route") == 0)
            run_route(data, kernel, label, kind[0] == 'n', tokens[i], check);
        else if (strcmp(kind, "spread") == 0)
            run_spread(data, kernel, label, tokens[i], check);
        else
            return false;
    }
    TRY(cu_unload(kernel.module));
    return true;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 10) {
        fprintf(stderr, "usage: scan_bench FOLDER [TOKENS...]\n");
        return 3;
    }
    int tokens[8] = { 8192, 32768 }, n = 2;
    for (int i = 2; i < argc; i++)
        tokens[n = i - 2] = atoi(argv[i]), n++;
    char path[1024], line[1024];
    snprintf(path, sizeof path, "%s/list", argv[1]);
    FILE *list = fopen(path, "r");
    if (!list) {
        perror(path);
        return 3;
    }
    fill_pool();
    open_driver();
    Data data = make_data();
    while (fgets(line, sizeof line, list))
        if (line[0] != '#' && line[0] != '\n' && !run_line(&data, argv[1], line, tokens, n)) {
            fprintf(stderr, "scan_bench: what is this line: %s", line);
            return 3;
        }
    fclose(list);
    return all_right ? 0 : 1;
}
