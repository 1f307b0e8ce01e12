/* The CUDA driver, opened at run time: the few of its types and functions that the runtime needs.
 *
 * Neither headers nor libraries of CUDA are needed to build. Numbers are those of the driver's
 * documented interface, which has kept them since they came. Invariant: no function of an open driver is NULL,
 * but those for tensor maps where the program has none.
 */
#ifndef MOSS_GPU_DRIVER_H
#define MOSS_GPU_DRIVER_H

#include "internal.h"

enum {
    MOSS_CU_LEAST_VERSION = 12000,         /* 1000 * major + 10 * minor: launch attributes, tensor maps */
    MOSS_CU_GRAPH_DEPENDENT_VERSION = 12030,   /* programmatic dependent launches in captured graphs */
};

typedef uint64_t moss_cu_pointer;           /* an address on the device; 0: none */
typedef struct moss_cu_context_s *moss_cu_context;
typedef struct moss_cu_stream_s *moss_cu_stream;
typedef struct moss_cu_event_s *moss_cu_event;
typedef struct moss_cu_module_s *moss_cu_module;
typedef struct moss_cu_function_s *moss_cu_function;
typedef struct moss_cu_graph_s *moss_cu_graph;
typedef struct moss_cu_graph_exec_s *moss_cu_graph_exec;

/* CUlaunchAttribute: its value is a union of 64 bytes, of which one int is used here. */
typedef struct {
    int32_t id, pad;
    union { int32_t on; unsigned char bytes[64]; } value;
} moss_cu_launch_attribute;

/* CUlaunchConfig */
typedef struct {
    uint32_t grid[3], block[3], shared_len;
    moss_cu_stream stream;
    moss_cu_launch_attribute *attributes;
    uint32_t n_attributes;
} moss_cu_launch;

typedef struct { _Alignas(64) unsigned char bytes[128]; } moss_cu_tensor_map;

enum {
    MOSS_CU_ERROR_NO_DEVICE = 100, MOSS_CU_ERROR_INVALID_PTX = 218,
    MOSS_CU_LAUNCH_COOPERATIVE = 2, MOSS_CU_LAUNCH_DEPENDENT = 6,
    MOSS_CU_DEVICE_PROCESSORS = 16, MOSS_CU_DEVICE_MAJOR = 75, MOSS_CU_DEVICE_MINOR = 76, MOSS_CU_DEVICE_SHARED = 97,
    MOSS_CU_FUNCTION_SHARED = 8,
    MOSS_CU_JIT_ERROR_LOG = 5, MOSS_CU_JIT_ERROR_LOG_LEN = 6,
    MOSS_CU_STREAM_NON_BLOCKING = 1, MOSS_CU_EVENT_NO_TIMING = 2, MOSS_CU_CAPTURE_THREAD = 1,
};

typedef struct {
    int32_t version;           /* as MOSS_CU_LEAST_VERSION counts */
#define CUDA_SYMBOL(id, name, need, arguments) int (*id) arguments;
#include "cuda_syms.def"
#undef CUDA_SYMBOL
} moss_driver;

/* Open libcuda.so.1 and look its functions up; MOSS_ERROR_DEVICE says what is missing. Nothing to close. */
MOSS_INTERNAL int moss_driver_open(moss_driver *driver, moss_error *error);
/* MOSS_OK, or MOSS_ERROR_DEVICE: "what: the driver's name and words for the result". */
MOSS_INTERNAL int moss_driver_check(const moss_driver *driver, int result, const char *what, moss_error *error);

#endif
