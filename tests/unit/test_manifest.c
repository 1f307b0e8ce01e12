/* A library as a program of another language meets it: by its manifest alone, through libffi.
 *
 * Input: mossc, as $MOSSC names it; a tiny graph with every kind of layer and two modes. Two
 * libraries of different weights and prefixes are made once, every test uses them.
 * Invariant: no function is called but through the types that manifest.json gives; the last test
 * sees that every function was.
 */
#include "moss.h"
#include "process.h"
#include "unit.h"

#include "../../ir/text.h"

#include <cjson/cJSON.h>
#include <dlfcn.h>
#include <ffi.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ARGS = 16, MAX_FUNCTIONS = 64, VOCAB = 50, N_CONTEXT = 40, N_TOKENS = 24, MAX_STATES = 10, SECONDS = 300 };

static const char graph_text[] =
    "{ \"format\": \"mossnet-graph/1\", \"name\": \"tiny\", \"vocab_size\": 50, \"d_model\": 32,\n"
    "  \"experts\": 4, \"top_k\": [2, 1], \"layers\": [ { \"op\": \"mamba\" },\n"
    "  { \"op\": \"attention\", \"heads\": 2, \"kv_heads\": 1 }, { \"op\": \"mlp\", \"d_ff\": 48 } ] }\n";

typedef union {
    int32_t i32;
    int64_t i64;
    uint64_t u64;
    size_t size;
    float f32;
    const void *pointer;
    ffi_arg word;    /* small results come widened */
} Value;

typedef struct {
    const char *name;    /* without the prefix */
    void *address;
    ffi_cif cif;
    ffi_type *types[MAX_ARGS];
    bool called;
} Function;

typedef struct {
    const char *prefix, *path;
    char *text;          /* of manifest.json */
    void *handle;
    cJSON *manifest;
    Function functions[MAX_FUNCTIONS];
    int n_functions;
    void *model, *context;
} Library;

static Arena *arena;
static char folder[64];
static Library first, second;

/* --- Making and loading --- */

static ffi_type *type_named(const char *name)
{
    static const struct { const char *name; ffi_type *type; } types[] = {
        { "i32", &ffi_type_sint32 }, { "i64", &ffi_type_sint64 }, { "u64", &ffi_type_uint64 },
        { "f32", &ffi_type_float }, { "str", &ffi_type_pointer }, { "pointer", &ffi_type_pointer },
        { "size", sizeof(size_t) == 8 ? &ffi_type_uint64 : &ffi_type_uint32 }, { "void", &ffi_type_void },
    };
    for (size_t i = 0; name && i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].type;
    return NULL;
}

static const char *field(const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(object, name));
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    return text;
}

/* mossc's exit code; the library lies in a folder of its own, named after the prefix. */
static int compile(const char *prefix, const char *weights)
{
    const char *mossc = getenv("MOSSC");
    const char *graph = arena_printf(arena, "%s/tiny.json", folder);
    const char *out = arena_printf(arena, "%s/%s/libtiny.so", folder, prefix);
    if (!mossc || !file_write(graph, graph_text, sizeof graph_text - 1))
        return -1;
    Args args = { { mossc, "compile", graph, "--emit", "lib", "--weights", weights, "--quant", "f32",
                    "--prefix", prefix, "-o", out }, 13 };
    process_run(&(Args){ { "mkdir", "-p", arena_printf(arena, "%s/%s", folder, prefix) }, 3 }, "/dev/null", SECONDS);
    const char *log = arena_printf(arena, "%s/log", folder);
    int code = process_run(&args, log, SECONDS);
    size_t len;
    char *words = file_read(arena, log, &len);
    if (code && words)
        fprintf(stderr, "mossc: exit %d: %s\n", code, words);
    return code;
}

static void bind_function(Library *library, Function *function, const cJSON *row)
{
    const char *symbol = field(row, "name");
    const cJSON *argument, *arguments = cJSON_GetObjectItem(row, "arguments");
    ffi_type *result = type_named(field(row, "result"));
    unsigned n = 0;
    size_t prefix_len = strlen(library->prefix);
    CU_ASSERT_TRUE_FATAL(strncmp(symbol, library->prefix, prefix_len) == 0 && symbol[prefix_len] == '_');
    function->name = symbol + prefix_len + 1;
    function->address = dlsym(library->handle, symbol);
    CU_ASSERT_PTR_NOT_NULL_FATAL(function->address);
    CU_ASSERT_PTR_NOT_NULL_FATAL(result);
    cJSON_ArrayForEach(argument, arguments) {
        CU_ASSERT_FATAL(n < MAX_ARGS);
        function->types[n] = type_named(field(argument, "type"));
        CU_ASSERT_PTR_NOT_NULL_FATAL(function->types[n]);
        n++;
    }
    CU_ASSERT_EQUAL_FATAL(ffi_prep_cif(&function->cif, FFI_DEFAULT_ABI, n, result, function->types), FFI_OK);
}

