/* What rank 0 and its workers say to each other; wire.h carries it.
 *
 * Rank 0 greets with the first half of the token, which strangers may know. A worker says HELLO and is told what to do,
 * one thing after another, until END. Kernels and points go by their number: the worker's list of points is the one
 * that counts, since what can be built depends on its caches. Results are the bytes of their structs, whose sizes are
 * compared first.
 */
#ifndef MOSSC_TUNER_MPI_PROTOCOL_H
#define MOSSC_TUNER_MPI_PROTOCOL_H

#include "step.h"
#include "tune_parts.h"
#include "wire.h"

enum { MPI_PROTOCOL = 2, MPI_TOKEN_LEN = 32, MPI_GREETING_LEN = MPI_TOKEN_LEN / 2, MPI_MEETING_LEN = 2048 };

typedef enum {
    MPI_HELLO = 1,       /* worker: token; what MpiHello has */
    MPI_FAILED,          /* worker: words; it can do no more. Before HELLO with token and rank, too */
    MPI_PEAKS,           /* measure what this machine can do at most; worker: operations, bytes a second */
    MPI_BUILD,           /* kernel, points: build them side by side, the others' workloads can go */
    MPI_TRY,             /* kernel, point, incumbent; worker: MPI_TRY with TrialResult */
    MPI_WHOLE,           /* choices; worker: MPI_WHOLE with StepRequest and StepResult */
    MPI_END,
} MpiMessage;

/* A machine, as a worker says HELLO with it. */
typedef struct {
    int rank;
    const char *host;
    const char *target;          /* its name; features, device and toolchain are those of the records */
    RecordKey key;
    const char *digest;          /* of what both must agree on: kernels, templates, this build of mossc */
    int n_jobs;
    const char *const *const *points;    /* [n_jobs][n_points] as text */
    const double *const *costs;          /* likewise, by the cost model */
    const int *n_points;         /* [n_jobs] */
} MpiHello;

void mpi_put_hello(Text *to, const MpiHello *hello);
/* False: it makes no sense. */
bool mpi_read_hello(WireMessage *message, Arena *arena, MpiHello *hello);
/* All of a plan's kernels but their points, and the sizes of what goes as bytes. */
const char *mpi_digest(Arena *arena, const Plan *plan, const Job *jobs, int n);

void mpi_put_choices(Text *to, const Choices *choices);
Choices *mpi_read_choices(WireMessage *message, Arena *arena);
void mpi_put_whole(Text *to, const StepRequest *request, const StepResult *result);
bool mpi_read_whole(WireMessage *message, StepRequest *request, StepResult *result);
/* False: not what a trial can give. */
bool mpi_read_trial(WireMessage *message, int n_times, TrialResult *result);

#endif
