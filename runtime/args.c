/* Parse a command line by the table of options.def; print help from the same table.
 *
 * Input: argv. Output: moss_args, or a message. Both `--name value` and `--name=value` are taken;
 * the last of a repeated option counts. Nothing unknown, unused or half-numeric is accepted.
 */
#include "args.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef enum {
    MOSS_KIND_FLAG, MOSS_KIND_INT, MOSS_KIND_REAL, MOSS_KIND_TEXT, MOSS_KIND_INTS,
} moss_kind;

typedef struct {
    unsigned commands;
    const char *brief, *name;
    moss_kind kind;
    const char *metavar;
    double low, high;             /* of REAL */
    int64_t low_int, high_int;    /* of INT and INTS, which a double does not hold */
    const char *standard, *help;
} moss_option_info;

/* The command names as they stand in the table. */
enum { RUN = MOSS_CMD_RUN, BENCH = MOSS_CMD_BENCH, EVAL = MOSS_CMD_EVAL, INFO = MOSS_CMD_INFO };

static const moss_option_info moss_options[] = {
#define OPTION(id, commands, brief, name, kind, metavar, low, high, standard, help) \
    { commands, brief, name, MOSS_KIND_##kind, metavar, (double)(low), (double)(high), \
      (int64_t)(low), (int64_t)(high), standard, help },
#include "options.def"
#undef OPTION
};

static const struct { moss_command command; const char *name, *help; } moss_commands[] = {
    { MOSS_CMD_RUN,   "run",   "generate text, or write the logits of a prompt (the default)" },
    { MOSS_CMD_BENCH, "bench", "tokens a second of prompts (pp512) and of generation (tg128)" },
    { MOSS_CMD_EVAL,  "eval",  "nats a token, perplexity and bits a byte of a text" },
    { MOSS_CMD_INFO,  "info",  "what was compiled, and the memory it needs" },
};
enum { MOSS_N_COMMANDS = sizeof moss_commands / sizeof *moss_commands };

