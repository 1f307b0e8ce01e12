/* Bench of a GPU: memory, kernels and launches of a model's variants. */
#include "gpu_bench.h"

#include "../codegen/codegen.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_ARGS = 32, HISTORY = 1024, CONTEXT = 40960, GUARD_BYTE = 0xA5, N_SEQUENCES = 16 };

static bool check(GpuBench *b, int result, const char *what)
{
    return cuda_check(&b->cuda, result, what, b->why, sizeof b->why);
}

bool bench_wait(GpuBench *b) { return check(b, b->cuda.stream_wait(b->cuda.stream), "a kernel failed"); }

bool bench_read(GpuBench *b, void *to, CudaPointer from, size_t len)
{
    return check(b, b->cuda.copy_to_host(to, from, len, b->cuda.stream), "cannot copy from the GPU") && bench_wait(b);
}

bool bench_write(GpuBench *b, CudaPointer to, const void *from, size_t len)
{
    return check(b, b->cuda.copy_to_device(to, from, len, b->cuda.stream), "cannot copy to the GPU");
}

static bool set(GpuBench *b, CudaPointer to, int value, int64_t len)
{
    return len == 0
        || check(b, b->cuda.memory_set(to, (unsigned char)value, (size_t)len, b->cuda.stream), "cannot set memory");
}

/* `len` bytes and a guard behind. */
static bool allocate(GpuBench *b, CudaPointer *memory, int64_t len)
{
    return check(b, b->cuda.memory_alloc(memory, (size_t)len + BENCH_GUARD), "no memory on the GPU")
        && set(b, *memory + (CudaPointer)len, GUARD_BYTE, BENCH_GUARD);
}

/* ---- kernels ---- */

static const BenchKernel *find_kernel(const GpuBench *b, const char *name, const Kernel *kernel)
{
    for (int i = 0; i < b->n_kernels; i++)
        if (strcmp(b->kernels[i].name, name) == 0 && b->kernels[i].n_threads == kernel->n_threads
            && b->kernels[i].min_blocks == kernel->min_blocks)
            return &b->kernels[i];
    return NULL;
}

static bool add_kernel(GpuBench *b, CudaModule module, const char *name, const Kernel *kernel)
{
    CudaFunction function;
    const int most = sm_shared_most(target_sm(b->base->target));
    if (!check(b, b->cuda.module_get_function(&function, module, name), name)
        || !check(b, b->cuda.function_set(function, CUDA_FUNCTION_SHARED, most), "cannot allow shared memory"))
        return false;
    if (b->n_kernels == b->max_kernels) {
        BenchKernel *more = arena_array(b->arena, BenchKernel, (size_t)b->max_kernels * 2 + 64);
        if (b->n_kernels)
            memcpy(more, b->kernels, (size_t)b->n_kernels * sizeof *more);
        b->max_kernels = b->max_kernels * 2 + 64;
        b->kernels = more;
    }
    b->kernels[b->n_kernels++] = (BenchKernel){ arena_strdup(b->arena, name), kernel->n_threads, kernel->min_blocks,
                                                function };
    return true;
}

/* A kernel on its way from a plan to a module. */
typedef struct { const Plan *plan; int index; const char *name; CudaModule module; char why[BENCH_WORDS]; } NewKernel;
typedef struct { GpuBench *bench; NewKernel *kernels; int n; atomic_int next; } Loading;

bool bench_compile(const Cuda *cuda, const char *ptx, CudaModule *module, char *why, size_t why_len)
{
    char log[1024] = "";
    int options[] = { CUDA_JIT_ERROR_LOG, CUDA_JIT_ERROR_LOG_LEN };
    void *values[] = { log, (void *)(uintptr_t)sizeof log };
    const int result = cuda->module_load(module, ptx, 2, options, values);
    if (result == 0)
        return true;
    for (char *c = log; *c; c++)
        *c = (unsigned char)*c < 0x20 ? ' ' : *c;
    *module = NULL;
    snprintf(why, why_len, "the driver refuses its PTX (%d): %.180s", result, log);
    return false;
}

