/* The stand-in GPU; see fake_gpu.h. dlopen and dlsym are wrapped by the linker, so that the runtime finds this one.
 * Built with FAKE_GPU_START it is an artifact of the command-line tests, which say in FAKE_GPU what it lacks:
 * driver, memory, feed, or after how many launches it breaks. */
#define moss_program_data fake_declared_const   /* as program.h does; tests change it */
#include "fake_gpu.h"
#undef moss_program_data
#include "gpu_driver.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FAKE_HASH = 0x5EED, FAKE_FIXED_LEN = 16, FAKE_SCRATCH_LEN = 4096, FAKE_ZEROED_LEN = 64, FAKE_MAX_WORK = 4096 };

/* ---- the model ---- */

enum { KERNEL_CLEAR, KERNEL_FOLD, KERNEL_LOGITS, KERNEL_ARGMAX, KERNEL_DRAW, N_KERNELS };
static const char *const kernel_names[N_KERNELS] = { "clear", "fold", "logits", "argmax", "draw" };

#define ONE { MOSS_GPU_ONE, 1, 0 }
static const moss_gpu_arg args[] = {
    { MOSS_GPU_ARG_SCRATCH, 0, 0 }, { MOSS_GPU_ARG_NULL, 0, 0 }, { MOSS_GPU_ARG_TENSOR_MAP, 0, 0 },
    /* fold, at 3 */
    { MOSS_GPU_ARG_STATE, 0, 0 }, { MOSS_GPU_ARG_STATE, 0, 16 }, { MOSS_GPU_ARG_STATE_STRIDE, 0, 0 },
    { MOSS_GPU_ARG_SLOTS, 0, 0 }, { MOSS_GPU_ARG_POSITIONS, 0, 0 }, { MOSS_GPU_ARG_TOKENS, 0, 0 },
    { MOSS_GPU_ARG_WEIGHTS, 0, 1 }, { MOSS_GPU_ARG_SCRATCH, 0, 64 }, { MOSS_GPU_ARG_COUNT, 0, MOSS_GPU_TOKENS },
    { MOSS_GPU_ARG_COUNT, 0, MOSS_GPU_SEQUENCES }, { MOSS_GPU_ARG_COUNT, 0, MOSS_GPU_TOP_K },
    { MOSS_GPU_ARG_N_CONTEXT, 0, 0 }, { MOSS_GPU_ARG_ENDS, 0, 0 },
    /* logits, at 16 */
    { MOSS_GPU_ARG_LOGITS, 0, 0 }, { MOSS_GPU_ARG_SCRATCH, 0, 64 }, { MOSS_GPU_ARG_COUNT, 0, MOSS_GPU_TOKENS },
    { MOSS_GPU_ARG_COUNT, 0, MOSS_GPU_LOGITS }, { MOSS_GPU_ARG_INT, 0, FAKE_VOCAB },
    { MOSS_GPU_ARG_ENDS, 0, 0 }, { MOSS_GPU_ARG_COUNT, 0, MOSS_GPU_SEQUENCES },
    /* argmax, at 23 */
    { MOSS_GPU_ARG_TOKENS, 0, 0 }, { MOSS_GPU_ARG_HISTORY, 0, 0 }, { MOSS_GPU_ARG_POSITIONS, 0, 0 },
    { MOSS_GPU_ARG_LOGITS, 0, 0 },
    /* draw, at 27 */
    { MOSS_GPU_ARG_TOKENS, 0, 0 }, { MOSS_GPU_ARG_HISTORY, 0, 0 }, { MOSS_GPU_ARG_POSITIONS, 0, 0 },
    { MOSS_GPU_ARG_LOGITS, 0, 0 }, { MOSS_GPU_ARG_SAMPLERS, 0, 0 },
};

