/* `bench`: tokens a second of prompts (pp512) and of generation (tg128), as llama-bench names them.
 *
 * Input: lists of prompt lengths, generation lengths and numbers of sequences. Output: one row
 * for each combination: mean and standard deviation, median, least and most of the repetitions.
 * Several sequences take prompts in turn, on a GPU together, and generate together; the rate is of all of them.
 * Invariant: an untimed pass comes first; tokens are the same on every run.
 */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOSS_BENCH_LIST = 64 };

typedef struct { int32_t values[MOSS_BENCH_LIST], n; } moss_bench_list;

/* One row: either n_prompt or n_gen is 0. */
typedef struct { int32_t n_prompt, n_gen, n_batch; } moss_bench_test;
typedef struct { double mean, sd, median, least, most; } moss_bench_stats;

typedef struct {
    const moss_args *args;
    moss_session session;
    moss_bench_list prompts, gens, batches;
    int32_t *tokens, n_tokens;   /* [n_tokens]: the longest test's; of so many for each of the largest batch */
    int32_t *batch_tokens;       /* [1 + MOSS_SESSION_STEPS, largest batch] */
    int32_t *lens;               /* [largest batch], of prompts */
    moss_sampler *samplers;      /* [largest batch], greedy */
    double *rates;        /* [n_repeats], tokens a second */
    int32_t n_repeats, n_rows;
} moss_bench;

static int moss_bench_read_list(const moss_args *args, moss_option option, moss_bench_list *list)
{
    list->n = moss_args_ints(args->values[option].text, list->values, MOSS_BENCH_LIST);
    if (list->n <= MOSS_BENCH_LIST)
        return MOSS_EXIT_OK;
    return moss_cli_fail(args, MOSS_EXIT_USAGE, "found %d lengths in a list, expected at most %d",
                         list->n, MOSS_BENCH_LIST);
}

static int32_t moss_bench_largest(const moss_bench_list *list)
{
    int32_t largest = 0;
    for (int32_t i = 0; i < list->n; i++)
        if (list->values[i] > largest)
            largest = list->values[i];
    return largest;
}

/* Spread over the vocabulary, so that all experts are asked for. */
static void moss_bench_make_tokens(int32_t *tokens, int32_t n)
{
    uint64_t x = 1;
    for (int32_t i = 0; i < n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        tokens[i] = (int32_t)((x >> 33) % (uint64_t)moss_program_data.vocab_size);
    }
}

static int moss_bench_interrupted(const moss_bench *bench)
{
    return moss_interrupted() ? moss_cli_fail(bench->args, MOSS_EXIT_SYSTEM, "interrupted")
                              : MOSS_EXIT_OK;
}

static int moss_bench_prompt(moss_bench *bench, int32_t sequence, int32_t n_prompt)
{
    int code = MOSS_EXIT_OK;
    for (int32_t done = 0, n; done < n_prompt && code == MOSS_EXIT_OK; done += n) {
        n = n_prompt - done < bench->session.chunk ? n_prompt - done : bench->session.chunk;
        code = moss_session_eval(&bench->session, sequence, bench->tokens + done, n,
                                 done + n == n_prompt);
        if (code == MOSS_EXIT_OK)
            code = moss_bench_interrupted(bench);
    }
    return code;
}

/* A GPU takes prompts together, as it does for a user: each sequence its own tokens. */
static int moss_bench_prompts(moss_bench *bench, const moss_bench_test *test)
{
    for (int32_t b = 0; b < test->n_batch; b++)
        bench->lens[b] = test->n_prompt;
    const int code = moss_session_eval_prompts(&bench->session, bench->tokens, bench->lens, test->n_batch);
    return code == MOSS_EXIT_OK ? moss_bench_interrupted(bench) : code;
}

/* One token of every sequence, each at another place of the same tokens. */
static void moss_bench_place(moss_bench *bench, int32_t step, int32_t n_batch)
{
    enum { APART = 97 };
    for (int32_t b = 0; b < n_batch; b++)
        bench->batch_tokens[b] = bench->tokens[(step + (int64_t)APART * b) % bench->n_tokens];
}

