/* Can this machine run the generated code? Asked before any of it is executed.
 *
 * Input: feature names as in the compiler's target table ("avx2 fma f16c"). Output: the first one
 * missing. A feature counts only when the CPU has it and the system saves its registers.
 * Invariant: this file is compiled for the target's baseline, never with the features it tests.
 */
#include "internal.h"

#include <string.h>

typedef struct { unsigned leaf, subleaf, reg, bit, saved; } moss_cpu_bit;   /* where to look */
typedef struct { const char *name; moss_cpu_bit at; } moss_cpu_feature;

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>

enum { MOSS_EAX, MOSS_EBX, MOSS_ECX, MOSS_EDX };
/* XCR0 bits: register files that the system must save. */
enum { MOSS_SAVED_NONE = 0, MOSS_SAVED_YMM = 0x06, MOSS_SAVED_ZMM = 0xE6 };

static const moss_cpu_feature moss_cpu_features[] = {
    { "sse3",       { 1, 0, MOSS_ECX, 0,  MOSS_SAVED_NONE } },
    { "ssse3",      { 1, 0, MOSS_ECX, 9,  MOSS_SAVED_NONE } },
    { "sse4.1",     { 1, 0, MOSS_ECX, 19, MOSS_SAVED_NONE } },
    { "sse4.2",     { 1, 0, MOSS_ECX, 20, MOSS_SAVED_NONE } },
    { "movbe",      { 1, 0, MOSS_ECX, 22, MOSS_SAVED_NONE } },
    { "popcnt",     { 1, 0, MOSS_ECX, 23, MOSS_SAVED_NONE } },
    { "bmi",        { 7, 0, MOSS_EBX, 3,  MOSS_SAVED_NONE } },
    { "bmi2",       { 7, 0, MOSS_EBX, 8,  MOSS_SAVED_NONE } },
    { "lzcnt",      { 0x80000001, 0, MOSS_ECX, 5, MOSS_SAVED_NONE } },
    { "avx",        { 1, 0, MOSS_ECX, 28, MOSS_SAVED_YMM } },
    { "fma",        { 1, 0, MOSS_ECX, 12, MOSS_SAVED_YMM } },
    { "f16c",       { 1, 0, MOSS_ECX, 29, MOSS_SAVED_YMM } },
    { "avx2",       { 7, 0, MOSS_EBX, 5,  MOSS_SAVED_YMM } },
    { "avxvnni",    { 7, 1, MOSS_EAX, 4,  MOSS_SAVED_YMM } },
    { "avx512f",    { 7, 0, MOSS_EBX, 16, MOSS_SAVED_ZMM } },
    { "avx512dq",   { 7, 0, MOSS_EBX, 17, MOSS_SAVED_ZMM } },
    { "avx512cd",   { 7, 0, MOSS_EBX, 28, MOSS_SAVED_ZMM } },
    { "avx512bw",   { 7, 0, MOSS_EBX, 30, MOSS_SAVED_ZMM } },
    { "avx512vl",   { 7, 0, MOSS_EBX, 31, MOSS_SAVED_ZMM } },
    { "avx512vbmi", { 7, 0, MOSS_ECX, 1,  MOSS_SAVED_ZMM } },
    { "avx512vnni", { 7, 0, MOSS_ECX, 11, MOSS_SAVED_ZMM } },
    { "avx512bf16", { 7, 1, MOSS_EAX, 5,  MOSS_SAVED_ZMM } },
    { "avx512fp16", { 7, 0, MOSS_EDX, 23, MOSS_SAVED_ZMM } },
};

static unsigned moss_cpu_saved(void)
{
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1))   /* OSXSAVE: may XGETBV be asked? */
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool moss_cpu_has(moss_cpu_bit at)
{
    unsigned reg[4] = { 0 };
    if (!__get_cpuid_count(at.leaf, at.subleaf, &reg[0], &reg[1], &reg[2], &reg[3]))
        return false;
    return (reg[at.reg] >> at.bit & 1) && (moss_cpu_saved() & at.saved) == at.saved;
}

#elif defined(__aarch64__)
#include <sys/auxv.h>

/* leaf: AT_HWCAP or AT_HWCAP2; the kernel reports a bit only if it also saves the registers. */
static const moss_cpu_feature moss_cpu_features[] = {
    { "neon",    { AT_HWCAP,  0, 0, 1,  0 } },
    { "fp16",    { AT_HWCAP,  0, 0, 10, 0 } },
    { "dotprod", { AT_HWCAP,  0, 0, 20, 0 } },
    { "sve",     { AT_HWCAP,  0, 0, 22, 0 } },
    { "fhm",     { AT_HWCAP,  0, 0, 23, 0 } },
    { "sve2",    { AT_HWCAP2, 0, 0, 1,  0 } },
    { "i8mm",    { AT_HWCAP2, 0, 0, 13, 0 } },
    { "bf16",    { AT_HWCAP2, 0, 0, 14, 0 } },
};

static bool moss_cpu_has(moss_cpu_bit at)
{
    return getauxval(at.leaf) >> at.bit & 1;
}

#else

static const moss_cpu_feature moss_cpu_features[] = { { "", { 0, 0, 0, 0, 0 } } };

static bool moss_cpu_has(moss_cpu_bit at)
{
    (void)at;
    return false;
}
#endif

/* A name this runtime does not know counts as missing: refusing is safe, guessing is not. */
static bool moss_cpu_has_name(const char *name, size_t len)
{
    const size_t n_features = sizeof moss_cpu_features / sizeof *moss_cpu_features;
    for (size_t i = 0; i < n_features; i++) {
        const moss_cpu_feature *feature = &moss_cpu_features[i];
        if (strlen(feature->name) == len && !memcmp(feature->name, name, len))
            return moss_cpu_has(feature->at);
    }
    return false;
}

const char *moss_cpu_missing(const char *features, int *len)
{
    for (;;) {
        features += strspn(features, " ");
        size_t n = strcspn(features, " ");
        if (n == 0)
            return NULL;
        if (!moss_cpu_has_name(features, n)) {
            *len = (int)n;
            return features;
        }
        features += n;
    }
}
