/* Kernel benchmark: instances of the templates, timed against ceilings measured in the same run.
 *
 * Usage: bench_kernels [--cc=CC] [--only=TEXT] [--set=PARAMETER=VALUE ...] SOURCE_DIR. Renders
 * instances for this machine's best target into one C file, compiles it with CC and the flags of ir/target.def, loads it and prints,
 * for each case, the median time, the rate and its share of the ceiling: the fp32 FMA peak measured
 * right before the case (of 8-bit products: that of vdot4), or the read bandwidth of a buffer larger
 * than the caches. One thread.
 */
#include "../codegen/template.h"
#include "../ir/target.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Ceilings, compiled with the kernels and their flags. */
static const char ceilings[] =
    "float bench_peak(long n, const float *one)\n{\n"
    "    vf sum[BENCH_CHAINS], x = vbroadcast(one), y = vbroadcast(one + 1);\n"
    "    UNROLL\n    for (int j = 0; j < BENCH_CHAINS; j++)\n        sum[j] = vset((float)j);\n"
    "    for (long i = 0; i < n; i++) {\n        __asm__ volatile(\"\" ::: \"memory\");\n"
    "        UNROLL\n        for (int j = 0; j < BENCH_CHAINS; j++)\n            sum[j] = vfma(x, sum[j], y);\n    }\n"
    "    vf all = sum[0];\n    UNROLL\n    for (int j = 1; j < BENCH_CHAINS; j++)\n        all += sum[j];\n"
    "    return vsum(all);\n}\n"
    "int32_t bench_dot_peak(long n, const int8_t *bytes)\n{\n"
    "    vi sum[BENCH_CHAINS];\n"
    "    UNROLL\n    for (int j = 0; j < BENCH_CHAINS; j++)\n        sum[j] = viset(j);\n"
    "    for (long i = 0; i < n; i++) {\n        __asm__ volatile(\"\" ::: \"memory\");\n"
    "        const vi w = viload(bytes), x = vbroadcast4(bytes + 64);\n"
    "        UNROLL\n        for (int j = 0; j < BENCH_CHAINS; j++)\n            sum[j] = vdot4(sum[j], w, x);\n    }\n"
    "    vi all = sum[0];\n    UNROLL\n    for (int j = 1; j < BENCH_CHAINS; j++)\n        all += sum[j];\n"
    "    return all[0];\n}\n"
    "float bench_read(const float *p, size_t n)\n{\n"
    "    vf sum[8] = { { 0 } };\n"
    "    for (size_t i = 0; i + 8 * LANES <= n; i += 8 * LANES) {\n"
    "        __builtin_prefetch(p + i + BENCH_AHEAD);\n        __builtin_prefetch(p + i + 4 * LANES + BENCH_AHEAD);\n"
    "        UNROLL\n        for (int j = 0; j < 8; j++)\n            sum[j] += vload(p + i + j * LANES);\n    }\n"
    "    return vsum((sum[0] + sum[1] + sum[2] + sum[3]) + (sum[4] + sum[5] + sum[6] + sum[7]));\n}\n"
    "const int bench_lanes = LANES, bench_chains = BENCH_CHAINS;\n";

typedef struct {
    Arena *arena;
    Text source;
    const Target *target;
    void *library;
    const char *only;
    const char *set[16];       /* "name=value": parameters of every template that has them */
    int n_set;
    float (*peak)(long, const float *);
    int32_t (*dot_peak)(long, const int8_t *);
    int of_bytes;              /* 1: cases compute with bytes, so their ceiling is dot_peak */
    float (*read)(const float *, size_t);
    double bandwidth;          /* bytes a second, measured once */
    int chains;
} Bench;

/* Of this thread's CPU time, so that other work on a shared machine counts less. */
static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Random floats in [-1, 1) * scale, or as bf16 / f16 bit patterns of such; 64-byte aligned. */
static void *random_buffer(size_t count, int dtype, float scale)
{
    static uint64_t seed = 88172645463325252u;
    const size_t len = count * (dtype ? 2 : 4) + 4096;
    char *data = aligned_alloc(64, (len + 63) / 64 * 64);
    if (!data)
        exit(3);
    for (size_t i = 0; i < count; i++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        const float value = ((float)(seed >> 40) * 0x1p-23f - 1) * scale;
        uint32_t bits;
        memcpy(&bits, &value, 4);
        if (dtype == 0)
            ((float *)data)[i] = value;
        else if (dtype == 1)
            ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
        else
            ((uint16_t *)data)[i] = (uint16_t)(0x2C00 | (seed >> 54 & 0x83FF));
    }
    return data;
}

