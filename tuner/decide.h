/* Decisions: what pairs of samples say about a candidate and its incumbent.
 *
 * Sample i of one was taken right beside sample i of the other, so that a machine that drifts slows both. Pure
 * functions of the samples: a search that is run again from its records decides the same.
 */
#ifndef MOSSC_TUNER_DECIDE_H
#define MOSSC_TUNER_DECIDE_H

#include <stdbool.h>

enum { DECIDE_LEAST_PAIRS = 9, DECIDE_MOST_PAIRS = 21 };

/* Median of candidate / incumbent; below 1 the candidate is faster. 0 pairs: 1. */
double decide_ratio(const double *candidate, const double *incumbent, int n);
/* Is measuring on in vain? Asked after every pair. */
bool decide_hopeless(const double *candidate, const double *incumbent, int n);
/* Faster by 1 % or more, and by a sign test not by chance (2 %). */
bool decide_wins(const double *candidate, const double *incumbent, int n);
/* Have enough pairs been taken to know? */
bool decide_done(const double *candidate, const double *incumbent, int n);
/* Slower by 5 % or more, and not by chance: what may not happen at the other token counts. */
bool decide_harms(const double *candidate, const double *incumbent, int n);

/* Slower by 0.5 % or more: what a whole model may not become, be it by chance. What is chosen must show itself; on a
 * machine too noisy to tell, the defaults stay. */
bool decide_slower(double ratio);
/* Do the pairs say the same so clearly that more of them would hardly change it? */
bool decide_slower_settled(const double *candidate, const double *incumbent, int n);

#endif
