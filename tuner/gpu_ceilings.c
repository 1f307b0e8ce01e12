/* Ceilings of a GPU: launches that do one thing only, ever longer until they can be timed.
 *
 * A fast device, a slow one, and one that only pretends are thus all measured in about the same time. The best of some
 * launches counts, since whatever else happens can only make them slower.
 */
#include "gpu_ceilings.h"

#include "../codegen/codegen.h"

#include <stdint.h>

enum { RUNS = 7, GROWTH = 4, READ_MULTIPLE = 2048, PIECE = 16 };
static const double long_enough = 5e-3, read_enough = 5e-4, most_seconds = 0.5;
static const int64_t least_read = 1 << 20, most_read = (int64_t)4 << 30, most_rounds = 1 << 22;

typedef struct {
    GpuBench *bench;
    GpuCeiling ceiling;
    CudaFunction function;
    CudaEvent begin, end;
    CudaPointer memory;
} Probe;

static bool fine(GpuBench *b, int result)
{
    return cuda_check(&b->cuda, result, "cannot measure what the GPU can do", b->why, sizeof b->why);
}

/* False: the target has no such kernel, or it does not load. */
static bool load(Probe *p, CeilingId id)
{
    GpuBench *b = p->bench;
    Text ptx = { 0 };
    CudaModule module;
    bool good = codegen_ceiling(b->trial, b->base->target, id, &p->ceiling, &ptx)
        && bench_compile(&b->cuda, ptx.data, &module, b->why, sizeof b->why)
        && b->cuda.module_get_function(&p->function, module, p->ceiling.name) == 0
        && (p->ceiling.shared_len == 0
            || b->cuda.function_set(p->function, CUDA_FUNCTION_SHARED, p->ceiling.shared_len) == 0);
    text_free(&ptx);
    return good;
}

static int n_blocks(const Probe *p) { return p->bench->cuda.n_processors * p->ceiling.n_blocks; }

static bool time_launch(Probe *p, int64_t n, double *seconds)
{
    GpuBench *b = p->bench;
    float milliseconds;
    void *arguments[] = { &p->memory, &p->memory, &n };
    CudaLaunch config = { .grid = { (uint32_t)n_blocks(p), 1, 1 }, .block = { (uint32_t)p->ceiling.n_threads, 1, 1 },
                          .shared_len = (uint32_t)p->ceiling.shared_len, .stream = b->cuda.stream };
    if (!fine(b, b->cuda.event_record(p->begin, b->cuda.stream))
        || !fine(b, b->cuda.launch(&config, p->function, arguments, NULL))
        || !fine(b, b->cuda.event_record(p->end, b->cuda.stream)) || !bench_wait(b)
        || !fine(b, b->cuda.event_elapsed(&milliseconds, p->begin, p->end)))
        return false;
    *seconds = milliseconds > 1e-6f ? 1e-3 * (double)milliseconds : 1e-9;
    return true;
}

/* The shortest of some launches of the same n. */
static bool shortest(Probe *p, int64_t n, double *least)
{
    double spent = 0, seconds;
    *least = 1e9;
    for (int run = 0; run < RUNS && spent < most_seconds; run++, spent += seconds) {
        if (!time_launch(p, n, &seconds))
            return false;
        *least = seconds < *least ? seconds : *least;
    }
    return true;
}

/* 16-bit floats of magnitude 1 to 2 (bf16: below 1), both signs. */
static bool write_operands(Probe *p)
{
    uint32_t *words = arena_array(p->bench->trial, uint32_t, CEILING_FROM_LEN / sizeof(uint32_t)), seed = 1;
    for (size_t i = 0; i < CEILING_FROM_LEN / sizeof *words; i++) {
        seed = seed * 1664525u + 1013904223u;
        words[i] = ((seed ^ seed >> 15) * 2246822519u & 0x83ff83ffu) | 0x3c003c00u;
    }
    return bench_write(p->bench, p->memory, words, CEILING_FROM_LEN) && bench_wait(p->bench);
}

static bool measure_products(Probe *p, CeilingId id, double *rate)
{
    GpuBench *b = p->bench;
    double seconds = 0;
    int64_t n = 1;
    if (!load(p, id) || b->cuda.memory_alloc(&p->memory, CEILING_FROM_LEN) != 0)
        return true;
    bool good = write_operands(p) && time_launch(p, n, &seconds);
    while (good && seconds < long_enough && n < most_rounds)
        good = time_launch(p, n *= GROWTH, &seconds);
    good = good && shortest(p, n, &seconds);
    b->cuda.memory_free(p->memory);
    *rate = good ? p->ceiling.work * (double)n * n_blocks(p) / seconds : 0;
    return good;
}

/* What takes long is no cache's, and what is too short to say is no figure. */
static bool measure_read(Probe *p, double *rate)
{
    GpuBench *b = p->bench;
    double seconds = 0;
    bool good = load(p, CEILING_READ), found = false;
    if (!good)
        return true;
    for (int64_t len = least_read; good && !found && len <= most_read; len *= GROWTH) {
        const int64_t n = len / PIECE / READ_MULTIPLE * READ_MULTIPLE;
        if (b->cuda.memory_alloc(&p->memory, (size_t)len) != 0)
            return true;
        good = fine(b, b->cuda.memory_set(p->memory, 0x35, (size_t)len, b->cuda.stream)) && time_launch(p, n, &seconds)
            && time_launch(p, n, &seconds);
        found = seconds >= read_enough || len * GROWTH > most_read;
        good = good && (!found || shortest(p, n, &seconds));
        b->cuda.memory_free(p->memory);
        *rate = good && found ? p->ceiling.work * (double)n / seconds : 0;
    }
    return good;
}

bool gpu_ceilings_measure(GpuBench *b, GpuCeilings *found)
{
    Probe p = { .bench = b };
    *found = (GpuCeilings){ 0 };
    if (!fine(b, b->cuda.event_create(&p.begin, 0)) || !fine(b, b->cuda.event_create(&p.end, 0)))
        return false;
    const bool good = measure_read(&p, &found->read) && measure_products(&p, CEILING_MMA, &found->mma)
        && measure_products(&p, CEILING_WGMMA, &found->wgmma);
    b->cuda.event_destroy(p.begin);
    b->cuda.event_destroy(p.end);
    return good;
}
