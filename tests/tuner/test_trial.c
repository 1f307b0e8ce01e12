/* Single trials: right kernels pass, and whatever is wrong with one is told by its status.
 *
 *   test_trial [NAME]               all tests or one; 120 faults
 *   test_trial --faults N [SEED]    N candidates with injected faults alone
 *
 * A fault is a change of a template's text at a random place. Those whose results the search would accept are run
 * again on other sizes and inputs, where every bit must be that of the template as it is: a wrong kernel that was
 * accepted shows there.
 */
#include "../../compiler/driver.h"
#include "../../compiler/outfile.h"
#include "../../tuner/kernel_call.h"
#include "../../tuner/search_work.h"
#include "../../tuner/watch.h"

#include <ctype.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "models.h"

static const char mixed[] =
    "{\"format\":\"mossnet-graph/1\",\"name\":\"mixed\",\"vocab_size\":50,\"d_model\":24,\"experts\":4,\"top_k\":[2,3],"
    "\"layers\":[{\"op\":\"mamba\"},{\"op\":\"attention\",\"heads\":4,\"kv_heads\":2,\"head_dim\":20,\"window\":50},"
    "{\"op\":\"attention\",\"heads\":2},{\"op\":\"mlp\",\"d_ff\":40}]}";

/* What every test stands on; also used where CUnit does not run. */
#define NEED(fact) need((fact), #fact, __LINE__)

static Arena *arena;
static char folder[64];

static void need(bool fact, const char *text, int line)
{
    if (fact)
        return;
    fprintf(stderr, "test_trial.c:%d: not so: %s\n", line, text);
    out_folder_erase(folder);
    exit(3);
}
static uint64_t seed = 1;

static uint64_t bits(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed >> 11;
}

/* A search that is not run: for its workloads and its compiler. */
static SearchRun run_of(DType dtype)
{
    int n;
    const Graph *graph = graph_read_text(arena, diags_new(arena), "mixed.json", mixed, strlen(mixed));
    NEED(graph);
    const TensorSpec *specs = graph_tensors(graph, arena, &n);
    DType *dtypes = arena_array(arena, DType, (size_t)n);
    for (int i = 0; i < n; i++)
        dtypes[i] = specs[i].matrix ? dtype : DTYPE_F32;
    Module *module = build_module(arena, graph, dtypes);
    TargetId target = target_resolve(TARGET_HOST);
    NEED(passes_run(module, pass_families(target), diags_new(arena), NULL, NULL));
    SearchRun run = { .arena = arena, .diags = diags_new(arena), .plan = plan_module(arena, graph, module, target) };
    run.builder = (Builder){ .arena = arena, .folder = folder, .target = target, .n_jobs = 2 };
    NEED(toolchain_find(arena, run.diags, target, NULL, &run.builder.cc));
    return run;
}

static Candidate compile(const SearchRun *run, const Text *source)
{
    static int n_files;
    Candidate candidate = candidate_write(&run->builder, run->diags, arena_printf(arena, "file%d", n_files++), source);
    candidates_compile(&run->builder, &candidate, 1);
    return candidate;
}

static TrialRequest request_of(const SearchState *state, const Candidate *candidate, const char *suffix,
                               const double *values)
{
    TrialRequest request = { .path = candidate->path, .suffix = suffix, .n_checks = state->n_checks,
                             .same_bits = state->has_bits,
                             .pack_len = job_scratch(state->job, values), .deadline = 3 };
    memcpy(request.checks, state->checks, sizeof request.checks);
    return request;
}

/* ---- every kernel of a model ---- */

