/* mossc: the command line. One row a command; each returns an exit code. */
#include "closest.h"
#include "driver.h"
#include "graph_read.h"
#include "import.h"
#include "inspect.h"
#include "params.h"
#include "plan.h"
#include "planned.h"
#include "run_command.h"
#include "../codegen/codegen.h"
#include "../tuner/choices.h"
#include "../tuner/db_command.h"
#include "../tuner/tune.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char version[] = "mossc " MOSSC_VERSION;

static int print_and_free(Text *text)
{
    fwrite(text->data ? text->data : "", 1, text->len, stdout);
    text_free(text);
    return 0;
}

static int compile_command(Compilation *c, const char *name)
{
    (void)name;
    const char *emit = c->options->value[OPTION_EMIT];
    c->out = c->options->value[OPTION_OUTPUT];
    driver_compile(c, emit ? emit : "exe");
    return 0;
}

static int params_command(Compilation *c, const char *name)
{
    (void)name;
    Text text = { 0 };
    c->graph = graph_read_file(c->arena, c->diags, c->model);
    if (!c->graph)
        return 0;
    params_print(c->graph, c->options->value[OPTION_JSON] != NULL, &text);
    return print_and_free(&text);
}

/* What --device predicts of a plan; *n_threads are those that device starts unless -t says. False after reporting. */
static bool predict(Compilation *c, Inspection *inspection, int64_t n_context, int64_t *n_threads)
{
    const char *text = c->options->value[OPTION_DEVICE];
    Device device;
    if (!device_read(&device, c->diags, text))
        return false;
    const char *code = device_code(&device, c->diags, c->target);
    if (!code || !options_int(c->options, c->diags, OPTION_THREADS, 1, 1024, device_threads(&device), n_threads))
        return false;
    Prediction *prediction = arena_one(c->arena, Prediction);
    *prediction = predict_plan(c->plan, &device, code, (int)*n_threads, n_context);
    inspection->prediction = prediction;
    return true;
}

/* An artifact's manifest does not tell its operations by kind. */
static bool check_device(const Compilation *c, bool graph)
{
    if (graph || !c->options->value[OPTION_DEVICE])
        return true;
    diag_report(c->diags, DIAG_USAGE, NULL, "`--device` predicts from a MODEL.json; `%s` is compiled already",
                c->model);
    return false;
}

static int inspect_command(Compilation *c, const char *name)
{
    (void)name;
    Text text = { 0 };
    Inspection inspection;
    bool graph = driver_is_graph(c->model);
    if (!check_device(c, graph))
        return 0;
    if (graph ? !driver_plan(c, false)
              : !options_suit_artifact(c->options, c->diags)
                    || !inspect_artifact(c->arena, c->diags, c->model, MANIFEST_MARK, &inspection))
        return 0;
    if (graph)
        inspection = inspect_plan(c->plan);
    int64_t n_context = 0, n_threads = 0;
    if (!options_int(c->options, c->diags, OPTION_CONTEXT, 1, INT32_MAX, 4096, &n_context)
        || !options_int(c->options, c->diags, OPTION_THREADS, 1, 1024, graph ? c->n_threads : 1, &n_threads))
        return 0;
    if (c->options->value[OPTION_DEVICE] && !predict(c, &inspection, n_context, &n_threads))
        return 0;
    inspection_print(&inspection, n_context, (int)n_threads, c->options->value[OPTION_JSON] != NULL, &text);
    return print_and_free(&text);
}

static int import_command(Compilation *c, const char *name)
{
    const char *out = c->options->value[OPTION_FOLDER];
    if (out)
        import_folder(c->arena, c->diags, c->model, out, true);
    else
        diag_report(c->diags, DIAG_USAGE, NULL, "%s: `-o FOLDER` is missing: where the model goes", name);
    return 0;
}

/* "needs" and the words, as many a line as fit. */
static void print_features(const char *features, Text *out)
{
    enum { INDENT = 26, WIDTH = 100 };
    int col = 0;
    for (const char *at = features; *at; at += strspn(at, " ")) {
        int len = (int)strcspn(at, " ");
        if (col == 0 || col + 1 + len > WIDTH) {
            const bool first = at == features;
            col = INDENT + 5;
            text_printf(out, "%s%*s%-5s", first ? "" : "\n", INDENT, "", first ? "needs" : "");
        }
        text_printf(out, " %.*s", len, at);
        col += 1 + len;
        at += len;
    }
    text_printf(out, "%s", *features ? "\n" : "");
}

static int targets_command(Compilation *c, const char *name)
{
    (void)c, (void)name;
    Text text = { 0 };
    text_printf(&text, "%-14s %s\n", "target", "runs here");
    for (int i = 0; i < N_TARGETS; i++) {
        const Target *t = target_info((TargetId)i);
        text_printf(&text, "%-14s %-10s %s", t->name, target_runs_here((TargetId)i) ? "yes" : "no", t->summary);
        if (i == TARGET_HOST)
            text_printf(&text, ": %s", target_info(target_resolve(TARGET_HOST))->name);
        text_printf(&text, "\n");
        print_features(t->features, &text);
    }
    return print_and_free(&text);
}

static int devices_command(Compilation *c, const char *name)
{
    (void)c, (void)name;
    Text text = { 0 };
    devices_print(&text);
    return print_and_free(&text);
}

static int tune_row(Compilation *c, const char *name)
{
    (void)name;
    tune_command(c);
    return 0;
}

static int db_row(Compilation *c, const char *name)
{
    (void)name;
    db_command(c->arena, c->diags, c->options);
    return 0;
}

static int run_row(Compilation *c, const char *name)
{
    int code = run_command(c, name);
    return code < 0 ? 0 : code;
}