static bool load(Library *library, const char *prefix)
{
    size_t len;
    library->prefix = prefix;
    library->path = arena_printf(arena, "%s/%s/libtiny.so", folder, prefix);
    library->text = file_read(arena, arena_printf(arena, "%s/%s/manifest.json", folder, prefix), &len);
    library->handle = dlopen(library->path, RTLD_NOW | RTLD_GLOBAL);
    library->manifest = cJSON_Parse(library->text ? library->text : "");
    if (!library->handle || !library->manifest) {
        fprintf(stderr, "%s: %s\n", library->path, library->handle ? "no manifest" : dlerror());
        return false;
    }
    return true;
}

/* --- Calling --- */

static Value call_function(Library *library, const char *name, Value *arguments, unsigned n)
{
    Value result = { 0 };
    void *values[MAX_ARGS];
    for (unsigned i = 0; i < n; i++)
        values[i] = &arguments[i];
    for (int i = 0; i < library->n_functions; i++) {
        Function *function = &library->functions[i];
        if (strcmp(function->name, name) != 0)
            continue;
        CU_ASSERT_EQUAL_FATAL(function->cif.nargs, n);
        ffi_call(&function->cif, FFI_FN(function->address), &result, values);
        function->called = true;
        if (function->cif.rtype == &ffi_type_sint32)
            result.i32 = (int32_t)result.word;
        return result;
    }
    CU_FAIL_FATAL(name);
    return result;
}

#define CALL0(library, name) call_function(library, name, NULL, 0)
#define CALL(library, name, ...) \
    call_function(library, name, (Value[]){ __VA_ARGS__ }, sizeof((Value[]){ __VA_ARGS__ }) / sizeof(Value))
#define I32(value) { .i32 = value }
#define I64(value) { .i64 = value }
#define U64(value) { .u64 = value }
#define F32(value) { .f32 = value }
#define SIZE(value) { .size = value }
#define POINTER(value) { .pointer = value }

static void *block(size_t len)
{
    CU_ASSERT_FATAL(len > 0 && len < (size_t)1 << 28);
    void *memory = aligned_alloc(64, (len + 63) / 64 * 64);
    CU_ASSERT_PTR_NOT_NULL_FATAL(memory);
    return memory;
}

static int32_t object_len(Library *library, const char *object)
{
    return (int32_t)cJSON_GetNumberValue(cJSON_GetObjectItem(cJSON_GetObjectItem(library->manifest, "objects"), object));
}

static size_t state_len(Library *library) { return CALL(library, "state_len", I64(N_CONTEXT)).size; }

static void *state_new(Library *library)
{
    moss_error error;
    void *state = block(state_len(library));
    CU_ASSERT_EQUAL(CALL(library, "state_init", POINTER(state), I64(N_CONTEXT), POINTER(&error)).i32, MOSS_OK);
    return state;
}

static int64_t position(Library *library, const void *state)
{
    return CALL(library, "state_position", POINTER(state)).i64;
}

static int eval(Library *library, void *state, const int32_t *tokens, int n, float *logits, int n_logits)
{
    moss_error error = { 0 };
    int status = CALL(library, "eval", POINTER(library->context), POINTER(state), I32(0), I32(0), POINTER(tokens),
                      I32(n), POINTER(logits), I32(n_logits), POINTER(&error)).i32;
    if (status)
        fprintf(stderr, "eval: %s\n", error.message);
    return status;
}

/* Before the block is copied, saved or freed. */
static void sync_state(Library *library, void *state)
{
    moss_error error = { 0 };
    CU_ASSERT_EQUAL(CALL(library, "state_sync", POINTER(library->context), POINTER(state), POINTER(&error)).i32, MOSS_OK);
}

static void state_free(Library *library, void *state)
{
    sync_state(library, state);
    free(state);
}

static const int32_t *prompt(void)
{
    static int32_t tokens[N_TOKENS];
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = (i * 17 + 5) % VOCAB;
    return tokens;
}

/* --- Tests --- */

