/* `mpirun mossc tune`: rank 0 has the database and decides, the others measure. */
#ifndef MOSSC_TUNER_MPI_TUNE_H
#define MOSSC_TUNER_MPI_TUNE_H

#include "mpi.h"
#include "tune_parts.h"

/* The whole command of this rank. */
void mpi_tune(const TuneOptions *o, const Mpi *mpi);

#endif
