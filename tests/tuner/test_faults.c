/* Faults: candidates with a fault injected, none of which may be accepted where its results are others.
 *
 *   test_faults N [--seed S] [--journal FILE] [--most M] [--part I/K]
 *
 * Candidates are the kernels of a small model at their default and at another point, by storage type; a fault is one
 * change of a template's text, or two. No candidate comes twice. Each is tried as `mossc tune` would try it; one that
 * is accepted is run again on other sizes and inputs, where every bit must be that of the template as it is: a wrong
 * kernel that was accepted shows there. The journal has a line for each that is done: it is not done again.
 * --most: end after about so many. --part: every K-th kernel only.
 * Exit code: 0 all is done, and no wrong one was accepted; 1 one was; 2 usage; 3 trouble; 10 there is more to do.
 */
#include "trial_tools.h"

#include "../../compiler/interrupt.h"
#include "../../tuner/kernel_call.h"
#include "../../tuner/watch.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { FAULTS_A_FILE = 60, OTHER_WORKS = 5, FAULTS_A_KIND = 60, LEAST_KINDS = 6, POINTS = 2, MAX_KINDS = 512, MOST_PLACES = 2048 };
static const double deadline = 0.5;

static const struct { const char *from, *to; } changes[] = {
    { " < ", " <= " }, { " <= ", " < " }, { " + ", " - " }, { " - ", " + " }, { " * ", " + " }, { " == ", " != " },
    { " && ", " || " }, { " > ", " >= " }, { " / ", " * " }, { "first", "last" }, { "last", "first" },
    { "token", "pair" }, { "pair", "token" }, { "n_in", "n_out" }, { "n_out", "n_in" }, { "n_rows", "rows" },
    { "tile_rows", "tail_rows" }, { "tail_rows", "tile_rows" }, { "n_lo", "n_hi" }, { "n_hi", "n_lo" },
    { "LANES", "(LANES - 1)" }, { "begin", "(begin + 1)" }, { "? 0 ", "? 1 " }, { "? 1 ", "? 0 " },
    { "vset(0)", "vset(1)" }, { "in_stride", "out_stride" }, { "group", "(group + 1)" },
    { "key_block", "(key_block - 1)" }, { "accumulate", "!accumulate" }, { "fresh", "!fresh" }, { "= 0;", "= 1;" },
    { "k++", "k += 2" }, { "row + r", "row" }, { "j / 2", "j" }, { "top_k", "(top_k + 1)" },
    { "n_panels", "(n_panels + 1)" }, { "panel_len", "(panel_len - 4)" }, { "head", "0" },
    { " + 1", " + 2" }, { " - 1", "" }, { "panel", "(panel - 1)" }, { "offsets", "(offsets + 1)" },
    { "slots", "(slots + 1)" }, { "bias", "(bias + 1)" }, { "has_bias", "!has_bias" }, { "gates", "(gates + 1)" },
    { "position", "(position + 1)" }, { "window", "(window + 1)" },
};
enum { N_CHANGES = sizeof changes / sizeof *changes };

typedef struct { DType dtype; int job, point; } Kind;
typedef struct { int change; size_t at; } Spot;          /* `at` in the template's body */
typedef struct { Spot places[2]; int n; } Fault;

typedef struct {
    int n, most, part, n_parts;
    uint64_t seed;
    const char *path;
    FILE *journal;
    int done[MAX_KINDS];         /* of each kind, in the order of its faults */
    int n_done, wrong;           /* done: in this run */
} Faults;

static uint64_t bits(uint64_t *state)
{
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state >> 11;
}

/* ---- kinds ---- */

static const DType dtypes[] = { DTYPE_BF16, DTYPE_Q8, DTYPE_F32, DTYPE_Q4, DTYPE_F16 };
enum { N_STORED = sizeof dtypes / sizeof *dtypes };

static int list_kinds(SearchRun *runs, const Job **jobs, Kind *kinds)
{
    int n = 0;
    for (int d = 0; d < N_STORED; d++) {
        int n_jobs;
        runs[d] = trial_run_of(dtypes[d]);
        jobs[d] = jobs_of_plan(trial_arena, runs[d].plan, &n_jobs);
        for (int j = 0; j < n_jobs; j++)
            for (int p = 0; p < POINTS && n < MAX_KINDS; p++)
                kinds[n++] = (Kind){ (DType)d, j, p };
    }
    return n;
}