/* Of each job its default and some points, in one file; all of them right, and alike to the bit. */
static void check_jobs(DType dtype)
{
    enum { POINTS = 3 };
    SearchRun run = run_of(dtype);
    int n;
    const Job *jobs = jobs_of_plan(arena, run.plan, &n);
    double (*values)[TEMPLATE_MAX_PARAMS] = arena_alloc(arena, sizeof *values * (size_t)(n * POINTS));
    Text source = { 0 };
    CU_ASSERT(n > 10);
    kernel_file_begin(&source);
    for (int i = 0; i < n * POINTS; i++) {
        const Job *job = &jobs[i / POINTS];
        const SpacePoint *drawn = &job->points[bits() % (uint64_t)job->n_points];
        job_values(job, i % POINTS ? drawn : &job->initial, values[i]);
        Template named = *job->template;
        named.name = arena_printf(arena, "%sk%d", named.name, i);
        kernel_file_add(&named, values[i], arena_printf(arena, "%d", i), &source);
    }
    Candidate file = compile(&run, &source);
    text_free(&source);
    NEED(file.built);
    for (int i = 0; i < n; i++) {
        SearchState state = { .job = &jobs[i], .default_path = file.path };
        NEED(search_work_make(&run, &state));
        for (int p = 0; p < POINTS; p++) {
            TrialRequest request = request_of(&state, &file, arena_printf(arena, "%d", i * POINTS + p),
                                              values[i * POINTS + p]);
            TrialResult result;
            trial_run(&request, &result);
            CU_ASSERT_EQUAL(result.status, TRIAL_OK);
            CU_ASSERT(result.max_error >= 0 && result.max_error <= 1);
            if (result.status != TRIAL_OK)
                printf("%s: %s: %s\n", jobs[i].key, trial_status_text(result.status), result.detail);
        }
        search_work_drop(&state);
    }
}

static void test_f32(void) { check_jobs(DTYPE_F32); }
static void test_bf16(void) { check_jobs(DTYPE_BF16); }
static void test_f16(void) { check_jobs(DTYPE_F16); }
static void test_q8(void) { check_jobs(DTYPE_Q8); }
static void test_q4(void) { check_jobs(DTYPE_Q4); }

/* ---- statuses ---- */

static const Job *job_named(const SearchRun *run, const char *begin)
{
    int n;
    const Job *jobs = jobs_of_plan(arena, run->plan, &n);
    for (int i = 0; i < n; i++)
        if (strncmp(jobs[i].key, begin, strlen(begin)) == 0)
            return &jobs[i];
    NEED(!"a job of that name");
    return NULL;
}

/* The template with a line more where its body begins. */
static Template with_line(const Template *template, const char *line)
{
    Template changed = *template;
    changed.body = arena_printf(arena, "{\n%s\n%s", line, template->body + 2);
    return changed;
}

static TrialResult try_line(SearchRun *run, SearchState *state, const char *line, double deadline)
{
    Text source = { 0 };
    TrialResult result = { .status = TRIAL_BUILD_FAILED };
    Template changed = with_line(state->job->template, line);
    kernel_file_write(&changed, state->job->values, &source);
    Candidate candidate = compile(run, &source);
    text_free(&source);
    if (!candidate.built)
        return result;
    TrialRequest request = request_of(state, &candidate, "", state->job->values);
    request.deadline = deadline;
    trial_run(&request, &result);
    return result;
}

static void test_statuses(void)
{
    static const struct { const char *line; TrialStatus status; const char *words; } rows[] = {
        { "", TRIAL_OK, "" },
        { "    __builtin_trap();", TRIAL_CRASHED, "signal" },
        { "    *(volatile int *)0 = 1;", TRIAL_CRASHED, "Segmentation" },
        { "    for (;;) __asm__ volatile(\"\");", TRIAL_HUNG, "did not end" },
        { "    void _exit(int); _exit(7);", TRIAL_CRASHED, "with 7" },
        { "    void _exit(int); _exit(0);", TRIAL_CRASHED, "before it was measured" },
        { "    if (n_out) return;", TRIAL_WRONG, "expected" },
        { "    panel_end--;", TRIAL_WRONG, "row" },
        { "    out[0] = NAN; return;", TRIAL_WRONG, "nan" },
        { "    pack[((size_t)block_rows + panel) * n_in + 15] = 0;", TRIAL_WRONG, "behind a buffer" },
        { "    no such statement", TRIAL_BUILD_FAILED, "" },
    };
    SearchRun run = run_of(DTYPE_F32);
    SearchState state = { .job = job_named(&run, "gemm ") };
    NEED(search_work_make(&run, &state));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        TrialResult result = try_line(&run, &state, rows[i].line, rows[i].status == TRIAL_HUNG ? 1 : 20);
        CU_ASSERT_EQUAL(result.status, rows[i].status);
        CU_ASSERT_PTR_NOT_NULL(strstr(result.detail, rows[i].words));
        if (result.status != rows[i].status || !strstr(result.detail, rows[i].words))
            printf("%s: %s: %s\n", rows[i].line, trial_status_text(result.status), result.detail);
    }
    search_work_drop(&state);
}

