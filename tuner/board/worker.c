/* Worker: the program that a board runs for one trial, of a kernel or of whole models.
 *
 * The trial is compiled in (board.h). A child does the work, so that a kernel that crashes or hangs is told as that by
 * this process, which says every second that it lives. It ends by itself when its words reach nobody any more.
 */
#include "board.h"

#include "../watch.h"
#include "../../compiler/interrupt.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void moss_read_panel(float *out, const void *weights, int n_in, int panel, int dtype);
const char *moss_cpu_missing(const char *features, int *len);
int32_t moss_big_cpus(int32_t *cpus, int32_t room);

static const char *const status_names[N_TRIAL_STATUSES] = {
#define STATUS(id, name, meaning) [TRIAL_##id] = name,
#include "../status.def"
#undef STATUS
};

/* One write a line, so that nothing comes between. */
void board_say(const char *format, ...)
{
    char words[2048], line[2080];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    for (char *c = words; *c; c++)
        *c = (unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7F ? ' ' : *c;
    int len = snprintf(line, sizeof line, "=%08x %s\n", (unsigned)board_checksum(board_trial.nonce, words), words);
    for (int done = 0; done < len;) {
        ssize_t n = write(1, line + done, (size_t)(len - done));
        if (n <= 0)
            _exit(1);
        done += (int)n;
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What watch.c asks while it waits: nobody interrupts a board, but somebody wants to know that it lives. */
bool interrupt_came(void)
{
    static double last;
    if (now() - last >= 1) {
        last = now();
        board_say("alive");
    }
    return false;
}

/* ---- in the child ---- */

typedef struct { TrialResult result; uint64_t bits[TRIAL_MAX_WORKS]; } Shared;
typedef struct { Shared *shared; KernelCall *original; Work *work; } Child;

/* A check with the default's bits. */
static Work *make_check(void *context, int i)
{
    Child *c = context;
    char words[TRIAL_DETAIL_LEN];
    work_free(c->work);
    c->work = work_new(&board_trial.checks[i], board_trial.reference ? moss_read_panel : NULL);
    if (!c->work)
        return NULL;
    work_set_scratch(c->work, board_trial.original_pack_len);
    if (kernel_bind(c->original, c->work, words, sizeof words)) {
        work_reset(c->work);
        kernel_run(c->original, 0);
        work_keep_bits(c->work);
    }
    c->shared->bits[i] = work_bits(c->work);
    return c->work;
}

static Work *make_time(void *context, int i)
{
    Child *c = context;
    work_free(c->work);
    return c->work = work_new(&board_trial.times[i], NULL);
}

static void try_kernel(void *context)
{
    Child child = { .shared = context };
    TrialResult *result = &child.shared->result;
    const BoardTrial *t = &board_trial;
    Measurement m = { .candidate = board_kernel(t->candidate),
                      .incumbent = t->incumbent ? board_kernel(t->incumbent) : NULL, .n_checks = t->n_checks,
                      .n_times = t->n_times, .check = make_check, .time = make_time, .context = &child,
                      .pack_len = t->pack_len, .block_rows = t->block_rows, .measure_all = t->measure_all,
                      .same_bits = t->same_bits };
    child.original = board_kernel(t->original);
    if (m.candidate && child.original && (m.incumbent || !t->incumbent)) {
        measure_trial(&m, result);
    } else {
        result->status = TRIAL_RUNNER_FAILED;
        snprintf(result->detail, sizeof result->detail, "no memory for a kernel");
    }
}

/* ---- in the parent ---- */

void board_say_outcome(TrialStatus status, double max_error, const char *detail)
{
    board_say("status %s", status_names[status]);
    board_say("error %a", max_error);
    board_say("detail %s", detail);
}

void board_say_pairs(int index, const TrialPairs *pairs)
{
    char words[1600];
    int len = snprintf(words, sizeof words, "pairs %d %d", index, pairs->n);
    for (int i = 0; i < pairs->n; i++)
        len += snprintf(words + len, sizeof words - (size_t)len, " %a %a", pairs->candidate[i], pairs->incumbent[i]);
    board_say("%s", words);
}

static void tell(const Shared *shared)
{
    const TrialResult *result = &shared->result;
    for (int i = 0; i < board_trial.n_checks; i++)
        board_say("bits %d %016llx", i, (unsigned long long)shared->bits[i]);
    board_say_outcome(result->status, result->max_error, result->detail);
    for (int i = 0; i < board_trial.n_times; i++)
        board_say_pairs(i, &result->pairs[i]);
}

static void run_trial(void)
{
    Shared *shared = watch_memory(sizeof *shared);
    Shared failed = { .result = { .status = TRIAL_RUNNER_FAILED, .detail = "no memory for a candidate" } };
    if (!shared) {
        tell(&failed);
        return;
    }
    shared->result = (TrialResult){ .status = TRIAL_CRASHED, .detail = "it ended before it was measured",
                                    .max_error = -1 };
    Watched end = watch_run(try_kernel, shared, board_trial.deadline);
    if (end.status != TRIAL_OK) {
        shared->result.status = end.status;
        snprintf(shared->result.detail, sizeof shared->result.detail, "%s", end.detail);
    }
    tell(shared);
}

/* Seconds of a million multiply-adds, as the reference does them: deadlines are longer where that is slow. */
static double measure_speed(void)
{
    enum { WIDTH = 16, STEPS = 1000000 / WIDTH, ROUNDS = 4 };
    volatile double from = 0.5;
    double x = from, sum[WIDTH] = { 0 }, begin = now();
    for (int i = 0; i < ROUNDS * STEPS; i++)
        for (int j = 0; j < WIDTH; j++)
            sum[j] = sum[j] * x + x;
    double seconds = (now() - begin) / ROUNDS;
    for (int j = 0; j < WIDTH; j++)
        from += sum[j];
    return seconds;
}

/* Is the first set of features here? All are told of. */
static bool say_features(void)
{
    bool has = true;
    for (int i = 0; i < board_trial.n_features; i++) {
        int len = 0;
        const char *missing = moss_cpu_missing(board_trial.features[i], &len);
        if (missing)
            board_say("lacks %d %.*s", i, len, missing);
        else
            board_say("runs %d", i);
        has = has && (i > 0 || !missing);
    }
    return has;
}

/* An argument: it was put here for this call alone, and need not stay. */
int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "erase") == 0)
        unlink(argv[0]);
    if (write(1, "\n", 1) != 1)           /* a terminal may have begun a line with what it was sent */
        return 1;
    board_say("hello %d", BOARD_VERSION);
    board_say_machine(board_say);
    bool has = say_features();
    board_say("threads %d", (int)moss_big_cpus(NULL, 0));
    if (board_trial.work && has)
        board_trial.work();
    else if (board_trial.candidate && has)
        run_trial();
    else if (!board_trial.candidate && !board_trial.work)
        board_say("speed %a", measure_speed());
    board_say("end");
    return 0;
}
