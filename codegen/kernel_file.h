/* Kernel file: one kernel instance as a C file of its own, for tuning.
 *
 * Compiled as a shared object it exports what the manifest below names; nothing else in it is visible.
 */
#ifndef MOSSC_CODEGEN_KERNEL_FILE_H
#define MOSSC_CODEGEN_KERNEL_FILE_H

#include "template.h"
#include "../ir/plan.h"

/* What a kernel's file exports: a pointer to the function, and the text of its manifest. */
#define KERNEL_FILE_FUNCTION "moss_kernel"
#define KERNEL_FILE_MANIFEST "moss_kernel_manifest"
/* What a reader's file exports: void (float *out [n_in][panel], const void *weights, int n_in, int panel, int dtype),
 * one stored panel as numbers, by the functions that the runtime's headers give. */
#define KERNEL_FILE_READER "moss_read_panel"

/* {"format": "mossc-kernel/1", "name": ..., "symbol": ..., "result": "void", "arguments": [{"name", "type", "dtype"}]}
 * with the words that the manifest of a library has. */
void kernel_file_manifest(const Template *template, const double *values, Text *out);
void kernel_file_write(const Template *template, const double *values, Text *out);
/* Several in one file: the headers, then each with a suffix to its symbols; their names must differ, too. */
void kernel_file_begin(Text *out);
void kernel_file_add(const Template *template, const double *values, const char *suffix, Text *out);
void kernel_file_write_reader(Text *out);

/* The instance that a step of a plan for a CPU calls: its template, and what its parameters are. */
const Template *kernel_of_step(Arena *arena, const Plan *plan, const BlockPlan *block, int phase, const Step *step,
                               double values[TEMPLATE_MAX_PARAMS]);

#endif
