/* The driver of the stand-in GPU: the functions that the runtime asks libcuda.so.1 for, and who finds them; see
 * fake_gpu.h. dlopen and dlsym are wrapped by the linker, so that the runtime finds this one. Built with FAKE_GPU_START
 * it is that of an artifact of the command-line tests, which say in FAKE_GPU what it lacks: driver, memory, feed, or
 * after how many launches it breaks. */
#include "fake_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Each function begins so: fails if told to, and must have a context where the driver needs one. What frees something
 * frees it and then fails. */
#define ENTER(name) do { int result_ = fake_enter(name, true); if (result_) return result_; } while (0)
#define ENTER_ANYWHERE(name) do { int result_ = fake_enter(name, false); if (result_) return result_; } while (0)

/* ---- graphs ---- */

struct moss_cu_graph_s { FakeKernel kernels[FAKE_MAX_LAUNCHES]; int n; };
struct moss_cu_graph_exec_s { struct moss_cu_graph_s graph; };
static struct moss_cu_graph_s *capturing;

/* ---- what the runtime calls ---- */

static int fake_get_version(int *version)
{
    *version = fake_device()->version;
    return 0;
}

static int fake_get_error_name(int result, const char **text)
{
    *text = result == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : result == 719 ? "CUDA_ERROR_LAUNCH_FAILED"
          : result == 218 ? "CUDA_ERROR_INVALID_PTX" : NULL;
    return 0;
}

static int fake_get_error_string(int result, const char **text)
{
    *text = result == 719 ? "unspecified launch failure" : NULL;
    return 0;
}

static int fake_init(unsigned flags)
{
    (void)flags;
    return fake_enter("cuInit", false);
}

static int fake_device_get_count(int *n)
{
    ENTER_ANYWHERE("cuDeviceGetCount");
    *n = fake_device()->n_devices;
    return 0;
}

static int fake_device_get(int *id, int ordinal)
{
    ENTER_ANYWHERE("cuDeviceGet");
    *id = 40 + ordinal;
    return 0;
}

static int fake_device_get_name(char *name, int len, int id)
{
    ENTER_ANYWHERE("cuDeviceGetName");
    snprintf(name, (size_t)len, "Fake %d", id);
    return 0;
}

static int fake_device_get_attribute(int *value, int attribute, int id)
{
    (void)id;
    ENTER_ANYWHERE("cuDeviceGetAttribute");
    *value = attribute == MOSS_CU_DEVICE_MAJOR ? fake_device()->capability / 10
           : attribute == MOSS_CU_DEVICE_MINOR ? fake_device()->capability % 10
           : attribute == MOSS_CU_DEVICE_PROCESSORS ? FAKE_PROCESSORS : fake_device()->shared_most;
    return 0;
}

static int fake_context_retain(moss_cu_context *context, int id)
{
    ENTER_ANYWHERE("cuDevicePrimaryCtxRetain");
    *context = (moss_cu_context)(uintptr_t)id;
    fake_count(&fake_device()->n_live, 1);
    return 0;
}

static int fake_context_release(int id)
{
    (void)id;
    fake_count(&fake_device()->n_live, -1);
    return fake_enter("cuDevicePrimaryCtxRelease_v2", false);
}

static int fake_context_push(moss_cu_context context)
{
    const int result = context ? fake_enter("cuCtxPushCurrent_v2", false) : 201;
    fake_depth += !result;
    return result;
}

static int fake_context_pop(moss_cu_context *context)
{
    *context = NULL;
    return fake_depth-- > 0 ? 0 : 201;
}

static int fake_memory_info(size_t *free_len, size_t *total)
{
    ENTER("cuMemGetInfo_v2");
    *free_len = fake_device()->free_len;
    *total = (size_t)2 << 30;
    return 0;
}

