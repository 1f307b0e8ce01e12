/* What the runtime takes of Android's C library (bionic), for 64-bit ARM: declarations of our own, so that a shared
 * library for apps is built without Android's headers. mossc puts this in the place of the C library's headers when no
 * NDK compiler is given; the functions a library may use are listed in bionic.def, and a linker holds it to them.
 *
 * Facts from the public headers of platform/bionic, libc/include, named at each (main of March 2025; sizes and types
 * are those of android-5.0.0_r1); numbers that are the kernel's own (include/uapi, asm-generic for arm64) are marked so.
 * Where memory of the caller's is passed by pointer alone, more is given than bionic takes: a type that grew would do
 * no harm. Least Android: 5.0 (API level 21), the first on 64-bit ARM.
 */
#ifndef MOSS_BIONIC_H
#define MOSS_BIONIC_H

#if !defined(__aarch64__) || !defined(__ANDROID__)
#error "for 64-bit ARM with Android"
#endif

#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#define PATH_MAX 4096                             /* kernel: limits.h */

/* errno.h: a function gives its address */
int *__errno(void) __attribute__((const));
#define errno (*__errno())

/* inttypes.h: 64 bits are a long */
#define PRId64 "ld"
#define PRIu32 "u"
#define PRIu64 "lu"
#define PRIx64 "lx"
#define SCNxPTR "lx"

/* string.h, stdlib.h */
void *memcpy(void *restrict to, const void *restrict from, size_t len);
void *memmove(void *to, const void *from, size_t len);
void *memset(void *to, int byte, size_t len);
int memcmp(const void *a, const void *b, size_t len);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);
size_t strspn(const char *text, const char *accepted);
size_t strcspn(const char *text, const char *rejected);
char *strerror(int number);
void free(void *block);
char *getenv(const char *name);

/* stdio.h: streams are opaque; stdin and its kin had other names before API level 23, so they are not here */
typedef struct __sFILE FILE;
FILE *fopen(const char *restrict path, const char *restrict mode);
int fclose(FILE *stream);
long getline(char **restrict line, size_t *restrict room, FILE *restrict stream);
int sscanf(const char *restrict text, const char *restrict format, ...) __attribute__((format(scanf, 2, 3)));
int snprintf(char *restrict to, size_t room, const char *restrict format, ...) __attribute__((format(printf, 3, 4)));
int vsnprintf(char *restrict to, size_t room, const char *restrict format, va_list arguments)
    __attribute__((format(printf, 3, 0)));

/* math.h */
#define INFINITY __builtin_inff()
float sqrtf(float x);
double pow(double x, double y);
double sin(double x);
double cos(double x);

/* fcntl.h, unistd.h, sys/syscall.h; sys/types.h: off_t has 64 bits, pid_t 32 */
#define O_RDONLY 0                                /* kernel: fcntl.h */
#define O_CLOEXEC 02000000                        /* kernel: fcntl.h */
#define SYS_futex 98                              /* kernel: unistd.h */
#define _SC_NPROCESSORS_ONLN 0x61                 /* bits/sysconf.h */
int open(const char *path, int flags, ...);
int close(int file);
long sysconf(int name);
long syscall(long number, ...);

/* sys/stat.h; kernel: stat.h. 128 bytes. */
struct stat {
    uint64_t st_dev, st_ino;
    uint32_t st_mode, st_nlink, st_uid, st_gid;
    uint64_t st_rdev, moss_pad1;
    int64_t st_size;
    int32_t st_blksize, moss_pad2;
    int64_t st_blocks, moss_times[6];
    uint32_t moss_unused[2];
};
_Static_assert(sizeof(struct stat) == 128 && offsetof(struct stat, st_mode) == 16
               && offsetof(struct stat, st_size) == 48, "as the kernel's");
#define S_ISREG(mode) (((mode) & 0170000) == 0100000)    /* kernel: stat.h */
int fstat(int file, struct stat *info);

/* sys/mman.h */
#define PROT_READ 1                               /* kernel: mman.h */
#define MAP_SHARED 1                              /* kernel: mman.h */
#define MAP_FAILED ((void *)-1)
#define MADV_WILLNEED 3                           /* kernel: mman.h */
void *mmap(void *wanted, size_t len, int protection, int flags, int file, int64_t offset);
int munmap(void *block, size_t len);
int madvise(void *block, size_t len, int advice);

/* time.h */
#define CLOCK_MONOTONIC 1                         /* kernel: time.h */
struct timespec { int64_t tv_sec; long tv_nsec; };
int clock_gettime(int clock, struct timespec *now);

/* sys/auxv.h; kernel: auxvec.h */
#define AT_HWCAP 16
#define AT_HWCAP2 26
unsigned long getauxval(unsigned long type);

/* sched.h: 1024 bits in longs, as the kernel has them */
#define CPU_SETSIZE 1024
typedef struct { uint64_t bits[CPU_SETSIZE / 64]; } cpu_set_t;
#define CPU_ZERO(set) ((void)memset((set), 0, sizeof(cpu_set_t)))
#define CPU_SET(cpu, set) ((void)((set)->bits[(cpu) / 64] |= (uint64_t)1 << (cpu) % 64))
#define CPU_CLR(cpu, set) ((void)((set)->bits[(cpu) / 64] &= ~((uint64_t)1 << (cpu) % 64)))
#define CPU_ISSET(cpu, set) ((int)((set)->bits[(cpu) / 64] >> (cpu) % 64 & 1))
static inline int moss_cpu_count(const cpu_set_t *set)
{
    int n = 0;
    for (int i = 0; i < CPU_SETSIZE / 64; i++)
        n += __builtin_popcountll(set->bits[i]);
    return n;
}
#define CPU_COUNT(set) moss_cpu_count(set)
int sched_getaffinity(int32_t process, size_t len, cpu_set_t *set);
int sched_setaffinity(int32_t process, size_t len, const cpu_set_t *set);

/* signal.h: bionic's set has 8 bytes */
#define SIG_SETMASK 2                             /* kernel: signal.h */
typedef struct { uint64_t bits[16]; } sigset_t;
int sigfillset(sigset_t *set);

/* pthread.h, bits/pthread_types.h: a thread is a long, and passed as one; attributes take 56 bytes */
typedef long pthread_t;
typedef struct { uint64_t moss_room[16]; } pthread_attr_t;
int pthread_attr_init(pthread_attr_t *attributes);
int pthread_attr_setstacksize(pthread_attr_t *attributes, size_t len);
int pthread_attr_destroy(pthread_attr_t *attributes);
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument);
int pthread_join(pthread_t thread, void **result);
int pthread_sigmask(int how, const sigset_t *set, sigset_t *before);

#endif
