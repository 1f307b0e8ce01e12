/* Host lock: of all mossc on a machine one measures at a time, and nobody builds meanwhile.
 *
 * GPUs count by themselves: who measures there leaves the processor to others.
 * A lock on a file in /tmp that ends with its holder, however that ends. Where there can be no such file nobody waits.
 */
#ifndef MOSSC_TUNER_HOST_LOCK_H
#define MOSSC_TUNER_HOST_LOCK_H

/* BUILDS: beside others that build. MEASURES: alone. MEASURES_GPU: alone among those. */
typedef enum { HOST_BUILDS, HOST_MEASURES, HOST_MEASURES_GPU } HostUse;
typedef struct { int fd; } HostLock;

/* Waits, at most until a signal comes. */
HostLock host_lock(HostUse use);
void host_unlock(HostLock *lock);

#endif
