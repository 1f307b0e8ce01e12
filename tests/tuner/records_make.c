/* Databases for tests. */
#include "records_make.h"

#include "../../tuner/identity.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t make_draw(uint64_t *state, uint64_t n)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (z ^ z >> 31) % n;
}

static double uniform(uint64_t *state) { return ((double)make_draw(state, 1u << 30) + 0.5) / (1u << 30); }

double make_normal(uint64_t *state)
{
    double radius = sqrt(-2 * log(uniform(state)));
    return radius * cos(2 * M_PI * uniform(state));
}

/* ---- trials with nothing in mind ---- */

static const double *draw_samples(Arena *arena, uint64_t *state, int n)
{
    double *samples = arena_array(arena, double, (size_t)n);
    for (int i = 0; i < n; i++)
        samples[i] = 1e-4 * exp(0.3 * make_normal(state));
    return samples;
}

Trial make_trial(Arena *arena, uint64_t which)
{
    static const char *const kernels[] = { "gemm", "gemv", "attention" };
    static const char *const devices[] = { "CPU \"A\", 2 cpus", "ARM 4x0x41:0xd05 4x0x41:0xd0b" };
    static const char *const details[] = { "", "line one\nline two, with a comma", "größer als erlaubt" };
    uint64_t state = which * 1000003 + 17;
    char search[RECORD_ID_LEN + 1];
    snprintf(search, sizeof search, "%032llx", (unsigned long long)make_draw(&state, 3));
    int n = 1 + (int)make_draw(&state, 7);
    const char *kernel = kernels[make_draw(&state, 3)], *device = devices[make_draw(&state, 2)];
    const char *hash = make_draw(&state, 4) ? "0123456789abcdef" : "fedcba9876543210";
    Trial trial = {
        .key = { kernel, "n_in=64 t512", "bf16", "x86-64-v3: avx2 fma", device, "gcc 12.2.0", hash },
        .point = arena_printf(arena, "tail_rows=2 tile_rows=%d", 4 + (int)make_draw(&state, 5)),
        .incumbent = arena_printf(arena, "tail_rows=2 tile_rows=%d", 4 + (int)make_draw(&state, 5)),
        .status = (TrialStatus)(make_draw(&state, 2) ? TRIAL_OK : (int)make_draw(&state, N_TRIAL_STATUSES)),
        .detail = details[make_draw(&state, 3)],
        .samples = draw_samples(arena, &state, n), .n_samples = n,
        .incumbent_samples = draw_samples(arena, &state, n), .n_incumbent_samples = n,
        .max_error = make_draw(&state, 4) ? 1e-7 * (double)make_draw(&state, 100) : -1, .tolerance = 1e-5,
        .operations = 1e8, .bytes = 1e6, .search = arena_strdup(arena, search), .seed = 7,
        .ordinal = (int64_t)make_draw(&state, 1000), .unix_ms = INT64_C(1767225600000) + (int64_t)which,
    };
    return trial;
}

/* Journals of the searches above, some way along. */
static bool add_journals(Records *records, Diags *diags, uint64_t *state)
{
    bool ok = true;
    for (int i = 0; ok && i < 3; i++) {
        Search search = { .command = "tune", .model = "example", .device = "CPU \"A\", 2 cpus",
                          .features = "x86-64-v3: avx2 fma",
                          .seed = i };
        ok = records_search_open(records, diags, &search);
        search.next_ordinal = (int64_t)make_draw(state, 500);
        search.seconds = (double)make_draw(state, 500) / 8;
        search.finished = make_draw(state, 2);
        search.peak_operations = (double)make_draw(state, 100) * 1e9;
        search.peak_bytes = (double)make_draw(state, 100) * 1e8;
        ok = ok && records_search_save(records, diags, &search);
    }
    return ok;
}

bool make_random(Arena *arena, Diags *diags, const char *path, uint64_t first, int n, uint64_t seed)
{
    Records *records = records_open(arena, diags, path, RECORDS_CREATE);
    uint64_t state = seed, *order = arena_array(arena, uint64_t, (size_t)n);
    bool ok = records && add_journals(records, diags, &state);
    for (int i = 0; i < n; i++) {
        int at = (int)make_draw(&state, (uint64_t)i + 1);
        order[i] = order[at];
        order[at] = first + (uint64_t)i;
    }
    for (int i = 0; ok && i < n; i++) {
        Trial trial = make_trial(arena, order[i]);
        ok = records_add(records, diags, &trial);
    }
    records_close(records);
    return ok;
}

/* ---- searches ---- */

