/* A stand-in for Android's libc.so over glibc, to load libraries for apps where there is no Android: what differs in
 * name, and what differs in the memory that a caller gives, in bionic's sizes (a signal set of 8 bytes, thread
 * attributes of 56). All else is glibc's under the same name. Must come before glibc in the order of search.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct {
    uint32_t flags;
    void *stack_base;
    size_t stack_size, guard_size;
    int32_t policy, priority;
    char reserved[16];
} bionic_attr;
_Static_assert(sizeof(bionic_attr) == 56, "bionic's");

int *bionic_errno(void) __asm__("__errno");
int *bionic_errno(void) { return &errno; }

int bionic_sigfillset(uint64_t *set) __asm__("sigfillset");
int bionic_sigfillset(uint64_t *set)
{
    *set = ~(uint64_t)0;
    return 0;
}

int bionic_sigmask(int how, const uint64_t *set, uint64_t *before) __asm__("pthread_sigmask");
int bionic_sigmask(int how, const uint64_t *set, uint64_t *before)
{
    return syscall(SYS_rt_sigprocmask, how, set, before, sizeof *set) == 0 ? 0 : errno;
}

int bionic_attr_init(bionic_attr *attr) __asm__("pthread_attr_init");
int bionic_attr_init(bionic_attr *attr)
{
    memset(attr, 0, sizeof *attr);
    attr->stack_size = 1 << 16;
    return 0;
}

int bionic_attr_setstacksize(bionic_attr *attr, size_t len) __asm__("pthread_attr_setstacksize");
int bionic_attr_setstacksize(bionic_attr *attr, size_t len)
{
    attr->stack_size = len;
    return len < 1 << 14 ? EINVAL : 0;
}

int bionic_attr_destroy(bionic_attr *attr) __asm__("pthread_attr_destroy");
int bionic_attr_destroy(bionic_attr *attr)
{
    memset(attr, 0xff, sizeof *attr);
    return 0;
}

typedef int create_fn(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
typedef int attr_fn(pthread_attr_t *);
typedef int size_fn(pthread_attr_t *, size_t);

int bionic_create(long *thread, const bionic_attr *attr, void *(*body)(void *), void *argument)
    __asm__("pthread_create");
int bionic_create(long *thread, const bionic_attr *attr, void *(*body)(void *), void *argument)
{
    pthread_attr_t own;
    ((attr_fn *)dlsym(RTLD_NEXT, "pthread_attr_init"))(&own);
    if (attr)
        ((size_fn *)dlsym(RTLD_NEXT, "pthread_attr_setstacksize"))(&own, attr->stack_size);
    return ((create_fn *)dlsym(RTLD_NEXT, "pthread_create"))((pthread_t *)thread, &own, body, argument);
}
