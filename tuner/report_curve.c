/* Report: one kernel's speed over its trials.
 *
 * Input: a kernel's trials in the order of the search, and their ranking. Output: the best speed so far as a line,
 * every trial that was measured as a dot, those stopped early as circles, failures as crosses below.
 */
#include "report_parts.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 340, HEIGHT = 196, LEFT = 44, RIGHT = 334, TOP = 10, BOTTOM = 140, STRIP = 156, LABELS = 186 };

/* Speed over the default of each trial, in order; 0 for a failure. */
typedef struct { double *speed; int n; Scale x, y; } Curve;

static const RankedPoint *ranked(const KernelSummary *kernel, const char *point)
{
    for (int i = 0; i < kernel->ranking->n; i++)
        if (strcmp(kernel->ranking->points[i].point, point) == 0)
            return &kernel->ranking->points[i];
    return NULL;
}

/* A trial that was stopped has no place in the ranking: it is as slow as it was beside its incumbent. */
static double speed_of(Arena *arena, const KernelSummary *kernel, const Trial *trial)
{
    const RankedPoint *own = ranked(kernel, trial->point), *incumbent = ranked(kernel, trial->incumbent);
    if (trial->status == TRIAL_OK && own && own->relative > 0)
        return 1 / own->relative;
    double ratio = trial->status == TRIAL_STOPPED ? rank_ratio(arena, trial) : 0;
    return ratio > 0 && incumbent && incumbent->relative > 0 ? 1 / (ratio * incumbent->relative) : 0;
}

static Curve curve_of(Arena *arena, const KernelSummary *kernel)
{
    Curve curve = { .speed = arena_array(arena, double, (size_t)kernel->n), .n = kernel->n };
    double low = 1, high = 1;
    for (int i = 0; i < kernel->n; i++) {
        double speed = curve.speed[i] = speed_of(arena, kernel, kernel->trials[i]);
        low = speed > 0 && speed < low ? speed : low;
        high = speed > high ? speed : high;
    }
    double room = high - low < 0.02 ? 0.02 : 0.06 * (high - low);
    curve.y = (Scale){ low - room, high + room, BOTTOM, TOP, false };
    curve.x = (Scale){ 0, curve.n > 1 ? curve.n - 1 : 1, LEFT + 6, RIGHT - 6, false };
    return curve;
}

static void put_axes(const Curve *curve, Text *out)
{
    double step = report_step(curve->y.to - curve->y.from, 5);
    for (double v = ceil(curve->y.from / step) * step; v <= curve->y.to + step * 1e-9; v += step) {
        double y = scale_at(&curve->y, v);
        text_printf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
                         "<text class=\"tick end\" x=\"%d\" y=\"%.1f\">%.*f\xc3\x97</text>\n",
                    LEFT, RIGHT, y, y, LEFT - 6, y + 4, step < 0.1 ? step < 0.01 ? 3 : 2 : 1, v);
    }
    step = report_step(curve->n > 1 ? curve->n - 1 : 1, 5);
    step = step < 1 ? 1 : step;
    for (double v = 0; v < curve->n; v += step)
        text_printf(out, "<text class=\"tick middle\" x=\"%.1f\" y=\"%d\">%.0f</text>\n", scale_at(&curve->x, v),
                    LABELS, v + 1);
    double one = scale_at(&curve->y, 1);
    text_printf(out, "<line class=\"base\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n", LEFT, RIGHT, one, one);
    text_printf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/>\n", LEFT, RIGHT, LABELS - 16,
                LABELS - 16);
}

static void put_mark(const Curve *curve, const Trial *trial, int i, Text *out)
{
    double x = scale_at(&curve->x, i), speed = curve->speed[i];
    bool failed = trial->status != TRIAL_OK && trial->status != TRIAL_STOPPED;
    if (failed)
        text_printf(out, "<path class=\"failed\" d=\"M%.1f %dl6 6m0 -6l-6 6\">", x - 3, STRIP - 3);
    else if (speed > 0)
        text_printf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\">", trial_status_text(trial->status), x,
                    scale_at(&curve->y, speed));
    else
        return;
    text_printf(out, "<title>%d: ", i + 1);
    html_text(out, trial->point, 120);
    if (failed) {
        text_printf(out, " \xe2\x80\x94 %s: ", trial_status_text(trial->status));
        html_text(out, trial->detail, 200);
    } else {
        text_printf(out, " \xe2\x80\x94 %.3f\xc3\x97", speed);
    }
    text_printf(out, "</title></%s>\n", failed ? "path" : "circle");
}

/* The best is what the ranking would take: a point that may only have been lucky does not raise the line. */
static void put_best_line(const Curve *curve, const KernelSummary *kernel, Text *out)
{
    double least = INFINITY;
    for (int i = 0; i < curve->n; i++) {
        const RankedPoint *point = ranked(kernel, kernel->trials[i]->point);
        double x = scale_at(&curve->x, i), y = scale_at(&curve->y, curve->speed[i]);
        if (kernel->trials[i]->status != TRIAL_OK || !point || point->excluded
            || !(point->relative * point->margin < least))
            continue;
        if (least < INFINITY)
            text_printf(out, "H%.1fV%.1f", x, y);
        else
            text_printf(out, "<path class=\"sofar\" d=\"M%.1f %.1f", x, y);
        least = point->relative * point->margin;
    }
    if (least < INFINITY)
        text_printf(out, "H%.1f\"/>\n", curve->x.end);
}

void report_curve(Arena *arena, const KernelSummary *kernel, int number, Text *out)
{
    Curve curve = curve_of(arena, kernel);
    text_printf(out, "<figure class=\"curve\"><figcaption><b><i>%d</i> ", number);
    html_text(out, kernel->key->kernel, 24);
    if (kernel->best.point && kernel->best.default_point)
        text_printf(out, "</b> <em>%.2f\xc3\x97</em>", kernel->best.speedup);
    else
        text_printf(out, "</b> <em>%s</em>", kernel->best.point ? "no default" : "none");
    text_printf(out, "<small title=\"");
    html_text(out, kernel->key->shape, 0);
    text_printf(out, "\">");
    html_text(out, report_shape(arena, kernel->key), 0);
    text_printf(out, "</small></figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" "
                "aria-label=\"speed over trials of ", WIDTH, HEIGHT);
    html_text(out, kernel->key->kernel, 0);
    text_printf(out, "\">\n");
    put_axes(&curve, out);
    for (int i = 0; i < curve.n; i++)
        put_mark(&curve, kernel->trials[i], i, out);
    put_best_line(&curve, kernel, out);
    text_printf(out, "</svg></figure>\n");
}