static const moss_gpu_launch launches[FAKE_TABLE_LAUNCHES] = {
    { KERNEL_CLEAR, MOSS_GPU_DEPENDENT, { { MOSS_GPU_PROCESSORS, 1, 1 }, ONE }, 32, 0, 0, 3 },   /* on nothing */
    { KERNEL_FOLD, MOSS_GPU_DEPENDENT, { { MOSS_GPU_PAIRS, 3, 0 }, { MOSS_GPU_APART, 4, 1 } }, 64, 60000, 3, 13 },
    { KERNEL_LOGITS, MOSS_GPU_IF_LOGITS | MOSS_GPU_DEPENDENT, { { MOSS_GPU_LOGITS, 1, 0 }, ONE }, 128, 100, 16, 7 },
    { KERNEL_CLEAR, MOSS_GPU_COOPERATIVE, { ONE, ONE }, 32, 0, 0, 3 },
    { KERNEL_FOLD, MOSS_GPU_DEPENDENT, { { MOSS_GPU_SEQUENCES, 1, 0 }, ONE }, 64, 0, 3, 13 },
    { KERNEL_LOGITS, MOSS_GPU_IF_LOGITS, { { MOSS_GPU_LOGITS, 1, 0 }, ONE }, 128, 100, 16, 7 },
    { KERNEL_ARGMAX, MOSS_GPU_DEPENDENT, { { MOSS_GPU_SEQUENCES, 1, 0 }, ONE }, 256, 0, 23, 4 },
    { KERNEL_DRAW, MOSS_GPU_DEPENDENT, { { MOSS_GPU_SEQUENCES, 1, 0 }, ONE }, 256, 0, 27, 5 },
};

static const moss_gpu_tensor_map maps[] = {
    { MOSS_GPU_ARG_WEIGHTS, 2, 256, 100, 64, 128, 8, 64, 128 },
};

static const moss_gpu_program good_tables = {
    .sm = 90, .ptx = "the kernels", .ptx_len = 11, .kernels = kernel_names, .n_kernels = N_KERNELS,
    .launches = launches, .args = args, .tensor_maps = maps,
    .n_launches = FAKE_TABLE_LAUNCHES, .n_args = 32, .n_tensor_maps = 1,
    .prefill = { 0, 3 }, .decode = { 3, 6 }, .feed = { 6, 7 }, .draw = { 7, 8 },
    .scratch_len = FAKE_SCRATCH_LEN, .zeroed_len = FAKE_ZEROED_LEN,
};
static moss_gpu_program tables;

moss_program moss_program_data = {
    .abi = MOSS_ABI, .name = "fake", .target = "h100", .features = "", .quant = "f32", .manifest = "{}",
    .vocab_size = FAKE_VOCAB, .n_modes = 2, .mode_top_k = { 2, 3 }, .chunk = FAKE_CHUNK, .model_hash = FAKE_HASH,
    .state_hash = FAKE_HASH,
    .weights_len = FAKE_DATA_LEN, .state_fixed_len = FAKE_FIXED_LEN, .gpu = &tables,
};

moss_program *fake_program(void) { return &moss_program_data; }
moss_gpu_program *fake_tables(void) { return &tables; }

void fake_full_attention(bool on)
{
    moss_program_data.full_attention = on;
    moss_program_data.state_token_len = on ? FAKE_TOKEN_LEN : 0;
}

static uint64_t fake_mix(uint64_t x)
{
    x *= 0x9E3779B97F4A7C15u;
    return x ^ x >> 29;
}

static uint64_t fake_fold(uint64_t hash, int64_t seen, int32_t token, int32_t top_k, const uint8_t *weights)
{
    return fake_mix(hash + (uint64_t)top_k * (1u + weights[token * 31457]) + (uint64_t)seen);
}

static void fake_logits(uint64_t hash, float *logits)
{
    for (int32_t v = 0; v < FAKE_VOCAB; v++)
        logits[v] = (float)(fake_mix(hash + (uint64_t)v) >> 54) / 64;     /* few values: there are ties */
}

