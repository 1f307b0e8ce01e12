/* Library: what `--emit lib` makes, loaded and called through libffi by the manifest it holds. */
#ifndef MOSSC_TUNER_LIBRARY_H
#define MOSSC_TUNER_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Library Library;
typedef union { void *pointer; int32_t i32; int64_t i64; size_t size; } LibraryValue;

/* NULL with words in `why`. */
Library *library_load(const char *path, char *why, size_t why_len);
/* Calls a function by its name without the prefix, with as many arguments as the manifest lists. Its result as a whole
 * number; `ok` false: there is no such function, or it takes another number of arguments. */
int64_t library_call(Library *library, const char *name, const LibraryValue *arguments, int n, bool *ok);

#endif
