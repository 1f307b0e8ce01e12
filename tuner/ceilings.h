/* Ceilings: what one core of this machine can do at most, for the roofline of its records. */
#ifndef MOSSC_TUNER_CEILINGS_H
#define MOSSC_TUNER_CEILINGS_H

#include "candidate.h"

/* The most operations a second that independent fused multiply-adds of the target reach (`int8`: or its products of
 * bytes, if more), a multiply-add counted two, and the bytes a second of reading far more than caches hold. Takes about
 * a second. What could not be measured is 0. */
void ceilings_measure(const Builder *builder, Diags *diags, bool int8, double *operations, double *bytes);

#endif
