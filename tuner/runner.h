/* Runner: trials on another machine, which a command reaches: `ssh phone`, `adb shell`, `qemu-aarch64`, or `env`.
 *
 * Input: the command, and a Builder whose compiler makes code for that machine. Output: its device and what it can run;
 * then trials as here. Each trial is one static program (board/board.h): candidate, incumbent and default, workloads,
 * the reference. It is given to the command as a path, or through the command's standard input where its shell knows
 * no such path. Invariant: what does not come as whole lines of that very program is no result, and tried again.
 */
#ifndef MOSSC_TUNER_RUNNER_H
#define MOSSC_TUNER_RUNNER_H

#include "candidate.h"
#include "ceilings_run.h"
#include "step_run.h"
#include "trial.h"

/* Asks what it is; `patience`: seconds that it may be silent. Builds in the builder's folder, whose `runner` it
 * becomes. NULL after reporting, or when a signal came. */
Runner *runner_open(Builder *builder, Diags *diags, const char *command, double patience);
/* As identity_device names this machine; says so where it is emulated. */
const char *runner_device(const Runner *runner);
/* How many threads an artifact takes there, at most 16. */
int runner_threads(const Runner *runner);
/* The code that it takes of the target's, where that has several. */
TargetId runner_code(const Runner *runner);

void runner_trial(Runner *runner, const TrialRequest *request, TrialResult *result);
/* A build of a model, as an object whose functions have a prefix: what the request calls it, the prefix, its header's
 * and its object's path. */
typedef struct { const char *name, *prefix, *header, *object; } RunnerModel;
/* step_run there, with weights that are made there: random:0. */
void runner_compare(Runner *runner, Diags *diags, const Plan *plan, const StepRequest *request,
                    const RunnerModel *models, int n_models, StepResult *result);
/* What it reaches, by an object with the loops of ceilings.c. False: it does not say, or is emulated, so that it would
 * mean nothing. */
bool runner_ceilings(Runner *runner, const char *object, Ceilings *found);
/* Has it failed so often that going on is in vain? Reports that. */
bool runner_lost(Runner *runner, Diags *diags);

#endif
