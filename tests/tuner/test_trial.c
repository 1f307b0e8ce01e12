/* Single trials: right kernels pass, and whatever is wrong with one is told by its status; here, and by a runner.
 *
 *   test_trial [NAME]               all tests or one
 */
#include "trial_tools.h"

#include "../../compiler/outfile.h"
#include "../../tuner/runner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "unit.h"

static uint64_t seed = 1;

static uint64_t bits(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed >> 11;
}

/* ---- every kernel of a model ---- */

/* Of each job its default and some points, in one file; all of them right, and alike to the bit. */
static void check_jobs(DType dtype)
{
    enum { POINTS = 3 };
    SearchRun run = trial_run_of(dtype);
    int n;
    const Job *jobs = jobs_of_plan(trial_arena, run.plan, &n);
    double (*values)[TEMPLATE_MAX_PARAMS] = arena_alloc(trial_arena, sizeof *values * (size_t)(n * POINTS));
    Text source = { 0 };
    CU_ASSERT(n > 10);
    kernel_file_begin(&source);
    for (int i = 0; i < n * POINTS; i++) {
        const Job *job = &jobs[i / POINTS];
        const SpacePoint *drawn = &job->points[bits() % (uint64_t)job->n_points];
        job_values(job, i % POINTS ? drawn : &job->initial, values[i]);
        Template named = *job->template;
        named.name = arena_printf(trial_arena, "%sk%d", named.name, i);
        kernel_file_add(&named, values[i], arena_printf(trial_arena, "%d", i), &source);
    }
    Candidate file = trial_compile(&run, &source);
    text_free(&source);
    NEED(file.built);
    for (int i = 0; i < n; i++) {
        SearchState state = { .job = &jobs[i], .default_path = file.path };
        NEED(search_work_make(&run, &state));
        for (int p = 0; p < POINTS; p++) {
            TrialRequest request = trial_request(&state, &file, arena_printf(trial_arena, "%d", i * POINTS + p),
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
    const Job *jobs = jobs_of_plan(trial_arena, run->plan, &n);
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
    changed.body = arena_printf(trial_arena, "{\n%s\n%s", line, template->body + 2);
    return changed;
}

/* With a runner the kernel as it is gives the bits, if there is one. */
static TrialResult try_compiled(SearchRun *run, SearchState *state, const char *line, double deadline, bool guarded)
{
    Text source = { 0 };
    TrialResult result = { .status = TRIAL_BUILD_FAILED };
    Template changed = with_line(state->job->template, line);
    kernel_file_write(&changed, state->job->values, &source);
    Candidate candidate = (guarded ? trial_compile_guarded : trial_compile)(run, &source);
    text_free(&source);
    if (!candidate.built)
        return result;
    TrialRequest request = trial_request(state, &candidate, "", state->job->values);
    request.deadline = deadline;
    request.runner = run->builder.runner;
    request.original = state->default_path;
    request.original_pack_len = request.pack_len;
    trial_run(&request, &result);
    return result;
}

static TrialResult try_line(SearchRun *run, SearchState *state, const char *line, double deadline)
{
    return try_compiled(run, state, line, deadline, false);
}

static void check_statuses(SearchRun *run, SearchState *state)
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
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        TrialResult result = try_line(run, state, rows[i].line, rows[i].status == TRIAL_HUNG ? 1 : 20);
        CU_ASSERT_EQUAL(result.status, rows[i].status);
        CU_ASSERT_PTR_NOT_NULL(strstr(result.detail, rows[i].words));
        if (result.status != rows[i].status || !strstr(result.detail, rows[i].words))
            printf("%s: %s: %s\n", rows[i].line, trial_status_text(result.status), result.detail);
    }
}

static void test_statuses(void)
{
    SearchRun run = trial_run_of(DTYPE_F32);
    SearchState state = { .job = job_named(&run, "gemm ") };
    NEED(search_work_make(&run, &state));
    check_statuses(&run, &state);
    search_work_drop(&state);
}

/* A place behind an array that does not matter: told only of a candidate whose arrays are guarded. */
static void test_bounds(void)
{
    static const char line[] = "    int few[4] = { 0 }; volatile int sum = 0;"
                               " for (volatile int i = 0; i <= 4; i++) sum += few[i];";
    SearchRun run = trial_run_of(DTYPE_F32);
    SearchState state = { .job = job_named(&run, "gemm ") };
    NEED(search_work_make(&run, &state));
    CU_ASSERT_EQUAL(try_compiled(&run, &state, line, 20, false).status, TRIAL_OK);
    CU_ASSERT_EQUAL(try_compiled(&run, &state, line, 20, true).status, TRIAL_CRASHED);
    CU_ASSERT_EQUAL(try_compiled(&run, &state, "", 20, true).status, TRIAL_OK);
    search_work_drop(&state);
}

/* Routers: rows that are not normed or not routed, others' experts and gates. */
static void test_router(void)
{
    static const struct { const char *kernel, *line; TrialStatus status; } rows[] = {
        { "route ", "", TRIAL_OK },
        { "route ", "    row_end--;", TRIAL_WRONG },
        { "route ", "    row_begin++;", TRIAL_WRONG },
        { "route ", "    router++;", TRIAL_WRONG },
        { "route ", "    gates += row_end > 1 ? top_k : 0;", TRIAL_WRONG },
        { "rms_norm_route ", "", TRIAL_OK },
        { "rms_norm_route ", "    weight = x;", TRIAL_WRONG },
        { "rms_norm_route ", "    out += row_end > 1 ? stride : 0;", TRIAL_WRONG },
        { "rms_norm_route ", "    top_k--;", TRIAL_WRONG },
    };
    SearchRun run = trial_run_of(DTYPE_F32);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        SearchState state = { .job = job_named(&run, rows[i].kernel) };
        NEED(search_work_make(&run, &state));
        TrialResult result = try_line(&run, &state, rows[i].line, 20);
        CU_ASSERT_EQUAL(result.status, rows[i].status);
        if (result.status != rows[i].status)
            printf("%s: %s: %s: %s\n", rows[i].kernel, rows[i].line, trial_status_text(result.status), result.detail);
        search_work_drop(&state);
    }
}

