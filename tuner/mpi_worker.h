/* A worker: builds and measures what rank 0 asks for, and knows no database. */
#ifndef MOSSC_TUNER_MPI_WORKER_H
#define MOSSC_TUNER_MPI_WORKER_H

#include "mpi.h"
#include "tune_parts.h"

/* Until rank 0 says that it is over, or is gone. */
void mpi_work(const TuneOptions *o, const Mpi *mpi, const char *token, const char *address);

#endif