void fake_step(uint64_t *hash, int64_t seen, int32_t token, int32_t top_k, float *logits)
{
    *hash = fake_fold(*hash, seen, token, top_k, fake_weights() + MOSS_WEIGHTS_HEADER_LEN + 1);
    fake_logits(*hash, logits);
}

uint8_t *fake_weights(void)
{
    static _Alignas(4096) uint8_t block[FAKE_FILE_LEN];
    if (moss_program_data.weights_checksum)
        return block;
    moss_weights_header header = { .magic = MOSS_WEIGHTS_MAGIC, .abi = MOSS_ABI, .model_hash = FAKE_HASH,
                                   .data_len = FAKE_DATA_LEN, .name = "fake" };
    for (size_t i = 0; i < FAKE_DATA_LEN; i++)
        block[MOSS_WEIGHTS_HEADER_LEN + i] = (uint8_t)(i * 7 + i / 256 + i / 65536);
    header.checksum = moss_checksum(block + MOSS_WEIGHTS_HEADER_LEN, FAKE_DATA_LEN);
    memcpy(block, &header, sizeof header);
    moss_program_data.weights_checksum = header.checksum;
    return block;
}

/* ---- the device ---- */

static fake_gpu device;
static pthread_mutex_t device_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local int current_depth;    /* contexts pushed by this thread */

fake_gpu *fake_device(void) { return &device; }

void fake_reset(void)
{
    device = (fake_gpu){ .version = 12040, .n_devices = 1, .capability = 90, .shared_most = 227 << 10,
                         .free_len = 1u << 30 };
    tables = good_tables;
    fake_full_attention(false);
    fake_weights();
    moss_program_data.embedded_weights = fake_weights();
}

/* Each function begins so: fails if told to, and must have a context where the driver needs one. */
static int fake_enter(const char *name, bool needs_context)
{
    int result = 0;
    pthread_mutex_lock(&device_lock);
    if (device.fails && strcmp(device.fails, name) == 0 && device.fail_after-- <= 0)
        result = device.fail_code;
    pthread_mutex_unlock(&device_lock);
    if (needs_context && current_depth < 1)
        return 201;
    return result;
}
#define ENTER(name) do { int result_ = fake_enter(name, true); if (result_) return result_; } while (0)

static void count(int *counter, int n)
{
    pthread_mutex_lock(&device_lock);
    *counter += n;
    pthread_mutex_unlock(&device_lock);
}

/* ---- memory ---- */

enum { MAX_BLOCKS = 256 };
typedef struct { uint8_t *memory; size_t len; bool pinned; } Memory;
static Memory blocks[MAX_BLOCKS];

static int memory_new(void **memory, size_t len, bool pinned)
{
    int result = 2;
    pthread_mutex_lock(&device_lock);
    if (pinned || len <= device.free_len) {
        for (int i = 0; i < MAX_BLOCKS && result; i++)
            if (!blocks[i].memory) {
                blocks[i] = (Memory){ aligned_alloc(256, (len + 255) / 256 * 256), len, pinned };
                memset(blocks[i].memory, 0xCD, len);
                *memory = blocks[i].memory;
                device.free_len -= pinned ? 0 : len;
                device.n_allocs++, device.n_live++;
                result = 0;
            }
    }
    pthread_mutex_unlock(&device_lock);
    return result;
}

static int memory_delete(void *memory)
{
    int result = 1;
    pthread_mutex_lock(&device_lock);
    for (int i = 0; i < MAX_BLOCKS; i++)
        if (memory && blocks[i].memory == memory) {
            memset(memory, 0xDD, blocks[i].len);
            free(memory);
            device.free_len += blocks[i].pinned ? 0 : blocks[i].len;
            device.n_live--;
            blocks[i].memory = NULL;
            result = 0;
        }
    pthread_mutex_unlock(&device_lock);
    return result;
}

