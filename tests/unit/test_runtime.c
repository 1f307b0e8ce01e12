/* The runtime over a stand-in model: loader, states, evaluation, teams and barriers.
 *
 * Input: fake_program.c linked in place of generated code. Checks that every damaged weights file
 * and every wrong argument is refused with words that name it, and that results depend neither on
 * chunks nor on threads nor on where a state has been.
 */
#include "fake_program.h"
#include "moss.h"
#include "threads.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MAX_TOKENS = 40, VOCAB = 256 };

typedef struct {
    moss_model *model;
    moss_context *context;
    moss_state *state;
    size_t state_len;
    moss_error error;
} Fixture;

static char directory[] = "/tmp/moss-test-XXXXXX";
static char weights_path[64];

static void *block_new(size_t len)
{
    void *block = aligned_alloc(MOSS_ALIGN, (len + MOSS_ALIGN - 1) / MOSS_ALIGN * MOSS_ALIGN);
    if (!block)
        abort();
    return block;
}

static bool file_write(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wb");
    bool ok = file && fwrite(data, 1, len, file) == len;
    return file && fclose(file) == 0 && ok;
}

static bool fixture_open(Fixture *fixture, int32_t n_threads, int64_t n_context)
{
    memset(fixture, 0, sizeof *fixture);
    fixture->model = block_new(moss_model_len());
    fixture->context = block_new(moss_context_len(n_threads));
    fixture->state_len = moss_state_len(n_context);
    fixture->state = block_new(fixture->state_len);
    return moss_model_open(fixture->model, weights_path, 1, &fixture->error) == MOSS_OK
        && moss_context_init(fixture->context, fixture->model, n_threads, NULL, &fixture->error)
           == MOSS_OK
        && moss_state_init(fixture->state, n_context, &fixture->error) == MOSS_OK;
}

static void fixture_close(Fixture *fixture)
{
    moss_context_deinit(fixture->context);
    moss_model_close(fixture->model);
    free(fixture->model);
    free(fixture->context);
    free(fixture->state);
}

static void make_tokens(int32_t tokens[MAX_TOKENS])
{
    for (int32_t i = 0; i < MAX_TOKENS; i++)
        tokens[i] = i * 37 % VOCAB;
}

static void full_attention(bool on)
{
    fake_program()->full_attention = on;
    fake_program()->state_token_len = on ? 8 : 0;
}

/* --- Loader --- */

/* A weights file with one thing wrong, and the words that must say so. */
typedef struct {
    const char *name;
    void (*damage)(uint8_t *file, size_t *len);
    int32_t status;
    const char *words[3];
} LoaderCase;

static moss_weights_header *header_of(uint8_t *file) { return (void *)file; }

static void leave_whole(uint8_t *file, size_t *len) { (void)file; (void)len; }
static void cut_to_nothing(uint8_t *file, size_t *len) { (void)file; *len = 0; }
static void cut_header(uint8_t *file, size_t *len) { (void)file; *len = 100; }
static void cut_data(uint8_t *file, size_t *len) { (void)file; --*len; }
static void append_byte(uint8_t *file, size_t *len) { (void)file; ++*len; }
static void change_magic(uint8_t *file, size_t *len) { (void)len; file[0] = 'X'; }
static void change_abi(uint8_t *file, size_t *len) { (void)len; header_of(file)->abi = 99; }
static void change_hash(uint8_t *file, size_t *len)
{
    (void)len;
    header_of(file)->model_hash++;
    memset(header_of(file)->name, 'n', sizeof header_of(file)->name);   /* not terminated */
}
static void change_data_len(uint8_t *file, size_t *len) { (void)len; header_of(file)->data_len++; }
static void flip_first(uint8_t *file, size_t *len)
{
    (void)len;
    file[MOSS_WEIGHTS_HEADER_LEN] ^= 1;
}
static void flip_last(uint8_t *file, size_t *len) { file[*len - 1] ^= 0x80; }

