/* The closest name: by the letters that differ, else by what a word is part of. */
#include "closest.h"

#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Levenshtein's distance, case set aside, of words of less than `MAX_WORD` bytes. */
enum { MAX_WORD = 32 };
static int word_distance(const char *a, const char *b)
{
    int row[MAX_WORD + 1], n_b = (int)strlen(b);
    for (int j = 0; j <= n_b; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int corner = row[0];
        row[0] = i;
        for (int j = 1; j <= n_b; j++) {
            int same = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
            int best = corner + !same;
            corner = row[j];
            best = best < row[j] + 1 ? best : row[j] + 1;
            best = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n_b];
}

const char *closest_name(const char *word, const char *const *choices, int n_choices)
{
    const char *close = NULL;
    size_t len = strlen(word);
    if (len >= MAX_WORD)
        return NULL;
    int limit = len < 5 ? 1 : 1 + (int)len / 4, best = limit + 1;
    for (int i = 0; i < n_choices; i++) {
        int distance = strlen(choices[i]) < MAX_WORD ? word_distance(word, choices[i]) : best;
        if (distance < best && (size_t)distance < strlen(choices[i])) {
            best = distance;
            close = choices[i];
        }
    }
    for (int i = 0; i < n_choices && !close && len >= 3; i++)
        if (strstr(choices[i], word))   /* "eps" for "norm_eps" */
            close = choices[i];
    return close;
}

const char *closest_hint(char hint[CLOSEST_HINT_LEN], const char *word, const char *const *choices, int n_choices)
{
    const char *close = closest_name(word, choices, n_choices);
    hint[0] = '\0';
    if (close)
        snprintf(hint, CLOSEST_HINT_LEN, "; did you mean `%s`?", close);
    return hint;
}