/* Do [memory, memory + len) lie in one block of this kind? */
static bool memory_has(const void *memory, size_t len, bool pinned)
{
    bool has = false;
    const uint8_t *at = memory;
    pthread_mutex_lock(&device_lock);
    for (int i = 0; i < MAX_BLOCKS; i++)
        has |= blocks[i].memory && blocks[i].pinned == pinned && at >= blocks[i].memory
            && at + len <= blocks[i].memory + blocks[i].len;
    pthread_mutex_unlock(&device_lock);
    return has;
}

/* ---- kernels ---- */

typedef struct { int kernel; uint64_t values[MOSS_GPU_MAX_ARGS]; moss_cu_launch config; } Kernel;

static void *pointer(const Kernel *kernel, int i, size_t len)
{
    void *at = (void *)(uintptr_t)kernel->values[i];
    if (!memory_has(at, len, false)) {
        fprintf(stderr, "kernel %s, argument %d: not memory of the device\n", kernel_names[kernel->kernel], i);
        abort();
    }
    return at;
}
static int32_t number(const Kernel *kernel, int i) { return (int32_t)kernel->values[i]; }

/* The barrier's memory was cleared once and by nobody else; the map is that of the table. */
static void run_clear(const Kernel *kernel)
{
    const uint8_t *barrier = pointer(kernel, 0, FAKE_ZEROED_LEN);
    for (int i = 0; i < FAKE_ZEROED_LEN; i++)
        if (barrier[i] != 0 || kernel->values[1] != 0 || (uint8_t)kernel->values[2] != 0xAB)
            abort();
}

static void run_fold(const Kernel *kernel)
{
    const int32_t n_tokens = number(kernel, 8), n_sequences = number(kernel, 9), top_k = number(kernel, 10);
    const int64_t stride = (int64_t)kernel->values[2], n_context = (int64_t)kernel->values[11];
    const int32_t *slots = pointer(kernel, 3, (size_t)n_sequences * 4);
    const int64_t *positions = pointer(kernel, 4, (size_t)n_sequences * 8);
    const int32_t *tokens = pointer(kernel, 5, (size_t)n_tokens * 4);
    const uint8_t *weights = pointer(kernel, 6, FAKE_DATA_LEN - 1);
    uint64_t *hashes = pointer(kernel, 7, (size_t)n_tokens * 8);
    const int32_t *ends = pointer(kernel, 12, (size_t)n_sequences * 4);
    if (ends[n_sequences - 1] != n_tokens || (int32_t)kernel->config.grid[1] > 1 + (n_tokens + 3) / 4 + n_sequences - 1)
        abort();
    for (int32_t i = 0, s = 0; i < n_tokens; i++) {
        s += i == ends[s];
        const int64_t seen = positions[s] + i - (s ? ends[s - 1] : 0);
        Kernel at = { .values = { kernel->values[0] + (uint64_t)(slots[s] * stride),
                                  kernel->values[1] + (uint64_t)(slots[s] * stride) } };
        uint64_t *state = pointer(&at, 0, FAKE_FIXED_LEN);
        if ((int64_t)state[1] != seen)
            abort();
        if (moss_program_data.full_attention) {
            if (seen >= n_context)
                abort();
            uint64_t *ring = pointer(&at, 1, (size_t)n_context * 8);
            ring[seen] = state[0];
            for (int64_t t = 0; t < seen; t++)       /* what is remembered must be what was */
                state[0] += ring[t] == 0xCDCDCDCDCDCDCDCD;
        }
        state[0] = hashes[i] = fake_fold(state[0], seen, tokens[i], top_k, weights);
        state[1]++;
    }
}

