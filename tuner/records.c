/* Records: trials and the journal of searches, in and out of the database.
 *
 * Input: trials as the search measured them. Output: the same trials, in one order.
 * Invariant: a trial's id is the hash of its fields. It is checked when a trial is read, so that a damaged
 * record is an error and never a measurement.
 */
#include "records_internal.h"

#include "digest.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const status_names[N_TRIAL_STATUSES] = {
#define STATUS(id, name, meaning) [TRIAL_##id] = name,
#include "status.def"
#undef STATUS
};

const char *trial_status_text(TrialStatus status)
{
    if ((unsigned)status >= N_TRIAL_STATUSES)
        BUG("status %d", (int)status);
    return status_names[status];
}

bool trial_status_from_text(const char *text, TrialStatus *status)
{
    for (int i = 0; i < N_TRIAL_STATUSES; i++)
        if (strcmp(status_names[i], text) == 0) {
            *status = (TrialStatus)i;
            return true;
        }
    return false;
}

bool record_point_is_sorted(const char *point)
{
    size_t before = 0;
    for (const char *at = point; *at;) {
        size_t name = strcspn(at, "= "), value = at[name] == '=' ? strcspn(at + name + 1, " =") : 0;
        const char *next = at + name + 1 + value;
        if (name == 0 || value == 0 || (*next && (*next != ' ' || !next[1])))
            return false;
        if (before) {
            const char *last = at - before;
            size_t last_name = strcspn(last, "=");
            int order = memcmp(last, at, last_name < name ? last_name : name);
            if (order > 0 || (order == 0 && last_name >= name))
                return false;
        }
        before = (size_t)(next - at) + (*next == ' ');
        at += before;
    }
    return true;
}

/* ---- ids ---- */

static void hash_key(Digest *digest, const RecordKey *key)
{
    const char *const fields[] = { key->kernel, key->shape, key->dtypes, key->features, key->device, key->toolchain,
                                   key->template_hash };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        digest_text(digest, fields[i]);
}

void record_key_id(const RecordKey *key, char *id)
{
    Digest digest;
    digest_begin(&digest);
    hash_key(&digest, key);
    digest_end(&digest, id, RECORD_ID_LEN);
}

void record_trial_id(Trial *trial)
{
    Digest digest;
    const double numbers[] = { trial->max_error, trial->tolerance, trial->operations, trial->bytes };
    digest_begin(&digest);
    hash_key(&digest, &trial->key);
    digest_text(&digest, trial->point);
    digest_text(&digest, trial_status_text(trial->status));
    digest_text(&digest, trial->detail);
    digest_doubles(&digest, trial->samples, trial->n_samples);
    digest_text(&digest, trial->incumbent);
    digest_doubles(&digest, trial->incumbent_samples, trial->n_incumbent_samples);
    digest_doubles(&digest, numbers, 4);
    digest_text(&digest, trial->search);
    digest_int(&digest, trial->seed);
    digest_int(&digest, trial->ordinal);
    digest_int(&digest, trial->unix_ms);
    digest_end(&digest, trial->id, RECORD_ID_LEN);
}

void record_search_id(Search *search)
{
    Digest digest;
    digest_begin(&digest);
    digest_text(&digest, search->command);
    digest_text(&digest, search->model);
    digest_text(&digest, search->device);
    digest_text(&digest, search->features);
    digest_int(&digest, search->seed);
    digest_end(&digest, search->id, RECORD_ID_LEN);
}

/* ---- writing ---- */

static const char *text_or_empty(const char *text) { return text ? text : ""; }

static void check_samples(const Trial *trial, const double *samples, int n)
{
    for (int i = 0; i < n; i++)
        if (!(samples[i] > 0 && isfinite(samples[i])))
            BUG("sample %d of a trial of %s is %g", i, trial->key.kernel, samples[i]);
}

/* As it will be read again: no NaN and no -0, which SQLite does not keep; no times of failures. */
static void settle(Trial *trial)
{
    double *const numbers[] = { &trial->max_error, &trial->tolerance, &trial->operations, &trial->bytes };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        *numbers[i] = isnan(*numbers[i]) ? INFINITY : *numbers[i] + 0.0;
    trial->detail = text_or_empty(trial->detail);
    trial->incumbent = text_or_empty(trial->incumbent);
    trial->search = text_or_empty(trial->search);
    if (trial->status != TRIAL_OK && trial->status != TRIAL_STOPPED)
        trial->n_samples = trial->n_incumbent_samples = 0;
    if (trial->status == TRIAL_OK && trial->n_samples == 0)
        BUG("a trial of %s %s is right and has no samples", trial->key.kernel, trial->point);
    if (!record_point_is_sorted(trial->point) || !record_point_is_sorted(trial->incumbent))
        BUG("point \"%s\" or \"%s\" is not name=value in order", trial->point, trial->incumbent);
    check_samples(trial, trial->samples, trial->n_samples);
    check_samples(trial, trial->incumbent_samples, trial->n_incumbent_samples);
}

