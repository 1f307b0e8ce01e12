/* mossc db show: what a database holds, as a table or as JSON. */
#include "db_summary.h"

#include <stdlib.h>
#include <string.h>

enum { FAILURES = ~(1u << TRIAL_OK | 1u << TRIAL_STOPPED) };

static bool same_machine(const RecordKey *a, const RecordKey *b)
{
    return strcmp(a->device, b->device) == 0 && strcmp(a->features, b->features) == 0
        && strcmp(a->toolchain, b->toolchain) == 0;
}

static int compare_by_machine(const void *a, const void *b)
{
    const RecordKey *x = (*(const KernelSummary *const *)a)->key, *y = (*(const KernelSummary *const *)b)->key;
    int order = strcmp(x->device, y->device);
    order = order ? order : strcmp(x->features, y->features);
    order = order ? order : strcmp(x->toolchain, y->toolchain);
    return order ? order : record_keys_compare(x, y);
}

const KernelSummary **summary_by_machine(Arena *arena, const Summary *summary)
{
    const KernelSummary **list = arena_array(arena, const KernelSummary *, (size_t)summary->n_kernels);
    for (int i = 0; i < summary->n_kernels; i++)
        list[i] = &summary->kernels[i];
    if (summary->n_kernels)
        qsort(list, (size_t)summary->n_kernels, sizeof *list, compare_by_machine);
    return list;
}

static void put_seconds_cell(double seconds, int width, Text *out)
{
    Text cell = { 0 };
    if (seconds > 0)
        summary_put_seconds(seconds, &cell);
    text_printf(out, "%*s", width, seconds > 0 ? cell.data : "-");
    text_free(&cell);
}

static void put_kernel(Arena *arena, const KernelSummary *kernel, Text *out)
{
    const RecordBest *best = &kernel->best;
    int failed = 0;
    for (int i = 0; i < N_TRIAL_STATUSES; i++)
        failed += FAILURES >> i & 1 ? kernel->count[i] : 0;
    text_printf(out, "  %-16s %6d %6d %8d %7d", kernel->key->kernel, kernel->n, kernel->count[TRIAL_OK],
                kernel->count[TRIAL_STOPPED], failed);
    put_seconds_cell(best->default_seconds, 11, out);
    put_seconds_cell(best->seconds, 11, out);
    const char *gain = best->point && best->default_point ? arena_printf(arena, "%.3fx", best->speedup) : "-";
    text_printf(out, "%9s  %s%s\n", gain, best->point ? best->point : summary_why_none(kernel),
                kernel->stale ? "  (stale)" : "");
    text_printf(out, "      %s%s%s", kernel->key->shape, *kernel->key->shape ? ", " : "", kernel->key->dtypes);
    if (failed) {
        text_printf(out, "; ");
        summary_put_counts(kernel, FAILURES, out);
    }
    text_printf(out, "\n");
}

static void put_searches(const Summary *summary, Text *out)
{
    for (int i = 0; i < summary->n_searches; i++) {
        const Search *s = &summary->searches[i];
        text_printf(out, "%s  %.12s  %s, seed %lld: %lld trials in %.0f s, %s\n", i ? "" : "\nsearches\n", s->id,
                    s->model, (long long)s->seed, (long long)s->next_ordinal, s->seconds,
                    s->finished ? "finished" : "not finished");
    }
}

void db_show_text(Arena *arena, const Summary *summary, Text *out)
{
    const KernelSummary **list = summary_by_machine(arena, summary);
    text_printf(out, "%s: %d trial%s of %d kernel%s\n", summary->path, summary->n_trials,
                summary->n_trials == 1 ? "" : "s", summary->n_kernels, summary->n_kernels == 1 ? "" : "s");
    for (int i = 0; i < summary->n_kernels; i++) {
        const RecordKey *key = list[i]->key;
        if (i == 0 || !same_machine(list[i - 1]->key, key))
            text_printf(out, "\n%s\n%s, %s\n  %-16s %6s %6s %8s %7s %10s %10s %8s  %s\n", key->device,
                        summary_target(arena, key), key->toolchain, "kernel", "trials", "ok", "stopped", "failed",
                        "default", "best", "gain", "best point");
        put_kernel(arena, list[i], out);
    }
    put_searches(summary, out);
}

static void put_pair(Text *out, const char *before, const char *name, const char *value)
{
    text_printf(out, "%s\"%s\": ", before, name);
    if (value)
        text_json_string(out, value);
    else
        text_printf(out, "null");
}

static void put_number(Text *out, const char *name, double value)
{
    text_printf(out, ", \"%s\": ", name);
    if (value > 0)
        text_double(out, value);
    else
        text_printf(out, "null");
}

static void put_json_kernel(const KernelSummary *kernel, Text *out)
{
    const RecordKey *key = kernel->key;
    const RecordBest *best = &kernel->best;
    put_pair(out, "    { ", "kernel", key->kernel);
    put_pair(out, ", ", "shape", key->shape);
    put_pair(out, ", ", "dtypes", key->dtypes);
    put_pair(out, ",\n      ", "features", key->features);
    put_pair(out, ",\n      ", "device", key->device);
    put_pair(out, ", ", "toolchain", key->toolchain);
    put_pair(out, ", ", "template_hash", key->template_hash);
    text_printf(out, ",\n      \"stale\": %s, \"trials\": %d", kernel->stale ? "true" : "false", kernel->n);
    for (int i = 0; i < N_TRIAL_STATUSES; i++)
        text_printf(out, ", \"%s\": %d", trial_status_text((TrialStatus)i), kernel->count[i]);
    put_pair(out, ",\n      ", "best_point", best->point);
    put_pair(out, ", ", "default_point", best->default_point);
    put_number(out, "speedup", best->point && best->default_point ? best->speedup : 0);
    put_number(out, "best_seconds", best->seconds);
    put_number(out, "default_seconds", best->default_seconds);
    text_printf(out, " }");
}

static void put_json_search(const Search *s, Text *out)
{
    put_pair(out, "    { ", "id", s->id);
    put_pair(out, ", ", "command", s->command);
    put_pair(out, ", ", "model", s->model);
    put_pair(out, ", ", "device", s->device);
    text_printf(out, ", \"seed\": %lld, \"next_ordinal\": %lld, \"finished\": %s", (long long)s->seed,
                (long long)s->next_ordinal, s->finished ? "true" : "false");
    put_number(out, "seconds", s->seconds);
    put_number(out, "peak_operations", s->peak_operations);
    put_number(out, "peak_bytes", s->peak_bytes);
    text_printf(out, " }");
}

void db_show_json(Arena *arena, const Summary *summary, Text *out)
{
    const KernelSummary **list = summary_by_machine(arena, summary);
    put_pair(out, "{ ", "file", summary->path);
    text_printf(out, ", \"trials\": %d,\n  \"kernels\": [", summary->n_trials);
    for (int i = 0; i < summary->n_kernels; i++) {
        text_printf(out, "%s\n", i ? "," : "");
        put_json_kernel(list[i], out);
    }
    text_printf(out, " ],\n  \"searches\": [");
    for (int i = 0; i < summary->n_searches; i++) {
        text_printf(out, "%s\n", i ? "," : "");
        put_json_search(&summary->searches[i], out);
    }
    text_printf(out, " ] }\n");
}