static const LoaderCase loader_cases[] = {
    { "whole", leave_whole, MOSS_OK, { NULL } },
    { "empty", cut_to_nothing, MOSS_ERROR_WEIGHTS, { "truncated", "0 bytes", "4096" } },
    { "no header", cut_header, MOSS_ERROR_WEIGHTS, { "truncated", "100 bytes", "4096" } },
    { "no last byte", cut_data, MOSS_ERROR_WEIGHTS, { "truncated", "7095 bytes", "7096" } },
    { "one more byte", append_byte, MOSS_ERROR_WEIGHTS, { "too long", "7097 bytes", "7096" } },
    { "magic", change_magic, MOSS_ERROR_WEIGHTS, { "not a weights file", "MOSSWTS1" } },
    { "abi", change_abi, MOSS_ERROR_WEIGHTS, { "ABI 99", "expected 6" } },
    { "hash", change_hash, MOSS_ERROR_WEIGHTS, { "5eee", "5eed", "fake" } },
    { "data_len", change_data_len, MOSS_ERROR_WEIGHTS, { "3001 bytes", "expected 3000" } },
    { "first byte", flip_first, MOSS_ERROR_WEIGHTS, { "corrupt", "checksum", "expected" } },
    { "last byte", flip_last, MOSS_ERROR_WEIGHTS, { "corrupt", "checksum", "expected" } },
};

static void check_loader_case(const LoaderCase *test)
{
    static uint8_t file[FAKE_FILE_LEN + 1];
    char path[64];
    size_t len = FAKE_FILE_LEN;
    moss_error error = { 0 };
    moss_model *model = block_new(moss_model_len());
    fake_weights_make(file);
    test->damage(file, &len);
    snprintf(path, sizeof path, "%s/case", directory);
    CU_ASSERT_FATAL(file_write(path, file, len));
    CU_ASSERT_EQUAL(moss_model_open(model, path, 1, &error), test->status);
    for (int i = 0; i < 3 && test->words[i]; i++)
        if (!strstr(error.message, test->words[i]) || !strstr(error.message, path)) {
            printf("%s: '%s' lacks '%s'\n", test->name, error.message, test->words[i]);
            CU_FAIL("message");
        }
    CU_ASSERT_EQUAL(moss_model_open(model, path, 1, NULL), test->status);   /* words unwanted */
    moss_model_close(model);
    free(model);
}

static void test_loader_names_what_is_wrong(void)
{
    for (size_t i = 0; i < sizeof loader_cases / sizeof *loader_cases; i++)
        check_loader_case(&loader_cases[i]);
}

static void test_loader_without_file(void)
{
    char path[300];
    moss_error error;
    moss_model *model = block_new(moss_model_len());
    snprintf(path, sizeof path, "%s/%0200d/missing", directory, 0);
    CU_ASSERT_EQUAL(moss_model_open(model, path, 1, &error), MOSS_ERROR_SYSTEM);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "0/missing: cannot open the weights: No such"));
    CU_ASSERT_EQUAL(moss_model_open(model, directory, 1, &error), MOSS_ERROR_WEIGHTS);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "not a regular file"));
    CU_ASSERT_EQUAL(moss_model_open(model, NULL, 1, &error), MOSS_ERROR_SYSTEM);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, ".weights: cannot open"));   /* beside this test */
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "to moss_model_open (a program: -m)"));   /* not cut off */
    CU_ASSERT_EQUAL(moss_model_open(NULL, NULL, 1, &error), MOSS_ERROR_ARGUMENT);
    moss_model_close(model);
    free(model);
}

static void test_loader_without_verify(void)
{
    static uint8_t file[FAKE_FILE_LEN];
    char path[64];
    moss_model *model = block_new(moss_model_len());
    fake_weights_make(file);
    file[FAKE_FILE_LEN - 1] ^= 1;
    snprintf(path, sizeof path, "%s/case", directory);
    CU_ASSERT_FATAL(file_write(path, file, sizeof file));
    CU_ASSERT_EQUAL(moss_model_open(model, path, 0, NULL), MOSS_OK);
    moss_model_close(model);
    free(model);
}

