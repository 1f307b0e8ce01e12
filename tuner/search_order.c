/* Search order: by cost, learned or not, shuffled or as they are, and what other machines liked before all. */
#include "search_order.h"

#include "cost.h"
#include "search_learn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const order_texts[N_ORDERS] = { "model", "random", "grid", "learned" };
const char *search_order_text(SearchOrder order) { return order_texts[order]; }

bool search_order_from_text(const char *text, SearchOrder *order)
{
    for (int i = 0; i < N_ORDERS; i++)
        if (strcmp(text, order_texts[i]) == 0)
            return *order = (SearchOrder)i, true;
    return false;
}

typedef struct { double cost; int index; } CostedPoint;

static int by_cost(const void *a, const void *b)
{
    const CostedPoint *x = a, *y = b;
    return x->cost != y->cost ? (x->cost > y->cost) - (x->cost < y->cost) : x->index - y->index;
}

static uint64_t next_random(uint64_t *state)
{
    *state += 0x9E3779B97F4A7C15u;
    uint64_t z = *state;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static uint64_t hash_text(const char *text)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 0x100000001B3u;
    return hash;
}

static bool equal_points(const SearchSpace *space, const SpacePoint *a, const SpacePoint *b)
{
    for (int i = 0; i < space->n; i++)
        if (a->value[i] != b->value[i])
            return false;
    return true;
}

/* Points that other devices liked, brought to the front. Never taken untested: they are only tried early. */
static bool move_hints(SearchRun *run, SearchState *s)
{
    const char **hints;
    int n;
    if (!records_hints(run->records, run->arena, run->diags, &s->key, &hints, &n))
        return false;
    int front = 0;
    for (int h = 0; h < n; h++) {
        SpacePoint point;
        if (!space_read(&s->job->space, hints[h], &point))
            continue;
        for (int i = front; i < s->job->n_points; i++)
            if (equal_points(&s->job->space, &s->job->points[s->order[i]], &point)) {
                int found = s->order[i];
                memmove(s->order + front + 1, s->order + front, (size_t)(i - front) * sizeof *s->order);
                s->order[front++] = found;
                break;
            }
    }
    return true;
}

/* Logarithms of what the cost model says. */
static double log_cost(const SearchState *s, int point)
{
    const Job *job = s->job;
    return log((s->costs ? s->costs[point] : cost_of_point(job, &job->points[point], job->tokens[0])) + 1e-9);
}

bool search_order_points(SearchRun *run, SearchState *s)
{
    const int n = s->job->n_points;
    const bool by_model = run->order == ORDER_MODEL || run->order == ORDER_LEARNED;
    uint64_t random = hash_text(s->job->key) ^ (uint64_t)run->journal.seed * 0x9E3779B97F4A7C15u;
    CostedPoint *costed = arena_array(run->arena, CostedPoint, (size_t)n + 1);
    double *costs = arena_array(run->arena, double, (size_t)n + 1);
    s->order = arena_array(run->arena, int, (size_t)n + 1);
    for (int i = 0; i < n; i++)
        costs[i] = by_model ? log_cost(s, i) : run->order == ORDER_RANDOM ? (double)(next_random(&random) >> 11) : i;
    if (run->order == ORDER_LEARNED && !search_learn(run, s, costs))
        return false;
    for (int i = 0; i < n; i++)
        costed[i] = (CostedPoint){ costs[i], i };
    qsort(costed, (size_t)n, sizeof *costed, by_cost);
    for (int i = 0; i < n; i++)
        s->order[i] = costed[i].index;
    return !by_model || move_hints(run, s);
}
