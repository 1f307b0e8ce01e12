/* gemm_bench: times and checks instances of the GPU matrix products on the machine's first GPU.
 *
 * Input, on stdin: lines "PTX-FILE KERNEL TOKENS TOP_K GRID", KERNEL an instance name, which gives every parameter;
 * GRID: t, a block for each tile; pN, N for each multiprocessor; bN, N blocks. Options: --hold SECONDS, run each about
 * so long, to watch clocks and power; --zeros, all of `in` is 0, which takes less power; --once, check but do not time.
 * Output: a line each: time, TFLOP/s, worst error over its tolerance (at most 1) against float64 on the host, over all
 * outputs of small products and samples of large ones, and whether a kernel of gemm_h100 gave the bits of the one
 * before it with the same product. Needs the driver only; gemm.sh makes input.
 * Exit code: 0 ok, 1 some result is wrong, 3 no GPU or a driver error.
 */
#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- the driver ---- */

typedef struct { _Alignas(64) uint64_t opaque[16]; } TensorMap;
typedef uint64_t DevicePointer;

static struct {
    int (*cuInit)(unsigned);
    int (*cuDeviceGet)(int *, int);
    int (*cuDeviceGetAttribute)(int *, int, int);
    int (*cuDevicePrimaryCtxRetain)(void **, int);
    int (*cuCtxSetCurrent)(void *);
    int (*cuCtxSynchronize)(void);
    int (*cuModuleLoadDataEx)(void **, const void *, unsigned, const int *, void **);
    int (*cuModuleUnload)(void *);
    int (*cuModuleGetFunction)(void **, void *, const char *);
    int (*cuFuncGetAttribute)(int *, int, void *);
    int (*cuFuncSetAttribute)(void *, int, int);
    int (*cuLaunchKernel)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
        unsigned, void *, void **, void **);
    int (*cuMemAlloc_v2)(DevicePointer *, size_t);
    int (*cuMemFree_v2)(DevicePointer);
    int (*cuMemcpyHtoD_v2)(DevicePointer, const void *, size_t);
    int (*cuMemcpyDtoH_v2)(void *, DevicePointer, size_t);
    int (*cuMemsetD8_v2)(DevicePointer, unsigned char, size_t);
    int (*cuEventCreate)(void **, unsigned);
    int (*cuEventRecord)(void *, void *);
    int (*cuEventElapsedTime)(float *, void *, void *);
    int (*cuGetErrorString)(int, const char **);
    int (*cuTensorMapEncodeTiled)(TensorMap *, int, unsigned, void *, const uint64_t *, const uint64_t *,
        const unsigned *, const unsigned *, int, int, int, int);
} cu;

static void check(int code, const char *what)
{
    const char *text = "unknown";
    if (code == 0)
        return;
    if (cu.cuGetErrorString)
        cu.cuGetErrorString(code, &text);
    fprintf(stderr, "gemm_bench: %s: %s (%d)\n", what, text ? text : "unknown", code);
    exit(3);
}
#define CU(name, ...) check(cu.name(__VA_ARGS__), #name)

static void open_driver(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) {
        fprintf(stderr, "gemm_bench: %s\n", dlerror());
        exit(3);
    }
