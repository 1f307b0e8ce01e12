/* `mpirun mossc tune`: the ranks find each other and take up their parts.
 *
 * A rank other than 0 works in a child process and only watches over it: mpirun ends all ranks when one of its own
 * children is killed, but a worker that is killed, say for want of memory, is not one of those.
 */
#include "mpi_tune.h"

#include "mpi_owner.h"
#include "mpi_protocol.h"
#include "mpi_worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- rank 0 ---- */

static bool make_token(Diags *diags, char token[MPI_TOKEN_LEN + 1])
{
    unsigned char random[MPI_TOKEN_LEN / 2];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        diag_report(diags, DIAG_RUN, NULL, "no random numbers: %s", strerror(errno));
        return false;
    }
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(token + 2 * i, 3, "%02x", random[i]);
    return true;
}

/* What can be wrong is found before the others are waited for. */
static void own(const TuneOptions *o, const Mpi *mpi)
{
    Compilation *c = o->c;
    char address[MPI_MEETING_LEN / 2], text[MPI_MEETING_LEN], token[MPI_TOKEN_LEN + 1];
    if (!driver_check_output(c, o->db) || !driver_plan(c, false) || !make_token(c->diags, token))
        return;
    Records *records = records_open(c->arena, c->diags, o->db, RECORDS_CREATE);
    if (!records)
        return;
    int listener = wire_listen(mpi->one_host, address, sizeof address);
    snprintf(text, sizeof text, "%s %s", token, address);
    if (listener < 0)
        diag_report(c->diags, DIAG_RUN, NULL, "workers cannot be listened for: %s", strerror(errno));
    else if (mpi_tell_all(c->diags, mpi, text, sizeof text))
        mpi_own(o, mpi, records, listener, token);
    if (listener >= 0)
        close(listener);
    records_close(records);
}

/* ---- the others ---- */

static volatile sig_atomic_t child;

static void pass_on(int signal)
{
    if (child > 0)
        kill((pid_t)child, signal);
}

static void watch_over(int rank)
{
    int status = 0;
    while (waitpid((pid_t)child, &status, 0) < 0 && errno == EINTR)
        continue;
    child = 0;
    if (WIFSIGNALED(status))
        fprintf(stderr, "rank %d: its worker was ended by signal %d (%s)\n", rank, WTERMSIG(status),
                strsignal(WTERMSIG(status)));
}

/* True in the child that is to work. */
static bool split(Diags *diags, int rank)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
    const struct sigaction action = { .sa_handler = pass_on };
    const pid_t parent = getpid();
    fflush(NULL);
    child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        return getppid() == parent;
    }
    if (child < 0) {
        diag_report(diags, DIAG_RUN, NULL, "rank %d: no process for its worker: %s", rank, strerror(errno));
        return false;
    }
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
    watch_over(rank);
    return false;
}

void mpi_tune(const TuneOptions *o, const Mpi *mpi)
{
    char text[MPI_MEETING_LEN] = "", token[MPI_TOKEN_LEN + 1];
    if (mpi->rank == 0)
        own(o, mpi);
    else if (mpi_tell_all(o->c->diags, mpi, text, sizeof text) && sscanf(text, "%32s", token) == 1
             && split(o->c->diags, mpi->rank))
        mpi_work(o, mpi, token, text + strlen(token));
}
