/* Statuses of trials: status.def as an enumeration. Uses nothing, since boards are told of them, too. */
#ifndef MOSSC_TUNER_STATUS_H
#define MOSSC_TUNER_STATUS_H

typedef enum {
#define STATUS(id, ...) TRIAL_##id,
#include "status.def"
#undef STATUS
    N_TRIAL_STATUSES
} TrialStatus;

#endif
