/* Ranking: which point of a key is the fastest, from trials that were each measured against an incumbent.
 *
 * Incumbents change while a search goes on, so a ratio to one says nothing alone. Every right trial is one
 * equation, log(time of point) - log(time of incumbent) = median of the logs of its sample ratios; the least
 * squares of all of them, weighted by samples, give each point a time relative to the default.
 * To its estimate a point gets 2.5 standard errors of the machine's noise over its samples: few lucky samples
 * must not beat many good ones. Points with a wrong result, a crash or a hang in any trial are out.
 * The order of trials does not matter, to the last bit.
 */
#ifndef MOSSC_TUNER_RECORDS_RANK_H
#define MOSSC_TUNER_RECORDS_RANK_H

#include "records.h"

typedef struct {
    const char *point;
    bool measured, excluded;     /* has it an OK trial of its own; may it not win? */
    bool is_default;             /* at most one is */
    int64_t first_alone;         /* ordinal of its first trial against itself; INT64_MAX: none */
    int n_pairs;                 /* samples taken beside an incumbent's */
    double seconds;              /* median of its own samples; 0: none */
    double relative;             /* time over the default's, as estimated */
    double margin;               /* factor added for noise, at least 1 */
} RankedPoint;

/* Points of trials that have one key, by text. `best` and `origin` (the default, or what stands for it) are
 * indices; -1: none. */
typedef struct { RankedPoint *points; int n, best, origin; } Ranking;
Ranking records_rank(Arena *arena, const Trial *const *trials, int n);

/* Median of n values, which it sorts; 0 of none. */
double rank_median(double *values, int n);
/* Of a trial with as many incumbent samples as its own: median of the ratios; else the ratio of the medians. */
double rank_ratio(Arena *arena, const Trial *trial);

/* The same as records_best, of trials at hand that have one key. */
RecordBest records_best_of(Arena *arena, const Trial *const *trials, int n);

/* Trials by key and id, and how many of them, from the first, have one key (n at least 1). */
const Trial **records_by_key(Arena *arena, const Trial *trials, int n);
int records_same_key(const Trial *const *trials, int n);
int record_keys_compare(const RecordKey *a, const RecordKey *b);

#endif
