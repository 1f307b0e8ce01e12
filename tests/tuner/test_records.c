/* Records: what goes in comes out; the best of a key; hints; journals; merging as an algebra; pruning. */
#include "records_make.h"

#include "../../tuner/db_prune.h"
#include "../../tuner/records_merge.h"
#include "../../tuner/records_rank.h"
#include "../unit/unit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];
static Arena *arena;
static Diags *diags;

static const char *path_of(const char *name)
{
    const char *path = arena_printf(arena, "%s/%s", folder, name);
    unlink(path);
    return path;
}

static void said_nothing(void)
{
    Text text = { 0 };
    diags_print(diags, &text);
    CU_ASSERT_EQUAL(text.len, 0);
    if (text.len)
        printf("%s", text.data);
    text_free(&text);
}

static Records *fresh(const char *name)
{
    Records *records = records_open(arena, diags, path_of(name), RECORDS_CREATE);
    CU_ASSERT_PTR_NOT_NULL_FATAL(records);
    return records;
}

static const RecordKey key = { "gemm", "n_in=64 t512", "bf16", "x86-64-v3: avx2", "cpu", "gcc 12", "aa" };

/* A trial whose samples are `seconds` beside an incumbent's `other`, n times. */
static void add(Records *records, const char *point, const char *incumbent, double seconds, double other, int n,
                int64_t ordinal)
{
    double samples[64], others[64];
    for (int i = 0; i < n; i++) {
        samples[i] = seconds;
        others[i] = other;
    }
    Trial trial = { .key = key, .point = point, .incumbent = incumbent, .samples = samples, .n_samples = n,
                    .incumbent_samples = others, .n_incumbent_samples = n, .max_error = -1, .ordinal = ordinal };
    CU_ASSERT_TRUE(records_add(records, diags, &trial));
}

static RecordBest best_of(Records *records)
{
    RecordBest best = { 0 };
    CU_ASSERT_TRUE(records_best(records, arena, diags, &key, &best));
    return best;
}

/* All of a database as text: what two equal ones have in common. */
static const char *dump(Records *records)
{
    Summary summary;
    Text text = { 0 };
    CU_ASSERT_TRUE_FATAL(summary_read(records, arena, diags, &summary));
    db_export_json(arena, &summary, &text);
    summary.path = "";
    db_show_json(arena, &summary, &text);
    const char *copy = arena_strdup(arena, text.data);
    text_free(&text);
    return copy;
}

static void same_doubles(const double *a, int n_a, const double *b, int n_b)
{
    CU_ASSERT_EQUAL_FATAL(n_a, n_b);
    CU_ASSERT(n_a == 0 || memcmp(a, b, (size_t)n_a * sizeof *a) == 0);
}

