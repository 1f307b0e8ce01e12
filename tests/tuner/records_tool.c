/* Databases for scripts.
 *
 *   records_tool random FILE FIRST N SEED      trials FIRST to FIRST + N - 1 of the endless list, in an order of SEED's
 *   records_tool searches FILE SEED POINTS     two searches; those on ARM with one stale kernel
 *   records_tool gpu FILE SEED POINTS          a search on a GPU
 *   records_tool model FILE MODEL.json TARGET CC SEED    records of this machine for every kernel of a model
 *   records_tool lock FILE                     take the write lock, say so, and wait for the end of standard input
 */
#include "records_make.h"

#include "../../compiler/build.h"
#include "../../compiler/graph_read.h"
#include "../../compiler/passes/pass.h"
#include "../../compiler/plan.h"
#include "../../tuner/identity.h"
#include "../../tuner/jobs.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool make_model(Arena *arena, Diags *diags, char **argv)
{
    TargetId target;
    int n_tensors, n_jobs;
    Graph *graph = graph_read_file(arena, diags, argv[3]);
    if (!graph || !target_from_name(argv[4], &target))
        return false;
    graph_tensors(graph, arena, &n_tensors);
    DType *dtypes = arena_array(arena, DType, (size_t)n_tensors);
    for (int i = 0; i < n_tensors; i++)
        dtypes[i] = DTYPE_BF16;
    Module *module = build_module(arena, graph, dtypes);
    if (!passes_run(module, pass_families(target), diags, NULL, NULL))
        return false;
    const Job *jobs = jobs_of_plan(arena, plan_module(arena, graph, module, target), &n_jobs);
    Records *records = records_open(arena, diags, argv[2], RECORDS_CREATE);
    uint64_t state = strtoull(argv[6], NULL, 10);
    bool ok = records != NULL;
    for (int i = 0; ok && i < n_jobs; i++)
        for (int p = 0; ok && p < 3 && p < jobs[i].n_points; p++) {
            Text point = { 0 };
            double sample = 1e-3 * (1 + (double)make_draw(&state, 1000) / 1000), before = 1.5e-3;
            space_print(&jobs[i].space, &jobs[i].points[make_draw(&state, (uint64_t)jobs[i].n_points)], &point);
            Trial trial = { .point = point.data, .incumbent = p ? "" : point.data, .samples = &sample, .n_samples = 1,
                            .incumbent_samples = &before, .n_incumbent_samples = 1, .max_error = -1, .unix_ms = p };
            job_record_key(arena, &jobs[i], jobs[i].tokens[0], &trial.key);
            trial.key.features = identity_features(arena, target);
            trial.key.device = identity_device(arena, target);
            trial.key.toolchain = identity_toolchain(arena, target, (const char *const[]){ argv[5] }, 1);
            trial.key.template_hash = identity_template(arena, target, trial.key.kernel);
            ok = records_add(records, diags, &trial);
            text_free(&point);
        }
    records_close(records);
    return ok;
}

static bool lock(const char *path)
{
    sqlite3 *db;
    bool ok = sqlite3_open(path, &db) == SQLITE_OK && sqlite3_exec(db, "BEGIN EXCLUSIVE", NULL, NULL,
                                                                   NULL) == SQLITE_OK;
    puts(ok ? "locked" : "not locked");
    fflush(stdout);
    while (getchar() != EOF)
        continue;
    sqlite3_close(db);
    return ok;
}

int main(int argc, char **argv)
{
    Arena *arena = arena_new();
    Diags *diags = diags_new(arena);
    Text text = { 0 };
    bool ok = false;
    if (argc == 6 && strcmp(argv[1], "random") == 0)
        ok = make_random(arena, diags, argv[2], strtoull(argv[3], NULL, 10), atoi(argv[4]), strtoull(argv[5], NULL,
                                                                                                     10));
    else if (argc == 5 && strcmp(argv[1], "searches") == 0)
        ok = make_searches(arena, diags, argv[2], strtoull(argv[3], NULL, 10), atoi(argv[4]), true);
    else if (argc == 5 && strcmp(argv[1], "gpu") == 0)
        ok = make_gpu_search(arena, diags, argv[2], strtoull(argv[3], NULL, 10), atoi(argv[4]));
    else if (argc == 7 && strcmp(argv[1], "model") == 0)
        ok = make_model(arena, diags, argv);
    else if (argc == 3 && strcmp(argv[1], "lock") == 0)
        ok = lock(argv[2]);
    else
        fprintf(stderr, "usage: records_tool random|searches|gpu|model|lock FILE ...\n");
    diags_print(diags, &text);
    fputs(text.len ? text.data : "", stderr);
    text_free(&text);
    arena_free(arena);
    return ok ? 0 : 1;
}
