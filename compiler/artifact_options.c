/* Artifact options: the names in the runtime's option table, read as text, since the compiler knows
 * nothing of the runtime but what it carries.
 */
#include "artifact_options.h"

#include "closest.h"
#include "planned.h"

#include <stdio.h>
#include <string.h>

typedef struct { char commands[64], brief[16], name[32], kind[8]; } Row;

/* The next row at or behind *at; false at the end. */
static bool next_row(const char **at, Row *row)
{
    for (const char *line = *at; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        if (strncmp(line, "OPTION(", 7) != 0)
            continue;
        /* OPTION(id, commands, "-x" or NULL, "--name", kind, ... */
        if (sscanf(line, "OPTION(%*[A-Z_0-9], %63[A-Z|], %15[^,], \"%31[^\"]\", %7[A-Z]", row->commands, row->brief,
                   row->name, row->kind) != 4)
            BUG("a row of the runtime's options.def cannot be read: %.60s", line);
        *at = line + strcspn(line, "\n");
        return true;
    }
    return false;
}

/* -x, --name or --name=value; `*joined`: the last. */
static bool names(const Row *row, const char *word, bool *joined)
{
    size_t len = strcspn(word, "=");
    *joined = word[len] == '=';
    if (row->brief[0] == '"' && strncmp(row->brief + 1, word, strlen(word)) == 0 && row->brief[strlen(word) + 1] == '"')
        return true;
    return strlen(row->name) == len && strncmp(row->name, word, len) == 0;
}

static bool find_row(const char *table, const char *command, const char *word, Row *row, bool *joined)
{
    while (next_row(&table, row))
        if (strcasestr(row->commands, command) && names(row, word, joined))
            return true;
    return false;
}

/* What was probably meant by an option that is not in the table for this command. */
static const char *hint_for(char hint[CLOSEST_HINT_LEN], const char *table, const char *command, const char *word)
{
    enum { MOST = 64 };
    Row rows[MOST];
    const char *names[MOST];
    char name[sizeof rows->name] = "";
    int n = 0;
    while (n < MOST && next_row(&table, &rows[n])) {
        names[n] = rows[n].name;
        n += strcasestr(rows[n].commands, command) != NULL;
    }
    const size_t len = strcspn(word, "=");
    if (len > 2 && len < sizeof name)
        memcpy(name, word, len);
    return closest_hint(hint, name, names, n);
}

bool artifact_options_check(Diags *diags, const char *table, const char *command, const char *const *argv, int n)
{
    for (int i = 0; i < n; i++) {
        Row row;
        char hint[CLOSEST_HINT_LEN];
        bool joined, found = find_row(table, command, argv[i], &row, &joined);
        bool flag = found && strcmp(row.kind, "FLAG") == 0;
        if (!found && planned_report(diags, PLANNED_OPTION, argv[i]))
            return false;
        if (!found)
            diag_report(diags, DIAG_USAGE, NULL, "%s `%s` of mossc %s%s", argv[i][0] == '-' ? "unknown option"
                        : "unexpected argument", argv[i], command, hint_for(hint, table, command, argv[i]));
        else if (flag && joined)
            diag_report(diags, DIAG_USAGE, NULL, "`%s` takes no value", row.name);
        else if (!flag && !joined && ++i == n)
            diag_report(diags, DIAG_USAGE, NULL, "`%s` needs a value", row.name);
        else
            continue;
        return false;
    }
    return true;
}
