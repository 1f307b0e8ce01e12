/* MPI: who of how many processes this one is, and how they find each other.
 *
 * Open MPI's mpirun starts them; its library is looked for at run time, so mossc does not need it. MPI itself only
 * carries rank 0's address to the others, in a child process that is gone afterwards: a communicator does not survive
 * the death of one of its ranks, and a search has to. From then on they talk over sockets (wire.h).
 */
#ifndef MOSSC_TUNER_MPI_H
#define MOSSC_TUNER_MPI_H

#include "../ir/diag.h"

typedef struct {
    int rank, size;              /* size 1: not started by mpirun, or alone */
    bool one_host;               /* do all of them run on one machine? */
    bool recovers;               /* mpirun --enable-recovery: the others outlive a rank that is killed */
} Mpi;

/* From the environment alone. False after reporting: started by another MPI. */
bool mpi_look(Diags *diags, Mpi *mpi);
/* Rank 0's text, `len` bytes with its NUL, becomes that of all. False after reporting. */
bool mpi_tell_all(Diags *diags, const Mpi *mpi, char *text, int len);

#endif
