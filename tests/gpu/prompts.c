/* Sequences together against the same ones apart, on a library compiled for a GPU: prompts in one call and alone, then
 * single tokens of all and of two at a time. (Of one, layers in a row are one launch, which adds up in another order.)
 *
 *   prompts LIBRARY [N]     N: sequences (16), an even number. Exit code: 0 all rows and states are equal bit by bit,
 *                           1 some are not, 3 the environment.
 *
 * No piece has a single token: those go another way, which rounds otherwise.
 */
#include "../../runtime/moss.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_N = 16, PAIR = 2, N_CONTEXT = 64, MORE = 2, STEPS = 3, MOST = 20 };
static const int32_t lens[MAX_N] = { 9, 20, 5, 18, 2, 14, 16, 3, 11, 8, 15, 19, 4, 6, 13, 10 }, chunks[] = { 0, 16 };

typedef struct {
    __typeof__(moss_vocab_size) *vocab_size;
    __typeof__(moss_model_len) *model_len;
    __typeof__(moss_model_open_sized) *model_open_sized;
    __typeof__(moss_model_close) *model_close;
    __typeof__(moss_context_len) *context_len;
    __typeof__(moss_context_init) *context_init;
    __typeof__(moss_context_deinit) *context_deinit;
    __typeof__(moss_state_len) *state_len;
    __typeof__(moss_state_init) *state_init;
    __typeof__(moss_state_sync) *state_sync;
    __typeof__(moss_eval) *eval;
    __typeof__(moss_eval_prompts) *eval_prompts;
    __typeof__(moss_eval_batch) *eval_batch;
} Api;

static Api api;
static moss_context *context;
static int32_t n_sequences = MAX_N, vocab_size, n_wrong;

static void *find(void *library, const char *name)
{
    void *function = dlsym(library, name);
    if (!function)
        fprintf(stderr, "%s\n", dlerror()), exit(3);
    return function;
}

static void *block(size_t len) { return aligned_alloc(64, (len + 63) / 64 * 64); }

static void check(int status, const moss_error *error)
{
    if (status != MOSS_OK)
        fprintf(stderr, "%s\n", error->message), exit(3);
}

static moss_state *new_state(void)
{
    moss_error error;
    moss_state *state = block(api.state_len(N_CONTEXT));
    check(api.state_init(state, N_CONTEXT, &error), &error);
    return state;
}

static void compare(const char *what, int32_t chunk, int i, const void *a, const void *b, size_t len)
{
    if (memcmp(a, b, len) == 0)
        return;
    fprintf(stderr, "chunk %d, sequence %d: %s differ\n", chunk, i, what);
    n_wrong++;
}

/* One round of prompts for states that are equal in pairs. */
static void check_round(moss_state **together, moss_state **alone, int32_t chunk, const int32_t *round_lens,
    int32_t seed)
{
    int32_t tokens[MAX_N * MOST], n = 0;
    float *rows = block((size_t)(n_sequences * vocab_size) * sizeof *rows);
    float *row = block((size_t)vocab_size * sizeof *row);
    moss_error error;
    for (int i = 0; i < n_sequences; i++)
        for (int32_t t = 0; t < round_lens[i]; t++)
            tokens[n++] = (seed + i * 13 + t * 7) % vocab_size;
    check(api.eval_prompts(context, together, n_sequences, 0, chunk, tokens, round_lens, rows, &error), &error);
    for (int i = 0, at = 0; i < n_sequences; at += round_lens[i++]) {
        check(api.eval(context, alone[i], 0, chunk, tokens + at, round_lens[i], row, 1, &error), &error);
        compare("logits", chunk, i, rows + (size_t)i * (size_t)vocab_size, row, (size_t)vocab_size * sizeof *row);
    }
    free(rows);
    free(row);
}

static void check_steps(moss_state **together, moss_state **apart)
{
    const size_t row_len = (size_t)vocab_size * sizeof(float);
    float *rows = block((size_t)n_sequences * row_len), *pair = block(PAIR * row_len);
    moss_error error;
    for (int32_t step = 0; step < STEPS; step++) {
        int32_t tokens[MAX_N];
        for (int i = 0; i < n_sequences; i++)
            tokens[i] = (3 + i * 13 + step * 7) % vocab_size;
        check(api.eval_batch(context, together, n_sequences, 0, tokens, rows, &error), &error);
        for (int i = 0; i < n_sequences; i += PAIR) {
            check(api.eval_batch(context, apart + i, PAIR, 0, tokens + i, pair, &error), &error);
            compare("logits of a step", 0, i, rows + (size_t)i * (size_t)vocab_size, pair, PAIR * row_len);
        }
    }
    free(rows);
    free(pair);
}

static void check_chunk(int32_t chunk)
{
    int32_t more[MAX_N];
    moss_state *together[MAX_N], *alone[MAX_N];
    moss_error error;
    for (int i = 0; i < n_sequences; i++) {
        more[i] = MORE;
        together[i] = new_state();
        alone[i] = new_state();
    }
    check_round(together, alone, chunk, lens, 1);
    check_round(together, alone, chunk, more, 5);
    check_steps(together, alone);
    for (int i = 0; i < n_sequences; i++) {
        check(api.state_sync(context, together[i], &error), &error);
        check(api.state_sync(context, alone[i], &error), &error);
        compare("states", chunk, i, together[i], alone[i], api.state_len(N_CONTEXT));
        free(together[i]);
        free(alone[i]);
    }
}

int main(int argc, char **argv)
{
    void *library = argc == 2 || argc == 3 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!library)
        return fprintf(stderr, "%s\n", argc == 2 || argc == 3 ? dlerror() : "usage: prompts LIBRARY [N]"), 3;
    if (argc == 3)
        n_sequences = atoi(argv[2]);
    if (n_sequences < PAIR || n_sequences > MAX_N || n_sequences % PAIR)
        return fprintf(stderr, "found %d sequences, expected 2, 4 to %d\n", n_sequences, MAX_N), 3;
#define FIND(name) *(void **)&api.name = find(library, "moss_" #name)
    FIND(vocab_size), FIND(model_len), FIND(model_open_sized), FIND(model_close), FIND(context_len), FIND(context_init);
    FIND(context_deinit), FIND(state_len), FIND(state_init), FIND(state_sync), FIND(eval), FIND(eval_prompts);
    FIND(eval_batch);
    moss_error error;
    moss_model *model = block(api.model_len());
    check(api.model_open_sized(model, NULL, 1, 2 * n_sequences, N_CONTEXT, &error), &error);
    context = block(api.context_len(1));
    check(api.context_init(context, model, 1, NULL, &error), &error);
    vocab_size = api.vocab_size();
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
        check_chunk(chunks[i]);
    api.context_deinit(context);
    api.model_close(model);
    printf("prompts: %d sequences together, %d differences\n", n_sequences, n_wrong);
    return n_wrong ? 1 : 0;
}
