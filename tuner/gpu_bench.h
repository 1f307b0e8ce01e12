/* Bench of a GPU: a model on the device, in one or more variants, its lists run, compared and timed.
 *
 * Input: plans of one model that differ in what was chosen of kernels. Weights are random, of the sizes and the ranges
 * that a trained model has, and shared; each variant (a side) has its own scratch and states. Lists are run as
 * runtime/gpu_launch.c runs them. Lives in a child of mossc, which ends when the device is lost.
 */
#ifndef MOSSC_TUNER_GPU_BENCH_H
#define MOSSC_TUNER_GPU_BENCH_H

#include "gpu_cuda.h"
#include "../ir/plan.h"

enum { BENCH_SLOTS = 4, BENCH_ROWS = 16, BENCH_PERIOD = 4096, BENCH_WORDS = 240, BENCH_GUARD = 4096 };

/* A kernel that is loaded, known by its instance. */
typedef struct { const char *name; int n_threads, min_blocks; CudaFunction function; } BenchKernel;

typedef struct {
    Arena *arena, *trial;        /* lives as long as it; as long as what is being tried */
    Cuda cuda;
    const Plan *base;            /* as without choices */
    CudaPointer weights;
    int64_t n_context;           /* of the states */
    BenchKernel *kernels;
    int n_kernels, max_kernels;
    char why[BENCH_WORDS];       /* of what failed last */
} GpuBench;

typedef struct {
    GpuBench *bench;
    const Plan *plan;
    CudaFunction *functions;     /* [n_kernels] */
    CudaPointer memory, states, tokens, positions, slots, ends, logits, history;
    int64_t memory_len, state_stride;
    CudaTensorMap *maps;
} BenchSide;

/* What one pass is about. */
typedef struct {
    ListId list;
    int n_tokens, n_logits;      /* of prefill; of decode the sequences */
    bool feeds;                  /* decode: the device chooses the next tokens */
    bool whole;                  /* as an artifact: one sequence takes launches of its own; else those of several */
    const char *without;         /* launches of this key are left out; NULL: none */
    bool (*before)(void *context, BenchSide *side, const Launch *launch);   /* asked before each launch, NULL: nobody */
    bool (*after)(void *context, BenchSide *side, const Launch *launch);
    void *context;
} BenchPass;

/* The driver, kernels of `base`, weights on the device. False with words in bench->why. */
bool bench_open(GpuBench *bench, Arena *arena, const Plan *base);
/* Compiles what is not there yet, several at a time; a kernel that fails leaves the others. */
bool bench_load(GpuBench *bench, const Plan *const *plans, int n);
/* PTX to a module, by any thread; false with words. */
bool bench_compile(const Cuda *cuda, const char *ptx, CudaModule *module, char *why, size_t why_len);
/* A variant; kernels that are not loaded yet are compiled. NULL with words. */
BenchSide *bench_side(GpuBench *bench, const Plan *plan);
void bench_side_free(BenchSide *side);
/* Random tokens, the sequences 0 to n - 1 at `position` in slots of their own. They come again after BENCH_PERIOD, so
 * that a prompt is the same in whatever chunks of multiples of it. */
bool bench_input(BenchSide *side, int n_tokens, int n_sequences, int64_t position, int first_slot, uint64_t seed);
/* States zero; scratch all ones, which no kernel may trust, but for the counters. */
bool bench_clear(BenchSide *side);
/* A later piece of a prompt begins at `position`; both numbers are read when the device comes to it. */
bool bench_place(BenchSide *side, const int32_t *n_tokens, const int64_t *position);
/* Queues the launches of a pass. */
bool bench_run(BenchSide *side, const BenchPass *pass);
bool bench_capture(BenchSide *side, const BenchPass *pass, CudaGraphExec *exec);
bool bench_wait(GpuBench *bench);
/* Did nobody write behind the memory of the side? Waits. */
bool bench_guards_live(BenchSide *side);
bool bench_write(GpuBench *bench, CudaPointer to, const void *from, size_t len);     /* queues */
bool bench_read(GpuBench *bench, void *to, CudaPointer from, size_t len);      /* waits */
/* The address that argument i of a launch is, 0 for a number. */
CudaPointer bench_address(const BenchSide *side, const Launch *launch, int i);
int bench_count(const BenchSide *side, const BenchPass *pass, LaunchCount count);

/* gpu_weights.c: random weights of a plan, to the device. */
bool bench_fill_weights(GpuBench *bench);

#endif
