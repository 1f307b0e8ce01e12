/* Times one token of a model's decode list on a GPU, kernel by kernel and as a CUDA graph, with random weights.
 *
 *   decode_bench list [KEY=VALUE...]          a line an instance: FILE SM THREADS BLOCKS TEMPLATE PARAM=VALUE...
 *   decode_bench run FOLDER [KEY=VALUE...]    with FOLDER/FILE.ptx of every line (bench/gpu/decode.sh makes them)
 *   decode_bench compare "FOLDER [KEY=VALUE...]"...      several in turn, in one process: settings, or kernels of
 *                                             several compilers, each in a folder of its own
 *
 * The model is 8x200M+ (5 x (4 mamba, attention, mlp), 8 experts, top 2, vocabulary 50304) or, with model=1,
 * Mamba-500M (60 dense mamba layers, vocabulary 50280). Output: tokens a second for batch 1, 4 and 16, bytes read,
 * the share of the read bandwidth that the same run measures, a hash of 40 greedy tokens (with and without dependent
 * launch it is the same), and for every kind of kernel the time of a launch in a chain of its own kind. compare: for
 * batch 1, 4 and 16 the median of microseconds a token in rounds (least to most), and the hash.
 */
#include "decode_list.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- the device ---- */

static moss_driver cuda;
static int (*copy_on_device)(moss_cu_pointer to, moss_cu_pointer from, size_t len, moss_cu_stream stream);
static moss_cu_stream stream;

static void check(int result, const char *what)
{
    const char *words = "?";
    if (result == 0)
        return;
    cuda.get_error_string(result, &words);
    printf("FAILED: %s: %d %s\n", what, result, words);
    exit(1);
}

static void find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    if (!symbol) {
        printf("FAILED: libcuda.so.1 lacks %s\n", name);
        exit(1);
    }
}

static int n_processors;

static void open_device(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    int device;
    moss_cu_context context;
    char name[100];
    if (!library) {
        printf("FAILED: %s\n", dlerror());
        exit(1);
    }
#define CUDA_SYMBOL(id, name, need, arguments) find(library, name, &cuda.id);
#include "../../runtime/cuda_syms.def"
#undef CUDA_SYMBOL
    find(library, "cuMemcpyDtoDAsync_v2", &copy_on_device);
    check(cuda.init(0), "init");
    check(cuda.device_get(&device, 0), "device");
    check(cuda.context_retain(&context, device), "context");
    check(cuda.context_push(context), "push");
    check(cuda.device_get_name(name, sizeof name, device), "name");
    check(cuda.device_get_attribute(&n_processors, MOSS_CU_DEVICE_PROCESSORS, device), "processors");
    check(cuda.stream_create(&stream, MOSS_CU_STREAM_NON_BLOCKING), "stream");
    printf("%s, %d multiprocessors\n", name, n_processors);
}

static moss_cu_function load_text(char *ptx, const char *label)
{
    char log[4096] = "", name[256];
    int options[2] = { MOSS_CU_JIT_ERROR_LOG, MOSS_CU_JIT_ERROR_LOG_LEN };
    void *values[2] = { log, (void *)(uintptr_t)sizeof log };
    moss_cu_module module;
    moss_cu_function function;
    const int result = cuda.module_load(&module, ptx, 2, options, values);
    if (result)
        printf("%s: %s\n", label, log);
    check(result, label);
    const char *entry = strstr(ptx, ".entry ");
    sscanf(entry + 7, "%255[A-Za-z0-9_]", name);
    check(cuda.module_get_function(&function, module, name), name);
    return function;
}

/* FOLDER/FILE.ptx of a kernel; one that was loaded before is not loaded again. */
static moss_cu_function load_file(const char *folder, const Kernel *kernel)
{
    enum { MOST = 512 };
    static struct { char path[400]; moss_cu_function function; } loaded[MOST];
    static char ptx[4 << 20];
    static int n;
    char path[400];
    snprintf(path, sizeof path, "%s/%s.ptx", folder, kernel->file);
    for (int i = 0; i < n; i++)
        if (strcmp(loaded[i].path, path) == 0)
            return loaded[i].function;
    FILE *file = fopen(path, "rb");
    if (!file || n == MOST) {
        printf("FAILED: no %s: %s\n", path, kernel->text);
        exit(1);
    }
    ptx[fread(ptx, 1, sizeof ptx - 1, file)] = 0;
    fclose(file);
    memcpy(loaded[n].path, path, sizeof path);
    loaded[n].function = load_text(ptx, kernel->text);
    check(cuda.function_set(loaded[n].function, MOSS_CU_FUNCTION_SHARED, 227 * 1024), "shared");
    return loaded[n++].function;
}

