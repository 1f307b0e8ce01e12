/* The stand-in driver's modules: entries of a PTX text, found again as host renderings, and launches.
 *
 * The text is not compiled; its directives are read, so that a launch beyond .maxntid, an entry
 * without a rendering, or one with other parameters than the rendering's is refused. How many registers a
 * thread has is not known: what counts is what the directives promise, whatever the assembler does.
 */
#include "fake_cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct FakeModule FakeModule;
typedef struct FakeFunction {
    struct FakeFunction *next;
    char *name;
    KernelCall *call;
    const int *arg_lens;           /* 0 at the end */
    int max_threads, min_blocks;   /* .maxntid, .minnctapersm, 0: none */
    int shared_most;               /* what cuFuncSetAttribute allowed */
} FakeFunction;

struct FakeModule { FakeFunction *functions; };

enum {
    LOG_TEXT = 5, LOG_LEN = 6,                        /* options of the load: errors of the compiler */
    SHARED_MOST = 8,                                  /* of a function */
    COOPERATIVE = 2, PROGRAMMATIC = 6,                /* attributes of a launch */
    SHARED_WITHOUT_ASKING = 48 << 10,
    REGISTERS = 65536, MOST_OF_THREAD = 256, THREADS = 2048, BLOCKS = 32,     /* of a multiprocessor */
};

static void *kernels;                                 /* the library */
static EmulateEarlyFunction *run_early;
static EmulateRestFunction *run_rest;

/* ---- modules ---- */

static const char *open_kernels(void)
{
    const char *path = getenv("MOSS_FAKE_CUDA_KERNELS");
    if (kernels)
        return NULL;
    if (!path)
        return "MOSS_FAKE_CUDA_KERNELS names no library of host renderings";
    if (!(kernels = dlopen(path, RTLD_NOW | RTLD_LOCAL)))
        return dlerror();
    run_early = (EmulateEarlyFunction *)dlsym(kernels, "emulate_early");
    run_rest = (EmulateRestFunction *)dlsym(kernels, "emulate_rest");
    return run_early && run_rest ? NULL : dlerror();
}

/* Parameters of the entry whose list starts at p, to `end`. */
static int count_params(const char *p, const char *end)
{
    int n = 0;
    while ((p = strstr(p, ".param ")) && p < end)
        p++, n++;
    return n;
}

/* The number after a directive between p and end, 0: there is none. */
static int read_directive(const char *p, const char *end, const char *name)
{
    const char *at = strstr(p, name);
    return at && at < end ? atoi(at + strlen(name)) : 0;
}

/* Reads the entry at p, "NAME(", into *function; a text that says what is wrong, or NULL. */
static const char *read_entry(const char *p, FakeFunction *function)
{
    static char problem[700];
    char symbol[600];
    const size_t len = strcspn(p, "( \t\n");
    const char *list_end = strchr(p, ')'), *body = strchr(p, '{');
    if (!list_end || !body)
        return "an entry without a body";
    function->name = strndup(p, len);
    snprintf(symbol, sizeof symbol, "%s_call", function->name);
    function->call = (KernelCall *)dlsym(kernels, symbol);
    snprintf(symbol, sizeof symbol, "%s_arg_lens", function->name);
    function->arg_lens = dlsym(kernels, symbol);
    snprintf(problem, sizeof problem, "no host rendering of %s", function->name);
    if (!function->call || !function->arg_lens)
        return problem;
    function->max_threads = read_directive(p, body, ".maxntid ");
    function->min_blocks = read_directive(p, body, ".minnctapersm ");
    int n_args = 0;
    while (function->arg_lens[n_args])
        n_args++;
    snprintf(problem, sizeof problem, "%s: the PTX has other parameters than the host rendering", function->name);
    return n_args > FAKE_MAX_ARGS || count_params(p, list_end) != n_args ? problem : NULL;
}

static void free_module(FakeModule *module)
{
    for (FakeFunction *f = module->functions, *next; f; f = next) {
        next = f->next;
        free(f->name);
        free(f);
    }
    free(module);
}

