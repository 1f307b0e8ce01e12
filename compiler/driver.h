/* Driver: a command line becomes a plan, and a plan an artifact.
 *
 * model.json -> graph -> IR -> passes -> plan -> code -> artifact. Each step is one function of
 * driver.c; artifact.c does the last two.
 */
#ifndef MOSSC_COMPILER_DRIVER_H
#define MOSSC_COMPILER_DRIVER_H

#include "options.h"
#include "weights.h"
#include "../ir/choices.h"
#include "../ir/plan.h"

typedef struct Compilation {
    Arena *arena;
    Diags *diags;
    const char *model;       /* path of the graph */
    const Options *options;
    const char *out;         /* where the artifact goes; NULL for what goes to stdout */
    TargetId target;
    Graph *graph;
    Weights *weights;        /* NULL when no weights are needed */
    DType *dtypes;           /* of each tensor as stored */
    Module *module;
    const Choices *choices;  /* what tuning chose; NULL: nothing */
    const Choices *(*choose)(struct Compilation *c);     /* of --tuning, once there is a plan; NULL after reporting */
    Plan *plan;
    int64_t n_context, max_rss, max_scratch;     /* max_rss 0: any; max_scratch 0: as usual */
    int n_threads;
    bool is_packed;          /* the packed weights are there, from another build of this model, with these sums */
    uint64_t packed_sum, values_sum;
    bool linked_in;          /* obj: into a program of mossc's own, which is static */
} Compilation;

/* Is it a graph, by its name, and not an artifact? */
bool driver_is_graph(const char *path);
/* --target to c->target. False after reporting. */
bool driver_choose_target(Compilation *c);
/* May `path` be written, and is no input? False after reporting. */
bool driver_check_output(const Compilation *c, const char *path);
/* Everything up to the plan. `need_weights`: open the checkpoint even if none was named. */
bool driver_plan(Compilation *c, bool need_weights);
/* The whole of `mossc compile`. `emit` overrides --emit. */
bool driver_compile(Compilation *c, const char *emit);

/* artifact.c: write an artifact of kind exe, lib, obj, static or c to c->out. `check`, before anything
 * is read: can the options and the places it goes to be right? c->target is chosen. */
bool artifact_is_kind(const char *kind);
bool artifact_check(Compilation *c, const char *kind);
bool artifact_write(Compilation *c, const char *kind);

#endif
