/* The differential test: compiled artifacts against the float64 reference.
 *
 * Input: the compiler ($MOSSC or --mossc), targets, storage types, a seed and a number of random
 * graphs. Output: one line for each check, then "N passed, N failed, N skipped".
 * Exit code: 0 when none failed and at least one was made, 1 otherwise, 2 usage.
 * Every check is a process of its own, two at a time: one that crashes is one failure.
 * Invariant: the same options make the same checks; what failed stays in the work directory.
 */
#include "check.h"
#include "process.h"

#include "../../ir/target.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char usage_text[] =
    "usage: diff [options]\n"
    "  --mossc CMD       the compiler (default: $MOSSC)\n"
    "  --target T[,T]    targets (default: host)\n"
    "  --quant Q[,Q]     f32, bf16, f16, q8, q4, own (as the checkpoint); default: f32,bf16,f16\n"
    "  --rotate          one of the storage types for each case, in turn, not all of them\n"
    "  --cases N         random graphs (default: 32)\n"
    "  --seed N          of the random graphs (default: 1)\n"
    "  --golden DIR      golden folders (default: tests/data/golden_logits; \"\": none)\n"
    "  --graph FILE      only this graph, with random weights\n"
    "  --filter TEXT     only checks whose target/quant/case contains TEXT\n"
    "  --threads N[,N]   thread counts (default: 1,2,3)\n"
    "  --runner CMD      runs artifacts of another processor family, e.g. qemu-aarch64\n"
    "  --exact           prefill, steps, chunks and threads must agree to the bit\n"
    "  --jobs N          checks at the same time (default: 2)\n"
    "  --work DIR        where checks work (default: a new directory under $TMPDIR)\n"
    "  --keep            keep what passed, too\n"
    "  --list            print the names of the checks and make none\n"
    "  --show CASE       print a case's graph and make no check\n";

enum { MAX_NAMES = 16, MAX_JOBS = 64, LINE = 2048 };

typedef struct { const char *name[MAX_NAMES]; int n; } Names;

typedef struct {
    const char *mossc, *golden, *graph, *filter, *runner, *work, *show;
    Names targets, quants;
    int n_random, n_jobs;
    uint64_t seed;
    int threads[MAX_THREAD_COUNTS], n_threads;
    bool rotate, exact, keep, list;
} Options;

typedef struct { pid_t pid; const Check *check; } Job;

typedef struct {
    const Options *options;
    Check *checks;
    int n_checks;
    Job jobs[MAX_JOBS];
    int n_running, count[3];   /* by Verdict */
} Run;

/* --- Options --- */

static _Noreturn void usage(const char *problem)
{
    fprintf(stderr, "diff: %s\n%s", problem, usage_text);
    exit(2);
}

static Names split_names(Arena *arena, const char *text)
{
    Names names = { 0 };
    char *rest = NULL;
    for (char *name = strtok_r(arena_strdup(arena, text), ",", &rest); name;
         name = strtok_r(NULL, ",", &rest)) {
        if (names.n == MAX_NAMES)
            usage("too many names");
        names.name[names.n++] = name;
    }
    return names;
}

static int64_t parse_number(const char *text, int64_t least, int64_t most)
{
    char *end;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || value < least || value > most)
        usage("a number is wrong");
    return value;
}

static void parse_threads(Arena *arena, const char *text, Options *options)
{
    Names names = split_names(arena, text);
    if (names.n == 0 || names.n > MAX_THREAD_COUNTS)
        usage("--threads is wrong");
    for (int i = 0; i < names.n; i++)
        options->threads[i] = (int)parse_number(names.name[i], 1, 1024);
    options->n_threads = names.n;
}

static void parse_option(Arena *arena, int option, const char *value, Options *options)
{
    switch (option) {
    case 'm': options->mossc = value; return;
    case 't': options->targets = split_names(arena, value); return;
    case 'q': options->quants = split_names(arena, value); return;
    case 'R': options->rotate = true; return;
    case 'n': options->n_random = (int)parse_number(value, 0, 100000); return;
    case 's': options->seed = (uint64_t)parse_number(value, 0, INT64_MAX); return;
    case 'g': options->golden = *value ? value : NULL; return;
    case 'G': options->graph = value; return;
    case 'f': options->filter = value; return;
    case 'T': parse_threads(arena, value, options); return;
    case 'r': options->runner = value; return;
    case 'e': options->exact = true; return;
    case 'j': options->n_jobs = (int)parse_number(value, 1, MAX_JOBS); return;
    case 'w': options->work = value; return;
    case 'k': options->keep = true; return;
    case 'l': options->list = true; return;
    case 'S': options->show = value; return;
    case 'h': fputs(usage_text, stdout); exit(0);
    default: usage("unknown option");
    }
}