/* A file that is no library, and one without a manifest. */
static void test_no_kernel(void)
{
    SearchRun run = run_of(DTYPE_F32);
    SearchState state = { .job = job_named(&run, "gemv ") };
    NEED(search_work_make(&run, &state));
    for (int i = 0; i < 2; i++) {
        Candidate candidate = { .path = arena_printf(arena, "%s/none.so", folder), .built = true };
        Text source = { 0 };
        text_printf(&source, "int nothing;\n");
        if (i)
            candidate = compile(&run, &source);
        text_free(&source);
        TrialRequest request = request_of(&state, &candidate, "", state.job->values);
        TrialResult result;
        trial_run(&request, &result);
        CU_ASSERT_EQUAL(result.status, TRIAL_BUILD_FAILED);
        CU_ASSERT(strlen(result.detail) > 5);
    }
    search_work_drop(&state);
}

/* ---- whole models ---- */

/* Logits of a prompt as an artifact with these choices computes them, in `path`. */
static void write_logits(const char *name, const Choices *choices, const char *path)
{
    Options options = { .value = { [OPTION_WEIGHTS] = "random:3", [OPTION_QUANT] = "q8" } };
    Compilation c = { .arena = arena, .diags = diags_new(arena), .model = UNIT_ROOT "/docs/example.json",
                      .options = &options,
                      .choices = choices, .out = arena_printf(arena, "%s/%s", folder, name) };
    NEED(driver_compile(&c, "exe"));
    weights_close(c.weights);
    Text command = { 0 };
    text_printf(&command, "%s run --logits %s --tokens 7", c.out, path);
    for (int i = 1; i < 150; i++)
        text_printf(&command, ",%d", i * 37 % 256);
    NEED(system(command.data) == 0);
    text_free(&command);
}

/* Whatever points its kernels take, a model's results keep every bit; but for key_block, which is left alone. */
static void test_whole_model(void)
{
    Arena *scratch = arena_new();
    const char *plain = arena_printf(arena, "%s/plain.f32", folder);
    const char *chosen = arena_printf(arena, "%s/chosen.f32", folder);
    Options options = { .value = { [OPTION_QUANT] = "q8" } };
    Compilation c = { .arena = scratch, .diags = diags_new(scratch), .model = UNIT_ROOT "/docs/example.json",
                      .options = &options };
    NEED(driver_plan(&c, false));
    write_logits("plain", NULL, plain);
    for (int round = 0; round < 2; round++) {
        Choices *choices = choices_new(arena);
        int n;
        const Job *jobs = jobs_of_plan(scratch, c.plan, &n);
        for (int i = 0; i < n; i++)
            for (int p = 0; p < jobs[i].space.n; p++)
                if (jobs[i].n_points > 0 && strcmp(jobs[i].space.param[p]->name, "key_block") != 0)
                    choices_set(choices, jobs[i].key, jobs[i].space.param[p]->name,
                                jobs[i].points[bits() % (uint64_t)jobs[i].n_points].value[p]);
        choices_set(choices, "model", "chunk", round ? 128 : 64);
        write_logits("chosen", choices, chosen);
        CU_ASSERT_EQUAL(system(arena_printf(arena, "cmp -s %s %s", plain, chosen)), 0);
    }
    arena_free(scratch);
}

/* ---- measuring ---- */

/* A kernel that does its work twice is slower, and is stopped long before all pairs are taken. */
static void test_measuring(void)
{
    SearchRun run = run_of(DTYPE_F32);
    SearchState state = { .job = job_named(&run, "gemm ") };
    Text source = { 0 };
    kernel_file_write(state.job->template, state.job->values, &source);
    Candidate plain = compile(&run, &source);
    text_free(&source);
    Template slow = with_line(state.job->template, "    for (volatile int i = 0; i < 4000000; i++);");
    kernel_file_write(&slow, state.job->values, &source);
    Candidate slower = compile(&run, &source);
    text_free(&source);
    NEED(plain.built && slower.built && search_work_make(&run, &state));
    for (int turn = 0; turn < 2; turn++) {
        TrialRequest request = request_of(&state, turn ? &plain : &slower, "", state.job->values);
        TrialResult result;
        request.incumbent = turn ? slower.path : plain.path;
        request.n_times = state.n_times;
        request.deadline = 60;
        memcpy(request.times, state.times, sizeof request.times);
        trial_run(&request, &result);
        const TrialPairs *pairs = &result.pairs[0];
        CU_ASSERT_EQUAL(result.status, turn ? TRIAL_OK : TRIAL_STOPPED);
        CU_ASSERT_EQUAL(decide_wins(pairs->candidate, pairs->incumbent, pairs->n), turn == 1);
        CU_ASSERT(turn ? pairs->n >= DECIDE_LEAST_PAIRS : pairs->n < 4);
        /* Other token counts only where the first was won. */
        CU_ASSERT_EQUAL(result.pairs[1].n > 0, turn == 1);
    }
    search_work_drop(&state);
}

