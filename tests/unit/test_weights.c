/* Weights: good files in every dtype, each way a file can be wrong, and random weights.
 *
 * Input: files written to a temporary name and removed again.
 * The digests of random weights are part of the contract: they must not change.
 */
#include "../../compiler/graph_read.h"
#include "../../compiler/weights.h"
#include "../support/safetensors_write.h"
#include "unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char graph_text[] = "{\"format\":\"mossnet-graph/1\",\"vocab_size\":6,\"d_model\":4,\"experts\":3,"
    "\"top_k\":2,\"tie_embeddings\":true,\"layers\":[{\"op\":\"mamba\",\"d_state\":5},"
    "{\"op\":\"mlp\",\"d_ff\":3,\"experts\":1}]}";
static const char small_text[] = "{\"format\":\"mossnet-graph/1\",\"vocab_size\":2,\"d_model\":2,"
    "\"tie_embeddings\":true,\"layers\":[{\"op\":\"mlp\",\"d_ff\":1}]}";

typedef struct { Arena *arena; Diags *diags; Graph *graph; char path[32]; } Case;

static Case case_new(const char *text)
{
    Case c = { .arena = arena_new(), .path = "/tmp/mossc-test-XXXXXX" };
    c.diags = diags_new(c.arena);
    c.graph = graph_read_text(c.arena, c.diags, "t.json", text, strlen(text));
    CU_ASSERT_PTR_NOT_NULL_FATAL(c.graph);
    int fd = mkstemp(c.path);
    CU_ASSERT_FATAL(fd >= 0);
    close(fd);
    return c;
}

static void case_free(Case *c)
{
    unlink(c->path);
    arena_free(c->arena);
}

static float value_of(int tensor, int64_t i)
{
    return (float)((tensor * 131 + i * 17) % 251 - 125) / 64;   /* exact in every dtype */
}

/* --- good files --- */

static void test_round_trip(void)
{
    static const DType dtypes[] = { DTYPE_F32, DTYPE_F16, DTYPE_BF16 };
    for (int d = 0; d < 3; d++) {
        Case c = case_new(graph_text);
        Text bytes = { 0 };
        safetensors_put_graph(&bytes, c.graph, dtypes[d], value_of);
        CU_ASSERT(safetensors_save(c.path, &bytes));
        Weights *weights = weights_open(c.arena, c.diags, c.graph, c.path);
        CU_ASSERT_PTR_NOT_NULL_FATAL(weights);
        int n_bad = 0;
        for (int t = 0; t < weights_count(weights); t++) {
            int64_t count = tensor_spec_count(weights_spec(weights, t));
            float out[512];
            n_bad += weights_dtype(weights, t) != dtypes[d] || weights_find(weights, weights_spec(weights, t)->name) != t;
            for (int64_t begin = 0; begin < count; begin += 7) {
                int64_t n = count - begin < 7 ? count - begin : 7;
                weights_read(weights, t, begin, n, out);
                for (int64_t i = 0; i < n; i++)
                    n_bad += out[i] != value_of(t, begin + i);
            }
            weights_read(weights, t, count, 0, out);
        }
        CU_ASSERT_EQUAL(n_bad, 0);
        CU_ASSERT_EQUAL(weights_find(weights, "lm_head.weight"), -1);
        weights_close(weights);
        text_free(&bytes);
        case_free(&c);
    }
}