/* Render `name` with "param=value param=value", exported as `alias`. */
static void add_kernel(Bench *bench, const char *alias, const char *name, const char *params)
{
    const Template *template = template_find(bench->arena, name);
    double values[TEMPLATE_MAX_PARAMS] = { 0 };
    char *text = arena_strdup(bench->arena, params), *save = NULL;
    for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *equals = strchr(word, '=');
        *equals = '\0';
        values[template_param(template, word)] = strtod(equals + 1, NULL);
    }
    for (int i = 0; i < template->n_params; i++)
        if (strcmp(template->params[i].name, "panel") == 0)
            values[i] = 2 * bench->target->lanes;
        else if (strcmp(template->params[i].name, "tile_rows") == 0 && values[i] == 0)
            values[i] = bench->target->tile_rows;
        else if (strcmp(template->params[i].name, "tail_rows") == 0)
            values[i] = bench->target->tail_rows;
        else if (strcmp(template->params[i].name, "block_rows") == 0)
            values[i] = 144;
        else if (strcmp(template->params[i].name, "prefetch_rows") == 0)
            values[i] = getenv("PF") ? atoi(getenv("PF")) : 16;
        else if (strcmp(template->params[i].name, "streams") == 0)
            values[i] = 4;
        else if (strcmp(template->params[i].name, "unroll") == 0)
            values[i] = 1;
        else if (strcmp(template->params[i].name, "token_block") == 0 && values[i] == 0)
            values[i] = 8;
    for (int i = 0; i < bench->n_set; i++)
        for (int p = 0; p < template->n_params; p++)
            if (strncmp(bench->set[i], template->params[p].name, strcspn(bench->set[i], "=")) == 0)
                values[p] = strtod(strchr(bench->set[i], '=') + 1, NULL);
    Text head = { 0 };
    template_print_name(template, values, &head);
    text_printf(&head, "(");
    if (!bench->source.data || !strstr(bench->source.data, head.data))     /* two cases may share one */
        template_render(template, values, &bench->source);
    text_free(&head);
    text_printf(&bench->source, "__typeof__(");
    template_print_name(template, values, &bench->source);
    text_printf(&bench->source, ") *const %s = ", alias);
    template_print_name(template, values, &bench->source);
    text_printf(&bench->source, ";\n\n");
}

static void *kernel(Bench *bench, const char *alias)
{
    void **pointer = dlsym(bench->library, alias);
    if (!pointer)
        fprintf(stderr, "%s\n", dlerror()), exit(3);
    return *pointer;
}

static void build(Bench *bench, const char *source_dir, const char *cc)
{
    char dir[] = "/tmp/bench_kernels_XXXXXX";
    if (!mkdtemp(dir))
        perror(dir), exit(3);
    const char *c_path = arena_printf(bench->arena, "%s/kernels.c", dir);
    const char *so_path = arena_printf(bench->arena, "%s/kernels.so", dir);
    FILE *file = fopen(c_path, "w");
    if (!file || fwrite(bench->source.data, 1, bench->source.len, file) != bench->source.len || fclose(file))
        perror(c_path), exit(3);
    const char *command = arena_printf(bench->arena, "%s -std=c17 -O2 -ffp-contract=fast -fno-math-errno -Wall -Wextra %s -fPIC -shared "
                                       "-I'%s' -o %s %s -lm", cc, bench->target->flags, source_dir, so_path, c_path);
    if (system(command) != 0)
        fprintf(stderr, "failed: %s\n", command), exit(3);
    bench->library = dlopen(so_path, RTLD_NOW);
    if (!bench->library)
        fprintf(stderr, "%s\n", dlerror()), exit(3);
    if (!getenv("BENCH_KEEP"))
        unlink(c_path), unlink(so_path), rmdir(dir);
    else
        printf("kept %s\n", dir);
}

