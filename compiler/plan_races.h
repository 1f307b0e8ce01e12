/* Checker of plans: what its two halves share. */
#ifndef MOSSC_COMPILER_PLAN_RACES_H
#define MOSSC_COMPILER_PLAN_RACES_H

#include "plan.h"

typedef struct {
    const Plan *plan;
    const BlockPlan *block;    /* NULL: the model */
    int phase;                 /* PLAN_PREFILL, PLAN_DECODE */
    Text *why;
} Checker;

/* The value whose bytes these are. */
const Value *check_storage(const Value *value);
/* Between two barriers no thread touches what another writes. */
bool check_races(const Checker *checker);

#endif