static void run_logits(const Kernel *kernel)
{
    const int32_t n_tokens = number(kernel, 2), n_logits = number(kernel, 3), vocab_size = number(kernel, 4);
    float *logits = pointer(kernel, 0, (size_t)n_logits * (size_t)vocab_size * 4);
    const uint64_t *hashes = pointer(kernel, 1, (size_t)n_tokens * 8);
    const int32_t n_sequences = number(kernel, 6), *ends = pointer(kernel, 5, (size_t)n_sequences * 4);
    for (int32_t i = 0; i < n_logits; i++)
        fake_logits(hashes[n_sequences > 1 ? ends[i] - 1 : n_tokens - n_logits + i],
                    logits + (ptrdiff_t)i * vocab_size);
}

static void run_argmax(const Kernel *kernel)
{
    const int32_t n = (int32_t)kernel->config.grid[0];
    int32_t *tokens = pointer(kernel, 0, (size_t)n * 4);
    int32_t *history = pointer(kernel, 1, MOSS_GPU_HISTORY * MOSS_GPU_MAX_SEQUENCES * 4);
    int64_t *positions = pointer(kernel, 2, (size_t)n * 8);
    const float *logits = pointer(kernel, 3, (size_t)n * FAKE_VOCAB * 4);
    for (int32_t i = 0; i < n; i++, logits += FAKE_VOCAB) {
        int32_t best = 0;
        for (int32_t v = 1; v < FAKE_VOCAB; v++)
            best = logits[v] > logits[best] ? v : best;
        tokens[i] = history[positions[i] % MOSS_GPU_HISTORY * MOSS_GPU_MAX_SEQUENCES + i] = best;
        positions[i]++;
    }
}

static void run_draw(const Kernel *kernel)
{
    static float scratch[2 * FAKE_VOCAB];
    const int32_t n = (int32_t)kernel->config.grid[0];
    int32_t *tokens = pointer(kernel, 0, (size_t)n * 4);
    int32_t *history = pointer(kernel, 1, MOSS_GPU_HISTORY * MOSS_GPU_MAX_SEQUENCES * 4);
    int64_t *positions = pointer(kernel, 2, (size_t)n * 8);
    const float *logits = pointer(kernel, 3, (size_t)n * FAKE_VOCAB * 4);
    moss_sampler *samplers = pointer(kernel, 4, (size_t)n * sizeof *samplers);
    for (int32_t i = 0; i < n; i++, logits += FAKE_VOCAB) {
        tokens[i] = moss_sample(&samplers[i], logits, scratch);
        history[positions[i]++ % MOSS_GPU_HISTORY * MOSS_GPU_MAX_SEQUENCES + i] = tokens[i];
    }
}

static void run_kernel(const Kernel *kernel)
{
    static void (*const run[N_KERNELS])(const Kernel *) = { run_clear, run_fold, run_logits, run_argmax, run_draw };
    run[kernel->kernel](kernel);
}

/* ---- the queue: one for all streams, run when anybody waits ---- */

typedef struct { void *to; const void *from; uint8_t *staged; size_t len; int value; Kernel kernel; } Work;
static Work queue[FAKE_MAX_WORK];
static int queue_len;

static void queue_run(void)
{
    static Work running[FAKE_MAX_WORK];
    static pthread_mutex_t run_lock = PTHREAD_MUTEX_INITIALIZER;    /* held while work runs: it may look at memory */
    pthread_mutex_lock(&run_lock);
    pthread_mutex_lock(&device_lock);
    const int n = queue_len;
    memcpy(running, queue, (size_t)n * sizeof *queue);
    queue_len = 0;
    pthread_mutex_unlock(&device_lock);
    for (int i = 0; i < n; i++) {
        const Work *work = &running[i];
        if (work->from)
            memcpy(work->to, work->from, work->len);
        else if (work->to)
            memset(work->to, work->value, work->len);
        else
            run_kernel(&work->kernel);
        free(work->staged);
    }
    pthread_mutex_unlock(&run_lock);
}

static void queue_add(const Work *work)
{
    pthread_mutex_lock(&device_lock);
    const bool full = queue_len == FAKE_MAX_WORK;
    pthread_mutex_unlock(&device_lock);
    if (full)
        queue_run();
    pthread_mutex_lock(&device_lock);
    queue[queue_len++] = *work;
    pthread_mutex_unlock(&device_lock);
}