/* Operations a second of float32 or, in cases of bytes, of 8-bit products. */
static double ops_peak(Bench *bench)
{
    double best = 1e9;
    const float one[2] = { 1, 0x1p-30f };
    const int8_t bytes[128] = { 1, 2, 3 };
    for (int i = 0; i < 5; i++) {
        const double start = seconds();
        volatile float sink = bench->of_bytes ? (float)bench->dot_peak(200000, bytes) : bench->peak(200000, one);
        (void)sink;
        const double t = seconds() - start;
        best = t < best ? t : best;
    }
    return 200000.0 * bench->chains * bench->target->lanes * (bench->of_bytes ? 8 : 2) / best;
}

/* Runs `call` until the median is steady, with the peak measured around it. */
#define TIME(bench, title, flop, bytes, per, per_name, call)                                          \
    do {                                                                                              \
        if (!(bench)->only || strstr(title, (bench)->only)) {                                         \
            double times[25], peak_before = ops_peak(bench);                                        \
            call;                                                                                     \
            for (int rep = 0; rep < 25; rep++) {                                                      \
                const double start = seconds();                                                       \
                call;                                                                                 \
                times[rep] = seconds() - start;                                                       \
            }                                                                                         \
            report(bench, title, times, 25, flop, bytes, per, per_name, peak_before);                 \
        }                                                                                             \
    } while (0)

static void report(Bench *bench, const char *title, double *times, int n, double flop, double bytes,
                   double per, const char *per_name, double peak_before)
{
    const double peak_after = ops_peak(bench), peak = peak_before > peak_after ? peak_before : peak_after;
    qsort(times, (size_t)n, sizeof *times, compare_doubles);
    const double t = times[n / 2];
    printf("%-44s %9.1f us", title, 1e6 * t);
    if (flop > 0)
        printf("  %6.1f G%s/s, %5.1f%% of the peak %.0f (best run %.1f%%)", flop / t * 1e-9, bench->of_bytes ? "OP" : "FLOP",
               100 * flop / t / peak, peak * 1e-9, 100 * flop / times[0] / peak);
    if (bytes > 0)
        printf("  %6.2f GB/s, %5.1f%% of %.1f (best run %.1f%%)", bytes / t * 1e-9, 100 * bytes / t / bench->bandwidth,
               bench->bandwidth * 1e-9, 100 * bytes / times[0] / bench->bandwidth);
    if (per > 0)
        printf("  %.3f ns %s (best run %.3f)", 1e9 * t / per, per_name, 1e9 * times[0] / per);
    printf("\n");
    fflush(stdout);
}

enum { N_TOKENS = 512, D_MODEL = 1024, D_INNER = 2048, D_STATE = 16, N_EXPERTS = 8, TOP_K = 2, PACK_ROWS = 512 };

typedef void gemm_fn(float *, const float *, const void *, const float *, const int32_t *, const int32_t *,
                     const float *, int, int, int, float *, int, int);
typedef void gemv_fn(float *, const float *, const void *, const float *, const int32_t *, const float *, int, int, int);