/* CPUs get given tokens: what a model of random weights says repeats itself, and would stay in cache. */
static int moss_bench_feed(moss_bench *bench, const moss_bench_test *test)
{
    int code = MOSS_EXIT_OK;
    for (int32_t t = 0; t < test->n_gen && code == MOSS_EXIT_OK; t++) {
        moss_bench_place(bench, t, test->n_batch);
        code = moss_session_eval_batch(&bench->session, bench->batch_tokens, test->n_batch);
        if (code == MOSS_EXIT_OK)
            code = moss_bench_interrupted(bench);
    }
    return code;
}

/* A GPU generates, some steps at a time, as it does for a user. */
static int moss_bench_generate(moss_bench *bench, const moss_bench_test *test)
{
    int code = MOSS_EXIT_OK;
    int32_t *const next = bench->batch_tokens, *const rows = next + test->n_batch;
    moss_bench_place(bench, 0, test->n_batch);
    for (int32_t done = 0, n; done < test->n_gen && code == MOSS_EXIT_OK; done += n) {
        n = test->n_gen - done < MOSS_SESSION_STEPS ? test->n_gen - done : MOSS_SESSION_STEPS;
        if (moss_session_generate(&bench->session, bench->samplers, test->n_batch, next, rows, n) != MOSS_OK)
            return moss_cli_fail_status(bench->args, &bench->session.error);
        memcpy(next, rows + (size_t)(n - 1) * (size_t)test->n_batch, (size_t)test->n_batch * sizeof *next);
        code = moss_bench_interrupted(bench);
    }
    return code;
}

/* All sequences through the test once, from empty states. */
static int moss_bench_pass(moss_bench *bench, const moss_bench_test *test, double *seconds)
{
    int code = MOSS_EXIT_OK;
    for (int32_t b = 0; b < test->n_batch && code == MOSS_EXIT_OK; b++)
        code = moss_session_reset(&bench->session, b);
    const double begin = moss_seconds();
    const bool together = moss_program_data.gpu && test->n_batch > 1 && test->n_prompt;
    if (together && code == MOSS_EXIT_OK)
        code = moss_bench_prompts(bench, test);
    for (int32_t b = 0; b < test->n_batch && !together && code == MOSS_EXIT_OK; b++)
        code = moss_bench_prompt(bench, b, test->n_prompt);
    if (code == MOSS_EXIT_OK && test->n_gen)
        code = moss_program_data.gpu ? moss_bench_generate(bench, test) : moss_bench_feed(bench, test);
    *seconds = moss_seconds() - begin;
    return code;
}

static int moss_compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static moss_bench_stats moss_bench_summarise(double *rates, int32_t n)
{
    double sum = 0, squares = 0;
    qsort(rates, (size_t)n, sizeof *rates, moss_compare_doubles);
    for (int32_t i = 0; i < n; i++)
        sum += rates[i];
    for (int32_t i = 0; i < n; i++)
        squares += (rates[i] - sum / n) * (rates[i] - sum / n);
    return (moss_bench_stats){
        .mean = sum / n, .sd = n > 1 ? sqrt(squares / (n - 1)) : 0,
        .median = (rates[(n - 1) / 2] + rates[n / 2]) / 2, .least = rates[0], .most = rates[n - 1],
    };
}

static void moss_bench_print_md(const moss_bench *bench, const char *name,
                                const moss_bench_test *test, const moss_bench_stats *stats)
{
    const moss_program *program = &moss_program_data;
    if (bench->n_rows == 0)
        printf("| model | quant | target | threads | experts | batch | test | t/s | median | min "
               "| max |\n"
               "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    printf("| %s | %s | %s | %d | %d | %d | %s | %.2f ± %.2f | %.2f | %.2f | %.2f |\n",
           program->name, program->quant, program->target, bench->session.n_threads,
           moss_mode_top_k(bench->session.mode), test->n_batch, name, stats->mean, stats->sd,
           stats->median, stats->least, stats->most);
}

