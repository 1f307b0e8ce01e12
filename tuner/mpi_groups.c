/* Groups: a search each, whose points are those the machine itself can build. */
#include "mpi_groups.h"

#include "../compiler/interrupt.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* This process plans for the group's target, whatever its own machine is. False after reporting. */
static bool plan_for(const TuneOptions *o, Group *group, const char *target)
{
    Options *options = arena_one(o->c->arena, Options);
    *options = *o->c->options;
    options->value[OPTION_TARGET] = target;
    group->c = (Compilation){ .arena = o->c->arena, .diags = o->c->diags, .model = o->c->model, .options = options };
    return driver_plan(&group->c, false);
}

/* The plan's kernels with the machine's points. NULL: some are none. */
static Job *jobs_of(Arena *arena, const Plan *plan, const MpiHello *hello, int *n)
{
    const Job *own = jobs_of_plan(arena, plan, n);
    if (*n != hello->n_jobs || strcmp(mpi_digest(arena, plan, own, *n), hello->digest) != 0)
        return NULL;
    Job *jobs = arena_array(arena, Job, (size_t)*n + 1);
    for (int i = 0; i < *n; i++) {
        SpacePoint *points = arena_array(arena, SpacePoint, (size_t)hello->n_points[i] + 1);
        for (int p = 0; p < hello->n_points[i]; p++)
            if (!space_read(&own[i].space, hello->points[i][p], &points[p]) || !isfinite(hello->costs[i][p]))
                return NULL;
        jobs[i] = own[i];
        jobs[i].points = points;
        jobs[i].n_points = hello->n_points[i];
    }
    return jobs;
}

static Group *begin(const TuneOptions *o, Groups *groups, const MpiHello *hello, const char **why)
{
    int n;
    Arena *arena = o->c->arena;
    Group *group = arena_one(arena, Group);
    if (!plan_for(o, group, hello->target))
        return NULL;
    group->digest = hello->digest;
    group->run = (SearchRun){ .arena = arena, .diags = o->c->diags, .plan = group->c.plan, .records = groups->records,
                              .key = hello->key };
    const Job *jobs = jobs_of(arena, group->c.plan, hello, &n);
    if (!jobs) {
        *why = "has another model or another mossc than rank 0";
        return NULL;
    }
    if (!tune_open_search(o, &group->run) || !search_begin(&group->run, jobs, n, hello->costs))
        return NULL;
    group->phase = group->run.journal.peak_operations > 0 ? GROUP_SEARCH : GROUP_PEAKS;
    return group;
}

static bool is_alike(const Group *group, const MpiHello *hello)
{
    const RecordKey *a = &group->run.key, *b = &hello->key;
    return strcmp(a->features, b->features) == 0 && strcmp(a->device, b->device) == 0
        && strcmp(a->toolchain, b->toolchain) == 0;
}

/* Machines of one name may still differ in what can be built: caches of virtual machines, say. */
static bool same_points(const Group *group, const MpiHello *hello)
{
    bool same = group->run.n_states == hello->n_jobs && strcmp(group->digest, hello->digest) == 0;
    for (int i = 0; i < hello->n_jobs && same; i++) {
        const Job *job = group->run.states[i].job;
        same = job->n_points == hello->n_points[i];
        for (int p = 0; p < job->n_points && same; p++) {
            SpacePoint point;
            same = space_read(&job->space, hello->points[i][p], &point)
                && memcmp(&point, &job->points[p], sizeof point) == 0;
        }
    }
    return same;
}

Group *groups_find(const TuneOptions *o, Groups *groups, const MpiHello *hello, const char **why)
{
    TargetId target;
    *why = NULL;
    if (!target_from_name(hello->target, &target)) {
        *why = "has a target that rank 0 does not know";
        return NULL;
    }
    for (int i = 0; i < groups->n; i++)
        if (is_alike(groups->at[i], hello)) {
            *why = "is called what another machine is called that can build other points, or has another mossc";
            return same_points(groups->at[i], hello) ? groups->at[i] : NULL;
        }
    Group *group = begin(o, groups, hello, why);
    if (!group)
        return NULL;
    if (groups->n == groups->room) {
        Group **at = arena_array(o->c->arena, Group *, (size_t)groups->room * 2 + 4);
        if (groups->n)
            memcpy(at, groups->at, (size_t)groups->n * sizeof *at);
        groups->at = at;
        groups->room = groups->room * 2 + 4;
    }
    return groups->at[groups->n++] = group;
}

void group_print_name(const Groups *groups, const Group *group)
{
    const RecordKey *key = &group->run.key;
    if (groups->n > 1)
        printf("\n%s, %s, %s\n", key->device, target_info(group->c.target)->name, key->toolchain);
}

bool group_end_search(const TuneOptions *o, const Groups *groups, Group *group)
{
    group->phase = o->c->options->value[OPTION_KERNELS_ONLY] ? GROUP_DONE : GROUP_WHOLE;
    if (!search_end(&group->run, true))
        return false;
    group_print_name(groups, group);
    bool ok = tune_print(&group->run);
    fflush(stdout);
    return ok;
}

void group_give_up(const TuneOptions *o, Group *group)
{
    const bool searched = group->phase == GROUP_WHOLE;
    group->phase = GROUP_FAILED;
    diag_report(o->c->diags, DIAG_RUN, NULL, "no worker is left for %s: %d trials are in %s%s; the same command goes "
                "on", group->run.key.device, group->run.n_trials, o->db,
                searched ? ", the whole model was not compared" : "");
}

void group_end(const TuneOptions *o, Group *group)
{
    if (group->phase == GROUP_DONE || group->phase == GROUP_WHOLE)
        return;
    search_end(&group->run, false);
    if (group->run.interrupted)
        fprintf(stderr, "stopped: %d trials are in %s; the same command goes on\n", group->run.n_trials, o->db);
}