/* ---- graphs ---- */

struct moss_cu_graph_s { Kernel kernels[FAKE_MAX_LAUNCHES]; int n; };
struct moss_cu_graph_exec_s { struct moss_cu_graph_s graph; };
static struct moss_cu_graph_s *capturing;

/* ---- what the runtime calls ---- */

static int fake_get_version(int *version)
{
    *version = device.version;
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
    *n = device.n_devices;
    return 0;
}

static int fake_device_get(int *id, int ordinal)
{
    *id = 40 + ordinal;
    return 0;
}

static int fake_device_get_name(char *name, int len, int id)
{
    snprintf(name, (size_t)len, "Fake %d", id);
    return 0;
}

static int fake_device_get_attribute(int *value, int attribute, int id)
{
    (void)id;
    *value = attribute == MOSS_CU_DEVICE_MAJOR ? device.capability / 10
           : attribute == MOSS_CU_DEVICE_MINOR ? device.capability % 10
           : attribute == MOSS_CU_DEVICE_PROCESSORS ? FAKE_PROCESSORS : device.shared_most;
    return 0;
}

static int fake_context_retain(moss_cu_context *context, int id)
{
    *context = (moss_cu_context)(uintptr_t)id;
    count(&device.n_live, 1);
    return fake_enter("cuDevicePrimaryCtxRetain", false);
}

static int fake_context_release(int id)
{
    (void)id;
    count(&device.n_live, -1);
    return 0;
}

static int fake_context_push(moss_cu_context context)
{
    const int result = context ? fake_enter("cuCtxPushCurrent_v2", false) : 201;
    current_depth += !result;
    return result;
}

static int fake_context_pop(moss_cu_context *context)
{
    *context = NULL;
    return current_depth-- > 0 ? 0 : 201;
}

static int fake_memory_info(size_t *free_len, size_t *total)
{
    ENTER("cuMemGetInfo_v2");
    *free_len = device.free_len;
    *total = (size_t)2 << 30;
    return 0;
}

static int fake_memory_alloc(moss_cu_pointer *memory, size_t len)
{
    void *block;
    ENTER("cuMemAlloc_v2");
    const int result = memory_new(&block, len, false);
    if (!result)
        *memory = (uintptr_t)block;
    return result;
}

static int fake_memory_free(moss_cu_pointer memory)
{
    queue_run();
    return memory_delete((void *)(uintptr_t)memory);
}

static int fake_pinned_alloc(void **memory, size_t len, unsigned flags)
{
    (void)flags;
    ENTER("cuMemHostAlloc");
    return memory_new(memory, len, true);
}

static int fake_pinned_free(void *memory)
{
    queue_run();
    return memory_delete(memory);
}

static int fake_copy_to_device(moss_cu_pointer to, const void *from, size_t len, moss_cu_stream stream)
{
    (void)stream;
    ENTER("cuMemcpyHtoDAsync_v2");
    void *target = (void *)(uintptr_t)to;
    if (!memory_has(target, len, false))
        return 1;
    Work work = { .to = target, .from = from, .len = len };
    if (!memory_has(from, len, true)) {
        work.from = work.staged = malloc(len + 1);
        memcpy(work.staged, from, len);
        count(&device.n_states_up, 1);      /* all else comes from pinned memory */
    }
    queue_add(&work);
    return 0;
}

static int fake_copy_to_host(void *to, moss_cu_pointer from, size_t len, moss_cu_stream stream)
{
    (void)stream;
    ENTER("cuMemcpyDtoHAsync_v2");
    const void *source = (const void *)(uintptr_t)from;
    if (!memory_has(source, len, false))
        return 1;
    const bool pinned = memory_has(to, len, true);
    queue_add(&(Work){ .to = to, .from = source, .len = len });
    if (!pinned) {
        queue_run();
        count(&device.n_states_down, len < MOSS_GPU_MAX_SEQUENCES * FAKE_VOCAB);   /* else logits of many tokens */
    }
    return 0;
}

