/* Targets: the table's rows and what this machine can run.
 *
 * Input: a name or an id. Output: a row of target.def; `host` resolved by asking the CPU.
 * Invariant: rows of one family go from the least to the most demanding, so the last that runs
 * here is the best.
 */
#include "target.h"
#include "text.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#if defined __x86_64__
#include <cpuid.h>
#elif defined __aarch64__
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

static const Target rows[N_TARGETS] = {
#define TARGET(id, name, family, lanes, tile_rows, tail_rows, dot_offset, flags, features, summary) \
    [TARGET_##id] = { name, FAMILY_##family, lanes, tile_rows, tail_rows, dot_offset, flags, features, summary },
#include "target.def"
#undef TARGET
};

const Target *target_info(TargetId id)
{
    if ((unsigned)id >= N_TARGETS)
        BUG("target %d", (int)id);
    return &rows[id];
}

int target_codes(TargetId id, TargetId codes[TARGET_MAX_CODES])
{
    static const TargetId android[] = { TARGET_ARM_NEON, TARGET_ARM_DOTPROD, TARGET_ARM_I8MM };
    const TargetId *list = id == TARGET_ANDROID_ARM64 ? android : &id;
    int n = id == TARGET_ANDROID_ARM64 ? (int)(sizeof android / sizeof *android) : 1;
    for (int i = 0; i < n; i++)
        codes[i] = list[i];
    return n;
}

bool target_has_codes(TargetId id)
{
    TargetId codes[TARGET_MAX_CODES];
    return target_codes(id, codes) > 1;
}

bool target_from_name(const char *name, TargetId *id)
{
    for (int i = 0; i < N_TARGETS; i++)
        if (strcmp(rows[i].name, name) == 0) {
            *id = (TargetId)i;
            return true;
        }
    return false;
}

#if defined __x86_64__
/* Asked by hand: some compilers that can emit AVX-VNNI do not know its name here. The registers are AVX2's. */
static bool cpu_has_avxvnni(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}
#endif

/* The flags ask the C compiler for whole architecture levels, so the levels are what is asked of
 * the CPU; the feature list in the table is the part of them that the kernels rely on. */
static bool cpu_runs(TargetId id)
{
#if defined __x86_64__
    __builtin_cpu_init();
    switch (id) {
    case TARGET_X86_64_V3: return __builtin_cpu_supports("x86-64-v3");
    case TARGET_X86_64_AVXVNNI: return __builtin_cpu_supports("x86-64-v3") && cpu_has_avxvnni();
    case TARGET_X86_64_V4: return __builtin_cpu_supports("x86-64-v4");
    case TARGET_X86_64_VNNI: return __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512vnni");
    case TARGET_X86_64_BF16:
        return __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
    default: return false;
    }
#elif defined __aarch64__
    const unsigned long has = getauxval(AT_HWCAP), has2 = getauxval(AT_HWCAP2);
    const bool dotprod = (has & HWCAP_ASIMDHP) && (has & HWCAP_ASIMDDP);
    switch (id) {
    case TARGET_ARM_NEON: case TARGET_ANDROID_ARM64: return true;      /* part of armv8-a itself */
    case TARGET_ARM_DOTPROD: case TARGET_ARM_FP16: return dotprod;
    case TARGET_ARM_I8MM: case TARGET_ARM_BF16: return dotprod && (has2 & HWCAP2_I8MM) && (has2 & HWCAP2_BF16);
    default: return false;
    }
#else
    (void)id;
    return false;
#endif
}

TargetId target_resolve(TargetId id)
{
    if (id != TARGET_HOST)
        return id;
#if defined __aarch64__
    TargetId best = TARGET_ARM_NEON;
#else
    TargetId best = TARGET_X86_64_V3;   /* also where nothing runs: target_runs_here then says so */
#endif
    for (int i = 0; i < N_TARGETS; i++)
        if (i != TARGET_HOST && target_row_dtype((TargetId)i) == DTYPE_F32 && !target_has_codes((TargetId)i) && cpu_runs((TargetId)i))
            best = (TargetId)i;
    return best;
}

int target_dot_group(TargetId id) { return target_info(id)->family == FAMILY_AARCH64 ? 8 : 4; }

DType target_row_dtype(TargetId id)
{
    return id == TARGET_X86_64_BF16 || id == TARGET_ARM_BF16 ? DTYPE_BF16 : id == TARGET_ARM_FP16 ? DTYPE_F16 : DTYPE_F32;
}

int target_sm(TargetId id)
{
    int sm = 0;
    return target_info(id)->family == FAMILY_GPU && sscanf(target_info(id)->features, "sm_%d", &sm) == 1 ? sm : 0;
}

int sm_shared_most(int sm) { return (sm >= 90 ? 227 : 163) << 10; }

const char *target_lacks_here(TargetId id)
{
    if (target_sm(id))
        return dlopen("libcuda.so.1", RTLD_LAZY) ? NULL : "there is no GPU driver (libcuda.so.1)";
    return cpu_runs(target_resolve(id)) ? NULL : "its processor lacks what that needs (mossc targets)";
}

bool target_runs_here(TargetId id) { return !target_lacks_here(id); }