static void load_kernels(const char *folder)
{
    for (int i = 0; i < list_n_kernels; i++)
        list_kernels[i].function = load_file(folder, &list_kernels[i]);
}

static uint64_t seed = 88172645463325252u;
static float random_float(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (float)(int32_t)(seed >> 32) * (1.0f / 2147483648.0f);
}

static uint16_t half_of(float value)     /* normal halves only */
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const int exponent = (int)(bits >> 23 & 255) - 112;
    return (uint16_t)((bits >> 16 & 0x8000) | (exponent <= 0 ? 0 : (uint32_t)exponent << 10 | (bits >> 13 & 1023)));
}

/* Random numbers everywhere, from one block that is repeated at odd distances. */
static void fill_device(void)
{
    enum { block_len = 48 << 20 };
    uint8_t *block = malloc(block_len);
    moss_cu_pointer device_block;
    check(cuda.memory_alloc(&device_block, block_len), "block");
    for (size_t i = 0; i < block_len / 2; i++)
        if (list_get("dtype") == 3)
            ((uint16_t *)block)[i] = (uint16_t)(random_float() * 32767.0f);
        else
            ((uint16_t *)block)[i] = half_of(random_float() * 0.05f);
    check(cuda.copy_to_device(device_block, block, block_len, stream), "copy");
    check(cuda.memory_set(list_base, 0, list_used, stream), "zero");
    float *values = malloc(64 << 20);
    size_t shift = 0;
    for (int i = 0; i < list_n_pieces; i++) {
        const Piece *p = &list_pieces[i];
        if (p->kind == KIND_WEIGHTS) {
            for (uint64_t at = 0; at < p->len; ) {
                const size_t n = p->len - at < block_len - shift ? (size_t)(p->len - at) : block_len - shift;
                check(copy_on_device(list_base + p->at + at, device_block + shift, n, stream), "fill");
                at += n, shift = (shift + n) % block_len / 256 * 256;
            }
            shift = (shift + 65536 * 3 + 256 * 7) % (block_len / 2);
        } else if (p->kind != KIND_ZERO && p->kind != KIND_RING) {
            for (uint64_t j = 0; j < p->len / 4; j++) {
                const float r = random_float();
                values[j] = p->kind == KIND_SCALE ? 0.05f / 127 : p->kind == KIND_ROUTER ? 0.06f * r
                          : p->kind == KIND_ONE ? 1 + 0.1f * r : p->kind == KIND_CONV ? 0.5f * r
                          : p->kind == KIND_DT_BIAS ? -4 + r : -1.442695f * (float)(j % 16 + 1);
            }
            check(cuda.copy_to_device(list_base + p->at, values, p->len, stream), "values");
            check(cuda.stream_wait(stream), "wait");
        }
    }
    check(cuda.stream_wait(stream), "wait");
    free(values), free(block);
}

static void reset_rows(void)
{
    int32_t ids[16], slot[16];
    int64_t at[16];
    float angles[16 * 256];
    check(cuda.memory_set(list_rows.states, 0, MAX_ROWS * list_rows.state_stride, stream), "state");
    for (int i = 0; i < 16; i++)
        ids[i] = 1000 + 77 * i, slot[i] = i, at[i] = list_get("position");
    for (int i = 0; i < 16 * 256; i++)
        angles[i] = i / 32 % 2 ? 0.6f : 0.8f;
    check(cuda.copy_to_device(list_rows.tokens, ids, 64, stream), "tokens");
    check(cuda.copy_to_device(list_rows.slots, slot, 64, stream), "slots");
    check(cuda.copy_to_device(list_rows.positions, at, 128, stream), "positions");
    check(cuda.copy_to_device(list_rows.table, angles, (size_t)MAX_ROWS * list_model.head_dim * 4, stream), "table");
    check(cuda.stream_wait(stream), "wait");
}