static const char *read_module(const char *text, FakeModule *module)
{
    if (fake_fault("ptx"))
        return "ptxas application ptx input, line 1; fatal : a fault that was asked for";
    if (strncmp(text, ".version", 8) != 0 && !strstr(text, "\n.version"))
        return "ptxas application ptx input, line 1; fatal : Missing .version directive";
    const char *problem = open_kernels();
    for (const char *p = text; !problem && (p = strstr(p, ".entry ")); ) {
        p += strlen(".entry ");
        FakeFunction *function = calloc(1, sizeof *function);
        function->next = module->functions;
        function->shared_most = SHARED_WITHOUT_ASKING;
        module->functions = function;
        problem = read_entry(p, function);
    }
    return problem;
}

static void write_log(const char *problem, unsigned n_options, const int *options, void **values)
{
    char *log = NULL;
    size_t len = 0;
    for (unsigned i = 0; i < n_options; i++) {
        if (options[i] == LOG_TEXT)
            log = values[i];
        if (options[i] == LOG_LEN)
            len = (size_t)(uintptr_t)values[i];
    }
    if (log && len)
        snprintf(log, len, "%s\n", problem);
}

CUDA_API cuModuleLoadDataEx(FakeModule **module, const void *text, unsigned n_options, int *options, void **values)
{
    int result = fake_enter();
    if (!result) {
        FakeModule *new = calloc(1, sizeof *new);
        const char *problem = read_module(text, new);
        if (problem) {
            write_log(problem, n_options, options, values);
            free_module(new);
            result = FAKE_INVALID_PTX;
        } else {
            *module = new;
            fake_n_objects++;
        }
    }
    fake_leave();
    return result;
}

CUDA_API cuModuleUnload(FakeModule *module)
{
    int result = fake_enter();
    if (!result)
        result = fake_wait_all();
    free_module(module);
    fake_n_objects--;
    fake_leave();
    return result;
}

CUDA_API cuModuleGetFunction(FakeFunction **function, FakeModule *module, const char *name)
{
    int result = fake_enter();
    if (!result) {
        FakeFunction *f = module->functions;
        while (f && strcmp(f->name, name) != 0)
            f = f->next;
        *function = f;
        result = f ? FAKE_OK : fake_misuse(FAKE_NOT_FOUND, "the module has no %s", name);
    }
    fake_leave();
    return result;
}

CUDA_API cuFuncSetAttribute(FakeFunction *function, int attribute, int value)
{
    int result = fake_enter();
    if (!result && attribute == SHARED_MOST && value >= 0 && value <= fake_shared_most())
        function->shared_most = value > SHARED_WITHOUT_ASKING ? value : SHARED_WITHOUT_ASKING;
    else if (!result)
        result = fake_misuse(FAKE_INVALID_VALUE, "%s: attribute %d = %d", function->name, attribute, value);
    fake_leave();
    return result;
}

/* ---- launches ---- */

typedef struct { int32_t id, pad; union { int32_t on; char bytes[64]; } value; } FakeAttribute;
typedef struct {
    uint32_t grid[3], block[3], shared_len;
    FakeStream *stream;
    const FakeAttribute *attributes;
    uint32_t n_attributes;
} FakeConfig;

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Blocks of so many threads for which a multiprocessor has registers. */
static uint64_t blocks_by_registers(const FakeFunction *function, uint32_t threads)
{
    const uint64_t surely = REGISTERS / MOST_OF_THREAD / threads;       /* .maxntid alone promises one block */
    const uint64_t promised = (uint64_t)(function->min_blocks ? function->min_blocks : function->max_threads != 0);
    return surely > promised ? surely : promised;
}

/* Blocks that fit on the device at once. A KiB of each is the driver's. */
static uint64_t resident_blocks(const FakeConfig *config, const FakeFunction *function)
{
    const uint64_t threads = config->block[0];
    const uint64_t by_shared = (uint64_t)(fake_shared_most() + 1024) / (config->shared_len + 1024u);
    const uint64_t each = least(least(by_shared, THREADS / threads), blocks_by_registers(function, config->block[0]));
    return least(each, BLOCKS) * (uint64_t)fake_processors();
}