static void bind_all(Library *library)
{
    const cJSON *row, *rows = cJSON_GetObjectItem(library->manifest, "functions");
    cJSON_ArrayForEach(row, rows) {
        CU_ASSERT_FATAL(library->n_functions < MAX_FUNCTIONS);
        bind_function(library, &library->functions[library->n_functions++], row);
    }
    CU_ASSERT(library->n_functions >= 18);
}

static void test_bind(void)
{
    bind_all(&first);
    bind_all(&second);
    CU_ASSERT_EQUAL(first.n_functions, second.n_functions);
    CU_ASSERT_EQUAL(object_len(&first, "error"), (int)sizeof(moss_error));
    CU_ASSERT_EQUAL(object_len(&first, "sampler"), (int)sizeof(moss_sampler));
}

static void check_exports(Library *library)
{
    char line[256], symbol[200], command[512];
    int n = 0;
    snprintf(command, sizeof command, "nm -D --defined-only '%s'", library->path);
    FILE *nm = popen(command, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(nm);
    while (fgets(line, sizeof line, nm)) {
        bool listed = false;
        if (sscanf(line, "%*s %*s %199s", symbol) != 1)
            continue;
        for (int i = 0; i < library->n_functions; i++)
            listed |= strcmp(symbol, arena_printf(arena, "%s_%s", library->prefix, library->functions[i].name)) == 0;
        if (!listed)
            fprintf(stderr, "%s: exports %s, which its manifest does not list\n", library->path, symbol);
        CU_ASSERT(listed);
        n++;
    }
    CU_ASSERT_EQUAL(pclose(nm), 0);
    CU_ASSERT_EQUAL(n, library->n_functions);
}

static void test_exports(void)
{
    check_exports(&first);
    check_exports(&second);
}

static void test_facts(void)
{
    CU_ASSERT_STRING_EQUAL(CALL0(&first, "name").pointer, "tiny");
    CU_ASSERT_STRING_EQUAL(CALL0(&first, "manifest").pointer, first.text);
    CU_ASSERT_STRING_EQUAL(CALL0(&second, "manifest").pointer, second.text);
    CU_ASSERT_EQUAL(CALL0(&first, "vocab_size").i32, VOCAB);
    CU_ASSERT_EQUAL(CALL0(&first, "n_modes").i32, 2);
    CU_ASSERT_EQUAL(CALL(&first, "mode_top_k", I32(0)).i32, 2);
    CU_ASSERT_EQUAL(CALL(&first, "mode_top_k", I32(1)).i32, 1);
    CU_ASSERT_EQUAL(CALL(&first, "mode_top_k", I32(2)).i32, -1);
    CU_ASSERT_EQUAL(CALL(&first, "mode_top_k", I32(-1)).i32, -1);
    int32_t cpus[2] = { -1, -1 };
    CU_ASSERT(CALL(&first, "big_cpus", POINTER(cpus), I32(1)).i32 >= 1);
    CU_ASSERT(cpus[0] >= 0 && cpus[1] == -1);
    CU_ASSERT_EQUAL(CALL(&first, "context_len", I32(0)).size, 0);
    CU_ASSERT_EQUAL(CALL(&first, "state_len", I64(-1)).size, 0);
}

static void open_library(Library *library)
{
    moss_error error = { 0 };
    library->model = block(CALL0(library, "model_len").size);
    int status = CALL(library, "model_open_sized", POINTER(library->model), POINTER(NULL), I32(1), I32(MAX_STATES),
                      I64(N_CONTEXT), POINTER(&error)).i32;
    CU_ASSERT_EQUAL_FATAL(status, MOSS_OK);
    CU_ASSERT(strlen(CALL(library, "model_device", POINTER(library->model)).pointer) > 0);
    library->context = block(CALL(library, "context_len", I32(2)).size);
    status = CALL(library, "context_init", POINTER(library->context), POINTER(library->model), I32(2), POINTER(NULL),
                  POINTER(&error)).i32;
    CU_ASSERT_EQUAL_FATAL(status, MOSS_OK);
}

static void test_open(void)
{
    moss_error error = { 0 };
    void *model = block(CALL0(&first, "model_len").size);
    int status = CALL(&first, "model_open", POINTER(model), POINTER("/nowhere/weights"), I32(1), POINTER(&error)).i32;
    CU_ASSERT_EQUAL(status, MOSS_ERROR_SYSTEM);
    CU_ASSERT_EQUAL(error.status, status);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "/nowhere/weights"));
    status = CALL(&first, "model_open", POINTER(model), POINTER(first.path), I32(1), POINTER(&error)).i32;
    CU_ASSERT_EQUAL(status, MOSS_ERROR_WEIGHTS);
    free(model);
    open_library(&first);
    open_library(&second);
}

