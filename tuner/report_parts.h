/* Report, its parts: pictures of kernels, and what they share. Kernels are numbered alike in all of them. */
#ifndef MOSSC_TUNER_REPORT_PARTS_H
#define MOSSC_TUNER_REPORT_PARTS_H

#include "db_summary.h"

/* Kernels of one device, target and toolchain. */
typedef struct { const KernelSummary *const *kernels; int n; } Machine;

/* Each appends an element. */
void report_bars(Arena *arena, const Machine *machine, Text *out);
void report_roofline(Arena *arena, const Machine *machine, Text *out);      /* nothing where no kernel has a place */
void report_curve(Arena *arena, const KernelSummary *kernel, int number, Text *out);

/* Text of others, escaped; at most `most` characters of it, then an ellipsis (0: all). */
void html_text(Text *out, const char *text, int most);
/* "n_in=512 n_out=1024 t512, bf16": without what is 0. */
const char *report_shape(Arena *arena, const RecordKey *key);
/* "190 G": three digits and a prefix of powers of 1000. */
void report_put_amount(Text *out, double value);
/* "12.7 ms" */
void report_put_seconds(Text *out, double seconds);
/* A step of 1, 2 or 5 times a power of ten that cuts `range` into at most n pieces. */
double report_step(double range, int n);

/* A plain map of numbers to pixels. */
typedef struct { double from, to, begin, end; bool logarithmic; } Scale;
double scale_at(const Scale *scale, double value);

#endif
