/* Records, the file: opening, the schema, changes, and SQLite's failures as diagnostics.
 *
 * Input: a path. Output: a connection whose file is known to be a sound tuning database of this version.
 * Invariant: the schema of a file is this one to the letter, so no trigger or view of somebody else runs.
 */
#include "records_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUSY_MS = 5000 };

static const char *const schema[] = {
    "CREATE TABLE kernel (id TEXT NOT NULL PRIMARY KEY, kernel TEXT NOT NULL, shape TEXT NOT NULL, "
    "dtypes TEXT NOT NULL, features TEXT NOT NULL, device TEXT NOT NULL, toolchain TEXT NOT NULL, "
    "template_hash TEXT NOT NULL) STRICT",
    "CREATE TABLE search (id TEXT NOT NULL PRIMARY KEY, command TEXT NOT NULL, model TEXT NOT NULL, "
    "device TEXT NOT NULL, features TEXT NOT NULL, seed INTEGER NOT NULL, next_ordinal INTEGER NOT NULL, "
    "seconds REAL NOT NULL, finished INTEGER NOT NULL, peak_operations REAL NOT NULL, peak_bytes REAL NOT NULL) STRICT",
    "CREATE TABLE trial (id TEXT NOT NULL PRIMARY KEY, kernel_id TEXT NOT NULL REFERENCES kernel (id), "
    "point TEXT NOT NULL, status TEXT NOT NULL, detail TEXT NOT NULL, samples BLOB NOT NULL, "
    "incumbent TEXT NOT NULL, incumbent_samples BLOB NOT NULL, max_error REAL NOT NULL, tolerance REAL NOT NULL, "
    "operations REAL NOT NULL, bytes REAL NOT NULL, search_id TEXT NOT NULL, seed INTEGER NOT NULL, "
    "ordinal INTEGER NOT NULL, unix_ms INTEGER NOT NULL, "
    "CHECK (status IN ('ok', 'stopped') OR (length(samples) = 0 AND length(incumbent_samples) = 0))) STRICT",
    "CREATE INDEX trial_of_kernel ON trial (kernel_id)",
    "CREATE INDEX trial_of_search ON trial (search_id, ordinal)",
};
enum { N_SCHEMA = sizeof schema / sizeof *schema };

const char *records_path(const Records *records) { return records->path; }

/* ---- failures ---- */

/* The process whose lock is in the way, or 0. SQLite's locks are advisory ones on bytes from 2^30 on. */
static pid_t lock_holder(const char *path)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0x40000000, .l_len = 512 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    bool found = fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(fd);
    return found ? lock.l_pid : 0;
}

static bool fail_locked(const char *path, Diags *diags)
{
    pid_t holder = lock_holder(path);
    Text who = { 0 };
    text_printf(&who, holder ? "process %d" : "another process", (int)holder);
    diag_report(diags, DIAG_TUNING_LOCKED, NULL, "%s: %s has had it locked for %d seconds", path, who.data,
                BUSY_MS / 1000);
    text_free(&who);
    return false;
}

static bool fail_code(const Records *records, Diags *diags, int code, const char *what)
{
    int number = sqlite3_system_errno(records->db);
    const char *words = number ? strerror(number) : sqlite3_errstr(code);
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return fail_locked(records->path, diags);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        diag_report(diags, DIAG_TUNING_FORMAT, NULL, "%s: %s", records->path, code == SQLITE_NOTADB
                    ? "is no tuning database (no SQLite file)" : "the database is damaged");
        return false;
    case SQLITE_FULL:
        words = strerror(number ? number : ENOSPC);
        break;
    case SQLITE_CONSTRAINT:
        words = sqlite3_errmsg(records->db);
        break;
    }
    bool reads = (code & 0xff) == SQLITE_CANTOPEN || code == SQLITE_IOERR_READ;
    diag_report(diags, reads ? DIAG_FILE_READ : DIAG_FILE_WRITE, NULL, "%s: %s: %s", records->path, what, words);
    return false;
}

bool records_fail(const Records *records, Diags *diags, const char *what)
{
    return fail_code(records, diags, sqlite3_extended_errcode(records->db), what);
}

/* ---- statements ---- */

bool records_run(const Records *records, Diags *diags, const char *sql)
{
    return sqlite3_exec(records->db, sql, NULL, NULL, NULL) == SQLITE_OK
        || records_fail(records, diags, "cannot be used");
}