static void launch_one(const Launch *l, int n_rows, int dependent)
{
    uint64_t values[MAX_ARGS];
    void *arguments[MAX_ARGS];
    for (int i = 0; i < l->n_args; i++) {
        values[i] = l->args[i] == ROWS_ARG ? (uint64_t)n_rows : l->args[i];
        arguments[i] = &values[i];
    }
    moss_cu_launch_attribute attributes[2] = { { .id = MOSS_CU_LAUNCH_DEPENDENT, .value.on = 1 } };
    uint32_t n_attributes = dependent != 0;
    if (l->resident && list_get("coop"))
        attributes[n_attributes++] = (moss_cu_launch_attribute){ .id = MOSS_CU_LAUNCH_COOPERATIVE, .value.on = 1 };
    const moss_cu_launch config = { { (uint32_t)l->grid_x, (uint32_t)(l->y_rows ? n_rows : l->grid_y), 1 },
        { (uint32_t)l->threads, 1, 1 }, (uint32_t)l->shared_len, stream, attributes, n_attributes };
    check(cuda.launch(&config, list_kernels[l->kernel].function, arguments, NULL), list_kernels[l->kernel].text);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct { const Launch **list; int n; } List;

static moss_cu_graph_exec capture(const List *list, int n_rows, int dependent)
{
    moss_cu_graph graph;
    moss_cu_graph_exec exec;
    check(cuda.capture_begin(stream, MOSS_CU_CAPTURE_THREAD), "capture");
    for (int i = 0; i < list->n; i++)
        launch_one(list->list[i], n_rows, dependent && i > 0);
    check(cuda.capture_end(stream, &graph), "capture end");
    check(cuda.graph_instantiate(&exec, graph, 0), "instantiate");
    check(cuda.graph_destroy(graph), "destroy");
    return exec;
}

/* Seconds a launch of the graph, of n that follow one another. */
static double time_launches(moss_cu_graph_exec exec, int n)
{
    const double begin = seconds();
    for (int i = 0; i < n; i++)
        check(cuda.graph_launch(exec, stream), "launch");
    check(cuda.stream_wait(stream), "run");
    return (seconds() - begin) / n;
}

/* The same: the best of some rounds. */
static double time_graph(moss_cu_graph_exec exec, int n)
{
    double best_time = 1e9;
    time_launches(exec, 5);
    for (int round = 0; round < 5; round++) {
        const double taken = time_launches(exec, n);
        best_time = taken < best_time ? taken : best_time;
    }
    return best_time;
}

static const char read_ptx[] =
    ".version 7.4\n.target sm_80\n.address_size 64\n"
    ".visible .entry read_all(.param .u64 p, .param .u64 n, .param .u64 out) .maxntid 512,1,1\n{\n"
    ".reg .pred %p; .reg .b64 %a<8>; .reg .b32 %r<60>;\n"
    "ld.param.u64 %a0, [p]; ld.param.u64 %a1, [n]; ld.param.u64 %a5, [out]; add.u64 %a1, %a0, %a1;\n"
    "mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %nctaid.x; mov.u32 %r50, 0;\n"
    "mul.wide.u32 %a2, %r1, 65536; mul.wide.u32 %a3, %r0, 16; mul.wide.u32 %a4, %r2, 65536;\n"
    "add.u64 %a0, %a0, %a2; add.u64 %a0, %a0, %a3;\n"
    "loop: setp.ge.u64 %p, %a0, %a1; @%p bra done;\n"
#define READ4(a, b, c, d, at) \
    "ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%r" a ", %r" b ", %r" c ", %r" d "}, [%a0+" at "];\n"
    READ4("10", "11", "12", "13", "0") READ4("14", "15", "16", "17", "8192")
    READ4("18", "19", "20", "21", "16384") READ4("22", "23", "24", "25", "24576")
    READ4("26", "27", "28", "29", "32768") READ4("30", "31", "32", "33", "40960")
    READ4("34", "35", "36", "37", "49152") READ4("38", "39", "40", "41", "57344")
#define EAT(a, b) "xor.b32 %r50, %r50, %r" a "; xor.b32 %r50, %r50, %r" b ";\n"
    EAT("10", "13") EAT("14", "17") EAT("18", "21") EAT("22", "25")
    EAT("26", "29") EAT("30", "33") EAT("34", "37") EAT("38", "41")
    "add.u64 %a0, %a0, %a4; bra loop;\n"
    "done: setp.ne.u32 %p, %r50, 305419896; @%p bra end; st.global.u32 [%a5], %r50;\nend: ret;\n}\n";

/* GB/s of reading that much in one launch. */
static double read_ceiling(uint64_t len)
{
    static char ptx[sizeof read_ptx];
    memcpy(ptx, read_ptx, sizeof ptx);
    const moss_cu_function function = load_text(ptx, "read");
    uint64_t from = list_base, n = len / 65536 * 65536, out = list_rows.tokens;
    void *arguments[] = { &from, &n, &out };
    const moss_cu_launch config = { { (uint32_t)n_processors * 4, 1, 1 }, { 512, 1, 1 }, 0, stream, NULL, 0 };
    double best_time = 1e9;
    for (int round = 0; round < 8; round++) {
        const double begin = seconds();
        for (int i = 0; i < 8; i++)
            check(cuda.launch(&config, function, arguments, NULL), "read");
        check(cuda.stream_wait(stream), "read");
        const double taken = (seconds() - begin) / 8;
        best_time = taken < best_time ? taken : best_time;
    }
    return (double)n / best_time * 1e-9;
}

static uint64_t hash_history(void)
{
    static int32_t kept[HISTORY * MAX_ROWS];
    uint64_t hash = 1469598103934665603u;
    check(cuda.copy_to_host(kept, list_rows.history, sizeof kept, stream), "history");
    check(cuda.stream_wait(stream), "history");
    for (int i = 0; i < HISTORY * MAX_ROWS; i++)
        hash = (hash ^ (uint32_t)kept[i]) * 1099511628211u;
    return hash;
}

/* Tokens of 40 greedy steps from the same start, as a hash: the same with and without dependent launch. */
static uint64_t greedy(moss_cu_graph_exec exec)
{
    check(cuda.memory_set(list_rows.history, 0, HISTORY * MAX_ROWS * 4, stream), "history");
    reset_rows();
    for (int i = 0; i < 40; i++)
        check(cuda.graph_launch(exec, stream), "launch");
    return hash_history();
}

static void run_batches(double ceiling)
{
    const Launch *all[MAX_LAUNCHES];
    int64_t n_bytes = 0;
    for (int i = 0; i < list_n_launches; i++)
        all[i] = &list_launches[i], n_bytes += list_launches[i].n_bytes;
    const List list = { all, list_n_launches };
    printf("%d launches, %.1f MB read a token at batch 1, ceiling %.0f GB/s\n", list_n_launches, (double)n_bytes * 1e-6,
        ceiling);
    for (int n_rows = 1; n_rows <= (list_get("chain") ? 1 : 16); n_rows *= 4) {
        const moss_cu_graph_exec exec = capture(&list, n_rows, list_get("dependent"));
        const uint64_t hash = greedy(exec), again = greedy(exec);
        const double taken = time_graph(exec, 100);
        float values[4];
        check(cuda.copy_to_host(values, list_rows.logits, sizeof values, stream), "logits");
        check(cuda.stream_wait(stream), "logits");
        printf("batch %2d: %8.0f tok/s  %7.1f us  (%.0f%% of batch 1's bytes at the ceiling) tokens %016llx %s "
            "logits %.4f %.4f %.4f\n", n_rows, n_rows / taken, taken * 1e6,
            100 * (double)n_bytes / ceiling * 1e-9 / taken, (unsigned long long)hash,
            hash == again ? "again" : "DIFFERENT AGAIN", values[0], values[1], values[2]);
        cuda.graph_exec_destroy(exec);
    }
}

/* One kind of kernel after another with itself, over the layers' weights, batch 1. */
static void run_kinds(void)
{
    static const char *const kinds[] = { "embed", "chain", "in", "x", "scan", "out", "qkv", "attention", "o", "gated",
        "down", "head", "feed" };
    double whole = 0;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const Launch *own[MAX_LAUNCHES];
        int n = 0, n_model = 0;
        int64_t n_bytes = 0;
        for (int i = 0; i < list_n_launches; i++)
            if (strcmp(list_kernels[list_launches[i].kernel].kind, kinds[k]) == 0)
                own[n++] = &list_launches[i], n_bytes = list_launches[i].n_bytes;
        if (!(n_model = n))
            continue;
        for (; n < 40; n++)
            own[n] = own[n - n_model];
        const List list = { own, n };
        reset_rows();
        const moss_cu_graph_exec exec = capture(&list, 1, list_get("dependent"));
        const double taken = time_graph(exec, 20) / n;
        cuda.graph_exec_destroy(exec);
        whole += taken * n_model;
        printf("%-10s %6.2f us x %2d = %6.1f us, %7.2f MB, %5.0f GB/s\n", kinds[k], taken * 1e6, n_model,
            taken * 1e6 * n_model, (double)n_bytes * 1e-6, (double)n_bytes / taken * 1e-9);
    }
    printf("sum %.1f us\n", whole * 1e6);
}