/* Other weights of the same model are fine as a given file, not as the embedded ones. */
static void test_loader_other_weights(void)
{
    static _Alignas(4096) uint8_t file[FAKE_FILE_LEN];
    char path[64];
    moss_error error;
    moss_model *model = block_new(moss_model_len());
    fake_weights_make(file);
    file[FAKE_FILE_LEN - 1] ^= 1;
    header_of(file)->checksum = moss_checksum(file + MOSS_WEIGHTS_HEADER_LEN, FAKE_DATA_LEN);
    snprintf(path, sizeof path, "%s/case", directory);
    CU_ASSERT_FATAL(file_write(path, file, sizeof file));
    CU_ASSERT_EQUAL(moss_model_open(model, path, 1, NULL), MOSS_OK);
    moss_model_close(model);
    fake_program()->embedded_weights = file;
    CU_ASSERT_EQUAL(moss_model_open(model, NULL, 1, &error), MOSS_ERROR_WEIGHTS);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "another compile"));
    fake_weights_make(file);
    CU_ASSERT_EQUAL(moss_model_open(model, NULL, 1, &error), MOSS_OK);
    moss_model_close(model);
    fake_program()->embedded_weights = NULL;
    free(model);
}

static void test_loader_refuses_cpu(void)
{
    static const char *const lacking[] = { "warp9", " warp9", "sse3 warp9 fma", "neon warp9" };
    moss_model *model = block_new(moss_model_len());
    moss_error error;
    const moss_code *const *codes = fake_program()->codes;
    for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++) {
        const moss_code code = { "test", lacking[i], codes[0]->prefill, codes[0]->decode }, *const list[] = { &code };
        fake_program()->codes = list;
        CU_ASSERT_EQUAL(moss_model_open(model, weights_path, 1, &error), MOSS_ERROR_CPU);
        CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "lacks "));
    }
    fake_program()->codes = codes;
    fake_program()->abi = 77;
    CU_ASSERT_EQUAL(moss_model_open(model, weights_path, 1, &error), MOSS_ERROR_ARGUMENT);
    fake_program()->abi = MOSS_ABI;
    free(model);
}

/* What opening chooses with MOSS_CODE=wanted (NULL: unset); NULL: it failed with `status`. */
static const char *chosen_code(moss_model *model, const char *wanted, int status)
{
    moss_error error = { 0 };
    if (wanted)
        setenv("MOSS_CODE", wanted, 1);
    const int found = moss_model_open(model, weights_path, 1, &error);
    const char *name = found == MOSS_OK ? moss_model_device(model) : NULL;
    CU_ASSERT_EQUAL(found, status);
    moss_model_close(model);
    unsetenv("MOSS_CODE");
    return name;
}

/* The most demanding code this CPU can run, or the one asked for; the one chosen is the one that runs. */
static void test_loader_chooses_code(void)
{
    const moss_code *const *before = fake_program()->codes;
    const moss_code old = { "old", "", before[0]->prefill, before[0]->decode };
    const moss_code middle = { "middle", " ", before[0]->prefill, before[0]->decode };
    const moss_code new = { "new", "warp9", before[0]->prefill, before[0]->decode };
    const moss_code *const three[] = { &old, &middle, &new }, *const none[] = { &new, &new };
    moss_model *model = block_new(moss_model_len());
    fake_program()->codes = three;
    fake_program()->n_codes = 3;
    CU_ASSERT_STRING_EQUAL(chosen_code(model, NULL, MOSS_OK), "middle");
    CU_ASSERT_STRING_EQUAL(moss_model_device(NULL), "middle");
    CU_ASSERT_STRING_EQUAL(chosen_code(model, "", MOSS_OK), "middle");
    CU_ASSERT_STRING_EQUAL(chosen_code(model, "old", MOSS_OK), "old");
    CU_ASSERT_PTR_NULL(chosen_code(model, "new", MOSS_ERROR_CPU));
    CU_ASSERT_PTR_NULL(chosen_code(model, "newer", MOSS_ERROR_ARGUMENT));
    fake_program()->codes = none;
    fake_program()->n_codes = 2;
    CU_ASSERT_PTR_NULL(chosen_code(model, NULL, MOSS_ERROR_CPU));
    CU_ASSERT_STRING_EQUAL(moss_model_device(NULL), "none");
    fake_program()->codes = before;
    fake_program()->n_codes = 1;
    free(model);
}

