/* Command lines of mossc, from options.def. A bad command line is a usage diagnostic. */
#include "options.h"

#include "closest.h"
#include "planned.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { COMPILE = COMMAND_COMPILE, RUN = COMMAND_RUN, PARAMS = COMMAND_PARAMS, INSPECT = COMMAND_INSPECT,
       TARGETS = COMMAND_TARGETS, IMPORT = COMMAND_IMPORT, DB = COMMAND_DB, TUNE = COMMAND_TUNE,
       BUILT = 1 << 20 };      /* also where a program is given that is compiled already */

static const struct { int commands; const char *brief, *name, *metavar, *help; } rows[N_OPTIONS] = {
#define OPTION(id, commands, brief, name, metavar, help) { commands, brief, name, metavar, help },
#include "options.def"
#undef OPTION
};

/* The option an argument names, as -x, --long or --long=value. */
static int find_option(Command command, const char *argument, const char **value)
{
    size_t len = strcspn(argument, "=");
    *value = argument[len] == '=' && argument[1] == '-' ? argument + len + 1 : NULL;
    for (int i = 0; i < N_OPTIONS; i++) {
        if (!(rows[i].commands & command))
            continue;
        if (rows[i].brief && strcmp(argument, rows[i].brief) == 0)
            return i;
        if (strlen(rows[i].name) == len && strncmp(argument, rows[i].name, len) == 0)
            return i;
    }
    return -1;
}

static void report_unknown(Diags *diags, Command command, const char *argument, const char *value)
{
    char name[64] = "", hint[CLOSEST_HINT_LEN];
    const char *names[N_OPTIONS];
    int n = 0;
    for (int i = 0; i < N_OPTIONS; i++)
        if (rows[i].commands & command)
            names[n++] = rows[i].name;
    const size_t len = value ? (size_t)(value - argument) - 1 : strlen(argument);
    if (len > 2 && len < sizeof name)
        memcpy(name, argument, len);
    diag_report(diags, DIAG_USAGE, NULL, "unknown option `%s`%s (--help lists them)", argument,
                closest_hint(hint, name, names, n));
}

static bool keep_rest(Options *options, Diags *diags, const char *argument)
{
    if (options->n_rest == OPTIONS_MAX_REST) {
        diag_report(diags, DIAG_USAGE, NULL, "more than %d arguments", OPTIONS_MAX_REST);
        return false;
    }
    options->rest[options->n_rest++] = argument;
    return true;
}

bool options_parse(Options *options, Diags *diags, Command command, int argc, char **argv)
{
    *options = (Options){ 0 };
    for (int i = 0; i < argc; i++) {
        const char *value;
        int id = argv[i][0] == '-' && argv[i][1] ? find_option(command, argv[i], &value) : -1;
        if (id < 0 && argv[i][0] == '-' && argv[i][1] && command != COMMAND_RUN) {
            if (!planned_report(diags, PLANNED_OPTION, argv[i]))
                report_unknown(diags, command, argv[i], value);
            return false;
        }
        if (id < 0) {
            if (!keep_rest(options, diags, argv[i]))
                return false;
            continue;
        }
        if (!rows[id].metavar && value) {
            diag_report(diags, DIAG_USAGE, NULL, "`%s` takes no value, found `%s`", rows[id].name, value);
            return false;
        }
        if (rows[id].metavar && !value)
            value = i + 1 < argc ? argv[++i] : NULL;
        if (rows[id].metavar && !value) {
            diag_report(diags, DIAG_USAGE, NULL, "`%s` needs a value: %s", rows[id].name, rows[id].metavar);
            return false;
        }
        options->value[id] = value ? value : "";
    }
    return true;
}

bool options_suit_artifact(const Options *options, Diags *diags)
{
    for (int i = 0; i < N_OPTIONS; i++) {
        if (!options->value[i] || !(rows[i].commands & COMPILE) || (rows[i].commands & BUILT))
            continue;
        diag_report(diags, DIAG_USAGE, NULL, "`%s` says how to compile a MODEL.json: it changes nothing in `%s`, which is "
                    "compiled already", rows[i].name, options->rest[0]);
        return false;
    }
    return true;
}

const char *options_name(OptionId id) { return rows[id].name; }

void options_help(Command command, Text *out)
{
    for (int i = 0; i < N_OPTIONS; i++) {
        if (!(rows[i].commands & command))
            continue;
        Text left = { 0 };
        text_printf(&left, "  %s%s%s%s%s", rows[i].brief ? rows[i].brief : "", rows[i].brief ? ", " : "",
                    rows[i].name, rows[i].metavar ? " " : "", rows[i].metavar ? rows[i].metavar : "");
        if (left.len > 30)
            text_printf(out, "%s\n%31s %s\n", left.data, "", rows[i].help);
        else
            text_printf(out, "%-31s %s\n", left.data, rows[i].help);
        text_free(&left);
    }
}

static bool bad_value(const Options *options, Diags *diags, OptionId id, const char *expected)
{
    diag_report(diags, DIAG_USAGE, NULL, "`%s %s`: expected %s", rows[id].name, options->value[id], expected);
    return false;
}

static bool whole(const char *text, const char **end, int64_t low, int64_t high, int64_t *out)
{
    char *stop;
    errno = 0;
    long long value = strtoll(text, &stop, 10);
    *end = stop;
    *out = value;
    return stop != text && !errno && value >= low && value <= high;
}

bool options_int(const Options *options, Diags *diags, OptionId id, int64_t low, int64_t high, int64_t absent, int64_t *out)
{
    const char *end;
    *out = absent;
    if (!options->value[id])
        return true;
    if (whole(options->value[id], &end, low, high, out) && !*end)
        return true;
    Text expected = { 0 };
    text_printf(&expected, "a whole number from %lld to %lld", (long long)low, (long long)high);
    bad_value(options, diags, id, expected.data);
    text_free(&expected);
    return false;
}

bool options_bytes(const Options *options, Diags *diags, OptionId id, int64_t *out)
{
    static const char units[] = "KMGT";
    const char *end;
    *out = 0;
    if (!options->value[id])
        return true;
    bool ok = whole(options->value[id], &end, 1, INT64_MAX, out);
    const char *unit = *end ? strchr(units, *end) : NULL;
    int shift = unit ? 10 * (int)(unit - units + 1) : 0;
    if (!ok || (*end && (!unit || end[1])) || *out > INT64_MAX >> shift)
        return bad_value(options, diags, id, "bytes such as 2900M, 3G or 3000000000");
    *out <<= shift;
    return true;
}

bool options_ints(const Options *options, Diags *diags, OptionId id, int64_t *out, int max, int *n)
{
    *n = 0;
    for (const char *at = options->value[id]; at; at++) {
        const char *end;
        if (*n == max || !whole(at, &end, 1, INT32_MAX, &out[*n]) || (*end && *end != ','))
            return bad_value(options, diags, id, "positive whole numbers such as 2,3");
        ++*n;
        at = end;
        if (!*end)
            break;
    }
    return true;
}
