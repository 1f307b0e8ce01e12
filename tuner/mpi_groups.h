/* Groups: machines that are alike share one search. */
#ifndef MOSSC_TUNER_MPI_GROUPS_H
#define MOSSC_TUNER_MPI_GROUPS_H

#include "mpi_protocol.h"

typedef enum { GROUP_PEAKS, GROUP_SEARCH, GROUP_WHOLE, GROUP_DONE, GROUP_FAILED } GroupPhase;
typedef struct {
    Compilation c;               /* for its target */
    SearchRun run;
    GroupPhase phase;
    bool busy;                   /* of PEAKS and WHOLE: one worker is at it */
    int n_lost;                  /* workers lost at that */
    const char *digest;
    Choices *choices;            /* of WHOLE */
} Group;

typedef struct { Records *records; Group **at; int n, room; } Groups;

/* Of that machine, begun if it is the first of its kind. NULL: it cannot take part, and `why` says why; with `why` NULL
 * after reporting. */
Group *groups_find(const TuneOptions *o, Groups *groups, const MpiHello *hello, const char **why);
/* All of its trials are done: prints what was found. False after reporting. */
bool group_end_search(const TuneOptions *o, const Groups *groups, Group *group);
/* Reports that nobody is left to go on with it. */
void group_give_up(const TuneOptions *o, Group *group);
/* Its journal saved, if it is not at its end. */
void group_end(const TuneOptions *o, Group *group);
/* Where there are several. */
void group_print_name(const Groups *groups, const Group *group);

#endif
