/* `mossc tune`: options, the search, the comparison of whole models, what was found.
 *
 * The model is planned as `compile` plans it without choices. Candidates lie in a temporary folder, which goes
 * whatever happens; what is to stay is in the database after every trial.
 */
#include "tune.h"

#include "ceilings.h"
#include "gpu_device.h"
#include "gpu_measure.h"
#include "host_lock.h"
#include "identity.h"
#include "mpi_tune.h"
#include "progress.h"
#include "runner.h"
#include "search_measure.h"
#include "step.h"
#include "tune_parts.h"
#include "../compiler/interrupt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool tune_read_options(Compilation *c, TuneOptions *o)
{
    const Options *options = c->options;
    const char *order = options->value[OPTION_ORDER];
    long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    *o = (TuneOptions){ .c = c, .db = options->value[OPTION_DB], .runner = options->value[OPTION_RUNNER] };
    if (!o->db) {
        diag_report(c->diags, DIAG_USAGE, NULL, "`--db FILE` is missing: where the records go");
        return false;
    }
    if (order && !search_order_from_text(order, &o->order)) {
        diag_report(c->diags, DIAG_USAGE, NULL, "`--order %s`: expected model, learned, random or grid", order);
        return false;
    }
    return options_int(options, c->diags, OPTION_TRIALS, 1, INT32_MAX, 0, &o->trials)
        && options_int(options, c->diags, OPTION_TIME, 1, INT32_MAX, 600, &o->seconds)
        && options_int(options, c->diags, OPTION_SEARCH_SEED, 0, INT32_MAX, 0, &o->seed)
        && options_int(options, c->diags, OPTION_RUNNER_TIMEOUT, 1, 3600, 30, &o->runner_timeout)
        && options_int(options, c->diags, OPTION_JOBS, 1, CANDIDATE_MOST_JOBS,
                       n_cpus < 1 ? 1 : n_cpus < CANDIDATE_MOST_JOBS ? n_cpus : CANDIDATE_MOST_JOBS, &o->jobs);
}

bool tune_check_target(Compilation *c)
{
    if (!driver_choose_target(c))
        return false;
    const Target *t = target_info(c->target);
    const char *why;
    if (c->options->value[OPTION_RUNNER]) {
        if (t->family != FAMILY_GPU)
            return true;
        diag_report(c->diags, DIAG_USAGE, NULL, "`--runner` for target %s: GPUs are tuned where they are", t->name);
    } else if (t->family == FAMILY_GPU) {
        if (gpu_device_runs(c->arena, c->target, &why))
            return true;
        diag_report(c->diags, DIAG_RUN, NULL, "this machine cannot run code for %s, and what is not measured is not "
                    "tuned: %s", t->name, why);
    } else if (target_has_codes(c->target))
        diag_report(c->diags, DIAG_USAGE, NULL, "`--target %s` holds the code of several targets: which of them "
                    "counts, a phone says that --runner reaches", t->name);
    else if (!target_runs_here(c->target))
        diag_report(c->diags, DIAG_RUN, NULL,
                    "this machine cannot run code for %s, and what is not measured is not tuned "
                    "(mossc targets; --runner reaches a machine that can)", t->name);
    else
        return true;
    return false;
}

/* What makes it the same search: everything that changes which trials come, but for how many. */
static const char *search_command(const TuneOptions *o, const SearchRun *run)
{
    const int64_t scratch = run->plan->max_scratch;
    return arena_printf(run->arena, "tune target=%s quant=%s hash=%016llx order=%s toolchain=%s%s",
                        target_info(run->plan->target)->name,
                        run->plan->quant, (unsigned long long)run->plan->hash, search_order_text(o->order),
                        run->key.toolchain,
                        scratch ? arena_printf(run->arena, " scratch=%lld", (long long)scratch) : "");
}

bool tune_identify(Compilation *c, SearchRun *run)
{
    Builder found = { .arena = c->arena, .target = c->target };
    if (!run->plan->launches && !candidate_find_compiler(&found, c->diags, c->options->value[OPTION_CC]))
        return false;
    run->builder.cc = found.cc;
    run->builder.android = found.android;
    run->key = (RecordKey){ .features = identity_features(c->arena, c->target),
                            .device = identity_device(c->arena, c->target),
                            .toolchain = identity_toolchain(c->arena, c->target, run->builder.cc.args,
                                                            run->builder.cc.n) };
    return true;
}

/* With --runner: whoever is at its end is the device. False after reporting, or when a signal came. */
static bool open_runner(const TuneOptions *o, SearchRun *run)
{
    if (!o->runner)
        return true;
    if (!runner_open(&run->builder, run->diags, o->runner, (double)o->runner_timeout))
        return false;
    run->key.device = runner_device(run->builder.runner);
    return true;
}

