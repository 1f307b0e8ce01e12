/* Ceilings: a small program of the target's own instructions, compiled like a candidate and run by a watched child, or
 * by a runner.
 *
 * Input: the compiler and flags of the target. Output: what its loops reach.
 */
#include "ceilings.h"

#include "ceilings_run.h"
#include "runner.h"
#include "watch.h"
#include "../codegen/codegen.h"

#include <dlfcn.h>
#include <string.h>

/* 12 chains hide the latency of a multiply-add on every CPU there is, and fit every register file. */
static const char source[] =
    "#define EXPORT __attribute__((visibility(\"default\")))\n"
    "EXPORT const int ceiling_lanes = LANES;\n"
    "EXPORT float ceiling_multiply(long steps)\n{\n"
    "    vf sum[12], x = vset(0.999f), y = vset(1e-3f), all = vset(0);\n"
    "    UNROLL\n    for (int j = 0; j < 12; j++)\n        sum[j] = vset((float)j);\n"
    "    for (long i = 0; i < steps; i++) {\n"
    "        __asm__ volatile(\"\" ::: \"memory\");\n"
    "        UNROLL\n        for (int j = 0; j < 12; j++)\n            sum[j] = vfma(x, sum[j], y);\n    }\n"
    "    UNROLL\n    for (int j = 0; j < 12; j++)\n        all += sum[j];\n    return vsum(all);\n}\n"
    "EXPORT float ceiling_multiply_int8(long steps)\n{\n"
    "    vi sum[12], x = viset(0x01010101), y = viset(0x02030201), all = viset(0);\n"
    "    UNROLL\n    for (int j = 0; j < 12; j++)\n        sum[j] = viset(j);\n"
    "    for (long i = 0; i < steps; i++) {\n"
    "        __asm__ volatile(\"\" ::: \"memory\");\n"
    "        UNROLL\n        for (int j = 0; j < 12; j++)\n            sum[j] = vdot4(sum[j], x, y);\n    }\n"
    "    UNROLL\n    for (int j = 0; j < 12; j++)\n        all += sum[j];\n    return (float)all[0];\n}\n"
    "EXPORT float ceiling_read(const float *p, long n)\n{\n"
    "    vf sum[8], all = vset(0);\n"
    "    UNROLL\n    for (int j = 0; j < 8; j++)\n        sum[j] = vset(0);\n"
    "    for (long i = 0; i + 8 * LANES <= n; i += 8 * LANES) {\n"
    "        UNROLL\n        for (int j = 0; j < 8; j++)\n            sum[j] += vload(p + i + j * LANES);\n    }\n"
    "    UNROLL\n    for (int j = 0; j < 8; j++)\n        all += sum[j];\n    return vsum(all);\n}\n";

typedef struct { const char *path; Ceilings *found; } Task;

/* A symbol as a pointer to a function, which C converts only through its bytes. */
static void find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
}

static void work(void *context)
{
    const Task *w = context;
    CeilingKernels kernels;
    void *library = dlopen(w->path, RTLD_NOW | RTLD_LOCAL);
    const int *lanes = library ? dlsym(library, "ceiling_lanes") : NULL;
    if (!lanes)
        return;
    kernels.lanes = *lanes;
    find(library, "ceiling_multiply", &kernels.multiply);
    find(library, "ceiling_multiply_int8", &kernels.multiply_int8);
    find(library, "ceiling_read", &kernels.read);
    ceilings_run(&kernels, w->found);
}

static bool measure_here(const char *path, Ceilings *found)
{
    Ceilings *shared = watch_memory(sizeof *shared);
    if (!shared)
        return false;
    Task task = { path, shared };
    const bool ok = watch_run(work, &task, CEILINGS_DEADLINE_S).status == TRIAL_OK;
    *found = *shared;
    watch_release(shared, sizeof *shared);
    return ok;
}

void ceilings_measure(const Builder *builder, Diags *diags, bool int8, double *operations, double *bytes)
{
    Text text = { 0 };
    Bundle bundle = { 0 };
    Ceilings found = { 0 };
    *operations = *bytes = 0;
    bundle_kernel_headers(&bundle, &text);
    text_append(&text, source, strlen(source));
    Candidate candidate = candidate_write(builder, diags, "ceilings", &text);
    text_free(&text);
    if (!candidates_compile(builder, &candidate, 1) || !candidate.built
        || !(builder->runner ? runner_ceilings(builder->runner, candidate.path, &found)
                             : measure_here(candidate.path, &found)))
        return;
    *operations = int8 && found.operations_int8 > found.operations ? found.operations_int8 : found.operations;
    *bytes = found.bytes;
}