bool records_insert_trial(Records *records, Diags *diags, const Trial *trial)
{
    const RecordKey *key = &trial->key;
    char key_id[RECORD_ID_LEN + 1];
    const int len = trial->n_samples * (int)sizeof(double);
    const int other_len = trial->n_incumbent_samples * (int)sizeof(double);
    const void *samples = trial->samples, *others = trial->incumbent_samples;
    record_key_id(key, key_id);
    sqlite3_stmt *insert_key = records_prepare(records, diags,
        "INSERT OR IGNORE INTO kernel VALUES (?, ?, ?, ?, ?, ?, ?, ?)", "tttttttt", key_id, key->kernel, key->shape,
        key->dtypes, key->features, key->device, key->toolchain, key->template_hash);
    if (!records_finish(records, diags, insert_key))
        return false;
    return records_finish(records, diags, records_prepare(records, diags,
        "INSERT OR IGNORE INTO trial VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", "tttttbtbddddtiii",
        trial->id, key_id, trial->point, trial_status_text(trial->status), trial->detail, samples, len,
        trial->incumbent, others, other_len, trial->max_error, trial->tolerance, trial->operations, trial->bytes,
        trial->search, trial->seed, trial->ordinal, trial->unix_ms));
}

static bool insert_new(Records *records, Diags *diags, Trial *trial)
{
    settle(trial);
    record_trial_id(trial);
    return records_insert_trial(records, diags, trial)
        && records_finish(records, diags, records_prepare(records, diags,
               "UPDATE search SET next_ordinal = max(next_ordinal, ? + 1) WHERE id = ?", "it", trial->ordinal,
               trial->search));
}

bool records_add(Records *records, Diags *diags, Trial *trial)
{
    return records_begin(records, diags) && records_end(records, diags, insert_new(records, diags, trial));
}

/* The larger of two journals of one search, number by number. */
bool records_insert_search(Records *records, Diags *diags, const Search *s)
{
    return records_finish(records, diags, records_prepare(records, diags,
        "INSERT INTO search VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (id) DO UPDATE SET "
        "next_ordinal = max(next_ordinal, ?7), seconds = max(seconds, ?8), finished = max(finished, ?9), "
        "peak_operations = max(peak_operations, ?10), peak_bytes = max(peak_bytes, ?11)", "tttttiididd",
        s->id, s->command, s->model, s->device, s->features, s->seed, s->next_ordinal, s->seconds, (int64_t)s->finished,
        s->peak_operations, s->peak_bytes));
}

bool records_add_all(Records *records, Diags *diags, Trial *trials, int n, const Search *journal)
{
    if (!records_begin(records, diags))
        return false;
    bool ok = true;
    for (int i = 0; ok && i < n; i++)
        ok = insert_new(records, diags, &trials[i]);
    return records_end(records, diags, ok && records_insert_search(records, diags, journal));
}

bool records_search_save(Records *records, Diags *diags, const Search *search)
{
    return records_begin(records, diags) && records_end(records, diags, records_insert_search(records, diags, search));
}

/* ---- reading ---- */

static const char *column_text(Arena *arena, sqlite3_stmt *row, int column)
{
    const char *text = (const char *)sqlite3_column_text(row, column);
    return arena_strdup(arena, text_or_empty(text));
}

static const double *column_doubles(Arena *arena, sqlite3_stmt *row, int column, int *n)
{
    size_t len = (size_t)sqlite3_column_bytes(row, column);
    *n = (int)(len / sizeof(double));
    double *values = arena_array(arena, double, (size_t)*n);
    if (*n)
        memcpy(values, sqlite3_column_blob(row, column), (size_t)*n * sizeof *values);
    return values;
}

/* A row of `trial_rows` below. */
static bool read_trial(Arena *arena, sqlite3_stmt *row, Trial *trial)
{
    char found[RECORD_ID_LEN + 1];
    RecordKey *key = &trial->key;
    const char **const texts[] = { &key->kernel, &key->shape, &key->dtypes, &key->features, &key->device,
                                   &key->toolchain, &key->template_hash, &trial->point, &trial->detail,
                                   &trial->incumbent, &trial->search };
    enum { N_TEXTS = sizeof texts / sizeof *texts };
    for (int i = 0; i < N_TEXTS; i++)
        *texts[i] = column_text(arena, row, i);
    int at = N_TEXTS;
    bool known = trial_status_from_text((const char *)sqlite3_column_text(row, at++), &trial->status);
    trial->samples = column_doubles(arena, row, at++, &trial->n_samples);
    trial->incumbent_samples = column_doubles(arena, row, at++, &trial->n_incumbent_samples);
    double *const doubles[] = { &trial->max_error, &trial->tolerance, &trial->operations, &trial->bytes };
    for (int i = 0; i < 4; i++)
        *doubles[i] = sqlite3_column_double(row, at++);
    int64_t *const ints[] = { &trial->seed, &trial->ordinal, &trial->unix_ms };
    for (int i = 0; i < 3; i++)
        *ints[i] = sqlite3_column_int64(row, at++);
    strncpy(found, (const char *)sqlite3_column_text(row, at), sizeof found - 1)[RECORD_ID_LEN] = 0;
    if (known)
        record_trial_id(trial);
    return known && strcmp(found, trial->id) == 0;
}

