/* Host lock: flock, tried again and again, so that a signal ends the wait. */
#include "host_lock.h"

#include "../compiler/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

static const char of_cpu[] = "/tmp/mossc-measures.lock", of_gpu[] = "/tmp/mossc-measures-gpu.lock";
enum { WAIT_MS = 5, TELL_MS = 15000 };

/* Of another user it may be read, and that is enough to lock it. */
static int open_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
    return fd >= 0 ? fd : open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
}

HostLock host_lock(HostUse use)
{
    const struct timespec pause = { .tv_nsec = WAIT_MS * 1000000L };
    HostLock lock = { open_file(use == HOST_MEASURES_GPU ? of_gpu : of_cpu) };
    int waited = 0;
    while (lock.fd >= 0 && flock(lock.fd, (use == HOST_BUILDS ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || interrupt_came())
            break;
        nanosleep(&pause, NULL);
        waited += WAIT_MS;
        if (waited == TELL_MS)
            fprintf(stderr, "another mossc measures on this machine: waiting for it\n");
    }
    return lock;
}

/* Children have the file open, too: closing alone would not let go. */
void host_unlock(HostLock *lock)
{
    if (lock->fd < 0)
        return;
    flock(lock->fd, LOCK_UN);
    close(lock->fd);
    lock->fd = -1;
}
