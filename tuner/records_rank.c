/* Ranking: least squares over comparisons, by conjugate gradients. */
#include "records_rank.h"

#include "records_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a point must be better by than chance makes it. */
#define STANDARD_ERRORS 2.5

typedef struct { int point, incumbent; double log_ratio, weight; } Edge;

typedef struct {
    RankedPoint *points;
    int n_points, n_edges;
    Edge *edges;
    int *root;               /* [n_points] the point that stands for what hangs together with it */
    double *log_time;        /* [n_points] */
} Graph;

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double rank_median(double *values, int n)
{
    if (n == 0)
        return 0;
    qsort(values, (size_t)n, sizeof *values, compare_doubles);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static double median_of(Arena *arena, const double *values, int n)
{
    double *copy = arena_array(arena, double, (size_t)n);
    if (n)
        memcpy(copy, values, (size_t)n * sizeof *copy);
    return rank_median(copy, n);
}

static bool is_paired(const Trial *trial) { return trial->n_samples == trial->n_incumbent_samples; }

double rank_ratio(Arena *arena, const Trial *trial)
{
    int n = trial->n_samples;
    if (n == 0 || trial->n_incumbent_samples == 0)
        return 0;
    if (!is_paired(trial))
        return median_of(arena, trial->samples, n)
            / median_of(arena, trial->incumbent_samples, trial->n_incumbent_samples);
    double *ratios = arena_array(arena, double, (size_t)n);
    for (int i = 0; i < n; i++)
        ratios[i] = trial->samples[i] / trial->incumbent_samples[i];
    return rank_median(ratios, n);
}

/* ---- points and edges, in an order of their own ---- */

static int compare_points(const void *a, const void *b)
{
    return strcmp(((const RankedPoint *)a)->point, ((const RankedPoint *)b)->point);
}

static int find_point(const Graph *graph, const char *point)
{
    RankedPoint wanted = { .point = point };
    const RankedPoint *found = bsearch(&wanted, graph->points, (size_t)graph->n_points, sizeof wanted, compare_points);
    return found ? (int)(found - graph->points) : -1;
}

static void collect_points(Arena *arena, Graph *graph, const Trial *const *trials, int n)
{
    graph->points = arena_array(arena, RankedPoint, 2 * (size_t)n);
    for (int i = 0; i < n; i++) {
        graph->points[graph->n_points++].point = trials[i]->point;
        if (*trials[i]->incumbent)
            graph->points[graph->n_points++].point = trials[i]->incumbent;
    }
    if (graph->n_points)
        qsort(graph->points, (size_t)graph->n_points, sizeof *graph->points, compare_points);
    int kept = 0;
    for (int i = 0; i < graph->n_points; i++)
        if (i == 0 || compare_points(&graph->points[kept - 1], &graph->points[i]) != 0)
            graph->points[kept++] = (RankedPoint){ .point = graph->points[i].point, .first_alone = INT64_MAX };
    graph->n_points = kept;
}

static int compare_edges(const void *a, const void *b)
{
    const Edge *x = a, *y = b;
    if (x->point != y->point || x->incumbent != y->incumbent)
        return x->point != y->point ? x->point - y->point : x->incumbent - y->incumbent;
    int order = compare_doubles(&x->log_ratio, &y->log_ratio);
    return order ? order : compare_doubles(&x->weight, &y->weight);
}

/* Trials say what their points are; those that were right, how they compare. */
static void collect_edges(Arena *arena, Graph *graph, const Trial *const *trials, int n)
{
    graph->edges = arena_array(arena, Edge, (size_t)n);
    for (int i = 0; i < n; i++) {
        const Trial *trial = trials[i];
        int point = find_point(graph, trial->point), incumbent = find_point(graph, trial->incumbent);
        RankedPoint *own = &graph->points[point];
        own->excluded |= trial->status == TRIAL_WRONG || trial->status == TRIAL_CRASHED || trial->status == TRIAL_HUNG;
        if (point == incumbent && trial->ordinal < own->first_alone)
            own->first_alone = trial->ordinal;
        own->measured |= trial->status == TRIAL_OK;
        if (trial->status != TRIAL_OK || incumbent < 0 || point == incumbent || trial->n_incumbent_samples == 0)
            continue;
        int pairs = trial->n_samples < trial->n_incumbent_samples ? trial->n_samples : trial->n_incumbent_samples;
        own->n_pairs += pairs;
        graph->edges[graph->n_edges++] = (Edge){ point, incumbent, log(rank_ratio(arena, trial)), pairs };
    }
    if (graph->n_edges)
        qsort(graph->edges, (size_t)graph->n_edges, sizeof *graph->edges, compare_edges);
}

/* Medians of each point's own samples. */
static void collect_seconds(Arena *arena, Graph *graph, const Trial *const *trials, int n)
{
    int *counts = arena_array(arena, int, (size_t)graph->n_points);
    double **samples = arena_array(arena, double *, (size_t)graph->n_points);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; pass && i < graph->n_points; i++) {
            samples[i] = arena_array(arena, double, (size_t)counts[i]);
            counts[i] = 0;
        }
        for (int i = 0; i < n; i++) {
            int point = find_point(graph, trials[i]->point);
            if (trials[i]->status != TRIAL_OK)
                continue;
            if (pass)
                memcpy(samples[point] + counts[point], trials[i]->samples,
                       (size_t)trials[i]->n_samples * sizeof(double));
            counts[point] += trials[i]->n_samples;
        }
    }
    for (int i = 0; i < graph->n_points; i++)
        graph->points[i].seconds = rank_median(samples[i], counts[i]);
}

