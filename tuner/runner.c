/* Runner: finding a way to the machine, asking what it is, and trials there, again where an answer is none. */
#include "runner_internal.h"

#include "identity.h"
#include "../compiler/interrupt.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 3, HUNG_TRIES = 2, MOST_FAILED = 2, MOST_SLOW = 200, MOST_THREADS = 16 };
static const double fast_speed = 1e-3;     /* seconds of a million multiply-adds */

const char *runner_device(const Runner *runner) { return runner->device; }
TargetId runner_code(const Runner *runner) { return runner->code; }
int runner_threads(const Runner *runner) { return runner->n_threads; }

/* ---- which machine is it? ---- */

static bool is_emulator(const Runner *r)
{
    const char *slash = strrchr(r->command.args[0], '/'), *name = slash ? slash + 1 : r->command.args[0];
    return strncmp(name, "qemu", 4) == 0;
}

static bool is_emulated(const Runner *r, const RunnerSaid *said) { return said->emulated || is_emulator(r); }

static const char *device_of(const Runner *r, const RunnerSaid *said)
{
    const char *device = identity_device_of_cpuinfo(r->arena, said->cpuinfo.data ? said->cpuinfo.data : "");
    return is_emulated(r, said) ? arena_printf(r->arena, "%s, emulated", device) : device;
}

/* The most demanding code that it runs. False after reporting. */
static bool choose_code(Runner *r, Diags *diags, const RunnerSaid *said)
{
    TargetId codes[TARGET_MAX_CODES];
    for (int i = target_codes(r->builder->target, codes) - 1; i >= 0; i--)
        if (said->runs[i]) {
            r->code = codes[i];
            return true;
        }
    diag_report(diags, DIAG_RUN, NULL, "the machine that `%s` reaches, %s, cannot run code for %s: it lacks %s",
                r->text, device_of(r, said), target_info(r->builder->target)->name, said->lacks);
    return false;
}

static bool take_hello(Runner *r, Diags *diags, const RunnerSaid *said)
{
    if (!choose_code(r, diags, said))
        return false;
    r->device = device_of(r, said);
    r->emulated = is_emulated(r, said);
    r->slow = said->speed / fast_speed;
    r->slow = r->slow < 1 ? 1 : r->slow > MOST_SLOW ? MOST_SLOW : r->slow;
    r->n_threads = said->n_threads < 1 ? 1 : said->n_threads > MOST_THREADS ? MOST_THREADS : said->n_threads;
    return true;
}

/* The first way by which a program answers. */
static bool say_hello(Runner *r, Diags *diags)
{
    static const char *const ways[N_WAYS] = { "started by its path", "stored by its shell",
                                              "stored by its shell as text" };
    char why[N_WAYS][TRIAL_DETAIL_LEN];
    RunnerProgram program;
    if (!runner_build_program(r, NULL, false, &program, why[0], sizeof why[0])) {
        if (!interrupt_came())
            diag_report(diags, DIAG_TOOLCHAIN, NULL, "%s cannot make a static program for %s: %s",
                        r->builder->cc.args[0], target_info(r->builder->target)->name, why[0]);
        return false;
    }
    for (r->way = WAY_PATH; r->way < N_WAYS; r->way++) {
        RunnerSaid said;
        runner_call(r, &program, r->patience, &said);
        bool answered = said.complete && said.speed > 0, ok = answered && take_hello(r, diags, &said);
        snprintf(why[r->way], sizeof *why, "%s", said.why);
        text_free(&said.cpuinfo);
        if (answered || said.interrupted) {
            unlink(program.path);
            return ok;
        }
    }
    unlink(program.path);
    diag_report(diags, DIAG_RUN, NULL, "`%s` (--runner) does not run programs for %s", r->text,
                target_info(r->builder->target)->name);
    for (int way = 0; way < N_WAYS; way++)
        diag_note(diags, NULL, "%s: %s", ways[way], why[way]);
    return false;
}

Runner *runner_open(Builder *builder, Diags *diags, const char *command, double patience)
{
    Runner *r = arena_one(builder->arena, Runner);
    *r = (Runner){ .arena = builder->arena, .builder = builder, .text = command, .patience = patience, .slow = 1,
                   .code = builder->target, .is_android = builder->target == TARGET_ANDROID_ARM64,
                   .android = builder->android };
    tool_add_words(r->arena, &r->command, command);
    if (r->command.n == 0 || !toolchain_has(r->arena, r->command.args[0])) {
        diag_report(diags, DIAG_RUN, NULL, "`%s` (--runner) is not a program",
                    r->command.n ? r->command.args[0] : command);
        return NULL;
    }
    if (!runner_build_objects(r, diags) || !say_hello(r, diags))
        return NULL;
    return builder->runner = r;
}

/* ---- trials ---- */