static void bench_gemm(Bench *bench)
{
    const int panel = 2 * bench->target->lanes;
    const struct { const char *alias; int n_in, n_out, n_experts, n_tokens, dtype; } cases[] = {
        { "gemm_f32_dense", 1024, 4096, 1, 128, 0 },   { "gemm_bf16_dense", 1024, 4096, 1, 128, 1 },
        { "gemm_f16_dense", 1024, 4096, 1, 128, 2 },   { "gemm_f32_experts", 1024, 4096, 8, 512, 0 },
        { "gemm_bf16_experts", 1024, 4096, 8, 512, 1 }, { "gemm_f32_k3072", 3072, 1024, 1, 128, 0 },
        { "gemm_f32_k64", 64, 2048, 8, 512, 0 },       { "gemm_f32_rows16", 1024, 4096, 1, 16, 0 },
        { "gemm_bf16_rows4", 1024, 4096, 1, 4, 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int top_k = cases[i].n_experts == 1 ? 1 : TOP_K, n_pairs = cases[i].n_tokens * top_k;
        if (!bench->library) {
            add_kernel(bench, cases[i].alias, "gemm", arena_printf(bench->arena,
                "n_in=%d n_out=%d in_stride=%d out_stride=%d n_experts=%d weight_dtype=%d", cases[i].n_in, cases[i].n_out,
                cases[i].n_in, cases[i].n_out, cases[i].n_experts, cases[i].dtype));
            continue;
        }
        if (bench->only && !strstr(cases[i].alias, bench->only))
            continue;
        gemm_fn *gemm = (gemm_fn *)kernel(bench, cases[i].alias);
        const size_t n_weights = (size_t)cases[i].n_experts * (size_t)cases[i].n_in * (size_t)cases[i].n_out;
        float *in = random_buffer((size_t)cases[i].n_tokens * (size_t)cases[i].n_in, 0, 1);
        float *out = random_buffer((size_t)cases[i].n_tokens * (size_t)cases[i].n_out, 0, 1);
        void *weights = random_buffer(n_weights, cases[i].dtype, 0.03f);
        float *pack = random_buffer((size_t)(PACK_ROWS + panel) * (size_t)(cases[i].n_in + 16), 0, 1);
        int32_t *slots = calloc((size_t)n_pairs, 4), offsets[N_EXPERTS + 1] = { 0 };
        float *gates = random_buffer((size_t)n_pairs, 0, 1);
        for (int e = 0, n = 0; e < N_EXPERTS && top_k == TOP_K; e++) {     /* token t: experts t%4, 4 + t%4 */
            for (int p = 0; p < n_pairs; p++)
                if (p / 2 % 4 + p % 2 * 4 == e)
                    slots[n++] = p;
            offsets[e + 1] = n;
        }
        const double flop = 2.0 * n_pairs * cases[i].n_in * cases[i].n_out;
        TIME(bench, cases[i].alias, flop, 0, 0, "", gemm(out, in, weights, NULL, slots, offsets, gates,
             0, cases[i].n_tokens, top_k, pack, 0, cases[i].n_out / panel));
        free(in), free(out), free(weights), free(pack), free(slots), free(gates);
    }
}

static void bench_gemv(Bench *bench)
{
    const int panel = 2 * bench->target->lanes;
    const struct { const char *alias; int n_in, n_out, dtype; } cases[] = {
        { "gemv_f32", 1024, 1 << 17, 0 }, { "gemv_bf16", 1024, 1 << 18, 1 }, { "gemv_f16", 1024, 1 << 18, 2 },
        { "gemv_bf16_k3072", 3072, 1 << 16, 1 }, { "gemv_bf16_in_cache", 1024, 512, 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!bench->library) {
            add_kernel(bench, cases[i].alias, "gemv", arena_printf(bench->arena,
                "n_in=%d n_out=%d in_stride=%d out_stride=%d n_experts=1 weight_dtype=%d", cases[i].n_in, cases[i].n_out,
                cases[i].n_in, cases[i].n_out, cases[i].dtype));
            continue;
        }
        if (bench->only && !strstr(cases[i].alias, bench->only))
            continue;
        gemv_fn *gemv = (gemv_fn *)kernel(bench, cases[i].alias);
        const size_t n_weights = (size_t)cases[i].n_in * (size_t)cases[i].n_out;
        float *in = random_buffer((size_t)cases[i].n_in, 0, 1), *out = random_buffer((size_t)cases[i].n_out, 0, 1);
        void *weights = random_buffer(n_weights, cases[i].dtype, 0.03f);
        TIME(bench, cases[i].alias, 0, (double)n_weights * (cases[i].dtype ? 2 : 4), 0, "",
             gemv(out, in, weights, NULL, NULL, NULL, 1, 0, cases[i].n_out / panel));
        free(in), free(out), free(weights);
    }
}

/* Quantised panels: random bytes, scales of about 1e-4. */
static void *random_panels(int n_experts, int n_in, int n_out, int panel, int dtype)
{
    const size_t len = (size_t)(n_in / (dtype == 4 ? 8 : 4) + 1) * (size_t)panel * 4, count = (size_t)n_experts * (size_t)(n_out / panel);
    uint8_t *data = random_buffer(count * len / 2, 1, 1);
    for (size_t p = 0; p < count; p++)
        for (size_t i = 0; i < len / 2; i++)
            if (i < (size_t)panel * 2)
                ((uint16_t *)(void *)(data + p * len))[i] = i % 2 ? 0x38D1 : 0;
    return data;
}

/* Rows as `quantize` makes them. */
typedef void quantize_fn(int8_t *, const float *, int, int);

static int8_t *quantised_rows(quantize_fn *quantize, int n_rows, int n_in)
{
    float *x = random_buffer((size_t)n_rows * (size_t)n_in, 0, 1);
    int8_t *rows = random_buffer((size_t)n_rows * (size_t)(n_in + 64) / 2, 1, 1);
    quantize(rows, x, 0, n_rows);
    free(x);
    return rows;
}

static void bench_quantised(Bench *bench)
{
    typedef void gemm_q_fn(float *, const int8_t *, const void *, const float *, const int32_t *, const int32_t *,
                           const float *, int, int, int, int8_t *, int, int);
    typedef void gemv_q_fn(float *, const int8_t *, const void *, const float *, const int32_t *, const float *, int, int, int);
    const int panel = 2 * bench->target->lanes;
    const struct { const char *alias; int n_in, n_out, n_experts, n_tokens, dtype; } cases[] = {
        { "gemm_q8_dense", 1024, 4096, 1, 128, 3 },   { "gemm_q4_dense", 1024, 4096, 1, 128, 4 },
        { "gemm_q8_experts", 1024, 4096, 8, 512, 3 }, { "gemm_q4_experts", 1024, 4096, 8, 512, 4 },
        { "gemm_q8_k3072", 3072, 1024, 1, 128, 3 },   { "gemm_q4_k3072", 3072, 1024, 1, 128, 4 },
        { "gemm_q8_k64", 64, 2048, 8, 512, 3 },       { "gemm_q8_rows16", 1024, 4096, 1, 16, 3 },
        { "gemm_q8_rows4", 1024, 4096, 1, 4, 3 },     { "gemm_q4_rows4", 1024, 4096, 1, 4, 4 },
        { "gemm_q8_rows4_wide", 1024, 1 << 16, 1, 4, 3 }, { "gemm_q4_rows4_wide", 1024, 1 << 16, 1, 4, 4 },
        { "gemv_q8", 1024, 1 << 18, 1, 1, 3 },        { "gemv_q4", 1024, 1 << 19, 1, 1, 4 },
        { "gemv_q8_k3072", 3072, 1 << 16, 1, 1, 3 },  { "gemv_q4_k3072", 3072, 1 << 17, 1, 1, 4 },
        { "gemv_q8_in_cache", 1024, 1024, 1, 1, 3 },  { "gemv_q4_in_cache", 1024, 2048, 1, 1, 4 },
    };
    static const int widths[] = { 64, 1024, 3072 };
    if (!bench->library)
        for (int i = 0; i < 3; i++)
            add_kernel(bench, arena_printf(bench->arena, "quantize_%d", widths[i]), "quantize",
                       arena_printf(bench->arena, "n_in=%d in_stride=%d out_stride=%d", widths[i], widths[i], widths[i] + 64));
    bench->of_bytes = 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int n_in = cases[i].n_in, n_out = cases[i].n_out, n_experts = cases[i].n_experts, n_tokens = cases[i].n_tokens;
        const int top_k = n_experts == 1 ? 1 : TOP_K, n_pairs = n_tokens * top_k;
        if (!bench->library) {
            add_kernel(bench, cases[i].alias, n_tokens == 1 ? "gemv_q" : "gemm_q", arena_printf(bench->arena,
                "n_in=%d n_out=%d in_stride=%d out_stride=%d n_experts=%d weight_dtype=%d", n_in, n_out, n_in + 64, n_out, n_experts, cases[i].dtype));
            continue;
        }
        if (bench->only && !strstr(cases[i].alias, bench->only))
            continue;
        void *product = kernel(bench, cases[i].alias);
        quantize_fn *quantize = (quantize_fn *)kernel(bench, arena_printf(bench->arena, "quantize_%d", n_in));
        int8_t *in = quantised_rows(quantize, n_tokens, n_in);
        float *out = random_buffer((size_t)n_tokens * (size_t)n_out, 0, 1), *gates = random_buffer((size_t)n_pairs, 0, 1);
        void *weights = random_panels(n_experts, n_in, n_out, panel, cases[i].dtype);
        int8_t *pack = random_buffer((size_t)(PACK_ROWS + panel) * (size_t)(n_in + 64) / 4, 0, 1);
        int32_t *slots = calloc((size_t)n_pairs, 4), offsets[N_EXPERTS + 1] = { 0 };
        for (int e = 0, n = 0; e < N_EXPERTS && top_k == TOP_K; e++) {     /* token t: experts t%4, 4 + t%4 */
            for (int p = 0; p < n_pairs; p++)
                if (p / 2 % 4 + p % 2 * 4 == e)
                    slots[n++] = p;
            offsets[e + 1] = n;
        }
        const double macs = (double)n_pairs * n_in * n_out, bytes = (double)n_in * n_out / (cases[i].dtype == 4 ? 2 : 1) + 4.0 * n_out;
        if (n_tokens == 1)
            TIME(bench, cases[i].alias, 0, bytes, 0, "", ((gemv_q_fn *)product)(out, in, weights, NULL, NULL, NULL, 1, 0, n_out / panel));
        else
            TIME(bench, cases[i].alias, 2 * macs, n_tokens == 4 ? bytes : 0, 0, "", ((gemm_q_fn *)product)(out, in, weights, NULL, slots, offsets, gates,
                 0, n_tokens, top_k, pack, 0, n_out / panel));
        free(in), free(out), free(weights), free(pack), free(slots), free(gates);
    }
    bench->of_bytes = 0;
    if (!bench->library)
        return;
    float *x = random_buffer(N_TOKENS * 3072, 0, 1);
    int8_t *rows = random_buffer(N_TOKENS * (3072 + 64) / 2, 1, 1);
    for (int i = 1; i < 3; i++) {
        const char *title = arena_printf(bench->arena, "quantize_%d", widths[i]);
        quantize_fn *quantize = (quantize_fn *)kernel(bench, title);
        TIME(bench, title, 0, 0, 8 * 64.0 * widths[i], "an element",
             for (int rep = 0; rep < 8; rep++) quantize(rows, x, 0, 64));      /* in cache, as just written */
    }
    free(x), free(rows);
}