/* ---- faults ---- */

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

/* Where the text of a change stands as words of its own. */
static int list_places(const char *body, Spot *places)
{
    int n = 0;
    for (int c = 0; c < N_CHANGES; c++) {
        const char *from = changes[c].from;
        const size_t len = strlen(from);
        for (const char *at = strstr(body, from); at && n < MOST_PLACES; at = strstr(at + 1, from))
            if (!(is_word(from[0]) && is_word(at[-1])) && !(is_word(from[len - 1]) && is_word(at[len])))
                places[n++] = (Spot){ c, (size_t)(at - body) };
    }
    return n;
}

static bool overlap(Spot a, Spot b)
{
    return a.at < b.at + strlen(changes[b.change].from) && b.at < a.at + strlen(changes[a.change].from);
}

static bool is_known(const Fault *faults, int n, const Fault *fault)
{
    for (int i = 0; i < n; i++)
        if (faults[i].n == fault->n && memcmp(faults[i].places, fault->places, sizeof(Spot) * (size_t)fault->n) == 0)
            return true;
    return false;
}

/* n faults of a template: single ones in random order, at most two in three, then pairs. Fewer if there are no more. */
static int draw_faults(const Template *template, uint64_t seed, int n, Fault *faults)
{
    Spot *places = arena_array(trial_arena, Spot, MOST_PLACES);
    int n_places = list_places(template->body, places), found = 0;
    for (int i = n_places - 1; i > 0; i--) {
        int j = (int)(bits(&seed) % (uint64_t)(i + 1));
        Spot kept = places[i];
        places[i] = places[j];
        places[j] = kept;
    }
    while (found < n_places && found < (2 * n + 2) / 3) {
        memset(&faults[found], 0, sizeof *faults);
        faults[found].places[0] = places[found];
        faults[found++].n = 1;
    }
    for (long tries = 0; found < n && tries < 100L * n; tries++) {
        Fault fault;
        memset(&fault, 0, sizeof fault);
        fault.n = 2;
        fault.places[0] = places[bits(&seed) % (uint64_t)n_places];
        fault.places[1] = places[bits(&seed) % (uint64_t)n_places];
        /* The later place first: so it is where it was when the other is changed. */
        if (fault.places[0].at > fault.places[1].at && !overlap(fault.places[0], fault.places[1])
            && !is_known(faults, found, &fault))
            faults[found++] = fault;
    }
    return found;
}

static Template with_fault(const Template *template, const char *name, const Fault *fault, Text *what)
{
    Template changed = *template;
    changed.name = name;
    for (int i = 0; i < fault->n; i++) {
        const Spot place = fault->places[i];
        const char *from = changes[place.change].from, *to = changes[place.change].to, *at = changed.body + place.at;
        const char *line = at, *end = at + strcspn(at, "\n");
        while (line > changed.body && line[-1] != '\n')
            line--;
        line += strspn(line, " ");
        text_printf(what, "%s`%s` -> `%s` in: %.*s", i ? "; " : "", from, to, (int)(end - line), line);
        changed.body = arena_printf(trial_arena, "%.*s%s%s", (int)place.at, changed.body, to, at + strlen(from));
    }
    return changed;
}

/* ---- the journal ---- */

/* What is done; a line that was cut is not. */
static bool read_journal(Faults *f)
{
    char line[4096], head[100], want[100];
    long good = 0;
    snprintf(want, sizeof want, "faults %d seed %llu part %d/%d\n", f->n, (unsigned long long)f->seed, f->part,
             f->n_parts);
    f->journal = fopen(f->path, "a+");
    if (!f->journal || fseek(f->journal, 0, SEEK_SET) != 0)
        return false;
    if (fgets(head, sizeof head, f->journal) && strcmp(head, want) != 0) {
        fprintf(stderr, "%s is of other faults: %s", f->path, head);
        return false;
    }
    good = ftell(f->journal);
    for (int kind; good > 0 && fgets(line, sizeof line, f->journal) && line[strlen(line) - 1] == '\n';) {
        if (sscanf(line, "%d\t", &kind) != 1 || kind < 0 || kind >= MAX_KINDS)
            return false;
        f->done[kind]++;
        f->wrong += strstr(line, "\taccepted wrong\t") != NULL;
        good = ftell(f->journal);
    }
    if (ftruncate(fileno(f->journal), good) != 0 || fseek(f->journal, 0, SEEK_END) != 0)
        return false;
    return good > 0 || (fputs(want, f->journal) >= 0 && fflush(f->journal) == 0);
}

