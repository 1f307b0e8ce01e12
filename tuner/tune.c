/* `mossc tune`: options, the search, the comparison of whole models, what was found.
 *
 * The model is planned as `compile` plans it without choices. Candidates lie in a temporary folder, which goes
 * whatever happens; what is to stay is in the database after every trial.
 */
#include "tune.h"

#include "ceilings.h"
#include "gpu_device.h"
#include "gpu_worker.h"
#include "host_lock.h"
#include "identity.h"
#include "progress.h"
#include "search.h"
#include "step.h"
#include "../compiler/interrupt.h"
#include "../compiler/outfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    Compilation *c;
    const char *db;
    int64_t trials, seconds, seed, jobs;
    SearchOrder order;
} TuneOptions;

static bool read_options(Compilation *c, TuneOptions *o)
{
    const Options *options = c->options;
    const char *order = options->value[OPTION_ORDER];
    long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    *o = (TuneOptions){ .c = c, .db = options->value[OPTION_DB] };
    if (!o->db) {
        diag_report(c->diags, DIAG_USAGE, NULL, "`--db FILE` is missing: where the records go");
        return false;
    }
    if (order && !search_order_from_text(order, &o->order)) {
        diag_report(c->diags, DIAG_USAGE, NULL, "`--order %s`: expected model, random or grid", order);
        return false;
    }
    return options_int(options, c->diags, OPTION_TRIALS, 1, INT32_MAX, 0, &o->trials)
        && options_int(options, c->diags, OPTION_TIME, 1, INT32_MAX, 600, &o->seconds)
        && options_int(options, c->diags, OPTION_SEARCH_SEED, 0, INT32_MAX, 0, &o->seed)
        && options_int(options, c->diags, OPTION_JOBS, 1, CANDIDATE_MOST_JOBS,
                       n_cpus < 1 ? 1 : n_cpus < CANDIDATE_MOST_JOBS ? n_cpus : CANDIDATE_MOST_JOBS, &o->jobs);
}

static bool check_target(Compilation *c)
{
    if (!driver_choose_target(c))
        return false;
    const Target *t = target_info(c->target);
    const char *why;
    if (t->family == FAMILY_GPU) {
        if (gpu_device_runs(c->arena, c->target, &why))
            return true;
        diag_report(c->diags, DIAG_RUN, NULL, "this machine cannot run code for %s, and what is not measured is not "
                    "tuned: %s", t->name, why);
    } else if (target_has_codes(c->target))
        diag_report(c->diags, DIAG_USAGE, NULL,
                    "`--target %s` holds the code of several targets: tune them one by one", t->name);
    else if (!target_runs_here(c->target))
        diag_report(c->diags, DIAG_RUN, NULL,
                    "this machine cannot run code for %s, and what is not measured is not tuned "
                    "(mossc targets)", t->name);
    else
        return true;
    return false;
}

/* What makes it the same search: everything that changes which trials come, but for how many. */
static const char *search_command(const TuneOptions *o, const SearchRun *run)
{
    return arena_printf(run->arena, "tune target=%s quant=%s hash=%016llx order=%s toolchain=%s",
                        target_info(run->plan->target)->name,
                        run->plan->quant, (unsigned long long)run->plan->hash, search_order_text(o->order),
                        run->key.toolchain);
}

static bool open_search(const TuneOptions *o, SearchRun *run)
{
    Compilation *c = o->c;
    if (!run->plan->launches
        && !toolchain_find(c->arena, c->diags, c->target, c->options->value[OPTION_CC], &run->builder.cc))
        return false;
    run->key = (RecordKey){ .features = identity_features(c->arena, c->target),
                            .device = identity_device(c->arena, c->target),
                            .toolchain = identity_toolchain(c->arena, c->target, run->builder.cc.args,
                                                            run->builder.cc.n) };
    run->journal = (Search){ .command = search_command(o, run), .model = c->graph->name, .device = run->key.device,
                             .features = run->key.features, .seed = o->seed };
    run->records = records_open(c->arena, c->diags, o->db, RECORDS_CREATE);
    return run->records && records_search_open(run->records, c->diags, &run->journal);
}

/* ---- what was found ---- */

static bool print_best(const SearchRun *run, const SearchState *s)
{
    RecordBest best;
    const RecordKey key = search_key(run, s->job, s->job->tokens[0]);
    if (!records_best(run->records, run->arena, run->diags, &key, &best))
        return false;
    const char *point = best.point ? best.point : s->incumbent_text ? s->incumbent_text : "not tried";
    bool is_default = best.point && best.default_point && strcmp(best.point, best.default_point) == 0;
    printf("%-8s %5.1f %% %6d %7d %8.3fx  %s, %s%s\n", s->job->phase == PLAN_PREFILL ? "prefill" : "decode",
           100 * s->job->share, s->n_trials, s->n_failed, best.point ? best.speedup : 1, s->job->key, point,
           is_default ? " (the default)" : "");
    return true;
}

static bool print_result(const SearchRun *run)
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

static void say_stopped(const TuneOptions *o, const SearchRun *run)
{
    fprintf(stderr, "stopped: %d trials are in %s; the same command goes on\n", run->n_trials, o->db);
}

static void measure_ceilings(SearchRun *run, double *operations, double *bytes)
{
    const char *quant = run->plan->quant;
    HostLock lock = host_lock(HOST_MEASURES);
    ceilings_measure(&run->builder, run->diags, strcmp(quant, "bf16") != 0 && strcmp(quant, "f32") != 0, operations,
                     bytes);
    host_unlock(&lock);
}

static void tune(const TuneOptions *o, SearchRun *run, const OutFolder *folder)
{
    Compilation *c = o->c;
    Progress progress = progress_new();
    run->builder.arena = c->arena;
    run->builder.folder = folder->path;
    run->builder.target = c->target;
    run->builder.n_jobs = (int)o->jobs;
    run->order = o->order;
    run->most_trials = o->trials;
    run->most_seconds = (double)o->seconds;
    run->progress = &progress;
    if (!(run->journal.peak_operations > 0) && !run->plan->launches)
        measure_ceilings(run, &run->journal.peak_operations, &run->journal.peak_bytes);
    bool ok = search_run(run);
    gpu_worker_free(run->gpu);
    run->gpu = NULL;
    if (run->interrupted)
        say_stopped(o, run);
    else if (ok && print_result(run) && !c->options->value[OPTION_KERNELS_ONLY])
        step_compare(c, run, folder->path);
}

void tune_command(Compilation *c)
{
    TuneOptions o;
    OutFolder folder;
    if (!read_options(c, &o) || !check_target(c) || !driver_check_output(c, o.db) || !driver_plan(c, false))
        return;
    SearchRun run = { .arena = c->arena, .diags = c->diags, .plan = c->plan };
    const char *tmp = getenv("TMPDIR");
    if (open_search(&o, &run)
        && out_folder_make(c->arena, c->diags, arena_printf(c->arena, "%s/mossc-tune", tmp && *tmp ? tmp : "/tmp"),
                           &folder)) {
        tune(&o, &run, &folder);
        fflush(stdout);
        out_folder_remove(&folder);
    }
    records_close(run.records);
    interrupt_check();
}
