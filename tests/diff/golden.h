/* Golden folders: graph.json, weights.safetensors, tokens.txt and logits_k<K>.f32 side by side.
 *
 * Input: a directory of such folders. Output: their names in order, and token ids.
 */
#ifndef MOSSC_TESTS_GOLDEN_H
#define MOSSC_TESTS_GOLDEN_H

#include "../../ir/arena.h"

#include <stdint.h>

/* The folders of `dir`, sorted; 0 when there is none or `dir` cannot be read. */
int golden_list(Arena *arena, const char *dir, const char ***names);
/* Comma-separated ids; NULL when the file cannot be read or holds anything else. */
int32_t *golden_tokens(Arena *arena, const char *path, int *n_tokens);

#endif
