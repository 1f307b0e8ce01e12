/* Report: what a call took by default and what it takes now, a pair of bars a kernel. */
#include "report_parts.h"

static void put_times(const RecordBest *best, Text *out)
{
    report_put_seconds(out, best->default_seconds);
    text_printf(out, " \xe2\x86\x92 ");
    report_put_seconds(out, best->seconds);
}

static void put_row(Arena *arena, const KernelSummary *kernel, int number, Text *out)
{
    const RecordBest *best = &kernel->best;
    text_printf(out, "<div class=\"row\"><div class=\"name\"><b><i>%d</i> ", number);
    html_text(out, kernel->key->kernel, 24);
    text_printf(out, "</b><small>");
    html_text(out, report_shape(arena, kernel->key), 0);
    text_printf(out, "</small></div>");
    if (!best->point || !best->default_point) {
        text_printf(out, "<div class=\"none\">%s</div><div></div></div>\n", best->point ? "the default was not recorded"
                    : summary_why_none(kernel));
        return;
    }
    text_printf(out, "<svg class=\"bars\" role=\"img\" aria-label=\"default and best\"><rect class=\"before\" "
                "width=\"100%%\" height=\"9\" rx=\"2\"/><rect class=\"after\" y=\"12\" width=\"%.2f%%\" "
                "height=\"9\" rx=\"2\"/></svg>", 100 / best->speedup);
    text_printf(out, "<div class=\"figures\"><b>%.2f\xc3\x97</b><small>", best->speedup);
    put_times(best, out);
    text_printf(out, "</small></div><div class=\"point\">");
    html_text(out, best->point, 0);
    text_printf(out, "</div></div>\n");
}

void report_bars(Arena *arena, const Machine *machine, Text *out)
{
    text_printf(out, "<div class=\"legend\"><span class=\"item\"><span class=\"key before\"></span>default</span>"
                "<span class=\"item\"><span class=\"key after\"></span>best</span></div>\n");
    for (int i = 0; i < machine->n; i++)
        put_row(arena, machine->kernels[i], i + 1, out);
}
