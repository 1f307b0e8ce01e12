/* Databases in trouble: kill -9, damage, other files, other versions, locks, full disks, read-only places. Each is a
 * diagnostic with the project's exit codes, and what was stored stays.
 */
#include "records_make.h"

#include "../../tuner/records_merge.h"
#include "../unit/unit.h"

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64];
static Arena *arena;

static const char *path_of(const char *name)
{
    const char *path = arena_printf(arena, "%s/%s", folder, name);
    unlink(path);
    return path;
}

/* Opening fails with this exit code and these words. */
static void refuses(const char *path, RecordsMode mode, int code, const char *words)
{
    Diags *diags = diags_new(arena);
    Text text = { 0 };
    Trial *trials;
    int n;
    Records *records = records_open(arena, diags, path, mode);
    bool refused = !records || !records_list(records, arena, diags, NULL, &trials, &n);
    records_close(records);
    diags_print(diags, &text);
    CU_ASSERT_TRUE(refused);
    CU_ASSERT_EQUAL(diags_exit_code(diags), code);
    bool said = text.data && strstr(text.data, words) && strstr(text.data, path);
    CU_ASSERT_TRUE(said);
    if (!said)
        printf("%s: expected \"%s\", found: %s\n", path, words, text.data ? text.data : "nothing");
    text_free(&text);
}

static int count(const char *path)
{
    Diags *diags = diags_new(arena);
    Trial *trials;
    int n = -1;
    Records *records = records_open(arena, diags, path, RECORDS_READ);
    CU_ASSERT_PTR_NOT_NULL_FATAL(records);
    CU_ASSERT_TRUE(records_list(records, arena, diags, NULL, &trials, &n));
    records_close(records);
    return n;
}

static const char *sample_db(const char *name, int n)
{
    const char *path = path_of(name);
    CU_ASSERT_TRUE_FATAL(make_random(arena, diags_new(arena), path, 0, n, 1));
    return path;
}