static void *load_some(void *context)
{
    Loading *l = context;
    l->bench->cuda.context_push(l->bench->cuda.context);
    for (int i; (i = atomic_fetch_add(&l->next, 1)) < l->n; ) {
        NewKernel *k = &l->kernels[i];
        bool *wanted = calloc((size_t)k->plan->launches->n_kernels, sizeof *wanted);
        Text ptx = { 0 };
        if (!wanted)
            continue;
        wanted[k->index] = true;
        codegen_write_kernels(k->plan, wanted, &ptx);
        bench_compile(&l->bench->cuda, ptx.data, &k->module, k->why, sizeof k->why);
        text_free(&ptx);
        free(wanted);
    }
    return NULL;
}

/* The kernels of a plan that are neither loaded nor on the list yet. */
static void list_kernels(GpuBench *b, const Plan *plan, NewKernel *list, int *n, int most)
{
    const char **names = codegen_kernel_names(b->trial, plan);
    for (int i = 0; i < plan->launches->n_kernels && *n < most; i++) {
        const Kernel *kernel = &plan->launches->kernels[i];
        int j = 0;
        while (j < *n && (strcmp(list[j].name, names[i]) != 0
                          || list[j].plan->launches->kernels[list[j].index].n_threads != kernel->n_threads
                          || list[j].plan->launches->kernels[list[j].index].min_blocks != kernel->min_blocks))
            j++;
        if (j == *n && !find_kernel(b, names[i], kernel))
            list[(*n)++] = (NewKernel){ .plan = plan, .index = i, .name = names[i] };
    }
}

bool bench_load(GpuBench *b, const Plan *const *plans, int n_plans)
{
    enum { MOST = 256, MOST_THREADS = 16 };
    Loading l = { .bench = b, .kernels = arena_array(b->trial, NewKernel, MOST) };
    pthread_t threads[MOST_THREADS];
    const long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int n_threads = 0;
    bool good = true;
    for (int i = 0; i < n_plans; i++)
        list_kernels(b, plans[i], l.kernels, &l.n, MOST);
    while (n_threads < MOST_THREADS && n_threads < n_cpus && n_threads < l.n
           && pthread_create(&threads[n_threads], NULL, load_some, &l) == 0)
        n_threads++;
    for (int i = 0; i < n_threads; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < l.n; i++) {
        NewKernel *k = &l.kernels[i];
        if (k->module && add_kernel(b, k->module, k->name, &k->plan->launches->kernels[k->index]))
            continue;
        good = false;
        if (!k->module)
            snprintf(b->why, sizeof b->why, "%s", *k->why ? k->why : "no thread to compile it");
    }
    return good;
}

bool bench_open(GpuBench *b, Arena *arena, const Plan *base)
{
    *b = (GpuBench){ .arena = arena, .trial = arena, .base = base, .n_context = CONTEXT };
    return cuda_open(&b->cuda, b->why, sizeof b->why) && cuda_start(&b->cuda, b->why, sizeof b->why)
        && bench_load(b, &base, 1) && allocate(b, &b->weights, base->weights_len) && bench_fill_weights(b)
        && bench_wait(b);
}

/* ---- sides ---- */

static int64_t align(int64_t len) { return (len + 255) / 256 * 256; }

static bool encode_maps(BenchSide *side)
{
    enum { UINT8, UINT16, NO_INTERLEAVE = 0, PROMOTE_256 = 3, FILL_ZERO = 0 };
    const Launches *l = side->plan->launches;
    GpuBench *b = side->bench;
    /* The driver wants them at multiples of 64. */
    uint8_t *room = arena_alloc(b->trial, sizeof(CudaTensorMap) * ((size_t)l->n_maps + 1));
    side->maps = (CudaTensorMap *)(void *)(room + (64 - (uintptr_t)room % 64) % 64);
    for (int i = 0; i < l->n_maps; i++) {
        const TensorMap *m = &l->maps[i];
        const CudaPointer base = m->base == ARG_WEIGHTS ? b->weights
            : side->memory + (CudaPointer)(m->buffer ? m->buffer->offset : 0);
        const uint64_t dims[2] = { (uint64_t)m->n_columns, (uint64_t)m->n_rows };
        const uint64_t strides[1] = { (uint64_t)m->row_stride };
        const uint32_t box[2] = { (uint32_t)m->box_columns, (uint32_t)m->box_rows }, steps[2] = { 1, 1 };
        const int swizzle = m->swizzle == 128 ? 3 : m->swizzle == 64 ? 2 : m->swizzle == 32 ? 1 : 0;
        if (!b->cuda.map_encode)
            return snprintf(b->why, sizeof b->why, "the driver lacks cuTensorMapEncodeTiled"), false;
        if (!check(b, b->cuda.map_encode(&side->maps[i], m->element_len == 1 ? UINT8 : UINT16, 2,
                                         (void *)(uintptr_t)(base + (CudaPointer)m->offset), dims, strides, box, steps,
                                         NO_INTERLEAVE, swizzle, PROMOTE_256, FILL_ZERO), "cannot describe a tensor"))
            return false;
    }
    return true;
}

