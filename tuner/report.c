#include "report.h"
void report_html(Arena *arena, const Summary *summary, Text *out) { (void)arena; text_printf(out, "<p>%d", summary->n_trials); }