/* ---- several in turn ---- */

enum { BATCHES = 3, ROUNDS = 7, MOST_COMPARED = 32 };
typedef struct {
    const char *text;
    int n_batches;                       /* of 1, 4 and 16 rows */
    moss_cu_graph_exec exec[BATCHES];
    uint64_t hash[BATCHES];
    double taken[BATCHES][ROUNDS];
} Compared;

/* Memory for the list as it is, filled; who has the same tensors in the same places has it together. */
static void share_memory(void)
{
    static struct { uint64_t layout, base; } known[MOST_COMPARED];
    static int n;
    uint64_t layout = list_used;
    for (int i = 0; i < list_n_pieces; i++)
        layout = (layout ^ list_pieces[i].at ^ list_pieces[i].len << 20 ^ list_pieces[i].kind) * 1099511628211u;
    int i = 0;
    while (i < n && known[i].layout != layout)
        i++;
    const int is_new = i == n;
    if (is_new) {
        check(cuda.memory_alloc(&known[n].base, list_used + 4096), "memory");
        known[n++].layout = layout;
    }
    list_base = known[i].base;
    list_build();
    if (is_new)
        fill_device();
}

/* "FOLDER [KEY=VALUE...]": its graphs, and their tokens. */
static void prepare(Compared *c)
{
    char words[1000], *save = NULL;
    snprintf(words, sizeof words, "%s", c->text);
    const char *folder = strtok_r(words, " ", &save);
    list_reset();
    for (char *word = strtok_r(NULL, " ", &save); word; word = strtok_r(NULL, " ", &save))
        list_set(word);
    list_base = 0;
    list_build();
    share_memory();
    load_kernels(folder ? folder : ".");
    const Launch *all[MAX_LAUNCHES];
    for (int i = 0; i < list_n_launches; i++)
        all[i] = &list_launches[i];
    c->n_batches = list_get("chain") ? 1 : BATCHES;
    for (int b = 0, n_rows = 1; b < c->n_batches; b++, n_rows *= 4) {
        c->exec[b] = capture(&(List){ all, list_n_launches }, n_rows, list_get("dependent"));
        c->hash[b] = greedy(c->exec[b]);
        if (greedy(c->exec[b]) != c->hash[b])
            printf("DIFFERENT AGAIN: batch %d of %s\n", n_rows, c->text);
    }
}

