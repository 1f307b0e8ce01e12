/* Code generator: a Plan becomes C, packed weights and a manifest. Its one public header. */
#ifndef MOSSC_CODEGEN_H
#define MOSSC_CODEGEN_H

#include "bundle.h"
#include "../ir/plan.h"
#include "../ir/text.h"

#include <stdbool.h>

/* What tells weights apart: the packed bytes' checksum, and one of the tensors' values, whatever the layout. */
typedef struct { uint64_t packed, values; } WeightSums;

/* The model's own source: kernels, layers, forward functions, the program table. Needs the kernel
 * headers of bundle.h before it. `embedded`: the weights are linked in. */
void codegen_write_model(Arena *arena, const Plan *plan, WeightSums sums, bool embedded, Text *out);
/* Where there is code for several kinds of CPU, the same in parts: the code for one, and the program table, which needs
 * no more than program.h. */
void codegen_write_code(Arena *arena, const Plan *plan, Text *out);
void codegen_write_program(Arena *arena, const Plan *plan, WeightSums sums, bool embedded, Text *out);
/* The same for a plan with launches: PTX, its tables, the program table. */
void codegen_write_gpu_model(Arena *arena, const Plan *plan, WeightSums sums, bool embedded, Text *out);
/* Only the PTX; of all kernels, or of those that are `wanted` [n_kernels]. */
void codegen_write_ptx(Arena *arena, const Plan *plan, Text *out);
void codegen_write_kernels(const Plan *plan, const bool *wanted, Text *out);      /* by any thread */
/* [n_kernels] */
const char **codegen_kernel_names(Arena *arena, const Plan *plan);
/* False: mossc was built without LLVM, and none of these may be called. */
bool codegen_gpu_available(void);
/* Kernels that show what a GPU can do at most: read memory, or multiply on its tensor cores in one of two ways. */
typedef enum { CEILING_READ, CEILING_MMA, CEILING_WGMMA, N_CEILINGS } CeilingId;
/* How one is launched, with arguments (out, from, int64 n): from has n pieces of 16 bytes for READ, a multiple of 2048,
 * else at least CEILING_FROM_LEN bytes. work: bytes of a piece; operations of a block in one of n. */
enum { CEILING_FROM_LEN = 12288 * 16 };
typedef struct {
    const char *name;
    int n_threads, n_blocks, shared_len;     /* blocks a multiprocessor */
    double work;
} GpuCeiling;
/* Its PTX to `out`, which may be NULL. False: the target has no such kernel. */
bool codegen_ceiling(Arena *arena, TargetId target, CeilingId id, GpuCeiling *ceiling, Text *out);
/* manifest.json: what is exported, with argument types and shapes, memory and costs. */
void codegen_write_manifest(const Plan *plan, const char *prefix, Text *out);
/* The version script of a shared library: what it exports, and nothing else. */
void codegen_write_exports(const char *prefix, Text *out);
/* Bytes that stand before the manifest inside every artifact. */
#define MANIFEST_MARK "mossc-manifest/1\n"

/* Where tensors come from, for the packer. */
typedef struct {
    void *context;
    int (*find)(void *context, const char *tensor);            /* -1: none */
    int64_t (*out_rows)(void *context, int tensor);            /* length of the out axis */
    void (*read)(void *context, int tensor, int64_t begin, int64_t count, float *out);   /* thread-safe */
    void (*progress)(void *context, int64_t done, int64_t total);   /* bytes; may be NULL */
} TensorSource;

/* A value that cannot be packed. */
typedef struct { bool found; int tensor; int64_t index; float value; } BadValue;

/* Bytes of a weights file of this plan, header included. */
int64_t pack_len(const Plan *plan);
/* Fill `file` (pack_len bytes, zeroed) with header and packed weights, n_threads at a time; a
 * non-finite value is told in `bad`. */
WeightSums pack_weights(const Plan *plan, const TensorSource *source, int n_threads, uint8_t *file, BadValue *bad);

#endif