static void test_round_trip(void)
{
    Records *records = fresh("round");
    Trial *found;
    int n, n_seen = 0;
    for (uint64_t i = 0; i < 200; i++) {
        Trial trial = make_trial(arena, i);
        if (i == 0)
            trial.max_error = NAN;
        CU_ASSERT_TRUE(records_add(records, diags, &trial));
        CU_ASSERT_EQUAL(strlen(trial.id), RECORD_ID_LEN);
        bool failed = trial.status != TRIAL_OK && trial.status != TRIAL_STOPPED;
        CU_ASSERT_EQUAL(failed, trial.n_samples == 0);
        RecordsFilter filter = { .key = trial.key, .search = trial.search, .statuses = 1u << trial.status };
        CU_ASSERT_TRUE(records_list(records, arena, diags, &filter, &found, &n));
        for (int j = 0; j < n; j++) {
            if (strcmp(found[j].id, trial.id) != 0)
                continue;
            n_seen++;
            CU_ASSERT_STRING_EQUAL(found[j].point, trial.point);
            CU_ASSERT_STRING_EQUAL(found[j].detail, trial.detail);
            CU_ASSERT_STRING_EQUAL(found[j].key.device, trial.key.device);
            CU_ASSERT_EQUAL(found[j].status, trial.status);
            CU_ASSERT_EQUAL(found[j].unix_ms, trial.unix_ms);
            CU_ASSERT_EQUAL(found[j].max_error, i == 0 ? INFINITY : trial.max_error);
            same_doubles(found[j].samples, found[j].n_samples, trial.samples, trial.n_samples);
            same_doubles(found[j].incumbent_samples, found[j].n_incumbent_samples, trial.incumbent_samples,
                         trial.n_incumbent_samples);
        }
    }
    CU_ASSERT_EQUAL(n_seen, 200);
    for (uint64_t i = 1; i < 200; i++) {      /* once more: nothing is stored twice */
        Trial trial = make_trial(arena, i);
        CU_ASSERT_TRUE(records_add(records, diags, &trial));
    }
    CU_ASSERT_TRUE(records_list(records, arena, diags, NULL, &found, &n));
    CU_ASSERT_EQUAL(n, 200);
    for (int i = 1; i < n; i++) {
        int order = strcmp(found[i - 1].search, found[i].search);
        CU_ASSERT(order < 0 || (order == 0 && found[i - 1].ordinal <= found[i].ordinal));
    }
    records_close(records);
    said_nothing();
}