bool tune_open_search(const TuneOptions *o, SearchRun *run)
{
    run->order = o->order;
    run->most_trials = o->trials;
    run->most_seconds = (double)o->seconds;
    run->journal = (Search){ .command = search_command(o, run), .model = run->plan->graph->name,
                             .device = run->key.device, .features = run->key.features, .seed = o->seed };
    return records_search_open(run->records, run->diags, &run->journal);
}

bool tune_make_folder(Compilation *c, OutFolder *folder)
{
    const char *tmp = getenv("TMPDIR");
    return out_folder_make(c->arena, c->diags, arena_printf(c->arena, "%s/mossc-tune", tmp && *tmp ? tmp : "/tmp"),
                           folder);
}

void tune_set_builder(const TuneOptions *o, const OutFolder *folder, SearchRun *run)
{
    run->builder.arena = run->arena;
    run->builder.folder = folder->path;
    run->builder.target = run->plan->target;
    run->builder.n_jobs = (int)o->jobs;
}

/* ---- what was found ---- */

static bool print_best(const SearchRun *run, const SearchState *s)
{
    RecordBest best;
    if (!records_best(run->records, run->arena, run->diags, &s->key, &best))
        return false;
    const char *point = best.point ? best.point : s->incumbent_text ? s->incumbent_text : "not tried";
    bool is_default = best.point && best.default_point && strcmp(best.point, best.default_point) == 0;
    printf("%-8s %5.1f %% %6d %7d %8.3fx  %s, %s%s\n", s->job->phase == PLAN_PREFILL ? "prefill" : "decode",
           100 * s->job->share, s->n_trials, s->n_failed, best.point ? best.speedup : 1, s->job->key, point,
           is_default ? " (the default)" : "");
    return true;
}

bool tune_print(const SearchRun *run)
{
    printf("%-8s %7s %6s %7s %9s  kernel, its best point\n", "phase", "share", "trials", "failed", "speed");
    for (int i = 0; i < run->n_states; i++)
        if (!print_best(run, &run->states[i]))
            return false;
    printf("\n%d trials, %d of them from earlier runs; kernels foretell prefill %.3fx, decode %.3fx\n", run->n_trials,
           run->n_replayed, search_speedup(run, PLAN_PREFILL), search_speedup(run, PLAN_DECODE));
    if (search_trials_to(run, 0.95) > 0)
        printf("95 %% of prefill's gain was there after %d trials\n", search_trials_to(run, 0.95));
    return true;
}

void tune_measure_ceilings(SearchRun *run, double *operations, double *bytes)
{
    const char *quant = run->plan->quant;
    const bool gpu = run->plan->launches, int8 = strcmp(quant, "bf16") != 0 && strcmp(quant, "f32") != 0;
    HostLock lock = run->builder.runner ? (HostLock){ -1 } : host_lock(gpu ? HOST_MEASURES_GPU : HOST_MEASURES);
    if (gpu)
        gpu_search_ceilings(run, operations, bytes);
    else
        ceilings_measure(&run->builder, run->diags, int8, operations, bytes);
    host_unlock(&lock);
}

static void tune(const TuneOptions *o, SearchRun *run, const OutFolder *folder)
{
    Progress progress = progress_new();
    run->progress = &progress;
    if (!(run->journal.peak_operations > 0))
        tune_measure_ceilings(run, &run->journal.peak_operations, &run->journal.peak_bytes);
    bool ok = search_run(run);
    search_measure_free(run);
    if (run->interrupted)
        fprintf(stderr, "stopped: %d trials are in %s; the same command goes on\n", run->n_trials, o->db);
    else if (ok && tune_print(run) && !o->c->options->value[OPTION_KERNELS_ONLY])
        step_compare(o->c, run, folder->path);
}

static void tune_alone(const TuneOptions *o)
{
    Compilation *c = o->c;
    OutFolder folder;
    if (!tune_check_target(c) || !driver_check_output(c, o->db) || !driver_plan(c, false))
        return;
    SearchRun run = { .arena = c->arena, .diags = c->diags, .plan = c->plan };
    if (tune_identify(c, &run) && tune_make_folder(c, &folder)) {
        tune_set_builder(o, &folder, &run);
        if (open_runner(o, &run) && (run.records = records_open(c->arena, c->diags, o->db, RECORDS_CREATE))
            && tune_open_search(o, &run)) {
            tune(o, &run, &folder);
            fflush(stdout);
        }
        out_folder_remove(&folder);
    }
    records_close(run.records);
    interrupt_check();
}

void tune_command(Compilation *c)
{
    Mpi mpi;
    TuneOptions o;
    if (!mpi_look(c->diags, &mpi) || !tune_read_options(c, &o))
        return;
    if (mpi.size > 1 && o.runner)
        diag_report(c->diags, DIAG_USAGE, NULL, "`--runner` under mpirun: its machines measure by themselves%s", "");
    else if (mpi.size > 1)
        mpi_tune(&o, &mpi);
    else
        tune_alone(&o);
}
