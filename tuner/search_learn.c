/* Learned order: ridge regression over trials of the same template, storage, machine and compiler.
 *
 * A trial is one equation: log time(point) - log time(incumbent) = w (f(point) - f(incumbent)), with f the logarithms
 * of the parameters' values, from the default on, and their squares. Every shape has the same w: what is learned is
 * that this machine likes tall tiles, say.
 * Invariant: trials of this search, and what came after its first, are left out: a search that goes on finds the order
 * that it began with.
 */
#include "search_learn.h"

#include "records_rank.h"

#include <math.h>
#include <string.h>

enum { MOST_FEATURES = 2 * SPACE_MAX_PARAMS, LEAST_TRIALS = 32, LEAST_SHAPES = 3 };
static const double ridge = 0.3, model_weight = 0.3;

typedef struct { int n; double matrix[MOST_FEATURES][MOST_FEATURES], right[MOST_FEATURES]; } Equations;

/* [2 * space.n] */
static void put_features(const Job *job, const SpacePoint *point, double *features)
{
    for (int i = 0; i < job->space.n; i++) {
        double value = log((point->value[i] + 1.0) / (job->initial.value[i] + 1.0));
        features[2 * i] = value;
        features[2 * i + 1] = value * value;
    }
}

static void add_equation(Equations *e, const double *features, double value)
{
    for (int i = 0; i < e->n; i++) {
        for (int j = 0; j < e->n; j++)
            e->matrix[i][j] += features[i] * features[j];
        e->right[i] += features[i] * value;
    }
}

/* The matrix is positive definite: elimination needs no pivots. */
static void solve(Equations *e, double *weights)
{
    for (int i = 0; i < e->n; i++)
        for (int row = i + 1; row < e->n; row++) {
            const double part = e->matrix[row][i] / e->matrix[i][i];
            for (int column = i; column < e->n; column++)
                e->matrix[row][column] -= part * e->matrix[i][column];
            e->right[row] -= part * e->right[i];
        }
    for (int i = e->n - 1; i >= 0; i--) {
        double rest = e->right[i];
        for (int column = i + 1; column < e->n; column++)
            rest -= e->matrix[i][column] * weights[column];
        weights[i] = rest / e->matrix[i][i];
    }
}

/* False: nothing that can be learned from. */
static bool add_trial(const Job *job, const Trial *t, Equations *e)
{
    SpacePoint point, incumbent;
    double features[MOST_FEATURES], others[MOST_FEATURES];
    TrialPairs pairs = { .n = 0 };
    if (!space_read(&job->space, t->point, &point) || !space_read(&job->space, t->incumbent, &incumbent))
        return false;
    for (; pairs.n < t->n_samples && pairs.n < t->n_incumbent_samples && pairs.n < DECIDE_MOST_PAIRS; pairs.n++) {
        pairs.candidate[pairs.n] = t->samples[pairs.n];
        pairs.incumbent[pairs.n] = t->incumbent_samples[pairs.n];
    }
    if (pairs.n == 0 || strcmp(t->point, t->incumbent) == 0)
        return false;
    put_features(job, &point, features);
    put_features(job, &incumbent, others);
    for (int i = 0; i < e->n; i++)
        features[i] -= others[i];
    add_equation(e, features, log(decide_ratio(pairs.candidate, pairs.incumbent, pairs.n)));
    return true;
}

/* When this search began, by its first trial; INT64_MAX: it has none. */
static int64_t first_time(const SearchRun *run)
{
    int64_t first = INT64_MAX;
    for (int i = 0; i < run->n_old; i++)
        first = run->old[i].unix_ms < first ? run->old[i].unix_ms : first;
    return first;
}

/* The records of this template, by shape. False after reporting. */
static bool gather(SearchRun *run, const SearchState *s, Equations *e, int *n_trials, int *n_shapes)
{
    Trial *trials;
    int n;
    const int64_t first = first_time(run);
    RecordsFilter filter = { .key = s->key, .statuses = 1u << TRIAL_OK | 1u << TRIAL_STOPPED };
    filter.key.shape = NULL;
    if (!records_list(run->records, run->arena, run->diags, &filter, &trials, &n))
        return false;
    const Trial **sorted = n ? records_by_key(run->arena, trials, n) : NULL;
    for (int i = 0; i < n;) {
        const int of_shape = records_same_key(sorted + i, n - i), before = *n_trials;
        for (int end = i + of_shape; i < end; i++)
            if (strcmp(sorted[i]->search, run->journal.id) != 0 && sorted[i]->unix_ms < first)
                *n_trials += add_trial(s->job, sorted[i], e);
        *n_shapes += *n_trials > before;
    }
    return true;
}

bool search_learn(SearchRun *run, const SearchState *s, double *costs)
{
    int n_trials = 0, n_shapes = 0;
    double weights[MOST_FEATURES] = { 0 }, features[MOST_FEATURES];
    Equations e = { .n = 2 * s->job->space.n };
    for (int i = 0; i < e.n; i++)
        e.matrix[i][i] = ridge;
    if (!gather(run, s, &e, &n_trials, &n_shapes))
        return false;
    if (n_trials < LEAST_TRIALS || n_shapes < LEAST_SHAPES)
        return true;
    solve(&e, weights);
    for (int p = 0; p < s->job->n_points; p++) {
        put_features(s->job, &s->job->points[p], features);
        costs[p] *= model_weight;
        for (int i = 0; i < e.n; i++)
            costs[p] += weights[i] * features[i];
    }
    return true;
}