BenchSide *bench_side(GpuBench *b, const Plan *plan)
{
    const Launches *l = plan->launches;
    BenchSide *side = arena_one(b->trial, BenchSide);
    const char **names = codegen_kernel_names(b->trial, plan);
    *side = (BenchSide){ .bench = b, .plan = plan, .functions = arena_array(b->trial, CudaFunction,
                                                                            (size_t)l->n_kernels) };
    side->state_stride = align(plan->state_len + b->n_context * plan->state_token_len);
    side->state_stride = side->state_stride ? side->state_stride : 256;
    const int64_t logits_len = align(4 * plan->graph->vocab_size * N_SEQUENCES);
    const int64_t tokens_len = align(4 * (int64_t)(plan->chunk > N_SEQUENCES ? plan->chunk : N_SEQUENCES));
    side->memory_len = align(l->scratch_len) + logits_len + tokens_len + 512 + 4 * HISTORY * N_SEQUENCES;
    if (!bench_load(b, &plan, 1) || !allocate(b, &side->memory, side->memory_len)
        || !allocate(b, &side->states, side->state_stride * BENCH_SLOTS)) {
        bench_side_free(side);
        return NULL;
    }
    for (int i = 0; i < l->n_kernels; i++)
        side->functions[i] = find_kernel(b, names[i], &l->kernels[i])->function;
    side->logits = side->memory + (CudaPointer)align(l->scratch_len);
    side->tokens = side->logits + (CudaPointer)logits_len;
    side->positions = side->tokens + (CudaPointer)tokens_len;
    side->slots = side->positions + 256;
    side->ends = side->slots + 128;
    side->history = side->slots + 256;
    if (encode_maps(side) && bench_clear(side))
        return side;
    bench_side_free(side);
    return NULL;
}

void bench_side_free(BenchSide *side)
{
    if (!side)
        return;
    if (side->memory)
        side->bench->cuda.memory_free(side->memory);
    if (side->states)
        side->bench->cuda.memory_free(side->states);
}

bool bench_clear(BenchSide *side)
{
    const Launches *l = side->plan->launches;
    return set(side->bench, side->memory, 0, l->zeroed_len)
        && set(side->bench, side->memory + (CudaPointer)l->zeroed_len, 0xFF, l->scratch_len - l->zeroed_len)
        && set(side->bench, side->states, 0, side->state_stride * BENCH_SLOTS);
}

bool bench_input(BenchSide *side, int n_tokens, int n_sequences, int64_t position, int first_slot, uint64_t seed)
{
    int32_t slots[N_SEQUENCES] = { 0 }, ends[N_SEQUENCES] = { 0 };
    int64_t positions[N_SEQUENCES] = { 0 };
    int32_t *tokens = arena_array(side->bench->trial, int32_t, (size_t)n_tokens);
    for (int i = 0; i < n_tokens; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        tokens[i] = i < BENCH_PERIOD ? (int32_t)((seed >> 33) % (uint64_t)side->plan->graph->vocab_size)
            : tokens[i - BENCH_PERIOD];
    }
    for (int i = 0; i < n_sequences; i++) {
        slots[i] = first_slot + i;
        ends[i] = n_tokens * (i + 1) / n_sequences;
        positions[i] = position;
    }
    return bench_write(side->bench, side->tokens, tokens, 4 * (size_t)n_tokens)
        && bench_write(side->bench, side->slots, slots, sizeof slots)
        && bench_write(side->bench, side->ends, ends, sizeof ends)
        && bench_write(side->bench, side->positions, positions, sizeof positions) && bench_wait(side->bench);
}