static void moss_bench_print_csv(const moss_bench *bench, const char *name,
                                 const moss_bench_test *test, const moss_bench_stats *stats)
{
    const moss_program *program = &moss_program_data;
    if (bench->n_rows == 0)
        printf("model,quant,target,threads,experts_per_token,batch,test,n_prompt,n_gen,repetitions,"
               "mean_ts,sd_ts,median_ts,min_ts,max_ts\n");
    printf("\"%s\",%s,%s,%d,%d,%d,%s,%d,%d,%d,%.3f,%.3f,%.3f,%.3f,%.3f\n", program->name,
           program->quant, program->target, bench->session.n_threads,
           moss_mode_top_k(bench->session.mode), test->n_batch, name, test->n_prompt, test->n_gen,
           bench->n_repeats, stats->mean, stats->sd, stats->median, stats->least, stats->most);
}

static void moss_bench_print_json(const moss_bench *bench, const char *name,
                                  const moss_bench_test *test, const moss_bench_stats *stats)
{
    const moss_program *program = &moss_program_data;
    printf("%s\n  {\"model\": ", bench->n_rows ? "," : "[");
    moss_cli_json_string(stdout, program->name);
    printf(", \"device\": ");
    moss_cli_json_string(stdout, moss_model_device(bench->session.model));
    printf(", \"quant\": \"%s\", \"target\": \"%s\", \"threads\": %d, \"experts_per_token\": %d, "
           "\"batch\": %d, \"test\": \"%s\", \"n_prompt\": %d, \"n_gen\": %d, \"repetitions\": %d, "
           "\"mean_ts\": %.3f, \"sd_ts\": %.3f, \"median_ts\": %.3f, \"min_ts\": %.3f, "
           "\"max_ts\": %.3f}", program->quant, program->target, bench->session.n_threads,
           moss_mode_top_k(bench->session.mode), test->n_batch, name, test->n_prompt, test->n_gen,
           bench->n_repeats, stats->mean, stats->sd, stats->median, stats->least, stats->most);
}

static int moss_bench_print(moss_bench *bench, const moss_bench_test *test)
{
    const moss_bench_stats stats = moss_bench_summarise(bench->rates, bench->n_repeats);
    const char *format = bench->args->values[MOSS_OPT_OUTPUT].text;
    char name[32];
    snprintf(name, sizeof name, "%s%d", test->n_prompt ? "pp" : "tg", test->n_prompt + test->n_gen);
    moss_cli_progress(NULL);
    if (!strcmp(format, "md"))
        moss_bench_print_md(bench, name, test, &stats);
    else if (!strcmp(format, "csv"))
        moss_bench_print_csv(bench, name, test, &stats);
    else
        moss_bench_print_json(bench, name, test, &stats);
    bench->n_rows++;
    return moss_cli_flush(bench->args);
}

/* One untimed pass, then the repetitions. Generation warms up on a single token. */
static int moss_bench_row(moss_bench *bench, const moss_bench_test *test)
{
    moss_bench_test warm_up = *test;
    double seconds;
    if (test->n_gen)
        warm_up.n_gen = 1;
    int code = moss_bench_pass(bench, &warm_up, &seconds);
    for (int32_t i = 0; i < bench->n_repeats && code == MOSS_EXIT_OK; i++) {
        moss_cli_progress("%s%d, batch %d: repetition %d of %d", test->n_prompt ? "pp" : "tg",
                          test->n_prompt + test->n_gen, test->n_batch, i + 1, bench->n_repeats);
        code = moss_bench_pass(bench, test, &seconds);
        const double n = (double)(test->n_prompt + test->n_gen) * test->n_batch;
        bench->rates[i] = n / (seconds > 1e-9 ? seconds : 1e-9);
    }
    return code == MOSS_EXIT_OK ? moss_bench_print(bench, test) : code;
}

static int moss_bench_rows(moss_bench *bench, const moss_bench_list *lengths, bool prompt)
{
    int code = MOSS_EXIT_OK;
    for (int32_t i = 0; i < lengths->n; i++)
        for (int32_t b = 0; b < bench->batches.n && code == MOSS_EXIT_OK; b++) {
            const int32_t n = lengths->values[i];
            const int32_t n_batch = bench->batches.values[b];
            const moss_bench_test test = { prompt ? n : 0, prompt ? 0 : n, n_batch };
            if (n > 0)
                code = moss_bench_row(bench, &test);
        }
    return code;
}