static int by_value(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void compare(char **texts, int n)
{
    static Compared compared[MOST_COMPARED];
    for (int i = 0; i < n; i++) {
        compared[i].text = texts[i];
        prepare(&compared[i]);
    }
    for (int round = -1; round < ROUNDS; round++)             /* the first warms up */
        for (int b = 0; b < BATCHES; b++)
            for (int i = 0; i < n; i++)
                if (b < compared[i].n_batches)
                    compared[i].taken[b][round < 0 ? 0 : round] = 1e6 * time_launches(compared[i].exec[b], 40 >> b);
    for (int i = 0; i < n; i++) {
        for (int b = 0; b < compared[i].n_batches; b++) {
            double *taken = compared[i].taken[b];
            qsort(taken, ROUNDS, sizeof *taken, by_value);
            printf("%7.1f (%.1f to %.1f) %04x  ", taken[ROUNDS / 2], taken[0], taken[ROUNDS - 1],
                (unsigned)(compared[i].hash[b] & 0xffff));
        }
        printf("%s\n", compared[i].text);
    }
}

int main(int argc, char **argv)
{
    if (argc > 2 && argc <= 2 + MOST_COMPARED && strcmp(argv[1], "compare") == 0) {
        open_device();
        compare(argv + 2, argc - 2);
        return 0;
    }
    const int is_run = argc > 2 && strcmp(argv[1], "run") == 0;
    if (!is_run && !(argc > 1 && strcmp(argv[1], "list") == 0)) {
        fputs("usage: decode_bench list [KEY=VALUE...] | run FOLDER [KEY=VALUE...] |"
            " compare \"FOLDER [KEY=VALUE...]\"...\n", stderr);
        return 2;
    }
    for (int i = is_run ? 3 : 2; i < argc; i++)
        list_set(argv[i]);
    list_build();
    for (int i = 0; i < list_n_kernels && !is_run; i++) {
        const Kernel *kernel = &list_kernels[i];
        printf("%s %d %d %d %s\n", kernel->file, list_get("sm"), kernel->threads, kernel->blocks, kernel->text);
    }
    if (!is_run)
        return 0;
    open_device();
    check(cuda.memory_alloc(&list_base, list_used + 4096), "memory");
    list_build();
    load_kernels(argv[2]);
    fill_device();
    const double ceiling = read_ceiling(850u << 20);
    run_batches(ceiling);
    if (list_get("kinds"))
        run_kinds();
    return 0;
}