static void bench_mamba(Bench *bench)
{
    const int panel = 2 * bench->target->lanes;
    if (!bench->library) {
        add_kernel(bench, "scan_euler", "scan", "d_state=16 stride=2048 z_stride=4096 bc_stride=96 zoh=0");
        add_kernel(bench, "scan_zoh", "scan", "d_state=16 stride=2048 z_stride=4096 bc_stride=96 zoh=1");
        add_kernel(bench, "conv1d_k4", "conv1d", "n_channels=2048 d_conv=4 in_stride=4096 stride=2048 silu=1");
        return;
    }
    typedef void scan_fn(float *, const float *, const float *, const float *, const float *, const float *, const float *,
                         float *, int, int, int);
    typedef void conv1d_fn(float *, const float *, const float *, const float *, float *, int, int, int);
    float *y = random_buffer(N_TOKENS * D_INNER, 0, 1), *dt = random_buffer(N_TOKENS * D_INNER, 0, 1);
    float *x = random_buffer(N_TOKENS * D_INNER, 0, 1), *z = random_buffer(N_TOKENS * 2 * D_INNER, 0, 1);
    float *bc = random_buffer(N_TOKENS * 96, 0, 1), *a = random_buffer(D_STATE * D_INNER, 0, 1);
    float *d = random_buffer(D_INNER, 0, 1), *state = random_buffer(D_STATE * D_INNER, 0, 1);
    for (int i = 0; i < D_STATE * D_INNER; i++)
        a[i] = -1.5f - a[i];
    scan_fn *euler = (scan_fn *)kernel(bench, "scan_euler"), *zoh = (scan_fn *)kernel(bench, "scan_zoh");
    conv1d_fn *conv1d = (conv1d_fn *)kernel(bench, "conv1d_k4");
    const double elements = (double)N_TOKENS * D_INNER * D_STATE;
    TIME(bench, "scan_euler", 0, 0, elements, "a state element", euler(y, dt, x, bc, z, a, d, state, N_TOKENS, 0, D_INNER / panel));
    TIME(bench, "scan_euler, 1 token", 0, 0, elements / N_TOKENS, "a state element", euler(y, dt, x, bc, z, a, d, state, 1, 0, D_INNER / panel));
    TIME(bench, "scan_zoh", 0, 0, elements, "a state element", zoh(y, dt, x, bc, z, a, d, state, N_TOKENS, 0, D_INNER / panel));
    TIME(bench, "conv1d_k4", 0, 0, (double)N_TOKENS * D_INNER, "a channel and token", conv1d(y, z, a, d, state, N_TOKENS, 0, D_INNER / panel));
    free(y), free(dt), free(x), free(z), free(bc), free(a), free(d), free(state);
}