/* The same through a command; then with bits alone to compare with, since the default was found right. */
static void test_runner(void)
{
    SearchRun run = trial_run_of(DTYPE_F32);
    SearchState state = { .job = job_named(&run, "gemm ") };
    Text source = { 0 };
    NEED(runner_open(&run.builder, run.diags, "env", 10));
    kernel_file_write(state.job->template, state.job->values, &source);
    Candidate plain = trial_compile(&run, &source);
    text_free(&source);
    state.default_path = plain.path;
    NEED(plain.built && search_work_make(&run, &state));
    check_statuses(&run, &state);
    NEED(search_work_keep_bits(&run, &state));
    TrialRequest request = trial_request(&state, &plain, "", state.job->values);
    TrialResult first, then;
    request.runner = run.builder.runner;
    request.original = plain.path;
    request.original_pack_len = request.pack_len;
    request.deadline = 20;
    request.same_bits = false;
    trial_run(&request, &first);
    request.same_bits = true;
    trial_run(&request, &then);
    CU_ASSERT_EQUAL(first.status, TRIAL_OK);
    CU_ASSERT_EQUAL(then.status, TRIAL_OK);
    CU_ASSERT(first.max_error > 0 && then.max_error == first.max_error);
    CU_ASSERT_EQUAL(try_line(&run, &state, "    if (n_out) return;", 20).status, TRIAL_WRONG);
    search_work_drop(&state);
}

/* A file that is no library, and one without a manifest. */
static void test_no_kernel(void)
{
    SearchRun run = trial_run_of(DTYPE_F32);
    SearchState state = { .job = job_named(&run, "gemv ") };
    NEED(search_work_make(&run, &state));
    for (int i = 0; i < 2; i++) {
        Candidate candidate = { .path = arena_printf(trial_arena, "%s/none.so", trial_folder), .built = true };
        Text source = { 0 };
        text_printf(&source, "int nothing;\n");
        if (i)
            candidate = trial_compile(&run, &source);
        text_free(&source);
        TrialRequest request = trial_request(&state, &candidate, "", state.job->values);
        TrialResult result;
        trial_run(&request, &result);
        CU_ASSERT_EQUAL(result.status, TRIAL_BUILD_FAILED);
        CU_ASSERT(strlen(result.detail) > 5);
    }
    search_work_drop(&state);
}

