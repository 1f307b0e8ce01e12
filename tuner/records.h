/* Records: what tuning measured, in an SQLite database that grows by one trial at a time.
 *
 * Input and output: trials, and the journal of searches. docs/tuning-records.md has the tables.
 * Invariants: a trial that records_add has accepted survives a kill -9; a trial is known by the hash of
 * all it says, so it is stored once however often it comes; nothing here depends on the order in which
 * trials came. Every function that can fail reports why and returns false.
 */
#ifndef MOSSC_TUNER_RECORDS_H
#define MOSSC_TUNER_RECORDS_H

#include "status.h"
#include "../ir/diag.h"

#include <stdint.h>

/* What a measurement is of. All text, never NULL but in a filter; no control characters. */
typedef struct {
    const char *kernel;          /* the template's name: "gemm"; "step" for a whole model's step */
    const char *shape;           /* sizes and token count: "i64 o128 e4 t512" */
    const char *dtypes;          /* "bf16", "q8" */
    const char *features;        /* identity_features() of the target */
    const char *device;          /* "AMD EPYC 9B14, 2 cpus" */
    const char *toolchain;       /* "gcc 12.2.0" */
    const char *template_hash;   /* identity_template(): other code is another key */
} RecordKey;

const char *trial_status_text(TrialStatus status);
bool trial_status_from_text(const char *text, TrialStatus *status);

enum { RECORD_ID_LEN = 32 };     /* hexadecimal digits */

/* One point tried. The samples of a point and of its incumbent were taken in turn, so that sample i of one
 * belongs to sample i of the other. The default point of a kernel is recorded first, as its own incumbent: that
 * says which point is the default, and the two sample sets say how noisy the machine is. */
typedef struct {
    RecordKey key;
    const char *point;           /* "mr=6 tr=2": by name, one space between; see record_point_is_sorted */
    TrialStatus status;
    const char *detail;          /* the compiler's words, the wrong element, the signal */
    const double *samples;       /* [n_samples] seconds a call, all above 0; kept only of OK and STOPPED */
    int n_samples;
    const char *incumbent;       /* point compared with; "" without */
    const double *incumbent_samples;     /* [n_incumbent_samples] seconds a call */
    int n_incumbent_samples;
    double max_error, tolerance; /* the worst difference from the reference, and what is allowed; below 0: unchecked */
    double operations, bytes;    /* of one call; 0: unknown */
    const char *search;          /* Search.id; "" without */
    int64_t seed, ordinal;       /* of the search; ordinal counts its trials from 0 */
    int64_t unix_ms;             /* when it was measured */
    char id[RECORD_ID_LEN + 1];  /* set by records_add */
} Trial;

/* The journal of one search: enough that the same command goes on where it was ended. Its trials are the
 * rest of its state: records_list gives them in order. */
typedef struct {
    const char *command;         /* what must be equal to be the same search, as canonical text */
    const char *model, *device, *features;
    int64_t seed;
    double peak_operations, peak_bytes;  /* a second, as the search measured the machine; 0: not yet */
    /* What records_search_open fills in and records_search_save stores: */
    char id[RECORD_ID_LEN + 1];
    int64_t next_ordinal;        /* also raised by records_add */
    double seconds;              /* spent so far */
    bool finished;
} Search;

typedef struct Records Records;
/* READ changes nothing, and needs no right to. CREATE makes the file when it is not there. */
typedef enum { RECORDS_READ, RECORDS_WRITE, RECORDS_CREATE } RecordsMode;

/* NULL after reporting: missing, no database, corrupt, from a newer mossc, locked, not writable. */
Records *records_open(Arena *arena, Diags *diags, const char *path, RecordsMode mode);
void records_close(Records *records);      /* NULL is fine */
const char *records_path(const Records *records);

/* Store a trial and move its search's journal on, as one. It is on the disk when this returns. */
bool records_add(Records *records, Diags *diags, Trial *trial);
/* Several trials, and their search's journal as records_search_save does, in one change: all of it or nothing. */
bool records_add_all(Records *records, Diags *diags, Trial *trials, int n, const Search *journal);

/* Begin a search, or find the one with the same command, seed, device and features and load its journal. */
bool records_search_open(Records *records, Diags *diags, Search *search);
bool records_search_save(Records *records, Diags *diags, const Search *search);

/* NULL or 0: any. */
typedef struct {
    RecordKey key;
    const char *search;
    unsigned statuses;           /* bits 1 << TrialStatus */
} RecordsFilter;

/* Trials that pass, by search, ordinal and id; text and samples live in `arena`. */
bool records_list(Records *records, Arena *arena, Diags *diags, const RecordsFilter *filter, Trial **trials, int *n);
/* Searches, by id. */
bool records_searches(Records *records, Arena *arena, Diags *diags, Search **searches, int *n);

/* The fastest right point of a key, and what the records say of it (records_rank.h says how). */
typedef struct {
    const char *point;           /* NULL: there is no record of the key that was measured and right */
    const char *default_point;   /* NULL: not recorded */
    double speedup;              /* over default_point; 1 where the default is the best */
    double default_seconds;      /* median; 0: unknown */
    double seconds;              /* default_seconds / speedup, so without the machine's drift; else a median */
    int n_trials, n_ok;          /* of the key */
} RecordBest;
bool records_best(Records *records, Arena *arena, Diags *diags, const RecordKey *key, RecordBest *best);

/* Points to try first: the best of other devices, toolchains and template versions for the same kernel, shape and
 * dtypes, those of the same features first, then by speed-up and by text. Never to be taken untested. */
bool records_hints(Records *records, Arena *arena, Diags *diags, const RecordKey *key, const char ***points, int *n);

/* Are names in ascending order, each once, "name=value" with one space between? */
bool record_point_is_sorted(const char *point);

#endif