static int fake_memory_alloc(moss_cu_pointer *memory, size_t len)
{
    void *block;
    ENTER("cuMemAlloc_v2");
    const int result = fake_memory_new(&block, len, false);
    if (!result)
        *memory = (uintptr_t)block;
    return result;
}

static int fake_memory_free(moss_cu_pointer memory)
{
    fake_queue_run();
    const int result = fake_memory_delete((void *)(uintptr_t)memory);
    return result ? result : fake_enter("cuMemFree_v2", true);
}

static int fake_pinned_alloc(void **memory, size_t len, unsigned flags)
{
    (void)flags;
    ENTER("cuMemHostAlloc");
    return fake_memory_new(memory, len, true);
}

static int fake_pinned_free(void *memory)
{
    fake_queue_run();
    const int result = fake_memory_delete(memory);
    return result ? result : fake_enter("cuMemFreeHost", true);
}

static int fake_copy_to_device(moss_cu_pointer to, const void *from, size_t len, moss_cu_stream stream)
{
    (void)stream;
    ENTER("cuMemcpyHtoDAsync_v2");
    void *target = (void *)(uintptr_t)to;
    if (!fake_memory_has(target, len, false))
        return 1;
    FakeWork work = { .to = target, .from = from, .len = len };
    if (!fake_memory_has(from, len, true)) {
        work.from = work.staged = malloc(len + 1);
        memcpy(work.staged, from, len);
        fake_count(&fake_device()->n_states_up, 1);      /* all else comes from pinned memory */
    }
    fake_queue_add(&work);
    return 0;
}

static int fake_copy_to_host(void *to, moss_cu_pointer from, size_t len, moss_cu_stream stream)
{
    (void)stream;
    ENTER("cuMemcpyDtoHAsync_v2");
    const void *source = (const void *)(uintptr_t)from;
    if (!fake_memory_has(source, len, false))
        return 1;
    const bool pinned = fake_memory_has(to, len, true);
    fake_queue_add(&(FakeWork){ .to = to, .from = source, .len = len });
    if (!pinned) {
        fake_queue_run();
        const bool is_state = len < MOSS_GPU_MAX_SEQUENCES * FAKE_VOCAB;      /* else logits of many tokens */
        fake_count(&fake_device()->n_states_down, is_state);
    }
    return 0;
}

static int fake_memory_set(moss_cu_pointer to, unsigned char value, size_t len, moss_cu_stream stream)
{
    (void)stream;
    ENTER("cuMemsetD8Async");
    void *target = (void *)(uintptr_t)to;
    if (!fake_memory_has(target, len, false))
        return 1;
    fake_queue_add(&(FakeWork){ .to = target, .len = len, .value = value });
    return 0;
}

static int fake_stream_create(moss_cu_stream *stream, unsigned flags)
{
    (void)flags;
    ENTER("cuStreamCreate");
    *stream = (moss_cu_stream)malloc(1);
    fake_count(&fake_device()->n_live, 1);
    return 0;
}

static int fake_stream_destroy(moss_cu_stream stream)
{
    free(stream);
    fake_count(&fake_device()->n_live, -1);
    return fake_enter("cuStreamDestroy_v2", true);
}

static int fake_stream_wait(moss_cu_stream stream)
{
    (void)stream;
    fake_queue_run();
    return fake_enter("cuStreamSynchronize", true);
}

static int fake_capture_begin(moss_cu_stream stream, int mode)
{
    (void)stream, (void)mode;
    ENTER("cuStreamBeginCapture_v2");
    capturing = calloc(1, sizeof *capturing);
    fake_count(&fake_device()->n_live, 1);
    fake_count(&fake_device()->n_captures, 1);
    return 0;
}

static int fake_capture_end(moss_cu_stream stream, moss_cu_graph *graph)
{
    (void)stream;
    const int result = fake_enter("cuStreamEndCapture", true);
    if (result) {
        free(capturing);
        fake_count(&fake_device()->n_live, -1);
    }
    *graph = result ? NULL : capturing;
    capturing = NULL;
    return result;
}

