/* A stand-in for generated code: a tiny model whose every logit depends on all tokens before.
 *
 * Each thread computes its share of the tokens, thread 0 folds them into a running hash, all
 * write their share of the logits; barriers in between, as generated code does. Its program data
 * can be changed by tests, and it notes how it was called.
 */
#ifndef FAKE_PROGRAM_H
#define FAKE_PROGRAM_H

#include "program.h"

#include <stddef.h>
#include <stdint.h>

enum {
    FAKE_CHUNK = 8, FAKE_MAX_CALLS = 64,
    FAKE_DATA_LEN = 3000,   /* no multiple of the checksum's 32 bytes */
    FAKE_FILE_LEN = MOSS_WEIGHTS_HEADER_LEN + FAKE_DATA_LEN,
};

typedef struct { int32_t n_tokens, n_logits; int64_t position; int decode; } fake_call;
typedef struct { int n; fake_call call[FAKE_MAX_CALLS]; } fake_log;

moss_program *fake_program(void);              /* the program data, writable */
fake_log *fake_calls(void);
void fake_weights_make(uint8_t block[FAKE_FILE_LEN]);

#endif
