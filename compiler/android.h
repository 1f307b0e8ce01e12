/* Building for Android: tools, flags and the files that stand for its C library. */
#ifndef MOSSC_COMPILER_ANDROID_H
#define MOSSC_COMPILER_ANDROID_H

#include "toolchain.h"

typedef struct {
    bool given;            /* --cc: it brings its own C library */
    bool bionic;           /* built against stand-ins for Android's C library; else, not given: with musl, static */
    const char *libgcc;    /* what long doubles in musl take */
} AndroidTools;

/* The tools for an artifact of a kind ("exe", ...); `cc` compiles and links. False after reporting what to install. */
bool android_find(Arena *arena, Diags *diags, TargetId target, const char *kind, const char *wanted,
                  AndroidTools *tools, ToolCommand *cc);
/* Flags for compiling. */
const char *android_compile_flags(const AndroidTools *tools);
/* The link of an executable or a shared library, without its output: what stands before the objects, and after them.
 * `folder` has exports.map, and libc.so and libm.so where they are stand-ins; `out`: the library's name. */
void android_link_begin(Arena *arena, const AndroidTools *tools, const char *kind, const char *folder, const char *out,
                        ToolCommand *command);
void android_link_end(Arena *arena, const AndroidTools *tools, const char *kind, const char *folder,
                      ToolCommand *command);

#endif
