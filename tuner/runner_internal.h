/* What the files of the runner share: runner.c decides, runner_build.c makes programs, runner_call.c has them run;
 * runner_step.c makes those that compare whole models. */
#ifndef MOSSC_TUNER_RUNNER_INTERNAL_H
#define MOSSC_TUNER_RUNNER_INTERNAL_H

#include "runner.h"
#include "board/board.h"
#include "../compiler/android.h"
#include "../ir/text.h"

/* How a program comes to the machine: its path is known there; the command's shell stores what comes in; the same, as
 * letters, for shells that do not pass every byte. */
typedef enum { WAY_PATH, WAY_BYTES, WAY_LETTERS, N_WAYS } RunnerWay;

/* What the default gave for a workload, found right. */
typedef struct { uint64_t spec, bits; double error; } RunnerKnown;

typedef struct { const char **paths; int n; } RunnerObjects;

struct Runner {
    Arena *arena;
    Builder *builder;
    ToolCommand command;
    const char *text;            /* the command as it was given */
    double patience, slow;       /* seconds; how much longer than a fast machine it takes */
    int n_threads;               /* of its big cores */
    bool emulated;
    RunnerWay way;
    const char *device;
    TargetId code;
    AndroidTools android;
    bool is_android;
    RunnerObjects objects, step_objects;         /* of what does not change from trial to trial; of whole models */
    int n_programs, n_failed;            /* failed: trials in a row */
    char words[TRIAL_DETAIL_LEN];        /* why, of the last */
    RunnerKnown *known;
    int n_known;
};

/* ---- runner_build.c ---- */

/* The objects; those of whole models. False after reporting, or when a signal came. */
bool runner_build_objects(Runner *runner, Diags *diags);
bool runner_build_step_objects(Runner *runner, Diags *diags);
/* A program for a trial; NULL request: it only says what its machine is. Its nonce and its path; false: what went wrong
 * is in `why`. */
typedef struct { const char *path, *nonce; } RunnerProgram;
bool runner_build_program(Runner *runner, const TrialRequest *request, bool reference, RunnerProgram *program,
                          char *why, size_t why_len);

/* Its parts: a name for a program to be; the features that its machine must have, as C; `source` compiled and linked
 * with the objects that every program has, and others. */
RunnerProgram runner_begin_program(Runner *runner);
void runner_print_features(const Runner *runner, bool all, Text *out);
bool runner_link_program(Runner *runner, const RunnerProgram *program, Text *source, const RunnerObjects *others,
                         char *why, size_t why_len);

/* A workload as C: two that print alike are one. */
void runner_print_spec(const WorkSpec *spec, Text *out);

/* ---- runner_call.c ---- */

typedef struct {
    bool complete, hung, interrupted;    /* complete: every line came, and the last */
    char why[TRIAL_DETAIL_LEN];          /* if not */
    Text cpuinfo;
    bool emulated, runs[BOARD_MAX_CODES], has_status;
    int n_threads;
    char lacks[32];              /* of the first set of features */
    double speed;
    uint64_t bits[TRIAL_MAX_WORKS];
    Ceilings ceilings;           /* zeros: not told */
    TrialResult result;
    TrialPairs pairs[BOARD_MAX_PAIRS];   /* also those that a TrialResult has no room for */
} RunnerSaid;

/* Runs a program, which may take so many seconds; the caller frees said->cpuinfo. */
void runner_call(const Runner *runner, const RunnerProgram *program, double seconds, RunnerSaid *said);

/* ---- runner.c ---- */

/* Is it whole, and of the machine of before? Has it a status, too? `why` in what was said, if not. */
bool runner_is_machine(const Runner *runner, RunnerSaid *said);
bool runner_is_answer(const Runner *runner, RunnerSaid *said);
typedef bool RunnerBelieve(const Runner *runner, const void *context, RunnerSaid *said);
/* Runs a program until `believe` takes what it said, but not for ever. */
bool runner_call_again(Runner *runner, const RunnerProgram *program, double seconds, RunnerBelieve *believe,
                       const void *context, RunnerSaid *said);

#endif
