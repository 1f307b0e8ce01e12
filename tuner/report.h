/* Report: a database as one page of HTML with everything in it: text, style and SVG, no script, nothing to fetch. */
#ifndef MOSSC_TUNER_REPORT_H
#define MOSSC_TUNER_REPORT_H

#include "db_summary.h"

void report_html(Arena *arena, const Summary *summary, Text *out);

#endif