static Options parse_options(Arena *arena, int argc, char **argv)
{
    static const struct option known[] = {
        { "mossc", 1, NULL, 'm' }, { "target", 1, NULL, 't' }, { "quant", 1, NULL, 'q' },
        { "rotate", 0, NULL, 'R' }, { "cases", 1, NULL, 'n' }, { "seed", 1, NULL, 's' },
        { "golden", 1, NULL, 'g' }, { "graph", 1, NULL, 'G' }, { "filter", 1, NULL, 'f' },
        { "threads", 1, NULL, 'T' }, { "runner", 1, NULL, 'r' }, { "exact", 0, NULL, 'e' }, { "jobs", 1, NULL, 'j' },
        { "work", 1, NULL, 'w' }, { "keep", 0, NULL, 'k' }, { "list", 0, NULL, 'l' },
        { "show", 1, NULL, 'S' }, { "help", 0, NULL, 'h' }, { 0 }
    };
    Options options = {
        .mossc = getenv("MOSSC"), .golden = "tests/data/golden_logits", .filter = "",
        .targets = { { "host" }, 1 }, .quants = { { "f32", "bf16", "f16" }, 3 },
        .n_random = 32, .n_jobs = 2, .seed = 1, .threads = { 1, 2, 3 }, .n_threads = 3,
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1; )
        parse_option(arena, option, optarg, &options);
    if (optind < argc)
        usage("no arguments are taken besides options");
    if (!options.mossc && !options.list && !options.show)
        usage("no compiler: set MOSSC or --mossc");
    return options;
}

/* --- The list of checks --- */

static Family host_family(void)
{
#ifdef __aarch64__
    return FAMILY_AARCH64;
#else
    return FAMILY_X86;
#endif
}

/* Can artifacts for `name` be run, and by which runner (NULL: none needed)? */
static bool target_runs(const Options *options, const char *name, const char **runner)
{
    TargetId id;
    if (!target_from_name(name, &id))
        usage("unknown target");
    id = target_resolve(id);
    *runner = target_info(id)->family == host_family() ? NULL : options->runner;
    return *runner || target_runs_here(id);
}

static bool quant_chosen(const Options *options, int quant, int index)
{
    return !options->rotate || index % options->quants.n == quant;
}

static void add_check(Run *run, Arena *arena, const char *target, const char *quant,
                      const char *runner, const Case *test)
{
    const Options *options = run->options;
    Check check = {
        .test = test, .mossc = options->mossc, .target = target, .quant = quant,
        .runner = runner, .n_threads = options->n_threads, .exact = options->exact,
        .name = arena_printf(arena, "%s/%s/%s", target, quant, test->name),
        .dir = arena_printf(arena, "%s/%s-%s-%s", options->work, target, quant, test->name),
    };
    memcpy(check.threads, options->threads, sizeof check.threads);
    if (strstr(check.name, options->filter))
        run->checks[run->n_checks++] = check;
}

static void list_checks(Run *run, Arena *arena, const Case *cases, int n_cases)
{
    const Options *options = run->options;
    size_t most = (size_t)(n_cases * options->targets.n * options->quants.n);
    run->checks = arena_array(arena, Check, most);
    for (int t = 0; t < options->targets.n; t++) {
        const char *runner, *target = options->targets.name[t];
        bool runs = target_runs(options, target, &runner);
        int before = run->n_checks;
        for (int c = 0; c < n_cases; c++)
            for (int q = 0; q < options->quants.n; q++)
                if (quant_chosen(options, q, c))
                    add_check(run, arena, target, options->quants.name[q], runner, &cases[c]);
        if (runs || options->list)
            continue;
        printf("SKIP  %s: THIS MACHINE CANNOT RUN IT (%d checks)\n", target, run->n_checks - before);
        run->count[VERDICT_SKIPPED] += run->n_checks - before;
        run->n_checks = before;
    }
}

/* --- Running them --- */

