/* Golden folders: listing them and reading their tokens.
 *
 * Input: paths. Output: arena strings and arrays. Invariant: the order is that of strcmp, so runs
 * do not depend on the file system.
 */
#include "golden.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int count_entries(DIR *dir)
{
    int n = 0;
    while (readdir(dir))
        n++;
    rewinddir(dir);
    return n;
}

int golden_list(Arena *arena, const char *path, const char ***names)
{
    DIR *dir = opendir(path);
    if (!dir)
        return 0;
    int most = count_entries(dir), n = 0;
    *names = arena_array(arena, const char *, (size_t)most);
    for (struct dirent *entry; n < most && (entry = readdir(dir)); ) {
        const char *graph = arena_printf(arena, "%s/%s/graph.json", path, entry->d_name);
        if (entry->d_name[0] != '.' && access(graph, R_OK) == 0)
            (*names)[n++] = arena_strdup(arena, entry->d_name);
    }
    closedir(dir);
    qsort(*names, (size_t)n, sizeof **names, compare_names);
    return n;
}

/* One id and the comma after it, if any; false when there is neither. */
static bool read_token(FILE *file, int32_t *token, bool *more)
{
    long value;
    if (fscanf(file, "%ld", &value) != 1 || value < 0 || value > INT32_MAX)
        return false;
    *token = (int32_t)value;
    int next = getc(file);
    while (next == ' ' || next == '\n' || next == '\r')
        next = getc(file);
    *more = next == ',';
    return *more || next == EOF;
}

int32_t *golden_tokens(Arena *arena, const char *path, int *n_tokens)
{
    enum { MOST = 1 << 16 };
    FILE *file = fopen(path, "r");
    if (!file)
        return NULL;
    int32_t *tokens = arena_array(arena, int32_t, MOST);
    bool ok = true, more = true;
    for (*n_tokens = 0; ok && more; (*n_tokens)++)
        ok = *n_tokens < MOST && read_token(file, &tokens[*n_tokens], &more);
    fclose(file);
    return ok ? tokens : NULL;
}