static int fake_memory_set(moss_cu_pointer to, unsigned char value, size_t len, moss_cu_stream stream)
{
    (void)stream;
    ENTER("cuMemsetD8Async");
    void *target = (void *)(uintptr_t)to;
    if (!memory_has(target, len, false))
        return 1;
    queue_add(&(Work){ .to = target, .len = len, .value = value });
    return 0;
}

static int fake_stream_create(moss_cu_stream *stream, unsigned flags)
{
    (void)flags;
    ENTER("cuStreamCreate");
    *stream = (moss_cu_stream)malloc(1);
    count(&device.n_live, 1);
    return 0;
}

static int fake_stream_destroy(moss_cu_stream stream)
{
    free(stream);
    count(&device.n_live, -1);
    return 0;
}

static int fake_stream_wait(moss_cu_stream stream)
{
    (void)stream;
    queue_run();
    return fake_enter("cuStreamSynchronize", true);
}

static int fake_capture_begin(moss_cu_stream stream, int mode)
{
    (void)stream, (void)mode;
    ENTER("cuStreamBeginCapture_v2");
    capturing = calloc(1, sizeof *capturing);
    count(&device.n_live, 1);
    count(&device.n_captures, 1);
    return 0;
}

static int fake_capture_end(moss_cu_stream stream, moss_cu_graph *graph)
{
    (void)stream;
    *graph = capturing;
    capturing = NULL;
    return 0;
}

static int fake_event_create(moss_cu_event *event, unsigned flags)
{
    (void)flags;
    ENTER("cuEventCreate");
    *event = (moss_cu_event)malloc(1);
    count(&device.n_live, 1);
    return 0;
}

static int fake_event_destroy(moss_cu_event event)
{
    free(event);
    count(&device.n_live, -1);
    return 0;
}

static int fake_event_record(moss_cu_event event, moss_cu_stream stream)
{
    (void)event, (void)stream;
    return 0;
}

static int fake_event_wait(moss_cu_event event)
{
    (void)event;
    queue_run();
    return 0;
}

static int fake_module_load(moss_cu_module *module, const void *text, unsigned n_options, int *options, void **values)
{
    ENTER("cuModuleLoadDataEx");
    if (n_options != 2 || options[0] != MOSS_CU_JIT_ERROR_LOG || strcmp(text, "the kernels") != 0)
        return 1;
    if (device.ptx_log) {
        snprintf(values[0], (size_t)(uintptr_t)values[1], "%s", device.ptx_log);
        return MOSS_CU_ERROR_INVALID_PTX;
    }
    *module = (moss_cu_module)malloc(1);
    count(&device.n_live, 1);
    return 0;
}

static int fake_module_unload(moss_cu_module module)
{
    free(module);
    count(&device.n_live, -1);
    return 0;
}

static int fake_module_get_function(moss_cu_function *function, moss_cu_module module, const char *name)
{
    (void)module;
    ENTER("cuModuleGetFunction");
    for (int i = 0; i < N_KERNELS; i++)
        if (strcmp(kernel_names[i], name) == 0) {
            *function = (moss_cu_function)(uintptr_t)(i + 1);
            return 0;
        }
    return 500;
}

static int fake_function_set(moss_cu_function function, int attribute, int value)
{
    const bool fold = (int)(uintptr_t)function - 1 == KERNEL_FOLD;
    return attribute == MOSS_CU_FUNCTION_SHARED && value == (fold ? 60000 : 100) ? 0 : 1;
}