static const struct {
    const char *name, *arguments, *summary;
    Command command;
    bool needs_model;
    int (*run)(Compilation *c, const char *name);
} commands[] = {
    { "compile", "MODEL.json -o OUT [OPTIONS]", "a graph becomes a program, a library, sources, ...",
      COMMAND_COMPILE, true, compile_command },
    { "run",     "MODEL.json|ARTIFACT [OPTIONS]", "generate text",
      COMMAND_RUN, true, run_row },
    { "eval",    "MODEL.json|ARTIFACT --text FILE [OPTIONS]", "loss of a text: nats a token, bits a byte, perplexity",
      COMMAND_RUN, true, run_row },
    { "bench",   "MODEL.json|ARTIFACT [OPTIONS]", "tokens a second of prefill and generation",
      COMMAND_RUN, true, run_row },
    { "params",  "MODEL.json [--json]", "total and active parameters of every mode",
      COMMAND_PARAMS, true, params_command },
    { "inspect", "MODEL.json|ARTIFACT [OPTIONS]", "memory, operations and bytes a token, bounds",
      COMMAND_INSPECT, true, inspect_command },
    { "import",  "HF_FOLDER -o FOLDER", "a Hugging Face checkpoint becomes a graph and weights",
      COMMAND_IMPORT, true, import_command },
    { "tune",    "MODEL.json --db FILE [OPTIONS]", "find the kernels that are fastest on this machine",
      COMMAND_TUNE, true, tune_row },
    { "db",      "merge|show|prune|export FILE... [OPTIONS]", "tuning records: join, look at, thin out, write as text",
      COMMAND_DB, true, db_row },
    { "targets", "", "what can be compiled for, and what runs here",
      COMMAND_TARGETS, false, targets_command },
    { "devices", "", "phones, boards and servers that inspect --device predicts for",
      COMMAND_TARGETS, false, devices_command },
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static int help(FILE *file)
{
    fprintf(file, "%s: MossNet graphs become programs\n\nusage: mossc COMMAND ...\n\n", version);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(file, "  %-8s %-41s %s\n", commands[i].name, commands[i].arguments, commands[i].summary);
    fprintf(file, "\nmossc COMMAND --help lists a command's options. Exit codes: 0 ok, 1 the input is wrong,\n"
                  "2 usage, 3 the environment.\n");
    return file == stdout ? 0 : 2;
}

static int help_command(int i)
{
    Text text = { 0 };
    text_printf(&text, "usage: mossc %s %s\n%s\n\n", commands[i].name, commands[i].arguments, commands[i].summary);
    options_help(commands[i].command, &text);
    if (commands[i].command == COMMAND_COMPILE)
        text_printf(&text, "\nWithout -o, --emit ptx, ir, plan and dot go to standard output.\n");
    if (commands[i].command == COMMAND_TUNE)
        text_printf(&text, "\nmpirun -n N mossc tune ... (Open MPI): rank 0 decides and has the database, N - 1 others "
                           "measure.\n");
    if (commands[i].command == COMMAND_DB)
        db_help(&text);
    if (commands[i].command == COMMAND_RUN)
        text_printf(&text, "\nEvery other option goes to the artifact; ARTIFACT %s --help lists them.\n",
                    commands[i].name);
    return print_and_free(&text);
}

/* Prints what was reported, lets everything go and gives the exit code: `code`, or an error's. */
static int end(Compilation *c, int code)
{
    Text text = { 0 };
    diags_print(c->diags, &text);
    fputs(text.len ? text.data : "", stderr);
    text_free(&text);
    if (diags_exit_code(c->diags))
        code = diags_exit_code(c->diags);
    if (c->weights)
        weights_close(c->weights);
    arena_free(c->arena);
    return code;
}

static int unknown_command(const char *name)
{
    Arena *arena = arena_new();
    Compilation c = { .arena = arena, .diags = diags_new(arena) };
    bool planned = planned_report(c.diags, PLANNED_COMMAND, name);
    const char *names[N_COMMANDS];
    char hint[CLOSEST_HINT_LEN];
    for (int i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].name;
    if (!planned)
        diag_report(c.diags, DIAG_USAGE, NULL, "unknown command `%s`%s", name,
                    closest_hint(hint, name, names, N_COMMANDS));
    int code = end(&c, 0);
    return planned ? code : help(stderr);
}

static int run(int i, int argc, char **argv)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    Options options;
    Compilation c = { .arena = arena, .diags = diags, .options = &options, .choose = choices_from_records };
    int code = 0;
    if (options_parse(&options, diags, commands[i].command, argc, argv)) {
        if (options.value[OPTION_HELP]) {
            code = help_command(i);
        } else if (commands[i].needs_model != (options.n_rest > 0)
                   || (options.n_rest > 1 && !(commands[i].command & (COMMAND_RUN | COMMAND_DB)))) {
            diag_report(diags, DIAG_USAGE, NULL, "usage: mossc %s %s", commands[i].name, commands[i].arguments);
        } else {
            c.model = options.n_rest ? options.rest[0] : NULL;
            code = commands[i].run(&c, commands[i].name);
        }
    }
    errno = 0;
    if (fflush(stdout) != 0 || ferror(stdout))
        diag_report(c.diags, DIAG_FILE_WRITE, NULL, "standard output: %s", strerror(errno ? errno : EIO));
    return end(&c, code);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)
        return help(argc > 1 ? stdout : stderr);
    if (strcmp(name, "--version") == 0) {
        puts(version);
        return 0;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0)
            return run(i, argc - 2, argv + 2);
    return unknown_command(name);
}
