/* Prompts and texts as tokens.
 *
 * Input: text, a file or a list of ids. Output: token ids, malloc'd, at least one.
 * Only byte models take text; no other tokenizer is built in.
 */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int moss_tokens_alloc(moss_tokens *tokens, const moss_args *args, size_t n)
{
    if (n == 0 || n > INT32_MAX)
        return moss_cli_fail(args, MOSS_EXIT_INPUT, "found %zu tokens, expected 1 to %d", n,
                             INT32_MAX);
    tokens->n = (int32_t)n;
    tokens->ids = malloc(n * sizeof *tokens->ids);
    if (!tokens->ids)
        return moss_cli_fail(args, MOSS_EXIT_SYSTEM, "cannot get memory for %zu tokens", n);
    return MOSS_EXIT_OK;
}

static int moss_tokens_from_bytes(moss_tokens *tokens, const moss_args *args, const char *bytes,
                                  size_t len)
{
    int code = moss_tokens_alloc(tokens, args, len);
    for (size_t i = 0; code == MOSS_EXIT_OK && i < len; i++)
        tokens->ids[i] = (unsigned char)bytes[i];
    return code;
}

static int moss_tokens_from_list(moss_tokens *tokens, const moss_args *args, const char *list)
{
    const int32_t n = moss_args_ints(list, NULL, 0);
    int code = moss_tokens_alloc(tokens, args, (size_t)n);
    if (code == MOSS_EXIT_OK)
        moss_args_ints(list, tokens->ids, n);
    for (int32_t i = 0; code == MOSS_EXIT_OK && i < n; i++)
        if (tokens->ids[i] >= moss_program_data.vocab_size)
            code = moss_cli_fail(args, MOSS_EXIT_INPUT, "--tokens: found %d, expected 0 to %d",
                                 tokens->ids[i], moss_program_data.vocab_size - 1);
    return code;
}

/* All of a stream, growing; works for pipes too. */
static char *moss_stream_read(FILE *stream, size_t *len)
{
    char *bytes = NULL;
    size_t room = 0;
    for (*len = 0;;) {
        if (*len == room) {
            room = room ? 2 * room : 1 << 16;
            char *grown = realloc(bytes, room);
            if (!grown)
                break;
            bytes = grown;
        }
        size_t n = fread(bytes + *len, 1, room - *len, stream);
        *len += n;
        if (n == 0 && !ferror(stream))
            return bytes;
        if (n == 0)
            break;
    }
    free(bytes);
    return NULL;
}

static int moss_tokens_from_file(moss_tokens *tokens, const moss_args *args, const char *path)
{
    size_t len = 0;
    FILE *stream = fopen(path, "rbe");
    if (!stream)
        return moss_cli_fail(args, MOSS_EXIT_SYSTEM, "%s: cannot open: %s", path, strerror(errno));
    char *bytes = moss_stream_read(stream, &len);
    int failed = errno;
    fclose(stream);
    if (!bytes)
        return moss_cli_fail(args, MOSS_EXIT_SYSTEM, "%s: cannot read: %s", path, strerror(failed));
    int code = len ? moss_tokens_from_bytes(tokens, args, bytes, len)
                   : moss_cli_fail(args, MOSS_EXIT_INPUT, "%s: empty, expected a text", path);
    free(bytes);
    return code;
}

/* `text` and `file` are the options that may hold each; `standard`: the text without any. */
int moss_tokens_read(moss_tokens *tokens, const moss_args *args, moss_option text, moss_option file,
                     const char *standard)
{
    const moss_value *values = args->values;
    memset(tokens, 0, sizeof *tokens);
    if (values[MOSS_OPT_TOKENS].given)
        return moss_tokens_from_list(tokens, args, values[MOSS_OPT_TOKENS].text);
    if (moss_program_data.vocab_size != MOSS_BYTE_VOCAB)
        return moss_cli_fail(args, MOSS_EXIT_INPUT,
            "this model has no tokenizer built in (%d tokens, not the 256 of a byte model); "
            "expected --tokens 1,2,3", moss_program_data.vocab_size);
    if (values[file].given)
        return moss_tokens_from_file(tokens, args, values[file].text);
    const char *found = values[text].given ? values[text].text : standard;
    if (!*found)
        return moss_cli_fail(args, MOSS_EXIT_INPUT, "the prompt is empty, expected some text");
    return moss_tokens_from_bytes(tokens, args, found, strlen(found));
}
