/* Databases for tests: random trials that overlap between databases, and searches that look like real ones. */
#ifndef MOSSC_TESTS_RECORDS_MAKE_H
#define MOSSC_TESTS_RECORDS_MAKE_H

#include "../../tuner/records.h"

uint64_t make_draw(uint64_t *state, uint64_t n);      /* 0 to n - 1 */
double make_normal(uint64_t *state);

/* Trial number `which` of an endless list: the same number gives the same trial, whatever was drawn before. Few keys
 * and points, so that there is something to rank; every status; text with quotes, commas and other letters. */
Trial make_trial(Arena *arena, uint64_t which);
/* Trials [first, first + n) of that list in an order of `seed`'s, and a journal. False: something was reported. */
bool make_random(Arena *arena, Diags *diags, const char *path, uint64_t first, int n, uint64_t seed);

/* What tuning a model on two machines leaves: default first, then points against a changing incumbent, with noise,
 * failures and early stops. `features` and hashes are this mossc's, so that nothing is stale; `stale`: one
 * kernel is. */
bool make_searches(Arena *arena, Diags *diags, const char *path, uint64_t seed, int n_points, bool stale);
/* The same on a GPU, whose kernels lie decades apart. */
bool make_gpu_search(Arena *arena, Diags *diags, const char *path, uint64_t seed, int n_points);

#endif
