/* Command lines of artifacts: what is accepted, what is refused, and with which words.
 *
 * Input: argument vectors. Links runtime/args.c alone.
 */
#include "args.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WORDS = 10 };

typedef struct { const char *words[MAX_WORDS], *message; } BadLine;

static int parse(moss_args *args, const char *const words[MAX_WORDS])
{
    char *argv[MAX_WORDS + 2] = { "/some/where/model" };
    int argc = 1;
    for (int i = 0; i < MAX_WORDS && words[i]; i++)
        argv[argc++] = (char *)words[i];
    return moss_args_parse(args, argc, argv);
}

/* Each is a usage error whose message has these words. */
static const BadLine bad_lines[] = {
    { { "--nothing" }, "unknown option '--nothing' of 'run'" },
    { { "bench", "--temp", "1" }, "unknown option '--temp' of 'bench'" },
    { { "walk" }, "unexpected argument 'walk' of 'run'" },
    { { "run", "run" }, "unexpected argument 'run'" },
    { { "" }, "unexpected argument ''" },
    { { "-n" }, "-n: its value N is missing" },
    { { "-n", "ten" }, "--n-predict: found 'ten', expected a whole number from -1 to 2147483647" },
    { { "-n", "1.5" }, "found '1.5'" },
    { { "-n", "" }, "found ''" },
    { { "-n", " 1" }, "found ' 1'" },
    { { "-n", "+1" }, "found '+1'" },
    { { "-n", "-2" }, "found '-2'" },
    { { "-n", "99999999999999999999" }, "found '99999999999999999999'" },
    { { "-t", "0" }, "--threads: found '0', expected a whole number from 1 to 1024" },
    { { "-t", "1025" }, "found '1025'" },
    { { "--temp", "hot" }, "--temp: found 'hot', expected a number from 0 to 1e+06" },
    { { "--temp", "nan" }, "found 'nan'" },
    { { "--temp", "-1" }, "found '-1'" },
    { { "--top-p", "1.01" }, "--top-p: found '1.01', expected a number from 0 to 1" },
    { { "--top-p", "0.5x" }, "found '0.5x'" },
    { { "--min-p=" }, "--min-p: found ''" },
    { { "--step=1" }, "--step takes no value, found '1'" },
    { { "--tokens", "1,,2" }, "--tokens: found '1,,2', expected whole numbers from 0" },
    { { "--tokens", "1,2," }, "found '1,2,'" },
    { { "--tokens", "" }, "found ''" },
    { { "--tokens", "1,-1" }, "found '1,-1'" },
    { { "--cpus", "0,1024" }, "--cpus: found '0,1024'" },
    { { "--seed", "-2" }, "--seed: found '-2'" },
    { { "--chunk", "0" }, "--chunk: found '0'" },
    { { "--step", "--chunk", "4" }, "--step and --chunk: expected one" },
    { { "-p", "a", "--tokens", "1" }, "--prompt, --file and --tokens: expected one" },
    { { "bench", "-o", "xml" }, "--output: found 'xml', expected md, csv or json" },
    { { "bench", "-p", "512;2048" }, "--n-prompt: found '512;2048'" },
    { { "bench", "-r", "0" }, "--repetitions: found '0'" },
    { { "eval" }, "expected either --text FILE or --tokens" },
    { { "eval", "--text", "a", "--tokens", "1,2" }, "expected either --text FILE or --tokens" },
};

static void test_bad_lines(void)
{
    moss_args args;
    for (size_t i = 0; i < sizeof bad_lines / sizeof *bad_lines; i++) {
        const int code = parse(&args, bad_lines[i].words);
        if (code != MOSS_EXIT_USAGE || !strstr(args.message, bad_lines[i].message)) {
            printf("code %d, '%s' lacks '%s'\n", code, args.message, bad_lines[i].message);
            CU_FAIL("message");
        }
        CU_ASSERT_STRING_EQUAL(args.program, "model");
    }
}