bool bench_place(BenchSide *side, const int32_t *n_tokens, const int64_t *position)
{
    return bench_write(side->bench, side->ends, n_tokens, sizeof *n_tokens)
        && bench_write(side->bench, side->positions, position, sizeof *position);
}

bool bench_guards_live(BenchSide *side)
{
    GpuBench *b = side->bench;
    uint8_t bytes[BENCH_GUARD];
    const CudaPointer ends[] = { side->memory + (CudaPointer)side->memory_len,
                                 side->states + (CudaPointer)(side->state_stride * BENCH_SLOTS),
                                 b->weights + (CudaPointer)b->base->weights_len };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (!bench_read(b, bytes, ends[i], sizeof bytes))
            return false;
        for (size_t j = 0; j < sizeof bytes; j++)
            if (bytes[j] != GUARD_BYTE)
                return snprintf(b->why, sizeof b->why, "it wrote behind a buffer"), false;
    }
    return true;
}

/* ---- launches ---- */

int bench_count(const BenchSide *side, const BenchPass *pass, LaunchCount count)
{
    const int top_k = (int)side->plan->graph->mode_top_k[0];
    switch (count) {
    case COUNT_TOKENS: case COUNT_APART: return pass->n_tokens;
    case COUNT_PAIRS: return pass->n_tokens * top_k;
    case COUNT_SEQUENCES: return pass->list == LIST_PREFILL ? 1 : pass->n_tokens;
    case COUNT_LOGITS: return pass->n_logits;
    case COUNT_TOP_K: return top_k;
    case COUNT_PROCESSORS: case COUNT_RESIDENT: return side->bench->cuda.n_processors;
    default: return 1;
    }
}

CudaPointer bench_address(const BenchSide *side, const Launch *launch, int i)
{
    const LaunchArg *arg = &side->plan->launches->args[launch->first_arg + i];
    const CudaPointer offset = (CudaPointer)arg->offset;
    switch (arg->kind) {
    case ARG_WEIGHTS: return side->bench->weights + offset;
    case ARG_STATE: return side->states + offset + (CudaPointer)(arg->token_offset * side->bench->n_context);
    case ARG_SCRATCH: return side->memory + (CudaPointer)arg->buffer->offset + offset;
    case ARG_TOKENS: return side->tokens;
    case ARG_POSITIONS: return side->positions;
    case ARG_SLOTS: return side->slots;
    case ARG_ENDS: return side->ends;
    case ARG_LOGITS: return side->logits;
    case ARG_HISTORY: return side->history;
    case ARG_TENSOR_MAP: {
        const TensorMap *m = &side->plan->launches->maps[arg->offset];
        return (m->base == ARG_WEIGHTS ? side->bench->weights
                : side->memory + (CudaPointer)(m->buffer ? m->buffer->offset : 0)) + (CudaPointer)m->offset;
    }
    default: return 0;
    }
}

typedef union { CudaPointer pointer; int64_t i64; int32_t i32; } ArgValue;

static ArgValue argument(const BenchSide *side, const BenchPass *pass, const Launch *launch, int i)
{
    const LaunchArg *arg = &side->plan->launches->args[launch->first_arg + i];
    switch (arg->kind) {
    case ARG_COUNT: return (ArgValue){ .i32 = bench_count(side, pass, (LaunchCount)arg->offset) };
    case ARG_INT: return (ArgValue){ .i32 = (int32_t)arg->offset };
    case ARG_N_CONTEXT: return (ArgValue){ .i64 = side->bench->n_context };
    case ARG_STATE_STRIDE: return (ArgValue){ .i64 = side->state_stride };
    default: return (ArgValue){ .pointer = bench_address(side, launch, i) };
    }
}

static uint32_t grid(const BenchSide *side, const BenchPass *pass, LaunchExtent e)
{
    const int count = bench_count(side, pass, e.count);
    if (e.count == COUNT_RESIDENT)
        return (uint32_t)(count < e.divisor ? 0 : count < e.extra ? count : e.extra);
    return (uint32_t)((count + e.divisor - 1) / e.divisor + e.extra);
}

