/* Writer for GPUs, internal: what c_file.c lends it. */
#ifndef MOSSC_CODEGEN_GPU_FILE_H
#define MOSSC_CODEGEN_GPU_FILE_H

#include "codegen.h"
#include "../ir/plan.h"
#include "../ir/text.h"

/* A C string literal, a line of text a line. */
void c_write_literal(Text *out, const char *text);
/* The manifest and the moss_program table; `gpu`: it points to gpu_program instead of two functions. */
void c_write_program(const Plan *plan, WeightSums sums, bool embedded, bool gpu, Text *out);

#endif
