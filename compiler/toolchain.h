/* Toolchain: the C compiler an artifact is built with, and running it. */
#ifndef MOSSC_COMPILER_TOOLCHAIN_H
#define MOSSC_COMPILER_TOOLCHAIN_H

#include "../ir/diag.h"
#include "../ir/target.h"

enum { TOOLCHAIN_MAX_ARGS = 128 };
typedef struct { const char *args[TOOLCHAIN_MAX_ARGS]; int n; } ToolCommand;

/* The compiler command for a target: `wanted` (--cc, may hold options) or the first found.
 * False after reporting. */
bool toolchain_find(Arena *arena, Diags *diags, TargetId target, const char *wanted, ToolCommand *cc);
/* Is `program` a path that can be run, or somewhere in PATH? */
bool toolchain_has(Arena *arena, const char *program);
/* Add an argument, or several. */
void tool_add(ToolCommand *command, const char *argument);
void tool_add_words(Arena *arena, ToolCommand *command, const char *words);
/* Run commands side by side and wait for all; what they say is reported when one fails. False after
 * reporting. */
bool toolchain_run(Arena *arena, Diags *diags, const ToolCommand *commands, int n);

#endif