static void test_prefill_equals_steps(void)
{
    static float whole[N_TOKENS][VOCAB], stepped[N_TOKENS][VOCAB], pieces[N_TOKENS][VOCAB];
    void *state = state_new(&first);
    CU_ASSERT_EQUAL(eval(&first, state, prompt(), N_TOKENS, &whole[0][0], N_TOKENS), MOSS_OK);
    CU_ASSERT_EQUAL(position(&first, state), N_TOKENS);
    state_free(&first, state);
    state = state_new(&first);
    for (int i = 0; i < N_TOKENS; i++)
        CU_ASSERT_EQUAL(eval(&first, state, prompt() + i, 1, stepped[i], 1), MOSS_OK);
    state_free(&first, state);
    state = state_new(&first);
    for (int i = 0; i < N_TOKENS; i += 8)
        CU_ASSERT_EQUAL(eval(&first, state, prompt() + i, 8, pieces[i], 8), MOSS_OK);
    state_free(&first, state);
    CU_ASSERT_EQUAL(memcmp(whole, stepped, sizeof whole), 0);
    CU_ASSERT_EQUAL(memcmp(whole, pieces, sizeof whole), 0);
}

static int eval_prompts(Library *library, void **states, int n, int chunk, const int32_t *tokens,
                        const int32_t *n_tokens, float *logits)
{
    moss_error error = { 0 };
    return CALL(library, "eval_prompts", POINTER(library->context), POINTER(states), I32(n), I32(0), I32(chunk),
                POINTER(tokens), POINTER(n_tokens), POINTER(logits), POINTER(&error)).i32;
}

/* Prompts of several sequences in one call, one at another position: what each would give alone, to the bit. */
static void test_prompts(void)
{
    enum { N = 4 };
    static const int32_t lens[N] = { 5, 2, 7, 3 }, zero[N] = { 1, 0, 1, 1 };
    static float alone[N][VOCAB], together[N][VOCAB];
    for (int chunk = 0; chunk < 5; chunk += 2) {
        void *states[N], *single[N];
        const size_t len = state_len(&first);
        for (int i = 0, at = 0; i < N; at += lens[i++]) {
            states[i] = state_new(&first);
            single[i] = state_new(&first);
            if (i == 2) {
                CU_ASSERT_EQUAL(eval(&first, states[i], prompt(), 6, NULL, 0), MOSS_OK);
                CU_ASSERT_EQUAL(eval(&first, single[i], prompt(), 6, NULL, 0), MOSS_OK);
            }
            CU_ASSERT_EQUAL(eval(&first, single[i], prompt() + at, lens[i], alone[i], 1), MOSS_OK);
        }
        CU_ASSERT_EQUAL(eval_prompts(&first, states, N, chunk, prompt(), lens, &together[0][0]), MOSS_OK);
        CU_ASSERT_EQUAL(memcmp(alone, together, sizeof alone), 0);
        CU_ASSERT_EQUAL(eval_prompts(&first, states, N, chunk, prompt(), zero, NULL), MOSS_ERROR_ARGUMENT);
        CU_ASSERT_EQUAL(eval_prompts(&first, states, N, chunk, prompt(), NULL, NULL), MOSS_ERROR_ARGUMENT);
        CU_ASSERT_EQUAL(eval_prompts(&first, states, N, -1, prompt(), lens, NULL), MOSS_ERROR_ARGUMENT);
        CU_ASSERT_EQUAL(eval_prompts(&first, (void *[]){ states[0], states[0] }, 2, chunk, prompt(), lens, NULL),
                        MOSS_ERROR_ARGUMENT);
        for (int i = 0; i < N; i++) {
            sync_state(&first, states[i]);
            sync_state(&first, single[i]);
            CU_ASSERT_EQUAL(memcmp(states[i], single[i], len), 0);
            state_free(&first, states[i]);
            state_free(&first, single[i]);
        }
    }
}

static int eval_batch(Library *library, void **states, int n, const int32_t *tokens, float *logits)
{
    moss_error error = { 0 };
    return CALL(library, "eval_batch", POINTER(library->context), POINTER(states), I32(n), I32(0), POINTER(tokens),
                POINTER(logits), POINTER(&error)).i32;
}

