/* mossc db: the command line of the verbs, and what they print. */
#include "db_command.h"

#include "db_prune.h"
#include "records_merge.h"
#include "report.h"
#include "../compiler/checks.h"
#include "../compiler/outfile.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    Arena *arena;
    Diags *diags;
    const Options *options;
    const char *const *files;
    int n_files;
} Db;

static const char *value(const Db *db, OptionId id) { return db->options->value[id]; }

static bool usage(const Db *db, const char *words)
{
    diag_report(db->diags, DIAG_USAGE, NULL, "%s", words);
    return false;
}

/* ---- merge ---- */

static bool merge_inputs(const Db *db, Records *into)
{
    bool ok = true;
    for (int i = 0; ok && i < db->n_files; i++) {
        Records *from = records_open(db->arena, db->diags, db->files[i], RECORDS_READ);
        ok = from && records_merge(into, db->arena, db->diags, from);
        records_close(from);
    }
    return ok;
}

/* All inputs must be sound before anything is written. */
static bool check_inputs(const Db *db)
{
    bool ok = true;
    for (int i = 0; i < db->n_files; i++) {
        Records *from = records_open(db->arena, db->diags, db->files[i], RECORDS_READ);
        records_close(from);
        ok = ok && from;
    }
    return ok;
}

static bool print_merged(const Db *db, Records *records, const char *out)
{
    Summary summary;
    if (!summary_read(records, db->arena, db->diags, &summary))
        return false;
    printf("%s: %d trials of %d kernels, %d searches\n", out, summary.n_trials, summary.n_kernels, summary.n_searches);
    return true;
}

/* A file that is there already is added to, in one change; a new one is made under another name. */
static bool merge_into(const Db *db, const char *out, const char *path)
{
    Records *into = records_open(db->arena, db->diags, path, RECORDS_CREATE);
    bool ok = into && merge_inputs(db, into) && print_merged(db, into, out);
    records_close(into);
    return ok;
}

static bool merge(const Db *db)
{
    const char *out = value(db, OPTION_DB_OUT);
    if (!out)
        return usage(db, "db merge: `-o OUT` is missing: where the records go");
    if (!check_inputs(db))
        return false;
    struct stat info;
    if (stat(out, &info) == 0)
        return merge_into(db, out, out);
    OutFolder folder;
    if (!out_folder_make(db->arena, db->diags, out, &folder))
        return false;
    const char *path = out_folder_file(db->arena, &folder, "db");
    bool ok = merge_into(db, out, path) && out_publish(db->diags, path, out);
    out_folder_remove(&folder);
    return ok;
}

/* ---- show, export ---- */

static bool read_one(const Db *db, Summary *summary)
{
    Records *records = records_open(db->arena, db->diags, db->files[0], RECORDS_READ);
    bool ok = records && summary_read(records, db->arena, db->diags, summary);
    records_close(records);
    return ok;
}

static bool write_out(const Db *db, const char *out, const Text *text)
{
    if (out && strcmp(out, "-") != 0)
        return check_not_input(db->diags, out, db->files[0])
            && out_replace(db->arena, db->diags, out, text->data, text->len);
    fwrite(text->data, 1, text->len, stdout);      /* main tells when that fails */
    return true;
}

static bool show(const Db *db)
{
    Summary summary;
    Text text = { 0 };
    const char *page = value(db, OPTION_HTML);
    if (page && value(db, OPTION_JSON))
        return usage(db, "db show: `--html` and `--json` are two ways to show it: choose one");
    if (!read_one(db, &summary))
        return false;
    if (page)
        report_html(db->arena, &summary, &text);
    else if (value(db, OPTION_JSON))
        db_show_json(db->arena, &summary, &text);
    else
        db_show_text(db->arena, &summary, &text);
    bool ok = write_out(db, page, &text);
    text_free(&text);
    return ok;
}

static bool export(const Db *db)
{
    Summary summary;
    Text text = { 0 };
    const char *format = value(db, OPTION_FORMAT);
    bool json = format && strcmp(format, "json") == 0;
    if (format && !json && strcmp(format, "csv") != 0)
        return usage(db, "db export: `--format`: expected csv or json");
    if (!read_one(db, &summary))
        return false;
    (json ? db_export_json : db_export_csv)(db->arena, &summary, &text);
    bool ok = write_out(db, value(db, OPTION_DB_OUT), &text);
    text_free(&text);
    return ok;
}

/* ---- prune ---- */