static void bench_attention(Bench *bench)
{
    const int panel = 2 * bench->target->lanes;
    if (!bench->library) {
        add_kernel(bench, "attention_prefill", "attention", arena_printf(bench->arena, "n_heads=16 n_kv_heads=4 head_dim=64 head_stride=64 "
                   "q_stride=1024 kv_stride=256 out_stride=1024 window=2048 token_block=%d key_block=%d", getenv("TB") ? atoi(getenv("TB")) : 48, getenv("KB") ? atoi(getenv("KB")) : 64));
        add_kernel(bench, "attention_decode", "attention", "n_heads=16 n_kv_heads=4 head_dim=64 head_stride=64 "
                   "q_stride=1024 kv_stride=256 out_stride=1024 window=2048 token_block=1 key_block=64 tile_rows=4");
        return;
    }
    typedef void attention_fn(float *, const float *, const float *, const float *, const float *, const float *,
                              int64_t, int64_t, int, float *, int, int);
    float *q = random_buffer(N_TOKENS * 1024, 0, 1), *out = random_buffer(N_TOKENS * 1024, 0, 1);
    float *k = random_buffer(N_TOKENS * 256, 0, 1), *v = random_buffer(N_TOKENS * 256, 0, 1);
    float *ring_k = random_buffer(2048 * 256, 0, 1), *ring_v = random_buffer(2048 * 256, 0, 1);
    float *scratch = random_buffer((size_t)(264 * (64 + 256 + 64 + panel + 2) + 513 * 64), 0, 1);
    attention_fn *prefill = (attention_fn *)kernel(bench, "attention_prefill");
    attention_fn *decode = (attention_fn *)kernel(bench, "attention_decode");
    const double flop = 4.0 * 2048 * 64 * 16;      /* of one token whose window is full */
    TIME(bench, "attention_prefill", flop * N_TOKENS, 0, 0, "", prefill(out, q, k, v, ring_k, ring_v, 4096, 0, N_TOKENS, scratch, 0, 1));
    TIME(bench, "attention_decode", flop, 0, 2048.0 * 256 * 2, "a key or value element", decode(out, q, k, v, ring_k, ring_v, 4096, 0, 1, scratch, 0, 1));
    free(q), free(out), free(k), free(v), free(ring_k), free(ring_v), free(scratch);
}