/* ---- trying ---- */

typedef struct {
    SearchRun *run;
    SearchState state;
    double values[TEMPLATE_MAX_PARAMS];      /* of the point that is tried */
    bool same_bits;              /* must a right kernel with them give the default's bits? */
    Work *others[OTHER_WORKS];
    Faults *faults;
    int kind;
} Trying;

/* What the template as it is gives, at this point, on sizes that no check of the search has. */
static void make_others(Trying *t, const char *plain)
{
    static const int tokens[2][OTHER_WORKS] = { { 2, 11, 48, 170, 600 }, { 1, 1, 1, 1, 1 } };
    static const int positions[OTHER_WORKS] = { 130, 0, 509, 1010, 300 };
    const SearchState *state = &t->state;
    char words[TRIAL_DETAIL_LEN];
    KernelCall *call = kernel_load(plain, "", words, sizeof words);
    NEED(call);
    for (int i = 0; i < OTHER_WORKS; i++) {
        const WorkSpec spec = { .shape = job_work_shape(state->job), .kind = WORK_CHECK, .seed = 1000 + (uint64_t)i,
                                .n_tokens = tokens[state->job->phase == PLAN_DECODE][i], .position = positions[i] };
        t->others[i] = work_new(&spec, t->same_bits ? NULL : t->run->reader);
        NEED(t->others[i]);
        work_set_scratch(t->others[i], job_scratch(state->job, t->values));
        NEED(kernel_bind(call, t->others[i], words, sizeof words));
        work_reset(t->others[i]);
        kernel_run(call, 0);
        work_keep_bits(t->others[i]);
    }
    kernel_free(call);
}

typedef struct { const Trying *t; const TrialRequest *request; } Again;

static void run_again(void *context)
{
    const Again *again = context;
    TrialRequest request = *again->request;
    char words[TRIAL_DETAIL_LEN];
    request.n_checks = 1;
    for (int i = 0; i < OTHER_WORKS; i++) {
        request.checks[0] = again->t->others[i];
        if (!(trial_check(&request, words, sizeof words) <= 1)) {
            fprintf(stderr, "  %s\n", words);
            _exit(9);
        }
    }
}

/* Which of the checks it was that a wrong result did not pass. */
static const char *caught_by(const TrialResult *result)
{
    if (result->status != TRIAL_WRONG)
        return trial_status_text(result->status);
    if (strstr(result->detail, "behind a buffer"))
        return "canary";
    int tokens = atoi(result->detail);
    bool nan = strstr(result->detail, ": nan") || strstr(result->detail, ": -nan") || strstr(result->detail, "inf,");
    return arena_printf(trial_arena, "%s, %d tokens", strstr(result->detail, "bit for bit") ? "bits of the default"
                        : nan ? "not a number" : "reference", tokens);
}

static double child_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    return (double)usage.ru_utime.tv_sec + 1e-6 * (double)usage.ru_utime.tv_usec;
}

/* One that had not the CPU for its time has not hung. */
static void try_once(TrialRequest *request, TrialResult *result)
{
    for (request->deadline = deadline; ; request->deadline *= 4) {
        double begin = child_seconds();
        trial_run(request, result);
        if (result->status != TRIAL_HUNG || child_seconds() - begin > deadline / 3)
            return;
    }
}

/* As a search does with a winner: does it stop when compiled with its arrays guarded? */
static bool leaves_array(const Trying *t, const Template *template, const TrialRequest *accepted)
{
    Text source = { 0 };
    TrialResult result;
    TrialRequest request = *accepted;
    kernel_file_write(template, t->values, &source);
    const Candidate guarded = trial_compile_guarded(t->run, &source);
    text_free(&source);
    request.path = guarded.path;
    request.suffix = "";
    request.same_bits = false;
    if (guarded.built)
        try_once(&request, &result);
    unlink(guarded.path);
    return guarded.built && result.status == TRIAL_CRASHED;
}