static int fake_event_create(moss_cu_event *event, unsigned flags)
{
    (void)flags;
    ENTER("cuEventCreate");
    *event = (moss_cu_event)malloc(1);
    fake_count(&fake_device()->n_live, 1);
    return 0;
}

static int fake_event_destroy(moss_cu_event event)
{
    free(event);
    fake_count(&fake_device()->n_live, -1);
    return fake_enter("cuEventDestroy_v2", true);
}

static int fake_event_record(moss_cu_event event, moss_cu_stream stream)
{
    (void)event, (void)stream;
    return fake_enter("cuEventRecord", true);
}

static int fake_event_wait(moss_cu_event event)
{
    (void)event;
    fake_queue_run();
    return fake_enter("cuEventSynchronize", true);
}

static int fake_module_load(moss_cu_module *module, const void *text, unsigned n_options, int *options, void **values)
{
    ENTER("cuModuleLoadDataEx");
    if (n_options != 2 || options[0] != MOSS_CU_JIT_ERROR_LOG || strcmp(text, "the kernels") != 0)
        return 1;
    if (fake_device()->ptx_log) {
        snprintf(values[0], (size_t)(uintptr_t)values[1], "%s", fake_device()->ptx_log);
        return MOSS_CU_ERROR_INVALID_PTX;
    }
    *module = (moss_cu_module)malloc(1);
    fake_count(&fake_device()->n_live, 1);
    return 0;
}

static int fake_module_unload(moss_cu_module module)
{
    free(module);
    fake_count(&fake_device()->n_live, -1);
    return fake_enter("cuModuleUnload", true);
}

static int fake_module_get_function(moss_cu_function *function, moss_cu_module module, const char *name)
{
    (void)module;
    ENTER("cuModuleGetFunction");
    const int kernel = fake_kernel_find(name);
    if (kernel < 0)
        return 500;
    *function = (moss_cu_function)(uintptr_t)(kernel + 1);
    return 0;
}

static int fake_function_set(moss_cu_function function, int attribute, int value)
{
    const int kernel = (int)(uintptr_t)function - 1;
    ENTER("cuFuncSetAttribute");
    return attribute == MOSS_CU_FUNCTION_SHARED && value == fake_kernel_shared_len(kernel) ? 0 : 1;
}

static void note_launch(const moss_cu_launch *config, int kernel)
{
    fake_launch note = { fake_kernel_name(kernel), { config->grid[0], config->grid[1], config->grid[2] },
                         config->block[0], config->shared_len, false, false };
    for (uint32_t i = 0; i < config->n_attributes; i++) {
        note.dependent |= config->attributes[i].id == MOSS_CU_LAUNCH_DEPENDENT && config->attributes[i].value.on;
        note.cooperative |= config->attributes[i].id == MOSS_CU_LAUNCH_COOPERATIVE && config->attributes[i].value.on;
    }
    if (fake_device()->n_launches < FAKE_MAX_LAUNCHES)
        fake_device()->launches[fake_device()->n_launches] = note;
    fake_device()->n_launches++;
}

static int fake_launch_kernel(const moss_cu_launch *config, moss_cu_function function, void **arguments, void **extra)
{
    (void)extra;
    ENTER("cuLaunchKernelEx");
    FakeWork work = { .kernel = { .kernel = (int)(uintptr_t)function - 1, .config = *config } };
    work.kernel.config.attributes = NULL;
    for (int i = 0; i < fake_kernel_n_args(work.kernel.kernel); i++)
        memcpy(&work.kernel.values[i], arguments[i], sizeof work.kernel.values[i]);
    note_launch(config, work.kernel.kernel);
    if (capturing)
        capturing->kernels[capturing->n++] = work.kernel;
    else
        fake_queue_add(&work);
    return 0;
}