static int launch_one(BenchSide *side, const BenchPass *pass, const Launch *launch, bool follows)
{
    const Cuda *cuda = &side->bench->cuda;
    ArgValue values[MOST_ARGS];
    void *arguments[MOST_ARGS];
    _Alignas(8) CudaAttribute attributes[2] = { { .id = 0 } };
    CudaLaunch config = { .grid = { grid(side, pass, launch->grid[0]), grid(side, pass, launch->grid[1]), 1 },
                          .block = { (uint32_t)side->plan->launches->kernels[launch->kernel].n_threads, 1, 1 },
                          .shared_len = (uint32_t)launch->shared_len, .stream = cuda->stream,
                          .attributes = attributes };
    if (config.grid[0] == 0 || config.grid[1] == 0)
        return 0;
    for (int i = 0; i < launch->n_args; i++) {
        const LaunchArg *arg = &side->plan->launches->args[launch->first_arg + i];
        values[i] = argument(side, pass, launch, i);
        arguments[i] = arg->kind == ARG_TENSOR_MAP ? (void *)&side->maps[arg->offset] : (void *)&values[i];
    }
    if (follows && (launch->flags & LAUNCH_DEPENDENT) && target_sm(side->plan->target) >= 90
        && cuda->version >= CUDA_GRAPH_DEPENDENT_VERSION)
        attributes[config.n_attributes++] = (CudaAttribute){ .id = CUDA_LAUNCH_DEPENDENT, .value.on = 1 };
    if (launch->flags & LAUNCH_COOPERATIVE)
        attributes[config.n_attributes++] = (CudaAttribute){ .id = CUDA_LAUNCH_COOPERATIVE, .value.on = 1 };
    return cuda->launch(&config, side->functions[launch->kernel], arguments, NULL);
}

/* As in runtime/gpu_launch.c: the device has multiprocessors enough for such launches. */
static bool takes_one(const BenchSide *side, const BenchPass *pass, ListId id)
{
    const Launches *l = side->plan->launches;
    for (int i = l->lists[id].begin; i < l->lists[id].end; i++)
        if ((l->launches[i].flags & LAUNCH_IF_ONE) && grid(side, pass, l->launches[i].grid[0]) == 0)
            return false;
    return pass->whole && pass->n_tokens == 1;
}

static bool run_list(BenchSide *side, const BenchPass *pass, ListId id, bool follows)
{
    const Launches *l = side->plan->launches;
    const int left_out = (pass->n_logits ? 0 : LAUNCH_IF_LOGITS)
        | (takes_one(side, pass, id) ? LAUNCH_IF_MORE : LAUNCH_IF_ONE);
    for (int i = l->lists[id].begin; i < l->lists[id].end; i++) {
        const Launch *launch = &l->launches[i];
        if ((launch->flags & left_out) || (pass->without && launch->key && strcmp(pass->without, launch->key) == 0))
            continue;
        if (pass->before && !pass->before(pass->context, side, launch))
            return false;
        /* What somebody looks at between launches comes alone. */
        if (!check(side->bench, launch_one(side, pass, launch, follows && !pass->before), "cannot launch"))
            return false;
        follows = true;
        if (pass->after && !pass->after(pass->context, side, launch))
            return false;
    }
    return true;
}

bool bench_run(BenchSide *side, const BenchPass *pass)
{
    return run_list(side, pass, pass->list, false) && (!pass->feeds || run_list(side, pass, LIST_FEED, true));
}

bool bench_capture(BenchSide *side, const BenchPass *pass, CudaGraphExec *exec)
{
    GpuBench *b = side->bench;
    CudaGraph graph = NULL;
    if (!check(b, b->cuda.capture_begin(b->cuda.stream, CUDA_CAPTURE_THREAD), "cannot capture"))
        return false;
    bool good = bench_run(side, pass);
    int ended = b->cuda.capture_end(b->cuda.stream, &graph);
    good = good && check(b, ended, "cannot capture")
        && check(b, b->cuda.graph_instantiate(exec, graph, 0), "cannot make a graph");
    if (graph)
        b->cuda.graph_destroy(graph);
    return good;
}