/* ---- faults ---- */

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
};

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

/* The n-th place in `body` where a change's text stands as words of their own; NULL when there are fewer. */
static const char *find_place(const char *body, const char *from, int n)
{
    size_t len = strlen(from);
    for (const char *at = strstr(body, from); at; at = strstr(at + 1, from))
        if (!(is_word(from[0]) && is_word(at[-1])) && !(is_word(from[len - 1]) && is_word(at[len])) && n-- == 0)
            return at;
    return NULL;
}

/* One random change; which one is told in `what`. */
static Template with_fault(const Template *template, const char *name, const char **what)
{
    Template changed = *template;
    changed.name = name;
    for (;;) {
        int c = (int)(bits() % (sizeof changes / sizeof *changes)), n = 0;
        while (find_place(template->body, changes[c].from, n))
            n++;
        if (n == 0)
            continue;
        const char *at = find_place(template->body, changes[c].from, (int)(bits() % (uint64_t)n));
        const char *line = at, *end = at + strcspn(at, "\n");
        while (line > template->body && line[-1] != '\n')
            line--;
        line += strspn(line, " ");
        *what = arena_printf(arena, "%s -> %s in: %.*s", changes[c].from, changes[c].to, (int)(end - line), line);
        changed.body = arena_printf(arena, "%.*s%s%s", (int)(at - template->body), template->body, changes[c].to,
                                    at + strlen(changes[c].from));
        return changed;
    }
}

typedef struct { int accepted, harmless, by_status[N_TRIAL_STATUSES], wrong; } FaultCount;

typedef struct { const char *path, *suffix; int64_t pack_len; Work **works; int n; } Again;

static void run_again(void *context)
{
    const Again *again = context;
    TrialRequest request = { .path = again->path, .suffix = again->suffix, .pack_len = again->pack_len,
                             .same_bits = true };
    char words[TRIAL_DETAIL_LEN];
    for (int i = 0; i < again->n; i++) {
        request.checks[0] = again->works[i];
        request.n_checks = 1;
        if (!(trial_check(&request, words, sizeof words) <= 1)) {
            fprintf(stderr, "  %s\n", words);
            _exit(9);
        }
    }
}

enum { FAULTS_A_FILE = 20, OTHER_WORKS = 5 };

/* Results of the template as it is on sizes that no check of the search has. */
static bool make_others(const SearchRun *run, const SearchState *state, Work **others)
{
    static const int tokens[2][OTHER_WORKS] = { { 2, 7, 48, 150, 600 }, { 1, 1, 1, 1, 1 } };
    const WorkShape shape = job_work_shape(state->job);
    char words[TRIAL_DETAIL_LEN];
    KernelCall *call = kernel_load(state->default_path, "", words, sizeof words);
    for (int i = 0; i < OTHER_WORKS && call; i++) {
        others[i] = work_new(&shape, WORK_CHECK, tokens[state->job->phase == PLAN_DECODE][i], 1000 + (uint64_t)i, 0,
                             run->reader);
        if (!others[i] || !kernel_bind(call, others[i], words, sizeof words))
            return false;
        work_set_scratch(others[i], job_scratch(state->job, state->job->values));
        kernel_bind(call, others[i], words, sizeof words);
        work_reset(others[i]);
        kernel_run(call, 0);
        work_keep_bits(others[i]);
    }
    kernel_free(call);
    return call != NULL;
}

static void judge(const SearchState *state, const Candidate *file, const char *suffix, const char *what, Work **others,
                  FaultCount *count)
{
    TrialRequest request = request_of(state, file, suffix, state->job->values);
    TrialResult result;
    request.deadline = 1;
    trial_run(&request, &result);
    count->by_status[result.status]++;
    if (result.status != TRIAL_OK)
        return;
    count->accepted++;
    Again again = { file->path, suffix, request.pack_len, others, OTHER_WORKS };
    Watched end = watch_run(run_again, &again, 20);
    if (end.status == TRIAL_OK) {
        count->harmless++;
        return;
    }
    count->wrong++;
    printf("ACCEPTED, WRONG: %s: %s\n", state->job->key, what);
}