/* One kernel as a search meets it. seconds: of the default on the first machine; gain: of the best point. */
typedef struct {
    const char *kernel, *shape, *dtypes, *default_point;
    double operations, bytes, seconds, gain, trouble;
    int first_values[8], second_values[8];
    const char *first_name, *second_name;
} Kernel;

static const Kernel kernels[] = {
    { "gemm", "n_in=512 n_out=1024 n_experts=8 in_pairs=0 out_pairs=0 has_bias=0 accumulate=0 top_k=2 t512", "bf16",
      "block_rows=144 tail_rows=2 tile_rows=6", 1.074e9, 8.4e6, 1.21e-2, 1.19, 0.12,
      { 48, 72, 96, 144, 192, 256, 384, 512 }, { 4, 6, 8, 10, 12, 13, 14, 6 }, "block_rows", "tile_rows" },
    { "gemm", "n_in=1024 n_out=512 n_experts=8 in_pairs=1 out_pairs=0 has_bias=0 accumulate=1 top_k=2 t512", "bf16",
      "block_rows=144 tail_rows=2 tile_rows=6", 1.074e9, 8.4e6, 1.33e-2, 1.11, 0.1,
      { 48, 72, 96, 144, 192, 256, 384, 512 }, { 4, 6, 8, 10, 12, 13, 14, 6 }, "block_rows", "tile_rows" },
    { "gemm_q", "n_in=512 n_out=1408 n_experts=8 in_pairs=0 out_pairs=0 has_bias=0 accumulate=0 top_k=2 t512", "q8",
      "block_rows=192 tail_rows=2 tile_rows=6", 1.476e9, 5.9e6, 1.15e-2, 1.34, 0.2,
      { 48, 96, 144, 192, 256, 384, 512, 96 }, { 4, 6, 8, 10, 12, 13, 14, 6 }, "block_rows", "tile_rows" },
    { "gemv", "n_in=512 n_out=1024 n_experts=8 in_pairs=0 out_pairs=0 has_bias=0 accumulate=0 top_k=2 t1", "bf16",
      "prefetch_rows=16 unroll=4", 2.1e6, 2.1e6, 1.9e-4, 1.05, 0.05,
      { 0, 4, 8, 12, 24, 32, 64, 96 }, { 1, 2, 4, 8, 1, 2, 4, 8 }, "prefetch_rows", "unroll" },
    { "attention", "n_heads=16 n_kv_heads=4 head_dim=64 window=0 t512", "f32", "key_block=64 token_block=32", 5.4e8,
      2.1e6, 9.8e-3, 1.27, 0.15, { 32, 64, 128, 256, 64, 32, 128, 256 }, { 8, 16, 24, 32, 48, 64, 96, 128 },
      "key_block", "token_block" },
    { "scan", "d_inner=1024 d_state=16 t512", "f32", "chunk=32 unroll=2", 5e7, 1.3e7, 3.1e-3, 1.0, 0.1,
      { 8, 16, 32, 64, 128, 256, 32, 64 }, { 1, 2, 4, 8, 1, 2, 4, 8 }, "chunk", "unroll" },
};

