/* What an app does with a library for Android: open, prompt, generate, save the state, go on from it.
 *
 *   android_app [WEIGHTS [STATE]]   prints the code that runs, the tokens, and the tokens again from a restored state:
 *                                   that in the file STATE, which is written where there is none
 */
#include "libtiny.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 6, N_CONTEXT = 64, N_THREADS = 3 };

static void check(int status, const moss_error *error)
{
    if (status == MOSS_OK)
        return;
    printf("error %d: %s\n", status, error->message);
    exit(1);
}

static void *block(size_t len) { return aligned_alloc(64, (len + 63) / 64 * 64); }

/* Write `len` bytes to a file that is not there, else read them. */
static void exchange(const char *path, void *bytes, size_t len)
{
    FILE *file = fopen(path, "rb");
    const int there = file != NULL;
    if (!there)
        file = fopen(path, "wb");
    if (!file || (there ? fread(bytes, len, 1, file) : fwrite(bytes, len, 1, file)) != 1 || fclose(file) != 0)
        exit(3);
}

static void generate(moss_context *context, moss_state *state, float *scratch)
{
    moss_error error;
    moss_sampler greedy;
    int32_t next = 7, out[N];
    moss_sampler_init(&greedy, 0, 0, 1, 0, 0);
    check(moss_generate(context, &state, 1, 0, &greedy, &next, out, N, scratch, &error), &error);
    for (int i = 0; i < N; i++)
        printf("%s%d", i ? "," : "", out[i]);
    printf("\n");
}

int main(int argc, char **argv)
{
    static const int32_t prompt[] = { 1, 2, 3, 4, 5, 6 }, cpus[N_THREADS] = { 0, 0, 0 };
    const size_t state_len = moss_state_len(N_CONTEXT);
    moss_error error;
    moss_model *model = block(moss_model_len());
    moss_context *context = block(moss_context_len(N_THREADS));
    moss_state *state = block(state_len), *saved = block(state_len);
    float *scratch = block(3 * sizeof(float) * (size_t)moss_vocab_size());
    check(moss_model_open(model, argc > 1 ? argv[1] : NULL, 1, &error), &error);
    check(moss_context_init(context, model, N_THREADS, cpus, &error), &error);
    check(moss_state_init(state, N_CONTEXT, &error), &error);
    printf("%s\n", moss_model_device(model));
    check(moss_eval(context, state, 0, 0, prompt, sizeof prompt / sizeof *prompt, NULL, 0, &error), &error);
    memcpy(saved, state, state_len);
    generate(context, state, scratch);
    if (argc > 2)
        exchange(argv[2], saved, state_len);
    check(moss_state_check(saved, state_len, &error), &error);
    generate(context, saved, scratch);
    moss_context_deinit(context);
    moss_model_close(model);
    return 0;
}
