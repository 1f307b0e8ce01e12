/* The stand-in model; see fake_program.h. Built with FAKE_EMBEDDED, FAKE_VOCAB, FAKE_FEATURES or
 * FAKE_FULL_ATTENTION it becomes other artifacts for the command-line tests; run with
 * FAKE_WEIGHTS_TO=FILE in the environment it writes its weights there and ends. */
#define moss_program_data fake_declared_const   /* as program.h does; tests change it */
#include "fake_program.h"
#undef moss_program_data

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef FAKE_VOCAB
#define FAKE_VOCAB 256
#endif
#ifndef FAKE_FEATURES
#define FAKE_FEATURES ""
#endif
#ifndef FAKE_FULL_ATTENTION
#define FAKE_FULL_ATTENTION 0
#endif

enum { FAKE_FIXED_LEN = 16, FAKE_TOKEN_LEN = 8, FAKE_HASH = 0x5EED };

static moss_forward_fn fake_prefill, fake_decode;

static const moss_code fake_code = { "test", FAKE_FEATURES, fake_prefill, fake_decode };

moss_program moss_program_data = {
    .abi = MOSS_ABI, .name = "fake \"model\"", .target = "test", .features = FAKE_FEATURES,
    .quant = "f32", .manifest = "{\"name\": \"fake\"}", .vocab_size = FAKE_VOCAB, .n_modes = 2,
    .mode_top_k = { 2, 3 }, .chunk = FAKE_CHUNK, .full_attention = FAKE_FULL_ATTENTION,
    .model_hash = FAKE_HASH, .state_hash = FAKE_HASH, .weights_len = FAKE_DATA_LEN, .state_fixed_len = FAKE_FIXED_LEN,
    .state_token_len = FAKE_FULL_ATTENTION ? FAKE_TOKEN_LEN : 0,
    .shared_len = MOSS_ALIGN * FAKE_CHUNK, .private_len = MOSS_ALIGN,
    .token_flops = { 20, 30 }, .token_bytes = { 200, 300 },
    .codes = (const moss_code *const[]){ &fake_code }, .n_codes = 1,
};

static fake_log fake_log_data;

moss_program *fake_program(void) { return &moss_program_data; }
fake_log *fake_calls(void) { return &fake_log_data; }

void fake_weights_make(uint8_t block[FAKE_FILE_LEN])
{
    moss_weights_header header = {
        .magic = MOSS_WEIGHTS_MAGIC, .abi = MOSS_ABI, .model_hash = FAKE_HASH,
        .data_len = FAKE_DATA_LEN, .name = "fake",
    };
    memset(block, 0, MOSS_WEIGHTS_HEADER_LEN);
    for (int i = 0; i < FAKE_DATA_LEN; i++)
        block[MOSS_WEIGHTS_HEADER_LEN + i] = (uint8_t)(i * 7 + i / 256);
    header.checksum = moss_checksum(block + MOSS_WEIGHTS_HEADER_LEN, FAKE_DATA_LEN);
    memcpy(block, &header, sizeof header);
}

static uint64_t fake_mix(uint64_t x)
{
    x *= 0x9E3779B97F4A7C15u;
    return x ^ x >> 29;
}

static void fake_note(const moss_run *run, int decode)
{
    fake_log *log = &fake_log_data;
    if (log->n < FAKE_MAX_CALLS)
        log->call[log->n] = (fake_call){ run->n_tokens, run->n_logits, run->positions[0], decode };
    log->n++;
}

/* State: running hash, tokens seen; then, with full attention, the hash after each token. */
static void fake_fold(const moss_run *run, int32_t sequence)
{
    const int32_t length = run->n_tokens / run->n_sequences;
    uint64_t *state = (void *)run->states[sequence];
    uint64_t *terms = (uint64_t *)(void *)run->shared + sequence * length, seen = state[1];
    if (seen != (uint64_t)run->positions[sequence])
        abort();
    for (int32_t i = 0; i < length; i++, seen++) {
        if (moss_program_data.full_attention) {
            if ((int64_t)seen >= run->n_context)
                abort();
            state[2 + seen] = terms[i];
        }
        state[0] = terms[i] = fake_mix(state[0] + terms[i] + seen);
    }
    state[1] = seen;
}

static void fake_forward(const moss_run *run, int thread, int decode)
{
    uint64_t *terms = (void *)run->shared;   /* [n_tokens] */
    uint64_t *own = (void *)(run->private_scratch + (size_t)thread * moss_program_data.private_len);
    const int32_t vocab_size = moss_program_data.vocab_size;
    if (thread == 0)
        fake_note(run, decode);
    *own = (uint64_t)moss_program_data.mode_top_k[run->mode];
    for (int32_t i = thread; i < run->n_tokens; i += run->n_threads)
        terms[i] = *own * (1 + run->weights[run->tokens[i] % FAKE_DATA_LEN]);
    moss_barrier_wait(run->barrier);
    if (thread == 0)
        for (int32_t s = 0; s < run->n_sequences; s++)
            fake_fold(run, s);
    moss_barrier_wait(run->barrier);
    for (int32_t i = 0; i < run->n_logits; i++) {
        const uint64_t hash = terms[run->n_tokens - run->n_logits + i];
        for (int32_t v = thread; v < vocab_size; v += run->n_threads)
            run->logits[(ptrdiff_t)i * vocab_size + v]
                = (float)(fake_mix(hash + (uint64_t)v) >> 40) / (1 << 22);
    }
}

static void fake_prefill(const moss_run *run, int thread) { fake_forward(run, thread, 0); }
static void fake_decode(const moss_run *run, int thread) { fake_forward(run, thread, 1); }

__attribute__((constructor)) static void fake_start(void)
{
    static _Alignas(4096) uint8_t block[FAKE_FILE_LEN];
    const char *path = getenv("FAKE_WEIGHTS_TO");
    fake_weights_make(block);
    moss_program_data.weights_checksum = ((moss_weights_header *)(void *)block)->checksum;
#ifdef FAKE_EMBEDDED
    moss_program_data.embedded_weights = block;
#endif
    if (!path)
        return;
    FILE *file = fopen(path, "wb");
    const int ok = file && fwrite(block, sizeof block, 1, file) == 1 && fclose(file) == 0;
    _Exit(ok ? 0 : 1);
}
