/* Progress: what somebody who waits for a search sees, on standard error.
 *
 * On a terminal one line that stays in its place; elsewhere a line now and then, and one for every gain.
 */
#ifndef MOSSC_TUNER_PROGRESS_H
#define MOSSC_TUNER_PROGRESS_H

#include "search.h"

typedef struct Progress {
    bool terminal;
    double last;                 /* seconds since the begin, when something was shown */
} Progress;

Progress progress_new(void);
void progress_show(Progress *progress, const SearchRun *run, const SearchState *state);
/* A line of its own, above the one that stays. */
void progress_say(Progress *progress, const char *format, ...) __attribute__((format(printf, 2, 3)));
void progress_end(Progress *progress);

#endif