/* Against the compiler's own detection. */
static void test_cpu_features(void)
{
    int len;
#ifdef __x86_64__
    const struct { const char *name; int has; } compilers[] = {
        { "sse4.2", __builtin_cpu_supports("sse4.2") }, { "avx2", __builtin_cpu_supports("avx2") },
        { "fma", __builtin_cpu_supports("fma") }, { "avx512f", __builtin_cpu_supports("avx512f") },
        { "avx512vl", __builtin_cpu_supports("avx512vl") },
        { "avx512vnni", __builtin_cpu_supports("avx512vnni") },
#if defined __GNUC__ && !defined __clang__
        { "avxvnni", __builtin_cpu_supports("avxvnni") },
#endif
    };
    for (size_t i = 0; i < sizeof compilers / sizeof *compilers; i++)
        CU_ASSERT_EQUAL(moss_cpu_missing(compilers[i].name, &len) == NULL, compilers[i].has != 0);
#endif
#ifdef __aarch64__
    CU_ASSERT_PTR_NULL(moss_cpu_missing("neon", &len));
#endif
    CU_ASSERT_PTR_NULL(moss_cpu_missing("", &len));
    CU_ASSERT_PTR_NULL(moss_cpu_missing("  ", &len));
    CU_ASSERT_PTR_NOT_NULL(moss_cpu_missing("av", &len));   /* a prefix of a name is no name */
    CU_ASSERT_EQUAL(len, 2);
}

/* --- States --- */

static void test_state_lengths(void)
{
    full_attention(true);
    CU_ASSERT_EQUAL(moss_state_len(10), 192);   /* 64 + 16 + 80, rounded up to 64 */
    CU_ASSERT_EQUAL(moss_state_len(-1), 0);
    CU_ASSERT_EQUAL(moss_state_len(INT64_MAX), 0);
    CU_ASSERT_EQUAL(moss_state_len(INT64_MAX / 8), 0);
    full_attention(false);
    CU_ASSERT_EQUAL(moss_state_len(0), 128);
    CU_ASSERT_EQUAL(moss_state_len(1000), 128);
}

static void test_state_init_arguments(void)
{
    uint8_t *block = block_new(256);
    moss_error error;
    CU_ASSERT_EQUAL(moss_state_init(NULL, 1, &error), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_state_init((void *)(block + 8), 1, &error), MOSS_ERROR_ARGUMENT);
    CU_ASSERT_EQUAL(moss_state_init((void *)block, -1, &error), MOSS_ERROR_ARGUMENT);
    full_attention(true);
    CU_ASSERT_EQUAL(moss_state_init((void *)block, 0, &error), MOSS_ERROR_ARGUMENT);
    full_attention(false);
    CU_ASSERT_EQUAL(moss_state_init((void *)block, 0, &error), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_position((void *)block), 0);
    free(block);
}

static void test_state_check(void)
{
    moss_error error;
    full_attention(true);
    const size_t len = moss_state_len(10);
    moss_state *state = block_new(len + 64);
    moss_state_init(state, 10, NULL);
    CU_ASSERT_EQUAL(moss_state_check(state, len, &error), MOSS_OK);
    CU_ASSERT_EQUAL(moss_state_check(state, len - 1, &error), MOSS_ERROR_STATE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "191 bytes, expected 192"));
    CU_ASSERT_EQUAL(moss_state_check(state, 3, &error), MOSS_ERROR_STATE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "truncated"));
    CU_ASSERT_EQUAL(moss_state_check(NULL, len, &error), MOSS_ERROR_ARGUMENT);
    state->n_context = 100;
    CU_ASSERT_EQUAL(moss_state_check(state, len, &error), MOSS_ERROR_STATE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "says 192 bytes; n_context 100"));
    state->n_context = 10, state->position = 11;
    CU_ASSERT_EQUAL(moss_state_check(state, len, &error), MOSS_ERROR_STATE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "position is 11"));
    state->position = 0, state->model_hash++;
    CU_ASSERT_EQUAL(moss_state_check(state, len, &error), MOSS_ERROR_STATE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "5eee"));
    state->model_hash--;
    fake_program()->weights_values = 0xF00D;      /* as another checkpoint of the graph has */
    CU_ASSERT_EQUAL(moss_state_check(state, len, &error), MOSS_ERROR_STATE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "other weights"));
    moss_state_init(state, 10, NULL);
    CU_ASSERT_EQUAL(moss_state_check(state, len, &error), MOSS_OK);
    fake_program()->weights_values = 0;           /* not known: not checked */
    CU_ASSERT_EQUAL(moss_state_check(state, len, &error), MOSS_OK);
    memset(state, 0, len);
    CU_ASSERT_EQUAL(moss_state_check(state, len, &error), MOSS_ERROR_STATE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "not a state"));
    free(state);
    full_attention(false);
}

