/* The CUDA driver as the tuner needs it, opened at run time: types, functions, a device with a context.
 *
 * No header or library of CUDA is needed to build; numbers are those of the driver's documented interface. Only a
 * child of mossc opens it: a driver that was opened does not survive a fork, and a kernel that faults breaks it.
 */
#ifndef MOSSC_TUNER_GPU_CUDA_H
#define MOSSC_TUNER_GPU_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t CudaPointer;            /* an address on the device; 0: none */
typedef struct CudaContextOpaque *CudaContext;
typedef struct CudaStreamOpaque *CudaStream;
typedef struct CudaEventOpaque *CudaEvent;
typedef struct CudaModuleOpaque *CudaModule;
typedef struct CudaFunctionOpaque *CudaFunction;
typedef struct CudaGraphOpaque *CudaGraph;
typedef struct CudaGraphExecOpaque *CudaGraphExec;

typedef struct { int32_t id, pad; union { int32_t on; unsigned char bytes[64]; } value; } CudaAttribute;
typedef struct {
    uint32_t grid[3], block[3], shared_len;
    CudaStream stream;
    CudaAttribute *attributes;
    uint32_t n_attributes;
} CudaLaunch;
typedef struct { _Alignas(64) unsigned char bytes[128]; } CudaTensorMap;

enum {
    CUDA_LEAST_VERSION = 12000, CUDA_GRAPH_DEPENDENT_VERSION = 12030,    /* 1000 * major + 10 * minor */
    CUDA_DEVICE_PROCESSORS = 16, CUDA_DEVICE_MAJOR = 75, CUDA_DEVICE_MINOR = 76, CUDA_FUNCTION_SHARED = 8,
    CUDA_JIT_ERROR_LOG = 5, CUDA_JIT_ERROR_LOG_LEN = 6, CUDA_STREAM_NON_BLOCKING = 1, CUDA_CAPTURE_THREAD = 1,
    CUDA_LAUNCH_COOPERATIVE = 2, CUDA_LAUNCH_DEPENDENT = 6,
};

typedef struct {
    int version, capability, n_processors;   /* of the driver; 10 * major + minor, of the device */
    char name[64];
    CudaContext context;
    CudaStream stream;
    int (*map_encode)(void *map, int type, unsigned rank, void *address, const uint64_t *dims, const uint64_t *strides,
                      const uint32_t *box, const uint32_t *steps, int interleave, int swizzle, int promotion, int fill);
#define CUDA(id, name, arguments) int (*id) arguments;
#include "gpu_cuda.def"
#undef CUDA
} Cuda;

/* The driver and device 0; false with words: no driver, too old, no device. */
bool cuda_open(Cuda *cuda, char *why, size_t why_len);
/* Its context, made this thread's, and a stream. */
bool cuda_start(Cuda *cuda, char *why, size_t why_len);
/* True: result is 0. Else "what: the driver's name for it". */
bool cuda_check(const Cuda *cuda, int result, const char *what, char *why, size_t why_len);

#endif