/* Every 16-bit pattern reads as the scalar conversions say, NaN and subnormals included. */
static void test_every_pattern(void)
{
    static const char text[] = "{\"format\":\"mossnet-graph/1\",\"vocab_size\":65536,\"d_model\":1,"
                               "\"tie_embeddings\":true,\"layers\":[{\"op\":\"mlp\",\"d_ff\":1}]}";
    float *out = calloc(65536, sizeof *out);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        Case c = case_new(text);
        Text header = { 0 }, data = { 0 }, bytes = { 0 };
        text_printf(&header, "{\"embed.weight\":{\"dtype\":\"%s\",\"shape\":[65536,1],\"data_offsets\":[0,131072]}",
                    bf16 ? "BF16" : "F16");
        for (int i = 0; i < 65536; i++)
            text_append(&data, (const char *)&(uint16_t){ (uint16_t)i }, 2);
        static const char *const rest[] = { "norm_f.weight\":{\"dtype\":\"F16\",\"shape\":[1]",
            "layers.0.norm.weight\":{\"dtype\":\"F16\",\"shape\":[1]",
            "layers.0.gate_proj.weight\":{\"dtype\":\"F16\",\"shape\":[1,1,1]",
            "layers.0.up_proj.weight\":{\"dtype\":\"F16\",\"shape\":[1,1,1]",
            "layers.0.down_proj.weight\":{\"dtype\":\"F16\",\"shape\":[1,1,1]" };
        for (int i = 0; i < 5; i++) {
            text_printf(&header, ",\"%s,\"data_offsets\":[%zu,%zu]}", rest[i], data.len, data.len + 2);
            text_append(&data, "\0\0", 2);
        }
        text_printf(&header, "}");
        safetensors_put(&bytes, header.data, data.data, data.len);
        CU_ASSERT(safetensors_save(c.path, &bytes));
        Weights *weights = weights_open(c.arena, c.diags, c.graph, c.path);
        CU_ASSERT_PTR_NOT_NULL_FATAL(weights);
        weights_read(weights, weights_find(weights, "embed.weight"), 0, 65536, out);
        int n_bad = 0;
        for (int i = 0; i < 65536; i++) {
            float expected = bf16 ? dtype_bf16_to_f32((uint16_t)i) : dtype_f16_to_f32((uint16_t)i);
            n_bad += isnan(expected) ? !isnan(out[i]) : memcmp(&out[i], &expected, sizeof expected) != 0;
        }
        CU_ASSERT_EQUAL(n_bad, 0);
        weights_close(weights);
        text_free(&header);
        text_free(&data);
        text_free(&bytes);
        case_free(&c);
    }
    free(out);
}

/* --- bad files --- */

#define ENTRY(name, dtype, shape, begin, end) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"
#define EMBED ENTRY("embed.weight", "F32", "[2,2]", 0, 16)
#define NORM_F ENTRY("norm_f.weight", "F32", "[2]", 16, 24)
#define NORM ENTRY("layers.0.norm.weight", "F32", "[2]", 24, 32)
#define GATE ENTRY("layers.0.gate_proj.weight", "F32", "[1,1,2]", 32, 40)
#define UP ENTRY("layers.0.up_proj.weight", "F32", "[1,1,2]", 40, 48)
#define DOWN ENTRY("layers.0.down_proj.weight", "F32", "[1,2,1]", 48, 56)
#define REST NORM_F "," NORM "," GATE "," UP "," DOWN

typedef struct { const char *header; size_t data_len; const char *expected; } Bad;