/* --- Evaluation --- */

/* A call of moss_eval with one argument wrong. */
typedef struct {
    const char *name;
    int32_t mode, chunk, n_tokens, n_logits, token;
    int32_t status;
    const char *words;
} EvalCase;

static const EvalCase eval_cases[] = {
    { "fine",           0,  0, 4, 1, 5,   MOSS_OK, NULL },
    { "mode below",    -1,  0, 4, 1, 5,   MOSS_ERROR_ARGUMENT, "mode is -1, expected 0 to 1" },
    { "mode above",     2,  0, 4, 1, 5,   MOSS_ERROR_ARGUMENT, "mode is 2, expected 0 to 1" },
    { "chunk",          0, -1, 4, 1, 5,   MOSS_ERROR_ARGUMENT, "chunk is -1" },
    { "no tokens",      0,  0, 0, 0, 5,   MOSS_ERROR_ARGUMENT, "n_tokens is 0" },
    { "logits above",   0,  0, 4, 5, 5,   MOSS_ERROR_ARGUMENT, "n_logits is 5, expected 0 to 4" },
    { "logits below",   0,  0, 4, -1, 5,  MOSS_ERROR_ARGUMENT, "n_logits is -1" },
    { "token above",    0,  0, 4, 1, 256, MOSS_ERROR_ARGUMENT, "token 3 is 256, expected 0 to" },
    { "token below",    0,  0, 4, 1, -1,  MOSS_ERROR_ARGUMENT, "token 3 is -1" },
    { "state is full",  0,  0, 21, 1, 5,  MOSS_ERROR_STATE, "n_context is 20" },
    { "state is filled", 0, 0, 20, 1, 5,  MOSS_OK, NULL },
};

static void check_eval_case(const EvalCase *test)
{
    static float logits[MAX_TOKENS * VOCAB];
    int32_t tokens[MAX_TOKENS];
    Fixture fixture;
    make_tokens(tokens);
    tokens[3] = test->token;
    CU_ASSERT_FATAL(fixture_open(&fixture, 2, 20));
    void *before = block_new(fixture.state_len);
    memcpy(before, fixture.state, fixture.state_len);
    int status = moss_eval(fixture.context, fixture.state, test->mode, test->chunk, tokens,
                           test->n_tokens, logits, test->n_logits, &fixture.error);
    if (status != test->status || (test->words && !strstr(fixture.error.message, test->words))) {
        printf("%s: status %d, '%s'\n", test->name, status, fixture.error.message);
        CU_FAIL("eval");
    }
    if (status == MOSS_OK)
        CU_ASSERT_EQUAL(moss_state_position(fixture.state), test->n_tokens);
    if (status != MOSS_OK)
        CU_ASSERT_EQUAL(memcmp(before, fixture.state, fixture.state_len), 0);
    free(before);
    fixture_close(&fixture);
}

static void test_eval_arguments(void)
{
    full_attention(true);
    for (size_t i = 0; i < sizeof eval_cases / sizeof *eval_cases; i++)
        check_eval_case(&eval_cases[i]);
    full_attention(false);
}

static void test_eval_null_arguments(void)
{
    Fixture fixture;
    float logits[VOCAB];
    const int32_t token = 1;
    CU_ASSERT_FATAL(fixture_open(&fixture, 1, 1));
    moss_context *context = fixture.context;
    moss_state *state = fixture.state;
    const int refused = MOSS_ERROR_ARGUMENT;
    CU_ASSERT_EQUAL(moss_eval(NULL, state, 0, 0, &token, 1, logits, 1, NULL), refused);
    CU_ASSERT_EQUAL(moss_eval(context, NULL, 0, 0, &token, 1, logits, 1, NULL), refused);
    CU_ASSERT_EQUAL(moss_eval(context, state, 0, 0, NULL, 1, logits, 1, NULL), refused);
    CU_ASSERT_EQUAL(moss_eval(context, state, 0, 0, &token, 1, NULL, 1, NULL), refused);
    CU_ASSERT_EQUAL(moss_eval(context, state, 0, 0, &token, 1, NULL, 0, NULL), MOSS_OK);
    memset(state, 0, sizeof *state);
    CU_ASSERT_EQUAL(moss_eval(context, state, 0, 0, &token, 1, logits, 1, NULL), MOSS_ERROR_STATE);
    fixture_close(&fixture);
}