static int fake_graph_instantiate(moss_cu_graph_exec *exec, moss_cu_graph graph, unsigned long long flags)
{
    (void)flags;
    ENTER("cuGraphInstantiateWithFlags");
    *exec = malloc(sizeof **exec);
    (*exec)->graph = *graph;
    fake_count(&fake_device()->n_live, 1);
    return 0;
}

static int fake_graph_destroy(moss_cu_graph graph)
{
    free(graph);
    fake_count(&fake_device()->n_live, -1);
    return fake_enter("cuGraphDestroy", true);
}

static int fake_graph_launch(moss_cu_graph_exec exec, moss_cu_stream stream)
{
    (void)stream;
    ENTER("cuGraphLaunch");
    for (int i = 0; i < exec->graph.n; i++)
        fake_queue_add(&(FakeWork){ .kernel = exec->graph.kernels[i] });
    fake_device()->n_replays++;
    return 0;
}

static int fake_graph_exec_destroy(moss_cu_graph_exec exec)
{
    free(exec);
    fake_count(&fake_device()->n_live, -1);
    return fake_enter("cuGraphExecDestroy", true);
}

static int fake_map_encode(void *map, int type, unsigned rank, void *address, const uint64_t *dims,
                           const uint64_t *strides, const uint32_t *box, const uint32_t *steps, int interleave,
                           int swizzle, int promotion, int fill)
{
    (void)promotion;
    ENTER("cuTensorMapEncodeTiled");
    if (type != 1 || rank != 2 || !fake_memory_has(address, 100 * 128, false) || dims[0] != 64 || dims[1] != 100
        || strides[0] != 128 || box[0] != 64 || box[1] != 8 || steps[0] != 1 || steps[1] != 1 || interleave
        || swizzle != 3 || fill || (uintptr_t)map % 64)
        return 1;
    memset(map, 0xAB, sizeof(moss_cu_tensor_map));
    fake_device()->n_maps++;
    return 0;
}

/* ---- the loader ---- */

void *__wrap_dlopen(const char *name, int flags);
void *__wrap_dlsym(void *library, const char *name);
char *__wrap_dlerror(void);

void *__wrap_dlopen(const char *name, int flags)
{
    (void)flags;
    return fake_device()->no_library || strcmp(name, "libcuda.so.1") != 0 ? NULL : fake_device();
}

char *__wrap_dlerror(void)
{
    static char words[] = "libcuda.so.1: cannot open shared object file";
    return words;
}

/* ISO C has no conversion between pointers to functions and to objects. */
typedef union { void (*function)(void); void *object; } Symbol;
#define FAKE(symbol, name) if (strcmp(asked, symbol) == 0) \
    return ((Symbol){ .function = (void (*)(void))name }).object;

void *__wrap_dlsym(void *library, const char *asked)
{
    if (library != fake_device() || (fake_device()->lacks && strcmp(fake_device()->lacks, asked) == 0))
        return NULL;
    FAKE("cuDriverGetVersion", fake_get_version)
#define fake_launch fake_launch_kernel
#define CUDA_SYMBOL(id, name, need, arguments) FAKE(name, fake_##id)
#include "cuda_syms.def"
#undef CUDA_SYMBOL
    return NULL;
}

#ifdef FAKE_GPU_START
__attribute__((constructor)) static void fake_start(void)
{
    const char *lacks = getenv("FAKE_GPU");
    fake_gpu *device = fake_device();
    fake_reset();
    if (!lacks)
        return;
    device->no_library = strcmp(lacks, "driver") == 0;
    if (strcmp(lacks, "memory") == 0)
        device->free_len = 1 << 20;
    if (strcmp(lacks, "feed") == 0)
        fake_tables()->feed.end = fake_tables()->feed.begin;
    if (*lacks >= '0' && *lacks <= '9')
        device->fails = "cuGraphLaunch", device->fail_code = 719, device->fail_after = atoi(lacks);
}
#endif
