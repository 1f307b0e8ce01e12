/* What the tests of the GPU runtime share: a model with a context on the stand-in GPU, states, tokens and hashes.
 *
 * Functions assert that what they do succeeds unless they return a status.
 */
#ifndef GPU_FIXTURE_H
#define GPU_FIXTURE_H

#include "fake_gpu.h"
#include "gpu.h"

enum { MAX_TOKENS = 40, N_STATES = 5 };

typedef struct {
    moss_model *model;
    moss_context *context;
    moss_error error;
} Fixture;

void *block_new(size_t len);
int fixture_open(Fixture *fixture, int32_t n_states, int64_t n_context);
void fixture_close(Fixture *fixture);        /* whatever was made must be gone */
moss_state *state_new(int64_t n_context);
moss_state *state_copy(const moss_state *state);
void make_tokens(int32_t tokens[MAX_TOKENS]);
bool words_in(const moss_error *error, const char *words);

/* The first n tokens of make_tokens() go through a new state; their hash. */
uint64_t feed(Fixture *fixture, moss_state *state, int32_t n);
/* One more token: its logits must be those of `hash` after `seen` tokens. */
int goes_on(Fixture *fixture, moss_state *state, uint64_t hash, int64_t seen, int32_t token);

#endif