static void bench_rows(Bench *bench)
{
    const int panel = 2 * bench->target->lanes;
    if (!bench->library) {
        add_kernel(bench, "rms_norm_1024", "rms_norm", "n_in=1024 stride=1024 eps=1e-5");
        add_kernel(bench, "route_1024x8", "route", "n_in=1024 stride=1024 n_experts=8");
        add_kernel(bench, "swiglu_3072", "swiglu", "stride=3072");
        return;
    }
    typedef void rms_norm_fn(float *, const float *, const float *, int, int);
    typedef void route_fn(int32_t *, float *, const float *, const float *, int, int, int);
    typedef void swiglu_fn(float *, const float *, const float *, int, int, int);
    float *x = random_buffer(N_TOKENS * 3072, 0, 1), *y = random_buffer(N_TOKENS * 3072, 0, 1), *w = random_buffer(8 * 1024, 0, 1);
    int32_t experts[N_TOKENS * TOP_K];
    float gates[N_TOKENS * TOP_K];
    rms_norm_fn *rms_norm = (rms_norm_fn *)kernel(bench, "rms_norm_1024");
    route_fn *route = (route_fn *)kernel(bench, "route_1024x8");
    swiglu_fn *swiglu = (swiglu_fn *)kernel(bench, "swiglu_3072");
    TIME(bench, "rms_norm_1024", 0, 0, (double)N_TOKENS * D_MODEL, "an element", rms_norm(y, x, w, 0, N_TOKENS));
    TIME(bench, "route_1024x8", 2.0 * N_TOKENS * D_MODEL * N_EXPERTS, 0, N_TOKENS, "a token", route(experts, gates, x, w, TOP_K, 0, N_TOKENS));
    TIME(bench, "swiglu_3072", 0, 0, N_TOKENS * 3072.0, "an element", swiglu(y, x, y, N_TOKENS, 0, 3072 / panel));
    free(x), free(y), free(w);
}

