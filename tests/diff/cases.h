/* Cases of the differential test: graphs, weights and tokens.
 *
 * Input: a seed and how many random graphs are wanted; a directory of golden folders. Output: a
 * list of cases: first the ones made for one reason each, then the random ones, then the golden.
 * Invariant: case i of a seed is the same on every machine and whatever else is asked for.
 */
#ifndef MOSSC_TESTS_CASES_H
#define MOSSC_TESTS_CASES_H

#include "../../ir/arena.h"

#include <stdint.h>

/* How random weights are changed before both sides read them from a file. */
typedef enum {
    DRAW_PLAIN,      /* not at all: both sides open `weights` itself */
    DRAW_VECTORS,    /* norms, biases, D and A_log drawn too, so that none is a constant */
    DRAW_TWINS,      /* and router rows equal in pairs (0 = 1, 2 = 3, ...): ties for every token */
    DRAW_EQUAL,      /* and all router rows equal: every expert has the same probability */
} Draw;

typedef struct {
    const char *name;
    const char *graph_path;   /* a file, or NULL: graph_text */
    const char *graph_text;
    const char *weights;      /* "random:SEED" or a file */
    Draw draw;
    uint64_t seed;            /* of what is drawn for it later */
    int n_tokens;
    int32_t *tokens;          /* [n_tokens]; may be replaced one by one, see settle.h */
} Case;

/* A stream of numbers: splitmix64. */
typedef struct { uint64_t state; } Stream;

uint64_t stream_next(Stream *stream);
int stream_below(Stream *stream, int n);         /* uniform in [0, n) */
double stream_uniform(Stream *stream);           /* uniform in [-1, 1) */

/* `golden_dir` NULL: no golden cases. -1 when it is given and holds none. */
int cases_make(Arena *arena, uint64_t seed, int n_random, const char *golden_dir, Case **cases);
/* One case: a graph from a file, with random weights. -1, and why on stderr, when it cannot be read. */
int cases_of_graph(Arena *arena, uint64_t seed, const char *path, Case **cases);

#endif