/* ---- what hangs together ---- */

/* As a root, is point a better than b? What was compared with itself first, then the first by text. */
static bool is_better_root(const Graph *graph, int a, int b)
{
    int64_t x = graph->points[a].first_alone, y = graph->points[b].first_alone;
    return x != y ? x < y : a < b;
}

static void find_roots(Arena *arena, Graph *graph)
{
    graph->root = arena_array(arena, int, (size_t)graph->n_points);
    for (int i = 0; i < graph->n_points; i++)
        graph->root[i] = i;
    for (bool changed = true; changed;) {
        changed = false;
        for (int i = 0; i < graph->n_edges; i++) {
            int a = graph->root[graph->edges[i].point], b = graph->root[graph->edges[i].incumbent];
            if (a == b)
                continue;
            int winner = is_better_root(graph, a, b) ? a : b, loser = winner == a ? b : a;
            for (int p = 0; p < graph->n_points; p++)
                if (graph->root[p] == loser)
                    graph->root[p] = winner;
            changed = true;
        }
    }
}

static int find_origin(const Graph *graph)
{
    int origin = -1;
    for (int i = 0; i < graph->n_points; i++)
        if (graph->points[i].measured && (origin < 0 || is_better_root(graph, i, origin)))
            origin = i;
    return origin;
}

/* ---- least squares ---- */

/* out = A x of the normal equations, where roots are held at 0 */
static void apply(const Graph *graph, const double *x, double *out)
{
    memset(out, 0, (size_t)graph->n_points * sizeof *out);
    for (int i = 0; i < graph->n_edges; i++) {
        const Edge *e = &graph->edges[i];
        double flow = e->weight * (x[e->point] - x[e->incumbent]);
        out[e->point] += flow;
        out[e->incumbent] -= flow;
    }
    for (int i = 0; i < graph->n_points; i++)
        if (graph->root[i] == i)
            out[i] = 0;
}