/* A file of faults; where it does not compile, each alone, and what does not compile then is counted so. */
static void run_file(const SearchRun *run, const SearchState *state, int n, Work **others, FaultCount *count)
{
    Template faults[FAULTS_A_FILE];
    const char *what[FAULTS_A_FILE];
    Text source = { 0 };
    kernel_file_begin(&source);
    for (int i = 0; i < n; i++) {
        faults[i] = with_fault(state->job->template, arena_printf(arena, "%sf%d", state->job->template->name, i),
                               &what[i]);
        kernel_file_add(&faults[i], state->job->values, arena_printf(arena, "%d", i), &source);
    }
    Candidate all = compile(run, &source);
    text_free(&source);
    for (int i = 0; i < n; i++) {
        Candidate file = all;
        if (!all.built) {
            kernel_file_begin(&source);
            kernel_file_add(&faults[i], state->job->values, arena_printf(arena, "%d", i), &source);
            file = compile(run, &source);
            text_free(&source);
        }
        if (file.built)
            judge(state, &file, arena_printf(arena, "%d", i), what[i], others, count);
        else
            count->by_status[TRIAL_BUILD_FAILED]++;
        if (!all.built)
            unlink(file.path);
    }
    unlink(all.path);
}

static FaultCount run_faults(int n_faults)
{
    static const struct { DType dtype; const char *job; } kinds[] = {
        { DTYPE_BF16, "gemm " }, { DTYPE_BF16, "gemv " }, { DTYPE_Q8, "gemm_q " }, { DTYPE_Q8, "gemv_q " },
        { DTYPE_Q4, "gemm_q " }, { DTYPE_BF16, "attention " },
    };
    enum { N_KINDS = sizeof kinds / sizeof *kinds };
    FaultCount count = { 0 };
    int done = 0;
    for (int k = 0; k < N_KINDS; k++) {
        SearchRun run = run_of(kinds[k].dtype);
        SearchState state = { .job = job_named(&run, kinds[k].job) };
        Work *others[OTHER_WORKS];
        Text source = { 0 };
        kernel_file_write(state.job->template, state.job->values, &source);
        Candidate plain = compile(&run, &source);
        text_free(&source);
        state.default_path = plain.path;
        NEED(plain.built);
        NEED(search_work_make(&run, &state));
        NEED(search_work_keep_bits(&run, &state));
        NEED(make_others(&run, &state, others));
        for (int n, most = n_faults * (k + 1) / N_KINDS; done < most; done += n) {
            n = most - done < FAULTS_A_FILE ? most - done : FAULTS_A_FILE;
            run_file(&run, &state, n, others, &count);
        }
        for (int i = 0; i < OTHER_WORKS; i++)
            work_free(others[i]);
        search_work_drop(&state);
    }
    printf("%d faults:", done);
    for (int s = 0; s < N_TRIAL_STATUSES; s++)
        if (count.by_status[s])
            printf(" %d %s,", count.by_status[s], trial_status_text((TrialStatus)s));
    printf(" %d of the ok ones change no result, %d wrong ones accepted\n", count.harmless, count.wrong);
    return count;
}

static void test_faults(void)
{
    FaultCount count = run_faults(120);
    CU_ASSERT_EQUAL(count.wrong, 0);
    CU_ASSERT(count.by_status[TRIAL_WRONG] > 20);      /* or nothing was injected */
}

static const UnitTest tests[] = {
    { "f32", test_f32 }, { "bf16", test_bf16 }, { "f16", test_f16 }, { "q8", test_q8 }, { "q4", test_q4 },
    { "statuses", test_statuses }, { "no-kernel", test_no_kernel }, { "whole-model", test_whole_model },
    { "measuring", test_measuring }, { "faults", test_faults },
};

int main(int argc, char **argv)
{
    strcpy(folder, "/tmp/test_trial_XXXXXX");
    if (!mkdtemp(folder))
        return 3;
    arena = arena_new();
    int code;
    if (argc > 2 && strcmp(argv[1], "--faults") == 0) {
        seed = argc > 3 ? strtoull(argv[3], NULL, 10) * 2 + 1 : seed;
        code = run_faults(atoi(argv[2])).wrong != 0;
    } else {
        UnitTest chosen[sizeof tests / sizeof *tests];
        int n = 0;
        for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
            if (argc < 2 || strcmp(argv[1], tests[i].name) == 0)
                chosen[n++] = tests[i];
        code = n ? unit_main("trial", chosen, n) : 2;
    }
    out_folder_erase(folder);
    arena_free(arena);
    return code;
}