/* ---- whole models ---- */

/* Logits of a prompt as an artifact with these choices computes them, in `path`. */
static void write_logits(const char *name, const char *quant, const Choices *choices, const char *path)
{
    Options options = { .value = { [OPTION_WEIGHTS] = "random:3", [OPTION_QUANT] = quant } };
    Compilation c = { .arena = trial_arena, .diags = diags_new(trial_arena), .model = UNIT_ROOT "/docs/example.json",
                      .options = &options,
                      .choices = choices, .out = arena_printf(trial_arena, "%s/%s", trial_folder, name) };
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
    static const char *const quants[] = { "q8", "bf16" };
    Arena *scratch = arena_new();
    const char *plain = arena_printf(trial_arena, "%s/plain.f32", trial_folder);
    const char *chosen = arena_printf(trial_arena, "%s/chosen.f32", trial_folder);
    for (int round = 0; round < 3; round++) {
        const char *quant = quants[round / 2];
        Options options = { .value = { [OPTION_QUANT] = quant } };
        Compilation c = { .arena = scratch, .diags = diags_new(scratch), .model = UNIT_ROOT "/docs/example.json",
                          .options = &options };
        Choices *choices = choices_new(trial_arena);
        int n;
        NEED(driver_plan(&c, false));
        if (round % 2 == 0)
            write_logits("plain", quant, NULL, plain);
        const Job *jobs = jobs_of_plan(scratch, c.plan, &n);
        for (int i = 0; i < n; i++)
            for (int p = 0; p < jobs[i].space.n; p++)
                if (jobs[i].n_points > 0 && strcmp(jobs[i].space.param[p]->name, "key_block") != 0)
                    choices_set(choices, jobs[i].key, jobs[i].space.param[p]->name,
                                jobs[i].points[bits() % (uint64_t)jobs[i].n_points].value[p]);
        choices_set(choices, "model", "chunk", round % 2 ? 128 : 64);
        write_logits("chosen", quant, choices, chosen);
        CU_ASSERT_EQUAL(system(arena_printf(trial_arena, "cmp -s %s %s", plain, chosen)), 0);
    }
    arena_free(scratch);
}

/* ---- measuring ---- */

/* A kernel that does its work twice is slower, and is stopped long before all pairs are taken. */
static void test_measuring(void)
{
    SearchRun run = trial_run_of(DTYPE_F32);
    SearchState state = { .job = job_named(&run, "gemm ") };
    Text source = { 0 };
    kernel_file_write(state.job->template, state.job->values, &source);
    Candidate plain = trial_compile(&run, &source);
    text_free(&source);
    Template slow = with_line(state.job->template, "    for (volatile int i = 0; i < 4000000; i++);");
    kernel_file_write(&slow, state.job->values, &source);
    Candidate slower = trial_compile(&run, &source);
    text_free(&source);
    NEED(plain.built && slower.built && search_work_make(&run, &state));
    for (int turn = 0; turn < 2; turn++) {
        TrialRequest request = trial_request(&state, turn ? &plain : &slower, "", state.job->values);
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

static const UnitTest tests[] = {
    { "f32", test_f32 }, { "bf16", test_bf16 }, { "f16", test_f16 }, { "q8", test_q8 }, { "q4", test_q4 },
    { "statuses", test_statuses }, { "bounds", test_bounds }, { "router", test_router }, { "no-kernel", test_no_kernel },
    { "whole-model", test_whole_model }, { "measuring", test_measuring }, { "runner", test_runner },
};

int main(int argc, char **argv)
{
    trial_tools_begin();
    int code = unit_main_named("trial", tests, (int)(sizeof tests / sizeof *tests), argc, argv);
    trial_tools_end();
    return code;
}