/* A pass over 8x200M+ on an H200, about: all launches of a kernel. */
static const Kernel gpu_kernels[] = {
    { "gemm_h100", "n_in=1024 n_out=4096 n_experts=8 dtype=f16 in_pairs=0 gated=1 rows=tokens top_k=3 t8192", "f16",
      "stages=4 tile_columns=256", 4.9e12, 7.5e9, 7.4e-3, 1.15, 0.05,
      { 3, 4, 5, 6, 7, 3, 4, 5 }, { 96, 128, 256, 96, 128, 256, 96, 128 }, "stages", "tile_columns" },
    { "gemm_h100", "n_in=2048 n_out=96 n_experts=8 dtype=f16 in_pairs=1 gated=0 rows=tokens top_k=3 t8192", "f16",
      "stages=7 tile_columns=96", 2.3e11, 2.6e9, 1.1e-3, 1.3, 0.1,
      { 3, 4, 5, 6, 7, 3, 4, 5 }, { 96, 128, 256, 96, 128, 256, 96, 128 }, "stages", "tile_columns" },
    { "gemm_h100", "n_in=1024 n_out=50304 n_experts=1 dtype=f16 in_pairs=0 gated=0 rows=logits top_k=1 t8192", "f16",
      "stages=4 tile_columns=256", 1e8, 1.03e8, 4.1e-5, 1.25, 0.1,
      { 3, 4, 5, 6, 7, 3, 4, 5 }, { 96, 128, 256, 96, 128, 256, 96, 128 }, "stages", "tile_columns" },
    { "scan", "n_in=16 n_out=2048 n_experts=1 dtype=f32 z_pairs=3 zoh=0 t8192", "f32", "block_channels=16 stages=8",
      5.2e10, 5.9e9, 2.9e-3, 1.4, 0.2, { 8, 16, 8, 16, 8, 16, 8, 16 }, { 6, 8, 10, 6, 8, 10, 6, 8 },
      "block_channels", "stages" },
    { "decode_in", "n_in=1024 n_out=2048 n_experts=8 dtype=f16 top_k=3 t1", "f16", "group=4 ring=3", 6.1e8, 6.1e8,
      1.6e-4, 1.1, 0.1, { 2, 4, 6, 8, 2, 4, 6, 8 }, { 2, 3, 4, 2, 3, 4, 2, 3 }, "group", "ring" },
    { "decode_head", "n_in=1024 n_out=50304 n_experts=1 dtype=f16 t1", "f16", "group=4 ring=3", 1.03e8, 1.03e8, 2.9e-5,
      1.0, 0.1, { 2, 4, 6, 8, 2, 4, 6, 8 }, { 2, 3, 4, 2, 3, 4, 2, 3 }, "group", "ring" },
    { "decode_head", "n_in=1024 n_out=50304 n_experts=1 dtype=f16 t4", "f16", "group=4 ring=3", 4.1e8, 1.03e8, 3e-5,
      1.0, 0.1, { 2, 4, 6, 8, 2, 4, 6, 8 }, { 2, 3, 4, 2, 3, 4, 2, 3 }, "group", "ring" },
    { "decode_attention", "n_heads=16 n_kv_heads=4 head_dim=64 window=2048 t1", "f32", "splits=8 tiles=1", 8.4e6, 2.1e6,
      9e-6, 1.3, 0.1, { 4, 8, 16, 32, 4, 8, 16, 32 }, { 1, 2, 4, 1, 2, 4, 1, 2 }, "splits", "tiles" },
};
enum { N_KERNELS = sizeof kernels / sizeof *kernels, N_GPU_KERNELS = sizeof gpu_kernels / sizeof *gpu_kernels };

/* Time of a point over the default's: drawn from its text, between the best and 60 % above it. */
static double relative_time(const Kernel *kernel, const char *point)
{
    uint64_t state = 0;
    if (strcmp(point, kernel->default_point) == 0)
        return 1;
    for (const char *at = point; *at; at++)
        state = state * 131 + (unsigned char)*at;
    for (const char *at = kernel->shape; *at; at++)
        state = state * 131 + (unsigned char)*at;
    double u = uniform(&state);
    return (1 + 0.6 * sqrt(u)) / kernel->gain;
}

typedef struct {
    Records *records;
    Diags *diags;
    Arena *arena;
    const Kernel *kernels, *kernel;
    int n_kernels;
    const char *toolchain;
    double peak_operations, peak_bytes;      /* of a machine of scale 1 */
    Trial trial;             /* what all of a kernel's have in common */
    double scale;            /* seconds of this machine over those in the table */
    const char *incumbent;
    uint64_t *state;
} Run;

static const double *measure(Run *run, const char *point, int n, double drift)
{
    double *samples = arena_array(run->arena, double, (size_t)n);
    double seconds = run->kernel->seconds * run->scale * drift * relative_time(run->kernel, point);
    for (int i = 0; i < n; i++)
        samples[i] = seconds * exp(fabs(0.012 * make_normal(run->state)));
    return samples;
}

static bool add_point(Run *run, const char *point, int64_t ordinal)
{
    static const TrialStatus troubles[] = { TRIAL_BUILD_FAILED, TRIAL_WRONG, TRIAL_CRASHED, TRIAL_HUNG,
                                            TRIAL_RUNNER_FAILED };
    static const char *const words[] = { "tile.h:88: error: too many registers", "element 3817 of 4096: 0.1250, "
                                         "expected 0.0313", "signal 11", "no end after 10 s", "ssh: connection lost" };
    bool is_default = strcmp(point, run->kernel->default_point) == 0;
    double ratio = relative_time(run->kernel, point) / relative_time(run->kernel, run->incumbent);
    double drift = 1 + 0.05 * sin((double)ordinal / 9);
    Trial trial = run->trial;
    trial.point = point;
    trial.incumbent = run->incumbent;
    trial.ordinal = ordinal;
    trial.unix_ms += ordinal * 1900;
    trial.status = TRIAL_OK;
    trial.max_error = 1e-7 * (1 + uniform(run->state));
    if (!is_default && uniform(run->state) < run->kernel->trouble) {
        int which = (int)make_draw(run->state, 5);
        trial.status = troubles[which];
        trial.detail = words[which];
        trial.max_error = trial.status == TRIAL_WRONG ? 0.0937 : -1;
    } else if (ratio > 1.3) {
        trial.status = TRIAL_STOPPED;
    }
    trial.n_samples = trial.n_incumbent_samples = trial.status == TRIAL_STOPPED ? 2 : 9;
    trial.samples = measure(run, point, trial.n_samples, drift);
    trial.incumbent_samples = measure(run, run->incumbent, trial.n_incumbent_samples, drift);
    if (trial.status == TRIAL_OK && ratio < 0.99)
        run->incumbent = point;
    return records_add(run->records, run->diags, &trial);
}

