/* A compiled model from C: read a prompt, save the state, write text, go back to what was saved and write it again. */
#include "libshakespeare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_TEXT = 300 };

static void check(int status, const moss_error *error)
{
    if (status == MOSS_OK)
        return;
    fprintf(stderr, "%s\n", error->message);
    exit(1);
}

/* All memory is ours, aligned to 64 bytes. */
static void *block(size_t len)
{
    void *memory = aligned_alloc(64, (len + 63) / 64 * 64);
    if (!memory)
        exit(3);
    return memory;
}

int main(int argc, char **argv)
{
    const char *prompt = argc > 1 && *argv[1] ? argv[1] : "ROMEO:";
    const size_t vocab_size = (size_t)moss_vocab_size(), state_len = moss_state_len(0);   /* 0: such a state is endless */
    int32_t tokens[1024], n = 0, next, cpus[4], n_threads = moss_big_cpus(cpus, 4);
    char text[2][N_TEXT + 1] = { { 0 } };
    moss_error error;
    moss_sampler sampler;
    n_threads = n_threads > 4 ? 4 : n_threads;

    /* Ask how much, then begin. A model's weights lie in the library, or beside it. */
    moss_model *model = block(moss_model_len());
    moss_context *context = block(moss_context_len(n_threads));
    moss_state *state = block(state_len), *saved = block(state_len);
    float *logits = block(vocab_size * sizeof *logits), *scratch = block(2 * vocab_size * sizeof *scratch);
    check(moss_model_open(model, NULL, 1, &error), &error);
    check(moss_context_init(context, model, n_threads, cpus, &error), &error);
    check(moss_state_init(state, 0, &error), &error);

    /* The prompt, as fast as can be. A model of 256 tokens reads bytes. */
    for (; prompt[n] && n < 1024; n++)
        tokens[n] = (unsigned char)prompt[n];
    check(moss_eval(context, state, 0, 0, tokens, n, logits, 1, &error), &error);
    memcpy(saved, state, state_len);      /* a state is bytes: copy it, write it to a file, send it */
    float *after_prompt = block(vocab_size * sizeof *after_prompt);
    memcpy(after_prompt, logits, vocab_size * sizeof *logits);

    for (int run = 0; run < 2; run++) {
        moss_sampler_init(&sampler, 0.7f, 40, 0.95f, 0.05f, 1);    /* one seed, one text */
        for (int i = 0; i < N_TEXT; i++) {
            next = moss_sample(&sampler, logits, scratch);
            text[run][i] = (char)next;
            check(moss_eval(context, state, 0, 0, &next, 1, logits, 1, &error), &error);
        }
        memcpy(state, saved, state_len);  /* back to behind the prompt */
        memcpy(logits, after_prompt, vocab_size * sizeof *logits);
        check(moss_state_check(state, state_len, &error), &error);
    }
    printf("%s%s\n\n", prompt, text[0]);
    printf("%d threads, a state of %zu bytes, restored: %s\n", n_threads, state_len,
           strcmp(text[0], text[1]) ? "another text" : "the same text");
    moss_context_deinit(context);
    moss_model_close(model);
    free(model), free(context), free(state), free(saved), free(logits), free(scratch), free(after_prompt);
    return 0;
}