sqlite3_stmt *records_prepare(const Records *records, Diags *diags, const char *sql, const char *kinds, ...)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(records->db, sql, -1, &statement, NULL) != SQLITE_OK) {
        records_fail(records, diags, "cannot be used");
        return NULL;
    }
    va_list args;
    va_start(args, kinds);
    for (int i = 0; kinds[i]; i++) {
        int code = SQLITE_OK;
        if (kinds[i] == 't') {
            code = sqlite3_bind_text(statement, i + 1, va_arg(args, const char *), -1, SQLITE_TRANSIENT);
        } else if (kinds[i] == 'i') {
            code = sqlite3_bind_int64(statement, i + 1, va_arg(args, int64_t));
        } else if (kinds[i] == 'd') {
            code = sqlite3_bind_double(statement, i + 1, va_arg(args, double));
        } else {
            const void *bytes = va_arg(args, const void *);
            code = sqlite3_bind_blob(statement, i + 1, bytes ? bytes : "", va_arg(args, int), SQLITE_TRANSIENT);
        }
        if (code != SQLITE_OK)
            BUG("parameter %d of %s: %s", i + 1, sql, sqlite3_errstr(code));
    }
    va_end(args);
    return statement;
}

bool records_finish(const Records *records, Diags *diags, sqlite3_stmt *statement)
{
    if (!statement)
        return false;
    bool ok = sqlite3_step(statement) == SQLITE_DONE || records_fail(records, diags, "cannot write it");
    sqlite3_finalize(statement);
    return ok;
}

bool records_begin(const Records *records, Diags *diags)
{
    return sqlite3_exec(records->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK
        || records_fail(records, diags, "cannot write it");
}

bool records_end(const Records *records, Diags *diags, bool ok)
{
    if (ok && sqlite3_exec(records->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        ok = records_fail(records, diags, "cannot write it");
    if (!ok && !sqlite3_get_autocommit(records->db))
        sqlite3_exec(records->db, "ROLLBACK", NULL, NULL, NULL);
    return ok;
}

/* ---- opening ---- */

static bool read_int(const Records *records, Diags *diags, const char *sql, int64_t *value)
{
    sqlite3_stmt *statement = records_prepare(records, diags, sql, "");
    bool ok = statement && sqlite3_step(statement) == SQLITE_ROW;
    *value = ok ? sqlite3_column_int64(statement, 0) : 0;
    if (statement && !ok)
        records_fail(records, diags, "cannot read it");
    sqlite3_finalize(statement);
    return ok;
}

static bool is_damaged(const Records *records, Diags *diags, const char *what)
{
    diag_report(diags, DIAG_TUNING_FORMAT, NULL, "%s: the database is damaged: %.200s", records->path, what);
    return false;
}

static bool check_schema(const Records *records, Diags *diags)
{
    static const char sql[] = "SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
                              "ORDER BY rowid";
    sqlite3_stmt *statement = records_prepare(records, diags, sql, "");
    if (!statement)
        return false;
    int n = 0;
    bool same = true;
    while (sqlite3_step(statement) == SQLITE_ROW) {
        const char *found = (const char *)sqlite3_column_text(statement, 0);
        same = same && n < N_SCHEMA && found && strcmp(found, schema[n]) == 0;
        n++;
    }
    sqlite3_finalize(statement);
    return (same && n == N_SCHEMA) || is_damaged(records, diags, "its tables are not those of its version");
}

static bool check_soundness(const Records *records, Diags *diags)
{
    sqlite3_stmt *statement = records_prepare(records, diags, "PRAGMA quick_check(1)", "");
    if (!statement)
        return false;
    bool row = sqlite3_step(statement) == SQLITE_ROW;
    const char *words = row ? (const char *)sqlite3_column_text(statement, 0) : NULL;
    bool ok = words && strcmp(words, "ok") == 0;
    if (!row)
        records_fail(records, diags, "cannot read it");
    else if (!ok)
        is_damaged(records, diags, words ? words : "no memory to check it");
    sqlite3_finalize(statement);
    return ok;
}

static bool check_kind(const Records *records, Diags *diags)
{
    int64_t application, version;
    if (!read_int(records, diags, "PRAGMA application_id", &application)
        || !read_int(records, diags, "PRAGMA user_version", &version))
        return false;
    if (application != RECORDS_APPLICATION_ID) {
        diag_report(diags, DIAG_TUNING_FORMAT, NULL, "%s: is no tuning database, but SQLite data of another program",
                    records->path);
        return false;
    }
    if (version != RECORDS_SCHEMA_VERSION) {
        diag_report(diags, DIAG_TUNING_VERSION, NULL, "%s: schema version %" PRId64 "; this mossc knows version %d%s",
                    records->path, version, RECORDS_SCHEMA_VERSION, version > RECORDS_SCHEMA_VERSION
                    ? ": a newer mossc wrote it" : "");
        return false;
    }
    return check_schema(records, diags) && check_soundness(records, diags);
}

/* Tables, in a file that is still empty; another process may have been faster. */
static bool create(const Records *records, Diags *diags)
{
    int64_t n_tables;
    if (!records_begin(records, diags))
        return false;
    bool ok = read_int(records, diags, "SELECT count(*) FROM sqlite_schema", &n_tables);
    for (int i = 0; ok && n_tables == 0 && i < N_SCHEMA; i++)
        ok = records_run(records, diags, schema[i]);
    if (ok && n_tables == 0) {
        char *mark = sqlite3_mprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", RECORDS_APPLICATION_ID,
                                     RECORDS_SCHEMA_VERSION);
        ok = records_run(records, diags, mark);
        sqlite3_free(mark);
    }
    return records_end(records, diags, ok);
}

/* What can be told of a path before SQLite sees it. `empty`: it is not there, or has no bytes. */
static bool check_path(Diags *diags, const char *path, RecordsMode mode, bool *empty)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        *empty = true;
        if (mode == RECORDS_CREATE && errno == ENOENT)
            return true;
        diag_report(diags, DIAG_FILE_READ, NULL, "%s: %s", path, strerror(errno));
        return false;
    }
    *empty = info.st_size == 0;
    if (S_ISREG(info.st_mode) && (!*empty || mode == RECORDS_CREATE))
        return true;
    if (S_ISREG(info.st_mode))
        diag_report(diags, DIAG_TUNING_FORMAT, NULL, "%s: is no tuning database: it is empty", path);
    else
        diag_report(diags, DIAG_FILE_READ, NULL, "%s: is %s", path, S_ISDIR(info.st_mode) ? "a folder"
                    : "no regular file");
    return false;
}