static void test_points(void)
{
    static const char *const good[] = { "", "a=1", "a=1 b=2", "tail_rows=2 tile_rows=6", "a=1 ab=2" };
    static const char *const bad[] = { "a", "=1", "b=1 a=2", "a=1 a=2", "a=1  b=2", "a=1 ", " a=1", "a=1 b", "ab=1 a=2",
                                       "a=x b=" };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CU_ASSERT_TRUE(record_point_is_sorted(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CU_ASSERT_FALSE(record_point_is_sorted(bad[i]));
}

/* ---- the best ---- */

static void test_best_of_nothing(void)
{
    Records *records = fresh("nothing");
    CU_ASSERT_PTR_NULL(best_of(records).point);
    records_close(records);
}

/* b beat the default by far; c beats b by a little: c is the best, though b's own ratio is smaller. */
static void test_best_follows_incumbents(void)
{
    Records *records = fresh("chain");
    add(records, "p=1", "p=1", 1.0, 1.0, 5, 0);
    add(records, "p=2", "p=1", 0.8, 1.0, 5, 1);
    add(records, "p=3", "p=2", 1.9, 2.0, 5, 2);      /* the machine is half as fast by now */
    RecordBest best = best_of(records);
    CU_ASSERT_STRING_EQUAL(best.point, "p=3");
    CU_ASSERT_STRING_EQUAL(best.default_point, "p=1");
    CU_ASSERT_DOUBLE_EQUAL(best.speedup, 1 / (0.8 * 0.95), 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(best.seconds, 0.76, 1e-12);
    records_close(records);
}

/* A long chain of small steps is solved exactly. */
static void test_best_of_long_chain(void)
{
    Records *records = fresh("long");
    add(records, "p=100", "p=100", 1.0, 1.0, 3, 0);
    for (int i = 1; i <= 150; i++)
        add(records, arena_printf(arena, "p=%d", 100 + i), arena_printf(arena, "p=%d", 99 + i), 0.99, 1.0, 3, i);
    RecordBest best = best_of(records);
    CU_ASSERT_STRING_EQUAL(best.point, "p=250");
    CU_ASSERT_DOUBLE_EQUAL(best.speedup, pow(1 / 0.99, 150), 1e-9);
    records_close(records);
}

static void test_best_keeps_default(void)
{
    Records *records = fresh("default");
    add(records, "p=2", "p=2", 1.0, 1.0, 5, 0);
    add(records, "p=1", "p=2", 1.1, 1.0, 5, 1);
    CU_ASSERT_STRING_EQUAL(best_of(records).point, "p=2");
    CU_ASSERT_EQUAL(best_of(records).speedup, 1);
    add(records, "p=0", "p=2", 1.0, 1.0, 5, 2);      /* as fast to the bit: the first by text */
    CU_ASSERT_STRING_EQUAL(best_of(records).point, "p=0");
    records_close(records);
}

/* One lucky sample does not beat forty good ones; noise is what the samples of all say. */
static void test_best_distrusts_luck(void)
{
    Records *records = fresh("luck");
    uint64_t state = 5;
    double samples[40], others[40];
    Trial trial = { .key = key, .point = "p=1", .incumbent = "p=1", .samples = samples, .incumbent_samples = others,
                    .n_samples = 40, .n_incumbent_samples = 40, .max_error = -1 };
    for (int t = 0; t < 2; t++) {
        for (int i = 0; i < 40; i++) {
            samples[i] = (t ? 0.85 : 1) * exp(0.1 * make_normal(&state));
            others[i] = exp(0.1 * make_normal(&state));
        }
        trial.point = t ? "p=2" : "p=1";
        trial.ordinal = t;
        CU_ASSERT_TRUE(records_add(records, diags, &trial));
    }
    add(records, "p=3", "p=1", 0.8, 1.0, 1, 2);
    CU_ASSERT_STRING_EQUAL(best_of(records).point, "p=2");
    add(records, "p=3", "p=1", 0.8, 1.0, 40, 3);
    CU_ASSERT_STRING_EQUAL(best_of(records).point, "p=3");
    records_close(records);
}

/* A point that was ever wrong, crashed or hung is never the best, however fast and often right. */
static void test_best_is_right(void)
{
    static const TrialStatus out[] = { TRIAL_WRONG, TRIAL_CRASHED, TRIAL_HUNG };
    for (size_t i = 0; i < 3; i++) {
        Records *records = fresh("wrong");
        add(records, "p=1", "p=1", 1, 1, 5, 0);
        add(records, "p=2", "p=1", 0.5, 1, 5, 1);
        add(records, "p=3", "p=1", 0.9, 1, 5, 2);
        Trial bad = { .key = key, .point = "p=2", .status = out[i], .max_error = -1, .ordinal = 3 };
        CU_ASSERT_TRUE(records_add(records, diags, &bad));
        CU_ASSERT_STRING_EQUAL(best_of(records).point, "p=3");
        records_close(records);
    }
    Records *records = fresh("stopped");
    double fast = 0.1, slow = 1;
    Trial stopped = { .key = key, .point = "p=2", .incumbent = "p=1", .status = TRIAL_STOPPED, .max_error = -1,
                      .samples = &fast,
                      .n_samples = 1, .incumbent_samples = &slow, .n_incumbent_samples = 1 };
    add(records, "p=1", "p=1", 1, 1, 5, 0);
    CU_ASSERT_TRUE(records_add(records, diags, &stopped));
    CU_ASSERT_STRING_EQUAL(best_of(records).point, "p=1");
    records_close(records);
}

/* Other keys do not matter: another device, another template. */
static void test_best_is_of_its_key(void)
{
    Records *records = fresh("keys");
    double fast = 0.1, slow = 1;
    Trial other = { .key = key, .point = "p=9", .incumbent = "p=1", .max_error = -1, .samples = &fast, .n_samples = 1,
                    .incumbent_samples = &slow, .n_incumbent_samples = 1 };
    add(records, "p=1", "p=1", 1, 1, 5, 0);
    other.key.device = "other cpu";
    CU_ASSERT_TRUE(records_add(records, diags, &other));
    other.key = key;
    other.key.template_hash = "bb";
    CU_ASSERT_TRUE(records_add(records, diags, &other));
    CU_ASSERT_STRING_EQUAL(best_of(records).point, "p=1");
    CU_ASSERT_EQUAL(best_of(records).n_trials, 1);
    records_close(records);
}

static void test_hints(void)
{
    Records *records = fresh("hints");
    const char **points;
    int n;
    double speed[] = { 0.8, 0.5, 0.7, 0.4 };
    for (int i = 0; i < 4; i++) {
        Trial trial = { .key = key, .point = "p=1", .incumbent = "p=1", .max_error = -1, .samples = (double[]){ 1 },
                        .n_samples = 1, .incumbent_samples = (double[]){ 1 }, .n_incumbent_samples = 1 };
        trial.key.device = arena_printf(arena, "device %d", i);
        trial.key.features = i == 1 ? "arm-neon: neon" : key.features;
        trial.key.shape = i == 3 ? "n_in=65 t512" : key.shape;
        CU_ASSERT_TRUE(records_add(records, diags, &trial));
        trial.point = arena_printf(arena, "p=%d", 10 + i);
        trial.samples = &speed[i];
        trial.ordinal = 1;
        CU_ASSERT_TRUE(records_add(records, diags, &trial));
    }
    add(records, "p=5", "p=5", 1, 1, 1, 0);
    CU_ASSERT_TRUE(records_hints(records, arena, diags, &key, &points, &n));
    CU_ASSERT_EQUAL_FATAL(n, 3);
    CU_ASSERT_STRING_EQUAL(points[0], "p=12");
    CU_ASSERT_STRING_EQUAL(points[1], "p=10");
    CU_ASSERT_STRING_EQUAL(points[2], "p=11");      /* faster, and of other features */
    records_close(records);
}

/* The order in which trials were stored changes nothing, to the bit. */
static void test_order(void)
{
    for (uint64_t seed = 1; seed <= 5; seed++) {
        const char *a = path_of("order-a"), *b = path_of("order-b");
        CU_ASSERT_TRUE(make_random(arena, diags, a, 0, 300, seed));
        CU_ASSERT_TRUE(make_random(arena, diags, b, 0, 300, seed + 100));
        Records *x = records_open(arena, diags, a, RECORDS_READ), *y = records_open(arena, diags, b, RECORDS_READ);
        Summary s, t;
        CU_ASSERT_TRUE(summary_read(x, arena, diags, &s) && summary_read(y, arena, diags, &t));
        CU_ASSERT_EQUAL_FATAL(s.n_kernels, t.n_kernels);
        for (int i = 0; i < s.n_kernels; i++) {
            CU_ASSERT_EQUAL(s.kernels[i].best.speedup, t.kernels[i].best.speedup);
            CU_ASSERT_EQUAL(s.kernels[i].best.seconds, t.kernels[i].best.seconds);
            CU_ASSERT(!s.kernels[i].best.point == !t.kernels[i].best.point
                      && (!s.kernels[i].best.point || strcmp(s.kernels[i].best.point, t.kernels[i].best.point) == 0));
        }
        records_close(x);
        records_close(y);
    }
    said_nothing();
}

/* ---- journals ---- */

static void test_journal(void)
{
    const char *path = path_of("journal");
    Search search = { .command = "tune m.json", .model = "m", .device = "cpu", .features = "f", .seed = 3 };
    for (int64_t run = 0; run < 3; run++) {
        Records *records = records_open(arena, diags, path, RECORDS_CREATE);
        Search again = search;
        CU_ASSERT_TRUE(records_search_open(records, diags, &again));
        CU_ASSERT_EQUAL(again.next_ordinal, 2 * run);
        CU_ASSERT_EQUAL(again.seconds, (double)run);
        CU_ASSERT_FALSE(again.finished);
        for (int64_t i = 0; i < 2; i++) {
            Trial trial = make_trial(arena, (uint64_t)(10 * run + i));
            trial.search = again.id;
            trial.ordinal = again.next_ordinal + i;
            CU_ASSERT_TRUE(records_add(records, diags, &trial));
        }
        again.seconds = (double)run + 1;
        /* Its own ordinal is behind: the larger stays. */
        CU_ASSERT_TRUE(records_search_save(records, diags, &again));
        records_close(records);
    }
    Records *records = records_open(arena, diags, path, RECORDS_WRITE);
    Search other = search, *searches;
    int n;
    other.seed = 4;
    CU_ASSERT_TRUE(records_search_open(records, diags, &other));
    CU_ASSERT_EQUAL(other.next_ordinal, 0);
    CU_ASSERT_TRUE(records_searches(records, arena, diags, &searches, &n));
    CU_ASSERT_EQUAL(n, 2);
    RecordsFilter filter = { .search = searches[0].seed == 3 ? searches[0].id : searches[1].id };
    Trial *trials;
    CU_ASSERT_TRUE(records_list(records, arena, diags, &filter, &trials, &n));
    CU_ASSERT_EQUAL_FATAL(n, 6);
    for (int i = 0; i < n; i++)
        CU_ASSERT_EQUAL(trials[i].ordinal, i);
    records_close(records);
    said_nothing();
}

/* ---- merging ---- */

static Records *merged(const char *name, Records *const *from, const int *order, int n)
{
    Records *into = fresh(name);
    for (int i = 0; i < n; i++)
        CU_ASSERT_TRUE(records_merge(into, arena, diags, from[order[i]]));
    return into;
}

static void test_merge(void)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        uint64_t state = seed;
        Records *from[3];
        for (int i = 0; i < 3; i++) {
            const char *path = path_of(arena_printf(arena, "from-%d", i));
            CU_ASSERT_TRUE(make_random(arena, diags, path, make_draw(&state, 60), (int)make_draw(&state, 50),
                                       seed + (uint64_t)i));
            from[i] = records_open(arena, diags, path, RECORDS_READ);
            CU_ASSERT_PTR_NOT_NULL_FATAL(from[i]);
        }
        static const int orders[][6] = { { 0, 1, 2 }, { 2, 1, 0 }, { 1, 0, 2 }, { 0, 1, 0, 2, 2, 1 } };
        Records *first = merged("m0", from, orders[0], 3);
        const char *all = dump(first);
        for (int i = 1; i < 4; i++) {
            Records *other = merged(arena_printf(arena, "m%d", i), from, orders[i], i == 3 ? 6 : 3);
            CU_ASSERT_STRING_EQUAL(dump(other), all);
            records_close(other);
        }
        /* A + (B + C) */
        Records *inner = merged("inner", from, (const int[]){ 1, 2 }, 2), *pair[] = { from[0], inner };
        Records *outer = merged("outer", pair, (const int[]){ 0, 1 }, 2);
        CU_ASSERT_STRING_EQUAL(dump(outer), all);
        /* X + X = X, also into itself; and nothing is lost or made up */
        const char *alone = dump(from[0]);
        Records *twice = merged("twice", from, (const int[]){ 0, 0 }, 2);
        CU_ASSERT_STRING_EQUAL(dump(twice), alone);
        CU_ASSERT_TRUE(records_merge(twice, arena, diags, twice));
        CU_ASSERT_STRING_EQUAL(dump(twice), alone);
        Records *const opened[] = { first, inner, outer, twice, from[0], from[1], from[2] };
        for (size_t i = 0; i < sizeof opened / sizeof *opened; i++)
            records_close(opened[i]);
    }
    said_nothing();
}

/* ---- pruning ---- */

static void test_prune(void)
{
    for (uint64_t seed = 1; seed <= 6; seed++) {
        const char *path = path_of("prune");
        CU_ASSERT_TRUE(make_searches(arena, diags, path, seed, 25, true));
        Records *records = records_open(arena, diags, path, RECORDS_WRITE);
        Summary before, after;
        CU_ASSERT_TRUE_FATAL(summary_read(records, arena, diags, &before));
        int n_stale = 0, n_failed = 0;
        for (int i = 0; i < before.n_kernels; i++) {
            n_stale += before.kernels[i].stale ? before.kernels[i].n : 0;
            for (int s = 0; s < N_TRIAL_STATUSES; s++)
                n_failed += s != TRIAL_OK && s != TRIAL_STOPPED ? before.kernels[i].count[s] : 0;
        }
        CU_ASSERT_EQUAL(db_prune_choose(arena, &before, 1u << PRUNE_STALE).n, 26);
        CU_ASSERT_EQUAL(n_stale, 26);
        CU_ASSERT(db_prune_choose(arena, &before, 1u << PRUNE_FAILED).n <= n_failed);
        Pruning pruning = db_prune_choose(arena, &before, 7);
        CU_ASSERT(pruning.count[PRUNE_SUPERSEDED] > 0);
        CU_ASSERT_EQUAL(pruning.n, pruning.count[0] + pruning.count[1] + pruning.count[2]);
        CU_ASSERT_TRUE(records_remove(records, diags, pruning.trials, pruning.n));
        CU_ASSERT_TRUE_FATAL(summary_read(records, arena, diags, &after));
        CU_ASSERT_EQUAL(after.n_trials, before.n_trials - pruning.n);
        CU_ASSERT_EQUAL(after.n_kernels, before.n_kernels - 1);
        for (int i = 0; i < before.n_kernels; i++)
            for (int j = 0; j < after.n_kernels; j++)
                if (record_keys_compare(before.kernels[i].key, after.kernels[j].key) == 0) {
                    CU_ASSERT_STRING_EQUAL(before.kernels[i].best.point, after.kernels[j].best.point);
                    CU_ASSERT_STRING_EQUAL(before.kernels[i].best.default_point, after.kernels[j].best.default_point);
                }
        CU_ASSERT_EQUAL(db_prune_choose(arena, &after, 1u << PRUNE_STALE).n, 0);
        records_close(records);
    }
    said_nothing();
}

/* A failure that keeps a point from winning stays. */
static void test_prune_keeps_guards(void)
{
    Records *records = fresh("guards");
    add(records, "p=1", "p=1", 1, 1, 5, 0);
    add(records, "p=2", "p=1", 0.5, 1, 5, 1);
    Trial bad = { .key = key, .point = "p=2", .status = TRIAL_WRONG, .max_error = 1, .ordinal = 2 };
    CU_ASSERT_TRUE(records_add(records, diags, &bad));
    Summary summary;
    CU_ASSERT_TRUE_FATAL(summary_read(records, arena, diags, &summary));
    summary.kernels[0].stale = false;
    CU_ASSERT_EQUAL(db_prune_choose(arena, &summary, 1u << PRUNE_FAILED).n, 0);
    records_close(records);
}

static const UnitTest tests[] = {
    { "round trip", test_round_trip }, { "points", test_points }, { "best of nothing", test_best_of_nothing },
    { "best follows incumbents", test_best_follows_incumbents }, { "best of a long chain", test_best_of_long_chain },
    { "best keeps the default", test_best_keeps_default }, { "best distrusts luck", test_best_distrusts_luck },
    { "best is right", test_best_is_right }, { "best is of its key", test_best_is_of_its_key }, { "hints", test_hints },
    { "order", test_order }, { "journal", test_journal }, { "merge", test_merge }, { "prune", test_prune },
    { "prune keeps guards", test_prune_keeps_guards },
};

int main(void)
{
    arena = arena_new();
    diags = diags_new(arena);
    /* In memory where that can be: thousands of trials are each waited for. */
    snprintf(folder, sizeof folder, "%s/mossc-records-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(folder))
        return 3;
    int code = unit_main("records", tests, (int)(sizeof tests / sizeof *tests));
    if (system(arena_printf(arena, "rm -r %s", folder)) != 0)
        code = 3;
    arena_free(arena);
    return code;
}