/* Of a workload and the default that gave its bits. */
static uint64_t known_key(const TrialRequest *request, int check)
{
    Text text = { 0 };
    uint64_t hash = 0xCBF29CE484222325u;
    runner_print_spec(work_spec(request->checks[check]), &text);
    text_printf(&text, " %s", request->original);
    for (const char *c = text.data; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001B3u;
    text_free(&text);
    return hash;
}

static const RunnerKnown *find_known(const Runner *r, uint64_t key)
{
    for (int i = 0; i < r->n_known; i++)
        if (r->known[i].spec == key)
            return &r->known[i];
    return NULL;
}

static bool all_known(const Runner *r, const TrialRequest *request)
{
    for (int i = 0; i < request->n_checks; i++)
        if (!find_known(r, known_key(request, i)))
            return false;
    return true;
}

/* A machine that gives other results for the default than it gave before is not to be believed. */
static bool bits_as_before(const Runner *r, const TrialRequest *request, RunnerSaid *said)
{
    for (int i = 0; i < request->n_checks; i++) {
        const RunnerKnown *known = find_known(r, known_key(request, i));
        if (known && said->bits[i] && said->bits[i] != known->bits) {
            snprintf(said->why, sizeof said->why, "its results of the default were others before (check %d)", i);
            return false;
        }
    }
    return true;
}

/* The default's bits, once something with these bits was found right by the reference. */
static void keep_known(Runner *r, const TrialRequest *request, const RunnerSaid *said)
{
    const bool itself = strcmp(request->path, request->original) == 0;
    const bool right = said->result.status == TRIAL_OK || said->result.status == TRIAL_STOPPED;
    if (!right || (!itself && !request->same_bits))
        return;
    for (int i = 0; i < request->n_checks; i++) {
        if (!said->bits[i] || find_known(r, known_key(request, i)))
            continue;
        RunnerKnown *all = arena_array(r->arena, RunnerKnown, (size_t)r->n_known + 1);
        if (r->n_known)
            memcpy(all, r->known, (size_t)r->n_known * sizeof *all);
        all[r->n_known++] = (RunnerKnown){ known_key(request, i), said->bits[i], said->result.max_error };
        r->known = all;
    }
}

/* Not compared with the reference, but to the bit with what was: as far off as that. */
static double known_error(const Runner *r, const TrialRequest *request)
{
    double worst = 0;
    for (int i = 0; i < request->n_checks; i++)
        worst = fmax(worst, find_known(r, known_key(request, i))->error);
    return worst;
}

bool runner_is_machine(const Runner *r, RunnerSaid *said)
{
    if (!said->complete)
        return false;
    const char *device = device_of(r, said);
    if (strcmp(device, r->device) != 0)
        snprintf(said->why, sizeof said->why, "another machine answers: %s", device);
    else if (*said->lacks)
        snprintf(said->why, sizeof said->why, "this CPU lacks %s", said->lacks);
    else
        return true;
    return false;
}

bool runner_is_answer(const Runner *r, RunnerSaid *said)
{
    if (!runner_is_machine(r, said))
        return false;
    if (!said->has_status)
        snprintf(said->why, sizeof said->why, "an answer without a status");
    return said->has_status;
}

static bool believe_trial(const Runner *r, const void *request, RunnerSaid *said)
{
    return runner_is_answer(r, said) && bits_as_before(r, request, said);
}

static void wait_a_little(int tried)
{
    const struct timespec pause = { .tv_nsec = 100000000 };
    for (int i = 0; i < (tried ? 10 : 2) && !interrupt_came(); i++)
        nanosleep(&pause, NULL);
}

bool runner_call_again(Runner *r, const RunnerProgram *program, double seconds, RunnerBelieve *believe,
                       const void *context, RunnerSaid *said)
{
    for (int tried = 0, most = TRIES; tried < most; tried++) {
        if (tried)
            wait_a_little(tried);
        runner_call(r, program, seconds, said);
        bool good = believe(r, context, said);
        text_free(&said->cpuinfo);
        if (good || said->interrupted)
            return good;
        most = said->hung ? HUNG_TRIES : most;
    }
    return false;
}

void runner_trial(Runner *r, const TrialRequest *request, TrialResult *result)
{
    RunnerProgram program;
    RunnerSaid said;
    const bool reference = !request->same_bits || !all_known(r, request);
    if (!runner_build_program(r, request, reference, &program, result->detail, sizeof result->detail)) {
        result->status = TRIAL_BUILD_FAILED;
        result->interrupted = interrupt_came();
        return;
    }
    bool good = runner_call_again(r, &program, request->deadline * r->slow, believe_trial, request, &said);
    unlink(program.path);
    result->interrupted = said.interrupted;
    if (said.interrupted)
        return;
    r->n_failed = good && said.result.status != TRIAL_RUNNER_FAILED ? 0 : r->n_failed + 1;
    if (!good) {
        snprintf(result->detail, sizeof result->detail, "%s", said.why);
        snprintf(r->words, sizeof r->words, "%s", said.why);
        return;
    }
    keep_known(r, request, &said);
    if (!reference && said.result.status != TRIAL_WRONG && said.result.max_error >= 0)
        said.result.max_error = known_error(r, request);
    *result = said.result;
    snprintf(r->words, sizeof r->words, "%s", result->detail);
}

bool runner_lost(Runner *r, Diags *diags)
{
    if (!r || r->n_failed < MOST_FAILED)
        return false;
    diag_report(diags, DIAG_RUN, NULL, "`%s` (--runner) does not answer any more: %s", r->text, r->words);
    diag_note(diags, NULL, "what was measured is kept; the same command goes on%s", "");
    return true;
}
