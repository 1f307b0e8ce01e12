/* Choices from records: the best point of every kernel of a plan.
 *
 * Input: a plan without choices, a database, a device and a C compiler. Output: Choices for planning again.
 * Invariant: the same records give the same choices, in whatever order they were stored; the database is
 * only read.
 */
#include "choices.h"

#include "candidate.h"
#include "identity.h"
#include "jobs.h"
#include "step.h"

#include <stdlib.h>
#include <string.h>

/* Names and whole numbers of a point, which is sorted and well-formed. */
static void take_point(Arena *arena, Choices *choices, const char *key, const char *point)
{
    for (const char *at = point; *at;) {
        size_t name = strcspn(at, "=");
        choices_set(choices, key, arena_strndup(arena, at, name), strtoll(at + name + 1, NULL, 10));
        at += strcspn(at, " ");
        at += *at == ' ';
    }
}

bool choices_fill(Records *records, Arena *arena, Diags *diags, const Plan *plan, const char *device,
                  const char *toolchain, Choices *choices, int *n_found)
{
    int n_jobs;
    const Job *jobs = jobs_of_plan(arena, plan, &n_jobs);
    *n_found = 0;
    for (int i = 0; i < n_jobs; i++) {
        RecordBest best;
        RecordKey key = { .features = identity_features(arena, plan->target), .device = device,
                          .toolchain = toolchain };
        job_record_key(arena, &jobs[i], jobs[i].tokens[0], &key);
        key.template_hash = identity_template(arena, plan->target, key.kernel);
        if (!records_best(records, arena, diags, &key, &best))
            return false;
        if (!best.point)
            continue;
        ++*n_found;
        take_point(arena, choices, jobs[i].key, best.point);
    }
    return true;
}

/* Devices that have records of the target, by name. */
static bool find_devices(Records *records, Arena *arena, Diags *diags, const char *features, const char ***devices,
                         int *n)
{
    Trial *trials;
    int n_trials;
    RecordsFilter filter = { .key = { .features = features } };
    if (!records_list(records, arena, diags, &filter, &trials, &n_trials))
        return false;
    *devices = arena_array(arena, const char *, (size_t)n_trials);
    *n = 0;
    for (int i = 0; i < n_trials; i++) {
        int at = 0;
        while (at < *n && strcmp((*devices)[at], trials[i].key.device) < 0)
            at++;
        if (at < *n && strcmp((*devices)[at], trials[i].key.device) == 0)
            continue;
        memmove(*devices + at + 1, *devices + at, (size_t)(*n - at) * sizeof **devices);
        (*devices)[at] = trials[i].key.device;
        ++*n;
    }
    return true;
}

static void note_devices(Diags *diags, const char *const *devices, int n)
{
    for (int i = 0; i < n; i++)
        diag_note(diags, NULL, "it has records of --tuned-on '%s'", devices[i]);
}

/* Whose records: NULL after reporting, also where it is no error that there are none. */
static const char *choose_device(Compilation *c, Records *records, const char *path)
{
    const char **devices, *wanted = c->options->value[OPTION_TUNED_ON], *target = target_info(c->target)->name;
    int n;
    if (!find_devices(records, c->arena, c->diags, identity_features(c->arena, c->target), &devices, &n))
        return NULL;
    if (!wanted && !target_runs_here(c->target) && n == 1)
        return devices[0];
    const char *name = wanted ? wanted : identity_device(c->arena, c->target);
    for (int i = 0; i < n; i++)
        if (strcmp(devices[i], name) == 0)
            return name;
    diag_report(c->diags, wanted ? DIAG_TUNING_DEVICE : DIAG_TUNING_NONE, NULL, wanted
                ? "%s: no records of device '%s' for target %s"
                : "%s: no records of this machine, '%s', for target %s: "
                "kernels keep their default sizes", path, name, target);
    note_devices(c->diags, devices, n);
    return NULL;
}

static void choose(Compilation *c, Records *records, const char *path, Choices *choices)
{
    Builder builder = { .arena = c->arena, .target = c->target };
    int n_found;
    const char *device = choose_device(c, records, path);
    if (!device || (!c->plan->launches
                    && !candidate_find_compiler(&builder, c->diags, c->options->value[OPTION_CC])))
        return;
    const char *toolchain = identity_toolchain(c->arena, c->target, builder.cc.args, builder.cc.n);
    const RecordKey machine = { .features = identity_features(c->arena, c->target), .device = device,
                                .toolchain = toolchain };
    if (choices_fill(records, c->arena, c->diags, c->plan, device, toolchain, choices, &n_found)
        && step_apply(records, c->arena, c->diags, c->plan, &machine, choices) && n_found == 0)
        diag_report(c->diags, DIAG_TUNING_NONE, NULL, "%s: no records of this model's kernels on '%s' with %s and this "
                    "mossc's templates: kernels keep their default sizes", path, device, toolchain);
}

const Choices *choices_from_records(Compilation *c)
{
    const char *path = c->options->value[OPTION_TUNING];
    Records *records = records_open(c->arena, c->diags, path, RECORDS_READ);
    Choices *choices = choices_new(c->arena);
    if (records)
        choose(c, records, path, choices);
    records_close(records);
    return diags_failed(c->diags) ? NULL : choices;
}