static void judge(Trying *t, const Candidate *file, const Template *template, int i, const char *what)
{
    TrialRequest request = trial_request(&t->state, file, arena_printf(trial_arena, "%d", i), t->values);
    TrialResult result = { .status = TRIAL_BUILD_FAILED };
    request.same_bits = t->same_bits;
    if (file->built)
        try_once(&request, &result);
    const char *caught = caught_by(&result);
    if (result.status == TRIAL_OK) {
        Again again = { t, &request };
        const bool same = watch_run(run_again, &again, 60).status == TRIAL_OK;
        const bool guarded = !same && leaves_array(t, template, &request);
        caught = same ? "same results" : guarded ? "bounds of arrays" : "accepted wrong";
        t->faults->wrong += !same && !guarded;
    }
    fprintf(t->faults->journal, "%d\t%s\t%s\t%s\t%s\n", t->kind, trial_status_text(result.status), caught,
            t->state.job->key, what);
    t->faults->n_done++;
}

/* ---- building ---- */

/* A compiler that also tells all it says to a file, where those that do not compile are named. It does not optimise: a
 * wrong kernel is wrong in any case, and nearly all the time is the compiler's. */
static void listen_to_compiler(SearchRun *run)
{
    ToolCommand cc = { 0 };
    tool_add(&cc, "sh");
    tool_add(&cc, "-c");
    tool_add(&cc, arena_printf(trial_arena, "exec \"$@\" -O0 2>%s/words", trial_folder));
    tool_add(&cc, "sh");
    for (int i = 0; i < run->builder.cc.n; i++)
        tool_add(&cc, run->builder.cc.args[i]);
    run->builder.cc = cc;
}

static const char *fault_name(const Trying *t, int i)
{
    return arena_printf(trial_arena, "%sf%d", t->state.job->template->name, i);
}

/* Marks those that the compiler named. False: none. */
static bool find_failed(const Trying *t, int n, bool *failed)
{
    Text words = { 0 };
    char bytes[4096];
    bool found = false;
    FILE *file = fopen(arena_printf(trial_arena, "%s/words", trial_folder), "r");
    for (size_t len; file && (len = fread(bytes, 1, sizeof bytes, file)) > 0;)
        text_append(&words, bytes, len);
    if (file)
        fclose(file);
    for (int i = 0; i < n && words.data; i++)
        if (!failed[i] && strstr(words.data, arena_printf(trial_arena, "%s_", fault_name(t, i))))
            found = failed[i] = true;
    text_free(&words);
    return found;
}

/* One file of those that compile; which do not is known then. */
static Candidate build(const Trying *t, const Template *templates, int n, bool *failed)
{
    for (;;) {
        Text source = { 0 };
        kernel_file_begin(&source);
        for (int i = 0; i < n; i++)
            if (!failed[i])
                kernel_file_add(&templates[i], t->values, arena_printf(trial_arena, "%d", i), &source);
        Candidate file = trial_compile(t->run, &source);
        text_free(&source);
        if (file.built || interrupt_came())
            return file;
        if (!find_failed(t, n, failed)) {
            fprintf(stderr, "the compiler says no name: %s\n", file.words);
            NEED(n == 1);
            failed[0] = true;
        }
    }
}

static void try_file(Trying *t, const Fault *faults, int n)
{
    Template templates[FAULTS_A_FILE];
    Text what[FAULTS_A_FILE] = { 0 };
    bool failed[FAULTS_A_FILE] = { false };
    ArenaMark mark = arena_mark(trial_arena);
    for (int i = 0; i < n; i++)
        templates[i] = with_fault(t->state.job->template, fault_name(t, i), &faults[i], &what[i]);
    Candidate file = build(t, templates, n, failed);
    for (int i = 0; i < n && !interrupt_came(); i++) {
        Candidate one = file;
        one.built = file.built && !failed[i];
        judge(t, &one, &templates[i], i, what[i].data);
    }
    for (int i = 0; i < n; i++)
        text_free(&what[i]);
    NEED(fflush(t->faults->journal) == 0);
    unlink(file.path);
    arena_release(trial_arena, mark);
}

/* ---- the whole ---- */

static const char *build_plain(const Trying *t, const double *values)
{
    Text source = { 0 };
    kernel_file_write(t->state.job->template, values, &source);
    Candidate plain = trial_compile(t->run, &source);
    text_free(&source);
    NEED(plain.built);
    return plain.path;
}

