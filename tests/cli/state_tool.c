/* A model's state, written and gone on with: one program for each target that is to share states.
 *
 *   state_tool write|read STATE WEIGHTS PROMPT N
 * write: read all of PROMPT but its last byte, save the state in STATE; read: take the state from there. Both then
 * go on with the last byte and print the N likeliest bytes that follow, one after the other.
 */
#include MODEL_HEADER

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int status, const moss_error *error)
{
    if (status == MOSS_OK)
        return;
    fprintf(stderr, "%s\n", error->message);
    exit(1);
}

static void *block(size_t len)
{
    void *memory = aligned_alloc(64, (len + 63) / 64 * 64);
    if (!memory)
        exit(3);
    return memory;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    const int writes = strcmp(argv[1], "write") == 0, n_prompt = (int)strlen(argv[4]), n = atoi(argv[5]);
    const size_t vocab_size = (size_t)moss_vocab_size(), state_len = moss_state_len(0);
    moss_error error;
    moss_model *model = block(moss_model_len());
    moss_context *context = block(moss_context_len(1));
    moss_state *state = block(state_len);
    float *logits = block(vocab_size * sizeof *logits);
    int32_t tokens[4096];
    check(moss_model_open(model, argv[3], 1, &error), &error);
    check(moss_context_init(context, model, 1, NULL, &error), &error);
    for (int i = 0; i < n_prompt && i < 4096; i++)
        tokens[i] = (unsigned char)argv[4][i];
    if (writes) {
        check(moss_state_init(state, 0, &error), &error);
        check(moss_eval(context, state, 0, 0, tokens, n_prompt - 1, logits, 1, &error), &error);
    }
    FILE *file = fopen(argv[2], writes ? "wb" : "rb");
    const size_t n_done = !file ? 0 : writes ? fwrite(state, state_len, 1, file) : fread(state, state_len, 1, file);
    if (n_done != 1 || fclose(file) != 0)
        return perror(argv[2]), 3;
    check(moss_state_check(state, state_len, &error), &error);
    int32_t next = tokens[n_prompt - 1];
    for (int i = 0; i < n; i++) {
        check(moss_eval(context, state, 0, 0, &next, 1, logits, 1, &error), &error);
        next = 0;
        for (int32_t t = 1; t < (int32_t)vocab_size; t++)
            next = logits[t] > logits[next] ? t : next;
        putchar((char)next);
    }
    moss_context_deinit(context);
    moss_model_close(model);
    free(model), free(context), free(state), free(logits);
    return 0;
}
