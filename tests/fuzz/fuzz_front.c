/* Fuzzing of what reads files people hand over: JSON, the graph reader, the safetensors header.
 *
 * Input: with libFuzzer (-DFUZZ_LIBFUZZER -fsanitize=fuzzer) its bytes; else `fuzz_front FOLDER
 * [ITERATIONS [SEED]]` mutates the golden graphs of FOLDER with a seeded generator.
 * Invariant checked: no crash, no leak, no endless work; a refusal always comes with a diagnostic
 * and an acceptance never does; an accepted graph can be counted and its tensors listed.
 */
#include "../../compiler/graph_read.h"
#include "../../compiler/params.h"
#include "../../compiler/safetensors.h"
#include "../../compiler/weights.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool good, const char *what)
{
    if (!good)
        BUG("%s", what);
}

static void print_all(const Diags *diags)
{
    Text text = { 0 };
    diags_print(diags, &text);
    require(diags_failed(diags) == (text.len > 0), "a failure without text, or text without failure");
    require(text.len < 256 << 10, "diagnostics of more than 256 KiB");
    text_free(&text);
}

static void use_graph(Arena *arena, const Graph *graph)
{
    Text text = { 0 };
    if (graph->n_layers <= 64) {   /* enough to be thorough, few enough to be fast */
        params_print(graph, true, &text);
        Weights *weights = weights_open(arena, diags_new(arena), graph, "random:1");
        float out[16];
        for (int t = 0; t < weights_count(weights); t++) {
            int64_t n = tensor_spec_count(weights_spec(weights, t));
            weights_read(weights, t, n > 16 ? n - 16 : 0, n > 16 ? 16 : n, out);
        }
        weights_close(weights);
    }
    for (int mode = 0; mode < graph->n_modes; mode++)
        require(graph_active_params(graph, mode) <= graph_total_params(graph), "more active than total");
    text_free(&text);
}

static void fuzz_graph(const uint8_t *bytes, size_t len)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    const Graph *graph = graph_read_text(arena, diags, "fuzz.json", (const char *)bytes, len);
    require((graph == NULL) == diags_failed(diags), "refused without a diagnostic, or accepted with one");
    print_all(diags);
    if (graph)
        use_graph(arena, graph);
    arena_free(arena);
}

static void fuzz_safetensors(const uint8_t *bytes, size_t len)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    Safetensors file;
    bool good = safetensors_read(arena, diags, "fuzz.safetensors", bytes, len, &file);
    require(good != diags_failed(diags), "refused without a diagnostic, or accepted with one");
    print_all(diags);
    for (int i = 0; good && i < file.n_entries; i++)
        require(safetensors_find(&file, file.entries[i].name) == &file.entries[i], "an entry is not found");
    arena_free(arena);
}