static void begin_kind(Trying *t, Faults *f, SearchRun *run, const Job *job, int kind, int point)
{
    uint64_t drawn = f->seed * 77 + (uint64_t)kind + 1;
    *t = (Trying){ .run = run, .state = { .job = job }, .faults = f, .kind = kind, .same_bits = true };
    bits(&drawn);
    job_values(job, point && job->n_points ? &job->points[bits(&drawn) % (uint64_t)job->n_points] : &job->initial,
               t->values);
    if (space_param(&job->space, "key_block") >= 0) {
        const int at = template_param(job->template, "key_block");
        t->same_bits = t->values[at] == job->values[at];
    }
    t->state.default_path = build_plain(t, job->values);
    NEED(search_work_make(run, &t->state));
    NEED(search_work_keep_bits(run, &t->state));
    make_others(t, build_plain(t, t->values));
}

static void end_kind(Trying *t)
{
    for (int i = 0; i < OTHER_WORKS; i++)
        work_free(t->others[i]);
    search_work_drop(&t->state);
}

static bool has_time(const Faults *f) { return !interrupt_came() && (f->most == 0 || f->n_done < f->most); }

static void run_kind(Faults *f, SearchRun *run, const Job *job, int kind, int point, int n)
{
    Fault *faults = arena_array(trial_arena, Fault, (size_t)n);
    n = draw_faults(job->template, f->seed * 1000003 + (uint64_t)kind * 7919 + 1, n, faults);
    if (f->done[kind] >= n || !has_time(f))
        return;
    Trying t;
    begin_kind(&t, f, run, job, kind, point);
    while (f->done[kind] < n && has_time(f)) {
        int count = n - f->done[kind] < FAULTS_A_FILE ? n - f->done[kind] : FAULTS_A_FILE;
        try_file(&t, faults + f->done[kind], count);
        f->done[kind] += count;
    }
    end_kind(&t);
}

/* True when all of this part are done. */
static bool run_faults(Faults *f)
{
    SearchRun runs[N_STORED];
    const Job *jobs[N_STORED];
    Kind kinds[MAX_KINDS];
    int n_kinds = list_kinds(runs, jobs, kinds), n = f->n / FAULTS_A_KIND;
    n = n < LEAST_KINDS ? LEAST_KINDS : n > n_kinds ? n_kinds : n;
    for (int i = f->part; i < n && !interrupt_came(); i += f->n_parts) {
        const Kind *kind = &kinds[(long)i * n_kinds / n];
        SearchRun *run = &runs[kind->dtype];
        if (f->done[i] == 0 || f->done[i] < (long)f->n * (i + 1) / n - (long)f->n * i / n) {
            SearchRun one = *run;
            listen_to_compiler(&one);
            run_kind(f, &one, &jobs[kind->dtype][kind->job], i, kind->point,
                     (int)((long)f->n * (i + 1) / n - (long)f->n * i / n));
            run->reader = one.reader;
        }
    }
    return has_time(f);
}

static bool read_options(int argc, char **argv, Faults *f)
{
    *f = (Faults){ .n = argc > 1 ? atoi(argv[1]) : 0, .n_parts = 1, .seed = 1 };
    for (int i = 2; i + 1 < argc; i += 2)
        if (strcmp(argv[i], "--seed") == 0)
            f->seed = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--journal") == 0)
            f->path = argv[i + 1];
        else if (strcmp(argv[i], "--most") == 0)
            f->most = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--part") != 0 || sscanf(argv[i + 1], "%d/%d", &f->part, &f->n_parts) != 2)
            return false;
    return f->n > 0 && argc % 2 == 0 && f->part >= 0 && f->part < f->n_parts;
}

int main(int argc, char **argv)
{
    Faults f;
    if (!read_options(argc, argv, &f)) {
        fprintf(stderr, "usage: test_faults N [--seed S] [--journal FILE] [--most M] [--part I/K]\n");
        return 2;
    }
    trial_tools_begin();
    interrupt_guard(trial_folder);
    if (!f.path)
        f.path = arena_printf(trial_arena, "%s/journal", trial_folder);
    int code = 3;
    if (read_journal(&f)) {
        bool all = run_faults(&f);
        code = !all ? 10 : f.wrong ? 1 : 0;
        fclose(f.journal);
        if (!f.most)
            code = system(arena_printf(trial_arena, "sh %s/tests/tuner/faults.sh --sum %s", UNIT_ROOT, f.path)) ? 1
                 : code;
    }
    interrupt_unguard();
    interrupt_check();
    trial_tools_end();
    return code;
}
