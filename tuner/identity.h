/* Identity: the parts of a RecordKey that a machine, a target and this mossc give. `mossc tune` and
 * `mossc compile --tuning` must spell them alike, so both take them from here.
 */
#ifndef MOSSC_TUNER_IDENTITY_H
#define MOSSC_TUNER_IDENTITY_H

#include "../ir/arena.h"
#include "../ir/target.h"

/* The target's name and what it needs: "x86-64-v3: avx2 fma ...". */
const char *identity_features(Arena *arena, TargetId target);
/* This machine: "AMD EPYC 9B14, 2 cpus"; for a GPU target "NVIDIA H200, sm_90, CUDA 13", or "unknown GPU". */
const char *identity_device(Arena *arena, TargetId target);
/* Of the text of a /proc/cpuinfo, which may be another machine's. */
const char *identity_device_of_cpuinfo(Arena *arena, const char *cpuinfo);
/* The first line that `cc --version` says, and the arguments in the command `cc` of n words; for a GPU target how
 * mossc makes PTX. */
const char *identity_toolchain(Arena *arena, TargetId target, const char *const *cc, int n);
/* Hash of a template's text and of the headers its code needs; "step" stands for all templates. "" when this
 * mossc has no such template. */
const char *identity_template(Arena *arena, TargetId target, const char *kernel);

#endif