static void test_context_arguments(void)
{
    Fixture fixture;
    moss_error error;
    const int32_t no_cpu[] = { 1023 }, beyond[] = { 100000 }, first[] = { 0 };
    CU_ASSERT_EQUAL(moss_context_len(0), 0);
    CU_ASSERT_EQUAL(moss_context_len(-1), 0);
    CU_ASSERT_EQUAL(moss_context_len(1000000), 0);
    CU_ASSERT_FATAL(fixture_open(&fixture, 1, 1));
    moss_context *context = block_new(moss_context_len(1));
    const moss_model *model = fixture.model;
    const int refused = MOSS_ERROR_ARGUMENT;
    CU_ASSERT_EQUAL(moss_context_init(context, NULL, 1, NULL, &error), refused);
    CU_ASSERT_EQUAL(moss_context_init(NULL, model, 1, NULL, &error), refused);
    CU_ASSERT_EQUAL(moss_context_init(context, model, 0, NULL, &error), refused);
    CU_ASSERT_EQUAL(moss_context_init(context, model, 1, no_cpu, &error), refused);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "thread 0 to processor 1023"));
    CU_ASSERT_EQUAL(moss_context_init(context, model, 1, beyond, &error), refused);
    if (moss_context_init(context, model, 1, first, &error) == MOSS_OK)
        moss_context_deinit(context);   /* processor 0 may be out of this process's reach */
    moss_context_deinit(context);       /* twice is harmless */
    free(context);
    fixture_close(&fixture);
}

/* Pieces as the generated code sees them: lengths, wanted logits, schedule. */
static void test_eval_cuts_chunks(void)
{
    static float logits[MAX_TOKENS * VOCAB];
    static const struct { int32_t chunk, n_tokens, n_logits; fake_call expected[8]; } cases[] = {
        { 0, 19, 19, { { 8, 8, 0, 0 }, { 8, 8, 8, 0 }, { 3, 3, 16, 0 } } },
        { 0, 17, 2,  { { 8, 0, 0, 0 }, { 8, 1, 8, 0 }, { 1, 1, 16, 1 } } },
        { 5, 10, 7,  { { 5, 2, 0, 0 }, { 5, 5, 5, 0 } } },
        { 99, 9, 0,  { { 8, 0, 0, 0 }, { 1, 0, 8, 1 } } },   /* never above the compiled length */
        { 1, 3, 1,   { { 1, 0, 0, 1 }, { 1, 0, 1, 1 }, { 1, 1, 2, 1 } } },
    };
    int32_t tokens[MAX_TOKENS];
    Fixture fixture;
    make_tokens(tokens);
    CU_ASSERT_FATAL(fixture_open(&fixture, 1, 1));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake_log *log = fake_calls();
        memset(log, 0, sizeof *log);
        moss_state_init(fixture.state, 1, NULL);
        CU_ASSERT_EQUAL(moss_eval(fixture.context, fixture.state, 0, cases[i].chunk, tokens,
                                  cases[i].n_tokens, logits, cases[i].n_logits, NULL), MOSS_OK);
        int n = 0;
        for (; n < 8 && cases[i].expected[n].n_tokens; n++)
            CU_ASSERT_EQUAL(memcmp(&log->call[n], &cases[i].expected[n], sizeof(fake_call)), 0);
        CU_ASSERT_EQUAL(log->n, n);
    }
    fixture_close(&fixture);
}

static void eval_all(int32_t n_threads, int32_t mode, int32_t chunk, float *logits)
{
    int32_t tokens[MAX_TOKENS];
    Fixture fixture;
    make_tokens(tokens);
    CU_ASSERT_FATAL(fixture_open(&fixture, n_threads, MAX_TOKENS));
    CU_ASSERT_EQUAL(moss_eval(fixture.context, fixture.state, mode, chunk, tokens, MAX_TOKENS,
                              logits, MAX_TOKENS, NULL), MOSS_OK);
    fixture_close(&fixture);
}