/* In a process of its own. */
static _Noreturn void job_main(const Check *check, bool keep)
{
    static const char *const marks[] = { "ok   ", "FAIL ", "SKIP " };
    Arena *arena = arena_new();
    const char *words = "";
    tree_remove(check->dir);
    Verdict verdict = VERDICT_FAILED;
    if (mkdir(check->dir, 0777) == 0)
        verdict = check_run(check, arena, &words);
    else
        words = "cannot make its directory";
    char line[LINE];
    int len = snprintf(line, sizeof line - 1, "%s %s: %s", marks[verdict], check->name, words);
    if (len > LINE - 2)
        len = LINE - 2;
    line[len++] = '\n';
    if (verdict != VERDICT_FAILED && !keep)
        tree_remove(check->dir);
    if (write(STDOUT_FILENO, line, (size_t)len) != len)   /* one write: lines do not mix */
        verdict = VERDICT_FAILED;
    arena_free(arena);
    _exit((int)verdict);
}

static void job_start(Run *run, const Check *check)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        job_main(check, run->options->keep);
    if (pid < 0) {
        printf("FAIL  %s: cannot fork\n", check->name);
        run->count[VERDICT_FAILED]++;
        return;
    }
    run->jobs[run->n_running++] = (Job){ pid, check };
}

static void job_wait(Run *run)
{
    int status;
    pid_t pid = wait(&status);
    for (int i = 0; i < run->n_running; i++) {
        if (run->jobs[i].pid != pid)
            continue;
        bool regular = WIFEXITED(status) && WEXITSTATUS(status) <= VERDICT_SKIPPED;
        if (!regular)
            printf("FAIL  %s: the check itself crashed (status %#x)\n", run->jobs[i].check->name,
                   (unsigned)status);
        run->count[regular ? WEXITSTATUS(status) : VERDICT_FAILED]++;
        run->jobs[i] = run->jobs[--run->n_running];
        return;
    }
}

static void run_checks(Run *run)
{
    for (int i = 0; i < run->n_checks; i++) {
        if (run->n_running == run->options->n_jobs)
            job_wait(run);
        job_start(run, &run->checks[i]);
    }
    while (run->n_running)
        job_wait(run);
}

static int print_list(const Run *run)
{
    for (int i = 0; i < run->n_checks; i++)
        printf("%s\n", run->checks[i].name);
    return 0;
}

static int print_case(const Case *cases, int n_cases, const char *name)
{
    for (int i = 0; i < n_cases; i++)
        if (strcmp(cases[i].name, name) == 0) {
            printf("%s", cases[i].graph_text ? cases[i].graph_text : cases[i].graph_path);
            return 0;
        }
    usage("no such case");
}

/* A directory of our own unless one was given. */
static const char *make_work(Arena *arena, const char *given)
{
    const char *base = getenv("TMPDIR");
    char *made = arena_printf(arena, "%s/mossc-diff-XXXXXX", base ? base : "/tmp");
    if (given ? access(given, W_OK) != 0 && mkdir(given, 0777) != 0 : !mkdtemp(made)) {
        fprintf(stderr, "diff: no work directory\n");
        exit(1);
    }
    return given ? given : made;
}

static int finish(const Run *run, const char *given_work)
{
    const int *count = run->count;
    bool failed = count[VERDICT_FAILED] > 0;
    printf("%d passed, %d failed, %d skipped\n", count[VERDICT_PASSED], count[VERDICT_FAILED],
           count[VERDICT_SKIPPED]);
    if (failed)
        printf("what failed is in %s\n", run->options->work);
    else if (!given_work && !run->options->keep)
        tree_remove(run->options->work);
    return failed || count[VERDICT_PASSED] + count[VERDICT_SKIPPED] == 0;
}

int main(int argc, char **argv)
{
    Arena *arena = arena_new();
    Options options = parse_options(arena, argc, argv);
    const char *given_work = options.work;
    Case *cases;
    int n_cases = options.graph ? cases_of_graph(arena, options.seed, options.graph, &cases)
                                : cases_make(arena, options.seed, options.n_random, options.golden, &cases);
    if (n_cases < 0)
        usage(options.graph ? "--graph is not one"
                            : "no golden folders: run at the root of the repository, or set --golden");
    if (options.show)
        return print_case(cases, n_cases, options.show);
    options.work = options.list ? "" : make_work(arena, given_work);
    Run run = { .options = &options };
    list_checks(&run, arena, cases, n_cases);
    if (!options.list)
        run_checks(&run);
    int code = options.list ? print_list(&run) : finish(&run, given_work);
    arena_free(arena);
    return code;
}
