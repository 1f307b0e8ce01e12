/* mossc db prune: which trials may go.
 *
 * Input: what was asked for. Output: the trials to remove, each counted under one reason.
 * Invariant: what is best of a key stays so: superseded trials go only where the best, asked again without
 * them, is the same.
 */
#include "db_prune.h"

#include "records_merge.h"

#include <string.h>

static bool is_failure(const Trial *trial) { return trial->status != TRIAL_OK && trial->status != TRIAL_STOPPED; }

/* Neither the best, nor the default, nor what anything was compared with. */
static bool is_superseded(const KernelSummary *kernel, const Trial *trial)
{
    const RecordBest *best = &kernel->best;
    if (is_failure(trial) || !best->point || strcmp(trial->point, best->point) == 0
        || strcmp(trial->point, trial->incumbent) == 0)
        return false;
    for (int i = 0; i < kernel->n; i++)
        if (strcmp(kernel->trials[i]->incumbent, trial->point) == 0)
            return false;
    return true;
}

static bool same_text(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }

/* Is the best the same without what is marked? A failure that keeps a point out must stay in that case. */
static bool keeps_best(Arena *arena, const KernelSummary *kernel, const bool *goes)
{
    const Trial **left = arena_array(arena, const Trial *, (size_t)kernel->n);
    int n = 0;
    for (int i = 0; i < kernel->n; i++)
        if (!goes[i])
            left[n++] = kernel->trials[i];
    RecordBest best = records_best_of(arena, left, n);
    return same_text(best.point, kernel->best.point) && same_text(best.default_point, kernel->best.default_point);
}

static void choose(Arena *arena, const KernelSummary *kernel, unsigned reasons, Pruning *pruning)
{
    bool *goes = arena_array(arena, bool, (size_t)kernel->n);
    PruneReason *why = arena_array(arena, PruneReason, (size_t)kernel->n);
    for (PruneReason reason = 0; reason < N_PRUNE_REASONS; reason++) {
        bool *before = arena_array(arena, bool, (size_t)kernel->n);
        memcpy(before, goes, (size_t)kernel->n * sizeof *goes);
        for (int i = 0; (reasons >> reason & 1) && i < kernel->n; i++) {
            const Trial *trial = kernel->trials[i];
            bool applies = reason == PRUNE_STALE ? kernel->stale : reason == PRUNE_FAILED ? is_failure(trial)
                         : is_superseded(kernel, trial);
            if (goes[i] || !applies)
                continue;
            goes[i] = true;
            why[i] = reason;
        }
        bool all_goes = kernel->stale && (reasons & 1u << PRUNE_STALE);
        if (!all_goes && !keeps_best(arena, kernel, goes))
            memcpy(goes, before, (size_t)kernel->n * sizeof *goes);
    }
    for (int i = 0; i < kernel->n; i++)
        if (goes[i]) {
            pruning->trials[pruning->n++] = kernel->trials[i];
            pruning->count[why[i]]++;
        }
}

Pruning db_prune_choose(Arena *arena, const Summary *summary, unsigned reasons)
{
    Pruning pruning = { .trials = arena_array(arena, const Trial *, (size_t)summary->n_trials) };
    for (int i = 0; i < summary->n_kernels; i++)
        choose(arena, &summary->kernels[i], reasons, &pruning);
    return pruning;
}
