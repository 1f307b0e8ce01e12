/* What the files of the runner share: runner.c decides, runner_build.c makes programs, runner_call.c has them run. */
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

struct Runner {
    Arena *arena;
    Builder *builder;
    ToolCommand command;
    const char *text;            /* the command as it was given */
    double patience, slow;       /* seconds; how much longer than a fast machine it takes */
    RunnerWay way;
    const char *device;
    TargetId code;
    AndroidTools android;
    bool is_android;
    const char **objects;        /* of what does not change from trial to trial */
    int n_objects, n_programs, n_failed;         /* failed: trials in a row */
    char words[TRIAL_DETAIL_LEN];        /* why, of the last */
    RunnerKnown *known;
    int n_known;
};

/* ---- runner_build.c ---- */

/* The objects. False after reporting, or when a signal came. */
bool runner_build_objects(Runner *runner, Diags *diags);
/* A program for a trial; NULL request: it only says what its machine is. Its nonce and its path; false: what went wrong
 * is in `why`. */
typedef struct { const char *path, *nonce; } RunnerProgram;
bool runner_build_program(Runner *runner, const TrialRequest *request, bool reference, RunnerProgram *program,
                          char *why, size_t why_len);

/* A workload as C: two that print alike are one. */
void runner_print_spec(const WorkSpec *spec, Text *out);

/* ---- runner_call.c ---- */

typedef struct {
    bool complete, hung, interrupted;    /* complete: every line came, and the last */
    char why[TRIAL_DETAIL_LEN];          /* if not */
    Text cpuinfo;
    bool emulated, runs[BOARD_MAX_CODES], has_status;
    char lacks[32];              /* of the first set of features */
    double speed;
    uint64_t bits[TRIAL_MAX_WORKS];
    TrialResult result;
} RunnerSaid;

/* Runs a program, which may take so many seconds; the caller frees said->cpuinfo. */
void runner_call(const Runner *runner, const RunnerProgram *program, double seconds, RunnerSaid *said);

#endif