static void test_eval_threads_and_chunks_agree(void)
{
    static float expected[MAX_TOKENS * VOCAB], found[MAX_TOKENS * VOCAB];
    static const int32_t chunks[] = { 0, 1, 3, 7, 8 };
    eval_all(1, 0, 0, expected);
    for (int32_t n_threads = 1; n_threads <= 8; n_threads++)
        for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
            memset(found, 0xFF, sizeof found);
            eval_all(n_threads, 0, chunks[i], found);
            CU_ASSERT_EQUAL(memcmp(found, expected, sizeof found), 0);
        }
    eval_all(2, 1, 0, found);
    CU_ASSERT_NOT_EQUAL(memcmp(found, expected, sizeof found), 0);   /* another mode */
}

/* The logits of the token after `prefix`, from a state given as bytes. */
static void step(Fixture *fixture, const void *bytes, int32_t token, float *logits)
{
    if (bytes)
        memcpy(fixture->state, bytes, fixture->state_len);
    CU_ASSERT_EQUAL(moss_state_check(fixture->state, fixture->state_len, &fixture->error), MOSS_OK);
    CU_ASSERT_EQUAL(moss_eval(fixture->context, fixture->state, 0, 0, &token, 1, logits, 1,
                              &fixture->error), MOSS_OK);
}

static void test_state_forks_restores_rolls_back(void)
{
    float straight[VOCAB], forked[VOCAB], other[VOCAB];
    int32_t tokens[MAX_TOKENS];
    Fixture fixture, second;
    make_tokens(tokens);
    full_attention(true);
    CU_ASSERT_FATAL(fixture_open(&fixture, 2, MAX_TOKENS));
    CU_ASSERT_FATAL(fixture_open(&second, 3, MAX_TOKENS));
    CU_ASSERT_EQUAL(moss_eval(fixture.context, fixture.state, 0, 0, tokens, 13, NULL, 0, NULL),
                    MOSS_OK);
    void *saved = block_new(fixture.state_len);
    memcpy(saved, fixture.state, fixture.state_len);
    step(&fixture, NULL, 7, straight);
    step(&fixture, saved, 9, other);          /* rolled back, another way on */
    step(&second, saved, 7, forked);          /* restored into another context */
    CU_ASSERT_EQUAL(memcmp(straight, forked, sizeof straight), 0);
    CU_ASSERT_NOT_EQUAL(memcmp(straight, other, sizeof straight), 0);
    CU_ASSERT_EQUAL(moss_state_position(second.state), 14);
    free(saved);
    fixture_close(&fixture);
    fixture_close(&second);
    full_attention(false);
}

/* --- Teams --- */

enum { STRESS_MAX_THREADS = 8 };

typedef struct { uint64_t slots[STRESS_MAX_THREADS]; } StressRow;
typedef struct {
    moss_team team;
    moss_member members[STRESS_MAX_THREADS];
    StressRow row;            /* plain memory: the barriers alone order it */
    int n_rounds;
    atomic_int n_wrong;
} Stress;

static void stress_task(void *argument, int thread)
{
    Stress *stress = argument;
    for (int round = 1; round <= stress->n_rounds; round++) {
        stress->row.slots[thread] = (uint64_t)round;
        moss_barrier_wait(&stress->team.barrier);
        for (int32_t i = 0; i < stress->team.n_threads; i++)
            if (stress->row.slots[i] != (uint64_t)round)
                atomic_fetch_add(&stress->n_wrong, 1);
        moss_barrier_wait(&stress->team.barrier);
    }
}

static int stress_team(int32_t n_threads, int n_rounds, int n_tasks)
{
    static Stress stress;
    memset(&stress, 0, sizeof stress);
    stress.n_rounds = n_rounds;
    CU_ASSERT_EQUAL_FATAL(moss_team_start(&stress.team, stress.members, n_threads, NULL, NULL),
                          MOSS_OK);
    for (int i = 0; i < n_tasks; i++)
        moss_team_run(&stress.team, stress_task, &stress);
    moss_team_stop(&stress.team);
    return atomic_load(&stress.n_wrong);
}