static void test_defaults(void)
{
    moss_args args;
    CU_ASSERT_EQUAL(parse(&args, (const char *const[MAX_WORDS]){ NULL }), MOSS_EXIT_OK);
    CU_ASSERT_EQUAL(args.command, MOSS_CMD_RUN);
    CU_ASSERT_EQUAL(args.values[MOSS_OPT_TOP_K].number, 40);
    CU_ASSERT_DOUBLE_EQUAL(args.values[MOSS_OPT_TEMP].real, 0.8, 0);
    CU_ASSERT_DOUBLE_EQUAL(args.values[MOSS_OPT_TOP_P].real, 0.95, 0);
    CU_ASSERT_DOUBLE_EQUAL(args.values[MOSS_OPT_MIN_P].real, 0.05, 0);
    CU_ASSERT_EQUAL(args.values[MOSS_OPT_WINDOW].number, 256);
    CU_ASSERT_FALSE(args.values[MOSS_OPT_TOP_K].given);
    CU_ASSERT_FALSE(args.values[MOSS_OPT_N_PREDICT].present);
    CU_ASSERT_FALSE(args.values[MOSS_OPT_THREADS].present);
    CU_ASSERT_STRING_EQUAL(args.values[MOSS_OPT_OUTPUT].text, "md");
}

static void test_values(void)
{
    moss_args args;
    const char *const words[MAX_WORDS] = { "run", "--seed=9223372036854775807", "-p", "--step",
                                           "--temp", "0", "-n", "5", "--n-predict", "-1" };
    CU_ASSERT_EQUAL(parse(&args, words), MOSS_EXIT_OK);
    CU_ASSERT_EQUAL(args.values[MOSS_OPT_SEED].number, INT64_MAX);
    CU_ASSERT_STRING_EQUAL(args.values[MOSS_OPT_PROMPT].text, "--step");   /* a value, any words */
    CU_ASSERT_FALSE(args.values[MOSS_OPT_STEP].given);
    CU_ASSERT_DOUBLE_EQUAL(args.values[MOSS_OPT_TEMP].real, 0, 0);
    CU_ASSERT_EQUAL(args.values[MOSS_OPT_N_PREDICT].number, -1);           /* the last one counts */
}

/* The same letter means something else to another command. */
static void test_commands_share_letters(void)
{
    moss_args args;
    int32_t list[4] = { 0 };
    const char *const bench[MAX_WORDS] = { "bench", "-p", "512,2048,7", "-n", "0", "-b", "1,4" };
    const char *const eval[MAX_WORDS] = { "eval", "--text", "book", "-c", "99" };
    CU_ASSERT_EQUAL(parse(&args, bench), MOSS_EXIT_OK);
    CU_ASSERT_EQUAL(args.command, MOSS_CMD_BENCH);
    CU_ASSERT_FALSE(args.values[MOSS_OPT_PROMPT].given);
    CU_ASSERT_EQUAL(moss_args_ints(args.values[MOSS_OPT_N_PROMPT].text, list, 2), 3);
    CU_ASSERT(list[0] == 512 && list[1] == 2048 && list[2] == 0);
    CU_ASSERT_EQUAL(parse(&args, eval), MOSS_EXIT_OK);
    CU_ASSERT_EQUAL(args.values[MOSS_OPT_WINDOW].number, 99);
    CU_ASSERT_FALSE(args.values[MOSS_OPT_CONTEXT].given);
}

/* Every option a command takes is in its help, and no other. */
static void test_help(void)
{
    static const struct { const char *command, *has, *lacks; } cases[] = {
        { "run", "--top-k K", "--repetitions" },
        { "bench", "generation together", "--top-k" },
        { "eval", "each starts from an empty state (default: 256)", "--temp" },
        { "info", "--json", "--threads" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        moss_args args;
        char *text = NULL;
        size_t len = 0;
        FILE *out = open_memstream(&text, &len);
        const char *const words[MAX_WORDS] = { cases[i].command, "--help" };
        CU_ASSERT_PTR_NOT_NULL_FATAL(out);
        CU_ASSERT_EQUAL(parse(&args, words), MOSS_EXIT_OK);
        CU_ASSERT_TRUE(args.values[MOSS_OPT_HELP].given);
        moss_args_help(&args, out);
        fclose(out);
        CU_ASSERT_PTR_NOT_NULL(strstr(text, cases[i].has));
        CU_ASSERT_PTR_NULL(strstr(text, cases[i].lacks));
        free(text);
    }
}

static const UnitTest tests[] = {
    { "refused lines", test_bad_lines },
    { "defaults", test_defaults },
    { "values", test_values },
    { "letters by command", test_commands_share_letters },
    { "help", test_help },
};

UNIT_MAIN("args", tests)