static int moss_bench_all(moss_bench *bench)
{
    int code = moss_bench_rows(bench, &bench->prompts, true);
    if (code == MOSS_EXIT_OK)
        code = moss_bench_rows(bench, &bench->gens, false);
    if (!strcmp(bench->args->values[MOSS_OPT_OUTPUT].text, "json") && code == MOSS_EXIT_OK)
        puts(bench->n_rows ? "\n]" : "[]");
    return code == MOSS_EXIT_OK ? moss_cli_flush(bench->args) : code;
}

/* What a GPU holds; tables have no column for it. */
static void moss_bench_tell_device(const moss_bench *bench, int32_t n_batch)
{
    const moss_program *program = &moss_program_data;
    const uint64_t states = (uint64_t)n_batch * moss_gpu_state_stride(program, bench->session.n_context);
    const uint64_t scratch = moss_gpu_plan(program).end;
    fprintf(stderr, "%s: %.2f MB of its memory: weights %.2f, states %.2f, scratch %.2f\n",
            moss_model_device(bench->session.model), (double)(program->weights_len + states + scratch) / 1e6,
            (double)program->weights_len / 1e6, (double)states / 1e6, (double)scratch / 1e6);
}

static int moss_bench_open(moss_bench *bench)
{
    const int32_t prompt = moss_bench_largest(&bench->prompts);
    const int32_t gen = moss_bench_largest(&bench->gens);
    const int32_t longest = prompt > gen ? prompt : gen > 1 ? gen : 1;
    bench->n_repeats = (int32_t)bench->args->values[MOSS_OPT_REPEAT].number;
    const int32_t n_batch = moss_bench_largest(&bench->batches);
    const size_t n_tokens = (size_t)longest * (size_t)(n_batch > 1 ? n_batch : 1);
    bench->tokens = n_tokens <= INT32_MAX ? malloc(n_tokens * sizeof *bench->tokens) : NULL;
    bench->rates = calloc((size_t)bench->n_repeats, sizeof *bench->rates);
    bench->lens = calloc((size_t)n_batch, sizeof *bench->lens);
    bench->batch_tokens = calloc((1 + MOSS_SESSION_STEPS) * (size_t)n_batch, sizeof *bench->batch_tokens);
    bench->samplers = calloc((size_t)n_batch, sizeof *bench->samplers);     /* of temperature 0 */
    if (!bench->tokens || !bench->rates || !bench->lens || !bench->batch_tokens || !bench->samplers)
        return moss_cli_fail(bench->args, MOSS_EXIT_SYSTEM, "cannot get memory for %zu tokens", n_tokens);
    moss_bench_make_tokens(bench->tokens, (int32_t)n_tokens);
    bench->n_tokens = longest;
    const int code = moss_session_open(&bench->session, bench->args, n_batch, longest, n_batch);
    if (code == MOSS_EXIT_OK && moss_program_data.gpu)
        moss_bench_tell_device(bench, n_batch);
    return code;
}

int moss_bench_main(const moss_args *args)
{
    moss_bench bench = { .args = args };
    int code = moss_bench_read_list(args, MOSS_OPT_N_PROMPT, &bench.prompts);
    if (code == MOSS_EXIT_OK)
        code = moss_bench_read_list(args, MOSS_OPT_N_GEN, &bench.gens);
    if (code == MOSS_EXIT_OK)
        code = moss_bench_read_list(args, MOSS_OPT_BATCH, &bench.batches);
    if (code == MOSS_EXIT_OK)
        code = moss_bench_open(&bench);
    if (code == MOSS_EXIT_OK)
        code = moss_bench_all(&bench);
    moss_session_close(&bench.session);
    free(bench.tokens);
    free(bench.lens);
    free(bench.batch_tokens);
    free(bench.samplers);
    free(bench.rates);
    return code;
}