static bool prune_file(const Db *db, const char *path, unsigned reasons)
{
    bool dry = value(db, OPTION_DRY_RUN) != NULL;
    Records *records = records_open(db->arena, db->diags, path, dry ? RECORDS_READ : RECORDS_WRITE);
    Summary summary;
    bool ok = records && summary_read(records, db->arena, db->diags, &summary);
    if (ok) {
        Pruning pruning = db_prune_choose(db->arena, &summary, reasons);
        ok = dry || records_remove(records, db->diags, pruning.trials, pruning.n);
        if (ok)
            printf("%s: %d of %d trials %s: %d stale, %d failed, %d superseded\n", path, pruning.n, summary.n_trials,
                   dry ? "would go" : "removed", pruning.count[PRUNE_STALE], pruning.count[PRUNE_FAILED],
                   pruning.count[PRUNE_SUPERSEDED]);
    }
    records_close(records);
    return ok;
}

static bool prune(const Db *db)
{
    static const struct { OptionId id; PruneReason reason; } rows[] = {
        { OPTION_STALE, PRUNE_STALE }, { OPTION_FAILED, PRUNE_FAILED }, { OPTION_SUPERSEDED, PRUNE_SUPERSEDED },
    };
    unsigned reasons = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        reasons |= value(db, rows[i].id) ? 1u << rows[i].reason : 0;
    if (!reasons)
        return usage(db, "db prune: say what may go: `--stale`, `--failed`, `--superseded`");
    bool ok = true;
    for (int i = 0; ok && i < db->n_files; i++)
        ok = prune_file(db, db->files[i], reasons);
    return ok;
}

/* ---- the verbs ---- */

static const struct {
    const char *name, *arguments, *summary;
    int most_files;
    bool (*run)(const Db *db);
    OptionId takes[6];       /* N_OPTIONS ends them */
} verbs[] = {
    { "merge", "FILE... -o OUT", "all records of all files into OUT, which keeps what it has", OPTIONS_MAX_REST, merge,
      { OPTION_DB_OUT, N_OPTIONS } },
    { "show", "FILE [--html PAGE|--json]", "trials, failures, the best point and its gain, kernel by kernel", 1, show,
      { OPTION_HTML, OPTION_JSON, N_OPTIONS } },
    { "prune", "FILE... [OPTIONS]", "remove records: stale, failed, superseded", OPTIONS_MAX_REST, prune,
      { OPTION_STALE, OPTION_FAILED, OPTION_SUPERSEDED, OPTION_DRY_RUN, N_OPTIONS } },
    { "export", "FILE [--format csv|json] [-o OUT]", "every trial with its samples", 1, export,
      { OPTION_FORMAT, OPTION_DB_OUT, N_OPTIONS } },
};
enum { N_VERBS = sizeof verbs / sizeof *verbs };

static bool takes(int verb, OptionId id)
{
    for (const OptionId *at = verbs[verb].takes; *at != N_OPTIONS; at++)
        if (*at == id)
            return true;
    return false;
}

static bool check_options(const Db *db, int verb)
{
    for (int i = 0; i < N_OPTIONS; i++)
        if (value(db, (OptionId)i) && !takes(verb, (OptionId)i)) {
            diag_report(db->diags, DIAG_USAGE, NULL, "db %s: takes no `%s`", verbs[verb].name,
                        options_name((OptionId)i));
            return false;
        }
    if (db->n_files >= 1 && db->n_files <= verbs[verb].most_files)
        return true;
    diag_report(db->diags, DIAG_USAGE, NULL, "usage: mossc db %s %s", verbs[verb].name, verbs[verb].arguments);
    return false;
}

void db_command(Arena *arena, Diags *diags, const Options *options)
{
    Db db = { arena, diags, options, options->rest + 1, options->n_rest - 1 };
    for (int i = 0; i < N_VERBS; i++)
        if (strcmp(options->rest[0], verbs[i].name) == 0) {
            if (check_options(&db, i))
                verbs[i].run(&db);
            return;
        }
    diag_report(diags, DIAG_USAGE, NULL, "db: unknown verb `%s`: expected merge, show, prune or export",
                options->rest[0]);
}

void db_help(Text *out)
{
    text_printf(out, "\n");
    for (int i = 0; i < N_VERBS; i++)
        text_printf(out, "  mossc db %-6s %-35s %s\n", verbs[i].name, verbs[i].arguments, verbs[i].summary);
}
