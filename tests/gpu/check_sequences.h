/* Rows of one call that belong to several sequences: where each one's end. Cases say how many: of=N. */
#ifndef MOSS_TESTS_GPU_CHECK_SEQUENCES_H
#define MOSS_TESTS_GPU_CHECK_SEQUENCES_H

#include "check.h"

typedef struct { int n; int32_t *ends; } CheckSequences;     /* ends NULL: every row is a sequence */

/* n_rows rows in of >= 1 sequences of uneven lengths, one row at least. */
static CheckSequences check_sequences(int n_rows, bool every_row)
{
    CheckSequences s = { every_row ? n_rows : check_param("of"), NULL };
    if (every_row)
        return s;
    s.ends = check_buffer(sizeof *s.ends * (size_t)s.n);
    for (int i = 0, begin = 0; i < s.n; begin = s.ends[i++]) {
        const int most = n_rows - begin - (s.n - 1 - i);
        s.ends[i] = i == s.n - 1 ? n_rows : begin + 1 + check_random_below(i % 2 ? most : (most + 3) / 4);
    }
    check_freeze(s.ends);
    return s;
}

static inline int check_begin(CheckSequences s, int i) { return !s.ends ? i : i ? s.ends[i - 1] : 0; }
static inline int check_len(CheckSequences s, int i) { return !s.ends ? 1 : s.ends[i] - check_begin(s, i); }

#endif