/* Sequences of different lengths take a step together: what each would give alone, to the bit. */
static void test_batch(void)
{
    enum { N = 5 };
    static float alone[N][VOCAB], together[N][VOCAB];
    void *states[N], *single[N];
    const int32_t tokens[N] = { 3, 7, 3, 49, 0 };
    size_t len = state_len(&first);
    for (int i = 0; i < N; i++) {
        states[i] = state_new(&first);
        CU_ASSERT_EQUAL(eval(&first, states[i], prompt() + i, 3 * i + 1, NULL, 0), MOSS_OK);
        single[i] = block(len);
        sync_state(&first, states[i]);
        memcpy(single[i], states[i], len);
        CU_ASSERT_EQUAL(eval(&first, single[i], &tokens[i], 1, alone[i], 1), MOSS_OK);
    }
    size_t before = mallinfo2().uordblks;
    CU_ASSERT_EQUAL(eval_batch(&first, states, N, tokens, &together[0][0]), MOSS_OK);
    CU_ASSERT_EQUAL(mallinfo2().uordblks, before);      /* nothing is allocated after init */
    CU_ASSERT_EQUAL(memcmp(alone, together, sizeof alone), 0);
    for (int i = 0; i < N; i++) {
        sync_state(&first, states[i]);
        sync_state(&first, single[i]);
        CU_ASSERT_EQUAL(memcmp(states[i], single[i], len), 0);
    }

    void *twice[] = { states[0], states[1], states[0] };
    CU_ASSERT_EQUAL(eval_batch(&first, twice, 3, tokens, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(eval_batch(&first, states, 0, tokens, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(eval_batch(&first, states, N, (int32_t[N]){ [3] = VOCAB }, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(memcmp(states[0], single[0], len), 0);
    CU_ASSERT_EQUAL(eval_batch(&first, states, N, tokens, NULL), MOSS_OK);
    CU_ASSERT_EQUAL(position(&first, states[4]), 15);
    for (int i = 0; i < N; i++) {
        state_free(&first, states[i]);
        free(single[i]);
    }
}

static void test_modes(void)
{
    static float logits[2][VOCAB];
    moss_error error;
    for (int mode = 0; mode < 2; mode++) {
        void *state = state_new(&first);
        CU_ASSERT_EQUAL(CALL(&first, "eval", POINTER(first.context), POINTER(state), I32(mode), I32(5), POINTER(prompt()),
                             I32(N_TOKENS), POINTER(logits[mode]), I32(1), POINTER(&error)).i32, MOSS_OK);
        state_free(&first, state);
    }
    CU_ASSERT_NOT_EQUAL(memcmp(logits[0], logits[1], sizeof logits[0]), 0);
}

/* Fork by copying, save to a file and restore, roll back: the same logits follow. */
static void test_states(void)
{
    float expected[VOCAB], forked[VOCAB], restored[VOCAB], again[VOCAB];
    moss_error error;
    size_t len = state_len(&first), saved_len = 0;
    const char *path = arena_printf(arena, "%s/saved", folder);
    void *state = state_new(&first), *fork = block(len), *old = block(len);
    CU_ASSERT_EQUAL(eval(&first, state, prompt(), 10, NULL, 0), MOSS_OK);
    sync_state(&first, state);
    memcpy(fork, state, len);
    memcpy(old, state, len);
    CU_ASSERT_TRUE_FATAL(file_write(path, state, len));
    CU_ASSERT_EQUAL(eval(&first, state, prompt() + 10, 5, expected, 1), MOSS_OK);
    CU_ASSERT_EQUAL(eval(&first, fork, prompt() + 10, 5, forked, 1), MOSS_OK);
    sync_state(&first, state);
    sync_state(&first, fork);
    CU_ASSERT_EQUAL(memcmp(state, fork, len), 0);
    CU_ASSERT_EQUAL(memcmp(expected, forked, sizeof expected), 0);

    char *bytes = file_read(arena, path, &saved_len);
    CU_ASSERT_EQUAL_FATAL(saved_len, len);
    memcpy(fork, bytes, len);
    CU_ASSERT_EQUAL(CALL(&first, "state_check", POINTER(fork), SIZE(len), POINTER(&error)).i32, MOSS_OK);
    CU_ASSERT_EQUAL(position(&first, fork), 10);
    CU_ASSERT_EQUAL(eval(&first, fork, prompt() + 10, 5, restored, 1), MOSS_OK);
    CU_ASSERT_EQUAL(memcmp(expected, restored, sizeof expected), 0);

    memcpy(state, old, len);
    CU_ASSERT_EQUAL(eval(&first, state, prompt() + 10, 5, again, 1), MOSS_OK);
    CU_ASSERT_EQUAL(memcmp(expected, again, sizeof expected), 0);
    state_free(&first, state), state_free(&first, fork), free(old);
}

static void test_state_errors(void)
{
    moss_error error;
    size_t len = state_len(&first);
    char *state = state_new(&first);
    CU_ASSERT_EQUAL(CALL(&first, "state_check", POINTER(state), SIZE(len - 64), POINTER(&error)).i32, MOSS_ERROR_STATE);
    CU_ASSERT_EQUAL(CALL(&first, "state_check", POINTER(state), SIZE((size_t)7), POINTER(&error)).i32, MOSS_ERROR_STATE);
    state[0] ^= 1;
    CU_ASSERT_EQUAL(CALL(&first, "state_check", POINTER(state), SIZE(len), POINTER(&error)).i32, MOSS_ERROR_STATE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "not a state"));
    CU_ASSERT_EQUAL(CALL(&first, "state_init", POINTER(state), I64(0), POINTER(&error)).i32, MOSS_ERROR_ARGUMENT);
    free(state);
}

/* Each bad call says so, and the state stays as it was. */
static void test_eval_errors(void)
{
    const int32_t low[] = { 1, -1 }, high[] = { 1, VOCAB };
    const struct { int32_t mode, chunk; const int32_t *tokens; int32_t n, n_logits; int status; const char *words; } rows[] = {
        { 0, 0, low, 2, 0, MOSS_ERROR_ARGUMENT, "token 1 is -1, expected 0 to 49" },
        { 0, 0, high, 2, 0, MOSS_ERROR_ARGUMENT, "token 1 is 50, expected 0 to 49" },
        { 2, 0, prompt(), 2, 0, MOSS_ERROR_ARGUMENT, "mode is 2, expected 0 to 1" },
        { -1, 0, prompt(), 2, 0, MOSS_ERROR_ARGUMENT, "mode is -1" },
        { 0, -1, prompt(), 2, 0, MOSS_ERROR_ARGUMENT, "chunk" },
        { 0, 0, prompt(), 0, 0, MOSS_ERROR_ARGUMENT, "n_tokens" },
        { 0, 0, prompt(), 2, 3, MOSS_ERROR_ARGUMENT, "n_logits" },
        { 0, 0, NULL, 2, 0, MOSS_ERROR_ARGUMENT, "tokens" },
    };
    float logits[VOCAB];
    size_t len = state_len(&first);
    void *state = state_new(&first), *before = block(len);
    CU_ASSERT_EQUAL(eval(&first, state, prompt(), 3, logits, 1), MOSS_OK);
    sync_state(&first, state);
    memcpy(before, state, len);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        moss_error error = { 0 };
        int status = CALL(&first, "eval", POINTER(first.context), POINTER(state), I32(rows[i].mode), I32(rows[i].chunk),
                          POINTER(rows[i].tokens), I32(rows[i].n), POINTER(logits), I32(rows[i].n_logits),
                          POINTER(&error)).i32;
        CU_ASSERT_EQUAL(status, rows[i].status);
        CU_ASSERT_EQUAL(error.status, rows[i].status);
        if (!strstr(error.message, rows[i].words))
            fprintf(stderr, "no '%s' in '%s'\n", rows[i].words, error.message);
        CU_ASSERT_PTR_NOT_NULL(strstr(error.message, rows[i].words));
        CU_ASSERT_EQUAL(memcmp(before, state, len), 0);
    }
    state_free(&first, state), free(before);
}

static void test_wrong_state(void)
{
    moss_error error;
    float logits[VOCAB];
    size_t len = state_len(&first);
    char *state = state_new(&first), *full = block(len);
    CU_ASSERT_EQUAL(eval(&first, state, prompt(), N_TOKENS, logits, 1), MOSS_OK);
    sync_state(&first, state);
    memcpy(full, state, len);
    CU_ASSERT_EQUAL(CALL(&first, "eval", POINTER(first.context), POINTER(state), I32(0), I32(0), POINTER(prompt()),
                         I32(N_CONTEXT - N_TOKENS + 1), POINTER(logits), I32(1), POINTER(&error)).i32, MOSS_ERROR_STATE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "the state is full"));
    CU_ASSERT_EQUAL(memcmp(state, full, len), 0);
    CU_ASSERT_EQUAL(eval(&first, state, prompt(), N_CONTEXT - N_TOKENS, logits, 1), MOSS_OK);
    memset(state, 0, len);
    CU_ASSERT_EQUAL(CALL(&first, "eval", POINTER(first.context), POINTER(state), I32(0), I32(0), POINTER(prompt()),
                         I32(1), POINTER(logits), I32(1), POINTER(&error)).i32, MOSS_ERROR_STATE);
    free(state), free(full);
}

static void test_sampling(void)
{
    int32_t sampled[2][16];
    float logits[VOCAB], *scratch = block(2 * VOCAB * sizeof *scratch);
    void *state = state_new(&first), *sampler = block((size_t)object_len(&first, "sampler"));
    CU_ASSERT_EQUAL(eval(&first, state, prompt(), N_TOKENS, logits, 1), MOSS_OK);
    int32_t best = 0;
    for (int32_t i = 1; i < VOCAB; i++)
        best = logits[i] > logits[best] ? i : best;
    CALL(&first, "sampler_init", POINTER(sampler), F32(0.0f), I32(0), F32(1.0f), F32(0.0f), U64(1));
    CU_ASSERT_EQUAL(CALL(&first, "sample", POINTER(sampler), POINTER(logits), POINTER(scratch)).i32, best);
    CALL(&first, "sampler_init", POINTER(sampler), F32(5.0f), I32(1), F32(1.0f), F32(0.0f), U64(1));
    CU_ASSERT_EQUAL(CALL(&first, "sample", POINTER(sampler), POINTER(logits), POINTER(scratch)).i32, best);
    for (int run = 0; run < 2; run++) {
        CALL(&first, "sampler_init", POINTER(sampler), F32(50.0f), I32(0), F32(1.0f), F32(0.0f), U64(9));
        for (int i = 0; i < 16; i++) {
            sampled[run][i] = CALL(&first, "sample", POINTER(sampler), POINTER(logits), POINTER(scratch)).i32;
            CU_ASSERT(sampled[run][i] >= 0 && sampled[run][i] < VOCAB);
        }
    }
    CU_ASSERT_EQUAL(memcmp(sampled[0], sampled[1], sizeof sampled[0]), 0);
    state_free(&first, state), free(scratch), free(sampler);
}

static int generate(Library *library, void **states, int32_t n, void *samplers, const int32_t *next, int32_t *tokens,
                    int32_t n_steps, float *scratch)
{
    moss_error error = { 0 };
    return CALL(library, "generate", POINTER(library->context), POINTER(states), I32(n), I32(0), POINTER(samplers),
                POINTER(next), POINTER(tokens), I32(n_steps), POINTER(scratch), POINTER(&error)).i32;
}

/* Greedy and drawn, all steps at once or a few at a time: what eval and sample give. */
static void check_generate(float temperature)
{
    enum { N = 3, STEPS = 9 };
    int32_t expected[STEPS][N], found[STEPS][N], next[N] = { 4, 9, 4 };
    float logits[VOCAB], *scratch = block((N + 2) * VOCAB * sizeof *scratch);
    size_t sampler_len = (size_t)object_len(&first, "sampler");
    char *samplers = block(N * sampler_len);
    void *states[N];
    for (int run = 0; run < 3; run++) {
        for (int i = 0; i < N; i++) {
            states[i] = state_new(&first);
            CALL(&first, "sampler_init", POINTER(samplers + (size_t)i * sampler_len), F32(temperature), I32(20), F32(1.0f),
                 F32(0.0f), U64(7u + (unsigned)i));
            CU_ASSERT_EQUAL(eval(&first, states[i], prompt(), 2 * i + 1, NULL, 0), MOSS_OK);
        }
        for (int i = 0; run == 0 && i < N; i++)
            for (int s = 0; s < STEPS; s++) {
                CU_ASSERT_EQUAL(eval(&first, states[i], s ? &expected[s - 1][i] : &next[i], 1, logits, 1), MOSS_OK);
                expected[s][i] = CALL(&first, "sample", POINTER(samplers + (size_t)i * sampler_len), POINTER(logits),
                                      POINTER(scratch)).i32;
            }
        if (run == 1)
            CU_ASSERT_EQUAL(generate(&first, states, N, samplers, next, &found[0][0], STEPS, scratch), MOSS_OK);
        for (int s = 0; run == 2 && s < STEPS; s += 3)
            CU_ASSERT_EQUAL(generate(&first, states, N, samplers, s ? found[s - 1] : next, found[s], 3, scratch), MOSS_OK);
        if (run > 0)
            CU_ASSERT_EQUAL(memcmp(expected, found, sizeof expected), 0);
        CU_ASSERT_EQUAL(position(&first, states[2]), 5 + STEPS);
        for (int i = 0; i < N; i++)
            state_free(&first, states[i]);
    }
    free(scratch), free(samplers);
}

static void test_generate(void)
{
    check_generate(0);
    check_generate(3);
}

static void test_generate_errors(void)
{
    int32_t next = 1, high = VOCAB, tokens[N_CONTEXT + 1];
    float *scratch = block(3 * VOCAB * sizeof *scratch);
    void *state = state_new(&first), *sampler = block((size_t)object_len(&first, "sampler"));
    CALL(&first, "sampler_init", POINTER(sampler), F32(0.0f), I32(0), F32(1.0f), F32(0.0f), U64(1));
    CU_ASSERT_EQUAL(generate(&first, &state, 1, sampler, &next, tokens, 0, scratch), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(generate(&first, &state, 0, sampler, &next, tokens, 1, scratch), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(generate(&first, &state, 1, NULL, &next, tokens, 1, scratch), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(generate(&first, &state, 1, sampler, NULL, tokens, 1, scratch), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(generate(&first, &state, 1, sampler, &high, tokens, 1, scratch), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(generate(&first, &state, 1, sampler, &next, NULL, 1, scratch), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(generate(&first, &state, 1, sampler, &next, tokens, 1, NULL), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(generate(&first, &state, 1, sampler, &next, tokens, N_CONTEXT + 1, scratch), MOSS_ERROR_STATE);
    CU_ASSERT_EQUAL(position(&first, state), 0);
    CU_ASSERT_EQUAL(generate(&first, &state, 1, sampler, &next, tokens, N_CONTEXT, scratch), MOSS_OK);
    CU_ASSERT_EQUAL(position(&first, state), N_CONTEXT);
    state_free(&first, state), free(scratch), free(sampler);
}

/* Two libraries, loaded with their symbols global: each keeps its own weights and states. */
static void test_side_by_side(void)
{
    float one[VOCAB], other[VOCAB], again[VOCAB];
    void *state = state_new(&first), *state2 = state_new(&second), *state3 = state_new(&first);
    CU_ASSERT_EQUAL(eval(&first, state, prompt(), N_TOKENS, one, 1), MOSS_OK);
    CU_ASSERT_EQUAL(eval(&second, state2, prompt(), N_TOKENS, other, 1), MOSS_OK);
    CU_ASSERT_EQUAL(eval(&first, state3, prompt(), N_TOKENS, again, 1), MOSS_OK);
    CU_ASSERT_EQUAL(memcmp(one, again, sizeof one), 0);
    CU_ASSERT_NOT_EQUAL(memcmp(one, other, sizeof one), 0);
    state_free(&first, state), state_free(&second, state2), state_free(&first, state3);
}

static void close_library(Library *library)
{
    CALL(library, "context_deinit", POINTER(library->context));
    CALL(library, "model_close", POINTER(library->model));
    free(library->context);
    free(library->model);
}

static void test_close(void)
{
    close_library(&first);
    close_library(&second);
    for (int i = 0; i < first.n_functions; i++) {
        if (!first.functions[i].called)
            fprintf(stderr, "%s was never called\n", first.functions[i].name);
        CU_ASSERT_TRUE(first.functions[i].called);
    }
}

static const UnitTest tests[] = {
    { "every listed function exists and its types are known", test_bind },
    { "exports are what the manifest lists", test_exports },
    { "names, counts, embedded manifest", test_facts },
    { "open model and context", test_open },
    { "prefill equals steps and pieces", test_prefill_equals_steps },
    { "a batch equals its sequences", test_batch },
    { "prompts together equal prompts alone", test_prompts },
    { "modes differ", test_modes },
    { "states fork, save, restore, roll back", test_states },
    { "state errors", test_state_errors },
    { "eval errors leave the state alone", test_eval_errors },
    { "wrong and full states", test_wrong_state },
    { "sampling", test_sampling },
    { "generation equals eval and sample", test_generate },
    { "what generation refuses", test_generate_errors },
    { "two libraries side by side", test_side_by_side },
    { "close; every function was called", test_close },
};

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.40s/manifest-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(folder))
        return 3;
    arena = arena_new();
    bool ready = compile("moss", "random:1") == 0 && compile("foo", "random:2") == 0 && load(&first, "moss")
        && load(&second, "foo");
    int code = ready ? unit_main("manifest", tests, (int)(sizeof tests / sizeof *tests)) : 1;
    cJSON_Delete(first.manifest);
    cJSON_Delete(second.manifest);
    tree_remove(folder);
    arena_free(arena);
    return code;
}