static int check_config(const FakeConfig *config, const FakeFunction *function, bool cooperative)
{
    const uint32_t *grid = config->grid, threads = config->block[0];
    if (grid[0] == 0 || grid[0] > 0x7FFFFFFF || grid[1] == 0 || grid[1] > 65535 || grid[2] != 1)
        return fake_misuse(FAKE_INVALID_VALUE, "%s: a grid of %u x %u x %u", function->name, grid[0], grid[1], grid[2]);
    if (threads == 0 || threads % 32 || threads > EMULATE_MAX_THREADS || config->block[1] != 1 || config->block[2] != 1)
        return fake_misuse(FAKE_INVALID_VALUE, "%s: %u threads", function->name, threads);
    if (function->max_threads && threads > (uint32_t)function->max_threads)
        return fake_misuse(FAKE_INVALID_VALUE, "%s: %u threads, its .maxntid is %d", function->name, threads,
                           function->max_threads);
    if (blocks_by_registers(function, threads) == 0)
        return fake_misuse(FAKE_OUT_OF_RESOURCES, "%s: %u threads, and no .maxntid says that registers do",
                           function->name, threads);
    if (config->shared_len > (uint32_t)function->shared_most)
        return fake_misuse(FAKE_INVALID_VALUE, "%s: %u bytes of shared memory, %d are allowed", function->name,
                           config->shared_len, function->shared_most);
    if (cooperative && (uint64_t)grid[0] * grid[1] > resident_blocks(config, function))
        return fake_misuse(FAKE_TOO_LARGE, "%s: %u blocks at once", function->name, grid[0] * grid[1]);
    return FAKE_OK;
}

static int queue_launch(const FakeConfig *config, FakeFunction *function, void **args, bool cooperative, bool dependent)
{
    FakeLaunch *launch = calloc(1, sizeof *launch);
    launch->run_early = run_early;
    launch->run_rest = run_rest;
    launch->is_dependent = dependent;
    launch->launch = (EmulateLaunch){ function->name, function->call, (int)config->grid[0], (int)config->grid[1],
                                      (int)config->block[0], (int)config->shared_len, cooperative };
    for (; function->arg_lens[launch->n_args]; launch->n_args++) {
        const size_t len = (size_t)function->arg_lens[launch->n_args];
        void *copy = aligned_alloc(64, (len + 63) / 64 * 64);
        memcpy(copy, args[launch->n_args], len);
        launch->args[launch->n_args] = copy;
        launch->arg_lens[launch->n_args] = len;
    }
    return fake_queue_launch(config->stream, launch);
}

static int launch_kernel(const FakeConfig *config, FakeFunction *function, void **args, bool cooperative,
                         bool dependent)
{
    int result = fake_enter();
    if (!result)
        result = check_config(config, function, cooperative);
    if (!result)
        result = queue_launch(config, function, args, cooperative, dependent);
    fake_leave();
    return result;
}

CUDA_API cuLaunchKernelEx(const FakeConfig *config, FakeFunction *function, void **args, void **extra)
{
    bool cooperative = false, dependent = false;
    for (uint32_t i = 0; i < config->n_attributes; i++) {
        const FakeAttribute *attribute = &config->attributes[i];
        if (attribute->id == COOPERATIVE)
            cooperative = attribute->value.on;
        else if (attribute->id == PROGRAMMATIC)
            dependent = attribute->value.on;
        else
            return fake_misuse(FAKE_INVALID_VALUE, "%s: launch attribute %d", function->name, attribute->id);
    }
    if (extra)
        return fake_misuse(FAKE_INVALID_VALUE, "%s: extra arguments", function->name);
    return launch_kernel(config, function, args, cooperative, dependent);
}

CUDA_API cuLaunchKernel(FakeFunction *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned n_x,
                        unsigned n_y, unsigned n_z, unsigned shared_len, FakeStream *stream, void **args, void **extra)
{
    const FakeConfig config = { { grid_x, grid_y, grid_z }, { n_x, n_y, n_z }, shared_len, stream, NULL, 0 };
    return cuLaunchKernelEx(&config, function, args, extra);
}

CUDA_API cuLaunchCooperativeKernel(FakeFunction *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                   unsigned n_x, unsigned n_y, unsigned n_z, unsigned shared_len, FakeStream *stream,
                                   void **args)
{
    const FakeConfig config = { { grid_x, grid_y, grid_z }, { n_x, n_y, n_z }, shared_len, stream, NULL, 0 };
    return launch_kernel(&config, function, args, true, false);
}