/* The first byte chooses the reader; a safetensors header gets its length in front. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return 0;
    if (bytes[0] == 'S') {
        fuzz_safetensors(bytes + 1, len - 1);
        return 0;
    }
    if (bytes[0] != 'H') {
        fuzz_graph(bytes, len);
        return 0;
    }
    Text file = { 0 };
    uint64_t header_len = len - 1;
    static const char data[64];
    text_append(&file, (const char *)&header_len, sizeof header_len);
    text_append(&file, (const char *)bytes + 1, len - 1);
    text_append(&file, data, sizeof data);
    fuzz_safetensors((const uint8_t *)file.data, file.len);
    text_free(&file);
    return 0;
}

#ifndef FUZZ_LIBFUZZER

static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

enum { MAX_SEEDS = 512, MAX_LEN = 8192 };
typedef struct { Text texts[MAX_SEEDS]; int n; } Corpus;

static const char *const words[] = {
    "0", "-1", "1e9", "1e400", "2147483647", "4096", "1e-45", "null", "\"auto\"", "\"experts\":", "\"top_k\":", "[", "]",
    "{", "}", ",", ":", "\"", "\\u0000", "\\ud800", "\"repeat\":", "\"of\":[", "\"op\":\"attention\"", "\"heads\":",
    "\xff", "\xed\xa0\x80", "\"shape\":[", "\"data_offsets\":[0,16]", "\"dtype\":\"F16\"", "18446744073709551616", "\n",
};

static void splice(Text *text, size_t at, size_t cut, const char *put, size_t put_len)
{
    Text result = { 0 };
    text_append(&result, text->data, at);
    text_append(&result, put, put_len);
    text_append(&result, text->data + at + cut, text->len - at - cut);
    text_free(text);
    *text = result;
}

static void mutate(Text *text, const Corpus *corpus, uint64_t *state)
{
    size_t at = next(state) % (text->len + 1), left = text->len - at;
    size_t cut = left ? next(state) % (left < 24 ? left : 24) : 0;
    const char *word = words[next(state) % (sizeof words / sizeof words[0])];
    const Text *other = &corpus->texts[next(state) % (uint64_t)corpus->n];
    size_t from = next(state) % (other->len + 1), take = next(state) % 64;
    char byte = (char)next(state);
    switch (next(state) % 6) {
    case 0: splice(text, at, cut, "", 0); break;
    case 1: splice(text, at, 0, word, strlen(word)); break;
    case 2: splice(text, at, cut, word, strlen(word)); break;
    case 3: splice(text, at, left ? 1 : 0, &byte, 1); break;
    case 4: splice(text, at, 0, other->data + from, take < other->len - from ? take : other->len - from); break;
    case 5: splice(text, at, left, other->data + from, other->len - from); break;   /* halves of two */
    }
}

static void corpus_add(Corpus *corpus, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || corpus->n == MAX_SEEDS)
        return;
    char bytes[MAX_LEN];
    size_t len = fread(bytes, 1, sizeof bytes, file);
    text_append(&corpus->texts[corpus->n++], bytes, len);
    fclose(file);
}

static void corpus_add_headers(Corpus *corpus)
{
    static const char *const headers[] = {
        ("H{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
         "\"b\":{\"dtype\":\"BF16\",\"shape\":[24],\"data_offsets\":[16,64]}}"),
        "H{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"I8\",\"shape\":[],\"data_offsets\":[0,64]}}",
        "S\2\0\0\0\0\0\0", "S",
    };
    for (size_t copy = 0; copy < 12; copy++)   /* as likely as the many graphs */
        for (size_t i = 0; i < sizeof headers / sizeof headers[0] && corpus->n < MAX_SEEDS; i++)
            text_append(&corpus->texts[corpus->n++], headers[i], strlen(headers[i]));
}

static int is_json(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);
    return len > 5 && strcmp(entry->d_name + len - 5, ".json") == 0;
}

static bool corpus_read(Corpus *corpus, const char *folder)
{
    struct dirent **names;
    int n = scandir(folder, &names, is_json, alphasort);
    for (int i = 0; i < n; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        corpus_add(corpus, path);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    corpus_add_headers(corpus);
    return n > 0;
}

int main(int argc, char **argv)
{
    static Corpus corpus;
    long n_iterations = argc > 2 ? atol(argv[2]) : 20000;
    uint64_t state = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    if (argc < 2 || !corpus_read(&corpus, argv[1])) {
        fprintf(stderr, "usage: fuzz_front FOLDER [ITERATIONS [SEED]]\n");
        return 2;
    }
    for (long i = 0; i < n_iterations; i++) {
        const Text *seed = &corpus.texts[next(&state) % (uint64_t)corpus.n];
        Text text = { 0 };
        text_append(&text, seed->data, seed->len);
        for (uint64_t n = next(&state) % 5; n > 0 && text.len < MAX_LEN; n--)
            mutate(&text, &corpus, &state);
        LLVMFuzzerTestOneInput((const uint8_t *)text.data, text.len);
        text_free(&text);
    }
    for (int i = 0; i < corpus.n; i++)
        text_free(&corpus.texts[i]);
    printf("%ld inputs from %d seeds\n", n_iterations, corpus.n);
    return 0;
}

#endif