static void test_barrier_stress(void)
{
    CU_ASSERT_EQUAL(stress_team(1, 1000, 10), 0);
    CU_ASSERT_EQUAL(stress_team(2, 50000, 1), 0);    /* 100,000 barriers */
    CU_ASSERT_EQUAL(stress_team(8, 2500, 1), 0);     /* more threads than most test machines */
}

static void test_many_short_tasks(void)
{
    for (int32_t n_threads = 2; n_threads <= 8; n_threads += 3)
        CU_ASSERT_EQUAL(stress_team(n_threads, 1, 1000), 0);
}

/* Idle long enough that the team sleeps in the kernel before the next task. */
static void test_team_wakes_from_sleep(void)
{
    static Stress stress;
    memset(&stress, 0, sizeof stress);
    stress.n_rounds = 1;
    CU_ASSERT_EQUAL_FATAL(moss_team_start(&stress.team, stress.members, 4, NULL, NULL), MOSS_OK);
    for (int i = 0; i < 20; i++) {
        usleep(2000);
        moss_team_run(&stress.team, stress_task, &stress);
    }
    moss_team_stop(&stress.team);
    CU_ASSERT_EQUAL(atomic_load(&stress.n_wrong), 0);
}

/* A limit on threads reached half way: the error is told and those made are gone. */
static void test_team_without_threads(void)
{
    static Stress stress;
    struct rlimit before, none;
    moss_error error = { 0 };
    if (geteuid() == 0 || getrlimit(RLIMIT_NPROC, &before) != 0)
        return;   /* root is not limited */
    none = before;
    none.rlim_cur = 1;
    setrlimit(RLIMIT_NPROC, &none);
    CU_ASSERT_EQUAL(moss_team_start(&stress.team, stress.members, 4, NULL, &error),
                    MOSS_ERROR_SYSTEM);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "cannot create thread"));
    setrlimit(RLIMIT_NPROC, &before);
}

static void test_public_facts(void)
{
    CU_ASSERT_STRING_EQUAL(moss_name(), "fake \"model\"");
    CU_ASSERT_EQUAL(moss_vocab_size(), 256);
    CU_ASSERT_EQUAL(moss_n_modes(), 2);
    CU_ASSERT_EQUAL(moss_mode_top_k(1), 3);
    CU_ASSERT_EQUAL(moss_mode_top_k(2), -1);
    CU_ASSERT_EQUAL(moss_mode_top_k(-1), -1);
}

static const UnitTest tests[] = {
    { "facts about the program", test_public_facts },
    { "a damaged file is told as what it is", test_loader_names_what_is_wrong },
    { "no file", test_loader_without_file },
    { "the checksum can be skipped", test_loader_without_verify },
    { "other weights of the same model", test_loader_other_weights },
    { "a CPU without the features is refused", test_loader_refuses_cpu },
    { "code for several CPUs", test_loader_chooses_code },
    { "CPU features", test_cpu_features },
    { "state lengths", test_state_lengths },
    { "state arguments", test_state_init_arguments },
    { "foreign and damaged states", test_state_check },
    { "eval arguments", test_eval_arguments },
    { "eval without something", test_eval_null_arguments },
    { "context arguments", test_context_arguments },
    { "chunks as generated code sees them", test_eval_cuts_chunks },
    { "threads and chunks change nothing", test_eval_threads_and_chunks_agree },
    { "states fork, restore and roll back", test_state_forks_restores_rolls_back },
    { "barriers under stress", test_barrier_stress },
    { "many short tasks", test_many_short_tasks },
    { "a sleeping team wakes", test_team_wakes_from_sleep },
    { "too few threads allowed", test_team_without_threads },
};

static bool make_directory(void)
{
    static uint8_t file[FAKE_FILE_LEN];
    if (!mkdtemp(directory))
        return false;
    snprintf(weights_path, sizeof weights_path, "%s/weights", directory);
    fake_weights_make(file);
    return file_write(weights_path, file, sizeof file);
}

static void remove_directory(void)
{
    char path[64];
    snprintf(path, sizeof path, "%s/case", directory);
    unlink(path);
    unlink(weights_path);
    rmdir(directory);
}

int main(void)
{
    if (!make_directory())
        return 3;
    const int code = unit_main("runtime", tests, (int)(sizeof tests / sizeof *tests));
    remove_directory();
    return code;
}