int main(int argc, char **argv)
{
    Bench bench = { .arena = arena_new(), .target = target_info(target_resolve(TARGET_HOST)) };
    const char *cc = getenv("CC") ? getenv("CC") : "cc", *source_dir = NULL;
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "--cc=", 5) == 0)
            cc = argv[i] + 5;
        else if (strncmp(argv[i], "--only=", 7) == 0)
            bench.only = argv[i] + 7;
        else if (strncmp(argv[i], "--set=", 6) == 0 && strchr(argv[i] + 6, '=') && bench.n_set < 16)
            bench.set[bench.n_set++] = argv[i] + 6;
        else if (strncmp(argv[i], "--target=", 9) == 0) {
            TargetId id;
            if (!target_from_name(argv[i] + 9, &id))
                return fprintf(stderr, "no target %s\n", argv[i] + 9), 2;
            bench.target = target_info(id);
        } else
            source_dir = argv[i];
    if (!source_dir)
        return fprintf(stderr, "usage: bench_kernels [--cc=CC] [--target=NAME] [--only=TEXT] [--set=NAME=VALUE] SOURCE_DIR\n"), 2;

    text_printf(&bench.source, "#include \"runtime/route.h\"\n#include \"runtime/scan.h\"\n#include \"runtime/tile.h\"\nenum { BENCH_CHAINS = %d, BENCH_AHEAD = 1024 };\n%s\n",
                bench.target->lanes == 8 ? 12 : 24, ceilings);
    void (*const groups[])(Bench *) = { bench_gemm, bench_gemv, bench_quantised, bench_mamba, bench_attention, bench_rows };
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        groups[i](&bench);
    build(&bench, source_dir, cc);
    bench.peak = (float (*)(long, const float *))dlsym(bench.library, "bench_peak");
    bench.dot_peak = (int32_t (*)(long, const int8_t *))dlsym(bench.library, "bench_dot_peak");
    bench.read = (float (*)(const float *, size_t))dlsym(bench.library, "bench_read");
    bench.chains = *(const int *)dlsym(bench.library, "bench_chains");

    const size_t n_read = (size_t)1 << 27;                    /* 512 MB */
    float *buffer = malloc(4 * n_read);
    double times[9];
    memset(buffer, 1, 4 * n_read);
    for (int i = 0; i < 9; i++) {
        const double start = seconds();
        volatile float sink = bench.read(buffer, n_read);
        (void)sink;
        times[i] = seconds() - start;
    }
    free(buffer);
    qsort(times, 9, sizeof *times, compare_doubles);
    bench.bandwidth = 4.0 * (double)n_read / times[4];
    printf("%s, %s: fp32 FMA peak %.0f GFLOP/s, read %.1f GB/s (median; best %.1f), one thread\n", bench.target->name, cc,
           ops_peak(&bench) * 1e-9, bench.bandwidth * 1e-9, 4e-9 * (double)n_read / times[0]);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        groups[i](&bench);
    arena_free(bench.arena);
    text_free(&bench.source);
    return 0;
}