static const char trial_rows[] =
    "SELECT kernel, shape, dtypes, features, device, toolchain, template_hash, point, detail, incumbent, search_id, "
    "status, samples, incumbent_samples, max_error, tolerance, operations, bytes, seed, ordinal, unix_ms, trial.id "
    "FROM trial LEFT JOIN kernel ON kernel.id = kernel_id "
    "WHERE (?1 IS NULL OR kernel = ?1) AND (?2 IS NULL OR shape = ?2) AND (?3 IS NULL OR dtypes = ?3) "
    "AND (?4 IS NULL OR features = ?4) AND (?5 IS NULL OR device = ?5) AND (?6 IS NULL OR toolchain = ?6) "
    "AND (?7 IS NULL OR template_hash = ?7) AND (?8 IS NULL OR search_id = ?8) ORDER BY search_id, ordinal, trial.id";
enum { COLUMN_TRIAL_ID = 21 };

static void *grow(Arena *arena, void *items, size_t size, int n, int *room)
{
    if (n < *room)
        return items;
    int larger = *room ? 2 * *room : 64;
    char *moved = arena_alloc_array(arena, size, (size_t)larger);
    if (n)
        memcpy(moved, items, size * (size_t)n);
    *room = larger;
    return moved;
}

bool records_list(Records *records, Arena *arena, Diags *diags, const RecordsFilter *filter, Trial **trials, int *n)
{
    static const RecordsFilter any;
    const RecordsFilter *f = filter ? filter : &any;
    const RecordKey *key = &f->key;
    sqlite3_stmt *statement = records_prepare(records, diags, trial_rows, "tttttttt", key->kernel, key->shape,
                                              key->dtypes, key->features, key->device, key->toolchain,
                                              key->template_hash, f->search);
    int room = 0, code = SQLITE_ERROR;
    bool ok = statement != NULL;
    *trials = NULL;
    *n = 0;
    while (ok && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        *trials = grow(arena, *trials, sizeof **trials, *n, &room);
        Trial *trial = &(*trials)[*n];
        ok = read_trial(arena, statement, trial);
        if (!ok)
            diag_report(diags, DIAG_TUNING_FORMAT, NULL, "%s: the database is damaged: trial %s is not what it was "
                        "when it was stored", records->path,
                        (const char *)sqlite3_column_text(statement, COLUMN_TRIAL_ID));
        *n += !f->statuses || (f->statuses >> trial->status & 1);
    }
    if (ok && code != SQLITE_DONE)
        ok = records_fail(records, diags, "cannot read it");
    sqlite3_finalize(statement);
    return ok;
}

static bool read_search(Arena *arena, sqlite3_stmt *row, Search *search)
{
    const char **const texts[] = { &search->command, &search->model, &search->device, &search->features };
    for (int i = 0; i < 4; i++)
        *texts[i] = column_text(arena, row, 1 + i);
    search->seed = sqlite3_column_int64(row, 5);
    search->next_ordinal = sqlite3_column_int64(row, 6);
    search->seconds = sqlite3_column_double(row, 7);
    search->finished = sqlite3_column_int64(row, 8) != 0;
    search->peak_operations = sqlite3_column_double(row, 9);
    search->peak_bytes = sqlite3_column_double(row, 10);
    record_search_id(search);
    return strcmp(search->id, text_or_empty((const char *)sqlite3_column_text(row, 0))) == 0;
}

bool records_searches(Records *records, Arena *arena, Diags *diags, Search **searches, int *n)
{
    sqlite3_stmt *statement = records_prepare(records, diags, "SELECT * FROM search ORDER BY id", "");
    int room = 0, code = SQLITE_ERROR;
    *searches = NULL;
    *n = 0;
    bool ok = statement != NULL;
    while (ok && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        *searches = grow(arena, *searches, sizeof **searches, *n, &room);
        ok = read_search(arena, statement, &(*searches)[(*n)++]);
        if (!ok)
            diag_report(diags, DIAG_TUNING_FORMAT, NULL, "%s: the database is damaged: search %.32s is not what it was "
                        "when it was stored", records->path,
                        text_or_empty((const char *)sqlite3_column_text(statement, 0)));
    }
    if (ok && code != SQLITE_DONE)
        ok = records_fail(records, diags, "cannot read it");
    sqlite3_finalize(statement);
    return ok;
}

bool records_search_open(Records *records, Diags *diags, Search *search)
{
    record_search_id(search);
    if (!records_search_save(records, diags, search))
        return false;
    sqlite3_stmt *statement = records_prepare(records, diags, "SELECT * FROM search WHERE id = ?", "t", search->id);
    bool ok = statement && sqlite3_step(statement) == SQLITE_ROW;
    if (ok)
        read_search(records->arena, statement, search);
    else if (statement)
        records_fail(records, diags, "cannot read it");
    sqlite3_finalize(statement);
    return ok;
}