static const Bad bad_files[] = {
    { "{" EMBED "," REST "}", 56, NULL },
    { "{\"__metadata__\":{\"format\":\"pt\"}," EMBED "," REST "}  ", 56, NULL },
    { "{" EMBED "," NORM_F "," NORM "," GATE "," UP "," ENTRY("layers.0.down_proj.weight", "F16", "[1,2,1]", 48, 52) "}", 52, NULL },
    /* not aligned to its element, which the format allows */
    { "{" ENTRY("norm_f.weight", "F16", "[2]", 0, 4) "," ENTRY("embed.weight", "F32", "[2,2]", 4, 20) ","
      ENTRY("layers.0.norm.weight", "F32", "[2]", 20, 28) "," ENTRY("layers.0.gate_proj.weight", "F32", "[1,1,2]", 28, 36) ","
      ENTRY("layers.0.up_proj.weight", "F32", "[1,1,2]", 36, 44) "," ENTRY("layers.0.down_proj.weight", "F32", "[1,2,1]", 44, 52) "}", 52, NULL },
    { "{" REST "}", 56, "[weights-format]: norm_f.weight: its data starts at 16, a hole of 16 bytes before it" },
    { "{" EMBED "," NORM_F "," NORM "," GATE "," UP "}", 48, "[weights-missing]: layers.0.down_proj.weight is missing, expected shape [1,2,1]" },
    { "{" EMBED "," REST "," ENTRY("lm_head.weight", "F32", "[2]", 56, 64) "}", 64, "[weights-extra]: lm_head.weight: F32[2] is not a tensor of this graph" },
    { "{" EMBED "," REST "," ENTRY("step", "I64", "[]", 56, 64) "}", 64, "[weights-extra]: step: I64[] is not a tensor of this graph" },
    { "{" ENTRY("embed.weight", "F32", "[4]", 0, 16) "," REST "}", 56, "[weights-shape]: embed.weight: found shape [4], expected [2,2]" },
    { "{" EMBED "," NORM_F "," NORM "," ENTRY("layers.0.gate_proj.weight", "F32", "[1,2]", 32, 40) "," UP "," DOWN "}", 56,
      "note: the expert axis is there even with one expert" },
    { "{" ENTRY("embed.weight", "I32", "[2,2]", 0, 16) "," REST "}", 56, "[weights-dtype]: embed.weight: found dtype I32, expected one of F32, BF16, F16" },
    { "{" ENTRY("embed.weight", "f32", "[2,2]", 0, 16) "," REST "}", 56, "[weights-dtype]: embed.weight: found dtype f32" },
    { "{" ENTRY("embed.weight", "F32", "[2,2]", 0, 12) "," REST "}", 56, "[weights-format]: embed.weight: data_offsets span 12 bytes, F32[2,2] needs 16" },
    { "{" ENTRY("embed.weight", "F32", "[4294967296,4294967296,4]", 0, 16) "," REST "}", 56, "needs more than 9223372036854775807" },
    { "{" ENTRY("embed.weight", "F32", "[2,2]", 16, 0) "," REST "}", 56, "[weights-format]: embed.weight: data_offsets [16,0] outside the 56 bytes of data" },
    { "{" EMBED "," REST "}", 55, "[weights-format]: truncated: 55 bytes of data, the header describes 56" },
    { "{" EMBED "," REST "}", 57, "[weights-format]: 1 bytes of data after the last tensor; is the file complete?" },
    { "{" EMBED "," NORM_F "," ENTRY("layers.0.norm.weight", "F32", "[2]", 20, 28) "," GATE "," UP "," DOWN "}", 56,
      "[weights-format]: layers.0.norm.weight: its data starts at 20 and overlaps norm_f.weight, which ends at 24" },
    { "{" EMBED "," EMBED "," REST "}", 56, "[json-duplicate]: key \"embed.weight\" appears twice" },
    { "{\"embed.weight\":3," REST "}", 56, "[weights-format]: embed.weight: its header entry is not an object" },
    { "{\"embed.weight\":{\"dtype\":\"F32\",\"shape\":[2,2]}," REST "}", 56, "its header entry has no \"data_offsets\"" },
    { "{\"embed.weight\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16],\"x\":1}," REST "}", 56, "unknown key \"x\" in its header entry" },
    { "{\"embed.weight\":{\"dtype\":1,\"shape\":[2,2],\"data_offsets\":[0,16]}," REST "}", 56, "\"dtype\" is not a string" },
    { "{" ENTRY("embed.weight", "F32", "4", 0, 16) "," REST "}", 56, "\"shape\" is not an array" },
    { "{" ENTRY("embed.weight", "F32", "[2,-2]", 0, 16) "," REST "}", 56, "\"shape\" holds something else than whole numbers" },
    { "{" ENTRY("embed.weight", "F32", "[2,2.5]", 0, 16) "," REST "}", 56, "\"shape\" holds something else than whole numbers" },
    { "{" ENTRY("embed.weight", "F32", "[1,1,1,1,1,1,1,2,2]", 0, 16) "," REST "}", 56, "more than 8 dimensions" },
    { "{" ENTRY("embed.weight", "F32", "[2,2]", -1, 15) "," REST "}", 56, "\"data_offsets\" is not two whole numbers" },
    { "{\"embed.weight\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0]}," REST "}", 56, "\"data_offsets\" is not two whole numbers" },
    { "{\"__metadata__\":[]," EMBED "," REST "}", 56, "[weights-format]: __metadata__ is not an object" },
    { "{\"__metadata__\":{\"a\":1}," EMBED "," REST "}", 56, "[weights-format]: __metadata__ holds something else than strings" },
    { "[]", 0, "[weights-format]: the header is not a JSON object" },
    { "{", 0, " (header):1:2: error[json-syntax]" },
    { "", 0, "[json-syntax]: no JSON value" },
    { "{}", 0, "[weights-missing]: embed.weight is missing, expected shape [2,2]" },
};

