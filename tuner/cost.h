/* Cost model: what a kernel's point should take, from operations, bytes and pipes alone.
 *
 * It only says which points to try first; what is measured decides. Unit: cycles of one core, roughly.
 */
#ifndef MOSSC_TUNER_COST_H
#define MOSSC_TUNER_COST_H

#include "jobs.h"

double cost_of_point(const Job *job, const SpacePoint *point, int n_tokens);

#endif