static void alter(const char *path, const char *sql)
{
    sqlite3 *db;
    CU_ASSERT_EQUAL_FATAL(sqlite3_open(path, &db), SQLITE_OK);
    CU_ASSERT_EQUAL(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

/* ---- kill -9 ---- */

/* Adds trials for ever; each that is accepted is told through the pipe. */
static _Noreturn void add_for_ever(const char *path, int acknowledged)
{
    Arena *own = arena_new();
    Diags *diags = diags_new(own);
    Records *records = records_open(own, diags, path, RECORDS_WRITE);
    for (uint64_t i = 0; records; i++) {
        Trial trial = make_trial(own, i);
        if (!records_add(records, diags, &trial) || write(acknowledged, trial.id, RECORD_ID_LEN) != RECORD_ID_LEN)
            break;
    }
    _exit(1);
}

static void kill_once(const char *path, int n_before, int round)
{
    int ends[2], n = 0, n_read = 0;
    char id[RECORD_ID_LEN + 1] = "";
    const char **ids = arena_array(arena, const char *, 100000);
    CU_ASSERT_EQUAL_FATAL(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0)
        add_for_ever(path, ends[1]);
    close(ends[1]);
    while (n_read < n_before && read(ends[0], id, RECORD_ID_LEN) == RECORD_ID_LEN)
        ids[n_read++] = arena_strdup(arena, id);
    usleep((useconds_t)(round * 137 % 1000));      /* in the middle of something */
    kill(child, SIGKILL);
    while (n_read < 100000 && read(ends[0], id, RECORD_ID_LEN) == RECORD_ID_LEN)
        ids[n_read++] = arena_strdup(arena, id);
    waitpid(child, NULL, 0);
    close(ends[0]);
    CU_ASSERT(n_read >= n_before);

    Diags *diags = diags_new(arena);
    Trial *trials;
    Records *records = records_open(arena, diags, path, RECORDS_WRITE);
    CU_ASSERT_PTR_NOT_NULL_FATAL(records);
    CU_ASSERT_TRUE(records_list(records, arena, diags, NULL, &trials, &n));
    records_close(records);
    for (int i = 0; i < n_read; i++) {
        bool there = false;
        for (int j = 0; j < n && !there; j++)
            there = strcmp(trials[j].id, ids[i]) == 0;
        CU_ASSERT_TRUE(there);
    }
    CU_ASSERT(n == n_read || n == n_read + 1);      /* the last may be stored and not yet told */
}

static void test_kill(void)
{
    for (int round = 0; round < 12; round++) {
        const char *path = path_of("kill");
        records_close(records_open(arena, diags_new(arena), path, RECORDS_CREATE));
        kill_once(path, 3 + round * 5, round);
    }
}

/* ---- other files ---- */

static void write_file(const char *path, const char *bytes, size_t len)
{
    FILE *file = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    CU_ASSERT_EQUAL(fwrite(bytes, 1, len, file), len);
    fclose(file);
}

static void test_other_files(void)
{
    const char *path = path_of("other");
    refuses(path, RECORDS_READ, 3, "No such file");
    refuses(path, RECORDS_WRITE, 3, "No such file");
    refuses(arena_printf(arena, "%s/not/there", folder), RECORDS_CREATE, 3, "cannot open it");
    refuses(folder, RECORDS_CREATE, 3, "is a folder");
    refuses("/dev/null", RECORDS_WRITE, 3, "no regular file");
    write_file(path, "", 0);
    refuses(path, RECORDS_READ, 1, "it is empty");
    write_file(path, "{ \"format\": \"mossnet-graph/1\" }", 30);
    refuses(path, RECORDS_READ, 1, "no SQLite file");
    refuses(path, RECORDS_CREATE, 1, "no SQLite file");
    unlink(path);
    alter(path, "CREATE TABLE bookmarks (url TEXT)");
    refuses(path, RECORDS_CREATE, 1, "SQLite data of another program");
    CU_ASSERT_EQUAL(access(arena_printf(arena, "%s/other-journal", folder), F_OK), -1);
}

static void test_versions(void)
{
    const char *path = sample_db("version", 5);
    alter(path, "PRAGMA user_version = 2");
    refuses(path, RECORDS_READ, 1, "a newer mossc wrote it");
    alter(path, "PRAGMA user_version = 0");
    refuses(path, RECORDS_READ, 1, "schema version 0");
    path = sample_db("trigger", 5);
    alter(path, "CREATE TRIGGER t AFTER INSERT ON trial BEGIN DELETE FROM trial; END");
    refuses(path, RECORDS_WRITE, 1, "tables are not those");
    path = sample_db("column", 5);
    alter(path, "ALTER TABLE trial ADD COLUMN mood TEXT");
    refuses(path, RECORDS_READ, 1, "tables are not those");
    path = sample_db("analyzed", 5);
    alter(path, "ANALYZE; VACUUM");
    CU_ASSERT_EQUAL(count(path), 5);
}

/* ---- damage ---- */

/* Somebody made a record better than it was. */
static void test_forgery(void)
{
    static const char *const changes[] = {
        "UPDATE trial SET samples = zeroblob(8) WHERE rowid = (SELECT min(rowid) FROM trial WHERE status = 'ok')",
        "UPDATE trial SET status = 'ok' WHERE status = 'wrong'", "UPDATE trial SET max_error = 0 WHERE max_error > 0",
        "UPDATE kernel SET template_hash = '00' WHERE rowid = 1", "DELETE FROM kernel WHERE rowid = 1",
        "UPDATE trial SET status = 'marvellous' WHERE status = 'ok'",
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const char *path = sample_db("forged", 60);
        alter(path, arena_printf(arena, "PRAGMA ignore_check_constraints = ON; %s", changes[i]));
        refuses(path, RECORDS_READ, 1, "damaged");
    }
}

/* Every part of a file damaged in turn: never a crash, never other records than there were. */
static void test_damage(void)
{
    const char *sound = sample_db("sound", 40), *path = path_of("damaged");
    struct stat info;
    CU_ASSERT_EQUAL_FATAL(stat(sound, &info), 0);
    size_t len = (size_t)info.st_size;
    char *bytes = arena_alloc(arena, len), *bad = arena_alloc(arena, len);
    FILE *file = fopen(sound, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    CU_ASSERT_EQUAL_FATAL(fread(bytes, 1, len, file), len);
    fclose(file);
    int n_refused = 0, n_rounds = 400;
    uint64_t state = 11;
    for (int i = 0; i < n_rounds; i++) {
        size_t at = i < 100 ? (size_t)i : make_draw(&state, len), n = 1 + make_draw(&state, 24);
        memcpy(bad, bytes, len);
        for (size_t j = at; j < at + n && j < len; j++)
            bad[j] = (char)(bad[j] ^ (1 + make_draw(&state, 255)));
        write_file(path, bad, i % 8 == 7 ? at + 1 : len);      /* some are also cut */
        Diags *diags = diags_new(arena);
        Trial *trials;
        Search *searches;
        int n_trials = 0, n_searches = 0;
        Records *records = records_open(arena, diags, path, RECORDS_READ);
        bool read = records && records_list(records, arena, diags, NULL, &trials, &n_trials)
            && records_searches(records, arena, diags, &searches, &n_searches);
        records_close(records);
        n_refused += !read;
        CU_ASSERT_EQUAL(read, !diags_failed(diags));
        if (read)
            CU_ASSERT(n_trials <= 40);
    }
    CU_ASSERT(n_refused > n_rounds / 4);
}

/* ---- locks, disks, rights ---- */

static void test_lock(void)
{
    const char *path = sample_db("locked", 5);
    int ready[2], done[2];
    char byte;
    CU_ASSERT_FATAL(pipe(ready) == 0 && pipe(done) == 0);
    pid_t child = fork();
    if (child == 0) {
        sqlite3 *db;
        close(done[1]);
        bool ok = sqlite3_open(path, &db) == SQLITE_OK && sqlite3_exec(db, "BEGIN EXCLUSIVE", NULL, NULL,
                                                                       NULL) == SQLITE_OK;
        ok = ok && write(ready[1], "x", 1) == 1 && read(done[0], &byte, 1) == 0;
        _exit(!ok);
    }
    CU_ASSERT_EQUAL_FATAL(read(ready[0], &byte, 1), 1);
    refuses(path, RECORDS_READ, 3, arena_printf(arena, "process %d has had it locked", (int)child));
    close(done[1]);
    waitpid(child, NULL, 0);
    CU_ASSERT_EQUAL(count(path), 5);
}

/* A disk that is full, by way of a limit: what was accepted is there, the rest is an error. */
static void test_full_disk(void)
{
    const char *path = sample_db("full", 5);
    struct stat info;
    int n_stored = 5, report[2], found = 0;
    CU_ASSERT_FATAL(stat(path, &info) == 0 && pipe(report) == 0);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = { (rlim_t)info.st_size + 16384, (rlim_t)info.st_size + 16384 };
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        Diags *diags = diags_new(arena);
        Records *records = records_open(arena, diags, path, RECORDS_WRITE);
        int n = 5;
        for (uint64_t i = 100; records && n < 1000; i++, n++) {
            Trial trial = make_trial(arena, i);
            if (!records_add(records, diags, &trial))
                break;
        }
        Text text = { 0 };
        diags_print(diags, &text);
        bool ok = diags_exit_code(diags) == 3 && strstr(text.data, "file-write") && write(report[1], &n,
                                                                                          sizeof n) == sizeof n;
        if (!ok)
            printf("%s\n", text.data);
        fflush(stdout);
        _exit(!ok);
    }
    close(report[1]);
    CU_ASSERT_EQUAL(read(report[0], &n_stored, sizeof n_stored), (ssize_t)sizeof n_stored);
    waitpid(child, &found, 0);
    CU_ASSERT(WIFEXITED(found) && WEXITSTATUS(found) == 0);
    CU_ASSERT(n_stored > 5 && n_stored < 1000);
    CU_ASSERT_EQUAL(count(path), n_stored);
}

/* Rights do not stop the superuser, who then cannot test this. */
static void test_rights(void)
{
    const char *path = sample_db("rights", 5);
    if (geteuid() == 0) {
        puts("SKIPPED: rights: the superuser may write anywhere");
        return;
    }
    chmod(path, 0444);
    refuses(path, RECORDS_WRITE, 3, "cannot be written");
    CU_ASSERT_EQUAL(count(path), 5);
}

/* A file that cannot be made leaves nothing. */
static void test_create_fails(void)
{
    const char *path = path_of("never");
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = { 100, 100 };
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        Diags *diags = diags_new(arena);
        Records *records = records_open(arena, diags, path, RECORDS_CREATE);
        _exit(records || diags_exit_code(diags) != 3);
    }
    int status;
    waitpid(child, &status, 0);
    CU_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CU_ASSERT_EQUAL(access(path, F_OK), -1);
}

/* Two that write one database at a time: all of both is there. */
static void test_two_writers(void)
{
    const char *path = path_of("two");
    records_close(records_open(arena, diags_new(arena), path, RECORDS_CREATE));
    pid_t children[2];
    for (int c = 0; c < 2; c++) {
        children[c] = fork();
        if (children[c] != 0)
            continue;
        Diags *diags = diags_new(arena);
        Records *records = records_open(arena, diags, path, RECORDS_WRITE);
        bool ok = records != NULL;
        for (uint64_t i = 0; ok && i < 40; i++) {
            Trial trial = make_trial(arena, (uint64_t)c * 1000 + i);
            ok = records_add(records, diags, &trial);
        }
        _exit(!ok);
    }
    for (int c = 0; c < 2; c++) {
        int status;
        waitpid(children[c], &status, 0);
        CU_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    CU_ASSERT_EQUAL(count(path), 80);
}

static const UnitTest tests[] = {
    { "kill -9", test_kill }, { "other files", test_other_files }, { "versions", test_versions }, { "forgery",
                                                                                                    test_forgery },
    { "damage", test_damage }, { "lock", test_lock }, { "full disk", test_full_disk }, { "rights", test_rights },
    { "create fails", test_create_fails }, { "two writers", test_two_writers },
};

int main(void)
{
    arena = arena_new();
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(folder, sizeof folder, "%s/mossc-records-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(folder))
        return 3;
    int code = unit_main("records in trouble", tests, (int)(sizeof tests / sizeof *tests));
    if (system(arena_printf(arena, "rm -r %s", folder)) != 0)
        code = 3;
    arena_free(arena);
    return code;
}