static int moss_args_fail(moss_args *args, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int moss_args_fail(moss_args *args, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(args->message, sizeof args->message, format, list);
    va_end(list);
    return MOSS_EXIT_USAGE;
}

static const char *moss_command_name(moss_command command)
{
    for (int i = 0; i < MOSS_N_COMMANDS; i++)
        if (moss_commands[i].command == command)
            return moss_commands[i].name;
    return "";
}

/* A whole number in [low, high] that ends at `*end`. */
static bool moss_parse_int(const char *text, int64_t low, int64_t high, int64_t *number,
                           const char **end)
{
    char *stop;
    if (*text != '-' && (*text < '0' || *text > '9'))
        return false;   /* strtoll would skip blanks and take a plus sign */
    errno = 0;
    *number = strtoll(text, &stop, 10);
    *end = stop;
    return stop != text && errno == 0 && *number >= low && *number <= high;
}

static bool moss_parse_ints(const char *text, int64_t low, int64_t high)
{
    int64_t number;
    for (const char *end;; text = end + 1) {
        if (!moss_parse_int(text, low, high, &number, &end) || (*end && *end != ','))
            return false;
        if (!*end)
            return true;
    }
}

static bool moss_parse_real(const char *text, double low, double high, double *real)
{
    char *stop;
    if (!strchr("-.0123456789", *text) || !*text)
        return false;
    *real = strtod(text, &stop);
    return *stop == 0 && *real >= low && *real <= high;
}

static int moss_option_set(moss_args *args, moss_option option, const char *text)
{
    const moss_option_info *info = &moss_options[option];
    moss_value value = { .present = true, .given = true, .text = text };
    const char *end = "";
    switch (info->kind) {
    case MOSS_KIND_INT:
        if (!moss_parse_int(text, info->low_int, info->high_int, &value.number, &end) || *end)
            return moss_args_fail(args,
                "%s: found '%.60s', expected a whole number from %jd to %jd", info->name, text,
                (intmax_t)info->low_int, (intmax_t)info->high_int);
        break;
    case MOSS_KIND_INTS:
        if (!moss_parse_ints(text, info->low_int, info->high_int))
            return moss_args_fail(args,
                "%s: found '%.60s', expected whole numbers from %jd to %jd with commas between",
                info->name, text, (intmax_t)info->low_int, (intmax_t)info->high_int);
        break;
    case MOSS_KIND_REAL:
        if (!moss_parse_real(text, info->low, info->high, &value.real))
            return moss_args_fail(args, "%s: found '%.60s', expected a number from %g to %g",
                                  info->name, text, info->low, info->high);
        break;
    case MOSS_KIND_TEXT:
    case MOSS_KIND_FLAG:
        break;
    }
    args->values[option] = value;
    return MOSS_EXIT_OK;
}

/* Does `word` name this option? `*joined` gets the value of --name=value, else NULL. */
static bool moss_option_matches(const moss_option_info *info, const char *word, const char **joined)
{
    const size_t len = strlen(info->name);
    *joined = NULL;
    if (!strcmp(word, info->name) || (info->brief && !strcmp(word, info->brief)))
        return true;
    if (strncmp(word, info->name, len) || word[len] != '=')
        return false;
    *joined = word + len + 1;
    return true;
}

/* One option at argv[*at]; steps *at over what it used. */
static int moss_args_parse_option(moss_args *args, int argc, char **argv, int *at)
{
    const char *word = argv[*at], *joined;
    for (int i = 0; i < MOSS_N_OPTIONS; i++) {
        const moss_option_info *info = &moss_options[i];
        if (!(info->commands & args->command) || !moss_option_matches(info, word, &joined))
            continue;
        if (info->kind == MOSS_KIND_FLAG && joined)
            return moss_args_fail(args, "%s takes no value, found '%.60s'", info->name, joined);
        if (info->kind != MOSS_KIND_FLAG && !joined && *at + 1 >= argc)
            return moss_args_fail(args, "%.40s: its value %s is missing", word, info->metavar);
        if (info->kind != MOSS_KIND_FLAG && !joined)
            joined = argv[++*at];
        ++*at;
        return moss_option_set(args, (moss_option)i, joined);
    }
    return moss_args_fail(args, "%s '%.60s' of '%s'; --help lists what there is",
                          *word == '-' ? "unknown option" : "unexpected argument", word,
                          moss_command_name(args->command));
}

static void moss_args_set_defaults(moss_args *args)
{
    for (int i = 0; i < MOSS_N_OPTIONS; i++) {
        if (!moss_options[i].standard)
            continue;
        moss_option_set(args, (moss_option)i, moss_options[i].standard);
        args->values[i].given = false;
    }
}

static int moss_args_check(moss_args *args)
{
    const moss_value *values = args->values;
    const int n_prompts = values[MOSS_OPT_PROMPT].given + values[MOSS_OPT_FILE].given
                        + values[MOSS_OPT_TOKENS].given;
    if (n_prompts > 1)
        return moss_args_fail(args, "--prompt, --file and --tokens: expected one of them");
    if (values[MOSS_OPT_STEP].given && values[MOSS_OPT_CHUNK].given)
        return moss_args_fail(args, "--step and --chunk: expected one of them");
    const char *output = values[MOSS_OPT_OUTPUT].text;
    if (strcmp(output, "md") && strcmp(output, "csv") && strcmp(output, "json"))
        return moss_args_fail(args, "--output: found '%.60s', expected md, csv or json", output);
    const bool asks = values[MOSS_OPT_HELP].given || values[MOSS_OPT_VERSION].given;
    if (args->command == MOSS_CMD_EVAL && !asks
        && values[MOSS_OPT_TEXT].given + values[MOSS_OPT_TOKENS].given != 1)
        return moss_args_fail(args, "eval: expected either --text FILE or --tokens 1,2,3");
    return MOSS_EXIT_OK;
}

static int moss_args_parse_command(moss_args *args, int argc, char **argv)
{
    args->command = MOSS_CMD_RUN;
    for (int i = 0; argc > 1 && i < MOSS_N_COMMANDS; i++) {
        if (strcmp(argv[1], moss_commands[i].name))
            continue;
        args->command = moss_commands[i].command;
        return 2;
    }
    return 1;
}

int moss_args_parse(moss_args *args, int argc, char **argv)
{
    memset(args, 0, sizeof *args);
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    args->program = slash ? slash + 1 : argc > 0 ? argv[0] : "model";
    moss_args_set_defaults(args);
    for (int at = moss_args_parse_command(args, argc, argv); at < argc;) {
        int status = moss_args_parse_option(args, argc, argv, &at);
        if (status != MOSS_EXIT_OK)
            return status;
    }
    return moss_args_check(args);
}

static void moss_args_help_option(const moss_option_info *info, FILE *out)
{
    char left[64];
    snprintf(left, sizeof left, "%s%s%s%s%s", info->brief ? info->brief : "",
             info->brief ? ", " : "    ", info->name, info->metavar ? " " : "",
             info->metavar ? info->metavar : "");
    fprintf(out, "  %-30s %s", left, info->help);
    if (info->standard)
        fprintf(out, " (default: %s)", info->standard);
    fputc('\n', out);
}

void moss_args_help(const moss_args *args, FILE *out)
{
    fprintf(out, "usage: %s [run|bench|eval|info] [options]\n\n", args->program);
    for (int i = 0; i < MOSS_N_COMMANDS; i++)
        fprintf(out, "  %-6s %s\n", moss_commands[i].name, moss_commands[i].help);
    fprintf(out, "\noptions of %s:\n", moss_command_name(args->command));
    for (int i = 0; i < MOSS_N_OPTIONS; i++)
        if (moss_options[i].commands & args->command)
            moss_args_help_option(&moss_options[i], out);
    fputs("\nexit codes: 0 ok, 1 the input is wrong, 2 usage, 3 the environment\n", out);
}

int32_t moss_args_ints(const char *text, int32_t *out, int32_t room)
{
    int32_t n = 0;
    for (const char *at = text;; n++) {
        char *end;
        long long number = strtoll(at, &end, 10);
        if (n < room)
            out[n] = (int32_t)number;
        if (*end != ',')
            return n + 1;
        at = end + 1;
    }
}