static const char *draw_point(Run *run)
{
    const Kernel *k = run->kernel;
    int first = k->first_values[make_draw(run->state, 8)], second = k->second_values[make_draw(run->state, 8)];
    bool tail = strcmp(k->second_name, "tile_rows") == 0;
    const char *point = arena_printf(run->arena, "%s=%d%s %s=%d", k->first_name, first, tail ? " tail_rows=2" : "",
                                     k->second_name, second);
    return strcmp(point, run->incumbent) == 0 ? draw_point(run) : point;
}

static bool run_search(Run *run, TargetId target, const char *device, const char *model, uint64_t seed, int n_points,
                       bool stale)
{
    Search search = { .command = arena_printf(run->arena, "tune %s --target %s", model, target_info(target)->name),
                      .model = model,
                      .device = device, .features = identity_features(run->arena, target), .seed = (int64_t)seed,
                      .peak_operations = run->peak_operations / run->scale,
                      .peak_bytes = run->peak_bytes / run->scale };
    bool ok = records_search_open(run->records, run->diags, &search);
    for (int k = 0; ok && k < run->n_kernels; k++) {
        const Kernel *kernel = run->kernel = &run->kernels[k];
        run->incumbent = kernel->default_point;
        run->trial = (Trial){
            .key = { kernel->kernel, kernel->shape, kernel->dtypes, search.features, device, run->toolchain,
                     identity_template(run->arena, target, kernel->kernel) },
            .tolerance = 1e-5, .operations = kernel->operations, .bytes = kernel->bytes, .search = search.id,
            .seed = search.seed, .unix_ms = INT64_C(1767225600000),
        };
        if (stale && k == 1)
            run->trial.key.template_hash = "0000000000000000";
        for (int i = 0; ok && i <= n_points; i++)
            ok = add_point(run, i ? draw_point(run) : kernel->default_point, k * (n_points + 1) + i);
    }
    search.next_ordinal = run->n_kernels * (n_points + 1);
    search.seconds = 1.9 * (double)search.next_ordinal;
    search.finished = true;
    return ok && records_search_save(run->records, run->diags, &search);
}

bool make_searches(Arena *arena, Diags *diags, const char *path, uint64_t seed, int n_points, bool stale)
{
    uint64_t state = seed;
    Run run = { .records = records_open(arena, diags, path, RECORDS_CREATE), .diags = diags, .arena = arena,
                .kernels = kernels, .n_kernels = N_KERNELS, .toolchain = "gcc (Debian 12.2.0-14) 12.2.0",
                .peak_operations = 1.9e11, .peak_bytes = 2.1e10, .scale = 1, .state = &state };
    bool ok = run.records != NULL;
    ok = ok && run_search(&run, TARGET_X86_64_V3, "AMD EPYC 9B14 (25-17-1), 2 cpus", "mossnet-8x8m", seed, n_points,
                          false);
    run.scale = 4.5;
    ok = ok && run_search(&run, TARGET_ARM_NEON, "ARM 4x0x41:0xd05 4x0x41:0xd0b", "mossnet-8x8m", seed, n_points,
                          stale);
    records_close(run.records);
    return ok;
}

bool make_gpu_search(Arena *arena, Diags *diags, const char *path, uint64_t seed, int n_points)
{
    uint64_t state = seed;
    Run run = { .records = records_open(arena, diags, path, RECORDS_CREATE), .diags = diags, .arena = arena,
                .kernels = gpu_kernels, .n_kernels = N_GPU_KERNELS, .toolchain = "mossc PTX, LLVM 19",
                .peak_operations = 8.1e14, .peak_bytes = 4.3e12, .scale = 1, .state = &state };
    bool ok = run.records && run_search(&run, TARGET_H100, "NVIDIA H200, sm_90, CUDA 13", "mossnet-8x200m+", seed,
                                        n_points, false);
    records_close(run.records);
    return ok;
}