static void expect_open(Case *c, const char *source, const char *expected)
{
    Weights *weights = weights_open(c->arena, c->diags, c->graph, source);
    Text text = { 0 };
    text_append(&text, "", 0);
    diags_print(c->diags, &text);
    CU_ASSERT_EQUAL(weights != NULL, expected == NULL);
    CU_ASSERT_EQUAL(weights == NULL, diags_failed(c->diags));
    bool good = expected ? strstr(text.data, expected) != NULL : text.len == 0;
    CU_ASSERT(good);
    if (!good)
        printf("--- expected\n%s\n--- found\n%s", expected ? expected : "(accepted)", text.data);
    text_free(&text);
    weights_close(weights);
}

static void test_bad_headers(void)
{
    static const unsigned char data[64];
    for (size_t i = 0; i < sizeof bad_files / sizeof bad_files[0]; i++) {
        Case c = case_new(small_text);
        Text bytes = { 0 };
        safetensors_put(&bytes, bad_files[i].header, data, bad_files[i].data_len);
        CU_ASSERT(safetensors_save(c.path, &bytes));
        expect_open(&c, c.path, bad_files[i].expected);
        text_free(&bytes);
        case_free(&c);
    }
}

static void test_bad_lengths(void)
{
    static const struct { const char *bytes; size_t len; const char *expected; } rows[] = {
        { "", 0, "0 bytes are too few for a safetensors file" },
        { "\2\0\0\0\0\0\0", 7, "7 bytes are too few" },
        { "\2\0\0\0\0\0\0\0{", 9, "the header should have 2 bytes, the file ends after 1" },
        { "PK\3\4abcdefgh", 12, "not a safetensors file: a header of " },
        { "\1\341\365\5\0\0\0\0{}", 10, "a header of 100000001 bytes, at most 100000000 are allowed" },
        { "\377\377\377\377\377\377\377\377{}", 10, "a header of 18446744073709551615 bytes" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        Case c = case_new(small_text);
        Text bytes = { 0 };
        text_append(&bytes, rows[i].bytes, rows[i].len);
        CU_ASSERT(safetensors_save(c.path, &bytes));
        expect_open(&c, c.path, rows[i].expected);
        CU_ASSERT_EQUAL(diags_exit_code(c.diags), 1);
        text_free(&bytes);
        case_free(&c);
    }
}

static void test_bad_sources(void)
{
    static const struct { const char *source, *expected; int exit_code; } rows[] = {
        { "/nonexistent/w.safetensors", "cannot read the weights: No such file or directory", 3 },
        { "/tmp", "cannot read the weights: Is a directory", 3 },
        { "random:", "\"random:\": expected random: and a decimal seed", 2 },
        { "random:-1", "expected random:", 2 },
        { "random:1x", "expected random:", 2 },
        { "random: 1", "expected random:", 2 },
        { "random:18446744073709551616", "expected random:", 2 },
        { "random:18446744073709551615", NULL, 0 },
        { "random:0", NULL, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        Case c = case_new(small_text);
        expect_open(&c, rows[i].source, rows[i].expected);
        CU_ASSERT_EQUAL(diags_exit_code(c.diags), rows[i].exit_code);
        case_free(&c);
    }
}

static void test_value_error(void)
{
    Case c = case_new(graph_text);
    Weights *weights = weights_open(c.arena, c.diags, c.graph, "random:1");
    int t = weights_find(weights, "layers.0.in_proj.weight");   /* [3,16,4] */
    weights_value_error(weights, c.diags, t, 1 * 64 + 2 * 4 + 3, NAN);
    Text text = { 0 };
    diags_print(c.diags, &text);
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "error[weights-value]: layers.0.in_proj.weight: found nan at [1,2,3], "
                                             "expected a finite number"));
    weights_value_error(weights, c.diags, t, 0, -600);
    diags_print(c.diags, &text);
    CU_ASSERT_PTR_NOT_NULL(strstr(text.data, "found -600 at [0,0,0], expected at most 512: this target sums products in float16"));
    text_free(&text);
    case_free(&c);
}

