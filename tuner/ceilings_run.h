/* Ceilings run: what loops of a machine's own instructions reach. Also built into the programs that boards run. */
#ifndef MOSSC_TUNER_CEILINGS_RUN_H
#define MOSSC_TUNER_CEILINGS_RUN_H

enum { CEILINGS_DEADLINE_S = 30 };

typedef struct { double operations, operations_int8, bytes; } Ceilings;    /* a second */
typedef struct {
    int lanes;                           /* of a vector of floats */
    float (*multiply)(long steps), (*multiply_int8)(long steps), (*read)(const float *p, long n);
} CeilingKernels;

/* The best of several short runs, since whatever else the machine does can only make them slower. */
void ceilings_run(const CeilingKernels *kernels, Ceilings *found);

#endif