#define FIND(name) \
    if (!(*(void **)&cu.name = dlsym(library, #name))) \
        fprintf(stderr, "gemm_bench: no %s\n", #name), exit(3)
    FIND(cuInit); FIND(cuDeviceGet); FIND(cuDeviceGetAttribute); FIND(cuDevicePrimaryCtxRetain); FIND(cuCtxSetCurrent);
    FIND(cuCtxSynchronize); FIND(cuModuleLoadDataEx); FIND(cuModuleUnload); FIND(cuModuleGetFunction);
    FIND(cuFuncGetAttribute); FIND(cuFuncSetAttribute); FIND(cuLaunchKernel); FIND(cuMemAlloc_v2); FIND(cuMemFree_v2);
    FIND(cuMemcpyHtoD_v2); FIND(cuMemcpyDtoH_v2); FIND(cuMemsetD8_v2); FIND(cuEventCreate); FIND(cuEventRecord);
    FIND(cuEventElapsedTime); FIND(cuGetErrorString); FIND(cuTensorMapEncodeTiled);
#undef FIND
}

/* ---- a product ---- */

typedef struct {
    char file[256], kernel[256], grid[16];
    int n_tokens, top_k;
    int n_in, n_out, in_stride, out_stride, n_experts, weight_dtype, act, in_pairs, out_kind, gated, has_bias, epilogue;
    int tile_rows, tile_columns, warp_columns, stages;
    bool is_h100;
} Case;

/* The value of a parameter in an instance name "gemm_i1024_o4096…", or 0. */
static int name_value(const char *name, const char *code)
{
    const size_t len = strlen(code);
    for (const char *p = strchr(name, '_'); p; p = strchr(p + 1, '_'))
        if (strncmp(p + 1, code, len) == 0 && p[1 + len] >= '0' && p[1 + len] <= '9')
            return atoi(p + 1 + len);
    return 0;
}

static bool read_case(const char *line, Case *c)
{
    memset(c, 0, sizeof *c);
    if (sscanf(line, "%255s %255s %d %d %15s", c->file, c->kernel, &c->n_tokens, &c->top_k, c->grid) != 5)
        return false;
    const struct { const char *code; int *to; } params[] = {
        { "i", &c->n_in }, { "o", &c->n_out }, { "is", &c->in_stride }, { "os", &c->out_stride },
        { "e", &c->n_experts },
        { "w", &c->weight_dtype }, { "a", &c->act }, { "ip", &c->in_pairs }, { "ok", &c->out_kind }, { "g", &c->gated },
        { "hb", &c->has_bias }, { "ep", &c->epilogue }, { "tr", &c->tile_rows }, { "tc", &c->tile_columns },
        { "wc", &c->warp_columns }, { "st", &c->stages },
    };
    for (size_t i = 0; i < sizeof params / sizeof *params; i++)
        *params[i].to = name_value(c->kernel, params[i].code);
    c->is_h100 = strncmp(c->kernel, "gemm_h100", 9) == 0;
    if (c->is_h100) {
        c->weight_dtype = c->act;
        c->tile_rows = 128;
    }
    return true;
}

/* The type of elements of out, as act says it; 0: float32. */
static int out_act(const Case *c) { return c->out_kind == 0 ? c->act : c->out_kind == 3 ? 2 : 0; }

enum { BIAS_EXPERTS = 8 };      /* whose gates there are without experts */

typedef struct {
    int64_t n_in_rows, n_out_rows, k;      /* k: padded */
    uint16_t *in;                          /* [n_in_rows][in_stride] */
    void *weights;                         /* [E][n_out][k] */
    float *scales, *bias, *gates;          /* [E][n_out], [has_bias or E][n_out], [pairs] */
    int32_t *slots, *totals, *experts;     /* slots [E][n_tokens] */
    void *out;                             /* [n_out_rows][out_stride], as it is before */
    size_t in_len, weights_len, scales_len, bias_len, pairs_len, slots_len, out_len;
} Data;

static uint64_t random_state = 1;
static bool zeros, once;        /* --zeros, --once */

static uint32_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 16);
}
/* About normal, variance 1: four uniform numbers. */
static float random_normal(void)
{
    const uint32_t a = random_bits(), b = random_bits();
    const float sum = (float)(a & 0xffff) + (float)(a >> 16) + (float)(b & 0xffff) + (float)(b >> 16);
    return (sum - 131070.0f) * (1.732f / 65536);
}

static uint16_t to_act(float x, int act)
{
    if (act == 2) {
        _Float16 half = (_Float16)x;
        uint16_t bits;
        memcpy(&bits, &half, 2);
        return bits;
    }
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float from_act(uint16_t bits, int act)
{
    if (act == 2) {
        _Float16 half;
        memcpy(&half, &bits, 2);
        return (float)half;
    }
    const uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
}

static void *allocate(size_t len)
{
    void *memory = calloc(len ? len : 1, 1);
    if (!memory)
        fprintf(stderr, "gemm_bench: no memory\n"), exit(3);
    return memory;
}

/* experts ascending in a token; expert 1 of more than 3 gets nothing. */
static void route(const Case *c, Data *d)
{
    const int n_dense = c->has_bias > 1 ? c->has_bias : BIAS_EXPERTS, top_k = c->top_k;
    const int n_routed = c->n_experts > 1 ? c->n_experts : n_dense;
    const int64_t n_pairs = (int64_t)c->n_tokens * top_k;
    for (int64_t t = 0; t < c->n_tokens; t++)
        for (int s = 0, e = -1; s < top_k; s++) {
            const int left = n_routed - e - 1 - (top_k - s - 1);
            e += 1 + (int)(random_bits() % (unsigned)left) * (s == top_k - 1 || random_bits() % 2);
            if (n_routed > 3 && e == 1 && n_routed - e - 1 >= top_k - s)
                e = 2;
            d->experts[t * top_k + s] = e;
        }
    for (int e = 0; e < c->n_experts; e++) {
        d->totals[e] = 0;
        for (int64_t p = 0; p < n_pairs && c->n_experts > 1; p++)
            if (d->experts[p] == e)
                d->slots[(int64_t)e * c->n_tokens + d->totals[e]++] = (int32_t)p;
    }
}

static void make_data(const Case *c, Data *d)
{
    const int64_t n_pairs = (int64_t)c->n_tokens * c->top_k;
    random_state = 88172645463325252u;
    d->k = (c->n_in + 63) / 64 * 64;
    d->n_out_rows = c->n_experts > 1 ? n_pairs : c->n_tokens;
    d->n_in_rows = c->n_experts > 1 && c->in_pairs ? n_pairs : c->n_tokens;
    d->in_len = (size_t)(d->n_in_rows * c->in_stride) * 2;
    d->weights_len = (size_t)(c->n_experts * c->n_out * d->k) * (c->weight_dtype == 3 ? 1 : 2);
    d->scales_len = (size_t)c->n_experts * c->n_out * 4;
    d->bias_len = (size_t)(c->has_bias > 1 ? c->has_bias : c->n_experts) * c->n_out * 4;
    d->pairs_len = (size_t)n_pairs * 4;
    d->slots_len = (size_t)c->n_experts * (size_t)c->n_tokens * 4;
    d->out_len = (size_t)(d->n_out_rows * c->out_stride) * (out_act(c) ? 2 : 4);
    d->in = allocate(d->in_len);
    d->weights = allocate(d->weights_len);
    d->scales = allocate(d->scales_len);
    d->bias = allocate(d->bias_len);
    d->gates = allocate(d->pairs_len);
    d->slots = allocate(d->slots_len);
    d->experts = allocate(d->pairs_len);
    d->totals = allocate((size_t)c->n_experts * 4);
    d->out = allocate(d->out_len);
    for (int64_t r = 0; r < d->n_in_rows; r++)
        for (int k = 0; k < c->in_stride; k++)            /* padding: NaN */
            d->in[r * c->in_stride + k] = k >= c->n_in ? 0xffff : zeros ? 0 : to_act(random_normal(), c->act);
    const float scale = 1 / sqrtf((float)c->n_in);
    for (int64_t r = 0; r < (int64_t)c->n_experts * c->n_out; r++)
        for (int64_t k = 0; k < c->n_in; k++) {
            if (c->weight_dtype == 3)
                ((int8_t *)d->weights)[r * d->k + k] = (int8_t)random_bits();
            else
                ((uint16_t *)d->weights)[r * d->k + k] = to_act(random_normal() * scale, c->act);
        }
    for (size_t i = 0; i < d->scales_len / 4; i++)
        d->scales[i] = scale * (1 + 0.1f * random_normal()) / 74;
    for (size_t i = 0; i < d->bias_len / 4; i++)
        d->bias[i] = random_normal();
    for (int64_t i = 0; i < n_pairs; i++)
        d->gates[i] = 0.1f + (float)(random_bits() & 0xffff) / 65536;
    route(c, d);
    if (c->out_kind == 2)
        for (int64_t i = 0; i < d->n_out_rows * c->out_stride; i++)
            ((float *)d->out)[i] = random_normal();
    else
        memset(d->out, 0xa5, d->out_len);
}

/* Σ in · weights of row `row` of out and a row of weights, and Σ |…|. */
static double product(const Case *c, const Data *d, int64_t row, int expert, int column, double *size)
{
    const int64_t from = c->n_experts > 1 && !c->in_pairs ? row / c->top_k : row;
    const int64_t at = (int64_t)expert * c->n_out + column;
    double sum = 0;
    *size = 0;
    for (int k = 0; k < c->n_in; k++) {
        const double w = c->weight_dtype == 3 ? (double)((const int8_t *)d->weights)[at * d->k + k] * d->scales[at]
                                              : (double)from_act(((const uint16_t *)d->weights)[at * d->k + k], c->act);
        const double term = w * from_act(d->in[from * c->in_stride + k], c->act);
        sum += term;
        *size += fabs(term);
    }
    if (c->has_bias == 1)
        sum += d->bias[at];
    if (c->has_bias > 1)
        for (int64_t p = row * c->top_k; p < (row + 1) * c->top_k; p++)
            sum += (double)d->gates[p] * d->bias[(int64_t)d->experts[p] * c->n_out + column];
    return sum;
}

/* |out - what it should be| over the tolerance; columns of out beyond n must be untouched. */
static double output_error(const Case *c, const Data *d, const void *out, int64_t row, int column)
{
    const int64_t at = row * c->out_stride + column;
    const int len = out_act(c) ? 2 : 4;
    if (column >= (c->epilogue == 1 ? c->n_out / 2 : c->n_out))
        return memcmp((const char *)out + at * len, (const char *)d->out + at * len, (size_t)len) == 0 ? 0 : INFINITY;
    const int expert = c->n_experts > 1 ? d->experts[row] : 0;
    double size, value, other_size = 0;
    if (c->epilogue == 1) {
        const double gate = product(c, d, row, expert, 2 * column, &size);
        const double up = product(c, d, row, expert, 2 * column + 1, &other_size);
        size = size * (1 + fabs(up)) + other_size * (1 + fabs(gate));
        value = gate / (1 + exp(-gate)) * up;
    } else {
        value = product(c, d, row, expert, column, &size);
        if (c->epilogue == 2)
            value = fmax(value, 0) + log1p(exp(-fabs(value)));
    }
    if (c->gated)
        value *= d->gates[row], size *= d->gates[row];
    if (c->out_kind == 2)
        value += ((const float *)d->out)[at];
    const double got = len == 2 ? from_act(((const uint16_t *)out)[at], out_act(c)) : ((const float *)out)[at];
    const double rounding = len == 4 ? 2e-6 : out_act(c) == 2 ? 1.0 / 2048 : 1.0 / 256;
    const double tolerance = rounding * 1.01 * fabs(value) + 1e-6 * size + 1e-7;
    const double error = fabs(got - value) / tolerance;
    return error <= 1 ? error : error > 1 ? error : INFINITY;
}

static double worst_error(const Case *c, const Data *d, const void *out)
{
    const double work = (double)d->n_out_rows * c->out_stride * c->n_in;
    double worst = 0;
    if (work < 1e8) {
        for (int64_t r = 0; r < d->n_out_rows; r++)
            for (int j = 0; j < c->out_stride; j++)
                worst = fmax(worst, output_error(c, d, out, r, j));
        return worst;
    }
    for (int i = 0; i < 4000; i++) {
        const int64_t row = i < 50 ? d->n_out_rows - 1 - i % d->n_out_rows : random_bits() % d->n_out_rows;
        const int column = i % 7 == 0 ? c->out_stride - 1 - i % 40 % c->out_stride
                                      : (int)(random_bits() % (unsigned)c->out_stride);
        worst = fmax(worst, output_error(c, d, out, row, column));
    }
    return worst;
}

/* ---- running ---- */

static DevicePointer to_device(const void *data, size_t len)
{
    DevicePointer pointer;
    CU(cuMemAlloc_v2, &pointer, len ? len : 16);
    CU(cuMemcpyHtoD_v2, pointer, data, len);
    return pointer;
}

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        perror(path), exit(3);
    fseek(file, 0, SEEK_END);
    const long len = ftell(file);
    rewind(file);
    char *text = allocate((size_t)len + 1);
    if (fread(text, 1, (size_t)len, file) != (size_t)len)
        perror(path), exit(3);
    fclose(file);
    return text;
}

static void *load_kernel(const Case *c, int shared_len, void **module)
{
    static char log[8192];
    const int options[] = { 5, 6 };                        /* error log, its length */
    void *values[] = { log, (void *)(uintptr_t)sizeof log };
    char *ptx = read_file(c->file);
    log[0] = '\0';
    const int code = cu.cuModuleLoadDataEx(module, ptx, 2, options, values);
    if (code)
        fprintf(stderr, "%s\n", log);
    check(code, c->file);
    free(ptx);
    void *kernel;
    CU(cuModuleGetFunction, &kernel, *module, c->kernel);
    CU(cuFuncSetAttribute, kernel, 8, shared_len);          /* most dynamic shared memory */
    return kernel;
}

/* Threads and shared bytes: see gemm.c and gemm_h100.c. */
static int case_threads(const Case *c)
{
    return c->is_h100 ? 384 : c->tile_rows / 64 * (c->tile_columns / c->warp_columns) * 32;
}

static int case_shared(const Case *c)
{
    const int weight_len = c->weight_dtype == 3 ? 1 : 2, stage = (c->tile_rows * 2 + c->tile_columns * weight_len) * 64;
    const int lists = (2 * (c->n_experts + 1) + 4 * c->tile_rows) * 4;
    if (c->is_h100) {
        const int halves = (c->stages + 1) * 128 * (64 + c->tile_columns);
        const int ring = c->stages * stage > halves ? c->stages * stage : halves;
        return 1024 + ring + 48 * c->stages + 8 * 2048 + 12 * (c->n_experts + 1);
    }
    return c->stages * stage + case_threads(c) / 32 * 2048 + lists;
}

static int case_blocks(const Case *c, const Data *d)
{
    const int n = atoi(c->grid + 1);
    int n_processors;
    if (c->grid[0] == 't')
        return (int)((d->n_out_rows + c->tile_rows - 1) / c->tile_rows + c->n_experts - 1) *
               ((c->n_out + c->tile_columns - 1) / c->tile_columns);
    if (c->grid[0] == 'b')
        return n;
    CU(cuDeviceGetAttribute, &n_processors, 16, 0);
    return n * n_processors;
}

/* Of a matrix with `stride` elements a row, in boxes of box_rows x 64. */
static TensorMap matrix_map(const Case *c, DevicePointer matrix, int64_t n_rows, int64_t n_columns, int64_t stride,
    int box_rows)
{
    TensorMap map;
    const uint64_t sizes[] = { (uint64_t)n_columns, (uint64_t)n_rows }, strides[] = { (uint64_t)stride * 2 };
    const unsigned box[] = { 64, (unsigned)box_rows }, steps[] = { 1, 1 };
    CU(cuTensorMapEncodeTiled, &map, c->act == 2 ? 6 : 9, 2, (void *)matrix, sizes, strides, box, steps,
        0, 3 /* 128-byte swizzle */, 2 /* 128 bytes to L2 */, 0);
    return map;
}

static bool same_data(const Case *a, const Case *b)
{
    return a->n_tokens == b->n_tokens && a->top_k == b->top_k && a->n_in == b->n_in && a->n_out == b->n_out &&
           a->in_stride == b->in_stride && a->out_stride == b->out_stride && a->n_experts == b->n_experts &&
           a->weight_dtype == b->weight_dtype && a->act == b->act && a->in_pairs == b->in_pairs &&
           a->out_kind == b->out_kind && a->has_bias == b->has_bias;
}

static const char OTHER_BITS[] = " OTHER BITS";

/* " same bits" or OTHER_BITS beside the kernel of gemm_h100 before it, "" where that made another product. Takes
 * `result`. */
static const char *compare_bits(const Case *c, const Data *d, void *result)
{
    static Case last;
    static void *kept;
    const char *words = "";
    if (kept && c->is_h100 && same_data(&last, c) && last.gated == c->gated && last.epilogue == c->epilogue)
        words = memcmp(kept, result, d->out_len) == 0 ? " same bits" : OTHER_BITS;
    if (!c->is_h100) {
        free(result);
        return words;
    }
    free(kept);
    kept = result;
    last = *c;
    return words;
}

/* hold: seconds to run it for, more or less. */
static bool run_case(const Case *c, const Data *d, const DevicePointer from[9], double hold)
{
    void *module, *begin, *end;
    const int shared_len = case_shared(c), n_blocks = case_blocks(c, d);
    void *kernel = load_kernel(c, shared_len, &module);
    int n_registers, n_local;
    CU(cuFuncGetAttribute, &n_registers, 4, kernel);
    CU(cuFuncGetAttribute, &n_local, 3, kernel);

    int32_t n_tokens = c->n_tokens, top_k = c->top_k;
    DevicePointer pointers[9];                             /* the order of the arguments: out, in, weights … */
    TensorMap weights, rows;
    void *args[12] = { [9] = &n_tokens, [10] = &top_k };
    memcpy(pointers, from, sizeof pointers);
    for (int i = 0; i < 9; i++)
        args[i] = &pointers[i];
    if (c->is_h100) {
        weights = matrix_map(c, from[2], (int64_t)c->n_experts * c->n_out, d->k, d->k,
            c->tile_columns == 256 ? 128 : c->tile_columns);
        rows = matrix_map(c, from[1], c->in_pairs ? (int64_t)c->n_tokens * c->top_k : c->n_tokens, c->n_in,
            c->in_stride, 64);
        args[2] = &weights;
        args[11] = &rows;
    }
    CU(cuMemcpyHtoD_v2, from[0], d->out, d->out_len);
    const unsigned n_threads = (unsigned)case_threads(c);
#define LAUNCH() \
    CU(cuLaunchKernel, kernel, (unsigned)n_blocks, 1, 1, n_threads, 1, 1, (unsigned)shared_len, NULL, args, NULL)
    LAUNCH();
    CU(cuCtxSynchronize);
    void *result = allocate(d->out_len);
    CU(cuMemcpyDtoH_v2, result, from[0], d->out_len);
    const double error = worst_error(c, d, result);
    const char *const bits = compare_bits(c, d, result);

    if (once) {
        printf("%s %s error %.2f%s%s\n", c->file, c->kernel, error, error <= 1 ? "" : " WRONG", bits);
        CU(cuModuleUnload, module);
        return error <= 1 && strcmp(bits, OTHER_BITS) != 0;
    }
    const double work = 2.0 * (double)d->n_out_rows * c->n_out * c->n_in;
    CU(cuEventCreate, &begin, 0);
    CU(cuEventCreate, &end, 0);
    float ms = 0, best = INFINITY, total = 0;
    int n_runs = (int)(1.2e12 / (work + 1e9)) + 3;           /* a round of some milliseconds */
    n_runs = n_runs > 300 ? 300 : n_runs;
    n_runs = hold > 0 ? (int)(hold * 1e14 / work) : n_runs;
    for (int round = 0; round < 6; round++) {
        CU(cuEventRecord, begin, NULL);
        for (int i = 0; i < n_runs; i++)
            LAUNCH();
        CU(cuEventRecord, end, NULL);
        CU(cuCtxSynchronize);
        CU(cuEventElapsedTime, &ms, begin, end);
        best = fminf(best, ms / (float)n_runs);
        total += round ? ms / (float)n_runs : 0;             /* the first warms up */
    }
    const char *tile = strstr(c->kernel, c->is_h100 ? "_tc" : "_tr"), *file = strrchr(c->file, '/');
    printf("%s %d->%d e%d w%d ip%d ok%d g%d hb%d ep%d T%d %s%s %s: ", file ? file + 1 : c->file, c->n_in, c->n_out,
        c->n_experts, c->weight_dtype, c->in_pairs, c->out_kind, c->gated, c->has_bias, c->epilogue, c->n_tokens,
        c->is_h100 ? "h100" : "mma", tile ? tile : "", c->grid);
    printf("%.1f us %.0f TFLOP/s (best %.0f) regs %d local %d error %.2f%s%s\n", total / 5 * 1e3,
        work / (total / 5 * 1e9), work / (best * 1e9), n_registers, n_local, error, error <= 1 ? "" : " WRONG", bits);
    fflush(stdout);
    CU(cuModuleUnload, module);
    return error <= 1 && strcmp(bits, OTHER_BITS) != 0;
#undef LAUNCH
}

int main(int argc, char **argv)
{
    char line[1024];
    Case c, last = { 0 };
    Data d = { 0 };
    DevicePointer on_device[9] = { 0 };
    void *context;
    bool ok = true, has_data = false;
    double hold = 0;
    for (int i = 1; i < argc; i++) {
        zeros |= strcmp(argv[i], "--zeros") == 0;
        once |= strcmp(argv[i], "--once") == 0;
        hold = strcmp(argv[i], "--hold") == 0 && i + 1 < argc ? atof(argv[i + 1]) : hold;
    }
    open_driver();
    CU(cuInit, 0);
    CU(cuDevicePrimaryCtxRetain, &context, 0);
    CU(cuCtxSetCurrent, context);
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] == '#' || !read_case(line, &c))
            continue;
        if (!has_data || !same_data(&last, &c)) {
            void *const host[] = { d.out, d.in, d.weights, d.scales, d.bias, d.slots, d.totals, d.experts, d.gates };
            for (int i = 0; i < 9 && has_data; i++) {
                free(host[i]);
                CU(cuMemFree_v2, on_device[i]);
            }
            make_data(&c, &d);
            const void *const data[] = { d.out, d.in, d.weights, d.scales, d.bias, d.slots, d.totals, d.experts,
                d.gates };
            const size_t lens[] = { d.out_len, d.in_len, d.weights_len, d.scales_len, d.bias_len, d.slots_len,
                (size_t)c.n_experts * 4, d.pairs_len, d.pairs_len };
            for (int i = 0; i < 9; i++)
                on_device[i] = to_device(data[i], lens[i]);
            has_data = true;
            last = c;
        }
        ok &= run_case(&c, &d, on_device, hold);
    }
    return ok ? 0 : 1;
}