static void note_launch(const moss_cu_launch *config, int kernel)
{
    fake_launch note = { kernel_names[kernel], { config->grid[0], config->grid[1], config->grid[2] }, config->block[0],
                         config->shared_len, false, false };
    for (uint32_t i = 0; i < config->n_attributes; i++) {
        note.dependent |= config->attributes[i].id == MOSS_CU_LAUNCH_DEPENDENT && config->attributes[i].value.on;
        note.cooperative |= config->attributes[i].id == MOSS_CU_LAUNCH_COOPERATIVE && config->attributes[i].value.on;
    }
    if (device.n_launches < FAKE_MAX_LAUNCHES)
        device.launches[device.n_launches] = note;
    device.n_launches++;
}

static int fake_launch_kernel(const moss_cu_launch *config, moss_cu_function function, void **arguments, void **extra)
{
    static const int n_args[N_KERNELS] = { 3, 13, 7, 4, 5 };
    (void)extra;
    ENTER("cuLaunchKernelEx");
    Work work = { .kernel = { .kernel = (int)(uintptr_t)function - 1, .config = *config } };
    work.kernel.config.attributes = NULL;
    for (int i = 0; i < n_args[work.kernel.kernel]; i++)
        memcpy(&work.kernel.values[i], arguments[i], sizeof work.kernel.values[i]);
    note_launch(config, work.kernel.kernel);
    if (capturing)
        capturing->kernels[capturing->n++] = work.kernel;
    else
        queue_add(&work);
    return 0;
}

static int fake_graph_instantiate(moss_cu_graph_exec *exec, moss_cu_graph graph, unsigned long long flags)
{
    (void)flags;
    ENTER("cuGraphInstantiateWithFlags");
    *exec = malloc(sizeof **exec);
    (*exec)->graph = *graph;
    count(&device.n_live, 1);
    return 0;
}

static int fake_graph_destroy(moss_cu_graph graph)
{
    free(graph);
    count(&device.n_live, -1);
    return 0;
}

static int fake_graph_launch(moss_cu_graph_exec exec, moss_cu_stream stream)
{
    (void)stream;
    ENTER("cuGraphLaunch");
    for (int i = 0; i < exec->graph.n; i++)
        queue_add(&(Work){ .kernel = exec->graph.kernels[i] });
    device.n_replays++;
    return 0;
}

static int fake_graph_exec_destroy(moss_cu_graph_exec exec)
{
    free(exec);
    count(&device.n_live, -1);
    return 0;
}

static int fake_map_encode(void *map, int type, unsigned rank, void *address, const uint64_t *dims,
                           const uint64_t *strides, const uint32_t *box, const uint32_t *steps, int interleave,
                           int swizzle, int promotion, int fill)
{
    (void)promotion;
    if (type != 1 || rank != 2 || !memory_has(address, 100 * 128, false) || dims[0] != 64 || dims[1] != 100
        || strides[0] != 128 || box[0] != 64 || box[1] != 8 || steps[0] != 1 || steps[1] != 1 || interleave
        || swizzle != 3 || fill || (uintptr_t)map % 64)
        return 1;
    memset(map, 0xAB, sizeof(moss_cu_tensor_map));
    device.n_maps++;
    return 0;
}

/* ---- the loader ---- */

void *__wrap_dlopen(const char *name, int flags);
void *__wrap_dlsym(void *library, const char *name);
char *__wrap_dlerror(void);

void *__wrap_dlopen(const char *name, int flags)
{
    (void)flags;
    return device.no_library || strcmp(name, "libcuda.so.1") != 0 ? NULL : &device;
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
    if (library != &device || (device.lacks && strcmp(device.lacks, asked) == 0))
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
    fake_reset();
    if (!lacks)
        return;
    device.no_library = strcmp(lacks, "driver") == 0;
    if (strcmp(lacks, "memory") == 0)
        device.free_len = 1 << 20;
    if (strcmp(lacks, "feed") == 0)
        tables.feed.end = tables.feed.begin;
    if (*lacks >= '0' && *lacks <= '9')
        device.fails = "cuGraphLaunch", device.fail_code = 719, device.fail_after = atoi(lacks);
}
#endif