/* --- random weights --- */

typedef struct { const char *name; double mean, deviation, least, most; } Shape;

static void check_distribution(const Weights *weights, const Shape *shape)
{
    int t = weights_find(weights, shape->name);
    CU_ASSERT_FATAL(t >= 0);
    int64_t n = tensor_spec_count(weights_spec(weights, t));
    float *out = calloc((size_t)n, sizeof *out);
    weights_read(weights, t, 0, n, out);
    double sum = 0, squares = 0, least = INFINITY, most = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        sum += out[i];
        least = fmin(least, out[i]);
        most = fmax(most, out[i]);
    }
    for (int64_t i = 0; i < n; i++)
        squares += (out[i] - sum / (double)n) * (out[i] - sum / (double)n);
    double deviation = sqrt(squares / (double)n);
    bool good = fabs(sum / (double)n - shape->mean) <= 5 * shape->deviation / sqrt((double)n) + 1e-12
             && fabs(deviation - shape->deviation) <= 5 * shape->deviation / sqrt((double)n) + 1e-12
             && least >= shape->least && most <= shape->most;
    CU_ASSERT(good);
    if (!good)
        printf("%s: mean %g deviation %g in [%g, %g]\n", shape->name, sum / (double)n, deviation, least, most);
    free(out);
}

static void test_random_distributions(void)
{
    static const char text[] = "{\"format\":\"mossnet-graph/1\",\"vocab_size\":1000,\"d_model\":64,\"experts\":8,"
                               "\"layers\":[{\"op\":\"mamba\"},{\"op\":\"attention\",\"heads\":4},{\"op\":\"mlp\",\"d_ff\":48}]}";
    const double third = sqrt(3), in = sqrt(64), inner = sqrt(128), bf16 = 1 + 0x1p-8;
    const Shape shapes[] = {
        { "embed.weight", 0, 1 / in, -third / in * bf16, third / in * bf16 },
        { "lm_head.weight", 0, 1 / in, -third / in * bf16, third / in * bf16 },
        { "layers.0.in_proj.weight", 0, 1 / in, -third / in * bf16, third / in * bf16 },
        { "layers.0.out_proj.weight", 0, 1 / inner, -third / inner * bf16, third / inner * bf16 },
        { "layers.0.dt_proj.weight", 0, 0.5, -third / 2 * bf16, third / 2 * bf16 },
        { "layers.0.in_router.weight", 0, 2 / in, -2 * third / in, 2 * third / in },
        { "layers.0.ssm_router.weight", 0, 2 / inner, -2 * third / inner, 2 * third / inner },
        { "layers.2.router.weight", 0, 2 / in, -2 * third / in, 2 * third / in },
        { "layers.0.conv1d.weight", 0, 0.5 / third, -0.5, 0.5 },
        { "layers.0.conv1d.bias", 0, 0, 0, 0 },
        { "layers.0.dt_proj.bias", -3.4, 1.2 / third, -4.6001, -2.1999 },
        { "layers.0.D", 1, 0, 1, 1 },
        { "layers.0.norm.weight", 1, 0, 1, 1 },
        { "norm_f.weight", 1, 0, 1, 1 },
        { "layers.1.q_proj.weight", 0, 1 / in, -third / in * bf16, third / in * bf16 },
    };
    Case c = case_new(text);
    Weights *weights = weights_open(c.arena, c.diags, c.graph, "random:7");
    CU_ASSERT_PTR_NOT_NULL_FATAL(weights);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        check_distribution(weights, &shapes[i]);
    float a_log[3 * 16];
    weights_read(weights, weights_find(weights, "layers.0.A_log"), 16 + 5, 40, a_log);
    int n_bad = 0;
    for (int i = 0; i < 40; i++)
        n_bad += a_log[i] != (float)log((5 + i) % 16 + 1);
    CU_ASSERT_EQUAL(n_bad, 0);
    case_free(&c);
}

