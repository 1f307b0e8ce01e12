/* MPI: Open MPI's binary interface, of which five functions and two objects are used. */
#include "mpi.h"

#include "watch.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double meet_seconds = 120;

static int number_of(const char *name, int absent)
{
    const char *text = getenv(name);
    return text && *text ? atoi(text) : absent;
}

bool mpi_look(Diags *diags, Mpi *mpi)
{
    *mpi = (Mpi){ .rank = number_of("OMPI_COMM_WORLD_RANK", 0), .size = number_of("OMPI_COMM_WORLD_SIZE", 1) };
    mpi->one_host = number_of("OMPI_COMM_WORLD_LOCAL_SIZE", 0) == mpi->size;
    mpi->recovers = number_of("OMPI_MCA_orte_enable_recovery", 0) != 0;
    if (!getenv("OMPI_COMM_WORLD_SIZE") && number_of("PMI_SIZE", 1) > 1) {
        diag_report(diags, DIAG_RUN, NULL, "started %d times by an MPI that is not Open MPI: only Open MPI's mpirun is "
                    "known", number_of("PMI_SIZE", 1));
        return false;
    }
    return true;
}

/* What the child and its parent share. */
typedef struct { int rank, len, done; char why[200], text[]; } Meeting;

typedef struct {
    int (*init)(int *, char ***), (*rank)(void *, int *), (*bcast)(void *, int, void *, int, void *), (*finalize)(void);
    void *world, *byte;
} Library;

static bool load(Library *mpi, char *why, size_t len)
{
    /* Global: its plugins take their symbols from it. */
    void *handle = dlopen("libmpi.so.40", RTLD_NOW | RTLD_GLOBAL);
    if (!handle)
        handle = dlopen("libmpi.so", RTLD_NOW | RTLD_GLOBAL);
    if (!handle) {
        snprintf(why, len, "%s", dlerror());
        return false;
    }
    *(void **)&mpi->init = dlsym(handle, "MPI_Init");
    *(void **)&mpi->rank = dlsym(handle, "MPI_Comm_rank");
    *(void **)&mpi->bcast = dlsym(handle, "MPI_Bcast");
    *(void **)&mpi->finalize = dlsym(handle, "MPI_Finalize");
    mpi->world = dlsym(handle, "ompi_mpi_comm_world");
    mpi->byte = dlsym(handle, "ompi_mpi_byte");
    if (mpi->init && mpi->rank && mpi->bcast && mpi->finalize && mpi->world && mpi->byte)
        return true;
    snprintf(why, len, "the MPI library that is installed is not Open MPI's");
    return false;
}

static void meet(void *context)
{
    Meeting *meeting = context;
    Library mpi;
    int rank = -1;
    /* A few bytes once: no need to warn about networks that are not there. */
    setenv("OMPI_MCA_btl_base_warn_component_unused", "0", 1);
    if (!load(&mpi, meeting->why, sizeof meeting->why))
        return;
    if (mpi.init(NULL, NULL) != 0 || mpi.rank(mpi.world, &rank) != 0 || rank != meeting->rank
        || mpi.bcast(meeting->text, meeting->len, mpi.byte, 0, mpi.world) != 0) {
        snprintf(meeting->why, sizeof meeting->why, "MPI does not come about (rank %d)", rank);
        return;
    }
    mpi.finalize();
    meeting->done = 1;
}

bool mpi_tell_all(Diags *diags, const Mpi *mpi, char *text, int len)
{
    Meeting *meeting = watch_memory(sizeof *meeting + (size_t)len);
    if (!meeting) {
        diag_report(diags, DIAG_RUN, NULL, "no memory for MPI");
        return false;
    }
    meeting->rank = mpi->rank;
    meeting->len = len;
    if (mpi->rank == 0)
        snprintf(meeting->text, (size_t)len, "%s", text);
    const Watched end = watch_run(meet, meeting, meet_seconds);
    const bool ok = end.status == TRIAL_OK && meeting->done && !end.interrupted;
    if (ok)
        snprintf(text, (size_t)len, "%s", meeting->text);
    else if (!end.interrupted)
        diag_report(diags, DIAG_RUN, NULL, "rank %d of %d: %s", mpi->rank, mpi->size,
                    *meeting->why ? meeting->why : *end.detail ? end.detail : "MPI does not come about");
    watch_release(meeting, sizeof *meeting + (size_t)len);
    return ok;
}
