/* Summary: trials by kernel, with the best of each. */
#include "db_summary.h"

#include "identity.h"

#include <stdlib.h>
#include <string.h>

const char *summary_target(Arena *arena, const RecordKey *key)
{
    return arena_strndup(arena, key->features, strcspn(key->features, ":"));
}

bool summary_is_stale(Arena *arena, const RecordKey *key)
{
    TargetId target;
    return !target_from_name(summary_target(arena, key), &target)
        || strcmp(identity_template(arena, target, key->kernel), key->template_hash) != 0;
}

/* By search and ordinal: as a search went on. */
static int compare_in_time(const void *a, const void *b)
{
    const Trial *x = *(const Trial *const *)a, *y = *(const Trial *const *)b;
    int order = strcmp(x->search, y->search);
    if (order)
        return order;
    if (x->ordinal != y->ordinal)
        return x->ordinal < y->ordinal ? -1 : 1;
    return strcmp(x->id, y->id);
}

static void add_peaks(KernelSummary *kernel, const Summary *summary)
{
    for (int i = 0; i < kernel->n; i++)
        for (int j = 0; j < summary->n_searches; j++) {
            const Search *search = &summary->searches[j];
            if (strcmp(search->id, kernel->trials[i]->search) != 0)
                continue;
            if (search->peak_operations > kernel->peak_operations)
                kernel->peak_operations = search->peak_operations;
            if (search->peak_bytes > kernel->peak_bytes)
                kernel->peak_bytes = search->peak_bytes;
        }
}

static void fill(Arena *arena, KernelSummary *kernel, const Trial **trials, int n, const Summary *summary)
{
    Ranking *ranking = arena_one(arena, Ranking);
    qsort(trials, (size_t)n, sizeof *trials, compare_in_time);
    *kernel = (KernelSummary){ .key = &trials[0]->key, .trials = trials, .n = n, .ranking = ranking };
    for (int i = 0; i < n; i++) {
        kernel->count[trials[i]->status]++;
        if (trials[i]->operations > kernel->operations)
            kernel->operations = trials[i]->operations;
        if (trials[i]->bytes > kernel->bytes)
            kernel->bytes = trials[i]->bytes;
    }
    *ranking = records_rank(arena, trials, n);
    kernel->best = records_best_of(arena, trials, n);
    kernel->stale = summary_is_stale(arena, kernel->key);
    add_peaks(kernel, summary);
}

bool summary_read(Records *records, Arena *arena, Diags *diags, Summary *summary)
{
    *summary = (Summary){ .path = records_path(records) };
    if (!records_list(records, arena, diags, NULL, &summary->trials, &summary->n_trials)
        || !records_searches(records, arena, diags, &summary->searches, &summary->n_searches))
        return false;
    const Trial **list = records_by_key(arena, summary->trials, summary->n_trials);
    summary->kernels = arena_array(arena, KernelSummary, (size_t)summary->n_trials);
    for (int i = 0, same; i < summary->n_trials; i += same) {
        same = records_same_key(list + i, summary->n_trials - i);
        fill(arena, &summary->kernels[summary->n_kernels++], list + i, same, summary);
    }
    return true;
}

void summary_put_counts(const KernelSummary *kernel, unsigned mask, Text *out)
{
    const char *between = "";
    for (int i = 0; i < N_TRIAL_STATUSES; i++) {
        if (!(mask >> i & 1) || !kernel->count[i])
            continue;
        text_printf(out, "%s%d %s", between, kernel->count[i], trial_status_text((TrialStatus)i));
        between = ", ";
    }
}

const char *summary_why_none(const KernelSummary *kernel)
{
    return kernel->best.n_ok ? "each point that was right was also wrong, crashed or hung" : "no trial was right";
}

void summary_put_seconds(double seconds, Text *out)
{
    static const struct { double unit; const char *name; } units[] = { { 1, "s" }, { 1e-3, "ms" }, { 1e-6, "us" },
                                                                       { 1e-9, "ns" } };
    int i = 0;
    while (i < 3 && seconds < units[i].unit)
        i++;
    double value = seconds / units[i].unit;
    text_printf(out, "%.*f %s", value < 10 ? 3 : value < 100 ? 2 : 1, value, units[i].name);
}
