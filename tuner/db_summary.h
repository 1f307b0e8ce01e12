/* Summary: a database, kernel by kernel, as `mossc db show` and `prune` see it. */
#ifndef MOSSC_TUNER_DB_SUMMARY_H
#define MOSSC_TUNER_DB_SUMMARY_H

#include "records_rank.h"

typedef struct {
    const RecordKey *key;
    const Trial *const *trials;      /* [n] of this key, by search, ordinal and id */
    int n, count[N_TRIAL_STATUSES];
    bool stale;                      /* this mossc's template is another */
    RecordBest best;
    const Ranking *ranking;
    double operations, bytes;        /* of a call; 0: unknown */
    double peak_operations, peak_bytes;  /* a second, of the searches its trials belong to; 0: unknown */
} KernelSummary;

typedef struct {
    const char *path;
    Trial *trials;
    int n_trials, n_kernels, n_searches;
    KernelSummary *kernels;          /* by key */
    Search *searches;                /* by id */
} Summary;

/* False after reporting. */
bool summary_read(Records *records, Arena *arena, Diags *diags, Summary *summary);
bool summary_is_stale(Arena *arena, const RecordKey *key);
/* The target's name, from the key's features. */
const char *summary_target(Arena *arena, const RecordKey *key);
/* "36 ok, 2 wrong", of what is counted; `mask` says which statuses. */
void summary_put_counts(const KernelSummary *kernel, unsigned mask, Text *out);
/* Of a kernel without a best point. */
const char *summary_why_none(const KernelSummary *kernel);
/* "1.234 ms" */
void summary_put_seconds(double seconds, Text *out);

/* Kernels by device, target, toolchain and key. */
const KernelSummary **summary_by_machine(Arena *arena, const Summary *summary);

/* What `mossc db` prints. */
void db_show_text(Arena *arena, const Summary *summary, Text *out);
void db_show_json(Arena *arena, const Summary *summary, Text *out);
void db_export_csv(Arena *arena, const Summary *summary, Text *out);
void db_export_json(Arena *arena, const Summary *summary, Text *out);

#endif
