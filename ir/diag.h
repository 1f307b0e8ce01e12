/* Diagnostics: collected, with their place, printed together.
 *
 * The user's mistakes are collected (20 at most, then "too many errors") so that one run shows
 * them all; the environment's failures carry errno's or the tool's own words; a bug of mossc
 * itself goes through BUG (text.h) instead. diag_exit_code gives what main returns:
 * 0 ok, 1 the input is wrong, 2 usage, 3 the environment.
 */
#ifndef MOSSC_IR_DIAG_H
#define MOSSC_IR_DIAG_H

#include "arena.h"
#include "text.h"

#include <stdbool.h>

enum { DIAG_MAX_ERRORS = 20 };

typedef enum {
#define DIAG(id, ...) DIAG_##id,
#include "diag.def"
#undef DIAG
    N_DIAGS
} DiagId;

/* Where in a source text: line and column count from 1, column in bytes. */
typedef struct {
    const char *file;      /* NULL: no place */
    int line, col;         /* line 0: the whole file */
    const char *pointer;   /* JSON pointer, or NULL */
    const char *text;      /* the whole source text, for the excerpt; or NULL */
} Place;

typedef struct Diags Diags;

Diags *diags_new(Arena *arena);

/* Report one diagnostic. `at` may be NULL. The message is one line without a full stop:
 * what was found and what was expected. */
void diag_report(Diags *diags, DiagId id, const Place *at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* A note that belongs to the last diagnostic. */
void diag_note(Diags *diags, const Place *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

bool diags_failed(const Diags *diags);        /* any error so far */
bool diags_full(const Diags *diags);          /* the limit is reached: stop looking */
int diags_exit_code(const Diags *diags);      /* of the worst error; 0 without one */
void diags_print(const Diags *diags, Text *out);   /* all of them, in order, with excerpts */
const char *diag_code(DiagId id);             /* "graph-top-k" */

#endif
