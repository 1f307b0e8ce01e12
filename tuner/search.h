/* Search: which points of which kernels are tried, in which order, and which of them stay.
 *
 * Input: jobs, a database, a budget and a seed. Output: trials in the database. Invariant: which points of a kernel
 * are tried, in which order and beside which incumbent, follows from the jobs, the options and the outcomes so far,
 * never from the clock, nor from who measures; an outcome that the database has of this search is taken from there. So
 * a search that was ended goes on as if nothing had been, and only its budget in seconds knows of time.
 *
 * Kernels are given out in batches. Batches of different kernels are independent: several machines that are alike work
 * on several of them, one on one after another.
 */
#ifndef MOSSC_TUNER_SEARCH_H
#define MOSSC_TUNER_SEARCH_H

#include "candidate.h"
#include "trial.h"

/* MODEL: by the cost model. RANDOM and GRID are what it is compared with. LEARNED: the model, corrected by records. */
typedef enum { ORDER_MODEL, ORDER_RANDOM, ORDER_GRID, ORDER_LEARNED, N_ORDERS } SearchOrder;
const char *search_order_text(SearchOrder order);
bool search_order_from_text(const char *text, SearchOrder *order);

/* Points are known by their index in job->points; the planner's choice, which need not be among them, is this: */
enum { SEARCH_DEFAULT = -1 };

typedef struct {
    const Job *job;
    RecordKey key;               /* of its records at the token count that decides */
    const double *costs;         /* [n_points] what the cost model says of them; NULL: ask it */
    int *order, next;            /* indices of job->points, and how many of them batches were made of */
    int n_allotted;              /* trials of those batches */
    bool busy;                   /* a batch of it is under way */
    int incumbent;
    const char *incumbent_text;
    double ratio;                /* time of the incumbent over the default's, as the trials that won said */
    int n_trials, n_wins, n_stopped, n_failed;       /* failed: all but ok and stopped */
    bool broken;                 /* its default could not be measured: nothing is tried */

    /* Where it is measured (search_measure.h): */
    Candidate *built;            /* [n_points]; path NULL: not built, or let go */
    const char *default_path;    /* NULL: not built */
    bool has_bits;               /* the checks know the default's results */
    Work *checks[TRIAL_MAX_WORKS], *times[TRIAL_MAX_WORKS];
    int n_checks, n_times;
    double deadline;
} SearchState;

/* Points of one kernel to be tried one after another, the default first of all. */
enum { SEARCH_BATCH = 9 };
typedef struct {
    SearchState *state;
    int points[SEARCH_BATCH], n, next;
    int n_lost;                  /* machines that were lost at points[next] */
    bool known;                  /* the records had something of it */
} SearchBatch;

struct Progress;
struct GpuWorker;
typedef struct {
    Arena *arena;
    Diags *diags;
    const Plan *plan;
    Records *records;
    Search journal;
    Builder builder;
    RecordKey key;               /* what all of its records share */
    SearchOrder order;
    int64_t most_trials;         /* 0: any */
    double most_seconds;         /* 0: any; of all sessions of this search */
    struct Progress *progress;   /* NULL: silent */
    int n_workers;               /* other processes that measure; 0: this one does */

    SearchState *states;
    int n_states, n_trials, n_replayed;
    SearchBatch *due;            /* [n_due] made, and waiting for one of the same kernel */
    int n_due, n_allotted;       /* n_allotted: trials of all batches */
    bool over;                   /* the time is */
    double *curve;               /* after each trial: what search_speedup says of prefill */
    int n_curve;
    Trial *old;                  /* trials that the database had of this search */
    int n_old;
    double begun, spent_before;  /* seconds: by the clock, and of earlier sessions */
    WorkReader *reader;
    struct GpuWorker *gpu;       /* of plans for GPUs: holds the device; NULL: not started */
    bool interrupted;
} SearchRun;

/* The whole search, measured by this process. False after reporting. An interrupt is no failure: run->interrupted. */
bool search_run(SearchRun *run);

/* Its parts, for a search that others measure. With `jobs` NULL they are those of the plan on this machine. False
 * after reporting. */
bool search_begin(SearchRun *run, const Job *jobs, int n_jobs, const double *const *costs);
/* The next batch that can begin while others are under way. False: none now, or none any more. */
bool search_take(SearchRun *run, SearchBatch *batch);
/* Goes through what the records have of a batch, up to a point that must be measured: points[next]. False: it is at
 * its end, or the time is over. */
bool search_advance(SearchRun *run, SearchBatch *batch);
/* Those of its points that must be measured as things are, for building. */
int search_unknown(const SearchRun *run, const SearchBatch *batch, int points[SEARCH_BATCH]);
/* Records how the point ended that must be measured, and decides. False after reporting. */
bool search_settle(SearchRun *run, SearchBatch *batch, const TrialResult *result);
/* It is at its end; or whoever had it is lost, and it is to be given out again. */
void search_end_batch(SearchRun *run, const SearchBatch *batch);
void search_give_back(SearchRun *run, const SearchBatch *batch);
/* Saves the journal. `done`: nothing is left, or the budget is spent. False after reporting. */
bool search_end(SearchRun *run, bool done);

/* May this outcome make its point the incumbent? */
bool search_wins(const TrialResult *result);
/* A point's text; SEARCH_DEFAULT is one, too. */
const char *search_point_text(const SearchRun *run, const SearchState *s, int point);
/* Speed of the model's phase over the default's, as its kernels' trials foretell. */
double search_speedup(const SearchRun *run, int phase);
double search_seconds(const SearchRun *run);
/* Trials after which prefill had `part` of all that it gained; 0: it gained nothing. */
int search_trials_to(const SearchRun *run, double part);

#endif
