/* Records, inside: what the files that speak SQL share. */
#ifndef MOSSC_TUNER_RECORDS_INTERNAL_H
#define MOSSC_TUNER_RECORDS_INTERNAL_H

#include "records.h"

#include <sqlite3.h>

enum { RECORDS_SCHEMA_VERSION = 1, RECORDS_APPLICATION_ID = 0x6d6f7373 /* "moss" */ };

struct Records {
    Arena *arena;
    const char *path;
    sqlite3 *db;
};

/* What SQLite last failed at, as a diagnostic. Always false. */
bool records_fail(const Records *records, Diags *diags, const char *what);
bool records_run(const Records *records, Diags *diags, const char *sql);
/* A statement, its parameters bound by the characters of `kinds`: t text (NULL is NULL), i int64_t, d double,
 * b bytes and their int length. NULL after reporting. */
sqlite3_stmt *records_prepare(const Records *records, Diags *diags, const char *sql, const char *kinds, ...);
/* Run a statement that gives no rows. */
bool records_finish(const Records *records, Diags *diags, sqlite3_stmt *statement);
/* One change: what is between begin and end happens or does not; end with ok false undoes it, and gives ok. */
bool records_begin(const Records *records, Diags *diags);
bool records_end(const Records *records, Diags *diags, bool ok);

/* Ids: hashes of what they name. */
void record_key_id(const RecordKey *key, char *id);
void record_trial_id(Trial *trial);
void record_search_id(Search *search);

/* Store, where it is not there already; inside a change. */
bool records_insert_trial(Records *records, Diags *diags, const Trial *trial);
bool records_insert_search(Records *records, Diags *diags, const Search *search);

#endif
