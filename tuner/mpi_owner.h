/* Rank 0: has the database, gives out batches, decides. */
#ifndef MOSSC_TUNER_MPI_OWNER_H
#define MOSSC_TUNER_MPI_OWNER_H

#include "mpi.h"
#include "tune_parts.h"

/* Workers connect to `listener` and know `token`. Until every machine's search is at its end. */
void mpi_own(const TuneOptions *o, const Mpi *mpi, Records *records, int listener, const char *token);

#endif