static bool connect(Records *records, Diags *diags, RecordsMode mode, bool empty)
{
    /* "./": names such as ":memory:" mean files here. */
    const char *path = records->path[0] == '/' ? records->path : arena_printf(records->arena, "./%s", records->path);
    int flags = SQLITE_OPEN_READWRITE | (mode == RECORDS_CREATE ? SQLITE_OPEN_CREATE : 0);
    if (sqlite3_open_v2(path, &records->db, flags, NULL) != SQLITE_OK)
        return records_fail(records, diags, "cannot open it");
    sqlite3_busy_timeout(records->db, BUSY_MS);
    sqlite3_extended_result_codes(records->db, 1);
    if (mode != RECORDS_READ && sqlite3_db_readonly(records->db, "main") == 1) {
        diag_report(diags, DIAG_FILE_WRITE, NULL, "%s: cannot be written: %s", records->path, strerror(EACCES));
        return false;
    }
    /* EXTRA: the folder is synced, too, when a change is done. */
    static const char pragmas[] = "PRAGMA synchronous = EXTRA; PRAGMA trusted_schema = OFF; "
                                  "PRAGMA cell_size_check = ON";
    return records_run(records, diags, pragmas)
        && (!empty || create(records, diags)) && check_kind(records, diags)
        && (mode != RECORDS_READ || records_run(records, diags, "PRAGMA query_only = ON"));
}

Records *records_open(Arena *arena, Diags *diags, const char *path, RecordsMode mode)
{
    bool empty;
    if (!check_path(diags, path, mode, &empty))
        return NULL;
    bool new = access(path, F_OK) != 0;
    Records *records = arena_one(arena, Records);
    records->arena = arena;
    records->path = arena_strdup(arena, path);
    if (connect(records, diags, mode, empty))
        return records;
    records_close(records);
    struct stat info;
    if (new && stat(path, &info) == 0 && info.st_size == 0)
        unlink(path);
    return NULL;
}

void records_close(Records *records)
{
    if (!records)
        return;
    sqlite3_close_v2(records->db);
    records->db = NULL;
}