/* Matrices are declared bf16, so their values must be; the pieces of a tensor join seamlessly. */
static void test_random_pieces(void)
{
    Case c = case_new(graph_text);
    Weights *weights = weights_open(c.arena, c.diags, c.graph, "random:3");
    int n_bad = 0;
    for (int t = 0; t < weights_count(weights); t++) {
        const TensorSpec *spec = weights_spec(weights, t);
        int64_t n = tensor_spec_count(spec);
        float whole[512], piece[512];
        CU_ASSERT_FATAL(n <= 512);
        weights_read(weights, t, 0, n, whole);
        n_bad += weights_dtype(weights, t) != (spec->matrix ? DTYPE_BF16 : DTYPE_F32);
        for (int64_t i = 0; i < n && spec->matrix; i++)
            n_bad += dtype_bf16_to_f32(dtype_f32_to_bf16(whole[i])) != whole[i];
        for (int64_t begin = 0; begin < n; begin++) {
            int64_t len = (begin * 7) % (n - begin) + 1;
            weights_read(weights, t, begin, len, piece);
            n_bad += memcmp(piece, whole + begin, (size_t)len * sizeof *piece) != 0;
        }
    }
    CU_ASSERT_EQUAL(n_bad, 0);
    case_free(&c);
}

static uint64_t digest(const char *source)
{
    Case c = case_new(graph_text);
    Weights *weights = weights_open(c.arena, c.diags, c.graph, source);
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int t = 0; t < weights_count(weights); t++) {
        float out[512];
        int64_t n = tensor_spec_count(weights_spec(weights, t));
        weights_read(weights, t, 0, n, out);
        for (size_t i = 0; i < (size_t)n * sizeof *out; i++)
            hash = (hash ^ ((unsigned char *)out)[i]) * UINT64_C(0x100000001b3);
    }
    case_free(&c);
    return hash;
}

static void test_random_is_fixed(void)
{
    static const struct { const char *source; uint64_t hash; } rows[] = {
        { "random:0", UINT64_C(0xebcb12094285eff3) },
        { "random:1", UINT64_C(0xf273d95fc166926f) },
        { "random:18446744073709551615", UINT64_C(0x6082e175676799a) },
    };
    for (int i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(digest(rows[i].source), rows[i].hash);
        if (digest(rows[i].source) != rows[i].hash)
            printf("%s: 0x%llx\n", rows[i].source, (unsigned long long)digest(rows[i].source));
    }
}

static const UnitTest tests[] = {
    { "round trip", test_round_trip },
    { "every 16-bit pattern", test_every_pattern },
    { "headers", test_bad_headers },
    { "lengths", test_bad_lengths },
    { "sources", test_bad_sources },
    { "non-finite values", test_value_error },
    { "random distributions", test_random_distributions },
    { "random pieces", test_random_pieces },
    { "random weights are fixed", test_random_is_fixed },
};
UNIT_MAIN("weights", tests)
