/* Search: which points of which kernels are tried, in which order, and which of them stay.
 *
 * Input: jobs, a database, a budget and a seed. Output: trials in the database. Invariant: what is tried next follows
 * from the jobs, the options and the outcomes so far, never from the clock; an outcome that the database has of this
 * search is taken from there. So a search that was ended goes on as if nothing had been, and only its budget in
 * seconds knows of time.
 */
#ifndef MOSSC_TUNER_SEARCH_H
#define MOSSC_TUNER_SEARCH_H

#include "candidate.h"
#include "trial.h"

/* MODEL: by the cost model. RANDOM and GRID are what it is compared with. */
typedef enum { ORDER_MODEL, ORDER_RANDOM, ORDER_GRID, N_ORDERS } SearchOrder;
const char *search_order_text(SearchOrder order);
bool search_order_from_text(const char *text, SearchOrder *order);

typedef struct {
    const Job *job;
    int *order, next;            /* indices of job->points, and how many of them were taken */
    SpacePoint incumbent;
    const char *incumbent_text, *incumbent_path, *default_path;      /* paths NULL: not built */
    double ratio;                /* time of the incumbent over the default's, as the trials that won said */
    int n_trials, n_wins, n_stopped, n_failed;       /* failed: all but ok and stopped */
    bool broken;                 /* its default could not be measured: nothing is tried */
    bool has_bits;               /* the checks know the default's results */
    Work *checks[TRIAL_MAX_WORKS], *times[TRIAL_MAX_WORKS];
    int n_checks, n_times;
    double deadline;
} SearchState;

struct Progress;
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

    SearchState *states;
    int n_states, n_trials, n_replayed;
    double *curve;               /* after each trial: what search_speedup says of prefill */
    int n_curve;
    Trial *old;                  /* trials that the database had of this search */
    int n_old;
    double begun, spent_before;  /* seconds: by the clock, and of earlier sessions */
    WorkReader *reader;
    bool interrupted;
} SearchRun;

/* False after reporting. An interrupt is no failure: run->interrupted. */
bool search_run(SearchRun *run);
/* Speed of the model's phase over the default's, as its kernels' trials foretell. */
double search_speedup(const SearchRun *run, int phase);
double search_seconds(const SearchRun *run);
/* Trials after which prefill had `part` of all that it gained; 0: it gained nothing. */
int search_trials_to(const SearchRun *run, double part);

#endif