static double dot(const double *a, const double *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void solve(Arena *arena, Graph *graph)
{
    int n = graph->n_points;
    double *x = arena_array(arena, double, (size_t)n), *r = arena_array(arena, double, (size_t)n);
    double *z = arena_array(arena, double, (size_t)n), *p = arena_array(arena, double, (size_t)n);
    double *ap = arena_array(arena, double, (size_t)n), *degree = arena_array(arena, double, (size_t)n);
    graph->log_time = x;
    for (int i = 0; i < graph->n_edges; i++) {
        const Edge *e = &graph->edges[i];
        degree[e->point] += e->weight;
        degree[e->incumbent] += e->weight;
        r[e->point] += e->weight * e->log_ratio;
        r[e->incumbent] -= e->weight * e->log_ratio;
    }
    for (int i = 0; i < n; i++) {
        if (graph->root[i] == i)
            r[i] = 0;
        z[i] = p[i] = degree[i] > 0 ? r[i] / degree[i] : 0;
    }
    double rz = dot(r, z, n), enough = rz * 1e-28;
    for (int step = 0; step < 4 * n + 16 && rz > enough; step++) {
        apply(graph, p, ap);
        double alpha = rz / dot(p, ap, n);
        for (int i = 0; i < n; i++) {
            x[i] += alpha * p[i];
            r[i] -= alpha * ap[i];
            z[i] = degree[i] > 0 ? r[i] / degree[i] : 0;
        }
        double next = dot(r, z, n), beta = next / rz;
        for (int i = 0; i < n; i++)
            p[i] = z[i] + beta * p[i];
        rz = next;
    }
}

/* Standard deviation of the log of one sample ratio: from the median of what each differs from its trial's. */
static double noise(Arena *arena, const Trial *const *trials, int n)
{
    int n_values = 0, at = 0;
    for (int i = 0; i < n; i++)
        n_values += trials[i]->status == TRIAL_OK && is_paired(trials[i]) ? trials[i]->n_samples : 0;
    double *values = arena_array(arena, double, (size_t)n_values);
    for (int i = 0; i < n; i++) {
        const Trial *trial = trials[i];
        if (trial->status != TRIAL_OK || !is_paired(trial))
            continue;
        double middle = log(rank_ratio(arena, trial));
        for (int s = 0; s < trial->n_samples; s++)
            values[at++] = fabs(log(trial->samples[s] / trial->incumbent_samples[s]) - middle);
    }
    return 1.4826 * rank_median(values, n_values);
}

/* ---- the ranking ---- */

/* Parts that were never compared with the origin are placed by their roots' seconds. */
static double place_of(const Graph *graph, int point, int origin)
{
    const RankedPoint *root = &graph->points[graph->root[point]], *from = &graph->points[origin];
    double apart = graph->root[point] != origin && root->seconds > 0 && from->seconds > 0
        ? log(root->seconds / from->seconds) : 0;
    return graph->log_time[point] + apart;
}

static int find_best(const Ranking *ranking)
{
    int best = -1;
    double least = INFINITY;
    for (int i = 0; i < ranking->n; i++) {
        const RankedPoint *p = &ranking->points[i];
        double score = p->relative * p->margin;
        if (p->measured && !p->excluded && score < least) {
            best = i;
            least = score;
        }
    }
    return best;
}

Ranking records_rank(Arena *arena, const Trial *const *trials, int n)
{
    Graph graph = { 0 };
    collect_points(arena, &graph, trials, n);
    collect_edges(arena, &graph, trials, n);
    collect_seconds(arena, &graph, trials, n);
    find_roots(arena, &graph);
    solve(arena, &graph);
    Ranking ranking = { graph.points, graph.n_points, -1, find_origin(&graph) };
    if (ranking.origin < 0)
        return ranking;
    double sigma = noise(arena, trials, n);
    ranking.points[ranking.origin].is_default = ranking.points[ranking.origin].first_alone != INT64_MAX;
    for (int i = 0; i < ranking.n; i++) {
        RankedPoint *p = &ranking.points[i];
        p->relative = exp(place_of(&graph, i, ranking.origin));
        p->margin = i == ranking.origin ? 1 : exp(STANDARD_ERRORS * 1.2533 * sigma / sqrt(p->n_pairs ? p->n_pairs : 1));
    }
    ranking.best = find_best(&ranking);
    return ranking;
}

/* ---- questions ---- */

RecordBest records_best_of(Arena *arena, const Trial *const *trials, int n)
{
    Ranking ranking = records_rank(arena, trials, n);
    RecordBest best = { .n_trials = n, .speedup = 1 };
    for (int i = 0; i < n; i++)
        best.n_ok += trials[i]->status == TRIAL_OK;
    const RankedPoint *origin = ranking.origin < 0 ? NULL : &ranking.points[ranking.origin];
    if (origin && origin->is_default) {
        best.default_point = origin->point;
        best.default_seconds = origin->seconds;
    }
    if (ranking.best >= 0) {
        const RankedPoint *point = &ranking.points[ranking.best];
        best.point = point->point;
        best.speedup = best.default_point ? 1 / point->relative : 1;
        best.seconds = best.default_point ? best.default_seconds / best.speedup : point->seconds;
    }
    return best;
}

static const Trial **pointers(Arena *arena, const Trial *trials, int n)
{
    const Trial **list = arena_array(arena, const Trial *, (size_t)n);
    for (int i = 0; i < n; i++)
        list[i] = &trials[i];
    return list;
}

bool records_best(Records *records, Arena *arena, Diags *diags, const RecordKey *key, RecordBest *best)
{
    Trial *trials;
    int n;
    RecordsFilter filter = { .key = *key };
    if (!records_list(records, arena, diags, &filter, &trials, &n))
        return false;
    *best = records_best_of(arena, pointers(arena, trials, n), n);
    return true;
}

/* ---- hints ---- */

typedef struct { const char *point; bool same_features; double speedup; } Hint;

static int compare_hints(const void *a, const void *b)
{
    const Hint *x = a, *y = b;
    if (x->same_features != y->same_features)
        return x->same_features ? -1 : 1;
    if (x->speedup != y->speedup)
        return x->speedup > y->speedup ? -1 : 1;
    return strcmp(x->point, y->point);
}

int record_keys_compare(const RecordKey *a, const RecordKey *b)
{
    const char *const x[] = { a->kernel, a->shape, a->dtypes, a->features, a->device, a->toolchain, a->template_hash };
    const char *const y[] = { b->kernel, b->shape, b->dtypes, b->features, b->device, b->toolchain, b->template_hash };
    int order = 0;
    for (size_t i = 0; i < sizeof x / sizeof *x && order == 0; i++)
        order = strcmp(x[i], y[i]);
    return order;
}

static int compare_trials(const void *a, const void *b)
{
    const Trial *x = *(const Trial *const *)a, *y = *(const Trial *const *)b;
    int order = record_keys_compare(&x->key, &y->key);
    return order ? order : strcmp(x->id, y->id);
}

const Trial **records_by_key(Arena *arena, const Trial *trials, int n)
{
    const Trial **list = pointers(arena, trials, n);
    if (n)
        qsort(list, (size_t)n, sizeof *list, compare_trials);
    return list;
}

int records_same_key(const Trial *const *trials, int n)
{
    int same = 1;
    while (same < n && record_keys_compare(&trials[0]->key, &trials[same]->key) == 0)
        same++;
    return same;
}

bool records_hints(Records *records, Arena *arena, Diags *diags, const RecordKey *key, const char ***points, int *n)
{
    Trial *trials;
    int n_trials, n_hints = 0;
    RecordsFilter filter = { .key = { .kernel = key->kernel, .shape = key->shape, .dtypes = key->dtypes } };
    if (!records_list(records, arena, diags, &filter, &trials, &n_trials))
        return false;
    const Trial **list = records_by_key(arena, trials, n_trials);
    Hint *hints = arena_array(arena, Hint, (size_t)n_trials);
    for (int i = 0, same; i < n_trials; i += same) {
        same = records_same_key(list + i, n_trials - i);
        RecordBest best = records_best_of(arena, list + i, same);
        if (best.point && record_keys_compare(&list[i]->key, key) != 0)
            hints[n_hints++] = (Hint){ best.point, strcmp(list[i]->key.features, key->features) == 0, best.speedup };
    }
    if (n_hints)
        qsort(hints, (size_t)n_hints, sizeof *hints, compare_hints);
    *points = arena_array(arena, const char *, (size_t)n_hints);
    *n = 0;
    for (int i = 0; i < n_hints; i++) {
        bool known = false;
        for (int j = 0; j < *n && !known; j++)
            known = strcmp((*points)[j], hints[i].point) == 0;
        if (!known)
            (*points)[(*n)++] = hints[i].point;
    }
    return true;
}
