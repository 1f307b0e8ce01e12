/* Step build: the builds of a model that are compared. */
#ifndef MOSSC_TUNER_STEP_BUILD_H
#define MOSSC_TUNER_STEP_BUILD_H

#include "runner.h"
#include "step_run.h"
#include "../compiler/driver.h"

typedef struct {
    Compilation *c;
    const char *folder;
    Runner *runner;                      /* NULL: for this machine */
    Compilation packed;                  /* what the first build found of the weights */
    RunnerModel models[STEP_MAX_VARIANTS + 2];   /* for a runner: all builds */
    int n_models;
} StepBuild;

StepBuild step_build_begin(Compilation *c, const char *folder, Runner *runner);
/* One of at most STEP_MAX_VARIANTS + 2, with choices or NULL; what a StepRequest calls it. NULL after reporting. */
const char *step_build(StepBuild *build, const char *name, const Choices *choices);

#endif
