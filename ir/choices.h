/* Choices: what tuning decided, kernel by kernel.
 *
 * A key (kernel_key.h makes it) names an operation with its shapes and storage types, or the model; under
 * it stand named whole numbers, the parameters that codegen/templates/space.def declares. Input of the
 * planner; what is not there, or no Choices at all (NULL), is the default. Invariant: a key is there once.
 */
#ifndef MOSSC_IR_CHOICES_H
#define MOSSC_IR_CHOICES_H

#include "arena.h"

#include <stdint.h>

enum { CHOICES_MAX_VALUES = 16 };
typedef struct { const char *name; int64_t value; } Choice;
typedef struct { const char *key; int n; Choice at[CHOICES_MAX_VALUES]; } KeyChoices;
typedef struct { Arena *arena; KeyChoices *keys; int n, max; } Choices;

Choices *choices_new(Arena *arena);
/* Replaces an earlier value of the name. */
void choices_set(Choices *choices, const char *key, const char *name, int64_t value);
/* What is chosen, or `absent`. */
int64_t choices_get(const Choices *choices, const char *key, const char *name, int64_t absent);
/* All that stands under a key; NULL: nothing. */
const KeyChoices *choices_find(const Choices *choices, const char *key);
/* Forget a key. */
void choices_drop(Choices *choices, const char *key);
Choices *choices_copy(Arena *arena, const Choices *choices);

#endif
