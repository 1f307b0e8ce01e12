/* Closest: the name that a misspelt word probably meant. */
#ifndef MOSSC_COMPILER_CLOSEST_H
#define MOSSC_COMPILER_CLOSEST_H

/* One of `choices`, or NULL where none is close. */
const char *closest_name(const char *word, const char *const *choices, int n_choices);

/* "; did you mean `NAME`?", or "" where none is close. */
enum { CLOSEST_HINT_LEN = 64 };
const char *closest_hint(char hint[CLOSEST_HINT_LEN], const char *word, const char *const *choices, int n_choices);

#endif
